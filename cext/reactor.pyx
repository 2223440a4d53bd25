"""The wait of a worker's media I/O: one epoll set and one timerfd, seen by the outer loop as one readable fd.

    loop.add_reader(reactor.fd, reactor.run_once)

Handlers, timers and doorbell watchers are C functions. Python hears of what happened through event sources: a C
function raises a source, and the source's callback runs once at the end of the run_once in which it was raised.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from flux.cext.arena cimport Arena
from flux.cext.atomics cimport exchange_seq_u32

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLLIN
    uint32_t EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int clockid, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* old)


cdef int64_t reactor_clock_us() noexcept nogil:
    """CLOCK_MONOTONIC in µs."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000 + t.tv_nsec // 1000


cdef int reactor_add(reactor* r, reactor_handler* handler, uint32_t events) noexcept nogil:
    """Waits for EPOLL* `events` of handler.fd. 0, or -errno."""
    cdef epoll_event e
    e.events = events
    e.data.ptr = handler
    return 0 if epoll_ctl(r.epoll_fd, EPOLL_CTL_ADD, handler.fd, &e) == 0 else -errno


cdef int reactor_modify(reactor* r, reactor_handler* handler, uint32_t events) noexcept nogil:
    """Changes what is waited for. 0, or -errno."""
    cdef epoll_event e
    e.events = events
    e.data.ptr = handler
    return 0 if epoll_ctl(r.epoll_fd, EPOLL_CTL_MOD, handler.fd, &e) == 0 else -errno


cdef void reactor_remove(reactor* r, reactor_handler* handler) noexcept nogil:
    """Ends waiting; call it before the descriptor is closed. What epoll has already told of it is dropped."""
    cdef epoll_event e
    cdef uint32_t i
    e.events = 0
    e.data.ptr = NULL
    epoll_ctl(r.epoll_fd, EPOLL_CTL_DEL, handler.fd, &e)
    for i in range(r.batch_at, r.batch_used):
        if r.batch[i].handler == handler:
            r.batch[i].handler = NULL


cdef void sift_up(reactor* r, uint32_t i) noexcept nogil:
    cdef reactor_timer* t = r.heap[i]
    cdef uint32_t up
    while i > 0:
        up = (i - 1) >> 1
        if r.heap[up].deadline_us <= t.deadline_us:
            break
        r.heap[i] = r.heap[up]
        r.heap[i].place = i + 1
        i = up
    r.heap[i] = t
    t.place = i + 1


cdef void sift_down(reactor* r, uint32_t i) noexcept nogil:
    cdef reactor_timer* t = r.heap[i]
    cdef uint32_t down
    while True:
        down = 2 * i + 1
        if down >= r.timers:
            break
        if down + 1 < r.timers and r.heap[down + 1].deadline_us < r.heap[down].deadline_us:
            down += 1
        if t.deadline_us <= r.heap[down].deadline_us:
            break
        r.heap[i] = r.heap[down]
        r.heap[i].place = i + 1
        i = down
    r.heap[i] = t
    t.place = i + 1


cdef void arm(reactor* r, int64_t deadline_us) noexcept nogil:
    cdef itimerspec spec
    spec.it_interval.tv_sec = 0
    spec.it_interval.tv_nsec = 0
    spec.it_value.tv_sec = deadline_us // 1000000
    spec.it_value.tv_nsec = (deadline_us % 1000000) * 1000
    timerfd_settime(r.timer_fd, TFD_TIMER_ABSTIME, &spec, NULL)
    r.armed_us = deadline_us


cdef void arm_first(reactor* r) noexcept nogil:
    """Sets the timerfd to the first deadline. One that fired is left alone while there is nothing to wait for."""
    cdef int64_t first
    if r.raised_first != NULL and not r.running:
        first = 1
    elif r.timers == 0:
        return
    else:
        first = r.heap[0].deadline_us
        if first < 1:
            first = 1
    if r.armed_us == 0 or first < r.armed_us:
        arm(r, first)


cdef int reactor_set_timer(reactor* r, reactor_timer* timer, int64_t deadline_us) noexcept nogil:
    """Sets a timer, or moves one that is set; it runs once. 0, or -1 when memory is short."""
    cdef reactor_timer** grown
    cdef uint32_t room, i
    cdef bint earlier
    if timer.place == 0:
        if r.timers == r.timers_room:
            room = 2 * r.timers_room if r.timers_room else 64
            grown = <reactor_timer**>realloc(r.heap, room * sizeof(reactor_timer*))
            if grown == NULL:
                return -1
            r.heap = grown
            r.timers_room = room
        timer.deadline_us = deadline_us
        r.heap[r.timers] = timer
        r.timers += 1
        sift_up(r, r.timers - 1)
    else:
        i = timer.place - 1
        earlier = deadline_us < timer.deadline_us
        timer.deadline_us = deadline_us
        if earlier:
            sift_up(r, i)
        else:
            sift_down(r, i)
    if not r.running:
        arm_first(r)
    return 0


cdef void reactor_cancel_timer(reactor* r, reactor_timer* timer) noexcept nogil:
    """Unsets a timer; one that is not set is left as it is."""
    cdef uint32_t i
    if timer.place == 0:
        return
    i = timer.place - 1
    timer.place = 0
    r.timers -= 1
    if i == r.timers:
        return
    r.heap[i] = r.heap[r.timers]
    r.heap[i].place = i + 1
    sift_up(r, i)
    sift_down(r, r.heap[i].place - 1)


cdef void reactor_watch(reactor* r, reactor_watcher* watcher) noexcept nogil:
    """Runs the watcher after each doorbell. It looks at its ring's commit position itself: a doorbell may be
    another ring's. Subscribing to the ring's doorbell (ring_ctl.subscribers) is the caller's."""
    watcher.before = NULL
    watcher.after = r.watchers
    if r.watchers != NULL:
        r.watchers.before = watcher
    r.watchers = watcher


cdef void reactor_unwatch(reactor* r, reactor_watcher* watcher) noexcept nogil:
    if watcher.before == NULL and r.watchers != watcher:
        return
    if r.next_watcher == watcher:
        r.next_watcher = watcher.after
    if watcher.before != NULL:
        watcher.before.after = watcher.after
    else:
        r.watchers = watcher.after
    if watcher.after != NULL:
        watcher.after.before = watcher.before
    watcher.before = NULL
    watcher.after = NULL


cdef void reactor_raise(reactor* r, reactor_source* source) noexcept nogil:
    """Has the source's Python callback run at the end of this run_once, or of a run_once soon."""
    if source.raised:
        return
    source.raised = 1
    source.after = NULL
    if r.raised_last != NULL:
        r.raised_last.after = source
    else:
        r.raised_first = source
    r.raised_last = source
    if not r.running:
        arm_first(r)


cdef void on_doorbell(void* ctx, uint32_t events, int64_t now_us) noexcept nogil:
    """`rung` is cleared before any position is looked at: a commit after that rings again, one before it is seen.
    The eventfd is edge-triggered and never read."""
    cdef reactor* r = <reactor*>ctx
    cdef reactor_watcher* watcher = r.watchers
    exchange_seq_u32(&r.slab.rung, 0)
    r.doorbells += 1
    while watcher != NULL:
        r.next_watcher = watcher.after
        watcher.on_doorbell(watcher.ctx, now_us)
        watcher = r.next_watcher


cdef void run_timers(reactor* r) noexcept nogil:
    """Due timers, each at most about once: one that sets itself again to the past can't hold the loop."""
    cdef uint32_t left = r.timers
    cdef reactor_timer* timer
    while left > 0 and r.timers > 0 and r.heap[0].deadline_us <= r.now_us:
        left -= 1
        timer = r.heap[0]
        reactor_cancel_timer(r, timer)
        timer.fn(timer.ctx, r.now_us)


cdef class EventSource:
    """Ties a C object's events to one Python callback: EventSource(reactor, callback). Call close() at the end."""

    def __cinit__(self, Reactor reactor, callback):
        self.reactor = reactor
        self.callback = callback
        self.view.owner = <void*>self
        reactor.sources.add(self)

    def close(self):
        """The callback runs no more, not even for what was raised before."""
        cdef reactor* r = &self.reactor.core
        cdef reactor_source* before = NULL
        cdef reactor_source* source = r.raised_first
        while source != NULL and source != &self.view:
            before = source
            source = source.after
        if source != NULL:
            if before != NULL:
                before.after = source.after
            else:
                r.raised_first = source.after
            if r.raised_last == source:
                r.raised_last = before
            source.raised = 0
        self.reactor.sources.discard(self)
        self.callback = None


@cython.no_gc_clear
cdef class Timer:
    """A timer for Python, for what happens seldom: Timer(reactor, callback)."""

    def __cinit__(self, Reactor reactor, callback):
        self.reactor = reactor
        self.events = EventSource(reactor, callback)
        self.timer.ctx = <void*>self
        self.timer.fn = on_timer

    def __dealloc__(self):
        if self.reactor is not None:
            reactor_cancel_timer(&self.reactor.core, &self.timer)

    def set(self, int64_t deadline_us):
        """Runs the callback once at `deadline_us` (CLOCK_MONOTONIC µs), in place of what was set before."""
        if reactor_set_timer(&self.reactor.core, &self.timer, deadline_us) < 0:
            raise MemoryError

    def cancel(self):
        reactor_cancel_timer(&self.reactor.core, &self.timer)

    def close(self):
        reactor_cancel_timer(&self.reactor.core, &self.timer)
        self.events.close()


cdef void on_timer(void* ctx, int64_t now_us) noexcept nogil:
    raise_source(ctx, 0)


cdef void on_watched(void* ctx, int64_t now_us) noexcept nogil:
    raise_source(ctx, 1)


cdef void raise_source(void* ctx, int kind) noexcept with gil:
    cdef EventSource events = (<Timer>ctx).events if kind == 0 else (<Doorbell>ctx).events
    reactor_raise(&events.reactor.core, &events.view)


@cython.no_gc_clear
cdef class Doorbell:
    """A doorbell watcher for Python: Doorbell(reactor, callback); the callback runs after each wake with a ring."""

    def __cinit__(self, Reactor reactor, callback):
        self.reactor = reactor
        self.events = EventSource(reactor, callback)
        self.watcher.ctx = <void*>self
        self.watcher.on_doorbell = on_watched
        reactor_watch(&reactor.core, &self.watcher)

    def __dealloc__(self):
        if self.reactor is not None:
            reactor_unwatch(&self.reactor.core, &self.watcher)

    def close(self):
        reactor_unwatch(&self.reactor.core, &self.watcher)
        self.events.close()


@cython.no_gc_clear
cdef class Reactor:
    """One epoll set with a timerfd: Reactor(arena=None). The arena, if given, is one this process has joined; its
    doorbell then runs the watchers."""

    def __cinit__(self, Arena arena=None):
        self.core.epoll_fd = -1
        self.core.timer_fd = -1
        self.sources = set()
        self.core.batch = <reactor_event*>calloc(K_REACTOR_EVENTS, sizeof(reactor_event))
        if self.core.batch == NULL:
            raise MemoryError
        self.core.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        self.core.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.core.epoll_fd < 0 or self.core.timer_fd < 0:
            raise OSError(errno, "no descriptors left for a reactor")
        self.core.now_us = reactor_clock_us()
        cdef epoll_event e
        e.events = EPOLLIN | EPOLLET
        e.data.ptr = NULL
        if epoll_ctl(self.core.epoll_fd, EPOLL_CTL_ADD, self.core.timer_fd, &e) < 0:
            raise OSError(errno, "epoll_ctl of the timer")
        if arena is not None:
            self._attach(arena)

    def _attach(self, Arena arena):
        cdef int rc
        if arena.view.mine == NULL:
            raise ValueError("this process has not joined the arena")
        self.arena = arena
        self.core.slab = arena.view.mine
        self.core.doorbell.fd = arena.view.doorbell
        self.core.doorbell.ctx = &self.core
        self.core.doorbell.on_ready = on_doorbell
        rc = reactor_add(&self.core, &self.core.doorbell, EPOLLIN | EPOLLET)
        if rc < 0:
            raise OSError(-rc, "epoll_ctl of the doorbell")

    def __dealloc__(self):
        self.close()
        free(self.core.heap)
        free(self.core.batch)

    def close(self):
        """Closes the epoll set and the timer; nothing runs any more. The descriptors of handlers are their owners'."""
        if self.core.epoll_fd >= 0:
            close(self.core.epoll_fd)
        if self.core.timer_fd >= 0:
            close(self.core.timer_fd)
        self.core.epoll_fd = -1
        self.core.timer_fd = -1

    @property
    def fd(self):
        """Readable while there is something to do; give it to the outer loop's add_reader."""
        return self.core.epoll_fd

    @property
    def now_us(self):
        """CLOCK_MONOTONIC in µs, as read at the latest wake."""
        return self.core.now_us

    @property
    def timers(self):
        """How many timers are set."""
        return self.core.timers

    @property
    def wakes(self):
        """How often run_once has run."""
        return self.core.wakes

    @property
    def doorbells(self):
        """How many wakes by the arena's doorbell there were."""
        return self.core.doorbells

    def run_once(self, int64_t timeout_us=0):
        """Handles what is ready: at most K_REACTOR_EVENTS descriptors, the due timers, then Python's callbacks.

        Waits up to `timeout_us` (rounded up to ms; negative: without end) for something to be ready. The number of
        ready descriptors is returned. An exception of a callback is raised after the other callbacks have run.
        """
        cdef int n
        with nogil:
            n = self._run(timeout_us)
        try:
            if self.core.raised_first != NULL:
                self._call_back()
        finally:
            # Only now, so that what was called back already makes no second wake.
            self.core.running = False
            arm_first(&self.core)
        return n

    cdef int _run(self, int64_t timeout_us) noexcept nogil:
        cdef reactor* r = &self.core
        cdef epoll_event ready[K_REACTOR_EVENTS]
        cdef reactor_handler* handler
        cdef int n, i
        cdef int timeout_ms = -1 if timeout_us < 0 else <int>((timeout_us + 999) // 1000)
        n = epoll_wait(r.epoll_fd, ready, K_REACTOR_EVENTS, timeout_ms)
        r.now_us = reactor_clock_us()
        r.wakes += 1
        if n < 0:
            n = 0
        r.running = True
        for i in range(n):
            r.batch[i].events = ready[i].events
            r.batch[i].handler = <reactor_handler*>ready[i].data.ptr
        r.batch_used = n
        for i in range(n):
            r.batch_at = i + 1
            handler = r.batch[i].handler
            if handler != NULL:
                handler.on_ready(handler.ctx, r.batch[i].events, r.now_us)
        r.batch_used = 0
        if r.armed_us != 0 and r.armed_us <= r.now_us:
            r.armed_us = 0
        run_timers(r)
        return n

    cdef _call_back(self):
        cdef reactor_source* source = self.core.raised_first
        cdef EventSource events
        cdef list due = []
        failure = None
        self.core.raised_first = NULL
        self.core.raised_last = NULL
        while source != NULL:
            events = <EventSource>source.owner
            source.raised = 0
            source = source.after
            due.append(events)
        for events in due:
            if events.callback is None:
                continue
            try:
                events.callback()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


def monotonic_us():
    """CLOCK_MONOTONIC in µs: the clock of all deadlines."""
    return reactor_clock_us()
