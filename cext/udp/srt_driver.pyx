"""Drives an SRT endpoint over a UDP socket in a reactor: datagrams in, datagrams out, the endpoint's deadlines.

One turn, in the order that endpoint.pxd asks for: receive, handle_timeout if it is due, flush_sinks, poll_transmit,
next_timeout. A turn is caused by a datagram, by the timer, or by Python, which has just told the endpoint something.

Under load the socket leaves the epoll set and is read on a tick (docs/decisions/0003): wake-ups then come at most every
`poll_interval_us`, whatever the number of flows, and while all is calm, no losses, no newcomers, at most every
`calm_interval_us`. The endpoint's deadlines are kept to within a tick then; else they are kept to the microsecond.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from flux.cext.counters cimport C_UDP_SOCKET_ERRORS, C_UDP_TICKING, C_UDP_TICKS, C_UDP_WAKES
from flux.cext.reactor cimport (
    EventSource, Reactor, reactor as reactor_core, reactor_add, reactor_cancel_timer, reactor_clock_us, reactor_handler,
    reactor_modify, reactor_raise, reactor_remove, reactor_set_timer, reactor_source, reactor_timer
)
from flux.cext.srt.endpoint cimport (
    Endpoint, endpoint as endpoint_core, endpoint_flush_sinks, endpoint_handle_timeout, endpoint_has_events,
    endpoint_hurries, endpoint_next_timeout, endpoint_poll_transmit, endpoint_receive, srt_transmit
)
from flux.cext.udp.socket cimport (
    K_UDP_RECEIVE_MESSAGES, UdpSocket, udp_abandon, udp_message, udp_receive, udp_received, udp_send, udp_socket
)

cdef extern from "<sys/epoll.h>" nogil:
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

cdef enum:
    K_TRANSMITS = 32              # gathered for one sendmmsg
    K_TURN_RECEIVES = 16          # system calls of a turn that receive; others get their turn after them
    K_TURN_DATAGRAMS = 4096       # received in a turn
    K_TURN_SENDS = 64             # system calls of a turn that send
    K_BLOCKED_US = 20000          # a send buffer that stays full for so long: what waits is given up
    K_WINDOW = 16                 # wake-ups or ticks over which the load is judged
    K_QUEUED_BYTES = 2304         # what a datagram takes of a receive buffer, on loopback and most devices
    K_ROOM_SHARE = 4              # a calm tick may find this part of the buffer full

cdef struct srt_driver:
    endpoint_core* e
    udp_socket* socket
    reactor_core* r
    reactor_source* events
    srt_transmit* transmits       # K_TRANSMITS
    udp_message messages[K_TRANSMITS]
    uint32_t kept_first           # messages[kept_first:kept_end] wait for EPOLLOUT
    uint32_t kept_end
    int64_t blocked_since_us      # 0: not blocked
    int64_t poll_interval_us
    int64_t calm_interval_us
    int64_t tick_us               # the present interval, one of these two
    int64_t received_us           # when the socket was read last
    int64_t calm_datagrams        # that a calm tick may find
    int64_t window_since_us
    uint32_t window_used
    uint32_t window_intervals     # poll intervals of the window's ticks
    uint32_t window_busy          # ... in which a datagram came, at the most
    bint ticking
    bint more                     # the turn ended at its bound
    bint open
    uint32_t watched              # EPOLL* bits that the reactor waits for
    reactor_handler handler
    reactor_timer timer


cdef void watch(srt_driver* d) noexcept nogil:
    """Waits for what is wanted now; for nothing while ticking, which costs the kernel nothing per datagram."""
    cdef uint32_t wanted = 0
    if d.open and not d.ticking:
        wanted |= EPOLLIN
    if d.open and d.blocked_since_us:
        wanted |= EPOLLOUT
    if wanted == d.watched:
        return
    if d.watched == 0:
        reactor_add(d.r, &d.handler, wanted)
    elif wanted == 0:
        reactor_remove(d.r, &d.handler)
    else:
        reactor_modify(d.r, &d.handler, wanted)
    d.watched = wanted


cdef void set_ticking(srt_driver* d, bint ticking, int64_t now_us) noexcept nogil:
    d.ticking = ticking
    d.socket.counters[C_UDP_TICKING] += 1 if ticking else <uint64_t>-1
    d.tick_us = d.poll_interval_us
    d.received_us = now_us
    d.window_since_us = now_us
    d.window_used = d.window_intervals = d.window_busy = 0


cdef void judge_wake(srt_driver* d, int64_t now_us) noexcept nogil:
    """Begins to tick when wake-ups come faster than ticks would."""
    if d.poll_interval_us == 0:
        return
    if now_us - d.window_since_us > K_WINDOW * d.poll_interval_us:
        d.window_since_us = now_us
        d.window_used = 0
    d.window_used += 1
    if d.window_used >= K_WINDOW:
        set_ticking(d, True, now_us)


cdef void judge_tick(srt_driver* d, uint32_t datagrams, int64_t now_us) noexcept nogil:
    """Sets the interval to the next tick; goes back to waiting when fewer come than one each other poll interval."""
    cdef uint32_t intervals = <uint32_t>(d.tick_us // d.poll_interval_us)
    cdef bint calm = (not endpoint_hurries(d.e, now_us)
                      and datagrams * d.calm_interval_us < d.calm_datagrams * d.tick_us)
    d.window_used += 1
    d.window_intervals += intervals
    d.window_busy += min(datagrams, intervals)
    d.tick_us = max(d.calm_interval_us, d.poll_interval_us) if calm else d.poll_interval_us
    if d.window_used < K_WINDOW:
        return
    if 2 * d.window_busy < d.window_intervals:
        set_ticking(d, False, now_us)
    d.window_used = d.window_intervals = d.window_busy = 0


cdef uint32_t receive(srt_driver* d, int64_t turn_us) noexcept nogil:
    """Gives the endpoint what has come, up to the turn's bound; how many datagrams that were.

    What a tick finds has come half a tick before, on average: that is what its round trip and its delay are taken from.
    """
    cdef udp_received* r
    cdef int64_t now_us
    cdef int64_t waited_us = min(turn_us - d.received_us, d.tick_us) // 2 if d.ticking else 0
    cdef uint32_t at, length
    cdef uint32_t datagrams = 0
    cdef int n, i
    d.received_us = turn_us
    cdef uint32_t _round
    for _round in range(K_TURN_RECEIVES):
        n = udp_receive(d.socket)
        if n < 0:
            d.socket.counters[C_UDP_SOCKET_ERRORS] += 1
            return datagrams
        now_us = reactor_clock_us() - waited_us
        for i in range(n):
            r = &d.socket.received[i]
            at = 0
            while at < r.length:
                length = r.length - at
                if length > r.segment_bytes:
                    length = r.segment_bytes
                endpoint_receive(d.e, r.address, r.address_bytes, r.data + at, length, now_us)
                datagrams += 1
                at += length
        if n < K_UDP_RECEIVE_MESSAGES:
            return datagrams
        if datagrams >= K_TURN_DATAGRAMS:
            break
    d.more = True
    return datagrams


cdef bint send_kept(srt_driver* d, int64_t now_us) noexcept nogil:
    """Sends what an earlier turn gathered. False while the send buffer is full; after K_BLOCKED_US it is given up."""
    d.kept_first += udp_send(d.socket, d.messages + d.kept_first, d.kept_end - d.kept_first)
    if d.kept_first < d.kept_end:
        if d.blocked_since_us == 0:
            d.blocked_since_us = now_us
        if now_us - d.blocked_since_us < K_BLOCKED_US:
            return False
        udp_abandon(d.socket, d.messages + d.kept_first, d.kept_end - d.kept_first)
    d.kept_first = d.kept_end = 0
    d.blocked_since_us = 0
    return True


cdef void transmit(srt_driver* d, int64_t now_us) noexcept nogil:
    """Sends what the endpoint has to send, many destinations in one system call."""
    cdef srt_transmit* t
    cdef udp_message* m
    cdef uint32_t n
    cdef uint32_t _round
    for _round in range(K_TURN_SENDS):
        n = 0
        while n < K_TRANSMITS and endpoint_poll_transmit(d.e, &d.transmits[n], now_us):
            t = &d.transmits[n]
            m = &d.messages[n]
            m.address_bytes = t.address_bytes
            m.iov_count = t.iov_count
            m.datagrams = t.datagrams
            m.segment_bytes = t.segment_bytes
            m.total_bytes = t.total_bytes
            n += 1
        if n == 0:
            return
        d.kept_first = 0
        d.kept_end = n
        if not send_kept(d, now_us) or n < K_TRANSMITS:
            return
    d.more = True


cdef void set_timer(srt_driver* d, int64_t now_us) noexcept nogil:
    cdef int64_t deadline_us
    if d.more:
        deadline_us = now_us
    elif d.ticking:
        # On multiples of the interval, as the endpoint's own grids.
        deadline_us = (now_us // d.tick_us + 1) * d.tick_us
    elif d.blocked_since_us:
        deadline_us = d.blocked_since_us + K_BLOCKED_US
    else:
        deadline_us = endpoint_next_timeout(d.e)
        if deadline_us == INT64_MAX:
            reactor_cancel_timer(d.r, &d.timer)
            return
        deadline_us = max(deadline_us, now_us + 1)
    reactor_set_timer(d.r, &d.timer, deadline_us)


cdef uint32_t turn(srt_driver* d, bint readable, int64_t now_us) noexcept nogil:
    """One turn; gives how many datagrams were received."""
    cdef uint32_t datagrams = 0
    if not d.open:
        return 0
    d.more = False
    if readable:
        datagrams = receive(d, now_us)
        if datagrams:
            now_us = reactor_clock_us()
    # What is kept lies in the endpoint's memory, which is good until the next handle_timeout.
    if d.kept_end == 0 or send_kept(d, now_us):
        if endpoint_next_timeout(d.e) <= now_us:
            endpoint_handle_timeout(d.e, now_us)
        endpoint_flush_sinks(d.e, now_us)
        transmit(d, now_us)
    else:
        endpoint_flush_sinks(d.e, now_us)
    if endpoint_has_events(d.e):
        reactor_raise(d.r, d.events)
    return datagrams


cdef void on_ready(void* ctx, uint32_t events, int64_t now_us) noexcept nogil:
    cdef srt_driver* d = <srt_driver*>ctx
    d.socket.counters[C_UDP_WAKES] += 1
    if turn(d, (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0, now_us):
        judge_wake(d, now_us)
    watch(d)
    set_timer(d, now_us)


cdef void on_timer(void* ctx, int64_t now_us) noexcept nogil:
    cdef srt_driver* d = <srt_driver*>ctx
    cdef uint32_t datagrams = turn(d, d.ticking, now_us)
    if d.ticking:
        d.socket.counters[C_UDP_TICKS] += 1
        judge_tick(d, datagrams, now_us)
    watch(d)
    set_timer(d, now_us)


@cython.no_gc_clear
cdef class SrtDriver:
    """SrtDriver(sock, reactor, endpoint, on_events, counters=None, *, poll_interval_us=2000, calm_interval_us=0,
    buffer_bytes=0, gso=True, gro=True): runs from now to close().

    sock: a bound socket.socket, IPv4 or IPv6. on_events(): called after a turn while the endpoint has events for
    next_event(). counters: writable uint64 memoryview (Arena.my_counters). poll_interval_us: 0 wakes for each
    datagram. calm_interval_us: where it is longer, it is used while there is no hurry. buffer_bytes: wanted size of both
    kernel buffers; 0: as they are.
    """
    cdef srt_driver core
    cdef readonly UdpSocket socket
    cdef readonly Endpoint endpoint
    cdef readonly EventSource events
    cdef Reactor reactor

    def __cinit__(self, sock, Reactor reactor not None, Endpoint endpoint not None, on_events, counters=None, *,
                  int64_t poll_interval_us=2000, int64_t calm_interval_us=0, int buffer_bytes=0, bint gso=True,
                  bint gro=True):
        cdef srt_driver* d = &self.core
        cdef uint32_t i
        cdef int rc
        self.reactor = reactor
        self.endpoint = endpoint
        self.socket = UdpSocket(sock, counters, gso=gso, gro=gro, buffer_bytes=buffer_bytes)
        d.transmits = <srt_transmit*>calloc(K_TRANSMITS, sizeof(srt_transmit))
        if d.transmits == NULL:
            raise MemoryError
        for i in range(K_TRANSMITS):
            d.messages[i].address = d.transmits[i].address
            d.messages[i].iov = d.transmits[i].iov
        self.events = EventSource(reactor, on_events)
        d.e = endpoint.handle
        d.socket = &self.socket.view
        d.r = &reactor.core
        d.events = &self.events.view
        d.poll_interval_us = poll_interval_us
        d.calm_interval_us = calm_interval_us
        d.calm_datagrams = 2 * self.socket.receive_buffer_bytes // (K_QUEUED_BYTES * K_ROOM_SHARE)
        d.handler.fd = self.socket.view.fd
        d.handler.ctx = d
        d.handler.on_ready = on_ready
        d.timer.ctx = d
        d.timer.fn = on_timer
        rc = reactor_add(d.r, &d.handler, EPOLLIN)
        if rc < 0:
            raise OSError(-rc, "epoll_ctl of the SRT socket")
        d.watched = EPOLLIN
        d.open = True

    def __dealloc__(self):
        if self.reactor is not None:
            self._stop()
        free(self.core.transmits)

    def turn(self):
        """Sends and schedules at once what the endpoint was told by Python; call it after the last of a batch of calls."""
        cdef int64_t now_us = reactor_clock_us()
        with nogil:
            turn(&self.core, False, now_us)
            if self.core.open:
                watch(&self.core)
                set_timer(&self.core, now_us)

    def close(self):
        """Ends; the socket is its owner's. What was sent is on its way, what the endpoint still wants to send is not."""
        self._stop()
        self.events.close()

    cdef _stop(self):
        if not self.core.open:
            return
        if self.core.ticking:
            set_ticking(&self.core, False, 0)
        self.core.open = False
        watch(&self.core)
        reactor_cancel_timer(self.core.r, &self.core.timer)

    @property
    def ticking(self):
        """Whether the socket is read on the tick at present."""
        return self.core.ticking

    @property
    def tick_us(self):
        """The present interval of the tick; 0 while it is not ticking."""
        return self.core.tick_us if self.core.ticking else 0

    @property
    def calm_interval_us(self):
        """How often the socket is read while all is calm (µs)."""
        return self.core.calm_interval_us

    @calm_interval_us.setter
    def calm_interval_us(self, int64_t value):
        self.core.calm_interval_us = value

    @property
    def poll_interval_us(self):
        """How often the socket is read under load (µs); 0: at each datagram."""
        return self.core.poll_interval_us

    @poll_interval_us.setter
    def poll_interval_us(self, int64_t value):
        self.core.poll_interval_us = value
        if not self.core.ticking:
            return
        self.core.tick_us = value
        if value == 0:
            set_ticking(&self.core, False, 0)
            watch(&self.core)
            set_timer(&self.core, reactor_clock_us())
