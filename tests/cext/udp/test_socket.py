"""The UDP socket on loopback, with and without offloads, and when the kernel refuses."""

from __future__ import annotations

import errno
import itertools
import select
import socket
import time

import numpy as np
import pytest
from flux.cext.counters import NAMES
from flux.cext.udp.socket import UdpSocket

NUMBERS = {name: number for number, (name, _) in NAMES.items()}
SO_NO_CHECK = 11
OFFLOADS = list(itertools.product((True, False), (True, False)))


def counted(slab: np.ndarray, what: str) -> int:
    return int(slab[NUMBERS[f"flux_udp_{what}_total"]])


class Pair:
    """Two sockets of ours on loopback, with a slab each."""

    def __init__(
        self, host: str = "127.0.0.1", *, gso: bool = True, gro: bool = True, buffer_bytes: int = 4 << 20
    ):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.counters = [np.zeros(512, np.uint64) for _ in range(2)]
        self.sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in self.sockets:
            sock.bind((host, 0))
        self.a, self.b = (
            UdpSocket(sock, slab, gso=gso, gro=gro, buffer_bytes=buffer_bytes)
            for sock, slab in zip(self.sockets, self.counters, strict=True)
        )
        self.address_a, self.address_b = (sock.getsockname()[:2] for sock in self.sockets)

    def take(self, datagrams: int) -> list[tuple[tuple[str, int], list[bytes]]]:
        """What reached b, once so many datagrams are there."""
        got: list[tuple[tuple[str, int], list[bytes]]] = []
        deadline = time.monotonic() + 5
        while sum(len(batch) for _, batch in got) < datagrams:
            assert time.monotonic() < deadline, got
            select.select([self.sockets[1]], [], [], 0.1)
            got += self.b.receive()
        return got

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.sockets:
            sock.close()


def batch(count: int, size: int = 1332, last: int | None = None, seed: int = 0) -> list[bytes]:
    """`count` datagrams of `size` bytes, each different; the last one shorter."""
    sizes = [size] * count
    sizes[-1] = size if last is None else last
    return [bytes([(seed + i + k) % 251 for k in range(n)]) for i, n in enumerate(sizes)]


@pytest.mark.parametrize(("gso", "gro"), OFFLOADS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_come_as_they_went(host: str, gso: bool, gro: bool) -> None:
    sent = [
        batch(1),
        batch(44),
        batch(7, last=20, seed=3),
        batch(1, size=16),
        batch(2, last=1),
        batch(44, 1472),
    ]
    with Pair(host, gso=gso, gro=gro) as pair:
        assert pair.a.send([(pair.address_b, datagrams) for datagrams in sent]) == len(sent)
        total = sum(len(datagrams) for datagrams in sent)
        got = pair.take(total)
        assert [d for _, datagrams in got for d in datagrams] == [d for datagrams in sent for d in datagrams]
        assert {address for address, _ in got} == {pair.address_a}
        length = sum(len(d) for datagrams in sent for d in datagrams)
        assert (
            counted(pair.counters[0], "datagrams_out") == counted(pair.counters[1], "datagrams_in") == total
        )
        assert counted(pair.counters[0], "bytes_out") == counted(pair.counters[1], "bytes_in") == length
        assert counted(pair.counters[0], "gso_refused") == 0


def test_offloads_save_messages() -> None:
    with Pair() as pair:
        if not (pair.a.gso and pair.b.gro):
            pytest.skip("this kernel has no UDP_SEGMENT or no UDP_GRO")
        pair.a.send([(pair.address_b, batch(44)), (pair.address_b, batch(44, 1000))])
        assert [len(datagrams) for _, datagrams in pair.take(88)] == [44, 44]
        assert counted(pair.counters[0], "sends") == 1


def test_many_destinations_in_one_system_call() -> None:
    with Pair() as pair, Pair() as other:
        batches = [(p.address_b, batch(n, seed=n)) for n in range(1, 15) for p in (pair, other)]
        assert pair.a.send(batches) == 28
        assert counted(pair.counters[0], "sends") == 1
        for p in (pair, other):
            got = [d for _, datagrams in p.take(sum(range(1, 15))) for d in datagrams]
            assert got == [d for n in range(1, 15) for d in batch(n, seed=n)]


@pytest.mark.parametrize("gso", [True, False])
def test_more_than_one_system_call_takes(gso: bool) -> None:
    with Pair(gso=gso) as pair:
        assert pair.a.send([(pair.address_b, batch(n % 5 + 1, 100, seed=n)) for n in range(200)]) == 200
        got = [d for _, datagrams in pair.take(600) for d in datagrams]
        assert got == [d for n in range(200) for d in batch(n % 5 + 1, 100, seed=n)]


def test_a_kernel_that_refuses_to_segment() -> None:
    """Without UDP checksums Linux refuses UDP_SEGMENT with EINVAL."""
    with Pair() as pair:
        pair.sockets[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        for n in range(20):
            assert pair.a.send([(pair.address_b, batch(1)), (pair.address_b, batch(5, last=9, seed=n))]) == 2
            assert [d for _, got in pair.take(6) for d in got] == batch(1) + batch(5, last=9, seed=n)
        assert counted(pair.counters[0], "gso_refused") == 16
        assert not pair.a.gso
        assert counted(pair.counters[0], "send_refused") == 0


def test_one_refusal_does_not_end_segmentation() -> None:
    with Pair() as pair:
        for n in range(40):
            pair.sockets[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, n % 2)
            assert pair.a.send([(pair.address_b, batch(5, seed=n))]) == 1
            assert [d for _, got in pair.take(5) for d in got] == batch(5, seed=n)
        assert pair.a.gso
        assert counted(pair.counters[0], "gso_refused") == 20


@pytest.mark.parametrize("gso", [True, False])
def test_what_the_kernel_refuses_is_dropped_and_the_rest_goes(gso: bool) -> None:
    with Pair(gso=gso) as pair:
        nowhere = ("127.0.0.1", 0)
        broadcast = ("255.255.255.255", 9)
        sent = [
            (nowhere, batch(3)),
            (pair.address_b, batch(3)),
            (broadcast, batch(1)),
            (pair.address_b, batch(2)),
        ]
        assert pair.a.send(sent) == 4
        assert [d for _, got in pair.take(5) for d in got] == batch(3) + batch(2)
        assert counted(pair.counters[0], "send_refused") == 4


def test_a_full_send_buffer_keeps_what_is_left() -> None:
    """On loopback a UDP socket is never full, so a UNIX one stands in; the system calls are the same."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        slab = np.zeros(512, np.uint64)
        sender = UdpSocket(near, slab)
        far.setblocking(False)
        assert not sender.gso
        assert not sender.gro
        left = [(None, batch(7, 1472, 100, seed=n)) for n in range(100)]
        wanted = [d for _, datagrams in left for d in datagrams]
        got: list[bytes] = []
        while left:
            left = left[sender.send(left) :]
            assert len(got) < counted(slab, "datagrams_out") <= len(wanted)
            while (datagram := take_one(far)) is not None:
                got.append(datagram)
        assert got == wanted
        assert counted(slab, "send_blocked") > 2
        assert counted(slab, "datagrams_out") == 700
        assert counted(slab, "send_refused") == counted(slab, "send_no_buffers") == 0


def take_one(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(4096)
    except BlockingIOError:
        return None


def test_icmp_errors_are_ignored() -> None:
    """A connected socket is told that a port is closed; neither side of it stumbles."""
    with Pair() as pair:
        closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        closed.close()
        pair.sockets[0].connect(address)
        for _ in range(4):
            assert pair.a.send([(address, batch(1))]) == 1
            assert pair.a.receive() == []
        assert counted(pair.counters[0], "socket_errors") >= 3
        assert counted(pair.counters[0], "datagrams_out") == 4


def test_kernel_drops_are_counted() -> None:
    with Pair(gro=False) as pair:
        pair.sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(100):
            pair.a.send([(pair.address_b, batch(1))])
        pair.take(1)
        pair.a.send([(pair.address_b, batch(1))])
        pair.take(1)
        received = counted(pair.counters[1], "datagrams_in")
        assert received < 101
        assert pair.b.kernel_drops == 101 - received
        assert counted(pair.counters[1], "kernel_drops") == 101 - received


def test_datagrams_that_are_too_long_are_dropped() -> None:
    with Pair(gro=False) as pair:
        pair.a.send([(pair.address_b, [b"x" * 2049]), (pair.address_b, [b"y" * 2048])])
        assert [d for _, got in pair.take(2) for d in got] == [b"", b"y" * 2048]
        assert counted(pair.counters[1], "truncated") == 1


def test_empty_datagrams() -> None:
    with Pair() as pair:
        pair.sockets[0].sendto(b"", pair.address_b)
        assert pair.take(1) == [(pair.address_a, [b""])]


def test_buffers_are_set_and_told() -> None:
    with Pair(buffer_bytes=300_000) as pair:
        assert pair.a.receive_buffer_bytes >= 200_000
        assert pair.a.send_buffer_bytes >= 200_000


def test_a_socket_that_is_gone() -> None:
    with Pair() as pair:
        pair.sockets[1].close()
        with pytest.raises(OSError, match="recvmmsg") as caught:
            pair.b.receive()
        assert caught.value.errno == errno.EBADF
