"""Sessions: every publisher and player of a worker, with an id by which it is listed and kicked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import structlog

from flux.observe.counters import Counters
from flux.observe.rates import Rate

log = structlog.get_logger("flux.worker")

PUBLISH = "publish"
READ = "read"


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(slots=True, eq=False)
class Session:
    """One publisher or player.

    protocol: "srt", "http-flv", "ws-flv", "http-ts", "ws-ts", "hls", "demo". role: PUBLISH or READ.
    peer: "ip:port". close(reason): asks it to end; it then calls SessionTable.end.
    figures(): what it measures at present, such as bytes, rtt_ms, lag_bytes, dropped_pkts.
    """

    id: str
    serial: int
    stream: str
    protocol: str
    role: str
    peer: str
    worker: int
    close: Callable[[str], None]
    figures: Callable[[], dict[str, Any]] = _nothing
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    rate: Rate = field(default_factory=Rate)

    def describe(self) -> dict[str, Any]:
        """As the control socket and the API show it; since: ISO 8601; bytes: media bytes so far."""
        return {
            "id": self.id,
            "stream": self.stream,
            "protocol": self.protocol,
            "role": self.role,
            "peer": self.peer,
            "worker": self.worker,
            "since": self.since.isoformat(timespec="milliseconds"),
            "bytes": 0,
            **self.figures(),
        }

    def sample(self, now_s: float) -> dict[str, Any]:
        """describe(), and bitrate_bps over the latest times that it was asked for."""
        facts = self.describe()
        self.rate.sample(now_s, facts["bytes"])
        if "bitrate_bps" not in facts and self.rate.per_second is not None:
            facts["bitrate_bps"] = round(8 * self.rate.per_second)
        return facts


class SessionTable:
    """The sessions of one worker in the order in which they came. number: its place in the arena."""

    def __init__(self, number: int, counters: Counters) -> None:
        self._number = number
        self._counters = counters
        self._sessions: dict[int, Session] = {}
        # Goes on where this worker's predecessor ended: an id never means another session.
        self._serial = counters.get("flux_worker_sessions_total")

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(
        self,
        stream: str,
        protocol: str,
        role: str,
        peer: str,
        close: Callable[[str], None],
        figures: Callable[[], dict[str, Any]] = _nothing,
    ) -> Session:
        """A new session, listed until end() is called with it."""
        self._serial += 1
        session = Session(
            id=f"w{self._number}-{self._serial:06d}",
            serial=self._serial,
            stream=stream,
            protocol=protocol,
            role=role,
            peer=peer,
            worker=self._number,
            close=close,
            figures=figures,
        )
        self._sessions[session.serial] = session
        self._counters.add("flux_worker_sessions_total")
        self._counters.set("flux_worker_sessions", len(self._sessions))
        log.info(
            "publisher_started" if role == PUBLISH else "player_started",
            session=session.id,
            stream=stream,
            protocol=protocol,
            peer=peer,
        )
        return session

    def end(self, session: Session, reason: str, sent_bytes: int | None = None, **facts: Any) -> None:
        """Takes a session off the list and logs why it ended. Does nothing the second time."""
        if self._sessions.pop(session.serial, None) is None:
            return
        self._counters.set("flux_worker_sessions", len(self._sessions))
        lasted = datetime.now(UTC) - session.since
        if sent_bytes is not None:
            facts = {"bytes": sent_bytes, **facts}
        log.info(
            "publisher_stopped" if session.role == PUBLISH else "player_stopped",
            session=session.id,
            stream=session.stream,
            protocol=session.protocol,
            peer=session.peer,
            reason=reason,
            seconds=round(lasted.total_seconds(), 1),
            **facts,
        )

    def count_but(self, protocol: str) -> int:
        """How many sessions there are of other protocols than that."""
        return sum(session.protocol != protocol for session in self._sessions.values())

    def get(self, serial: int) -> Session | None:
        """The session of that number, or None."""
        return self._sessions.get(serial)

    def page(self, after: int = 0, limit: int = 100, stream: str = "") -> tuple[list[dict[str, Any]], int]:
        """Descriptions of the first `limit` sessions whose serial is over `after`; of one stream, if given.

        And the serial to go on after; 0 when these were the last. Whoever comes or goes between two pages
        moves nobody from one to the other.
        """
        later = (
            session
            for session in self._sessions.values()
            if session.serial > after and stream in ("", session.stream)
        )
        chosen = list(islice(later, limit))
        now_s = time.monotonic()
        return [session.sample(now_s) for session in chosen], chosen[-1].serial if len(chosen) == limit else 0

    def kick(self, session_id: str) -> bool:
        """Ends the session of that id; False when there is none."""
        prefix, _, serial = session_id.partition("-")
        if prefix != f"w{self._number}" or not serial.isdigit():
            return False
        session = self._sessions.get(int(serial))
        if session is None:
            return False
        self._counters.add("flux_worker_kicked_total")
        session.close("kicked")
        return True

    def kick_stream(self, stream: str) -> int:
        """Ends the publisher and all players of a stream; gives how many there were."""
        kicked = [session for session in self._sessions.values() if session.stream == stream]
        for session in kicked:
            self._counters.add("flux_worker_kicked_total")
            session.close("kicked")
        return len(kicked)

    def close_all(self, reason: str) -> None:
        """Asks every session to end."""
        for session in list(self._sessions.values()):
            session.close(reason)
