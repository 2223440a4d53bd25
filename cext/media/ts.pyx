"""MPEG-2 transport stream syntax: packets, sections, PES headers, clocks."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    K_CRC_POLYNOMIAL = 0x04C11DB7
    K_SECTION_HEADER_BYTES = 3
    K_MASK_33_BITS_SHIFT = 33

cdef uint32_t CRC_TABLE[256]


cdef void fill_crc_table() noexcept nogil:
    cdef uint32_t i, _bit, value
    for i in range(256):
        value = i << 24
        for _bit in range(8):
            value = value << 1 ^ K_CRC_POLYNOMIAL * (value >> 31)
        CRC_TABLE[i] = value


fill_crc_table()


cdef uint32_t ts_crc32(const uint8_t* data, uint32_t length) noexcept nogil:
    """CRC_32 of annex A; 0 over a whole section that is intact."""
    cdef uint32_t crc = ~<uint32_t>0, i
    for i in range(length):
        crc = (crc << 8) ^ CRC_TABLE[(crc >> 24) ^ data[i]]
    return crc


cdef uint32_t used_by_adaptation_fields(const uint8_t* p, uint32_t length, ts_packet* out) noexcept nogil:
    """Bytes of an adaptation field (flags first, `length` of it) that are no stuffing."""
    cdef uint32_t used = 1
    if p[0] & 0x10:
        if length >= 7:
            out.has_pcr = True
            out.pcr = ts_pcr(p + 1)
        used += 6
    if p[0] & 0x08:
        used += 6
    if p[0] & 0x04:
        used += 1
    if p[0] & 0x02 and used < length:
        used += 1 + p[used]
    if p[0] & 0x01 and used < length:
        used += 1 + p[used]
    return used


cdef int ts_parse(const uint8_t* data, ts_packet* out) noexcept nogil:
    """Parse the header and adaptation field of the 188 bytes at `data`."""
    cdef uint32_t length, used
    if data[0] != K_TS_SYNC_BYTE:
        return -1
    out.error = data[1] >> 7
    out.start = data[1] >> 6 & 1
    out.pid = <uint16_t>((data[1] & 0x1F) << 8 | data[2])
    out.scrambling = data[3] >> 6
    out.has_payload = data[3] >> 4 & 1
    out.continuity = data[3] & 0xF
    out.discontinuity = False
    out.random_access = False
    out.has_pcr = False
    out.stuffing = 0
    out.payload_at = 4
    if data[3] & 0x20:
        length = data[4]
        if length > K_TS_PACKET_BYTES - 5:
            return -1
        out.payload_at = 5 + length
        if length == 0:
            out.stuffing = 1
        else:
            out.discontinuity = data[5] >> 7
            out.random_access = data[5] >> 6 & 1
            used = used_by_adaptation_fields(data + 5, length, out)
            out.stuffing = length - used if used < length else 0
    out.payload_bytes = K_TS_PACKET_BYTES - out.payload_at if out.has_payload else 0
    return 0


cdef void section_bytes(ts_section* s, const uint8_t* data, uint32_t length,
                        section_handler handler, void* ctx) noexcept nogil:
    cdef uint32_t n
    while length and s.active:
        if s.need == 0:
            if s.have == 0 and data[0] == 0xFF:
                s.active = False
                return
            s.data[s.have] = data[0]
            s.have += 1
            data += 1
            length -= 1
            if s.have == K_SECTION_HEADER_BYTES:
                s.need = K_SECTION_HEADER_BYTES + (<uint32_t>(s.data[1] & 0xF) << 8 | s.data[2])
                if s.need > K_SECTION_BYTES or s.need == K_SECTION_HEADER_BYTES:
                    s.active = False
            continue
        n = min(length, s.need - s.have)
        memcpy(s.data + s.have, data, n)
        s.have += n
        data += n
        length -= n
        if s.have == s.need:
            handler(ctx, s.data, s.need)
            s.have = 0
            s.need = 0


cdef void ts_section_feed(ts_section* s, const uint8_t* payload, uint32_t length, bint start,
                          section_handler handler, void* ctx) noexcept nogil:
    """One packet's payload of a PID that carries sections; whole sections go to `handler`, unchecked."""
    cdef uint32_t pointer
    if start:
        if length == 0:
            return
        pointer = payload[0]
        payload += 1
        length -= 1
        if pointer > length:
            s.active = False
            return
        section_bytes(s, payload, pointer, handler, ctx)
        s.active = True
        s.have = 0
        s.need = 0
        payload += pointer
        length -= pointer
    section_bytes(s, payload, length, handler, ctx)


cdef uint32_t ts_section_packets(const uint8_t* section, uint32_t length, uint16_t pid,
                                 uint8_t* out, uint32_t capacity) noexcept nogil:
    """Write one section as packets of `pid`, the rest of the last one stuffed."""
    cdef uint32_t packets = (length + 1 + 183) / 184, i, n, at
    if packets * K_TS_PACKET_BYTES > capacity:
        return 0
    for i in range(packets):
        memset(out, 0xFF, K_TS_PACKET_BYTES)
        out[0] = K_TS_SYNC_BYTE
        out[1] = (0x40 if i == 0 else 0) | pid >> 8
        out[2] = pid & 0xFF
        out[3] = 0x10 | (i & 0xF)
        at = 4
        if i == 0:
            out[4] = 0
            at = 5
        n = min(K_TS_PACKET_BYTES - at, length)
        memcpy(out + at, section, n)
        section += n
        length -= n
        out += K_TS_PACKET_BYTES
    return packets * K_TS_PACKET_BYTES


cdef bint has_no_optional_header(uint32_t stream_id) noexcept nogil:
    """Table 2-21: program_stream_map, padding, private_stream_2, ECM, EMM, DSMCC, H.222.1 type E, directory."""
    return (stream_id == 0xBC or stream_id == 0xBE or stream_id == 0xBF or stream_id == 0xF0
            or stream_id == 0xF1 or stream_id == 0xF2 or stream_id == 0xF8 or stream_id == 0xFF)


cdef int pes_parse(const uint8_t* data, uint32_t length, pes_header* out) noexcept nogil:
    """Parse a PES header of which `length` bytes are at `data`."""
    cdef uint32_t i, packet_length, flags
    cdef uint8_t* prefix = [0, 0, 1]
    for i in range(min(length, 3)):
        if data[i] != prefix[i]:
            return -1
    if length < 6:
        return 1
    out.stream_id = data[3]
    out.has_pts = False
    packet_length = <uint32_t>data[4] << 8 | data[5]
    if has_no_optional_header(out.stream_id):
        out.header_bytes = 6
        out.payload_bytes = packet_length
        return 0
    if length < 9:
        return 1
    if data[6] & 0xC0 != 0x80:
        return -1
    out.header_bytes = 9 + data[8]
    if length < out.header_bytes:
        return 1
    if packet_length and packet_length + 6 < out.header_bytes:
        return -1
    out.payload_bytes = packet_length + 6 - out.header_bytes if packet_length else 0
    flags = data[7] >> 6
    if flags & 2 and data[8] >= 5:
        out.has_pts = True
        out.pts = out.dts = pes_timestamp(data + 9)
        if flags & 1 and data[8] >= 10:
            out.dts = pes_timestamp(data + 14)
    return 0


cdef uint64_t pes_timestamp(const uint8_t* data) noexcept nogil:
    """The 33 bits of a PTS or DTS, out of its five bytes."""
    return (<uint64_t>(data[0] >> 1 & 7) << 30 | <uint64_t>data[1] << 22 | <uint64_t>(data[2] >> 1) << 15
            | <uint64_t>data[3] << 7 | data[4] >> 1)


cdef void pes_put_timestamp(uint8_t* data, uint64_t value) noexcept nogil:
    """Write 33 bits over a PTS or DTS; its prefix stays."""
    data[0] = <uint8_t>((data[0] & 0xF0) | (value >> 30 & 7) << 1 | 1)
    data[1] = <uint8_t>(value >> 22)
    data[2] = <uint8_t>((value >> 15) << 1 | 1)
    data[3] = <uint8_t>(value >> 7)
    data[4] = <uint8_t>(value << 1 | 1)


cdef uint64_t ts_pcr(const uint8_t* data) noexcept nogil:
    """A program clock reference in 27 MHz, out of its six bytes (2.4.3.5)."""
    return ((<uint64_t>data[0] << 25 | <uint64_t>data[1] << 17 | <uint64_t>data[2] << 9 | <uint64_t>data[3] << 1
             | data[4] >> 7) * K_PCR_A_TICK + (<uint64_t>(data[4] & 1) << 8 | data[5]))


cdef void ts_put_pcr(uint8_t* data, uint64_t pcr) noexcept nogil:
    """Write a program clock reference (27 MHz) over its six bytes."""
    cdef uint64_t base = pcr / K_PCR_A_TICK, extension = pcr % K_PCR_A_TICK
    data[0] = <uint8_t>(base >> 25)
    data[1] = <uint8_t>(base >> 17)
    data[2] = <uint8_t>(base >> 9)
    data[3] = <uint8_t>(base >> 1)
    data[4] = <uint8_t>((base & 1) << 7 | 0x7E | extension >> 8)
    data[5] = <uint8_t>extension


cdef int64_t ts_unwrap(int64_t reference_ticks, uint64_t value) noexcept nogil:
    """The time nearest to `reference_ticks` whose low 33 bits are `value`."""
    cdef uint64_t distance = (value - <uint64_t>reference_ticks) & ((<uint64_t>1 << K_MASK_33_BITS_SHIFT) - 1)
    if distance >> (K_MASK_33_BITS_SHIFT - 1):
        return reference_ticks + <int64_t>distance - (<int64_t>1 << K_MASK_33_BITS_SHIFT)
    return reference_ticks + <int64_t>distance


def crc32(const uint8_t[::1] data not None):
    """CRC_32 of ISO/IEC 13818-1 annex A over `data`."""
    return ts_crc32(&data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0])


def section_packets(const uint8_t[::1] section not None, uint16_t pid):
    """One section (its CRC_32 included) as whole packets of `pid`."""
    out = bytearray((section.shape[0] // 184 + 2) * K_TS_PACKET_BYTES)
    cdef uint8_t[::1] view = out
    return bytes(out[:ts_section_packets(&section[0], <uint32_t>section.shape[0], pid, &view[0],
                                         <uint32_t>view.shape[0])])


def unwrap(int64_t reference_ticks, uint64_t value):
    """The time (90 kHz) nearest to `reference_ticks` whose low 33 bits are `value`."""
    return ts_unwrap(reference_ticks, value)


def parse_packet(const uint8_t[::1] data not None):
    """The header of a 188-byte packet as a dict; ValueError when it is malformed."""
    cdef ts_packet p
    if data.shape[0] != K_TS_PACKET_BYTES or ts_parse(&data[0], &p):
        raise ValueError("malformed transport stream packet")
    return {
        "pid": p.pid,
        "continuity": p.continuity,
        "scrambling": p.scrambling,
        "error": bool(p.error),
        "start": bool(p.start),
        "discontinuity": bool(p.discontinuity),
        "random_access": bool(p.random_access),
        "pcr": p.pcr if p.has_pcr else None,
        "stuffing": p.stuffing,
        "payload": bytes(data[p.payload_at:]) if p.has_payload else b"",
    }


def parse_pes(const uint8_t[::1] data not None):
    """A PES header as a dict; None while more bytes are needed; ValueError when it is none."""
    cdef pes_header h
    cdef int result = pes_parse(&data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0], &h)
    if result < 0:
        raise ValueError("no PES header")
    if result:
        return None
    return {
        "stream_id": h.stream_id,
        "header_bytes": h.header_bytes,
        "payload_bytes": h.payload_bytes,
        "pts": h.pts if h.has_pts else None,
        "dts": h.dts if h.has_pts else None,
    }
