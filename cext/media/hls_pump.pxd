"""RING_TS into HLS segments, in the stream's owner (docs/decisions/0002 tells why bytes are copied as they come).

A segment is a run of RING_TS's records, byte for byte, with PAT and PMT put before it where the run does not
begin with them. So segments one after the other, without what was put in, are the source.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flux.cext.arena cimport Arena, arena
from flux.cext.media.hls cimport hls_view
from flux.cext.media.pump cimport Pump
from flux.cext.ring cimport ring

cdef enum:
    K_TABLES = 4                  # PIDs of PAT and PMT packets in a header blob at most

cdef struct table_continuity:     # continuity_counter of the newest packet of a PID that carries tables
    uint16_t pid
    uint8_t counter
    bint known

cdef struct hls_pump:
    ring ts
    hls_view out
    arena* owner
    uint32_t slot
    uint64_t* counters
    int64_t segment_ticks
    int64_t max_segment_ticks
    uint64_t linger_us
    bint always
    uint64_t keep                 # segments
    int64_t wall_us               # to be added to CLOCK_MONOTONIC
    bint running
    bint independent              # the segment at hand begins with a keyframe
    bint closed
    bint tidied                   # what a former owner left was looked at
    # RING_TS
    uint64_t first_rec            # of this publisher
    uint64_t rec                  # to be taken next
    bint waiting                  # for a record to start at
    bint waiting_timed
    int64_t waiting_ticks         # dts since which
    # the HLS bytes
    uint64_t end                  # position after the newest byte
    # the segment at hand
    bint open
    uint64_t start
    uint64_t records
    int64_t start_ticks
    int64_t newest_ticks          # dts of the newest PES in it
    int64_t frame_ticks           # between the newest two
    int64_t date_us
    bint dated
    bint discontinuity
    # PAT and PMT
    uint32_t header_bytes
    uint8_t header[8192]
    uint32_t table_count
    table_continuity tables[4]

cdef class HlsPump(Pump):
    cdef hls_pump core
    cdef readonly Arena arena
    cdef readonly uint32_t slot
    cdef uint64_t[::1] counters
