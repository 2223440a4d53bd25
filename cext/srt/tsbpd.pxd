"""Timestamp-based packet delivery (draft-sharabayko-srt-01, sections 4.5 and 4.7).

delivery time = base + timestamp + delay + drift. Timestamps are unwrapped to 64 bits as they come, each taken as
the one nearest to the newest, so the base never has to jump. Drift is the mean of 1,000 samples; what of it goes beyond
5 ms is moved into the base.

The base is the handshake's arrival, and a handshake may have waited: in the peer, for its socket to be made, or in us,
for the loop. So the fastest packet of the first second sets it, if that is earlier by no more than such a wait.
"""

from libc.stdint cimport int64_t, uint32_t

cdef struct tsbpd:
    int64_t base_us               # our clock when the peer's timestamp was 0
    int64_t delay_us              # the negotiated latency
    int64_t drift_us
    int64_t newest_us             # newest timestamp, unwrapped
    int64_t drift_sum_us
    uint32_t drift_samples
    uint32_t moves                # times that drift was moved into the base
    int64_t first_rtt_us          # -1: none yet
    int64_t least_base_us         # it was not so late that the base goes below this
    int64_t settled_us            # from then on packets set it no more

cdef void tsbpd_init(tsbpd* t, int64_t now_us, uint32_t timestamp, int64_t delay_us) noexcept nogil
cdef void tsbpd_drift(tsbpd* t, uint32_t timestamp, int64_t now_us, int64_t rtt_us) noexcept nogil

cdef inline int64_t tsbpd_unwrap(tsbpd* t, uint32_t timestamp) noexcept nogil:
    """The 64-bit timestamp nearest to the newest one."""
    return t.newest_us + <int64_t><int>(timestamp - <uint32_t>t.newest_us)

cdef inline void tsbpd_arrived(tsbpd* t, int64_t timestamp_us, int64_t now_us) noexcept nogil:
    """A packet with this (unwrapped) timestamp came, for the first time: was it faster than the handshake?"""
    if now_us - timestamp_us < t.base_us and now_us < t.settled_us:
        t.base_us = max(now_us - timestamp_us, t.least_base_us)

cdef inline int64_t tsbpd_due_us(tsbpd* t, int64_t timestamp_us) noexcept nogil:
    """When a packet with this (unwrapped) timestamp is to be delivered."""
    return t.base_us + timestamp_us + t.delay_us + t.drift_us
