"""Packets and handshakes on the wire: one table each, read both ways."""

from __future__ import annotations

from typing import Any

import pytest
from flux.cext.srt import cookie, handshake, packet
from hypothesis import given
from hypothesis import strategies as st

DATA = [
    # (wire without payload, fields)
    (
        "00000005 c0000001 00000064 00000007",
        {"sequence": 5, "message": 1, "timestamp": 100, "destination": 7, "position": 3},
    ),
    (
        "7fffffff c4000002 ffffffff 3fffffff",
        {
            "sequence": 0x7FFFFFFF,
            "message": 2,
            "timestamp": 0xFFFFFFFF,
            "destination": 0x3FFFFFFF,
            "position": 3,
            "retransmitted": True,
        },
    ),
    (
        "00000000 bbffffff 00000000 00000001",
        {
            "sequence": 0,
            "message": 0x3FFFFFF,
            "timestamp": 0,
            "destination": 1,
            "position": 2,
            "in_order": True,
            "key": 3,
        },
    ),
]

CONTROL = [
    ("80000000 00000000 00000001 00000000", {"type": 0, "info": 0, "timestamp": 1, "destination": 0}),
    ("80010000 00000000 00000002 00000009", {"type": 1, "info": 0, "timestamp": 2, "destination": 9}),
    ("80020000 00000007 00000003 00000009", {"type": 2, "info": 7, "timestamp": 3, "destination": 9}),
    ("80050000 00000000 00000004 00000009", {"type": 5, "info": 0, "timestamp": 4, "destination": 9}),
    ("ffff0003 00000000 00000004 00000009", {"type": 0x7FFF, "subtype": 3, "timestamp": 4, "destination": 9}),
]


@pytest.mark.parametrize(("wire", "fields"), DATA)
def test_data_both_ways(wire: str, fields: dict[str, Any]) -> None:
    raw = bytes.fromhex(wire) + b"payload"
    whole = {"position": 0, "in_order": False, "key": 0, "retransmitted": False, **fields}
    assert packet.decode(raw) == {"kind": "data", "payload": b"payload", **whole}
    assert packet.encode_data(payload=b"payload", **fields) == raw


@pytest.mark.parametrize(("wire", "fields"), CONTROL)
def test_control_both_ways(wire: str, fields: dict[str, Any]) -> None:
    raw = bytes.fromhex(wire) + b"body"
    whole = {"subtype": 0, "info": 0, **fields}
    assert packet.decode(raw) == {"kind": "control", "payload": b"body", **whole}
    kind, timestamp, destination = whole.pop("type"), whole.pop("timestamp"), whole.pop("destination")
    assert packet.encode_control(kind, timestamp, destination, b"body", **whole) == raw


@pytest.mark.parametrize("length", range(16))
def test_a_short_datagram_is_no_packet(length: int) -> None:
    with pytest.raises(ValueError, match=f"a datagram of {length} bytes"):
        packet.decode(bytes(length))


@given(st.integers(0, 0x7FFFFFFF), st.integers(0, 1 << 40), st.integers(-(1 << 29), 1 << 29))
def test_an_index_survives_the_wire(isn: int, near: int, away: int) -> None:
    index = near + away
    assert packet.index_of(isn, packet.sequence_at(isn, index), near) == index


@pytest.mark.parametrize(
    ("isn", "sequence", "near", "index"),
    [
        (0, 0, 0, 0),
        (0x7FFFFFFF, 0, 0, 1),
        (0x7FFFFFFF, 0x7FFFFFFF, 5, 0),
        (0, 0x7FFFFFFF, 0, -1),
        (100, 99, 0x80000000, 0x7FFFFFFF),
        (100, 100, 0x80000000, 0x80000000),
    ],
)
def test_sequence_numbers_go_round(isn: int, sequence: int, near: int, index: int) -> None:
    assert packet.index_of(isn, sequence, near) == index


# Fields of the induction request and its answer, and of a conclusion by libsrt 1.5.1 with a stream id.
HANDSHAKES = [
    (
        "00000004 00000002 00003039 000005dc 00002000 00000001 0000002a 00000000" + "00" * 16,
        {
            "version": 4,
            "extension": 2,
            "isn": 12345,
            "mss": 1500,
            "flow_window_pkts": 8192,
            "kind": 1,
            "socket_id": 42,
            "cookie": 0,
        },
    ),
    (
        "00000005 00004a17 00003039 000005dc 00002000 00000001 0000002a deadbeef" + "0100007f" + "00" * 12,
        {
            "version": 5,
            "extension": 0x4A17,
            "isn": 12345,
            "kind": 1,
            "socket_id": 42,
            "cookie": 0xDEADBEEF,
            "peer_ip": bytes.fromhex("0100007f") + bytes(12),
        },
    ),
    (
        "00000005 00000005 00003039 000005dc 00002000 ffffffff 0000002a deadbeef"
        + "00" * 16
        + "00010003 00010501 000000bf 00780000"
        + "00050003 6c627570 3a687369 006d6163",
        {
            "version": 5,
            "extension": 5,
            "isn": 12345,
            "kind": 0xFFFFFFFF,
            "socket_id": 42,
            "cookie": 0xDEADBEEF,
            "hs_extension": 1,
            "srt_version": 0x010501,
            "flags": 0xBF,
            "receiver_delay_ms": 120,
            "sender_delay_ms": 0,
            "stream_id": b"publish:cam",
        },
    ),
    (
        "00000005 00000001 00003039 000005dc 00002000 ffffffff 0000002a 00000000"
        + "00" * 16
        + "00020003 00010504 0000003f 00780050",
        {
            "version": 5,
            "extension": 1,
            "isn": 12345,
            "kind": 0xFFFFFFFF,
            "socket_id": 42,
            "hs_extension": 2,
            "receiver_delay_ms": 120,
            "sender_delay_ms": 80,
        },
    ),
    (
        "00000005 00020003 00003039 000005dc 00002000 ffffffff 0000002a 00000000"
        + "00" * 16
        + "00020003 00010504 0000003f 00780050"
        + "00040001 00000004",
        {
            "version": 5,
            "encryption": 2,
            "extension": 3,
            "isn": 12345,
            "kind": 0xFFFFFFFF,
            "socket_id": 42,
            "hs_extension": 2,
            "sender_delay_ms": 80,
            "key_material": bytes.fromhex("00000004"),
        },
    ),
    (
        "00000005 00000000 00003039 000005dc 00002000 000003f3 0000002a 00000000" + "00" * 16,
        {"version": 5, "isn": 12345, "kind": 1011, "socket_id": 42},
    ),
]


@pytest.mark.parametrize(("wire", "fields"), HANDSHAKES)
def test_handshakes_both_ways(wire: str, fields: dict[str, Any]) -> None:
    raw = bytes.fromhex(wire)
    assert handshake.encode(**fields) == raw
    decoded = handshake.decode(raw)
    extension = fields.pop("hs_extension", None)
    if extension is not None:
        assert extension in decoded["seen"]
    assert {name: decoded[name] for name in fields} == fields


@pytest.mark.parametrize("length", [0, 1, 12, 47])
def test_a_short_handshake_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="48 at least"):
        handshake.decode(bytes(length))


@pytest.mark.parametrize(
    "extension",
    [
        "00010003",  # says 12 bytes, has none
        "00010002 00010501 000000bf",  # an HSREQ without delays
        "00050081" + "41" * 516,  # a stream id over 512 bytes
        "00640001",  # unknown, and cut off
        "ffffffff 00000000",
    ],
)
def test_malformed_extensions(extension: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        handshake.decode(handshake.encode() + bytes.fromhex(extension))


@pytest.mark.parametrize(
    ("extension", "seen", "congestion"),
    [
        ("00640001 00000000", [], b""),
        ("00030000", [3], b""),
        ("00060001 6576696c", [6], b"live"),
        ("00060002 656c6966 00000000", [6], b"file"),
        ("00060008" + "41" * 32, [6], b"A" * 15),
        ("00", [], b""),  # too short to be an extension
    ],
)
def test_extensions_told_apart(extension: str, seen: list[int], congestion: bytes) -> None:
    decoded = handshake.decode(handshake.encode() + bytes.fromhex(extension))
    assert (decoded["seen"], decoded["congestion"]) == (seen, congestion)


@given(st.binary(max_size=512).filter(lambda text: not text.endswith(b"\0")))
def test_stream_ids_survive(text: bytes) -> None:
    assert handshake.decode(handshake.encode(hs_extension=1, stream_id=text))["stream_id"] == text


@given(st.binary(max_size=700))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        decoded = handshake.decode(data)
    except ValueError:
        return
    assert len(decoded["stream_id"]) <= 512


# From the reference implementation's test vectors: key 00..0f, message 00..(n-1).
@pytest.mark.parametrize(
    ("length", "value"),
    [(0, 0x726FDB47DD0E0E31), (1, 0x74F839C593DC67FD), (7, 0xAB0200F58B01D137), (15, 0xA129CA6149BE45E5)],
)
def test_siphash(length: int, value: int) -> None:
    assert cookie.hash_bytes(bytes(range(16)), bytes(range(length))) == value
