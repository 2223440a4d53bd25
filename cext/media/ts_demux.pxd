"""Transport stream demultiplexer: the first program's tables and the PES packets of its streams.

Packets in (188 bytes each), calls out; nothing is kept of a PES but its header. Video of unbounded length ends
where the next PES starts; a muxer that is seen to stuff the last packet of each PES is believed after
K_STUFFING_TRUST of them, so that a frame need not wait for the next one.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flux.cext.media.ts cimport ts_section

cdef enum:
    K_MAX_STREAMS = 16            # elementary streams of a program; further ones are left alone
    K_STUFFING_TRUST = 8          # PES packets that must have ended in stuffing
    K_NO_TRACK = 0xFF
    K_NO_CONTINUITY = 0xFF

cdef struct table_pid:            # a PID that carries sections
    ts_section section
    uint32_t continuity           # of the last packet; K_NO_CONTINUITY: none yet
    uint32_t sum                  # CRC_32 of the last payload, to know a duplicate

cdef struct ts_stream:            # an elementary stream of the program
    uint16_t pid
    uint8_t type                  # stream_type, table 2-34
    uint32_t codec                # media_codec
    uint32_t track                # for the handler's use; K_NO_TRACK at first
    void* user                    # for the handler's use; NULL at first
    # the PES being read
    bint open
    bint in_header
    bint bounded
    bint damaged                  # packets are missing since the last pes_begin
    bint hole                     # packets are missing before the data at hand; the handler clears it
    bint random_access
    bint has_pts
    uint64_t pts                  # 33 bits
    uint64_t dts
    uint32_t left                 # payload bytes to come, if bounded
    uint32_t head_bytes
    uint8_t head[264]
    # ends by stuffing
    bint stuffed
    int32_t stuffed_ends          # PES packets seen to end in stuffing; -1: not to be believed
    # continuity
    uint32_t continuity           # of the last packet; K_NO_CONTINUITY: none yet
    uint64_t tail                 # last eight bytes of the last packet, to know a duplicate
    uint64_t pes_count
    uint64_t payload_bytes

cdef struct ts_demux_handler:
    void* ctx
    void (*tables)(void* ctx) noexcept nogil                    # PAT or PMT are new
    void (*pes_begin)(void* ctx, ts_stream* s) noexcept nogil   # in its first packet, before the header is read
    void (*pes_header)(void* ctx, ts_stream* s) noexcept nogil  # pts and dts are known
    void (*pes_data)(void* ctx, ts_stream* s, const uint8_t* data, uint32_t length) noexcept nogil
    void (*pes_end)(void* ctx, ts_stream* s) noexcept nogil
    void (*stream_gone)(void* ctx, ts_stream* s) noexcept nogil

cdef struct ts_demux:
    ts_demux_handler handler
    uint64_t* counters
    uint64_t errors               # continuity errors, transport errors, bad CRCs
    uint16_t program              # 0: none yet
    uint16_t pmt_pid
    uint16_t pcr_pid
    uint32_t stream_count
    ts_stream streams[16]
    table_pid pat_tables
    table_pid pmt_tables
    uint32_t pat_bytes            # of the PAT section in force; 0: none
    uint32_t pmt_bytes
    uint8_t pat[1024]
    uint8_t pmt[1024]
    uint8_t roles[8192]           # by PID: 0 left alone, 1 PAT, 2 PMT, 3 + index in streams

cdef void ts_demux_init(ts_demux* d, uint64_t* counters) noexcept nogil
cdef void ts_demux_packet(ts_demux* d, const uint8_t* packet) noexcept nogil
cdef void ts_demux_end(ts_demux* d) noexcept nogil   # ends the PES packets that are open
