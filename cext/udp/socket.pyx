"""One UDP socket, in batches (socket.pxd tells how it is used)."""

import numpy as np

from libc.errno cimport EAGAIN, ECONNREFUSED, ECONNRESET, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.uio cimport iovec

from flux.cext.counters cimport (
    C_UDP_BYTES_IN, C_UDP_BYTES_OUT, C_UDP_DATAGRAMS_IN, C_UDP_DATAGRAMS_OUT, C_UDP_GSO_REFUSED, C_UDP_KERNEL_DROPS,
    C_UDP_RECEIVES, C_UDP_SEND_ABANDONED, C_UDP_SEND_BLOCKED, C_UDP_SEND_NO_BUFFERS, C_UDP_SEND_REFUSED, C_UDP_SENDS,
    C_UDP_SOCKET_ERRORS, C_UDP_TRUNCATED
)

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        void* msg_name
        uint32_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct sockaddr:
        pass
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    cmsghdr* CMSG_NXTHDR(msghdr* message, cmsghdr* control)
    uint8_t* CMSG_DATA(cmsghdr* control)
    size_t CMSG_LEN(size_t length)
    size_t CMSG_SPACE(size_t length)
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags)
    int getsockopt(int fd, int level, int name, void* value, uint32_t* length)
    int setsockopt(int fd, int level, int name, const void* value, uint32_t length)
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    int SOL_SOCKET, SO_ERROR, SO_MEMINFO, SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    int AF_INET, AF_INET6
    uint16_t htons(uint16_t v)
    uint16_t ntohs(uint16_t v)

cdef extern from "<netinet/udp.h>" nogil:
    int SOL_UDP, UDP_GRO, UDP_SEGMENT

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* source, char* out, uint32_t size)
    int inet_pton(int family, const char* text, void* out)

cdef enum:
    K_GRO_BYTES = 65536           # most that the kernel hands over as one message
    # Buffers that lay 64 KiB apart would share their cache sets; 22 lines more spread them.
    K_GRO_STRIDE_BYTES = 65536 + 22 * 64
    K_PLAIN_BYTES = 2048          # without GRO: one datagram, SRT's are at most 1,472 bytes
    K_CONTROL_BYTES = 32          # room for UDP_GRO or UDP_SEGMENT
    K_MEMINFO_WORDS = 9           # linux/sock_diag.h, SK_MEMINFO_VARS
    K_MEMINFO_DROPS = 8           # SK_MEMINFO_DROPS
    K_DROPS_RECEIVES = 256        # receives between two looks, where no full batch gives rise to one
    K_GSO_REFUSALS = 16           # in a row, after which GSO is given up
    K_SOCKET_ERRORS = 8           # errors of earlier datagrams read off before a send is given up

cdef struct udp_buffers:
    mmsghdr receive[K_UDP_RECEIVE_MESSAGES]
    iovec receive_iov[K_UDP_RECEIVE_MESSAGES]
    uint8_t receive_address[K_UDP_RECEIVE_MESSAGES][K_UDP_ADDRESS_BYTES]
    uint8_t receive_control[K_UDP_RECEIVE_MESSAGES][K_CONTROL_BYTES]
    mmsghdr send[K_UDP_SEND_MESSAGES]
    uint8_t send_control[K_UDP_SEND_MESSAGES][K_CONTROL_BYTES]
    uint32_t send_datagrams[K_UDP_SEND_MESSAGES]
    bint send_ends[K_UDP_SEND_MESSAGES]   # this system message is the last of its udp_message
    uint8_t* memory


cdef int set_option(int fd, int level, int name, int value) noexcept nogil:
    return setsockopt(fd, level, name, &value, sizeof(int))


cdef int get_option(int fd, int name) noexcept nogil:
    cdef int value = 0
    cdef uint32_t length = sizeof(int)
    getsockopt(fd, SOL_SOCKET, name, &value, &length)
    return value


cdef uint32_t drops_so_far(int fd) noexcept nogil:
    """Datagrams that the kernel dropped since the socket was made; 0 when it does not tell."""
    cdef uint32_t info[K_MEMINFO_WORDS]
    cdef uint32_t length = sizeof(info)
    if getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0 or length <= K_MEMINFO_DROPS * sizeof(uint32_t):
        return 0
    return info[K_MEMINFO_DROPS]


cdef void count_drops(udp_socket* s) noexcept nogil:
    """Asked for now and then: SO_RXQ_OVFL tells the same, but costs a little with every datagram."""
    cdef uint32_t drops = drops_so_far(s.fd)
    s.counters[C_UDP_KERNEL_DROPS] += <uint32_t>(drops - s.kernel_drops)
    s.kernel_drops = drops


cdef int udp_open(udp_socket* s, int fd, bint gso, bint gro, uint64_t* counters) noexcept nogil:
    """Ready to receive and send on `fd`. -1 when memory is short."""
    cdef uint32_t i
    cdef size_t stride, room
    cdef cmsghdr* control
    memset(s, 0, sizeof(udp_socket))
    s.fd = fd
    s.counters = counters
    s.gro = gro and set_option(fd, SOL_UDP, UDP_GRO, 1) == 0
    # The socket may have been used before, by a process that is gone: what it had set stays.
    if not s.gro:
        set_option(fd, SOL_UDP, UDP_GRO, 0)
    s.gso = gso and set_option(fd, SOL_UDP, UDP_SEGMENT, 0) == 0
    s.kernel_drops = drops_so_far(fd)
    stride, room = (K_GRO_STRIDE_BYTES, K_GRO_BYTES) if s.gro else (K_PLAIN_BYTES, K_PLAIN_BYTES)
    s.buffers = <udp_buffers*>calloc(1, sizeof(udp_buffers))
    if s.buffers == NULL:
        return -1
    s.buffers.memory = <uint8_t*>calloc(K_UDP_RECEIVE_MESSAGES, stride)
    if s.buffers.memory == NULL:
        return -1
    for i in range(K_UDP_RECEIVE_MESSAGES):
        s.buffers.receive_iov[i].iov_base = s.buffers.memory + i * stride
        s.buffers.receive_iov[i].iov_len = room
        s.buffers.receive[i].msg_hdr.msg_iov = &s.buffers.receive_iov[i]
        s.buffers.receive[i].msg_hdr.msg_iovlen = 1
        s.buffers.receive[i].msg_hdr.msg_name = s.buffers.receive_address[i]
        s.buffers.receive[i].msg_hdr.msg_control = s.buffers.receive_control[i]
        s.received[i].address = s.buffers.receive_address[i]
        s.received[i].data = s.buffers.memory + i * stride
    s.messages_used = K_UDP_RECEIVE_MESSAGES
    for i in range(K_UDP_SEND_MESSAGES):
        s.buffers.send[i].msg_hdr.msg_control = s.buffers.send_control[i]
        s.buffers.send[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
        control = CMSG_FIRSTHDR(&s.buffers.send[i].msg_hdr)
        control.cmsg_level = SOL_UDP
        control.cmsg_type = UDP_SEGMENT
        control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
    return 0


cdef void udp_free(udp_socket* s) noexcept nogil:
    if s.buffers != NULL:
        free(s.buffers.memory)
        free(s.buffers)
        s.buffers = NULL


cdef void read_control(msghdr* message, udp_received* out) noexcept nogil:
    cdef cmsghdr* control = CMSG_FIRSTHDR(message)
    cdef int segment
    while control != NULL:
        if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
            memcpy(&segment, CMSG_DATA(control), sizeof(int))
            if segment > 0:
                out.segment_bytes = segment
        control = CMSG_NXTHDR(message, control)


cdef int udp_receive(udp_socket* s) noexcept nogil:
    """Fills `received` with what has come: how many entries; 0: nothing; -errno: the socket can't be read.

    K_UDP_RECEIVE_MESSAGES entries mean that there may be more. An entry may have length 0.
    """
    cdef udp_buffers* b = s.buffers
    cdef udp_received* out
    cdef msghdr* message
    cdef int n, i
    cdef uint32_t _tries
    for i in range(<int>s.messages_used):
        message = &b.receive[i].msg_hdr
        message.msg_namelen = K_UDP_ADDRESS_BYTES
        message.msg_controllen = K_CONTROL_BYTES
    s.messages_used = 0
    for _tries in range(K_SOCKET_ERRORS):
        n = recvmmsg(s.fd, b.receive, K_UDP_RECEIVE_MESSAGES, MSG_DONTWAIT, NULL)
        if n >= 0:
            break
        if errno == EAGAIN:
            return 0
        if errno == ECONNREFUSED or errno == ECONNRESET:
            s.counters[C_UDP_SOCKET_ERRORS] += 1
        elif errno != EINTR:
            return -errno
    else:
        return 0
    s.messages_used = n
    s.counters[C_UDP_RECEIVES] += 1
    if n == K_UDP_RECEIVE_MESSAGES or s.counters[C_UDP_RECEIVES] % K_DROPS_RECEIVES == 0:
        count_drops(s)
    for i in range(n):
        message = &b.receive[i].msg_hdr
        out = &s.received[i]
        out.address_bytes = message.msg_namelen
        out.length = b.receive[i].msg_len
        out.segment_bytes = out.length
        if message.msg_controllen > 0:
            read_control(message, out)
        if message.msg_flags & MSG_TRUNC:
            s.counters[C_UDP_TRUNCATED] += 1
            out.length = 0
        elif out.length > out.segment_bytes:
            s.counters[C_UDP_DATAGRAMS_IN] += (out.length + out.segment_bytes - 1) // out.segment_bytes
        else:
            s.counters[C_UDP_DATAGRAMS_IN] += 1
        s.counters[C_UDP_BYTES_IN] += out.length
    return n


cdef inline void add_message(udp_buffers* b, uint32_t n, udp_message* m, iovec* iov, size_t iov_count,
                             uint32_t datagrams, bint ends) noexcept nogil:
    cdef msghdr* message = &b.send[n].msg_hdr
    message.msg_name = <void*>m.address
    message.msg_namelen = m.address_bytes
    message.msg_iov = iov
    message.msg_iovlen = iov_count
    b.send_datagrams[n] = datagrams
    b.send_ends[n] = ends
    message.msg_control = NULL
    message.msg_controllen = 0


cdef inline void add_whole(udp_buffers* b, uint32_t n, udp_message* m) noexcept nogil:
    cdef msghdr* message = &b.send[n].msg_hdr
    add_message(b, n, m, m.iov, m.iov_count, m.datagrams, True)
    if m.datagrams > 1:
        message.msg_control = b.send_control[n]
        message.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
        (<uint16_t*>CMSG_DATA(<cmsghdr*>b.send_control[n]))[0] = <uint16_t>m.segment_bytes


cdef uint32_t add_one_by_one(udp_buffers* b, uint32_t n, udp_message* m, uint32_t first) noexcept nogil:
    """Adds the datagrams of `m` from number `first` on as messages `n` ...; gives the next free number."""
    cdef uint32_t datagram = 0
    cdef uint32_t i = 0
    cdef uint32_t start
    cdef size_t length
    while i < m.iov_count and n < K_UDP_SEND_MESSAGES:
        start = i
        length = 0
        while i < m.iov_count and (length < m.segment_bytes or i == start):
            length += m.iov[i].iov_len
            i += 1
        if datagram >= first:
            add_message(b, n, m, m.iov + start, i - start, 1, i == m.iov_count)
            n += 1
        datagram += 1
    return n


cdef uint32_t gather(udp_socket* s, udp_message* messages, uint32_t count, bint plain) noexcept nogil:
    """Fills the system messages; gives their number. plain: the first one's datagrams go one by one."""
    cdef uint32_t n = 0
    cdef uint32_t at
    for at in range(count):
        if n == K_UDP_SEND_MESSAGES:
            break
        if at == 0 and (plain or s.datagrams_sent):
            n = add_one_by_one(s.buffers, n, &messages[0], s.datagrams_sent)
        elif s.gso or messages[at].datagrams == 1:
            add_whole(s.buffers, n, &messages[at])
            n += 1
        else:
            n = add_one_by_one(s.buffers, n, &messages[at], 0)
    return n


cdef inline uint32_t advance(udp_socket* s, uint32_t first, uint32_t end) noexcept nogil:
    """System messages `first` to `end` are done with; gives the number of whole udp_messages that ended in them."""
    cdef uint32_t i
    cdef uint32_t done = 0
    for i in range(first, end):
        if s.buffers.send_ends[i]:
            done += 1
            s.datagrams_sent = 0
        else:
            s.datagrams_sent += 1
    return done


cdef inline void count_sent(udp_socket* s, uint32_t n) noexcept nogil:
    cdef uint32_t i
    s.counters[C_UDP_SENDS] += 1
    for i in range(n):
        s.counters[C_UDP_DATAGRAMS_OUT] += s.buffers.send_datagrams[i]
        s.counters[C_UDP_BYTES_OUT] += s.buffers.send[i].msg_len
        if s.buffers.send_datagrams[i] > 1:
            s.gso_refusals = 0


cdef bint refused_to_segment(int error) noexcept nogil:
    """EIO: the device has no checksum offload. EINVAL, EMSGSIZE: the route's MTU is under the segment."""
    return error == EIO or error == EINVAL or error == EMSGSIZE or error == EOPNOTSUPP


cdef uint32_t udp_send(udp_socket* s, udp_message* messages, uint32_t count) noexcept nogil:
    """Sends messages in order; gives how many are done with: fewer than `count` when the send buffer is full.

    Then wait for EPOLLOUT and call again with the rest, its memory unchanged, or call udp_abandon. What the kernel
    refuses for any other reason is dropped and counted: to the protocol it is a packet lost.
    """
    cdef uint32_t done = 0
    cdef uint32_t errors = 0
    cdef uint32_t n
    cdef int rc
    cdef bint plain = False
    while done < count:
        n = gather(s, messages + done, count - done, plain)
        if n == 0:
            done += 1             # a message without any byte
            continue
        rc = sendmmsg(s.fd, s.buffers.send, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if rc > 0:
            count_sent(s, rc)
            rc = advance(s, 0, rc)
            done += rc
            plain = plain and rc == 0
            continue
        if errno == EAGAIN:
            s.counters[C_UDP_SEND_BLOCKED] += 1
            break
        if errno == EINTR:
            continue
        if s.buffers.send_datagrams[0] > 1 and refused_to_segment(errno):
            s.counters[C_UDP_GSO_REFUSED] += 1
            s.gso_refusals += 1
            if s.gso_refusals >= K_GSO_REFUSALS:
                s.gso = False
            plain = True
            continue
        if (errno == ECONNREFUSED or errno == ECONNRESET) and errors < K_SOCKET_ERRORS:
            s.counters[C_UDP_SOCKET_ERRORS] += 1
            errors += 1
            continue
        s.counters[C_UDP_SEND_NO_BUFFERS if errno == ENOBUFS else C_UDP_SEND_REFUSED] += s.buffers.send_datagrams[0]
        rc = advance(s, 0, 1)
        done += rc
        plain = plain and rc == 0
    return done


cdef void udp_abandon(udp_socket* s, udp_message* messages, uint32_t count) noexcept nogil:
    """Drops and counts what udp_send left."""
    cdef uint32_t i
    for i in range(count):
        s.counters[C_UDP_SEND_ABANDONED] += messages[i].datagrams
    s.counters[C_UDP_SEND_ABANDONED] -= s.datagrams_sent
    s.datagrams_sent = 0


cdef int set_buffer(int fd, int force, int name, int size) noexcept nogil:
    """The kernel doubles what is asked for, and tells the double."""
    if set_option(fd, SOL_SOCKET, force, size) != 0:
        set_option(fd, SOL_SOCKET, name, size)
    return get_option(fd, name) // 2


cdef uint32_t pack_address(str host, int port, uint8_t* out) except 0:
    cdef sockaddr_in* v4 = <sockaddr_in*>out
    cdef sockaddr_in6* v6 = <sockaddr_in6*>out
    cdef bytes text = host.encode()
    memset(out, 0, K_UDP_ADDRESS_BYTES)
    if inet_pton(AF_INET, text, &v4.sin_addr) == 1:
        v4.sin_family = AF_INET
        v4.sin_port = htons(<uint16_t>port)
        return sizeof(sockaddr_in)
    if inet_pton(AF_INET6, text, &v6.sin6_addr) == 1:
        v6.sin6_family = AF_INET6
        v6.sin6_port = htons(<uint16_t>port)
        return sizeof(sockaddr_in6)
    raise ValueError(f"{host} is no IP address")


cdef unpack_address(const void* address):
    cdef char text[64]
    cdef const sockaddr_in* v4 = <const sockaddr_in*>address
    cdef const sockaddr_in6* v6 = <const sockaddr_in6*>address
    if v4.sin_family == AF_INET6:
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text))
        return (<bytes>text).decode(), ntohs(v6.sin6_port)
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text))
    return (<bytes>text).decode(), ntohs(v4.sin_port)


cdef class UdpSocket:
    """A non-blocking UDP socket: UdpSocket(sock, counters=None, *, gso=True, gro=True, buffer_bytes=0).

    sock: a bound socket.socket, kept open. counters: writable uint64 memoryview (Arena.my_counters), or None.
    gso, gro: whether to try these offloads. buffer_bytes: wanted size of both kernel buffers; 0: as they are.
    """

    def __cinit__(self, sock, counters=None, *, bint gso=True, bint gro=True, int buffer_bytes=0):
        self.sock = sock
        self.counters = np.zeros(512, np.uint64) if counters is None else counters
        if self.counters.shape[0] <= C_UDP_TRUNCATED:
            raise ValueError("counters: not an arena's slab")
        sock.setblocking(False)
        if udp_open(&self.view, sock.fileno(), gso, gro, &self.counters[0]) < 0:
            raise MemoryError
        if buffer_bytes:
            set_buffer(self.view.fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes)
            set_buffer(self.view.fd, SO_SNDBUFFORCE, SO_SNDBUF, buffer_bytes)

    def __dealloc__(self):
        udp_free(&self.view)

    @property
    def gso(self):
        """Whether batches are sent with UDP_SEGMENT; turns False when that was refused again and again."""
        return self.view.gso

    @property
    def gro(self):
        """Whether the kernel may hand over several datagrams as one."""
        return self.view.gro

    @property
    def kernel_drops(self):
        """Datagrams dropped since the socket was made, as its receive buffer was full; the counter is brought up."""
        count_drops(&self.view)
        return self.view.kernel_drops

    @property
    def receive_buffer_bytes(self):
        """What the kernel granted; twice as much may lie in the queue, its own overhead included."""
        return get_option(self.view.fd, SO_RCVBUF) // 2

    @property
    def send_buffer_bytes(self):
        """What the kernel granted."""
        return get_option(self.view.fd, SO_SNDBUF) // 2

    def receive(self):
        """What has come: [((host, port), [datagram, ...]), ...], a list of datagrams per system message.

        For tests and tools. Raises OSError when the socket can't be read.
        """
        cdef int n = udp_receive(&self.view)
        cdef int i
        cdef uint32_t at
        cdef udp_received* r
        if n < 0:
            raise OSError(-n, "recvmmsg")
        out = []
        for i in range(n):
            r = &self.view.received[i]
            data = r.data[:r.length]
            out.append((
                unpack_address(r.address),
                [data[at:at + r.segment_bytes] for at in range(0, r.length, r.segment_bytes)] if r.length else [b""],
            ))
        return out

    def send(self, batches):
        """Sends [((host, port), [datagram, ...]), ...]; the datagrams of a batch have one length, the last may be
        shorter. None for (host, port) is the peer to which the socket is connected. Gives the number of batches that
        are done with; fewer than given when the send buffer is full: then call again with the others.

        For tests and tools.
        """
        cdef uint32_t count = len(batches)
        cdef uint32_t i, k, done
        cdef udp_message* messages = <udp_message*>calloc(count + 1, sizeof(udp_message))
        cdef uint8_t* addresses = <uint8_t*>calloc(count + 1, K_UDP_ADDRESS_BYTES)
        cdef iovec* iov = <iovec*>calloc(sum([len(b[1]) for b in batches]) + 1, sizeof(iovec))
        cdef iovec* place = iov
        cdef bytes datagram
        try:
            if messages == NULL or addresses == NULL or iov == NULL:
                raise MemoryError
            for i in range(count):
                peer, datagrams = batches[i]
                if peer is not None:
                    messages[i].address = addresses + i * K_UDP_ADDRESS_BYTES
                    messages[i].address_bytes = pack_address(peer[0], peer[1], addresses + i * K_UDP_ADDRESS_BYTES)
                messages[i].iov = place
                messages[i].iov_count = messages[i].datagrams = len(datagrams)
                messages[i].segment_bytes = len(datagrams[0])
                for k in range(messages[i].datagrams):
                    datagram = datagrams[k]
                    place.iov_base = <void*><const uint8_t*>datagram
                    place.iov_len = len(datagram)
                    messages[i].total_bytes += <uint32_t>place.iov_len
                    place += 1
            with nogil:
                done = udp_send(&self.view, messages, count)
            return done
        finally:
            free(messages)
            free(addresses)
            free(iov)
