"""A publisher's MPEG-TS into the arena (ts_ingest.pxd tells what goes into each ring).

Bytes are copied into the reserved part of RING_TS as they come and demultiplexed there; whatever begins in a
packet is told by the demuxer's calls while that packet is read, so a record can be closed right before it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.arena cimport K_HEADER_BYTES, K_MAX_TRACKS, K_RING_KINDS, RING_FRAME, RING_TS, Arena, stream_slot, track_info
from flux.cext.atomics cimport load_relaxed_u64, store_release_u64
from flux.cext.counters cimport (
    C_MEDIA_ACCESS_UNITS, C_MEDIA_ACCESS_UNITS_DAMAGED, C_MEDIA_ACCESS_UNITS_WITHOUT_CONFIG,
    C_MEDIA_ACCESS_UNITS_WITHOUT_TIME, C_MEDIA_CONFIG_CHANGES, C_MEDIA_DISCONTINUITIES, C_MEDIA_HEADERS_TOO_LONG,
    C_MEDIA_RANDOM_ACCESS_DISTRUSTED, C_MEDIA_RING_REFUSED, C_MEDIA_STREAMS_IGNORED, C_MEDIA_TS_PKTS
)
from flux.cext.media.aac cimport K_AUDIO_CONFIG_BYTES, aac_config, adts_header
from flux.cext.media.adts cimport adts_append, adts_begin, adts_init, adts_lost, adts_stream
from flux.cext.media.annexb cimport (
    access_unit, annexb, annexb_append, annexb_begin, annexb_end, annexb_finish, annexb_free, annexb_init
)
from flux.cext.media.codec cimport CODEC_AAC, CODEC_DATA, CODEC_H264, CODEC_H265, CODEC_NONE
from flux.cext.media.decoder_config cimport K_CONFIG_BYTES, parameter_sets_record
from flux.cext.media.nal cimport NAL_KEY
from flux.cext.media.pump cimport K_MAX_PUMPS, Pump, media_pump
from flux.cext.media.timeline cimport K_RESUME_GAP_TICKS, timeline, timeline_pass, timeline_place, track_time
from flux.cext.media.ts cimport (
    K_PID_PAT, K_TICKS_A_SECOND, K_TS_PACKET_BYTES, ts_section_packets, ts_unwrap
)
from flux.cext.media.ts_demux cimport (
    ts_demux, ts_demux_end, ts_demux_init, ts_demux_packet, ts_stream
)
from flux.cext.media.ts_sync cimport ts_sync, ts_sync_end, ts_sync_feed
from flux.cext.ring cimport (
    REC_AUDIO, REC_CONFIG, REC_DAMAGED, REC_DISCONTINUITY, REC_KEY, REC_VIDEO, ring, ring_alive, ring_commit,
    ring_get, ring_mark, ring_notify, ring_open, ring_record, ring_reserve, ring_set_header
)
from flux.cext.sink cimport Sink

cdef enum:
    K_RECORD_PACKETS = 348        # of a record in RING_TS at most: under 64 KiB
    K_REORDER_TICKS = 900000      # a pts further from its dts is none
    K_KEY_TICKS = 45000           # between the points at which a stream without video can be joined
    K_VIDEO_ABSENT_TICKS = 270000  # audio that goes on for so long without video is taken for all there is
    K_KEYLESS_TICKS = 450000      # video without a keyframe for so long can be joined at random_access_indicator
    K_FPS_FRAMES = 32             # frames over which a frame rate is measured
    K_LOOK_BACK_RECORDS = 64      # of the publisher before, read for the end of its timeline

cdef enum track_kind:
    TRACK_NONE = 0
    TRACK_VIDEO = 1
    TRACK_AUDIO = 2
    TRACK_OTHER = 3               # passes through RING_TS only

cdef struct media_track:
    ts_ingest* owner
    track_info* info
    uint32_t kind
    uint32_t index
    uint32_t codec
    track_time time               # jumped: its next frame is the first of an epoch
    int64_t key_ticks             # dts of its newest keyframe
    bint entered                  # a PES of it began a record of RING_TS
    int64_t entry_ticks           # dts of the last that did
    uint64_t tag                  # record of RING_TS in which its newest PES begins
    uint64_t random_access_tag    # of its newest PES with random_access_indicator
    uint32_t random_access_run    # access units in a row that have it and are no keyframes
    bint random_access_distrusted
    uint32_t fps_frames
    int64_t fps_since_ticks
    uint32_t config_bytes
    uint8_t config[4096]          # K_CONFIG_BYTES
    annexb video
    adts_stream audio

cdef struct ts_ingest:
    stream_slot* slot
    uint64_t* counters
    int64_t now_us
    bint closed
    ts_sync sync
    # RING_TS
    ring ts
    uint8_t* place                # of the record that is being filled
    uint32_t record_limit
    uint32_t record_bytes
    uint32_t record_flags
    media_track* untimed          # whose PES begins it, while its header is not read
    int64_t record_us
    int64_t ts_dts_ticks          # of the newest PES that began a record
    int64_t ts_pts_ticks
    # RING_FRAME
    ring frames
    # tracks
    ts_demux demux
    uint64_t errors               # told to the slot so far
    media_track tracks[8]
    media_track* video            # the first of its kind, or NULL
    media_track* audio
    media_track* beat             # begins records of RING_TS while there is no video
    bint video_absent
    timeline line
    uint64_t jumps                # told to the slot so far
    uint32_t pump_count
    media_pump pumps[8]           # K_MAX_PUMPS


cdef void open_record(ts_ingest* t) noexcept nogil:
    t.place = ring_reserve(&t.ts, t.record_limit)
    t.record_bytes = 0
    t.record_flags = 0
    t.untimed = NULL


cdef void end_record(ts_ingest* t) noexcept nogil:
    cdef media_track* clock = t.video if t.video != NULL else t.beat
    if t.record_bytes == 0:
        return
    ring_commit(&t.ts, t.record_bytes, t.ts_dts_ticks, t.ts_pts_ticks, t.record_us, t.record_flags,
                clock.index if clock != NULL else 0, clock.codec if clock != NULL else CODEC_NONE)
    open_record(t)


cdef void mark_record(ts_ingest* t, uint64_t rec, uint32_t flags) noexcept nogil:
    if rec == load_relaxed_u64(&t.ts.ctl.commit_rec):
        t.record_flags |= flags
    else:
        ring_mark(&t.ts, rec, flags)


cdef void put_header(ts_ingest* t, uint64_t from_pos) noexcept nogil:
    """The configurations in force, for readers that begin at `from_pos` or later."""
    cdef uint8_t blob[K_HEADER_BYTES]
    cdef uint32_t length = 0, i
    cdef frame_config head
    memset(&head, 0, sizeof(head))
    for i in range(K_MAX_TRACKS):
        if t.tracks[i].config_bytes == 0:
            continue
        if length + sizeof(head) + t.tracks[i].config_bytes > K_HEADER_BYTES:
            t.counters[C_MEDIA_HEADERS_TOO_LONG] += 1
            break
        head.track = i
        head.codec = t.tracks[i].codec
        head.length = t.tracks[i].config_bytes
        memcpy(blob + length, &head, sizeof(head))
        memcpy(blob + length + sizeof(head), t.tracks[i].config, head.length)
        length += <uint32_t>sizeof(head) + head.length
    ring_set_header(&t.frames, blob, length, from_pos)


cdef void put_config(ts_ingest* t, media_track* k, const uint8_t* config, uint32_t length, uint32_t kind,
                     int64_t dts_ticks) noexcept nogil:
    """A configuration record, if it is another than the one in force."""
    cdef uint8_t* place
    cdef uint64_t pos
    if length == k.config_bytes and memcmp(config, k.config, length) == 0:
        return
    if k.config_bytes:
        t.counters[C_MEDIA_CONFIG_CHANGES] += 1
    memcpy(k.config, config, length)
    k.config_bytes = length
    place = ring_reserve(&t.frames, length)
    if place == NULL:
        t.counters[C_MEDIA_RING_REFUSED] += 1
        return
    memcpy(place, config, length)
    pos = load_relaxed_u64(&t.frames.ctl.commit)
    put_header(t, pos)
    ring_commit(&t.frames, length, dts_ticks, dts_ticks, t.now_us, kind | REC_CONFIG, k.index, k.codec)
    t.slot.tracks_version += 1


cdef void measure_rate(media_track* k, int64_t dts_ticks) noexcept nogil:
    """The frame rate, for streams whose parameter sets tell none, or tell a wrong one."""
    cdef int64_t rate, told = k.video.sets.sps.fps_millihz
    if k.fps_frames == 0 or k.time.jumped or dts_ticks <= k.fps_since_ticks:
        k.fps_frames = 0
        k.fps_since_ticks = dts_ticks
    elif k.fps_frames == K_FPS_FRAMES:
        rate = <int64_t>K_FPS_FRAMES * K_TICKS_A_SECOND * 1000 / (dts_ticks - k.fps_since_ticks)
        k.info.fps_millihz = <uint32_t>(told if told * 19 <= rate * 20 and rate * 19 <= told * 20 else rate)
        k.fps_frames = 0
        k.fps_since_ticks = dts_ticks
    k.fps_frames += 1


cdef bint is_entry(ts_ingest* t, media_track* k, const access_unit* u) noexcept nogil:
    """Whether a player can start at this access unit.

    Gradual refresh has no keyframes at all: there random_access_indicator is believed, unless every frame has it.
    """
    cdef bint told = u.tag == k.random_access_tag
    if u.key or u.recovery_point:
        k.random_access_run = 0
        return True
    if not told:
        k.random_access_run = 0
        return False
    k.random_access_run += 1
    if k.random_access_run > 1 and not k.random_access_distrusted:
        k.random_access_distrusted = True
        t.counters[C_MEDIA_RANDOM_ACCESS_DISTRUSTED] += 1
    if k.random_access_distrusted:
        return False
    return u.dts_ticks - (k.key_ticks if k.info.keyframes else k.time.first_ticks) >= K_KEYLESS_TICKS


cdef void take_video_config(ts_ingest* t, media_track* k, int64_t dts_ticks) noexcept nogil:
    cdef uint8_t config[K_CONFIG_BYTES]
    cdef int length = parameter_sets_record(&k.video.sets, config, K_CONFIG_BYTES)
    if length < 0:
        t.counters[C_MEDIA_HEADERS_TOO_LONG] += 1
    if length <= 0:
        return
    k.info.width = k.video.sets.sps.width
    k.info.height = k.video.sets.sps.height
    k.info.profile = k.video.sets.sps.profile
    k.info.level = k.video.sets.sps.level
    if k.video.sets.sps.fps_millihz:
        k.info.fps_millihz = k.video.sets.sps.fps_millihz
    put_config(t, k, config, <uint32_t>length, REC_VIDEO, dts_ticks)


cdef void take_access_unit(void* ctx, access_unit* u) noexcept nogil:
    cdef media_track* k = <media_track*>ctx
    cdef ts_ingest* t = k.owner
    cdef uint32_t flags = REC_VIDEO, i, length
    cdef uint8_t* place
    cdef const uint8_t* nal
    if u.damaged:
        k.info.errors += 1
        t.counters[C_MEDIA_ACCESS_UNITS_DAMAGED] += 1
        flags |= REC_DAMAGED
    if not u.has_times:
        t.counters[C_MEDIA_ACCESS_UNITS_WITHOUT_TIME] += 1
        return
    if u.config_changed:
        take_video_config(t, k, u.dts_ticks)
    if k.config_bytes == 0:
        t.counters[C_MEDIA_ACCESS_UNITS_WITHOUT_CONFIG] += 1
        return
    place = ring_reserve(&t.frames, u.bytes)
    if place == NULL:
        k.info.errors += 1
        t.counters[C_MEDIA_RING_REFUSED] += 1
        return
    for i in range(u.nal_count):
        nal = u.data + u.nals[i].at
        length = u.nals[i].length
        place[0] = length >> 24
        place[1] = length >> 16 & 0xFF
        place[2] = length >> 8 & 0xFF
        place[3] = length & 0xFF
        memcpy(place + 4, nal, length)
        place += 4 + length
    if is_entry(t, k, u):
        k.info.keyframes += 1
        k.key_ticks = u.dts_ticks
        if k == t.video:
            flags |= REC_KEY
            mark_record(t, u.tag, REC_KEY)
    measure_rate(k, u.dts_ticks)
    if k.time.jumped:
        k.time.jumped = False
        flags |= REC_DISCONTINUITY
    k.info.frames += 1
    k.info.bytes += u.bytes
    timeline_pass(&t.line, &k.time, u.dts_ticks)
    t.counters[C_MEDIA_ACCESS_UNITS] += 1
    ring_commit(&t.frames, u.bytes, u.dts_ticks, u.pts_ticks, t.now_us, flags, k.index, k.codec)


cdef void take_audio_frame(void* ctx, const adts_header* h, const uint8_t* frame, uint32_t length,
                           int64_t pts_ticks) noexcept nogil:
    cdef media_track* k = <media_track*>ctx
    cdef ts_ingest* t = k.owner
    cdef uint32_t flags = REC_AUDIO
    cdef uint8_t config[K_AUDIO_CONFIG_BYTES]
    cdef uint8_t* place
    aac_config(h, config)
    k.info.width = h.channels
    k.info.height = h.rate_hz
    k.info.profile = h.object_type
    put_config(t, k, config, K_AUDIO_CONFIG_BYTES, REC_AUDIO, pts_ticks)
    place = ring_reserve(&t.frames, length)
    if place == NULL:
        k.info.errors += 1
        t.counters[C_MEDIA_RING_REFUSED] += 1
        return
    memcpy(place, frame, length)
    if k == t.audio and (t.video == NULL or t.video_absent) and (
            k.info.keyframes == 0 or k.time.jumped or pts_ticks - k.key_ticks >= K_KEY_TICKS):
        k.info.keyframes += 1
        k.key_ticks = pts_ticks
        flags |= REC_KEY
    if k.time.jumped:
        k.time.jumped = False
        flags |= REC_DISCONTINUITY
    k.info.frames += 1
    k.info.bytes += length
    timeline_pass(&t.line, &k.time, pts_ticks)
    t.counters[C_MEDIA_ACCESS_UNITS] += 1
    ring_commit(&t.frames, length, pts_ticks, pts_ticks, t.now_us, flags, k.index, k.codec)


cdef void on_pes_begin(void* ctx, ts_stream* s) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef media_track* k = <media_track*>s.user
    if k == NULL:
        return
    if k == t.video:
        end_record(t)
        t.record_flags |= REC_VIDEO
        t.untimed = k
    elif k == t.beat and (t.video == NULL or t.video_absent) and (
            not k.entered or k.time.dts_ticks - k.entry_ticks >= K_KEY_TICKS):
        end_record(t)
        t.record_flags |= REC_AUDIO | REC_KEY
        t.untimed = k
    k.tag = load_relaxed_u64(&t.ts.ctl.commit_rec)
    if s.random_access:
        k.random_access_tag = k.tag
    if k.kind == TRACK_OTHER:
        k.info.frames += 1
    elif k.kind == TRACK_AUDIO and s.hole:
        adts_lost(&k.audio)
    s.hole = False


cdef void note_absence(ts_ingest* t) noexcept nogil:
    """Other tracks that go on alone make the stream one that can be joined without video."""
    cdef int64_t since
    if t.video == NULL or t.beat == NULL or t.video_absent or not t.beat.time.placed:
        return
    since = t.video.time.dts_ticks if t.video.time.placed else t.beat.time.first_ticks
    t.video_absent = t.beat.time.dts_ticks - since > K_VIDEO_ABSENT_TICKS


cdef void on_pes_header(void* ctx, ts_stream* s) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef media_track* k = <media_track*>s.user
    cdef int64_t dts = 0, pts = 0
    cdef bint starts, known
    if k == NULL or (k.kind == TRACK_OTHER and k != t.beat):
        return
    starts = t.untimed == k
    if starts:
        t.untimed = NULL
    if s.has_pts:
        known = k.time.placed
        dts = timeline_place(&t.line, &k.time, s.dts)
        if t.line.jumps != t.jumps:
            t.jumps += 1
            t.counters[C_MEDIA_DISCONTINUITIES] += 1
            t.slot.discontinuities += 1
        pts = dts + ts_unwrap(0, s.pts - s.dts)
        if not -K_REORDER_TICKS < pts - dts < K_REORDER_TICKS:
            pts = dts
        if starts:
            t.ts_dts_ticks = dts
            t.ts_pts_ticks = pts
            k.entered = True
            k.entry_ticks = dts
            if known and k.time.jumped:
                t.record_flags |= REC_DISCONTINUITY
    if k.kind == TRACK_VIDEO:
        if k == t.video:
            t.video_absent = False
        annexb_begin(&k.video, s.has_pts, pts, dts, k.tag)
        return
    note_absence(t)
    if k.kind == TRACK_AUDIO:
        adts_begin(&k.audio, s.has_pts, pts)


cdef void on_pes_data(void* ctx, ts_stream* s, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef media_track* k = <media_track*>s.user
    if k == NULL:
        return
    if k.kind == TRACK_VIDEO:
        if s.hole:
            k.video.damaged = True
        if annexb_append(&k.video, data, length) == NAL_KEY and k == t.video:
            mark_record(t, k.tag, REC_KEY)
    elif k.kind == TRACK_AUDIO:
        if s.hole:
            adts_lost(&k.audio)
        adts_append(&k.audio, data, length)
    else:
        k.info.bytes += length
    s.hole = False


cdef void on_pes_end(void* ctx, ts_stream* s) noexcept nogil:
    cdef media_track* k = <media_track*>s.user
    if k == NULL or k.kind != TRACK_VIDEO:
        return
    if s.damaged:
        k.video.damaged = True
    annexb_end(&k.video)


cdef void drop_track(ts_ingest* t, media_track* k) noexcept nogil:
    if k.kind == TRACK_VIDEO:
        annexb_finish(&k.video)
        annexb_free(&k.video)
    memset(k.info, 0, sizeof(track_info))
    k.kind = TRACK_NONE
    k.codec = CODEC_NONE
    k.config_bytes = 0


cdef void on_stream_gone(void* ctx, ts_stream* s) noexcept nogil:
    if s.user != NULL:
        drop_track(<ts_ingest*>ctx, <media_track*>s.user)
        s.user = NULL


cdef void add_track(ts_ingest* t, ts_stream* s) noexcept nogil:
    cdef media_track* k = NULL
    cdef uint32_t i
    for i in range(K_MAX_TRACKS):
        if t.tracks[i].kind == TRACK_NONE:
            k = &t.tracks[i]
            break
    if k == NULL:
        t.counters[C_MEDIA_STREAMS_IGNORED] += 1
        return
    memset(k, 0, sizeof(media_track))
    k.owner = t
    k.index = i
    k.codec = s.codec
    k.random_access_tag = <uint64_t>-1
    k.info = &t.slot.tracks[i]
    memset(k.info, 0, sizeof(track_info))
    k.info.pid = s.pid
    k.info.codec = s.codec
    if s.codec == CODEC_H264 or s.codec == CODEC_H265:
        k.kind = TRACK_VIDEO
        annexb_init(&k.video, s.codec, t.counters)
        k.video.emit = take_access_unit
        k.video.ctx = k
    elif s.codec == CODEC_AAC:
        k.kind = TRACK_AUDIO
        adts_init(&k.audio, t.counters)
        k.audio.emit = take_audio_frame
        k.audio.ctx = k
    else:
        k.kind = TRACK_OTHER
    s.track = i
    s.user = k


cdef void put_tables(ts_ingest* t) noexcept nogil:
    """PAT and PMT as packets, for players that join at the record at hand or later."""
    cdef uint8_t blob[K_HEADER_BYTES]
    cdef uint32_t length = ts_section_packets(t.demux.pat, t.demux.pat_bytes, K_PID_PAT, blob, K_HEADER_BYTES)
    length += ts_section_packets(t.demux.pmt, t.demux.pmt_bytes, t.demux.pmt_pid, blob + length,
                                 K_HEADER_BYTES - length)
    ring_set_header(&t.ts, blob, length, load_relaxed_u64(&t.ts.ctl.commit))


cdef void on_tables(void* ctx) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef media_track* other = NULL
    cdef uint32_t i, count = 0
    for i in range(t.demux.stream_count):
        if t.demux.streams[i].user == NULL:
            add_track(t, &t.demux.streams[i])
    t.video = NULL
    t.audio = NULL
    for i in range(K_MAX_TRACKS):
        if t.tracks[i].kind == TRACK_NONE:
            continue
        count = i + 1
        if t.tracks[i].kind == TRACK_VIDEO and t.video == NULL:
            t.video = &t.tracks[i]
        elif t.tracks[i].kind == TRACK_AUDIO and t.audio == NULL:
            t.audio = &t.tracks[i]
        elif t.tracks[i].kind == TRACK_OTHER and (other == NULL or (
                other.codec == CODEC_DATA and t.tracks[i].codec != CODEC_DATA)):
            other = &t.tracks[i]
    t.beat = t.audio if t.audio != NULL else other
    t.slot.track_count = count
    t.slot.tracks_version += 1
    t.record_flags |= REC_CONFIG
    put_tables(t)


cdef void take_packet(void* ctx, const uint8_t* packet) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    if t.record_bytes + K_TS_PACKET_BYTES > t.record_limit:
        end_record(t)
    if t.record_bytes == 0:
        t.record_us = t.now_us
    memcpy(t.place + t.record_bytes, packet, K_TS_PACKET_BYTES)
    # a record that ends in this call ends before the packet; the next one then begins with it, where it lies
    ts_demux_packet(&t.demux, packet)
    if t.record_bytes == 0:
        t.record_us = t.now_us
    t.record_bytes += K_TS_PACKET_BYTES
    t.counters[C_MEDIA_TS_PKTS] += 1


cdef void deliver(void* ctx, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef uint64_t errors
    if t.closed or length == 0:
        return
    if not ring_alive(&t.ts):
        t.closed = True
        return
    t.now_us = now_us
    t.slot.bytes_in += length
    t.slot.last_in_us = <uint64_t>now_us
    ts_sync_feed(&t.sync, data, length)
    errors = t.demux.errors + t.sync.losses
    if errors != t.errors:
        t.slot.ts_errors += errors - t.errors
        t.errors = errors


cdef void flush(void* ctx, int64_t now_us) noexcept nogil:
    cdef ts_ingest* t = <ts_ingest*>ctx
    cdef uint32_t i
    if t.closed:
        return
    if not ring_alive(&t.ts):
        t.closed = True
        return
    t.now_us = now_us
    if t.untimed == NULL:
        end_record(t)
    for i in range(t.pump_count):
        t.pumps[i].run(t.pumps[i].ctx, now_us)
    ring_notify(&t.ts)
    ring_notify(&t.frames)


cdef void find_end(ts_ingest* t, ring* r) noexcept nogil:
    """Where the timeline of the publisher before ended, by its last records in `r`."""
    cdef uint64_t end = load_relaxed_u64(&r.ctl.commit_rec), rec
    cdef ring_record record
    for rec in range(end - min(end, <uint64_t>K_LOOK_BACK_RECORDS), end):
        if ring_get(r, rec, &record) == 0 and (not t.line.resumed or record.dts_ticks > t.line.end_ticks):
            t.line.resumed = True
            t.line.end_ticks = record.dts_ticks


cdef void finish(ts_ingest* t, int64_t now_us) noexcept nogil:
    cdef uint32_t i
    t.now_us = now_us
    ts_sync_end(&t.sync)
    ts_demux_end(&t.demux)
    for i in range(K_MAX_TRACKS):
        if t.tracks[i].kind == TRACK_VIDEO:
            annexb_finish(&t.tracks[i].video)
    t.untimed = NULL
    flush(t, now_us)
    # the pumps end here as well: the next publisher's own ones go on
    for i in range(K_RING_KINDS):
        store_release_u64(&t.slot.rings[i].active, 0)
    store_release_u64(&t.slot.hls.active, 0)
    t.closed = True


cdef class TsIngest(Sink):
    """The sink of one publisher of the stream in `slot`; its process owns the slot.

    counters: writable uint64 array as in counters.pxd (Arena.my_counters). deliver() takes pieces of an MPEG-TS of
    any size; flush() makes what came visible, runs the pumps and rings doorbells. Both are of no effect once the
    slot was freed or close() was called. Raises ValueError when the slot is free.
    """

    def __cinit__(self, Arena arena not None, uint32_t slot, uint64_t[::1] counters not None):
        cdef ts_ingest* t
        self.core = t = <ts_ingest*>calloc(1, sizeof(ts_ingest))
        if t == NULL:
            raise MemoryError
        self.arena = arena
        self.slot = slot
        self.counters = counters
        self.pumps = []
        if ring_open(&t.ts, &arena.view, slot, RING_TS) or ring_open(&t.frames, &arena.view, slot, RING_FRAME):
            raise ValueError(f"stream slot {slot} is free, or memory for its rings is short")
        t.slot = t.ts.slot
        t.counters = &counters[0]
        t.record_limit = <uint32_t>min(<uint64_t>K_RECORD_PACKETS, (t.ts.size >> 2) // K_TS_PACKET_BYTES) * K_TS_PACKET_BYTES
        t.sync.packet = take_packet
        t.sync.ctx = t
        t.sync.counters = t.counters
        ts_demux_init(&t.demux, t.counters)
        t.demux.handler.ctx = t
        t.demux.handler.tables = on_tables
        t.demux.handler.pes_begin = on_pes_begin
        t.demux.handler.pes_header = on_pes_header
        t.demux.handler.pes_data = on_pes_data
        t.demux.handler.pes_end = on_pes_end
        t.demux.handler.stream_gone = on_stream_gone
        memset(t.slot.tracks, 0, sizeof(t.slot.tracks))
        t.slot.track_count = 0
        t.slot.tracks_version += 1
        find_end(t, &t.frames)
        find_end(t, &t.ts)
        open_record(t)
        if t.line.resumed:
            t.ts_dts_ticks = t.ts_pts_ticks = t.line.end_ticks + K_RESUME_GAP_TICKS
            t.record_flags = REC_DISCONTINUITY
        store_release_u64(&t.ts.ctl.active, 1)
        store_release_u64(&t.frames.ctl.active, 1)
        self.view.ctx = t
        self.view.deliver = deliver
        self.view.flush = flush

    def __dealloc__(self):
        cdef uint32_t i
        if self.core == NULL:
            return
        for i in range(K_MAX_TRACKS):
            if self.core.tracks[i].kind == TRACK_VIDEO:
                annexb_free(&self.core.tracks[i].video)
        free(self.core)

    cpdef add_pump(self, Pump pump):
        """Run `pump` at the end of each flush, after those that were added before."""
        if self.core.pump_count == K_MAX_PUMPS:
            raise ValueError(f"a stream has at most {K_MAX_PUMPS} pumps")
        self.pumps.append(pump)
        self.core.pumps[self.core.pump_count] = pump.view
        self.core.pump_count += 1

    def close(self, int64_t now_us):
        """The publisher is gone: end what is open, flush, and take no more."""
        if not self.core.closed:
            with nogil:
                finish(self.core, now_us)
