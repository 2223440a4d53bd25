"""A worker's HTTP service on an ephemeral port, over an arena whose streams are written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import uvloop
from flux.cext.arena import Arena
from flux.cext.fanout.fanout import RING_FLV, RING_TS
from flux.cext.media.hls import HlsReader
from flux.cext.media.hls_pump import HlsPump
from flux.cext.reactor import Reactor, monotonic_us
from flux.cext.ring import Ring

from flux.config.schema import Config
from flux.http.service import HttpService
from flux.observe.counters import Counters
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRegistry
from flux.streams.session import SessionTable

KEY, VIDEO = 1, 2
S = 90_000  # ticks a second


class Stream:
    """A stream that nobody but the test publishes: its FLV and TS rings, and its segmenter."""

    def __init__(self, arena, name):
        self.arena = arena
        self.slot, self.generation = arena.claim(name, 1)
        arena.go_live(self.slot, 1)
        self.flv = Ring(arena, self.slot, RING_FLV)
        self.ts = Ring(arena, self.slot, RING_TS)
        self.flv.active = self.ts.active = True
        self.segments = HlsReader(arena, self.slot)

        self.pump = HlsPump(
            arena,
            self.slot,
            arena.my_counters,
            segment_ticks=2 * S,
            max_segment_ticks=10 * S,
            linger_us=60_000_000,
        )
        self.frames = 0

    def append(self, ring, data, flags=0):
        ring.append(data, flags=flags)
        ring.notify()

    def play(self, gops, pkts=20):
        """TS of so many GOPs of 2 s; a segment is there when the next one begins."""
        for _ in range(gops * 4):
            self.frames += 1
            head = b"\x47\x01\x00\x10" + self.frames.to_bytes(4, "big")
            self.ts.append(
                (head + bytes(180)) * pkts,
                dts=self.frames * S // 2,
                flags=VIDEO | (KEY if self.frames % 4 == 1 else 0),
                arrival_us=monotonic_us(),
            )
            self.pump.run(monotonic_us())
        self.ts.notify()

    def die(self):
        """Its grace time is over."""
        self.arena.go_idle(self.slot, 0)
        self.arena.retire(self.slot)


class Rig:
    def __init__(self, **settings):
        self.config = Config.model_validate(
            {"streams": {"wait_ms": 2000}, "http": {"write_interval_ms": 0}, **settings}
        )
        self.arena = Arena.create(
            slots=8, wire_ring_bytes=1 << 18, frame_ring_bytes=1 << 18, hls_bytes=1 << 20, index_entries=256
        )
        self.arena.join(0)
        self.counters = Counters(self.arena.my_counters)
        self.reactor = Reactor(self.arena)
        self.sessions = SessionTable(0, self.counters)
        self.streams = StreamRegistry(self.arena, self.counters, self.sessions, self.config)
        self.context = WorkerContext(
            0, self.arena, self.reactor, self.counters, self.sessions, self.streams, self.config
        )
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.writers = []
        asyncio.get_running_loop().add_reader(self.reactor.fd, self.reactor.run_once)
        self.service = HttpService(self.listener, self.context)
        self.service.start()

    def publish(self, name="live/a"):
        return Stream(self.arena, name)

    async def connect(self):
        return await asyncio.open_connection(*self.address, limit=1 << 20)

    async def get(self, path, *headers, method="GET"):
        """A connection on which a request was sent: (reader, writer)."""
        reader, writer = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        self.writers.append(writer)  # a writer that nobody holds closes its connection
        return reader, writer

    async def close(self):
        await self.service.close()
        for writer in self.writers:
            writer.close()
        asyncio.get_running_loop().remove_reader(self.reactor.fd)
        self.listener.close()
        self.reactor.close()
        self.arena.close()


@contextlib.asynccontextmanager
async def rig(**settings):
    it = Rig(**settings)
    try:
        yield it
    finally:
        await it.close()


def run(main, *arguments):
    """Runs the coroutine function as a worker would: on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main(*arguments))


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def answer(reader):
    """(status, headers in lower case, body) of a response with a length, or of one without a body."""
    status, headers = await head(reader)
    length = int(headers.get("content-length", 0))
    return status, headers, await reader.readexactly(length)


async def head(reader):
    """(status, headers in lower case) of a response."""
    text = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    first, *lines = text.split("\r\n")
    headers = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
    return int(first.split()[1]), headers
