"""The arena: one memfd that every process of Flux shares (arena.pxd draws its layout).

It is made once, before the first fork. Its table of streams is changed under one lock word, and only when a
stream comes or goes; the path of the media takes no lock.
"""

import mmap
import os
import time

import numpy as np

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport close as close_fd

from flux.cext.atomics cimport (
    and_seq_u64, cas_seq_u64, exchange_seq_u32, exchange_seq_u64, fence_release, fence_seq,
    load_acquire_u64, load_relaxed_u32, load_relaxed_u64, or_seq_u64, store_relaxed_u32, store_relaxed_u64,
    store_release_u64, store_seq_u32,
)
from flux.cext.media import codec as media_codec

cdef extern from "<sys/mman.h>" nogil:
    void* mmap_c "mmap"(void* addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int munmap_c "munmap"(void* addr, size_t length)
    int PROT_NONE, PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE
    void* MAP_FAILED

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, int64_t offset, int64_t length)
    int FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void* data, size_t length)
    ssize_t read(int fd, void* data, size_t length)

cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef enum:
    K_VERSION = 1
    K_PAGE_BYTES = 4096
    K_RECORD_BYTES = 64           # sizeof(ring_record)
    K_CLAIM_SPINS = 1000000       # sched_yield()s before the claim lock's holder is taken for hung

cdef uint64_t K_MAGIC = 0x414E455241584C46ULL  # "FLXARENA" as it lies in memory
K_STATES = {SLOT_FREE: "free", SLOT_CLAIMED: "claimed", SLOT_LIVE: "live", SLOT_IDLE: "idle"}
K_PROTOCOLS = {0: "", 1: "srt", 2: "rtsp", 3: "rtmp", 4: "webrtc", 5: "gb28181", 6: "demo"}
K_RING_NAMES = ("frame", "ts", "flv", "rtp", "fmp4", "spare")


class NameTaken(ValueError):
    """Another publisher holds this name."""


class ArenaFull(ValueError):
    """Every stream slot is in use."""


cdef uint64_t _round_up(uint64_t value, uint64_t unit) noexcept nogil:
    return (value + unit - 1) // unit * unit


cdef uint64_t _hash_name(const uint8_t* name, size_t length) noexcept nogil:
    # FNV-1a; never 0, which marks a free place.
    cdef uint64_t h = 0xcbf29ce484222325ULL
    cdef size_t i
    for i in range(length):
        h = (h ^ name[i]) * 0x100000001b3ULL
    return h if h else 1


cdef stream_slot* arena_slot(arena* a, uint32_t slot) noexcept nogil:
    return &a.slots[slot] if slot < a.header.slots else NULL


cdef uint8_t* arena_window(arena* a, uint64_t offset, uint64_t size) noexcept nogil:
    """The `size` bytes at `offset` of the memfd, mapped twice in a row; NULL when memory can't be mapped.

    `offset` is where an area begins (ring_ctl.bytes_at, ring_ctl.headers_at, hls_ctl.bytes_at).
    """
    cdef uint64_t slot = (offset - a.header.spans_at) // a.header.span_bytes
    cdef uint64_t within = (offset - a.header.spans_at) % a.header.span_bytes
    cdef uint32_t area = 0
    cdef uint8_t* base
    cdef int turn
    if offset < a.header.spans_at or slot >= a.header.slots:
        return NULL
    while area < K_AREAS and (a.area_at[area] != within or a.area_bytes[area] != size):
        area += 1
    if area == K_AREAS:
        return NULL
    if a.windows[slot * K_AREAS + area] != NULL:
        return a.windows[slot * K_AREAS + area]
    base = <uint8_t*>mmap_c(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return NULL
    for turn in range(2):
        if mmap_c(base + turn * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a.fd, <int64_t>offset) == MAP_FAILED:
            munmap_c(base, 2 * size)
            return NULL
    a.windows[slot * K_AREAS + area] = base
    return base


cdef void arena_punch(arena* a, uint64_t offset, uint64_t length) noexcept nogil:
    """Gives the pages of [offset, offset + length) back; readers see zeros there from now on."""
    cdef uint64_t first = _round_up(offset, K_PAGE_BYTES)
    cdef uint64_t last = (offset + length) // K_PAGE_BYTES * K_PAGE_BYTES
    if last > first:
        fallocate(a.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <int64_t>first, <int64_t>(last - first))


cdef void arena_ring_doorbells(arena* a, uint64_t mask) noexcept nogil:
    """Wakes each process in `mask` that isn't being woken already."""
    cdef uint32_t n = 0
    cdef uint64_t one = 1
    # What was published before must be seen by a process that clears `rung` after it was found set here.
    fence_seq()
    while mask:
        if mask & 1 and not load_relaxed_u32(&a.slabs[n].rung) and not exchange_seq_u32(&a.slabs[n].rung, 1):
            write(a.doorbells[n], &one, 8)
        mask >>= 1
        n += 1


cdef bint _lock(arena* a) noexcept nogil:
    cdef uint64_t spins = 0
    while not cas_seq_u64(&a.header.claim_lock, 0, <uint64_t>a.process + 1):
        spins += 1
        if spins > K_CLAIM_SPINS:
            return False
        sched_yield()
    return True


cdef void _unlock(arena* a) noexcept nogil:
    store_release_u64(&a.header.claim_lock, 0)


cdef uint64_t _state(stream_slot* s) noexcept nogil:
    return load_acquire_u64(&s.state) & 0xFF


cdef void _set_state(stream_slot* s, uint64_t state) noexcept nogil:
    store_release_u64(&s.state, load_relaxed_u64(&s.state) >> 8 << 8 | state)


@cython.no_gc_clear               # __dealloc__ reads the header, which lies in `memory`
cdef class Arena:
    """One process's view of the arena.

    The supervisor calls Arena.create() before its first fork; children use the same object and call join().
    """

    def __cinit__(self):
        memset(&self.view, 0, sizeof(arena))
        self.view.fd = -1
        self.view.doorbell = -1

    @staticmethod
    def create(*, slots=1024, frame_ring_bytes=8 << 20, wire_ring_bytes=8 << 20, hls_bytes=512 << 20,
               index_entries=1 << 14, processes=K_MAX_PROCESSES):
        """Make a new arena of `slots` streams, and an eventfd for each of `processes`.

        Sizes are bytes, powers of two, of whole pages. Raises ValueError naming the size that is not, and
        OSError when the kernel gives no memory.
        """
        for name, value, least in (
            ("frame_ring_bytes", frame_ring_bytes, 64 << 10), ("wire_ring_bytes", wire_ring_bytes, 64 << 10),
            ("hls_bytes", hls_bytes, 1 << 20), ("index_entries", index_entries, 64),
        ):
            if value < least or value & (value - 1):
                raise ValueError(f"{name} is {value}; it must be a power of two, at least {least}")
        if not 1 <= slots <= 65536:
            raise ValueError(f"slots is {slots}; it must be 1 to 65536")
        if not 1 <= processes <= K_MAX_PROCESSES:
            raise ValueError(f"processes is {processes}; it must be 1 to {K_MAX_PROCESSES}")
        cdef arena_header h
        memset(&h, 0, sizeof(h))
        h.magic, h.version, h.slots, h.max_processes = K_MAGIC, K_VERSION, slots, processes
        h.processes_at = K_PAGE_BYTES
        h.names_at = _round_up(h.processes_at + sizeof(process_slab) * K_MAX_PROCESSES, K_PAGE_BYTES)
        h.slots_at = _round_up(h.names_at + 8 * <uint64_t>slots, K_PAGE_BYTES)
        h.spans_at = _round_up(h.slots_at + sizeof(stream_slot) * <uint64_t>slots, K_PAGE_BYTES)
        h.frame_ring_bytes, h.wire_ring_bytes = frame_ring_bytes, wire_ring_bytes
        h.hls_bytes, h.index_entries = hls_bytes, index_entries
        h.span_bytes = _areas(&h, NULL, NULL)
        h.total_bytes = h.spans_at + h.span_bytes * <uint64_t>slots
        fd = os.memfd_create("flux-arena", os.MFD_CLOEXEC)
        os.ftruncate(fd, h.total_bytes)
        os.pwrite(fd, (<uint8_t*>&h)[:sizeof(h)], 0)
        doorbells = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(processes))
        cdef Arena self = Arena.attach(fd, doorbells, owns=True)
        cdef uint32_t n, k
        cdef uint64_t span
        cdef ring_ctl* ring
        for n in range(slots):
            span = h.spans_at + h.span_bytes * n
            for k in range(K_RING_KINDS):
                ring = &self.view.slots[n].rings[k]
                ring.size = frame_ring_bytes if k == RING_FRAME else wire_ring_bytes
                ring.entries = index_entries
                ring.headers_at = span + self.view.area_at[2 * k]
                ring.index_at = ring.headers_at + _headers_bytes()
                ring.bytes_at = span + self.view.area_at[2 * k + 1]
            self.view.slots[n].hls.size = hls_bytes
            self.view.slots[n].hls.bytes_at = span + self.view.area_at[K_AREAS - 1]
        return self

    @staticmethod
    def attach(int fd, doorbells, *, bint owns=False):
        """A view of the arena behind `fd` (a memfd), with everybody's `doorbells` (eventfds by process number).

        owns: whether these descriptors are closed with this object.

        Raises ValueError when `fd` is no arena of this version.
        """
        cdef Arena self = Arena.__new__(Arena)
        cdef arena_header h
        cdef bytes head = os.pread(fd, sizeof(arena_header), 0)
        if len(head) < sizeof(arena_header):
            raise ValueError("not an arena: too short")
        memcpy(&h, <const uint8_t*>head, sizeof(h))
        if h.magic != K_MAGIC or h.version != K_VERSION:
            raise ValueError(f"not an arena of version {K_VERSION}")
        self.memory = mmap.mmap(fd, h.spans_at, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        cdef uint8_t[::1] base = self.memory
        self.view.base = &base[0]
        self.view.header = <arena_header*>self.view.base
        self.view.slabs = <process_slab*>(self.view.base + h.processes_at)
        self.view.names = <uint64_t*>(self.view.base + h.names_at)
        self.view.slots = <stream_slot*>(self.view.base + h.slots_at)
        self.view.fd = fd
        self.owns = owns
        self.doorbells = tuple(doorbells)
        for n, doorbell in enumerate(self.doorbells):
            self.view.doorbells[n] = doorbell
        _areas(&h, self.view.area_at, self.view.area_bytes)
        self.view.windows = <uint8_t**>calloc(h.slots * <size_t>K_AREAS, sizeof(uint8_t*))
        if self.view.windows == NULL:
            raise MemoryError
        return self

    def __dealloc__(self):
        cdef uint64_t n
        if self.view.windows != NULL:
            for n in range(self.view.header.slots * <uint64_t>K_AREAS):
                if self.view.windows[n] != NULL:
                    munmap_c(self.view.windows[n], 2 * self.view.area_bytes[n % K_AREAS])
            free(self.view.windows)
        if self.owns and self.view.fd >= 0:
            close_fd(self.view.fd)
            for n in range(len(self.doorbells)):
                close_fd(self.view.doorbells[n])

    def close(self):
        """Close the memfd and the doorbells; mappings last as long as this object and its numpy views."""
        for fd in (self.view.fd, *self.doorbells):
            if fd >= 0:
                os.close(fd)
        self.view.fd = -1
        self.doorbells = ()

    @property
    def fd(self):
        """The memfd, for passing on."""
        return self.view.fd

    @property
    def slots(self):
        """How many streams there is room for."""
        return self.view.header.slots

    @property
    def process(self):
        """This process's number, as given to join()."""
        return self.view.process

    @property
    def doorbell_fd(self):
        """The eventfd that wakes this process."""
        return self.view.doorbell

    @property
    def memory_bytes(self):
        """Bytes of memory that the arena holds now: pages touched and not given back."""
        return os.fstat(self.view.fd).st_blocks * 512

    def join(self, uint32_t number):
        """Become process `number` (0 to processes - 1): own its slab and its doorbell."""
        if number >= self.view.header.max_processes:
            raise ValueError(f"process number {number}; the arena has {self.view.header.max_processes}")
        self.view.process = number
        self.view.mine = &self.view.slabs[number]
        self.view.doorbell = self.view.doorbells[number]
        self.view.mine.incarnation += 1
        self.view.mine.pid = os.getpid()
        self.clear_rung()
        self.heartbeat(time.monotonic_ns() // 1000)

    def heartbeat(self, uint64_t now_us):
        """Say that this process is alive at `now_us` (µs, CLOCK_MONOTONIC)."""
        store_relaxed_u64(&self.view.mine.heartbeat_us, now_us)

    def process_info(self, uint32_t number):
        """A process's slab as a dict: pid, incarnation, heartbeat_us (CLOCK_MONOTONIC)."""
        cdef process_slab* slab = &self.view.slabs[number]
        return {"pid": slab.pid, "incarnation": slab.incarnation, "heartbeat_us": load_relaxed_u64(&slab.heartbeat_us)}

    def clear_rung(self):
        """Take this process's doorbell; call it before looking at any ring."""
        cdef uint64_t value
        read(self.view.doorbell, &value, 8)
        store_seq_u32(&self.view.mine.rung, 0)

    def counters(self, uint32_t process):
        """The counters of `process`: a numpy view, uint64, one number each as in counters.pxd."""
        if process >= K_MAX_PROCESSES:
            raise ValueError(f"process number {process} of {K_MAX_PROCESSES}")
        start = self.view.header.processes_at + process * sizeof(process_slab)
        offset = <uint64_t>&self.view.slabs[process].counters[0] - <uint64_t>&self.view.slabs[process]
        return np.frombuffer(self.memory, np.uint64, K_COUNTERS, start + offset)

    @property
    def my_counters(self):
        """This process's own counters."""
        return self.counters(self.view.process)

    cdef stream_slot* _slot(self, uint32_t slot) except NULL:
        if slot >= self.view.header.slots:
            raise ValueError(f"stream slot {slot}; the arena has {self.view.header.slots}")
        return &self.view.slots[slot]

    cdef int64_t _find(self, const uint8_t* name, size_t length) noexcept nogil:
        cdef uint64_t h = _hash_name(name, length)
        cdef uint32_t n
        for n in range(self.view.header.slots):
            if load_relaxed_u64(&self.view.names[n]) == h and self.view.slots[n].name_length == length \
                    and memcmp(self.view.slots[n].name, name, length) == 0 and _state(&self.view.slots[n]) != SLOT_FREE:
                return n
        return -1

    def find(self, str name):
        """The slot of the stream called `name`, or None."""
        cdef bytes raw = name.encode()
        cdef int64_t slot = self._find(raw, len(raw))
        return None if slot < 0 else slot

    def look_up(self, str name):
        """(slot, generation, live) of the stream called `name`: live or idle; None while nobody has it."""
        cdef bytes raw = name.encode()
        cdef int64_t n = self._find(raw, len(raw))
        cdef uint64_t state
        if n < 0:
            return None
        state = load_acquire_u64(&self.view.slots[n].state)
        # Once more: the slot may have been freed, and taken under another name, before its state was read.
        if state & 0xFF not in (SLOT_LIVE, SLOT_IDLE) or self._find(raw, len(raw)) != n:
            return None
        return n, state >> 8, state & 0xFF == SLOT_LIVE

    def claim(self, str name, uint64_t protocol):
        """Take the name for a publisher of this process: (slot, generation).

        An idle slot of that name is taken over, with its rings and players. Raises NameTaken when a publisher
        holds it, ArenaFull when no slot is free, ValueError for a name that is empty or over 255 bytes.
        """
        cdef bytes raw = name.encode()
        cdef stream_slot* s
        cdef int64_t n
        cdef uint32_t i
        if not 1 <= len(raw) <= K_MAX_NAME:
            raise ValueError(f"a stream's name has 1 to {K_MAX_NAME} bytes, not {len(raw)}")
        if not _lock(&self.view):
            raise RuntimeError("the arena's claim lock is held and its holder does not let go")
        try:
            n = self._find(raw, len(raw))
            if n >= 0:
                s = &self.view.slots[n]
                if _state(s) != SLOT_IDLE:
                    raise NameTaken(f"stream {name} has a publisher")
            else:
                for i in range(self.view.header.slots):
                    if _state(&self.view.slots[i]) == SLOT_FREE:
                        n = i
                        break
                else:
                    raise ArenaFull(f"all {self.view.header.slots} stream slots are in use")
                s = &self.view.slots[n]
                memcpy(s.name, <const uint8_t*>raw, len(raw))
                s.name_length = <uint32_t>len(raw)
                s.name_hash = _hash_name(raw, len(raw))
            s.owner = self.view.process
            s.owner_incarnation = self.view.mine.incarnation if self.view.mine != NULL else 0
            s.protocol = protocol
            s.publisher_session = 0
            # The hash of a free slot is not looked at, so a process killed between the two leaves it free.
            store_release_u64(&self.view.names[n], s.name_hash)
            _set_state(s, SLOT_CLAIMED)
            return n, load_relaxed_u64(&s.state) >> 8
        finally:
            _unlock(&self.view)

    def go_live(self, uint32_t slot, uint64_t session):
        """The publisher's media begins; `session` is its number in the owner."""
        cdef stream_slot* s = self._slot(slot)
        s.publisher_session = session
        s.publishers += 1
        s.since_us = time.time_ns() // 1000
        s.idle_since_us = 0
        s.last_in_us = time.monotonic_ns() // 1000
        _set_state(s, SLOT_LIVE)

    def go_idle(self, uint32_t slot, uint64_t now_us):
        """The publisher is gone; players are held until the grace time ends."""
        cdef stream_slot* s = self._slot(slot)
        s.publisher_session = 0
        s.idle_since_us = now_us
        _set_state(s, SLOT_IDLE)

    def retire(self, uint32_t slot):
        """Free the slot: the next generation begins, its rings are empty, its pages are given back."""
        cdef stream_slot* s = self._slot(slot)
        if not _lock(&self.view):
            raise RuntimeError("the arena's claim lock is held and its holder does not let go")
        try:
            self._retire(slot, s)
        finally:
            _unlock(&self.view)

    cdef void _retire(self, uint32_t n, stream_slot* s) noexcept:
        cdef uint32_t k
        cdef ring_ctl* ring
        cdef uint64_t generation = load_relaxed_u64(&s.state) >> 8
        cdef uint64_t size, bytes_at, turn, reserve, subscribers = 0
        # Ours while it lasts: if this process dies in here, process_died makes it idle, and it is retired anew.
        s.owner = self.view.process
        # Claimed meanwhile under the new generation: readers see it before anything is wiped.
        store_release_u64(&s.state, (generation + 1) << 8 | SLOT_CLAIMED)
        store_release_u64(&self.view.names[n], 0)
        fence_release()
        for k in range(K_RING_KINDS):
            ring = &s.rings[k]
            # Where a reader was is now behind `reserve - size`, so what it reads is not taken for good.
            store_release_u64(&ring.reserve, load_relaxed_u64(&ring.reserve) + ring.size)
            store_release_u64(&ring.commit, load_relaxed_u64(&ring.reserve))
            store_release_u64(&ring.first_pos, load_relaxed_u64(&ring.reserve))
            store_release_u64(&ring.reserve_rec, load_relaxed_u64(&ring.reserve_rec) + ring.entries)
            store_release_u64(&ring.commit_rec, load_relaxed_u64(&ring.reserve_rec))
            store_release_u64(&ring.key_rec, 0)
            store_release_u64(&ring.active, 0)
            store_release_u64(&ring.header_version, 0)
            subscribers |= exchange_seq_u64(&ring.subscribers, 0)
            store_release_u64(&ring.wanted, 0)
        # The same for HLS: whoever copies the table notices by `turn`, whoever sends bytes by `reserve`.
        size, bytes_at, turn, reserve = s.hls.size, s.hls.bytes_at, s.hls.turn, s.hls.reserve + s.hls.size
        store_release_u64(&s.hls.reserve, reserve)
        store_relaxed_u64(&s.hls.turn, turn | 1)
        fence_release()
        memset(<uint8_t*>&s.hls + sizeof(s.hls.turn), 0, sizeof(hls_ctl) - sizeof(s.hls.turn))
        s.hls.size, s.hls.bytes_at, s.hls.reserve = size, bytes_at, reserve
        store_release_u64(&s.hls.turn, (turn | 1) + 1)
        memset(s.tracks, 0, sizeof(s.tracks))
        memset(s.viewers, 0, sizeof(s.viewers))
        s.track_count = 0
        s.tracks_version += 1
        s.publishers = s.bytes_in = s.ts_errors = s.discontinuities = 0
        s.last_in_us = s.idle_since_us = s.publisher_session = 0
        arena_punch(&self.view, self.view.header.spans_at + n * self.view.header.span_bytes, self.view.header.span_bytes)
        store_release_u64(&s.state, (generation + 1) << 8 | SLOT_FREE)
        arena_ring_doorbells(&self.view, subscribers)

    def process_died(self, uint32_t number, uint64_t now_us):
        """Clean up after process `number`: its streams go idle, its marks on others' streams go. Supervisor only.

        Gives the slots whose publisher was lost.
        """
        cdef uint32_t n, k
        cdef stream_slot* s
        cdef uint64_t state
        cdef uint64_t one = 1
        lost = []
        cas_seq_u64(&self.view.header.claim_lock, <uint64_t>number + 1, 0)
        for n in range(self.view.header.slots):
            s = &self.view.slots[n]
            state = _state(s)
            if state == SLOT_FREE:
                continue
            s.viewers[number] = 0
            for k in range(K_RING_KINDS):
                and_seq_u64(&s.rings[k].subscribers, ~(<uint64_t>1 << number))
                and_seq_u64(&s.rings[k].wanted, ~(<uint64_t>1 << number))
            if s.owner == number and state in (SLOT_LIVE, SLOT_CLAIMED):
                lost.append(n)
                # Its pumps are gone as well: the next owner starts them anew.
                for k in range(K_RING_KINDS):
                    store_release_u64(&s.rings[k].active, 0)
                store_release_u64(&s.hls.active, 0)
                # It may have died while it changed the table of segments, which is well at any instruction.
                store_release_u64(&s.hls.turn, (load_relaxed_u64(&s.hls.turn) + 1) & ~<uint64_t>1)
                self.go_idle(n, now_us)
        store_seq_u32(&self.view.slabs[number].rung, 0)
        # It may have died between setting a `rung` and ringing: nobody else would ring that doorbell again.
        for n in range(<uint32_t>len(self.doorbells)):
            write(self.view.doorbells[n], &one, 8)
        return lost

    def expire_idle(self, uint64_t now_us, uint64_t grace_us):
        """Retire the streams that have been idle for longer than `grace_us`; gives their slots."""
        cdef uint32_t n
        cdef stream_slot* s
        gone = []
        for n in range(self.view.header.slots):
            s = &self.view.slots[n]
            if _state(s) != SLOT_IDLE or now_us < s.idle_since_us + grace_us:
                continue
            if not _lock(&self.view):
                break
            try:
                if _state(s) == SLOT_IDLE and now_us >= s.idle_since_us + grace_us:
                    self._retire(n, s)
                    gone.append(n)
            finally:
                _unlock(&self.view)
        return gone

    def add_viewers(self, uint32_t slot, int delta):
        """Count `delta` more viewers of this process."""
        cdef stream_slot* s = self._slot(slot)
        cdef int64_t viewers = <int64_t>s.viewers[self.view.process] + delta
        store_relaxed_u32(&s.viewers[self.view.process], <uint32_t>max(viewers, 0))

    def want(self, uint32_t slot, uint32_t kind, bint wanted):
        """Say whether this process wants the wire format `kind` of a stream made."""
        cdef stream_slot* s = self._slot(slot)
        if kind >= K_RING_KINDS:
            raise ValueError(f"ring kind {kind} of {K_RING_KINDS}")
        if wanted:
            or_seq_u64(&s.rings[kind].wanted, <uint64_t>1 << self.view.process)
        else:
            and_seq_u64(&s.rings[kind].wanted, ~(<uint64_t>1 << self.view.process))

    def generation(self, uint32_t slot):
        """The slot's generation: it grows each time that the slot is freed."""
        return load_acquire_u64(&self._slot(slot).state) >> 8

    def slot(self, uint32_t slot):
        """A stream's facts as a dict; a free slot's `state` is "free" and its name empty."""
        cdef stream_slot* s = self._slot(slot)
        cdef uint64_t state = load_acquire_u64(&s.state)
        cdef uint32_t n, k
        cdef track_info* t
        tracks = []
        for n in range(min(s.track_count, <uint32_t>K_MAX_TRACKS)):
            t = &s.tracks[n]
            if t.codec == 0:
                continue          # its elementary stream is gone
            name = media_codec.NAMES.get(t.codec, "")
            track = {"codec": name, "pid": t.pid, "profile": t.profile, "level": t.level, "frames": t.frames,
                     "bytes": t.bytes, "errors": t.errors}
            if t.codec < 32:
                track.update(kind="video", width=t.width, height=t.height, fps=t.fps_millihz / 1000, keyframes=t.keyframes)
            elif t.codec < 64:
                track.update(kind="audio", channels=t.width, sample_rate=t.height)
            else:
                track.update(kind="data")
            tracks.append(track)
        rings = {}
        for k in range(K_RING_KINDS):
            rings[K_RING_NAMES[k]] = {
                "active": bool(s.rings[k].active), "commit": s.rings[k].commit, "records": s.rings[k].commit_rec,
                "wanted": s.rings[k].wanted,
            }
        return {
            "slot": slot, "state": K_STATES.get(state & 0xFF, "?"), "generation": state >> 8,
            "name": (<const uint8_t*>s.name)[:min(s.name_length, <uint32_t>K_MAX_NAME)].decode("utf-8", "replace")
            if state & 0xFF else "",
            "owner": s.owner, "protocol": K_PROTOCOLS.get(s.protocol, ""), "session": s.publisher_session,
            "publishers": s.publishers, "since_us": s.since_us, "idle_since_us": s.idle_since_us,
            "bytes_in": s.bytes_in, "last_in_us": s.last_in_us, "ts_errors": s.ts_errors,
            "discontinuities": s.discontinuities,
            "viewers": sum([s.viewers[n] for n in range(K_MAX_PROCESSES)]), "tracks": tracks, "rings": rings,
        }

    def streams(self):
        """The facts of all streams, in the order of their slots."""
        cdef uint32_t n
        return [self.slot(n) for n in range(self.view.header.slots) if _state(&self.view.slots[n]) != SLOT_FREE]


cdef uint64_t _headers_bytes() noexcept nogil:
    return _round_up(sizeof(header_blob) * <uint64_t>K_HEADER_VERSIONS, K_PAGE_BYTES)


cdef uint64_t _areas(arena_header* h, uint64_t* at, uint64_t* size) noexcept:
    """Lays out a span; gives its size. Even areas are a ring's headers and index, odd ones its bytes."""
    cdef uint64_t place = 0
    cdef uint64_t length
    cdef uint32_t n
    for n in range(K_AREAS):
        if n == K_AREAS - 1:
            length = h.hls_bytes
        elif n % 2:
            length = h.frame_ring_bytes if n // 2 == RING_FRAME else h.wire_ring_bytes
        else:
            length = _round_up(_headers_bytes() + h.index_entries * K_RECORD_BYTES, K_PAGE_BYTES)
        if at != NULL:
            at[n] = place
            size[n] = length
        place += length
    return place
