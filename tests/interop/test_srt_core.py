"""The SRT core against libsrt: a small UDP loop around an Endpoint; srt-live-transmit publishes and plays."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flux.cext.arena import Arena
from flux.cext.ring import Ring
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink

from tests.cext.srt.peer import counted

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("srt-live-transmit") is None and os.environ.get("CI") != "true", reason="needs srt-tools"
    ),
]

RING_TS = 1
REC_KEY = 1
PAYLOAD = 1316
K_STDOUT_BYTES = 8192


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Loop:
    """One endpoint on one loopback socket; `loss` is the share of datagrams lost each way."""

    def __init__(self, loss: float = 0.0, **settings: Any) -> None:
        self.loss = loss
        self.rng = random.Random(5)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.waiting = select.poll()
        self.waiting.register(self.sock, select.POLLIN)
        self.endpoint = Endpoint(**settings)
        self.events: list[tuple[Any, ...]] = []

    def turn(self, at_most_us: int = 5000) -> None:
        due = self.endpoint.next_timeout()
        wait = at_most_us if due is None else min(max(due - now_us(), 0), at_most_us)
        if self.waiting.poll(wait / 1e3):
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, address = self.sock.recvfrom(2048)
                    if self.rng.random() >= self.loss:
                        self.endpoint.receive(address, data, now_us())
        due = self.endpoint.next_timeout()
        if due is not None and due <= now_us():
            self.endpoint.handle_timeout(now_us())
        self.endpoint.flush(now_us())
        while (event := self.endpoint.next_event()) is not None:
            self.events.append(event)
        for address, data in self.endpoint.poll_transmit(now_us()):
            if self.rng.random() >= self.loss:
                self.sock.sendto(data, address)

    def until(self, condition: Callable[[], bool], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (
                self.events,
                counted(self.endpoint),
            )
            self.turn()

    def event(self, kind: str) -> tuple[Any, ...]:
        self.until(lambda: any(event[0] == kind for event in self.events))
        found = next(event for event in self.events if event[0] == kind)
        self.events.remove(found)
        return found

    def assert_quiet(self) -> None:
        """The peer has taken the answer: it does not ask again, as it would after a quarter of a second."""
        end = time.monotonic() + 0.6
        self.until(lambda: time.monotonic() > end)
        assert self.events == []


@pytest.fixture
def make_loop() -> Iterator[Callable[..., Loop]]:
    with contextlib.ExitStack() as stack:

        def make(loss: float = 0.0, **settings: Any) -> Loop:
            loop = Loop(loss, **settings)
            stack.callback(loop.sock.close)
            return loop

        yield make


@contextlib.contextmanager
def transmit(source: str, target: str, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    program = subprocess.Popen(
        ["srt-live-transmit", "-q", "-a:no", source, target], stderr=subprocess.DEVNULL, **pipes
    )
    try:
        yield program
    finally:
        program.kill()
        for pipe in (program.stdin, program.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        program.wait()


def payloads(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * (PAYLOAD // 4) for number in range(count)]


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_libsrt_publishes(make_loop: Callable[..., Loop], loss: float) -> None:
    loop = make_loop(loss, latency_ms=800)
    sent = payloads(600)
    sink = CollectingSink()
    url = f"srt://127.0.0.1:{loop.port}?streamid=publish:live/cam1"
    with transmit("file://con", url, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        _kind, id, address, stream_id, facts = loop.event("request")
        assert (address[0], stream_id) == ("127.0.0.1", "publish:live/cam1")
        assert facts["peer_version"].startswith("1.")
        loop.endpoint.attach_sink(id, sink)
        assert loop.endpoint.accept(id, now_us())
        for start in range(0, len(sent), 20):
            program.stdin.write(b"".join(sent[start : start + 20]))
            program.stdin.flush()
            sent_us = now_us()
            loop.until(lambda at=sent_us + 5_000: now_us() >= at)
        # It reads its input in blocks of its own size, and keeps a rest that fills none.
        loop.until(lambda: len(sink) > PAYLOAD * (len(sent) - 4))
        assert b"".join(sent).startswith(sink.take())
        stats = loop.endpoint.stats(id)
        assert stats["skipped_pkts"] == 0
        assert stats["received_lost_pkts"] > 0 or not loss
        assert 0 < stats["rtt_ms"] < 100
        program.stdin.close()
        program.terminate()
        assert loop.event("closed") == ("closed", id, "peer_shutdown")


def test_libsrt_is_rejected(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop()
    with transmit("file://con", f"srt://127.0.0.1:{loop.port}?streamid=nobody", stdin=subprocess.PIPE):
        id = loop.event("request")[1]
        assert loop.endpoint.reject(id, 1404, now_us())
        loop.assert_quiet()
    assert loop.endpoint.handshakes == 0


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_libsrt_plays_from_a_ring(make_loop: Callable[..., Loop], loss: float) -> None:
    arena = Arena.create(slots=4, frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, hls_bytes=1 << 20)
    arena.join(0)
    slot, _ = arena.claim("live/cam1", 1)
    arena.go_live(slot, 1)
    ring = Ring(arena, slot, RING_TS)
    ring.set_header(b"\x47" * 376)
    loop = make_loop(loss, latency_ms=800, max_overhead_percent=100)
    packets = [b"\x47" + number.to_bytes(4, "big") + bytes(183) for number in range(4000)]
    url = f"srt://127.0.0.1:{loop.port}?streamid=read:live/cam1"
    with transmit(url, "file://con", stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        os.set_blocking(program.stdout.fileno(), False)
        id = loop.event("request")[1]
        loop.endpoint.attach_source(id, Ring(arena, slot, RING_TS))
        assert loop.endpoint.accept(id, now_us())
        got = b""
        for start in range(0, len(packets), 20):
            ring.append(
                b"".join(packets[start : start + 20]),
                flags=REC_KEY if start % 400 == 0 else 0,
                arrival_us=now_us(),
            )
            loop.turn()
            got += program.stdout.read() or b""
        end = time.monotonic() + 10
        # What srt-live-transmit writes it keeps in a buffer until that is full.
        while len(got) < len(packets) * 188 - K_STDOUT_BYTES and time.monotonic() < end:
            loop.turn()
            got += program.stdout.read() or b""
        assert got[:376] == b"\x47" * 376
        numbers = [int.from_bytes(got[at + 1 : at + 5], "big") for at in range(376, len(got) - 187, 188)]
        # It began at the newest keyframe there was when it joined.
        assert numbers[0] % 400 == 0
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert numbers[-1] >= len(packets) - K_STDOUT_BYTES // 188
        assert loop.endpoint.stats(id)["lapped"] == 0
        assert loop.endpoint.stats(id)["sent_again_pkts"] > 0 or not loss
        loop.endpoint.close(id, now_us())
        assert loop.event("closed") == ("closed", id, "closed")
    arena.close()
