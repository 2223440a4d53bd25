"""The send buffer (send_buffer.pxd tells its shape)."""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    K_FIRST_SLOTS = 32


cdef void send_init(send_buffer* b, uint32_t max_pkts) noexcept nogil:
    b.slots = NULL
    b.size = 0
    b.max_pkts = max_pkts
    b.first = 0
    b.next = 0
    b.end = 0


cdef send_slot* send_push(send_buffer* b) noexcept nogil:
    """A cleared slot at the end; NULL when max_pkts are held or there is no memory."""
    cdef uint32_t size
    cdef send_slot* slots
    cdef int64_t i
    if b.end - b.first >= b.max_pkts:
        return NULL
    if b.end - b.first >= b.size:
        size = b.size * 2 if b.size else K_FIRST_SLOTS
        slots = <send_slot*>calloc(size, sizeof(send_slot))
        if slots == NULL:
            return NULL
        for i in range(b.first, b.end):
            slots[i & (size - 1)] = b.slots[i & (b.size - 1)]
        free(b.slots)
        b.slots = slots
        b.size = size
    b.end += 1
    memset(send_at(b, b.end - 1), 0, sizeof(send_slot))
    return send_at(b, b.end - 1)


cdef void send_clear(send_buffer* b) noexcept nogil:
    free(b.slots)
    b.slots = NULL
    b.size = 0
    b.first = b.end
    b.next = b.end


cdef class SendBuffer:
    """A send buffer for tests and inspection: slots carry a number each."""

    cdef send_buffer view

    def __cinit__(self, uint32_t max_pkts):
        send_init(&self.view, max_pkts)

    def __dealloc__(self):
        send_clear(&self.view)

    def push(self, uint32_t number):
        """Add a slot: its index, or None when the buffer is full."""
        cdef send_slot* slot = send_push(&self.view)
        if slot == NULL:
            return None
        slot.at = number
        return self.view.end - 1

    def acknowledge(self, int64_t index):
        """Let go of all before `index`."""
        self.view.first = max(self.view.first, min(index, self.view.end))

    def numbers(self):
        """What the slots carry, oldest first."""
        cdef int64_t i
        return [send_at(&self.view, i).at for i in range(self.view.first, self.view.end)]

    @property
    def slots(self):
        """Slots allocated."""
        return self.view.size
