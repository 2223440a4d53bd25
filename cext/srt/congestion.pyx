"""Rates and the budget of retransmissions (congestion.pxd)."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    K_WINDOW_US = 500000
    K_LEAST_OVERHEAD = 32000      # bytes a second: a slow or a resting stream can still repair a loss
    K_LEAST_DEPTH = 48000         # bytes: 32 large packets at once


cdef void rate_add(rate_meter* m, uint32_t bytes, uint32_t pkts, int64_t now_us) noexcept nogil:
    """Count; at the end of a window weigh it into the average by a half."""
    cdef int64_t elapsed
    cdef uint64_t rate
    if m.since_us == 0:
        m.since_us = now_us
    elapsed = now_us - m.since_us
    if elapsed >= K_WINDOW_US:
        rate = m.bytes * 1000000 // <uint64_t>elapsed
        m.bytes_per_s = (m.bytes_per_s + rate) // 2 if m.bytes_per_s else rate
        rate = <uint64_t>m.pkts * 1000000 // <uint64_t>elapsed
        m.pkts_per_s = (m.pkts_per_s + rate) // 2 if m.pkts_per_s else rate
        m.bytes = 0
        m.pkts = 0
        m.since_us = now_us
    m.bytes += bytes
    m.pkts += pkts


cdef inline uint64_t _allowed(uint64_t bytes_per_s, uint32_t percent) noexcept nogil:
    cdef uint64_t rate = bytes_per_s * percent // 100
    return rate if rate > K_LEAST_OVERHEAD else K_LEAST_OVERHEAD


cdef void budget_fill(overhead_budget* b, uint64_t bytes_per_s, uint32_t percent, int64_t now_us) noexcept nogil:
    """Let the budget grow with time, up to what a second brings."""
    cdef uint64_t rate = _allowed(bytes_per_s, percent)
    cdef int64_t depth = <int64_t>rate if rate > K_LEAST_DEPTH else K_LEAST_DEPTH
    cdef int64_t elapsed = now_us - b.filled_us
    if elapsed <= 0:
        return
    if b.filled_us == 0 or elapsed > 1000000:
        b.bytes = depth
    else:
        b.bytes += <int64_t>rate * elapsed // 1000000
        if b.bytes > depth:
            b.bytes = depth
    b.filled_us = now_us


cdef int64_t budget_wait_us(overhead_budget* b, uint64_t bytes_per_s, uint32_t percent, uint32_t bytes) noexcept nogil:
    """How long until `bytes` may be spent."""
    cdef int64_t missing = <int64_t>bytes - b.bytes
    return missing * 1000000 // <int64_t>_allowed(bytes_per_s, percent) + 1 if missing > 0 else 0


def spend(uint64_t bytes_per_s, uint32_t percent, uint32_t packet_bytes, times_us):
    """How many packets a budget lets through at each of these times, when as many as it allows are asked for."""
    cdef overhead_budget b
    b.bytes = 0
    b.filled_us = 0
    allowed = []
    for now_us in times_us:
        budget_fill(&b, bytes_per_s, percent, now_us)
        allowed.append(b.bytes // packet_bytes)
        b.bytes %= packet_bytes
    return allowed


def measure(amounts):
    """(bytes a second, packets a second) after these (bytes, now_us)."""
    cdef rate_meter m
    m.bytes = 0
    m.pkts = 0
    m.since_us = 0
    m.bytes_per_s = 0
    m.pkts_per_s = 0
    for count, now_us in amounts:
        rate_add(&m, count, 1, now_us)
    return m.bytes_per_s, m.pkts_per_s
