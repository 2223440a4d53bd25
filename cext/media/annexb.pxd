"""Access units out of the PES packets of an H.264 or H.265 stream in Annex B form.

Usually a PES packet is one access unit. Several in one PES are told apart by delimiters and first slices. A
stream whose access units go over PES borders is noticed by its first PES that begins in the middle of one;
from then on each is complete only when the next begins.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.media.decoder_config cimport parameter_sets
from flux.cext.media.nal cimport nal_role, nal_span

cdef enum:
    K_ACCESS_UNIT_BYTES = 4194304  # of one access unit at most
    K_MAX_NALS = 8192             # of one access unit
    K_MAX_MARKS = 8               # PES packets in one buffer; further ones share the last one's times
    K_DEFAULT_FRAME_TICKS = 3600  # between access units without times, until a distance is known

cdef struct pes_mark:             # where the data of a PES begins in the buffer
    uint32_t at
    bint has_pts
    int64_t pts_ticks
    int64_t dts_ticks
    uint64_t tag

cdef struct access_unit:
    const uint8_t* data           # nals[].at counts from here
    const nal_span* nals          # what goes into a frame: no delimiters, filler, parameter sets
    uint32_t nal_count
    uint32_t bytes                # of the NAL units, each with four bytes of length
    bint key
    bint recovery_point
    bint damaged
    bint config_changed           # parameter sets are new with this unit
    bint has_times
    int64_t pts_ticks
    int64_t dts_ticks
    uint64_t tag                  # of the PES in which it begins

cdef struct annexb:
    void (*emit)(void* ctx, access_unit* u) noexcept nogil
    void* ctx
    uint64_t* counters
    uint32_t codec
    uint32_t length
    uint32_t capacity
    uint32_t nal_capacity
    uint8_t* data
    nal_span* nals
    uint32_t mark_count
    pes_mark marks[8]
    bint begun                    # a PES began, its data did not come yet
    bint loose                    # access units go over PES borders
    bint damaged
    bint overflow                 # the access unit at hand is too long: it is dropped
    bint slice_seen               # the search for the first slice of the PES is over
    uint32_t searched
    bint has_times
    int64_t dts_ticks             # of the last access unit
    int64_t pts_ticks
    int64_t frame_ticks
    uint32_t changes_told         # of parameter sets, to the last access unit
    parameter_sets sets

cdef void annexb_init(annexb* a, uint32_t codec, uint64_t* counters) noexcept nogil
cdef void annexb_free(annexb* a) noexcept nogil
cdef void annexb_begin(annexb* a, bint has_pts, int64_t pts_ticks, int64_t dts_ticks, uint64_t tag) noexcept nogil
# NAL_VCL or NAL_KEY when the first slice of the PES came with these bytes, else NAL_OTHER
cdef nal_role annexb_append(annexb* a, const uint8_t* data, uint32_t length) noexcept nogil
cdef void annexb_end(annexb* a) noexcept nogil       # the PES is complete
cdef void annexb_finish(annexb* a) noexcept nogil    # nothing more comes
