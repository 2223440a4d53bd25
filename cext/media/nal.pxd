"""NAL units of H.264 and H.265: start codes, types, the bits of an RBSP, recovery point SEI.

ITU-T H.264 (clauses 7.3, 7.4.1, annex B, D.1.8) and H.265 (7.3, 7.4.2.2, annex B).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "media/start_code.h" nogil:
    const uint8_t* find_start_code(const uint8_t* p, const uint8_t* end) noexcept

cdef enum h264_nal_unit_type:     # H.264 table 7-1
    H264_SLICE = 1
    H264_IDR = 5
    H264_SEI = 6
    H264_SPS = 7
    H264_PPS = 8
    H264_AUD = 9
    H264_FILLER = 12
    H264_SPS_EXTENSION = 13

cdef enum h265_nal_unit_type:     # H.265 table 7-1
    H265_BLA_W_LP = 16
    H265_IRAP_LAST = 23           # 16..23: BLA, IDR, CRA and reserved IRAP types
    H265_VCL_LAST = 31
    H265_VPS = 32
    H265_SPS = 33
    H265_PPS = 34
    H265_AUD = 35
    H265_FILLER = 38
    H265_PREFIX_SEI = 39

cdef enum nal_role:               # what a NAL unit is to a muxer
    NAL_OTHER = 0
    NAL_VCL = 1
    NAL_KEY = 2                   # VCL of an IDR (H.264) or IRAP (H.265) picture
    NAL_PARAMETERS = 3
    NAL_DELIMITER = 4
    NAL_FILLER = 5
    NAL_SEI = 6
    NAL_BROKEN = 7                # forbidden_zero_bit set, or too short for its header

cdef struct nal_span:             # a NAL unit without its start code
    uint32_t at
    uint32_t length
    uint32_t role

cdef struct bits:                 # a reader over an RBSP; past its end it gives 0 and sets overrun
    const uint8_t* data
    uint64_t at                   # in bits
    uint64_t end
    bint overrun

cdef nal_role nal_role_of(uint32_t codec, const uint8_t* nal, uint32_t length) noexcept nogil
cdef bint nal_first_slice(uint32_t codec, const uint8_t* nal, uint32_t length) noexcept nogil
cdef uint32_t nal_unescape(const uint8_t* nal, uint32_t length, uint8_t* out, uint32_t capacity) noexcept nogil
cdef bint h264_recovery_point(const uint8_t* nal, uint32_t length) noexcept nogil

cdef void bits_init(bits* b, const uint8_t* data, uint32_t length) noexcept nogil
cdef uint32_t bits_u(bits* b, uint32_t count) noexcept nogil
cdef void bits_skip(bits* b, uint32_t count) noexcept nogil
cdef uint32_t bits_ue(bits* b) noexcept nogil
cdef int32_t bits_se(bits* b) noexcept nogil
