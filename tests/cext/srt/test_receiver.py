"""The receiving half, packet by packet: ACK, NAK, delivery, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flux.cext.srt import packet
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink

from tests.cext.srt.peer import (
    ACK,
    ACKACK,
    CONGESTION,
    DROPREQ,
    HANDSHAKE,
    KEEPALIVE,
    NAK,
    RANGE,
    SHUTDOWN,
    Peer,
    assert_adds_up,
    count,
    from_words,
    words,
)

LATENCY_US = 120_000


def publisher(isn: int = 1000, **settings: Any) -> tuple[Peer, CollectingSink]:
    endpoint = Endpoint(**settings)
    peer = Peer(endpoint, isn=isn)
    peer.request()
    sink = CollectingSink()
    endpoint.attach_sink(peer.id, sink)
    endpoint.accept(peer.id, peer.now_us)
    peer.hear()
    return peer, sink


def sequences(peer: Peer, said: dict[str, Any]) -> list[int]:
    """A NAK's contents as offsets from the initial sequence number; a range as a pair of its ends."""
    return [packet.index_of(peer.isn, word & 0x7FFFFFFF, 0) for word in from_words(said["payload"])]


@pytest.mark.parametrize("isn", [0, 1000, 0x7FFFFFFD])
def test_packets_are_delivered_in_order_at_their_time(isn: int) -> None:
    peer, sink = publisher(isn)
    peer.pass_time(1_000)
    for n in (0, 2, 1, 3, 5, 4):
        peer.data(n, bytes([n]) * 188, timestamp=n * 200)
    peer.pass_time(LATENCY_US - 1_001)
    assert len(sink) == 0
    # What is due between two ticks of the delivery grid, 0.5 ms, goes on the later one.
    peer.pass_time(2)
    assert sink.take() == bytes(188)
    peer.pass_time(500)
    assert sink.take() == b"\x01" * 188 + b"\x02" * 188
    peer.pass_time(500)
    assert sink.take() == b"".join(bytes([n]) * 188 for n in range(3, 6))
    assert count(peer.endpoint, "delivered_pkts") == 6
    assert peer.endpoint.memory["chunks"] == 0


@pytest.mark.parametrize("isn", [1000, 0x7FFFFFFD])
def test_full_acks_every_ten_milliseconds(isn: int) -> None:
    peer, _ = publisher(isn)
    peer.pass_time(20_000)
    for n in range(40):
        peer.data(n)
        peer.pass_time(1_000)
    acks = peer.hear(ACK)
    assert 3 <= len(acks) <= 5
    assert [ack["info"] for ack in acks] == list(range(1, len(acks) + 1))
    assert all(len(ack["payload"]) == 28 for ack in acks)
    first = from_words(acks[0]["payload"])
    assert first[0] == packet.sequence_at(isn, 1)
    assert first[1:3] == [100_000, 50_000]
    assert first[3] == 8192 - 1
    # The first goes at once, the others on a grid.
    assert acks[1]["at_us"] % 10_000 == 0
    for earlier, later in itertools.pairwise(acks[1:]):
        assert later["at_us"] - earlier["at_us"] == 10_000


def test_a_slow_flow_is_acknowledged_half_as_often() -> None:
    peer, _ = publisher()
    peer.pass_time(20_000)
    for n in range(40):
        peer.data(n)
        peer.pass_time(5_000)
    acks = peer.hear(ACK)
    assert 10 <= len(acks) <= 11
    for earlier, later in itertools.pairwise(acks[1:]):
        assert later["at_us"] - earlier["at_us"] == 20_000


def test_the_fastest_packet_of_the_first_second_sets_the_time() -> None:
    peer, sink = publisher()
    peer.pass_time(100_000)
    peer.data(0, timestamp=101_200)
    peer.data(1, timestamp=100_500)
    peer.pass_time(LATENCY_US - 1)
    assert len(sink) == 0
    peer.pass_time(1)
    assert len(sink) == 2 * 188
    # A packet that was sent again is no faster for it, and later ones move nothing.
    peer.data(2, timestamp=223_000, retransmitted=True)
    peer.pass_time(1_000_000)
    peer.data(3, timestamp=peer.timestamp() + 2_000)
    sink.take()
    peer.pass_time(LATENCY_US + 500)
    assert len(sink) == 0
    peer.pass_time(1_000)
    assert len(sink) == 188


def test_light_acks_when_packets_come_fast() -> None:
    peer, _ = publisher(receive_buffer_pkts=1024)
    peer.data(0)
    peer.hear()
    for n in range(1, 200):
        peer.data(n)
        peer.endpoint.flush(peer.now_us)
        peer._listen()
    light = peer.hear(ACK)
    assert [(ack["info"], len(ack["payload"])) for ack in light] == [(0, 4)] * 3
    assert [from_words(ack["payload"])[0] - peer.isn for ack in light] == [65, 129, 193]


def test_acks_are_repeated_until_they_are_answered() -> None:
    peer, _ = publisher(peer_idle_timeout_ms=60_000)
    peer.data(0)
    peer.pass_time(2_000_000)
    acks = peer.hear(ACK)
    assert 3 <= len(acks) <= 10
    peer.control(ACKACK, info=acks[-1]["info"])
    peer.pass_time(2_000_000)
    assert peer.hear(ACK) == []
    peer.control(ACKACK, info=acks[-1]["info"])
    peer.control(ACKACK, info=acks[-1]["info"] + 5)
    peer.control(ACKACK, info=0)
    assert count(peer.endpoint, "refused_ackack") == 3
    assert_adds_up(peer.endpoint)


def test_the_round_trip_is_measured_by_ackack() -> None:
    peer, _ = publisher()
    for n in range(200):
        peer.data(n)
        peer.pass_time(10_000)
        for ack in peer.hear(ACK):
            peer.now_us = ack["at_us"] + 30_000
            peer.control(ACKACK, info=ack["info"])
    assert peer.endpoint.stats(peer.id)["rtt_ms"] == pytest.approx(30, abs=1)


def test_gaps_are_reported_at_once_and_again() -> None:
    peer, _ = publisher(latency_ms=1000, isn=0x7FFFFFFE)
    for n in (0, 1, 3, 7, 8):
        peer.data(n)
    (nak,) = peer.hear(NAK)
    assert from_words(nak["payload"]) == [
        packet.sequence_at(peer.isn, 2),
        RANGE | packet.sequence_at(peer.isn, 4),
        packet.sequence_at(peer.isn, 6),
    ]
    # RTT and its variance are the protocol's first guess: (100 + 4 * 50) / 2 ms.
    peer.pass_time(149_000)
    assert peer.hear(NAK) == []
    peer.data(5, retransmitted=True)
    peer.pass_time(4_000)
    (nak,) = peer.hear(NAK)
    assert sequences(peer, nak) == [2, 4, 6]
    for n in (2, 4, 6):
        peer.data(n, retransmitted=True)
    peer.pass_time(500_000)
    assert peer.hear(NAK) == []
    figures = peer.endpoint.stats(peer.id)
    assert (figures["received_lost_pkts"], figures["received_again_pkts"]) == (4, 4)
    assert figures["missing_pkts"] == 0
    assert count(peer.endpoint, "recovered_pkts") == 4


def test_acks_stop_at_the_first_gap() -> None:
    peer, _ = publisher(latency_ms=500)
    for n in (0, 1, 2, 5, 6):
        peer.data(n)
    peer.pass_time(20_000)
    assert from_words(peer.hear(ACK)[-1]["payload"])[0] == peer.isn + 3
    peer.data(3)
    peer.data(4)
    peer.pass_time(20_000)
    assert from_words(peer.hear(ACK)[-1]["payload"])[0] == peer.isn + 7


def test_a_gap_whose_time_has_come_is_skipped_and_acknowledged() -> None:
    peer, sink = publisher()
    peer.data(0, b"a" * 188)
    peer.data(3, b"d" * 188, timestamp=30_000)
    peer.pass_time(LATENCY_US + 32_000)
    assert sink.take() == b"a" * 188 + b"d" * 188
    assert peer.endpoint.stats(peer.id)["skipped_pkts"] == 2
    peer.pass_time(20_000)
    assert from_words(peer.hear(ACK)[-1]["payload"])[0] == peer.isn + 4
    peer.data(1)
    peer.pass_time(1_000_000)
    assert len(sink) == 0
    assert count(peer.endpoint, "refused_late") == 1


def test_a_drop_request_ends_the_asking() -> None:
    peer, sink = publisher(latency_ms=500)
    peer.data(0, b"a" * 188)
    peer.data(4, b"e" * 188)
    assert len(peer.hear(NAK)) == 1
    peer.control(DROPREQ, words(peer.isn + 1, peer.isn + 3))
    peer.pass_time(400_000)
    assert peer.hear(NAK) == []
    peer.pass_time(200_000)
    assert sink.take() == b"a" * 188 + b"e" * 188
    assert from_words(peer.hear(ACK)[-1]["payload"])[0] == peer.isn + 5


def test_a_drop_request_may_be_for_what_was_never_seen() -> None:
    peer, sink = publisher(latency_ms=500)
    peer.data(0)
    peer.control(DROPREQ, words(peer.isn + 3, peer.isn + 5))
    (nak,) = peer.hear(NAK)
    assert sequences(peer, nak) == [1, 2]
    peer.data(1)
    peer.data(2)
    peer.data(6)
    peer.pass_time(600_000)
    assert len(sink) == 4 * 188
    assert from_words(peer.hear(ACK)[-1]["payload"])[0] == peer.isn + 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        words(1000),
        words(1005, 1001),
        words(1001, 1001 + 8192),
        words(0x80000000, 1001),
        words(5000, 90000),
    ],
)
def test_malformed_drop_requests(body: bytes) -> None:
    peer, _ = publisher()
    peer.data(0)
    peer.control(DROPREQ, body)
    assert count(peer.endpoint, "refused_dropreq") == 1
    assert_adds_up(peer.endpoint)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"payload": b""}, "refused_data"),
    ({"position": 2}, "refused_data"),
    ({"position": 0}, "refused_data"),
    ({"key": 1}, "refused_encrypted"),
    ({"key": 2}, "refused_encrypted"),
]


@pytest.mark.parametrize(("fields", "counter"), REFUSED)
def test_data_that_is_not_taken(fields: dict[str, Any], counter: str) -> None:
    peer, _ = publisher()
    peer.data(0, **fields)
    assert count(peer.endpoint, counter) == 1
    assert peer.endpoint.memory["chunks"] == 0
    assert_adds_up(peer.endpoint)


def test_duplicates_and_strays_are_counted() -> None:
    peer, _ = publisher(receive_buffer_pkts=64)
    peer.data(0)
    peer.data(0)
    peer.data(-1)
    peer.data(63)
    peer.data(64)
    peer.data(1 << 29)
    names = ("refused_duplicate", "refused_late", "refused_beyond", "data_pkts")
    assert [count(peer.endpoint, name) for name in names] == [1, 1, 2, 2]
    assert_adds_up(peer.endpoint)


def test_after_an_outage_longer_than_the_buffer_it_goes_on() -> None:
    peer, sink = publisher(receive_buffer_pkts=64)
    peer.data(0)
    peer.pass_time(200_000)
    peer.data(5000)
    peer.data(5001)
    peer.pass_time(200_000)
    assert len(sink) == 3 * 188
    assert peer.endpoint.stats(peer.id)["skipped_pkts"] == 4999
    assert peer.hear(NAK) == []


def test_a_timestamp_far_ahead_is_not_believed() -> None:
    peer, sink = publisher()
    peer.data(0, timestamp=60_000_000)
    peer.data(1, timestamp=0)
    peer.pass_time(LATENCY_US + 4_000)
    assert len(sink) == 2 * 188
    assert count(peer.endpoint, "timestamps_ahead") == 1


def test_shutdown_delivers_what_is_there() -> None:
    peer, sink = publisher(latency_ms=1000)
    for n in (0, 1, 3):
        peer.data(n, bytes([n]) * 188)
    peer.control(SHUTDOWN)
    assert sink.take() == bytes(188) + b"\x01" * 188 + b"\x03" * 188
    assert peer.endpoint.next_event() == ("closed", peer.id, "peer_shutdown")
    assert peer.endpoint.stats(peer.id)["received_pkts"] == 3
    assert peer.endpoint.memory == {**peer.endpoint.memory, "connections": 0, "chunks": 0}
    assert peer.hear(SHUTDOWN) == []
    peer.control(KEEPALIVE)
    assert count(peer.endpoint, "refused_unknown_id") == 1


def test_the_tail_of_a_batch_is_flushed_after_the_end_was_read() -> None:
    """The sink is kept until it has had its flush, in whatever order Python and the driver ask."""
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.request()
    endpoint.attach_sink(peer.id, CollectingSink())
    endpoint.accept(peer.id, peer.now_us)
    peer.data(0)
    endpoint.receive(peer.address, packet.encode_control(SHUTDOWN, 0, peer.id), peer.now_us)
    assert endpoint.next_event()[0] == "closed"
    endpoint.flush(peer.now_us)
    assert endpoint.memory["connections"] == 0


def test_without_a_sink_packets_are_counted_and_dropped() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.open()
    peer.data(0)
    peer.pass_time(200_000)
    assert count(endpoint, "without_sink_pkts") == 1
    assert endpoint.memory["chunks"] == 0


def test_silence_is_broken_by_keepalives_and_ends_after_the_timeout() -> None:
    peer, _ = publisher(peer_idle_timeout_ms=5000)
    peer.pass_time(4_900_000)
    times = [said["at_us"] - peer.start_us for said in peer.hear(KEEPALIVE)]
    assert len(times) == 4
    assert all(abs(time - n * 1_000_000) < 10_000 for n, time in enumerate(times, 1))
    peer.control(KEEPALIVE)
    peer.pass_time(4_900_000)
    assert peer.endpoint.next_event() is None
    peer.pass_time(200_000)
    assert peer.endpoint.next_event() == ("closed", peer.id, "idle_timeout")
    assert len(peer.hear(SHUTDOWN)) == 1
    assert count(peer.endpoint, "closed_idle") == 1
    assert peer.endpoint.next_timeout() is None
    assert peer.endpoint.memory["connections"] == 0


@pytest.mark.parametrize(
    ("kind", "counter"),
    [(9, "refused_control_type"), (0x7FFF, "refused_control_type"), (HANDSHAKE, "refused_handshake")],
)
def test_control_packets_that_mean_nothing(kind: int, counter: str) -> None:
    peer, _ = publisher()
    peer.control(kind, bytes(48))
    assert count(peer.endpoint, counter) == 1
    peer.control(CONGESTION)
    peer.control(8)
    assert count(peer.endpoint, "control_pkts") == 2
    assert_adds_up(peer.endpoint)


def test_another_address_is_not_the_peer() -> None:
    peer, sink = publisher()
    data = packet.encode_data(peer.isn, 1, 0, peer.id, b"forged")
    peer.say(data, ("192.0.2.1", 9))
    peer.say(data, ("192.0.2.2", 4000))
    peer.say(packet.encode_control(SHUTDOWN, 0, peer.id), ("192.0.2.2", 4000))
    assert count(peer.endpoint, "refused_wrong_peer") == 3
    assert peer.endpoint.connections == 1
    peer.pass_time(200_000)
    assert len(sink) == 0


def test_memory_is_bounded_over_all_connections() -> None:
    endpoint = Endpoint(latency_ms=10_000, max_buffer_bytes=4 * 65536)
    peers = [Peer(endpoint, port=4000 + n) for n in range(4)]
    for peer in peers:
        peer.open()
        for n in range(100):
            peer.data(n, b"x" * 1456)
    assert endpoint.memory["blocks"] == 4
    assert count(endpoint, "refused_no_memory") == 400 - 4 * 44
    for peer in peers:
        endpoint.close(peer.id, peer.now_us)
    assert endpoint.memory["chunks"] == 0
    assert_adds_up(endpoint)
