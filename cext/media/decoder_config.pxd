"""Parameter sets kept from a stream, and the decoder configuration records made of them (ISO/IEC 14496-15).

AVCDecoderConfigurationRecord: clause 5.3.3.1; HEVCDecoderConfigurationRecord: clause 8.3.3.1.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from flux.cext.media.sps cimport sps_info

cdef enum:
    K_PARAMETER_SET_BYTES = 1024  # of one VPS, SPS or PPS; a longer one is refused
    K_MAX_PARAMETER_SETS = 16     # of a track; the oldest of the same type makes room
    K_CONFIG_BYTES = 4096         # of one configuration record

cdef struct parameter_set:
    uint32_t type                 # NAL unit type
    uint32_t id
    uint32_t length
    uint32_t age                  # grows with each set that is put
    uint8_t data[1024]

cdef struct parameter_sets:
    uint32_t codec
    uint32_t count
    uint32_t changes              # sets that were new or different
    sps_info sps                  # of the newest SPS
    parameter_set sets[16]

cdef void parameter_sets_init(parameter_sets* p, uint32_t codec) noexcept nogil
# 1: new or different, 0: known, -1: broken or too long
cdef int parameter_sets_put(parameter_sets* p, const uint8_t* nal, uint32_t length) noexcept nogil
# bytes of the record in `out`, 0 while a needed set is missing, -1 when it is longer than `capacity`
cdef int parameter_sets_record(const parameter_sets* p, uint8_t* out, uint32_t capacity) noexcept nogil
