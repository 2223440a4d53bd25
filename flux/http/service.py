"""Media over HTTP in a worker: what is asked for by which address, and the answers that are no media."""

from __future__ import annotations

import socket

from flux.config.schema import Config
from flux.http import routes
from flux.http.connection import Connection, ConnectionLimits
from flux.http.errors import bad_request, method_not_allowed, not_found
from flux.http.hls import Hls
from flux.http.live import LivePlayers
from flux.http.lookup import find_stream
from flux.http.request import Request
from flux.http.response import head, preflight
from flux.http.server import HttpServer
from flux.streams.context import WorkerContext

_ADDRESSES = "streams are at /NAME.flv and /NAME.ts (HTTP and WebSocket) and /NAME/index.m3u8 (HLS)"


class HttpService:
    """Serves `listener` from start() to close(); players go on after stop_accepting()."""

    def __init__(self, listener: socket.socket, context: WorkerContext) -> None:
        self._context = context
        self._live = LivePlayers(context, lambda: self._server.recount())
        self._hls = Hls(context)
        self._server = HttpServer(
            listener,
            self._handle,
            _limits(context.config),
            context.config.http.max_connections,
            context.counters,
            self._live.__len__,
        )
        self._origin = context.config.http.cors_origin

    def start(self) -> None:
        """Begins to accept."""
        self._server.start()

    def stop_accepting(self) -> None:
        """Takes nothing new and closes idle connections; players and answers under way go on."""
        self._server.stop_accepting()

    def reconfigure(self, config: Config) -> None:
        """Takes over what may change while running; limits of a connection count for those that come now."""
        self._origin = config.http.cors_origin
        self._server.limits = _limits(config)
        self._server.max_connections = config.http.max_connections
        self._live.reconfigure(config)
        self._hls.reconfigure(config)

    async def close(self) -> None:
        """Ends everything now."""
        await self._server.close()
        self._live.close()
        self._hls.close()

    async def _handle(self, connection: Connection, request: Request) -> None:
        self._context.counters.add("flux_http_requests_total")
        if request.method == "OPTIONS":
            headers = preflight(self._origin)
            await connection.respond(head(204, headers, keep_alive=connection.stays_open), b"", 204)
            return
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request.method)
        wanted = routes.route(request.path)
        if wanted is None:
            raise not_found(f"there is nothing at {_short(request.path)}", _ADDRESSES)
        if wanted.kind == routes.SEGMENT:
            wanted = await self._segment(connection, request, wanted)
            if wanted is None:
                return
        if wanted.kind == routes.PLAYLIST:
            _refuse_upgrade(request)
            await self._hls.playlist(connection, request, wanted.name, wanted.prefix)
        else:
            await self._live.play(connection, request, wanted.kind, wanted.name)

    async def _segment(
        self, connection: Connection, request: Request, wanted: routes.Route
    ) -> routes.Route | None:
        """Answers a request for a segment; gives the other meaning of the path if it has that (routes.py)."""
        stream = find_stream(self._context, wanted.name)
        other = routes.as_stream(request.path)
        if stream is None:
            return other
        if not self._hls.has_segment(stream, wanted.sequence) and find_stream(self._context, other.name):
            return other
        _refuse_upgrade(request)
        await self._hls.segment(connection, request, stream, wanted.sequence)
        return None


def _limits(config: Config) -> ConnectionLimits:
    http = config.http
    return ConnectionLimits(
        max_header_bytes=http.max_header_bytes,
        request_timeout_ms=http.request_timeout_ms,
        keepalive_ms=http.keepalive_ms,
        cors_origin=http.cors_origin,
    )


def _refuse_upgrade(request: Request) -> None:
    if request.upgrade:
        raise bad_request("HLS is not for WebSockets", "get it by plain HTTP")


def _short(path: str) -> str:
    return path if len(path) <= 100 else path[:100] + "…"
