"""A player: a socket with a cursor into a ring. It knows how to go on; its channel (channel.pxd) knows when.

A player's bytes are, in order: `front` (the HTTP head, the ring's header blob, control frames), then the ring's bytes
from `cursor` on, as they lie there. On a WebSocket each message is a range of whole records, its head gathered
in front by an iovec.

`boundary` is the next position, at or after `cursor`, at which bytes may be left out: the end of the FLV tag, TS packet
or WebSocket message that is half sent. A player is moved on to a newer keyframe at a boundary only, and closed when the
ring overtakes it before one: no player is ever given bytes that go on from torn ones.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.fanout.websocket cimport ws_reader
from flux.cext.reactor cimport reactor_handler
from flux.cext.ring cimport ring

cdef enum player_flags:           # 0: in step with its channel, one plain send() a round
    PLAYER_FRONT = 1              # `front` holds bytes
    PLAYER_WEBSOCKET = 2
    PLAYER_BLOCKED = 4            # its socket is full; EPOLLOUT comes when it isn't
    PLAYER_WAITING = 8            # has no position: the next keyframe gives one
    PLAYER_FRESH = 16             # has had no header blob yet

cdef enum close_reason:
    CLOSE_NOT = 0
    CLOSE_LEFT = 1                # the client closed
    CLOSE_LOST = 2                # the connection broke
    CLOSE_TOO_SLOW = 3            # no byte taken for slow_player_us
    CLOSE_LAPPED = 4              # the ring overtook it inside a record
    CLOSE_ENDED = 5               # its stream was given up
    CLOSE_KICKED = 6
    CLOSE_STOPPED = 7
    CLOSE_PROTOCOL = 8            # malformed WebSocket frames
    CLOSE_FLOOD = 9               # it sent more than a player has to say
    CLOSE_NO_MEMORY = 10
    K_CLOSE_REASONS = 11

cdef enum:
    K_MESSAGE_BYTES = 65536       # a WebSocket message holds more only if one record does
    K_FRONT_BYTES = 65536         # a player with more than this in front of it is too slow
    K_HEAR_BYTES = 4096           # read at once from a player ...
    K_HEAR_TURNS = 16             # ... and so often a wake; then it is a flood

cdef struct player_websocket:     # what only a WebSocket needs
    ws_reader reader
    uint8_t pong_due
    uint8_t pong_bytes
    uint8_t pong[125]

cdef struct player:
    reactor_handler handler       # its descriptor, in the reactor with EPOLLET
    uint64_t cursor
    uint64_t boundary
    uint64_t sent_bytes           # of media
    uint32_t flags
    uint32_t place                # index in its channel's list
    void* channel
    # used when it is not in step
    uint8_t* front
    uint32_t front_at
    uint32_t front_bytes
    int64_t progress_us           # when a socket that is full last took a byte; 0: it is not full
    int64_t arrival_us            # when the first byte that it has not taken came in; 0: it has them all
    player_websocket* websocket
    uint64_t serial

cdef struct feed:                 # what the players of a channel share
    ring view
    uint64_t lag_limit_bytes      # further behind, a player is moved on ...
    int64_t max_lag_us            # ... or longer behind; 0: no such limit
    uint32_t kind                 # ring_kind: RING_FLV or RING_TS
    uint32_t blocked              # players whose socket is full
    uint64_t sends                # tallies, taken into the counters after each round
    uint64_t sent_bytes
    uint64_t times_blocked
    uint64_t moved_on
    uint64_t skipped_bytes
    uint64_t pings

cdef int player_queue(player* p, const uint8_t* data, uint32_t length) noexcept nogil
cdef close_reason player_push(player* p, feed* f, int64_t now_us) noexcept nogil
cdef close_reason player_hear(player* p, feed* f, int64_t now_us) noexcept nogil
cdef void player_block(player* p, feed* f, bint progress, int64_t now_us) noexcept nogil
cdef void player_unblock(player* p, feed* f) noexcept nogil
cdef void player_say_goodbye(player* p, close_reason reason) noexcept nogil
cdef close_reason player_send_error() noexcept nogil
