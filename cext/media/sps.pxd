"""Sequence parameter sets: H.264 clause 7.3.2.1.1 and annex E, H.265 clause 7.3.2.2 and annex E."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    K_SPS_BYTES = 1024            # of an SPS at most, unescaped

cdef struct sps_info:
    uint32_t id                   # seq_parameter_set_id
    uint32_t width                # pixels, cropped
    uint32_t height
    uint32_t profile              # profile_idc
    uint32_t level                # level_idc
    uint32_t fps_millihz          # frames a second times 1,000, from the VUI; 0: not told
    uint32_t chroma_format        # chroma_format_idc
    uint32_t luma_depth           # bits
    uint32_t chroma_depth
    bint interlaced               # frame_mbs_only_flag is 0
    # H.265 only
    uint32_t temporal_layers      # sps_max_sub_layers_minus1 + 1
    bint temporal_nesting
    uint8_t profile_tier_level[12]  # general_profile_space .. general_level_idc, as written

# 0, or -1 when it can't be parsed
cdef int sps_parse(uint32_t codec, const uint8_t* nal, uint32_t length, sps_info* out) noexcept nogil
