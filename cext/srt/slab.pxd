"""Places for packet bytes: fixed-size chunks out of 64 KiB blocks, taken and given back without malloc.

A block that lies empty is freed, but for a few that are kept at hand.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    K_CHUNK_BYTES = 1456          # an SRT payload at most
    K_BLOCK_BYTES = 65536         # and its alignment: a chunk's block is found by its address
    K_BLOCK_CHUNKS = 44

cdef struct slab_block:
    slab_block* before            # among the blocks with room
    slab_block* after
    void* free                    # chunks given back, linked through their first bytes
    uint32_t used                 # chunks out
    uint32_t fresh                # chunks never taken yet are the last of the block
    uint64_t pad[4]

cdef struct slab:
    slab_block* room              # blocks with a free chunk
    uint64_t chunks               # out now
    uint64_t blocks               # allocated
    uint64_t max_blocks
    uint32_t empty                # blocks without a chunk out

cdef void slab_init(slab* s, uint64_t max_bytes) noexcept nogil
cdef uint8_t* slab_take(slab* s) noexcept nogil      # K_CHUNK_BYTES; NULL: no memory, or the bound is reached
cdef void slab_give(slab* s, uint8_t* chunk) noexcept nogil
cdef void slab_clear(slab* s) noexcept nogil         # after every chunk was given back
