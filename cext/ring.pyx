"""Rings in the arena: one writer, any number of readers in any process (ring.pxd tells the protocol)."""

import numpy as np

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from flux.cext.arena cimport (
    K_HEADER_BYTES, K_HEADER_VERSIONS, SLOT_FREE, arena_punch, arena_ring_doorbells, arena_slot, arena_window,
)
from flux.cext.atomics cimport (
    and_seq_u64, fence_acquire, fence_release, fence_seq, load_acquire_u32, load_acquire_u64, load_relaxed_u64,
    or_seq_u32, or_seq_u64, store_release_u64,
)

RECORD = np.dtype([
    ("pos", "u8"), ("length", "u4"), ("flags", "u4"), ("dts_ticks", "i8"), ("pts_ticks", "i8"), ("arrival_us", "i8"),
    ("track", "u4"), ("codec", "u4"), ("pad", "u8", 2),
])
if RECORD.itemsize != sizeof(ring_record) or sizeof(ring_record) != 64:
    raise ImportError("ring_record is not the 64 bytes that the arena's layout counts on")

cdef enum:
    K_HEADER_TRIES = 16           # reads of a header blob that its writer may spoil before it is given up


cdef int ring_open(ring* r, arena* a, uint32_t slot, uint32_t kind) noexcept nogil:
    """Fill `r` for ring `kind` of a stream; -1 when the slot is free or memory can't be mapped."""
    cdef stream_slot* s = arena_slot(a, slot)
    cdef ring_ctl* ctl
    cdef uint64_t state
    cdef uint8_t* meta
    if s == NULL or kind >= 6:
        return -1
    state = load_acquire_u64(&s.state)
    if state & 0xFF == SLOT_FREE:
        return -1
    ctl = &s.rings[kind]
    meta = arena_window(a, ctl.headers_at, a.area_bytes[2 * kind])
    r.base = arena_window(a, ctl.bytes_at, ctl.size)
    if meta == NULL or r.base == NULL:
        return -1
    r.ctl = ctl
    r.headers = <header_blob*>meta
    r.index = <ring_record*>(meta + (ctl.index_at - ctl.headers_at))
    r.slot = s
    r.owner = a
    r.size = ctl.size
    r.mask = ctl.size - 1
    r.index_mask = ctl.entries - 1
    r.generation = state >> 8
    return 0


cdef bint ring_alive(ring* r) noexcept nogil:
    """False once the stream was freed: close the player, or open the ring anew."""
    cdef uint64_t state = load_acquire_u64(&r.slot.state)
    return state >> 8 == r.generation and state & 0xFF != SLOT_FREE


cdef uint64_t finish_commit(ring* r, uint64_t rec) noexcept nogil:
    """The write position, once what a dead writer left half done is brought to its end.

    If it died between the two stores of ring_commit, its record is whole and readers may have it already: writing
    there again would change bytes under them unseen. If it died in ring_restart, first_pos may be ahead.
    """
    cdef uint64_t commit = load_relaxed_u64(&r.ctl.commit)
    cdef ring_record* last = &r.index[(rec - 1) & r.index_mask]
    cdef uint64_t end = max(last.pos + last.length, load_relaxed_u64(&r.ctl.first_pos))
    if end > commit:
        commit = end
        store_release_u64(&r.ctl.commit, commit)
    return commit


cdef uint8_t* ring_reserve(ring* r, uint64_t length) noexcept nogil:
    """`length` contiguous bytes at the write position, to be filled before ring_commit; NULL over half the ring.

    A second call before the commit starts again at the same place.
    """
    cdef uint64_t rec = load_relaxed_u64(&r.ctl.commit_rec) + 1
    cdef uint64_t end = finish_commit(r, rec - 1) + length
    if length > r.size >> 1:
        return NULL
    # Never backwards: bytes that a dead writer had reserved may be torn already.
    if end > load_relaxed_u64(&r.ctl.reserve):
        store_release_u64(&r.ctl.reserve, end)
    if rec > load_relaxed_u64(&r.ctl.reserve_rec):
        store_release_u64(&r.ctl.reserve_rec, rec)
    fence_release()
    return r.base + ((end - length) & r.mask)


cdef uint64_t ring_commit(ring* r, uint64_t length, int64_t dts_ticks, int64_t pts_ticks,
                          int64_t arrival_us, uint32_t flags, uint32_t track, uint32_t codec) noexcept nogil:
    """Publish the first `length` bytes of what was reserved as one record; gives the record's number."""
    cdef uint64_t rec = load_relaxed_u64(&r.ctl.commit_rec)
    cdef uint64_t pos = load_relaxed_u64(&r.ctl.commit)
    cdef ring_record* record = &r.index[rec & r.index_mask]
    record.pos = pos
    record.length = <uint32_t>length
    record.flags = flags
    record.dts_ticks = dts_ticks
    record.pts_ticks = pts_ticks
    record.arrival_us = arrival_us
    record.track = track
    record.codec = codec
    store_release_u64(&r.ctl.commit_rec, rec + 1)
    store_release_u64(&r.ctl.commit, pos + length)
    if flags & REC_KEY:
        store_release_u64(&r.ctl.key_rec, rec + 1)
    return rec


cdef void ring_mark(ring* r, uint64_t rec, uint32_t flags) noexcept nogil:
    """Add `flags` to a record that is committed already; REC_KEY makes it a place to join at."""
    if rec < ring_oldest_rec(r) or rec >= load_relaxed_u64(&r.ctl.commit_rec):
        return
    or_seq_u32(&r.index[rec & r.index_mask].flags, flags)
    if flags & REC_KEY and rec + 1 > load_relaxed_u64(&r.ctl.key_rec):
        store_release_u64(&r.ctl.key_rec, rec + 1)


cdef int ring_set_header(ring* r, const uint8_t* data, uint32_t length, uint64_t from_pos) noexcept nogil:
    """What a player that joins at `from_pos` or later gets first; -1 when it is over K_HEADER_BYTES."""
    cdef uint64_t version = load_relaxed_u64(&r.ctl.header_version) + 1
    cdef header_blob* blob = &r.headers[version % K_HEADER_VERSIONS]
    if length > K_HEADER_BYTES:
        return -1
    store_release_u64(&blob.version, 0)
    fence_release()
    blob.from_pos = from_pos
    blob.length = length
    if length:
        memcpy(blob.data, data, length)
    store_release_u64(&blob.version, version)
    store_release_u64(&r.ctl.header_version, version)
    return 0


cdef void ring_restart(ring* r) noexcept nogil:
    """Empty the ring and give its pages back; positions go on, so that readers notice. Its writer only."""
    cdef uint64_t end = load_relaxed_u64(&r.ctl.reserve) + r.size
    cdef uint64_t rec = load_relaxed_u64(&r.ctl.reserve_rec) + r.index_mask + 1
    store_release_u64(&r.ctl.active, 0)
    store_release_u64(&r.ctl.key_rec, 0)
    store_release_u64(&r.ctl.reserve, end)
    store_release_u64(&r.ctl.reserve_rec, rec)
    store_release_u64(&r.ctl.first_pos, end)
    store_release_u64(&r.ctl.commit_rec, rec)
    store_release_u64(&r.ctl.commit, end)
    arena_punch(r.owner, r.ctl.bytes_at, r.size)


cdef void ring_notify(ring* r) noexcept nogil:
    """Ring the doorbells of the processes that subscribed; once after a batch of commits."""
    cdef uint64_t mask
    # Either we see the bit of a reader that subscribes now, or it sees our commits: a release store and a load
    # alone may pass each other.
    fence_seq()
    mask = load_relaxed_u64(&r.ctl.subscribers)
    if mask:
        arena_ring_doorbells(r.owner, mask)


cdef uint64_t ring_commit_pos(ring* r) noexcept nogil:
    """The end of the bytes that may be read."""
    return load_acquire_u64(&r.ctl.commit)


cdef bint ring_valid(ring* r, uint64_t pos) noexcept nogil:
    """After bytes from `pos` on were used: False if the writer may have been there meanwhile."""
    fence_acquire()
    return load_relaxed_u64(&r.ctl.reserve) <= pos + r.size and pos >= load_relaxed_u64(&r.ctl.first_pos)


cdef uint64_t ring_oldest_rec(ring* r) noexcept nogil:
    """The oldest record that the index still holds; its bytes may be overwritten already."""
    cdef uint64_t reserved = load_acquire_u64(&r.ctl.reserve_rec)
    return reserved - (r.index_mask + 1) if reserved > r.index_mask + 1 else 0


cdef int ring_get(ring* r, uint64_t rec, ring_record* out) noexcept nogil:
    """Copy record number `rec`: 0; 1 when it is yet to come; -1 when the index or the bytes have gone round."""
    if rec >= load_acquire_u64(&r.ctl.commit_rec):
        return 1
    if rec < ring_oldest_rec(r):
        return -1
    out[0] = r.index[rec & r.index_mask]
    out.flags = load_acquire_u32(&r.index[rec & r.index_mask].flags)
    fence_acquire()
    if rec < ring_oldest_rec(r) or not ring_valid(r, out.pos):
        return -1
    return 0


cdef int64_t ring_key_record(ring* r, ring_record* out) noexcept nogil:
    """The newest record to join at, and its number; -1 when there is none, or the stream was freed.

    Positions go on over generations, so whoever was told that it is lapped must not go on in another stream.
    """
    cdef uint64_t key = load_acquire_u64(&r.ctl.key_rec)
    if key == 0 or ring_get(r, key - 1, out) != 0 or not ring_alive(r):
        return -1
    return <int64_t>(key - 1)


cdef int64_t ring_find(ring* r, uint64_t pos, ring_record* out) noexcept nogil:
    """The record that holds the byte at `pos`, and its number; -1 when it is lapped or yet to come."""
    cdef uint64_t low = ring_oldest_rec(r)
    cdef uint64_t high = load_acquire_u64(&r.ctl.commit_rec)
    cdef uint64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if ring_get(r, middle, out) < 0:
            # Overwritten while we looked: what we want, if it is there still, is newer.
            low = middle + 1
        elif pos < out.pos:
            high = middle
        elif pos >= out.pos + out.length:
            low = middle + 1
        else:
            return <int64_t>middle
    return -1


cdef int ring_header(ring* r, uint64_t pos, uint8_t* out, uint32_t capacity) noexcept nogil:
    """The header blob for a player that joins at `pos`: its length in `out`; 0: none; -1: over `capacity`.

    The oldest place is left to the writer, so a reader meets it only when several versions come while it copies.
    """
    cdef uint64_t newest, version, oldest
    cdef header_blob* blob
    cdef uint32_t length
    cdef int _try
    for _try in range(K_HEADER_TRIES):
        newest = load_acquire_u64(&r.ctl.header_version)
        if newest == 0:
            return 0
        oldest = newest - K_HEADER_VERSIONS + 2 if newest >= K_HEADER_VERSIONS else 1
        version = newest
        while version > oldest and r.headers[version % K_HEADER_VERSIONS].from_pos > pos:
            version -= 1
        blob = &r.headers[version % K_HEADER_VERSIONS]
        if load_acquire_u64(&blob.version) != version:
            continue
        length = blob.length
        memcpy(out, blob.data, min(length, capacity, <uint32_t>K_HEADER_BYTES))
        fence_acquire()
        if load_relaxed_u64(&blob.version) == version:
            if not ring_alive(r):
                return 0
            return <int>length if length <= capacity else -1
    return 0


cdef class Ring:
    """A ring as Python sees it: for tools, tests and whatever is not on the path of the media.

    Raises ValueError when the slot is free. Its buffer is the ring's memory, read only.
    """

    def __cinit__(self, Arena arena not None, uint32_t slot, uint32_t kind):
        self.arena = arena
        self.slot = slot
        self.kind = kind
        if ring_open(&self.view, &arena.view, slot, kind) < 0:
            raise ValueError(f"ring {kind} of stream slot {slot} can't be opened: the slot is free or memory is short")

    @property
    def alive(self):
        """Whether the stream that this ring was opened for still has its slot."""
        return ring_alive(&self.view)

    @property
    def size(self):
        """Bytes."""
        return self.view.size

    @property
    def commit(self):
        """Position after the last byte that may be read."""
        return ring_commit_pos(&self.view)

    @property
    def reserve(self):
        """Position after the last byte that is written or being written."""
        return load_acquire_u64(&self.view.ctl.reserve)

    @property
    def commit_rec(self):
        """Number of the next record."""
        return load_acquire_u64(&self.view.ctl.commit_rec)

    @property
    def oldest_rec(self):
        """Number of the oldest record in the index."""
        return ring_oldest_rec(&self.view)

    @property
    def active(self):
        """Whether its writer keeps it filled."""
        return bool(load_acquire_u64(&self.view.ctl.active))

    @active.setter
    def active(self, bint value):
        store_release_u64(&self.view.ctl.active, value)

    def begin(self, uint64_t length):
        """Reserve `length` bytes and leave it at that: what a writer does before it dies."""
        if ring_reserve(&self.view, length) == NULL:
            raise ValueError(f"a record of {length} bytes; a ring of {self.view.size} takes half of that")

    def append(self, const uint8_t[::1] data, *, int64_t dts=0, int64_t pts=0, uint32_t flags=0,
               int64_t arrival_us=0, uint32_t track=0, uint32_t codec=0):
        """Write `data` as one record (dts, pts: 90 kHz ticks; arrival_us: µs); gives its number."""
        cdef uint64_t length = data.shape[0]
        cdef uint8_t* place = ring_reserve(&self.view, length)
        if place == NULL:
            raise ValueError(f"a record of {length} bytes; a ring of {self.view.size} takes half of that")
        if length:
            memcpy(place, &data[0], length)
        return ring_commit(&self.view, length, dts, pts, arrival_us, flags, track, codec)

    def mark(self, uint64_t rec, uint32_t flags):
        """Add `flags` to record `rec`."""
        ring_mark(&self.view, rec, flags)

    def notify(self):
        """Ring the doorbells of subscribed processes."""
        ring_notify(&self.view)

    def subscribe(self, bint wanted=True):
        """Have this process's doorbell rung after each batch of commits, or no more."""
        cdef uint64_t bit = <uint64_t>1 << self.arena.view.process
        if wanted:
            or_seq_u64(&self.view.ctl.subscribers, bit)
        else:
            and_seq_u64(&self.view.ctl.subscribers, ~bit)

    def restart(self):
        """Empty the ring and give its pages back."""
        ring_restart(&self.view)

    def read(self, uint64_t pos, uint64_t length):
        """The bytes at `pos`, or None when they are lapped or not all there yet."""
        if length > self.view.size or pos + length > ring_commit_pos(&self.view):
            return None
        data = (<const uint8_t*>self.view.base)[pos & self.view.mask:(pos & self.view.mask) + length]
        return data if ring_valid(&self.view, pos) else None

    def record(self, uint64_t rec):
        """Record number `rec` as a dict, or None when it is lapped or yet to come."""
        cdef ring_record out
        if ring_get(&self.view, rec, &out) != 0:
            return None
        return {"rec": rec, **out}

    def key_record(self):
        """The newest record to join at, as a dict; None when there is none."""
        cdef ring_record out
        cdef int64_t rec = ring_key_record(&self.view, &out)
        return None if rec < 0 else {"rec": rec, **out}

    def find(self, uint64_t pos):
        """The record that holds the byte at `pos`, as a dict; None when it is lapped or yet to come."""
        cdef ring_record out
        cdef int64_t rec = ring_find(&self.view, pos, &out)
        return None if rec < 0 else {"rec": rec, **out}

    def records(self):
        """A copy of all records that the index holds, oldest first: numpy, dtype RECORD."""
        cdef uint64_t first = ring_oldest_rec(&self.view)
        cdef uint64_t end = self.commit_rec
        whole = np.asarray(<uint8_t[:(self.view.index_mask + 1) * 64]><uint8_t*>self.view.index).view(RECORD)
        copy = whole[np.arange(first, max(first, end), dtype=np.uint64) & np.uint64(self.view.index_mask)]
        return copy[max(0, ring_oldest_rec(&self.view) - first):]

    def view_bytes(self):
        """The ring's memory, not in the order of positions: numpy uint8, read with care."""
        return np.frombuffer(self, np.uint8)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.view.base, <Py_ssize_t>self.view.size, 1, flags)

    def set_header(self, const uint8_t[::1] data, from_pos=None):
        """Give the bytes that a player which joins at `from_pos` (default: here) or later gets first."""
        cdef uint64_t start = self.commit if from_pos is None else from_pos
        if ring_set_header(&self.view, &data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0], start) < 0:
            raise ValueError(f"a header of {data.shape[0]} bytes; {K_HEADER_BYTES} are taken")

    def header(self, pos=None):
        """The header for a player that joins at `pos` (default: here)."""
        cdef uint8_t out[K_HEADER_BYTES]
        cdef uint64_t at = self.commit if pos is None else pos
        cdef int length = ring_header(&self.view, at, out, K_HEADER_BYTES)
        return (<const uint8_t*>out)[:length] if length > 0 else b""
