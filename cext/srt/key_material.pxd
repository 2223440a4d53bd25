"""Key material messages (draft-sharabayko-srt-01, section 3.2.2): the keys of a stream, wrapped.

    0        1        2        3
    +--------+--------+--------+--------+
    |0 V  PT |   sign 0x2029   |     KK |   V 1, PT 2; KK: 1 the even key, 2 the odd one, 3 both
    | index of the key-encrypting key   |   0: the one from the passphrase
    | cipher | auth   | SE     |        |   SE 2: SRT
    |                 | SLen/4 | KLen/4 |
    | salt, 16 bytes                    |
    | wrap: 8 bytes, then the even key, |
    | the odd key, or both, KLen each   |
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    K_KM_HEADER_BYTES = 16
    K_SALT_BYTES = 16
    K_KM_BYTES = 104              # at most: header, salt, two keys of 32 bytes, wrapped
    K_KM_WRAPPED_BYTES = 72

cdef enum key_bits:               # which keys a message has; in a data packet, which key it is encrypted with
    KEY_EVEN = 1
    KEY_ODD = 2
    KEY_BOTH = 3

cdef enum km_state:               # of each direction, and of the peer in a KMRSP of one word
    KM_UNSECURED = 0
    KM_SECURING = 1
    KM_SECURED = 2
    KM_NOSECRET = 3               # one side has a passphrase, the other has not
    KM_BADSECRET = 4              # their passphrases differ
    KM_BADCRYPTOMODE = 5          # one wants CTR, the other GCM

cdef enum km_fault:
    KM_GOOD = 0
    KM_SHORT = 1                  # or without a key length
    KM_FOREIGN = 2                # version, type, signature or encapsulation are others
    KM_KEYS = 3                   # says that it has no key
    KM_CIPHER = 4                 # neither CTR nor GCM, or with another authentication
    KM_SIZES = 5                  # of salt, key and message don't fit

cdef struct key_material:
    uint32_t keys                 # key_bits
    uint32_t mode                 # aes_mode
    uint32_t key_bytes            # of each key
    uint32_t wrapped_bytes
    uint8_t salt[16]
    uint8_t wrapped[72]

cdef km_fault key_material_parse(key_material* m, const uint8_t* data, uint32_t length) noexcept nogil
cdef uint32_t key_material_write(const key_material* m, uint8_t* out) noexcept nogil
