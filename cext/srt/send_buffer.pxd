"""A sender's packets, from the oldest that is not acknowledged to the newest.

A slot doesn't hold bytes but tells where they are: at a position of a ring in the arena, or, of what was
handed in by send(), in a chunk. Slots grow as far as `max_pkts`.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef struct send_slot:
    uint64_t at                   # position in the source ring, or the address of a chunk
    uint32_t timestamp            # as on the wire
    uint32_t sent                 # low 32 bits of the time of the last sending, µs
    uint32_t length               # bytes
    uint16_t sends                # how often it was sent
    uint16_t owned                # 1: `at` is a chunk

cdef struct send_buffer:
    send_slot* slots
    uint32_t size                 # slots, a power of two; 0 at first
    uint32_t max_pkts
    int64_t first                 # oldest not acknowledged
    int64_t next                  # next to be sent for the first time
    int64_t end                   # after the newest

cdef void send_init(send_buffer* b, uint32_t max_pkts) noexcept nogil
cdef send_slot* send_push(send_buffer* b) noexcept nogil      # NULL: full, or no memory
cdef void send_clear(send_buffer* b) noexcept nogil           # chunks must have been given back

cdef inline send_slot* send_at(send_buffer* b, int64_t index) noexcept nogil:
    """The slot of a packet in first..end-1."""
    return &b.slots[index & (b.size - 1)]
