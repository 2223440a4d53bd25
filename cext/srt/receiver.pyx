"""The receiving half of a connection (draft-sharabayko-srt-01, sections 3.2.4, 3.2.5, 4.5 to 4.8)."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc

from flux.cext.counters cimport (
    C_SRT_ACKS_SENT, C_SRT_DATA_PKTS, C_SRT_DELIVERED_BYTES, C_SRT_DELIVERED_PKTS, C_SRT_DRIFT_MOVES,
    C_SRT_LIGHT_ACKS_SENT, C_SRT_LOST_PKTS, C_SRT_NAKS_SENT, C_SRT_RECOVERED_PKTS,
    C_SRT_REFUSED_BEYOND, C_SRT_REFUSED_DAMAGED, C_SRT_REFUSED_DATA, C_SRT_REFUSED_DUPLICATE,
    C_SRT_REFUSED_ENCRYPTED, C_SRT_REFUSED_LATE, C_SRT_REFUSED_NO_MEMORY, C_SRT_REFUSED_UNENCRYPTED,
    C_SRT_REFUSED_UNWANTED,
    C_SRT_SKIPPED_PKTS, C_SRT_TIMESTAMPS_AHEAD, C_SRT_WITHOUT_SINK,
)
from flux.cext.srt.congestion cimport rate_add
from flux.cext.srt.connection cimport connection_ready, connection_to_flush, connection_wake_at
from flux.cext.srt.crypto cimport OPEN_NO_KEY, crypto_open
from flux.cext.srt.key_material cimport KM_SECURED
from flux.cext.srt.loss_list cimport loss_append, loss_empty, loss_first, loss_remove, loss_remove_before
from flux.cext.srt.packet cimport (
    CTRL_ACK, CTRL_NAK, K_CONTROL, K_DATA_ENCRYPTED, K_DATA_RETRANSMITTED, K_DATA_SOLO, K_HEADER, K_PACKET_BYTES,
    K_PAYLOAD_BYTES, K_SEQUENCE_MASK, be32, index_near, put_be32, put_control, sequence_of,
)
from flux.cext.srt.recv_buffer cimport (
    RECV_BEYOND, RECV_DUPLICATE, RECV_LATE, RECV_NO_MEMORY, RECV_STORED, recv_head, recv_pop, recv_put, recv_result,
    recv_skip_to, recv_slot,
)
from flux.cext.srt.rtt cimport K_ACK_WINDOW, rtt_sample, rtt_timeout_us, sent_ack
from flux.cext.srt.state cimport (
    SEND_ACK, SEND_LIGHT_ACK, SEND_NAK, connection, count, count_many, endpoint, hurry, timestamp_now,
)
from flux.cext.srt.tsbpd cimport tsbpd_arrived, tsbpd_drift, tsbpd_due_us, tsbpd_unwrap

cdef enum:
    K_ACK_PKTS = 8                # in an interval of ACKs: a flow with fewer is slow
    K_LIGHT_ACK_PKTS = 64         # at least
    K_LIGHT_ACK_SHIFT = 4         # ... and a 16th of what may be under way: a sender far from its window needs none
    K_LEAST_NAK_INTERVAL_US = 20000
    K_MOST_AHEAD_US = 10000000    # a timestamp further in the future than this, beyond the latency, is not believed
    K_ACK_BYTES = 28              # the control information field of a full ACK


cdef inline int64_t _ack_point(connection* c) noexcept nogil:
    """The first packet that is still missing, or the one after the newest."""
    return c.rx.end if loss_empty(&c.lost) else loss_first(&c.lost)


cdef int64_t _nak_interval_us(connection* c) noexcept nogil:
    cdef int64_t interval = rtt_timeout_us(&c.rtt) // 2
    return interval if interval > K_LEAST_NAK_INTERVAL_US else K_LEAST_NAK_INTERVAL_US


cdef inline int64_t _delivery_us(connection* c, int64_t timestamp_us) noexcept nogil:
    """When a packet is delivered: on a grid, so that the packets of a frame are one wake-up."""
    cdef int64_t grid = c.owner.settings.delivery_interval_us
    return (tsbpd_due_us(&c.clock, timestamp_us) + grid - 1) // grid * grid


cdef inline int64_t _ack_due_us(connection* c) noexcept nogil:
    """When the next full ACK may go: on a grid, so that the ACKs of all connections are one wake-up.

    A slow flow, of which a few packets come in an interval, is acknowledged in each second one.
    """
    cdef int64_t interval = c.owner.settings.ack_interval_us
    if c.pkts_since_ack < K_ACK_PKTS:
        interval *= 2
    return (c.ack_us // interval + 1) * interval


cdef void receiver_data(connection* c, const uint8_t* packet, uint32_t length, int64_t now_us) noexcept nogil:
    """Take in a data packet, header and all."""
    cdef endpoint* e = c.owner
    cdef uint32_t flags = be32(packet + 4)
    cdef uint32_t size = length - K_HEADER
    cdef int64_t index, timestamp_us, ahead_us
    cdef const uint8_t* payload = packet + K_HEADER
    cdef uint8_t plain[K_PAYLOAD_BYTES]
    cdef recv_result result
    if size == 0 or flags & K_DATA_SOLO != K_DATA_SOLO:
        count(e, C_SRT_REFUSED_DATA)
        return
    if c.source != NULL:
        count(e, C_SRT_REFUSED_UNWANTED)
        return
    if c.crypto != NULL or flags & K_DATA_ENCRYPTED:
        if not _open(c, packet, &size, plain):
            return
        if flags & K_DATA_ENCRYPTED:
            payload = plain
    index = index_near(c.isn, be32(packet), c.rx.end)
    timestamp_us = tsbpd_unwrap(&c.clock, be32(packet + 8))
    ahead_us = tsbpd_due_us(&c.clock, timestamp_us) - now_us - c.clock.delay_us
    if ahead_us > K_MOST_AHEAD_US:
        count(e, C_SRT_TIMESTAMPS_AHEAD)
        timestamp_us -= ahead_us
    c.ack_wanted = True
    c.pkts_since_ack += 1
    result = _store(c, index, payload, size, timestamp_us, now_us)
    if result == RECV_STORED and size == 0:
        count(e, C_SRT_REFUSED_ENCRYPTED)
        c.stats.undecrypted_pkts += 1
    elif result == RECV_STORED:
        count(e, C_SRT_DATA_PKTS)
        c.stats.received_pkts += 1
        c.stats.received_bytes += size
        if flags & K_DATA_RETRANSMITTED:
            c.stats.received_again_pkts += 1
        else:
            tsbpd_arrived(&c.clock, timestamp_us, now_us)
        if timestamp_us > c.clock.newest_us:
            c.clock.newest_us = timestamp_us
        rate_add(&c.rx_rate, size, 1, now_us)
        if c.rx.head == index:
            connection_wake_at(c, _delivery_us(c, timestamp_us))
    elif result == RECV_DUPLICATE:
        count(e, C_SRT_REFUSED_DUPLICATE)
        c.stats.duplicate_pkts += 1
    elif result == RECV_LATE:
        count(e, C_SRT_REFUSED_LATE)
    elif result == RECV_BEYOND:
        count(e, C_SRT_REFUSED_BEYOND)
    else:
        count(e, C_SRT_REFUSED_NO_MEMORY)
    _schedule_ack(c, now_us)


cdef bint _open(connection* c, const uint8_t* packet, uint32_t* size, uint8_t* plain) noexcept nogil:
    """Decrypt a payload into `plain`, and set its size: 0 where there is no common secret. False: the packet is refused.

    A packet that can't be read between two that have agreed on keys comes too early, or was tampered with: it counts
    as lost, and a good one may still come. In a one-sided connection none will, so its place is taken, as in libsrt.
    """
    cdef bint secured = c.crypto != NULL and c.crypto.receive_state == KM_SECURED
    cdef int opened
    if not be32(packet + 4) & K_DATA_ENCRYPTED:
        if secured:
            count(c.owner, C_SRT_REFUSED_UNENCRYPTED)
        return not secured
    opened = crypto_open(c.crypto, packet, packet + K_HEADER, size[0], plain)
    if opened <= 0 and (secured or not c.one_sided):
        count(c.owner, C_SRT_REFUSED_DAMAGED if opened != OPEN_NO_KEY else C_SRT_REFUSED_ENCRYPTED)
        c.stats.undecrypted_pkts += 1
        return False
    size[0] = <uint32_t>max(opened, 0)
    return True


cdef recv_result _store(connection* c, int64_t index, const uint8_t* data, uint32_t size, int64_t timestamp_us,
                        int64_t now_us) noexcept nogil:
    """Into the buffer; what it shows to be missing goes on the loss list, what it fills comes off."""
    cdef recv_result result
    if index - c.rx.first >= c.rx.max_pkts and c.rx.held == 0:
        # Nothing is held that a jump could cost, and all before it is out of reach: go on from here.
        _give_up_to(c, index)
    if index > c.rx.end and index - c.rx.first < c.rx.max_pkts and not _miss_up_to(c, index, now_us):
        return RECV_NO_MEMORY
    result = recv_put(&c.rx, index, data, size, timestamp_us)
    if result == RECV_STORED and index + 1 < c.rx.end and loss_remove(&c.lost, index, index) > 0:
        count(c.owner, C_SRT_RECOVERED_PKTS)
    return result


cdef bint _miss_up_to(connection* c, int64_t index, int64_t now_us) noexcept nogil:
    """All from the end of what we know of up to before `index` is missing: ask for it at once."""
    cdef int64_t missing = index - c.rx.end
    if loss_append(&c.lost, c.rx.end, index - 1, now_us) < 0:
        return False
    c.rx.end = index
    count_many(c.owner, C_SRT_LOST_PKTS, missing)
    c.stats.received_lost_pkts += missing
    c.nak_us = now_us
    c.pending |= SEND_NAK
    hurry(c, now_us)
    connection_ready(c)
    return True


cdef void _give_up_to(connection* c, int64_t index) noexcept nogil:
    """Skip what is missing before `index`: its time has come."""
    cdef int64_t skipped = index - c.rx.first
    loss_remove_before(&c.lost, index)
    recv_skip_to(&c.rx, index)
    count_many(c.owner, C_SRT_SKIPPED_PKTS, skipped)
    c.stats.skipped_pkts += skipped
    c.ack_wanted = True


cdef void _schedule_ack(connection* c, int64_t now_us) noexcept nogil:
    """A full ACK in each interval of the clock, and a light one when many packets come within one."""
    cdef int64_t due_us = _ack_due_us(c)
    if due_us <= now_us:
        c.pending |= SEND_ACK
        connection_ready(c)
        return
    if c.pkts_since_ack >= max(<uint32_t>K_LIGHT_ACK_PKTS, c.rx.max_pkts >> K_LIGHT_ACK_SHIFT):
        c.pending |= SEND_LIGHT_ACK
        connection_ready(c)
    connection_wake_at(c, due_us)


cdef bint receiver_ackack(connection* c, uint32_t number, uint32_t timestamp, int64_t now_us) noexcept nogil:
    """An ACK was answered: a sample of the round trip and of the clocks' drift. False: no ACK that we remember."""
    cdef sent_ack* ack
    cdef int64_t rtt_us
    cdef uint32_t moves = c.clock.moves
    if c.acks == NULL or number == 0:
        return False
    ack = &c.acks[number % K_ACK_WINDOW]
    if ack.number != number:
        return False
    ack.number = 0
    if ack.index > c.confirmed:
        c.confirmed = ack.index
    rtt_us = now_us - ack.sent_us
    rtt_sample(&c.rtt, rtt_us)
    tsbpd_drift(&c.clock, timestamp, now_us, rtt_us)
    count_many(c.owner, C_SRT_DRIFT_MOVES, c.clock.moves - moves)
    return True


cdef bint receiver_dropreq(connection* c, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil:
    """The sender no longer has some packets (section 3.2.9): stop asking for them. False: malformed, or far off."""
    cdef int64_t first, last
    if length < 8 or (be32(body) | be32(body + 4)) & ~<uint32_t>K_SEQUENCE_MASK:
        return False
    first = index_near(c.isn, be32(body), c.rx.end)
    last = index_near(c.isn, be32(body + 4), c.rx.end)
    if last < first or last - c.rx.first >= c.rx.max_pkts:
        return False
    if last < c.rx.first:
        return True
    if last >= c.rx.end:
        # Packets that we never saw are dropped: the end of a burst. What lies between was lost as well.
        if first > c.rx.end and not _miss_up_to(c, first, now_us):
            return True
        c.rx.end = last + 1
    loss_remove(&c.lost, first, last)
    c.ack_wanted = True
    connection_wake_at(c, _ack_due_us(c))
    return True


cdef void receiver_deliver(connection* c, int64_t now_us) noexcept nogil:
    """Deliver what is due; a gap before it has had its time."""
    cdef recv_slot* slot = recv_head(&c.rx)
    while slot != NULL and tsbpd_due_us(&c.clock, slot.timestamp_us) <= now_us:
        _deliver_head(c, slot, now_us)
        slot = recv_head(&c.rx)


cdef void receiver_deliver_all(connection* c, int64_t now_us) noexcept nogil:
    """Deliver all there is, due or not: no more will come."""
    cdef recv_slot* slot = recv_head(&c.rx)
    while slot != NULL:
        _deliver_head(c, slot, now_us)
        slot = recv_head(&c.rx)


cdef void _deliver_head(connection* c, recv_slot* slot, int64_t now_us) noexcept nogil:
    cdef endpoint* e = c.owner
    if c.rx.head > c.rx.first:
        _give_up_to(c, c.rx.head)
    if slot.length == 0:
        pass
    elif c.has_sink:
        c.sink.deliver(c.sink.ctx, slot.data, slot.length, now_us)
        connection_to_flush(c)
        count(e, C_SRT_DELIVERED_PKTS)
        count_many(e, C_SRT_DELIVERED_BYTES, slot.length)
        c.stats.delivered_bytes += slot.length
    else:
        count(e, C_SRT_WITHOUT_SINK)
    recv_pop(&c.rx)


cdef void receiver_timeout(connection* c, int64_t now_us) noexcept nogil:
    """Whatever is due: delivery, then an ACK, then a report of losses."""
    receiver_deliver(c, now_us)
    if c.ack_wanted and _ack_due_us(c) <= now_us:
        c.pending |= SEND_ACK
    elif c.confirmed < c.acked and now_us - c.ack_us >= rtt_timeout_us(&c.rtt):
        # The sender has not said that it knows: tell it again.
        c.pending |= SEND_ACK
    if not loss_empty(&c.lost) and c.nak_us <= now_us:
        c.pending |= SEND_NAK
    if c.pending:
        connection_ready(c)


cdef int64_t receiver_deadline(connection* c) noexcept nogil:
    """When receiver_timeout has work again; INT64_MAX: never, as things are.

    An ACK or a NAK that is about to be sent is not waited for: it sets the timer itself.
    """
    cdef int64_t at = INT64_MAX
    cdef recv_slot* slot = recv_head(&c.rx)
    if slot != NULL:
        at = _delivery_us(c, slot.timestamp_us)
    if c.pending & SEND_ACK:
        pass
    elif c.ack_wanted:
        at = min(at, _ack_due_us(c))
    elif c.confirmed < c.acked:
        at = min(at, c.ack_us + max(rtt_timeout_us(&c.rtt), c.owner.settings.ack_interval_us))
    if not loss_empty(&c.lost) and not c.pending & SEND_NAK:
        at = min(at, c.nak_us)
    return at


cdef uint32_t receiver_write_ack(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """A full ACK (section 3.2.4) into `out`."""
    cdef sent_ack* ack
    cdef int64_t point = _ack_point(c)
    cdef int64_t room = c.rx.max_pkts - (c.rx.end - c.rx.first)
    cdef uint8_t* body = out + K_HEADER
    if c.acks == NULL:
        c.acks = <sent_ack*>calloc(K_ACK_WINDOW, sizeof(sent_ack))
        if c.acks == NULL:
            return 0
    c.ack_number = c.ack_number + 1 & K_SEQUENCE_MASK
    if c.ack_number == 0:
        c.ack_number = 1
    ack = &c.acks[c.ack_number % K_ACK_WINDOW]
    ack.number = c.ack_number
    ack.index = point
    ack.sent_us = now_us
    put_control(out, CTRL_ACK, c.ack_number, timestamp_now(c, now_us), c.peer_id)
    put_be32(body, sequence_of(c.isn, point))
    put_be32(body + 4, c.rtt.rtt_us)
    put_be32(body + 8, c.rtt.variance_us)
    put_be32(body + 12, <uint32_t>max(room, <int64_t>2))
    put_be32(body + 16, <uint32_t>c.rx_rate.pkts_per_s)
    # Flux sends no probing pairs and so measures no capacity: what came through is what is known.
    put_be32(body + 20, <uint32_t>c.rx_rate.pkts_per_s)
    put_be32(body + 24, <uint32_t>c.rx_rate.bytes_per_s)
    c.ack_wanted = False
    c.pkts_since_ack = 0
    c.acked = point
    c.ack_us = now_us
    count(c.owner, C_SRT_ACKS_SENT)
    connection_wake_at(c, receiver_deadline(c))
    return K_HEADER + K_ACK_BYTES


cdef uint32_t receiver_write_light_ack(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """A light ACK into `out`: the sender need not answer it."""
    put_control(out, CTRL_ACK, 0, timestamp_now(c, now_us), c.peer_id)
    put_be32(out + K_HEADER, sequence_of(c.isn, _ack_point(c)))
    c.pkts_since_ack = 0
    count(c.owner, C_SRT_LIGHT_ACKS_SENT)
    return K_HEADER + 4


cdef uint32_t receiver_write_nak(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """A NAK (section 3.2.5) with the ranges that are to be reported by now, the oldest first, as many as fit."""
    cdef uint32_t at = K_HEADER
    cdef uint32_t i
    cdef int64_t again_us = now_us + _nak_interval_us(c)
    cdef int64_t earliest_us = INT64_MAX
    for i in range(c.lost.begin, c.lost.end):
        if c.lost.ranges[i].ask_at_us <= now_us and at + 8 <= K_PACKET_BYTES:
            if c.lost.ranges[i].first == c.lost.ranges[i].last:
                put_be32(out + at, sequence_of(c.isn, c.lost.ranges[i].first))
                at += 4
            else:
                put_be32(out + at, K_CONTROL | sequence_of(c.isn, c.lost.ranges[i].first))
                put_be32(out + at + 4, sequence_of(c.isn, c.lost.ranges[i].last))
                at += 8
            c.lost.ranges[i].ask_at_us = again_us
        if c.lost.ranges[i].ask_at_us < earliest_us:
            earliest_us = c.lost.ranges[i].ask_at_us
    c.nak_us = earliest_us
    hurry(c, now_us)
    if earliest_us != INT64_MAX:
        connection_wake_at(c, earliest_us)
    if at == K_HEADER:
        return 0
    put_control(out, CTRL_NAK, 0, timestamp_now(c, now_us), c.peer_id)
    count(c.owner, C_SRT_NAKS_SENT)
    c.stats.naks_sent += 1
    return at
