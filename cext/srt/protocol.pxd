"""A connection's turn: a packet for it, its next datagrams, its timer."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.srt.state cimport connection
from flux.cext.srt.transmit cimport srt_transmit

cdef void protocol_receive(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil
# False: it had nothing to send. The connection may be gone after any of these.
cdef bint protocol_transmit(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil
cdef void protocol_timeout(connection* c, int64_t now_us) noexcept nogil
