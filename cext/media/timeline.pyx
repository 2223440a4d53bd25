"""The timeline of a stream (timeline.pxd)."""

from libc.stdint cimport int64_t, uint64_t

from flux.cext.media.ts cimport ts_unwrap

cdef enum:
    K_JUMP_FORWARD_TICKS = 900000   # a gap of dts that is a jump of the clock
    K_JUMP_BACKWARD_TICKS = 45000
    K_FOLLOW_TICKS = 45000        # ... of a track, when another track has jumped already
    K_NEAR_TICKS = 180000         # tracks of one clock are muxed no further apart
    K_STEP_TICKS = 3600           # between the end of an epoch and the start of the next


cdef bint jumps(timeline* t, track_time* k, int64_t raw) noexcept nogil:
    cdef int64_t step = raw - k.raw_ticks
    if k.epoch != t.epoch:
        return step < 0 or step > K_FOLLOW_TICKS
    if step > K_JUMP_FORWARD_TICKS:
        # a track that paused, while another kept the clock going, comes back where the clock is
        return not -K_NEAR_TICKS < raw - t.raw_ticks < K_NEAR_TICKS
    return step < -K_JUMP_BACKWARD_TICKS


cdef void begin_epoch(timeline* t, int64_t raw, int64_t at_ticks) noexcept nogil:
    t.epoch += 1
    t.raw_ticks = raw
    t.shift_ticks = at_ticks - raw


cdef void join_epoch(timeline* t, track_time* k) noexcept nogil:
    k.epoch = t.epoch
    k.shift_ticks = t.shift_ticks


cdef int64_t timeline_place(timeline* t, track_time* k, uint64_t dts) noexcept nogil:
    """Where a track's next decoding time lies on the timeline."""
    cdef int64_t raw, near
    if not t.started:
        t.started = True
        raw = <int64_t>dts
        begin_epoch(t, raw, t.end_ticks + K_RESUME_GAP_TICKS if t.resumed else raw)
        t.end_ticks = raw + t.shift_ticks
    else:
        raw = ts_unwrap(k.raw_ticks if k.placed else t.raw_ticks, dts)
    if not k.placed:
        k.placed = True
        join_epoch(t, k)
        k.first_ticks = raw + k.shift_ticks
        k.jumped = t.resumed or t.epoch > 1
    elif jumps(t, k, raw):
        near = ts_unwrap(t.raw_ticks, dts)
        if k.epoch != t.epoch and -K_JUMP_FORWARD_TICKS < near - t.raw_ticks < K_JUMP_FORWARD_TICKS:
            raw = near
        else:
            raw = <int64_t>dts
            begin_epoch(t, raw, t.end_ticks + K_STEP_TICKS)
            t.jumps += 1
        join_epoch(t, k)
        k.jumped = True
    k.raw_ticks = raw
    if k.epoch == t.epoch:
        t.raw_ticks = raw
    timeline_pass(t, k, raw + k.shift_ticks)
    return k.dts_ticks


cdef void timeline_pass(timeline* t, track_time* k, int64_t dts_ticks) noexcept nogil:
    """A frame of the track has this time."""
    k.dts_ticks = dts_ticks
    if dts_ticks > t.end_ticks:
        t.end_ticks = dts_ticks
