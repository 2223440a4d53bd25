"""A peer made by hand: it says what a test tells it to say, and takes apart what an endpoint answers."""

from __future__ import annotations

from typing import Any

from flux.cext.counters import NAMES
from flux.cext.srt import handshake, packet
from flux.cext.srt.endpoint import Endpoint

_NUMBERS = {name: number for number, (name, _) in NAMES.items()}

HANDSHAKE, KEEPALIVE, ACK, NAK, CONGESTION, SHUTDOWN, ACKACK, DROPREQ = range(8)
INDUCTION, CONCLUSION = 1, 0xFFFFFFFF
RANGE = 0x80000000
START_US = 50_000_000

# Every datagram adds one to exactly one of these.
OUTCOMES = [name for name in _NUMBERS if name.startswith("flux_srt_refused_")] + [
    "flux_srt_data_pkts_total",
    "flux_srt_control_pkts_total",
    "flux_srt_handshake_pkts_total",
]


def count(endpoint: Endpoint, name: str) -> int:
    """A counter, by its metric's name without flux_srt_ and _total."""
    number = _NUMBERS.get(f"flux_srt_{name}_total", _NUMBERS.get(f"flux_srt_{name}", -1))
    return int(endpoint.counters[number])


def counted(endpoint: Endpoint) -> dict[str, int]:
    """All counters that are not 0."""
    return {
        name.removeprefix("flux_srt_").removesuffix("_total"): int(endpoint.counters[number])
        for name, number in _NUMBERS.items()
        if name.startswith("flux_srt_") and endpoint.counters[number]
    }


def assert_adds_up(endpoint: Endpoint) -> None:
    """Each datagram was counted once as what it was, or by why it was refused."""
    assert sum(int(endpoint.counters[_NUMBERS[name]]) for name in OUTCOMES) == count(endpoint, "datagrams")


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def from_words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


class Peer:
    """A caller at an address. Its clock is the endpoint's, its timestamps count from `start_us`."""

    def __init__(
        self, endpoint: Endpoint, port: int = 4000, *, isn: int = 1000, now_us: int = START_US
    ) -> None:
        self.endpoint = endpoint
        self.address = ("192.0.2.1", port)
        self.isn = isn
        self.socket_id = 0x00ABC000 + port
        self.id = 0
        self.cookie = 0
        self.start_us = now_us
        self.now_us = now_us
        self.said: list[dict[str, Any]] = []

    def say(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        self.endpoint.receive(address or self.address, data, self.now_us)
        self.endpoint.flush(self.now_us)

    def control(self, kind: int, body: bytes = b"", *, info: int = 0) -> None:
        self.say(packet.encode_control(kind, self.timestamp(), self.id, body, info=info))

    def data(
        self,
        offset: int,
        payload: bytes = b"x" * 188,
        *,
        timestamp: int | None = None,
        retransmitted: bool = False,
        **fields: Any,
    ) -> None:
        """Data packet number `offset` after the initial sequence number."""
        when = self.timestamp() if timestamp is None else timestamp
        self.say(
            packet.encode_data(
                packet.sequence_at(self.isn, offset),
                offset + 1,
                when,
                self.id,
                payload,
                retransmitted=retransmitted,
                **fields,
            )
        )

    def timestamp(self) -> int:
        return (self.now_us - self.start_us) & 0xFFFFFFFF

    def pass_time(self, us: int) -> None:
        """Lets time pass at the endpoint, timer by timer, collecting what it says."""
        end = self.now_us + us
        while (due := self.endpoint.next_timeout()) is not None and due <= end:
            self.now_us = max(due, self.now_us)
            self.endpoint.handle_timeout(self.now_us)
            self.endpoint.flush(self.now_us)
            self._listen()
        self.now_us = end
        self._listen()

    def _listen(self) -> None:
        for address, data in self.endpoint.poll_transmit(self.now_us):
            if address == self.address:
                self.said.append({**packet.decode(data), "bytes": len(data), "at_us": self.now_us})

    def hear(self, kind: int | str | None = None) -> list[dict[str, Any]]:
        """What the endpoint has said since the last call: control packets of a type, or "data"."""
        self._listen()
        said, self.said = self.said, []
        return [p for p in said if kind is None or kind in (p["kind"], p.get("type"))]

    def induct(self, **fields: Any) -> dict[str, Any]:
        """Sends an induction; gives the answer's fields."""
        fields = {"version": 4, "extension": 2, "kind": INDUCTION, "socket_id": self.socket_id, **fields}
        body = handshake.encode(isn=self.isn, **fields)
        self.say(packet.encode_control(HANDSHAKE, 0, 0, body))
        answers = self.hear(HANDSHAKE)
        assert len(answers) == 1
        answer = handshake.decode(answers[0]["payload"])
        self.cookie = answer["cookie"]
        return answer

    def conclude(self, extra: bytes = b"", **fields: Any) -> list[dict[str, Any]]:
        """Sends a conclusion; gives the answers' fields."""
        fields = {
            "extension": 1,
            "socket_id": self.socket_id,
            "cookie": self.cookie,
            "hs_extension": 1,
            "isn": self.isn,
            **fields,
        }
        self.say(packet.encode_control(HANDSHAKE, self.timestamp(), 0, handshake.encode(**fields) + extra))
        return [handshake.decode(answer["payload"]) for answer in self.hear(HANDSHAKE)]

    def request(self, **fields: Any) -> tuple[Any, ...]:
        """Goes through the handshake up to the decision: the request's event."""
        self.induct()
        assert self.conclude(**fields) == []
        event = self.endpoint.next_event()
        assert event[0] == "request"
        self.id = event[1]
        return event

    def open(self, **fields: Any) -> dict[str, Any]:
        """Goes through the whole handshake: the conclusion's answer."""
        self.request(**fields)
        assert self.endpoint.accept(self.id, self.now_us)
        answers = self.hear(HANDSHAKE)
        assert len(answers) == 1
        return handshake.decode(answers[0]["payload"])

    def ack(self, offset: int, number: int = 1, *, rtt_us: int = 20_000, room: int = 8192) -> None:
        """A full ACK of all before `offset`."""
        sequence = packet.sequence_at(self.isn, offset)
        self.control(ACK, words(sequence, rtt_us, rtt_us // 4, room, 0, 0, 0), info=number)
