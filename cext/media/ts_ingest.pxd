"""A publisher's MPEG-TS into the arena: the bytes as they are into RING_TS, access units into RING_FRAME.

RING_TS: whole 188-byte packets, nothing added or left out but what has lost sync.
  A record begins at each first packet of a video PES (audio-only: of an audio PES, about every 0.5 s), and at
  each flush; so a record is a few packets to 64 KiB. Its flags:
    REC_VIDEO           it begins with the first packet of the video track's PES; dts/pts are that PES's
    REC_AUDIO           the same, of the audio track of a stream that has no video (none for three seconds); where
                        there is no AAC either, of any other track, so that players can join
    REC_KEY             with one of the above: a player or a segment can start here. Set by ring_mark after the
                        commit when the keyframe is recognised late, but before the following PES is committed
    REC_DISCONTINUITY   timestamps jump at this record, or its publisher is new
    REC_CONFIG          PAT or PMT changed in this record
  Records without REC_VIDEO and REC_AUDIO go on with the PES before and carry its dts/pts.
  Header blob: the newest PAT and PMT as packets, valid from the record in which they changed.

RING_FRAME: one access unit a record, as the flags say:
    REC_VIDEO           4-byte big-endian length before each NAL unit; no AUD, filler or parameter sets
    REC_AUDIO           one raw AAC frame, no ADTS header
    REC_CONFIG          with one of the above: AVCDecoderConfigurationRecord, HEVCDecoderConfigurationRecord or
                        AudioSpecificConfig; before the first access unit that needs it and on each change
    REC_KEY             only of the first video track; audio-only: an audio frame about every 0.5 s. Video: IDR, IRAP,
                        recovery point; with gradual refresh random_access_indicator
    REC_DISCONTINUITY   timestamps of this track jump at this record
    REC_DAMAGED         packets of it were lost
  Header blob: the configuration records in force, each as frame_config and its bytes.
"""

from libc.stdint cimport uint32_t, uint64_t

from flux.cext.arena cimport Arena
from flux.cext.media.pump cimport Pump
from flux.cext.sink cimport Sink

cdef struct frame_config:         # in RING_FRAME's header blob, before the bytes of each record
    uint32_t track
    uint32_t codec
    uint32_t length               # bytes that follow
    uint32_t pad

cdef struct ts_ingest             # in ts_ingest.pyx

cdef class TsIngest(Sink):
    cdef ts_ingest* core
    cdef readonly Arena arena
    cdef readonly uint32_t slot
    cdef list pumps
    cdef uint64_t[::1] counters
    cpdef add_pump(self, Pump pump)
