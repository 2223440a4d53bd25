"""Live streams by HTTP and WebSocket: the head of the answer, then the socket goes to the fan-out."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flux.cext.fanout.fanout import RING_FLV, RING_TS, Fanout, StreamGone
from flux.config.schema import Config
from flux.http.connection import Connection
from flux.http.errors import stream_not_found, unavailable
from flux.http.lookup import find_stream, wait_for_stream
from flux.http.request import Request
from flux.http.response import TYPE_FLV, TYPE_TS, cors, head, switching_head
from flux.http.routes import FLV
from flux.http.websocket import check_handshake
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRef
from flux.streams.session import READ, Session


class _Player:
    """What Python keeps of a player: its session, and why it was asked to end."""

    __slots__ = ("fanout", "reason", "serial", "session")

    def __init__(self, fanout: Any, serial: int) -> None:
        self.fanout = fanout
        self.serial = serial
        self.session: Session
        self.reason = ""

    def close(self, reason: str) -> None:
        self.reason = reason
        self.fanout.kick(self.serial)

    def figures(self) -> dict[str, Any]:
        figures = self.fanout.figures(self.serial)
        return {} if figures is None else {"bytes": figures[0], "lag_bytes": figures[1]}


class LivePlayers:
    """The FLV and MPEG-TS players of this worker. on_ended: called when some have ended."""

    def __init__(self, context: WorkerContext, on_ended: Callable[[], None]) -> None:
        self._on_ended = on_ended
        self._context = context
        self._counters = context.counters
        self._sessions = context.sessions
        self._players: dict[int, _Player] = {}
        self._fanout = Fanout(context.reactor, context.arena, context.counters.values, self._on_closed)
        self.reconfigure(context.config)

    def __len__(self) -> int:
        return len(self._players)

    def reconfigure(self, config: Config) -> None:
        """Takes over intervals and limits; those of sockets count for players that come from now on."""
        http = config.http
        self._wait_ms = config.streams.wait_ms
        self._origin = http.cors_origin
        self._fanout.configure(
            http.write_interval_ms * 1000,
            http.slow_player_ms * 1000,
            http.max_lag_ms * 1000,
            http.socket_buffer_bytes,
            http.unsent_bytes,
        )

    async def play(self, connection: Connection, request: Request, kind: str, name: str) -> None:
        """Answers a request for the stream `name` as `kind` (routes.FLV, routes.TS)."""
        if request.upgrade:
            key = check_handshake(request, self._origin)
            answer, status = switching_head([("Sec-WebSocket-Accept", key)]), 101
            protocol = f"ws-{kind}"
        else:
            answer, status = _live_head(kind, self._origin, int(time.time())), 200
            protocol = f"http-{kind}"
            if connection.head_only:
                if find_stream(self._context, name) is None:
                    raise stream_not_found(name, "publish it first, or look whether the name is right")
                connection.keep_alive = False
                await connection.respond(answer, b"")
                return
        stream = await wait_for_stream(self._context, connection, name, self._wait_ms)
        self._join(connection, stream, kind, protocol, answer, request.upgrade)
        connection.count(status)

    def _join(
        self,
        connection: Connection,
        stream: StreamRef,
        kind: str,
        protocol: str,
        answer: bytes,
        websocket: bool,
    ) -> None:
        ring = RING_FLV if kind == FLV else RING_TS
        try:
            serial = self._fanout.join(
                connection.borrow(), stream.slot, stream.generation, ring, answer, websocket=websocket
            )
        except StreamGone:
            raise stream_not_found(stream.name, "it ended just now: publish it again") from None
        except MemoryError:
            raise unavailable("no_memory", "memory is short", "come back later", close=True) from None
        connection.detach()
        player = _Player(self._fanout, serial)
        self._players[serial] = player
        self._counters.add("flux_http_live_flv_total" if kind == FLV else "flux_http_live_ts_total")
        player.session = self._sessions.begin(
            stream.name, protocol, READ, connection.peer, player.close, player.figures
        )

    def _on_closed(self, ended: list[tuple[int, str, int]]) -> None:
        for serial, reason, sent_bytes in ended:
            player = self._players.pop(serial)
            self._sessions.end(player.session, player.reason or reason, sent_bytes)
        self._on_ended()

    def close(self) -> None:
        """Ends all players."""
        self._fanout.close()


@lru_cache(maxsize=8)
def _live_head(kind: str, origin: str, now_s: int) -> bytes:
    """The head of an answer that goes on until either side closes; the same for all players of a second."""
    headers = [
        ("Content-Type", TYPE_FLV if kind == FLV else TYPE_TS),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),
        *cors(origin),
    ]
    return head(200, headers, keep_alive=False, now_s=now_s)
