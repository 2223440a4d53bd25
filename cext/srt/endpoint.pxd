"""One worker's SRT: every connection behind one UDP socket, without the socket and without a clock.

A driver feeds datagrams (endpoint_receive), calls endpoint_flush_sinks once after each batch, sends what
endpoint_poll_transmit gives until it gives nothing, arms a timer for endpoint_next_timeout, and calls
endpoint_handle_timeout when it is due. When endpoint_has_events says so it lets Python call next_event().

Order of a turn: receive* → flush_sinks → poll_transmit* → next_timeout; a timer's turn: handle_timeout →
flush_sinks → poll_transmit* → next_timeout. All times are CLOCK_MONOTONIC microseconds.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.srt.crypto cimport crypto_settings
from flux.cext.srt.state cimport connection, endpoint
from flux.cext.srt.transmit cimport srt_transmit

cdef enum:
    K_WORKER_MASK = 0x3F          # socket id & this = the worker's number
    K_BATCH_DATAGRAMS = 44        # most datagrams in one srt_transmit: under 64 KiB for UDP GSO
    K_ADDRESS_BYTES = 28          # sizeof(struct sockaddr_in6)
    K_DATAGRAM_BYTES = 1472       # largest datagram: 1,500 less the IPv4 and UDP headers

# addr: struct sockaddr_in or sockaddr_in6. Any bytes are taken; bad ones are counted by reason.
cdef void endpoint_receive(endpoint* e, const void* addr, uint32_t addr_bytes,
                           const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil
cdef void endpoint_flush_sinks(endpoint* e, int64_t now_us) noexcept nogil
# True: `out` holds something to send; call again until False.
cdef bint endpoint_poll_transmit(endpoint* e, srt_transmit* out, int64_t now_us) noexcept nogil
# Next time at which endpoint_handle_timeout has work; INT64_MAX: none.
cdef int64_t endpoint_next_timeout(endpoint* e) noexcept nogil
cdef void endpoint_handle_timeout(endpoint* e, int64_t now_us) noexcept nogil
cdef bint endpoint_has_events(endpoint* e) noexcept nogil
# Whether losses, handshakes or a backlog are under way: the next turn should come soon.
cdef bint endpoint_hurries(endpoint* e, int64_t now_us) noexcept nogil

cdef class Endpoint:
    # Endpoint(worker=0, counters=None, *, latency_ms=120, ...); `handle` lives as long as this object.
    cdef endpoint* handle
    cdef object counters_owner
    cdef dict sinks               # id -> Sink kept alive
    cdef dict sources             # id -> Ring kept alive
    cdef tuple last               # (id, figures) of the connection whose end was read last
    cdef connection* _find(self, uint32_t id) except NULL
    cdef _encryption(self, crypto_settings* s, passphrase, pbkeylen, crypto_mode, enforced_encryption)
