"""Codec numbers, one list for rings, muxers and the API (names in codec.pyx)."""

cdef enum media_codec:
    CODEC_NONE = 0
    CODEC_H264 = 1
    CODEC_H265 = 2
    CODEC_AV1 = 3
    CODEC_VP8 = 4
    CODEC_VP9 = 5
    CODEC_MJPEG = 6
    CODEC_AAC = 32
    CODEC_OPUS = 33
    CODEC_PCMA = 34
    CODEC_PCMU = 35
    CODEC_MP3 = 36
    CODEC_AC3 = 37
    CODEC_EAC3 = 38
    CODEC_DATA = 64               # KLV, SCTE-35, teletext, and whatever else a PMT names
