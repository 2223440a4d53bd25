"""FLV: file header, tags, codec headers (Adobe Flash Video File Format Specification 10.1, annex E; Enhanced RTMP v1 for H.265).

A tag as a muxer writes it: 11 bytes of header, the data, 4 bytes of PreviousTagSize.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef enum flv_tag_type:           # E.4.1
    FLV_AUDIO = 8
    FLV_VIDEO = 9
    FLV_SCRIPT = 18

cdef enum:
    K_FLV_HEADER_BYTES = 13       # with PreviousTagSize0
    K_FLV_TAG_HEADER_BYTES = 11
    K_FLV_TAG_BYTES = 15          # around the data
    K_FLV_DATA_BYTES = 0xFFFFFF   # of one tag at most
    K_FLV_METADATA_BYTES = 512    # enough for the tag of flv_put_metadata

cdef struct flv_frame:
    uint32_t codec                # media_codec: H264, H265 or AAC
    bint config                   # a configuration record (sequence header) rather than a frame
    bint key
    uint32_t timestamp_ms         # dts
    int32_t composition_ms        # pts - dts, 24 bits
    uint32_t length               # bytes of the payload

cdef struct flv_facts:            # for onMetaData; 0: unknown, left out
    uint32_t video_codec
    uint32_t width
    uint32_t height
    uint32_t fps_millihz
    uint32_t audio_codec
    uint32_t sample_rate
    uint32_t channels

cdef void flv_put_header(uint8_t* out, bint audio, bint video) noexcept nogil
# bytes of the whole tag; 0: its data would be longer than a tag can hold
cdef uint32_t flv_frame_bytes(const flv_frame* f) noexcept nogil
cdef void flv_put_frame(const flv_frame* f, const uint8_t* payload, uint8_t* out) noexcept nogil
# bytes of the whole tag
cdef uint32_t flv_put_metadata(const flv_facts* m, uint8_t* out) noexcept nogil
