"""HLS segments of real streams: what ffmpeg decodes of them is what it decodes of the source."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from flux.cext.media.hls import HlsReader
from flux.cext.media.hls_pump import HlsPump
from flux.cext.media.ts_ingest import TsIngest

from tests.cext.arenas import small_arena

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-x264-params", "scenecut=0"]
B_FRAMES = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "50", "-x264-params", "scenecut=0"]
H265 = ["-c:v", "libx265", "-preset", "ultrafast"]
H265 += ["-x265-params", "log-level=none:keyint=50:scenecut=0:open-gop=0"]
AAC = ["-c:a", "aac", "-b:a", "96k"]
CLIPS = {
    "h264": [*H264, *AAC],
    "h264_b_frames": [*B_FRAMES, *AAC],
    "h265": [*H265, *AAC],
    "h264_many_tables": [*H264, *AAC, "-pat_period", "0.02"],
    "h264_alone": [*H264, "-an"],
    "aac_alone": ["-vn", *AAC],
}


def ffmpeg(*arguments: str | Path) -> str:
    command = ["ffmpeg", "-nostdin", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Makes a clip of 10 s, 320x180 at 25 fps, once; gives its path."""
    if shutil.which("ffmpeg") is None:
        assert not os.environ.get("CI"), "ffmpeg is missing: install the package ffmpeg"
        pytest.skip("ffmpeg is missing: install the package ffmpeg")
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / f"{name}.ts"
        if not path.exists():
            picture = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=10"]
            sound = ["-f", "lavfi", "-i", "sine=f=440:r=48000:d=10"]
            ffmpeg(*picture, *sound, *CLIPS[name], "-f", "mpegts", path)
        return path

    return make


def frames(path: Path) -> dict[str, dict[int, str]]:
    """What a decoder makes of a file: by stream, the hash of each frame by its time."""
    found: dict[str, dict[int, str]] = {}
    for line in ffmpeg("-copyts", "-i", path, "-map", "0", "-f", "framemd5", "-").splitlines():
        if not line.startswith("#"):
            stream, _, pts, *_, digest = (part.strip() for part in line.split(","))
            found.setdefault(stream, {})[int(pts)] = digest
    return found


def segments_of(data: bytes, piece: int = 1316, batch: int = 7) -> tuple[list[dict], list[bytes]]:
    """Publish `data` as a receiver would; the segments and their bytes."""
    arena = small_arena(
        wire_ring_bytes=1 << 20, frame_ring_bytes=1 << 20, hls_bytes=8 << 20, index_entries=4096
    )
    slot, _ = arena.claim("live/clip", 1)
    ingest = TsIngest(arena, slot, arena.my_counters)
    pump = HlsPump(
        arena,
        slot,
        arena.my_counters,
        segment_ticks=180_000,
        max_segment_ticks=900_000,
        always=True,
        keep_segments=60,
    )
    ingest.add_pump(pump)
    arena.go_live(slot, 1)
    now_us = 1_000_000
    for n, at in enumerate(range(0, len(data), piece)):
        ingest.deliver(data[at : at + piece], now_us)
        if n % batch == 0:
            ingest.flush(now_us)
            now_us += 10_000
    ingest.close(now_us)
    pump.close(now_us)
    reader = HlsReader(arena, slot)
    segments = reader.snapshot()["segments"]
    return segments, [reader.read(s["sequence"]) for s in segments]


@pytest.mark.parametrize("name", CLIPS)
def test_segments_decode_like_the_source(clip, tmp_path, name):
    path = clip(name)
    data = path.read_bytes()
    segments, pieces = segments_of(data)
    assert len(segments) == 5
    assert [round(s["duration_s"], 1) for s in segments[:-1]] == [2, 2, 2, 2] or name == "aac_alone"
    assert sum(s["duration_s"] for s in segments) == pytest.approx(10, abs=0.6)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(pieces))
    source = frames(path)
    decoded = frames(joined)
    assert decoded.keys() == source.keys()
    if "0" in source and name != "aac_alone":
        assert len(source["0"]) == 250
        assert decoded["0"] == source["0"], "every picture, in its place"
    sound = decoded["0" if name == "aac_alone" else "1"] if name != "h264_alone" else {}
    whole = source["0" if name == "aac_alone" else "1"] if name != "h264_alone" else {}
    assert len(whole) - len(sound) <= 12, "sound before the first picture is left out"
    settled = sorted(sound)[2:]  # the decoder's start differs where the stream begins elsewhere
    assert all(sound[pts] == whole[pts] for pts in settled)


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_a_player_can_start_with_any_segment(clip, tmp_path, name):
    path = clip(name)
    segments, pieces = segments_of(path.read_bytes())
    source = frames(path)["0"]
    shown: dict[int, str] = {}
    for n, piece in enumerate(pieces):
        alone = tmp_path / f"{n}.ts"
        alone.write_bytes(piece)
        decoded = frames(alone)
        assert decoded["0"], "it tells its tracks and begins with a keyframe"
        assert decoded["1"]
        shown |= decoded["0"]
    assert shown == source
    assert len(segments) == len(pieces)


@pytest.mark.parametrize(("piece", "batch"), [(188, 1), (1316, 1), (1316, 64), (65_536, 1), (333, 5)])
def test_how_the_bytes_come_makes_no_difference(clip, piece, batch):
    data = clip("h264_b_frames").read_bytes()
    segments, pieces = segments_of(data, piece, batch)
    expected, whole = segments_of(data)
    assert [s["duration_s"] for s in segments] == [s["duration_s"] for s in expected]
    assert pieces == whole
