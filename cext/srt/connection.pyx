"""Connections of an endpoint: making, finding, waking, closing, freeing (states are drawn in state.pxd)."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from flux.cext.counters cimport (
    C_SRT_CLOSED_HANDSHAKE, C_SRT_CLOSED_IDLE, C_SRT_CLOSED_LOCAL, C_SRT_CLOSED_PEER, C_SRT_CLOSED_SOURCE, C_SRT_OPEN,
    C_SRT_PENDING,
)
from flux.cext.srt.cookie cimport siphash
from flux.cext.srt.crypto cimport crypto_free
from flux.cext.srt.loss_list cimport loss_clear
from flux.cext.srt.packet cimport K_SEQUENCE_MASK
from flux.cext.srt.recv_buffer cimport recv_clear, recv_init
from flux.cext.srt.rtt cimport rtt_init
from flux.cext.srt.send_buffer cimport send_at, send_clear, send_init
from flux.cext.srt.slab cimport slab_give
from flux.cext.srt.state cimport (
    CLOSE_HANDSHAKE_TIMEOUT, CLOSE_IDLE, CLOSE_LOCAL, CLOSE_NONE, CLOSE_PEER, CLOSE_REJECTED, CLOSE_SOURCE_ENDED,
    CONN_CLOSING, CONN_INDUCTION, CONN_OPEN, CONN_REQUESTED, EVENT_CLOSED, EVENT_REQUEST, SEND_SHUTDOWN, connection,
    count, endpoint,
)
from flux.cext.srt.timers cimport timers_cancel, timers_set

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6

cdef enum:
    K_SLOT_BITS = 17              # of a socket id, above the worker's 6; the rest is salt
    K_SALT_MASK = 0x7F            # an id has 30 bits: bit 30 marks groups in libsrt


cdef uint32_t address_key(const uint8_t* address, uint32_t length, uint8_t* key) noexcept nogil:
    """Family, port and host of a sockaddr_in or sockaddr_in6, to be compared bytewise: its length; 0: neither.

    `key` has room for K_ADDRESS_KEY bytes.
    """
    cdef uint16_t family
    if length < 16:
        return 0
    memcpy(&family, address, 2)
    if family == AF_INET:
        memcpy(key, address, 8)
        return 8
    if family == AF_INET6 and length >= 24:
        # Without the flow information; the scope is left out too, as only link-local peers have one.
        memcpy(key, address, 4)
        memcpy(key + 4, address + 8, 16)
        return 20
    return 0


cdef uint32_t _bucket(endpoint* e, const uint8_t* key, uint32_t key_bytes, uint32_t peer_id) noexcept nogil:
    cdef uint8_t data[24]
    memcpy(data, &peer_id, 4)
    memcpy(data + 4, key, key_bytes)
    return <uint32_t>siphash(&e.key, data, key_bytes + 4) & e.bucket_mask


cdef uint64_t _draw(endpoint* e) noexcept nogil:
    e.serial += 1
    return siphash(&e.key, <const uint8_t*>&e.serial, 8)


cdef connection* connection_new(endpoint* e, const uint8_t* address, uint32_t length, int64_t now_us) noexcept nogil:
    """A connection in state INDUCTION, in a free slot; NULL when there is none, or no memory."""
    cdef connection* c
    cdef uint32_t slot = e.next_slot
    cdef uint32_t tries = 0
    while e.slots[slot] != NULL:
        slot = slot + 1 if slot + 1 < e.slot_count else 0
        tries += 1
        if tries == e.slot_count:
            return NULL
    c = <connection*>calloc(1, sizeof(connection))
    if c == NULL:
        return NULL
    # Slots go round, so that an id comes back as late as can be.
    e.next_slot = slot + 1 if slot + 1 < e.slot_count else 0
    e.slots[slot] = c
    e.used += 1
    e.waiting += 1
    e.counters[C_SRT_PENDING] = e.waiting
    c.owner = e
    c.state = CONN_INDUCTION
    c.id = e.worker | (slot + 1) << 6 | <uint32_t>(_draw(e) & K_SALT_MASK) << (6 + K_SLOT_BITS)
    c.isn = <uint32_t>_draw(e) & K_SEQUENCE_MASK
    memcpy(c.address, address, length)
    c.address_bytes = length
    c.key_bytes = address_key(address, length, c.key)
    c.start_us = now_us
    c.opened_us = now_us
    c.heard_us = now_us
    c.sent_us = now_us
    c.nak_us = INT64_MAX
    c.timer.owner = c
    c.timer.deadline_us = INT64_MAX
    c.drop_first = -1
    recv_init(&c.rx, &e.bytes, e.settings.receive_buffer_pkts)
    send_init(&c.tx, e.settings.send_buffer_pkts)
    rtt_init(&c.rtt)
    return c


cdef connection* connection_by_id(endpoint* e, uint32_t id) noexcept nogil:
    """The connection with this socket id of ours; NULL: none."""
    cdef uint32_t slot = (id >> 6 & ((1 << K_SLOT_BITS) - 1)) - 1
    cdef connection* c
    if slot >= e.slot_count:
        return NULL
    c = e.slots[slot]
    return c if c != NULL and c.id == id else NULL


cdef connection* connection_by_peer(endpoint* e, const uint8_t* key, uint32_t key_bytes,
                                    uint32_t peer_id) noexcept nogil:
    """The connection that this caller has already asked for; NULL: none."""
    cdef connection* c = e.buckets[_bucket(e, key, key_bytes, peer_id)]
    while c != NULL:
        if c.peer_id == peer_id and c.key_bytes == key_bytes and memcmp(c.key, key, key_bytes) == 0:
            return c
        c = c.hash_after
    return NULL


cdef void connection_remember(connection* c) noexcept nogil:
    """Let connection_by_peer find it: its address and peer_id are set."""
    cdef connection** bucket = &c.owner.buckets[_bucket(c.owner, c.key, c.key_bytes, c.peer_id)]
    c.hash_after = bucket[0]
    bucket[0] = c
    c.in_hash = True


cdef void _forget(connection* c) noexcept nogil:
    cdef connection** link
    if not c.in_hash:
        return
    link = &c.owner.buckets[_bucket(c.owner, c.key, c.key_bytes, c.peer_id)]
    while link[0] != c:
        link = &link[0].hash_after
    link[0] = c.hash_after
    c.in_hash = False


cdef void connection_open(connection* c, int64_t now_us) noexcept nogil:
    """The handshake is over."""
    cdef endpoint* e = c.owner
    c.state = CONN_OPEN
    c.heard_us = now_us
    e.waiting -= 1
    e.open += 1
    e.counters[C_SRT_PENDING] = e.waiting
    e.counters[C_SRT_OPEN] = e.open


cdef void _count_close(endpoint* e, uint32_t reason) noexcept nogil:
    if reason == CLOSE_PEER:
        count(e, C_SRT_CLOSED_PEER)
    elif reason == CLOSE_IDLE:
        count(e, C_SRT_CLOSED_IDLE)
    elif reason == CLOSE_SOURCE_ENDED:
        count(e, C_SRT_CLOSED_SOURCE)
    elif reason == CLOSE_HANDSHAKE_TIMEOUT or reason >= CLOSE_REJECTED:
        count(e, C_SRT_CLOSED_HANDSHAKE)
    else:
        count(e, C_SRT_CLOSED_LOCAL)


cdef void connection_close(connection* c, uint32_t reason) noexcept nogil:
    """End a connection: an open one sends SHUTDOWN, but not to a peer that did so; what it holds is let go at once.

    It stays in its slot until that is sent and Python has read "closed".
    """
    cdef endpoint* e = c.owner
    cdef bint was_open = c.state == CONN_OPEN
    if c.state == CONN_CLOSING:
        return
    _count_close(e, reason)
    if was_open:
        e.open -= 1
        e.counters[C_SRT_OPEN] = e.open
    else:
        e.waiting -= 1
        e.counters[C_SRT_PENDING] = e.waiting
    c.pending = SEND_SHUTDOWN if was_open and reason != CLOSE_PEER else 0
    if c.state == CONN_REQUESTED and c.events & EVENT_REQUEST:
        # Python never heard of it, so it need not hear of its end.
        c.events = 0
    else:
        connection_post(c, EVENT_CLOSED)
    c.state = CONN_CLOSING
    c.reason = reason if reason != CLOSE_NONE else CLOSE_LOCAL
    timers_cancel(&e.timers, &c.timer)
    _drop_buffers(c)
    connection_detach_source(c)
    _forget(c)
    if c.pending:
        connection_ready(c)
    else:
        connection_unready(c)


cdef void _drop_buffers(connection* c) noexcept nogil:
    cdef int64_t i
    for i in range(c.tx.first, c.tx.end):
        if send_at(&c.tx, i).owned:
            chunk_to_limbo(c.owner, <uint8_t*>send_at(&c.tx, i).at)
    send_clear(&c.tx)
    recv_clear(&c.rx)
    loss_clear(&c.lost)
    loss_clear(&c.owed)
    free(c.acks)
    c.acks = NULL
    free(c.request)
    c.request = NULL


cdef void connection_attach_source(connection* c) noexcept nogil:
    """Put a connection on the list that is looked at on each tick; its `source` is set."""
    cdef endpoint* e = c.owner
    c.source_before = NULL
    c.source_after = e.sources
    if e.sources != NULL:
        e.sources.source_before = c
    e.sources = c


cdef void connection_detach_source(connection* c) noexcept nogil:
    """Take it off that list."""
    if c.source == NULL:
        return
    if c.source_before != NULL:
        c.source_before.source_after = c.source_after
    else:
        c.owner.sources = c.source_after
    if c.source_after != NULL:
        c.source_after.source_before = c.source_before
    c.source = NULL


cdef bint connection_release(connection* c) noexcept nogil:
    """Free a connection that is closing, if it has nothing left to say: True when it is gone."""
    if c.state != CONN_CLOSING or c.pending or c.events or c.in_events or c.in_flush:
        return False
    connection_free(c)
    return True


cdef void connection_free(connection* c) noexcept nogil:
    """Free a connection in whatever state, without a word to anybody."""
    cdef endpoint* e = c.owner
    cdef connection** link
    if c.state == CONN_OPEN:
        e.open -= 1
        e.counters[C_SRT_OPEN] = e.open
    elif c.state != CONN_CLOSING:
        e.waiting -= 1
        e.counters[C_SRT_PENDING] = e.waiting
    timers_cancel(&e.timers, &c.timer)
    connection_unready(c)
    connection_detach_source(c)
    _forget(c)
    _drop_buffers(c)
    crypto_free(c.crypto)
    link = &e.flush
    while c.in_flush and link[0] != c:
        link = &link[0].flush_after
    if c.in_flush:
        link[0] = c.flush_after
    _unpost(c)
    e.slots[(c.id >> 6 & ((1 << K_SLOT_BITS) - 1)) - 1] = NULL
    e.used -= 1
    free(c)


cdef void connection_ready(connection* c) noexcept nogil:
    """It has something to send: poll_transmit will come to it."""
    cdef endpoint* e = c.owner
    if c.ready:
        return
    c.ready = True
    c.ready_after = NULL
    c.ready_before = e.ready_last
    if e.ready_last != NULL:
        e.ready_last.ready_after = c
    else:
        e.ready_first = c
    e.ready_last = c


cdef void connection_unready(connection* c) noexcept nogil:
    cdef endpoint* e = c.owner
    if not c.ready:
        return
    c.ready = False
    if c.ready_before != NULL:
        c.ready_before.ready_after = c.ready_after
    else:
        e.ready_first = c.ready_after
    if c.ready_after != NULL:
        c.ready_after.ready_before = c.ready_before
    else:
        e.ready_last = c.ready_before


cdef void connection_wake_at(connection* c, int64_t deadline_us) noexcept nogil:
    """Make sure that its timer is due by then. A timer that is due too early does no harm: it is set anew."""
    if deadline_us < c.timer.deadline_us:
        timers_set(&c.owner.timers, &c.timer, deadline_us)


cdef void connection_post(connection* c, uint32_t event) noexcept nogil:
    """Let Python know; events of a connection are read in the order request, connected, closed."""
    cdef endpoint* e = c.owner
    c.events |= event
    if c.in_events:
        return
    c.in_events = True
    c.event_after = NULL
    if e.events_last != NULL:
        e.events_last.event_after = c
    else:
        e.events_first = c
    e.events_last = c


cdef void _unpost(connection* c) noexcept nogil:
    cdef endpoint* e = c.owner
    cdef connection* before = NULL
    cdef connection* at = e.events_first
    if not c.in_events:
        return
    while at != c:
        before = at
        at = at.event_after
    if before != NULL:
        before.event_after = c.event_after
    else:
        e.events_first = c.event_after
    if e.events_last == c:
        e.events_last = before
    c.in_events = False


cdef connection* connection_next_event(endpoint* e) noexcept nogil:
    """The next connection that has events, taken from the queue; the caller clears them and releases it. NULL: none."""
    cdef connection* c
    while e.events_first != NULL:
        c = e.events_first
        e.events_first = c.event_after
        if e.events_first == NULL:
            e.events_last = NULL
        c.in_events = False
        if c.events:
            return c
        connection_release(c)
    return NULL


cdef void connection_to_flush(connection* c) noexcept nogil:
    """Its sink was given something in this batch."""
    if c.in_flush:
        return
    c.in_flush = True
    c.flush_after = c.owner.flush
    c.owner.flush = c


cdef void chunk_to_limbo(endpoint* e, uint8_t* chunk) noexcept nogil:
    """A chunk of a send buffer is no longer needed, but a transmit that was built may still point at it."""
    e.owned -= 1
    e.limbo[e.limbo_used] = chunk
    e.limbo_used += 1


cdef void limbo_empty(endpoint* e) noexcept nogil:
    while e.limbo_used:
        e.limbo_used -= 1
        slab_give(&e.bytes, e.limbo[e.limbo_used])
