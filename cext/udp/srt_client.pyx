"""The two ends of a client: media that it received, and media that it sends."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from flux.cext.sink cimport Sink
from flux.cext.srt.endpoint cimport Endpoint

cdef enum:
    K_FIRST_BYTES = 65536


cdef struct collector:
    uint8_t* data
    size_t used
    size_t room
    size_t max_bytes
    size_t dropped


cdef void on_deliver(void* ctx, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil:
    cdef collector* c = <collector*>ctx
    cdef uint8_t* grown
    cdef size_t room = c.room if c.room else K_FIRST_BYTES
    if c.used + length > c.max_bytes:
        c.dropped += length
        return
    while room < c.used + length:
        room *= 2
    if room != c.room:
        grown = <uint8_t*>realloc(c.data, room)
        if grown == NULL:
            c.dropped += length
            return
        c.data = grown
        c.room = room
    memcpy(c.data + c.used, data, length)
    c.used += length


cdef void on_flush(void* ctx, int64_t now_us) noexcept nogil:
    pass


cdef class CollectingSink(Sink):
    """Keeps what is delivered until take(): CollectingSink(max_bytes=1 << 30). What is over is dropped and counted."""
    cdef collector core

    def __cinit__(self, size_t max_bytes=1 << 30):
        self.core.max_bytes = max_bytes
        self.view.ctx = &self.core
        self.view.deliver = on_deliver
        self.view.flush = on_flush

    def __dealloc__(self):
        free(self.core.data)

    def __len__(self):
        return self.core.used

    @property
    def dropped_bytes(self):
        """What did not fit."""
        return self.core.dropped

    def take(self):
        """All bytes delivered since the last call."""
        data = (<const uint8_t*>self.core.data)[:self.core.used] if self.core.used else b""
        self.core.used = 0
        return data


cdef void on_send(void* ctx, const uint8_t* data, uint32_t length, int64_t now_us) noexcept with gil:
    cdef SendingSink sink = <SendingSink>ctx
    if sink.endpoint.send(sink.id, data[:length], now_us):
        sink.sent_bytes += length
    else:
        sink.refused_pkts += 1


cdef class SendingSink(Sink):
    """Sends what is delivered, a packet each: SendingSink(endpoint, id). A full send buffer refuses, which is counted."""
    cdef Endpoint endpoint
    cdef readonly uint32_t id
    cdef readonly uint64_t sent_bytes
    cdef readonly uint64_t refused_pkts

    def __cinit__(self, Endpoint endpoint not None, uint32_t id):
        self.endpoint = endpoint
        self.id = id
        self.view.deliver = on_send
        self.view.flush = on_flush
