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
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def _on_closed(self, ended):
        for serial, reason, sent_bytes in ended:
            assert serial not in self.closed
            self.closed[serial] = (reason, sent_bytes)

    def pair(self, receive_bytes=0, send_bytes=0):
        """(the server's side, the client's side) of a connection; the client's doesn't block."""
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
        self.sockets.append(client)
        return server, client

    def join(self, head=HEAD, websocket=False, **buffers):
        """A new player: (serial, the client's socket)."""
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

    def append(self, data, flags=0, **facts):
        self.ring.append(data, flags=flags, **facts)
        self.ring.notify()

    def close(self):
        self.fanout.close()
        for sock in (*self.sockets, self.listener):
            sock.close()
        self.reactor.close()
        self.arena.close()


@contextlib.contextmanager
def rig(**settings):
    it = Rig(**settings)
    try:
        yield it
    finally:
        it.close()


def drain(client, limit=1 << 24):
    """What has come; b"" alone does not tell an end from nothing: see ended()."""
    out = bytearray()
    while len(out) < limit:
        try:
            data = client.recv(1 << 16)
        except BlockingIOError:
            break
        except ConnectionResetError:
            break
        if not data:
            break
        out += data
    return bytes(out)


def ended(client):
    """Whether the server has closed."""
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
