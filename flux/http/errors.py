"""Refusals of the media HTTP server, each a status with a JSON body that says what to do."""

from __future__ import annotations

import json

from flux.errors import FluxError


class HttpError(FluxError):
    """A request that is answered with an error status.

    status: HTTP status code. code: a word for programs. what, cure: sentences for people.
    close: whether the connection can't be used any more, as what follows in it can't be told apart.
    """

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        cure: str,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(what, cure)
        self.status = status
        self.code = code
        self.headers = headers
        self.close = close

    def body(self) -> bytes:
        """The JSON object that goes out: {"error": code, "status": …, "message": …, "cure": …}."""
        return (
            json.dumps(
                {"error": self.code, "status": self.status, "message": self.what, "cure": self.cure},
                ensure_ascii=False,
            ).encode()
            + b"\n"
        )


def bad_request(what: str, cure: str = "send a request as RFC 9112 describes it") -> HttpError:
    """400: not HTTP as we understand it; the connection is closed."""
    return HttpError(400, "bad_request", what, cure, close=True)


def not_found(what: str, cure: str) -> HttpError:
    """404: no such address."""
    return HttpError(404, "not_found", what, cure)


def stream_not_found(name: str, hint: str) -> HttpError:
    """404: nobody publishes under that name."""
    return HttpError(404, "stream_not_found", f"nobody publishes {name}", hint)


def method_not_allowed(method: str) -> HttpError:
    """405, with what is allowed."""
    return HttpError(
        405,
        "method_not_allowed",
        f"{method} is not for media addresses",
        "use GET, HEAD or OPTIONS",
        (("Allow", "GET, HEAD, OPTIONS"),),
    )


def request_timeout(timeout_ms: int) -> HttpError:
    """408: the head did not arrive in time; the connection is closed."""
    return HttpError(
        408,
        "request_timeout",
        f"the request's head did not arrive within {timeout_ms} ms",
        "send the whole head at once, or raise http.request_timeout_ms",
        close=True,
    )


def body_too_large(limit_bytes: int) -> HttpError:
    """413: the connection is closed, the body unread."""
    return HttpError(
        413,
        "body_too_large",
        f"the request's body is longer than {limit_bytes} bytes",
        "media requests need no body: leave it out",
        close=True,
    )


def range_not_satisfiable(total_bytes: int) -> HttpError:
    """416, with how many bytes there are (RFC 9110, 15.5.17)."""
    return HttpError(
        416,
        "range_not_satisfiable",
        f"the range lies outside of the {total_bytes} bytes that there are",
        f"ask for bytes within 0-{max(total_bytes - 1, 0)}",
        (("Content-Range", f"bytes */{total_bytes}"),),
    )


def head_too_large(limit_bytes: int) -> HttpError:
    """431: the connection is closed."""
    return HttpError(
        431,
        "head_too_large",
        f"the request's head is longer than {limit_bytes} bytes",
        "send fewer or shorter headers, or raise http.max_header_bytes",
        close=True,
    )


def unavailable(code: str, what: str, cure: str, retry_after_s: int = 1, close: bool = False) -> HttpError:
    """503, with Retry-After: a bound is reached, or media are not there yet."""
    return HttpError(503, code, what, cure, (("Retry-After", str(retry_after_s)),), close)
