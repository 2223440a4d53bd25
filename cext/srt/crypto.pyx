"""Keys of a connection, and packets under them (crypto.pxd tells how they are exchanged)."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.srt.key_material cimport (
    K_SALT_BYTES, KEY_BOTH, KEY_EVEN, KEY_ODD, KM_BADCRYPTOMODE, KM_BADSECRET, KM_GOOD, KM_NOSECRET,
    KM_SECURED, KM_SECURING, KM_SHORT, KM_UNSECURED, key_material, key_material_parse, key_material_write, km_fault,
    km_state,
)
from flux.cext.srt.libcrypto cimport (
    AES_CTR, AES_GCM, AES_NONE, K_AES_BLOCK_BYTES, K_GCM_IV_BYTES, K_MOST_KEY_BYTES, K_TAG_BYTES, K_WRAP_BYTES,
    aes_clear, aes_ctr, aes_gcm_open, aes_gcm_seal, aes_set, key_derive, key_unwrap, key_wrap, random_bytes, wipe,
)
from flux.cext.srt.packet cimport K_HEADER, K_PAYLOAD_BYTES, be32

from flux.cext.srt.libcrypto import load

cdef enum:
    K_ITERATIONS = 2048           # of PBKDF2 (section 6.1.4)
    K_DERIVE_SALT_BYTES = 8       # the salt's last bytes go into PBKDF2
    K_CTR_SALT_BYTES = 14         # its first ones into the counter block, whose last two bytes count blocks
    K_CTR_INDEX_AT = 10
    K_GCM_INDEX_AT = 8
    K_DERIVE_INTERVAL_US = 1000000  # a peer that is not secured yet can't cost us a derivation more often
    K_MOST_KEY_PKTS = 0x60000000  # sequence numbers come again after 2^31: no key is used for that many
    K_MOST_DOUBLINGS = 4          # of the time between two KMREQs
    K_RETRANSMITTED_BYTE = 4      # where in a header the retransmitted flag is
    K_RETRANSMITTED_BIT = 0x04
    K_ANNOUNCE_PKTS = 0x1000      # libsrt's default
    K_MOST_REFRESH_PKTS = 1 << 30

MODES = {"auto": AES_NONE, "ctr": AES_CTR, "gcm": AES_GCM}
STATES = {
    KM_UNSECURED: "unsecured",
    KM_SECURING: "securing",
    KM_SECURED: "secured",
    KM_NOSECRET: "nosecret",
    KM_BADSECRET: "badsecret",
    KM_BADCRYPTOMODE: "badcryptomode",
}


cdef crypto* crypto_new(const crypto_settings* settings) noexcept nogil:
    cdef crypto* k = <crypto*>calloc(1, sizeof(crypto))
    if k != NULL:
        k.settings = settings[0]
        k.mode = settings.mode
        k.key_bytes = settings.key_bytes
        k.send_state = KM_SECURING
        k.receive_state = KM_SECURING
        k.ask_us = INT64_MAX
    return k


cdef void crypto_free(crypto* k) noexcept nogil:
    cdef uint32_t i
    if k == NULL:
        return
    for i in range(2):
        aes_clear(&k.opens[i])
        aes_clear(&k.seals[i])
    wipe(k, sizeof(crypto))
    free(k)


cdef bint _derive(crypto* k, secret* s, const uint8_t* salt, uint32_t key_bytes) noexcept nogil:
    """KEK = PBKDF2(passphrase, the salt's last 64 bits, 2048, KLen) (section 6.2.1), if it is not there already."""
    if s.key_bytes == key_bytes and memcmp(s.salt, salt, K_SALT_BYTES) == 0:
        return True
    if not key_derive(k.settings.passphrase, k.settings.passphrase_bytes,
                      salt + K_SALT_BYTES - K_DERIVE_SALT_BYTES, K_DERIVE_SALT_BYTES, K_ITERATIONS, s.kek, key_bytes):
        return False
    memcpy(s.salt, salt, K_SALT_BYTES)
    s.key_bytes = key_bytes
    return True


cdef void _forget_passphrase(crypto* k) noexcept nogil:
    """Once secured, all that follows goes by the key-encrypting key."""
    wipe(k.settings.passphrase, sizeof(k.settings.passphrase))


cdef bint _draw(crypto* k, uint32_t index) noexcept nogil:
    """A new key for sending."""
    return (random_bytes(k.keys[index], k.key_bytes)
            and aes_set(&k.seals[index], k.mode, True, k.keys[index], k.key_bytes))


cdef bint _compose(crypto* k, uint32_t keys) noexcept nogil:
    """The message that tells the peer our keys."""
    cdef key_material m
    cdef uint8_t plain[2 * K_MOST_KEY_BYTES]
    cdef uint32_t size = k.key_bytes
    cdef bint done
    m.keys = keys
    m.mode = k.mode
    m.key_bytes = k.key_bytes
    memcpy(m.salt, k.send_secret.salt, K_SALT_BYTES)
    if keys == KEY_BOTH:
        memcpy(plain, k.keys[0], k.key_bytes)
        memcpy(plain + k.key_bytes, k.keys[1], k.key_bytes)
        size *= 2
    else:
        memcpy(plain, k.keys[keys - 1], k.key_bytes)
    m.wrapped_bytes = size + K_WRAP_BYTES
    done = key_wrap(k.send_secret.kek, k.key_bytes, plain, size, m.wrapped)
    wipe(plain, sizeof(plain))
    if done:
        k.message_bytes = key_material_write(&m, k.message)
    return done


cdef bint crypto_start(crypto* k) noexcept nogil:
    """As caller: draw an even key and a salt, and compose the KMREQ. Both directions have the key. False: libcrypto refuses."""
    cdef uint8_t salt[K_SALT_BYTES]
    if k.key_bytes == 0:
        k.key_bytes = 16
    if k.mode == AES_NONE:
        k.mode = AES_CTR
    if not random_bytes(salt, K_SALT_BYTES) or not _derive(k, &k.send_secret, salt, k.key_bytes) or (
            not _draw(k, 0) or not _compose(k, KEY_EVEN)):
        return False
    k.receive_secret = k.send_secret
    return aes_set(&k.opens[0], k.mode, False, k.keys[0], k.key_bytes)


cdef bint crypto_alone(crypto* k) noexcept nogil:
    """There is no common secret, but the connection may be: send under a key that nobody else has, as libsrt does."""
    if k.key_bytes == 0:
        k.key_bytes = 16
    if k.mode == AES_NONE:
        k.mode = AES_CTR
    k.alone = True
    return random_bytes(k.send_secret.salt, K_SALT_BYTES) and _draw(k, k.active)


cdef km_state crypto_hear(crypto* k, const uint8_t* message, uint32_t length, bint handshake,
                          int64_t now_us) noexcept nogil:
    """Take a KMREQ in. KM_SECURED: its keys are set, and the message itself is the answer; else the state to answer with.

    handshake: we are the listener, and our sender begins with the same key. Otherwise it comes late, or is a refresh
    (section 6.1.6): that has the same salt, and one that can't be used leaves the keys that there are.
    """
    cdef key_material m
    cdef secret s = k.receive_secret
    cdef uint8_t plain[2 * K_MOST_KEY_BYTES]
    cdef km_fault fault
    cdef bint done
    if length == k.heard_bytes and length and memcmp(message, k.heard, length) == 0:
        return KM_SECURED
    fault = key_material_parse(&m, message, length)
    if fault != KM_GOOD:
        return _refuse(k, KM_BADSECRET if fault == KM_SHORT else KM_NOSECRET)
    if k.mode != AES_NONE and m.mode != k.mode:
        return _refuse(k, KM_BADCRYPTOMODE)
    if k.receive_state == KM_SECURED:
        if m.key_bytes != s.key_bytes or memcmp(m.salt, s.salt, K_SALT_BYTES) != 0:
            return KM_NOSECRET
    elif not handshake and k.derived_us and now_us - k.derived_us < K_DERIVE_INTERVAL_US:
        return <km_state>k.receive_state
    elif not _derive(k, &s, m.salt, m.key_bytes):
        return _refuse(k, KM_NOSECRET)
    else:
        k.derived_us = now_us
    done = key_unwrap(s.kek, m.key_bytes, m.wrapped, m.wrapped_bytes, plain)
    if done:
        k.receive_secret = s
        done = _set_keys(k, &m, plain, handshake)
    wipe(&s, sizeof(secret))
    wipe(plain, sizeof(plain))
    if not done:
        return _refuse(k, KM_BADSECRET)
    if k.heard_bytes or not handshake:
        k.peer_refreshes += 1
    k.receive_state = KM_SECURED
    _forget_passphrase(k)
    memcpy(k.heard, message, length)
    k.heard_bytes = length
    return KM_SECURED


cdef bint _set_keys(crypto* k, const key_material* m, const uint8_t* key, bint handshake) noexcept nogil:
    """Receive with the keys of a message; after the handshake's we send with the first of them."""
    cdef uint32_t i
    k.mode = m.mode
    for i in range(2):
        if not m.keys & 1 << i:
            continue
        if not aes_set(&k.opens[i], m.mode, False, key, m.key_bytes):
            return False
        if handshake and k.send_state != KM_SECURED:
            k.active = i
            k.key_bytes = m.key_bytes
            k.send_secret = k.receive_secret
            memcpy(k.keys[i], key, m.key_bytes)
            if not aes_set(&k.seals[i], m.mode, True, key, m.key_bytes):
                return False
            k.send_state = KM_SECURED
        key += m.key_bytes
    return True


cdef km_state _refuse(crypto* k, km_state state) noexcept nogil:
    if k.receive_state != KM_SECURED:
        k.receive_state = state
        k.send_state = state
    return state


cdef bint crypto_confirm(crypto* k, const uint8_t* message, uint32_t length) noexcept nogil:
    """Take a KMRSP in (sections 3.2.1.2 and 6.1.5): False: it says that the peer has not our keys, or is no answer to our message."""
    cdef uint32_t state
    if length == k.message_bytes and length and memcmp(message, k.message, length) == 0:
        if k.send_state != KM_SECURED:
            k.receive_state = KM_SECURED
        k.send_state = KM_SECURED
        _forget_passphrase(k)
        k.confirmed = True
        k.ask_us = INT64_MAX
        return True
    if k.send_state == KM_SECURED:
        return False
    state = be32(message) if length == 4 else KM_BADSECRET
    k.send_state = state if KM_NOSECRET <= state <= KM_BADCRYPTOMODE else KM_NOSECRET
    # A peer without a passphrase sends in the clear.
    k.receive_state = KM_UNSECURED if state == KM_NOSECRET else k.send_state
    return False


cdef bint crypto_sent(crypto* k, uint32_t pkts) noexcept nogil:
    """Count packets sent for the first time, and go on to the next key when it is due. True: it is to be announced, by crypto_ask."""
    cdef uint32_t following = 1 - k.active
    k.sent_pkts += pkts
    if k.alone:
        if k.sent_pkts >= k.settings.refresh_pkts and _draw(k, k.active):
            k.sent_pkts = 0
        return False
    if k.announced:
        if k.sent_pkts >= K_MOST_KEY_PKTS or (k.confirmed and k.sent_pkts >= k.settings.refresh_pkts):
            aes_clear(&k.seals[k.active])
            wipe(k.keys[k.active], K_MOST_KEY_BYTES)
            k.active = following
            k.sent_pkts = 0
            k.announced = False
            k.ask_us = INT64_MAX
            k.refreshes += 1
        return False
    if k.sent_pkts + k.settings.announce_pkts < k.settings.refresh_pkts:
        return False
    if not _draw(k, following) or not _compose(k, KEY_BOTH):
        return False
    k.announced = True
    k.confirmed = False
    k.asks = 0
    return True


cdef void crypto_ask(crypto* k, int64_t now_us, int64_t interval_us) noexcept nogil:
    """The KMREQ in `message` is being sent: it goes again after `interval_us`, and later and later, until it is confirmed."""
    k.ask_us = now_us + (interval_us << min(k.asks, <uint32_t>K_MOST_DOUBLINGS))
    k.asks += 1


cdef int64_t crypto_ask_due_us(crypto* k) noexcept nogil:
    """When the KMREQ is to go again; INT64_MAX: it need not."""
    return k.ask_us if k != NULL else INT64_MAX


cdef inline void _ctr_block(const uint8_t* salt, const uint8_t* header, uint8_t* block) noexcept nogil:
    """The first counter block: the salt's first 112 bits, XORed with the sequence number at their end (section 6.1.2)."""
    cdef uint32_t i
    memcpy(block, salt, K_CTR_SALT_BYTES)
    block[14] = 0
    block[15] = 0
    for i in range(4):
        block[K_CTR_INDEX_AT + i] ^= header[i]


cdef inline void _gcm_iv(const uint8_t* salt, const uint8_t* header, uint8_t* iv) noexcept nogil:
    """The salt's first 96 bits, XORed with the sequence number at their end (as libsrt does since 1.5.4)."""
    cdef uint32_t i
    memcpy(iv, salt, K_GCM_IV_BYTES)
    for i in range(4):
        iv[K_GCM_INDEX_AT + i] ^= header[i]


cdef uint32_t crypto_seal(crypto* k, const uint8_t* header, const uint8_t* data, uint32_t length,
                          uint8_t* out) noexcept nogil:
    """Encrypt a payload with the key in use. By GCM the whole header is authenticated as well."""
    cdef uint8_t iv[K_AES_BLOCK_BYTES]
    cdef aes_key* key = &k.seals[k.active]
    if key.context == NULL:
        return 0
    if key.mode == AES_GCM:
        _gcm_iv(k.send_secret.salt, header, iv)
        if not aes_gcm_seal(key, iv, header, K_HEADER, data, length, out):
            return 0
        return length + K_TAG_BYTES
    _ctr_block(k.send_secret.salt, header, iv)
    return length if aes_ctr(key, iv, data, length, out) else 0


cdef int crypto_open(crypto* k, const uint8_t* header, const uint8_t* data, uint32_t length,
                     uint8_t* out) noexcept nogil:
    """Decrypt a payload with the key that its header names."""
    cdef uint8_t iv[K_AES_BLOCK_BYTES]
    cdef uint8_t plain_header[K_HEADER]
    cdef uint32_t bits = header[4] >> 3 & KEY_BOTH
    cdef aes_key* key
    if k == NULL or k.receive_state != KM_SECURED or (bits != KEY_EVEN and bits != KEY_ODD):
        return OPEN_NO_KEY
    key = &k.opens[bits - 1]
    if key.context == NULL:
        return OPEN_NO_KEY
    if key.mode == AES_GCM:
        if length < K_TAG_BYTES:
            return OPEN_DAMAGED
        memcpy(plain_header, header, K_HEADER)
        plain_header[K_RETRANSMITTED_BYTE] &= ~<uint8_t>K_RETRANSMITTED_BIT
        _gcm_iv(k.receive_secret.salt, header, iv)
        if not aes_gcm_open(key, iv, plain_header, K_HEADER, data, length - K_TAG_BYTES, out):
            return OPEN_DAMAGED
        return <int>length - K_TAG_BYTES
    _ctr_block(k.receive_secret.salt, header, iv)
    return <int>length if aes_ctr(key, iv, data, length, out) else OPEN_NO_KEY


cdef int crypto_settings_take(crypto_settings* s, object passphrase, uint32_t key_bytes, str mode,
                              uint64_t refresh_pkts, object announce_pkts, bint enforced) except -1:
    """Check what a user said, and load libcrypto if there is a passphrase.

    ValueError, in one line, names the option and what it may be; RuntimeError: there is no libcrypto.
    """
    cdef bytes text = passphrase.encode() if isinstance(passphrase, str) else bytes(passphrase or b"")
    cdef uint64_t most
    memset(s, 0, sizeof(crypto_settings))
    if text and not K_LEAST_PASSPHRASE_BYTES <= len(text) <= K_MOST_PASSPHRASE_BYTES:
        raise ValueError(
            f"a passphrase of {len(text)} bytes; it has {K_LEAST_PASSPHRASE_BYTES} to {K_MOST_PASSPHRASE_BYTES}"
        )
    if key_bytes not in (0, 16, 24, 32):
        raise ValueError(f"pbkeylen {key_bytes}; it is 16, 24 or 32, or 0 for the peer's")
    if mode not in MODES:
        raise ValueError(f"cryptomode {mode!r}; it is auto, ctr or gcm")
    if not 2 <= refresh_pkts <= K_MOST_REFRESH_PKTS:
        raise ValueError(f"kmrefreshrate {refresh_pkts}; it is 2 to {K_MOST_REFRESH_PKTS} packets")
    most = (refresh_pkts - 1) // 2
    if announce_pkts is None:
        announce_pkts = min(most, <uint64_t>K_ANNOUNCE_PKTS)
    if not 0 <= announce_pkts <= most:
        raise ValueError(f"kmpreannounce {announce_pkts}; with a kmrefreshrate of {refresh_pkts} it is {most} at most")
    if text:
        load()
    s.key_bytes = key_bytes
    s.mode = MODES[mode]
    s.refresh_pkts = <uint32_t>refresh_pkts
    s.announce_pkts = <uint32_t>announce_pkts
    s.enforced = enforced
    s.passphrase_bytes = <uint32_t>len(text)
    memcpy(s.passphrase, <const char*>text, len(text))
    return 0


cdef dict crypto_facts(crypto* k):
    """What Python is told of a connection's encryption; nothing of it is secret."""
    if k == NULL:
        return {
            "send_km_state": "unsecured",
            "receive_km_state": "unsecured",
            "cipher": "",
            "key_refreshes": 0,
            "peer_key_refreshes": 0,
        }
    return {
        "send_km_state": STATES[k.send_state],
        "receive_km_state": STATES[k.receive_state],
        "cipher": f"aes-{8 * k.key_bytes}-{'gcm' if k.mode == AES_GCM else 'ctr'}" if k.mode and k.key_bytes else "",
        "key_refreshes": k.refreshes,
        "peer_key_refreshes": k.peer_refreshes,
    }


cdef class Crypto:
    """One side's encryption, for tests and inspection: Crypto(passphrase, pbkeylen=0, mode="auto", …)."""

    cdef crypto* view

    def __cinit__(self, passphrase, *, uint32_t pbkeylen=0, str mode="auto", uint64_t km_refresh_rate_pkts=K_REFRESH_PKTS,
                  km_preannounce_pkts=None):
        cdef crypto_settings s
        crypto_settings_take(&s, passphrase, pbkeylen, mode, km_refresh_rate_pkts, km_preannounce_pkts, True)
        self.view = crypto_new(&s)
        wipe(&s, sizeof(crypto_settings))
        if self.view == NULL:
            raise MemoryError

    def __dealloc__(self):
        crypto_free(self.view)

    def start(self):
        """Begin as caller: the KMREQ."""
        if not crypto_start(self.view):
            raise RuntimeError("libcrypto refused")
        return self.message()

    def alone(self):
        """Send under a key that nobody else has."""
        return bool(crypto_alone(self.view))

    def message(self):
        """The newest KMREQ of ours."""
        return self.view.message[:self.view.message_bytes]

    def hear(self, bytes message not None, *, bint handshake=True, int64_t now_us=0):
        """Take a KMREQ in: the state to answer with; "secured": with the message itself."""
        return STATES[crypto_hear(self.view, message, <uint32_t>len(message), handshake, now_us)]

    def confirm(self, bytes message not None):
        """Take a KMRSP in: whether the peer has our newest keys."""
        return bool(crypto_confirm(self.view, message, <uint32_t>len(message)))

    def sent(self, uint32_t pkts=1):
        """Count packets sent: whether a new KMREQ is to be sent now."""
        return bool(crypto_sent(self.view, pkts))

    def ask(self, int64_t now_us, int64_t interval_us):
        """The KMREQ is sent: when it is due again."""
        crypto_ask(self.view, now_us, interval_us)
        return crypto_ask_due_us(self.view)

    @property
    def flags(self):
        """The bits of a data packet's second word that name the key."""
        return crypto_flags(self.view)

    @property
    def facts(self):
        """Key length, mode and state, without keys: a dict."""
        return crypto_facts(self.view)

    def seal(self, bytes header not None, bytes payload not None):
        """A payload encrypted; header: 16 bytes of a packet without the retransmitted flag."""
        cdef uint8_t out[K_PAYLOAD_BYTES + K_TAG_BYTES]
        cdef uint32_t length
        if len(header) != K_HEADER or len(payload) > K_PAYLOAD_BYTES:
            raise ValueError(f"a header of {len(header)} bytes and a payload of {len(payload)}")
        length = crypto_seal(self.view, header, payload, <uint32_t>len(payload), out)
        return out[:length]

    def open(self, bytes header not None, bytes payload not None):
        """A payload decrypted; "no_key" or "damaged"."""
        cdef uint8_t out[K_PAYLOAD_BYTES]
        cdef int length
        if len(header) != K_HEADER or len(payload) > K_PAYLOAD_BYTES:
            raise ValueError(f"a header of {len(header)} bytes and a payload of {len(payload)}")
        length = crypto_open(self.view, header, payload, <uint32_t>len(payload), out)
        if length < 0:
            return "no_key" if length == OPEN_NO_KEY else "damaged"
        return out[:length]
