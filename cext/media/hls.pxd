"""HLS segments of a stream, as any process sees them (written by hls_pump.pyx in the stream's owner).

A segment's bytes lie at `base + (pos & mask)`, contiguous (arena.pxd). To send them:

    hls_open(&v, a, slot)                             # once a stream
    if hls_find(&v, sequence, &segment) == 0:         # once a request
        n = send(fd, v.base + ((segment.pos + sent) & v.mask), segment.length - sent)
        if not hls_valid(&v, segment.pos):            # after each send
            close the connection: the bytes were given back or written over meanwhile

Bytes at `pos` are intact while `hls_ctl.reserve <= pos + size`; their writer raises `reserve` before it touches them.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from flux.cext.arena cimport Arena, arena, hls_ctl, hls_segment, stream_slot

cdef struct hls_view:             # one process's view of a stream's segments
    hls_ctl* ctl
    uint8_t* base                 # mapped twice in a row
    uint64_t size
    uint64_t mask
    stream_slot* slot
    uint64_t generation           # the slot's, at opening: hls_alive compares

# 0, or -1 when the slot is free or memory can't be mapped
cdef int hls_open(hls_view* v, arena* a, uint32_t slot) noexcept nogil
cdef bint hls_alive(hls_view* v) noexcept nogil
cdef bint hls_valid(hls_view* v, uint64_t pos) noexcept nogil
cdef void hls_want(hls_view* v, uint64_t until_us) noexcept nogil
# 0; 1: yet to come; -1: gone, or the table is being changed for too long
cdef int hls_find(hls_view* v, uint64_t sequence, hls_segment* out) noexcept nogil
# the whole table at one instant: 0, or -1
cdef int hls_copy(hls_view* v, hls_ctl* out) noexcept nogil

cdef class HlsReader:
    cdef hls_view view
    cdef readonly Arena arena
    cdef readonly uint32_t slot
