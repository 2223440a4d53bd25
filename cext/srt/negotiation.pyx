"""Handshakes of both sides (draft-sharabayko-srt-01, sections 3.2.1 and 4.3.1).

An induction leaves nothing behind: its answer carries a cookie that is made from the caller's address under our
secret. Only a conclusion that brings this cookie back, and so comes from where it says, costs memory; how many of them
may wait for a decision is bounded. No answer to a stranger is longer than what he sent.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.counters cimport (
    C_SRT_ACCEPTED, C_SRT_ANSWERS_DROPPED, C_SRT_CONNECTED, C_SRT_HANDSHAKE_PKTS, C_SRT_REFUSED_COOKIE,
    C_SRT_REFUSED_HANDSHAKE, C_SRT_REJECTED_BACKLOG, C_SRT_REJECTED_ENCRYPTED,
    C_SRT_REJECTED_FILTER, C_SRT_REJECTED_GROUP, C_SRT_REJECTED_MODE, C_SRT_REJECTED_REQUEST, C_SRT_REJECTED_ROGUE,
    C_SRT_REJECTED_VERSION, C_SRT_REQUESTS,
)
from flux.cext.srt.connection cimport (
    address_key, connection_by_peer, connection_close, connection_free, connection_new, connection_open,
    connection_post, connection_ready, connection_remember, connection_wake_at,
)
from flux.cext.srt.cookie cimport cookie_check, cookie_make
from flux.cext.srt.handshake cimport (
    EXT_CONGESTION, EXT_FILTER, EXT_FLAG_CONFIG, EXT_FLAG_HSREQ, EXT_GROUP, EXT_HSREQ, EXT_HSRSP, EXT_KMREQ,
    HS_CONCLUSION, HS_INDUCTION, HS_OUR_FLAGS, HS_STREAM, HS_TSBPDRCV, HS_TSBPDSND, K_HS_MAGIC,
    K_HS_VERSION, K_LEAST_SRT_VERSION, K_SRT_VERSION, REJ_BACKLOG, REJ_CONGESTION, REJ_FILTER, REJ_GROUP,
    REJ_MESSAGEAPI, REJ_ROGUE, REJ_UNSECURE, REJ_VERSION, handshake, handshake_parse, handshake_write,
)
from flux.cext.srt.packet cimport CTRL_HANDSHAKE, K_HEADER, K_SEQUENCE_MASK, be32, put_control
from flux.cext.srt.state cimport (
    CLOSE_HANDSHAKE_TIMEOUT, CLOSE_PROTOCOL, CLOSE_REJECTED, CONN_CONCLUSION, CONN_INDUCTION, CONN_OPEN,
    CONN_REQUESTED, EVENT_CONNECTED, EVENT_REQUEST, K_ADDRESS_KEY, K_ANSWERS, SEND_HANDSHAKE, answer,
    connection, count, endpoint, request, timestamp_now,
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
    counter[0] = C_SRT_REJECTED_ENCRYPTED
    if h.seen & 1 << EXT_KMREQ:
        return REJ_UNSECURE
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
        h.encryption = 0
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
    c.state = CONN_REQUESTED
    connection_remember(c)
    connection_post(c, EVENT_REQUEST)
    connection_wake_at(c, now_us + e.settings.handshake_us)
    count(e, C_SRT_REQUESTS)


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
    cdef handshake h
    memset(&h, 0, sizeof(handshake))
    h.version = K_HS_VERSION
    h.isn = c.isn
    h.mss = K_MSS
    h.flow_window_pkts = c.peer_window_pkts
    h.socket_id = c.peer_id
    h.cookie = c.request.cookie
    _reject(c.owner, c.address, c.address_bytes, &h, wire_code, C_SRT_REJECTED_REQUEST)
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


cdef void _concluded(connection* c, const uint8_t* packet, const handshake* h, int64_t now_us) noexcept nogil:
    if not h.seen & 1 << EXT_HSRSP or h.isn != c.isn or h.socket_id == 0 or h.mss < K_LEAST_MSS or (
            h.flow_window_pkts < K_LEAST_WINDOW_PKTS or h.flags & HS_STREAM):
        connection_close(c, CLOSE_PROTOCOL)
        return
    _agree(c, h)
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
    else:
        extension = EXT_HSRSP
        h.extension = EXT_FLAG_HSREQ
        destination = c.peer_id
    put_control(out, CTRL_HANDSHAKE, 0, timestamp_now(c, now_us), destination)
    return K_HEADER + handshake_write(&h, extension, out + K_HEADER)


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
