"""What poll_transmit hands out: datagrams for one destination, as iovecs, in the shape that UDP GSO wants."""

from libc.stdint cimport uint8_t, uint32_t
from posix.uio cimport iovec

cdef enum:
    K_BATCH_DATAGRAMS = 44        # most datagrams in one srt_transmit: under 64 KiB for UDP GSO

cdef struct srt_transmit:
    # Datagrams for one destination. All are segment_bytes long but the last, which may be shorter.
    # Each is one iovec (control, encrypted) or two (header, payload); payloads may lie in a ring, all else lies
    # in this struct: so it must not move, and it stays good until the next endpoint_handle_timeout.
    uint8_t address[28]           # struct sockaddr_in or sockaddr_in6
    uint32_t address_bytes
    uint32_t segment_bytes        # for UDP_SEGMENT when datagrams > 1
    uint32_t datagrams
    uint32_t total_bytes
    uint32_t iov_count
    uint32_t pad
    iovec iov[90]
    uint8_t headers[44][16]
    uint8_t control[1472]
    uint8_t sealed[44][1472]      # encrypted packets; pages that are never touched cost nothing


cdef inline bint transmit_open(srt_transmit* t, uint32_t bytes) noexcept nogil:
    """Whether a datagram of this size may still be added."""
    return t.datagrams == 0 or (t.datagrams < K_BATCH_DATAGRAMS and bytes <= t.segment_bytes
                                and t.total_bytes == t.datagrams * t.segment_bytes)


cdef inline void transmit_add(srt_transmit* t, void* head, uint32_t head_bytes, void* body,
                              uint32_t body_bytes) noexcept nogil:
    """Add a datagram that transmit_open allowed; `body` may be NULL."""
    if t.datagrams == 0:
        t.segment_bytes = head_bytes + body_bytes
    t.iov[t.iov_count].iov_base = head
    t.iov[t.iov_count].iov_len = head_bytes
    t.iov_count += 1
    if body != NULL:
        t.iov[t.iov_count].iov_base = body
        t.iov[t.iov_count].iov_len = body_bytes
        t.iov_count += 1
    t.total_bytes += head_bytes + body_bytes
    t.datagrams += 1
