"""The FLV muxer of a stream (flv_pump.pxd tells what it writes).

It starts when FLV is wanted and the newest keyframe is there, and takes the frame ring from that keyframe on. Audio
and video have a cursor each: what a batch brought is written in the order of dts, and nothing waits for a later one.
Within a track, time stamps never go back: a video frame that would is written at the time of the one before, audio is left out.

Frames with damage are kept, as decoders conceal it; frames that can't be decoded at all (after a new publisher
came, or after frames were overwritten, until a keyframe) are left out.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.arena cimport K_HEADER_BYTES, K_MAX_TRACKS, RING_FLV, RING_FRAME, Arena, stream_slot, track_info
from flux.cext.atomics cimport load_relaxed_u64, store_release_u64
from flux.cext.counters cimport (
    C_MEDIA_FLV_BACKWARD, C_MEDIA_FLV_LAPPED, C_MEDIA_FLV_STARTS, C_MEDIA_FLV_TAGS, C_MEDIA_FLV_UNDECODABLE,
    C_MEDIA_HEADERS_TOO_LONG, C_MEDIA_RING_REFUSED
)
from flux.cext.media.codec cimport CODEC_AAC, CODEC_H264, CODEC_H265
from flux.cext.media.decoder_config cimport K_CONFIG_BYTES
from flux.cext.media.flv cimport (
    K_FLV_HEADER_BYTES, K_FLV_TAG_BYTES, flv_facts, flv_frame, flv_frame_bytes, flv_put_frame,
    flv_put_header, flv_put_metadata
)
from flux.cext.media.pump cimport Pump
from flux.cext.media.ts_ingest cimport frame_config
from flux.cext.ring cimport (
    REC_AUDIO, REC_CONFIG, REC_DISCONTINUITY, REC_KEY, REC_VIDEO, ring, ring_commit, ring_get, ring_header,
    ring_key_record, ring_notify, ring_oldest_rec, ring_open, ring_record, ring_reserve, ring_restart, ring_set_header,
    ring_valid
)

cdef enum:
    K_TICKS_A_MILLISECOND = 90
    K_TRACK_WAIT_TICKS = 90000    # how long a start waits for the first frame of a track that the PMT names
    K_LOOK_BACK_RECORDS = 512     # of the muxer before, read for the times that it wrote last
    K_CONFIG_HEAD_BYTES = 5       # of a sequence header, before the configuration record

cdef enum:
    LANE_VIDEO = 0
    LANE_AUDIO = 1
    K_LANES = 2

cdef struct lane:                 # one track on its way into FLV
    uint32_t kind                 # REC_VIDEO or REC_AUDIO
    int64_t track                 # index in the slot; -1: there is none
    uint64_t cursor               # next record of RING_FRAME to look at
    bint wrote
    int64_t dts_ticks             # of what was written last
    int64_t done_ticks            # what the muxer before wrote: up to here it is not written again
    bint resuming                 # done_ticks counts
    bint config_fresh             # a configuration came, and no frame since
    bint needs_key                # what comes before the next keyframe can't be decoded
    uint32_t codec
    uint32_t config_bytes
    uint8_t config[4096]          # K_CONFIG_BYTES

cdef struct flv_pump:
    ring frames
    ring flv
    stream_slot* slot
    uint64_t* counters
    uint64_t linger_us
    uint64_t wanted_us            # when it was wanted last
    bint running
    bint wrote                    # since doorbells were rung
    uint32_t tracks_version
    uint64_t first_rec            # of this publisher in RING_FRAME
    lane lanes[2]


cdef void find_tracks(flv_pump* p) noexcept nogil:
    """The first track of each kind."""
    cdef uint32_t i, codec
    p.tracks_version = p.slot.tracks_version
    p.lanes[LANE_VIDEO].track = -1
    p.lanes[LANE_AUDIO].track = -1
    for i in range(min(p.slot.track_count, <uint32_t>K_MAX_TRACKS)):
        codec = p.slot.tracks[i].codec
        if (codec == CODEC_H264 or codec == CODEC_H265) and p.lanes[LANE_VIDEO].track < 0:
            p.lanes[LANE_VIDEO].track = i
        elif codec == CODEC_AAC and p.lanes[LANE_AUDIO].track < 0:
            p.lanes[LANE_AUDIO].track = i


cdef bint take_config(lane* l, uint32_t codec, const uint8_t* config, uint32_t length) noexcept nogil:
    """Whether the configuration is another than the one in force."""
    if length > K_CONFIG_BYTES or (
            l.codec == codec and l.config_bytes == length and memcmp(l.config, config, length) == 0):
        return False
    l.codec = codec
    l.config_bytes = length
    memcpy(l.config, config, length)
    return True


cdef void read_configs(flv_pump* p, uint64_t pos, bint missing_only) noexcept nogil:
    """The configurations in force at `pos` of RING_FRAME."""
    cdef uint8_t blob[K_HEADER_BYTES]
    cdef int length = ring_header(&p.frames, pos, blob, K_HEADER_BYTES)
    cdef int at = 0
    cdef uint32_t i
    cdef frame_config head
    while at + <int>sizeof(head) <= length:
        memcpy(&head, blob + at, sizeof(head))
        at += <int>sizeof(head)
        if head.length > <uint32_t>(length - at):
            break
        for i in range(K_LANES):
            if p.lanes[i].track == head.track and not (missing_only and p.lanes[i].config_bytes):
                take_config(&p.lanes[i], head.codec, blob + at, head.length)
        at += <int>head.length


cdef uint32_t put_sequence_header(const lane* l, uint32_t timestamp_ms, uint8_t* out) noexcept nogil:
    cdef flv_frame f
    memset(&f, 0, sizeof(f))
    f.codec = l.codec
    f.config = True
    f.timestamp_ms = timestamp_ms
    f.length = l.config_bytes
    flv_put_frame(&f, l.config, out)
    return flv_frame_bytes(&f)


cdef void put_header(flv_pump* p) noexcept nogil:
    """What players that join from here on get first."""
    cdef uint8_t blob[K_HEADER_BYTES]
    cdef uint32_t length = K_FLV_HEADER_BYTES, i
    cdef lane* video = &p.lanes[LANE_VIDEO]
    cdef lane* audio = &p.lanes[LANE_AUDIO]
    cdef track_info* info
    cdef flv_facts m
    memset(&m, 0, sizeof(m))
    if video.config_bytes and video.track >= 0:
        info = &p.slot.tracks[video.track]
        m.video_codec, m.width, m.height, m.fps_millihz = video.codec, info.width, info.height, info.fps_millihz
    if audio.config_bytes and audio.track >= 0:
        info = &p.slot.tracks[audio.track]
        m.audio_codec, m.channels, m.sample_rate = audio.codec, info.width, info.height
    flv_put_header(blob, audio.config_bytes != 0, video.config_bytes != 0)
    length += flv_put_metadata(&m, blob + length)
    for i in range(K_LANES):
        if p.lanes[i].config_bytes == 0:
            continue
        if length + K_FLV_TAG_BYTES + K_CONFIG_HEAD_BYTES + p.lanes[i].config_bytes > K_HEADER_BYTES:
            p.counters[C_MEDIA_HEADERS_TOO_LONG] += 1
            continue
        length += put_sequence_header(&p.lanes[i], 0, blob + length)
    ring_set_header(&p.flv, blob, length, load_relaxed_u64(&p.flv.ctl.commit))


cdef uint32_t milliseconds(int64_t ticks) noexcept nogil:
    """A tag's timestamp; the start of a timeline may lie a few frames before 0."""
    return <uint32_t>(ticks / K_TICKS_A_MILLISECOND) if ticks > 0 else 0


cdef void write_config(flv_pump* p, lane* l, const ring_record* r) noexcept nogil:
    """A sequence header for players that are there already; timed as the frame that needs it."""
    cdef int64_t dts = max(r.dts_ticks, l.dts_ticks) if l.wrote else r.dts_ticks
    cdef uint32_t length = K_FLV_TAG_BYTES + K_CONFIG_HEAD_BYTES + l.config_bytes
    cdef uint8_t* place = ring_reserve(&p.flv, length)
    if place == NULL:
        p.counters[C_MEDIA_RING_REFUSED] += 1
        return
    length = put_sequence_header(l, milliseconds(dts), place)
    ring_commit(&p.flv, length, dts, dts, r.arrival_us, l.kind | REC_CONFIG, r.track, l.codec)
    p.counters[C_MEDIA_FLV_TAGS] += 1
    p.wrote = True


cdef void write_frame(flv_pump* p, lane* l, const ring_record* r) noexcept nogil:
    cdef flv_frame f
    cdef int64_t dts = r.dts_ticks
    cdef int64_t offset
    cdef uint32_t length
    cdef uint8_t* place
    if l.wrote and dts < l.dts_ticks:
        if l.kind == REC_AUDIO:
            p.counters[C_MEDIA_FLV_BACKWARD] += 1
            return
        dts = l.dts_ticks
    f.codec = r.codec
    f.config = False
    f.key = l.kind == REC_VIDEO and r.flags & REC_KEY
    f.timestamp_ms = milliseconds(dts)
    f.length = r.length
    offset = (r.pts_ticks - max(dts, <int64_t>0) // K_TICKS_A_MILLISECOND * K_TICKS_A_MILLISECOND) // K_TICKS_A_MILLISECOND
    f.composition_ms = <int32_t>min(max(offset, <int64_t>-0x800000), <int64_t>0x7FFFFF)
    length = flv_frame_bytes(&f)
    place = ring_reserve(&p.flv, length) if length else NULL
    if place == NULL:
        p.counters[C_MEDIA_RING_REFUSED] += 1
        return
    flv_put_frame(&f, p.frames.base + (r.pos & p.frames.mask), place)
    if not ring_valid(&p.frames, r.pos):
        return
    ring_commit(&p.flv, length, dts, r.pts_ticks, r.arrival_us, r.flags, r.track, r.codec)
    l.wrote = True
    l.dts_ticks = dts
    p.counters[C_MEDIA_FLV_TAGS] += 1
    p.wrote = True


cdef void take_record(flv_pump* p, lane* l, const ring_record* r) noexcept nogil:
    if r.flags & REC_CONFIG:
        l.config_fresh = True
        if take_config(l, r.codec, p.frames.base + (r.pos & p.frames.mask), r.length):
            put_header(p)
            write_config(p, l, r)
        return
    if l.resuming:
        if r.dts_ticks <= l.done_ticks:
            return
        l.resuming = False
    if l.kind == REC_VIDEO:
        # A publisher that comes tells its configuration anew, and may begin in the middle of a group of pictures.
        if l.config_fresh and r.flags & REC_DISCONTINUITY:
            l.needs_key = True
        if r.flags & REC_KEY:
            l.needs_key = False
    l.config_fresh = False
    if l.needs_key or l.config_bytes == 0:
        p.counters[C_MEDIA_FLV_UNDECODABLE] += 1
        return
    write_frame(p, l, r)


cdef bint seek(flv_pump* p, lane* l, ring_record* out) noexcept nogil:
    """Move the lane's cursor to its next record; False when that is yet to come."""
    while ring_get(&p.frames, l.cursor, out) == 0:
        if out.flags & l.kind and out.track == l.track:
            return True
        l.cursor += 1
    return False


cdef void catch_up(flv_pump* p) noexcept nogil:
    """The frame ring has gone round since the last turn: go on at the newest keyframe, and tell all configurations again."""
    cdef ring_record key
    cdef int64_t rec
    cdef uint32_t i
    p.counters[C_MEDIA_FLV_LAPPED] += 1
    memset(&key, 0, sizeof(key))
    rec = ring_key_record(&p.frames, &key)
    read_configs(p, key.pos if rec >= 0 else load_relaxed_u64(&p.frames.ctl.commit), False)
    put_header(p)
    for i in range(K_LANES):
        p.lanes[i].cursor = <uint64_t>rec if rec >= 0 else load_relaxed_u64(&p.frames.ctl.commit_rec)
        p.lanes[i].needs_key = i == LANE_VIDEO
        if p.lanes[i].config_bytes:
            write_config(p, &p.lanes[i], &key)


cdef void pump_records(flv_pump* p) noexcept nogil:
    cdef ring_record video, audio
    cdef lane* v = &p.lanes[LANE_VIDEO]
    cdef lane* a = &p.lanes[LANE_AUDIO]
    cdef bint has_video, has_audio
    # both cursors stand at the end of what the last turn saw
    if ring_get(&p.frames, v.cursor, &video) < 0:
        catch_up(p)
    has_video = seek(p, v, &video)
    has_audio = seek(p, a, &audio)
    while has_video or has_audio:
        if has_video and (not has_audio or video.dts_ticks <= audio.dts_ticks):
            take_record(p, v, &video)
            v.cursor += 1
            has_video = seek(p, v, &video)
        else:
            take_record(p, a, &audio)
            a.cursor += 1
            has_audio = seek(p, a, &audio)


cdef bint all_there(flv_pump* p) noexcept nogil:
    """Whether each track has its configuration, or was waited for since the publisher came."""
    cdef ring_record first, newest
    cdef uint64_t end = load_relaxed_u64(&p.frames.ctl.commit_rec)
    cdef uint32_t i
    cdef bint whole = True
    for i in range(K_LANES):
        whole &= p.lanes[i].track < 0 or p.lanes[i].config_bytes != 0
    if whole or ring_get(&p.frames, p.first_rec, &first) < 0:
        return True
    return ring_get(&p.frames, end - 1, &newest) == 0 and newest.dts_ticks - first.dts_ticks >= K_TRACK_WAIT_TICKS


cdef bint find_done(flv_pump* p) noexcept nogil:
    """What a muxer before this one wrote last; True if its tags are still there."""
    cdef uint64_t end = load_relaxed_u64(&p.flv.ctl.commit_rec), rec
    cdef uint64_t first = max(ring_oldest_rec(&p.flv), end - min(end, <uint64_t>K_LOOK_BACK_RECORDS))
    cdef ring_record r
    cdef bint found = False
    cdef uint32_t i
    for rec in range(first, end):
        if ring_get(&p.flv, rec, &r):
            continue
        found = True
        if r.flags & REC_CONFIG:
            continue
        for i in range(K_LANES):
            if r.flags & p.lanes[i].kind:
                p.lanes[i].wrote = p.lanes[i].resuming = True
                p.lanes[i].dts_ticks = p.lanes[i].done_ticks = r.dts_ticks
    return found


cdef bint start(flv_pump* p) noexcept nogil:
    """Begin at the newest keyframe; False while there is none."""
    cdef ring_record key
    cdef int64_t rec = ring_key_record(&p.frames, &key)
    cdef bint goes_on
    cdef uint32_t i
    if rec < 0:
        return False
    find_tracks(p)
    for i in range(K_LANES):
        p.lanes[i].kind = REC_VIDEO if i == LANE_VIDEO else REC_AUDIO
        p.lanes[i].cursor = <uint64_t>rec
        p.lanes[i].wrote = p.lanes[i].resuming = p.lanes[i].needs_key = p.lanes[i].config_fresh = False
        p.lanes[i].config_bytes = 0
    read_configs(p, key.pos, False)
    read_configs(p, load_relaxed_u64(&p.frames.ctl.commit), True)
    if not all_there(p):
        return False
    goes_on = find_done(p)
    p.running = True
    put_header(p)
    store_release_u64(&p.flv.ctl.active, 1)
    p.counters[C_MEDIA_FLV_STARTS] += 1
    if goes_on:
        for i in range(K_LANES):
            if p.lanes[i].config_bytes:
                write_config(p, &p.lanes[i], &key)
    return True


cdef void run(void* ctx, int64_t now_us) noexcept nogil:
    cdef flv_pump* p = <flv_pump*>ctx
    cdef bint wanted = load_relaxed_u64(&p.flv.ctl.wanted) != 0
    if wanted:
        p.wanted_us = <uint64_t>now_us
    if not p.running:
        if not wanted or not start(p):
            return
    elif not wanted and <uint64_t>now_us - p.wanted_us > p.linger_us:
        p.running = False
        ring_restart(&p.flv)
        return
    if p.tracks_version != p.slot.tracks_version:
        find_tracks(p)
    pump_records(p)
    if p.wrote:
        p.wrote = False
        ring_notify(&p.flv)


cdef class FlvPump(Pump):
    """Muxes the frames of the stream in `slot` to FLV while a process wants it, and for `linger_us` after.

    counters: writable uint64 array as in counters.pxd (Arena.my_counters). Raises ValueError when the slot is free.
    """

    def __cinit__(self, Arena arena not None, uint32_t slot, uint64_t[::1] counters not None, *, uint64_t linger_us):
        cdef flv_pump* p
        self.core = p = <flv_pump*>calloc(1, sizeof(flv_pump))
        if p == NULL:
            raise MemoryError
        self.arena = arena
        self.counters = counters
        if ring_open(&p.frames, &arena.view, slot, RING_FRAME) or ring_open(&p.flv, &arena.view, slot, RING_FLV):
            raise ValueError(f"stream slot {slot} is free, or memory for its rings is short")
        p.slot = p.frames.slot
        p.counters = &counters[0]
        p.linger_us = linger_us
        p.first_rec = load_relaxed_u64(&p.frames.ctl.commit_rec)
        self.view.ctx = p
        self.view.run = run

    def __dealloc__(self):
        free(self.core)

    def close(self, int64_t now_us):
        """The publisher is gone: what was muxed stays, and the next publisher's muxer goes on after it."""
        store_release_u64(&self.core.flv.ctl.active, 0)

    @property
    def running(self):
        """Whether it is muxing."""
        return bool(self.core.running)
