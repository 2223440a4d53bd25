"""Clips with known frames, and the comparing of what players decoded with them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from flux.cext.media import flv

from tests.interop.clients import HASHES, need, run

FOLDER = Path(__file__).resolve().parent.parent / "media"
SECONDS, LONG_SECONDS = 10, 30
# Closed GOPs of 2 s with B-frames. One thread, so that the bits are the same wherever the encoder is.
ENCODERS = {
    "h264": "-c:v libx264 -preset veryfast -bf 2 -x264-params keyint=50:min-keyint=50:scenecut=0:threads=1",
    "h265": "-c:v libx265 -preset ultrafast -x265-params "
    "keyint=50:min-keyint=50:scenecut=0:open-gop=0:bframes=2:pools=none:frame-threads=1:log-level=error",
}
# A tone that rises, so that no two audio frames are alike.
TONE = "aevalsrc=0.4*sin(2*PI*(200+40*t)*t)|0.4*sin(2*PI*(300+30*t)*t):s=48000"


@dataclass(frozen=True, slots=True)
class Track:
    """Decoded frames in the order in which they are shown: hashes, and times in seconds."""

    hashes: list[str]
    times: list[float]


@dataclass(frozen=True, slots=True)
class Decoded:
    video: Track
    audio: Track


@dataclass(frozen=True, slots=True)
class Clip:
    """An MPEG-TS of 720p25 video and AAC, and what ffmpeg decodes from it."""

    codec: str
    seconds: int
    path: Path
    decoded: Decoded


def make_clip(codec: str, seconds: int = SECONDS) -> Clip:
    """The clip in `codec` ("h264", "h265"), made by ffmpeg when it is not there yet."""
    need("ffmpeg")
    path = FOLDER / f"{codec}-{seconds}s.ts"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".new")
        picture = ["-f", "lavfi", "-i", f"testsrc2=s=1280x720:r=25:d={seconds}"]
        tone = ["-f", "lavfi", "-i", TONE, "-t", seconds]
        coding = f"{ENCODERS[codec]} -b:v 1500k -pix_fmt yuv420p -c:a aac -b:a 96k".split()
        run(["ffmpeg", "-y", "-loglevel", "error", *picture, *tone, *coding, "-f", "mpegts", unfinished], 300)
        unfinished.rename(path)
    return Clip(codec, seconds, path, decode(path))


def decode(path: Path) -> Decoded:
    """All frames of a file, decoded by ffmpeg."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", path, "-map", "0:v", "-map", "0:a"]
    return read_framemd5(run([*command, *HASHES, "-"], 120).decode())


def read_framemd5(text: str) -> Decoded:
    """ffmpeg's framemd5 of one video and one audio track."""
    bases: dict[int, Fraction] = {}
    tracks = {0: Track([], []), 1: Track([], [])}
    for line in text.splitlines():
        if line.startswith("#tb "):
            number, _, base = line[4:].partition(": ")
            bases[int(number)] = Fraction(base)
        elif line and not line.startswith("#"):
            number, _, pts, _, _, digest = (part.strip() for part in line.split(","))
            track = tracks[int(number)]
            track.hashes.append(digest)
            track.times.append(float(int(pts) * bases[int(number)]))
    return Decoded(tracks[0], tracks[1])


def differences(source: Decoded, got: Decoded, *, from_start: bool = True) -> list[str]:
    """What a player missed of the source or got wrong; empty if it has every frame from its first to the end.

    from_start: it was there before the publisher, so its first video frame is the source's first. Audio may
    begin up to 0.5 s later, and its first two frames may differ: a decoder of AAC that joins has no history.
    Times: what the player says is off the source's by the same for all frames of both tracks.
    """
    found = []
    shifts: list[float] = []
    for name, of, mine, tolerance in (
        ("video", source.video, got.video, 0),
        ("audio", source.audio, got.audio, 2),
    ):
        count = len(mine.hashes)
        if count <= tolerance:
            found.append(f"{name}: {count} frames of {len(of.hashes)}")
            continue
        try:
            start = of.hashes.index(mine.hashes[tolerance]) - tolerance
        except ValueError:
            found.append(f"{name}: frame {tolerance} of the player is none of the source's")
            continue
        wrong = [
            n
            for n in range(tolerance, count)
            if of.hashes[start + n : start + n + 1] != mine.hashes[n : n + 1]
        ]
        if wrong:
            found.append(f"{name}: {len(wrong)} of {count} frames differ, the first is number {wrong[0]}")
        if start + count != len(of.hashes):
            found.append(
                f"{name}: {len(of.hashes) - start - count} of {len(of.hashes)} frames are missing at the end"
            )
        latest = 0 if name == "video" else 24
        if from_start and start > latest:
            found.append(f"{name}: {start} of {len(of.hashes)} frames are missing at the start")
        shifts += [mine.times[n] - of.times[start + n] for n in range(tolerance, count) if n not in wrong]
    if shifts and max(shifts) - min(shifts) > 0.003:
        found.append(f"times are off by up to {max(shifts) - min(shifts):.3f} s against each other")
    return found


def decode_flv(data: bytes, folder: Path) -> Decoded:
    """Decodes FLV of H.265, which ffmpeg 5 can't demux, as Annex B and ADTS. Times are the FLV's."""
    frames = [frame for tag in flv.read(data) if (frame := tag.frame()) is not None]
    video = [frame for frame in frames if frame.codec in ("H264", "H265")]
    audio = [frame for frame in frames if frame.codec == "AAC"]
    raw = folder / "flv.hevc"
    raw.write_bytes(b"".join(annexb_of(frame) for frame in video))
    adts = folder / "flv.aac"
    config = next(frame.data for frame in audio if frame.config)
    adts.write_bytes(b"".join(adts_of(config, frame.data) for frame in audio if not frame.config))
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "hevc", "-i", raw, "-f", "aac", "-i", adts]
    decoded = read_framemd5(run([*command, "-map", "0:v", "-map", "1:a", *HASHES, "-"]).decode())
    shown = sorted(frame.pts_ms / 1000 for frame in video if not frame.config)
    heard = [frame.pts_ms / 1000 for frame in audio if not frame.config]
    return Decoded(Track(decoded.video.hashes, shown), Track(decoded.audio.hashes, heard))


def annexb_of(frame: flv.Frame) -> bytes:
    """NAL units with start codes; of a configuration, its parameter sets (ISO/IEC 14496-15, 8.3.3.1)."""
    nals = []
    if frame.config:
        at = 23
        for _ in range(frame.data[22]):
            count = int.from_bytes(frame.data[at + 1 : at + 3], "big")
            at += 3
            for _ in range(count):
                length = int.from_bytes(frame.data[at : at + 2], "big")
                nals.append(frame.data[at + 2 : at + 2 + length])
                at += 2 + length
    else:
        at = 0
        while at + 4 <= len(frame.data):
            length = int.from_bytes(frame.data[at : at + 4], "big")
            nals.append(frame.data[at + 4 : at + 4 + length])
            at += 4 + length
    return b"".join(b"\0\0\0\1" + nal for nal in nals)


def adts_of(config: bytes, frame: bytes) -> bytes:
    """An AAC frame behind an ADTS header made from its AudioSpecificConfig (ISO/IEC 13818-7, 6.2)."""
    bits = int.from_bytes(config[:2], "big")
    profile, rate, channels = (bits >> 11) - 1, bits >> 7 & 15, bits >> 3 & 15
    length = len(frame) + 7
    head = (0xFFF1 << 40) | profile << 38 | rate << 34 | channels << 30 | length << 13 | 0x7FF << 2
    return head.to_bytes(7, "big") + frame
