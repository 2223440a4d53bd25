"""Steers SRT datagrams among the sockets of a SO_REUSEPORT group by their destination socket id.

A socket id of ours carries its worker's number in the low bits (endpoint.pxd), so a datagram reaches the worker that
holds the connection, wherever it comes from. Id 0 is a handshake: it goes by the kernel's hash of both addresses, as
does the second one of the same caller, so both reach one worker.
"""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from flux.cext.srt.endpoint cimport K_WORKER_MASK

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        uint16_t code
        uint8_t jt
        uint8_t jf
        uint32_t k
    struct sock_fprog:
        unsigned short len
        sock_filter* filter
    int BPF_LD, BPF_W, BPF_ABS, BPF_JMP, BPF_JEQ, BPF_K, BPF_RET, BPF_ALU, BPF_AND, BPF_A

cdef extern from "<sys/socket.h>" nogil:
    int setsockopt(int fd, int level, int name, const void* value, uint32_t length)
    int SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF

cdef enum:
    K_DESTINATION_AT = 12         # SRT Internet-Draft, 3: the header's last word
    K_BY_HASH = 0xFFFFFFFF        # no socket has this number: the kernel hashes


cdef sock_filter _op(int code, uint8_t jt, uint8_t jf, uint32_t k) noexcept:
    cdef sock_filter f
    f.code = <uint16_t>code
    f.jt, f.jf, f.k = jt, jf, k
    return f


def attach(int fd, int workers):
    """Steers the whole reuseport group of `fd`: socket n of the group, in the order of binding, is worker n's.

    A number that no socket has goes by hash as well. workers: 1 to 64; one needs no steering. Raises OSError when the
    kernel refuses the program, ValueError for a number of workers that an id can't carry.
    """
    cdef sock_filter program[5]
    cdef sock_fprog whole
    if not 1 <= workers <= K_WORKER_MASK + 1:
        raise ValueError(f"{workers} workers; an SRT socket id tells {K_WORKER_MASK + 1} apart")
    if workers == 1:
        return
    program[0] = _op(BPF_LD | BPF_W | BPF_ABS, 0, 0, K_DESTINATION_AT)
    program[1] = _op(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 0)
    program[2] = _op(BPF_ALU | BPF_AND | BPF_K, 0, 0, K_WORKER_MASK)
    program[3] = _op(BPF_RET | BPF_A, 0, 0, 0)
    program[4] = _op(BPF_RET | BPF_K, 0, 0, <uint32_t>K_BY_HASH)
    whole.len = 5
    whole.filter = program
    if setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &whole, sizeof(whole)) != 0:
        raise OSError(errno, "SO_ATTACH_REUSEPORT_CBPF refused: Linux 4.5 or later is needed")
