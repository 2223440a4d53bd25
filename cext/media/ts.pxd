"""MPEG-2 transport stream syntax (ISO/IEC 13818-1, Rec. ITU-T H.222.0): packets, sections, PES headers, clocks."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    K_TS_PACKET_BYTES = 188
    K_TS_SYNC_BYTE = 0x47
    K_TS_PIDS = 8192
    K_PID_PAT = 0
    K_PID_NULL = 0x1FFF
    K_SECTION_BYTES = 1024        # of a PAT or PMT section at most, 2.4.4.4
    K_TABLE_PAT = 0
    K_TABLE_PMT = 2
    K_PES_HEADER_BYTES = 264      # 9 + 255: the longest PES header

cdef enum:
    K_TICKS_A_SECOND = 90000      # of PTS and DTS
    K_PCR_A_TICK = 300            # 27 MHz

cdef struct ts_packet:            # 2.4.3.2
    uint16_t pid
    uint8_t continuity
    uint8_t scrambling
    bint error                    # transport_error_indicator
    bint start                    # payload_unit_start_indicator
    bint has_payload
    bint discontinuity            # discontinuity_indicator
    bint random_access            # random_access_indicator
    bint has_pcr
    uint32_t stuffing             # bytes of stuffing in the adaptation field
    uint32_t payload_at           # offset in the packet
    uint32_t payload_bytes
    uint64_t pcr                  # 27 MHz, modulo 2**33 * 300

cdef struct ts_section:           # sections of one PID being put together
    uint32_t have
    uint32_t need                 # 0 while the length is not known
    bint active
    uint8_t data[1024]

cdef struct pes_header:           # 2.4.3.6
    uint32_t stream_id
    uint32_t header_bytes         # before the payload
    uint32_t payload_bytes        # 0: unbounded
    bint has_pts
    uint64_t pts                  # 33 bits
    uint64_t dts                  # equals pts where none is sent

ctypedef void (*section_handler)(void* ctx, const uint8_t* section, uint32_t length) noexcept nogil

# 0, or -1: no sync byte, or an adaptation field longer than the packet
cdef int ts_parse(const uint8_t* data, ts_packet* out) noexcept nogil
cdef uint32_t ts_crc32(const uint8_t* data, uint32_t length) noexcept nogil
cdef void ts_section_feed(ts_section* s, const uint8_t* payload, uint32_t length, bint start,
                          section_handler handler, void* ctx) noexcept nogil
# whole packets written to `out`, in bytes; 0 when they don't fit
cdef uint32_t ts_section_packets(const uint8_t* section, uint32_t length, uint16_t pid,
                                 uint8_t* out, uint32_t capacity) noexcept nogil
# 0; 1: more bytes are needed; -1: no PES header
cdef int pes_parse(const uint8_t* data, uint32_t length, pes_header* out) noexcept nogil
cdef uint64_t pes_timestamp(const uint8_t* data) noexcept nogil
cdef void pes_put_timestamp(uint8_t* data, uint64_t value) noexcept nogil
cdef uint64_t ts_pcr(const uint8_t* data) noexcept nogil
cdef void ts_put_pcr(uint8_t* data, uint64_t pcr) noexcept nogil
cdef int64_t ts_unwrap(int64_t reference_ticks, uint64_t value) noexcept nogil
