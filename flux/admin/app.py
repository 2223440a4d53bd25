"""The Starlette application: the API and the web page behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from flux.admin.api import Api
from flux.admin.control import Control
from flux.admin.guard import Guard, error_response, on_error
from flux.config.schema import Config
from flux.errors import ControlError
from flux.http.errors import HttpError, unavailable
from flux.streams.links import authority

WEB = Path(__file__).parent / "web"


class _Files(StaticFiles):
    """The page's files. A browser may keep them, and asks each time whether they are still the newest."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(
    arena: Any,
    config: Config,
    control: Control,
    *,
    loopback: bool,
    heartbeat: Callable[[], None] | None = None,
) -> Starlette:
    """arena: flux.cext.arena.Arena. loopback: whether it is served on loopback only.

    heartbeat: called several times within supervisor.heartbeat_timeout_ms while the application runs.
    """

    async def media_origins(host: str) -> list[str]:
        try:
            listeners = (await control.read("status"))["listeners"]
        except ControlError:
            return []
        if not listeners.get("http"):
            return []
        media = authority(host, listeners["http"])
        return [f"http://{media}", f"ws://{media}"]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if heartbeat is None:
            yield
            return
        task = asyncio.create_task(_beat(heartbeat, config.supervisor.heartbeat_timeout_ms / 4000))
        try:
            yield
        finally:
            task.cancel()

    return Starlette(
        routes=[*Api(control, arena).routes(), Mount("/", _Files(directory=WEB, html=True))],
        middleware=[
            Middleware(Guard, loopback=loopback, hosts=config.admin.hosts, media_origins=media_origins)
        ],
        exception_handlers={
            HttpError: on_error,
            ControlError: _on_control_error,
            HTTPException: _on_http_exception,
        },
        lifespan=lifespan,
    )


async def _beat(heartbeat: Callable[[], None], interval_s: float) -> None:
    while True:
        heartbeat()
        await asyncio.sleep(min(interval_s, 1.0))


async def _on_control_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ControlError)
    return error_response(
        unavailable("control_failed", error.what, error.cure or "see the server's log, and try again")
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    cures = {
        404: "GET /api/v1/openapi.json lists what there is",
        405: f"use {(error.headers or {}).get('Allow', 'GET')}",
    }
    names = {404: "not_found", 405: "method_not_allowed"}
    return error_response(
        HttpError(
            error.status_code,
            names.get(error.status_code, "refused"),
            f"{request.method} {request.url.path}: {error.detail}",
            cures.get(error.status_code, ""),
            tuple((error.headers or {}).items()),
        )
    )
