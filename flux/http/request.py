"""Requests out of a connection's bytes (RFC 9112), sans-IO: bytes in, requests or an HttpError out.

Pipelined requests come out one by one and in order. An error comes out after the requests before it, so that
they are answered first; nothing is read after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httptools

from flux.http.errors import HttpError, bad_request, body_too_large, head_too_large

K_MAX_BODY_BYTES = 16384  # a body is read and thrown away up to this, so that the connection can go on


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    path: percent-decoded, begins with `/`.
    headers: names in lower case; those that came twice are joined by `, `.
    upgrade: the client asks for a WebSocket, and what follows the head is not HTTP.
    """

    method: str
    target: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    keep_alive: bool
    upgrade: bool

    def header(self, name: str) -> str:
        """The value of header `name` (lower case), or an empty string."""
        return self.headers.get(name, "")


class RequestParser:
    """The requests of one connection. feed() bytes as they come; take() what is ready.

    max_header_bytes bounds a request's head: its line and headers, as sent.
    """

    def __init__(self, max_header_bytes: int = 16384) -> None:
        self._max_header_bytes = max_header_bytes
        self._ready: deque[Request | HttpError] = deque()
        self._closed = False
        self._fresh()

    @property
    def in_request(self) -> bool:
        """True between a request's first byte and its last."""
        return self._begun and not self._closed

    def take(self) -> Request | None:
        """The next request, or None when more bytes are needed; raises the HttpError that ends it all."""
        if not self._ready:
            return None
        item = self._ready.popleft()
        if isinstance(item, HttpError):
            raise item
        return item

    def feed(self, data: bytes) -> None:
        """Bytes from the client. Bytes after an error, an upgrade or a last request are ignored."""
        while data and not self._closed:
            self._fed_bytes += len(data)
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._fresh()
            except HttpError as error:
                self._fail(error)
            except httptools.HttpParserError as error:
                cause = error.__context__
                if isinstance(cause, HttpError):
                    self._fail(cause)
                else:
                    self._fail(bad_request(f"the request can't be parsed: {_reason(error)}"))
            if self._begun and not self._head_done and self._fed_bytes > self._max_header_bytes:
                self._fail(head_too_large(self._max_header_bytes))

    def _fail(self, error: HttpError) -> None:
        if not self._closed:
            self._ready.append(error)
            self._closed = True

    def _fresh(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._begun = False
        self._head_done = False
        self._fed_bytes = 0

    # called by httptools

    def on_message_begin(self) -> None:
        self._begun = True
        self._head_done = False
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        if key in self._headers:
            if key == "host":
                raise bad_request("the request has two Host headers", "send one")
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_done = True
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > K_MAX_BODY_BYTES:
            raise body_too_large(K_MAX_BODY_BYTES)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > K_MAX_BODY_BYTES:
            raise body_too_large(K_MAX_BODY_BYTES)

    def on_message_complete(self) -> None:
        version = self._parser.get_http_version()
        keep_alive = self._parser.should_keep_alive()
        upgrade = self._headers.get("upgrade", "").lower() == "websocket" and self._parser.should_upgrade()
        self._begun = False
        self._fed_bytes = 0
        if version == "1.1" and "host" not in self._headers:
            self._fail(bad_request("the request has no Host header", "send one, as HTTP/1.1 asks for"))
            return
        path, query = split_target(self._url)
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._url.decode("latin-1"),
            path,
            query,
            version,
            self._headers,
            keep_alive and not upgrade,
            upgrade,
        )
        self._ready.append(request)
        if not request.keep_alive:
            self._closed = True

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._max_header_bytes:
            raise head_too_large(self._max_header_bytes)


def split_target(target: bytes) -> tuple[str, str]:
    """(path, query) of a request target in origin or absolute form; the path percent-decoded, as UTF-8 with
    replacement characters for what isn't."""
    if not target.startswith(b"/"):
        _, scheme, rest = target.partition(b"://")
        target = b"/" + rest.partition(b"/")[2] if scheme else b"/" + target
    path, _, query = target.partition(b"?")
    path = path.partition(b"#")[0]
    return unquote_to_bytes(path).decode("utf-8", "replace"), query.decode("latin-1")


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text[0].lower() + text[1:]
