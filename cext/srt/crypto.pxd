"""The encryption of one connection (draft-sharabayko-srt-01, section 6): its keys, and their exchange and refresh.

    caller      crypto_start → KMREQ … KMRSP → crypto_confirm
    listener    KMREQ → crypto_hear → the same message back as KMRSP
    a sender    crypto_seal a packet, crypto_sent a batch; when that says so, crypto_ask with a new KMREQ, until confirmed

The keys of both directions are the same at first, and each sender refreshes its own. Keys alternate between even
and odd. The next one is made and announced, together with the one in use, `announce_pkts` before it is due, and is
used from `refresh_pkts` on, but not before the peer says that it has it. Packets sent again are encrypted with the
key in use, so a receiver needs the key before only for what is under way.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.srt.key_material cimport km_state
from flux.cext.srt.libcrypto cimport aes_key

cdef enum:
    K_LEAST_PASSPHRASE_BYTES = 10
    K_MOST_PASSPHRASE_BYTES = 80
    K_KEY_BITS_SHIFT = 27         # of key_bits in a data packet's second word
    K_REFRESH_PKTS = 0x1000000    # libsrt's default

cdef struct crypto_settings:
    uint32_t passphrase_bytes     # 0: no encryption
    uint32_t key_bytes            # 16, 24, 32; 0: what the peer has, else 16
    uint32_t mode                 # aes_mode; AES_NONE: what the caller has, and as caller AES_CTR
    uint32_t refresh_pkts         # packets sent with one key
    uint32_t announce_pkts        # the next one is announced so many before
    bint enforced                 # no connection without a common secret
    uint8_t passphrase[80]

cdef struct secret:               # a key-encrypting key and what it was made from
    uint32_t key_bytes            # 0: none yet
    uint8_t salt[16]
    uint8_t kek[32]

cdef struct crypto:
    crypto_settings settings
    uint32_t mode                 # agreed
    uint32_t key_bytes            # agreed
    uint32_t send_state           # km_state
    uint32_t receive_state
    # receiving
    aes_key opens[2]              # even, odd
    secret receive_secret
    int64_t derived_us            # when the peer last made us derive one
    uint32_t heard_bytes          # of the newest message whose keys are set
    uint64_t peer_refreshes
    uint8_t heard[104]
    # sending
    aes_key seals[2]
    secret send_secret
    uint8_t keys[2][32]
    uint32_t active               # index of the key in use
    uint32_t asks                 # KMREQs sent for the next key
    uint32_t message_bytes        # KMREQ of the handshake, or of the next key
    uint8_t message[104]
    bint alone                    # no peer is to have the keys: nothing leaves in the clear, and that is all
    bint announced                # the next key is made
    bint confirmed                # and the peer has it
    uint64_t sent_pkts            # with the key in use
    uint64_t refreshes
    int64_t ask_us                # the KMREQ goes again then

cdef enum:                        # what crypto_open gives instead of a length
    OPEN_NO_KEY = -1
    OPEN_DAMAGED = -2

cdef crypto* crypto_new(const crypto_settings* settings) noexcept nogil      # NULL: no memory
cdef void crypto_free(crypto* k) noexcept nogil                              # NULL is taken
cdef bint crypto_start(crypto* k) noexcept nogil
cdef bint crypto_alone(crypto* k) noexcept nogil
cdef km_state crypto_hear(crypto* k, const uint8_t* message, uint32_t length, bint handshake,
                          int64_t now_us) noexcept nogil
cdef bint crypto_confirm(crypto* k, const uint8_t* message, uint32_t length) noexcept nogil
cdef bint crypto_sent(crypto* k, uint32_t pkts) noexcept nogil
cdef void crypto_ask(crypto* k, int64_t now_us, int64_t interval_us) noexcept nogil
cdef int64_t crypto_ask_due_us(crypto* k) noexcept nogil
# `header`: the packet's 16 bytes, as on the wire but without the retransmitted flag.
# Bytes in `out`, up to K_TAG_BYTES more than `length`; 0: failed.
cdef uint32_t crypto_seal(crypto* k, const uint8_t* header, const uint8_t* data, uint32_t length,
                          uint8_t* out) noexcept nogil
# `header`: as it came. Bytes in `out`, or one of OPEN_…
cdef int crypto_open(crypto* k, const uint8_t* header, const uint8_t* data, uint32_t length,
                     uint8_t* out) noexcept nogil

# For Python's side: they need the GIL.
cdef int crypto_settings_take(crypto_settings* s, object passphrase, uint32_t key_bytes, str mode,
                              uint64_t refresh_pkts, object announce_pkts, bint enforced) except -1
cdef dict crypto_facts(crypto* k)


cdef inline uint32_t crypto_flags(crypto* k) noexcept nogil:
    """What says in a data packet's second word which key it is encrypted with; 0 for a connection without encryption."""
    return (k.active + 1) << K_KEY_BITS_SHIFT if k != NULL else 0


cdef inline uint32_t crypto_tag_bytes(crypto* k) noexcept nogil:
    """Bytes that encryption adds to a payload."""
    return k.seals[k.active].tagged if k != NULL else 0
