"""The control socket for the API: blocking calls in threads, and one call for many who ask the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import anyio.to_thread

from flux.control.client import ControlClient

K_CALLS_AT_ONCE = 8
K_KEEP_S = (
    0.25  # a page asks each second; any number of pages cost the supervisor four calls a second at most
)


class Control:
    """Asks the supervisor behind the socket at `path`. To be used in one event loop."""

    def __init__(self, path: str, keep_s: float = K_KEEP_S) -> None:
        self._path = path
        self._keep_s = keep_s
        self._limiter: anyio.CapacityLimiter | None = None
        self._kept: dict[tuple[Any, ...], tuple[float, asyncio.Task[dict[str, Any]]]] = {}

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls at once. Raises ControlError."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(K_CALLS_AT_ONCE)
        return await anyio.to_thread.run_sync(self._call, method, params, limiter=self._limiter)

    async def read(self, method: str, **params: Any) -> dict[str, Any]:
        """The same for a method that changes nothing; the answer may be as old as keep_s."""
        now = time.monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if kept[0] > now or not kept[1].done()}
        key = (method, *sorted(params.items()))
        if key not in self._kept:
            self._kept[key] = (now + self._keep_s, asyncio.ensure_future(self.call(method, **params)))
        return await asyncio.shield(self._kept[key][1])

    def forget(self) -> None:
        """Drops the answers that are kept: something was changed."""
        self._kept.clear()

    def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        result = ControlClient(self._path).call(method, **params)
        assert isinstance(result, dict)
        return result
