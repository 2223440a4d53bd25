"""What the tests of SRT share: packets that can be told apart, real peers, a worker's insides."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flux.cext.arena import Arena
from flux.cext.reactor import Reactor

from flux.config.schema import Config
from flux.observe.counters import Counters
from flux.srt.service import SrtService
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRegistry
from flux.streams.session import SessionTable

CLIP = Path(__file__).parents[3] / "flux" / "demo" / "demo.ts"
PACKET = 188
PAYLOAD = 7 * PACKET


def now_us() -> int:
    return time.monotonic_ns() // 1000


def numbered(pkts: int, first: int = 0) -> bytes:
    """So many MPEG-TS null packets, each with its number in it."""
    return b"".join(
        bytes([0x47, 0x1F, 0xFF, 0x10]) + (first + n).to_bytes(8, "big") + b"\xff" * (PACKET - 12)
        for n in range(pkts)
    )


def bound_socket(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


class LiveTransmit:
    """srt-live-transmit from `source` to `target`, ended with the block."""

    def __init__(self, source: str, target: str) -> None:
        program = shutil.which("srt-live-transmit")
        if program is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing("srt-live-transmit is missing: apt install srt-tools")
        command = [program, "-q", "-a", "no", "-chunk:1316", source, target]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._gone = threading.Event()
        self._threads: list[threading.Thread] = []
        self.taken = bytearray()

    def feed(self, data: bytes) -> None:
        """Writes `data` into it bit by bit, in a thread; then it is left waiting for more."""
        self._start(self._feed, data)

    def take(self) -> None:
        """Collects what it puts out in `taken`, in a thread."""
        self._start(self._take)

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _feed(self, data: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        for at in range(0, len(data), 20 * PAYLOAD):
            pipe.write(data[at : at + 20 * PAYLOAD])
            pipe.flush()
            if self._gone.wait(0.01):
                return

    def _take(self) -> None:
        pipe = self._process.stdout
        assert isinstance(pipe, io.BufferedReader)
        while data := pipe.read1(65536):
            self.taken += data

    def end(self) -> None:
        """Ends it as Ctrl-C would: it closes its connection."""
        self._gone.set()
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> LiveTransmit:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def until(reactor: Reactor, condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Runs the reactor until the condition holds; gives what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        reactor.run_once(10_000)
    return value


class Worker:
    """The SRT side of a worker, in this process, on the running event loop."""

    def __init__(self, host: str = "127.0.0.1", **settings: Any) -> None:
        self.arena = Arena.create(slots=8, hls_bytes=1 << 20)
        self.arena.join(0)
        self.config = Config.model_validate(settings)
        self.counters = Counters(self.arena.my_counters)
        self.sessions = SessionTable(0, self.counters)
        self.reactor = Reactor(self.arena)
        self.streams = StreamRegistry(self.arena, self.counters, self.sessions, self.config)
        self.sock = bound_socket(host)
        self.port = self.sock.getsockname()[1]
        self.service = SrtService(
            self.sock,
            WorkerContext(
                number=0,
                arena=self.arena,
                reactor=self.reactor,
                counters=self.counters,
                sessions=self.sessions,
                streams=self.streams,
                config=self.config,
            ),
        )

    async def __aenter__(self) -> Worker:
        asyncio.get_running_loop().add_reader(self.reactor.fd, self.reactor.run_once)
        self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.close()
        self.streams.end_all("stopped")
        asyncio.get_running_loop().remove_reader(self.reactor.fd)
        self.reactor.close()
        self.sock.close()
        assert len(self.sessions) == 0

    def url(self, stream_id: str, host: str = "127.0.0.1") -> str:
        return f"srt://{host}:{self.port}?streamid={stream_id}"

    def described(self) -> list[dict[str, Any]]:
        return self.sessions.page()[0]


async def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Lets the loop run until the condition holds; gives what it gave."""
    async with asyncio.timeout(timeout_s):
        while not (value := condition()):
            await asyncio.sleep(0.005)
        return value
