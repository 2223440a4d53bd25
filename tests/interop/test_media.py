"""The comparing of decoded frames finds what is missing, wrong or late."""

import pytest

from tests.interop.media import Decoded, Track, adts_of, differences

VIDEO = Track([f"v{n}" for n in range(100)], [n * 0.04 for n in range(100)])
AUDIO = Track([f"a{n}" for n in range(180)], [n * 0.0213 for n in range(180)])
SOURCE = Decoded(VIDEO, AUDIO)


def cut(track, first=0, last=None, *, without=None, wrong=None, shift=0.0):
    hashes, times = list(track.hashes), [time + shift for time in track.times]
    if wrong is not None:
        hashes[wrong] = "?"
    if without is not None:
        del hashes[without], times[without]
    return Track(hashes[first:last], times[first:last])


@pytest.mark.parametrize(
    ("video", "audio", "expected"),
    [
        (VIDEO, AUDIO, []),
        (cut(VIDEO, shift=7.0), cut(AUDIO, shift=7.0), []),
        (VIDEO, cut(AUDIO, 5), []),
        (VIDEO, cut(AUDIO, wrong=0), []),
        (VIDEO, cut(AUDIO, 40), ["audio: 40 of 180 frames are missing at the start"]),
        (cut(VIDEO, 50), AUDIO, ["video: 50 of 100 frames are missing at the start"]),
        (cut(VIDEO, 0, 99), AUDIO, ["video: 1 of 100 frames are missing at the end"]),
        (cut(VIDEO, wrong=60), AUDIO, ["video: 1 of 100 frames differ, the first is number 60"]),
        (VIDEO, cut(AUDIO, wrong=60), ["audio: 1 of 180 frames differ, the first is number 60"]),
        (
            cut(VIDEO, without=60),
            AUDIO,
            [
                "video: 39 of 99 frames differ, the first is number 60",
                "video: 1 of 100 frames are missing at the end",
            ],
        ),
        (cut(VIDEO, shift=0.04), AUDIO, ["times are off by up to 0.040 s against each other"]),
        (Track([], []), AUDIO, ["video: 0 frames of 100"]),
        (cut(VIDEO, wrong=0), AUDIO, ["video: frame 0 of the player is none of the source's"]),
    ],
)
def test_differences(video, audio, expected):
    assert differences(SOURCE, Decoded(video, audio)) == expected


def test_a_player_that_joins_late_is_compared_from_its_first_frame():
    late = Decoded(cut(VIDEO, 50), cut(AUDIO, 90))
    assert differences(SOURCE, late, from_start=False) == []


def test_adts_header():
    # ISO/IEC 13818-7, 6.2: AAC-LC, 48 kHz, stereo, 7 + 2 bytes
    assert adts_of(b"\x11\x90", b"ab").hex(" ") == "ff f1 4c 80 01 3f fc 61 62"
