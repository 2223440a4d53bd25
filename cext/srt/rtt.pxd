"""Round-trip time (draft-sharabayko-srt-01, section 4.10), and the ACKs that wait for their ACKACK."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    K_ACK_WINDOW = 64             # full ACKs remembered: 0.64 s of them

cdef struct rtt_estimate:
    uint32_t rtt_us
    uint32_t variance_us
    uint64_t samples              # 0: the values are the protocol's first guess

cdef struct sent_ack:
    uint32_t number
    uint32_t pad
    int64_t index                 # what it acknowledged
    int64_t sent_us

cdef void rtt_init(rtt_estimate* r) noexcept nogil
cdef void rtt_sample(rtt_estimate* r, int64_t sample_us) noexcept nogil

cdef inline int64_t rtt_timeout_us(rtt_estimate* r) noexcept nogil:
    """RTT + 4 * RTTVar."""
    return <int64_t>r.rtt_us + 4 * <int64_t>r.variance_us
