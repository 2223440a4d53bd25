"""Publishes demo.ts, ten seconds of a test picture with sound, over and over as one stream without end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog

from flux.config.schema import Config
from flux.errors import FluxError
from flux.streams.context import WorkerContext
from flux.streams.registry import Publication

log = structlog.get_logger("flux.demo")

CLIP = Path(__file__).parent / "demo.ts"
K_RETRY_S = 2.0  # when another publisher has the name
K_LEAST_WAIT_S = 0.001


class DemoService:
    """A service without a socket: its publisher is the clip."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._data = CLIP.read_bytes()
        self._publication: Publication | None = None
        self._pacer: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._refusal = ""
        self._bytes_before = 0  # of the stream's earlier publishers

    def start(self) -> None:
        self._publish()

    def stop_accepting(self) -> None:
        """Goes on while there are viewers; the worker doesn't wait for it."""

    def reconfigure(self, config: Config) -> None:
        """Nothing of it changes while running."""

    async def close(self) -> None:
        self._end("stopped")

    def _publish(self) -> None:
        from flux.cext.media.ts_pacer import TsPacer

        name = self._context.config.demo.stream
        try:
            self._publication = self._context.streams.publish(name, "demo", "", self._kicked, self._figures)
        except FluxError as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                log.warning("demo_waits", stream=name, reason=self._refusal)
            self._later(K_RETRY_S, self._publish)
            return
        self._refusal = ""
        self._bytes_before = self._bytes_in(self._publication)
        self._pacer = TsPacer(self._data, loop=True)
        self._feed()

    def _feed(self) -> None:
        assert self._publication is not None
        due_us = self._pacer.read(time.monotonic_ns() // 1000, self._publication.sink)
        if due_us is None:
            self._end("the clip has ended")
            return
        wait_s = (due_us - time.monotonic_ns() // 1000) / 1e6
        self._later(max(wait_s, K_LEAST_WAIT_S), self._feed)

    def _later(self, seconds: float, run: Any) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, run)

    def _figures(self) -> dict[str, Any]:
        if self._publication is None:
            return {}
        return {"bytes": self._bytes_in(self._publication) - self._bytes_before}

    def _bytes_in(self, publication: Publication) -> int:
        return int(self._context.arena.slot(publication.slot)["bytes_in"])

    def _kicked(self, reason: str) -> None:
        """Comes back after a while, as any publisher would that was kicked."""
        self._end(reason)
        self._later(K_RETRY_S, self._publish)

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._publication is not None:
            self._publication.end(reason)
            self._publication = None
