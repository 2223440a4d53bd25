"""A worker's life: its loop, its services, its line to the supervisor."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
import uvloop

from flux.cext.reactor import Reactor
from flux.config.schema import Config
from flux.observe import logging
from flux.observe.counters import Counters
from flux.streams.context import Service, WorkerContext
from flux.streams.registry import StreamRegistry
from flux.streams.session import SessionTable
from flux.worker.channel import Channel, ChannelClosed, Message

if TYPE_CHECKING:
    from flux.srt.relays import RelayService

log = structlog.get_logger("flux.worker")

K_HEARTBEATS_A_TIMEOUT = 5  # so that one or two may be late
K_HEARTBEAT_AT_LEAST_S = 1.0
K_DRAIN_LOOK_S = 0.05  # between two looks whether the last session is gone
K_CLOSE_S = 1.0  # a service has ended everything in this time
K_PAGE_SESSIONS = 50  # of at most about 1 KiB each: they fit a message
K_GC_THRESHOLD = (50_000, 20, 50)  # a worker makes few cycles; seldom collections keep its pauses rare


class Sockets(NamedTuple):
    """A worker's listening sockets; None where nothing is listened on."""

    srt: socket.socket | None
    http: socket.socket | None


def preload(config: Config) -> None:
    """Imports what workers will need. The supervisor does it before it forks, so that one is back at once."""
    modules = ["flux.srt.relays"]
    if config.http.listen:
        modules.append("flux.http.service")
    if config.srt.listen:
        modules.append("flux.srt.service")
    if config.demo.enabled:
        modules.append("flux.demo.service")
    if config.srt.listen or config.demo.enabled or config.relays:
        modules += [f"flux.cext.media.{name}" for name in ("ts_ingest", "flv_pump", "hls_pump", "ts_pacer")]
    for module in modules:
        importlib.import_module(module)


def run(arena: Any, config: Config, sockets: Sockets, channel: Channel, workers: int) -> None:
    """Runs one of so many workers in this process, which has joined the arena, until it is told to stop."""
    gc.set_threshold(*K_GC_THRESHOLD)
    gc.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(arena, config, sockets, channel, workers).run())


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task or callback caught: told, and nobody else is hurt."""
    error = context.get("exception")
    log.error("exception_not_caught", message=context.get("message", ""), exc_info=error)


class Worker:
    """Made in the worker's process, on its loop."""

    def __init__(self, arena: Any, config: Config, sockets: Sockets, channel: Channel, workers: int) -> None:
        self._arena = arena
        self._config = config
        self._sockets = sockets
        self._channel = channel
        self._workers = workers
        self._loop: asyncio.AbstractEventLoop
        self._number: int = arena.process
        self._counters = Counters(arena.my_counters)
        self._sessions = SessionTable(self._number, self._counters)
        self._services: list[Service] = []
        self._registry: StreamRegistry
        self._relays: RelayService
        self._stopped = asyncio.Event()
        self._draining = False
        self._methods: dict[str, Callable[..., Any]] = {
            "sessions": self._list_sessions,
            "relays": self._list_relays,
            "kick": self._kick,
            "reload": self._reload,
            "drain": self._drain,
            "stop": self._stop,
            "reopen_logs": self._reopen_logs,
        }

    async def run(self) -> None:
        """Until the supervisor says stop, or the last session is gone after it said drain."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_exception)
        self._beat()
        reactor = Reactor(self._arena)
        self._loop.add_reader(reactor.fd, reactor.run_once)
        self._registry = StreamRegistry(self._arena, self._counters, self._sessions, self._config)
        context = WorkerContext(
            number=self._number,
            arena=self._arena,
            reactor=reactor,
            counters=self._counters,
            sessions=self._sessions,
            streams=self._registry,
            config=self._config,
            workers=self._workers,
        )
        self._make_services(context)
        for service in self._services:
            service.start()
        self._loop.add_signal_handler(signal.SIGTERM, self._drain)
        self._loop.add_reader(self._channel.fileno(), self._receive)
        self._send(Message(method="ready"))
        try:
            await self._stopped.wait()
        finally:
            await self._close()

    def _make_services(self, context: WorkerContext) -> None:
        if self._sockets.srt is not None:
            from flux.srt.service import SrtService

            self._services.append(SrtService(self._sockets.srt, context))
        if self._sockets.http is not None:
            from flux.http.service import HttpService

            self._services.append(HttpService(self._sockets.http, context))
        if self._config.demo.enabled and self._number == 0:
            from flux.demo.service import DemoService

            self._services.append(DemoService(context))
        from flux.srt.relays import RelayService

        self._relays = RelayService(context)
        self._services.append(self._relays)

    def _beat(self) -> None:
        self._arena.heartbeat(time.monotonic_ns() // 1000)
        timeout_s = self._config.supervisor.heartbeat_timeout_ms / 1000
        self._loop.call_later(min(timeout_s / K_HEARTBEATS_A_TIMEOUT, K_HEARTBEAT_AT_LEAST_S), self._beat)

    async def _close(self) -> None:
        for service in self._services:
            service.stop_accepting()
        for service in self._services:
            try:
                async with asyncio.timeout(K_CLOSE_S):
                    await service.close()
            except Exception:
                log.exception("service_not_closed", service=type(service).__name__)
        self._registry.end_all("stopped")

    # The line to the supervisor.

    def _receive(self) -> None:
        try:
            messages = self._channel.receive()
        except ChannelClosed:
            os._exit(0)  # the supervisor is gone, and the kernel is about to end us
        for message in messages:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        try:
            result = self._methods[message.method](**message.params)
            answer = Message(id=message.id, result=result)
        except Exception as error:
            log.exception("command_failed", method=message.method)
            answer = Message(id=message.id, error=f"{type(error).__name__}: {error}")
        if message.id:
            self._send(answer)

    def _send(self, message: Message) -> None:
        if not self._channel.send(message):
            self._counters.add("flux_worker_messages_dropped_total")
        elif self._channel.waiting:
            self._loop.add_writer(self._channel.fileno(), self._flush)

    def _flush(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed:
            os._exit(0)
        if not self._channel.waiting:
            self._loop.remove_writer(self._channel.fileno())

    # What the supervisor may ask.

    def _list_sessions(self, after: int = 0, stream: str = "") -> dict[str, Any]:
        sessions, following = self._sessions.page(after, K_PAGE_SESSIONS, stream)
        return {"sessions": sessions, "after": following}

    def _list_relays(self, after: int = 0) -> dict[str, Any]:
        relays = self._relays.describe()
        page = relays[after : after + K_PAGE_SESSIONS]
        following = after + len(page)
        return {"relays": page, "after": following if following < len(relays) else 0}

    def _kick(self, session: str = "", stream: str = "") -> int:
        return int(self._sessions.kick(session)) if session else self._sessions.kick_stream(stream)

    def _reload(self, config: str) -> bool:
        self._config = Config.model_validate_json(config)
        logging.configure(self._config.log.level, self._config.log.format, self._config.log.file)
        self._registry.reconfigure(self._config)
        for service in self._services:
            service.reconfigure(self._config)
        return True

    def _reopen_logs(self) -> bool:
        return logging.reopen()

    def _stop(self) -> bool:
        self._stopped.set()
        return True

    def _drain(self) -> bool:
        """Takes nothing new, and ends once those who are there have gone."""
        if not self._draining:
            self._draining = True
            for service in self._services:
                service.stop_accepting()
            if self._sockets.http is not None:
                self._sockets.http.close()  # who connects now is refused rather than left in the backlog
            self._look_for_end()
        return True

    def _look_for_end(self) -> None:
        """Not while a stream of ours is watched in any worker; a demo without viewers holds nobody."""
        if self._sessions.count_but("demo") or self._registry.viewers:
            self._loop.call_later(K_DRAIN_LOOK_S, self._look_for_end)
        else:
            self._stopped.set()
