"""The handshake from the listener's side: cookie, checks, answers, bounds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flux.cext.srt import handshake, packet
from flux.cext.srt.endpoint import Endpoint

from tests.cext.srt.peer import (
    CONCLUSION,
    HANDSHAKE,
    KEEPALIVE,
    START_US,
    Peer,
    assert_adds_up,
    count,
    counted,
)


def test_an_induction_is_answered_with_a_cookie_and_forgotten() -> None:
    endpoint = Endpoint(3)
    answer = Peer(endpoint).induct()
    assert answer["version"] == 5
    assert answer["extension"] == 0x4A17
    assert answer["kind"] == 1
    assert answer["cookie"] != 0
    assert answer["seen"] == []
    assert endpoint.memory["connections"] == endpoint.handshakes == 0
    assert endpoint.next_timeout() is None


def test_a_conclusion_waits_for_the_decision() -> None:
    endpoint = Endpoint(3, latency_ms=120)
    peer = Peer(endpoint)
    event = peer.request(stream_id=b"#!::m=publish,r=live/cam1", receiver_delay_ms=200, sender_delay_ms=80)
    kind, id, address, stream_id, facts = event
    assert (kind, address, stream_id) == ("request", peer.address, "#!::m=publish,r=live/cam1")
    assert id & 0x3F == 3
    assert 0 < id < 1 << 30
    assert facts["peer_version"] == "1.5.4"
    assert facts["encrypted"] is False
    assert (facts["receive_latency_ms"], facts["send_latency_ms"]) == (120, 200)
    assert endpoint.accept(id, peer.now_us)
    answer = handshake.decode(peer.hear(HANDSHAKE)[0]["payload"])
    assert answer["kind"] == CONCLUSION
    assert answer["isn"] == peer.isn
    assert answer["socket_id"] == id
    assert answer["seen"] == [2]
    assert answer["flags"] == 0x3F
    # What we hold packets for, and what the peer will: the larger of both sides' each.
    assert (answer["receiver_delay_ms"], answer["sender_delay_ms"]) == (120, 200)
    assert (endpoint.connections, endpoint.handshakes) == (1, 0)
    assert not endpoint.accept(id, peer.now_us)


def test_a_conclusion_said_again_is_answered_again() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.request()
    assert peer.conclude() == []
    assert endpoint.next_event() is None
    endpoint.accept(peer.id, peer.now_us)
    first = [handshake.decode(p["payload"]) for p in peer.hear(HANDSHAKE)]
    assert peer.conclude() == first
    assert endpoint.connections == 1
    assert endpoint.next_event() is None


# what the conclusion has besides the usual, bytes after it, code on the wire, counter
REJECTIONS: list[tuple[dict[str, Any], str, int, str]] = [
    ({"version": 4, "extension": 2, "hs_extension": 0}, "", 1008, "rejected_version"),
    ({"version": 6}, "", 1008, "rejected_version"),
    ({"srt_version": 0x010200}, "", 1008, "rejected_version"),
    ({"hs_extension": 0}, "", 1004, "rejected_rogue"),
    ({"hs_extension": 2}, "", 1004, "rejected_rogue"),
    ({"mss": 200}, "", 1004, "rejected_rogue"),
    ({"flow_window_pkts": 1}, "", 1004, "rejected_rogue"),
    ({"isn": 0x80000000}, "", 1004, "rejected_rogue"),
    ({}, "00050100", 1004, "rejected_rogue"),
    ({"extension": 3}, "", 1004, "rejected_rogue"),
    ({"flags": 0x7F}, "", 1012, "rejected_mode"),
    ({}, "00060001 656c6966", 1013, "rejected_mode"),
    ({}, "00070001 20636566", 1014, "rejected_filter"),
    ({}, "00080002 40000001 01000001", 1015, "rejected_group"),
]


@pytest.mark.parametrize(("fields", "extra", "code", "counter"), REJECTIONS)
def test_what_is_not_spoken_is_rejected_with_its_code(
    fields: dict[str, Any], extra: str, code: int, counter: str
) -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.induct()
    answers = peer.conclude(bytes.fromhex(extra), **fields)
    assert [answer["kind"] for answer in answers] == [code]
    assert count(endpoint, counter) == 1
    assert endpoint.next_event() is None
    assert endpoint.memory["connections"] == 0
    assert_adds_up(endpoint)


@pytest.mark.parametrize(
    "extra",
    [
        "00060001 6576696c",  # congestion control "live"
        "00630001 00000000",  # an extension nobody knows
    ],
)
def test_what_does_no_harm_is_accepted(extra: str) -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.induct()
    assert peer.conclude(bytes.fromhex(extra)) == []
    assert endpoint.next_event()[0] == "request"


@pytest.mark.parametrize(
    ("code", "wire"), [(1404, 2404), (1409, 2409), (1500, 2500), (1002, 1002), (1016, 1016), (2001, 3001)]
)
def test_a_decision_against_goes_on_the_wire(code: int, wire: int) -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.request()
    assert endpoint.reject(peer.id, code, peer.now_us)
    (said,) = peer.hear(HANDSHAKE)
    assert handshake.decode(said["payload"])["kind"] == wire
    assert said["destination"] == peer.socket_id
    assert endpoint.memory["connections"] == 0
    assert endpoint.next_event() is None
    assert not endpoint.reject(peer.id, code, peer.now_us)
    assert count(endpoint, "rejected_request") == 1


@pytest.mark.parametrize("code", [0, 999, 9000])
def test_rejection_codes_have_bounds(code: int) -> None:
    with pytest.raises(ValueError, match="1000 to 8999"):
        Endpoint().reject(1, code, START_US)


def test_cookies_hold_for_a_while_and_for_one_address() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.induct()
    other = Peer(endpoint, port=4001)
    other.cookie = peer.cookie
    assert other.conclude() == []
    peer.cookie ^= 1
    assert peer.conclude() == []
    peer.cookie ^= 1
    peer.now_us += 150_000_000
    assert peer.conclude() == []
    assert endpoint.next_event() is None
    assert count(endpoint, "refused_cookie") == 3
    peer.induct()
    peer.now_us += 60_000_000
    peer.conclude()
    assert endpoint.next_event()[0] == "request"


def test_cookies_are_under_the_secret() -> None:
    cookies = {Peer(Endpoint(secret=bytes([n]) * 16)).induct()["cookie"] for n in range(20)}
    assert len(cookies) == 20
    assert Peer(Endpoint(secret=b"k" * 16)).induct() == Peer(Endpoint(secret=b"k" * 16)).induct()
    with pytest.raises(ValueError, match="16 are needed"):
        Endpoint(secret=b"short")


def test_no_stranger_gets_more_than_he_sent() -> None:
    endpoint = Endpoint(max_handshakes=1)
    said: list[tuple[int, int]] = []
    for length in range(16, 1472, 7):
        for kind in (1, CONCLUSION):
            peer = Peer(endpoint, port=length)
            body = handshake.encode(version=4, extension=2, kind=kind, socket_id=7)
            data = packet.encode_control(HANDSHAKE, 0, 0, (body + bytes(1472))[: length - 16])
            peer.say(data)
            said += [(len(data), p["bytes"]) for p in peer.hear()]
    assert said
    assert all(answer <= request for request, answer in said)


def test_answers_to_strangers_are_bounded() -> None:
    endpoint = Endpoint()
    body = handshake.encode(version=4, extension=2, kind=1, socket_id=7)
    for port in range(1000, 1400):
        endpoint.receive(("192.0.2.9", port), packet.encode_control(HANDSHAKE, 0, 0, body), START_US)
    assert len(endpoint.poll_transmit(START_US)) == 256
    assert count(endpoint, "answers_dropped") == 144


def test_handshakes_and_connections_are_bounded() -> None:
    endpoint = Endpoint(max_handshakes=4, max_connections=6)
    peers = [Peer(endpoint, port=4000 + n) for n in range(8)]
    for peer in peers[:4]:
        peer.request()
    peers[4].induct()
    assert [a["kind"] for a in peers[4].conclude()] == [1005]
    for peer in peers[:4]:
        endpoint.accept(peer.id, peer.now_us)
    peers[4].open()
    peers[5].open()
    peers[6].induct()
    assert [a["kind"] for a in peers[6].conclude()] == [1005]
    assert count(endpoint, "rejected_backlog") == 2
    assert (count(endpoint, "open"), count(endpoint, "pending")) == (6, 0)


def test_an_undecided_request_times_out() -> None:
    endpoint = Endpoint(handshake_timeout_ms=3000)
    peer = Peer(endpoint)
    peer.request()
    peer.pass_time(2_999_000)
    assert endpoint.handshakes == 1
    peer.pass_time(2_000)
    assert endpoint.next_event() == ("closed", peer.id, "handshake_timeout")
    assert endpoint.memory["connections"] == endpoint.handshakes == 0
    assert not endpoint.accept(peer.id, peer.now_us)


def test_a_request_that_nobody_read_times_out_in_silence() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.induct()
    peer.conclude()
    peer.pass_time(4_000_000)
    assert endpoint.next_event() is None
    assert endpoint.memory["connections"] == 0


def test_ids_come_back_late_and_are_told_apart() -> None:
    endpoint = Endpoint(max_connections=4, max_handshakes=1)
    seen = []
    for n in range(40):
        peer = Peer(endpoint, port=4000 + n)
        peer.open()
        seen.append(peer.id)
        endpoint.close(peer.id, peer.now_us)
        peer.hear()
        assert endpoint.next_event() == ("closed", peer.id, "closed")
    assert endpoint.memory["connections"] == 0
    assert all(a != b for a, b in itertools.pairwise(seen))
    assert len(set(seen)) > 30
    stale = Peer(endpoint, port=4000)
    stale.id = seen[0]
    stale.control(KEEPALIVE)
    assert count(endpoint, "refused_unknown_id") + count(endpoint, "refused_wrong_peer") == 1


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "refused_short"),
    (bytes(15), "refused_short"),
    (bytes(1473), "refused_long"),
    (bytes(16), "refused_handshake"),  # data to nobody
    (packet.encode_control(HANDSHAKE, 0, 0, bytes(47)), "refused_handshake"),
    (packet.encode_control(HANDSHAKE, 0, 0, handshake.encode(kind=0)), "refused_handshake"),
    (packet.encode_control(HANDSHAKE, 0, 0, handshake.encode(kind=0xFFFFFFFD)), "refused_handshake"),
    (packet.encode_control(HANDSHAKE, 0, 0, handshake.encode(kind=1002)), "refused_handshake"),
    (packet.encode_control(HANDSHAKE, 0, 0, handshake.encode()), "refused_cookie"),
    (packet.encode_control(KEEPALIVE, 0, 0), "refused_handshake"),
    (packet.encode_control(KEEPALIVE, 0, 77), "refused_unknown_id"),
    (packet.encode_control(KEEPALIVE, 0, 0xFFFFFFFF), "refused_unknown_id"),
]


@pytest.mark.parametrize(("data", "counter"), MALFORMED)
def test_malformed_datagrams_are_counted_by_reason(data: bytes, counter: str) -> None:
    endpoint = Endpoint()
    endpoint.receive(("192.0.2.1", 1), data, START_US)
    assert counted(endpoint) == {
        "datagrams": 1,
        counter: 1,
        **({"bytes": len(data)} if data else {}),
    }
    assert endpoint.poll_transmit(START_US) == []


def test_ipv6_callers_are_taken_in() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.address = ("2001:db8::1", 4000)
    peer.open()
    peer.control(KEEPALIVE)
    peer.say(packet.encode_control(KEEPALIVE, 0, peer.id), ("2001:db8::2", 4000))
    peer.say(packet.encode_control(KEEPALIVE, 0, peer.id), ("2001:db8::1", 4001))
    assert (count(endpoint, "control_pkts"), count(endpoint, "refused_wrong_peer")) == (1, 2)


@pytest.mark.parametrize("address", [("example.org", 1), ("1.2.3", 1), ("1.2.3.4", 65536), ("::g", 1)])
def test_bad_addresses_are_named(address: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"is no IP address|ports go from"):
        Endpoint().connect(address, "", START_US)
