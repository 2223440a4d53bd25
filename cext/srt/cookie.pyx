"""SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF") and the cookies made with it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    K_COOKIE_BUCKET_US = 64000000  # a cookie is good in its bucket and in the next
    K_COOKIE_ADDRESS_BYTES = 32


cdef inline uint64_t _rotate(uint64_t v, int by) noexcept nogil:
    return v << by | v >> (64 - by)


cdef inline void _round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[0] = _rotate(v[0], 32)
    v[2] += v[3]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[2] = _rotate(v[2], 32)


cdef uint64_t siphash(const cookie_key* key, const uint8_t* data, uint32_t length) noexcept nogil:
    """64 bits of SipHash-2-4."""
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef uint32_t at = 0
    v[0] = key.k0 ^ 0x736f6d6570736575ULL
    v[1] = key.k1 ^ 0x646f72616e646f6dULL
    v[2] = key.k0 ^ 0x6c7967656e657261ULL
    v[3] = key.k1 ^ 0x7465646279746573ULL
    while at + 8 <= length:
        memcpy(&word, data + at, 8)
        v[3] ^= word
        _round(v)
        _round(v)
        v[0] ^= word
        at += 8
    word = <uint64_t>length << 56
    while at < length:
        word |= <uint64_t>data[at] << 8 * (at & 7)
        at += 1
    v[3] ^= word
    _round(v)
    _round(v)
    v[0] ^= word
    v[2] ^= 0xFF
    _round(v)
    _round(v)
    _round(v)
    _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef uint32_t _cookie(const cookie_key* key, const uint8_t* address, uint32_t length, int64_t bucket) noexcept nogil:
    cdef uint8_t data[K_COOKIE_ADDRESS_BYTES + 8]
    cdef uint32_t cookie
    if length > K_COOKIE_ADDRESS_BYTES:
        length = K_COOKIE_ADDRESS_BYTES
    memcpy(data, &bucket, 8)
    memcpy(data + 8, address, length)
    cookie = <uint32_t>siphash(key, data, length + 8)
    return cookie if cookie else 1


cdef uint32_t cookie_make(const cookie_key* key, const uint8_t* address, uint32_t length,
                          int64_t now_us) noexcept nogil:
    """Never 0: that is what an induction request carries."""
    return _cookie(key, address, length, now_us // K_COOKIE_BUCKET_US)


cdef bint cookie_check(const cookie_key* key, const uint8_t* address, uint32_t length, uint32_t cookie,
                       int64_t now_us) noexcept nogil:
    """Whether we gave this cookie to this address in the present or the last bucket of time."""
    cdef int64_t bucket = now_us // K_COOKIE_BUCKET_US
    return cookie == _cookie(key, address, length, bucket) or cookie == _cookie(key, address, length, bucket - 1)


def hash_bytes(bytes key not None, bytes data not None):
    """SipHash-2-4 of `data` under a `key` of 16 bytes."""
    cdef cookie_key k
    if len(key) != 16:
        raise ValueError(f"a key of {len(key)} bytes; SipHash takes 16")
    memcpy(&k, <const char*>key, 16)
    return siphash(&k, <const uint8_t*><const char*>data, <uint32_t>len(data))
