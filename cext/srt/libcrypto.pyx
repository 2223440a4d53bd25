"""libcrypto, loaded at run time (libcrypto.pxd tells why).

AES-CTR: NIST SP 800-38A, 6.5. AES-GCM: NIST SP 800-38D. Key wrap: RFC 3394. PBKDF2 with HMAC-SHA-1: RFC 8018, 5.2.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int dlclose(void*)
    int RTLD_NOW
    int RTLD_LOCAL

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void*, size_t)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void*, size_t, unsigned int)

cdef enum:                        # from openssl/evp.h; they are part of its binary interface
    K_CTRL_GET_TAG = 0x10
    K_CTRL_SET_TAG = 0x11
    K_FLAG_WRAP_ALLOW = 0x01

cdef struct library:              # what is used of it
    void* (*context_new)() noexcept nogil
    void (*context_free)(void*) noexcept nogil
    void (*context_set_flags)(void*, int) noexcept nogil
    int (*context_control)(void*, int, int, void*) noexcept nogil
    int (*init)(void*, const void*, void*, const uint8_t*, const uint8_t*, int) noexcept nogil
    int (*update)(void*, uint8_t*, int*, const uint8_t*, int) noexcept nogil
    int (*final)(void*, uint8_t*, int*) noexcept nogil
    int (*pbkdf2)(const char*, int, const uint8_t*, int, int, int, uint8_t*) noexcept nogil
    void (*clear_error)() noexcept nogil
    const void* ctr[3]            # ciphers with keys of 16, 24 and 32 bytes
    const void* gcm[3]
    const void* wrap[3]

ctypedef const void* (*cipher_getter)() noexcept nogil

cdef library lib
cdef bint loaded = False

_NAMES = ("libcrypto.so.3", "libcrypto.so.1.1")
_FUNCTIONS = (
    "EVP_CIPHER_CTX_new", "EVP_CIPHER_CTX_free", "EVP_CIPHER_CTX_set_flags", "EVP_CIPHER_CTX_ctrl",
    "EVP_CipherInit_ex", "EVP_CipherUpdate", "EVP_CipherFinal_ex", "PKCS5_PBKDF2_HMAC_SHA1", "ERR_clear_error",
)
_BITS = (128, 192, 256)


cdef void* _symbol(void* handle, str name) except NULL:
    cdef void* found = dlsym(handle, name.encode())
    if found == NULL:
        raise RuntimeError(f"libcrypto has no {name}: encryption needs OpenSSL 1.1 or later; install libssl3")
    return found


cdef _take(void* handle):
    cdef void* f[9]
    cdef int i
    for i in range(9):
        f[i] = _symbol(handle, _FUNCTIONS[i])
    for i in range(3):
        lib.ctr[i] = (<cipher_getter>_symbol(handle, f"EVP_aes_{_BITS[i]}_ctr"))()
        lib.gcm[i] = (<cipher_getter>_symbol(handle, f"EVP_aes_{_BITS[i]}_gcm"))()
        lib.wrap[i] = (<cipher_getter>_symbol(handle, f"EVP_aes_{_BITS[i]}_wrap"))()
    lib.context_new = <void* (*)() noexcept nogil>f[0]
    lib.context_free = <void (*)(void*) noexcept nogil>f[1]
    lib.context_set_flags = <void (*)(void*, int) noexcept nogil>f[2]
    lib.context_control = <int (*)(void*, int, int, void*) noexcept nogil>f[3]
    lib.init = <int (*)(void*, const void*, void*, const uint8_t*, const uint8_t*, int) noexcept nogil>f[4]
    lib.update = <int (*)(void*, uint8_t*, int*, const uint8_t*, int) noexcept nogil>f[5]
    lib.final = <int (*)(void*, uint8_t*, int*) noexcept nogil>f[6]
    lib.pbkdf2 = <int (*)(const char*, int, const uint8_t*, int, int, int, uint8_t*) noexcept nogil>f[7]
    lib.clear_error = <void (*)() noexcept nogil>f[8]


def load(names=_NAMES):
    """Load the library, once. RuntimeError, in one line, names the package that is missing."""
    global loaded
    cdef void* handle
    if loaded:
        return
    for name in names:
        handle = dlopen(name.encode(), RTLD_NOW | RTLD_LOCAL)
        if handle == NULL:
            continue
        try:
            _take(handle)
        except RuntimeError:
            dlclose(handle)
            raise
        loaded = True
        return
    raise RuntimeError(f"encryption needs OpenSSL's libcrypto ({' or '.join(names)}); install the package libssl3")


cdef inline bint _size_index(uint32_t key_bytes, uint32_t* index) noexcept nogil:
    index[0] = key_bytes // 8 - 2
    return loaded and (key_bytes == 16 or key_bytes == 24 or key_bytes == 32)


cdef bint _refused() noexcept nogil:
    """Errors are kept per thread, and a TLS connection of Python's would find ours."""
    if loaded:
        lib.clear_error()
    return False


cdef bint aes_set(aes_key* k, uint32_t mode, bint seals, const uint8_t* key, uint32_t key_bytes) noexcept nogil:
    """Put a key of 16, 24 or 32 bytes in place of the one there is; the old one is gone even when this fails.

    seals: for GCM, whether it seals or opens; the one key can't do both.
    """
    cdef uint32_t i
    aes_clear(k)
    if not _size_index(key_bytes, &i):
        return False
    k.context = lib.context_new()
    if k.context == NULL:
        return _refused()
    if lib.init(k.context, lib.gcm[i] if mode == AES_GCM else lib.ctr[i], NULL, key, NULL, seals) != 1:
        aes_clear(k)
        return _refused()
    k.mode = mode
    k.tagged = K_TAG_BYTES if mode == AES_GCM else 0
    return True


cdef void aes_clear(aes_key* k) noexcept nogil:
    """Forget the key; libcrypto wipes it."""
    if k.context != NULL:
        lib.context_free(k.context)
    memset(k, 0, sizeof(aes_key))


cdef bint aes_ctr(aes_key* k, const uint8_t* iv, const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil:
    cdef int written
    if lib.init(k.context, NULL, NULL, NULL, iv, -1) != 1:
        return _refused()
    if lib.update(k.context, out, &written, data, <int>length) != 1 or <uint32_t>written != length:
        return _refused()
    return True


cdef bint aes_gcm_seal(aes_key* k, const uint8_t* iv, const uint8_t* header, uint32_t header_bytes,
                       const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil:
    cdef int written
    if lib.init(k.context, NULL, NULL, NULL, iv, -1) != 1:
        return _refused()
    if lib.update(k.context, NULL, &written, header, <int>header_bytes) != 1:
        return _refused()
    if lib.update(k.context, out, &written, data, <int>length) != 1 or <uint32_t>written != length:
        return _refused()
    if lib.final(k.context, out + length, &written) != 1 or written != 0:
        return _refused()
    if lib.context_control(k.context, K_CTRL_GET_TAG, K_TAG_BYTES, out + length) != 1:
        return _refused()
    return True


cdef bint aes_gcm_open(aes_key* k, const uint8_t* iv, const uint8_t* header, uint32_t header_bytes,
                       const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil:
    cdef int written
    cdef uint8_t rest[K_AES_BLOCK_BYTES]
    if lib.init(k.context, NULL, NULL, NULL, iv, -1) != 1:
        return _refused()
    if lib.context_control(k.context, K_CTRL_SET_TAG, K_TAG_BYTES, <void*>(data + length)) != 1:
        return _refused()
    if lib.update(k.context, NULL, &written, header, <int>header_bytes) != 1:
        return _refused()
    if lib.update(k.context, out, &written, data, <int>length) != 1 or <uint32_t>written != length:
        return _refused()
    if lib.final(k.context, rest, &written) != 1:
        return _refused()
    return True


cdef bint _wrapping(bint seals, const uint8_t* kek, uint32_t kek_bytes, const uint8_t* data, uint32_t length,
                    uint8_t* out, uint32_t out_bytes) noexcept nogil:
    cdef uint32_t i
    cdef int written = 0
    cdef void* context
    cdef bint done
    if not _size_index(kek_bytes, &i):
        return False
    context = lib.context_new()
    if context == NULL:
        return _refused()
    lib.context_set_flags(context, K_FLAG_WRAP_ALLOW)
    done = (lib.init(context, lib.wrap[i], NULL, kek, NULL, seals) == 1
            and lib.update(context, out, &written, data, <int>length) == 1 and <uint32_t>written == out_bytes)
    lib.context_free(context)
    return True if done else _refused()


cdef bint key_wrap(const uint8_t* kek, uint32_t kek_bytes, const uint8_t* key, uint32_t key_bytes,
                   uint8_t* out) noexcept nogil:
    return _wrapping(True, kek, kek_bytes, key, key_bytes, out, key_bytes + K_WRAP_BYTES)


cdef bint key_unwrap(const uint8_t* kek, uint32_t kek_bytes, const uint8_t* wrapped, uint32_t wrapped_bytes,
                     uint8_t* out) noexcept nogil:
    if wrapped_bytes < 2 * K_WRAP_BYTES:
        return False
    return _wrapping(False, kek, kek_bytes, wrapped, wrapped_bytes, out, wrapped_bytes - K_WRAP_BYTES)


cdef bint key_derive(const uint8_t* passphrase, uint32_t passphrase_bytes, const uint8_t* salt, uint32_t salt_bytes,
                     uint32_t iterations, uint8_t* out, uint32_t out_bytes) noexcept nogil:
    if not loaded:
        return False
    if lib.pbkdf2(<const char*>passphrase, <int>passphrase_bytes, salt, <int>salt_bytes, <int>iterations,
                  <int>out_bytes, out) != 1:
        return _refused()
    return True


cdef bint random_bytes(uint8_t* out, size_t length) noexcept nogil:
    """From the kernel, up to 256 bytes."""
    return getrandom(out, length, 0) == <ssize_t>length


cdef void wipe(void* data, size_t length) noexcept nogil:
    """Zero a secret; the compiler does not leave it out."""
    explicit_bzero(data, length)


cdef class Aes:
    """One key, for tests and tools: Aes(key, mode="ctr"). ValueError for a key that is not 16, 24 or 32 bytes."""

    cdef aes_key seals
    cdef aes_key opens

    def __cinit__(self, bytes key not None, str mode="ctr"):
        cdef uint32_t number = {"ctr": AES_CTR, "gcm": AES_GCM}[mode]
        load()
        if not (aes_set(&self.seals, number, True, key, <uint32_t>len(key))
                and aes_set(&self.opens, number, False, key, <uint32_t>len(key))):
            raise ValueError(f"a key of {len(key)} bytes; AES has 16, 24 or 32")

    def __dealloc__(self):
        aes_clear(&self.seals)
        aes_clear(&self.opens)

    def ctr(self, bytes iv not None, bytes data not None):
        """Encrypt or decrypt; iv: the first counter block, 16 bytes."""
        cdef bytearray out = bytearray(len(data))
        if len(iv) != K_AES_BLOCK_BYTES or self.seals.mode != AES_CTR:
            raise ValueError(f"a counter block of {len(iv)} bytes; AES-CTR has {K_AES_BLOCK_BYTES}")
        if not aes_ctr(&self.seals, iv, data, <uint32_t>len(data), out):
            raise RuntimeError("libcrypto refused")
        return bytes(out)

    def seal(self, bytes iv not None, bytes header not None, bytes data not None):
        """Encrypt by GCM: ciphertext and 16 bytes of tag. iv: 12 bytes."""
        cdef bytearray out = bytearray(len(data) + K_TAG_BYTES)
        self._check(iv)
        if not aes_gcm_seal(&self.seals, iv, header, <uint32_t>len(header), data, <uint32_t>len(data), out):
            raise RuntimeError("libcrypto refused")
        return bytes(out)

    def open(self, bytes iv not None, bytes header not None, bytes data not None):
        """What seal() gave, decrypted; None when a byte of it or of the header is another."""
        cdef bytearray out
        self._check(iv)
        if len(data) < K_TAG_BYTES:
            return None
        out = bytearray(len(data) - K_TAG_BYTES)
        if not aes_gcm_open(&self.opens, iv, header, <uint32_t>len(header), data,
                            <uint32_t>len(data) - K_TAG_BYTES, out):
            return None
        return bytes(out)

    cdef _check(self, bytes iv):
        if len(iv) != K_GCM_IV_BYTES or self.seals.mode != AES_GCM:
            raise ValueError(f"an IV of {len(iv)} bytes; AES-GCM has {K_GCM_IV_BYTES}")


def wrap(bytes kek not None, bytes key not None):
    """A key wrapped (RFC 3394): 8 bytes more. ValueError for sizes that AES key wrap has not."""
    cdef bytearray out = bytearray(len(key) + K_WRAP_BYTES)
    load()
    if len(key) % 8 or not key_wrap(kek, <uint32_t>len(kek), key, <uint32_t>len(key), out):
        raise ValueError(f"a key of {len(key)} bytes under one of {len(kek)} can't be wrapped")
    return bytes(out)


def unwrap(bytes kek not None, bytes wrapped not None):
    """What wrap() gave, unwrapped; None: wrapped under another key, or damaged."""
    cdef bytearray out = bytearray(len(wrapped))
    load()
    if not key_unwrap(kek, <uint32_t>len(kek), wrapped, <uint32_t>len(wrapped), out):
        return None
    return bytes(out[:len(wrapped) - K_WRAP_BYTES])


def derive(bytes passphrase not None, bytes salt not None, uint32_t iterations, uint32_t length):
    """PBKDF2 with HMAC-SHA-1: `length` bytes."""
    cdef bytearray out = bytearray(length)
    load()
    if not key_derive(passphrase, <uint32_t>len(passphrase), salt, <uint32_t>len(salt), iterations, out, length):
        raise RuntimeError("libcrypto refused")
    return bytes(out)
