"""Addresses of media: what a path asks for.

    /NAME.flv, /NAME.ts         a live stream as FLV or MPEG-TS, by HTTP or WebSocket
    /NAME/index.m3u8            its HLS playlist; /NAME.m3u8 is the same
    /NAME/N.ts                  its HLS segment number N

/NAME/N.ts is also how MPEG-TS of a stream called NAME/N is asked for. It is a segment if the stream NAME has
one of that number; else the stream NAME/N, if there is one; else a segment that is gone, if there is a stream
NAME, and a stream to be waited for, if not. So a stream may be hidden only if its name is that of another and
a number, and only as MPEG-TS over HTTP.
"""

from __future__ import annotations

from typing import NamedTuple

K_SEQUENCE_DIGITS = 18  # of a segment's number; longer ones are names

FLV = "flv"
TS = "ts"
PLAYLIST = "playlist"
SEGMENT = "segment"


class Route(NamedTuple):
    """kind: FLV, TS, PLAYLIST or SEGMENT. name: the stream's, not checked yet.

    prefix: of a playlist, what goes before its segments' addresses. sequence: of a segment.
    """

    kind: str
    name: str
    prefix: str = ""
    sequence: int = 0


def route(path: str) -> Route | None:
    """What `path` (percent-decoded, begins with `/`) asks for; None when no medium has such an address.

    A SEGMENT may be a stream's TS instead: as_stream().
    """
    name, dot, suffix = path[1:].rpartition(".")
    if not dot or not name:
        return None
    if suffix == "flv":
        return Route(FLV, name)
    if suffix == "ts":
        stream, _, last = name.rpartition("/")
        if stream and last.isascii() and last.isdigit() and len(last) <= K_SEQUENCE_DIGITS:
            return Route(SEGMENT, stream, sequence=int(last))
        return Route(TS, name)
    if suffix == "m3u8":
        stream, _, last = name.rpartition("/")
        if stream and last == "index":
            return Route(PLAYLIST, stream)
        return Route(PLAYLIST, name, prefix=f"{last}/")
    return None


def as_stream(path: str) -> Route:
    """The other meaning of /NAME/N.ts."""
    return Route(TS, path[1:-3])
