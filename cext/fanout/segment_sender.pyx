"""Sends HLS segments out of a stream's HLS area, whole or in part, with a response's head in front.

The socket stays its connection's, which waits meanwhile. After each send it is checked that the segment's bytes were
still there: they may be written over while a slow client takes them, and then the connection must be closed.
"""

cimport cython
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from flux.cext.arena cimport hls_segment
from flux.cext.counters cimport C_FANOUT_SEGMENT_BYTES, C_FANOUT_SEGMENTS_STALLED
from flux.cext.media.hls cimport HlsReader, hls_find, hls_valid, hls_view
from flux.cext.reactor cimport (
    EventSource, Reactor, reactor as c_reactor, reactor_add, reactor_cancel_timer, reactor_clock_us, reactor_handler, reactor_raise,
    reactor_remove, reactor_set_timer, reactor_source, reactor_timer,
)

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from "<sys/epoll.h>" nogil:
    uint32_t EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLET

cdef enum:
    K_SLICE_BYTES = 1 << 20       # sent at once; others have their turn before the next

cdef enum outcome:
    UNDER_WAY = 0
    SENT = 1
    LAPPED = 2
    LEFT = 3
    LOST = 4
    TOO_SLOW = 5

K_OUTCOMES = ("", "sent", "lapped", "left", "lost", "too_slow")

cdef struct transfer:
    reactor_handler handler
    reactor_timer timer           # the end of patience, or the next slice
    sender_core* core
    hls_view view
    uint64_t pos                  # of the segment
    uint64_t at
    uint64_t end
    uint8_t* head
    uint32_t head_at
    uint32_t head_bytes
    int64_t progress_us
    bint waits                    # in the reactor
    bint told                     # it is over, and Python will hear of it
    outcome result
    transfer* before
    transfer* after

cdef struct sender_core:
    c_reactor* reactor
    reactor_source* source
    uint64_t* counters
    int64_t slow_us
    transfer* transfers


class SegmentGone(LookupError):
    """The segment was written over or given back; nothing of it was sent."""


cdef outcome _push(transfer* t, int64_t now_us) noexcept nogil:
    """Send until the socket is full, the slice is used up, or all is out."""
    cdef iovec parts[2]
    cdef msghdr message
    cdef uint64_t slice_end = t.at + K_SLICE_BYTES
    cdef uint64_t left
    cdef uint32_t head_left
    cdef ssize_t n
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    if slice_end > t.end:
        slice_end = t.end
    while t.at < slice_end or t.head_at < t.head_bytes:
        head_left = t.head_bytes - t.head_at
        left = slice_end - t.at
        parts[0].iov_base = t.head + t.head_at
        parts[0].iov_len = head_left
        parts[1].iov_base = t.view.base + (t.at & t.view.mask)
        parts[1].iov_len = left
        message.msg_iovlen = 2
        n = sendmsg(t.handler.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return UNDER_WAY
            return LEFT if errno == EPIPE or errno == ECONNRESET else LOST
        t.progress_us = now_us
        if not hls_valid(&t.view, t.pos):
            return LAPPED
        if <size_t>n < head_left:
            t.head_at += <uint32_t>n
        else:
            t.head_at = t.head_bytes
            t.at += n - head_left
            t.core.counters[C_FANOUT_SEGMENT_BYTES] += n - head_left
    if t.at == t.end:
        return SENT
    reactor_set_timer(t.core.reactor, &t.timer, now_us + 1)
    return UNDER_WAY


cdef void _stop_waiting(transfer* t) noexcept nogil:
    if t.waits:
        reactor_remove(t.core.reactor, &t.handler)
        t.waits = False
    reactor_cancel_timer(t.core.reactor, &t.timer)


cdef void _tell(transfer* t, outcome result) noexcept nogil:
    if result == UNDER_WAY:
        return
    _stop_waiting(t)
    t.result = result
    t.told = True
    reactor_raise(t.core.reactor, t.core.source)


cdef void _on_ready(void* ctx, uint32_t events, int64_t now_us) noexcept nogil:
    cdef transfer* t = <transfer*>ctx
    if events & (EPOLLERR | EPOLLHUP):
        _tell(t, LEFT)
    else:
        _tell(t, _push(t, now_us))
        _be_patient(t, now_us)


cdef void _on_timer(void* ctx, int64_t now_us) noexcept nogil:
    cdef transfer* t = <transfer*>ctx
    if now_us - t.progress_us >= t.core.slow_us:
        t.core.counters[C_FANOUT_SEGMENTS_STALLED] += 1
        _tell(t, TOO_SLOW)
    else:
        _tell(t, _push(t, now_us))
        _be_patient(t, now_us)


cdef void _be_patient(transfer* t, int64_t now_us) noexcept nogil:
    """Unless the next slice is due anyhow."""
    if not t.told and t.timer.place == 0:
        reactor_set_timer(t.core.reactor, &t.timer, now_us + t.core.slow_us)


cdef void _unlink(transfer* t) noexcept nogil:
    _stop_waiting(t)
    if t.before != NULL:
        t.before.after = t.after
    else:
        t.core.transfers = t.after
    if t.after != NULL:
        t.after.before = t.before
    free(t.head)
    free(t)


@cython.no_gc_clear
cdef class SegmentSender:
    """SegmentSender(reactor, counters, on_done, slow_us=…).

    counters: writable uint64 memoryview. on_done(list of (token, outcome)) for transfers that were under way when send()
    returned; outcome: "sent"; or "lapped", "left", "lost", "too_slow", after which the connection is to be closed.
    slow_us: a client that takes no byte for so long is given up.
    """

    cdef sender_core core
    cdef Reactor reactor
    cdef EventSource events
    cdef object counters
    cdef object on_done
    cdef dict readers             # of the transfers under way, which use their mappings

    def __cinit__(self, Reactor reactor not None, uint64_t[::1] counters not None, on_done, *, int64_t slow_us=10_000_000):
        memset(&self.core, 0, sizeof(self.core))
        self.reactor = reactor
        self.counters = counters
        self.on_done = on_done
        self.readers = {}
        self.events = EventSource(reactor, self._tell_done)
        self.core.reactor = &reactor.core
        self.core.source = &self.events.view
        self.core.counters = &counters[0]
        self.core.slow_us = slow_us

    def __dealloc__(self):
        while self.core.transfers != NULL:
            _unlink(self.core.transfers)

    def configure(self, int64_t slow_us):
        """Takes over another patience."""
        self.core.slow_us = slow_us

    @property
    def under_way(self):
        """How many transfers there are."""
        return len(self.readers)

    def send(self, int fd, HlsReader reader not None, uint64_t sequence, uint64_t first, uint64_t count,
             const uint8_t[::1] head not None):
        """Send `head`, then `count` bytes of the segment from its byte `first` on, to the non-blocking socket `fd`.

        Gives the outcome if it is known at once, else a token (an int) for which on_done will be called; until then the
        descriptor must stay open, or cancel() be called. Raises SegmentGone, with nothing sent, and MemoryError.
        """
        cdef hls_segment segment
        cdef transfer* t
        cdef outcome result
        cdef int64_t now_us = reactor_clock_us()
        if hls_find(&reader.view, sequence, &segment) != 0 or first + count > segment.length:
            raise SegmentGone(f"segment {sequence} is gone")
        t = <transfer*>calloc(1, sizeof(transfer))
        if t == NULL:
            raise MemoryError
        t.head = <uint8_t*>malloc(head.shape[0] or 1)
        if t.head == NULL:
            free(t)
            raise MemoryError
        t.head_bytes = <uint32_t>head.shape[0]
        if t.head_bytes:
            memcpy(t.head, &head[0], t.head_bytes)
        t.handler.fd = fd
        t.handler.ctx = t
        t.handler.on_ready = _on_ready
        t.timer.ctx = t
        t.timer.fn = _on_timer
        t.core = &self.core
        t.view = reader.view
        t.pos = segment.pos
        t.at = segment.pos + first
        t.end = t.at + count
        t.progress_us = now_us
        t.after = self.core.transfers
        if t.after != NULL:
            t.after.before = t
        self.core.transfers = t
        result = _push(t, now_us)
        if result == UNDER_WAY and reactor_add(self.core.reactor, &t.handler, EPOLLOUT | EPOLLET) == 0:
            t.waits = True
            _be_patient(t, now_us)
            self.readers[<uint64_t>t] = reader
            return <uint64_t>t
        _unlink(t)
        return K_OUTCOMES[LOST if result == UNDER_WAY else result]

    def cancel(self, uint64_t token):
        """Forget a transfer, if it is under way still."""
        if self.readers.pop(token, None) is not None:
            _unlink(<transfer*>token)

    def close(self):
        """Forget all transfers."""
        for token in list(self.readers):
            self.cancel(token)
        self.events.close()

    def _tell_done(self):
        cdef transfer* t = self.core.transfers
        cdef transfer* after
        done = []
        while t != NULL:
            after = t.after
            if t.told:
                done.append((<uint64_t>t, K_OUTCOMES[t.result]))
                del self.readers[<uint64_t>t]
                _unlink(t)
            t = after
        if done:
            self.on_done(done)
