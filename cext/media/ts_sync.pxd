"""Packets out of pieces of an MPEG-TS of any size; sync that is lost is searched and found again.

A packet is believed when it follows another, or when K_SYNC_PACKETS sync bytes come at their distance (ISO/IEC 13818-1,
2.4.3.2). How the bytes are cut into pieces makes no difference to the packets.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    K_SYNC_PACKETS = 3
    K_HOLD_BYTES = 1024

cdef struct ts_sync:              # zeroed, it searches for its first packet
    void (*packet)(void* ctx, const uint8_t* packet) noexcept nogil
    void* ctx
    uint64_t* counters
    uint64_t losses
    bint synced
    uint32_t hold_bytes
    uint8_t hold[1024]            # K_HOLD_BYTES: a packet that is not whole, or what is searched

cdef void ts_sync_feed(ts_sync* s, const uint8_t* data, uint32_t length) noexcept nogil
cdef void ts_sync_end(ts_sync* s) noexcept nogil     # nothing more comes
