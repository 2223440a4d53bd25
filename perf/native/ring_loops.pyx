# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of the ring scenario: a burst of frames through a ring, and the same bytes by bare memcpy.

Each gives the CPU time that it took, in ns. The bytes of a burst stay in the ring until the next burst.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from flux.cext.ring cimport REC_KEY, Ring, ring_commit, ring_get, ring_record, ring_reserve, ring_valid

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int clock, timespec* t)
    int CLOCK_THREAD_CPUTIME_ID


cdef int64_t _cpu_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef class Frame:
    """`length` bytes of private memory: what a writer writes, or where a reader puts what it read."""

    cdef uint8_t* data
    cdef uint64_t length

    def __cinit__(self, uint64_t length):
        self.length = length
        self.data = <uint8_t*>calloc(1, length)
        if self.data == NULL:
            raise MemoryError
        for n in range(length):
            self.data[n] = (n * 7 + 1) & 0xFF

    def __dealloc__(self):
        free(self.data)


def write_ring(Ring ring not None, Frame frame not None, uint64_t frames):
    """Write `frames` records."""
    cdef int64_t start = _cpu_ns()
    cdef uint64_t n
    cdef uint8_t* place
    with nogil:
        for n in range(frames):
            place = ring_reserve(&ring.view, frame.length)
            memcpy(place, frame.data, frame.length)
            ring_commit(&ring.view, frame.length, n, n, n, REC_KEY if n == 0 else 0, 0, 1)
    return _cpu_ns() - start


def read_ring(Ring ring not None, Frame frame not None, uint64_t rec):
    """Read from record `rec` on: (ns, next record, records that were lapped)."""
    cdef int64_t start = _cpu_ns()
    cdef ring_record record
    cdef uint64_t lapped = 0
    cdef int got
    with nogil:
        while True:
            got = ring_get(&ring.view, rec, &record)
            if got == 1:
                break
            if got == 0:
                memcpy(frame.data, ring.view.base + (record.pos & ring.view.mask), record.length)
                lapped += not ring_valid(&ring.view, record.pos)
            else:
                lapped += 1
            rec += 1
    return _cpu_ns() - start, rec, lapped


def write_bare(Ring ring not None, Frame frame not None, uint64_t frames, uint64_t pos):
    """The same bytes into the ring's memory at `pos` with nothing told to anybody."""
    cdef int64_t start = _cpu_ns()
    cdef uint64_t _n
    with nogil:
        for _n in range(frames):
            memcpy(ring.view.base + (pos & ring.view.mask), frame.data, frame.length)
            pos += frame.length
    return _cpu_ns() - start


def read_bare(Ring ring not None, Frame frame not None, uint64_t frames, uint64_t pos):
    """The same bytes out of the ring's memory."""
    cdef int64_t start = _cpu_ns()
    cdef uint64_t _n
    with nogil:
        for _n in range(frames):
            memcpy(frame.data, ring.view.base + (pos & ring.view.mask), frame.length)
            pos += frame.length
    return _cpu_ns() - start
