"""Ranges of missing packets by index, in order, never touching: what a receiver asks for, or a sender owes.

`ask_at_us` is the time at which a receiver reports the range (again). The coding on the wire is that of
draft-sharabayko-srt-01, appendix A: a number, or a first number with its top bit set and a last one.
"""

from libc.stdint cimport int64_t, uint32_t

cdef struct loss_range:
    int64_t first                 # index
    int64_t last
    int64_t ask_at_us

cdef struct loss_list:
    loss_range* ranges
    uint32_t begin                # ranges[begin:end] are in use
    uint32_t end
    uint32_t room
    uint32_t pad
    int64_t pkts                  # packets in all ranges

# 0, or -1 when there is no memory; then the list is as it was
cdef int loss_append(loss_list* l, int64_t first, int64_t last, int64_t ask_at_us) noexcept nogil
cdef int loss_insert(loss_list* l, int64_t first, int64_t last, int64_t ask_at_us) noexcept nogil
cdef int loss_remove(loss_list* l, int64_t first, int64_t last) noexcept nogil
cdef void loss_remove_before(loss_list* l, int64_t index) noexcept nogil
cdef void loss_clear(loss_list* l) noexcept nogil

cdef inline bint loss_empty(loss_list* l) noexcept nogil:
    return l.begin == l.end

cdef inline int64_t loss_first(loss_list* l) noexcept nogil:
    """The smallest index; the list must not be empty."""
    return l.ranges[l.begin].first
