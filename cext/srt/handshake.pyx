"""Handshake packets, decode and encode (handshake.pxd has their shapes)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from flux.cext.srt.key_material cimport K_KM_BYTES
from flux.cext.srt.packet cimport be32, put_be32


cdef uint32_t _text_from_words(const uint8_t* data, uint32_t length, uint8_t* out, uint32_t room) noexcept nogil:
    """Text that went as 32-bit words, least byte first (section 3.2.1.3): its length without the padding."""
    cdef uint32_t i, n
    n = length if length < room else room
    for i in range(n):
        out[i] = data[(i & ~<uint32_t>3) + 3 - (i & 3)]
    while n and out[n - 1] == 0:
        n -= 1
    return n


cdef void _text_to_words(const uint8_t* text, uint32_t length, uint8_t* out) noexcept nogil:
    cdef uint32_t i
    memset(out, 0, (length + 3) & ~<uint32_t>3)
    for i in range(length):
        out[(i & ~<uint32_t>3) + 3 - (i & 3)] = text[i]


cdef int handshake_parse(handshake* h, const uint8_t* data, uint32_t length) noexcept nogil:
    """Take a control information field apart: 0; -1: too short; -2: an extension is malformed.

    Extensions are looked for in conclusions of version 5 only. Unknown ones are skipped.
    """
    cdef uint32_t at = K_HANDSHAKE_BYTES
    cdef uint32_t word, kind, size, n
    if length < K_HANDSHAKE_BYTES:
        return -1
    h.version = be32(data)
    word = be32(data + 4)
    h.encryption = <uint16_t>(word >> 16)
    h.extension = <uint16_t>word
    h.isn = be32(data + 8)
    h.mss = be32(data + 12)
    h.flow_window_pkts = be32(data + 16)
    h.kind = be32(data + 20)
    h.socket_id = be32(data + 24)
    h.cookie = be32(data + 28)
    memcpy(h.peer_ip, data + 32, 16)
    h.seen = 0
    h.srt_version = 0
    h.flags = 0
    h.receiver_delay_ms = 0
    h.sender_delay_ms = 0
    h.stream_id_bytes = 0
    h.congestion[0] = 0
    h.key_material = NULL
    h.key_material_bytes = 0
    if h.version != K_HS_VERSION or h.kind != HS_CONCLUSION:
        return 0
    while at + 4 <= length:
        word = be32(data + at)
        kind = word >> 16
        size = (word & 0xFFFF) * 4
        at += 4
        if size > length - at:
            return -2
        if kind == EXT_HSREQ or kind == EXT_HSRSP:
            if size < 12:
                return -2
            h.srt_version = be32(data + at)
            h.flags = be32(data + at + 4)
            word = be32(data + at + 8)
            h.receiver_delay_ms = <uint16_t>(word >> 16)
            h.sender_delay_ms = <uint16_t>word
        elif kind == EXT_SID:
            if size > K_STREAM_ID_BYTES:
                return -2
            h.stream_id_bytes = _text_from_words(data + at, size, h.stream_id, K_STREAM_ID_BYTES)
        elif kind == EXT_CONGESTION:
            n = _text_from_words(data + at, size, h.congestion, sizeof(h.congestion) - 1)
            h.congestion[n] = 0
        elif (kind == EXT_KMREQ or kind == EXT_KMRSP) and h.key_material == NULL:
            h.key_material = data + at
            h.key_material_bytes = size
        if kind < 32:
            h.seen |= <uint32_t>1 << kind
        at += size
    return 0


cdef uint32_t handshake_write(const handshake* h, uint32_t hs_extension, uint8_t* out) noexcept nogil:
    """Write a control information field; gives its bytes, at most 48 + 16 + 516 + 108.

    hs_extension: EXT_HSREQ, EXT_HSRSP, or 0 for a handshake without extensions. A stream id follows if there is one,
    and key material: whole words, a KMREQ or KMRSP.
    """
    cdef uint32_t at = K_HANDSHAKE_BYTES
    cdef uint32_t words
    put_be32(out, h.version)
    put_be32(out + 4, <uint32_t>h.encryption << 16 | h.extension)
    put_be32(out + 8, h.isn)
    put_be32(out + 12, h.mss)
    put_be32(out + 16, h.flow_window_pkts)
    put_be32(out + 20, h.kind)
    put_be32(out + 24, h.socket_id)
    put_be32(out + 28, h.cookie)
    memcpy(out + 32, h.peer_ip, 16)
    if hs_extension == 0:
        return at
    put_be32(out + at, hs_extension << 16 | 3)
    put_be32(out + at + 4, h.srt_version)
    put_be32(out + at + 8, h.flags)
    put_be32(out + at + 12, <uint32_t>h.receiver_delay_ms << 16 | h.sender_delay_ms)
    at += 16
    if h.stream_id_bytes:
        words = (h.stream_id_bytes + 3) // 4
        put_be32(out + at, <uint32_t>EXT_SID << 16 | words)
        _text_to_words(h.stream_id, h.stream_id_bytes, out + at + 4)
        at += 4 + 4 * words
    if h.key_material_bytes:
        put_be32(out + at, (<uint32_t>EXT_KMREQ if hs_extension == EXT_HSREQ else <uint32_t>EXT_KMRSP) << 16
                 | h.key_material_bytes // 4)
        memcpy(out + at + 4, h.key_material, h.key_material_bytes)
        at += 4 + h.key_material_bytes
    return at


def decode(const uint8_t[::1] data not None):
    """A handshake's control information field as a dict; ValueError tells what is wrong with it."""
    cdef handshake h
    cdef int result = handshake_parse(&h, &data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0])
    if result == -1:
        raise ValueError(f"a handshake of {data.shape[0]} bytes; it has {K_HANDSHAKE_BYTES} at least")
    if result < 0:
        raise ValueError("a malformed handshake extension")
    return {
        "version": h.version,
        "encryption": h.encryption,
        "extension": h.extension,
        "isn": h.isn,
        "mss": h.mss,
        "flow_window_pkts": h.flow_window_pkts,
        "kind": h.kind,
        "socket_id": h.socket_id,
        "cookie": h.cookie,
        "peer_ip": h.peer_ip[:16],
        "seen": [kind for kind in range(32) if h.seen >> kind & 1],
        "srt_version": h.srt_version,
        "flags": h.flags,
        "receiver_delay_ms": h.receiver_delay_ms,
        "sender_delay_ms": h.sender_delay_ms,
        "stream_id": h.stream_id[:h.stream_id_bytes],
        "congestion": <bytes>(<char*>h.congestion),
        "key_material": h.key_material[:h.key_material_bytes] if h.key_material != NULL else b"",
    }


def encode(*, uint32_t version=5, uint16_t encryption=0, uint16_t extension=0, uint32_t isn=0, uint32_t mss=1500,
           uint32_t flow_window_pkts=8192, uint32_t kind=0xFFFFFFFF, uint32_t socket_id=0, uint32_t cookie=0,
           bytes peer_ip=bytes(16), uint32_t hs_extension=0, uint32_t srt_version=K_SRT_VERSION, uint32_t flags=0x3F,
           uint16_t receiver_delay_ms=120, uint16_t sender_delay_ms=0, bytes stream_id=b"", bytes key_material=b""):
    """A control information field; hs_extension 1 is HSREQ, 2 is HSRSP, 0 is none."""
    cdef handshake h
    cdef uint8_t out[K_HANDSHAKE_BYTES + 16 + 4 + K_STREAM_ID_BYTES + 4 + K_KM_BYTES]
    if len(stream_id) > K_STREAM_ID_BYTES:
        raise ValueError(f"a stream id of {len(stream_id)} bytes; {K_STREAM_ID_BYTES} are allowed")
    if len(key_material) > K_KM_BYTES or len(key_material) % 4:
        raise ValueError(f"key material of {len(key_material)} bytes; whole words up to {K_KM_BYTES} are allowed")
    h.version = version
    h.encryption = encryption
    h.extension = extension
    h.isn = isn
    h.mss = mss
    h.flow_window_pkts = flow_window_pkts
    h.kind = kind
    h.socket_id = socket_id
    h.cookie = cookie
    memcpy(h.peer_ip, <const char*>peer_ip, 16)
    h.srt_version = srt_version
    h.flags = flags
    h.receiver_delay_ms = receiver_delay_ms
    h.sender_delay_ms = sender_delay_ms
    h.stream_id_bytes = <uint32_t>len(stream_id)
    memcpy(h.stream_id, <const char*>stream_id, len(stream_id))
    h.key_material = key_material
    h.key_material_bytes = <uint32_t>len(key_material)
    return out[:handshake_write(&h, hs_extension, out)]
