"""HLS: playlists, and segments out of the arena."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from flux.cext.fanout.segment_sender import SegmentGone, SegmentSender
from flux.cext.media.hls import HlsReader
from flux.config.schema import Config
from flux.http.connection import Connection, ConnectionClosed
from flux.http.errors import HttpError, not_found, unavailable
from flux.http.lookup import wait_for_stream
from flux.http.playlist import render_playlist
from flux.http.ranges import wanted_range
from flux.http.request import Request
from flux.http.response import TYPE_PLAYLIST, TYPE_TS, cors, head
from flux.http.viewers import Viewers
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRef

K_LOOK_S = 0.02  # between two looks for a stream's first segment
K_SEGMENT_MAX_AGE_S = 60  # for caches; numbers begin with the wall clock, so they don't come again soon


class _Stream:
    """A stream's segments as this worker sees them, and its playlists as they were last rendered."""

    def __init__(self, reader: Any, generation: int) -> None:
        self.reader = reader
        self.generation = generation
        self.version: tuple[int, ...] = ()
        self.playlists: dict[str, bytes] = {}
        self.first: asyncio.Task[None] | None = None


class Hls:
    """The HLS side of this worker's media server."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._counters = context.counters
        self._streams: dict[int, _Stream] = {}
        self._sending: dict[int, asyncio.Future[str]] = {}
        self._sender = SegmentSender(context.reactor, context.counters.values, self._on_sent)
        self._boot = f"{os.fstat(context.arena.fd).st_ino:x}"
        self.viewers = Viewers(context)
        self.reconfigure(context.config)

    def reconfigure(self, config: Config) -> None:
        """Takes over limits and how much a playlist lists."""
        self._wait_ms = config.streams.wait_ms
        self._origin = config.http.cors_origin
        self._newest = config.hls.playlist_segments
        self._want_us = config.hls.viewer_timeout_ms * 1000
        self._sender.configure(config.http.slow_player_ms * 1000)
        self.viewers.reconfigure(config)
        for stream in self._streams.values():
            stream.version = ()

    def has_segment(self, stream: StreamRef, sequence: int) -> bool:
        """Whether the stream has a segment of that number now."""
        return self._open(stream).reader.segment(sequence) is not None

    def _open(self, stream: StreamRef) -> _Stream:
        known = self._streams.get(stream.slot)
        if known is None or known.generation != stream.generation:
            try:
                known = _Stream(HlsReader(self._context.arena, stream.slot), stream.generation)
            except ValueError:
                raise not_found(f"{stream.name} ended just now", "publish it again") from None
            self._streams[stream.slot] = known
        return known

    def _want(self, stream: _Stream) -> None:
        stream.reader.want(time.monotonic_ns() // 1000 + self._want_us)

    async def playlist(self, connection: Connection, request: Request, name: str, prefix: str) -> None:
        """Answers with the playlist of the stream `name`; its first viewers wait until there is a segment."""
        stream = await wait_for_stream(self._context, connection, name, self._wait_ms)
        opened = self._open(stream)
        self._want(opened)
        body = self._render(opened, prefix)
        if body is None:
            await connection.until_gone(self._first_segment(opened))
            body = self._render(opened, prefix)
        if body is None:
            raise unavailable(
                "no_segment",
                f"{name} has no segment yet",
                "ask again soon; if this stays, look whether its publisher sends keyframes",
                retry_after_s=2,
            )
        self.viewers.seen(stream, connection.peer, request.header("user-agent"), len(body))
        headers = [
            ("Content-Type", TYPE_PLAYLIST),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-cache"),
            *cors(self._origin),
        ]
        self._counters.add("flux_http_playlists_total")
        await connection.respond(head(200, headers, keep_alive=connection.stays_open), body)

    def _render(self, stream: _Stream, prefix: str) -> bytes | None:
        """The playlist's text; None while there is no segment."""
        snapshot = stream.reader.snapshot()
        if snapshot is None or not snapshot["segments"]:
            return None
        segments = snapshot["segments"]
        version = (segments[0]["sequence"], segments[-1]["sequence"], int(snapshot["ended"]))
        if version != stream.version:
            stream.version = version
            stream.playlists.clear()
        body = stream.playlists.get(prefix)
        if body is None:
            body = stream.playlists[prefix] = render_playlist(snapshot, self._newest, prefix=prefix).encode()
        return body

    async def _first_segment(self, stream: _Stream) -> None:
        """Waits until there is a segment, or for streams.wait_ms. All who wait share one look-out."""
        if stream.first is None or stream.first.done():
            stream.first = asyncio.create_task(self._look_out(stream))
        try:
            async with asyncio.timeout(self._wait_ms / 1000):
                await asyncio.shield(stream.first)
        except TimeoutError:
            pass

    async def _look_out(self, stream: _Stream) -> None:
        deadline = time.monotonic() + self._wait_ms / 1000
        while time.monotonic() < deadline:
            snapshot = stream.reader.snapshot()
            if snapshot is None or snapshot["segments"]:
                return
            await asyncio.sleep(K_LOOK_S)

    async def segment(
        self, connection: Connection, request: Request, stream: StreamRef, sequence: int
    ) -> None:
        """Answers with segment `sequence`, or the range of it that is asked for (RFC 9110, 14)."""
        opened = self._open(stream)
        self._want(opened)
        place = opened.reader.segment(sequence)
        if place is None:
            raise _gone(stream.name, sequence)
        total = place[1]
        etag = f'"{self._boot}-{stream.slot:x}-{stream.generation:x}-{sequence:x}"'
        headers = [
            ("ETag", etag),
            ("Cache-Control", f"max-age={K_SEGMENT_MAX_AGE_S}"),
            *cors(self._origin),
        ]
        if _matches(request.header("if-none-match"), etag):
            await connection.respond(head(304, headers, keep_alive=connection.stays_open), b"", 304)
            return
        part = None
        if request.method == "GET":
            part = wanted_range(request.header("range"), request.header("if-range"), etag, total)
        first, count = part or (0, total)
        headers += [
            ("Content-Type", TYPE_TS),
            ("Content-Length", str(count)),
            ("Accept-Ranges", "bytes"),
        ]
        if part is not None:
            headers.append(("Content-Range", f"bytes {first}-{first + count - 1}/{total}"))
        status = 200 if part is None else 206
        answer = head(status, headers, keep_alive=connection.stays_open)
        self.viewers.seen(
            stream, connection.peer, request.header("user-agent"), 0 if connection.head_only else count
        )
        if connection.head_only:
            await connection.respond(answer, b"", status)
            return
        await self._send(connection, opened, stream.name, sequence, first, count, answer, status)

    async def _send(
        self,
        connection: Connection,
        opened: _Stream,
        name: str,
        sequence: int,
        first: int,
        count: int,
        answer: bytes,
        status: int,
    ) -> None:
        try:
            result = self._sender.send(connection.borrow(), opened.reader, sequence, first, count, answer)
        except SegmentGone:
            raise _gone(name, sequence) from None
        connection.count(status)
        self._counters.add("flux_http_segments_total")
        if isinstance(result, int):
            token = result
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._sending[token] = done
            try:
                result = await done
            finally:
                del self._sending[token]
                self._sender.cancel(token)
        if result != "sent":
            if result == "lapped":
                self._counters.add("flux_http_segments_lapped_total")
            raise ConnectionClosed(result)

    def _on_sent(self, done: list[tuple[int, str]]) -> None:
        for token, result in done:
            future = self._sending.get(token)
            if future is not None and not future.done():
                future.set_result(result)

    def close(self) -> None:
        """Ends all viewers; connections must be closed already."""
        self.viewers.close()
        self._sender.close()
        for stream in self._streams.values():
            if stream.first is not None:
                stream.first.cancel()


def _gone(name: str, sequence: int) -> HttpError:
    return not_found(f"segment {sequence} of {name} is gone or yet to come", f"get /{name}/index.m3u8 again")


def _matches(header: str, etag: str) -> bool:
    """If-None-Match (RFC 9110, 13.1.2)."""
    return bool(header) and (
        header == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))
    )
