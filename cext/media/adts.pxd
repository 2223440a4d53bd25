"""AAC frames out of the PES packets of an ADTS stream (ISO/IEC 13818-7 clause 6.2)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.media.aac cimport adts_header

cdef enum:
    K_ADTS_BUFFER_BYTES = 16384   # the longest frame (8,191 bytes) and what follows it

cdef struct adts_stream:
    void (*emit)(void* ctx, const adts_header* h, const uint8_t* frame, uint32_t length, int64_t pts_ticks) noexcept nogil
    void* ctx
    uint64_t* counters
    bint synced
    bint marked                   # a PES began at mark_at whose time is not used yet
    bint has_times
    uint32_t mark_at
    int64_t mark_ticks
    int64_t base_ticks            # of the last frame that had a time of its own
    uint64_t samples              # since then
    uint32_t length
    uint8_t data[16384]

cdef void adts_init(adts_stream* a, uint64_t* counters) noexcept nogil
cdef void adts_begin(adts_stream* a, bint has_pts, int64_t pts_ticks) noexcept nogil
cdef void adts_append(adts_stream* a, const uint8_t* data, uint32_t length) noexcept nogil
cdef void adts_lost(adts_stream* a) noexcept nogil   # bytes are missing before the next ones
