from __future__ import annotations

import struct

import pytest
from flux.cext.media.ts import crc32, parse_packet, parse_pes, section_packets, unwrap
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.ts_write import Writer, pat, pes, pmt

K33 = 1 << 33


def packet(head: str, payload: bytes = b"") -> bytes:
    return (bytes.fromhex(head) + payload).ljust(188, b"\xff")


def pcr_bytes(pcr: int) -> bytes:
    base, extension = divmod(pcr, 300)
    return (base << 15 | 0x7E00 | extension).to_bytes(6, "big")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (packet("47 4100 10"), {"pid": 0x100, "start": True, "continuity": 0, "payload": b"\xff" * 184}),
        (packet("47 1fff 1f"), {"pid": 0x1FFF, "start": False, "continuity": 15}),
        (packet("47 8100 10"), {"error": True, "pid": 0x100}),
        (packet("47 0100 d5"), {"scrambling": 3, "continuity": 5}),
        (packet("47 0100 20 b7 00"), {"payload": b"", "stuffing": 182}),
        (packet("47 0100 30 00 aa"), {"payload": b"\xaa" + b"\xff" * 182, "stuffing": 1}),
        (packet("47 0100 30 01 40"), {"random_access": True, "stuffing": 0, "discontinuity": False}),
        (packet("47 0100 30 01 80"), {"discontinuity": True}),
        (packet("47 0100 30 b6 00", b"\xff" * 181 + b"x"), {"payload": b"x", "stuffing": 181}),
        (packet("47 0100 30 b7 00"), {"payload": b"", "stuffing": 182}),
        (packet("47 0100 30 07 10" + pcr_bytes(123456789).hex()), {"pcr": 123456789, "stuffing": 0}),
        (
            packet("47 0100 30 0d 18" + pcr_bytes(K33 * 300 - 1).hex() + pcr_bytes(0).hex()),
            {"pcr": K33 * 300 - 1, "stuffing": 0},
        ),
        (packet("47 0100 30 03 10 0000"), {"pcr": None}),  # too short for the PCR that it announces
        (packet("47 0100 30 05 02 02 aabb ff"), {"stuffing": 1}),
        (packet("47 0100 30 05 02 f0 aabb ff"), {"stuffing": 0}),  # private data that lies about its length
    ],
)
def test_packets(data, expected):
    found = parse_packet(data)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "data",
    [
        packet("48 4100 10"),
        packet("47 0100 30 b8"),
        packet("47 0100 30 ff"),
        b"",
        b"\x47" * 187,
        b"\x47" * 189,
    ],
)
def test_malformed_packets(data):
    with pytest.raises(ValueError, match="malformed"):
        parse_packet(data)


@given(st.binary(min_size=188, max_size=188))
def test_any_packet(data):
    data = b"\x47" + data[1:]
    try:
        found = parse_packet(data)
    except ValueError:
        assert data[3] & 0x20
        assert data[4] > 183
        return
    assert found["pid"] == int.from_bytes(data[1:3], "big") & 0x1FFF
    assert data.endswith(found["payload"])
    assert found["stuffing"] <= 183
    assert found["pcr"] is None or found["pcr"] < K33 * 300 + 512


@pytest.mark.parametrize(
    ("data", "crc"), [(b"", 0xFFFFFFFF), (b"123456789", 0x0376E6E7), (bytes(4), 0xC704DD7B)]
)
def test_crc(data, crc):
    """CRC-32/MPEG-2: its check value is a known one."""
    assert crc32(data) == crc


@given(st.binary(max_size=200))
def test_a_section_with_its_crc_gives_zero(data):
    assert crc32(data + crc32(data).to_bytes(4, "big")) == 0


@given(st.binary(min_size=3, max_size=1021), st.integers(0, 0x1FFF))
def test_sections_in_packets(section, pid):
    data = section_packets(section, pid)
    assert len(data) % 188 == 0
    assert len(data) // 188 == (len(section) + 1 + 183) // 184
    joined = b""
    for n, at in enumerate(range(0, len(data), 188)):
        found = parse_packet(data[at : at + 188])
        assert (found["pid"], found["start"], found["continuity"]) == (pid, n == 0, n & 15)
        joined += found["payload"]
    assert joined[0] == 0
    assert joined[1 : 1 + len(section)] == section
    assert set(joined[1 + len(section) :]) <= {0xFF}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            pes(b"", 90000),
            {"stream_id": 0xE0, "header_bytes": 14, "pts": 90000, "payload_bytes": 0},
        ),
        (pes(b"", K33 - 1, 5), {"header_bytes": 19, "pts": K33 - 1, "dts": 5}),
        (pes(b"abc", 7, kind=0xC0, bounded=True), {"stream_id": 0xC0, "payload_bytes": 3, "pts": 7}),
        (pes(b"abc"), {"pts": None, "dts": None, "header_bytes": 9}),
        (
            b"\x00\x00\x01\xbe\x00\x10" + bytes(16),
            {"header_bytes": 6, "payload_bytes": 16},
        ),
        (b"\x00\x00\x01\xbf\x00\x01x", {"stream_id": 0xBF, "header_bytes": 6, "payload_bytes": 1}),
        (b"\x00\x00\x01\xe0\x00\x00\x80\x80\x04" + bytes(4), {"pts": None, "header_bytes": 13}),
        (b"\x00\x00\x01\xe0\x00\x00\x80\xc0\x05!\x00\x01\x00\x01", {"pts": 0, "dts": 0}),
        (b"\x00\x00\x01\xe0\x00\x00\x80\x40\x05" + bytes(5), {"pts": None}),  # DTS alone is forbidden
        (b"\x00\x00\x01\xe0\x00\x00\x80\x00\xff" + bytes(255), {"header_bytes": 264}),
    ],
)
def test_pes_headers(data, expected):
    found = parse_pes(data)
    assert {name: found[name] for name in expected} == expected
    for length in range(found["header_bytes"]):
        assert parse_pes(data[:length]) is None or data[3] in (0xBE, 0xBF)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x02",
        b"\x01",
        b"\x00\x01",
        b"\x00\x00\x01\xe0\x00\x00\x40\x00\x00",
        b"\x00\x00\x01\xe0\x00\x04\x80\x80\x05!\x00\x01\x00\x01",  # the header is longer than the packet
    ],
)
def test_what_is_no_pes(data):
    with pytest.raises(ValueError, match="PES"):
        parse_pes(data)


@given(st.binary(max_size=300))
def test_any_pes(data):
    try:
        found = parse_pes(b"\x00\x00\x01" + data)
    except ValueError:
        return
    if found is not None:
        assert 6 <= found["header_bytes"] <= 264
        assert found["header_bytes"] <= 3 + len(data)
        assert found["payload_bytes"] <= 65535
        assert found["pts"] is None or (found["pts"] < K33 and found["dts"] < K33)


@pytest.mark.parametrize(
    ("reference", "value", "expected"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (0, K33 - 1, -1),
        (K33 - 1, 0, K33),
        (K33, K33 - 1, K33 - 1),
        (5 * K33 + 7, 9, 5 * K33 + 9),
        (-10, 0, 0),
        (0, K33 // 2 - 1, K33 // 2 - 1),
        (0, K33 // 2, -K33 // 2),
    ],
)
def test_unwrap(reference, value, expected):
    assert unwrap(reference, value) == expected


@given(st.integers(-(2**60), 2**60), st.integers(0, K33 - 1))
def test_unwrap_gives_the_nearest(reference, value):
    found = unwrap(reference, value)
    assert found % K33 == value
    assert abs(found - reference) <= K33 // 2


@settings(max_examples=50)
@given(st.binary(max_size=2000), st.integers(0, K33 - 1), st.booleans())
def test_what_the_tests_write_is_what_is_parsed(data, pts, key):
    """The writer of the tests against the parser, so that neither is wrong alone."""
    written = Writer().packets(pes(data, pts), 0x321, key=key)
    payload = b""
    for n, at in enumerate(range(0, len(written), 188)):
        found = parse_packet(written[at : at + 188])
        assert (found["pid"], found["start"], found["continuity"]) == (0x321, n == 0, n & 15)
        assert found["random_access"] == (key and n == 0)
        payload += found["payload"]
    header = parse_pes(payload)
    assert header["pts"] == pts
    assert payload[header["header_bytes"] :] == data


def test_sections_that_the_tests_write():
    assert struct.unpack(">H", pat()[1:3])[0] & 0xFFF == len(pat()) - 3
    assert crc32(pat()) == crc32(pmt([(0x1B, 0x100)])) == 0
