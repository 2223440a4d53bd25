"""Parameter sets of a track, and its AVCDecoderConfigurationRecord or HEVCDecoderConfigurationRecord."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from flux.cext.media.codec cimport CODEC_H264
from flux.cext.media.nal cimport (
    H264_PPS, H264_SPS, H264_SPS_EXTENSION, H265_PPS, H265_SPS, H265_VPS, bits, bits_init, bits_u, bits_ue, nal_unescape
)
from flux.cext.media.sps cimport sps_info, sps_parse

cdef enum:
    K_ID_BYTES = 16               # enough of a set to read its id
    K_LENGTH_SIZE_MINUS_ONE = 3   # NAL units have four bytes of length before them


cdef void parameter_sets_init(parameter_sets* p, uint32_t codec) noexcept nogil:
    memset(p, 0, sizeof(parameter_sets))
    p.codec = codec


cdef bint is_sps(const parameter_sets* p, uint32_t type) noexcept nogil:
    if p.codec == CODEC_H264:
        return type == H264_SPS
    return type == H265_SPS


cdef int parameter_sets_put(parameter_sets* p, const uint8_t* nal, uint32_t length) noexcept nogil:
    """Keep a VPS, SPS, PPS or SPS extension NAL unit."""
    cdef uint8_t head[K_ID_BYTES]
    cdef uint32_t header = 1 if p.codec == CODEC_H264 else 2
    cdef uint32_t type, i, same = 0, oldest = 0
    cdef parameter_set* kept = NULL
    cdef sps_info info
    cdef bits b
    if length <= header or length > K_PARAMETER_SET_BYTES:
        return -1
    for i in range(p.count):
        if p.sets[i].length == length and memcmp(p.sets[i].data, nal, length) == 0:
            return 0
    type = nal[0] & 0x1F if p.codec == CODEC_H264 else nal[0] >> 1 & 0x3F
    bits_init(&b, head, nal_unescape(nal + header, length - header, head, K_ID_BYTES))
    if is_sps(p, type):
        if sps_parse(p.codec, nal, length, &info):
            return -1
        p.sps = info
        i = info.id
    elif type == H265_VPS and p.codec != CODEC_H264:
        i = bits_u(&b, 4)
    else:
        i = bits_ue(&b)
        if b.overrun:
            return -1
    cdef uint32_t id = i
    for i in range(p.count):
        if p.sets[i].type != type:
            continue
        if p.sets[i].id == id:
            kept = &p.sets[i]
            break
        if same == 0 or p.sets[i].age < p.sets[oldest].age:
            oldest = i
        same += 1
    if kept == NULL:
        if p.count < K_MAX_PARAMETER_SETS:
            kept = &p.sets[p.count]
            p.count += 1
        elif same:
            kept = &p.sets[oldest]
        else:
            return -1
    p.changes += 1
    kept.type = type
    kept.id = id
    kept.age = p.changes
    kept.length = length
    memcpy(kept.data, nal, length)
    return 1


cdef uint32_t count_of(const parameter_sets* p, uint32_t type) noexcept nogil:
    cdef uint32_t i, n = 0
    for i in range(p.count):
        n += p.sets[i].type == type
    return n


cdef uint8_t* put_sets(const parameter_sets* p, uint32_t type, uint8_t* out) noexcept nogil:
    cdef uint32_t i
    for i in range(p.count):
        if p.sets[i].type == type:
            out[0] = p.sets[i].length >> 8
            out[1] = p.sets[i].length & 0xFF
            memcpy(out + 2, p.sets[i].data, p.sets[i].length)
            out += 2 + p.sets[i].length
    return out


cdef int avc_record(const parameter_sets* p, uint8_t* out) noexcept nogil:
    cdef uint8_t* at = out
    cdef const uint8_t* sps = NULL
    cdef uint32_t i
    for i in range(p.count):
        if p.sets[i].type == H264_SPS and p.sets[i].length >= 4:
            sps = p.sets[i].data
            break
    if sps == NULL or count_of(p, H264_PPS) == 0:
        return 0
    at[0] = 1
    memcpy(at + 1, sps + 1, 3)
    at[4] = 0xFC | K_LENGTH_SIZE_MINUS_ONE
    at[5] = 0xE0 | count_of(p, H264_SPS)
    at = put_sets(p, H264_SPS, at + 6)
    at[0] = count_of(p, H264_PPS)
    at = put_sets(p, H264_PPS, at + 1)
    if sps[1] != 66 and sps[1] != 77 and sps[1] != 88:
        at[0] = 0xFC | p.sps.chroma_format
        at[1] = 0xF8 | (p.sps.luma_depth - 8)
        at[2] = 0xF8 | (p.sps.chroma_depth - 8)
        at[3] = count_of(p, H264_SPS_EXTENSION)
        at = put_sets(p, H264_SPS_EXTENSION, at + 4)
    return <int>(at - out)


cdef int hevc_record(const parameter_sets* p, uint8_t* out) noexcept nogil:
    cdef uint8_t* at = out
    cdef uint32_t type
    for type in range(H265_VPS, H265_PPS + 1):
        if count_of(p, type) == 0:
            return 0
    at[0] = 1
    memcpy(at + 1, p.sps.profile_tier_level, 12)
    at[13] = 0xF0                 # min_spatial_segmentation_idc 0
    at[14] = 0
    at[15] = 0xFC                 # parallelismType 0: unknown
    at[16] = 0xFC | p.sps.chroma_format
    at[17] = 0xF8 | (p.sps.luma_depth - 8)
    at[18] = 0xF8 | (p.sps.chroma_depth - 8)
    at[19] = 0                    # avgFrameRate: unspecified
    at[20] = 0
    at[21] = (p.sps.temporal_layers & 7) << 3 | (p.sps.temporal_nesting & 1) << 2 | K_LENGTH_SIZE_MINUS_ONE
    at[22] = 3
    at += 23
    for type in range(H265_VPS, H265_PPS + 1):
        at[0] = 0x80 | type
        at[1] = 0
        at[2] = count_of(p, type)
        at = put_sets(p, type, at + 3)
    return <int>(at - out)


cdef int parameter_sets_record(const parameter_sets* p, uint8_t* out, uint32_t capacity) noexcept nogil:
    """Write the configuration record of all sets kept."""
    cdef uint32_t i, bound = 64
    for i in range(p.count):
        bound += 2 + p.sets[i].length
    if bound > capacity:
        return -1
    return avc_record(p, out) if p.codec == CODEC_H264 else hevc_record(p, out)


def record(uint32_t codec, nals):
    """The configuration record of parameter set NAL units (bytes each, no start codes); b"" while one is missing.

    ValueError for a broken or too long set.
    """
    cdef parameter_sets sets
    cdef uint8_t out[K_CONFIG_BYTES]
    cdef const uint8_t[::1] view
    cdef int n
    parameter_sets_init(&sets, codec)
    for nal in nals:
        view = nal
        if not view.shape[0] or parameter_sets_put(&sets, &view[0], <uint32_t>view.shape[0]) < 0:
            raise ValueError("broken parameter set")
    n = parameter_sets_record(&sets, out, K_CONFIG_BYTES)
    if n < 0:
        raise ValueError("parameter sets are too long for a configuration record")
    return out[:n]
