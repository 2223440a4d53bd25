"""The wait of a worker's media I/O: one epoll set and one timerfd, seen by the outer loop as one readable fd.

All addresses handed in (handlers, timers, watchers, sources) belong to the caller and must stay where they are until
they are removed. Any of them may be removed, its memory freed at once, from inside any callback.
Everything here is used from one thread.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from flux.cext.arena cimport Arena, process_slab

cdef enum:
    K_REACTOR_EVENTS = 256        # descriptors handled a run_once; the others wait for the next

cdef struct reactor_handler:      # a descriptor in the epoll set
    int fd
    void* ctx
    void (*on_ready)(void* ctx, uint32_t events, int64_t now_us) noexcept nogil

cdef struct reactor_timer:        # all zero before its first use
    int64_t deadline_us           # CLOCK_MONOTONIC
    void* ctx
    void (*fn)(void* ctx, int64_t now_us) noexcept nogil
    uint32_t place                # 1 + index in the heap; 0: not set

cdef struct reactor_watcher:      # runs after this process's doorbell was rung; all zero before its first use
    void* ctx
    void (*on_doorbell)(void* ctx, int64_t now_us) noexcept nogil
    reactor_watcher* before
    reactor_watcher* after

cdef struct reactor_source:       # something that has events for Python now and then
    reactor_source* after
    uint32_t raised
    void* owner                   # the EventSource, borrowed

cdef struct reactor_event:        # struct epoll_event, whose packing depends on the machine, kept in C
    uint32_t events
    reactor_handler* handler

cdef struct reactor:
    int epoll_fd
    int timer_fd
    int64_t now_us                # read once a wake
    reactor_timer** heap
    uint32_t timers
    uint32_t timers_room
    int64_t armed_us              # what the timerfd is set to; 0: nothing
    bint running
    reactor_watcher* watchers
    reactor_watcher* next_watcher     # of a round under way
    reactor_source* raised_first
    reactor_source* raised_last
    reactor_event* batch          # K_REACTOR_EVENTS
    uint32_t batch_used
    uint32_t batch_at
    reactor_handler doorbell
    process_slab* slab            # whose `rung` the doorbell clears; NULL without an arena
    uint64_t wakes
    uint64_t doorbells

cdef int64_t reactor_clock_us() noexcept nogil
cdef int reactor_add(reactor* r, reactor_handler* handler, uint32_t events) noexcept nogil
cdef int reactor_modify(reactor* r, reactor_handler* handler, uint32_t events) noexcept nogil
cdef void reactor_remove(reactor* r, reactor_handler* handler) noexcept nogil
cdef int reactor_set_timer(reactor* r, reactor_timer* timer, int64_t deadline_us) noexcept nogil
cdef void reactor_cancel_timer(reactor* r, reactor_timer* timer) noexcept nogil
cdef void reactor_watch(reactor* r, reactor_watcher* watcher) noexcept nogil
cdef void reactor_unwatch(reactor* r, reactor_watcher* watcher) noexcept nogil
cdef void reactor_raise(reactor* r, reactor_source* source) noexcept nogil

cdef class Reactor:
    cdef reactor core
    cdef readonly Arena arena
    cdef set sources
    cdef int _run(self, int64_t timeout_us) noexcept nogil
    cdef _call_back(self)

cdef class EventSource:
    cdef reactor_source view
    cdef Reactor reactor
    cdef object callback

cdef class Timer:
    cdef reactor_timer timer
    cdef readonly EventSource events
    cdef Reactor reactor

cdef class Doorbell:
    cdef reactor_watcher watcher
    cdef readonly EventSource events
    cdef Reactor reactor
