"""The estimate of the round-trip time (rtt.pxd)."""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    K_FIRST_RTT_US = 100000
    K_FIRST_VARIANCE_US = 50000
    K_MOST_RTT_US = 10000000      # a sample above this tells of a stall, not of the path


cdef void rtt_init(rtt_estimate* r) noexcept nogil:
    r.rtt_us = K_FIRST_RTT_US
    r.variance_us = K_FIRST_VARIANCE_US
    r.samples = 0


cdef void rtt_sample(rtt_estimate* r, int64_t sample_us) noexcept nogil:
    """Weigh a sample in: 1/8 into the RTT, 1/4 into its variance; the first one replaces the guess."""
    cdef int64_t rtt = r.rtt_us
    cdef int64_t difference
    if sample_us < 0:
        sample_us = 0
    if sample_us > K_MOST_RTT_US:
        sample_us = K_MOST_RTT_US
    if r.samples == 0:
        r.rtt_us = <uint32_t>sample_us
        r.variance_us = <uint32_t>(sample_us // 2)
    else:
        difference = rtt - sample_us if rtt > sample_us else sample_us - rtt
        r.variance_us = <uint32_t>((3 * <int64_t>r.variance_us + difference) // 4)
        r.rtt_us = <uint32_t>((7 * rtt + sample_us) // 8)
    r.samples += 1


def estimate(samples_us):
    """(RTT, RTTVar) in µs after these samples."""
    cdef rtt_estimate r
    rtt_init(&r)
    for sample in samples_us:
        rtt_sample(&r, sample)
    return r.rtt_us, r.variance_us
