"""A worker in miniature: arena, reactor, a stream with a ring written by hand, and players on loopback."""

from __future__ import annotations

import contextlib
import socket
import time

from flux.cext.arena import Arena
from flux.cext.fanout.fanout import RING_FLV, Fanout
from flux.cext.reactor import Reactor
from flux.cext.ring import Ring

from flux.observe.counters import Counters

KEY, CONFIG = 1, 8
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
FLV_HEAD = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"


def flv_tag(body: bytes, kind: int = 9) -> bytes:
    """An FLV tag and its PreviousTagSize."""
    return (
        bytes((kind,)) + len(body).to_bytes(3, "big") + bytes(7) + body + (len(body) + 11).to_bytes(4, "big")
    )


def flv_tags(data: bytes) -> list[bytes]:
    """The bodies of whole tags; anything else fails."""
    out = []
    at = 0
    while at < len(data):
        assert data[at] in (8, 9, 18), f"no tag begins at {at}"
        length = int.from_bytes(data[at + 1 : at + 4], "big")
        body = data[at + 11 : at + 11 + length]
        assert len(body) == length
        assert int.from_bytes(data[at + 11 + length : at + 15 + length], "big") == length + 11
        out.append(body)
        at += length + 15
    return out


class Client:
    """The client's side of a connection, and all that it has read."""

    def __init__(self, sock):
        self.sock = sock
        self.data = bytearray()
        self.ended = False

    def read(self, limit=1 << 24):
        """Reads what has come, up to about `limit` bytes; gives the new bytes."""
        start = len(self.data)
        while len(self.data) - start < limit:
            try:
                data = self.sock.recv(min(limit, 1 << 16))
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = True
                break
            self.data += data
        return bytes(self.data[start:])

    def has(self, length):
        """Whether `length` bytes have come in all, after reading."""
        self.read()
        return len(self.data) >= length

    def is_over(self):
        """Whether the server has closed, after reading."""
        self.read()
        return self.ended


class Rig:
    def __init__(self, *, ring_bytes=1 << 16, kind=RING_FLV, process=3, **settings):
        self.arena = Arena.create(
            slots=4,
            wire_ring_bytes=ring_bytes,
            frame_ring_bytes=1 << 16,
            hls_bytes=1 << 20,
            index_entries=256,
        )
        self.arena.join(process)
        self.reactor = Reactor(self.arena)
        self.closed: dict[int, tuple[str, int]] = {}
        self.fanout = Fanout(
            self.reactor,
            self.arena,
            self.arena.my_counters,
            self._on_closed,
            **{"write_interval_us": 0, **settings},
        )
        self.counters = Counters(self.arena.my_counters)
        self.kind = kind
        self.slot, self.generation = self.arena.claim("live/a", 1)
        self.arena.go_live(self.slot, 1)
        self.ring = Ring(self.arena, self.slot, kind)
        self.ring.active = True
        self.clients: list[Client] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def _on_closed(self, ended):
        for serial, reason, sent_bytes in ended:
            assert serial not in self.closed
            self.closed[serial] = (reason, sent_bytes)

    def pair(self, receive_bytes=0, send_bytes=0):
        """(the server's socket, the client) of a new connection; neither blocks."""
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.connect(self.listener.getsockname())
        server, _ = self.listener.accept()
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if send_bytes:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        client.setblocking(False)
        self.clients.append(Client(client))
        return server, self.clients[-1]

    def join(self, head=HEAD, websocket=False, **buffers):
        """A new player: (serial, client)."""
        server, client = self.pair(**buffers)
        serial = self.fanout.join(
            server.fileno(), self.slot, self.generation, self.kind, head, websocket=websocket
        )
        server.detach()
        return serial, client

    def turn(self, turns=3):
        for _ in range(turns):
            self.reactor.run_once(0)

    def until(self, condition, seconds=10.0):
        """Runs the reactor until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.reactor.run_once(1000)

    def read_all(self, *players):
        """Lets each (serial, client) read until it has all that there is, or its player is gone."""

        def done():
            for _, client in players:
                client.read()
            figures = [self.fanout.figures(serial) for serial, _ in players]
            return all(it is None or it[1] == 0 for it in figures)

        self.until(done)
        self.turn()
        for _, client in players:
            client.read()

    def append(self, data, flags=0, **facts):
        self.ring.append(data, flags=flags, **facts)
        self.ring.notify()

    def close(self):
        self.fanout.close()
        for client in self.clients:
            client.sock.close()
        self.listener.close()
        self.reactor.close()
        self.arena.close()


@contextlib.contextmanager
def rig(**settings):
    it = Rig(**settings)
    try:
        yield it
    finally:
        it.close()
