"""A heap of deadlines, one a connection. Entries carry the deadline, so sifting touches no connection but to tell its place."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t

cdef struct timer:                # inside what it wakes
    int64_t deadline_us           # INT64_MAX: not set
    uint32_t place                # 1 + index in the heap; 0: not in it
    uint32_t pad
    void* owner

cdef struct timer_entry:
    int64_t deadline_us
    timer* timer

cdef struct timer_heap:
    timer_entry* entries
    uint32_t used
    uint32_t room

cdef int timers_init(timer_heap* h, uint32_t room) noexcept nogil    # -1: no memory; never grows after
cdef void timers_free(timer_heap* h) noexcept nogil
cdef void timers_set(timer_heap* h, timer* t, int64_t deadline_us) noexcept nogil
cdef void timers_cancel(timer_heap* h, timer* t) noexcept nogil

cdef inline int64_t timers_next(timer_heap* h) noexcept nogil:
    """The earliest deadline; INT64_MAX when there is none."""
    return h.entries[0].deadline_us if h.used else INT64_MAX
