"""Where received media goes: a C callback that any receiver (SRT, a file, a test) may feed.

deliver() takes bytes that stay valid during the call only; flush() ends a batch (one wake-up of the
loop): that is where muxers run and doorbells are rung, once for many packets.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef struct media_sink:
    void* ctx
    void (*deliver)(void* ctx, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil
    void (*flush)(void* ctx, int64_t now_us) noexcept nogil

cdef class Sink:
    cdef media_sink view
