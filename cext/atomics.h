/* C11 memory-model loads and stores on plain integers in shared memory. */
#ifndef FLUX_ATOMICS_H
#define FLUX_ATOMICS_H

#include <stdint.h>

#define FLUX_ATOMICS(NAME, TYPE)                                                                     \
    static inline TYPE load_relaxed_##NAME(const TYPE *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }  \
    static inline TYPE load_acquire_##NAME(const TYPE *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }  \
    static inline TYPE load_seq_##NAME(const TYPE *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }      \
    static inline void store_relaxed_##NAME(TYPE *p, TYPE v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }  \
    static inline void store_release_##NAME(TYPE *p, TYPE v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }  \
    static inline void store_seq_##NAME(TYPE *p, TYPE v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }      \
    static inline TYPE exchange_seq_##NAME(TYPE *p, TYPE v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
    static inline TYPE add_relaxed_##NAME(TYPE *p, TYPE v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }   \
    static inline TYPE or_seq_##NAME(TYPE *p, TYPE v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }         \
    static inline TYPE and_seq_##NAME(TYPE *p, TYPE v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }       \
    static inline int cas_seq_##NAME(TYPE *p, TYPE expected, TYPE v)                                 \
    {                                                                                                \
        return __atomic_compare_exchange_n(p, &expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
    }

FLUX_ATOMICS(u64, uint64_t)
FLUX_ATOMICS(u32, uint32_t)

static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void fence_seq(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
