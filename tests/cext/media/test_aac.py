from __future__ import annotations

import pytest
from flux.cext.media import aac
from hypothesis import given
from hypothesis import strategies as st

from tests.cext.media.material import AUDIO, CONFIG, FRAME, Stream
from tests.cext.media.ts_write import Writer, pes

RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350]
PID = 0x101


def adts(payload: bytes, *, rate=3, channels=2, crc=False, blocks=1, length=None, layer=0) -> bytes:
    """An ADTS frame of AAC LC (14496-3, 1.A.2.2)."""
    size = len(payload) + (9 if crc else 7) if length is None else length
    head = 0xFFF << 44 | layer << 41 | (not crc) << 40 | 1 << 38 | rate << 34 | channels << 30 | size << 13
    head |= 0x7FF << 2 | (blocks - 1)
    return head.to_bytes(7, "big") + (b"\xab\xcd" if crc else b"") + payload


@pytest.mark.parametrize("rate", range(13))
@pytest.mark.parametrize("channels", range(8))
@pytest.mark.parametrize("crc", [False, True])
def test_headers(rate, channels, crc):
    found = aac.parse(adts(b"x" * 100, rate=rate, channels=channels, crc=crc))
    assert found["rate_hz"] == RATES[rate]
    assert found["channels"] == channels
    assert found["object_type"] == 2
    assert found["header_bytes"] == (9 if crc else 7)
    assert found["frame_bytes"] == 100 + found["header_bytes"]
    assert found["blocks"] == 1
    assert int.from_bytes(found["config"], "big") == 2 << 11 | rate << 7 | channels << 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        adts(b"x")[:6],
        b"\xfe" + adts(b"x")[1:],
        adts(b"x", layer=1),
        adts(b"x", rate=13),
        adts(b"x", rate=15),
        adts(b"x", length=7),
        adts(b"x", length=0),
        adts(b"x", length=9, crc=True),
    ],
)
def test_what_is_no_header(data):
    with pytest.raises(ValueError, match="ADTS"):
        aac.parse(data)


@given(st.binary(min_size=7, max_size=20))
def test_any_header(data):
    try:
        found = aac.parse(data)
    except ValueError:
        return
    assert found["header_bytes"] < found["frame_bytes"] <= 8191
    assert 1 <= found["blocks"] <= 4
    assert len(found["config"]) == 2


class Audio:
    """A stream of AAC alone, PES by PES."""

    def __init__(self) -> None:
        self.stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=4096)
        self.writer = Writer()
        self.stream.feed(self.writer.tables((0x0F, PID)))

    def pes(self, data: bytes, pts: int | None = None) -> None:
        self.stream.feed(self.writer.packets(pes(data, pts, kind=0xC0, bounded=True), PID))

    def frames(self) -> list[tuple[int, bytes]]:
        self.stream.end()
        records = self.stream.records(FRAME, AUDIO, without=CONFIG)
        return [(int(r["pts_ticks"]), self.stream.payload(r)) for r in records]


FRAMES = [bytes([n + 1]) * (50 + 37 * n % 400) for n in range(60)]
LENGTH = 1920  # ticks of 1,024 samples at 48 kHz


def test_a_frame_a_pes():
    audio = Audio()
    for n, frame in enumerate(FRAMES):
        audio.pes(adts(frame), 90000 + n * LENGTH)
    assert audio.frames() == [(90000 + n * LENGTH, frame) for n, frame in enumerate(FRAMES)]
    assert audio.stream.count("adts_skipped_bytes") == 0


def test_many_frames_a_pes_have_times_of_their_own():
    audio = Audio()
    for n in range(0, 60, 6):
        audio.pes(b"".join(map(adts, FRAMES[n : n + 6])), 90000 + n * LENGTH)
    assert audio.frames() == [(90000 + n * LENGTH, frame) for n, frame in enumerate(FRAMES)]


@given(st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_frames_over_the_borders_of_pes(cuts, crc):
    """A PES's time is that of the first frame that begins in it, wherever the frame before ends."""
    data = b"".join(adts(frame, crc=crc) for frame in FRAMES)
    lengths = [len(adts(frame, crc=crc)) for frame in FRAMES]
    starts = [sum(lengths[:n]) for n in range(len(FRAMES))]
    audio = Audio()
    places = sorted({0, *(cut % len(data) for cut in cuts)})
    for at, end in zip(places, [*places[1:], len(data)], strict=True):
        begins = next((n for n, start in enumerate(starts) if at <= start < end), None)
        audio.pes(data[at:end], None if begins is None else 90000 + begins * LENGTH)
    assert audio.frames() == [(90000 + n * LENGTH, frame) for n, frame in enumerate(FRAMES)]
    assert audio.stream.count("adts_skipped_bytes") == 0


def test_junk_between_frames_is_skipped():
    audio = Audio()
    for n, frame in enumerate(FRAMES):
        junk = b"\xffjunk!" if n % 7 == 2 else b""
        audio.pes(adts(frame) + junk, 90000 + n * LENGTH)
    assert [frame for _, frame in audio.frames()] == FRAMES
    assert audio.stream.count("adts_skipped_bytes") == 6 * len([n for n in range(60) if n % 7 == 2])


def test_a_false_header_in_junk_is_not_believed():
    audio = Audio()
    audio.pes(adts(FRAMES[0]) + adts(b"z" * 30)[:20] + adts(FRAMES[1]) + adts(FRAMES[2]), 90000)
    audio.pes(b"".join(map(adts, FRAMES[3:30])), 90000 + 3 * LENGTH)
    found = [frame for _, frame in audio.frames()]
    assert found[0] == FRAMES[0]
    assert found[-27:] == FRAMES[3:30]


def test_several_raw_data_blocks_are_refused():
    audio = Audio()
    for n in range(10):
        audio.pes(adts(FRAMES[n], blocks=2 if n == 4 else 1), 90000 + n * LENGTH)
    assert len(audio.frames()) == 9
    assert audio.stream.count("adts_refused") == 1


def test_frames_without_a_time_are_counted():
    audio = Audio()
    audio.pes(b"".join(map(adts, FRAMES[:3])))
    audio.pes(adts(FRAMES[3]), 90000)
    assert audio.frames() == [(90000, FRAMES[3])]
    assert audio.stream.count("access_units_without_time") == 3


def test_a_change_of_rate_is_a_new_configuration():
    audio = Audio()
    for n in range(10):
        audio.pes(adts(FRAMES[n], rate=3 if n < 5 else 4, channels=2 if n < 5 else 1), 90000 + n * LENGTH)
    assert len(audio.frames()) == 10
    configs = [audio.stream.payload(r) for r in audio.stream.records(FRAME, AUDIO | CONFIG)]
    assert configs == [b"\x11\x90", b"\x12\x08"]
    track = audio.stream.facts["tracks"][0]
    assert (track["channels"], track["sample_rate"]) == (1, 44100)
    assert audio.stream.count("config_changes") == 1
