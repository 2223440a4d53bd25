"""The API: /api/v1/…, /metrics, /healthz, /readyz. docs/api.md and openapi.py describe it."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from flux._version import __version__
from flux.admin.control import Control
from flux.admin.guard import host_name
from flux.admin.openapi import document
from flux.admin.views import stream_view, unready
from flux.errors import ControlError
from flux.http.errors import HttpError, not_found, stream_not_found
from flux.observe.metrics import CONTENT_TYPE, ArenaCollector, exposition
from flux.streams.links import K_DEMO_NAME, publish_link

PREFIX = "/api/v1"
K_PAGE = 1000  # sessions in one answer, unless asked otherwise
K_MAX_PAGE = 10_000


class Api:
    """The handlers. arena: flux.cext.arena.Arena, for metrics."""

    def __init__(self, control: Control, arena: Any) -> None:
        self._control = control
        self._arena = arena

    def routes(self) -> list[BaseRoute]:
        """All addresses of the API, versioned and plain."""
        versioned = [
            Route("/status", self.status),
            Route("/stats", self.stats),
            Route("/streams", self.streams),
            Route("/streams/{name:path}", self.stream),
            Route("/sessions", self.sessions),
            Route("/sessions/{id}", self.kick, methods=["DELETE"]),
            Route("/relays", self.relays),
            Route("/openapi.json", self.openapi),
        ]
        return [
            Mount(PREFIX, routes=versioned),
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def status(self, request: Request) -> Response:
        """GET /api/v1/status: the control socket's `status`."""
        status = await self._control.read("status")
        publish = publish_link(K_DEMO_NAME, _host(request), status["listeners"])
        return JSONResponse({"version": __version__, **status, "publish": {"srt": publish}})

    async def stats(self, request: Request) -> Response:
        """GET /api/v1/stats: all counters, summed and by process."""
        return JSONResponse(await self._control.read("stats"))

    async def streams(self, request: Request) -> Response:
        """GET /api/v1/streams: every stream, with the addresses that play it."""
        return JSONResponse({"streams": await self._streams(request)})

    async def stream(self, request: Request) -> Response:
        """GET /api/v1/streams/NAME: one stream; 404 when nobody has that name."""
        name = request.path_params["name"]
        for view in await self._streams(request):
            if view["name"] == name:
                return JSONResponse(view)
        raise stream_not_found(name, "GET /api/v1/streams lists those that are there")

    async def _streams(self, request: Request) -> list[dict[str, Any]]:
        status = await self._control.read("status")
        streams = await self._control.read("streams")
        return [
            stream_view(facts, _host(request), status["listeners"])
            for facts in sorted(streams["streams"], key=lambda facts: str(facts["name"]))
            if facts["state"] in ("live", "idle")
        ]

    async def sessions(self, request: Request) -> Response:
        """GET /api/v1/sessions: publishers and players, a page of them, of one `stream` if asked."""
        offset = _number(request, "offset", 0, 1 << 31)
        limit = _number(request, "limit", K_PAGE, K_MAX_PAGE)
        stream = request.query_params.get("stream")
        answer = await self._control.read("sessions", **({"stream": stream} if stream else {}))
        found = answer["sessions"]
        return JSONResponse({"sessions": found[offset : offset + limit], "total": len(found)})

    async def kick(self, request: Request) -> Response:
        """DELETE /api/v1/sessions/ID: ends a session; 404 when there is none."""
        session = request.path_params["id"]
        try:
            answer = await self._control.call("kick", session=session)
        except ControlError:
            listed = await self._control.call("sessions")
            if any(other["id"] == session for other in listed["sessions"]):
                raise
            raise not_found(
                f"there is no session {session}", "GET /api/v1/sessions lists those that are there"
            ) from None
        self._control.forget()
        return JSONResponse(answer)

    async def relays(self, request: Request) -> Response:
        """GET /api/v1/relays: every relay, what it does and why it fails."""
        return JSONResponse({"relays": (await self._control.read("relays"))["relays"]})

    async def openapi(self, request: Request) -> Response:
        """GET /api/v1/openapi.json: this API's description."""
        return JSONResponse(document())

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: counters and streams in Prometheus' text format."""
        try:
            sampled = (await self._control.read("streams"))["streams"]
        except ControlError:
            sampled = []
        collector = ArenaCollector(self._arena, sampled)
        return Response(await anyio.to_thread.run_sync(exposition, collector), media_type=CONTENT_TYPE)

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 200 while this process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """GET /readyz: 200 while all workers take sessions, else 503."""
        try:
            why = unready(await self._control.read("status"))
        except ControlError as error:
            why = str(error)
        return PlainTextResponse(f"{why}\n" if why else "ready\n", 503 if why else 200)


def _host(request: Request) -> str:
    return host_name(request.headers.get("host", ""))


def _number(request: Request, key: str, default: int, most: int) -> int:
    text = request.query_params.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text[:12]) > most:
        raise HttpError(400, "bad_request", f"{key}={text[:40]}", f"{key} is a number from 0 to {most}")
    return int(text)
