"""HLS media playlists (RFC 8216, protocol version 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

K_VERSION = 3  # EXT-X-VERSION: decimal EXTINF
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def render_playlist(snapshot: Mapping[str, Any], newest: int, min_target_s: int = 1, prefix: str = "") -> str:
    """The text of a live playlist.

    snapshot: HlsReader.snapshot(): {media_sequence, target_duration (s), discontinuity_sequence,
    segments: [{sequence, duration_s, date_us, discontinuity, independent, …}], ended}.
    newest: how many segments to list at most. prefix: goes before their addresses.
    EXT-X-TARGETDURATION is the longest duration rounded up, and at least min_target_s.
    """
    kept: Sequence[Mapping[str, Any]] = snapshot["segments"]
    shown = kept[-newest:]
    left_out = kept[: len(kept) - len(shown)]
    discontinuities = int(snapshot["discontinuity_sequence"]) + sum(1 for s in left_out if s["discontinuity"])
    first = shown[0]["sequence"] if shown else snapshot["media_sequence"]
    longest = max((s["duration_s"] for s in kept), default=0.0)
    target = max(min_target_s, math.ceil(max(longest, snapshot["target_duration"]) - 1e-6))
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{K_VERSION}",
        f"#EXT-X-TARGETDURATION:{target}",
        f"#EXT-X-MEDIA-SEQUENCE:{first}",
    ]
    if discontinuities:
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}")
    if all(segment["independent"] for segment in shown):
        lines.append("#EXT-X-INDEPENDENT-SEGMENTS")
    for segment in shown:
        if segment["discontinuity"]:
            lines.append("#EXT-X-DISCONTINUITY")
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{iso_date(segment['date_us'])}")
        lines.append(f"#EXTINF:{segment['duration_s']:.5f},")
        lines.append(f"{prefix}{segment['sequence']}.ts")
    if snapshot["ended"]:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def iso_date(date_us: int) -> str:
    """Wall clock in µs since 1970 as ISO 8601 in UTC with milliseconds."""
    return (
        (_EPOCH + timedelta(microseconds=date_us)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
