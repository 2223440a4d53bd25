"""A publisher's clock of 33 bits, unwrapped and shifted onto a timeline that only ever goes on.

All tracks share the clock. A jump of it, or a new publisher, starts a new *epoch* with another shift. Tracks jump one
after the other, so each keeps its own shift until it joins the newest epoch. All times: 90 kHz ticks.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    K_RESUME_GAP_TICKS = 45000    # between two publishers: whichever track comes first, none lies before the end

cdef struct track_time:           # a track's place; zeroed, it has none yet
    bint placed
    bint jumped                   # an epoch began, or the track is new in one; its user clears this
    uint32_t epoch
    int64_t raw_ticks             # newest dts by the publisher's clock, unwrapped
    int64_t shift_ticks           # from there to the timeline
    int64_t first_ticks           # on the timeline: its first dts
    int64_t dts_ticks             # ... and its newest

cdef struct timeline:             # zeroed, it begins where the clock does
    bint resumed                  # somebody published before, until end_ticks
    bint started
    uint32_t epoch
    uint64_t jumps                # epochs that began with a jump
    int64_t raw_ticks             # newest dts in the newest epoch
    int64_t shift_ticks
    int64_t end_ticks             # highest dts so far

# the place of a PES whose dts is `dts` (33 bits)
cdef int64_t timeline_place(timeline* t, track_time* k, uint64_t dts) noexcept nogil
cdef void timeline_pass(timeline* t, track_time* k, int64_t dts_ticks) noexcept nogil
