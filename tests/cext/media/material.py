"""Clips made by ffmpeg, what ffprobe and ffmpeg find in them, and a stream's rings to publish them into."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flux.cext.counters import NAMES
from flux.cext.media.flv_pump import FlvPump
from flux.cext.media.ts_ingest import TsIngest
from flux.cext.ring import Ring

from tests.cext.arenas import small_arena

FRAME, TS, FLV = range(3)
KEY, VIDEO, AUDIO, CONFIG, DISCONTINUITY, DAMAGED = 1, 2, 4, 8, 16, 32

PICTURE = ["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=3"]
SMALL = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=3"]
SOUND = ["-f", "lavfi", "-i", "sine=f=440:r=48000:d=3"]
H264 = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "3", "-g", "25"]
H265 = [
    *("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    *("-x265-params", "log-level=none:bframes=3:keyint=25"),
]
AAC = ["-c:a", "aac"]
CLIPS = {
    "h264": [*PICTURE, *SOUND, *H264, *AAC],
    "h265": [*SMALL, "-f", "lavfi", "-i", "sine=f=440:r=44100:d=3", *H265, *AAC],
    "small": [*SMALL, *SOUND, *H264, *AAC],
    "video": [*SMALL, *H264],
    "audio": [*SOUND, *AAC],
    "interlaced": [*SMALL, *H264, "-vf", "setfield=tff", "-flags", "+ildct+ilme"],
    "slices": [*SMALL, *SOUND, *H264, "-slices", "4", *AAC],
    "open_gop": [*SMALL, *H264, "-x264-params", "open-gop=1:keyint=25"],
    "refresh": [
        *("-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=20"),
        *H264,
        "-x264-params",
        "intra-refresh=1",
    ],
    "ac3": [
        *SMALL,
        *SOUND,
        *H264,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-map",
        "1:a",
        "-c:a:0",
        "aac",
        "-c:a:1",
        "ac3",
    ],
    "noisy": [*SMALL, *SOUND, *H264, *AAC, "-vf", "noise=alls=60:allf=t", "-crf", "8", "-t", "1"],
    "mpeg2": [*SMALL, "-c:v", "mpeg2video"],
    "mp2": [*SOUND, "-c:a", "mp2"],
    "wrap": [*SMALL, *SOUND, *H264, *AAC, "-output_ts_offset", "95441"],
    "other_pids": [*SMALL, *SOUND, *H265, *AAC, "-mpegts_start_pid", "600", "-tables_version", "1"],
    "lengths": [*SMALL, *SOUND, *H264, *AAC, "-omit_video_pes_length", "0"],
}


def ffmpeg(*arguments: str | Path) -> str:
    command = ["ffmpeg", "-nostdin", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


class Clips:
    """Made when asked for, once a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        path = self._folder / f"{name}.ts"
        if not path.exists():
            if shutil.which("ffmpeg") is None:
                assert not os.environ.get("CI"), "ffmpeg is missing: install the package ffmpeg"
                pytest.skip("ffmpeg is missing: install the package ffmpeg")
            ffmpeg(*CLIPS[name], "-f", "mpegts", path)
        return path

    def data(self, name: str) -> bytes:
        return self.path(name).read_bytes()


def packets(path: Path, kind: str) -> list[tuple[int, int, bool]]:
    """(pts, dts, keyframe) of each packet that ffprobe finds in the first stream of that kind."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        f"{kind}:0",
        "-show_packets",
        "-of",
        "json",
        str(path),
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)["packets"]
    return [(int(p["pts"]), int(p["dts"]), "K" in p["flags"]) for p in found]


def hashes(path: Path, stream: str) -> list[str]:
    """The hash of each decoded frame of a stream ("0:v", "0:a")."""
    lines = ffmpeg("-i", path, "-map", stream, "-f", "framemd5", "-").splitlines()
    return [line.rsplit(",", 1)[1].strip() for line in lines if not line.startswith("#")]


class Stream:
    """A slot in an arena, and publishers into it. flv: somebody wants FLV from the beginning."""

    def __init__(self, *, flv: bool = False, linger_us: int = 1_000_000, **sizes: int) -> None:
        sizes = {"frame_ring_bytes": 8 << 20, "wire_ring_bytes": 8 << 20, "index_entries": 1 << 14, **sizes}
        self.arena = small_arena(**sizes)
        self.linger_us = linger_us
        self.now_us = 1_000_000
        self.slot, _ = self.arena.claim("live/clip", 1)
        if flv:
            self.arena.want(self.slot, FLV, True)
        self.begin()

    def begin(self) -> None:
        """A publisher comes."""
        self.ingest = TsIngest(self.arena, self.slot, self.arena.my_counters)
        self.pump = FlvPump(self.arena, self.slot, self.arena.my_counters, linger_us=self.linger_us)
        self.ingest.add_pump(self.pump)
        self.arena.go_live(self.slot, 1)

    def feed(self, data: bytes, piece: int = 1316, batch: int = 4) -> Stream:
        """Deliver `data` in payloads of `piece` bytes, a flush after each `batch` of them."""
        for n, at in enumerate(range(0, len(data), piece)):
            self.ingest.deliver(data[at : at + piece], self.now_us)
            if n % batch == batch - 1:
                self.flush()
        self.flush()
        return self

    def flush(self) -> None:
        self.ingest.flush(self.now_us)
        self.now_us += 1000

    def end(self) -> Stream:
        """The publisher goes."""
        self.ingest.close(self.now_us)
        self.pump.close(self.now_us)
        self.arena.go_idle(self.slot, self.now_us)
        return self

    def again(self) -> None:
        """The publisher comes back."""
        self.slot, _ = self.arena.claim("live/clip", 1)
        self.begin()

    def ring(self, kind: int) -> Ring:
        return Ring(self.arena, self.slot, kind)

    def bytes_of(self, kind: int, start: int = 0) -> bytes:
        """Everything in a ring from record `start` of those it has."""
        records = self.ring(kind).records()[start:]
        return (
            self.ring(kind).read(int(records[0]["pos"]), int(records["length"].sum()))
            if len(records)
            else b""
        )

    def flv_file(self) -> bytes:
        """What a player gets who came before the first tag."""
        records = self.ring(FLV).records()
        return self.ring(FLV).header(int(records[0]["pos"])) + self.bytes_of(FLV)

    def records(self, kind: int, flags: int = 0, without: int = 0) -> np.ndarray:
        """The records that have all of `flags` and none of `without`."""
        records = self.ring(kind).records()
        return records[(records["flags"] & (flags | without)) == flags]

    def frames(self, kind: int) -> list[tuple[int, int, bool]]:
        """(pts, dts, keyframe) of the access units of VIDEO or AUDIO."""
        return [
            (int(r["pts_ticks"]), int(r["dts_ticks"]), bool(r["flags"] & KEY))
            for r in self.records(FRAME, kind, without=CONFIG)
        ]

    def payload(self, record: Any, kind: int = FRAME) -> bytes:
        data = self.ring(kind).read(int(record["pos"]), int(record["length"]))
        assert data is not None
        return data

    @property
    def facts(self) -> dict[str, Any]:
        return self.arena.slot(self.slot)

    def count(self, name: str) -> int:
        """A counter, by the end of its name."""
        number = next(n for n, (metric, _) in NAMES.items() if metric == f"flux_media_{name}_total")
        return int(self.arena.my_counters[number])
