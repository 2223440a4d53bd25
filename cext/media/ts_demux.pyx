"""Transport stream demultiplexer."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from flux.cext.counters cimport (
    C_MEDIA_CONTINUITY_ERRORS, C_MEDIA_CRC_ERRORS, C_MEDIA_DUPLICATE_PKTS, C_MEDIA_MALFORMED_PKTS,
    C_MEDIA_PES_ERRORS, C_MEDIA_PES_STRAY_PKTS, C_MEDIA_SCRAMBLED_PKTS, C_MEDIA_STREAMS_IGNORED,
    C_MEDIA_STUFFING_DISTRUSTED, C_MEDIA_TABLE_CHANGES, C_MEDIA_TABLE_ERRORS, C_MEDIA_TRANSPORT_ERRORS
)
from flux.cext.media.codec cimport (
    CODEC_AAC, CODEC_AC3, CODEC_DATA, CODEC_EAC3, CODEC_H264, CODEC_H265, CODEC_MP3, CODEC_OPUS
)
from flux.cext.media.ts cimport (
    K_PES_HEADER_BYTES, K_PID_NULL, K_PID_PAT, K_TABLE_PAT, K_TABLE_PMT, K_TS_PACKET_BYTES, K_TS_SYNC_BYTE, pes_header,
    pes_parse, section_handler, ts_crc32, ts_packet, ts_parse, ts_section_feed
)

cdef enum pid_role:
    ROLE_NONE = 0
    ROLE_PAT = 1
    ROLE_PMT = 2
    ROLE_STREAM = 3

cdef enum:
    K_TABLE_HEADER_BYTES = 8      # table_id .. last_section_number
    K_CRC_BYTES = 4
    K_WHOLE_PAYLOAD_BYTES = 184   # of a packet without adaptation field
    K_TAG_REGISTRATION = 0x05
    K_TAG_AC3 = 0x6A              # ETSI EN 300 468
    K_TAG_EAC3 = 0x7A


cdef void ts_demux_init(ts_demux* d, uint64_t* counters) noexcept nogil:
    """Ready for the first packet; the caller sets `handler`."""
    memset(d, 0, sizeof(ts_demux))
    d.counters = counters
    d.roles[K_PID_PAT] = ROLE_PAT
    d.pat_tables.continuity = K_NO_CONTINUITY
    d.pmt_tables.continuity = K_NO_CONTINUITY


cdef bint bytes_are(const uint8_t* data, const char* text) noexcept nogil:
    return memcmp(data, text, 4) == 0


cdef uint32_t codec_of_private(const uint8_t* descriptors, uint32_t length) noexcept nogil:
    """What a PES private data stream (type 0x06) holds, by its descriptors (2.6)."""
    cdef uint32_t tag, n
    cdef uint32_t codec = CODEC_DATA
    while length >= 2:
        tag = descriptors[0]
        n = descriptors[1]
        if n > length - 2:
            break
        if tag == K_TAG_AC3:
            codec = CODEC_AC3
        elif tag == K_TAG_EAC3:
            codec = CODEC_EAC3
        elif tag == K_TAG_REGISTRATION and n >= 4:
            if bytes_are(descriptors + 2, b"Opus"):
                codec = CODEC_OPUS
            elif bytes_are(descriptors + 2, b"AC-3"):
                codec = CODEC_AC3
            elif bytes_are(descriptors + 2, b"EAC3"):
                codec = CODEC_EAC3
            elif bytes_are(descriptors + 2, b"HEVC"):
                codec = CODEC_H265
        descriptors += 2 + n
        length -= 2 + n
    return codec


cdef uint32_t codec_of(uint32_t type, const uint8_t* descriptors, uint32_t length) noexcept nogil:
    """The media_codec of a stream_type (table 2-34, and the common private values)."""
    if type == 0x1B:
        return CODEC_H264
    if type == 0x24:
        return CODEC_H265
    if type == 0x0F:
        return CODEC_AAC
    if type == 0x03 or type == 0x04:
        return CODEC_MP3
    if type == 0x81:
        return CODEC_AC3
    if type == 0x84 or type == 0x87:
        return CODEC_EAC3
    if type == 0x06:
        return codec_of_private(descriptors, length)
    return CODEC_DATA


cdef bint section_intact(ts_demux* d, const uint8_t* section, uint32_t length, uint32_t table) noexcept nogil:
    if section[0] != table:
        return False
    if length < K_TABLE_HEADER_BYTES + K_CRC_BYTES or not section[1] & 0x80:
        d.counters[C_MEDIA_TABLE_ERRORS] += 1
        return False
    if ts_crc32(section, length):
        d.counters[C_MEDIA_CRC_ERRORS] += 1
        d.errors += 1
        return False
    return section[5] & 1         # current_next_indicator


cdef void drop_stream(ts_demux* d, ts_stream* s) noexcept nogil:
    if s.open:
        s.open = False
        d.handler.pes_end(d.handler.ctx, s)
    d.handler.stream_gone(d.handler.ctx, s)


cdef void follow_program(ts_demux* d, uint16_t program, uint16_t pid) noexcept nogil:
    d.program = program
    if pid == d.pmt_pid:
        return
    if d.pmt_pid and d.roles[d.pmt_pid] == ROLE_PMT:
        d.roles[d.pmt_pid] = ROLE_NONE
    d.pmt_pid = pid
    d.roles[pid] = ROLE_PMT
    d.pmt_bytes = 0
    memset(&d.pmt_tables, 0, sizeof(table_pid))
    d.pmt_tables.continuity = K_NO_CONTINUITY


cdef void take_pat(void* ctx, const uint8_t* section, uint32_t length) noexcept nogil:
    """2.4.4.3: the first program of the table, kept as long as the table names it."""
    cdef ts_demux* d = <ts_demux*>ctx
    cdef uint32_t at
    cdef uint16_t number, pid, first = 0, first_pid = 0, kept_pid = 0
    if length == d.pat_bytes and memcmp(section, d.pat, length) == 0:
        return
    if not section_intact(d, section, length, K_TABLE_PAT):
        return
    if d.pat_bytes and section[6] != d.pat[6]:
        return                    # another section of a long table: the program was found in the one kept
    at = K_TABLE_HEADER_BYTES
    while at + 4 + K_CRC_BYTES <= length:
        number = <uint16_t>(section[at] << 8 | section[at + 1])
        pid = <uint16_t>((section[at + 2] & 0x1F) << 8 | section[at + 3])
        at += 4
        if number == 0 or pid == K_PID_PAT or pid == K_PID_NULL:
            continue
        if first == 0:
            first = number
            first_pid = pid
        if number == d.program:
            kept_pid = pid
    if first == 0:
        return
    memcpy(d.pat, section, length)
    d.pat_bytes = length
    d.counters[C_MEDIA_TABLE_CHANGES] += 1
    if kept_pid:
        follow_program(d, d.program, kept_pid)
    else:
        follow_program(d, first, first_pid)
    if d.pmt_bytes:
        d.handler.tables(d.handler.ctx)


cdef void take_pmt(void* ctx, const uint8_t* section, uint32_t length) noexcept nogil:
    """2.4.4.8: the streams of the program; one that keeps its PID and codec keeps its state."""
    cdef ts_demux* d = <ts_demux*>ctx
    cdef ts_stream fresh[K_MAX_STREAMS]
    cdef uint32_t at, end, info, count = 0, i, type, codec
    cdef uint16_t pid
    if length == d.pmt_bytes and memcmp(section, d.pmt, length) == 0:
        return
    if not section_intact(d, section, length, K_TABLE_PMT):
        return
    if (section[3] << 8 | section[4]) != d.program or length < 12 + K_CRC_BYTES:
        return
    end = length - K_CRC_BYTES
    at = 12 + (<uint32_t>(section[10] & 0xF) << 8 | section[11])
    if at > end:
        d.counters[C_MEDIA_TABLE_ERRORS] += 1
        return
    d.pcr_pid = <uint16_t>((section[8] & 0x1F) << 8 | section[9])
    for i in range(d.stream_count):
        if d.roles[d.streams[i].pid] >= ROLE_STREAM:
            d.roles[d.streams[i].pid] = ROLE_NONE
    while at + 5 <= end:
        type = section[at]
        pid = <uint16_t>((section[at + 1] & 0x1F) << 8 | section[at + 2])
        info = <uint32_t>(section[at + 3] & 0xF) << 8 | section[at + 4]
        at += 5
        if info > end - at:
            d.counters[C_MEDIA_TABLE_ERRORS] += 1
            break
        codec = codec_of(type, section + at, info)
        at += info
        if d.roles[pid] != ROLE_NONE or pid == K_PID_NULL or count == K_MAX_STREAMS:
            d.counters[C_MEDIA_STREAMS_IGNORED] += 1
            continue
        memset(&fresh[count], 0, sizeof(ts_stream))
        fresh[count].pid = pid
        fresh[count].type = type
        fresh[count].codec = codec
        fresh[count].track = K_NO_TRACK
        fresh[count].continuity = K_NO_CONTINUITY
        for i in range(d.stream_count):
            if d.streams[i].pid == pid and d.streams[i].codec == codec:
                fresh[count] = d.streams[i]
                d.streams[i].pid = K_PID_NULL
                break
        d.roles[pid] = ROLE_STREAM + count
        count += 1
    for i in range(d.stream_count):
        if d.streams[i].pid != K_PID_NULL:
            drop_stream(d, &d.streams[i])
    memcpy(d.streams, fresh, count * sizeof(ts_stream))
    d.stream_count = count
    memcpy(d.pmt, section, length)
    d.pmt_bytes = length
    d.counters[C_MEDIA_TABLE_CHANGES] += 1
    d.handler.tables(d.handler.ctx)


cdef void table_packet(ts_demux* d, const ts_packet* p, const uint8_t* packet, table_pid* t,
                       section_handler handler) noexcept nogil:
    cdef uint32_t sum
    if not p.has_payload or p.scrambling:
        return
    sum = ts_crc32(packet + p.payload_at, p.payload_bytes)
    if t.continuity != K_NO_CONTINUITY and not p.discontinuity and p.continuity != ((t.continuity + 1) & 0xF):
        if p.continuity == t.continuity and sum == t.sum:
            d.counters[C_MEDIA_DUPLICATE_PKTS] += 1
            return
        d.counters[C_MEDIA_CONTINUITY_ERRORS] += 1
        d.errors += 1
        t.section.active = False
    t.continuity = p.continuity
    t.sum = sum
    ts_section_feed(&t.section, packet + p.payload_at, p.payload_bytes, p.start, handler, d)


cdef bint follows(ts_demux* d, ts_stream* s, const ts_packet* p, const uint8_t* packet) noexcept nogil:
    """2.4.3.3: whether the packet is to be read; False for a duplicate. Notes what is missing."""
    cdef uint64_t tail
    memcpy(&tail, packet + K_TS_PACKET_BYTES - sizeof(tail), sizeof(tail))
    if s.continuity != K_NO_CONTINUITY and not p.discontinuity and p.continuity != ((s.continuity + 1) & 0xF):
        if p.continuity == s.continuity and tail == s.tail:
            d.counters[C_MEDIA_DUPLICATE_PKTS] += 1
            return False
        d.counters[C_MEDIA_CONTINUITY_ERRORS] += 1
        d.errors += 1
        s.damaged = True
        s.hole = True
        s.stuffed = False
    s.continuity = p.continuity
    s.tail = tail
    return True


cdef void end_pes(ts_demux* d, ts_stream* s) noexcept nogil:
    s.open = False
    d.handler.pes_end(d.handler.ctx, s)


cdef void begin_pes(ts_demux* d, ts_stream* s, const ts_packet* p) noexcept nogil:
    if s.stuffed and s.stuffed_ends >= 0:
        s.stuffed_ends += 1
    s.stuffed = False
    if s.open:
        end_pes(d, s)
    # a hole before this packet broke the PES before it, not this one
    s.damaged = False
    s.open = True
    s.in_header = True
    s.head_bytes = 0
    s.random_access = p.random_access
    s.pes_count += 1
    d.handler.pes_begin(d.handler.ctx, s)


cdef bint read_header(ts_demux* d, ts_stream* s, const uint8_t** data, uint32_t* length) noexcept nogil:
    """Take the PES header from the bytes; True once it is whole and they are at its payload."""
    cdef pes_header h
    cdef const uint8_t* at = data[0]
    cdef uint32_t n = length[0], before = s.head_bytes
    cdef int result
    if before:
        n = min(n, K_PES_HEADER_BYTES - before)
        memcpy(s.head + before, at, n)
        s.head_bytes += n
        at = s.head
        n = s.head_bytes
    result = pes_parse(at, n, &h)
    if result > 0:
        if before == 0:
            memcpy(s.head, at, n)
            s.head_bytes = n
        return False
    s.in_header = False
    if result < 0:
        d.counters[C_MEDIA_PES_ERRORS] += 1
        s.open = False
        return False
    data[0] += h.header_bytes - before
    length[0] -= h.header_bytes - before
    s.has_pts = h.has_pts
    if h.has_pts:
        s.pts = h.pts
        s.dts = h.dts
    s.left = h.payload_bytes
    s.bounded = h.payload_bytes != 0
    d.handler.pes_header(d.handler.ctx, s)
    return True


cdef void stream_packet(ts_demux* d, ts_stream* s, const ts_packet* p, const uint8_t* packet) noexcept nogil:
    cdef const uint8_t* data = packet + p.payload_at
    cdef uint32_t length = p.payload_bytes
    if not p.has_payload:
        return
    if p.scrambling:
        d.counters[C_MEDIA_SCRAMBLED_PKTS] += 1
        s.continuity = p.continuity
        s.damaged = True
        s.hole = True
        return
    if not follows(d, s, p, packet):
        return
    s.payload_bytes += length
    if p.start:
        begin_pes(d, s, p)
    elif s.stuffed:
        s.stuffed = False
        if s.stuffed_ends >= 0:
            s.stuffed_ends = -1
            d.counters[C_MEDIA_STUFFING_DISTRUSTED] += 1
    if not s.open:
        if s.pes_count:
            d.counters[C_MEDIA_PES_STRAY_PKTS] += 1
        return
    if s.in_header and not read_header(d, s, &data, &length):
        return
    if s.bounded and length > s.left:
        length = s.left
    if length:
        d.handler.pes_data(d.handler.ctx, s, data, length)
    if s.bounded:
        s.left -= length
        if s.left == 0:
            end_pes(d, s)
    elif p.stuffing:
        s.stuffed = True
        if s.stuffed_ends >= K_STUFFING_TRUST:
            end_pes(d, s)


cdef bint goes_on(ts_demux* d, ts_stream* s, const uint8_t* packet) noexcept nogil:
    """Read a packet that is nothing but 184 more bytes of its PES, as nearly all are; False: it is to be parsed."""
    if (packet[0] != K_TS_SYNC_BYTE or packet[1] & 0xC0 or packet[3] != (0x10 | ((s.continuity + 1) & 0xF))
            or not s.open or s.in_header or s.stuffed or (s.bounded and s.left <= K_WHOLE_PAYLOAD_BYTES)):
        return False
    s.continuity = packet[3] & 0xF
    memcpy(&s.tail, packet + K_TS_PACKET_BYTES - sizeof(s.tail), sizeof(s.tail))
    s.payload_bytes += K_WHOLE_PAYLOAD_BYTES
    if s.bounded:
        s.left -= K_WHOLE_PAYLOAD_BYTES
    d.handler.pes_data(d.handler.ctx, s, packet + K_TS_PACKET_BYTES - K_WHOLE_PAYLOAD_BYTES, K_WHOLE_PAYLOAD_BYTES)
    return True


cdef void ts_demux_packet(ts_demux* d, const uint8_t* packet) noexcept nogil:
    """Read the 188 bytes at `packet`."""
    cdef ts_packet p
    cdef uint32_t role = d.roles[(<uint32_t>(packet[1] & 0x1F) << 8) | packet[2]]
    if role == ROLE_NONE:
        return
    if role >= ROLE_STREAM and goes_on(d, &d.streams[role - ROLE_STREAM], packet):
        return
    if ts_parse(packet, &p):
        d.counters[C_MEDIA_MALFORMED_PKTS] += 1
        d.errors += 1
        return
    if p.error:
        d.counters[C_MEDIA_TRANSPORT_ERRORS] += 1
        d.errors += 1
        return
    if role >= ROLE_STREAM:
        stream_packet(d, &d.streams[role - ROLE_STREAM], &p, packet)
    elif role == ROLE_PAT:
        table_packet(d, &p, packet, &d.pat_tables, take_pat)
    else:
        table_packet(d, &p, packet, &d.pmt_tables, take_pmt)


cdef void ts_demux_end(ts_demux* d) noexcept nogil:
    """The stream is over: end what is open."""
    cdef uint32_t i
    for i in range(d.stream_count):
        if d.streams[i].open and not d.streams[i].in_header:
            end_pes(d, &d.streams[i])
