"""AES, key wrapping and key derivation by OpenSSL's libcrypto, which is looked for when it is first asked for.

Neither headers nor a link flag are needed to build this: a machine that has only the library can build it, and one
that has not even that can run all but encrypted connections.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    K_AES_BLOCK_BYTES = 16
    K_MOST_KEY_BYTES = 32
    K_GCM_IV_BYTES = 12
    K_TAG_BYTES = 16              # of GCM, as SRT has it
    K_WRAP_BYTES = 8              # that a wrapped key is longer than a key

cdef enum aes_mode:               # numbers as in a key material message
    AES_NONE = 0
    AES_CTR = 2
    AES_GCM = 4

cdef struct aes_key:
    void* context                 # EVP_CIPHER_CTX that holds the key; NULL: no key
    uint32_t mode                 # aes_mode
    uint32_t tagged               # bytes that a payload grows by

# All give False when libcrypto is not loaded or refuses.
cdef bint aes_set(aes_key* k, uint32_t mode, bint seals, const uint8_t* key, uint32_t key_bytes) noexcept nogil
cdef void aes_clear(aes_key* k) noexcept nogil
# `out` may be `data`. CTR is its own inverse; its iv is a whole block.
cdef bint aes_ctr(aes_key* k, const uint8_t* iv, const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil
# `out` gets K_TAG_BYTES more than `length`.
cdef bint aes_gcm_seal(aes_key* k, const uint8_t* iv, const uint8_t* header, uint32_t header_bytes,
                       const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil
# `length` without the tag, which follows in `data`. What `out` holds when it gives False is not to be used.
cdef bint aes_gcm_open(aes_key* k, const uint8_t* iv, const uint8_t* header, uint32_t header_bytes,
                       const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil
cdef bint key_wrap(const uint8_t* kek, uint32_t kek_bytes, const uint8_t* key, uint32_t key_bytes,
                   uint8_t* out) noexcept nogil
# `wrapped_bytes` is the key's and K_WRAP_BYTES. False: another key-encrypting key, or damaged.
cdef bint key_unwrap(const uint8_t* kek, uint32_t kek_bytes, const uint8_t* wrapped, uint32_t wrapped_bytes,
                     uint8_t* out) noexcept nogil
cdef bint key_derive(const uint8_t* passphrase, uint32_t passphrase_bytes, const uint8_t* salt, uint32_t salt_bytes,
                     uint32_t iterations, uint8_t* out, uint32_t out_bytes) noexcept nogil

cdef bint random_bytes(uint8_t* out, size_t length) noexcept nogil
cdef void wipe(void* data, size_t length) noexcept nogil
