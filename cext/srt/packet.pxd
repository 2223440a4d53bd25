"""SRT packets on the wire, and the numbers in them (draft-sharabayko-srt-01, section 3).

    0        1        2        3
    +--------+--------+--------+--------+
    |0  packet sequence number (31)     |   data        1 type (15) | subtype (16)   control
    |PP O KK R  message number (26)     |               type-specific information
    | timestamp, µs since the sender's start            |
    | destination socket id                             |
    +--------+--------+--------+--------+

Inside the core a packet is known by its *index*: 64 bits, 0 for the initial sequence number. An index never
wraps, so buffers and loss lists need no modular arithmetic; only what comes from or goes to the wire does.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint32_t htobe32(uint32_t)
    uint32_t be32toh(uint32_t)

cdef enum:
    K_HEADER = 16                 # bytes of an SRT header
    K_PACKET_BYTES = 1472         # largest datagram: 1,500 less the IPv4 and UDP headers
    K_PAYLOAD_BYTES = 1456        # of it, after the header
    K_SEQUENCE_MASK = 0x7FFFFFFF
    K_MESSAGE_MASK = 0x03FFFFFF
    K_SYN_US = 10000              # the protocol's clock: a full ACK is sent this often

cdef enum control_type:
    CTRL_HANDSHAKE = 0
    CTRL_KEEPALIVE = 1
    CTRL_ACK = 2
    CTRL_NAK = 3
    CTRL_CONGESTION = 4
    CTRL_SHUTDOWN = 5
    CTRL_ACKACK = 6
    CTRL_DROPREQ = 7
    CTRL_PEERERROR = 8
    CTRL_USER = 0x7FFF

cdef extern from *:
    """
    #define SRT_CONTROL 0x80000000u
    #define SRT_DATA_SOLO 0xC0000000u
    #define SRT_DATA_ENCRYPTED 0x18000000u
    #define SRT_DATA_RETRANSMITTED 0x04000000u
    """
    const uint32_t K_CONTROL "SRT_CONTROL"
    # Second word of a data packet. Flux sends messages of one packet each (PP = 11b), as live mode has it.
    const uint32_t K_DATA_SOLO "SRT_DATA_SOLO"
    const uint32_t K_DATA_ENCRYPTED "SRT_DATA_ENCRYPTED"
    const uint32_t K_DATA_RETRANSMITTED "SRT_DATA_RETRANSMITTED"


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return be32toh(v)


cdef inline void put_be32(uint8_t* p, uint32_t v) noexcept nogil:
    v = htobe32(v)
    memcpy(p, &v, 4)


cdef inline void put_header(uint8_t* p, uint32_t first, uint32_t second, uint32_t timestamp,
                            uint32_t destination) noexcept nogil:
    put_be32(p, first)
    put_be32(p + 4, second)
    put_be32(p + 8, timestamp)
    put_be32(p + 12, destination)


cdef inline void put_control(uint8_t* p, uint32_t kind, uint32_t info, uint32_t timestamp,
                             uint32_t destination) noexcept nogil:
    put_header(p, K_CONTROL | kind << 16, info, timestamp, destination)


cdef inline uint32_t sequence_of(uint32_t isn, int64_t index) noexcept nogil:
    """The sequence number of packet `index` when packet 0 has `isn`."""
    return (isn + <uint32_t>index) & K_SEQUENCE_MASK


cdef inline int64_t index_near(uint32_t isn, uint32_t sequence, int64_t near) noexcept nogil:
    """The index whose sequence number this is and that lies nearest to `near`; it may be negative."""
    cdef uint32_t ahead = (sequence - sequence_of(isn, near)) & K_SEQUENCE_MASK
    if ahead > K_SEQUENCE_MASK >> 1:
        return near + <int64_t>ahead - K_SEQUENCE_MASK - 1
    return near + <int64_t>ahead


cdef inline uint32_t message_of(int64_t index) noexcept nogil:
    """The message number of packet `index`: from 1 up, round within 26 bits, never 0."""
    return <uint32_t>(index % K_MESSAGE_MASK) + 1
