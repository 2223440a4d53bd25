"""Connections that a worker makes as SRT caller, over UDP sockets of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_driver import SrtDriver
from flux.config.schema import Config
from flux.srt.pace import calm_interval_us
from flux.streams.context import WorkerContext

K_HANDSHAKE_TIMEOUT_MS = 600_000  # of the endpoint: each caller ends its attempt itself, and earlier


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class Connection:
    """One call. opened: its facts, or None when it ended before it was connected.

    closed: why it ended, as Endpoint says it, or as close() was told.
    """

    def __init__(self, caller: _Socket, id: int) -> None:
        loop = asyncio.get_running_loop()
        self.id = id
        self.endpoint: Any = caller.endpoint
        self.opened: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._caller = caller
        self._last: dict[str, Any] = {}

    def stats(self) -> dict[str, Any]:
        """As Endpoint.stats; those at the end when it is over."""
        return self._last if self.closed.done() else dict(self.endpoint.stats(self.id))

    def turn(self) -> None:
        """Sends what the endpoint was told."""
        self._caller.driver.turn()

    def close(self, reason: str) -> None:
        """Ends it, unless it is over. From then on its sink is not fed, nor its source read."""
        if self.closed.done():
            return
        self.ended(reason)
        self.endpoint.close(self.id, _now_us())
        self.turn()

    def ended(self, reason: str) -> None:
        """Is told by the socket, once."""
        self._caller.connections.pop(self.id, None)
        self._last = dict(self.endpoint.stats(self.id))
        self.closed.set_result(reason)
        if not self.opened.done():
            self.opened.set_result(None)


class _Socket:
    """One unbound UDP socket with an endpoint behind it."""

    def __init__(self, family: int, context: WorkerContext, config: Config) -> None:
        settings = config.srt
        self.connections: dict[int, Connection] = {}
        self.endpoint = Endpoint(
            context.number,
            context.counters.values,
            latency_ms=settings.latency_ms,
            peer_idle_timeout_ms=settings.peer_idle_timeout_ms,
            handshake_timeout_ms=K_HANDSHAKE_TIMEOUT_MS,
            flow_window_pkts=settings.flow_window_pkts,
            receive_buffer_pkts=settings.receive_buffer_pkts,
            send_buffer_pkts=settings.send_buffer_pkts,
            max_connections=settings.max_connections,
            max_overhead_percent=settings.max_overhead_percent,
            max_buffer_bytes=settings.max_buffer_bytes,
            ack_interval_us=settings.ack_interval_ms * 1000,
            source_interval_us=settings.play_interval_ms * 1000,
            km_refresh_rate_pkts=settings.km_refresh_rate_pkts,
            km_preannounce_pkts=settings.km_preannounce_pkts,
        )
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        self.driver = SrtDriver(
            self._socket,
            context.reactor,
            self.endpoint,
            self._on_events,
            context.counters.values,
            poll_interval_us=settings.poll_interval_us,
            calm_interval_us=calm_interval_us(config),
            buffer_bytes=settings.socket_buffer_bytes,
        )

    def _on_events(self) -> None:
        while (event := self.endpoint.next_event()) is not None:
            connection = self.connections.get(event[1])
            if connection is None:
                continue
            if event[0] == "connected":
                connection.opened.set_result(event[2])
            elif event[0] == "closed":
                connection.ended(event[2])
        self.driver.turn()

    def close(self) -> None:
        self.driver.turn()
        self.driver.close()
        self._socket.close()


class Caller:
    """A worker's caller. Its sockets, one for IPv4 and one for IPv6, are made when they are first needed."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._sockets: dict[int, _Socket] = {}

    def connect(
        self,
        address: tuple[str, int],
        stream_id: str,
        latency_ms: int | None,
        config: Config,
        **encryption: Any,
    ) -> Connection:
        """Begins a call; encryption: as Endpoint.connect takes it.

        Raises OSError, and RuntimeError when there is no room.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        caller = self._sockets.get(family)
        if caller is None:
            caller = self._sockets[family] = _Socket(family, self._context, config)
        id = caller.endpoint.connect(address, stream_id, _now_us(), latency_ms=latency_ms, **encryption)
        connection = caller.connections[id] = Connection(caller, id)
        caller.driver.turn()
        return connection

    def close(self) -> None:
        """After the last of its connections was closed."""
        for caller in self._sockets.values():
            caller.close()
        self._sockets.clear()
