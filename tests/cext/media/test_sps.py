from __future__ import annotations

from pathlib import Path

import pytest
from flux.cext.media import sps
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.bits import Bits, escape

CODECS = {"h264": 1, "h265": 2}
TABLE = [
    line.split()
    for line in Path(__file__).with_name("sequence_parameter_sets.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(row[:8]))
def test_sets_of_real_encoders(row):
    codec, size, profile, level, rate, chroma, depth, scan, nal = row
    found = sps.parse(CODECS[codec], bytes.fromhex(nal))
    width, height = size.split("x")
    assert (found["width"], found["height"]) == (int(width), int(height))
    assert (found["profile"], found["level"]) == (int(profile), int(level))
    assert found["fps_millihz"] == int(rate)
    assert found["chroma_format"] == int(chroma)
    assert found["luma_depth"] == found["chroma_depth"] == int(depth)
    assert found["interlaced"] == (scan == "interlaced")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(row[:8]))
def test_cut_sets_are_refused_or_say_the_same(row):
    """What lies behind the size is needed for the frame rate only."""
    codec, nal = CODECS[row[0]], bytes.fromhex(row[8])
    whole = sps.parse(codec, nal)
    refused = 0
    for length in range(len(nal)):
        try:
            found = sps.parse(codec, nal[:length])
        except ValueError:
            refused += 1
            continue
        rate = found.pop("fps_millihz")
        assert rate in (0, whole["fps_millihz"])
        assert found == {name: value for name, value in whole.items() if name != "fps_millihz"}
    assert refused >= 5


def h264_set(
    *,
    profile=100,
    chroma=1,
    depths=(8, 8),
    scaling=None,
    poc=0,
    mbs=(40, 23),
    interlaced=False,
    crop=None,
    timing=None,
    sar=None,
    separate=False,
    identifier=0,
) -> bytes:
    """An SPS of H.264 (7.3.2.1.1). scaling: sizes of the lists that are present, None where one is not."""
    b = Bits().u(8, profile).u(8, 0).u(8, 31).ue(identifier)
    if profile in (100, 110, 122, 244):
        b.ue(chroma)
        if chroma == 3:
            b.u(1, separate)
        b.ue(depths[0] - 8).ue(depths[1] - 8).u(1, 0).u(1, scaling is not None)
        for n, present in enumerate(scaling or []):
            b.u(1, present is not None)
            if present is not None:
                for value in present:
                    b.se(value)
            assert n < 12
    b.ue(4).ue(poc)
    if poc == 0:
        b.ue(4)
    elif poc == 1:
        b.u(1, 0).se(-3).se(7).ue(3).se(1).se(-1).se(2)
    b.ue(2).u(1, 0).ue(mbs[0] - 1).ue(mbs[1] - 1).u(1, not interlaced)
    if interlaced:
        b.u(1, 1)
    b.u(1, 1).u(1, crop is not None)
    for value in crop or ():
        b.ue(value)
    b.u(1, timing is not None or sar is not None)
    if timing is not None or sar is not None:
        b.u(1, sar is not None)
        if sar is not None:
            b.u(8, 255).u(16, sar[0]).u(16, sar[1])
        b.u(1, 0).u(1, 0).u(1, 0).u(1, timing is not None)
        if timing is not None:
            b.u(32, timing[0]).u(32, timing[1]).u(1, 1)
        b.u(4, 0)
    return b"\x67" + escape(b.bytes())


FLAT_16 = [8] + [0] * 15
FALL_BACK = [-8]  # the first delta makes nextScale 0: nothing follows


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"width": 640, "height": 368, "fps_millihz": 0}),
        ({"profile": 66}, {"profile": 66, "chroma_format": 1, "luma_depth": 8}),
        ({"crop": (1, 2, 3, 4)}, {"width": 634, "height": 354}),
        ({"chroma": 0, "crop": (1, 2, 3, 4)}, {"width": 637, "height": 361}),
        ({"chroma": 2, "profile": 122, "crop": (1, 2, 3, 4)}, {"width": 634, "height": 361}),
        ({"chroma": 3, "profile": 244, "crop": (1, 2, 3, 4)}, {"width": 637, "height": 361}),
        (
            {"chroma": 3, "profile": 244, "separate": True, "crop": (1, 2, 3, 4)},
            {"width": 637, "height": 361},
        ),
        ({"interlaced": True, "mbs": (120, 34), "crop": (0, 0, 0, 2)}, {"width": 1920, "height": 1080}),
        ({"poc": 1}, {"width": 640, "height": 368}),
        ({"poc": 2}, {"width": 640, "height": 368}),
        ({"depths": (10, 9), "profile": 110}, {"luma_depth": 10, "chroma_depth": 9}),
        ({"scaling": [FLAT_16] * 6 + [None, None]}, {"width": 640}),
        ({"scaling": [None] * 6 + [FALL_BACK, [1] * 64]}, {"width": 640}),
        ({"scaling": [FALL_BACK] * 12, "chroma": 3, "profile": 244}, {"width": 640}),
        ({"timing": (1001, 60000)}, {"fps_millihz": 29970}),
        ({"timing": (1, 50), "sar": (64, 45)}, {"fps_millihz": 25000}),
        ({"timing": (0, 50)}, {"fps_millihz": 0}),
        ({"timing": (1, 0)}, {"fps_millihz": 0}),
        ({"timing": (1, 2**32 - 1)}, {"fps_millihz": 0}),
        ({"mbs": (1024, 1)}, {"width": 16384, "height": 16}),
    ],
)
def test_h264_syntax(fields, expected):
    found = sps.parse(1, h264_set(**fields))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"mbs": (1025, 1)},
        {"mbs": (1, 2**31)},
        {"chroma": 4},
        {"depths": (15, 8)},
        {"poc": 3},
        {"crop": (160, 160, 0, 0)},
        {"crop": (0, 0, 2**32 - 2, 2**32 - 2)},
    ],
)
def test_h264_sets_that_can_not_be(fields):
    with pytest.raises(ValueError, match="sequence parameter set"):
        sps.parse(1, h264_set(**fields))


def h265_set(
    *,
    layers=0,
    sublayers=(),
    chroma=1,
    size=(640, 360),
    crop=None,
    depths=(8, 8),
    lists=None,
    pcm=False,
    short_term=(),
    long_term=0,
    timing=None,
) -> bytes:
    """An SPS of H.265 (7.3.2.2). short_term: one function a set, which writes it."""
    b = Bits().u(4, 0).u(3, layers).u(1, 1).u(8, 1).u(32, 0x60000000).u(32, 0).u(16, 0).u(8, 93)
    for present in sublayers:
        b.u(2, present)
    if layers:
        b.u(2 * (8 - layers), 0)
    for present in sublayers:
        b.u(88 if present & 2 else 0, 0).u(8 if present & 1 else 0, 0)
    b.ue(0).ue(chroma)
    if chroma == 3:
        b.u(1, 0)
    b.ue(size[0]).ue(size[1]).u(1, crop is not None)
    for value in crop or ():
        b.ue(value)
    b.ue(depths[0] - 8).ue(depths[1] - 8).ue(4).u(1, 1)
    for _ in range(layers + 1):
        b.ue(4).ue(2).ue(0)
    b.ue(0).ue(3).ue(0).ue(3).ue(1).ue(1)
    b.u(1, lists is not None)
    if lists is not None:
        b.u(1, 1)
        lists(b)
    b.u(2, 0).u(1, pcm)
    if pcm:
        b.u(8, 0x77).ue(0).ue(1).u(1, 1)
    b.ue(len(short_term))
    for write in short_term:
        write(b)
    b.u(1, long_term > 0)
    if long_term:
        b.ue(long_term)
        for _ in range(long_term):
            b.u(8, 3).u(1, 1)
    b.u(2, 0).u(1, timing is not None)
    if timing is not None:
        b.u(1, 0).u(1, 0).u(1, 0).u(1, 0).u(3, 0).u(1, 0).u(1, 1).u(32, timing[0]).u(32, timing[1])
        b.u(1, 0).u(1, 0).u(1, 0).u(1, 0)
    return b"\x42\x01" + escape(b.bytes())


def explicit(negative: int, positive: int):
    def write(b: Bits, first: bool = False) -> None:
        b.ue(negative).ue(positive)
        for _ in range(negative + positive):
            b.ue(0).u(1, 1)

    return write


def after_first(write):
    return lambda b: write(b.u(1, 0))


def predicted(before: int, used: str):
    """A set predicted from one of `before` pictures; used: "1", "01" or "00" for each and one more."""
    assert len(used.split()) == before + 1

    def write(b: Bits) -> None:
        b.u(1, 1).u(1, 0).ue(0)
        for code in used.split():
            b.u(len(code), int(code, 2))

    return write


def flat_lists(b: Bits) -> None:
    for size in range(4):
        for matrix in range(0, 6, 3 if size == 3 else 1):
            if matrix % 2:
                b.u(1, 0).ue(1)
                continue
            b.u(1, 1)
            if size > 1:
                b.se(8)
            for _ in range(min(64, 1 << (4 + 2 * size))):
                b.se(0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"width": 640, "height": 360, "temporal_layers": 1, "level": 93}),
        ({"crop": (1, 2, 3, 4)}, {"width": 634, "height": 346}),
        ({"crop": (1, 2, 3, 4), "chroma": 2}, {"width": 634, "height": 353}),
        ({"crop": (1, 2, 3, 4), "chroma": 3}, {"width": 637, "height": 353}),
        ({"crop": (1, 2, 3, 4), "chroma": 0}, {"width": 637, "height": 353}),
        ({"depths": (12, 10)}, {"luma_depth": 12, "chroma_depth": 10}),
        ({"layers": 2, "sublayers": (3, 1)}, {"width": 640, "temporal_layers": 3}),
        ({"layers": 6, "sublayers": (0, 1, 2, 3, 0, 3)}, {"width": 640, "temporal_layers": 7}),
        ({"size": (16384, 16)}, {"width": 16384, "height": 16}),
        ({"lists": flat_lists}, {"fps_millihz": 25000}),
        ({"pcm": True}, {"fps_millihz": 25000}),
        ({"long_term": 3}, {"fps_millihz": 25000}),
        ({"short_term": [explicit(2, 1)]}, {"fps_millihz": 25000}),
        ({"short_term": [explicit(2, 1), after_first(explicit(16, 0))]}, {"fps_millihz": 25000}),
        (
            {"short_term": [explicit(2, 1), predicted(3, "1 01 00 1"), predicted(3, "1 1 1 00")]},
            {"fps_millihz": 25000},
        ),
        ({"layers": 1, "sublayers": (1,), "lists": flat_lists, "pcm": True}, {"fps_millihz": 25000}),
    ],
)
def test_h265_syntax(fields, expected):
    found = sps.parse(2, h265_set(**fields, timing=(1, 25)))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"size": (16385, 16)},
        {"size": (2**32 - 2, 16)},
        {"chroma": 4},
        {"depths": (17, 8)},
        {"crop": (160, 160, 0, 0)},
        {"size": (0, 16)},
    ],
)
def test_h265_sets_that_can_not_be(fields):
    with pytest.raises(ValueError, match="sequence parameter set"):
        sps.parse(2, h265_set(**fields))


@pytest.mark.parametrize("short_term", [[explicit(17, 0)], [explicit(0, 17)], [explicit(1, 0)] * 65])
def test_h265_parts_that_can_not_be_leave_the_rate_unknown(short_term):
    first, *rest = short_term
    found = sps.parse(2, h265_set(short_term=[first, *map(after_first, rest)], timing=(1, 25)))
    assert (found["width"], found["fps_millihz"]) == (640, 0)


def parsed(codec: int, data: bytes) -> dict | None:
    try:
        return sps.parse(codec, data)
    except ValueError:
        return None


def check_bounds(found: dict | None) -> None:
    if found is not None:
        assert 1 <= found["width"] <= 16384
        assert 1 <= found["height"] <= 16384 * 2
        assert found["fps_millihz"] <= 1_000_000
        assert found["chroma_format"] <= 3
        assert 8 <= found["luma_depth"] <= 16
        assert found["temporal_layers"] <= 8


@settings(max_examples=500)
@given(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=100))
def test_anything_is_parsed_or_refused(codec, data):
    check_bounds(parsed(codec, data))


@settings(max_examples=500)
@given(st.sampled_from(TABLE), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), max_size=6))
def test_flipped_bits_are_parsed_or_refused(row, flips):
    data = bytearray(bytes.fromhex(row[8]))
    for at, bit in flips:
        data[at % len(data)] ^= 1 << bit
    check_bounds(parsed(CODECS[row[0]], bytes(data)))
