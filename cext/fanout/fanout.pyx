"""The players of this worker over HTTP and WebSocket.

    fanout = Fanout(reactor, arena, arena.my_counters, on_closed, write_interval_us=20_000)
    serial = fanout.join(fd, slot, generation, RING_FLV, head)

From join() on the socket is the fan-out's: it writes, hears what the client says and closes it. on_closed is called with
a list of (serial, reason, bytes of media) for the players that ended.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from flux.cext.arena cimport RING_FLV as C_RING_FLV, RING_TS as C_RING_TS, Arena, K_RING_KINDS
from flux.cext.fanout.channel cimport (
    channel, channel_add, channel_close, channel_close_all, channel_get, channel_hurry, channel_leave_empty, channel_player,
    channel_start,
)
from flux.cext.fanout.player cimport (
    CLOSE_KICKED, CLOSE_STOPPED, K_CLOSE_REASONS, K_FRONT_BYTES, PLAYER_FRESH, PLAYER_WAITING, PLAYER_WEBSOCKET, player,
    player_queue, player_websocket,
)
from flux.cext.reactor cimport EventSource, Reactor, reactor_cancel_timer
from flux.cext.ring cimport ring_commit_pos

RING_FLV = C_RING_FLV
RING_TS = C_RING_TS
REASONS = (
    "", "left", "lost", "too_slow", "lapped", "stream_ended", "kicked", "stopped", "websocket_error", "flood", "no_memory",
)
if len(REASONS) != K_CLOSE_REASONS:
    raise ImportError("a reason for closing has no name")

cdef extern from "<sys/socket.h>" nogil:
    int setsockopt(int fd, int level, int option, const void* value, uint32_t length)
    int SOL_SOCKET, SO_SNDBUF

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NOTSENT_LOWAT

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)


class StreamGone(ValueError):
    """The stream was given up before its player could join."""


cdef player* _new_player(int fd, bint websocket, const uint8_t* head, uint32_t head_bytes) noexcept nogil:
    cdef player* p = NULL
    if posix_memalign(<void**>&p, 64, sizeof(player)) != 0:
        return NULL
    memset(p, 0, sizeof(player))
    p.handler.fd = fd
    p.flags = PLAYER_WAITING | PLAYER_FRESH
    if player_queue(p, head, head_bytes) < 0:
        _drop(p)
        return NULL
    if websocket:
        p.flags |= PLAYER_WEBSOCKET
        p.websocket = <player_websocket*>calloc(1, sizeof(player_websocket))
        if p.websocket == NULL:
            _drop(p)
            return NULL
    return p


cdef void _drop(player* p) noexcept nogil:
    free(p.front)
    free(p.websocket)
    free(p)


@cython.no_gc_clear
cdef class Fanout:
    """Fanout(reactor, arena, counters, on_closed, …).

    counters: writable uint64 memoryview (Arena.my_counters). on_closed(list of (serial, reason, bytes)).
    write_interval_us: players are written to at most this often; 0: at each doorbell.
    slow_player_us: a player whose socket takes no byte for so long is closed.
    max_lag_us: a player further behind is moved on to the newest keyframe, as is one that is three quarters of the ring
    behind; 0: only the ring counts.
    socket_buffer_bytes: SO_SNDBUF; 0: the kernel's own. unsent_bytes: TCP_NOTSENT_LOWAT; 0: no bound.
    """

    def __cinit__(
        self, Reactor reactor not None, Arena arena not None, uint64_t[::1] counters not None, on_closed, *,
        int64_t write_interval_us=20_000, int64_t slow_player_us=10_000_000, int64_t max_lag_us=0,
        uint32_t socket_buffer_bytes=0, uint32_t unsent_bytes=0,
    ):
        memset(&self.core, 0, sizeof(self.core))
        self.reactor = reactor
        self.arena = arena
        self.counters = counters
        self.on_closed = on_closed
        self.events = EventSource(reactor, self._tell_closed)
        self.core.reactor = &reactor.core
        self.core.arena = &arena.view
        self.core.source = &self.events.view
        self.core.counters = &counters[0]
        self.core.by_ring = <channel**>calloc(arena.view.header.slots * <size_t>K_RING_KINDS, sizeof(channel*))
        if self.core.by_ring == NULL:
            raise MemoryError
        self.configure(write_interval_us, slow_player_us, max_lag_us, socket_buffer_bytes, unsent_bytes)

    def __dealloc__(self):
        if self.core.by_ring != NULL:
            self._close_all()
        free(self.core.by_ring)
        free(self.core.table)
        free(self.core.turns)
        free(self.core.next_free)
        free(self.core.closed)

    def configure(
        self, int64_t write_interval_us, int64_t slow_player_us, int64_t max_lag_us, uint32_t socket_buffer_bytes,
        uint32_t unsent_bytes,
    ):
        """Takes over other settings; those of sockets count for players that come from now on."""
        cdef channel* c = self.core.channels
        self.core.write_interval_us = write_interval_us
        while c != NULL:
            channel_hurry(c)
            c = c.after
        self.core.slow_player_us = slow_player_us
        self.core.max_lag_us = max_lag_us
        self.socket_buffer_bytes = socket_buffer_bytes
        self.unsent_bytes = unsent_bytes

    @property
    def players(self):
        """How many there are now."""
        return self.core.players

    def join(self, int fd, uint32_t slot, uint64_t generation, uint32_t kind, const uint8_t[::1] head not None, *,
             bint websocket=False):
        """Hang the non-blocking socket `fd` on ring `kind` of a stream, at its newest keyframe; gives a serial.

        The player gets `head` (the HTTP response's, up to K_FRONT_BYTES) and the ring's header blob first. It waits if
        there is no keyframe yet. The descriptor is the fan-out's then; it stays the caller's when this raises:
        StreamGone, ValueError for a kind that is no ring, MemoryError.
        """
        cdef channel* c
        cdef player* p
        cdef const uint8_t* bytes_ = &head[0] if head.shape[0] else NULL
        if slot >= self.arena.view.header.slots or kind >= K_RING_KINDS or head.shape[0] > K_FRONT_BYTES // 2:
            raise ValueError(f"no player can join ring {kind} of slot {slot} with a head of {head.shape[0]} bytes")
        c = channel_get(&self.core, slot, generation, kind)
        if c == NULL:
            raise StreamGone(f"the stream of slot {slot} is gone")
        p = _new_player(fd, websocket, bytes_, <uint32_t>head.shape[0])
        if p == NULL or channel_add(c, p) < 0:
            if p != NULL:
                _drop(p)
            channel_leave_empty(c)
            raise MemoryError
        if self.socket_buffer_bytes:
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &self.socket_buffer_bytes, sizeof(uint32_t))
        if self.unsent_bytes:
            setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &self.unsent_bytes, sizeof(uint32_t))
        serial = p.serial
        channel_start(c, p)
        return serial

    def kick(self, uint64_t serial):
        """End a player; False when it is gone already."""
        cdef player* p = channel_player(&self.core, serial)
        if p == NULL:
            return False
        channel_close(p, CLOSE_KICKED)
        return True

    def figures(self, uint64_t serial):
        """(bytes of media sent, bytes behind the ring's end); None when the player is gone."""
        cdef player* p = channel_player(&self.core, serial)
        cdef uint64_t lag = 0
        if p == NULL:
            return None
        if not p.flags & PLAYER_WAITING:
            lag = ring_commit_pos(&(<channel*>p.channel).feed.view) - p.cursor
        return p.sent_bytes, lag

    def close(self):
        """Ends all players; on_closed hears of them before this returns."""
        self._close_all()
        self._tell_closed()
        self.events.close()

    cdef _close_all(self):
        while self.core.channels != NULL:
            channel_close_all(self.core.channels, CLOSE_STOPPED)
        reactor_cancel_timer(self.core.reactor, &self.core.care)

    def _tell_closed(self):
        cdef uint32_t i
        ended = []
        for i in range(self.core.closed_count):
            ended.append((self.core.closed[i].serial, REASONS[self.core.closed[i].reason], self.core.closed[i].sent_bytes))
        self.core.closed_count = 0
        if ended:
            self.on_closed(ended)
