"""WebSocket frames (RFC 6455, section 5), sans-IO: a server's frame heads, and a client's frames taken apart."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    K_FINAL = 0x80
    K_RESERVED = 0x70
    K_MASKED = 0x80
    K_CODE_NORMAL = 1000
    K_CODE_PROTOCOL = 1002
    K_CODE_TOO_BIG = 1009


cdef uint32_t ws_head(uint8_t* out, uint8_t opcode, uint64_t length) noexcept nogil:
    """The head of a whole, unmasked message of `length` bytes: 2, 4 or 10 bytes in `out` (K_WS_HEAD_BYTES).
    RFC 6455, 5.2: the shortest form of the length."""
    cdef uint32_t i
    out[0] = K_FINAL | opcode
    if length < 126:
        out[1] = <uint8_t>length
        return 2
    if length < 65536:
        out[1] = 126
        out[2] = <uint8_t>(length >> 8)
        out[3] = <uint8_t>length
        return 4
    out[1] = 127
    for i in range(8):
        out[2 + i] = <uint8_t>(length >> (56 - 8 * i))
    return 10


cdef uint32_t ws_control(uint8_t* out, uint8_t opcode, const uint8_t* payload, uint32_t length) noexcept nogil:
    """A control frame of up to K_WS_CONTROL_BYTES of payload in `out`; gives its length."""
    cdef uint32_t head = ws_head(out, opcode, length)
    if length:
        memcpy(out + head, payload, length)
    return head + length


cdef uint32_t ws_close(uint8_t* out, uint16_t code) noexcept nogil:
    """A close frame with a status (5.5.1): 4 bytes in `out`."""
    cdef uint8_t status[2]
    status[0] = <uint8_t>(code >> 8)
    status[1] = <uint8_t>code
    return ws_control(out, WS_CLOSE, status, 2)


cdef ws_event _break(ws_reader* r, uint16_t code) noexcept nogil:
    r.code = code
    return WS_BROKEN


cdef uint32_t _head_bytes(ws_reader* r) noexcept nogil:
    """How long the head is, as far as it is known."""
    cdef uint8_t length
    if r.have < 2:
        return 2
    length = r.head[1] & 0x7F
    return 6 + (2 if length == 126 else 8 if length == 127 else 0)


cdef ws_event _take_head(ws_reader* r) noexcept nogil:
    """Checks a whole head and sets what is to come."""
    cdef uint8_t first = r.head[0]
    cdef uint32_t length = r.head[1] & 0x7F
    cdef uint32_t i
    r.opcode = first & 0x0F
    r.final = first & K_FINAL
    r.left = length
    if length >= 126:
        r.left = 0
        for i in range(2 if length == 126 else 8):
            r.left = r.left << 8 | r.head[2 + i]
        # The shortest form only (5.2); so nothing that is told to be small needs a second look.
        if r.left < 126 or (length == 127 and r.left < 65536):
            return _break(r, K_CODE_PROTOCOL)
    if r.opcode >= WS_CLOSE:
        if r.opcode > WS_PONG or not r.final or r.left > K_WS_CONTROL_BYTES:
            return _break(r, K_CODE_PROTOCOL)
        r.control_bytes = 0
    else:
        if r.opcode > WS_BINARY or (r.opcode == WS_CONTINUATION) != (r.fragmented != 0):
            return _break(r, K_CODE_PROTOCOL)
        if r.left > K_WS_MESSAGE_BYTES or r.message_bytes + r.left > K_WS_MESSAGE_BYTES:
            return _break(r, K_CODE_TOO_BIG)
        r.message_bytes += r.left
        r.fragmented = not r.final
        if r.final:
            r.message_bytes = 0
    r.in_payload = True
    return WS_MORE


cdef bint _code_allowed(uint16_t code) noexcept nogil:
    """Statuses that may be sent (7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef ws_event _end_frame(ws_reader* r) noexcept nogil:
    r.in_payload = False
    r.have = 0
    if r.opcode == WS_PING:
        return WS_GOT_PING
    if r.opcode == WS_PONG:
        return WS_GOT_PONG
    if r.opcode != WS_CLOSE:
        return WS_MORE
    r.code = K_CODE_NORMAL
    if r.control_bytes == 0:
        return WS_GOT_CLOSE
    r.code = <uint16_t>(r.control[0] << 8 | r.control[1])
    if r.control_bytes == 1 or not _code_allowed(r.code):
        return _break(r, K_CODE_PROTOCOL)
    return WS_GOT_CLOSE


cdef ws_event ws_read(ws_reader* r, const uint8_t* data, uint32_t length, uint32_t* used) noexcept nogil:
    """Take a client's bytes, up to the first event; `used`: how many of them. Call it again with the rest.

    However the bytes are cut, the events are the same. RFC 6455, 5.1 to 5.5: client frames are masked, control
    frames are whole and short.
    """
    cdef uint32_t at = 0
    cdef uint32_t take, i
    cdef uint8_t* mask
    cdef ws_event event
    while at < length or (r.in_payload and r.left == 0):
        if not r.in_payload:
            r.head[r.have] = data[at]
            r.have += 1
            at += 1
            if r.have < 2:
                continue
            # Without a mask (5.1) the head would be shorter: look before it is waited for.
            if r.head[0] & K_RESERVED or not r.head[1] & K_MASKED:
                used[0] = at
                return _break(r, K_CODE_PROTOCOL)
            if r.have < _head_bytes(r):
                continue
            event = _take_head(r)
            if event == WS_BROKEN:
                used[0] = at
                return event
        else:
            take = length - at
            if take > r.left:
                take = <uint32_t>r.left
            if r.opcode >= WS_CLOSE:
                mask = r.head + _head_bytes(r) - 4
                for i in range(take):
                    r.control[r.control_bytes] = data[at + i] ^ mask[r.control_bytes & 3]
                    r.control_bytes += 1
            at += take
            r.left -= take
            if r.left == 0:
                event = _end_frame(r)
                if event != WS_MORE:
                    used[0] = at
                    return event
    used[0] = at
    return WS_MORE


cdef class FrameReader:
    """A client's frames, for Python: tests and whatever is not on the path of the media."""

    def __cinit__(self):
        memset(&self.core, 0, sizeof(ws_reader))

    def feed(self, const uint8_t[::1] data):
        """Take bytes; gives events in order: ("ping", payload), ("pong", payload), ("close", status),
        ("broken", status). Bytes after a close or a broken frame are ignored."""
        cdef uint32_t at = 0
        cdef uint32_t used = 0
        cdef uint32_t length = <uint32_t>data.shape[0]
        cdef ws_event event
        events = []
        while at < length and not self.broken:
            event = ws_read(&self.core, &data[at], length - at, &used)
            at += used
            if event == WS_GOT_PING or event == WS_GOT_PONG:
                name = "ping" if event == WS_GOT_PING else "pong"
                events.append((name, (<const uint8_t*>self.core.control)[:self.core.control_bytes]))
            elif event != WS_MORE:
                events.append(("close" if event == WS_GOT_CLOSE else "broken", self.core.code))
                self.broken = True
        return events


def frame_head(uint8_t opcode, uint64_t length):
    """The head of an unmasked frame with `length` bytes of payload."""
    cdef uint8_t out[K_WS_HEAD_BYTES]
    return (<const uint8_t*>out)[:ws_head(out, opcode, length)]
