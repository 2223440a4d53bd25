"""An MPEG-TS file as a live source: its packets at the times that its PCR tells, and over again as one stream without end.

A pass is one run through the file. Each pass after the first has its PCR, PTS and DTS moved on by the file's length
and its continuity counters by what the file counts, so that nobody can tell where it begins. The length is that of
the longest track: from its first decoding time to its last, and that frame's duration.

The file is read once in advance for this; what is kept of it are the places of its PCR.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from flux.cext.media.aac cimport K_AAC_FRAME_SAMPLES, adts_header
from flux.cext.media.adts cimport adts_append, adts_begin, adts_init, adts_lost, adts_stream
from flux.cext.media.codec cimport CODEC_AAC, CODEC_DATA
from flux.cext.media.ts cimport (
    K_PCR_A_TICK, K_PID_NULL, K_TICKS_A_SECOND, K_TS_PACKET_BYTES, K_TS_PIDS, K_TS_SYNC_BYTE, pes_header, pes_parse,
    pes_put_timestamp, pes_timestamp, ts_packet, ts_parse, ts_put_pcr, ts_unwrap
)
from flux.cext.media.ts_demux cimport (
    K_MAX_STREAMS, ts_demux, ts_demux_end, ts_demux_init, ts_demux_packet, ts_stream
)
from flux.cext.sink cimport Sink, media_sink

cdef enum:
    K_PAYLOAD_PACKETS = 7         # of one payload: what fits an SRT or UDP datagram
    K_STEP_TICKS = 3600           # of the only frame of a track
    K_JUMP_TICKS = 900000         # a step of decoding times that is no frame's duration
    K_PCR_A_MICROSECOND = 27
    K_MAX_LAG_US = 1000000        # a caller who is later than this is not sent all at once what it missed
    K_NO_PID = 0xFFFF
    K_NO_COUNTER = 0xFF
    K_COUNTERS = 256              # the demuxer counts here, unseen
    K_M2TS_PACKET_BYTES = 192

cdef uint64_t K_PCR_MODULO = (<uint64_t>1 << 33) * K_PCR_A_TICK

cdef struct anchor:               # a packet whose time is known
    uint64_t packet
    int64_t us                    # since the first one

cdef struct track_span:
    bint timed
    int64_t first_ticks           # decoding times, unwrapped
    int64_t last_ticks
    int64_t step_ticks            # from the frame before the last to the last
    int64_t span_ticks            # first to last, jumps left out
    adts_stream* audio

cdef struct survey:               # of the file, before the first pass
    ts_demux demux
    uint64_t counters[256]
    track_span tracks[16]
    uint32_t track_count
    uint64_t packet
    track_span* clock             # in place of PCR: the first track with times
    anchor* anchors
    uint64_t anchor_count
    uint64_t anchor_capacity
    bint no_memory


cdef void add_anchor(survey* s, int64_t us) noexcept nogil:
    cdef uint64_t capacity
    cdef void* anchors
    if s.anchor_count == s.anchor_capacity:
        capacity = s.anchor_capacity * 2 if s.anchor_capacity else 256
        anchors = realloc(s.anchors, capacity * sizeof(anchor))
        if anchors == NULL:
            s.no_memory = True
            return
        s.anchors = <anchor*>anchors
        s.anchor_capacity = capacity
    s.anchors[s.anchor_count].packet = s.packet
    s.anchors[s.anchor_count].us = us
    s.anchor_count += 1


cdef void add_time(track_span* t, int64_t ticks) noexcept nogil:
    if not t.timed:
        t.timed = True
        t.first_ticks = ticks
        t.step_ticks = K_STEP_TICKS
    elif 0 < ticks - t.last_ticks < K_JUMP_TICKS:
        t.step_ticks = ticks - t.last_ticks
        t.span_ticks += t.step_ticks
    else:
        t.span_ticks += t.step_ticks
    t.last_ticks = ticks


cdef void on_audio(void* ctx, const adts_header* h, const uint8_t* frame, uint32_t length, int64_t pts) noexcept nogil:
    cdef track_span* t = <track_span*>ctx
    add_time(t, pts)
    t.step_ticks = K_AAC_FRAME_SAMPLES * K_TICKS_A_SECOND / h.rate_hz


cdef void on_tables(void* ctx) noexcept nogil:
    cdef survey* s = <survey*>ctx
    cdef track_span* t
    cdef uint32_t i
    for i in range(s.demux.stream_count):
        if s.demux.streams[i].user != NULL or s.track_count == K_MAX_STREAMS:
            continue
        t = &s.tracks[s.track_count]
        if s.demux.streams[i].codec == CODEC_AAC:
            t.audio = <adts_stream*>calloc(1, sizeof(adts_stream))
            if t.audio == NULL:
                s.no_memory = True
                continue
            adts_init(t.audio, s.counters)
            t.audio.emit = on_audio
            t.audio.ctx = t
        s.demux.streams[i].user = t
        s.track_count += 1


cdef void on_pes_begin(void* ctx, ts_stream* p) noexcept nogil:
    cdef track_span* t = <track_span*>p.user
    if t != NULL and t.audio != NULL and p.hole:
        adts_lost(t.audio)
    p.hole = False


cdef void on_pes_header(void* ctx, ts_stream* p) noexcept nogil:
    cdef survey* s = <survey*>ctx
    cdef track_span* t = <track_span*>p.user
    cdef int64_t ticks
    if t == NULL or not p.has_pts:
        return
    ticks = ts_unwrap(t.last_ticks, p.dts) if t.timed else <int64_t>p.dts
    if t.audio != NULL:
        adts_begin(t.audio, True, ticks)
    elif p.codec != CODEC_DATA:
        add_time(t, ticks)
    if s.clock == NULL and p.codec != CODEC_DATA:
        s.clock = t
    if s.clock == t and t.timed:
        add_anchor(s, t.span_ticks * 100 / 9)


cdef void on_pes_data(void* ctx, ts_stream* p, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef track_span* t = <track_span*>p.user
    if t != NULL and t.audio != NULL:
        adts_append(t.audio, data, length)


cdef void on_pes_end(void* ctx, ts_stream* p) noexcept nogil:
    pass


cdef void on_stream_gone(void* ctx, ts_stream* p) noexcept nogil:
    p.user = NULL


cdef int64_t survey_streams(survey* s, const uint8_t* data, uint64_t packets) noexcept nogil:
    """Run the demuxer over the file; the number of a packet without sync byte, or -1."""
    cdef uint64_t i
    ts_demux_init(&s.demux, s.counters)
    s.demux.handler.ctx = s
    s.demux.handler.tables = on_tables
    s.demux.handler.pes_begin = on_pes_begin
    s.demux.handler.pes_header = on_pes_header
    s.demux.handler.pes_data = on_pes_data
    s.demux.handler.pes_end = on_pes_end
    s.demux.handler.stream_gone = on_stream_gone
    for i in range(packets):
        if data[i * K_TS_PACKET_BYTES] != K_TS_SYNC_BYTE:
            return <int64_t>i
        s.packet = i
        ts_demux_packet(&s.demux, data + i * K_TS_PACKET_BYTES)
    ts_demux_end(&s.demux)
    return -1


cdef uint32_t pid_with_pcr(const uint8_t* data, uint64_t packets) noexcept nogil:
    """The first PID that carries PCR; K_NO_PID: none does."""
    cdef ts_packet p
    cdef uint64_t i
    for i in range(packets):
        if ts_parse(data + i * K_TS_PACKET_BYTES, &p) == 0 and p.has_pcr:
            return p.pid
    return K_NO_PID


cdef void survey_pcr(survey* s, const uint8_t* data, uint64_t packets, uint32_t pid) noexcept nogil:
    """The times of the packets with PCR; a jump of the PCR takes as long as its bytes did before."""
    cdef ts_packet p
    cdef uint64_t i, last = 0, last_at = 0, step, passed = 0, first_at = 0
    s.anchor_count = 0
    for i in range(packets):
        if ts_parse(data + i * K_TS_PACKET_BYTES, &p) or p.pid != pid or not p.has_pcr:
            continue
        if s.anchor_count == 0:
            first_at = i
        else:
            step = (p.pcr + K_PCR_MODULO - last) % K_PCR_MODULO
            if step > <uint64_t>K_JUMP_TICKS * K_PCR_A_TICK:
                step = passed // (last_at - first_at) * (i - last_at) if last_at > first_at else 0
            passed += step
        s.packet = i
        add_anchor(s, <int64_t>(passed // K_PCR_A_MICROSECOND))
        last = p.pcr
        last_at = i


cdef void survey_continuity(const uint8_t* data, uint64_t packets, uint8_t* steps) noexcept nogil:
    """By PID: what a pass adds to its continuity counter."""
    cdef uint8_t first[K_TS_PIDS]
    cdef uint64_t i
    cdef const uint8_t* p
    cdef uint32_t pid
    memset(first, K_NO_COUNTER, sizeof(first))
    for i in range(packets):
        p = data + i * K_TS_PACKET_BYTES
        pid = (p[1] & 0x1F) << 8 | p[2]
        if first[pid] == K_NO_COUNTER:
            # a counter counts payloads: a PID that begins without one does not move on
            first[pid] = <uint8_t>((p[3] & 0xF) - (p[3] >> 4 & 1)) & 0xF
        steps[pid] = <uint8_t>((p[3] & 0xF) - first[pid]) & 0xF
    steps[K_PID_NULL] = 0


cdef void move_packet(uint8_t* packet, const uint8_t* steps, uint64_t passes, uint64_t shift_ticks) noexcept nogil:
    """Move a packet's clocks and counter on."""
    cdef ts_packet p
    cdef pes_header h
    cdef uint8_t* payload
    if ts_parse(packet, &p):
        return
    packet[3] = (packet[3] & 0xF0) | (packet[3] + steps[p.pid] * passes & 0xF)
    if p.has_pcr:
        ts_put_pcr(packet + 6, (p.pcr + shift_ticks * K_PCR_A_TICK) % K_PCR_MODULO)
    payload = packet + p.payload_at
    if not p.start or p.scrambling or pes_parse(payload, p.payload_bytes, &h) or not h.has_pts:
        return
    pes_put_timestamp(payload + 9, pes_timestamp(payload + 9) + shift_ticks)
    if payload[7] >> 6 == 3 and payload[8] >= 10:
        pes_put_timestamp(payload + 14, pes_timestamp(payload + 14) + shift_ticks)


cdef class TsPacer:
    """A source of `data` (bytes, a whole MPEG-TS file of 188-byte packets), paced by its PCR, else by its DTS.

    loop: begin anew at the end, without end, as one stream. Raises ValueError, saying what is wrong, for bytes that
    are no MPEG-TS, break off in the middle, hold no program, or have no clock.
    """

    cdef object owner
    cdef const uint8_t[::1] view
    cdef const uint8_t* data
    cdef uint64_t packets
    cdef bint loop
    cdef anchor* anchors
    cdef uint64_t anchor_count
    cdef uint8_t steps[8192]      # K_TS_PIDS
    cdef uint64_t shift_ticks     # of each pass
    cdef readonly int64_t length_us  # of a pass
    cdef bint started
    cdef int64_t start_us         # of the first pass
    cdef readonly uint64_t passes  # times that the file's end was passed
    cdef uint64_t at              # next packet
    cdef uint64_t anchor          # the last before it

    def __cinit__(self, data not None, *, bint loop):
        cdef survey* s
        self.view = self.owner = data
        self.loop = loop
        self.packets = <uint64_t>self.view.shape[0] // K_TS_PACKET_BYTES
        if self.packets == 0:
            raise ValueError(f"{self.view.shape[0]} bytes are no MPEG-TS: a packet has {K_TS_PACKET_BYTES}")
        self.data = &self.view[0]
        s = <survey*>calloc(1, sizeof(survey))
        if s == NULL:
            raise MemoryError
        try:
            self._survey(s)
        finally:
            self.anchors = s.anchors
            for i in range(K_MAX_STREAMS):
                free(s.tracks[i].audio)
            free(s)

    def __dealloc__(self):
        free(self.anchors)

    cdef _survey(self, survey* s):
        cdef track_span* longest = NULL
        cdef uint32_t pid, i
        cdef int64_t broken
        with nogil:
            broken = survey_streams(s, self.data, self.packets)
        if broken >= 0:
            self._refuse(<uint64_t>broken)
        if s.no_memory:
            raise MemoryError
        if s.demux.pmt_bytes == 0:
            raise ValueError("no program in this MPEG-TS: it has no PAT, or no PMT")
        with nogil:
            pid = pid_with_pcr(self.data, self.packets)
            if pid != K_NO_PID:
                survey_pcr(s, self.data, self.packets, s.demux.pcr_pid)
                if s.anchor_count == 0:
                    survey_pcr(s, self.data, self.packets, pid)
            survey_continuity(self.data, self.packets, self.steps)
        if s.no_memory:
            raise MemoryError
        if s.anchor_count == 0:
            raise ValueError("no clock in this MPEG-TS: neither PCR nor time stamps of audio or video")
        self.anchor_count = s.anchor_count
        for i in range(s.track_count):
            if s.tracks[i].timed and (longest == NULL or s.tracks[i].span_ticks + s.tracks[i].step_ticks
                                      > longest.span_ticks + longest.step_ticks):
                longest = &s.tracks[i]
        if longest == NULL:
            # scrambled, or data only: as long as its PCR says
            self.length_us = self._extrapolated(s.anchors, self.packets)
            self.shift_ticks = <uint64_t>(self.length_us * 9 // 100)
        else:
            self.shift_ticks = <uint64_t>(longest.last_ticks + longest.step_ticks - longest.first_ticks)
            self.length_us = (longest.span_ticks + longest.step_ticks) * 100 // 9
        if self.loop and self.length_us <= 0:
            raise ValueError("this MPEG-TS is too short to be repeated: its clock does not move")

    cdef _refuse(self, uint64_t packet):
        cdef uint64_t i
        if packet > 1:
            raise ValueError(f"no MPEG-TS from byte {packet * K_TS_PACKET_BYTES} on: the sync byte 0x47 is missing there")
        for i in range(4, min(self.packets, <uint64_t>8) * K_TS_PACKET_BYTES - K_M2TS_PACKET_BYTES, K_M2TS_PACKET_BYTES):
            if self.data[i] != K_TS_SYNC_BYTE:
                break
        else:
            raise ValueError("packets of 192 bytes (M2TS): an MPEG-TS with packets of 188 bytes is needed")
        raise ValueError(f"no MPEG-TS: the sync byte 0x47 is missing at byte {packet * K_TS_PACKET_BYTES}")

    cdef int64_t _extrapolated(self, const anchor* anchors, uint64_t packet) noexcept nogil:
        """The time of a packet after the last anchor, at the mean rate."""
        cdef const anchor* first = anchors
        cdef const anchor* last = anchors + (self.anchor_count - 1)
        if last.packet == first.packet:
            return last.us
        return last.us + <int64_t>(
            <double>(last.us - first.us) * <double>(packet - last.packet) / <double>(last.packet - first.packet))

    cdef int64_t _due(self) noexcept nogil:
        """When the packet at hand is due, µs since the pass began."""
        cdef const anchor* a
        cdef const anchor* b
        cdef int64_t us
        while self.anchor + 1 < self.anchor_count and self.anchors[self.anchor + 1].packet <= self.at:
            self.anchor += 1
        a = &self.anchors[self.anchor]
        if self.at <= a.packet:
            us = a.us
        elif self.anchor + 1 < self.anchor_count:
            b = a + 1
            us = a.us + (b.us - a.us) * <int64_t>(self.at - a.packet) // <int64_t>(b.packet - a.packet)
        else:
            us = self._extrapolated(self.anchors, self.at)
        # the next pass begins on time, whatever the rate of the last packets
        return min(us, self.length_us) if self.loop else us

    cdef uint32_t _copy(self, uint8_t* out) noexcept nogil:
        """The next payload, its clocks and counters moved on; gives its bytes."""
        cdef uint32_t count = <uint32_t>min(<uint64_t>K_PAYLOAD_PACKETS, self.packets - self.at), i
        memcpy(out, self.data + self.at * K_TS_PACKET_BYTES, count * K_TS_PACKET_BYTES)
        if self.passes:
            for i in range(count):
                move_packet(out + i * K_TS_PACKET_BYTES, self.steps, self.passes, self.passes * self.shift_ticks)
        self.at += count
        return count * K_TS_PACKET_BYTES

    cdef int64_t _read(self, int64_t now_us, media_sink* sink) noexcept nogil:
        cdef uint8_t payload[K_PAYLOAD_PACKETS * K_TS_PACKET_BYTES]
        cdef int64_t due
        cdef uint32_t length
        cdef bint sent = False
        if not self.started:
            self.started = True
            self.start_us = now_us
        while True:
            if self.at >= self.packets:
                if not self.loop:
                    due = -1
                    break
                self.passes += 1
                self.at = 0
                self.anchor = 0
            due = self.start_us + <int64_t>self.passes * self.length_us + self._due()
            if due > now_us:
                break
            if now_us - due > K_MAX_LAG_US:
                self.start_us += now_us - due
            length = self._copy(payload)
            if sink != NULL:
                sink.deliver(sink.ctx, payload, length, now_us)
                sent = True
        if sent:
            sink.flush(sink.ctx, now_us)
        return due

    def read(self, int64_t now_us, Sink sink):
        """Deliver to `sink` what is due at `now_us` (µs, CLOCK_MONOTONIC), in payloads of up to 1,316 bytes, and flush it.

        None as sink: pass over it. The first call starts the clock. Gives the time at which more is due, µs; None
        when the file is at its end. A caller who is over a second late goes on from where it was.
        """
        cdef int64_t due
        cdef media_sink* view = &sink.view if sink is not None else NULL
        with nogil:
            due = self._read(now_us, view)
        return None if due < 0 else due
