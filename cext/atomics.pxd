"""C11 loads, stores and read-modify-writes on integers in shared memory (atomics.h)."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "atomics.h" nogil:
    uint64_t load_relaxed_u64(const uint64_t* p) noexcept
    uint64_t load_acquire_u64(const uint64_t* p) noexcept
    uint64_t load_seq_u64(const uint64_t* p) noexcept
    void store_relaxed_u64(uint64_t* p, uint64_t v) noexcept
    void store_release_u64(uint64_t* p, uint64_t v) noexcept
    void store_seq_u64(uint64_t* p, uint64_t v) noexcept
    uint64_t exchange_seq_u64(uint64_t* p, uint64_t v) noexcept
    uint64_t add_relaxed_u64(uint64_t* p, uint64_t v) noexcept
    uint64_t or_seq_u64(uint64_t* p, uint64_t v) noexcept
    uint64_t and_seq_u64(uint64_t* p, uint64_t v) noexcept
    int cas_seq_u64(uint64_t* p, uint64_t expected, uint64_t v) noexcept
    uint32_t load_relaxed_u32(const uint32_t* p) noexcept
    uint32_t load_acquire_u32(const uint32_t* p) noexcept
    uint32_t load_seq_u32(const uint32_t* p) noexcept
    void store_relaxed_u32(uint32_t* p, uint32_t v) noexcept
    void store_release_u32(uint32_t* p, uint32_t v) noexcept
    void store_seq_u32(uint32_t* p, uint32_t v) noexcept
    uint32_t exchange_seq_u32(uint32_t* p, uint32_t v) noexcept
    uint32_t add_relaxed_u32(uint32_t* p, uint32_t v) noexcept
    uint32_t or_seq_u32(uint32_t* p, uint32_t v) noexcept
    uint32_t and_seq_u32(uint32_t* p, uint32_t v) noexcept
    int cas_seq_u32(uint32_t* p, uint32_t expected, uint32_t v) noexcept
    void fence_acquire() noexcept
    void fence_release() noexcept
    void fence_seq() noexcept
