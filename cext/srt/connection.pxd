"""The life of a connection, but for its packets: making, finding, waking, closing, freeing."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from flux.cext.srt.state cimport connection, endpoint

cdef uint32_t address_key(const uint8_t* address, uint32_t length, uint8_t* key) noexcept nogil

cdef connection* connection_new(endpoint* e, const uint8_t* address, uint32_t length, int64_t now_us) noexcept nogil
cdef connection* connection_by_id(endpoint* e, uint32_t id) noexcept nogil
cdef connection* connection_by_peer(endpoint* e, const uint8_t* key, uint32_t key_bytes,
                                    uint32_t peer_id) noexcept nogil
cdef void connection_remember(connection* c) noexcept nogil
cdef void connection_open(connection* c, int64_t now_us) noexcept nogil
cdef void connection_close(connection* c, uint32_t reason) noexcept nogil
cdef void connection_attach_source(connection* c) noexcept nogil
cdef void connection_detach_source(connection* c) noexcept nogil
cdef bint connection_release(connection* c) noexcept nogil
cdef void connection_free(connection* c) noexcept nogil

cdef void connection_ready(connection* c) noexcept nogil
cdef void connection_unready(connection* c) noexcept nogil
cdef void connection_wake_at(connection* c, int64_t deadline_us) noexcept nogil
cdef void connection_post(connection* c, uint32_t event) noexcept nogil
cdef connection* connection_next_event(endpoint* e) noexcept nogil
cdef void connection_to_flush(connection* c) noexcept nogil

cdef void chunk_to_limbo(endpoint* e, uint8_t* chunk) noexcept nogil
cdef void limbo_empty(endpoint* e) noexcept nogil
