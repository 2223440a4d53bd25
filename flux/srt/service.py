"""SRT in a worker: callers are taken in as publishers or players, by their stream ids."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import structlog

from flux.address import peer_name
from flux.cext.ring import Ring
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_driver import SrtDriver
from flux.config.schema import Config
from flux.errors import LimitError, StreamNotFoundError, StreamTakenError
from flux.srt.encryption import passphrase_of, require_library
from flux.srt.figures import player_figures, publisher_figures
from flux.srt.pace import calm_interval_us
from flux.srt.rejection import (
    K_BAD_MODE,
    K_BAD_REQUEST,
    K_CONFLICT,
    K_DOWN,
    K_INTERNAL_ERROR,
    K_NOT_FOUND,
    K_OVERLOAD,
    K_UNSUPPORTED_MEDIA,
    explain,
)
from flux.srt.stream_id import StreamId, StreamIdError, parse
from flux.streams.context import WorkerContext
from flux.streams.registry import Publication, StreamRef
from flux.streams.session import READ, Session

log = structlog.get_logger("flux.srt")

K_RING_TS = 1  # arena.pxd, ring_kind
K_ANSWER_MS = 500  # an answer to a caller that waits is on its way this long before both sides give up
K_EVENTS_A_TURN = 256  # handled at once; the loop has its turn before the others

_COUNTERS = {
    K_BAD_REQUEST: "flux_srt_requests_rejected_stream_id_total",
    K_BAD_MODE: "flux_srt_requests_rejected_mode_total",
    K_UNSUPPORTED_MEDIA: "flux_srt_requests_rejected_mode_total",
    K_NOT_FOUND: "flux_srt_requests_rejected_not_found_total",
    K_CONFLICT: "flux_srt_requests_rejected_taken_total",
    K_OVERLOAD: "flux_srt_requests_rejected_limit_total",
    K_DOWN: "flux_srt_requests_rejected_draining_total",
    K_INTERNAL_ERROR: "flux_srt_requests_rejected_failed_total",
}


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class _Publisher:
    """A connection that sends us a stream."""

    __slots__ = ("publication",)

    def __init__(self, publication: Publication) -> None:
        self.publication = publication

    def end(self, reason: str, facts: dict[str, Any]) -> None:
        facts.pop("bytes", None)  # the publication tells them itself
        self.publication.end(reason, **facts)


class _Player:
    """A connection that is sent a stream; `generation` tells whether the slot is still that stream's."""

    __slots__ = ("generation", "service", "session", "slot")

    def __init__(self, service: SrtService, session: Session, ref: StreamRef) -> None:
        self.service = service
        self.session = session
        self.slot = ref.slot
        self.generation = ref.generation

    def end(self, reason: str, facts: dict[str, Any]) -> None:
        self.service.player_gone(self.slot, self.generation)
        self.service.context.sessions.end(self.session, reason, facts.pop("bytes", None), **facts)


class SrtService:
    """Implements flux.streams.context.Service. sock: this worker's bound UDP socket."""

    def __init__(self, sock: socket.socket, context: WorkerContext) -> None:
        self.context = context
        self._sock = sock
        self._config = context.config
        settings = context.config.srt
        require_library(settings)
        self._endpoint = Endpoint(
            context.number,
            context.counters.values,
            latency_ms=settings.latency_ms,
            peer_idle_timeout_ms=settings.peer_idle_timeout_ms,
            handshake_timeout_ms=settings.handshake_timeout_ms,
            flow_window_pkts=settings.flow_window_pkts,
            receive_buffer_pkts=settings.receive_buffer_pkts,
            send_buffer_pkts=settings.send_buffer_pkts,
            max_connections=settings.max_connections,
            max_handshakes=settings.max_handshakes,
            max_overhead_percent=settings.max_overhead_percent,
            max_buffer_bytes=settings.max_buffer_bytes,
            ack_interval_us=settings.ack_interval_ms * 1000,
            source_interval_us=settings.play_interval_ms * 1000,
            pbkeylen=settings.pbkeylen,
            crypto_mode=settings.crypto_mode,
            km_refresh_rate_pkts=settings.km_refresh_rate_pkts,
            km_preannounce_pkts=settings.km_preannounce_pkts,
            max_key_exchanges=settings.max_key_exchanges,
        )
        self._driver: Any = None
        self._draining = False
        self._connections: dict[int, _Publisher | _Player] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self._players: dict[tuple[int, int], int] = {}  # (slot, generation): players of this worker

    def start(self) -> None:
        """Begins to take callers in."""
        settings = self._config.srt
        self._driver = SrtDriver(
            self._sock,
            self.context.reactor,
            self._endpoint,
            self._on_events,
            self.context.counters.values,
            poll_interval_us=settings.poll_interval_us,
            calm_interval_us=calm_interval_us(self._config),
            buffer_bytes=settings.socket_buffer_bytes,
        )
        udp = self._driver.socket
        log.info(
            "srt_listening",
            address=peer_name(*self._sock.getsockname()[:2]),
            gso=udp.gso,
            gro=udp.gro,
            receive_buffer_bytes=udp.receive_buffer_bytes,
            send_buffer_bytes=udp.send_buffer_bytes,
        )
        if udp.receive_buffer_bytes < settings.socket_buffer_bytes:
            log.warning(
                "srt_socket_buffer_short",
                wanted_bytes=settings.socket_buffer_bytes,
                granted_bytes=udp.receive_buffer_bytes,
                cure="raise the sysctl net.core.rmem_max, or lower srt.socket_buffer_bytes",
            )

    def stop_accepting(self) -> None:
        """New callers are rejected as by a server that goes down; connections go on."""
        self._draining = True
        for id in list(self._waiting):
            self._waiting.pop(id).cancel()
            self._reject(id, K_DOWN)
        if self._driver is not None:
            self._driver.turn()

    def reconfigure(self, config: Config) -> None:
        """Takes over waiting time, polling interval, and passphrases for those who come."""
        self._config = config
        if self._driver is not None:
            self._driver.poll_interval_us = config.srt.poll_interval_us
            self._driver.calm_interval_us = calm_interval_us(config)

    async def close(self) -> None:
        """Ends all connections with a SHUTDOWN, which goes out before this returns."""
        if self._driver is None:
            return
        self.stop_accepting()
        for id in self._connections:
            self._endpoint.close(id, _now_us())
        self._driver.turn()
        self._driver.close()
        for id in list(self._connections):
            self._end(id, "stopped")

    # What the endpoint tells.

    def _on_events(self) -> None:
        """Answers what has happened, then sends the answers in one turn."""
        for _ in range(K_EVENTS_A_TURN):
            event = self._endpoint.next_event()
            if event is None:
                break
            kind, id, *facts = event
            if kind == "request":
                self._on_request(id, *facts)
            elif kind == "closed":
                self._on_closed(id, facts[0])
        self._driver.turn()

    def _on_request(self, id: int, address: tuple[str, int], text: str, facts: dict[str, Any]) -> None:
        peer = peer_name(*address)
        self.context.counters.add("flux_srt_service_requests_total")
        if self._draining:
            self._reject(id, K_DOWN, peer, "draining")
            return
        try:
            wanted = parse(text)
            if not self._secure(id, peer, wanted, text):
                return
            if wanted.mode == "publish":
                self._publish(id, peer, wanted)
            else:
                self._play(id, peer, wanted)
        except StreamIdError as error:
            self._reject(id, error.code, peer, str(error), text)
        except StreamTakenError as error:
            self._reject(id, K_CONFLICT, peer, str(error), text)
        except LimitError as error:
            self._reject(id, K_OVERLOAD, peer, str(error), text)
        except Exception:
            log.exception("srt_request_failed", peer=peer, stream_id=ascii(text[:100]))
            self._end(id, "failed")
            self._reject(id, K_INTERNAL_ERROR)

    def _on_closed(self, id: int, reason: str) -> None:
        task = self._waiting.pop(id, None)
        if task is not None:
            task.cancel()
        self._end(id, reason)

    def _secure(self, id: int, peer: str, wanted: StreamId, text: str) -> bool:
        """Exchanges keys, if the stream has a passphrase; False: the secrets don't fit, it is rejected."""
        settings = self._config.srt
        code = self._endpoint.secure(
            id,
            _now_us(),
            passphrase_of(settings, wanted.name),
            enforced_encryption=settings.enforced_encryption,
        )
        if code:
            log.info(
                "srt_refused", peer=peer, code=code, reason=explain(code)[0], stream_id=ascii(text[:100])
            )
        return not code

    # Publishers and players.

    def _publish(self, id: int, peer: str, wanted: StreamId) -> None:
        publication = self.context.streams.publish(
            wanted.name, "srt", peer, lambda reason: self._close_now(id, reason), lambda: self._figures(id)
        )
        self._connections[id] = _Publisher(publication)
        self._endpoint.attach_sink(id, publication.sink)
        self._accept(id)

    def _play(self, id: int, peer: str, wanted: StreamId) -> None:
        ref = self.context.streams.find(wanted.name)
        if ref is not None:
            self._begin_player(id, peer, ref)
        else:
            self._waiting[id] = asyncio.create_task(self._wait(id, peer, wanted))

    async def _wait(self, id: int, peer: str, wanted: StreamId) -> None:
        """Holds a caller until its stream is there, for less time than it takes a caller to give up."""
        srt = self._config.srt
        wait_ms = min(self._config.streams.wait_ms, max(srt.handshake_timeout_ms - K_ANSWER_MS, 0))
        try:
            ref = await self.context.streams.wait(wanted.name, wait_ms)
            del self._waiting[id]
            self._begin_player(id, peer, ref)
        except StreamNotFoundError as error:
            self._refuse_waiting(id, K_NOT_FOUND, peer, str(error))
        except LimitError as error:
            self._refuse_waiting(id, K_OVERLOAD, peer, str(error))
        except Exception:
            log.exception("srt_request_failed", peer=peer, stream=wanted.name)
            self._end(id, "failed")
            self._refuse_waiting(id, K_INTERNAL_ERROR, peer, "failed")
        self._driver.turn()

    def _refuse_waiting(self, id: int, code: int, peer: str, reason: str) -> None:
        self._waiting.pop(id, None)
        self._reject(id, code, peer, reason)

    def _begin_player(self, id: int, peer: str, ref: StreamRef) -> None:
        try:
            ring = Ring(self.context.arena, ref.slot, K_RING_TS)
        except ValueError:
            self._reject(id, K_NOT_FOUND, peer, "the stream ended meanwhile", ref.name)
            return
        session = self.context.sessions.begin(
            ref.name, "srt", READ, peer, lambda reason: self._close_now(id, reason), lambda: self._figures(id)
        )
        self._connections[id] = _Player(self, session, ref)
        self._player_comes(ref.slot, ref.generation)
        self._endpoint.attach_source(id, ring)
        self._accept(id)

    def _player_comes(self, slot: int, generation: int) -> None:
        key = (slot, generation)
        self._players[key] = self._players.get(key, 0) + 1
        self.context.arena.want(slot, K_RING_TS, True)
        self.context.arena.add_viewers(slot, 1)

    def player_gone(self, slot: int, generation: int) -> None:
        """A player of that stream is gone; nothing is taken from another stream that has the slot by now."""
        key = (slot, generation)
        left = self._players.pop(key) - 1
        if left:
            self._players[key] = left
        if self.context.arena.generation(slot) == generation:
            self.context.arena.add_viewers(slot, -1)
            if not left:
                self.context.arena.want(slot, K_RING_TS, False)

    def _accept(self, id: int) -> None:
        """The caller may have given up meanwhile; its "closed" was read, or comes next."""
        if not self._endpoint.accept(id, _now_us()):
            self._end(id, "gone before it was answered")

    def _figures(self, id: int) -> dict[str, Any]:
        """Of a session, as Session.figures: what arrived for a publisher, what was sent for a player."""
        is_player = isinstance(self._connections.get(id), _Player)
        return (player_figures if is_player else publisher_figures)(self._endpoint.stats(id))

    # Ends.

    def _close_now(self, id: int, reason: str) -> None:
        """The turn also flushes the sink, which must not be fed once its publication has ended."""
        self._endpoint.close(id, _now_us())
        self._driver.turn()
        self._end(id, reason)

    def _end(self, id: int, reason: str) -> None:
        connection = self._connections.get(id)
        if connection is not None:
            connection.end(reason, self._figures(id))
            del self._connections[id]

    def _reject(self, id: int, code: int, peer: str = "", reason: str = "", stream_id: str = "") -> None:
        self.context.counters.add(_COUNTERS[code])
        if reason:
            log.info("srt_refused", peer=peer, code=code, reason=reason, stream_id=ascii(stream_id[:100]))
        self._endpoint.reject(id, code, _now_us())
