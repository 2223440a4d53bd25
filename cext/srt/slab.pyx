"""Chunks for packet bytes (slab.pxd tells how)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef enum:
    K_EMPTY_KEPT = 4              # empty blocks kept at hand: a burst's first packets need no malloc

if sizeof(slab_block) + K_BLOCK_CHUNKS * K_CHUNK_BYTES > K_BLOCK_BYTES:
    raise ImportError("the chunks do not fit into a block")


cdef void slab_init(slab* s, uint64_t max_bytes) noexcept nogil:
    s.room = NULL
    s.chunks = 0
    s.blocks = 0
    s.max_blocks = max_bytes // K_BLOCK_BYTES
    s.empty = 0


cdef void _link(slab* s, slab_block* block) noexcept nogil:
    block.before = NULL
    block.after = s.room
    if s.room != NULL:
        s.room.before = block
    s.room = block


cdef void _unlink(slab* s, slab_block* block) noexcept nogil:
    if block.before != NULL:
        block.before.after = block.after
    else:
        s.room = block.after
    if block.after != NULL:
        block.after.before = block.before


cdef uint8_t* slab_take(slab* s) noexcept nogil:
    """A chunk of K_CHUNK_BYTES; NULL when the bound is reached or there is no memory."""
    cdef slab_block* block = s.room
    cdef uint8_t* chunk
    if block == NULL:
        if s.blocks >= s.max_blocks:
            return NULL
        block = <slab_block*>aligned_alloc(K_BLOCK_BYTES, K_BLOCK_BYTES)
        if block == NULL:
            return NULL
        block.free = NULL
        block.used = 0
        block.fresh = K_BLOCK_CHUNKS
        s.blocks += 1
        s.empty += 1
        _link(s, block)
    if block.used == 0:
        s.empty -= 1
    if block.free != NULL:
        chunk = <uint8_t*>block.free
        block.free = (<void**>chunk)[0]
    else:
        chunk = <uint8_t*>block + sizeof(slab_block) + (K_BLOCK_CHUNKS - block.fresh) * K_CHUNK_BYTES
        block.fresh -= 1
    block.used += 1
    if block.used == K_BLOCK_CHUNKS:
        _unlink(s, block)
    s.chunks += 1
    return chunk


cdef void slab_give(slab* s, uint8_t* chunk) noexcept nogil:
    """Take a chunk back; its block is freed when it was the last one out and enough empty blocks are there."""
    cdef slab_block* block = <slab_block*>(<uintptr_t>chunk & ~<uintptr_t>(K_BLOCK_BYTES - 1))
    (<void**>chunk)[0] = block.free
    block.free = chunk
    if block.used == K_BLOCK_CHUNKS:
        _link(s, block)
    block.used -= 1
    s.chunks -= 1
    if block.used == 0:
        if s.empty >= K_EMPTY_KEPT:
            _unlink(s, block)
            free(block)
            s.blocks -= 1
        else:
            s.empty += 1


cdef void slab_clear(slab* s) noexcept nogil:
    """Free all blocks; no chunk may be out."""
    cdef slab_block* block
    while s.room != NULL:
        block = s.room
        s.room = block.after
        free(block)
    s.blocks = 0
    s.empty = 0


cdef class Slab:
    """A slab for tests and inspection."""

    cdef slab view
    cdef dict out

    def __cinit__(self, uint64_t max_bytes=1 << 20):
        slab_init(&self.view, max_bytes)
        self.out = {}

    def __dealloc__(self):
        cdef uintptr_t address
        for address in self.out or ():
            slab_give(&self.view, <uint8_t*>address)
        slab_clear(&self.view)

    def take(self, uint8_t mark):
        """A chunk filled with `mark`, by its address; None when the bound is reached."""
        cdef uint8_t* chunk = slab_take(&self.view)
        cdef uint32_t i
        if chunk == NULL:
            return None
        for i in range(K_CHUNK_BYTES):
            chunk[i] = mark
        self.out[<uintptr_t>chunk] = mark
        return <uintptr_t>chunk

    def give(self, uintptr_t address):
        """Give a chunk back; True when all its bytes were still what take() wrote."""
        cdef uint8_t mark = self.out.pop(address)
        cdef uint8_t* chunk = <uint8_t*>address
        cdef uint32_t i
        cdef bint whole = True
        for i in range(K_CHUNK_BYTES):
            whole = whole and chunk[i] == mark
        slab_give(&self.view, chunk)
        return whole

    @property
    def chunks(self):
        """Chunks out."""
        return self.view.chunks

    @property
    def blocks(self):
        """Blocks allocated, 64 KiB each."""
        return self.view.blocks
