"""The receiving half of a connection: data in, ACK and NAK out, delivery at the packets' time."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.srt.state cimport connection

cdef void receiver_data(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil
cdef bint receiver_ackack(connection* c, uint32_t number, uint32_t timestamp, int64_t now_us) noexcept nogil
cdef bint receiver_dropreq(connection* c, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil
cdef void receiver_deliver(connection* c, int64_t now_us) noexcept nogil
cdef void receiver_deliver_all(connection* c, int64_t now_us) noexcept nogil
cdef void receiver_timeout(connection* c, int64_t now_us) noexcept nogil
cdef int64_t receiver_deadline(connection* c) noexcept nogil

# Control packets into `out`; their bytes, 0: nothing to say after all.
cdef uint32_t receiver_write_ack(connection* c, uint8_t* out, int64_t now_us) noexcept nogil
cdef uint32_t receiver_write_light_ack(connection* c, uint8_t* out, int64_t now_us) noexcept nogil
cdef uint32_t receiver_write_nak(connection* c, uint8_t* out, int64_t now_us) noexcept nogil
