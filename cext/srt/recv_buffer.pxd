"""A receiver's packets, from the next one to be delivered to the newest one that came.

A ring of slots by index that grows as far as `max_pkts`. The bytes lie in chunks of a slab.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from flux.cext.srt.slab cimport slab

cdef enum recv_result:
    RECV_STORED = 0
    RECV_DUPLICATE = 1
    RECV_LATE = 2                 # already delivered, or given up
    RECV_BEYOND = 3               # past what the buffer may hold
    RECV_NO_MEMORY = 4

cdef struct recv_slot:
    uint8_t* data                 # NULL: not here
    int64_t timestamp_us          # the sender's, unwrapped
    uint32_t length               # bytes
    uint32_t pad

cdef struct recv_buffer:
    recv_slot* slots
    slab* bytes
    uint32_t size                 # slots, a power of two; 0 at first
    uint32_t max_pkts
    uint32_t held                 # packets here
    uint32_t pad
    int64_t first                 # next to be delivered
    int64_t head                  # oldest packet here, if held
    int64_t end                   # after the newest that ever came

cdef void recv_init(recv_buffer* b, slab* bytes, uint32_t max_pkts) noexcept nogil
cdef recv_result recv_put(recv_buffer* b, int64_t index, const uint8_t* data, uint32_t length,
                          int64_t timestamp_us) noexcept nogil
cdef void recv_skip_to(recv_buffer* b, int64_t index) noexcept nogil     # index ≤ head, or nothing is held
cdef void recv_pop(recv_buffer* b) noexcept nogil                        # the head, with all before it
cdef void recv_clear(recv_buffer* b) noexcept nogil

cdef inline recv_slot* recv_head(recv_buffer* b) noexcept nogil:
    """The oldest packet here; NULL: none."""
    return &b.slots[b.head & (b.size - 1)] if b.held else NULL
