"""Key material messages, decode and encode (key_material.pxd has their shape)."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from flux.cext.srt.libcrypto cimport AES_CTR, AES_GCM, K_WRAP_BYTES

cdef enum:
    K_VERSION_AND_TYPE = 0x12
    K_SIGN_HIGH = 0x20
    K_SIGN_LOW = 0x29
    K_AUTH_NONE = 0
    K_AUTH_GCM = 1
    K_ENCAPSULATION_SRT = 2

FAULTS = {
    KM_SHORT: "it is too short, or has no key length",
    KM_FOREIGN: "its version, type, signature or encapsulation is not SRT's",
    KM_KEYS: "it has no key",
    KM_CIPHER: "its cipher is neither AES-CTR nor AES-GCM",
    KM_SIZES: "its sizes don't fit together",
}


cdef km_fault key_material_parse(key_material* m, const uint8_t* data, uint32_t length) noexcept nogil:
    """Take a message apart. Reserved fields and the index of the key-encrypting key are not looked at, as libsrt does."""
    if length <= K_KM_HEADER_BYTES or data[15] == 0:
        return KM_SHORT
    if data[0] != K_VERSION_AND_TYPE or data[1] != K_SIGN_HIGH or data[2] != K_SIGN_LOW or (
            data[10] != K_ENCAPSULATION_SRT):
        return KM_FOREIGN
    m.keys = data[3] & KEY_BOTH
    if m.keys == 0:
        return KM_KEYS
    m.mode = data[8]
    if not (m.mode == AES_CTR and data[9] == K_AUTH_NONE or m.mode == AES_GCM and data[9] == K_AUTH_GCM):
        return KM_CIPHER
    m.key_bytes = 4 * <uint32_t>data[15]
    m.wrapped_bytes = m.key_bytes * (2 if m.keys == KEY_BOTH else 1) + K_WRAP_BYTES
    if (m.key_bytes != 16 and m.key_bytes != 24 and m.key_bytes != 32) or 4 * <uint32_t>data[14] != K_SALT_BYTES or (
            length != K_KM_HEADER_BYTES + K_SALT_BYTES + m.wrapped_bytes):
        return KM_SIZES
    memcpy(m.salt, data + K_KM_HEADER_BYTES, K_SALT_BYTES)
    memcpy(m.wrapped, data + K_KM_HEADER_BYTES + K_SALT_BYTES, m.wrapped_bytes)
    return KM_GOOD


cdef uint32_t key_material_write(const key_material* m, uint8_t* out) noexcept nogil:
    """Write a message; gives its bytes, at most K_KM_BYTES and always whole words."""
    memset(out, 0, K_KM_HEADER_BYTES)
    out[0] = K_VERSION_AND_TYPE
    out[1] = K_SIGN_HIGH
    out[2] = K_SIGN_LOW
    out[3] = <uint8_t>m.keys
    out[8] = <uint8_t>m.mode
    out[9] = K_AUTH_GCM if m.mode == AES_GCM else K_AUTH_NONE
    out[10] = K_ENCAPSULATION_SRT
    out[14] = K_SALT_BYTES // 4
    out[15] = <uint8_t>(m.key_bytes // 4)
    memcpy(out + K_KM_HEADER_BYTES, m.salt, K_SALT_BYTES)
    memcpy(out + K_KM_HEADER_BYTES + K_SALT_BYTES, m.wrapped, m.wrapped_bytes)
    return K_KM_HEADER_BYTES + K_SALT_BYTES + m.wrapped_bytes


def decode(const uint8_t[::1] data not None):
    """A message as a dict: keys (1 even, 2 odd, 3 both), mode "ctr" or "gcm", key_bytes, salt, wrapped.

    ValueError tells what is wrong with it.
    """
    cdef key_material m
    cdef km_fault fault = key_material_parse(&m, &data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0])
    if fault != KM_GOOD:
        raise ValueError(f"no key material message: {FAULTS[fault]}")
    return {
        "keys": m.keys,
        "mode": "gcm" if m.mode == AES_GCM else "ctr",
        "key_bytes": m.key_bytes,
        "salt": m.salt[:K_SALT_BYTES],
        "wrapped": m.wrapped[:m.wrapped_bytes],
    }


def encode(*, uint32_t keys=1, str mode="ctr", uint32_t key_bytes=16, bytes salt not None, bytes wrapped not None):
    """A message; `wrapped` is one key or two, and 8 bytes more."""
    cdef key_material m
    cdef uint8_t out[K_KM_BYTES]
    if len(salt) != K_SALT_BYTES or len(wrapped) > K_KM_WRAPPED_BYTES:
        raise ValueError(f"a salt of {len(salt)} bytes and {len(wrapped)} of wrapped keys")
    m.keys = keys
    m.mode = {"ctr": AES_CTR, "gcm": AES_GCM}[mode]
    m.key_bytes = key_bytes
    m.wrapped_bytes = <uint32_t>len(wrapped)
    memcpy(m.salt, <const char*>salt, K_SALT_BYTES)
    memcpy(m.wrapped, <const char*>wrapped, len(wrapped))
    return out[:key_material_write(&m, out)]
