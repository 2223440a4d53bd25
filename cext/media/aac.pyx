"""AAC in ADTS, and AudioSpecificConfig."""

from libc.stdint cimport uint8_t, uint32_t

cdef uint32_t* RATES_HZ = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350
]
cdef enum:
    K_RATES = 13


cdef int adts_parse(const uint8_t* data, adts_header* out) noexcept nogil:
    """Parse adts_fixed_header and adts_variable_header."""
    if data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return -1
    out.rate_index = data[2] >> 2 & 0xF
    if out.rate_index >= K_RATES:
        return -1
    out.rate_hz = RATES_HZ[out.rate_index]
    out.object_type = (data[2] >> 6) + 1
    out.channels = (data[2] & 1) << 2 | data[3] >> 6
    out.header_bytes = K_ADTS_HEADER_BYTES if data[1] & 1 else K_ADTS_HEADER_BYTES + 2
    out.frame_bytes = <uint32_t>(data[3] & 3) << 11 | <uint32_t>data[4] << 3 | data[5] >> 5
    out.blocks = (data[6] & 3) + 1
    return 0 if out.frame_bytes > out.header_bytes else -1


cdef void aac_config(const adts_header* h, uint8_t* out) noexcept nogil:
    """Write the two bytes of AudioSpecificConfig with its GASpecificConfig (1024 samples, no dependency)."""
    out[0] = h.object_type << 3 | h.rate_index >> 1
    out[1] = (h.rate_index & 1) << 7 | h.channels << 3


def parse(const uint8_t[::1] data not None):
    """An ADTS header as a dict with its AudioSpecificConfig; ValueError when it is none."""
    cdef adts_header h
    cdef uint8_t config[K_AUDIO_CONFIG_BYTES]
    if data.shape[0] < K_ADTS_HEADER_BYTES or adts_parse(&data[0], &h):
        raise ValueError("no ADTS header")
    aac_config(&h, config)
    return {
        "object_type": h.object_type,
        "rate_hz": h.rate_hz,
        "channels": h.channels,
        "header_bytes": h.header_bytes,
        "frame_bytes": h.frame_bytes,
        "blocks": h.blocks,
        "config": config[:K_AUDIO_CONFIG_BYTES],
    }
