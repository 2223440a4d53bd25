"""Sinks: the base class, and one that collects bytes for tests and small clients."""

from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef void _deliver_nothing(void* ctx, const uint8_t* data, uint32_t length, int64_t now_us) noexcept nogil:
    pass


cdef void _flush_nothing(void* ctx, int64_t now_us) noexcept nogil:
    pass


cdef class Sink:
    """Base of all receivers of media bytes; on its own it discards them.

    A subclass sets `view.deliver`, `view.flush` and `view.ctx` in its `__cinit__`; the owner of a
    connection keeps the Python object alive for as long as it holds a copy of `view`.
    """

    def __cinit__(self):
        self.view.ctx = <void*>self
        self.view.deliver = _deliver_nothing
        self.view.flush = _flush_nothing

    def deliver(self, const uint8_t[::1] data, int64_t now_us):
        """Feed `data` (bytes) as one payload received at `now_us` (µs, CLOCK_MONOTONIC)."""
        cdef const uint8_t* p = &data[0] if data.shape[0] else NULL
        cdef uint32_t n = <uint32_t>data.shape[0]
        with nogil:
            self.view.deliver(self.view.ctx, p, n, now_us)

    def flush(self, int64_t now_us):
        """End a batch at `now_us` (µs)."""
        with nogil:
            self.view.flush(self.view.ctx, now_us)
