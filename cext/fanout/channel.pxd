"""A channel: the players of one stream in one wire format, written to in rounds on one tick.

A doorbell arms the tick, at the earliest write_interval_us after the round before; the tick goes over all players. A
round that takes longer than K_SLICE_US goes on in the reactor's next turn, so that a large channel holds up nobody.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from flux.cext.arena cimport arena
from flux.cext.fanout.player cimport close_reason, feed, player
from flux.cext.reactor cimport reactor, reactor_source, reactor_timer, reactor_watcher

cdef enum:
    K_SLICE_US = 2000             # a round's share of the loop at once
    K_SLICE_PLAYERS = 16          # players between two looks at the clock
    K_CARE_US = 250000            # how often freed streams and slow players are looked for

cdef struct closed_player:        # for Python
    uint64_t serial
    uint64_t sent_bytes
    uint32_t reason

cdef struct channel:
    feed feed
    fanout_core* core
    uint32_t slot
    uint32_t count
    uint32_t room
    uint32_t at                   # the next player of the round under way; 0: none is
    bint in_round                 # the round runs just now: the channel stays, even without players
    player** players
    uint64_t seen                 # commit position when the latest round began
    int64_t round_us              # when that was due
    reactor_timer tick
    reactor_watcher watcher
    channel* before
    channel* after

cdef struct fanout_core:
    reactor* reactor
    arena* arena
    reactor_source* source        # raised when `closed` has something
    uint64_t* counters
    int64_t write_interval_us
    int64_t slow_player_us
    int64_t max_lag_us
    channel* channels
    channel** by_ring             # [slots * K_RING_KINDS]
    reactor_timer care
    uint32_t players
    uint32_t room                 # of `table`
    uint32_t free_place           # 1 + a free place of `table`; 0: none
    player** table                # by the lower 32 bits of a serial
    uint32_t* turns               # the upper 32 bits
    uint32_t* next_free           # the same, of the next
    closed_player* closed
    uint32_t closed_count
    uint32_t closed_room

cdef channel* channel_get(fanout_core* core, uint32_t slot, uint64_t generation, uint32_t kind) noexcept nogil
cdef int channel_add(channel* c, player* p) noexcept nogil
cdef void channel_start(channel* c, player* p) noexcept nogil
cdef void channel_hurry(channel* c) noexcept nogil
cdef void channel_leave_empty(channel* c) noexcept nogil
cdef void channel_close(player* p, close_reason reason) noexcept nogil
cdef void channel_close_all(channel* c, close_reason reason) noexcept nogil
cdef player* channel_player(fanout_core* core, uint64_t serial) noexcept nogil
