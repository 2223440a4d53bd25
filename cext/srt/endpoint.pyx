"""The SRT endpoint: datagrams to their connections, connections' turns, and the face for Python."""

import os
import socket

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flux.cext.arena cimport K_COUNTERS
from flux.cext.counters cimport (
    C_SRT_BYTES, C_SRT_DATAGRAMS, C_SRT_REFUSED_ADDRESS, C_SRT_REFUSED_HANDSHAKE, C_SRT_REFUSED_LONG,
    C_SRT_REFUSED_SHORT, C_SRT_REFUSED_UNKNOWN_ID, C_SRT_REFUSED_WRONG_PEER,
)
from flux.cext.ring cimport Ring
from flux.cext.sink cimport Sink
from flux.cext.srt.connection cimport (
    address_key, connection_by_id, connection_close, connection_free, connection_next_event, connection_post,
    connection_release, limbo_empty,
)
from flux.cext.srt.crypto cimport (
    K_REFRESH_PKTS, crypto_facts, crypto_new, crypto_settings, crypto_settings_take,
)
from flux.cext.srt.handshake cimport K_STREAM_ID_BYTES
from flux.cext.srt.libcrypto cimport wipe
from flux.cext.srt.negotiation cimport (
    caller_start, listener_accept, listener_handshake, listener_reject, listener_secure,
)
from flux.cext.srt.packet cimport CTRL_HANDSHAKE, K_CONTROL, K_HEADER, K_PACKET_BYTES, K_SEQUENCE_MASK, K_SYN_US, be32
from flux.cext.srt.protocol cimport protocol_receive, protocol_timeout, protocol_transmit
from flux.cext.srt.sender cimport sender_attach, sender_push, sender_tick
from flux.cext.srt.slab cimport slab_clear, slab_init
from flux.cext.srt.state cimport (
    CLOSE_HANDSHAKE_TIMEOUT, CLOSE_IDLE, CLOSE_LOCAL, CLOSE_NO_MEMORY, CLOSE_PEER, CLOSE_PROTOCOL, CLOSE_REJECTED,
    CLOSE_SOURCE_ENDED, CONN_CLOSING, CONN_OPEN, CONN_REQUESTED, EVENT_CONNECTED, EVENT_REQUEST,
    K_ADDRESS_KEY, K_ANSWER_BYTES, K_ANSWERS, answer, connection, count, count_many, endpoint,
)
from flux.cext.srt.timers cimport timers_free, timers_init, timers_next
from flux.cext.srt.transmit cimport srt_transmit, transmit_add

from flux.cext.srt.crypto import MODES

cdef enum:
    K_MOST_SLOTS = (1 << 17) - 1  # as many as a socket id can tell apart
    K_LIMBO_US = 1000000          # chunks that were acknowledged are given back after this at the latest
    K_HURRY_US = 1000000          # one loss is seldom alone, nor is one newcomer
    K_PREDEFINED = 1000           # libsrt's rejection codes from here on are an application's
    K_MOST_PROTOCOL_CODE = 1099   # codes up to this are the protocol's own, as they go on the wire

MODE_NAMES = {number: name for name, number in MODES.items()}
REASONS = {
    CLOSE_LOCAL: "closed",
    CLOSE_PEER: "peer_shutdown",
    CLOSE_IDLE: "idle_timeout",
    CLOSE_HANDSHAKE_TIMEOUT: "handshake_timeout",
    CLOSE_SOURCE_ENDED: "stream_ended",
    CLOSE_PROTOCOL: "protocol_error",
    CLOSE_NO_MEMORY: "no_memory",
}


cdef inline bint _same_address(connection* c, const uint8_t* key, uint32_t key_bytes) noexcept nogil:
    cdef uint64_t a, b
    if c.key_bytes != key_bytes:
        return False
    memcpy(&a, c.key, 8)
    memcpy(&b, key, 8)
    return a == b and (key_bytes == 8 or memcmp(c.key, key, key_bytes) == 0)


cdef void endpoint_receive(endpoint* e, const void* addr, uint32_t addr_bytes,
                           const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil:
    """Take in one datagram."""
    cdef uint8_t key[K_ADDRESS_KEY]
    cdef uint32_t key_bytes
    cdef uint32_t id
    cdef connection* c
    e.now_us = now_us
    count(e, C_SRT_DATAGRAMS)
    count_many(e, C_SRT_BYTES, length)
    if length < K_HEADER:
        count(e, C_SRT_REFUSED_SHORT)
        return
    if length > K_PACKET_BYTES:
        count(e, C_SRT_REFUSED_LONG)
        return
    key_bytes = address_key(<const uint8_t*>addr, addr_bytes, key)
    if key_bytes == 0:
        count(e, C_SRT_REFUSED_ADDRESS)
        return
    id = be32(data + 12)
    if id == 0:
        e.hurry_us = now_us
        if be32(data) & ~<uint32_t>0xFFFF == K_CONTROL | CTRL_HANDSHAKE << 16:
            listener_handshake(e, <const uint8_t*>addr, addr_bytes, data, length, now_us)
        else:
            count(e, C_SRT_REFUSED_HANDSHAKE)
        return
    c = connection_by_id(e, id)
    if c == NULL:
        count(e, C_SRT_REFUSED_UNKNOWN_ID)
        return
    if not _same_address(c, key, key_bytes):
        count(e, C_SRT_REFUSED_WRONG_PEER)
        return
    protocol_receive(c, data, length, now_us)


cdef void endpoint_flush_sinks(endpoint* e, int64_t now_us) noexcept nogil:
    """End the batch for each sink that was given something."""
    cdef connection* c
    while e.flush != NULL:
        c = e.flush
        e.flush = c.flush_after
        c.in_flush = False
        c.sink.flush(c.sink.ctx, now_us)
        connection_release(c)


cdef bint endpoint_poll_transmit(endpoint* e, srt_transmit* out, int64_t now_us) noexcept nogil:
    """Something to send, if there is: answers to strangers first, then connection after connection."""
    cdef answer* a
    if e.answers_used:
        a = &e.answers[e.answers_first]
        e.answers_first = (e.answers_first + 1) % K_ANSWERS
        e.answers_used -= 1
        out.datagrams = 0
        out.total_bytes = 0
        out.iov_count = 0
        memcpy(out.address, a.address, a.address_bytes)
        out.address_bytes = a.address_bytes
        memcpy(out.control, a.data, K_ANSWER_BYTES)
        transmit_add(out, out.control, K_ANSWER_BYTES, NULL, 0)
        return True
    while e.ready_first != NULL:
        if protocol_transmit(e.ready_first, out, now_us):
            return True
    return False


cdef int64_t endpoint_next_timeout(endpoint* e) noexcept nogil:
    """When endpoint_handle_timeout has work; INT64_MAX: never, as things are."""
    cdef int64_t at = timers_next(&e.timers)
    if e.sources != NULL:
        at = min(at, e.source_us)
    if e.limbo_used:
        at = min(at, e.now_us + K_LIMBO_US)
    return at


cdef void endpoint_handle_timeout(endpoint* e, int64_t now_us) noexcept nogil:
    """Do whatever is due by now: connections' timers, and a look at the sources."""
    cdef connection* c
    cdef connection* after
    cdef int64_t interval = e.settings.source_interval_us
    e.now_us = now_us
    limbo_empty(e)
    while timers_next(&e.timers) <= now_us:
        protocol_timeout(<connection*>e.timers.entries[0].timer.owner, now_us)
    if e.sources != NULL and e.source_us <= now_us:
        # What was delivered just now is in the rings before they are looked at.
        endpoint_flush_sinks(e, now_us)
        # On a grid, so that ticks fall together with other grids of the worker.
        e.source_us = (now_us // interval + 1) * interval
        c = e.sources
        while c != NULL:
            after = c.source_after
            sender_tick(c, now_us)
            c = after


cdef bint endpoint_has_events(endpoint* e) noexcept nogil:
    """Whether next_event() has something."""
    return e.events_first != NULL


cdef bint endpoint_hurries(endpoint* e, int64_t now_us) noexcept nogil:
    """Whether losses, handshakes or a backlog are under way: the next turn should come soon."""
    return now_us - e.hurry_us < K_HURRY_US and e.hurry_us != 0


cdef uint32_t _pack_address(object address, uint8_t* out) except 0:
    """(host, port, ...) as a sockaddr; hosts are numeric. ValueError for what is none."""
    cdef bytes raw
    cdef uint16_t family
    cdef uint32_t at, length, scope
    host, port = address[0], int(address[1])
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port}: ports go from 0 to 65535")
    try:
        if ":" in host:
            raw = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            family, at, length = socket.AF_INET6, 8, 28
        else:
            raw = socket.inet_pton(socket.AF_INET, host)
            family, at, length = socket.AF_INET, 4, 16
    except OSError:
        raise ValueError(f"{host!r} is no IP address") from None
    memset(out, 0, 28)
    memcpy(out, &family, 2)
    out[2] = port >> 8
    out[3] = port & 0xFF
    memcpy(out + at, <const char*>raw, len(raw))
    if family == socket.AF_INET6 and len(address) > 3:
        scope = address[3]
        memcpy(out + 24, &scope, 4)
    return length


cdef tuple _unpack_address(const uint8_t* address):
    cdef uint16_t family
    memcpy(&family, address, 2)
    port = address[2] << 8 | address[3]
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, address[8:24]), port


cdef str _reason(uint32_t reason):
    if reason < CLOSE_REJECTED:
        return REASONS[reason]
    code = reason - CLOSE_REJECTED
    return f"rejected:{code - K_PREDEFINED if code >= 2 * K_PREDEFINED else code}"


cdef dict _facts(connection* c):
    version = c.peer_version
    return {
        "peer_socket_id": c.peer_id,
        "peer_version": f"{version >> 16 & 0xFF}.{version >> 8 & 0xFF}.{version & 0xFF}",
        "peer_flags": c.peer_flags,
        "receive_latency_ms": c.receive_latency_ms,
        "send_latency_ms": c.send_latency_ms,
        "flow_window_pkts": c.peer_window_pkts,
        "payload_bytes": c.most_payload_bytes,
        "encrypted": c.request.encrypts if c.request != NULL else c.crypto != NULL,
        **crypto_facts(c.crypto),
    }


cdef dict _figures(connection* c):
    cdef uint64_t received = c.stats.received_bytes
    return {
        "bytes": received if c.source == NULL and received else c.stats.sent_bytes,
        "rtt_ms": c.rtt.rtt_us / 1000.0,
        "rtt_variance_ms": c.rtt.variance_us / 1000.0,
        "receive_latency_ms": c.receive_latency_ms,
        "send_latency_ms": c.send_latency_ms,
        "received_pkts": c.stats.received_pkts,
        "received_bytes": received,
        "received_lost_pkts": c.stats.received_lost_pkts,
        "received_again_pkts": c.stats.received_again_pkts,
        "duplicate_pkts": c.stats.duplicate_pkts,
        "skipped_pkts": c.stats.skipped_pkts,
        "undecrypted_pkts": c.stats.undecrypted_pkts,
        "delivered_bytes": c.stats.delivered_bytes,
        "missing_pkts": c.lost.pkts,
        "receive_buffer_pkts": c.rx.held,
        "receive_bytes_per_s": c.rx_rate.bytes_per_s,
        "drift_us": c.clock.drift_us,
        "sent_pkts": c.stats.sent_pkts,
        "sent_bytes": c.stats.sent_bytes,
        "sent_again_pkts": c.stats.sent_again_pkts,
        "sent_again_bytes": c.stats.sent_again_bytes,
        "too_late_pkts": c.stats.too_late_pkts,
        "lapped": c.stats.lapped,
        "send_buffer_pkts": c.tx.end - c.tx.first,
        "unsent_pkts": c.tx.end - c.tx.next,
        "send_bytes_per_s": c.tx_rate.bytes_per_s,
        "acks_received": c.stats.acks_received,
        "naks_received": c.stats.naks_received,
        "naks_sent": c.stats.naks_sent,
        **crypto_facts(c.crypto),
    }


cdef class Endpoint:
    """Endpoint(worker=0, counters=None, *, latency_ms=120, …): listener and caller in one, behind one address.

    worker: goes into the low 6 bits of socket ids. counters: a writable uint64 memoryview of K_COUNTERS numbers
    (Arena.my_counters); None: its own. secret: 16 bytes and more for cookies and ids; None: random.

    passphrase, pbkeylen, …: the encryption of connections that have no other by secure(), accept() or connect(). A
    passphrase is 10 to 80 bytes, None: none; pbkeylen: 16, 24, 32, or 0 for the peer's choice; crypto_mode: "ctr",
    "gcm", or "auto" for the caller's choice; enforced_encryption: whether both must have the same secret. ValueError
    tells what is wrong with them, RuntimeError that libcrypto is missing.
    """

    def __cinit__(self, uint32_t worker=0, counters=None, *, uint32_t latency_ms=120,
                  int64_t peer_idle_timeout_ms=5000, int64_t handshake_timeout_ms=3000,
                  uint32_t flow_window_pkts=25600, uint32_t receive_buffer_pkts=8192,
                  uint32_t send_buffer_pkts=8192, uint32_t max_connections=4096, uint32_t max_handshakes=1024,
                  uint32_t max_overhead_percent=25, int64_t source_interval_us=10000,
                  int64_t delivery_interval_us=500, int64_t ack_interval_us=K_SYN_US,
                  uint64_t max_buffer_bytes=1 << 30, secret=None,
                  passphrase=None, uint32_t pbkeylen=0, str crypto_mode="auto", bint enforced_encryption=True,
                  uint64_t km_refresh_rate_pkts=K_REFRESH_PKTS, km_preannounce_pkts=None,
                  uint32_t max_key_exchanges=200):
        cdef endpoint* e
        cdef uint64_t[::1] view
        cdef uint32_t buckets = 64
        if worker > K_WORKER_MASK:
            raise ValueError(f"worker {worker}: socket ids have room for 0 to {K_WORKER_MASK}")
        if latency_ms > 65535:
            raise ValueError(f"a latency of {latency_ms} ms; a handshake has room for 65535")
        if min(source_interval_us, delivery_interval_us, ack_interval_us) < 1:
            raise ValueError("intervals are 1 µs at least")
        e = <endpoint*>calloc(1, sizeof(endpoint))
        if e == NULL:
            raise MemoryError
        self.handle = e
        self.sinks = {}
        self.sources = {}
        self.last = (0, {})
        self.counters_owner = memoryview(bytearray(8 * K_COUNTERS)).cast("Q") if counters is None else counters
        view = self.counters_owner
        if view.shape[0] < K_COUNTERS:
            raise ValueError(f"{view.shape[0]} counters; {K_COUNTERS} are needed")
        e.worker = worker
        e.counters = &view[0]
        e.settings.latency_ms = latency_ms
        e.settings.peer_idle_us = peer_idle_timeout_ms * 1000
        e.settings.handshake_us = handshake_timeout_ms * 1000
        e.settings.flow_window_pkts = flow_window_pkts
        e.settings.receive_buffer_pkts = receive_buffer_pkts
        e.settings.send_buffer_pkts = send_buffer_pkts
        e.settings.max_connections = max_connections
        e.settings.max_handshakes = max_handshakes
        e.settings.max_overhead_percent = max_overhead_percent
        e.settings.source_interval_us = source_interval_us
        e.settings.delivery_interval_us = delivery_interval_us
        if max_key_exchanges < 1:
            raise ValueError("one key exchange a second is the least")
        e.settings.key_exchange_us = 1000000 // max_key_exchanges
        crypto_settings_take(&e.settings.encryption, passphrase, pbkeylen, crypto_mode, km_refresh_rate_pkts,
                             km_preannounce_pkts, enforced_encryption)
        e.settings.ack_interval_us = ack_interval_us
        secret = os.urandom(16) if secret is None else bytes(secret)
        if len(secret) < 16:
            raise ValueError(f"a secret of {len(secret)} bytes; 16 are needed")
        memcpy(&e.key, <const char*>secret, 16)
        # A connection that is closing keeps its slot until its end is read, hence as many again as are in handshakes.
        e.slot_count = min(max_connections + 2 * max_handshakes, <uint32_t>K_MOST_SLOTS)
        while buckets < e.slot_count:
            buckets *= 2
        e.bucket_mask = buckets - 1
        e.slots = <connection**>calloc(e.slot_count, sizeof(connection*))
        e.buckets = <connection**>calloc(buckets, sizeof(connection*))
        e.answers = <answer*>calloc(K_ANSWERS, sizeof(answer))
        slab_init(&e.bytes, max_buffer_bytes)
        if e.slots == NULL or e.buckets == NULL or e.answers == NULL or timers_init(&e.timers, e.slot_count) < 0:
            raise MemoryError

    def __dealloc__(self):
        cdef endpoint* e = self.handle
        cdef uint64_t nowhere[K_COUNTERS]
        cdef uint32_t i
        if e == NULL:
            return
        # A garbage collector may have taken the counters away already.
        e.counters = nowhere
        if e.slots != NULL:
            for i in range(e.slot_count):
                if e.slots[i] != NULL:
                    connection_free(e.slots[i])
        limbo_empty(e)
        slab_clear(&e.bytes)
        timers_free(&e.timers)
        free(e.limbo)
        free(e.slots)
        free(e.buckets)
        free(e.answers)
        wipe(&e.settings.encryption, sizeof(crypto_settings))
        free(e)

    cdef connection* _find(self, uint32_t id) except NULL:
        cdef connection* c = connection_by_id(self.handle, id)
        if c == NULL or c.state == CONN_CLOSING:
            raise KeyError(f"no SRT connection {id}")
        return c

    @property
    def counters(self):
        """The counters this endpoint writes to, uint64, by the numbers in cext/counters.pxd."""
        return self.counters_owner

    @property
    def connections(self):
        """Connections that are open."""
        return self.handle.open

    @property
    def handshakes(self):
        """Handshakes under way."""
        return self.handle.waiting

    @property
    def memory(self):
        """What it holds: connections in any state, chunks of packet bytes, blocks of them (64 KiB each)."""
        return {
            "connections": self.handle.used,
            "chunks": self.handle.bytes.chunks,
            "blocks": self.handle.bytes.blocks,
        }

    def next_event(self):
        """("request", id, (host, port), stream_id, facts), ("connected", id, facts), ("closed", id, reason) or None."""
        cdef connection* c
        # What was delivered is flushed before Python hears of anything: it may let go of the sink then.
        endpoint_flush_sinks(self.handle, self.handle.now_us)
        c = connection_next_event(self.handle)
        if c == NULL:
            return None
        if c.events & EVENT_REQUEST:
            c.events &= ~<uint32_t>EVENT_REQUEST
            text = c.request.stream_id[:c.request.stream_id_bytes]
            event = ("request", c.id, _unpack_address(c.address), text.decode("utf-8", "replace"), _facts(c))
        elif c.events & EVENT_CONNECTED:
            c.events &= ~<uint32_t>EVENT_CONNECTED
            event = ("connected", c.id, _facts(c))
        else:
            c.events = 0
            event = ("closed", c.id, _reason(c.reason))
            self.last = (c.id, _figures(c))
            self.sinks.pop(c.id, None)
            self.sources.pop(c.id, None)
        if c.events:
            connection_post(c, 0)
        connection_release(c)
        return event

    def secure(self, uint32_t id, int64_t now_us, passphrase=None, *, enforced_encryption=None):
        """Exchange keys with a requested connection before it is accepted: 0, or the code with which it was rejected.

        passphrase: the stream's, in place of the endpoint's; "": it has none; None: the endpoint's. As in libsrt, 1010:
        another passphrase; 1011: one side has none; 1017: CTR against GCM. ValueError for a passphrase that can't be one.
        """
        cdef connection* c = connection_by_id(self.handle, id)
        cdef crypto_settings s
        cdef uint32_t code
        if c == NULL or c.state != CONN_REQUESTED:
            return 0
        self._encryption(&s, passphrase, None, None, enforced_encryption)
        code = listener_secure(c, &s, now_us)
        wipe(&s, sizeof(crypto_settings))
        if code:
            self.sinks.pop(id, None)
            self.sources.pop(id, None)
        return code

    cdef _encryption(self, crypto_settings* s, passphrase, pbkeylen, crypto_mode, enforced_encryption):
        """The endpoint's settings with what is not None in place of them."""
        cdef crypto_settings* ours = &self.handle.settings.encryption
        crypto_settings_take(
            s,
            ours.passphrase[:ours.passphrase_bytes] if passphrase is None else passphrase,
            ours.key_bytes if pbkeylen is None else pbkeylen,
            MODE_NAMES[ours.mode] if crypto_mode is None else crypto_mode,
            ours.refresh_pkts,
            ours.announce_pkts,
            ours.enforced if enforced_encryption is None else enforced_encryption,
        )

    def accept(self, uint32_t id, int64_t now_us, passphrase=None):
        """Take a requested connection in; False when it is gone by now, or was rejected as secrets don't fit (see secure)."""
        cdef connection* c = connection_by_id(self.handle, id)
        if c == NULL or c.state != CONN_REQUESTED or self.secure(id, now_us, passphrase):
            return False
        listener_accept(c, now_us)
        return True

    def reject(self, uint32_t id, uint32_t code, int64_t now_us):
        """Refuse a requested connection; False when it is gone by now. No "closed" follows.

        code: 1000 to 1017 as the protocol has them on the wire (section 4.3.3), or an application's code of libsrt's
        access control guidelines, 1400 and more, which goes on the wire with 1,000 added.
        """
        cdef connection* c = connection_by_id(self.handle, id)
        if not K_PREDEFINED <= code < 9 * K_PREDEFINED:
            raise ValueError(f"rejection code {code}; codes go from 1000 to 8999")
        if c == NULL or c.state != CONN_REQUESTED:
            return False
        self.sinks.pop(id, None)
        self.sources.pop(id, None)
        listener_reject(c, code if code <= K_MOST_PROTOCOL_CODE else code + K_PREDEFINED, now_us)
        return True

    def attach_sink(self, uint32_t id, Sink sink not None):
        """Deliver what a connection receives into `sink`. KeyError when there is no such connection."""
        cdef connection* c = self._find(id)
        self.sinks[id] = sink
        c.sink = sink.view
        c.has_sink = True

    def attach_source(self, uint32_t id, Ring source not None):
        """Send a connection what a TS ring holds: PAT and PMT, the newest keyframe and on. KeyError as attach_sink."""
        cdef connection* c = self._find(id)
        if c.source != NULL:
            raise ValueError(f"SRT connection {id} has a source already")
        self.sources[id] = source
        sender_attach(c, &source.view)

    def send(self, uint32_t id, data, int64_t now_us):
        """Send one payload, bytes, up to facts["payload_bytes"]; False: the buffer is full, or it is not open."""
        cdef connection* c = connection_by_id(self.handle, id)
        cdef const uint8_t[::1] view = data
        if c == NULL or c.state != CONN_OPEN:
            return False
        if not 0 < view.shape[0] <= c.most_payload_bytes:
            raise ValueError(f"a payload of {view.shape[0]} bytes; this connection takes 1 to {c.most_payload_bytes}")
        return bool(sender_push(c, &view[0], <uint32_t>view.shape[0], now_us))

    def connect(self, address, str stream_id, int64_t now_us, *, latency_ms=None, isn=None, passphrase=None,
                pbkeylen=None, crypto_mode=None, enforced_encryption=None):
        """Call a listener at (host, port): the connection's id; "connected" or "closed" follows.

        isn: the initial sequence number of both directions; None: drawn. passphrase and on: in place of the endpoint's;
        "": no encryption. ValueError for a bad address, a stream id over 512 bytes, or a passphrase that can't be one;
        RuntimeError when max_connections are there.
        """
        cdef uint8_t addr[28]
        cdef uint32_t length = _pack_address(address, addr)
        cdef bytes text = stream_id.encode()
        cdef uint32_t latency = self.handle.settings.latency_ms if latency_ms is None else latency_ms
        cdef connection* c
        cdef crypto_settings s
        if len(text) > K_STREAM_ID_BYTES:
            raise ValueError(f"a stream id of {len(text)} bytes; SRT has room for {K_STREAM_ID_BYTES}")
        if latency > 65535:
            raise ValueError(f"a latency of {latency} ms; a handshake has room for 65535")
        self._encryption(&s, passphrase, pbkeylen, crypto_mode, enforced_encryption)
        c = caller_start(self.handle, addr, length, <const uint8_t*><const char*>text, <uint32_t>len(text), latency,
                         now_us)
        if c != NULL and s.passphrase_bytes:
            c.crypto = crypto_new(&s)
            if c.crypto == NULL:
                connection_free(c)
                c = NULL
        wipe(&s, sizeof(crypto_settings))
        if c == NULL:
            raise RuntimeError(f"no room for another of {self.handle.settings.max_connections} SRT connections")
        if isn is not None:
            c.isn = <uint32_t>isn & K_SEQUENCE_MASK
        return c.id

    def close(self, uint32_t id, int64_t now_us):
        """End a connection; "closed" follows. Nothing happens when it is gone already."""
        cdef connection* c = connection_by_id(self.handle, id)
        if c != NULL and c.state == CONN_REQUESTED:
            self.reject(id, 1007, now_us)
        elif c != NULL:
            connection_close(c, CLOSE_LOCAL)

    def stats(self, uint32_t id):
        """A connection's figures; those at its end for the one whose "closed" was read last; {} for an unknown one."""
        cdef connection* c = connection_by_id(self.handle, id)
        if c != NULL:
            return _figures(c)
        return dict(self.last[1]) if self.last[0] == id else {}

    def receive(self, address, const uint8_t[::1] data not None, int64_t now_us):
        """One datagram from (host, port)."""
        cdef uint8_t addr[28]
        cdef uint32_t length = _pack_address(address, addr)
        cdef const uint8_t* p = &data[0] if data.shape[0] else NULL
        with nogil:
            endpoint_receive(self.handle, addr, length, p, <uint32_t>data.shape[0], now_us)

    def flush(self, int64_t now_us):
        """End a batch of receive()."""
        with nogil:
            endpoint_flush_sinks(self.handle, now_us)

    def poll_transmit(self, int64_t now_us):
        """All that is to be sent now: [((host, port), bytes)]."""
        cdef srt_transmit out
        cdef uint32_t i, at
        sent = []
        while endpoint_poll_transmit(self.handle, &out, now_us):
            address = _unpack_address(out.address)
            data = b"".join([
                (<const uint8_t*>out.iov[i].iov_base)[:out.iov[i].iov_len] for i in range(out.iov_count)
            ])
            at = 0
            while at < out.total_bytes:
                sent.append((address, data[at:at + out.segment_bytes]))
                at += out.segment_bytes
        return sent

    def next_timeout(self):
        """When handle_timeout has work, µs; None: never, as things are."""
        cdef int64_t at = endpoint_next_timeout(self.handle)
        return None if at == INT64_MAX else at

    def handle_timeout(self, int64_t now_us):
        """Do what is due."""
        with nogil:
            endpoint_handle_timeout(self.handle, now_us)
