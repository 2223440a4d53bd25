"""Rejection codes that a listener gives a caller: SRT Access Control Guidelines, "Rejection Codes"."""

from __future__ import annotations

K_BAD_REQUEST = 1400
K_UNAUTHORIZED = 1401
K_OVERLOAD = 1402
K_FORBIDDEN = 1403
K_NOT_FOUND = 1404
K_BAD_MODE = 1405
K_CONFLICT = 1409
K_UNSUPPORTED_MEDIA = 1415
K_INTERNAL_ERROR = 1500
K_DOWN = 1503

# Code: (what it says, what the caller can do about it). Up to 1017 as on the wire (SRT Internet-Draft, 4.3).
MEANINGS: dict[int, tuple[str, str]] = {
    1000: ("refused for an unknown reason", "look into the server's log"),
    1001: ("the server's system failed", "look into the server's log"),
    1002: ("refused by the server", "look whether the stream id is one that this server takes"),
    1003: ("the server has no room", "come back later"),
    1004: ("the server found the handshake malformed", "look whether it is an SRT server, and a recent one"),
    1005: ("the server's backlog is full", "come back later"),
    1006: ("the server failed", "look into the server's log"),
    1007: ("the server closed while connecting", "connect again"),
    1008: ("the SRT versions don't fit", "use SRT 1.3 or later on both sides"),
    1009: ("the handshake's cookies collided", "connect again"),
    1010: ("the passphrase is wrong", "set passphrase= to the one that the server has for this stream"),
    1011: (
        "one side wants encryption and the other does not",
        "set a passphrase on both sides or on neither",
    ),
    1012: ("message mode does not fit", "use live mode on both sides"),
    1013: ("congestion control does not fit", "use live mode on both sides"),
    1014: ("packet filters don't fit", "set the same one on both sides, or none"),
    1015: ("connection groups don't fit", "set the same on both sides"),
    1016: ("the server did not answer in time", "look whether it runs and UDP reaches it"),
    1017: (
        "AES-CTR meets AES-GCM, or an AES-GCM of before SRT 1.5.4",
        "set the same cryptomode= on both sides",
    ),
    K_BAD_REQUEST: (
        "the stream id is malformed",
        "use publish:live/cam1, read:live/cam1 or #!::m=publish,r=live/cam1",
    ),
    K_UNAUTHORIZED: ("credentials are missing or wrong", "put user and password into the stream id"),
    K_OVERLOAD: ("a bound of the server is reached", "come back later, or raise the server's limits"),
    K_FORBIDDEN: ("access is denied", "ask the server's operator for it"),
    K_NOT_FOUND: (
        "nobody publishes that stream",
        "publish it first, or look whether the name is right",
    ),
    K_BAD_MODE: ("the mode is not offered", "use m=publish or m=request"),
    K_CONFLICT: (
        "the stream has a publisher already",
        "publish under another name, or kick the other first",
    ),
    K_UNSUPPORTED_MEDIA: ("the type is not offered", "leave t= out, or use t=stream"),
    K_INTERNAL_ERROR: ("the server failed", "look into the server's log"),
    K_DOWN: ("the server is shutting down", "come back when it is up again"),
}


def explain(code: int) -> tuple[str, str]:
    """What a rejection code means, and what to do: to be shown to a user."""
    what, cure = MEANINGS.get(code, ("refused by the server", "look into the server's log"))
    return f"{what} (SRT rejection {code})", cure
