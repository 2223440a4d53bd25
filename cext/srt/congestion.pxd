"""What a live sender allows itself (draft-sharabayko-srt-01, section 5.1).

New packets go out as the source gives them, but a backlog in portions; retransmissions may add
`max_overhead_percent` to the measured rate (the draft's INPUTBW_ESTIMATED with OVERHEAD), a second's worth at once.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    K_BURST_PKTS = 88             # new packets at once: two batches of datagrams
    K_PORTION_PKTS = 44           # of a backlog, at least, each K_PORTION_US
    K_PORTION_US = 2000
    K_BACKLOG_SHARE = 16          # of a backlog, this part each K_PORTION_US if that is more

cdef struct rate_meter:           # a moving average over half-second windows
    uint64_t bytes                # in the window
    uint32_t pkts
    uint32_t pad
    int64_t since_us
    uint64_t bytes_per_s
    uint64_t pkts_per_s

cdef struct overhead_budget:
    int64_t bytes                 # may be spent
    int64_t filled_us

cdef void rate_add(rate_meter* m, uint32_t bytes, uint32_t pkts, int64_t now_us) noexcept nogil
cdef void budget_fill(overhead_budget* b, uint64_t bytes_per_s, uint32_t percent, int64_t now_us) noexcept nogil
cdef int64_t budget_wait_us(overhead_budget* b, uint64_t bytes_per_s, uint32_t percent, uint32_t bytes) noexcept nogil
