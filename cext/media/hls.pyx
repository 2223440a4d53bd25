"""HLS segments of a stream, as any process sees them (hls.pxd tells the protocol)."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from flux.cext.arena cimport K_MAX_SEGMENTS, SLOT_FREE, Arena, arena_slot, arena_window, hls_ctl, hls_segment
from flux.cext.atomics cimport cas_seq_u64, fence_acquire, load_acquire_u64, load_relaxed_u64
from flux.cext.media.ts cimport K_TICKS_A_SECOND

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    K_TRIES = 4096                # copies of the table that its writer may spoil; it yields between them


cdef int hls_open(hls_view* v, arena* a, uint32_t slot) noexcept nogil:
    """Fill `v` for a stream; -1 when the slot is free or memory can't be mapped."""
    v.slot = arena_slot(a, slot)
    if v.slot == NULL:
        return -1
    cdef uint64_t state = load_acquire_u64(&v.slot.state)
    if state & 0xFF == SLOT_FREE:
        return -1
    v.ctl = &v.slot.hls
    v.size = v.ctl.size
    v.mask = v.size - 1
    v.generation = state >> 8
    v.base = arena_window(a, v.ctl.bytes_at, v.size)
    return 0 if v.base != NULL else -1


cdef bint hls_alive(hls_view* v) noexcept nogil:
    """False once the stream was freed."""
    cdef uint64_t state = load_acquire_u64(&v.slot.state)
    return state >> 8 == v.generation and state & 0xFF != SLOT_FREE


cdef bint hls_valid(hls_view* v, uint64_t pos) noexcept nogil:
    """After bytes of the segment at `pos` were used: False if they were given back or written over meanwhile.

    True for a segment means true for all of its bytes, as `reserve` passes from segment to segment. A stream that
    was freed has raised it over all that was ever there.
    """
    fence_acquire()
    return load_relaxed_u64(&v.ctl.reserve) <= pos + v.size


cdef void hls_want(hls_view* v, uint64_t until_us) noexcept nogil:
    """Have segments made until `until_us` (CLOCK_MONOTONIC) at least."""
    cdef uint64_t known = load_relaxed_u64(&v.ctl.wanted_until_us)
    while known < until_us and not cas_seq_u64(&v.ctl.wanted_until_us, known, until_us):
        known = load_relaxed_u64(&v.ctl.wanted_until_us)


cdef uint64_t begin_copy(hls_view* v) noexcept nogil:
    """The table's turn; odd: it is being changed."""
    cdef uint64_t turn = load_acquire_u64(&v.ctl.turn)
    if turn & 1:
        sched_yield()
    return turn


cdef bint is_whole(hls_view* v, uint64_t turn) noexcept nogil:
    fence_acquire()
    return not turn & 1 and load_relaxed_u64(&v.ctl.turn) == turn


cdef int hls_find(hls_view* v, uint64_t sequence, hls_segment* out) noexcept nogil:
    """Where segment number `sequence` lies: 0; 1: yet to come; -1: gone."""
    cdef uint64_t turn, first, end
    cdef int _try
    for _try in range(K_TRIES):
        turn = begin_copy(v)
        first = v.ctl.first_sequence
        end = v.ctl.next_sequence
        out[0] = v.ctl.segments[sequence % K_MAX_SEGMENTS]
        if is_whole(v, turn):
            if sequence >= end:
                return 1 if hls_alive(v) else -1
            return 0 if sequence >= first and hls_alive(v) else -1
    return -1


cdef int hls_copy(hls_view* v, hls_ctl* out) noexcept nogil:
    """The whole table at one instant; -1 when the stream was freed, or its writer died in the middle of a change
    and nobody has cleaned up yet."""
    cdef uint64_t turn
    cdef int _try
    for _try in range(K_TRIES):
        turn = begin_copy(v)
        out[0] = v.ctl[0]
        if is_whole(v, turn):
            return 0 if hls_alive(v) else -1
    return -1


cdef class HlsReader:
    """A stream's segments, for playlists and tests: HlsReader(arena, slot). Raises ValueError when the slot is free."""

    def __cinit__(self, Arena arena not None, uint32_t slot):
        self.arena = arena
        self.slot = slot
        if hls_open(&self.view, &arena.view, slot) < 0:
            raise ValueError(f"segments of stream slot {slot} can't be opened: the slot is free or memory is short")

    @property
    def alive(self):
        """Whether the stream still has its slot."""
        return hls_alive(&self.view)

    @property
    def active(self):
        """Whether the stream's owner makes segments at present."""
        return bool(load_acquire_u64(&self.view.ctl.active))

    def want(self, uint64_t until_us):
        """Have segments made until `until_us` (CLOCK_MONOTONIC) at least. Does nothing once the stream is freed."""
        if hls_alive(&self.view):
            hls_want(&self.view, until_us)

    def snapshot(self):
        """The segments at one instant, as flux/http/playlist.py takes them; None once the stream is freed.

        {media_sequence, target_duration (s), discontinuity_sequence, ended, segments: [{sequence, pos, length
        (bytes), duration_s, date_us (wall clock), discontinuity,
        independent: it begins with a keyframe}]}; no segments while the first is being made.
        """
        cdef hls_ctl table
        cdef uint64_t n
        cdef hls_segment* s
        if hls_copy(&self.view, &table) < 0:
            return None
        segments = []
        for n in range(table.first_sequence, table.next_sequence):
            s = &table.segments[n % K_MAX_SEGMENTS]
            segments.append({
                "sequence": s.sequence, "pos": s.pos, "length": s.length,
                "duration_s": <double>s.duration_ticks / K_TICKS_A_SECOND, "date_us": s.date_us,
                "discontinuity": bool(s.discontinuity),
                "independent": bool(s.independent),
            })
        return {
            "media_sequence": table.first_sequence, "target_duration": <double>table.target_ticks / K_TICKS_A_SECOND,
            "discontinuity_sequence": table.discontinuities, "segments": segments, "ended": bool(table.ended),
        }

    def segment(self, uint64_t sequence):
        """(pos, length) of segment number `sequence`; None when it is gone or yet to come."""
        cdef hls_segment s
        return (s.pos, s.length) if hls_find(&self.view, sequence, &s) == 0 else None

    def valid(self, uint64_t pos):
        """Whether what was read of the segment at `pos` was still its bytes."""
        return hls_valid(&self.view, pos)

    def read(self, uint64_t sequence):
        """The bytes of segment number `sequence`; None when it is gone or yet to come."""
        cdef hls_segment s
        if hls_find(&self.view, sequence, &s) != 0:
            return None
        data = (<const uint8_t*>self.view.base)[s.pos & self.view.mask:(s.pos & self.view.mask) + s.length]
        return data if hls_valid(&self.view, s.pos) else None
