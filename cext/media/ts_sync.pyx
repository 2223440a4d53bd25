"""The search for packets in an MPEG-TS (ts_sync.pxd)."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy, memmove

from flux.cext.counters cimport C_MEDIA_TS_LOST_SYNC, C_MEDIA_TS_SKIPPED_BYTES
from flux.cext.media.ts cimport K_TS_PACKET_BYTES, K_TS_SYNC_BYTE


cdef uint32_t find_sync(const uint8_t* data, uint32_t length) noexcept nogil:
    """Where a packet begins for certain, or what can't be decided yet does."""
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + length
    cdef uint32_t i
    cdef bint fits
    while at < end:
        at = <const uint8_t*>memchr(at, K_TS_SYNC_BYTE, end - at)
        if at == NULL:
            return length
        fits = True
        for i in range(1, K_SYNC_PACKETS):
            if at + i * K_TS_PACKET_BYTES < end and at[i * K_TS_PACKET_BYTES] != K_TS_SYNC_BYTE:
                fits = False
                break
        if fits:
            return <uint32_t>(at - data)
        at += 1
    return length


cdef void drop_held(ts_sync* s, uint32_t count) noexcept nogil:
    s.hold_bytes -= count
    memmove(s.hold, s.hold + count, s.hold_bytes)


cdef void read_held(ts_sync* s) noexcept nogil:
    """Take the packets out of what is held; afterwards less than a packet is left, or sync is searched on."""
    cdef uint32_t at
    while True:
        if not s.synced:
            at = find_sync(s.hold, s.hold_bytes)
            if at:
                s.counters[C_MEDIA_TS_SKIPPED_BYTES] += at
                drop_held(s, at)
            if s.hold_bytes <= (K_SYNC_PACKETS - 1) * K_TS_PACKET_BYTES:
                return
            s.synced = True
        if s.hold_bytes < K_TS_PACKET_BYTES:
            return
        if s.hold[0] != K_TS_SYNC_BYTE:
            s.synced = False
            s.counters[C_MEDIA_TS_LOST_SYNC] += 1
            s.losses += 1
            continue
        s.packet(s.ctx, s.hold)
        drop_held(s, K_TS_PACKET_BYTES)


cdef void ts_sync_feed(ts_sync* s, const uint8_t* data, uint32_t length) noexcept nogil:
    """The next piece."""
    cdef uint32_t n
    while length:
        if s.synced and s.hold_bytes == 0:
            while length >= K_TS_PACKET_BYTES and data[0] == K_TS_SYNC_BYTE:
                s.packet(s.ctx, data)
                data += K_TS_PACKET_BYTES
                length -= K_TS_PACKET_BYTES
            if length == 0:
                return
        n = min(length, (K_TS_PACKET_BYTES if s.synced else K_HOLD_BYTES) - s.hold_bytes)
        memcpy(s.hold + s.hold_bytes, data, n)
        s.hold_bytes += n
        data += n
        length -= n
        read_held(s)


cdef void ts_sync_end(ts_sync* s) noexcept nogil:
    """What is left after a loss is believed with fewer sync bytes."""
    if not s.synced and s.hold_bytes >= K_TS_PACKET_BYTES:
        s.synced = True
        read_held(s)
