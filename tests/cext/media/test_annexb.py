"""Access units out of PES packets, through TsIngest."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.material import CONFIG, FRAME, KEY, VIDEO, Stream
from tests.cext.media.test_decoder_config import PPS, SPS
from tests.cext.media.test_sps import h264_set
from tests.cext.media.ts_write import Writer, pes

V = 0x100
AUD = b"\x09\xf0"
SEI = b"\x06\x05\x04abcd\x80"
LONG, SHORT = b"\x00\x00\x00\x01", b"\x00\x00\x01"


def slice_nal(n: int, *, key: bool = False, first: bool = True, size: int = 40) -> bytes:
    """A slice of picture n; first: its first_mb_in_slice is 0."""
    return (b"\x65" if key else b"\x41") + (b"\x88" if first else b"\x48") + bytes([1 + n % 250]) * size


def unit(n: int, *, slices: int = 1, aud: bool = True, sei: bool = True) -> list[bytes]:
    """The NAL units of picture n; each tenth is a keyframe with its parameter sets."""
    key = n % 10 == 0
    head = ([AUD] if aud else []) + ([SPS, PPS] if key else []) + ([SEI] if sei else [])
    return head + [slice_nal(n, key=key, first=i == 0) for i in range(slices)]


def annexb(nals: list[bytes], start: bytes = LONG) -> bytes:
    return b"".join(start + nal for nal in nals)


class Pictures:
    def __init__(self, **sizes: int) -> None:
        self.stream = Stream(**{"frame_ring_bytes": 8 << 20, "wire_ring_bytes": 8 << 20, **sizes})
        self.writer = Writer()
        self.stream.feed(self.writer.tables((0x1B, V)))

    def pes(self, data: bytes, pts: int | None = None, dts: int | None = None) -> None:
        self.stream.feed(self.writer.packets(pes(data, pts, dts), V), piece=188 * 64)

    def frames(self) -> list[tuple[int, list[bytes]]]:
        """(pts, NAL units) of each access unit."""
        self.stream.end()
        out = []
        for r in self.stream.records(FRAME, VIDEO, without=CONFIG):
            data, nals = self.stream.payload(r), []
            while data:
                (length,) = struct.unpack(">I", data[:4])
                nals.append(data[4 : 4 + length])
                data = data[4 + length :]
            out.append((int(r["pts_ticks"]), nals))
        return out


def kept(nals: list[bytes]) -> list[bytes]:
    """What of an access unit goes into a frame."""
    return [nal for nal in nals if nal[0] & 31 not in (7, 8, 9, 12)]


def expected(count: int, **kw) -> list[tuple[int, list[bytes]]]:
    return [(90000 + 3600 * n, kept(unit(n, **kw))) for n in range(count)]


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("aud", [True, False])
@pytest.mark.parametrize("start", [LONG, SHORT])
def test_a_unit_a_pes(slices, aud, start):
    pictures = Pictures()
    for n in range(25):
        pictures.pes(annexb(unit(n, slices=slices, aud=aud), start), 90000 + 3600 * n)
    assert pictures.frames() == expected(25, slices=slices, aud=aud)
    assert len(pictures.stream.records(FRAME, VIDEO | KEY)) == 3
    assert len(pictures.stream.records(FRAME, VIDEO | CONFIG)) == 1


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("a_pes", [2, 5])
def test_several_units_a_pes_are_told_apart(slices, a_pes):
    pictures = Pictures()
    for n in range(0, 20, a_pes):
        data = b"".join(annexb(unit(n + i, slices=slices)) for i in range(a_pes))
        pictures.pes(data, 90000 + 3600 * n)
    # Those without times follow at the rate of the others.
    assert pictures.frames() == expected(20, slices=slices)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6000), max_size=40), st.sampled_from([1, 3]), st.booleans())
def test_units_that_go_over_pes_borders(cuts, slices, aud):
    """Cut anywhere after the first, with a time where a unit begins: all slices come out, in their units.

    But for the unit in whose middle it is first seen that borders don't count, and the one before if too
    little of that is there to tell it apart.
    """
    units = [unit(n, slices=slices, aud=aud, sei=aud) for n in range(30)]
    starts, heads, at = [], set(), 0
    for nals in units:
        starts.append(at)
        for nal in nals:
            if nal[0] & 31 > 5 or nal[1] & 0x80:
                heads |= {at, at + 1}  # a unit may begin here; start codes have three bytes, or four
            at += 4 + len(nal)
    places = sorted({0, starts[1], *(starts[1] + cut % (at - starts[1]) for cut in cuts)})
    pictures = Pictures()
    data = b"".join(map(annexb, units))
    for begin, end in pairwise([*places, at]):
        pictures.pes(data[begin:end], 90000 + 3600 * starts.index(begin) if begin in starts else None)
    border = next((place for place in places if place not in heads), at)
    hit = next((n for n in range(30) if starts[n] < border < [*starts, at][n + 1]), 99)
    found = iter([[nal for nal in nals if nal[0] & 31 <= 5] for _, nals in pictures.frames()])
    for n in range(30):
        assert hit - 1 <= n <= hit or units[n][-slices:] in found, f"unit {n} is whole, and behind the others"


def test_times_of_b_frames():
    pictures = Pictures()
    order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    for n, shown in enumerate(order):
        pictures.pes(annexb(unit(n)), 90000 + 3600 * (shown + 1), 90000 + 3600 * n)
    pictures.stream.end()
    records = pictures.stream.records(FRAME, VIDEO, without=CONFIG)
    assert records["dts_ticks"].tolist() == [90000 + 3600 * n for n in range(10)]
    assert records["pts_ticks"].tolist() == [90000 + 3600 * (shown + 1) for shown in order]


def test_filler_and_zeros_are_left_out():
    pictures = Pictures()
    filler = b"\x0c" + b"\xff" * 50 + b"\x80"
    for n in range(12):
        nals = unit(n)
        data = annexb([*nals[:-1], filler, nals[-1]]) + bytes(7)
        pictures.pes(data, 90000 + 3600 * n)
    assert pictures.frames() == expected(12)


def test_broken_units_pass_but_are_counted():
    pictures = Pictures()
    for n in range(5):
        pictures.pes(annexb([*unit(n), b"\xc1broken"]), 90000 + 3600 * n)
    assert [nals[:2] for _, nals in pictures.frames()] == [nals for _, nals in expected(5)]
    assert pictures.stream.count("nals_broken") == 5


def test_refused_parameter_sets_are_counted():
    pictures = Pictures()
    for n in range(12):
        nals = unit(n)
        if n == 5:
            nals.insert(1, b"\x67\x64")
            nals.insert(1, b"\x68" + bytes(2000) + b"\x01")
        pictures.pes(annexb(nals), 90000 + 3600 * n)
    assert pictures.frames() == expected(12)
    assert pictures.stream.count("parameter_sets_refused") == 2


def test_what_comes_before_parameter_sets_is_counted():
    pictures = Pictures()
    for n in range(5, 15):
        pictures.pes(annexb(unit(n)), 90000 + 3600 * n)
    assert pictures.frames() == expected(15)[10:]
    assert pictures.stream.count("access_units_without_config") == 5


def test_fields_of_interlaced_pictures_stay_together():
    pictures = Pictures()
    sps = h264_set(interlaced=True)
    for n in range(6):
        fields = [slice_nal(n, key=n == 0), slice_nal(n, key=False)]
        sets = [sps, PPS] if n == 0 else []
        pictures.pes(annexb([AUD, *sets, *fields]), 90000 + 3600 * n)
    assert [len(nals) for _, nals in pictures.frames()] == [2] * 6


def test_units_that_are_too_large_are_dropped_alone():
    pictures = Pictures(wire_ring_bytes=16 << 20, frame_ring_bytes=16 << 20)
    for n in range(6):
        nals = unit(n)
        if n == 3:
            nals[-1] = slice_nal(n, size=(4 << 20) + 1000)
        pictures.pes(annexb(nals), 90000 + 3600 * n)
    found = expected(6)
    assert pictures.frames() == found[:3] + found[4:]
    assert pictures.stream.count("access_units_too_large") == 1


def test_units_of_too_many_nals_are_dropped_alone():
    pictures = Pictures()
    for n in range(6):
        nals = unit(n)
        if n == 3:
            nals += [slice_nal(n, first=False, size=1)] * 9000
        pictures.pes(annexb(nals), 90000 + 3600 * n)
    found = expected(6)
    assert pictures.frames() == found[:3] + found[4:]
    assert pictures.stream.count("access_units_too_large") == 1
