"""Handshakes: as listener (cookie, checks, answer) and as caller (draft-sharabayko-srt-01, section 4.3.1)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.srt.crypto cimport crypto_settings
from flux.cext.srt.state cimport connection, endpoint

# A handshake addressed to nobody (socket id 0): a caller's. `packet` has its header.
cdef void listener_handshake(endpoint* e, const uint8_t* address, uint32_t address_bytes, const uint8_t* packet,
                             uint32_t length, int64_t now_us) noexcept nogil
# A handshake addressed to a connection of ours: the listener's answer.
cdef void caller_handshake(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil
cdef uint32_t negotiation_write(connection* c, uint8_t* out, int64_t now_us) noexcept nogil
cdef uint32_t key_answer(connection* c, const uint8_t** message, uint8_t* word) noexcept nogil
cdef void negotiation_timeout(connection* c, int64_t now_us) noexcept nogil

cdef connection* caller_start(endpoint* e, const uint8_t* address, uint32_t address_bytes, const uint8_t* stream_id,
                              uint32_t stream_id_bytes, uint32_t latency_ms, int64_t now_us) noexcept nogil
cdef uint32_t listener_secure(connection* c, const crypto_settings* s, int64_t now_us) noexcept nogil
cdef void listener_accept(connection* c, int64_t now_us) noexcept nogil
cdef void listener_reject(connection* c, uint32_t wire_code, int64_t now_us) noexcept nogil
