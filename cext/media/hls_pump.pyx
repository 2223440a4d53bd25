"""RING_TS into HLS segments (hls_pump.pxd tells what a segment is, hls.pxd how it is read).

The area is gone around early: once enough lies behind, the next segment begins at its start again, and what lies
beyond is given back to the kernel. So a stream holds the memory of its segments and little more, however large the
area is, and writes to pages that are there already.
"""

import time

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from flux.cext.arena cimport K_HEADER_BYTES, K_MAX_SEGMENTS, RING_TS, Arena, arena_punch, hls_ctl, hls_segment
from flux.cext.atomics cimport fence_release, load_relaxed_u64, store_relaxed_u64, store_release_u64
from flux.cext.counters cimport (
    C_MEDIA_HLS_DISCONTINUITIES, C_MEDIA_HLS_FORCED_CUTS, C_MEDIA_HLS_LAPPED, C_MEDIA_HLS_OVERWRITTEN,
    C_MEDIA_HLS_SEGMENT_BYTES, C_MEDIA_HLS_SEGMENTS, C_MEDIA_HLS_STARTS, C_MEDIA_NO_MEMORY
)
from flux.cext.media.hls cimport hls_open
from flux.cext.media.pump cimport Pump
from flux.cext.media.ts cimport K_PID_PAT, K_TS_PACKET_BYTES
from flux.cext.ring cimport (
    REC_AUDIO, REC_DISCONTINUITY, REC_KEY, REC_VIDEO, ring_alive, ring_get, ring_header, ring_oldest_rec, ring_open,
    ring_record, ring_valid
)

cdef enum:
    K_PAGE_BYTES = 4096
    K_EARLY_TICKS = 900           # a keyframe may come so much before segment_ticks: times are rounded to ms
    K_FRAME_TICKS = 3600          # of the last frame of a segment, until a distance is known
    K_LONGEST_FRAME_TICKS = 90000  # a longer distance is a gap, not a frame's duration
    K_BACKWARD_TICKS = 90000      # dts that goes back by more is a jump
    K_BACK_FILL_SEGMENTS = 3      # made at once when it starts, if the ring holds as much
    K_DATE_SLACK_US = 500000      # dates go on by durations; off the clock by more, they are taken from it again
    K_LEAST_SEGMENTS = 3
    K_MOST_SEGMENTS = 60          # under K_MAX_SEGMENTS: the place written next is never one that is listed


# the table

cdef void begin_change(hls_ctl* c) noexcept nogil:
    store_relaxed_u64(&c.turn, c.turn + 1)
    fence_release()


cdef void end_change(hls_ctl* c) noexcept nogil:
    store_release_u64(&c.turn, c.turn + 1)


cdef hls_segment* segment_at(hls_ctl* c, uint64_t sequence) noexcept nogil:
    return &c.segments[sequence % K_MAX_SEGMENTS]


cdef uint64_t oldest_pos(hls_pump* p) noexcept nogil:
    """Where the bytes begin that are kept."""
    cdef hls_ctl* c = p.out.ctl
    if c.first_sequence < c.next_sequence:
        return segment_at(c, c.first_sequence).pos
    return p.start if p.open else p.end


cdef void keep_from_oldest(hls_pump* p) noexcept nogil:
    """From here on readers of what lies before the oldest segment are told that it is gone."""
    store_release_u64(&p.out.ctl.reserve, oldest_pos(p) + p.out.size)
    fence_release()


cdef void drop_oldest(hls_pump* p) noexcept nogil:
    cdef hls_ctl* c = p.out.ctl
    begin_change(c)
    c.discontinuities += segment_at(c, c.first_sequence).discontinuity
    c.first_sequence += 1
    end_change(c)
    keep_from_oldest(p)


# memory

cdef uint64_t page_down(uint64_t pos) noexcept nogil:
    return pos - pos % K_PAGE_BYTES


cdef uint64_t page_up(uint64_t pos) noexcept nogil:
    return page_down(pos + K_PAGE_BYTES - 1)


cdef void give_back(hls_pump* p, uint64_t first, uint64_t last) noexcept nogil:
    """Give the pages that lie whole in positions [first, last) back."""
    cdef uint64_t n
    first = page_up(first)
    last = page_down(last)
    while first < last:
        n = min(last - first, p.out.size - (first & p.out.mask))
        arena_punch(p.owner, p.out.ctl.bytes_at + (first & p.out.mask), n)
        first += n


cdef void go_around(hls_pump* p) noexcept nogil:
    """Before a segment: go on at the area's start if it lies as far back as the segments kept, and two of their
    largest, are long. None of them is met there before its turn comes to be dropped."""
    cdef hls_ctl* c = p.out.ctl
    cdef uint64_t sequence, kept = 0, largest = 0, place = p.end & p.out.mask
    if c.next_sequence - c.first_sequence < p.keep:
        return
    for sequence in range(c.first_sequence, c.next_sequence):
        kept += segment_at(c, sequence).length
        largest = max(largest, segment_at(c, sequence).length)
    if place >= kept + 2 * largest:
        give_back(p, p.end, p.end - place + p.out.size)
        p.end += p.out.size - place


# what a former owner left

cdef void adopt(hls_pump* p, int64_t now_us) noexcept nogil:
    """Go on behind the newest segment, wherever it came from; bytes that never became one are given back."""
    cdef hls_ctl* c = p.out.ctl
    cdef hls_segment* newest
    if c.turn & 1:
        end_change(c)
    if c.next_sequence == 0:
        # Numbers that no earlier stream of this name has had: players and caches know segments by them.
        c.first_sequence = c.next_sequence = max(now_us + p.wall_us, 0) // 1000000
    else:
        p.discontinuity = True
    if c.first_sequence < c.next_sequence:
        newest = segment_at(c, c.next_sequence - 1)
        p.end = newest.pos + newest.length
    else:
        p.end = c.reserve - p.out.size if c.reserve else 0
    p.open = False
    keep_from_oldest(p)
    give_back(p, p.end, oldest_pos(p) + p.out.size)


cdef void drop_all(hls_pump* p) noexcept nogil:
    while p.out.ctl.first_sequence < p.out.ctl.next_sequence:
        drop_oldest(p)
    p.open = False
    keep_from_oldest(p)
    arena_punch(p.owner, p.out.ctl.bytes_at, p.out.size)


# a segment

cdef void put(hls_pump* p, const uint8_t* data, uint64_t length) noexcept nogil:
    """Copy bytes behind the newest; the oldest segments make room."""
    cdef hls_ctl* c = p.out.ctl
    while c.first_sequence < c.next_sequence and oldest_pos(p) + p.out.size < p.end + length:
        drop_oldest(p)
        p.counters[C_MEDIA_HLS_OVERWRITTEN] += 1
    memcpy(p.out.base + (p.end & p.out.mask), data, length)
    p.end += length


cdef uint32_t pid_of(const uint8_t* packet) noexcept nogil:
    return <uint32_t>(packet[1] & 0x1F) << 8 | packet[2]


cdef void note_tables(hls_pump* p, const uint8_t* data, uint64_t length) noexcept nogil:
    """Remember the continuity counters of PAT and PMT packets that pass."""
    cdef uint32_t i, pid
    cdef const uint8_t* last = data + length
    while data < last:
        pid = pid_of(data)
        for i in range(p.table_count):
            if p.tables[i].pid == pid:
                p.tables[i].counter = data[3] & 0xF
                p.tables[i].known = True
        data += K_TS_PACKET_BYTES


cdef void find_tables(hls_pump* p) noexcept nogil:
    """Which PIDs the header blob's packets have."""
    cdef uint32_t at = 0, i, pid
    p.table_count = 0
    while at < p.header_bytes:
        pid = pid_of(p.header + at)
        for i in range(p.table_count):
            if p.tables[i].pid == pid:
                break
        else:
            if p.table_count < K_TABLES:
                p.tables[p.table_count].pid = pid
                p.tables[p.table_count].known = False
                p.table_count += 1
        at += K_TS_PACKET_BYTES


cdef bint begins_with_tables(hls_pump* p, const uint8_t* data, uint64_t length) noexcept nogil:
    """Whether a PAT packet and one of the PMT begin these bytes."""
    return (length >= 2 * K_TS_PACKET_BYTES and pid_of(data) == K_PID_PAT and data[1] & 0x40
            and p.header_bytes >= 2 * K_TS_PACKET_BYTES
            and pid_of(data + K_TS_PACKET_BYTES) == pid_of(p.header + p.header_bytes - K_TS_PACKET_BYTES)
            and data[K_TS_PACKET_BYTES + 1] & 0x40)


cdef void put_tables(hls_pump* p, const ring_record* r) noexcept nogil:
    """Begin a segment with PAT and PMT.

    Their continuity counters are those of the newest packets of their PIDs that went before: to a decoder that has
    read the segment before they are duplicates (13818-1, 2.4.3.3), and the stream's own next ones follow well.
    """
    cdef uint8_t blob[K_HEADER_BYTES]
    cdef int length = ring_header(&p.ts, r.pos, blob, K_HEADER_BYTES)
    cdef const uint8_t* data = p.ts.base + (r.pos & p.ts.mask)
    cdef uint32_t i, behind
    cdef int at
    if length > 0 and (<uint32_t>length != p.header_bytes or memcmp(blob, p.header, length)):
        # Other tracks, or other PIDs.
        p.discontinuity |= p.header_bytes != 0
        p.header_bytes = <uint32_t>length
        memcpy(p.header, blob, length)
        find_tables(p)
    if length <= 0 or begins_with_tables(p, data, r.length):
        return
    for i in range(p.table_count):
        if not p.tables[i].known:
            continue
        behind = 0
        at = length - K_TS_PACKET_BYTES
        while at >= 0:
            if pid_of(blob + at) == p.tables[i].pid:
                blob[at + 3] = <uint8_t>((blob[at + 3] & 0xF0) | ((p.tables[i].counter - behind) & 0xF))
                behind += 1
            at -= K_TS_PACKET_BYTES
    put(p, blob, length)


cdef void set_date(hls_pump* p, const ring_record* r) noexcept nogil:
    """The wall clock at the segment's start: one that goes on by durations, unless the clock says otherwise."""
    cdef int64_t gone_us = (r.dts_ticks - p.start_ticks) * 100 // 9
    cdef int64_t arrived_us
    arrived_us = r.arrival_us + p.wall_us
    p.date_us += gone_us
    if not p.dated or p.discontinuity or not -K_DATE_SLACK_US < p.date_us - arrived_us < K_DATE_SLACK_US:
        p.date_us = arrived_us
    p.dated = True


cdef void begin_segment(hls_pump* p, const ring_record* r) noexcept nogil:
    go_around(p)
    p.open = True
    p.start = p.end
    p.records = 0
    p.independent = r.flags & REC_KEY != 0
    put_tables(p, r)
    set_date(p, r)
    p.start_ticks = p.newest_ticks = r.dts_ticks


cdef void end_segment(hls_pump* p, int64_t end_ticks) noexcept nogil:
    """List the segment at hand, which ends where `end_ticks` begins."""
    cdef hls_ctl* c = p.out.ctl
    cdef hls_segment* s = segment_at(c, c.next_sequence)
    if not p.open:
        return
    p.open = False
    if p.records == 0:
        p.end = p.start
        return
    begin_change(c)
    s.sequence = c.next_sequence
    s.pos = p.start
    s.length = p.end - p.start
    s.duration_ticks = max(end_ticks - p.start_ticks, <int64_t>1)
    s.date_us = p.date_us
    s.discontinuity = p.discontinuity
    s.independent = p.independent
    c.next_sequence += 1
    c.target_ticks = max(c.target_ticks, <uint64_t>s.duration_ticks)
    end_change(c)
    p.counters[C_MEDIA_HLS_SEGMENTS] += 1
    p.counters[C_MEDIA_HLS_SEGMENT_BYTES] += s.length
    p.counters[C_MEDIA_HLS_DISCONTINUITIES] += p.discontinuity
    p.discontinuity = False
    while c.next_sequence - c.first_sequence > p.keep:
        drop_oldest(p)


cdef int64_t after_newest(hls_pump* p) noexcept nogil:
    return p.newest_ticks + p.frame_ticks


# RING_TS

cdef void choose_start(hls_pump* p) noexcept nogil:
    """The keyframe to begin at: as far back as K_BACK_FILL_SEGMENTS need, in the newer half of the ring.

    Without one, what comes is waited for; the newest PES may still turn out to be a keyframe.
    """
    cdef uint64_t end = load_relaxed_u64(&p.ts.ctl.commit_rec)
    cdef uint64_t least = max(ring_oldest_rec(&p.ts), p.first_rec)
    cdef uint64_t rec = end
    cdef uint64_t commit = load_relaxed_u64(&p.ts.ctl.commit)
    cdef int64_t end_ticks = 0
    cdef ring_record r
    p.waiting = True
    p.waiting_timed = False
    p.rec = end
    while rec > least:
        rec -= 1
        if ring_get(&p.ts, rec, &r) != 0 or commit - r.pos > p.ts.size >> 1:
            return
        if rec + 1 == end:
            end_ticks = r.dts_ticks
        if r.flags & (REC_VIDEO | REC_AUDIO) and p.rec == end:
            p.rec = rec
        if r.flags & REC_KEY:
            p.rec = rec
            if end_ticks - r.dts_ticks >= K_BACK_FILL_SEGMENTS * p.segment_ticks:
                return
        if r.flags & REC_DISCONTINUITY:
            return


cdef bint is_jump(hls_pump* p, const ring_record* r) noexcept nogil:
    return (r.flags & REC_DISCONTINUITY or r.dts_ticks < p.start_ticks
            or r.dts_ticks + K_BACKWARD_TICKS < p.newest_ticks
            or r.dts_ticks - p.newest_ticks > p.max_segment_ticks)


cdef bint may_start(hls_pump* p, const ring_record* r) noexcept nogil:
    """Whether the first segment can begin here: at a keyframe, or after a long time without one."""
    if not r.flags & (REC_VIDEO | REC_AUDIO):
        return False
    if r.flags & REC_KEY:
        return True
    if not p.waiting_timed or r.dts_ticks < p.waiting_ticks:
        p.waiting_timed = True
        p.waiting_ticks = r.dts_ticks
    return r.dts_ticks - p.waiting_ticks >= p.max_segment_ticks


cdef void cut_before(hls_pump* p, const ring_record* r) noexcept nogil:
    """End the segment before this record if that is due."""
    cdef int64_t gone = r.dts_ticks - p.start_ticks
    cdef bint starts = r.flags & (REC_VIDEO | REC_AUDIO) != 0
    # A quarter of the area at most: some segments more must have room.
    cdef bint full = p.end + r.length - p.start > p.out.size >> 2
    if starts and is_jump(p, r):
        end_segment(p, after_newest(p))
        p.discontinuity = True
    elif starts and r.flags & REC_KEY and gone + K_EARLY_TICKS >= p.segment_ticks:
        end_segment(p, r.dts_ticks)
    elif full or (starts and gone >= p.max_segment_ticks):
        p.counters[C_MEDIA_HLS_FORCED_CUTS] += 1
        end_segment(p, r.dts_ticks if gone > 0 else after_newest(p))


cdef bint take(hls_pump* p, const ring_record* r) noexcept nogil:
    """One record; False when it was written over meanwhile."""
    cdef int64_t step
    cdef const uint8_t* data = p.ts.base + (r.pos & p.ts.mask)
    if p.open:
        cut_before(p, r)
    elif p.waiting and not may_start(p, r):
        return True
    p.waiting = False
    if not p.open:
        begin_segment(p, r)
    elif r.flags & (REC_VIDEO | REC_AUDIO):
        step = r.dts_ticks - p.newest_ticks
        if 0 < step <= K_LONGEST_FRAME_TICKS:
            p.frame_ticks = step
        p.newest_ticks = max(p.newest_ticks, r.dts_ticks)
    put(p, data, r.length)
    if not ring_valid(&p.ts, r.pos):
        p.end -= r.length
        return False
    note_tables(p, data, r.length)
    p.records += 1
    return True


cdef uint64_t settled(hls_pump* p) noexcept nogil:
    """The end of the records whose flags are final.

    A keyframe may be recognised when the rest of its PES has come: the newest PES waits for the next one, unless
    it is known as a keyframe already.
    """
    cdef uint64_t end = load_relaxed_u64(&p.ts.ctl.commit_rec), rec = end
    cdef ring_record r
    while rec > p.rec:
        rec -= 1
        if ring_get(&p.ts, rec, &r) != 0:
            return end
        if r.flags & (REC_VIDEO | REC_AUDIO):
            return end if r.flags & REC_KEY else rec
    return end


cdef void follow(hls_pump* p, uint64_t until_rec) noexcept nogil:
    cdef ring_record r
    while p.rec < until_rec:
        if ring_get(&p.ts, p.rec, &r) != 0 or not take(p, &r):
            p.counters[C_MEDIA_HLS_LAPPED] += 1
            end_segment(p, after_newest(p))
            p.discontinuity = True
            choose_start(p)
            return
        p.rec += 1


cdef bint start(hls_pump* p, int64_t now_us) noexcept nogil:
    if hls_open(&p.out, p.owner, p.slot) < 0:
        p.counters[C_MEDIA_NO_MEMORY] += 1
        return False
    adopt(p, now_us)
    p.running = p.tidied = True
    p.dated = False
    store_release_u64(&p.out.ctl.active, 1)
    p.counters[C_MEDIA_HLS_STARTS] += 1
    choose_start(p)
    return True


cdef void stop(hls_pump* p, int64_t now_us) noexcept nogil:
    """Nobody has asked for long: what there is would be stale before it is asked for again."""
    p.tidied = True
    if not p.running:
        if p.ts.slot.hls.first_sequence == p.ts.slot.hls.next_sequence or hls_open(&p.out, p.owner, p.slot) < 0:
            return
        adopt(p, now_us)
    drop_all(p)
    p.running = False
    store_release_u64(&p.out.ctl.active, 0)
    # What comes next does not go on from what was there.
    p.discontinuity = True


cdef void run(void* ctx, int64_t now_us) noexcept nogil:
    cdef hls_pump* p = <hls_pump*>ctx
    cdef uint64_t until
    if p.closed or not ring_alive(&p.ts):
        return
    until = load_relaxed_u64(&p.ts.slot.hls.wanted_until_us)
    if not p.always and (until == 0 or until + p.linger_us <= <uint64_t>now_us):
        if p.running or not p.tidied:
            stop(p, now_us)
        return
    if p.running or start(p, now_us):
        follow(p, settled(p))


cdef void finish(hls_pump* p) noexcept nogil:
    if p.closed or not ring_alive(&p.ts):
        return
    if p.running:
        follow(p, load_relaxed_u64(&p.ts.ctl.commit_rec))
        end_segment(p, after_newest(p))
        store_release_u64(&p.out.ctl.active, 0)
    p.closed = True


cdef class HlsPump(Pump):
    """The segments of the stream in `slot`, whose owner is this process.

    counters: as in counters.pxd. A segment ends at the first keyframe after `segment_ticks` (90 kHz), without one
    after `max_segment_ticks`, or when it fills a quarter of the area (arena.hls_bytes). Segments are made while
    they are wanted (HlsReader.want) and `linger_us` longer, or always. `keep_segments` of them are kept, 3 to 60;
    RFC 8216, 6.2.2 asks for twice as many as a playlist lists. wall_us: what is added to CLOCK_MONOTONIC for
    dates; None: what the clocks differ by now. Make it before the publisher's first bytes: older ones are another's.
    Raises ValueError when the slot is free or a number is out of its bounds.
    """

    def __cinit__(self, Arena arena not None, uint32_t slot, uint64_t[::1] counters not None, *,
                  int64_t segment_ticks, int64_t max_segment_ticks, uint64_t linger_us=0, bint always=False,
                  uint64_t keep_segments=14, wall_us=None):
        if not 0 < segment_ticks <= max_segment_ticks:
            raise ValueError(f"segments of {segment_ticks} to {max_segment_ticks} ticks")
        if not K_LEAST_SEGMENTS <= keep_segments <= K_MOST_SEGMENTS:
            raise ValueError(f"keep_segments is {keep_segments}; it must be {K_LEAST_SEGMENTS} to {K_MOST_SEGMENTS}")
        if ring_open(&self.core.ts, &arena.view, slot, RING_TS) < 0:
            raise ValueError(f"stream slot {slot} is free, or memory for its rings is short")
        self.arena = arena
        self.slot = slot
        self.counters = counters
        self.core.owner = &arena.view
        self.core.slot = slot
        self.core.counters = &counters[0]
        self.core.segment_ticks = segment_ticks
        self.core.max_segment_ticks = max_segment_ticks
        self.core.linger_us = linger_us
        self.core.always = always
        self.core.keep = keep_segments
        self.core.frame_ticks = K_FRAME_TICKS
        self.core.first_rec = load_relaxed_u64(&self.core.ts.ctl.commit_rec)
        self.core.wall_us = (time.time_ns() - time.monotonic_ns()) // 1000 if wall_us is None else wall_us
        self.view.ctx = &self.core
        self.view.run = run

    @property
    def running(self):
        """Whether segments are being made."""
        return bool(self.core.running)

    def close(self, int64_t now_us):
        """The publisher is gone: what came last becomes a segment too; all stay until the stream is freed."""
        with nogil:
            finish(&self.core)
