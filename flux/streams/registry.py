"""The streams that a worker's protocols publish into and play from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import structlog

from flux.cext.arena import ArenaFull, NameTaken
from flux.config.schema import Config
from flux.errors import LimitError, StreamNotFoundError, StreamTakenError
from flux.observe.counters import Counters
from flux.streams.names import check_name
from flux.streams.session import PUBLISH, Session, SessionTable

log = structlog.get_logger("flux.worker")

K_LOOK_S = 0.02  # between two looks for the streams that players wait for
K_HLS_SEGMENTS = 60  # a stream keeps at most
K_LOOKS_A_TURN = 1000  # names looked up at once; the others have their turn in the next

_PROTOCOLS = {
    "srt": 1,
    "rtsp": 2,
    "rtmp": 3,
    "webrtc": 4,
    "gb28181": 5,
    "demo": 6,
}  # arena.pxd, stream_slot.protocol


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class StreamRef(NamedTuple):
    """A stream as a player sees it. live: its publisher is there; else its return is waited for."""

    name: str
    slot: int
    generation: int
    live: bool


class Publication:
    """A publisher's hold on a stream. sink: a TsIngest that takes its bytes, with the muxers behind it.

    Whoever feeds `sink` stops doing so before end() is called.
    """

    def __init__(
        self, registry: StreamRegistry, name: str, slot: int, generation: int, sink: Any, pumps: list[Any]
    ) -> None:
        self.name = name
        self.slot = slot
        self.generation = generation
        self.sink = sink
        self.session: Session
        self._registry = registry
        self._pumps = pumps

    def end(self, reason: str, **facts: Any) -> None:
        """The publisher is gone: players are held for the grace time. Does nothing the second time."""
        self._registry._end(self, reason, facts)


class _Waiting:
    """The players that wait for one name."""

    __slots__ = ("players",)

    def __init__(self) -> None:
        self.players: set[asyncio.Future[StreamRef]] = set()


class StreamRegistry:
    """One worker's access to the streams of all. To be used in one event loop."""

    def __init__(self, arena: Any, counters: Counters, sessions: SessionTable, config: Config) -> None:
        self._arena = arena
        self._counters = counters
        self._sessions = sessions
        self._config = config
        self._publications: dict[int, Publication] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._waiters = 0
        self._look_timer: asyncio.TimerHandle | None = None
        self._offers: dict[str, Callable[[], None]] = {}

    def reconfigure(self, config: Config) -> None:
        """Waits and limits hold from now on, linger times for publishers that come."""
        self._config = config

    def publish(
        self,
        name: str,
        protocol: str,
        peer: str,
        close: Callable[[str], None],
        figures: Callable[[], dict[str, Any]],
    ) -> Publication:
        """Takes `name` for a publisher that speaks `protocol`; the other arguments are those of a Session.

        An idle stream of that name is taken over with its rings and players. Raises StreamNameError,
        StreamTakenError and LimitError.
        """
        check_name(name)
        try:
            slot, generation = self._arena.claim(name, _PROTOCOLS[protocol])
        except NameTaken:
            self._counters.add("flux_worker_publishers_refused_total")
            raise StreamTakenError(
                f"{name} has a publisher already", "publish under another name, or kick the other first"
            ) from None
        except ArenaFull:
            self._counters.add("flux_worker_publishers_refused_total")
            raise LimitError(f"all {self._arena.slots} streams are taken", "raise arena.streams") from None
        try:
            sink, pumps = self._make_muxers(slot)
        except BaseException:
            self._arena.go_idle(slot, _now_us())
            raise
        publication = Publication(self, name, slot, generation, sink, pumps)
        publication.session = self._sessions.begin(name, protocol, PUBLISH, peer, close, figures)
        self._publications[slot] = publication
        self._counters.add("flux_worker_publishers_total")
        self._arena.go_live(slot, publication.session.serial)
        self._look_for(name)
        return publication

    def _make_muxers(self, slot: int) -> tuple[Any, list[Any]]:
        from flux.cext.media.flv_pump import FlvPump
        from flux.cext.media.hls_pump import HlsPump
        from flux.cext.media.ts_ingest import TsIngest

        hls = self._config.hls
        values = self._counters.values
        sink = TsIngest(self._arena, slot, values)
        pumps = [
            FlvPump(self._arena, slot, values, linger_us=self._config.streams.format_linger_ms * 1000),
            HlsPump(
                self._arena,
                slot,
                values,
                segment_ticks=hls.segment_ms * 90,
                max_segment_ticks=max(hls.segment_ms, hls.max_segment_ms) * 90,
                linger_us=hls.linger_ms * 1000,
                always=hls.always,
                keep_segments=min(2 * hls.playlist_segments + 2, K_HLS_SEGMENTS),  # RFC 8216, 6.2.2
            ),
        ]
        for pump in pumps:
            sink.add_pump(pump)
        return sink, pumps

    def _end(self, publication: Publication, reason: str, facts: dict[str, Any]) -> None:
        if self._publications.get(publication.slot) is not publication:
            return
        del self._publications[publication.slot]
        now_us = _now_us()
        try:
            publication.sink.close(now_us)
            for pump in publication._pumps:
                pump.close(now_us)
        finally:
            self._arena.go_idle(publication.slot, now_us)
            session = publication.session
            self._sessions.end(session, reason, session.figures().get("bytes"), **facts)

    def end_all(self, reason: str) -> None:
        """Ends every publication of this worker; its streams are idle at once."""
        for publication in list(self._publications.values()):
            publication.end(reason)

    @property
    def viewers(self) -> int:
        """Players, of all workers, of the streams that are published here."""
        return sum(self._arena.slot(slot)["viewers"] for slot in self._publications)

    def find(self, name: str) -> StreamRef | None:
        """The stream of that name, live or idle."""
        found = self._arena.look_up(name)
        return None if found is None else StreamRef(name, *found)

    async def wait(self, name: str, timeout_ms: int) -> StreamRef:
        """The stream of that name, at once or as soon as it is published.

        Raises StreamNotFoundError after `timeout_ms`, StreamNameError, and LimitError when
        streams.max_waiting players of this worker wait already.
        """
        check_name(name)
        found = self.find(name)
        if found is not None:
            return found
        if timeout_ms <= 0:
            raise self._not_found(name)
        if self._waiters >= self._config.streams.max_waiting:
            raise LimitError(
                f"{self._waiters} players wait for a publisher already",
                "come back later, or raise streams.max_waiting",
            )
        self._counters.add("flux_worker_waits_total")
        player: asyncio.Future[StreamRef] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, _Waiting())
        waiting.players.add(player)
        self._waiters += 1
        self._look_again()
        if name in self._offers:
            self._offers[name]()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await player
        except TimeoutError:
            self._counters.add("flux_worker_waits_in_vain_total")
            raise self._not_found(name) from None
        finally:
            self._waiters -= 1
            waiting.players.discard(player)
            if not waiting.players and self._waiting.get(name) is waiting:
                del self._waiting[name]

    def offer(self, name: str, call: Callable[[], None]) -> None:
        """From now on call() is called for each player of this worker that begins to wait for `name`."""
        self._offers[name] = call

    def withdraw(self, name: str, call: Callable[[], None]) -> None:
        """Ends an offer; another one of that name stays."""
        if self._offers.get(name) == call:
            del self._offers[name]

    def is_waited_for(self, name: str) -> bool:
        """Whether a player of this worker waits for `name`."""
        return name in self._waiting

    def _not_found(self, name: str) -> StreamNotFoundError:
        return StreamNotFoundError(
            f"nobody publishes {name}", "publish it first, or look whether the name is right"
        )

    def _look_again(self) -> None:
        if self._look_timer is None and self._waiting:
            self._look_timer = asyncio.get_running_loop().call_later(K_LOOK_S, self._look)

    def _look(self) -> None:
        """Other workers' publishers: one look a name, however many wait for it."""
        self._look_timer = None
        for name in list(islice(self._waiting, K_LOOKS_A_TURN)):
            if not self._look_for(name) and len(self._waiting) > K_LOOKS_A_TURN:
                self._waiting[name] = self._waiting.pop(name)  # to the end of the queue
        self._look_again()

    def _look_for(self, name: str) -> bool:
        if name not in self._waiting:
            return False
        found = self.find(name)
        if found is None:
            return False
        for player in self._waiting.pop(name).players:
            if not player.done():
                player.set_result(found)
        return True


def since_text(since_us: int) -> str:
    """ISO 8601 of a wall clock in µs, as stream_slot.since_us."""
    return datetime.fromtimestamp(since_us / 1e6, UTC).isoformat(timespec="milliseconds")
