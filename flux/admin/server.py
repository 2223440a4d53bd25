"""Runs the admin process's HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import structlog
import uvicorn
import uvloop

from flux.admin.app import create_app
from flux.admin.control import Control
from flux.admin.guard import is_loopback
from flux.config.schema import Config

log = structlog.get_logger("flux.admin")

K_KEEPALIVE_S = 30
K_MAX_REQUESTS = 512  # at once; further ones get 503
K_GOODBYE_S = 1  # for requests under way at the end


class _Server(uvicorn.Server):
    """Ends on SIGTERM; leaves SIGINT, which a terminal sends to all processes, to the supervisor."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self.handle_exit, signal.SIGTERM, None)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)


def run(
    listener: socket.socket, arena: Any, config: Config, control_path: str, heartbeat: Callable[[], None]
) -> None:
    """Serves `listener` until SIGTERM. For a process of its own, forked off the supervisor.

    arena: flux.cext.arena.Arena. control_path: the supervisor's control socket. heartbeat(): says that this
    process is alive.
    """
    address = listener.getsockname()
    app = create_app(
        arena, config, Control(control_path), loopback=is_loopback(address[0]), heartbeat=heartbeat
    )
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=K_KEEPALIVE_S,
            timeout_graceful_shutdown=K_GOODBYE_S,
            limit_concurrency=K_MAX_REQUESTS,
        )
    )
    log.info("admin_started", address=f"{address[0]}:{address[1]}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))
    log.info("admin_stopped")
