"""The receive buffer (recv_buffer.pxd tells its shape)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from flux.cext.srt.packet cimport K_PAYLOAD_BYTES
from flux.cext.srt.slab cimport slab, slab_clear, slab_give, slab_init, slab_take

cdef enum:
    K_FIRST_SLOTS = 64


cdef void recv_init(recv_buffer* b, slab* bytes, uint32_t max_pkts) noexcept nogil:
    b.slots = NULL
    b.bytes = bytes
    b.size = 0
    b.max_pkts = max_pkts
    b.held = 0
    b.first = 0
    b.head = 0
    b.end = 0


cdef int _grow(recv_buffer* b, int64_t span) noexcept nogil:
    """Slots for `span` packets from b.first on."""
    cdef uint32_t size = b.size if b.size else K_FIRST_SLOTS
    cdef recv_slot* slots
    cdef int64_t i, limit
    while size < span:
        size *= 2
    if size == b.size:
        return 0
    slots = <recv_slot*>calloc(size, sizeof(recv_slot))
    if slots == NULL:
        return -1
    if b.held:
        # `end` may lie further than any packet that is here.
        limit = min(b.end, b.first + b.size)
        for i in range(b.head, limit):
            slots[i & (size - 1)] = b.slots[i & (b.size - 1)]
    free(b.slots)
    b.slots = slots
    b.size = size
    return 0


cdef recv_result recv_put(recv_buffer* b, int64_t index, const uint8_t* data, uint32_t length,
                          int64_t timestamp_us) noexcept nogil:
    """Copy a packet's payload in, at most K_CHUNK_BYTES."""
    cdef recv_slot* slot
    if index < b.first:
        return RECV_LATE
    if index - b.first >= b.max_pkts:
        return RECV_BEYOND
    if index - b.first >= b.size and _grow(b, index - b.first + 1) < 0:
        return RECV_NO_MEMORY
    slot = &b.slots[index & (b.size - 1)]
    if slot.data != NULL:
        return RECV_DUPLICATE
    slot.data = slab_take(b.bytes)
    if slot.data == NULL:
        return RECV_NO_MEMORY
    memcpy(slot.data, data, length)
    slot.length = length
    slot.timestamp_us = timestamp_us
    if b.held == 0 or index < b.head:
        b.head = index
    if index >= b.end:
        b.end = index + 1
    b.held += 1
    return RECV_STORED


cdef void recv_skip_to(recv_buffer* b, int64_t index) noexcept nogil:
    """Give up what is missing before `index`."""
    b.first = index
    if b.end < index:
        b.end = index


cdef void recv_pop(recv_buffer* b) noexcept nogil:
    """Let go of the head; what was missing before it is given up too."""
    cdef recv_slot* slot = &b.slots[b.head & (b.size - 1)]
    slab_give(b.bytes, slot.data)
    slot.data = NULL
    b.held -= 1
    b.head += 1
    b.first = b.head
    if b.held:
        while b.slots[b.head & (b.size - 1)].data == NULL:
            b.head += 1


cdef void recv_clear(recv_buffer* b) noexcept nogil:
    """Let go of everything."""
    while b.held:
        recv_pop(b)
    free(b.slots)
    b.slots = NULL
    b.size = 0


cdef class ReceiveBuffer:
    """A receive buffer for tests and inspection."""

    cdef recv_buffer view
    cdef slab bytes

    def __cinit__(self, uint32_t max_pkts, uint64_t max_bytes=1 << 24):
        slab_init(&self.bytes, max_bytes)
        recv_init(&self.view, &self.bytes, max_pkts)

    def __dealloc__(self):
        recv_clear(&self.view)
        slab_clear(&self.bytes)

    def put(self, int64_t index, bytes data not None, int64_t timestamp_us=0):
        """Store one packet: "stored", "duplicate", "late", "beyond" or "no_memory"."""
        if len(data) > K_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(data)} bytes; {K_PAYLOAD_BYTES} are taken")
        cdef recv_result result = recv_put(
            &self.view, index, <const uint8_t*><const char*>data, <uint32_t>len(data), timestamp_us
        )
        return ("stored", "duplicate", "late", "beyond", "no_memory")[<int>result]

    def head(self):
        """The oldest packet as (index, bytes, timestamp_us), or None."""
        cdef recv_slot* slot = recv_head(&self.view)
        return None if slot == NULL else (self.view.head, slot.data[:slot.length], slot.timestamp_us)

    def pop(self):
        """The oldest packet as head() gives it, taken out."""
        head = self.head()
        if head is not None:
            recv_pop(&self.view)
        return head

    @property
    def first(self):
        """Index of the next packet to be delivered."""
        return self.view.first

    @property
    def end(self):
        """Index after the newest packet that came."""
        return self.view.end

    @property
    def chunks(self):
        """Chunks of memory in use."""
        return self.bytes.chunks

    def __len__(self):
        return self.view.held
