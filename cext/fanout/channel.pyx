"""A channel: the players of one stream in one wire format, written to in rounds on one tick (channel.pxd)."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from posix.unistd cimport close

from flux.cext.arena cimport K_RING_KINDS
from flux.cext.atomics cimport (
    and_seq_u64, load_relaxed_u32, load_relaxed_u64, or_seq_u64, store_relaxed_u32,
)
from flux.cext.counters cimport (
    C_FANOUT_BLOCKED, C_FANOUT_CHANNELS, C_FANOUT_CLOSED_LEFT, C_FANOUT_JOINED, C_FANOUT_MOVED_ON, C_FANOUT_PINGS,
    C_FANOUT_PLAYERS, C_FANOUT_SENDS, C_FANOUT_SENT_BYTES, C_FANOUT_SKIPPED_BYTES, C_FANOUT_SWEEPS, C_FANOUT_WAITED,
)
from flux.cext.fanout.player cimport (
    CLOSE_ENDED, CLOSE_LAPPED, CLOSE_LEFT, CLOSE_NOT, CLOSE_TOO_SLOW, PLAYER_BLOCKED, PLAYER_WAITING, player_block,
    player_hear, player_push, player_say_goodbye, player_send_error, player_unblock,
)
from flux.cext.reactor cimport (
    reactor_add, reactor_cancel_timer, reactor_clock_us, reactor_raise, reactor_remove, reactor_set_timer,
    reactor_unwatch, reactor_watch,
)
from flux.cext.ring cimport ring_alive, ring_commit_pos, ring_open, ring_valid

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* data, size_t length, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from "<sys/epoll.h>" nogil:
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP, EPOLLET

cdef extern from *:
    """
    #define flux_prefetch(address) __builtin_prefetch(address)
    """
    void flux_prefetch(const void* address) noexcept nogil

cdef enum:
    K_FIRST_ROOM = 8
    K_LAG_NUMERATOR = 3           # a player may be three quarters of the ring behind
    K_LAG_DENOMINATOR = 4
    K_PREFETCH = 4                # players ahead


cdef channel* channel_get(fanout_core* core, uint32_t slot, uint64_t generation, uint32_t kind) noexcept nogil:
    """The channel of a stream's ring, made if there is none; NULL when the stream is gone or memory is short.

    A new channel that gets no player must be given to channel_leave_empty.
    """
    cdef channel* c = core.by_ring[slot * K_RING_KINDS + kind]
    if c != NULL and not ring_alive(&c.feed.view):
        channel_close_all(c, CLOSE_ENDED)
        c = NULL
    if c == NULL:
        c = _open(core, slot, kind)
    if c != NULL and c.feed.view.generation != generation:
        channel_leave_empty(c)
        c = NULL
    return c


cdef channel* _open(fanout_core* core, uint32_t slot, uint32_t kind) noexcept nogil:
    cdef channel* c = <channel*>calloc(1, sizeof(channel))
    if c == NULL:
        return NULL
    if ring_open(&c.feed.view, core.arena, slot, kind) < 0:
        free(c)
        return NULL
    c.core = core
    c.slot = slot
    c.feed.kind = kind
    c.feed.max_lag_us = core.max_lag_us
    c.feed.lag_limit_bytes = c.feed.view.size // K_LAG_DENOMINATOR * K_LAG_NUMERATOR
    c.tick.ctx = c
    c.tick.fn = _on_tick
    c.watcher.ctx = c
    c.watcher.on_doorbell = _on_doorbell
    c.after = core.channels
    if c.after != NULL:
        c.after.before = c
    core.channels = c
    core.by_ring[slot * K_RING_KINDS + kind] = c
    core.counters[C_FANOUT_CHANNELS] += 1
    reactor_watch(core.reactor, &c.watcher)
    _subscribe(c)
    return c


cdef void _subscribe(channel* c) noexcept nogil:
    """Have the format made, and the doorbell rung, unless a round is due anyhow."""
    cdef uint64_t bit = <uint64_t>1 << c.core.arena.process
    if not load_relaxed_u64(&c.feed.view.ctl.wanted) & bit:
        or_seq_u64(&c.feed.view.ctl.wanted, bit)
    if c.tick.place == 0 and not load_relaxed_u64(&c.feed.view.ctl.subscribers) & bit:
        or_seq_u64(&c.feed.view.ctl.subscribers, bit)


cdef void channel_leave_empty(channel* c) noexcept nogil:
    """Ends a channel that has no players."""
    cdef uint64_t bit = <uint64_t>1 << c.core.arena.process
    if c.count or c.in_round:
        return
    # Also of a stream that was freed: a mark made just then would stay on the next one in its slot.
    and_seq_u64(&c.feed.view.ctl.subscribers, ~bit)
    and_seq_u64(&c.feed.view.ctl.wanted, ~bit)
    reactor_unwatch(c.core.reactor, &c.watcher)
    reactor_cancel_timer(c.core.reactor, &c.tick)
    if c.before != NULL:
        c.before.after = c.after
    else:
        c.core.channels = c.after
    if c.after != NULL:
        c.after.before = c.before
    c.core.by_ring[c.slot * K_RING_KINDS + c.feed.kind] = NULL
    c.core.counters[C_FANOUT_CHANNELS] -= 1
    free(c.players)
    free(c)


cdef int _make_room(channel* c) noexcept nogil:
    """Memory for one player more: in the channel, in the table, and for the news of its end."""
    cdef fanout_core* core = c.core
    cdef uint32_t room, i
    cdef void* grown
    if c.count == c.room:
        room = 2 * c.room if c.room else K_FIRST_ROOM
        grown = realloc(c.players, room * sizeof(player*))
        if grown == NULL:
            return -1
        c.players = <player**>grown
        c.room = room
    if core.free_place == 0:
        room = 2 * core.room if core.room else K_FIRST_ROOM
        grown = realloc(core.table, room * sizeof(player*))
        if grown == NULL:
            return -1
        core.table = <player**>grown
        grown = realloc(core.turns, room * sizeof(uint32_t))
        if grown == NULL:
            return -1
        core.turns = <uint32_t*>grown
        grown = realloc(core.next_free, room * sizeof(uint32_t))
        if grown == NULL:
            return -1
        core.next_free = <uint32_t*>grown
        for i in range(core.room, room):
            core.table[i] = NULL
            core.turns[i] = 0
            core.next_free[i] = i + 2 if i + 1 < room else 0
        core.free_place = core.room + 1
        core.room = room
    if core.closed_count + core.players >= core.closed_room:
        room = 2 * (core.closed_count + core.players + K_FIRST_ROOM)
        grown = realloc(core.closed, room * sizeof(closed_player))
        if grown == NULL:
            return -1
        core.closed = <closed_player*>grown
        core.closed_room = room
    return 0


cdef int channel_add(channel* c, player* p) noexcept nogil:
    """Take a player in, and its socket into the reactor: 0, or -1 when memory is short and nothing was done."""
    cdef fanout_core* core = c.core
    cdef uint32_t place
    cdef uint32_t* viewers = &c.feed.view.slot.viewers[core.arena.process]
    if _make_room(c) < 0:
        return -1
    p.channel = c
    p.handler.ctx = p
    p.handler.on_ready = _on_ready
    if reactor_add(core.reactor, &p.handler, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0:
        return -1
    place = core.free_place - 1
    core.free_place = core.next_free[place]
    core.turns[place] += 1
    core.table[place] = p
    p.serial = <uint64_t>core.turns[place] << 32 | place
    p.place = c.count
    c.players[c.count] = p
    c.count += 1
    core.players += 1
    core.counters[C_FANOUT_JOINED] += 1
    core.counters[C_FANOUT_PLAYERS] = core.players
    store_relaxed_u32(viewers, load_relaxed_u32(viewers) + 1)
    if core.care.place == 0:
        core.care.ctx = core
        core.care.fn = _on_care
        reactor_set_timer(core.reactor, &core.care, reactor_clock_us() + K_CARE_US)
    return 0


cdef void channel_start(channel* c, player* p) noexcept nogil:
    """The first bytes of a player that was added, at once. It may be closed after this."""
    cdef close_reason reason = player_push(p, &c.feed, reactor_clock_us())
    if p.flags & PLAYER_WAITING:
        c.core.counters[C_FANOUT_WAITED] += 1
    _count(c)
    if reason != CLOSE_NOT:
        channel_close(p, reason)


cdef void channel_hurry(channel* c) noexcept nogil:
    """The interval has changed: what is due by the old one is due now."""
    if c.tick.place:
        reactor_set_timer(c.core.reactor, &c.tick, reactor_clock_us())


cdef player* channel_player(fanout_core* core, uint64_t serial) noexcept nogil:
    """The player of that serial; NULL when it is gone."""
    cdef uint32_t place = <uint32_t>serial
    cdef player* p = core.table[place] if place < core.room else NULL
    return p if p != NULL and p.serial == serial else NULL


cdef void _count(channel* c) noexcept nogil:
    cdef uint64_t* counters = c.core.counters
    counters[C_FANOUT_SENDS] += c.feed.sends
    counters[C_FANOUT_SENT_BYTES] += c.feed.sent_bytes
    counters[C_FANOUT_BLOCKED] += c.feed.times_blocked
    counters[C_FANOUT_MOVED_ON] += c.feed.moved_on
    counters[C_FANOUT_SKIPPED_BYTES] += c.feed.skipped_bytes
    counters[C_FANOUT_PINGS] += c.feed.pings
    c.feed.sends = c.feed.sent_bytes = c.feed.times_blocked = c.feed.moved_on = c.feed.skipped_bytes = c.feed.pings = 0


cdef void _off_the_list(channel* c, player* p) noexcept nogil:
    """Closes the gap with the last player; a round under way misses nobody and serves nobody twice."""
    cdef uint32_t gap = p.place
    if gap < c.at:
        c.at -= 1
        c.players[gap] = c.players[c.at]
        c.players[gap].place = gap
        gap = c.at
    c.count -= 1
    if gap != c.count:
        c.players[gap] = c.players[c.count]
        c.players[gap].place = gap


cdef void channel_close(player* p, close_reason reason) noexcept nogil:
    """Ends a player: its socket is closed, its memory freed, and Python hears of it. An empty channel ends too."""
    cdef channel* c = <channel*>p.channel
    cdef fanout_core* core = c.core
    cdef uint32_t place = <uint32_t>p.serial
    cdef uint32_t* viewers = &c.feed.view.slot.viewers[core.arena.process]
    player_say_goodbye(p, reason)
    player_unblock(p, &c.feed)
    reactor_remove(core.reactor, &p.handler)
    close(p.handler.fd)
    core.closed[core.closed_count].serial = p.serial
    core.closed[core.closed_count].sent_bytes = p.sent_bytes
    core.closed[core.closed_count].reason = reason
    core.closed_count += 1
    reactor_raise(core.reactor, core.source)
    core.table[place] = NULL
    core.next_free[place] = core.free_place
    core.free_place = place + 1
    _off_the_list(c, p)
    core.players -= 1
    core.counters[C_FANOUT_CLOSED_LEFT + reason - 1] += 1
    core.counters[C_FANOUT_PLAYERS] = core.players
    if ring_alive(&c.feed.view) and load_relaxed_u32(viewers):
        store_relaxed_u32(viewers, load_relaxed_u32(viewers) - 1)
    free(p.front)
    free(p.websocket)
    free(p)
    if c.count == 0:
        channel_leave_empty(c)


cdef void channel_close_all(channel* c, close_reason reason) noexcept nogil:
    """Ends all players of a channel, and so the channel."""
    cdef bint was = c.in_round
    c.in_round = True
    while c.count:
        channel_close(c.players[c.count - 1], reason)
    c.in_round = was
    channel_leave_empty(c)


cdef void _on_ready(void* ctx, uint32_t events, int64_t now_us) noexcept nogil:
    cdef player* p = <player*>ctx
    cdef channel* c = <channel*>p.channel
    cdef close_reason reason = CLOSE_NOT
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        reason = player_hear(p, &c.feed, now_us)
        if reason == CLOSE_NOT and events & (EPOLLRDHUP | EPOLLHUP):
            reason = CLOSE_LEFT
    if reason == CLOSE_NOT and events & EPOLLOUT and p.flags & PLAYER_BLOCKED:
        player_unblock(p, &c.feed)
        reason = player_push(p, &c.feed, now_us)
    _count(c)
    if reason != CLOSE_NOT:
        channel_close(p, reason)


cdef void _arm(channel* c, int64_t now_us) noexcept nogil:
    """The next round, as soon as the interval allows. Until then no doorbell is of use."""
    cdef int64_t due_us = c.round_us + c.core.write_interval_us
    if due_us > now_us:
        and_seq_u64(&c.feed.view.ctl.subscribers, ~(<uint64_t>1 << c.core.arena.process))
    reactor_set_timer(c.core.reactor, &c.tick, due_us if due_us > now_us else now_us)


cdef void _on_doorbell(void* ctx, int64_t now_us) noexcept nogil:
    cdef channel* c = <channel*>ctx
    if c.tick.place == 0 and ring_commit_pos(&c.feed.view) != c.seen:
        _arm(c, now_us)


cdef void _on_tick(void* ctx, int64_t now_us) noexcept nogil:
    cdef channel* c = <channel*>ctx
    if not ring_alive(&c.feed.view):
        channel_close_all(c, CLOSE_ENDED)
        return
    if c.at == 0:
        c.seen = ring_commit_pos(&c.feed.view)
        # On the tick's grid as long as the loop keeps up, so that lateness does not add up.
        c.round_us = c.tick.deadline_us if now_us - c.tick.deadline_us < c.core.write_interval_us else now_us
        c.core.counters[C_FANOUT_SWEEPS] += 1
    c.in_round = True
    _sweep(c, now_us)
    c.in_round = False
    _count(c)
    if c.count == 0:
        channel_leave_empty(c)
    elif c.at < c.count:
        reactor_set_timer(c.core.reactor, &c.tick, now_us + 1)
    else:
        c.at = 0
        # First the mark, then the look: what is committed between them rings.
        _subscribe(c)
        if ring_commit_pos(&c.feed.view) != c.seen:
            _arm(c, now_us)


cdef void _sweep(channel* c, int64_t now_us) noexcept nogil:
    """Over the players from `at` on, until all were written to or the slice is used up.

    A player in step costs one send() of what the ring has gained since its cursor.
    """
    cdef feed* f = &c.feed
    cdef player* p
    cdef uint64_t commit, length
    cdef ssize_t n
    cdef close_reason reason
    while c.at < c.count:
        p = c.players[c.at]
        if c.at + K_PREFETCH < c.count:
            flux_prefetch(c.players[c.at + K_PREFETCH])
        c.at += 1
        if p.flags & PLAYER_BLOCKED:
            continue
        reason = CLOSE_NOT
        commit = ring_commit_pos(&f.view)
        length = commit - p.cursor
        if p.flags or length > f.lag_limit_bytes or not ring_valid(&f.view, p.cursor):
            reason = player_push(p, f, now_us)
        elif length:
            n = send(p.handler.fd, f.view.base + (p.cursor & f.view.mask), length, MSG_DONTWAIT | MSG_NOSIGNAL)
            f.sends += 1
            if n < 0 and errno != EAGAIN and errno != EINTR:
                reason = player_send_error()
            elif n > 0 and not ring_valid(&f.view, p.cursor):
                reason = CLOSE_LAPPED
            elif <uint64_t>n == length:
                p.cursor = p.boundary = commit
                p.sent_bytes += length
                f.sent_bytes += length
            else:
                if n > 0:
                    p.cursor += n
                    p.sent_bytes += n
                    f.sent_bytes += n
                if n > 0 or errno == EAGAIN:
                    player_block(p, f, n > 0, now_us)
        if reason != CLOSE_NOT:
            channel_close(p, reason)
        if c.at % K_SLICE_PLAYERS == 0 and reactor_clock_us() - now_us > K_SLICE_US:
            break


cdef void _on_care(void* ctx, int64_t now_us) noexcept nogil:
    """What no doorbell tells: streams that were freed, players that take nothing."""
    cdef fanout_core* core = <fanout_core*>ctx
    cdef channel* c = core.channels
    cdef channel* after
    cdef uint32_t i
    cdef player* p
    while c != NULL:
        after = c.after
        if not ring_alive(&c.feed.view):
            channel_close_all(c, CLOSE_ENDED)
        else:
            # Another user of the same ring in this process may have cleared our marks when it left.
            _subscribe(c)
            c.feed.max_lag_us = core.max_lag_us
            i = c.count if c.feed.blocked else 0
            c.in_round = True
            while i > 0:
                i -= 1
                p = c.players[i]
                if p.flags & PLAYER_BLOCKED and now_us - p.progress_us > core.slow_player_us:
                    channel_close(p, CLOSE_TOO_SLOW)
            c.in_round = False
            channel_leave_empty(c)
        c = after
    if core.players:
        reactor_set_timer(core.reactor, &core.care, now_us + K_CARE_US)
