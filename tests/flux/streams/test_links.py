from __future__ import annotations

import pytest

from flux.streams.links import announcement, authority, play_links, publish_link


@pytest.mark.parametrize(
    ("host", "listener", "expected"),
    [
        ("192.0.2.1", "0.0.0.0:8080", "192.0.2.1:8080"),
        ("cam.example", "[::]:8080", "cam.example:8080"),
        ("localhost", "0.0.0.0:8080", "127.0.0.1:8080"),
        ("localhost", "127.0.0.1:8080", "127.0.0.1:8080"),
        ("192.0.2.1", "127.0.0.1:8080", "127.0.0.1:8080"),
        ("::1", "[::]:8080", "[::1]:8080"),
        ("::1", "[2001:db8::1]:80", "[2001:db8::1]:80"),
    ],
)
def test_authority(host: str, listener: str, expected: str) -> None:
    assert authority(host, listener) == expected


def test_only_what_is_listened_on() -> None:
    assert play_links("a", "h", {"srt": "", "http": "", "admin": "127.0.0.1:1"}) == {}
    assert set(play_links("a", "h", {"srt": "0.0.0.0:1", "http": ""})) == {"srt"}
    assert set(play_links("a", "h", {"srt": "", "http": "0.0.0.0:1"})) == {"flv", "ws_flv", "ts", "hls"}
    assert publish_link("a", "h", {"srt": ""}) == ""


def test_announcement() -> None:
    text = announcement(
        {"srt": "0.0.0.0:8890", "http": "0.0.0.0:8080", "admin": "127.0.0.1:8081"}, "live/demo"
    )
    for part in (
        "http://127.0.0.1:8081/",
        "'srt://127.0.0.1:8890?streamid=publish:live/cam1'",
        "http://127.0.0.1:8080/live/demo.flv",
        "http://127.0.0.1:8080/live/demo/index.m3u8",
        "http://127.0.0.1:8080/live/demo.ts",
        "srt://127.0.0.1:8890?streamid=read:live/demo",
    ):
        assert part in text
    assert announcement({"srt": "", "http": "", "admin": ""}) == ""
