"""The base class of muxers; a subclass fills `view` in its __cinit__."""

from libc.stdint cimport int64_t


cdef void run_nothing(void* ctx, int64_t now_us) noexcept nogil:
    pass


cdef class Pump:
    """Base of all muxers; on its own it does nothing."""

    def __cinit__(self, *args, **kwargs):
        self.view.ctx = NULL
        self.view.run = run_nothing

    def run(self, int64_t now_us):
        """One turn at `now_us` (CLOCK_MONOTONIC): for tests and for a pump that no TsIngest runs."""
        self.view.run(self.view.ctx, now_us)

    def close(self, int64_t now_us):
        """The publisher is gone: end what is open, if there is anything to end."""
