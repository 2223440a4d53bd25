"""The sending half, packet by packet: from send() and from a ring, ACK, NAK, and the caller's handshake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flux.cext.media.ts_ingest import TsIngest
from flux.cext.ring import Ring
from flux.cext.srt import handshake, packet
from flux.cext.srt.endpoint import Endpoint

from tests.cext.arenas import small_arena
from tests.cext.srt.peer import (
    ACK,
    ACKACK,
    CONCLUSION,
    DROPREQ,
    HANDSHAKE,
    KEEPALIVE,
    NAK,
    RANGE,
    START_US,
    Peer,
    assert_adds_up,
    count,
    from_words,
    words,
)

RING_TS = 1
REC_KEY = 1
TABLES = b"\x47T" + bytes(186) + b"\x47P" + bytes(186)
TICK_US = 10_000
BATCH_US = 2 * TICK_US  # a small batch waits for one tick


def ts(first: int, count: int) -> bytes:
    """MPEG-TS packets that carry their number."""
    return b"".join(b"\x47" + n.to_bytes(4, "big") + bytes(183) for n in range(first, first + count))


OPEN_ARENAS: list[Any] = []


@pytest.fixture(autouse=True)
def _close_arenas() -> Iterator[None]:
    yield
    while OPEN_ARENAS:
        OPEN_ARENAS.pop().close()


class Player:
    """A peer that plays from a ring of 64 KiB."""

    def __init__(self, isn: int = 1000, **settings: Any) -> None:
        self.arena = small_arena(wire_ring_bytes=settings.pop("ring_bytes", 64 << 10))
        OPEN_ARENAS.append(self.arena)
        self.slot, _ = self.arena.claim("live/cam1", 1)
        self.arena.go_live(self.slot, 1)
        self.ring = Ring(self.arena, self.slot, RING_TS)
        self.ring.set_header(TABLES)
        self.endpoint = Endpoint(**settings)
        self.peer = Peer(self.endpoint, isn=isn)
        self.written = 0

    def write(self, pkts: int, *, key: bool = False) -> None:
        self.ring.append(ts(self.written, pkts), flags=REC_KEY if key else 0, arrival_us=self.peer.now_us)
        self.written += pkts

    def join(self, **fields: Any) -> None:
        self.peer.request(**fields)
        self.endpoint.attach_source(self.peer.id, Ring(self.arena, self.slot, RING_TS))
        self.endpoint.accept(self.peer.id, self.peer.now_us)
        self.peer.hear()

    def hear(self, us: int = TICK_US) -> list[dict[str, Any]]:
        self.peer.pass_time(us)
        return self.peer.hear("data")

    def stats(self) -> dict[str, Any]:
        return dict(self.endpoint.stats(self.peer.id))


def sender(isn: int = 1000, **settings: Any) -> Peer:
    """A peer that is sent what a test hands to send()."""
    endpoint = Endpoint(**settings)
    peer = Peer(endpoint, isn=isn)
    peer.open()
    return peer


def send(peer: Peer, payload: bytes) -> bool:
    return bool(peer.endpoint.send(peer.id, payload, peer.now_us))


# send()


@pytest.mark.parametrize("isn", [1000, 0x7FFFFFFE])
def test_payloads_go_out_numbered_and_stamped(isn: int) -> None:
    peer = sender(isn)
    peer.now_us += 5_000
    assert all(send(peer, bytes([n]) * (100 + n)) for n in range(4))
    said = peer.hear("data")
    assert [p["sequence"] for p in said] == [packet.sequence_at(isn, n) for n in range(4)]
    assert [p["message"] for p in said] == [1, 2, 3, 4]
    assert {p["timestamp"] for p in said} == {5_000}
    assert {p["position"] for p in said} == {3}
    assert {p["destination"] for p in said} == {peer.socket_id}
    assert [p["payload"] for p in said] == [bytes([n]) * (100 + n) for n in range(4)]


def test_send_refuses_what_does_not_fit() -> None:
    peer = sender(send_buffer_pkts=32)
    for payload in (b"", bytes(1457)):
        with pytest.raises(ValueError, match="1 to 1456"):
            send(peer, payload)
    assert [send(peer, bytes(1456)) for _ in range(40)] == [True] * 32 + [False] * 8
    assert count(peer.endpoint, "send_refused") == 8
    assert peer.endpoint.send(99, b"x", START_US) is False
    small = Peer(peer.endpoint, port=5000)
    small.request(mss=1400)
    assert peer.endpoint.send(small.id, b"x", START_US) is False
    peer.endpoint.accept(small.id, START_US)
    with pytest.raises(ValueError, match="1 to 1356"):
        send(small, bytes(1357))


def test_acks_free_the_buffer_and_are_answered() -> None:
    peer = sender()
    for _ in range(10):
        send(peer, bytes(1316))
    peer.hear()
    peer.ack(4, number=7)
    (ackack,) = peer.hear(ACKACK)
    assert ackack["info"] == 7
    assert peer.endpoint.stats(peer.id)["send_buffer_pkts"] == 6
    assert peer.endpoint.stats(peer.id)["rtt_ms"] == 20
    peer.control(ACK, words(peer.isn + 10))
    assert peer.hear(ACKACK) == []
    assert peer.endpoint.stats(peer.id)["send_buffer_pkts"] == 0
    peer.pass_time(10_000)
    assert peer.endpoint.memory["chunks"] == 0


@pytest.mark.parametrize("body", [b"", b"\0\0\0", words(1011, 0, 0, 0), words(1000 + (1 << 30) - 1)])
def test_acks_of_what_was_never_sent_are_refused(body: bytes) -> None:
    peer = sender()
    for _ in range(10):
        send(peer, bytes(188))
    peer.hear()
    peer.control(ACK, body, info=1)
    assert count(peer.endpoint, "refused_ack") == 1
    assert peer.endpoint.stats(peer.id)["send_buffer_pkts"] == 10
    assert_adds_up(peer.endpoint)


@pytest.mark.parametrize("isn", [1000, 0x7FFFFFFA])
def test_lost_packets_go_again_with_their_first_timestamp(isn: int) -> None:
    peer = sender(isn)
    for n in range(10):
        peer.now_us += 1_000
        send(peer, bytes([n]) * 188)
    first = peer.hear("data")
    peer.pass_time(30_000)
    lost = [packet.sequence_at(isn, n) for n in (2, 5, 7)]
    peer.control(NAK, words(lost[0], RANGE | lost[1], lost[2]))
    again = peer.hear("data")
    assert [p["payload"][0] for p in again] == [2, 5, 6, 7]
    assert all(p["retransmitted"] for p in again)
    for p in again:
        (original,) = [q for q in first if q["sequence"] == p["sequence"]]
        assert (p["timestamp"], p["message"]) == (original["timestamp"], original["message"])
    # A report that was on its way when the packet went again is no reason to send it thrice.
    peer.control(NAK, words(lost[0]))
    assert peer.hear("data") == []
    peer.pass_time(100_000)
    peer.hear()
    peer.control(NAK, words(lost[0]))
    assert [p["payload"][0] for p in peer.hear("data")] == [2]


def test_loss_reports_of_what_is_gone_are_answered_with_a_drop_request() -> None:
    peer = sender()
    for _ in range(10):
        send(peer, bytes(188))
    peer.hear()
    peer.ack(5)
    peer.hear()
    peer.control(NAK, words(RANGE | peer.isn + 2, peer.isn + 6))
    said = peer.hear()
    assert [p["sequence"] - peer.isn for p in said if p["kind"] == "data"] == [5, 6]
    (drop,) = [p for p in said if p.get("type") == DROPREQ]
    assert from_words(drop["payload"]) == [peer.isn + 2, peer.isn + 4]
    assert drop["info"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        words(1010),
        words(RANGE | 1005),
        words(RANGE | 1005, 1003),
        words(RANGE | 1005, 1010),
        words(999),
        words(1002, 5000),
    ],
)
def test_malformed_loss_reports(body: bytes) -> None:
    peer = sender()
    for _ in range(10):
        send(peer, bytes(188))
    peer.hear()
    peer.control(NAK, body)
    assert count(peer.endpoint, "refused_nak") == 1
    assert_adds_up(peer.endpoint)


def test_a_lost_tail_is_probed() -> None:
    peer = sender()
    for _ in range(5):
        send(peer, bytes(188))
    peer.hear()
    peer.pass_time(1_000_000)
    probes = list(peer.hear("data"))
    assert [p["sequence"] - peer.isn for p in probes[:1]] == [4]
    assert {p["sequence"] - peer.isn for p in probes} == {0, 4}
    assert all(p["retransmitted"] for p in probes)
    # The first after RTT + 4 RTTVar, the next after twice that.
    assert len(probes) == 3
    peer.ack(5)
    peer.hear()
    peer.pass_time(1_000_000)
    assert peer.hear("data") == []


def test_the_flow_window_holds_packets_back() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.open(flow_window_pkts=32)
    assert all(send(peer, bytes(188)) for _ in range(100))
    assert len(peer.hear("data")) == 32
    peer.control(ACK, words(peer.isn + 20))
    assert peer.hear("data") == []
    peer.ack(20, room=32)
    assert len(peer.hear("data")) == 20
    peer.ack(52, room=1000)
    assert len(peer.hear("data")) == 48
    assert count(endpoint, "window_limited") == 3


def test_packets_too_late_are_given_up() -> None:
    peer = sender(latency_ms=120)
    for _ in range(5):
        send(peer, bytes(188))
    peer.hear()
    peer.pass_time(1_010_000)
    assert peer.endpoint.stats(peer.id)["send_buffer_pkts"] == 5
    peer.pass_time(200_000)
    peer.pass_time(200_000)
    assert peer.endpoint.stats(peer.id)["send_buffer_pkts"] == 0
    assert peer.endpoint.stats(peer.id)["too_late_pkts"] == 5
    peer.hear()
    peer.control(NAK, words(peer.isn + 1))
    (drop,) = peer.hear(DROPREQ)
    assert from_words(drop["payload"]) == [peer.isn + 1, peer.isn + 1]


def test_a_peer_that_drops_nothing_is_sent_everything() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.open(flags=0x37)
    send(peer, bytes(188))
    peer.pass_time(4_000_000)
    assert endpoint.stats(peer.id)["send_buffer_pkts"] == 1


def test_retransmissions_keep_to_their_budget() -> None:
    peer = sender(max_overhead_percent=25, send_buffer_pkts=4096, latency_ms=10_000)
    again = sent = 0
    for _ in range(300):
        for _ in range(5):
            sent += send(peer, bytes(1316))
        peer.pass_time(10_000)
        peer.control(NAK, words(RANGE | peer.isn, peer.isn + sent - 1))
        again += sum(p["retransmitted"] for p in peer.hear("data"))
    # A second's worth at once, then a quarter of 500 packets a second.
    assert 300 <= again <= 550
    assert count(peer.endpoint, "overhead_limited") > 0
    assert peer.endpoint.stats(peer.id)["sent_again_pkts"] == again


# From a ring


def test_a_player_begins_with_the_tables_and_the_newest_keyframe() -> None:
    player = Player()
    player.write(7)
    player.write(14, key=True)
    player.write(7)
    player.write(14, key=True)
    player.join()
    said = player.hear()
    assert said[0]["payload"] == TABLES
    assert b"".join(p["payload"] for p in said[1:]) == ts(28, 14)
    assert [len(p["payload"]) for p in said[1:]] == [1316, 1316]


def test_what_the_ring_gains_goes_out_on_ticks() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    got = b"".join(p["payload"] for p in player.hear()[1:])
    for size in (3, 9, 14, 1, 1, 0, 0, 20):
        player.write(size)
        got += b"".join(p["payload"] for p in player.hear())
    got += b"".join(p["payload"] for p in player.hear(3 * TICK_US))
    assert got == ts(0, player.written)
    assert player.hear() == []


def test_what_is_delivered_on_a_tick_goes_out_on_it() -> None:
    player = Player()
    publisher = Peer(player.endpoint, 4001)
    publisher.request()
    ingest = TsIngest(player.arena, player.slot, player.arena.my_counters)
    player.endpoint.attach_sink(publisher.id, ingest)
    player.endpoint.accept(publisher.id, publisher.now_us)
    player.write(7, key=True)
    player.join()
    player.hear()
    publisher.now_us = player.peer.now_us
    for n in range(8):
        publisher.data(n, ts(7 + 7 * n, 7))
    player.peer.pass_time(120_000)
    assert [len(p["payload"]) for p in player.peer.hear("data")] == [7 * 188] * 8


def test_small_batches_wait_for_one_tick() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    assert [len(p["payload"]) for p in player.hear()] == [376, 1316]
    player.write(7 * 8)
    assert [len(p["payload"]) for p in player.hear()] == [1316] * 8
    for _ in range(3):
        player.write(7 * 4)
        assert player.hear() == []
        player.write(7 * 3)
        assert [len(p["payload"]) for p in player.hear()] == [1316] * 7


def test_packets_are_filled_and_a_rest_waits_for_one_batch_only() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    player.hear()
    player.write(10)
    assert [len(p["payload"]) for p in player.hear(BATCH_US)] == [1316]
    player.write(8)
    assert [len(p["payload"]) for p in player.hear(BATCH_US)] == [1316]
    assert [len(p["payload"]) for p in player.hear(BATCH_US)] == [4 * 188]
    player.write(2)
    assert [len(p["payload"]) for p in player.hear(BATCH_US)] == [2 * 188]


def test_lost_packets_go_again_out_of_the_ring() -> None:
    player = Player()
    player.write(35, key=True)
    player.join()
    said = player.hear()
    player.peer.pass_time(5_000)
    player.peer.control(NAK, words(player.peer.isn + 2, player.peer.isn + 4))
    again = player.peer.hear("data")
    assert [p["payload"] for p in again] == [said[2]["payload"], said[4]["payload"]]
    assert [p["timestamp"] for p in again] == [said[2]["timestamp"], said[4]["timestamp"]]


def test_what_the_ring_has_lost_can_not_go_again() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    player.hear()
    for _ in range(8):
        player.write(42)
        player.hear(BATCH_US)
    player.peer.control(NAK, words(player.peer.isn + 1))
    said = player.peer.hear()
    assert [p for p in said if p["kind"] == "data"] == []
    (drop,) = [p for p in said if p.get("type") == DROPREQ]
    assert from_words(drop["payload"]) == [player.peer.isn + 1] * 2
    assert count(player.endpoint, "send_lapped_pkts") == 1


def test_a_lapped_player_goes_on_at_the_newest_keyframe() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    player.hear()
    for n in range(10):
        player.write(42, key=n == 8)
    said = player.hear()
    assert b"".join(p["payload"] for p in said) == ts(7 + 8 * 42, 2 * 42)
    assert (player.stats()["lapped"], count(player.endpoint, "source_lapped")) == (1, 1)


def test_a_player_that_lags_is_moved_on() -> None:
    player = Player(latency_ms=120, ring_bytes=1 << 20, peer_idle_timeout_ms=60_000)
    player.write(7, key=True)
    player.join(flow_window_pkts=32)
    got = len(player.hear())
    for n in range(1, 200):
        player.write(7, key=n % 50 == 0)
        got += sum(not p["retransmitted"] for p in player.hear())
    assert got == 32
    player.peer.ack(32, room=8000)
    said = player.hear()
    assert count(player.endpoint, "source_skipped") >= 1
    first = int.from_bytes(said[0]["payload"][1:5], "big")
    assert first in (100 * 7, 150 * 7)


def test_a_backlog_goes_out_in_portions() -> None:
    player = Player(ring_bytes=4 << 20)
    for n in range(40):
        player.write(70, key=n == 0)
    player.join(flow_window_pkts=8192)
    sizes = [len(player.hear(2_000)) for _ in range(20)]
    # The tables, 88 at once, and the first portion of 44 two milliseconds later.
    assert max(sizes) == 133
    assert sum(sizes) == 401
    assert sum(size > 0 for size in sizes) >= 5


def test_a_player_without_keyframes_starts_after_a_while() -> None:
    player = Player(peer_idle_timeout_ms=60_000)
    player.write(7)
    player.join()
    assert player.hear(2_900_000) == []
    said = player.hear(200_000)
    assert [p["payload"] for p in said] == [TABLES]
    player.write(7)
    assert [p["payload"] for p in player.hear(BATCH_US)] == [ts(7, 7)]
    assert count(player.endpoint, "source_without_key") == 1


def test_a_player_that_came_before_the_first_keyframe_starts_there() -> None:
    player = Player()
    player.join()
    assert player.hear() == []
    player.write(7)
    assert player.hear() == []
    player.write(14, key=True)
    assert b"".join(p["payload"] for p in player.hear()) == TABLES + ts(7, 14)


def test_players_end_with_their_stream_and_outlast_its_publisher() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    player.hear()
    player.arena.go_idle(player.slot, player.peer.now_us)
    player.peer.pass_time(100_000)
    assert player.endpoint.next_event() is None
    player.arena.retire(player.slot)
    player.peer.pass_time(TICK_US)
    assert player.endpoint.next_event() == ("closed", player.peer.id, "stream_ended")
    assert count(player.endpoint, "closed_source") == 1


def test_ackacks_ride_along_and_never_wait_longer_than_a_batch() -> None:
    player = Player()
    player.write(7, key=True)
    player.join()
    player.hear()
    player.write(14)
    player.peer.ack(1, number=4)
    player.peer.pass_time(TICK_US)
    player.peer.ack(2, number=5)
    said = player.peer.hear()
    assert said == []
    player.peer.pass_time(TICK_US)
    said = player.peer.hear()
    assert [p.get("type", "data") for p in said] == ["data", "data", ACKACK]
    assert len({p["at_us"] for p in said}) == 1
    assert said[2]["info"] == 5
    # They come each 10 ms from libsrt's players; a part of them is answered.
    for number in range(6, 12):
        player.peer.ack(4, number=number)
        player.peer.pass_time(TICK_US)
    assert [p["info"] for p in player.peer.hear(ACKACK)] == [9]


def test_a_player_that_sends_data_is_not_listened_to() -> None:
    player = Player()
    player.join()
    player.peer.data(0)
    assert count(player.endpoint, "refused_unwanted") == 1
    assert player.endpoint.memory["chunks"] == 0


def test_a_small_mss_makes_small_packets() -> None:
    player = Player()
    player.write(14, key=True)
    player.join(mss=44 + 5 * 188 + 100)
    sizes = [len(p["payload"]) for p in player.hear(3 * TICK_US)]
    assert sizes == [376, 940, 940, 752]


def test_a_player_has_one_source() -> None:
    player = Player()
    player.join()
    with pytest.raises(ValueError, match="a source already"):
        player.endpoint.attach_source(player.peer.id, player.ring)
    with pytest.raises(KeyError):
        player.endpoint.attach_source(12345, player.ring)


# The caller's side


def call(endpoint: Endpoint, **fields: Any) -> tuple[int, dict[str, Any]]:
    id = endpoint.connect(("192.0.2.8", 8890), "publish:x", START_US, **fields)
    ((address, data),) = endpoint.poll_transmit(START_US)
    assert address == ("192.0.2.8", 8890)
    return id, handshake.decode(packet.decode(data)["payload"])


def answer(endpoint: Endpoint, id: int, now_us: int = START_US, **fields: Any) -> list[dict[str, Any]]:
    body = handshake.encode(**fields)
    endpoint.receive(("192.0.2.8", 8890), packet.encode_control(HANDSHAKE, 0, id, body), now_us)
    return [packet.decode(data) for _, data in endpoint.poll_transmit(now_us)]


def test_a_call_is_made_as_the_draft_has_it() -> None:
    endpoint = Endpoint(5)
    id, induction = call(endpoint, latency_ms=300)
    assert id & 0x3F == 5
    assert (induction["version"], induction["extension"], induction["kind"]) == (4, 2, 1)
    assert (induction["socket_id"], induction["cookie"]) == (id, 0)
    isn = induction["isn"]
    (said,) = answer(endpoint, id, version=5, extension=0x4A17, kind=1, cookie=0xC0FFEE)
    assert said["destination"] == 0
    conclusion = handshake.decode(said["payload"])
    assert (conclusion["version"], conclusion["kind"]) == (5, CONCLUSION)
    assert (conclusion["cookie"], conclusion["isn"], conclusion["extension"]) == (0xC0FFEE, isn, 5)
    assert conclusion["seen"] == [1, 5]
    assert conclusion["stream_id"] == b"publish:x"
    assert (conclusion["receiver_delay_ms"], conclusion["sender_delay_ms"]) == (300, 300)
    fields = {"extension": 1, "isn": isn, "socket_id": 77, "hs_extension": 2}
    answer(endpoint, id, receiver_delay_ms=400, sender_delay_ms=350, **fields)
    kind, who, facts = endpoint.next_event()
    assert (kind, who) == ("connected", id)
    assert (facts["receive_latency_ms"], facts["send_latency_ms"]) == (350, 400)
    assert facts["peer_socket_id"] == 77
    # The same answer once more does nothing.
    assert answer(endpoint, id, **fields) == []
    assert endpoint.connections == 1
    assert_adds_up(endpoint)


def test_a_call_is_repeated_and_given_up() -> None:
    endpoint = Endpoint(handshake_timeout_ms=3000)
    id, first = call(endpoint)
    times = []
    while (due := endpoint.next_timeout()) is not None:
        endpoint.handle_timeout(due)
        for _, data in endpoint.poll_transmit(due):
            assert handshake.decode(packet.decode(data)["payload"]) == first
            times.append(due - START_US)
    assert times == [n * 250_000 for n in range(1, 12)]
    assert endpoint.next_event() == ("closed", id, "handshake_timeout")
    assert endpoint.memory["connections"] == 0


@pytest.mark.parametrize(
    ("wire", "reason"), [(1011, "rejected:1011"), (2404, "rejected:1404"), (1000, "rejected:1000")]
)
def test_a_rejection_ends_the_call(wire: int, reason: str) -> None:
    endpoint = Endpoint()
    id, _ = call(endpoint)
    answer(endpoint, id, version=5, extension=0x4A17, kind=1, cookie=1)
    answer(endpoint, id, kind=wire)
    assert endpoint.next_event() == ("closed", id, reason)
    assert count(endpoint, "closed_handshake") == 1


@pytest.mark.parametrize(
    ("cookie", "fields"),
    [
        ({"version": 4, "extension": 2}, None),
        ({"extension": 0}, None),
        ({}, {"isn": 1}),
        ({}, {"hs_extension": 0}),
        ({}, {"socket_id": 0}),
        ({}, {"flags": 0x7F}),
        ({}, {"mss": 100}),
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_call(
    cookie: dict[str, Any], fields: dict[str, Any] | None
) -> None:
    endpoint = Endpoint()
    id, induction = call(endpoint)
    answer(endpoint, id, **{"version": 5, "extension": 0x4A17, "kind": 1, "cookie": 1, **cookie})
    if fields is not None:
        whole = {"extension": 1, "isn": induction["isn"], "socket_id": 77, "hs_extension": 2, **fields}
        answer(endpoint, id, **whole)
    assert endpoint.next_event() == ("closed", id, "protocol_error")


def test_answers_from_elsewhere_or_too_early_do_not_count() -> None:
    endpoint = Endpoint()
    id, induction = call(endpoint)
    body = handshake.encode(version=5, extension=0x4A17, kind=1, cookie=1)
    endpoint.receive(("192.0.2.9", 8890), packet.encode_control(HANDSHAKE, 0, id, body), START_US)
    assert answer(endpoint, id, extension=1, isn=induction["isn"], socket_id=77, hs_extension=2) == []
    endpoint.receive(("192.0.2.8", 8890), packet.encode_control(KEEPALIVE, 0, id), START_US)
    names = ("refused_wrong_peer", "refused_handshake", "refused_not_open")
    assert [count(endpoint, name) for name in names] == [1, 1, 1]
    assert endpoint.next_event() is None
    assert_adds_up(endpoint)


def test_calls_are_bounded() -> None:
    endpoint = Endpoint(max_connections=2)
    call(endpoint)
    call(endpoint)
    with pytest.raises(RuntimeError, match="no room for another of 2"):
        call(endpoint)
    with pytest.raises(ValueError, match="512"):
        endpoint.connect(("192.0.2.8", 1), "x" * 513, START_US)
