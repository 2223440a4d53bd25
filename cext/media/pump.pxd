"""A pump: a muxer in the stream's owner that follows one ring with its own cursor and fills another.

Run at the end of each batch, after the batch's records are committed (TsIngest.flush). A pump works only
while its format is wanted, or for a linger time after; it makes its own output ring's doorbells ring.
"""

from libc.stdint cimport int64_t

cdef enum:
    K_MAX_PUMPS = 8               # pumps of one stream

cdef struct media_pump:
    void* ctx
    void (*run)(void* ctx, int64_t now_us) noexcept nogil

cdef class Pump:
    cdef media_pump view
