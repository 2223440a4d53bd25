"""The server's side of a WebSocket's opening handshake (RFC 6455, section 4.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib

from flux.http.errors import HttpError, bad_request
from flux.http.request import Request

K_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
K_VERSION = "13"


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + K_GUID).digest()).decode()


def check_handshake(request: Request, origin: str) -> str:
    """The Sec-WebSocket-Accept value for a valid upgrade request; raises HttpError otherwise.

    origin: http.cors_origin. A page of another origin is refused unless it is `*`; a client that sends no
    Origin is no page, and is let in.
    """
    if request.method != "GET":
        raise bad_request("a WebSocket is opened by GET", "use GET")
    if request.header("sec-websocket-version") != K_VERSION:
        raise HttpError(
            426,
            "websocket_version",
            "only version 13 of the WebSocket protocol is spoken",
            "send Sec-WebSocket-Version: 13",
            (("Sec-WebSocket-Version", K_VERSION),),
            close=True,
        )
    key = request.header("sec-websocket-key")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise bad_request(
            "Sec-WebSocket-Key is not 16 bytes in base64", "send one, as RFC 6455, 4.1 describes it"
        )
    page = request.header("origin")
    if origin != "*" and page and page != origin:
        raise HttpError(
            403, "origin_refused", f"pages of {page} may not play here", "set http.cors_origin", close=True
        )
    return accept_key(key)
