"""The media HTTP server of a worker: takes connections off its listener and lets each run."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import structlog

from flux.address import peer_name
from flux.http.connection import Connection, ConnectionClosed, ConnectionLimits
from flux.http.errors import unavailable
from flux.http.request import Request
from flux.observe.counters import Counters

log = structlog.get_logger("flux.http")

K_ACCEPTS_A_WAKE = 64  # connections taken off the backlog before others get their turn
K_REFUSING = 64  # connections over the limit that are told so; further ones are only closed
K_ACCEPT_PAUSE_S = 0.1  # when descriptors have run out

_STATUS_COUNTERS = {
    1: "flux_http_answers_1xx_total",
    2: "flux_http_answers_2xx_total",
    4: "flux_http_answers_4xx_total",
    5: "flux_http_answers_5xx_total",
}


class HttpServer:
    """Serves `listener`, a non-blocking listening socket, with `handler` from start() to close().

    max_connections bounds connections and the players that came out of them; given_away() tells how many of
    these there are.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Callable[[Connection, Request], Awaitable[None]],
        limits: ConnectionLimits,
        max_connections: int,
        counters: Counters,
        given_away: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self.max_connections = max_connections
        self._listener = listener
        self._handler = handler
        self._counters = counters
        self._given_away = given_away
        self._loop: asyncio.AbstractEventLoop
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._accepting = False
        self._pause: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Connections now, players included."""
        return len(self._connections) + self._given_away()

    def start(self) -> None:
        """Begins to accept, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._accepting = True
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop_accepting(self) -> None:
        """Leaves new connections in the backlog and closes idle ones; the others end after their answer."""
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener.fileno())
        if self._pause is not None:
            self._pause.cancel()
        for task, connection in self._connections.items():
            connection.draining = True
            if connection.idle:
                task.cancel()

    async def close(self) -> None:
        """Ends all connections now."""
        self.stop_accepting()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self) -> None:
        for _ in range(K_ACCEPTS_A_WAKE):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause_accepting(error)
                    return
                continue
            self._counters.add("flux_http_connections_total")
            self._begin(accepted, address)

    def _begin(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        over = self.open - self.max_connections
        handler = self._handler
        if over >= 0:
            self._counters.add("flux_http_refused_total")
            if over >= K_REFUSING:
                accepted.close()
                return
            handler = self._refuse
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted, peer_name(address[0], address[1]), handler, self.limits, self.count)
        task = self._loop.create_task(self._run(connection))
        self._connections[task] = connection
        task.add_done_callback(self._ended)
        self.recount()

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        except ConnectionClosed:
            self._counters.add("flux_http_lost_total")
        except Exception:
            log.exception("http_connection_failed", peer=connection.peer)
            connection.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close()
        self.recount()

    def recount(self) -> None:
        """Some of the players that were given away have ended."""
        self._counters.set("flux_http_open", self.open)

    def count(self, status: int) -> None:
        """Counts an answer by its status."""
        name = _STATUS_COUNTERS.get(status // 100)
        if name is not None:
            self._counters.add(name)
        if status == 408:
            self._counters.add("flux_http_timeouts_total")
        elif status in (400, 413, 431):
            self._counters.add("flux_http_bad_requests_total")

    async def _refuse(self, connection: Connection, request: Request) -> None:
        raise unavailable(
            "too_many_connections",
            f"all {self.max_connections} connections are taken",
            "come back later, or raise http.max_connections",
            retry_after_s=5,
            close=True,
        )

    def _pause_accepting(self, error: OSError) -> None:
        log.warning("http_accept_paused", error=str(error), cure="raise the limit of open files")
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(K_ACCEPT_PAUSE_S, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if self._accepting:
            self._loop.add_reader(self._listener.fileno(), self._accept)
