"""RING_FRAME → RING_FLV: the first H.264 or H.265 track and the first AAC track, muxed once for all players.

RING_FLV: one tag and its PreviousTagSize a record, dts/pts as the frame's. Tag timestamps are dts / 90 of the stream's
timeline, in 32 bits, so they go on over a reconnect in whatever worker. Flags:
    REC_VIDEO, REC_AUDIO   as the frame's, and so are REC_DAMAGED and REC_DISCONTINUITY
    REC_KEY                a player can start here: a video keyframe, or audio of a stream without video
    REC_CONFIG             a sequence header, for players that are there already
Header blob: file header, onMetaData and sequence headers, valid from the record at which they changed.
"""

from libc.stdint cimport uint64_t

from flux.cext.arena cimport Arena
from flux.cext.media.pump cimport Pump

cdef struct flv_pump              # in flv_pump.pyx

cdef class FlvPump(Pump):
    cdef flv_pump* core
    cdef readonly Arena arena
    cdef uint64_t[::1] counters
