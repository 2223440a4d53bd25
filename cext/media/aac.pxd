"""AAC in ADTS (ISO/IEC 13818-7 clause 6.2, 14496-3 annex 1.A.2) and AudioSpecificConfig (14496-3 clause 1.6.2.1)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    K_ADTS_HEADER_BYTES = 7       # without CRC
    K_AAC_FRAME_SAMPLES = 1024
    K_AUDIO_CONFIG_BYTES = 2

cdef struct adts_header:
    uint32_t object_type          # MPEG-4 audio object type; 2: AAC LC
    uint32_t rate_index           # sampling_frequency_index
    uint32_t rate_hz
    uint32_t channels             # channel_configuration; 0: told in the frame
    uint32_t header_bytes         # 7, or 9 with CRC
    uint32_t frame_bytes          # header included
    uint32_t blocks               # raw data blocks in the frame, 1 to 4

# 0, or -1 when these (at least 7) bytes are no ADTS header
cdef int adts_parse(const uint8_t* data, adts_header* out) noexcept nogil
cdef void aac_config(const adts_header* h, uint8_t* out) noexcept nogil
