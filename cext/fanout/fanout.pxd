"""The players of this worker over HTTP and WebSocket, as Python sees them."""

from libc.stdint cimport uint32_t

from flux.cext.arena cimport Arena
from flux.cext.fanout.channel cimport fanout_core
from flux.cext.reactor cimport EventSource, Reactor

cdef class Fanout:
    cdef fanout_core core
    cdef Reactor reactor
    cdef Arena arena
    cdef EventSource events
    cdef object counters
    cdef object on_closed
    cdef uint32_t socket_buffer_bytes
    cdef uint32_t unsent_bytes
    cdef _close_all(self)
