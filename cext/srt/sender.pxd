"""The sending half of a connection: from a ring in the arena or from send(), ACK and NAK in, retransmission."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.ring cimport ring
from flux.cext.srt.state cimport connection
from flux.cext.srt.transmit cimport srt_transmit

cdef bint sender_push(connection* c, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil
cdef void sender_attach(connection* c, ring* source) noexcept nogil
cdef void sender_tick(connection* c, int64_t now_us) noexcept nogil
cdef void sender_fill(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil
cdef bint sender_ack(connection* c, uint32_t number, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil
cdef bint sender_nak(connection* c, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil
cdef void sender_timeout(connection* c, int64_t now_us) noexcept nogil
cdef int64_t sender_deadline(connection* c) noexcept nogil
cdef uint32_t sender_write_dropreq(connection* c, uint8_t* out, int64_t now_us) noexcept nogil
