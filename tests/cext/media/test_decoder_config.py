from __future__ import annotations

import struct
from pathlib import Path

import pytest
from flux.cext.media.decoder_config import record
from flux.cext.media.nal import split
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.bits import Bits
from tests.cext.media.material import ffmpeg

H264, H265 = 1, 2
SPS = bytes.fromhex("6764001facd9405005bb011000000300100000030320f1831960")
PPS = bytes.fromhex("68ebe3cb22c0")


def nals_of(data: bytes) -> list[bytes]:
    return [data[at : at + length] for at, length in split(data)]


def sets_of(data: bytes, codec: int) -> list[bytes]:
    """The parameter sets of a stream, each once, in the order in which they come."""
    found = []
    for nal in nals_of(data):
        kind = nal[0] & 31 if codec == H264 else nal[0] >> 1 & 63
        if kind in ((7, 8) if codec == H264 else (32, 33, 34)) and nal not in found:
            found.append(nal)
    return found


def box(data: bytes, name: bytes) -> bytes:
    """The content of an MP4 box that lies anywhere."""
    at = data.index(name)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    return data[at + 4 : at - 4 + length]


@pytest.mark.parametrize(
    ("codec", "pixels", "options"),
    [
        (H264, "yuv420p", ["-c:v", "libx264", "-profile:v", "baseline"]),
        (H264, "yuv420p", ["-c:v", "libx264", "-profile:v", "main", "-bf", "2"]),
        (H264, "yuv420p", ["-c:v", "libx264", "-profile:v", "high"]),
        (H264, "yuv422p10le", ["-c:v", "libx264"]),
        (H264, "yuv444p", ["-c:v", "libx264"]),
        (H265, "yuv420p", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
        (H265, "yuv420p10le", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
        (H265, "yuv422p", ["-c:v", "libx265", "-x265-params", "log-level=none"]),
    ],
)
def test_records_are_those_of_a_real_muxer(clips, tmp_path: Path, codec, pixels, options):
    clips.path("video")  # ffmpeg is there
    picture = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25", "-frames:v", "3", "-pix_fmt", pixels]
    raw, boxed = tmp_path / "raw", tmp_path / "x.mp4"
    ffmpeg(*picture, *options, "-preset", "ultrafast", "-f", "h264" if codec == H264 else "hevc", raw)
    ffmpeg("-f", "h264" if codec == H264 else "hevc", "-r", "25", "-i", raw, "-c", "copy", boxed)
    ours = record(codec, sets_of(raw.read_bytes(), codec))
    theirs = box(boxed.read_bytes(), b"avcC" if codec == H264 else b"hvcC")
    if codec == H264:
        assert ours == theirs
        return
    assert ours[:13] == theirs[:13], "version, profile, tier, level"
    assert ours[16:19] == theirs[16:19], "chroma format and depths"
    assert ours[21] & 0x3F == theirs[21] & 0x3F, "layers, nesting, lengths of four bytes"
    assert parameter_arrays(ours) == parameter_arrays(theirs)


def parameter_arrays(hvcc: bytes) -> dict[int, list[bytes]]:
    """VPS, SPS and PPS out of an HEVCDecoderConfigurationRecord (14496-15, 8.3.3.1)."""
    at = 23
    found: dict[int, list[bytes]] = {}
    for _ in range(hvcc[22]):
        kind, count = hvcc[at] & 0x3F, int.from_bytes(hvcc[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(hvcc[at : at + 2], "big")
            found.setdefault(kind, []).append(hvcc[at + 2 : at + 2 + length])
            at += 2 + length
    return {kind: found[kind] for kind in (32, 33, 34)}


def test_nothing_while_a_set_is_missing():
    assert record(H264, []) == b""
    assert record(H264, [SPS]) == b""
    assert record(H264, [PPS]) == b""
    assert record(H264, [SPS, PPS]) != b""


def test_the_layout():
    found = record(H264, [SPS, PPS])
    assert found[:6] == bytes([1, *SPS[1:4], 0xFF, 0xE1])
    assert (
        found[6:]
        == b"\x00" + bytes([len(SPS)]) + SPS + b"\x01\x00" + bytes([len(PPS)]) + PPS + b"\xfd\xf8\xf8\x00"
    )


def test_a_set_replaces_the_one_of_its_number():
    other = PPS[:-1] + b"\xc1"
    assert record(H264, [SPS, PPS, other]) == record(H264, [SPS, other])
    assert record(H264, [SPS, PPS, PPS, SPS]) == record(H264, [SPS, PPS])
    second = b"\x68\x5b\xe3\xcb\x22\xc0"  # pic_parameter_set_id 1
    found = record(H264, [SPS, PPS, second])
    assert second in found
    assert PPS in found


def test_only_so_many_are_kept():
    many = [b"\x68" + Bits().ue(n).u(8, 0xAA).bytes() for n in range(40)]
    found = record(H264, [SPS, *many])
    assert sum(pps in found for pps in many) == 15
    assert all(pps in found for pps in many[-15:]), "the oldest make room"


@pytest.mark.parametrize(
    "nals",
    [[b""], [b"\x67"], [b"\x67\x64"], [SPS, b"\x68"], [SPS, b"\x68" + bytes(3)], [b"\x68\xff" + bytes(1023)]],
)
def test_broken_sets(nals):
    with pytest.raises(ValueError, match="broken"):
        record(H264, nals)


def test_sets_that_are_too_long_together():
    with pytest.raises(ValueError, match="too long"):
        record(H264, [SPS, *(b"\x68" + Bits().ue(n).bytes() + b"\xaa" * 1000 for n in range(5))])


@settings(max_examples=300)
@given(
    st.sampled_from([H264, H265]),
    st.lists(st.tuples(st.sampled_from([7, 8, 13, 32, 33, 34]), st.binary(max_size=60)), max_size=30),
)
def test_anything(codec, sets):
    nals = [(bytes([kind & 31]) if codec == H264 else bytes([kind << 1, 1])) + rest for kind, rest in sets]
    try:
        found = record(codec, nals)
    except ValueError:
        return
    assert len(found) <= 4096
    assert not found or found[0] == 1
