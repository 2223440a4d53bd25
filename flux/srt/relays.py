"""The relays of a worker: which it runs, and those that its players may call for."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import structlog

from flux.config.schema import Config, RelaySettings
from flux.srt.caller import Caller
from flux.srt.relay import WAITING, Relay
from flux.streams.context import WorkerContext

log = structlog.get_logger("flux.srt")


def home_of(name: str, workers: int) -> int:
    """The number of the worker that runs the relay of that name."""
    return zlib.crc32(name.encode()) % workers


class RelayService:
    """Implements flux.streams.context.Service, without a socket to listen on."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._config = context.config
        self._caller = Caller(context)
        self._relays: dict[str, Relay] = {}
        self._draining = False

    def start(self) -> None:
        self._context.counters.set("flux_srt_relays_connected", 0)  # of a worker that died
        self._take_over(self._config)

    def stop_accepting(self) -> None:
        """Nothing is connected anew. Pushes end; so do pulls, when nobody watches them."""
        self._draining = True
        for relay in self._relays.values():
            relay.draining = True
            if relay.settings.direction == "push":
                relay.stop()

    def reconfigure(self, config: Config) -> None:
        """Relays that are gone stop, new ones start, changed ones begin anew; the others notice nothing."""
        self._config = config
        if not self._draining:
            self._take_over(config)

    async def close(self) -> None:
        tasks = [relay.stop() for relay in self._relays.values()]
        self._relays.clear()
        if tasks:
            await asyncio.wait(tasks)
        self._caller.close()

    def describe(self) -> list[dict[str, Any]]:
        """Those that this worker runs, and those that its players called for."""
        return [relay.describe() for relay in self._relays.values() if relay.home or relay.state != WAITING]

    def _take_over(self, config: Config) -> None:
        wanted = {settings.name: settings for settings in config.relays}
        ending: dict[str, asyncio.Task[None]] = {}
        for name, relay in list(self._relays.items()):
            if wanted.get(name) != relay.settings:
                ending[name] = relay.stop()
                self._context.streams.withdraw(relay.settings.stream, relay.call)
                del self._relays[name]
        for name, settings in wanted.items():
            if name not in self._relays:
                self._begin(settings, ending.get(name))
        self._context.counters.set("flux_srt_relays", sum(relay.home for relay in self._relays.values()))

    def _begin(self, settings: RelaySettings, after: asyncio.Task[None] | None) -> None:
        home = home_of(settings.name, self._context.workers) == self._context.number
        on_demand = settings.start == "on_demand"
        if not home and not on_demand:
            return
        relay = Relay(settings, self._context, self._caller, lambda: self._config, home)
        self._relays[settings.name] = relay
        if on_demand:
            self._context.streams.offer(settings.stream, relay.call)
        relay.start(after)
