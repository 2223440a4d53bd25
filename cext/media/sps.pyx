"""Sequence parameter sets of H.264 and H.265, as far as a server needs them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from flux.cext.media.codec cimport CODEC_H264
from flux.cext.media.nal cimport bits, bits_init, bits_se, bits_skip, bits_u, bits_ue, nal_unescape

cdef enum:
    K_EXTENDED_SAR = 255
    K_MAX_PICTURE_PIXELS = 16384  # a side; more is a broken SPS
    K_MAX_SHORT_TERM_SETS = 64    # H.265 7.4.3.2.1


cdef bint h264_has_chroma_format(uint32_t profile) noexcept nogil:
    return (profile == 100 or profile == 110 or profile == 122 or profile == 244 or profile == 44
            or profile == 83 or profile == 86 or profile == 118 or profile == 128 or profile == 138
            or profile == 139 or profile == 134 or profile == 135)


cdef void skip_scaling_list(bits* b, uint32_t size) noexcept nogil:
    """H.264 7.3.2.1.1.1."""
    cdef int last = 8, following = 8
    cdef uint32_t _i
    for _i in range(size):
        if following:
            following = (last + bits_se(b) + 256) & 0xFF
        last = following if following else last


cdef uint32_t frames_millihz(uint32_t ticks, uint32_t scale, uint32_t ticks_a_frame) noexcept nogil:
    if ticks == 0 or scale == 0:
        return 0
    cdef uint64_t value = (<uint64_t>scale * 1000 + <uint64_t>ticks * ticks_a_frame / 2) / (<uint64_t>ticks * ticks_a_frame)
    return <uint32_t>value if value <= 1000000 else 0


cdef void skip_vui_colours(bits* b) noexcept nogil:
    """The part of the VUI that both codecs share: aspect ratio .. chroma sample location."""
    if bits_u(b, 1) and bits_u(b, 8) == K_EXTENDED_SAR:
        bits_skip(b, 32)
    if bits_u(b, 1):
        bits_skip(b, 1)
    if bits_u(b, 1):
        bits_skip(b, 4)
        if bits_u(b, 1):
            bits_skip(b, 24)
    if bits_u(b, 1):
        bits_ue(b)
        bits_ue(b)


cdef int finish(bits* b, sps_info* out, uint64_t width, uint64_t height, uint64_t crop_x, uint64_t crop_y) noexcept nogil:
    if b.overrun or width > K_MAX_PICTURE_PIXELS or height > K_MAX_PICTURE_PIXELS:
        return -1
    if crop_x >= width or crop_y >= height:
        return -1
    out.width = <uint32_t>(width - crop_x)
    out.height = <uint32_t>(height - crop_y)
    return 0


cdef int h264_parse(bits* b, sps_info* out) noexcept nogil:
    cdef uint32_t i, _i, count, mbs_wide, units_high, left, right, top, bottom, unit_x, unit_y, ticks
    cdef bint separate = False
    bits_skip(b, 8)
    out.profile = bits_u(b, 8)
    bits_skip(b, 8)
    out.level = bits_u(b, 8)
    out.id = bits_ue(b)
    out.chroma_format = 1
    out.luma_depth = out.chroma_depth = 8
    if h264_has_chroma_format(out.profile):
        out.chroma_format = bits_ue(b)
        if out.chroma_format > 3:
            return -1
        if out.chroma_format == 3:
            separate = bits_u(b, 1)
        out.luma_depth = 8 + bits_ue(b)
        out.chroma_depth = 8 + bits_ue(b)
        if out.luma_depth > 14 or out.chroma_depth > 14:
            return -1
        bits_skip(b, 1)
        if bits_u(b, 1):
            for i in range(12 if out.chroma_format == 3 else 8):
                if bits_u(b, 1):
                    skip_scaling_list(b, 16 if i < 6 else 64)
    bits_ue(b)
    i = bits_ue(b)
    if i == 0:
        bits_ue(b)
    elif i == 1:
        bits_skip(b, 1)
        bits_se(b)
        bits_se(b)
        count = bits_ue(b)
        if count > 255:
            return -1
        for _i in range(count):
            bits_se(b)
    elif i > 2:
        return -1
    bits_ue(b)
    bits_skip(b, 1)
    mbs_wide = bits_ue(b)
    units_high = bits_ue(b)
    if mbs_wide >= K_MAX_PICTURE_PIXELS // 16 or units_high >= K_MAX_PICTURE_PIXELS // 16:
        return -1
    out.interlaced = not bits_u(b, 1)
    if out.interlaced:
        bits_skip(b, 1)
    bits_skip(b, 1)
    left = right = top = bottom = 0
    if bits_u(b, 1):
        left = bits_ue(b)
        right = bits_ue(b)
        top = bits_ue(b)
        bottom = bits_ue(b)
    unit_x = 2 if not separate and (out.chroma_format == 1 or out.chroma_format == 2) else 1
    unit_y = (2 if not separate and out.chroma_format == 1 else 1) * (2 if out.interlaced else 1)
    if b.overrun:
        return -1
    if bits_u(b, 1):
        skip_vui_colours(b)
        if bits_u(b, 1):
            ticks = bits_u(b, 32)
            out.fps_millihz = frames_millihz(ticks, bits_u(b, 32), 2)
            if b.overrun:
                out.fps_millihz = 0
    b.overrun = False
    return finish(b, out, (mbs_wide + 1) * 16, (units_high + 1) * (32 if out.interlaced else 16),
                  (<uint64_t>left + right) * unit_x, (<uint64_t>top + bottom) * unit_y)


cdef void h265_skip_scaling_lists(bits* b) noexcept nogil:
    """H.265 7.3.4."""
    cdef uint32_t size, matrix, _i
    for size in range(4):
        matrix = 0
        while matrix < 6:
            if not bits_u(b, 1):
                bits_ue(b)
            else:
                if size > 1:
                    bits_se(b)
                for _i in range(min(64, 1 << (4 + (size << 1)))):
                    bits_se(b)
            matrix += 3 if size == 3 else 1


cdef int h265_skip_short_term_sets(bits* b) noexcept nogil:
    """H.265 7.3.7, of an SPS."""
    cdef uint32_t deltas[K_MAX_SHORT_TERM_SETS]
    cdef uint32_t sets = bits_ue(b), i, _j, negative, positive
    if sets > K_MAX_SHORT_TERM_SETS:
        return -1
    for i in range(sets):
        if b.overrun:
            return -1
        if i and bits_u(b, 1):
            bits_skip(b, 1)
            bits_ue(b)
            deltas[i] = 0
            for _j in range(deltas[i - 1] + 1):
                if bits_u(b, 1) or bits_u(b, 1):
                    deltas[i] += 1
        else:
            negative = bits_ue(b)
            positive = bits_ue(b)
            if negative > 16 or positive > 16:
                return -1
            deltas[i] = negative + positive
            for _j in range(deltas[i]):
                bits_ue(b)
                bits_skip(b, 1)
    return 0


cdef int h265_parse(bits* b, const uint8_t* rbsp, uint32_t length, sps_info* out) noexcept nogil:
    cdef uint32_t i, _i, layers, present, width, height, unit_x, unit_y, poc_bits, count, ticks
    cdef uint32_t left = 0, right = 0, top = 0, bottom = 0
    if length < 15:
        return -1
    bits_skip(b, 16 + 4)
    layers = bits_u(b, 3)
    out.temporal_nesting = bits_u(b, 1)
    out.temporal_layers = layers + 1
    memcpy(out.profile_tier_level, rbsp + 3, 12)
    out.profile = rbsp[3] & 0x1F
    out.level = rbsp[14]
    bits_skip(b, 96)
    present = 0
    for i in range(layers):
        present |= bits_u(b, 2) << (2 * i)
    if layers:
        bits_skip(b, 2 * (8 - layers))
    for i in range(layers):
        if present >> (2 * i) & 2:
            bits_skip(b, 88)
        if present >> (2 * i) & 1:
            bits_skip(b, 8)
    out.id = bits_ue(b)
    out.chroma_format = bits_ue(b)
    if out.chroma_format > 3:
        return -1
    unit_x = 2 if out.chroma_format == 1 or out.chroma_format == 2 else 1
    unit_y = 2 if out.chroma_format == 1 else 1
    if out.chroma_format == 3:
        bits_skip(b, 1)
    width = bits_ue(b)
    height = bits_ue(b)
    if bits_u(b, 1):
        left = bits_ue(b)
        right = bits_ue(b)
        top = bits_ue(b)
        bottom = bits_ue(b)
    out.luma_depth = 8 + bits_ue(b)
    out.chroma_depth = 8 + bits_ue(b)
    if b.overrun or out.luma_depth > 16 or out.chroma_depth > 16:
        return -1
    if finish(b, out, width, height, (<uint64_t>left + right) * unit_x, (<uint64_t>top + bottom) * unit_y):
        return -1
    # what follows is needed for the frame rate only: a failure leaves it unknown
    poc_bits = 4 + bits_ue(b)
    for _i in range(0 if bits_u(b, 1) else layers, layers + 1):
        bits_ue(b)
        bits_ue(b)
        bits_ue(b)
    for _i in range(6):
        bits_ue(b)
    if bits_u(b, 1) and bits_u(b, 1):
        h265_skip_scaling_lists(b)
    bits_skip(b, 2)
    if bits_u(b, 1):
        bits_skip(b, 8)
        bits_ue(b)
        bits_ue(b)
        bits_skip(b, 1)
    if b.overrun or poc_bits > 16 or h265_skip_short_term_sets(b):
        return 0
    if bits_u(b, 1):
        count = bits_ue(b)
        if count > 32:
            return 0
        bits_skip(b, count * (poc_bits + 1))
    bits_skip(b, 2)
    if not bits_u(b, 1):
        return 0
    skip_vui_colours(b)
    bits_skip(b, 3)
    if bits_u(b, 1):
        for _i in range(4):
            bits_ue(b)
    if bits_u(b, 1):
        ticks = bits_u(b, 32)
        i = bits_u(b, 32)
        if not b.overrun:
            out.fps_millihz = frames_millihz(ticks, i, 1)
    return 0


cdef int sps_parse(uint32_t codec, const uint8_t* nal, uint32_t length, sps_info* out) noexcept nogil:
    """Parse an SPS NAL unit (header first, as in the stream)."""
    cdef uint8_t rbsp[K_SPS_BYTES]
    cdef uint32_t n = nal_unescape(nal, length, rbsp, K_SPS_BYTES)
    cdef bits b
    memset(out, 0, sizeof(sps_info))
    bits_init(&b, rbsp, n)
    if codec == CODEC_H264:
        return h264_parse(&b, out)
    return h265_parse(&b, rbsp, n, out)


def parse(uint32_t codec, const uint8_t[::1] nal not None):
    """An SPS NAL unit as a dict (pixels, fps_millihz, depths in bits); ValueError when it is broken."""
    cdef sps_info info
    if not nal.shape[0] or sps_parse(codec, &nal[0], <uint32_t>nal.shape[0], &info):
        raise ValueError("broken sequence parameter set")
    return {
        "width": info.width,
        "height": info.height,
        "profile": info.profile,
        "level": info.level,
        "fps_millihz": info.fps_millihz,
        "chroma_format": info.chroma_format,
        "luma_depth": info.luma_depth,
        "chroma_depth": info.chroma_depth,
        "interlaced": bool(info.interlaced),
        "temporal_layers": info.temporal_layers,
    }
