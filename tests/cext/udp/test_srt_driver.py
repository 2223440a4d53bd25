"""The driver: two endpoints of ours, and libsrt's tool, over loopback."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from flux.cext.counters import NAMES
from flux.cext.reactor import Reactor
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.socket import UdpSocket
from flux.cext.udp.srt_client import CollectingSink, SendingSink
from flux.cext.udp.srt_driver import SrtDriver

from tests.flux.srt.peers import PACKET, PAYLOAD, LiveTransmit, bound_socket, now_us, numbered, until

NUMBERS = {name: number for number, (name, _) in NAMES.items()}


class Side:
    """An endpoint with its socket and driver; a listener accepts everybody and collects."""

    def __init__(self, reactor: Reactor, host: str = "127.0.0.1", **options: Any) -> None:
        self.sock = bound_socket(host)
        self.address = self.sock.getsockname()[:2]
        self.counters = np.zeros(512, np.uint64)
        self.endpoint = Endpoint(0, self.counters, latency_ms=60)
        self.driver = SrtDriver(
            self.sock,
            reactor,
            self.endpoint,
            self.on_events,
            self.counters,
            **{"buffer_bytes": 4 << 20, **options},
        )
        self.sinks: dict[int, CollectingSink] = {}
        self.connected: list[int] = []
        self.closed: dict[int, str] = {}
        self.stream_ids: list[str] = []

    def on_events(self) -> None:
        while (event := self.endpoint.next_event()) is not None:
            if event[0] == "request":
                self.stream_ids.append(event[3])
                self.sinks[event[1]] = CollectingSink()
                self.endpoint.attach_sink(event[1], self.sinks[event[1]])
                self.endpoint.accept(event[1], now_us())
            elif event[0] == "connected":
                self.connected.append(event[1])
            else:
                self.closed[event[1]] = event[2]
        self.driver.turn()

    def count(self, name: str) -> int:
        return int(self.counters[NUMBERS[f"flux_udp_{name}"]])

    def connect(self, reactor: Reactor, listener: Side, stream_id: str = "publish:x") -> int:
        id = self.endpoint.connect(listener.address, stream_id, now_us(), latency_ms=60)
        self.driver.turn()
        until(reactor, lambda: id in self.connected)
        return id

    def close(self) -> None:
        self.driver.close()
        self.sock.close()


@pytest.mark.parametrize("options", [{}, {"gso": False, "gro": False}, {"poll_interval_us": 0}])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_bytes_arrive(host: str, options: dict[str, Any]) -> None:
    reactor = Reactor()
    near, far = Side(reactor, host, **options), Side(reactor, host, **options)
    try:
        sink = SendingSink(near.endpoint, near.connect(reactor, far))
        assert far.stream_ids == ["publish:x"]
        (collected,) = far.sinks.values()
        data = numbered(7 * 500)
        for at in range(0, len(data), PAYLOAD * 20):
            for start in range(at, at + PAYLOAD * 20, PAYLOAD):
                sink.deliver(data[start : start + PAYLOAD], now_us())
            near.driver.turn()
            reactor.run_once(2000)
        until(reactor, lambda: len(collected) == len(data))
        assert collected.take() == data
        assert sink.refused_pkts == 0
        assert sink.sent_bytes == len(data)
        assert far.count("kernel_drops_total") == 0
    finally:
        near.close()
        far.close()


def test_load_brings_the_tick_and_quiet_ends_it() -> None:
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor, poll_interval_us=2000)
    try:
        sink = SendingSink(near.endpoint, near.connect(reactor, far))
        (collected,) = far.sinks.values()
        sent = 0

        def feed() -> bool:
            nonlocal sent
            sink.deliver(numbered(7, sent), now_us())
            near.driver.turn()
            sent += 7
            return far.driver.ticking

        until(reactor, feed)
        assert far.count("ticking") == 1
        wakes, received = far.count("wakes_total"), far.count("datagrams_in_total")
        until(reactor, lambda: feed() and far.count("datagrams_in_total") > received + 100)
        assert far.count("wakes_total") == wakes
        assert far.count("ticks_total") > 0
        until(reactor, lambda: len(collected) == sent * PACKET)
        until(reactor, lambda: not far.driver.ticking)
        assert far.count("ticking") == 0
        sink.deliver(numbered(7, sent), now_us())
        near.driver.turn()
        until(reactor, lambda: len(collected) == (sent + 7) * PACKET)
        assert far.count("wakes_total") > wakes
        assert collected.take() == numbered(sent + 7)
    finally:
        near.close()
        far.close()


def test_calm_makes_the_tick_longer_and_a_newcomer_shorter() -> None:
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor, calm_interval_us=10_000)
    stranger = UdpSocket(bound_socket())
    try:
        sink = SendingSink(near.endpoint, near.connect(reactor, far))
        (collected,) = far.sinks.values()
        sent, since_us = 0, now_us()

        def feed() -> None:
            """At most 5,000 packets a second: so many are no reason to hurry."""
            nonlocal sent
            if now_us() >= since_us + sent // 7 * 200:
                sink.deliver(numbered(7, sent), now_us())
                near.driver.turn()
                sent += 7

        def feeding_until(tick_us: int) -> None:
            until(reactor, lambda: feed() or far.driver.tick_us == tick_us)

        feeding_until(2000)
        feeding_until(10_000)
        ticks, calm_us = far.count("ticks_total"), now_us()
        until(reactor, lambda: feed() or now_us() - calm_us >= 100_000)
        assert far.count("ticks_total") - ticks <= 12
        feeding_until(10_000)
        stranger.send([(far.address, [bytes(64)])])
        feeding_until(2000)
        until(reactor, lambda: len(collected) == sent * PACKET)
        until(reactor, lambda: far.driver.tick_us == 0)
        assert sink.refused_pkts == 0
        assert collected.take() == numbered(sent)
        assert far.count("kernel_drops_total") == 0
    finally:
        near.close()
        far.close()
        stranger.sock.close()


def test_a_short_receive_buffer_is_read_often() -> None:
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor, calm_interval_us=10_000, buffer_bytes=64 << 10)
    try:
        sink = SendingSink(near.endpoint, near.connect(reactor, far))
        since_us = now_us()
        seen: list[int] = []

        def feed() -> bool:
            for _ in range(20):
                sink.deliver(numbered(7), now_us())
            near.driver.turn()
            if now_us() - since_us >= 1_200_000:
                seen.append(far.driver.tick_us)
            return now_us() - since_us >= 1_500_000

        until(reactor, feed)
        assert seen.count(2000) > len(seen) / 2
    finally:
        near.close()
        far.close()


def test_many_connections_share_one_socket() -> None:
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor)
    try:
        sinks = [SendingSink(near.endpoint, near.connect(reactor, far, f"publish:{n}")) for n in range(20)]
        sends = near.count("sends_total")
        for n in range(10):
            for k, sink in enumerate(sinks):
                sink.deliver(numbered(7, 1000 * k + 7 * n), now_us())
            near.driver.turn()
        until(reactor, lambda: all(len(sink) == 70 * PACKET for sink in far.sinks.values()))
        assert far.stream_ids == [f"publish:{n}" for n in range(20)]
        assert [sink.take() for sink in far.sinks.values()] == [numbered(70, 1000 * k) for k in range(20)]
        assert near.count("sends_total") - sends < 200
    finally:
        near.close()
        far.close()


def test_a_closed_driver_is_silent() -> None:
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor)
    far.driver.close()
    far.driver.close()
    near.endpoint.connect(far.address, "x", now_us())
    near.driver.turn()
    until(reactor, lambda: near.count("datagrams_out_total") >= 2)
    assert far.count("datagrams_in_total") == 0
    assert reactor.timers == 1
    near.close()
    assert reactor.timers == 0
    far.sock.close()


@pytest.mark.parametrize("rounds", [60, pytest.param(6000, marks=pytest.mark.slow)])
def test_rubbish_is_counted_and_newcomers_are_served(rounds: int) -> None:
    """Random and half-right datagrams, from strangers and from a peer's own address."""
    random = Random(7)
    reactor = Reactor()
    near, far = Side(reactor), Side(reactor)
    stranger = UdpSocket(bound_socket())
    try:
        near.connect(reactor, far)
        (id,) = far.sinks
        for _ in range(rounds):
            batches = []
            for _ in range(4):
                size = random.choice((1, 15, 16, 20, 44, 64, 300, 1332, 1472, 1500, 2000))
                batches.append((far.address, [half_right(random, id, size) for _ in range(44)]))
            stranger.send(batches)
            near.driver.socket.send(batches)
            reactor.run_once(0)
        received = lambda: far.count("datagrams_in_total") + far.driver.socket.kernel_drops  # noqa: E731
        until(reactor, lambda: received() >= rounds * 352)
        refused = {
            name: int(far.counters[number])
            for number, (name, _) in NAMES.items()
            if name.startswith(("flux_srt_refused", "flux_srt_malformed")) and far.counters[number]
        }
        assert len(refused) >= 4, refused
        assert sum(refused.values()) > rounds * 100
        after = Side(reactor)
        sink = SendingSink(after.endpoint, after.connect(reactor, far, "publish:after"))
        sink.deliver(numbered(7), now_us())
        after.driver.turn()
        collected = list(far.sinks.values())[-1]
        until(reactor, lambda: len(collected) == PAYLOAD)
        assert collected.take() == numbered(7)
        after.close()
    finally:
        near.close()
        far.close()
        stranger.sock.close()


def half_right(random: Random, id: int, size: int) -> bytes:
    """Random bytes, but for a header that may name a control type and a connection that there are."""
    data = bytearray(random.randbytes(size))
    if size >= 16:
        if random.random() < 0.7:
            data[0:2] = (0x8000 | random.randrange(10)).to_bytes(2, "big")
        if random.random() < 0.7:
            data[12:16] = random.choice((0, id)).to_bytes(4, "big")
        if random.random() < 0.5:
            data[4:12] = bytes(8)
    return bytes(data)


@pytest.mark.interop
def test_libsrt_publishes() -> None:
    reactor = Reactor()
    far = Side(reactor)
    data = numbered(7 * 1000)
    url = f"srt://127.0.0.1:{far.address[1]}?streamid=publish:x&latency=60"
    try:
        with LiveTransmit("file://con", url) as publisher:
            until(reactor, lambda: far.sinks)
            publisher.feed(data)
            (sink,) = far.sinks.values()
            until(reactor, lambda: len(sink) == len(data))
            assert sink.take() == data
            assert far.stream_ids == ["publish:x"]
            publisher.end()
            until(reactor, lambda: far.closed)
            assert list(far.closed.values()) == ["peer_shutdown"]
    finally:
        far.close()
