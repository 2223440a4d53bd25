"""The sending half of a connection (draft-sharabayko-srt-01, sections 3.1, 4.6, 4.8, 5.1)."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from flux.cext.arena cimport K_HEADER_BYTES
from flux.cext.atomics cimport load_acquire_u64
from flux.cext.counters cimport (
    C_SRT_DROPREQS_SENT, C_SRT_KEYS_CHANGED, C_SRT_OVERHEAD_LIMITED, C_SRT_RETRANSMITTED_BYTES, C_SRT_RETRANSMITTED_PKTS,
    C_SRT_RETRANSMITTED_PROBES, C_SRT_SEND_LAPPED, C_SRT_SEND_NOT_SEALED, C_SRT_SEND_REFUSED, C_SRT_SEND_TOO_LATE, C_SRT_SENT_BYTES,
    C_SRT_SENT_PKTS, C_SRT_SOURCE_LAPPED, C_SRT_SOURCE_SKIPPED, C_SRT_SOURCE_WITHOUT_KEY, C_SRT_WINDOW_LIMITED,
)
from flux.cext.ring cimport (
    ring, ring_alive, ring_commit_pos, ring_find, ring_header, ring_key_record, ring_record,
)
from flux.cext.srt.congestion cimport (
    K_BACKLOG_SHARE, K_BURST_PKTS, K_PORTION_PKTS, K_PORTION_US, budget_fill, budget_wait_us, rate_add,
)
from flux.cext.srt.connection cimport (
    chunk_to_limbo, connection_attach_source, connection_close, connection_ready, connection_wake_at,
)
from flux.cext.srt.crypto cimport crypto_flags, crypto_seal, crypto_sent, crypto_tag_bytes
from flux.cext.srt.handshake cimport HS_TLPKTDROP
from flux.cext.srt.loss_list cimport loss_empty, loss_first, loss_insert, loss_remove, loss_remove_before
from flux.cext.srt.packet cimport (
    CTRL_DROPREQ, K_CONTROL, K_DATA_RETRANSMITTED, K_DATA_SOLO, K_HEADER, K_SEQUENCE_MASK, K_SYN_US, be32,
    index_near, message_of, put_be32, put_control, put_header, sequence_of,
)
from flux.cext.srt.rtt cimport rtt_sample, rtt_timeout_us
from flux.cext.srt.send_buffer cimport send_at, send_push, send_slot
from flux.cext.srt.slab cimport slab_give, slab_take
from flux.cext.srt.state cimport (
    CLOSE_SOURCE_ENDED, CONN_OPEN, SEND_ACKACK, SEND_DROPREQ, SEND_KMREQ, connection, count, count_many, endpoint, hurry,
    timestamp_now,
)
from flux.cext.srt.transmit cimport srt_transmit, transmit_add, transmit_open

cdef enum:
    K_TS_PACKET = 188
    K_KEY_WAIT_US = 3000000       # a player waits so long for a keyframe, then starts with what comes
    K_LEAST_DROP_US = 1000000     # a sender keeps packets for a second, however small the latency
    K_MOST_TIMEOUTS = 8           # that still lengthen the time to the next probe
    K_LAP_MARGIN_SHIFT = 5        # a 32nd of the ring: so near to being overwritten, bytes are not sent any more
    K_BATCH_PKTS = 8              # a batch of fewer waits for more
    K_ACKACK_US = 25000           # a player's ACKs are answered no more often: 1,000 samples of drift come in 40 s
    K_FULL_ACK_BYTES = 16         # from here on an ACK tells RTT and free buffer


cdef inline int64_t _age_us(connection* c, uint32_t timestamp, int64_t now_us) noexcept nogil:
    return <int64_t><int>(timestamp_now(c, now_us) - timestamp)


cdef int64_t _too_late_us(connection* c) noexcept nogil:
    """The age at which a packet is not worth sending: 1.25 of the latency, a second at least, and two ticks."""
    cdef int64_t threshold = <int64_t>c.send_latency_ms * 1250
    return max(threshold, <int64_t>K_LEAST_DROP_US) + 2 * K_SYN_US


cdef inline bint _readable(ring* r, uint64_t pos) noexcept nogil:
    """Whether the bytes at `pos` are there and will be for a while."""
    return (load_acquire_u64(&r.ctl.reserve) + (r.size >> K_LAP_MARGIN_SHIFT) <= pos + r.size
            and pos >= load_acquire_u64(&r.ctl.first_pos))


cdef bint _limbo_room(endpoint* e) noexcept nogil:
    """Room for one more chunk, so that giving chunks back never needs memory."""
    cdef uint32_t room = e.limbo_room
    cdef void* grown
    if e.owned + e.limbo_used < room:
        return True
    room = room * 2 if room else 256
    grown = realloc(e.limbo, room * sizeof(uint8_t*))
    if grown == NULL:
        return False
    e.limbo = <uint8_t**>grown
    e.limbo_room = room
    return True


cdef bint sender_push(connection* c, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil:
    """Queue a payload of up to K_CHUNK_BYTES; False when the buffer is full or memory is short."""
    cdef endpoint* e = c.owner
    cdef send_slot* slot
    cdef uint8_t* chunk = slab_take(&e.bytes) if _limbo_room(e) else NULL
    if chunk == NULL:
        count(e, C_SRT_SEND_REFUSED)
        return False
    slot = send_push(&c.tx)
    if slot == NULL:
        slab_give(&e.bytes, chunk)
        count(e, C_SRT_SEND_REFUSED)
        return False
    memcpy(chunk, data, length)
    e.owned += 1
    slot.at = <uint64_t>chunk
    slot.owned = 1
    slot.length = length
    slot.timestamp = timestamp_now(c, now_us)
    connection_ready(c)
    return True


cdef void sender_attach(connection* c, ring* source) noexcept nogil:
    """Play from a ring: from its newest keyframe on, or from the first that comes."""
    c.source = source
    c.source_since_us = c.heard_us
    connection_attach_source(c)


cdef bint _join(connection* c, int64_t now_us) noexcept nogil:
    """Find the place to start at, and queue the header for it. False: not yet."""
    cdef ring_record record
    cdef uint8_t header[K_HEADER_BYTES]
    cdef int length, at, size
    if ring_key_record(c.source, &record) >= 0:
        c.source_pos = record.pos
    elif now_us - c.source_since_us >= K_KEY_WAIT_US:
        count(c.owner, C_SRT_SOURCE_WITHOUT_KEY)
        c.source_pos = ring_commit_pos(c.source)
    else:
        return False
    c.joined = True
    length = ring_header(c.source, c.source_pos, header, K_HEADER_BYTES)
    at = 0
    while at < length:
        size = min(length - at, <int>c.payload_bytes)
        sender_push(c, header + at, size, now_us)
        at += size
    return True


cdef bint _to_newest_key(connection* c, bint forced) noexcept nogil:
    """Move a player on to the newest keyframe; unless `forced`, only forwards. False: it stays where it is."""
    cdef ring_record record
    if ring_key_record(c.source, &record) >= 0 and (forced or record.pos > c.source_pos):
        c.source_pos = record.pos
        return True
    if forced:
        c.source_pos = ring_commit_pos(c.source)
    return forced


cdef void sender_tick(connection* c, int64_t now_us) noexcept nogil:
    """Look at the source: what it gained may go now. An ACKACK that waited for data to go with goes as well.

    What a batch costs is the message and the player's wake-up more than its packets: a small one waits for one tick.
    """
    cdef uint64_t available
    cdef ring_record record
    if c.state != CONN_OPEN:
        return
    if not ring_alive(c.source):
        connection_close(c, CLOSE_SOURCE_ENDED)
        return
    if not c.joined and not _join(c, now_us):
        return
    _drop_late(c, now_us)
    if not _readable(c.source, c.source_pos):
        _to_newest_key(c, True)
        count(c.owner, C_SRT_SOURCE_LAPPED)
        c.stats.lapped += 1
    available = ring_commit_pos(c.source) - c.source_pos
    if c.held and available and ring_find(c.source, c.source_pos, &record) >= 0 and (
            now_us - record.arrival_us > _too_late_us(c)) and _to_newest_key(c, False):
        count(c.owner, C_SRT_SOURCE_SKIPPED)
        available = ring_commit_pos(c.source) - c.source_pos
    c.held = False
    c.waited = 0 < available < K_BATCH_PKTS * c.payload_bytes and c.tx.next == c.tx.end and not c.waited
    if c.waited:
        return
    if c.portion_us == 0:
        c.credit_pkts = K_BURST_PKTS
    # A rest that fills no packet waits for the next batch, and goes if nothing came to fill it with.
    c.partial = K_TS_PACKET <= available < c.payload_bytes
    if available >= c.payload_bytes or c.partial or c.pending & SEND_ACKACK:
        connection_ready(c)


cdef void _next_portion(connection* c, int64_t now_us) noexcept nogil:
    """Let the next part of a backlog go."""
    cdef uint64_t backlog
    c.portion_us = 0
    if not c.joined:
        return
    backlog = (ring_commit_pos(c.source) - c.source_pos) // c.payload_bytes
    c.credit_pkts = <uint32_t>max(<uint64_t>K_PORTION_PKTS, backlog // K_BACKLOG_SHARE)
    connection_ready(c)


cdef void _drop_late(connection* c, int64_t now_us) noexcept nogil:
    """Let go of packets that could not be played any more (section 4.6), if the peer drops them as well."""
    cdef int64_t threshold
    cdef int64_t first = c.tx.first
    cdef send_slot* slot
    if first == c.tx.end or not c.peer_flags & HS_TLPKTDROP:
        return
    threshold = _too_late_us(c)
    while c.tx.first < c.tx.end:
        slot = send_at(&c.tx, c.tx.first)
        if _age_us(c, slot.timestamp, now_us) <= threshold:
            break
        _release(c, slot)
        c.tx.first += 1
    if c.tx.first == first:
        return
    if c.tx.next < c.tx.first:
        c.tx.next = c.tx.first
    loss_remove_before(&c.owed, c.tx.first)
    count_many(c.owner, C_SRT_SEND_TOO_LATE, c.tx.first - first)
    c.stats.too_late_pkts += c.tx.first - first


cdef inline void _release(connection* c, send_slot* slot) noexcept nogil:
    if slot.owned:
        chunk_to_limbo(c.owner, <uint8_t*>slot.at)
        slot.owned = 0


cdef inline uint32_t _overhead(connection* c) noexcept nogil:
    """Bytes of a datagram that are no payload."""
    return K_HEADER + crypto_tag_bytes(c.crypto)


cdef void _add_sealed(connection* c, srt_transmit* out, send_slot* slot, int64_t index, uint32_t again,
                      const uint8_t* body) noexcept nogil:
    """Put a packet into the transmit, encrypted with the key in use; one that fails is as if lost on its way."""
    cdef uint8_t* packet = out.sealed[out.datagrams]
    cdef uint32_t flags = K_DATA_SOLO | crypto_flags(c.crypto) | message_of(index)
    cdef uint32_t size
    put_header(packet, sequence_of(c.isn, index), flags, slot.timestamp, c.peer_id)
    size = crypto_seal(c.crypto, packet, body, slot.length, packet + K_HEADER)
    # Of two texts under one key and number, whoever hears both learns both: bytes that may have changed are not sent.
    if size == 0 or not (slot.owned or _readable(c.source, slot.at)):
        count(c.owner, C_SRT_SEND_NOT_SEALED)
        return
    put_be32(packet + 4, flags | again)
    transmit_add(out, packet, K_HEADER + size, NULL, 0)


cdef void _add(connection* c, srt_transmit* out, send_slot* slot, int64_t index, uint32_t again,
               int64_t now_us) noexcept nogil:
    """Put a packet into the transmit."""
    cdef uint8_t* header = out.headers[out.datagrams]
    cdef uint8_t* body
    if slot.owned:
        body = <uint8_t*>slot.at
    else:
        body = c.source.base + (slot.at & c.source.mask)
    if c.crypto != NULL:
        _add_sealed(c, out, slot, index, again, body)
    else:
        put_header(header, sequence_of(c.isn, index), K_DATA_SOLO | again | message_of(index), slot.timestamp,
                   c.peer_id)
        transmit_add(out, header, K_HEADER, body, slot.length)
    slot.sent = <uint32_t>now_us
    if slot.sends != 0xFFFF:
        slot.sends += 1


cdef void sender_fill(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil:
    """Fill a transmit: what the peer has lost first, then what was handed in, then what the source has gained."""
    cdef uint32_t again, before
    cdef uint64_t bytes
    if not loss_empty(&c.owed):
        before = out.total_bytes
        again = out.datagrams
        _fill_again(c, out, now_us)
        again = out.datagrams - again
        if again:
            bytes = out.total_bytes - before - again * _overhead(c)
            count_many(c.owner, C_SRT_RETRANSMITTED_PKTS, again)
            count_many(c.owner, C_SRT_RETRANSMITTED_BYTES, bytes)
            c.stats.sent_again_pkts += again
            c.stats.sent_again_bytes += bytes
    before = out.datagrams
    bytes = out.total_bytes
    if c.tx.next < c.tx.end:
        _fill_queued(c, out, now_us)
    if c.joined and c.tx.next == c.tx.end:
        _fill_source(c, out, now_us)
    before = out.datagrams - before
    if before:
        bytes = out.total_bytes - bytes - before * _overhead(c)
        rate_add(&c.tx_rate, <uint32_t>bytes, before, now_us)
        count_many(c.owner, C_SRT_SENT_PKTS, before)
        count_many(c.owner, C_SRT_SENT_BYTES, bytes)
        c.stats.sent_pkts += before
        c.stats.sent_bytes += bytes
        connection_wake_at(c, c.probe_us)
        if c.crypto != NULL:
            _count_sealed(c, before)


cdef void _count_sealed(connection* c, uint32_t pkts) noexcept nogil:
    """Packets went out for the first time: a key may be due."""
    cdef uint64_t refreshes = c.crypto.refreshes
    if crypto_sent(c.crypto, pkts):
        c.pending |= SEND_KMREQ
        connection_ready(c)
    count_many(c.owner, C_SRT_KEYS_CHANGED, c.crypto.refreshes - refreshes)


cdef void _fill_again(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil:
    """Retransmissions, within the budget. One sent so lately that its loss can't be known yet is left to the next NAK."""
    cdef int64_t index, wait_us
    cdef int64_t spare_us = max(<int64_t>c.rtt.rtt_us - <int64_t>c.rtt.variance_us, <int64_t>0)
    cdef uint32_t percent = c.owner.settings.max_overhead_percent
    cdef send_slot* slot
    budget_fill(&c.budget, c.tx_rate.bytes_per_s, percent, now_us)
    c.budget_us = 0
    while not loss_empty(&c.owed):
        index = loss_first(&c.owed)
        slot = send_at(&c.tx, index)
        if not slot.owned and not _readable(c.source, slot.at):
            count(c.owner, C_SRT_SEND_LAPPED)
            _give_up(c, index, index)
        elif slot.sends > 1 and <uint32_t>now_us - slot.sent < spare_us:
            pass
        else:
            wait_us = budget_wait_us(&c.budget, c.tx_rate.bytes_per_s, percent, slot.length + _overhead(c))
            if wait_us:
                count(c.owner, C_SRT_OVERHEAD_LIMITED)
                c.budget_us = now_us + max(wait_us, <int64_t>K_PORTION_US)
                connection_wake_at(c, c.budget_us)
                return
            if not transmit_open(out, slot.length + _overhead(c)):
                return
            c.budget.bytes -= slot.length + _overhead(c)
            _add(c, out, slot, index, K_DATA_RETRANSMITTED, now_us)
        loss_remove(&c.owed, index, index)


cdef int64_t _doubt_us(connection* c) noexcept nogil:
    """How long the peer may be silent about what was sent (section 5.1.2: RTO), longer with each time that it was."""
    cdef int64_t turns = min(c.timeouts, <uint32_t>K_MOST_TIMEOUTS) + 1
    return turns * (rtt_timeout_us(&c.rtt) + 2 * K_SYN_US) + K_SYN_US


cdef inline void _progress(connection* c, int64_t now_us) noexcept nogil:
    c.timeouts = 0
    c.probe_us = now_us + _doubt_us(c)


cdef inline bint _window_open(connection* c) noexcept nogil:
    if c.tx.next < c.window_end:
        return True
    if not c.held:
        count(c.owner, C_SRT_WINDOW_LIMITED)
        c.held = True
    return False


cdef void _fill_queued(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil:
    cdef send_slot* slot
    while c.tx.next < c.tx.end and _window_open(c):
        slot = send_at(&c.tx, c.tx.next)
        if not transmit_open(out, slot.length + _overhead(c)):
            return
        _add(c, out, slot, c.tx.next, 0, now_us)
        _sent_first(c, now_us)


cdef inline void _sent_first(connection* c, int64_t now_us) noexcept nogil:
    if c.tx.next == c.tx.first:
        _progress(c, now_us)
    c.tx.next += 1


cdef void _fill_source(connection* c, srt_transmit* out, int64_t now_us) noexcept nogil:
    """Cut packets out of the ring where they lie."""
    cdef uint64_t available = ring_commit_pos(c.source) - c.source_pos
    cdef uint32_t size = c.payload_bytes
    cdef send_slot* slot
    if available and not _readable(c.source, c.source_pos):
        return
    while True:
        if available < size:
            if not c.partial or available < K_TS_PACKET:
                return
            size = <uint32_t>available // K_TS_PACKET * K_TS_PACKET
        if c.credit_pkts == 0:
            if c.portion_us == 0:
                c.portion_us = now_us + K_PORTION_US
                hurry(c, now_us)
                connection_wake_at(c, c.portion_us)
            return
        if not transmit_open(out, size + _overhead(c)) or not _window_open(c):
            return
        slot = send_push(&c.tx)
        if slot == NULL:
            c.held = True
            count(c.owner, C_SRT_WINDOW_LIMITED)
            return
        slot.at = c.source_pos
        slot.length = size
        slot.timestamp = timestamp_now(c, now_us)
        _add(c, out, slot, c.tx.next, 0, now_us)
        _sent_first(c, now_us)
        c.source_pos += size
        c.credit_pkts -= 1
        available -= size


cdef void _give_up(connection* c, int64_t first, int64_t last) noexcept nogil:
    """The peer asks for what is gone: tell it so (section 3.2.9). One range is told at a time, the newest wins."""
    if c.drop_first >= 0 and first <= c.drop_last + 1 and last + 1 >= c.drop_first:
        c.drop_first = min(c.drop_first, first)
        c.drop_last = max(c.drop_last, last)
    else:
        c.drop_first = first
        c.drop_last = last
    c.pending |= SEND_DROPREQ
    connection_ready(c)


cdef uint32_t sender_write_dropreq(connection* c, uint8_t* out, int64_t now_us) noexcept nogil:
    """A drop request into `out`, without a message number as no message is known any more."""
    if c.drop_first < 0:
        return 0
    put_control(out, CTRL_DROPREQ, 0, timestamp_now(c, now_us), c.peer_id)
    put_be32(out + K_HEADER, sequence_of(c.isn, c.drop_first))
    put_be32(out + K_HEADER + 4, sequence_of(c.isn, c.drop_last))
    c.drop_first = -1
    count(c.owner, C_SRT_DROPREQS_SENT)
    return K_HEADER + 8


cdef bint sender_ack(connection* c, uint32_t number, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil:
    """An ACK of any kind (section 3.2.4). False: too short, or for what was never sent."""
    cdef int64_t index, i
    cdef int64_t window
    if length < 4:
        return False
    index = index_near(c.isn, be32(body) & K_SEQUENCE_MASK, c.tx.next)
    if index > c.tx.next:
        return False
    c.stats.acks_received += 1
    if index > c.tx.first:
        for i in range(c.tx.first, index):
            _release(c, send_at(&c.tx, i))
        c.tx.first = index
        loss_remove_before(&c.owed, index)
        _progress(c, now_us)
    if length >= K_FULL_ACK_BYTES:
        rtt_sample(&c.rtt, be32(body + 4))
        window = be32(body + 12)
        c.window_end = max(c.window_end, index + window)
    if number:
        c.ackack_number = number
    if number and (not c.joined or now_us - c.ackack_us >= K_ACKACK_US):
        c.pending |= SEND_ACKACK
        # A player's next data take it along; without data it goes by itself.
        if not c.joined:
            connection_ready(c)
    if c.held:
        c.held = c.source != NULL
        connection_ready(c)
    return True


cdef bint sender_nak(connection* c, const uint8_t* body, uint32_t length, int64_t now_us) noexcept nogil:
    """A loss report (section 3.2.5). False: malformed, or about what was never sent; what came before that stands."""
    cdef uint32_t at = 0
    cdef int64_t first, last
    if length < 4:
        return False
    c.stats.naks_received += 1
    # The peer knows what it lacks: there is no need to probe.
    _progress(c, now_us)
    hurry(c, now_us)
    while at + 4 <= length:
        first = index_near(c.isn, be32(body + at) & K_SEQUENCE_MASK, c.tx.next)
        last = first
        if be32(body + at) & K_CONTROL:
            at += 4
            if at + 4 > length:
                return False
            last = index_near(c.isn, be32(body + at) & K_SEQUENCE_MASK, c.tx.next)
        at += 4
        if last < first or last >= c.tx.next or first < 0:
            return False
        if first < c.tx.first:
            _give_up(c, first, min(last, c.tx.first - 1))
            first = c.tx.first
        if first <= last and loss_insert(&c.owed, first, last, now_us) == 0:
            connection_ready(c)
    return True


cdef void sender_timeout(connection* c, int64_t now_us) noexcept nogil:
    """Whatever is due: too late packets, a portion, held-back retransmissions, a probe of the tail."""
    if c.tx.first < c.tx.end:
        _drop_late(c, now_us)
    if c.portion_us and c.portion_us <= now_us:
        _next_portion(c, now_us)
    if c.budget_us and c.budget_us <= now_us:
        c.budget_us = 0
        connection_ready(c)
    if c.tx.first < c.tx.next and c.probe_us <= now_us:
        # No gap follows the last packets, so nobody asks for them: send the last again, and the peer sees what it lacks.
        # If that brings nothing, the first goes too, lest it was the ACKs that were lost.
        loss_insert(&c.owed, c.tx.next - 1, c.tx.next - 1, now_us)
        if c.timeouts:
            loss_insert(&c.owed, c.tx.first, c.tx.first, now_us)
        c.timeouts += 1
        c.probe_us = now_us + _doubt_us(c)
        count(c.owner, C_SRT_RETRANSMITTED_PROBES)
        hurry(c, now_us)
        connection_ready(c)


cdef int64_t sender_deadline(connection* c) noexcept nogil:
    """When sender_timeout has work again; INT64_MAX: never, as things are."""
    cdef int64_t at = INT64_MAX
    if c.tx.first < c.tx.next:
        at = c.probe_us
    if c.portion_us:
        at = min(at, c.portion_us)
    if c.budget_us:
        at = min(at, c.budget_us)
    return at
