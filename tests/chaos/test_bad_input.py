"""Bad input to every listener of a running server: nothing crashes, nothing leaks, all is counted."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from flux.cext.srt.endpoint import Endpoint

from perf.server import FluxServer, until
from tests.chaos.mutation import mutate
from tests.chaos.publishing import Publisher
from tests.chaos.watching import Watches, beginnings, long_clip
from tests.interop.media import FOLDER

K_DATAGRAMS = 1_000_000
K_LONG_DATAGRAMS = 10_000_000
K_REQUESTS = 2000
K_A_CALLER = 10_000  # bad datagrams out of one good connection
K_BURST = 1000  # datagrams between two looks at what the server has taken
K_GOOD_S = 0.25
K_CONNECT_S = 10.0
K_NULL_PACKETS = (b"\x47\x1f\xff\x10" + bytes(184)) * 7
K_GROWTH_BYTES = 32 << 20  # of all processes' memory, for caches and buffers that reach their size
K_CLIP_S = 240
SETTINGS: dict[str, Any] = {"workers": 2, "admin.listen": "127.0.0.1:0", "http.request_timeout_ms": 1000}


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Caller:
    """A good connection that keeps every datagram it sends, and can then send bad ones in their place."""

    def __init__(self, port: int, stream_id: str) -> None:
        self._to = ("127.0.0.1", port)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self._endpoint = Endpoint()
        self._id = self._endpoint.connect(self._to, stream_id, now_us())
        self.sent: list[bytes] = []

    def run(self, seconds: float) -> None:
        """Publishes null packets, or plays; then the connection is left open."""
        connected = False
        end = time.monotonic() + K_CONNECT_S
        while time.monotonic() < end:
            for address, data in self._endpoint.poll_transmit(now_us()):
                self.sent.append(data)
                self.sock.sendto(data, address)
            if select.select([self.sock], [], [], 0.002)[0]:
                data, address = self.sock.recvfrom(2048)
                self._endpoint.receive(address, data, now_us())
            self._endpoint.handle_timeout(now_us())
            self._endpoint.flush(now_us())
            while (event := self._endpoint.next_event()) is not None:
                assert event[0] == "connected", f"the good connection was refused: {event}"
                connected = True
                end = time.monotonic() + seconds
            if connected:
                self._endpoint.send(self._id, K_NULL_PACKETS, now_us())
        assert connected, "the good connection got no answer"

    def storm(self, chance: random.Random, datagrams: int) -> None:
        for _ in range(datagrams):
            self.sock.sendto(mutate(chance, self.sent), self._to)


def memory(server: FluxServer) -> int:
    """Bytes that are its processes' own."""
    supervisor = psutil.Process(server.pid)
    return sum(
        one.memory_info().rss - one.memory_info().shared for one in (supervisor, *supervisor.children())
    )


def counters(server: FluxServer) -> dict[str, int]:
    return dict(server.call("stats")["counters"])


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[FluxServer, Any]]:
    """A server with a stream whose player must see no gap while the bad input comes."""
    file = long_clip(K_CLIP_S)
    with FluxServer(SETTINGS) as server:
        name = "live/good"
        publisher = Publisher(name, FOLDER / f"small-{K_CLIP_S}s.ts", server.srt_url("publish", name))
        try:
            server.wait_stream(name, 2)
            with Watches(server.http_port) as watches:
                watch = watches.add(name, 0)
                until(lambda: len(watch.received) > 0, "the first bytes")
                pids = [one["pid"] for one in server.call("status")["processes"]]
                yield server, watch
                length = len(watch.received)
                until(lambda: len(watch.received) > length or watch.ended, "the good stream to go on")
                assert not watch.ended
                assert beginnings(watches.remove(watch), file) <= 1
                assert [one["pid"] for one in server.call("status")["processes"]] == pids
        finally:
            publisher.stop()
        troubles = [line for line in server.log_lines() if line.get("level") in ("error", "critical")]
        assert troubles == []
        server.stop()
        assert server.exit_code == 0


def storm(server: FluxServer, datagrams: int, seed: int) -> None:
    """Bad datagrams out of good connections, no faster than the server takes them."""
    chance = random.Random(seed)
    stream_ids = itertools.cycle(("publish:live/bad{}", "read:live/good", "#!::m=request,r=live/good,u=me{}"))
    start = counters(server)["flux_srt_datagrams_total"]
    for number in range(datagrams // K_A_CALLER):
        caller = Caller(server.srt_port, next(stream_ids).format(f"{seed}-{number}"))
        try:
            caller.run(K_GOOD_S)
            for _ in range(K_A_CALLER // K_BURST):
                caller.storm(chance, K_BURST)
                # The kernel drops what the server has no time for: then this many more may be on their way.
                end = time.monotonic() + 0.2
                before = counters(server)["flux_srt_datagrams_total"]
                while before - start < number * K_A_CALLER - K_BURST and time.monotonic() < end:
                    before = counters(server)["flux_srt_datagrams_total"]
        finally:
            caller.sock.close()


def refusals(found: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in found.items() if name.startswith("flux_srt_refused_")}


def bad_datagrams(server: FluxServer, datagrams: int) -> None:
    storm(server, 5 * K_A_CALLER, 1)
    grown_from = memory(server)
    before = counters(server)
    storm(server, datagrams, 2)
    until(lambda: counters(server)["flux_srt_pending"] == 0, "the handshakes to be given up", 20)
    after = counters(server)
    taken = after["flux_srt_datagrams_total"] - before["flux_srt_datagrams_total"]
    by_reason = {
        name: value - before[name] for name, value in refusals(after).items() if value > before[name]
    }
    known = sum(
        after[name] - before[name]
        for name in (
            "flux_srt_data_pkts_total",
            "flux_srt_control_pkts_total",
            "flux_srt_handshake_pkts_total",
        )
    )
    grown = memory(server) - grown_from
    print(f"{taken} bad datagrams taken, memory grew by {grown >> 10} KiB; refused by reason: {by_reason}")
    assert taken > 0.9 * datagrams
    assert sum(by_reason.values()) + known >= taken, "each datagram is counted as what it was"
    assert len(by_reason) >= 10
    assert grown < K_GROWTH_BYTES


@pytest.mark.timeout(600)
def test_bad_datagrams(loaded: tuple[FluxServer, Any]) -> None:
    bad_datagrams(loaded[0], K_DATAGRAMS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more_bad_datagrams(loaded: tuple[FluxServer, Any]) -> None:
    bad_datagrams(loaded[0], K_LONG_DATAGRAMS)


GOOD_REQUESTS = (
    b"GET /live/good.flv HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /live/good/index.m3u8 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-10\r\n\r\n",
    b"GET /live/good.ts HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85abcdefghi",
    b"HEAD /live/good/0.ts HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /live/good.flv HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /api/v1/streams HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"DELETE /api/v1/sessions/w0-000001 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
)
GOOD_CALLS = (
    b'{"jsonrpc":"2.0","id":1,"method":"version"}\n',
    b'{"jsonrpc":"2.0","id":"x","method":"sessions","params":{"stream":"live/good"}}\n',
    b'{"jsonrpc":"2.0","id":2,"method":"kick","params":{"session":"w9-000001"}}\n',
    b'[{"jsonrpc":"2.0","id":3,"method":"streams"},{"jsonrpc":"2.0","method":"stats"}]\n',
)


def talk(family: int, address: Any, piece: bytes) -> None:
    """Sends one piece, takes a bit of the answer, goes away, sometimes without a word."""
    with socket.socket(family, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
        sock.settimeout(0.01)
        sock.connect(address)
        sock.sendall(piece)
        sock.recv(4096)


@pytest.mark.parametrize("listener", ["http", "admin", "control"])
@pytest.mark.timeout(600)
def test_bad_requests(loaded: tuple[FluxServer, Any], listener: str) -> None:
    server, _ = loaded
    family, address, good = {
        "http": (socket.AF_INET, ("127.0.0.1", server.http_port), GOOD_REQUESTS),
        "admin": (socket.AF_INET, ("127.0.0.1", server.admin_port), GOOD_REQUESTS),
        "control": (socket.AF_UNIX, str(server.control_path), GOOD_CALLS),
    }[listener]
    chance = random.Random(listener)
    for _ in range(K_REQUESTS // 10):
        talk(family, address, mutate(chance, good))
    grown_from = memory(server)
    before = counters(server)
    for _ in range(K_REQUESTS):
        talk(family, address, mutate(chance, good))
    after = counters(server)
    if listener == "http":
        assert (
            after["flux_http_bad_requests_total"] > before["flux_http_bad_requests_total"] + K_REQUESTS // 20
        )
        until(lambda: counters(server)["flux_http_open"] <= 8, "the connections to be closed", 20)
    assert memory(server) - grown_from < K_GROWTH_BYTES


def test_descriptors_are_given_back(loaded: tuple[FluxServer, Any]) -> None:
    server, _ = loaded
    pids = [server.pid, *(one["pid"] for one in server.call("status")["processes"])]
    until(
        lambda: all(len(os.listdir(f"/proc/{pid}/fd")) < 220 for pid in pids),
        "descriptors to be closed",
        20,
    )
