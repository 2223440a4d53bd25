"""Rings in the arena: one writer, any number of readers in any process, no locks.

Positions are 64-bit byte counts that never wrap; `pos & mask` is the place in the ring. Because the
bytes are mapped twice in a row, `base + (pos & mask)` is contiguous for up to `size` bytes.

The writer moves `reserve` (release), then writes bytes and index records, then moves `commit` (release).
A reader loads `commit` (acquire), uses the bytes, then checks that `reserve - size` has not passed where it
read (ring_valid): if it has, it was lapped and must drop what it read. `send()` copies, so a sender checks
after it.

A writer that dies between reserve and commit leaves both as they are: the next writer starts at
`commit`, readers never saw the bytes between.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flux.cext.arena cimport Arena, arena, header_blob, ring_ctl, stream_slot

cdef enum record_flags:
    REC_KEY = 1                   # a player can start here
    REC_VIDEO = 2
    REC_AUDIO = 4
    REC_CONFIG = 8                # parameter sets, sequence headers, PAT/PMT
    REC_DISCONTINUITY = 16        # timestamps jump here: a new publisher, or a break in the source
    REC_DAMAGED = 32              # packets of it were lost
    REC_DATA = 64                 # any other elementary stream

cdef struct ring_record:          # 64 bytes, beside the bytes
    uint64_t pos
    uint32_t length               # bytes
    uint32_t flags                # atomic: REC_KEY may be set after the commit
    int64_t dts_ticks             # 90 kHz, unwrapped
    int64_t pts_ticks
    int64_t arrival_us            # CLOCK_MONOTONIC at the owner
    uint32_t track                # index into stream_slot.tracks
    uint32_t codec                # media_codec
    uint64_t pad[2]

cdef struct ring:                 # one process's view of one ring
    ring_ctl* ctl
    ring_record* index
    uint8_t* base                 # mapped twice in a row
    header_blob* headers
    stream_slot* slot
    arena* owner
    uint64_t size
    uint64_t mask
    uint64_t index_mask
    uint64_t generation           # the slot's, at opening: ring_alive compares

# opening: 0, or -1 when the slot is free or memory can't be mapped
cdef int ring_open(ring* r, arena* a, uint32_t slot, uint32_t kind) noexcept nogil
cdef bint ring_alive(ring* r) noexcept nogil

# the one writer
cdef uint8_t* ring_reserve(ring* r, uint64_t length) noexcept nogil
cdef uint64_t ring_commit(ring* r, uint64_t length, int64_t dts_ticks, int64_t pts_ticks,
                          int64_t arrival_us, uint32_t flags, uint32_t track, uint32_t codec) noexcept nogil
cdef void ring_mark(ring* r, uint64_t rec, uint32_t flags) noexcept nogil
cdef int ring_set_header(ring* r, const uint8_t* data, uint32_t length, uint64_t from_pos) noexcept nogil
cdef void ring_restart(ring* r) noexcept nogil
cdef void ring_notify(ring* r) noexcept nogil

# readers
cdef uint64_t ring_commit_pos(ring* r) noexcept nogil
cdef bint ring_valid(ring* r, uint64_t pos) noexcept nogil
cdef int ring_get(ring* r, uint64_t rec, ring_record* out) noexcept nogil
cdef int64_t ring_key_record(ring* r, ring_record* out) noexcept nogil
cdef int64_t ring_find(ring* r, uint64_t pos, ring_record* out) noexcept nogil
cdef int ring_header(ring* r, uint64_t pos, uint8_t* out, uint32_t capacity) noexcept nogil
cdef uint64_t ring_oldest_rec(ring* r) noexcept nogil

cdef class Ring:
    cdef ring view
    cdef readonly Arena arena
    cdef readonly uint32_t slot
    cdef readonly uint32_t kind
