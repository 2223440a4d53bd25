"""HLS viewers as sessions: they hold no connection, so whoever asks for a stream's playlist or segments is a
viewer until nothing was asked for a while."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from flux.config.schema import Config
from flux.http.errors import HttpError
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRef
from flux.streams.session import READ, Session

K_LOOK_S = 1.0  # between two looks for viewers that are gone
K_AGENT_CHARS = 256  # of a User-Agent, kept to tell viewers apart

_Key = tuple[str, str, str]


class Viewer:
    """One viewer; told apart by address, user agent and stream."""

    __slots__ = ("generation", "kicked", "seen_s", "sent_bytes", "session", "slot")

    def __init__(self, slot: int, generation: int) -> None:
        self.slot = slot
        self.generation = generation
        self.session: Session | None = None
        self.seen_s = 0.0
        self.sent_bytes = 0
        self.kicked = False

    def figures(self) -> dict[str, Any]:
        """What a session shows: bytes of media sent."""
        return {"bytes": self.sent_bytes}


class Viewers:
    """The HLS viewers of this worker, the one who asked last at the end."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._viewers: OrderedDict[_Key, Viewer] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self.reconfigure(context.config)

    def __len__(self) -> int:
        return len(self._viewers)

    def reconfigure(self, config: Config) -> None:
        self._max_viewers = config.hls.max_viewers
        self._timeout_s = config.hls.viewer_timeout_ms / 1000

    def seen(self, stream: StreamRef, peer: str, agent: str, sent_bytes: int) -> None:
        """A viewer of `stream` at `peer` ("ip:port") is to be sent `sent_bytes`.

        Raises a 403 for one whose session was ended by request, until it has kept quiet for a while.
        """
        key = (stream.name, peer.rpartition(":")[0], agent[:K_AGENT_CHARS])
        viewer = self._viewers.get(key)
        if viewer is not None and viewer.generation != stream.generation:
            self._end(key, "stream_ended")
            viewer = None
        if viewer is None:
            viewer = self._begin(key, stream, peer)
            if viewer is None:
                return
        if viewer.kicked:
            raise HttpError(
                403,
                "kicked",
                f"this viewer of {stream.name} was sent away",
                f"ask again when {self._timeout_s:g} s have passed",
            )
        viewer.seen_s = time.monotonic()
        viewer.sent_bytes += sent_bytes
        self._viewers.move_to_end(key)

    def _begin(self, key: _Key, stream: StreamRef, peer: str) -> Viewer | None:
        if len(self._viewers) >= self._max_viewers:
            self._context.counters.add("flux_http_hls_untracked_total")
            return None
        viewer = Viewer(stream.slot, stream.generation)
        viewer.session = self._context.sessions.begin(
            stream.name, "hls", READ, peer, lambda reason: self._kick(key, viewer, reason), viewer.figures
        )
        self._viewers[key] = viewer
        self._context.arena.add_viewers(stream.slot, 1)
        self._count()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(K_LOOK_S, self._look)
        return viewer

    def _kick(self, key: _Key, viewer: Viewer, reason: str) -> None:
        if self._viewers.get(key) is viewer and viewer.session is not None:
            viewer.kicked = True
            viewer.seen_s = time.monotonic()
            self._viewers.move_to_end(key)
            self._leave(viewer, reason)

    def _leave(self, viewer: Viewer, reason: str) -> None:
        if viewer.session is None:
            return
        self._context.sessions.end(viewer.session, reason, viewer.sent_bytes)
        viewer.session = None
        if self._context.arena.generation(viewer.slot) == viewer.generation:
            self._context.arena.add_viewers(viewer.slot, -1)

    def _end(self, key: _Key, reason: str) -> None:
        self._leave(self._viewers.pop(key), reason)
        self._count()

    def _count(self) -> None:
        self._context.counters.set("flux_http_hls_viewers", len(self._viewers))

    def _look(self) -> None:
        too_old = time.monotonic() - self._timeout_s
        while self._viewers:
            key, viewer = next(iter(self._viewers.items()))
            if viewer.seen_s > too_old:
                break
            self._end(key, "left")
        self._timer = asyncio.get_running_loop().call_later(K_LOOK_S, self._look) if self._viewers else None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key in list(self._viewers):
            self._end(key, "stopped")
