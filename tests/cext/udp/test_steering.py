"""Which socket of a reuseport group an SRT datagram reaches."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

import pytest
from flux.cext.udp.steering import attach

WORKERS = 4


def open_group(count: int) -> list[socket.socket]:
    """`count` sockets on one port of loopback."""
    group: list[socket.socket] = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", group[0].getsockname()[1] if group else 0))
        sock.setblocking(False)
        group.append(sock)
    return group


@pytest.fixture
def group() -> Iterator[list[socket.socket]]:
    sockets = open_group(WORKERS)
    attach(sockets[0].fileno(), WORKERS)
    yield sockets
    for sock in sockets:
        sock.close()


def packet(destination: int) -> bytes:
    return struct.pack("!IIII", 0x80000000, 0, 0, destination)


def reached(group: list[socket.socket], sender: socket.socket, data: bytes) -> int:
    """Sends `data` to the group; the number of the socket that gets it."""
    sender.sendto(data, group[0].getsockname())
    ready, _, _ = select.select(group, [], [], 5)
    assert len(ready) == 1
    assert ready[0].recv(2048) == data
    return group.index(ready[0])


def callers(count: int) -> list[socket.socket]:
    return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]


def test_an_id_reaches_its_worker_from_any_address(group: list[socket.socket]) -> None:
    for sender in callers(8):
        with sender:
            for upper in (0, 1, 77, 0xFFFFFF):
                for worker in range(WORKERS):
                    destination = upper << 6 | worker
                    if destination:
                        assert reached(group, sender, packet(destination)) == worker


def test_handshakes_go_by_hash_and_a_caller_stays(group: list[socket.socket]) -> None:
    seen = set()
    for sender in callers(64):
        with sender:
            first = reached(group, sender, packet(0))
            assert reached(group, sender, packet(0) + b"conclusion") == first
            seen.add(first)
    assert seen == set(range(WORKERS))


def test_a_number_that_no_worker_has_goes_by_hash(group: list[socket.socket]) -> None:
    for sender in callers(8):
        with sender:
            assert reached(group, sender, packet(5 << 6 | WORKERS)) == reached(group, sender, packet(0))


def test_order_holds_when_a_worker_takes_its_inherited_socket(group: list[socket.socket]) -> None:
    """A process that dies closes its copy only: the supervisor's keeps the place in the group."""
    copy = socket.socket(fileno=socket.dup(group[2].fileno()))
    copy.close()
    with callers(1)[0] as sender:
        assert [reached(group, sender, packet(64 + n)) for n in range(WORKERS)] == list(range(WORKERS))


@pytest.mark.parametrize("workers", [0, 65])
def test_numbers_that_an_id_cannot_carry(workers: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="workers"):
        attach(sock.fileno(), workers)


def test_a_lone_worker_needs_no_program() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        attach(sock.fileno(), 1)
