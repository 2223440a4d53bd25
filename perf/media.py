"""The clips that the scenarios send, made once by ffmpeg into perf/out/media."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perf.build import OUT, BuildError


@dataclass(frozen=True, slots=True)
class Clip:
    """A test picture with enough noise to need its bitrate, and a tone; `seconds` are whole AAC frames."""

    size: str
    fps: int
    seconds: float
    video_bitrate: str
    noise: int


CLIPS = {
    2: Clip("1280x720", 25, 9.6, "1740k", 8),
    20: Clip("1280x720", 50, 5.12, "18M", 30),
    200: Clip("1920x1080", 50, 2.56, "163M", 100),
}


def clip(mbits: int) -> Path:
    """An MPEG-TS of H.264 and AAC of about so many Mbit/s, a keyframe each 1 or 2 s. Raises BuildError."""
    target = OUT / "media" / f"{mbits}.ts"
    if target.exists():
        return target
    if shutil.which("ffmpeg") is None:
        raise BuildError("ffmpeg is missing; install the package ffmpeg")
    of = CLIPS[mbits]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".new")
    command = ["ffmpeg", "-y", "-loglevel", "error", "-nostdin"]
    command += [
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=s={of.size}:r={of.fps},noise=alls={of.noise}:allf=t:all_seed=1",
    ]
    command += ["-f", "lavfi", "-i", "sine=r=48000", "-t", str(of.seconds)]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    command += ["-g", str(of.fps * (1 if mbits == 200 else 2)), "-sc_threshold", "0"]
    command += ["-b:v", of.video_bitrate, "-maxrate", of.video_bitrate, "-bufsize", of.video_bitrate]
    command += [
        "-c:a",
        "aac",
        "-b:a",
        "96k",
        "-frames:a",
        str(round(of.seconds * 48000 / 1024)),
        "-f",
        "mpegts",
        str(unfinished),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"ffmpeg made no clip of {mbits} Mbit/s: {done.stderr.strip()}")
    unfinished.rename(target)
    return target
