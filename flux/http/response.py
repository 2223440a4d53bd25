"""Response heads (RFC 9110, 9112), as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from flux.http.errors import HttpError

K_SERVER = "flux"
TYPE_FLV = "video/x-flv"
TYPE_TS = "video/mp2t"
TYPE_PLAYLIST = "application/vnd.apple.mpegurl"
TYPE_JSON = "application/json; charset=utf-8"

Headers = Iterable[tuple[str, str]]


def phrase(status: int) -> str:
    """The reason phrase of a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def head(status: int, headers: Headers, *, keep_alive: bool, now_s: float | None = None) -> bytes:
    """A response's head up to and with its empty line. now_s: wall clock for Date; None: the present."""
    lines = [
        f"HTTP/1.1 {status} {phrase(status)}",
        f"Server: {K_SERVER}",
        f"Date: {formatdate(now_s, usegmt=True)}",
        *(f"{name}: {value}" for name, value in headers),
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def switching_head(headers: Headers) -> bytes:
    """The head of a 101 that hands the connection to a WebSocket."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        f"Server: {K_SERVER}",
        "Upgrade: websocket",
        "Connection: Upgrade",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def cors(origin: str) -> list[tuple[str, str]]:
    """What lets pages of another site read a response (Fetch, 3.2); origin: http.cors_origin or empty."""
    if not origin:
        return []
    headers = [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", "Content-Length, Content-Range, Date, ETag, Retry-After"),
    ]
    if origin != "*":
        headers.append(("Vary", "Origin"))
    return headers


def preflight(origin: str) -> list[tuple[str, str]]:
    """Headers of the answer to an OPTIONS request."""
    allow = [("Allow", "GET, HEAD, OPTIONS")]
    if not origin:
        return allow
    return [
        *allow,
        *cors(origin),
        ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
        ("Access-Control-Allow-Headers", "Range, If-Range, Authorization, Content-Type"),
        ("Access-Control-Max-Age", "86400"),
    ]


def error_response(error: HttpError, origin: str, *, keep_alive: bool, with_body: bool = True) -> bytes:
    """An error as a whole response; with_body False for the answer to HEAD."""
    body = error.body()
    headers = [
        ("Content-Type", TYPE_JSON),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        *error.headers,
        *cors(origin),
    ]
    return head(error.status, headers, keep_alive=keep_alive) + (body if with_body else b"")
