"""What stands before the API: by which name it is asked, where changes come from, what the page may load.

The API has no log-in yet and listens on loopback, yet any web page that the operator has open can send
requests there. So a loopback listener answers only to names of this machine (a foreign name that resolves to
127.0.0.1 is DNS rebinding), and a call that changes something has to come from our own page or a program.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux.http.errors import HttpError

K_HEADER = "x-flux-request"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PAGES = frozenset({"/", "/index.html"})
_HOST = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")

MediaOrigins = Callable[[str], Awaitable[Iterable[str]]]


def host_name(header: str) -> str:
    """The name or address in a Host header, in lower case, without port and brackets; "" if malformed."""
    match = _HOST.fullmatch(header)
    return (match["ip6"] or match["name"]).lower().rstrip(".") if match else ""


def is_loopback(name: str) -> bool:
    """Whether a name or an address in text stands for this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class Guard:
    """ASGI middleware. loopback: whether the listener is on loopback; hosts: admin.hosts.

    media_origins(host): where the page may play from, when it was opened at that host.
    """

    def __init__(
        self, app: ASGIApp, *, loopback: bool, hosts: Iterable[str], media_origins: MediaOrigins
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._hosts = frozenset(host.lower() for host in hosts)
        self._media_origins = media_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        try:
            self._check_host(host)
            if scope["method"] not in SAFE_METHODS:
                check_origin(headers)
        except HttpError as error:
            await error_response(error)(scope, receive, send)
            return
        policy = "default-src 'none'"
        if scope["path"] in PAGES:
            policy = content_policy(await self._media_origins(host))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["Content-Security-Policy"] = f"{policy}; frame-ancestors 'none'; base-uri 'none'"
                out["X-Content-Type-Options"] = "nosniff"
                out["Referrer-Policy"] = "no-referrer"
                out["Cross-Origin-Resource-Policy"] = "same-origin"
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _check_host(self, name: str) -> None:
        if not name:
            raise HttpError(400, "bad_host", "the Host header is missing or malformed", "send one")
        if is_loopback(name) or name in self._hosts:
            return
        if not self._loopback and (_address(name) is not None or not self._hosts):
            return
        raise HttpError(
            403,
            "host_refused",
            f"{name} is not a name of this server",
            f"use 127.0.0.1, or add {name} to admin.hosts",
        )


def check_origin(headers: Headers) -> None:
    """Lets a call that changes something pass only from our own page, or from a program that says so."""
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if origin is not None:
        own = origin.partition("://")[2].lower() == headers.get("host", "").lower()
        if not own or site == "cross-site":
            raise HttpError(
                403,
                "origin_refused",
                f"pages of {origin} may not change anything here",
                "call from the server's own page, or from a program without an Origin header",
            )
        return
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if site not in ("none", "same-origin") or (K_HEADER not in headers and media_type != "application/json"):
        raise HttpError(
            403,
            "header_missing",
            "a call that changes something must say that no web page of another site sent it",
            "add the header X-Flux-Request: 1",
        )


def content_policy(media_origins: Iterable[str]) -> str:
    """Content-Security-Policy of the page: its own files, and media from `media_origins` (scheme://host:port)."""
    origins = " ".join(sorted(media_origins))
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "worker-src 'self' blob:",  # hls.js demuxes in a worker that it makes of itself
            "style-src 'self'",
            "img-src 'self' data:",
            f"connect-src 'self' {origins}".rstrip(),
            f"media-src blob: {origins}".rstrip(),
            "form-action 'none'",
        )
    )


def error_response(error: HttpError) -> Response:
    """An error as its JSON object."""
    return Response(error.body(), error.status, dict(error.headers), "application/json; charset=utf-8")


async def on_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for HttpError."""
    assert isinstance(error, HttpError)
    return error_response(error)
