"""Handshakes of both sides (draft-sharabayko-srt-01, sections 3.2.1 and 4.3.1).

An induction leaves nothing behind: its answer carries a cookie that is made from the caller's address under our
secret. Only a conclusion that brings this cookie back, and so comes from where it says, costs memory; how many of them
may wait for a decision is bounded, and so is how many of those that want encryption, which costs a key derivation, are
let in each second. No answer to a stranger is longer than what he sent.

What becomes of one-sided and of different secrets is as in libsrt: `_secure` and `_secured` have the rules.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.counters cimport (
    C_SRT_ACCEPTED, C_SRT_ANSWERS_DROPPED, C_SRT_CONNECTED, C_SRT_HANDSHAKE_PKTS, C_SRT_REFUSED_COOKIE,
    C_SRT_KEY_EXCHANGES_PUT_OFF, C_SRT_REFUSED_HANDSHAKE, C_SRT_REJECTED_BACKLOG, C_SRT_REJECTED_CRYPTO,
    C_SRT_REJECTED_ENCRYPTED, C_SRT_REJECTED_FILTER, C_SRT_REJECTED_GROUP, C_SRT_REJECTED_MODE,
    C_SRT_REJECTED_REQUEST, C_SRT_REJECTED_ROGUE, C_SRT_REJECTED_SECRET, C_SRT_REJECTED_UNENCRYPTED,
    C_SRT_REJECTED_VERSION, C_SRT_REQUESTS,
)
from flux.cext.srt.connection cimport (
    address_key, connection_by_peer, connection_close, connection_free, connection_new, connection_open,
    connection_post, connection_ready, connection_remember, connection_wake_at,
)
from flux.cext.srt.cookie cimport cookie_check, cookie_make
from flux.cext.srt.crypto cimport (
    crypto_alone, crypto_confirm, crypto_hear, crypto_new, crypto_settings, crypto_start, crypto_tag_bytes,
)
from flux.cext.srt.handshake cimport (
    EXT_CONGESTION, EXT_FILTER, EXT_FLAG_CONFIG, EXT_FLAG_HSREQ, EXT_FLAG_KMREQ, EXT_GROUP, EXT_HSREQ, EXT_HSRSP,
    EXT_KMREQ, EXT_KMRSP, HS_CONCLUSION, HS_INDUCTION, HS_OUR_FLAGS, HS_STREAM, HS_TSBPDRCV, HS_TSBPDSND, K_HS_MAGIC,
    K_HS_VERSION, K_LEAST_SRT_VERSION, K_SRT_VERSION, REJ_BACKLOG, REJ_BADSECRET, REJ_CONGESTION, REJ_CRYPTO,
    REJ_FILTER, REJ_GROUP, REJ_MESSAGEAPI, REJ_RESOURCE, REJ_ROGUE, REJ_SYSTEM, REJ_UNSECURE, REJ_VERSION,
    handshake, handshake_parse, handshake_write,
)
from flux.cext.srt.key_material cimport (
    KM_BADCRYPTOMODE, KM_BADSECRET, KM_NOSECRET, KM_SECURED, KM_UNSECURED, km_state,
)
from flux.cext.srt.libcrypto cimport AES_GCM
from flux.cext.srt.packet cimport CTRL_HANDSHAKE, K_HEADER, K_SEQUENCE_MASK, be32, put_be32, put_control
from flux.cext.srt.state cimport (
    CLOSE_HANDSHAKE_TIMEOUT, CLOSE_PROTOCOL, CLOSE_REJECTED, CONN_CONCLUSION, CONN_INDUCTION, CONN_OPEN,
    CONN_REQUESTED, EVENT_CONNECTED, EVENT_REQUEST, K_ADDRESS_KEY, K_ANSWERS, SEND_HANDSHAKE, SEND_SHUTDOWN,
    answer, connection, count, endpoint, request, timestamp_now,
)
from flux.cext.srt.timers cimport timers_set
from flux.cext.srt.tsbpd cimport tsbpd_init

cdef enum:
    K_MSS = 1500                  # bytes, with 28 of IP and UDP headers
    K_IP_UDP_BYTES = 28
    K_RESEND_US = 250000          # a caller repeats its handshake after this
    K_UDT_DGRAM = 2               # what an induction request has in its extension field
    K_TS_PAYLOAD = 1316           # seven packets of MPEG-TS
    K_TS_PACKET = 188
    K_LEAST_MSS = K_IP_UDP_BYTES + K_HEADER + K_TS_PACKET
    K_LEAST_WINDOW_PKTS = 2
    K_REJECTION = 1000            # a reject_reason on the wire
    K_LEAST_GCM_VERSION = 0x010504  # before, libsrt used one nonce for many packets
    K_KEY_EXCHANGES_AHEAD_US = 1000000  # so far their rate may be exceeded at once


cdef void _answer(endpoint* e, const uint8_t* address, uint32_t address_bytes, const handshake* h,
                  uint32_t destination) noexcept nogil:
    """Queue a handshake without extensions to somebody who is no connection."""
    cdef answer* a
    if e.answers_used == K_ANSWERS:
        count(e, C_SRT_ANSWERS_DROPPED)
        return
    a = &e.answers[(e.answers_first + e.answers_used) % K_ANSWERS]
    e.answers_used += 1
    memcpy(a.address, address, address_bytes)
    a.address_bytes = address_bytes
    put_control(a.data, CTRL_HANDSHAKE, 0, 0, destination)
    handshake_write(h, 0, a.data + K_HEADER)


cdef void _reject(endpoint* e, const uint8_t* address, uint32_t address_bytes, handshake* h, uint32_t wire_code,
                  uint32_t counter) noexcept nogil:
    """Send a conclusion back with a rejection code as its type (section 4.3.3)."""
    count(e, counter)
    h.kind = wire_code
    _answer(e, address, address_bytes, h, h.socket_id)


cdef uint32_t _judge(const handshake* h, uint32_t* counter) noexcept nogil:
    """Why a conclusion can't be accepted: a reject_reason, and its counter; 0: it can."""
    counter[0] = C_SRT_REJECTED_VERSION
    if h.version != K_HS_VERSION:
        return REJ_VERSION
    counter[0] = C_SRT_REJECTED_ROGUE
    if not h.seen & 1 << EXT_HSREQ or h.mss < K_LEAST_MSS or h.flow_window_pkts < K_LEAST_WINDOW_PKTS or (
            h.isn > K_SEQUENCE_MASK or h.socket_id == 0):
        return REJ_ROGUE
    counter[0] = C_SRT_REJECTED_VERSION
    if h.srt_version < K_LEAST_SRT_VERSION:
        return REJ_VERSION
    if h.extension & EXT_FLAG_KMREQ and not h.seen & 1 << EXT_KMREQ:
        counter[0] = C_SRT_REJECTED_ROGUE
        return REJ_ROGUE
    counter[0] = C_SRT_REJECTED_MODE
    if h.flags & HS_STREAM:
        return REJ_MESSAGEAPI
    if h.seen & 1 << EXT_CONGESTION and h.congestion[0] and memcmp(h.congestion, b"live", 5) != 0:
        return REJ_CONGESTION
    counter[0] = C_SRT_REJECTED_FILTER
    if h.seen & 1 << EXT_FILTER:
        return REJ_FILTER
    counter[0] = C_SRT_REJECTED_GROUP
    if h.seen & 1 << EXT_GROUP:
        return REJ_GROUP
    return 0


cdef void _agree(connection* c, const handshake* h) noexcept nogil:
    """Take over what the peer's handshake says. Delays are agreed by the caller of this."""
    cdef uint32_t mss = h.mss if h.mss < K_MSS else K_MSS
    c.peer_id = h.socket_id
    c.peer_version = h.srt_version
    c.peer_flags = h.flags
    c.peer_window_pkts = h.flow_window_pkts
    c.window_end = h.flow_window_pkts
    c.most_payload_bytes = mss - K_IP_UDP_BYTES - K_HEADER
    c.payload_bytes = K_TS_PAYLOAD
    if c.most_payload_bytes < K_TS_PAYLOAD:
        c.payload_bytes = c.most_payload_bytes // K_TS_PACKET * K_TS_PACKET


cdef void listener_handshake(endpoint* e, const uint8_t* address, uint32_t address_bytes, const uint8_t* packet,
                             uint32_t length, int64_t now_us) noexcept nogil:
    """A caller's induction or conclusion."""
    cdef handshake h
    cdef uint8_t key[K_ADDRESS_KEY]
    cdef uint32_t key_bytes = address_key(address, address_bytes, key)
    cdef int parsed = handshake_parse(&h, packet + K_HEADER, length - K_HEADER)
    if parsed == -1 or (h.kind != HS_INDUCTION and h.kind != HS_CONCLUSION):
        count(e, C_SRT_REFUSED_HANDSHAKE)
        return
    if h.kind == HS_INDUCTION:
        count(e, C_SRT_HANDSHAKE_PKTS)
        h.version = K_HS_VERSION
        h.encryption = <uint16_t>(e.settings.encryption.key_bytes // 8)
        h.extension = K_HS_MAGIC
        h.cookie = cookie_make(&e.key, key, key_bytes, now_us)
        _answer(e, address, address_bytes, &h, h.socket_id)
        return
    if not cookie_check(&e.key, key, key_bytes, h.cookie, now_us):
        count(e, C_SRT_REFUSED_COOKIE)
        return
    count(e, C_SRT_HANDSHAKE_PKTS)
    if parsed < 0:
        _reject(e, address, address_bytes, &h, K_REJECTION + REJ_ROGUE, C_SRT_REJECTED_ROGUE)
        return
    _conclusion(e, address, address_bytes, packet, &h, key, key_bytes, now_us)


cdef void _conclusion(endpoint* e, const uint8_t* address, uint32_t address_bytes, const uint8_t* packet, handshake* h,
                      const uint8_t* key, uint32_t key_bytes, int64_t now_us) noexcept nogil:
    cdef uint32_t counter, reason
    cdef connection* c = connection_by_peer(e, key, key_bytes, h.socket_id)
    if c != NULL:
        # Said again: our answer was lost, or is yet to be decided.
        if c.state == CONN_OPEN and c.isn == h.isn:
            c.pending |= SEND_HANDSHAKE
            connection_ready(c)
        return
    reason = _judge(h, &counter)
    if reason:
        _reject(e, address, address_bytes, h, K_REJECTION + reason, counter)
        return
    if e.waiting >= e.settings.max_handshakes or e.open + e.waiting >= e.settings.max_connections:
        _reject(e, address, address_bytes, h, K_REJECTION + REJ_BACKLOG, C_SRT_REJECTED_BACKLOG)
        return
    if h.key_material != NULL and not _exchange_allowed(e, now_us):
        # The caller will ask again.
        count(e, C_SRT_KEY_EXCHANGES_PUT_OFF)
        return
    c = connection_new(e, address, address_bytes, now_us)
    if c != NULL:
        c.request = <request*>calloc(1, sizeof(request))
    if c == NULL or c.request == NULL:
        if c != NULL:
            connection_free(c)
        _reject(e, address, address_bytes, h, K_REJECTION + REJ_BACKLOG, C_SRT_REJECTED_BACKLOG)
        return
    _agree(c, h)
    c.isn = h.isn
    c.receive_latency_ms = e.settings.latency_ms
    c.send_latency_ms = e.settings.latency_ms
    if h.flags & HS_TSBPDSND:
        c.receive_latency_ms = max(c.receive_latency_ms, <uint32_t>h.sender_delay_ms)
    if h.flags & HS_TSBPDRCV:
        c.send_latency_ms = max(c.send_latency_ms, <uint32_t>h.receiver_delay_ms)
    tsbpd_init(&c.clock, now_us, be32(packet + 8), <int64_t>c.receive_latency_ms * 1000)
    c.request.cookie = h.cookie
    c.request.stream_id_bytes = h.stream_id_bytes
    memcpy(c.request.stream_id, h.stream_id, h.stream_id_bytes)
    if h.key_material != NULL:
        c.request.encrypts = True
        c.request.key_material_bytes = h.key_material_bytes
        memcpy(c.request.key_material, h.key_material, min(h.key_material_bytes, sizeof(c.request.key_material)))
    c.state = CONN_REQUESTED
    connection_remember(c)
    connection_post(c, EVENT_REQUEST)
    connection_wake_at(c, now_us + e.settings.handshake_us)
    count(e, C_SRT_REQUESTS)


cdef bint _exchange_allowed(endpoint* e, int64_t now_us) noexcept nogil:
    """Whether another key may be derived now, and if so take it into account."""
    if e.key_exchange_us > now_us + K_KEY_EXCHANGES_AHEAD_US:
        return False
    e.key_exchange_us = max(e.key_exchange_us, now_us) + e.settings.key_exchange_us
    return True


cdef void _leave_room(connection* c) noexcept nogil:
    """For what encryption adds to each payload."""
    c.most_payload_bytes -= crypto_tag_bytes(c.crypto)
    if c.most_payload_bytes < c.payload_bytes:
        c.payload_bytes = c.most_payload_bytes // K_TS_PACKET * K_TS_PACKET


cdef uint32_t _secure(connection* c, const crypto_settings* s, uint32_t* counter, int64_t now_us) noexcept nogil:
    """As listener, settle with what to encrypt: a reject_reason, and its counter; 0: the connection may be.

    Unless encryption is enforced, one side without a secret, or with another, is no reason: the other is told so
    in the KMRSP, and sends what nobody can read.
    """
    cdef km_state state
    counter[0] = C_SRT_REJECTED_ENCRYPTED
    if s.passphrase_bytes == 0:
        c.answers_key_material = c.request.encrypts
        c.one_sided = c.request.encrypts
        c.key_answer = KM_NOSECRET
        return REJ_UNSECURE if c.request.encrypts and s.enforced else 0
    counter[0] = C_SRT_REJECTED_UNENCRYPTED
    if not c.request.encrypts and s.enforced:
        return REJ_UNSECURE
    counter[0] = C_SRT_REJECTED_CRYPTO
    c.crypto = crypto_new(s)
    if c.crypto == NULL:
        return REJ_RESOURCE
    c.answers_key_material = True
    if c.request.encrypts:
        state = crypto_hear(c.crypto, c.request.key_material, c.request.key_material_bytes, True, now_us)
        if state == KM_BADCRYPTOMODE or (state == KM_SECURED and not _gcm_is_sound(c)):
            return REJ_CRYPTO
        if state == KM_BADSECRET:
            counter[0] = C_SRT_REJECTED_SECRET
        if state != KM_SECURED and s.enforced:
            return REJ_BADSECRET if state == KM_BADSECRET else REJ_UNSECURE
    else:
        state = KM_UNSECURED
        c.crypto.send_state = KM_NOSECRET
        c.crypto.receive_state = KM_UNSECURED
    c.key_answer = state
    c.one_sided = state != KM_SECURED
    if c.one_sided and not crypto_alone(c.crypto):
        return REJ_SYSTEM
    _leave_room(c)
    return 0


cdef bint _gcm_is_sound(connection* c) noexcept nogil:
    return c.crypto.mode != AES_GCM or c.peer_version >= K_LEAST_GCM_VERSION


cdef uint32_t listener_secure(connection* c, const crypto_settings* s, int64_t now_us) noexcept nogil:
    """Exchange keys with a connection that waits for a decision, once: 0, or the code with which it was rejected and freed."""
    cdef uint32_t counter, reason
    if c.secured:
        return 0
    reason = _secure(c, s, &counter, now_us)
    if reason:
        _reject_waiting(c, K_REJECTION + reason, counter)
        return K_REJECTION + reason
    c.secured = True
    return 0


cdef void listener_accept(connection* c, int64_t now_us) noexcept nogil:
    """Open a connection that waits for a decision; its answer goes out, and again whenever the caller asks again."""
    connection_open(c, now_us)
    free(c.request)
    c.request = NULL
    c.pending |= SEND_HANDSHAKE
    connection_ready(c)
    connection_wake_at(c, now_us)
    count(c.owner, C_SRT_ACCEPTED)


cdef void listener_reject(connection* c, uint32_t wire_code, int64_t now_us) noexcept nogil:
    """Refuse a connection that waits for a decision; it is gone after this."""
    _reject_waiting(c, wire_code, C_SRT_REJECTED_REQUEST)


cdef void _reject_waiting(connection* c, uint32_t wire_code, uint32_t counter) noexcept nogil:
    cdef handshake h
    memset(&h, 0, sizeof(handshake))
    h.version = K_HS_VERSION
    h.isn = c.isn
    h.mss = K_MSS
    h.flow_window_pkts = c.peer_window_pkts
    h.socket_id = c.peer_id
    h.cookie = c.request.cookie
    _reject(c.owner, c.address, c.address_bytes, &h, wire_code, counter)
    connection_free(c)


cdef connection* caller_start(endpoint* e, const uint8_t* address, uint32_t address_bytes, const uint8_t* stream_id,
                              uint32_t stream_id_bytes, uint32_t latency_ms, int64_t now_us) noexcept nogil:
    """Call a listener; NULL: no slot is free, or no memory."""
    cdef connection* c
    if e.open + e.waiting >= e.settings.max_connections:
        return NULL
    c = connection_new(e, address, address_bytes, now_us)
    if c == NULL:
        return NULL
    c.request = <request*>calloc(1, sizeof(request))
    if c.request == NULL:
        connection_free(c)
        return NULL
    c.request.stream_id_bytes = stream_id_bytes
    memcpy(c.request.stream_id, stream_id, stream_id_bytes)
    c.receive_latency_ms = latency_ms
    c.send_latency_ms = latency_ms
    c.pending = SEND_HANDSHAKE
    c.resend_us = now_us + K_RESEND_US
    connection_ready(c)
    connection_wake_at(c, c.resend_us)
    return c


cdef void caller_handshake(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil:
    """The listener's answer to our induction or conclusion."""
    cdef handshake h
    cdef endpoint* e = c.owner
    if handshake_parse(&h, packet + K_HEADER, length - K_HEADER) < 0 or (
            c.state != CONN_INDUCTION and c.state != CONN_CONCLUSION):
        # An open connection's answer that came twice ends here too.
        count(e, C_SRT_REFUSED_HANDSHAKE)
        return
    if h.kind >= K_REJECTION and h.kind < K_REJECTION * 10:
        count(e, C_SRT_HANDSHAKE_PKTS)
        connection_close(c, CLOSE_REJECTED + h.kind)
    elif c.state == CONN_INDUCTION and h.kind == HS_INDUCTION:
        count(e, C_SRT_HANDSHAKE_PKTS)
        if h.version != K_HS_VERSION or h.extension != K_HS_MAGIC:
            connection_close(c, CLOSE_PROTOCOL)
            return
        if c.crypto != NULL and not _begin_exchange(c, &h):
            connection_close(c, CLOSE_REJECTED + K_REJECTION + REJ_SYSTEM)
            return
        c.request.cookie = h.cookie
        c.state = CONN_CONCLUSION
        c.pending = SEND_HANDSHAKE
        c.resend_us = now_us + K_RESEND_US
        connection_ready(c)
    elif c.state == CONN_CONCLUSION and h.kind == HS_CONCLUSION:
        count(e, C_SRT_HANDSHAKE_PKTS)
        _concluded(c, packet, &h, now_us)
    else:
        count(e, C_SRT_REFUSED_HANDSHAKE)


cdef bint _begin_exchange(connection* c, const handshake* h) noexcept nogil:
    """As caller: make a key, as long as we want it, else as the listener does (section 4.3.1.1)."""
    if c.crypto.key_bytes == 0 and 2 <= h.encryption <= 4:
        c.crypto.key_bytes = 8 * h.encryption
    return crypto_start(c.crypto)


cdef uint32_t _secured(connection* c, const handshake* h) noexcept nogil:
    """As caller, whether what the listener makes of our key will do: a reject_reason; 0: it will."""
    cdef bint answered = h.seen & 1 << EXT_KMRSP
    c.one_sided = True
    if c.crypto == NULL:
        c.one_sided = answered
        return REJ_UNSECURE if answered and c.owner.settings.encryption.enforced else 0
    if answered and crypto_confirm(c.crypto, h.key_material, h.key_material_bytes):
        _leave_room(c)
        c.one_sided = False
        return 0 if _gcm_is_sound(c) else REJ_CRYPTO
    if not answered:
        c.crypto.send_state = KM_NOSECRET
        c.crypto.receive_state = KM_UNSECURED
    if c.crypto.send_state == KM_BADCRYPTOMODE:
        return REJ_CRYPTO
    if c.crypto.settings.enforced:
        return REJ_BADSECRET if c.crypto.send_state == KM_BADSECRET else REJ_UNSECURE
    if not crypto_alone(c.crypto):
        return REJ_SYSTEM
    _leave_room(c)
    return 0


cdef void _concluded(connection* c, const uint8_t* packet, const handshake* h, int64_t now_us) noexcept nogil:
    cdef uint32_t reason
    if not h.seen & 1 << EXT_HSRSP or h.isn != c.isn or h.socket_id == 0 or h.mss < K_LEAST_MSS or (
            h.flow_window_pkts < K_LEAST_WINDOW_PKTS or h.flags & HS_STREAM):
        connection_close(c, CLOSE_PROTOCOL)
        return
    _agree(c, h)
    reason = _secured(c, h)
    if reason:
        connection_close(c, CLOSE_REJECTED + K_REJECTION + reason)
        # The listener takes it for open.
        c.pending = SEND_SHUTDOWN
        connection_ready(c)
        return
    # The listener has settled both; what it calls its sender's delay is our receiver's.
    if h.flags & HS_TSBPDSND:
        c.receive_latency_ms = h.sender_delay_ms
    if h.flags & HS_TSBPDRCV:
        c.send_latency_ms = h.receiver_delay_ms
    tsbpd_init(&c.clock, now_us, be32(packet + 8), <int64_t>c.receive_latency_ms * 1000)
    free(c.request)
    c.request = NULL
    c.pending = 0
    connection_open(c, now_us)
    connection_post(c, EVENT_CONNECTED)
    connection_wake_at(c, now_us)
    count(c.owner, C_SRT_CONNECTED)


cdef uint32_t negotiation_write(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """The handshake packet that a connection's state calls for, into `out`: its bytes."""
    cdef handshake h
    cdef uint32_t destination = 0
    cdef uint32_t extension = 0
    cdef uint8_t state[4]
    memset(&h, 0, sizeof(handshake))
    h.version = K_HS_VERSION
    h.isn = c.isn
    h.mss = K_MSS
    h.flow_window_pkts = min(c.owner.settings.flow_window_pkts, c.owner.settings.receive_buffer_pkts)
    h.kind = HS_CONCLUSION
    h.socket_id = c.id
    h.srt_version = K_SRT_VERSION
    h.flags = HS_OUR_FLAGS
    h.receiver_delay_ms = <uint16_t>c.receive_latency_ms
    h.sender_delay_ms = <uint16_t>c.send_latency_ms
    if c.state == CONN_INDUCTION:
        h.version = 4
        h.extension = K_UDT_DGRAM
        h.kind = HS_INDUCTION
    elif c.state == CONN_CONCLUSION:
        extension = EXT_HSREQ
        h.extension = EXT_FLAG_HSREQ
        h.cookie = c.request.cookie
        h.stream_id_bytes = c.request.stream_id_bytes
        memcpy(h.stream_id, c.request.stream_id, h.stream_id_bytes)
        if h.stream_id_bytes:
            h.extension |= EXT_FLAG_CONFIG
        if c.crypto != NULL:
            h.encryption = <uint16_t>(c.crypto.key_bytes // 8)
            h.extension |= EXT_FLAG_KMREQ
            h.key_material = c.crypto.message
            h.key_material_bytes = c.crypto.message_bytes
    else:
        extension = EXT_HSRSP
        h.extension = EXT_FLAG_HSREQ
        destination = c.peer_id
        if c.answers_key_material:
            h.extension |= EXT_FLAG_KMREQ
            h.key_material_bytes = key_answer(c, &h.key_material, state)
            if c.key_answer == KM_SECURED:
                h.encryption = <uint16_t>(c.crypto.key_bytes // 8)
    put_control(out, CTRL_HANDSHAKE, 0, timestamp_now(c, now_us), destination)
    return K_HEADER + handshake_write(&h, extension, out + K_HEADER)


cdef uint32_t key_answer(connection* c, const uint8_t** message, uint8_t* word) noexcept nogil:
    """What a KMRSP of ours has in it, and its bytes: the peer's own message, or a state that tells why not, written to `word`."""
    if c.key_answer == KM_SECURED:
        message[0] = c.crypto.heard
        return c.crypto.heard_bytes
    put_be32(word, c.key_answer)
    message[0] = word
    return 4


cdef void negotiation_timeout(connection* c, int64_t now_us) noexcept nogil:
    """Say it again, or give it up."""
    cdef int64_t end_us = c.opened_us + c.owner.settings.handshake_us
    if now_us >= end_us:
        connection_close(c, CLOSE_HANDSHAKE_TIMEOUT)
        return
    if c.state != CONN_REQUESTED:
        if now_us >= c.resend_us:
            c.pending |= SEND_HANDSHAKE
            c.resend_us = now_us + K_RESEND_US
            connection_ready(c)
        end_us = min(end_us, c.resend_us)
    timers_set(&c.owner.timers, &c.timer, end_us)
