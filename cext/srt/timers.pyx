"""The heap of deadlines (timers.pxd)."""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport free, malloc


cdef int timers_init(timer_heap* h, uint32_t room) noexcept nogil:
    """Room for `room` timers; pages are touched as they are used."""
    h.entries = <timer_entry*>malloc(room * sizeof(timer_entry))
    h.used = 0
    h.room = room
    return 0 if h.entries != NULL else -1


cdef void timers_free(timer_heap* h) noexcept nogil:
    free(h.entries)
    h.entries = NULL
    h.used = 0


cdef inline void _put(timer_heap* h, uint32_t at, timer_entry entry) noexcept nogil:
    h.entries[at] = entry
    entry.timer.place = at + 1


cdef void _up(timer_heap* h, uint32_t at, timer_entry entry) noexcept nogil:
    cdef uint32_t parent
    while at:
        parent = (at - 1) >> 1
        if h.entries[parent].deadline_us <= entry.deadline_us:
            break
        _put(h, at, h.entries[parent])
        at = parent
    _put(h, at, entry)


cdef void _down(timer_heap* h, uint32_t at, timer_entry entry) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * at + 1
        if child >= h.used:
            break
        if child + 1 < h.used and h.entries[child + 1].deadline_us < h.entries[child].deadline_us:
            child += 1
        if h.entries[child].deadline_us >= entry.deadline_us:
            break
        _put(h, at, h.entries[child])
        at = child
    _put(h, at, entry)


cdef void timers_set(timer_heap* h, timer* t, int64_t deadline_us) noexcept nogil:
    """Set or move a timer; one more than there is room for is never set (the caller bounds their number)."""
    cdef timer_entry entry
    cdef uint32_t at
    cdef int64_t before
    entry.deadline_us = deadline_us
    entry.timer = t
    if t.place:
        before = t.deadline_us
        t.deadline_us = deadline_us
        at = t.place - 1
        if deadline_us < before:
            _up(h, at, entry)
        else:
            _down(h, at, entry)
        return
    if h.used == h.room:
        return
    t.deadline_us = deadline_us
    h.used += 1
    _up(h, h.used - 1, entry)


cdef void timers_cancel(timer_heap* h, timer* t) noexcept nogil:
    """Take a timer out, if it is in."""
    cdef timer_entry last
    cdef uint32_t at
    if t.place == 0:
        return
    at = t.place - 1
    t.place = 0
    t.deadline_us = INT64_MAX
    h.used -= 1
    if at == h.used:
        return
    last = h.entries[h.used]
    if at and h.entries[(at - 1) >> 1].deadline_us > last.deadline_us:
        _up(h, at, last)
    else:
        _down(h, at, last)


cdef class TimerHeap:
    """A heap of numbered timers for tests."""

    cdef timer_heap view
    cdef timer* timers
    cdef uint32_t room

    def __cinit__(self, uint32_t room):
        cdef uint32_t i
        self.room = room
        self.timers = <timer*>malloc(room * sizeof(timer))
        if self.timers == NULL or timers_init(&self.view, room) < 0:
            raise MemoryError
        for i in range(room):
            self.timers[i].place = 0
            self.timers[i].deadline_us = INT64_MAX

    def __dealloc__(self):
        timers_free(&self.view)
        free(self.timers)

    def set(self, uint32_t number, int64_t deadline_us):
        """Set timer `number`."""
        if number >= self.room:
            raise IndexError(number)
        timers_set(&self.view, &self.timers[number], deadline_us)

    def cancel(self, uint32_t number):
        """Take timer `number` out."""
        if number >= self.room:
            raise IndexError(number)
        timers_cancel(&self.view, &self.timers[number])

    def first(self):
        """(deadline_us, number) of the earliest, or None."""
        if self.view.used == 0:
            return None
        return self.view.entries[0].deadline_us, self.view.entries[0].timer - self.timers
