"""SYN cookies and socket ids: SipHash-2-4 under a secret, so that nobody who doesn't receive our answer can know one."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct cookie_key:
    uint64_t k0
    uint64_t k1

cdef uint64_t siphash(const cookie_key* key, const uint8_t* data, uint32_t length) noexcept nogil
# The cookie of an address (normalised bytes) at a time; a cookie holds for 64 to 128 s.
cdef uint32_t cookie_make(const cookie_key* key, const uint8_t* address, uint32_t length,
                          int64_t now_us) noexcept nogil
cdef bint cookie_check(const cookie_key* key, const uint8_t* address, uint32_t length, uint32_t cookie,
                       int64_t now_us) noexcept nogil
