"""NAL units of H.264 and H.265, and the bits inside them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.media.codec cimport CODEC_H264

cdef enum:
    K_SEI_RECOVERY_POINT = 6      # H.264 D.1.1
    K_SEI_LOOKED_AT_BYTES = 256   # recovery point messages are short and come first


cdef nal_role nal_role_of(uint32_t codec, const uint8_t* nal, uint32_t length) noexcept nogil:
    """What the NAL unit at `nal` (its header first) is to a muxer."""
    cdef uint32_t type
    if codec == CODEC_H264:
        if length < 1 or nal[0] & 0x80:
            return NAL_BROKEN
        type = nal[0] & 0x1F
        if type == H264_IDR:
            return NAL_KEY
        if H264_SLICE <= type <= 4:
            return NAL_VCL
        if type == H264_SEI:
            return NAL_SEI
        if type == H264_SPS or type == H264_PPS or type == H264_SPS_EXTENSION:
            return NAL_PARAMETERS
        if type == H264_AUD:
            return NAL_DELIMITER
        if type == H264_FILLER:
            return NAL_FILLER
        return NAL_OTHER
    if length < 2 or nal[0] & 0x80:
        return NAL_BROKEN
    type = nal[0] >> 1 & 0x3F
    if type <= H265_VCL_LAST:
        return NAL_KEY if H265_BLA_W_LP <= type <= H265_IRAP_LAST else NAL_VCL
    if type <= H265_PPS:
        return NAL_PARAMETERS
    if type == H265_AUD:
        return NAL_DELIMITER
    if type == H265_FILLER:
        return NAL_FILLER
    if type == H265_PREFIX_SEI:
        return NAL_SEI
    return NAL_OTHER


cdef bint nal_first_slice(uint32_t codec, const uint8_t* nal, uint32_t length) noexcept nogil:
    """Whether a VCL NAL unit begins a picture: first_mb_in_slice is 0, or first_slice_segment_in_pic_flag is 1."""
    cdef uint32_t header = 1 if codec == CODEC_H264 else 2
    return length > header and nal[header] & 0x80 != 0


cdef uint32_t nal_unescape(const uint8_t* nal, uint32_t length, uint8_t* out, uint32_t capacity) noexcept nogil:
    """Copy NAL bytes to `out` without emulation_prevention_three_byte; return how many (at most `capacity`)."""
    cdef uint32_t i, n = 0, zeros = 0
    for i in range(length):
        if zeros >= 2 and nal[i] == 3:
            zeros = 0
            continue
        if n == capacity:
            break
        out[n] = nal[i]
        n += 1
        zeros = zeros + 1 if nal[i] == 0 else 0
    return n


cdef bint h264_recovery_point(const uint8_t* nal, uint32_t length) noexcept nogil:
    """Whether an H.264 SEI NAL unit says that decoding may start right here (recovery_frame_cnt is 0)."""
    cdef uint8_t rbsp[K_SEI_LOOKED_AT_BYTES]
    cdef uint32_t n = nal_unescape(nal, length, rbsp, K_SEI_LOOKED_AT_BYTES)
    cdef uint32_t i = 1, type, size
    cdef bits b
    while i + 2 < n:
        type = 0
        while i < n and rbsp[i] == 0xFF:
            type += 255
            i += 1
        if i >= n:
            return False
        type += rbsp[i]
        i += 1
        size = 0
        while i < n and rbsp[i] == 0xFF:
            size += 255
            i += 1
        if i >= n:
            return False
        size += rbsp[i]
        i += 1
        if type == K_SEI_RECOVERY_POINT:
            bits_init(&b, rbsp + i, n - i)
            return bits_ue(&b) == 0 and not b.overrun
        i += size
    return False


cdef void bits_init(bits* b, const uint8_t* data, uint32_t length) noexcept nogil:
    b.data = data
    b.at = 0
    b.end = <uint64_t>length * 8
    b.overrun = False


cdef uint32_t bits_u(bits* b, uint32_t count) noexcept nogil:
    """u(count), count up to 32."""
    cdef uint64_t value = 0
    cdef uint32_t _i
    if b.at + count > b.end:
        b.at = b.end
        b.overrun = True
        return 0
    for _i in range(count):
        value = value << 1 | (b.data[b.at >> 3] >> (7 - (b.at & 7)) & 1)
        b.at += 1
    return <uint32_t>value


cdef void bits_skip(bits* b, uint32_t count) noexcept nogil:
    b.at += count
    if b.at > b.end:
        b.at = b.end
        b.overrun = True


cdef uint32_t bits_ue(bits* b) noexcept nogil:
    """ue(v), H.264 clause 9.1; 32 leading zeros or more are an overrun."""
    cdef uint32_t zeros = 0
    while zeros < 32 and bits_u(b, 1) == 0 and not b.overrun:
        zeros += 1
    if zeros >= 32:
        b.overrun = True
    if b.overrun:
        return 0
    return <uint32_t>(((<uint64_t>1 << zeros) - 1) + bits_u(b, zeros))


cdef int32_t bits_se(bits* b) noexcept nogil:
    """se(v), H.264 clause 9.1.1."""
    cdef uint32_t k = bits_ue(b)
    return <int32_t>((k + 1) >> 1) if k & 1 else -<int32_t>(k >> 1)


def role(uint32_t codec, const uint8_t[::1] nal not None):
    """The nal_role (number) of one NAL unit without start code; codec is a media_codec number."""
    return nal_role_of(codec, &nal[0] if nal.shape[0] else NULL, <uint32_t>nal.shape[0])


def unescape(const uint8_t[::1] nal not None):
    """The bytes of a NAL unit without its emulation prevention bytes."""
    out = bytearray(nal.shape[0])
    cdef uint8_t[::1] view = out
    if not nal.shape[0]:
        return b""
    return bytes(out[:nal_unescape(&nal[0], <uint32_t>nal.shape[0], &view[0], <uint32_t>nal.shape[0])])


def recovery_point(const uint8_t[::1] nal not None):
    """Whether an H.264 SEI NAL unit carries a recovery point with recovery_frame_cnt 0."""
    return bool(nal.shape[0] and h264_recovery_point(&nal[0], <uint32_t>nal.shape[0]))


def split(const uint8_t[::1] data not None):
    """[(offset, length)] of the NAL units in an Annex B byte stream, start codes and trailing zeros left out."""
    cdef const uint8_t* base = &data[0] if data.shape[0] else NULL
    cdef const uint8_t* end = base + data.shape[0]
    cdef const uint8_t* at = find_start_code(base, end)
    cdef const uint8_t* following
    cdef const uint8_t* last
    spans = []
    while at < end:
        at += 3
        following = find_start_code(at, end)
        last = following
        while last > at and (last - 1)[0] == 0:
            last -= 1
        spans.append((at - base, last - at))
        at = following
    return spans


def exp_golomb(const uint8_t[::1] data not None, bint signed=False):
    """The first ue(v), or se(v), in `data`; ValueError past its end."""
    cdef bits b
    bits_init(&b, &data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0])
    cdef int64_t value = bits_se(&b) if signed else <int64_t>bits_ue(&b)
    if b.overrun:
        raise ValueError("no whole exp-Golomb code in these bytes")
    return value
