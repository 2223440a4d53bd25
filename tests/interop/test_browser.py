"""The web page in a headless Chromium: it lists what is live and plays it, by mpegts.js and by hls.js."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flux
from perf.server import FLUX
from tests.interop.chromium import Chromium, find
from tests.interop.clients import Client, need
from tests.interop.server import Server

K_STARTS_S = 25.0
K_ADVANCE_S = 2.0

DEMO = Path(flux.__file__).parent / "demo" / "demo.ts"
VIDEO = "document.getElementById('video')"


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with Server({"demo.enabled": True, "admin.listen": "127.0.0.1:0"}) as running:
        running.wait_stream("live/demo", tracks=2)
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    path = find()
    if path is None:
        need("chromium")
    assert path is not None
    with Chromium(path) as running:
        yield running


@pytest.fixture
def browser(chromium: Chromium) -> Chromium:
    chromium.new_page()
    return chromium


def page(server: Server, hash: str = "") -> str:
    return f"http://127.0.0.1:{server.admin_port}/{hash}"


def text(browser: Chromium, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({selector!r})?.textContent ?? ''"))


def assert_plays(browser: Chromium) -> None:
    """Its time goes on as the clock does, and pictures are decoded."""
    browser.wait(f"{VIDEO}.dataset.state === 'playing' && {VIDEO}.videoWidth === 640", K_STARTS_S)
    before = browser.evaluate(
        f"({{at: {VIDEO}.currentTime, frames: {VIDEO}.getVideoPlaybackQuality().totalVideoFrames}})"
    )
    browser.wait(f"{VIDEO}.currentTime > {before['at']} + {K_ADVANCE_S}", K_ADVANCE_S * 4)
    frames = browser.evaluate(f"{VIDEO}.getVideoPlaybackQuality().totalVideoFrames")
    assert frames - before["frames"] > K_ADVANCE_S * 25 / 2


@pytest.mark.parametrize(("kind", "protocol"), [("flv", "http-flv"), ("hls", "hls")])
def test_plays(demo: Server, browser: Chromium, kind: str, protocol: str) -> None:
    browser.open(page(demo, f"#live/demo/{kind}"))
    assert_plays(browser)
    engine = {"flv": "mpegts", "hls": "Hls"}
    assert browser.evaluate("['mpegts', 'Hls'].filter((name) => name in window)") == [engine[kind]]
    assert browser.evaluate(f"{VIDEO}.dataset.kind") == kind
    sessions = demo.call("sessions", stream="live/demo")["sessions"]
    assert protocol in {session["protocol"] for session in sessions if session["role"] == "read"}
    assert browser.troubles() == []


def test_lists_and_switches(demo: Server, browser: Chromium) -> None:
    browser.open(page(demo))
    browser.wait("document.querySelector('.card .media')?.textContent.includes('640×360')")
    assert text(browser, ".card .name") == "live/demo"
    assert text(browser, ".card .media") == "H.264 640×360 · 25 fps · AAC 48 kHz mono"
    assert text(browser, "#server-state") == "running"
    browser.wait("document.querySelector('.card .rate').textContent.endsWith('bit/s')")
    assert browser.evaluate(f"{VIDEO}.dataset.state ?? ''") == "", "nothing plays before it is chosen"

    browser.evaluate("document.querySelector('.card').click()")
    assert_plays(browser)
    assert browser.evaluate("location.hash") == "#live/demo/flv"
    addresses = browser.evaluate(
        "[...document.querySelectorAll('#links code')].map((code) => code.textContent)"
    )
    assert demo.http_url("live/demo.flv") in addresses
    assert demo.srt_url("read", "live/demo") in addresses

    browser.evaluate("document.getElementById('by-hls').click()")
    browser.wait(f"{VIDEO}.dataset.kind === 'hls'")
    assert_plays(browser)
    assert browser.troubles() == []


def test_kick(demo: Server, browser: Chromium) -> None:
    """A player that was ended begins again by itself."""
    browser.open(page(demo, "#live/demo/flv"))
    assert_plays(browser)
    row = "document.querySelector('#sessions tr[data-role=read]')"
    first = browser.wait(f"{row}?.title")
    browser.evaluate(f"{row}.querySelector('button').click()")
    browser.evaluate(f"{row}.querySelector('button').click()")
    browser.wait(f"{row}?.title && {row}.title !== {first!r}")
    assert first not in {session["id"] for session in demo.call("sessions")["sessions"]}
    assert_plays(browser)


def test_nothing_live_and_then_a_publisher(
    start_server: Callable[..., Server], browser: Chromium, tmp_path: Path
) -> None:
    settings = {"srt.peer_idle_timeout_ms": 1000, "streams.idle_grace_ms": 10_000}
    server = start_server({"admin.listen": "127.0.0.1:0", **settings})
    browser.open(page(server))
    browser.wait("!document.getElementById('empty').hidden")
    commands = browser.evaluate(
        "[...document.querySelectorAll('#empty code')].map((code) => code.textContent)"
    )
    url = server.srt_url("publish", "live/cam1")
    assert url in commands
    with Client("publisher", [FLUX, "publish", DEMO, url, "--loop"], tmp_path):
        browser.wait("document.querySelector('.card .name')?.textContent === 'live/cam1'")
        assert browser.evaluate("document.getElementById('empty').hidden")
        browser.evaluate("document.querySelector('.card').click()")
        assert_plays(browser)
    browser.wait("document.querySelector('.card')?.dataset.state === 'idle'")
    browser.wait(
        "document.getElementById('overlay').textContent === 'The publisher is away; it may come back.'"
    )
    assert browser.troubles() == []


def test_an_unknown_stream(demo: Server, browser: Chromium) -> None:
    browser.open(page(demo, "#live/nobody/flv"))
    browser.wait("document.getElementById('overlay').textContent === 'Nobody publishes live/nobody.'")


def test_the_page_may_not_run_other_scripts(demo: Server, browser: Chromium) -> None:
    browser.open(page(demo))
    browser.wait("document.documentElement.dataset.loaded")
    script = "Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'})"
    browser.evaluate(f"document.body.append({script})")
    assert browser.evaluate("window.evil ?? 0") == 0
    assert any("Content Security Policy" in trouble for trouble in browser.troubles())
