"""What is in a stream: codecs, resolution, frame rate and bitrate, out of its bytes.

MPEG-TS goes through the server's own ingest into an arena of one stream; FLV is taken apart here (Adobe Flash
Video File Format 10.1, annex E, and Enhanced RTMP for H.265).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flux.cext.arena import Arena
from flux.cext.media import codec as media_codec
from flux.cext.media import sps
from flux.cext.media.ts_ingest import TsIngest
from flux.cext.ring import Ring
from flux.errors import PeerError

K_FEED_BYTES = 64 * 1316  # records of the ring's index are read after each
K_DETECT_BYTES = 188 * 4 + 1
K_MAX_TAG_BYTES = 16 << 20
K_TICKS_A_SECOND = 90_000
_RECORD_VIDEO, _RECORD_AUDIO, _RECORD_CONFIG = 2, 4, 8  # record_flags in cext/ring.pxd
_RING_FRAME = 0
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CODECS = {name: number for number, name in media_codec.NAMES.items()}


@dataclass(slots=True)
class Clock:
    """The times of one track's frames, 90 kHz or any other unit."""

    count: int = 0
    first: int = 0
    last: int = 0

    def add(self, dts: int) -> None:
        """Counts a frame at `dts`."""
        if self.count == 0:
            self.first = self.last = dts
        self.last = max(self.last, dts)
        self.count += 1

    def fps(self, ticks_a_second: int) -> float:
        """Frames a second; 0.0 while there are too few."""
        span = self.last - self.first
        return (self.count - 1) * ticks_a_second / span if self.count > 2 and span > 0 else 0.0

    def seconds(self, ticks_a_second: int) -> float:
        """From the first frame to the end of the last."""
        if self.count < 2:
            return 0.0
        return (self.last - self.first) / ticks_a_second * self.count / (self.count - 1)


class TsAnalysis:
    """MPEG-TS."""

    name = "MPEG-TS"

    def __init__(self) -> None:
        self._arena = Arena.create(slots=1, wire_ring_bytes=1 << 20, hls_bytes=1 << 20, processes=1)
        self._arena.join(0)
        self._slot, _ = self._arena.claim("probe", 0)
        self._arena.go_live(self._slot, 0)
        self._ingest = TsIngest(self._arena, self._slot, self._arena.my_counters)
        self._frames = Ring(self._arena, self._slot, _RING_FRAME)
        self._next = 0
        self._clocks: dict[int, Clock] = {}
        self.bytes = 0

    def feed(self, data: bytes) -> None:
        """Takes what follows."""
        for start in range(0, len(data), K_FEED_BYTES):
            now_us = time.monotonic_ns() // 1000
            self._ingest.deliver(data[start : start + K_FEED_BYTES], now_us)
            self._ingest.flush(now_us)
            self._read_frames()
        self.bytes += len(data)

    def _read_frames(self) -> None:
        end = self._frames.commit_rec
        for number in range(self._next, end):
            record = self._frames.record(number)
            if record is not None and not record["flags"] & _RECORD_CONFIG:
                self._clocks.setdefault(record["track"], Clock()).add(record["dts_ticks"])
        self._next = end

    def result(self) -> dict[str, Any]:
        """{format, bytes, duration_s, bitrate_bps, tracks: as arena.slot() has them, with fps}."""
        facts = self._arena.slot(self._slot)
        tracks = []
        for number, track in enumerate(facts["tracks"]):
            clock = self._clocks.get(number, Clock())
            shown = {
                key: value for key, value in track.items() if key not in ("bytes", "frames", "keyframes")
            }
            shown["frames"] = clock.count
            if track["kind"] == "video":
                shown["fps"] = round(track["fps"] or clock.fps(K_TICKS_A_SECOND), 3)
            tracks.append(shown)
        return _summary(
            self.name,
            self.bytes,
            max((c.seconds(K_TICKS_A_SECOND) for c in self._clocks.values()), default=0.0),
            tracks,
        ) | {"errors": facts["ts_errors"]}

    def close(self) -> None:
        self._ingest.close(time.monotonic_ns() // 1000)
        self._arena.close()


@dataclass(slots=True)
class _FlvTrack:
    kind: str
    codec: str
    facts: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)


class FlvAnalysis:
    """FLV. Times are milliseconds."""

    name = "FLV"

    def __init__(self) -> None:
        self._rest = bytearray()
        self._started = False
        self._tracks: dict[int, _FlvTrack] = {}
        self.bytes = 0

    def feed(self, data: bytes) -> None:
        """Takes what follows. Raises PeerError when it is no FLV."""
        self.bytes += len(data)
        self._rest += data
        if not self._started:
            if len(self._rest) < 13:
                return
            del self._rest[: int.from_bytes(self._rest[5:9], "big") + 4]
            self._started = True
        for kind, time_ms, body in self._tags():
            if kind == 9 and len(body) > 5:
                self._video(body, time_ms)
            elif kind == 8 and len(body) > 2:
                self._audio(body, time_ms)

    def _tags(self) -> Iterator[tuple[int, int, bytes]]:
        at = 0
        while len(self._rest) - at >= 11:
            kind = self._rest[at] & 0x1F
            length = int.from_bytes(self._rest[at + 1 : at + 4], "big")
            if kind not in (8, 9, 18) or length > K_MAX_TAG_BYTES:
                raise PeerError("a broken FLV tag", "look whether the whole stream is there")
            if len(self._rest) - at < 11 + length + 4:
                break
            time_ms = self._rest[at + 7] << 24 | int.from_bytes(self._rest[at + 4 : at + 7], "big")
            yield kind, time_ms, bytes(self._rest[at + 11 : at + 11 + length])
            at += 11 + length + 4
        del self._rest[:at]

    def _track(self, kind: int, name: str, codec: str) -> _FlvTrack:
        return self._tracks.setdefault(kind, _FlvTrack(name, codec))

    def _video(self, body: bytes, time_ms: int) -> None:
        if body[0] & 0x80:  # Enhanced RTMP: frame type, packet type, FourCC
            packet, fourcc = body[0] & 0x0F, body[1:5]
            names = {b"hvc1": "H265", b"avc1": "H264", b"av01": "AV1"}
            track = self._track(9, "video", names.get(fourcc, fourcc.decode("latin-1")))
            if packet == 0:
                track.facts = _parameter_sets(track.codec, body[5:])
            elif packet in (1, 3):
                track.clock.add(time_ms)
            return
        track = self._track(
            9, "video", {7: "H264", 12: "H265"}.get(body[0] & 0x0F, f"codec {body[0] & 0x0F}")
        )
        if body[1] == 0 and body[0] & 0x0F in (7, 12):
            track.facts = _parameter_sets(track.codec, body[5:])
        elif body[1] == 1:
            track.clock.add(time_ms)

    def _audio(self, body: bytes, time_ms: int) -> None:
        names = {2: "MP3", 7: "PCMA", 8: "PCMU", 10: "AAC"}
        track = self._track(8, "audio", names.get(body[0] >> 4, f"format {body[0] >> 4}"))
        if body[0] >> 4 == 10 and body[1] == 0:
            track.facts = _audio_config(body[2:])
        else:
            track.clock.add(time_ms)

    def result(self) -> dict[str, Any]:
        """As TsAnalysis.result."""
        tracks = []
        for track in self._tracks.values():
            shown = {"kind": track.kind, "codec": track.codec, **track.facts, "frames": track.clock.count}
            if track.kind == "video":
                shown["fps"] = round(track.facts.get("fps") or track.clock.fps(1000), 3)
            tracks.append(shown)
        seconds = max((track.clock.seconds(1000) for track in self._tracks.values()), default=0.0)
        return _summary(self.name, self.bytes, seconds, tracks)

    def close(self) -> None:
        self._rest.clear()


def _parameter_sets(codec: str, record: bytes) -> dict[str, Any]:
    """Picture size, profile, level and declared frame rate of an AVC- or HEVCDecoderConfigurationRecord."""
    try:
        nal = _first_h264_sps(record) if codec == "H264" else _first_h265_sps(record)
        found = sps.parse(_CODECS[codec], nal)
    except (ValueError, IndexError, KeyError):
        return {}
    return {
        "width": found["width"],
        "height": found["height"],
        "profile": found["profile"],
        "level": found["level"],
        "fps": found["fps_millihz"] / 1000,
    }


def _first_h264_sps(record: bytes) -> bytes:
    """ISO/IEC 14496-15, 5.3.3.1."""
    if not record[5] & 0x1F:
        raise ValueError("no SPS")
    return record[8 : 8 + int.from_bytes(record[6:8], "big")]


def _first_h265_sps(record: bytes) -> bytes:
    """ISO/IEC 14496-15, 8.3.3.1."""
    at = 23
    for _ in range(record[22]):
        kind, count = record[at] & 0x3F, int.from_bytes(record[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(record[at : at + 2], "big")
            if kind == 33:
                return record[at + 2 : at + 2 + length]
            at += 2 + length
    raise ValueError("no SPS")


def _audio_config(config: bytes) -> dict[str, Any]:
    """Sample rate and channels of an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1)."""
    bits = int.from_bytes(config[:2].ljust(2, b"\0"), "big")
    rate = bits >> 7 & 0xF
    return {"channels": bits >> 3 & 0xF, "sample_rate": _AAC_RATES[rate] if rate < len(_AAC_RATES) else 0}


def _summary(name: str, count: int, seconds: float, tracks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": name,
        "bytes": count,
        "duration_s": round(seconds, 3),
        "bitrate_bps": round(count * 8 / seconds) if seconds else None,
        "tracks": tracks,
    }


class Analysis:
    """Finds out by the first bytes which of the two it is."""

    def __init__(self) -> None:
        self._begin = b""
        self._inner: TsAnalysis | FlvAnalysis | None = None

    def feed(self, data: bytes) -> None:
        """Takes what follows. Raises PeerError when it is neither MPEG-TS nor FLV."""
        if self._inner is None:
            self._begin += data
            if len(self._begin) < K_DETECT_BYTES and not self._begin.startswith(b"FLV"):
                return
            if self._begin.startswith(b"FLV"):
                self._inner = FlvAnalysis()
            elif _looks_like_ts(self._begin):
                self._inner = TsAnalysis()
            else:
                raise PeerError("neither MPEG-TS nor FLV", "give a file or stream of one of these")
            data, self._begin = self._begin, b""
        self._inner.feed(data)

    def seconds(self) -> float:
        """Of media so far."""
        return float(self.result()["duration_s"]) if self._inner is not None else 0.0

    def result(self) -> dict[str, Any]:
        """As TsAnalysis.result. Raises PeerError when there was too little."""
        if self._inner is None:
            raise PeerError("too short to tell what it is", "give more of it")
        return self._inner.result()

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()


def _looks_like_ts(data: bytes) -> bool:
    """Whether sync bytes come every 188 bytes, from one of the first 188 on."""
    return any(
        all(data[place] == 0x47 for place in range(start, len(data), 188))
        for start in range(min(188, len(data)))
    )
