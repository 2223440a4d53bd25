"""What a connection does with a packet, with a chance to send, and when its timer is due."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from flux.cext.counters cimport (
    C_SRT_CONTROL_PKTS, C_SRT_KEYS_ANNOUNCED, C_SRT_REFUSED_ACK, C_SRT_REFUSED_ACKACK, C_SRT_REFUSED_CONTROL_TYPE, C_SRT_REFUSED_DROPREQ,
    C_SRT_REFUSED_KEY_MATERIAL, C_SRT_REFUSED_NAK, C_SRT_REFUSED_NOT_OPEN,
)
from flux.cext.srt.connection cimport (
    connection_close, connection_ready, connection_release, connection_unready, connection_wake_at,
)
from flux.cext.srt.crypto cimport crypto_ask, crypto_ask_due_us, crypto_confirm, crypto_hear
from flux.cext.srt.handshake cimport EXT_KMREQ, EXT_KMRSP
from flux.cext.srt.key_material cimport KM_SECURED, km_state
from flux.cext.srt.negotiation cimport caller_handshake, key_answer, negotiation_timeout, negotiation_write
from flux.cext.srt.packet cimport (
    CTRL_ACK, CTRL_ACKACK, CTRL_CONGESTION, CTRL_DROPREQ, CTRL_HANDSHAKE, CTRL_KEEPALIVE, CTRL_NAK, CTRL_PEERERROR,
    CTRL_SHUTDOWN, CTRL_USER, K_CONTROL, K_HEADER, be32, put_control, put_header,
)
from flux.cext.srt.receiver cimport (
    receiver_ackack, receiver_data, receiver_deadline, receiver_deliver_all, receiver_dropreq, receiver_timeout,
    receiver_write_ack, receiver_write_light_ack, receiver_write_nak,
)
from flux.cext.srt.rtt cimport rtt_timeout_us
from flux.cext.srt.sender cimport (
    sender_ack, sender_deadline, sender_fill, sender_nak, sender_timeout, sender_write_dropreq,
)
from flux.cext.srt.state cimport (
    CLOSE_IDLE, CLOSE_PEER, CONN_CLOSING, CONN_OPEN, SEND_ACK, SEND_ACKACK, SEND_DROPREQ, SEND_HANDSHAKE,
    SEND_KEEPALIVE, SEND_KMREQ, SEND_KMRSP, SEND_LIGHT_ACK, SEND_NAK, SEND_SHUTDOWN, connection, count, timestamp_now,
)
from flux.cext.srt.timers cimport timers_set
from flux.cext.srt.transmit cimport srt_transmit, transmit_add, transmit_open

cdef enum:
    K_KEEPALIVE_US = 1000000
    K_MOST_CONTROL_RIDES = 64     # bytes: an ACK, an ACKACK, a drop request; not a NAK, a handshake or key material
    K_LEAST_KMREQ_INTERVAL_US = 20000


cdef void protocol_receive(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil:
    """A packet from the peer's address for this connection; `length` is K_HEADER at least."""
    cdef uint32_t first = be32(packet)
    if c.state != CONN_OPEN:
        if first & K_CONTROL and first >> 16 & 0x7FFF == CTRL_HANDSHAKE and c.state != CONN_CLOSING:
            caller_handshake(c, packet, length, now_us)
        else:
            count(c.owner, C_SRT_REFUSED_NOT_OPEN)
        return
    c.heard_us = now_us
    if first & K_CONTROL:
        _control(c, first >> 16 & 0x7FFF, packet, length, now_us)
    else:
        receiver_data(c, packet, length, now_us)


cdef void _control(connection* c, uint32_t kind, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil:
    """A control packet of an open connection (section 3.2); one that means nothing here is counted and left."""
    cdef const uint8_t* body = packet + K_HEADER
    cdef uint32_t size = length - K_HEADER
    cdef uint32_t refusal = 0
    if kind == CTRL_ACK:
        if not sender_ack(c, be32(packet + 4), body, size, now_us):
            refusal = C_SRT_REFUSED_ACK
    elif kind == CTRL_ACKACK:
        if not receiver_ackack(c, be32(packet + 4), be32(packet + 8), now_us):
            refusal = C_SRT_REFUSED_ACKACK
    elif kind == CTRL_NAK:
        if not sender_nak(c, body, size, now_us):
            refusal = C_SRT_REFUSED_NAK
    elif kind == CTRL_DROPREQ:
        if not receiver_dropreq(c, body, size, now_us):
            refusal = C_SRT_REFUSED_DROPREQ
    elif kind == CTRL_SHUTDOWN:
        # The peer sends no more, so nothing is gained by waiting for each packet's time.
        receiver_deliver_all(c, now_us)
        connection_close(c, CLOSE_PEER)
    elif kind == CTRL_HANDSHAKE:
        caller_handshake(c, packet, length, now_us)
        return
    elif kind == CTRL_USER and EXT_KMREQ <= be32(packet) & 0xFFFF <= EXT_KMRSP:
        if not _key_material(c, be32(packet) & 0xFFFF, body, size, now_us):
            refusal = C_SRT_REFUSED_KEY_MATERIAL
    elif kind != CTRL_KEEPALIVE and kind != CTRL_CONGESTION and kind != CTRL_PEERERROR:
        refusal = C_SRT_REFUSED_CONTROL_TYPE
    count(c.owner, refusal if refusal else C_SRT_CONTROL_PKTS)


cdef bint _key_material(connection* c, uint32_t subtype, const uint8_t* body, uint32_t size,
                        int64_t now_us) noexcept nogil:
    """A peer's next key, or its answer to ours (sections 3.2.2 and 6.1.6). False: it can't be used."""
    cdef km_state state
    if c.crypto == NULL:
        return False
    if subtype == EXT_KMRSP:
        return crypto_confirm(c.crypto, body, size)
    state = crypto_hear(c.crypto, body, size, False, now_us)
    if state == KM_SECURED or not c.crypto.settings.enforced:
        c.key_answer = state
        c.pending |= SEND_KMRSP
        connection_ready(c)
    return state == KM_SECURED


cdef uint32_t _write_kmreq(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    if not c.crypto.announced or c.crypto.confirmed:
        return 0
    put_header(out, K_CONTROL | CTRL_USER << 16 | EXT_KMREQ, 0, timestamp_now(c, now_us), c.peer_id)
    memcpy(out + K_HEADER, c.crypto.message, c.crypto.message_bytes)
    crypto_ask(c.crypto, now_us, max(rtt_timeout_us(&c.rtt), <int64_t>K_LEAST_KMREQ_INTERVAL_US))
    connection_wake_at(c, crypto_ask_due_us(c.crypto))
    count(c.owner, C_SRT_KEYS_ANNOUNCED)
    return K_HEADER + c.crypto.message_bytes


cdef uint32_t _write_kmrsp(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    cdef uint8_t state[4]
    cdef const uint8_t* message
    cdef uint32_t length = key_answer(c, &message, state)
    put_header(out, K_CONTROL | CTRL_USER << 16 | EXT_KMRSP, 0, timestamp_now(c, now_us), c.peer_id)
    memcpy(out + K_HEADER, message, length)
    return K_HEADER + length


cdef uint32_t _next_control(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """Write the control packet that comes first in importance and clear its bit: its bytes; 0: nothing after all."""
    if c.pending & SEND_HANDSHAKE:
        c.pending &= ~<uint32_t>SEND_HANDSHAKE
        return negotiation_write(c, out, now_us)
    if c.pending & SEND_ACKACK:
        c.pending &= ~<uint32_t>SEND_ACKACK
        c.ackack_us = now_us
        put_control(out, CTRL_ACKACK, c.ackack_number, timestamp_now(c, now_us), c.peer_id)
        return K_HEADER
    if c.pending & SEND_KMRSP:
        c.pending &= ~<uint32_t>SEND_KMRSP
        return _write_kmrsp(c, out, now_us)
    if c.pending & SEND_KMREQ:
        c.pending &= ~<uint32_t>SEND_KMREQ
        return _write_kmreq(c, out, now_us)
    if c.pending & SEND_DROPREQ:
        c.pending &= ~<uint32_t>SEND_DROPREQ
        return sender_write_dropreq(c, out, now_us)
    if c.pending & SEND_NAK:
        c.pending &= ~<uint32_t>SEND_NAK
        return receiver_write_nak(c, out, now_us)
    if c.pending & SEND_ACK:
        c.pending &= ~<uint32_t>(SEND_ACK | SEND_LIGHT_ACK)
        return receiver_write_ack(c, out, now_us)
    if c.pending & SEND_LIGHT_ACK:
        c.pending &= ~<uint32_t>SEND_LIGHT_ACK
        return receiver_write_light_ack(c, out, now_us)
    if c.pending & SEND_SHUTDOWN:
        c.pending = 0
        put_control(out, CTRL_SHUTDOWN, 0, timestamp_now(c, now_us), c.peer_id)
        return K_HEADER
    c.pending &= ~<uint32_t>SEND_KEEPALIVE
    put_control(out, CTRL_KEEPALIVE, 0, timestamp_now(c, now_us), c.peer_id)
    return K_HEADER


cdef bint protocol_transmit(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil:
    """The next datagrams: data, and a short control packet along with them; or one control packet."""
    cdef uint32_t size
    out.segment_bytes = 0
    out.datagrams = 0
    out.total_bytes = 0
    out.iov_count = 0
    if c.state == CONN_OPEN and not c.pending & SEND_HANDSHAKE:
        sender_fill(c, out, now_us)
    if out.datagrams and c.pending & SEND_KEEPALIVE:
        c.pending &= ~<uint32_t>SEND_KEEPALIVE
    while c.pending and (out.datagrams == 0 or (not c.pending & (SEND_NAK | SEND_KMREQ | SEND_KMRSP)
                                                and transmit_open(out, K_MOST_CONTROL_RIDES))):
        size = _next_control(c, out.control, now_us)
        if size:
            transmit_add(out, out.control, size, NULL, 0)
            break
    if out.datagrams == 0:
        connection_unready(c)
        connection_release(c)
        return False
    memcpy(out.address, c.address, c.address_bytes)
    out.address_bytes = c.address_bytes
    c.sent_us = now_us
    connection_release(c)
    return True


cdef void protocol_timeout(connection* c, int64_t now_us) noexcept nogil:
    """Do what is due, and set the timer anew; a timer that was due too early only does the latter."""
    cdef int64_t at
    if c.state != CONN_OPEN:
        negotiation_timeout(c, now_us)
        return
    at = c.heard_us + c.owner.settings.peer_idle_us
    if now_us >= at:
        receiver_deliver_all(c, now_us)
        connection_close(c, CLOSE_IDLE)
        return
    receiver_timeout(c, now_us)
    sender_timeout(c, now_us)
    if crypto_ask_due_us(c.crypto) <= now_us:
        c.pending |= SEND_KMREQ
        connection_ready(c)
    elif c.crypto != NULL:
        at = min(at, crypto_ask_due_us(c.crypto))
    if now_us - c.sent_us >= K_KEEPALIVE_US:
        c.pending |= SEND_KEEPALIVE
        connection_ready(c)
        at = min(at, now_us + K_KEEPALIVE_US)
    else:
        at = min(at, c.sent_us + K_KEEPALIVE_US)
    at = min(at, min(receiver_deadline(c), sender_deadline(c)))
    timers_set(&c.owner.timers, &c.timer, max(at, now_us + 1))
