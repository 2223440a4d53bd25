"""WebSocket frames (RFC 6455, section 5), sans-IO: a server's frame heads, and a client's frames taken apart.

Players send nothing but control frames; what else they say is checked, bounded and thrown away.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum ws_opcode:
    WS_CONTINUATION = 0
    WS_TEXT = 1
    WS_BINARY = 2
    WS_CLOSE = 8
    WS_PING = 9
    WS_PONG = 10

cdef enum:
    K_WS_HEAD_BYTES = 10          # the longest head of a frame without a mask
    K_WS_CONTROL_BYTES = 125      # payload of a control frame (5.5)
    K_WS_MESSAGE_BYTES = 65536    # of a client's message, thrown away as it is

cdef enum ws_event:
    WS_MORE = 0                   # all bytes were taken; nothing to do
    WS_GOT_PING = 1               # reader.control: what the pong carries
    WS_GOT_PONG = 2
    WS_GOT_CLOSE = 3              # reader.code: the status to answer with
    WS_BROKEN = 4                 # reader.code: why (7.4.1); nothing after it is read

cdef struct ws_reader:            # all zero before its first use
    uint64_t left                 # payload bytes that are yet to come
    uint64_t message_bytes        # of a data message so far
    uint16_t code                 # status of a close
    uint8_t head[14]
    uint8_t have                  # bytes of `head`
    uint8_t in_payload
    uint8_t opcode
    uint8_t final
    uint8_t fragmented            # a data message goes on in the next data frame
    uint8_t control_bytes
    uint8_t control[125]          # payload of a control frame, unmasked

cdef uint32_t ws_head(uint8_t* out, uint8_t opcode, uint64_t length) noexcept nogil
cdef uint32_t ws_control(uint8_t* out, uint8_t opcode, const uint8_t* payload, uint32_t length) noexcept nogil
cdef uint32_t ws_close(uint8_t* out, uint16_t code) noexcept nogil
cdef ws_event ws_read(ws_reader* r, const uint8_t* data, uint32_t length, uint32_t* used) noexcept nogil

cdef class FrameReader:
    cdef ws_reader core
    cdef bint broken
