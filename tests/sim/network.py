"""A network that exists only in numbers: two SRT endpoints, two links, a clock that jumps to the next event.

Everything that happens follows from the seed, so a run that fails fails again. A link loses, delays,
jitters, duplicates and throttles; an endpoint may have a clock of its own that starts elsewhere and runs
faster or slower.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flux.cext.counters import NAMES
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink

_NUMBERS = {name: number for number, (name, _) in NAMES.items()}

Address = tuple[str, int]
CALLER: Address = ("10.0.0.1", 5000)
LISTENER: Address = ("10.0.0.2", 8890)


@dataclass
class Conditions:
    """What one direction of the path does to datagrams. lose(now_us, data) decides instead of `loss`."""

    loss: float = 0.0
    delay_us: int = 10_000
    jitter_us: int = 0
    duplicate: float = 0.0
    bandwidth_bps: float = 0.0  # 0: without bound
    queue_us: int = 200_000  # of the bottleneck; what would wait longer is dropped
    lose: Callable[[int, bytes], bool] | None = None


class Link:
    """One direction. Jitter reorders, since each datagram draws its own."""

    def __init__(self, conditions: Conditions, rng: random.Random) -> None:
        self.conditions = conditions
        self.sent = 0
        self.lost = 0
        self.sent_bytes = 0
        self._rng = rng
        self._free_us = 0.0

    def arrivals(self, now_us: int, data: bytes) -> list[int]:
        """When copies of a datagram sent now will arrive; none: it is lost."""
        c = self.conditions
        self.sent += 1
        self.sent_bytes += len(data)
        if c.lose(now_us, data) if c.lose else self._rng.random() < c.loss:
            self.lost += 1
            return []
        leaves = float(now_us)
        if c.bandwidth_bps:
            leaves = max(leaves, self._free_us)
            if leaves - now_us > c.queue_us:
                self.lost += 1
                return []
            leaves += (len(data) + 28) * 8e6 / c.bandwidth_bps
            self._free_us = leaves
        copies = 2 if self._rng.random() < c.duplicate else 1
        return [int(leaves) + c.delay_us + self._rng.randint(0, c.jitter_us) for _ in range(copies)]


@dataclass
class Node:
    """An endpoint with its clock: local = offset + true * rate."""

    address: Address
    endpoint: Endpoint
    offset_us: int = 0
    rate: float = 1.0
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def local(self, true_us: int) -> int:
        return self.offset_us + int(true_us * self.rate)

    def true(self, local_us: int) -> int:
        us = int((local_us - self.offset_us) / self.rate)
        while self.local(us) < local_us:
            us += 1
        return us

    def count(self, name: str) -> int:
        """A counter, by its metric's name without flux_srt_ and _total."""
        number = _NUMBERS.get(f"flux_srt_{name}_total", _NUMBERS.get(f"flux_srt_{name}", -1))
        return int(self.endpoint.counters[number])


class Network:
    """Two nodes. Times are true µs; run() goes on for a time, until() to a condition."""

    def __init__(
        self,
        seed: int = 1,
        *,
        there: Conditions | None = None,
        back: Conditions | None = None,
        caller: dict[str, Any] | None = None,
        listener: dict[str, Any] | None = None,
        listener_offset_us: int = 7_000_000_000,
        listener_rate: float = 1.0,
    ) -> None:
        rng = random.Random(seed)
        self.rng = rng
        self.now_us = 1_000_000
        self.caller = Node(CALLER, Endpoint(1, secret=rng.randbytes(16), **(caller or {})))
        self.listener = Node(
            LISTENER,
            Endpoint(2, secret=rng.randbytes(16), **(listener or {})),
            listener_offset_us,
            listener_rate,
        )
        self.links = {
            CALLER: Link(there or Conditions(), rng),
            LISTENER: Link(back or there or Conditions(), rng),
        }
        self.on_turn: list[Callable[[int], None]] = []
        self._nodes = {CALLER: self.caller, LISTENER: self.listener}
        self._air: list[tuple[int, int, Address, Address, bytes]] = []
        self._tasks: list[tuple[int, int, Callable[[int], None]]] = []
        self._serial = 0

    def at(self, when_us: int, task: Callable[[int], None]) -> None:
        """Calls task(now_us) at a time."""
        self._serial += 1
        heapq.heappush(self._tasks, (when_us, self._serial, task))

    def every(self, interval_us: int, task: Callable[[int], None], *, until_us: int) -> None:
        """Calls task(now_us) again and again, from now until a time."""

        def turn(now_us: int) -> None:
            task(now_us)
            if now_us + interval_us < until_us:
                self.at(now_us + interval_us, turn)

        self.at(self.now_us, turn)

    def _next(self) -> int | None:
        times = [queue[0][0] for queue in (self._air, self._tasks) if queue]
        for node in self._nodes.values():
            due = node.endpoint.next_timeout()
            if due is not None:
                times.append(node.true(due))
        return max(min(times), self.now_us) if times else None

    def step(self, until_us: int) -> bool:
        """Goes to the next event and through it; False when there is none before `until_us`."""
        at = self._next()
        if at is None or at > until_us:
            self.now_us = until_us
            return False
        self.now_us = at
        while self._tasks and self._tasks[0][0] <= at:
            heapq.heappop(self._tasks)[2](at)
        while self._air and self._air[0][0] <= at:
            _, _, source, target, data = heapq.heappop(self._air)
            node = self._nodes[target]
            node.endpoint.receive(source, data, node.local(at))
        for node in self._nodes.values():
            endpoint, local = node.endpoint, node.local(at)
            due = endpoint.next_timeout()
            if due is not None and due <= local:
                endpoint.handle_timeout(local)
            endpoint.flush(local)
            while (event := endpoint.next_event()) is not None:
                node.events.append(event)
            for target, data in endpoint.poll_transmit(local):
                if target not in self._nodes:
                    continue
                for arrival in self.links[node.address].arrivals(at, data):
                    self._serial += 1
                    heapq.heappush(self._air, (arrival, self._serial, node.address, target, data))
        for callback in self.on_turn:
            callback(at)
        return True

    def run(self, duration_us: int) -> None:
        """Lets time pass."""
        end = self.now_us + duration_us
        while self.step(end):
            pass

    def until(self, condition: Callable[[], bool], within_us: int = 60_000_000) -> None:
        """Lets time pass until something holds."""
        end = self.now_us + within_us
        while not condition():
            assert self.step(end), "it did not come about"

    def connect(self, stream_id: str = "publish:live/cam1", **settings: Any) -> tuple[int, int]:
        """Opens a connection: (caller's id, listener's id)."""
        id = self.caller.endpoint.connect(LISTENER, stream_id, self.caller.local(self.now_us), **settings)
        self.until(lambda: bool(self.listener.events))
        kind, other, address, text, _facts = self.listener.events.pop(0)
        assert (kind, address, text) == ("request", CALLER, stream_id)
        assert self.listener.endpoint.accept(other, self.listener.local(self.now_us))
        self.until(lambda: bool(self.caller.events))
        assert self.caller.events.pop(0)[:2] == ("connected", id)
        return id, other


class Flow:
    """Numbered packets from one node to the other, and what became of them.

    packet n: 8 bytes of its number, 8 bytes of its time, then filling.
    """

    def __init__(self, network: Network, source: Node, source_id: int, target: Node, target_id: int) -> None:
        self.network = network
        self.source = source
        self.source_id = source_id
        self.sent = 0
        self.refused = 0
        self.bytes = 1316
        self.arrived: list[int] = []
        self.latencies_us: list[int] = []
        self._sink = CollectingSink()
        target.endpoint.attach_sink(target_id, self._sink)
        network.on_turn.append(self._collect)

    def send(self, now_us: int) -> None:
        data = self.sent.to_bytes(8, "big") + now_us.to_bytes(8, "big") + bytes(self.bytes - 16)
        if self.source.endpoint.send(self.source_id, data, self.source.local(now_us)):
            self.sent += 1
        else:
            self.refused += 1

    def feed(self, pkts_per_s: float, duration_us: int) -> None:
        """Sends at a rate, for a time from now."""
        self.network.every(int(1e6 / pkts_per_s), self.send, until_us=self.network.now_us + duration_us)

    def _collect(self, now_us: int) -> None:
        if not len(self._sink):
            return
        data = self._sink.take()
        for at in range(0, len(data), self.bytes):
            self.arrived.append(int.from_bytes(data[at : at + 8], "big"))
            self.latencies_us.append(now_us - int.from_bytes(data[at + 8 : at + 16], "big"))

    @property
    def missing(self) -> int:
        return self.sent - len(self.arrived)

    def assert_in_order(self) -> None:
        assert all(a < b for a, b in zip(self.arrived, self.arrived[1:], strict=False))


def publish(network: Network, **settings: Any) -> Flow:
    """A connection with a flow from the caller to the listener."""
    caller_id, listener_id = network.connect(**settings)
    flow = Flow(network, network.caller, caller_id, network.listener, listener_id)
    flow.target_id = listener_id  # type: ignore[attr-defined]
    return flow
