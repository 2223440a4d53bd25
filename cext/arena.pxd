"""The arena: one memfd that every process of Flux shares. Layout, version 1.

    0                      arena_header, one page
    processes_at           process_slab[max_processes]: heartbeat, doorbell state, counters
    names_at               uint64_t name_hash[slots], dense, for lookups
    slots_at               stream_slot[slots], a page (or more) each
    spans_at               a span for each slot: index and bytes of every ring, HLS index and bytes

A span's addresses are fixed by the slot's number, so nothing is allocated between processes: who
claims the slot owns its span. Untouched pages cost nothing, and a freed slot's pages are punched out.

Ring and HLS bytes are mapped twice in a row in each process that touches them, so that any range of
up to the ring's size is contiguous in memory (see ring.pxd).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    K_MAX_PROCESSES = 64          # bits of a subscribers mask
    K_MAX_NAME = 255              # bytes of a stream's name
    K_MAX_TRACKS = 8
    K_RING_KINDS = 6
    K_HEADER_VERSIONS = 4         # header blobs kept a ring, newest wins
    K_HEADER_BYTES = 8192         # bytes of one header blob
    K_COUNTERS = 512              # uint64_t counters a process
    K_MAX_SEGMENTS = 64           # HLS segments kept a stream
    K_AREAS = 13                  # a span's areas: headers and index, and bytes, of each ring; HLS bytes

cdef enum ring_kind:
    RING_FRAME = 0                # access units; record flags carry the track's kind
    RING_TS = 1                   # MPEG-TS, ISO 13818-1, whole 188-byte packets
    RING_FLV = 2                  # FLV tags, each followed by its PreviousTagSize
    RING_RTP = 3
    RING_FMP4 = 4
    RING_SPARE = 5

cdef enum slot_state:             # low 8 bits of stream_slot.state; the rest is the generation
    SLOT_FREE = 0
    SLOT_CLAIMED = 1              # being set up by its owner
    SLOT_LIVE = 2                 # its publisher is connected
    SLOT_IDLE = 3                 # publisher gone, readers held until the grace time ends

cdef struct arena_header:
    uint64_t magic
    uint64_t version
    uint64_t total_bytes
    uint32_t slots
    uint32_t max_processes
    uint64_t processes_at
    uint64_t names_at
    uint64_t slots_at
    uint64_t spans_at
    uint64_t span_bytes
    uint64_t frame_ring_bytes     # power of two
    uint64_t wire_ring_bytes      # power of two
    uint64_t hls_bytes            # power of two
    uint64_t index_entries        # power of two
    uint64_t claim_lock           # atomic: 0, or 1 + the holding process; only for claim and retire

cdef struct process_slab:         # written by its process only, but for `rung`
    uint64_t heartbeat_us         # CLOCK_MONOTONIC
    uint64_t incarnation          # counts the processes that had this place
    uint32_t rung                 # atomic: 1 while a doorbell is on its way
    uint32_t pid
    uint64_t pad[13]
    uint64_t counters[512]

cdef struct header_blob:          # what a player gets before a ring's bytes
    uint64_t from_pos             # valid for joins at this position or later
    uint64_t version              # 0: empty
    uint32_t length
    uint32_t pad
    uint8_t data[8192]

cdef struct ring_ctl:
    # written by the ring's one writer
    uint64_t reserve              # atomic: end of the bytes being or already written
    uint64_t commit               # atomic: end of the bytes that may be read
    uint64_t reserve_rec          # atomic: like the two above, in records
    uint64_t commit_rec
    uint64_t key_rec              # atomic: 1 + number of the newest keyframe's record; 0: none
    uint64_t first_pos            # atomic: nothing before it is valid (a ring that was started late)
    uint64_t active               # atomic: 1 while the writer keeps this ring filled
    uint64_t header_version       # atomic: newest header blob's version
    # fixed at creation
    uint64_t size                 # bytes, power of two
    uint64_t entries              # index records, power of two
    uint64_t bytes_at             # offset of the bytes in the memfd
    uint64_t index_at             # offset of the index
    uint64_t headers_at           # offset of header_blob[K_HEADER_VERSIONS]
    # written by readers
    uint64_t subscribers          # atomic: processes (bits) that want a doorbell after a commit
    uint64_t wanted               # atomic: processes (bits) that want this wire format made
    uint64_t pad

cdef struct track_info:
    uint32_t codec                # media_codec in cext/media/codec.pxd; 0: none
    uint32_t pid                  # PID in a TS source
    uint32_t width                # pixels; audio: channels
    uint32_t height               # pixels; audio: sample rate in Hz
    uint32_t profile
    uint32_t level
    uint32_t fps_millihz          # frames a second times 1,000; 0: unknown
    uint32_t pad
    uint64_t frames               # access units since the publisher came
    uint64_t bytes
    uint64_t keyframes
    uint64_t errors               # access units found broken

cdef struct hls_segment:
    uint64_t sequence             # media sequence number
    uint64_t pos                  # in the HLS bytes
    uint64_t length               # bytes
    int64_t duration_ticks        # 90 kHz
    int64_t date_us               # wall clock of its first access unit, for EXT-X-PROGRAM-DATE-TIME
    uint32_t discontinuity        # 1: EXT-X-DISCONTINUITY goes before it
    uint32_t independent          # 1: it begins with a keyframe

cdef struct hls_ctl:              # a seqlock: odd `turn` while its writer changes it
    uint64_t turn                 # atomic
    uint64_t first_sequence       # oldest segment kept
    uint64_t next_sequence        # the segment after the newest
    uint64_t discontinuities      # EXT-X-DISCONTINUITY-SEQUENCE of first_sequence
    uint64_t target_ticks         # longest duration so far, 90 kHz
    uint64_t reserve              # as in ring_ctl, over the HLS bytes
    uint64_t size
    uint64_t bytes_at
    uint64_t wanted_until_us      # atomic: CLOCK_MONOTONIC; players push it forward, the writer stops after it
    uint64_t active               # atomic: 1 while the owner makes segments
    uint64_t ended                # 1: EXT-X-ENDLIST
    hls_segment segments[64]      # by sequence % K_MAX_SEGMENTS

cdef struct stream_slot:
    uint64_t state                # atomic: generation << 8 | slot_state
    uint64_t name_hash
    uint32_t owner                # process that publishes into it
    uint32_t name_length
    uint64_t owner_incarnation
    uint8_t name[256]
    uint64_t publisher_session    # its session id in the owner; 0: none
    uint64_t publishers           # publishers so far (a reconnect makes 2)
    int64_t since_us              # wall clock at which the present publisher came
    uint64_t idle_since_us        # CLOCK_MONOTONIC; 0 while live
    uint64_t bytes_in
    uint64_t last_in_us           # CLOCK_MONOTONIC of the newest byte
    uint64_t ts_errors            # continuity errors, lost sync, CRC
    uint64_t discontinuities
    uint64_t protocol             # 1: srt, 2: rtsp, 3: rtmp, 4: webrtc, 5: gb28181, 6: demo
    uint32_t track_count
    uint32_t tracks_version       # grows when tracks[] changes
    uint64_t pad0[8]
    uint32_t viewers[64]          # by process; each written by that process only
    track_info tracks[8]
    ring_ctl rings[6]
    hls_ctl hls

cdef struct arena:                # one process's view
    uint8_t* base                 # header, slabs, names, slots: mapped at once
    arena_header* header
    process_slab* slabs
    uint64_t* names
    stream_slot* slots
    process_slab* mine            # NULL in a process that is no member
    int fd
    int doorbell                  # this process's eventfd
    int doorbells[64]             # everybody's eventfds, made before the fork
    uint32_t process              # this process's number
    uint8_t** windows             # [slots * K_AREAS], mapped on first use
    uint64_t area_at[13]          # offset of each area in a span
    uint64_t area_bytes[13]

cdef stream_slot* arena_slot(arena* a, uint32_t slot) noexcept nogil
cdef uint8_t* arena_window(arena* a, uint64_t offset, uint64_t size) noexcept nogil
cdef void arena_punch(arena* a, uint64_t offset, uint64_t length) noexcept nogil
cdef void arena_ring_doorbells(arena* a, uint64_t mask) noexcept nogil

cdef class Arena:
    cdef arena view
    cdef readonly tuple doorbells
    cdef object memory            # the base mapping, kept for numpy views
    cdef bint owns                # the memfd and the doorbells are closed with this object
    cdef stream_slot* _slot(self, uint32_t slot) except NULL
    cdef int64_t _find(self, const uint8_t* name, size_t length) noexcept nogil
    cdef void _retire(self, uint32_t n, stream_slot* s) noexcept
