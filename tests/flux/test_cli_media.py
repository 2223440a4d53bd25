"""What `flux probe` and `flux play` make of files and of HTTP streams."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flux
from flux.cli import main
from flux.cli.analysis import Analysis, Clock
from flux.cli.fetch import parse_playlist
from flux.errors import PeerError

DEMO = Path(flux.__file__).parent / "demo" / "demo.ts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("media")
    shutil.copy(DEMO, made / "demo.ts")
    data = DEMO.read_bytes()
    third = len(data) // 3 // 188 * 188
    for number, start in enumerate(range(0, 3 * third, third)):
        (made / f"{number}.ts").write_bytes(data[start : start + third])
    (made / "index.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n"
        "#EXTINF:3.3,\n0.ts\n#EXTINF:3.3,\n1.ts\n#EXTINF:3.3,\n2.ts\n#EXT-X-ENDLIST\n"
    )
    (made / "all.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nindex.m3u8\n")
    (made / "not.m3u8").write_text("<html>")
    return made


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/refused.ts":
                body = json.dumps({"message": "nobody publishes refused", "cure": "publish it"}).encode()
                self.send_response(404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            elif self.path == "/endless.ts":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(bytes(1316))
                except OSError:
                    return
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def probe(capsys: pytest.CaptureFixture[str], source: str) -> dict[str, object]:
    assert main(["probe", source, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("path", ["demo.ts", "index.m3u8", "all.m3u8"])
def test_probe_over_http(capsys: pytest.CaptureFixture[str], site: str, path: str) -> None:
    assert main(["probe", f"{site}/{path}", "--json", "--duration", "60"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "MPEG-TS"
    assert found["duration_s"] == pytest.approx(10, abs=0.1)
    video, audio = found["tracks"]
    assert (video["codec"], video["width"], video["height"], video["fps"]) == ("H264", 640, 360, 25)
    assert (audio["codec"], audio["sample_rate"]) == ("AAC", 48000)
    assert found["errors"] == 0


def test_probe_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    found = probe(capsys, str(DEMO))
    assert found["bitrate_bps"] == pytest.approx(DEMO.stat().st_size * 8 / 10, rel=0.02)
    assert [track["frames"] for track in found["tracks"]] == [250, pytest.approx(470, abs=3)]  # type: ignore[attr-defined]
    assert main(["probe", str(DEMO)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{DEMO}: MPEG-TS, ")
    assert lines[2].split() == ["video", "H264", "640x360", "25", "-", "-", "250"]


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_probe_flv(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "demo.flv"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(DEMO), "-c", "copy", str(file)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    found = probe(capsys, str(file))
    assert found["format"] == "FLV"
    assert found["duration_s"] == pytest.approx(10, abs=0.1)
    video, audio = found["tracks"]  # type: ignore[misc]
    assert (video["codec"], video["width"], video["height"], video["fps"]) == ("H264", 640, 360, 25)
    assert (audio["codec"], audio["sample_rate"], audio["channels"]) == ("AAC", 48000, 1)
    assert video["frames"] == 250


@pytest.mark.parametrize("step", [1, 187, 188, 4096])
def test_pieces_of_any_size(step: int) -> None:
    data = DEMO.read_bytes()[: 188 * 200]
    whole, pieces = Analysis(), Analysis()
    whole.feed(data)
    for start in range(0, len(data), step):
        pieces.feed(data[start : start + step])
    assert pieces.result() == whole.result()
    assert whole.result()["tracks"]
    whole.close()
    pieces.close()


def flv_tag(kind: int, time_ms: int, body: bytes) -> bytes:
    time = (time_ms & 0xFFFFFF).to_bytes(3, "big") + bytes([time_ms >> 24])
    return (
        bytes([kind])
        + len(body).to_bytes(3, "big")
        + time
        + bytes(3)
        + body
        + (len(body) + 11).to_bytes(4, "big")
    )


def test_flv_with_times_beyond_24_bits() -> None:
    data = b"FLV\1\5\0\0\0\x09\0\0\0\0"
    for number in range(11):
        data += flv_tag(9, 0xFFFF00 + number * 40, b"\x27\1\0\0\0data")
        data += flv_tag(8, 0xFFFF00 + number * 40, b"\xaf\1data")
    analysis = Analysis()
    for byte in data:
        analysis.feed(bytes([byte]))
    found = analysis.result()
    assert found["duration_s"] == pytest.approx(0.44)
    assert [(track["kind"], track["codec"], track["frames"]) for track in found["tracks"]] == [
        ("video", "H264", 11),
        ("audio", "AAC", 11),
    ]
    assert found["tracks"][0]["fps"] == 25
    analysis.close()


def test_enhanced_flv() -> None:
    analysis = Analysis()
    analysis.feed(
        b"FLV\1\1\0\0\0\x09\0\0\0\0" + flv_tag(9, 0, b"\x90hvc1broken") + flv_tag(9, 0, b"\x91hvc1data")
    )
    (track,) = analysis.result()["tracks"]
    assert (track["codec"], track["frames"]) == ("H265", 1)
    analysis.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytes(10_000), "neither MPEG-TS nor FLV"),
        (b"G" * 20, "too short"),
        (b"", "too short"),
        (b"FLV\1\1\0\0\0\x09\0\0\0\0" + b"\xff" * 100, "broken FLV tag"),
    ],
)
def test_what_is_no_media(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, says: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(data)
    assert main(["probe", str(file)]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_play_to_a_file(capsys: pytest.CaptureFixture[str], site: str, tmp_path: Path) -> None:
    for path in ("demo.ts", "index.m3u8"):
        assert main(["play", f"{site}/{path}", "-o", str(tmp_path / "out.ts")]) == 0
        taken = (tmp_path / "out.ts").read_bytes()
        assert DEMO.read_bytes().startswith(taken)
        assert DEMO.stat().st_size - len(taken) < 3 * 188
    assert "534 kB in" in capsys.readouterr().err


def test_play_for_some_time(site: str, tmp_path: Path) -> None:
    assert main(["play", f"{site}/endless.ts", "-o", str(tmp_path / "out.ts"), "--duration", "0.2"]) == 0
    assert (tmp_path / "out.ts").stat().st_size > 0


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("refused.ts", "nobody publishes refused; publish it"),
        ("missing.ts", "HTTP status 404"),
        ("not.m3u8", "this is no HLS playlist"),
    ],
)
def test_what_a_server_says(
    capsys: pytest.CaptureFixture[str], site: str, tmp_path: Path, path: str, says: str
) -> None:
    assert main(["play", f"{site}/{path}", "-o", str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["play", "http://127.0.0.1:1/x.flv", "-o", str(tmp_path / "out")]) == 1
    assert "connection refused" in capsys.readouterr().err


def test_playlist() -> None:
    found = parse_playlist(
        "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:3\n#EXTINF:2,\n3.ts\n", "http://h/a/index.m3u8?x=1"
    )
    assert (found.sequence, found.segments, found.ended) == (3, ("http://h/a/3.ts",), False)
    with pytest.raises(PeerError, match="broken"):
        parse_playlist("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x\n", "http://h/")


def test_clock() -> None:
    clock = Clock()
    assert (clock.fps(1000), clock.seconds(1000)) == (0.0, 0.0)
    for time_ms in (0, 80, 40, 120):
        clock.add(time_ms)
    assert clock.fps(1000) == 25
    assert clock.seconds(1000) == pytest.approx(0.16)
