"""An endpoint under fire: random, cut, flipped, replayed and half-true datagrams. It counts and stays."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from typing import Any

import pytest
from flux.cext.ring import Ring
from flux.cext.srt import handshake, packet
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink

from tests.cext.arenas import small_arena
from tests.cext.srt.peer import START_US, Peer, assert_adds_up, count, words

SHORT_RUN = 100_000
LONG_RUN = 3_000_000
SETTINGS: dict[str, Any] = {
    "max_connections": 40,
    "max_handshakes": 8,
    "receive_buffer_pkts": 256,
    "send_buffer_pkts": 256,
    "max_buffer_bytes": 4 << 20,
    "peer_idle_timeout_ms": 2000,
    "handshake_timeout_ms": 1000,
}
# What a run must have come to, lest it was all turned away at the door.
REACHED = [
    "accepted",
    "control_pkts",
    "data_pkts",
    "delivered_pkts",
    "dropreqs_sent",
    "naks_sent",
    "refused_ack",
    "refused_ackack",
    "refused_beyond",
    "refused_cookie",
    "refused_data",
    "refused_dropreq",
    "refused_duplicate",
    "refused_encrypted",
    "refused_late",
    "refused_nak",
    "refused_not_open",
    "refused_unwanted",
    "refused_wrong_peer",
    "rejected_rogue",
    "retransmitted_pkts",
    "sent_pkts",
    "skipped_pkts",
    "timestamps_ahead",
]


class Attacker:
    """Knows everything: ids, addresses, cookies, and what a valid packet looks like at the moment."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.arena = small_arena()
        self.slot, _ = self.arena.claim("live/cam1", 1)
        self.arena.go_live(self.slot, 1)
        self.ring = Ring(self.arena, self.slot, 1)
        self.ring.append(bytes(1880), flags=1)
        self.endpoint = Endpoint(secret=bytes(16), **SETTINGS)
        self.peers: list[Peer] = []
        self.now_us = START_US
        self.replays: list[tuple[tuple[str, int], bytes]] = []
        self.kinds: list[Callable[[Peer], bytes]] = [
            self.noise,
            self.header_and_noise,
            self.data,
            self.ack,
            self.nak,
            self.ackack,
            self.dropreq,
            self.greeting,
            self.plain,
        ]

    def word(self) -> int:
        """Numbers where mistakes live: near the ends, near what is valid, and anywhere."""
        r = self.rng
        return r.choice(
            [
                0,
                1,
                0x7FFFFFFF,
                0x80000000,
                0xFFFFFFFF,
                r.randrange(1 << 32),
                r.randrange(2000),
                1000 + r.randrange(64),
            ]
        )

    def noise(self, peer: Peer) -> bytes:
        return self.rng.randbytes(self.rng.choice([0, 3, 15, 16, 17, 64, 200, 1472, 1473, 2000]))

    def header_and_noise(self, peer: Peer) -> bytes:
        return packet.encode_control(
            self.rng.choice([*range(10), 0x7FFF]),
            self.word(),
            self.rng.choice([peer.id, 0, self.word()]),
            self.rng.randbytes(self.rng.randrange(80)),
            info=self.word(),
        )

    def data(self, peer: Peer) -> bytes:
        return packet.encode_data(
            self.rng.choice([packet.sequence_at(peer.isn, self.rng.randrange(-10, 400)), self.word()]),
            self.word(),
            self.rng.choice([peer.timestamp(), self.word()]),
            peer.id,
            bytes(self.rng.choice([0, 1, 188, 1316, 1456])),
            retransmitted=self.rng.random() < 0.3,
            position=3 if self.rng.random() < 0.9 else self.rng.randrange(4),
        )

    def ack(self, peer: Peer) -> bytes:
        body = words(
            packet.sequence_at(peer.isn, self.rng.randrange(-5, 60)), *(self.word() for _ in range(6))
        )
        return packet.encode_control(2, 0, peer.id, body[: self.rng.choice([4, 16, 28, 3])], info=self.word())

    def nak(self, peer: Peer) -> bytes:
        entries = []
        for _ in range(self.rng.randrange(1, 60)):
            first = packet.sequence_at(peer.isn, self.rng.randrange(-5, 60))
            last = packet.sequence_at(first, self.rng.randrange(-2, 20))
            entries += self.rng.choice([[first], [first | 0x80000000, last], [self.word()]])
        return packet.encode_control(3, 0, peer.id, words(*entries))

    def ackack(self, peer: Peer) -> bytes:
        return packet.encode_control(6, self.word(), peer.id, info=self.rng.randrange(20))

    def dropreq(self, peer: Peer) -> bytes:
        first = packet.sequence_at(peer.isn, self.rng.randrange(-10, 300))
        body = words(first, packet.sequence_at(first, self.rng.randrange(-3, 100)))
        return packet.encode_control(7, 0, peer.id, body)

    def greeting(self, peer: Peer) -> bytes:
        r = self.rng
        body = handshake.encode(
            version=r.choice([4, 5, 5, 5, 6]),
            extension=r.choice([0, 1, 2, 5, 0x4A17]),
            isn=r.choice([peer.isn, self.word()]),
            mss=r.choice([1500, 1500, self.word()]),
            flow_window_pkts=r.choice([8192, 8192, self.word()]),
            kind=r.choice([1, 0xFFFFFFFF, 0xFFFFFFFF, 0, 1002, self.word()]),
            socket_id=r.choice([peer.socket_id, self.word()]),
            cookie=r.choice([peer.cookie, peer.cookie, 0, self.word()]),
            hs_extension=r.choice([0, 1, 1, 1, 2]),
            srt_version=r.choice([0x010500, self.word()]),
            flags=r.choice([0x3F, self.word()]),
            receiver_delay_ms=r.randrange(65536),
            stream_id=r.randbytes(r.choice([0, 5, 512])),
        )
        body += r.choice([b"", b"", r.randbytes(r.randrange(40)), words(0x00030004, 1, 2, 3, 4)])
        return packet.encode_control(0, self.word(), r.choice([0, 0, 0, peer.id]), body)

    def plain(self, peer: Peer) -> bytes:
        kind = self.rng.choices([1, 4, 5, 8], [60, 20, 1, 20])[0]
        return packet.encode_control(kind, 0, peer.id)

    def spoil(self, data: bytes) -> bytes:
        """Sometimes flips bits, cuts, or lengthens."""
        r = self.rng
        if not data or r.random() < 0.6:
            return data
        what = r.randrange(3)
        if what == 0:
            spoilt = bytearray(data)
            for _ in range(r.randrange(1, 6)):
                spoilt[r.randrange(len(spoilt))] ^= 1 << r.randrange(8)
            return bytes(spoilt)
        if what == 1:
            return data[: r.randrange(len(data))]
        return data + r.randbytes(r.randrange(30))

    def shot(self) -> None:
        r = self.rng
        if self.replays and r.random() < 0.1:
            address, data = r.choice(self.replays)
        else:
            peer = r.choice(self.peers)
            peer.now_us = self.now_us
            address, data = peer.address, self.spoil(r.choice(self.kinds)(peer))
            if r.random() < 0.05:
                address = (address[0], r.randrange(1, 65536))
            if r.random() < 0.05:
                self.replays = [*self.replays[-200:], (address, data)]
        self.endpoint.receive(address, data, self.now_us)

    def turn(self) -> None:
        """What a driver does after a batch, and a service that accepts most."""
        r = self.rng
        endpoint = self.endpoint
        self.now_us += r.choice([0, 100, 2_000, 20_000])
        due = endpoint.next_timeout()
        if due is not None and due <= self.now_us:
            endpoint.handle_timeout(self.now_us)
            assert endpoint.next_timeout() is None or endpoint.next_timeout() > self.now_us
        endpoint.flush(self.now_us)
        while (event := endpoint.next_event()) is not None:
            if event[0] == "request":
                self.decide(event)
        for address, data in endpoint.poll_transmit(self.now_us):
            assert 16 <= len(data) <= 1472
            if data[:4] == b"\x80\0\0\0" and len(data) == 64:
                for peer in self.peers:
                    if peer.address == address:
                        peer.cookie = handshake.decode(data[16:])["cookie"]

    def decide(self, event: tuple[Any, ...]) -> None:
        id = event[1]
        choice = self.rng.random()
        if choice < 0.1:
            self.endpoint.reject(id, 1404, self.now_us)
        elif choice < 0.5:
            self.endpoint.attach_sink(id, CollectingSink(1 << 20))
            self.endpoint.accept(id, self.now_us)
        elif choice < 0.8:
            self.endpoint.attach_source(id, Ring(self.arena, self.slot, 1))
            self.endpoint.accept(id, self.now_us)
        for peer in self.peers:
            if peer.address == event[2]:
                peer.id = id

    def run(self, datagrams: int) -> None:
        self.peers = [Peer(self.endpoint, port=4000 + n, now_us=self.now_us) for n in range(12)]
        for n in range(datagrams):
            self.shot()
            if n % 7 == 0:
                self.turn()
            if n % 50 == 0:
                self.ring.append(bytes(188 * self.rng.randrange(1, 30)), flags=self.rng.choice([0, 0, 1]))
            if n % 100 == 0:
                peer = self.rng.choice(self.peers)
                self.endpoint.send(peer.id, bytes(self.rng.randrange(1, 140)), self.now_us)
            if n % 60 == 0:
                self.behave(self.rng.choice(self.peers))

    def behave(self, peer: Peer) -> None:
        """Somebody who does all as he should gets as far as the decision, if there is room."""
        self.endpoint.poll_transmit(self.now_us)
        peer.now_us = peer.start_us = self.now_us
        peer.isn = self.rng.choice([1000, 0x7FFFFFFF, 0, 0x7FFFFF80])
        peer.socket_id = self.rng.randrange(1, 1 << 30)
        peer.induct()
        peer.conclude()

    def assert_bounded(self) -> None:
        memory = self.endpoint.memory
        assert memory["connections"] <= SETTINGS["max_connections"] + 2 * SETTINGS["max_handshakes"]
        assert memory["blocks"] <= SETTINGS["max_buffer_bytes"] // 65536
        assert self.endpoint.handshakes <= SETTINGS["max_handshakes"]

    def settle(self) -> None:
        """Everybody falls silent."""
        for _ in range(400):
            self.now_us += 20_000
            self.endpoint.handle_timeout(self.now_us)
            self.turn()


def fire(seed: int, datagrams: int) -> None:
    attacker = Attacker(seed)
    attacker.run(datagrams)
    attacker.assert_bounded()
    endpoint = attacker.endpoint
    assert count(endpoint, "datagrams") >= datagrams
    assert_adds_up(endpoint)
    for name in (
        "accepted",
        "data_pkts",
        "control_pkts",
        "refused_duplicate",
        "refused_nak",
        "refused_ack",
        "sent_pkts",
    ):
        assert count(endpoint, name) > 0, name
    attacker.settle()
    assert endpoint.memory["connections"] == endpoint.connections == endpoint.handshakes == 0
    assert endpoint.memory["chunks"] == 0
    assert endpoint.next_timeout() is None
    attacker.arena.close()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_comes_does_harm(seed: int) -> None:
    fire(seed, SHORT_RUN // 4)


def test_memory_does_not_grow() -> None:
    attacker = Attacker(99)
    attacker.run(10_000)
    attacker.settle()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attacker.run(30_000)
    attacker.settle()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 2048
    attacker.arena.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 104))
def test_nothing_that_comes_in_the_long_run_does_harm(seed: int) -> None:
    fire(seed, LONG_RUN // 4)
