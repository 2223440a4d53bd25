import pytest

from flux.http.playlist import iso_date, render_playlist


def segment(sequence, duration_s=2.0, discontinuity=False, date_us=1_700_000_000_000_000, independent=True):
    return {
        "sequence": sequence,
        "pos": 0,
        "length": 188,
        "duration_s": duration_s,
        "date_us": date_us,
        "discontinuity": discontinuity,
        "independent": independent,
    }


def snapshot(segments, discontinuity_sequence=0, ended=False, target_duration=0):
    return {
        "media_sequence": segments[0]["sequence"] if segments else 0,
        "target_duration": target_duration,
        "discontinuity_sequence": discontinuity_sequence,
        "segments": segments,
        "ended": ended,
    }


def test_a_whole_playlist():
    text = render_playlist(snapshot([segment(7), segment(8, 1.96, date_us=1_700_000_002_000_000)]), 6)
    assert text == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-TARGETDURATION:2\n"
        "#EXT-X-MEDIA-SEQUENCE:7\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.000Z\n"
        "#EXTINF:2.00000,\n"
        "7.ts\n"
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:22.000Z\n"
        "#EXTINF:1.96000,\n"
        "8.ts\n"
    )


@pytest.mark.parametrize(
    ("segments", "base", "newest", "media_sequence", "discontinuity_sequence", "tags"),
    [
        ([segment(1), segment(2), segment(3)], 0, 2, 2, None, 0),
        ([segment(1, discontinuity=True), segment(2), segment(3)], 0, 3, 1, None, 1),
        ([segment(1, discontinuity=True), segment(2), segment(3)], 0, 2, 2, 1, 0),
        ([segment(1), segment(2, discontinuity=True), segment(3)], 4, 2, 2, 4, 1),
        ([segment(1), segment(2, discontinuity=True), segment(3)], 4, 1, 3, 5, 0),
    ],
)
def test_left_out_discontinuities_are_counted(
    segments, base, newest, media_sequence, discontinuity_sequence, tags
):
    lines = render_playlist(snapshot(segments, base), newest).splitlines()
    assert f"#EXT-X-MEDIA-SEQUENCE:{media_sequence}" in lines
    found = [line for line in lines if line.startswith("#EXT-X-DISCONTINUITY-SEQUENCE")]
    assert found == (
        [] if discontinuity_sequence is None else [f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity_sequence}"]
    )
    assert lines.count("#EXT-X-DISCONTINUITY") == tags


@pytest.mark.parametrize(
    ("durations", "target", "expected"),
    [([2.0], 0, 2), ([2.04, 1.9], 0, 3), ([0.2], 0, 1), ([2.0], 4.0, 4), ([], 0, 1)],
)
def test_target_duration_covers_every_segment(durations, target, expected):
    segments = [segment(n, duration) for n, duration in enumerate(durations)]
    assert f"#EXT-X-TARGETDURATION:{expected}\n" in render_playlist(
        snapshot(segments, target_duration=target), 6
    )


def test_an_ended_stream_has_an_endlist():
    assert render_playlist(snapshot([segment(1)], ended=True), 6).endswith("#EXT-X-ENDLIST\n")


def test_dates_are_utc_with_milliseconds():
    assert iso_date(1_234_567) == "1970-01-01T00:00:01.234Z"


def test_segments_that_need_others_are_not_called_independent():
    text = render_playlist(snapshot([segment(1), segment(2, independent=False), segment(3)]), 3)
    assert "#EXT-X-INDEPENDENT-SEGMENTS" not in text
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in render_playlist(snapshot([segment(1), segment(3)]), 3)
