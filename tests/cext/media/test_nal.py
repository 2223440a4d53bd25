from __future__ import annotations

import re

import pytest
from flux.cext.media import nal
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.bits import Bits, escape

H264, H265 = 1, 2
OTHER, VCL, KEY, PARAMETERS, DELIMITER, FILLER, SEI, BROKEN = range(8)


@pytest.mark.parametrize(
    ("codec", "types", "role"),
    [
        (H264, [1, 2, 3, 4], VCL),
        (H264, [5], KEY),
        (H264, [6], SEI),
        (H264, [7, 8, 13], PARAMETERS),
        (H264, [9], DELIMITER),
        (H264, [12], FILLER),
        (H264, [0, 10, 11, 14, 15, 16, 19, 20, 21, 24, 31], OTHER),
        (H265, [*range(16), *range(24, 32)], VCL),
        (H265, range(16, 24), KEY),
        (H265, [32, 33, 34], PARAMETERS),
        (H265, [35], DELIMITER),
        (H265, [38], FILLER),
        (H265, [39], SEI),
        (H265, [36, 37, 40, 41, 48, 63], OTHER),
    ],
)
def test_roles(codec, types, role):
    for number in types:
        head = bytes([0x60 | number]) if codec == H264 else bytes([number << 1, 1])
        assert nal.role(codec, head + b"\x80") == role


@pytest.mark.parametrize(
    ("codec", "data"), [(H264, b""), (H264, b"\x80"), (H264, b"\xe5x"), (H265, b"\x26"), (H265, b"\x80\x01")]
)
def test_broken_headers(codec, data):
    assert nal.role(codec, data) == BROKEN


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (b"", b""),
        (b"\x00\x00\x03", b"\x00\x00"),
        (b"\x00\x00\x03\x01", b"\x00\x00\x01"),
        (b"\x00\x00\x03\x00\x00\x03\x00", b"\x00\x00\x00\x00\x00"),
        (b"\x00\x03", b"\x00\x03"),
        (b"\x01\x00\x00\x03\x03", b"\x01\x00\x00\x03"),
        (b"\x00\x00\x04", b"\x00\x00\x04"),
    ],
)
def test_emulation_prevention(escaped, plain):
    assert nal.unescape(escaped) == plain


NEARLY_ZERO = st.binary(max_size=300).map(lambda b: bytes(x % 5 for x in b))


@given(NEARLY_ZERO)
def test_what_is_escaped_is_unescaped(data):
    assert nal.unescape(escape(data)) == data
    assert b"\x00\x00\x01" not in escape(data)


def split_slowly(data: bytes) -> list[tuple[int, int]]:
    """Annex B by the book."""
    starts = [match.start() for match in re.finditer(rb"(?=\x00\x00\x01)", data)]
    spans = []
    for n, start in enumerate(starts):
        end = starts[n + 1] if n + 1 < len(starts) else len(data)
        spans.append((start + 3, len(data[start + 3 : end].rstrip(b"\x00"))))
    return spans


@settings(max_examples=400)
@given(st.binary(max_size=400).map(lambda b: bytes(x % 4 if x < 200 else x for x in b)), st.integers(0, 40))
def test_units_are_found_wherever_they_begin(data, offset):
    """The search goes 32 bytes at a time: any alignment, any place of the code at its borders."""
    assert nal.split(data[offset:]) == split_slowly(data[offset:])


def test_a_start_code_at_any_place_of_a_long_run():
    for length in range(100):
        for at in range(length):
            data = bytearray(b"\x55" * length)
            data[at : at + 3] = b"\x00\x00\x01"
            assert nal.split(bytes(data)) == split_slowly(bytes(data))


@pytest.mark.parametrize(
    ("data", "spans"),
    [
        (b"", []),
        (b"\x00\x00", []),
        (b"\x00\x00\x01", [(3, 0)]),
        (b"\x00\x00\x00\x01\x65", [(4, 1)]),
        (b"junk\x00\x00\x01ab\x00\x00\x00\x01c\x00\x00", [(7, 2), (13, 1)]),
    ],
)
def test_split(data, spans):
    assert nal.split(data) == spans


@pytest.mark.parametrize(
    ("data", "unsigned", "signed"),
    [
        (b"\x80", 0, 0),
        (b"\x40", 1, 1),
        (b"\x60", 2, -1),
        (b"\x20", 3, 2),
        (b"\x28", 4, -2),
        (b"\x00\x80", 255 - 0, 128),
        (b"\x00\x00\x00\x01\xff\xff\xff\xff", 2**32 - 2, -(2**31) + 1),
    ],
)
def test_exp_golomb(data, unsigned, signed):
    assert nal.exp_golomb(data + bytes(4)) == unsigned
    assert nal.exp_golomb(data + bytes(4), signed=True) == signed


@given(st.integers(0, 2**32 - 2))
def test_any_exp_golomb_code(value):
    assert nal.exp_golomb(Bits().ue(value).bytes()) == value


@given(st.integers(-(2**31) + 1, 2**31 - 1))
def test_any_signed_exp_golomb_code(value):
    assert nal.exp_golomb(Bits().se(value).bytes(), signed=True) == value


@pytest.mark.parametrize(
    "data", [b"", b"\x00", bytes(3), bytes(4) + b"\xff" * 8, b"\x01", b"\x00\x00\x01\x00"]
)
def test_exp_golomb_past_the_end(data):
    with pytest.raises(ValueError, match="exp-Golomb"):
        nal.exp_golomb(data)


def sei(*messages: tuple[int, bytes]) -> bytes:
    out = b""
    for kind, payload in messages:
        for value in (kind, len(payload)):
            out += b"\xff" * (value // 255) + bytes([value % 255])
        out += payload
    return b"\x06" + escape(out + b"\x80")


RECOVERY = Bits().ue(0).u(4, 0b1000).bytes(trailing=False)
LATER = Bits().ue(5).u(4, 0b1000).bytes(trailing=False)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (sei((6, RECOVERY)), True),
        (sei((6, LATER)), False),
        (sei((0, bytes(20)), (6, RECOVERY)), True),
        (sei((1, b"\x00\x00\x00"), (5, bytes(16) + b"text"), (6, RECOVERY)), True),
        (sei((300, bytes(3)), (6, RECOVERY)), True),
        (sei((5, bytes(600)), (6, RECOVERY)), False),  # too far behind: nobody does that
        (sei((5, RECOVERY)), False),
        (b"", False),
        (b"\x06", False),
        (b"\x06\x06", False),
        (b"\x06\x06\x01", False),
        (b"\x06" + b"\xff" * 300, False),
        (b"\x06\x05\xff\xff\xff\xff", False),
        (b"\x06\x06\x01\x00\x00\x00", False),
    ],
)
def test_recovery_points(data, expected):
    assert nal.recovery_point(data) is expected
