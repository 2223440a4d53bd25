"""One UDP socket, in batches: the only place that knows of GSO, GRO, control messages, recvmmsg and sendmmsg.

Receiving: udp_receive() fills `received`; each entry holds one datagram, or several of one sender in a row
(UDP_GRO), all segment_bytes long but the last. What it points to is good until the next udp_receive().

Sending: a udp_message is one datagram or several for one destination (UDP_SEGMENT). What the kernel or a device can't
segment goes out datagram by datagram.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.uio cimport iovec

cdef enum:
    K_UDP_RECEIVE_MESSAGES = 64   # a recvmmsg
    K_UDP_SEND_MESSAGES = 64      # a sendmmsg
    K_UDP_ADDRESS_BYTES = 28      # sizeof(struct sockaddr_in6)

cdef struct udp_received:
    const void* address           # struct sockaddr_in or sockaddr_in6
    const uint8_t* data
    uint32_t address_bytes
    uint32_t length
    uint32_t segment_bytes
    uint32_t pad

cdef struct udp_message:          # its memory is the caller's
    const void* address
    iovec* iov                    # no entry reaches over the end of a datagram
    uint32_t address_bytes
    uint32_t iov_count
    uint32_t datagrams
    uint32_t segment_bytes        # of all datagrams but the last
    uint32_t total_bytes
    uint32_t pad

cdef struct udp_buffers           # system call arguments, in socket.pyx

cdef struct udp_socket:
    int fd
    bint gro
    bint gso
    uint32_t gso_refusals         # in a row
    uint32_t datagrams_sent       # of the message that a full send buffer cut in two
    uint32_t messages_used        # of the latest recvmmsg
    uint32_t kernel_drops         # since the socket was made, as last told
    udp_received received[64]
    udp_buffers* buffers
    uint64_t* counters

cdef int udp_receive(udp_socket* s) noexcept nogil
cdef uint32_t udp_send(udp_socket* s, udp_message* messages, uint32_t count) noexcept nogil
cdef void udp_abandon(udp_socket* s, udp_message* messages, uint32_t count) noexcept nogil

cdef class UdpSocket:
    cdef udp_socket view
    cdef readonly object sock
    cdef uint64_t[::1] counters
