"""Loss lists (loss_list.pxd tells what they are)."""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

cdef enum:
    K_FIRST_ROOM = 16


cdef int _make_room(loss_list* l) noexcept nogil:
    """Room for one more range at the end."""
    cdef uint32_t room
    cdef void* grown
    if l.end < l.room:
        return 0
    if l.begin > l.room >> 1:
        memmove(l.ranges, l.ranges + l.begin, (l.end - l.begin) * sizeof(loss_range))
        l.end -= l.begin
        l.begin = 0
        return 0
    room = l.room * 2 if l.room else K_FIRST_ROOM
    grown = realloc(l.ranges, room * sizeof(loss_range))
    if grown == NULL:
        return -1
    l.ranges = <loss_range*>grown
    l.room = room
    return 0


cdef uint32_t _place(loss_list* l, int64_t index) noexcept nogil:
    """The place of the first range that ends at or after `index`."""
    cdef uint32_t low = l.begin
    cdef uint32_t high = l.end
    cdef uint32_t middle
    if low < high and l.ranges[low].last >= index:
        return low
    while low < high:
        middle = low + (high - low) // 2
        if l.ranges[middle].last < index:
            low = middle + 1
        else:
            high = middle
    return low


cdef void _settle(loss_list* l) noexcept nogil:
    if l.begin == l.end:
        l.begin = 0
        l.end = 0


cdef int loss_append(loss_list* l, int64_t first, int64_t last, int64_t ask_at_us) noexcept nogil:
    """Add a range that lies beyond all others; it stays apart, as it has a time of its own."""
    cdef loss_range* r
    if _make_room(l) < 0:
        return -1
    r = &l.ranges[l.end]
    r.first = first
    r.last = last
    r.ask_at_us = ask_at_us
    l.end += 1
    l.pkts += last - first + 1
    return 0


cdef int loss_insert(loss_list* l, int64_t first, int64_t last, int64_t ask_at_us) noexcept nogil:
    """Add a range anywhere; it swallows what it touches and then has `ask_at_us`."""
    cdef uint32_t at, until
    cdef loss_range* r
    if _make_room(l) < 0:
        return -1
    at = _place(l, first - 1)
    until = at
    while until < l.end and l.ranges[until].first <= last + 1:
        r = &l.ranges[until]
        l.pkts -= r.last - r.first + 1
        if r.first < first:
            first = r.first
        if r.last > last:
            last = r.last
        until += 1
    if until != at + 1:
        memmove(l.ranges + at + 1, l.ranges + until, (l.end - until) * sizeof(loss_range))
        l.end = l.end + 1 + at - until
    r = &l.ranges[at]
    r.first = first
    r.last = last
    r.ask_at_us = ask_at_us
    l.pkts += last - first + 1
    return 0


cdef int loss_remove(loss_list* l, int64_t first, int64_t last) noexcept nogil:
    """Take out whatever lies in first..last: how many packets that were; -1 when a split finds no memory."""
    cdef uint32_t at = _place(l, first)
    cdef uint32_t until
    cdef int64_t before = l.pkts
    cdef loss_range* r
    if at == l.end or l.ranges[at].first > last:
        return 0
    r = &l.ranges[at]
    if r.first < first and r.last > last:
        at -= l.begin
        if _make_room(l) < 0:
            return -1
        at += l.begin
        r = &l.ranges[at]
        memmove(r + 1, r, (l.end - at) * sizeof(loss_range))
        l.end += 1
        r.last = first - 1
        (r + 1).first = last + 1
        l.pkts -= last - first + 1
        return <int>(last - first + 1)
    if r.first < first:
        l.pkts -= r.last - first + 1
        r.last = first - 1
        at += 1
    until = at
    while until < l.end and l.ranges[until].last <= last:
        l.pkts -= l.ranges[until].last - l.ranges[until].first + 1
        until += 1
    if until < l.end and l.ranges[until].first <= last:
        l.pkts -= last + 1 - l.ranges[until].first
        l.ranges[until].first = last + 1
    if at == l.begin:
        l.begin = until
    elif until != at:
        memmove(l.ranges + at, l.ranges + until, (l.end - until) * sizeof(loss_range))
        l.end -= until - at
    _settle(l)
    return <int>(before - l.pkts)


cdef void loss_remove_before(loss_list* l, int64_t index) noexcept nogil:
    """Take out all that lies before `index`."""
    cdef loss_range* r
    while l.begin < l.end and l.ranges[l.begin].first < index:
        r = &l.ranges[l.begin]
        if r.last >= index:
            l.pkts -= index - r.first
            r.first = index
            return
        l.pkts -= r.last - r.first + 1
        l.begin += 1
    _settle(l)


cdef void loss_clear(loss_list* l) noexcept nogil:
    """Empty the list and free its memory."""
    free(l.ranges)
    l.ranges = NULL
    l.begin = 0
    l.end = 0
    l.room = 0
    l.pkts = 0


cdef class LossList:
    """A loss list for tests and inspection; all numbers are indices."""

    cdef loss_list view

    def __dealloc__(self):
        loss_clear(&self.view)

    def append(self, int64_t first, int64_t last, int64_t ask_at_us=0):
        """Add a range beyond all others."""
        if loss_append(&self.view, first, last, ask_at_us) < 0:
            raise MemoryError

    def insert(self, int64_t first, int64_t last, int64_t ask_at_us=0):
        """Add a range anywhere."""
        if loss_insert(&self.view, first, last, ask_at_us) < 0:
            raise MemoryError

    def remove(self, int64_t first, int64_t last):
        """Take a range out: how many packets of it were there."""
        cdef int removed = loss_remove(&self.view, first, last)
        if removed < 0:
            raise MemoryError
        return removed

    def remove_before(self, int64_t index):
        """Take out all before `index`."""
        loss_remove_before(&self.view, index)

    def ranges(self):
        """All ranges as (first, last, ask_at_us)."""
        cdef uint32_t i
        return [
            (self.view.ranges[i].first, self.view.ranges[i].last, self.view.ranges[i].ask_at_us)
            for i in range(self.view.begin, self.view.end)
        ]

    def __len__(self):
        return self.view.pkts
