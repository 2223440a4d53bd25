import pytest

from flux.http.routes import FLV, PLAYLIST, SEGMENT, TS, Route, as_stream, route


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/live/x.flv", Route(FLV, "live/x")),
        ("/x.flv", Route(FLV, "x")),
        ("/a/b/c.d.flv", Route(FLV, "a/b/c.d")),
        ("/live/x.ts", Route(TS, "live/x")),
        ("/live/x/12.ts", Route(SEGMENT, "live/x", sequence=12)),
        ("/live/12.flv", Route(FLV, "live/12")),
        ("/12.ts", Route(TS, "12")),
        ("/live/x/1234567890123456789.ts", Route(TS, "live/x/1234567890123456789")),
        ("/live/x/²³.ts", Route(TS, "live/x/²³")),
        ("/live/x/index.m3u8", Route(PLAYLIST, "live/x")),
        ("/live/x.m3u8", Route(PLAYLIST, "live/x", prefix="x/")),
        ("/index.m3u8", Route(PLAYLIST, "index", prefix="index/")),
        ("/live/.flv", Route(FLV, "live/")),
        ("/", None),
        ("/live/x", None),
        ("/live/x.mp3", None),
        ("/.flv", None),
        ("/*", None),
    ],
)
def test_routes(path, expected):
    assert route(path) == expected


def test_a_segment_may_be_a_stream():
    assert as_stream("/live/x/12.ts") == Route(TS, "live/x/12")
