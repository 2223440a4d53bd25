"""Rates out of totals that grow: bits and frames a second."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

K_LEAST_S = 0.5  # totals that lie closer together give no fair rate
K_SAMPLES = 5  # the rate is over so many samples


class Rate:
    """How fast a total grows, over its latest K_SAMPLES samples."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def sample(self, now_s: float, total: int) -> None:
        """A total at `now_s`; one too soon after the last is left out, one that shrank begins anew."""
        if self._samples:
            last_s, last = self._samples[-1]
            if total < last:
                self._samples.clear()
            elif now_s - last_s < K_LEAST_S:
                return
        self._samples.append((now_s, total))
        del self._samples[:-K_SAMPLES]

    @property
    def per_second(self) -> float | None:
        """None while there are not two samples."""
        if len(self._samples) < 2:
            return None
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_s - first_s)


class StreamRates:
    """bitrate_bps and fps of every stream, from the arena's facts sampled once a second."""

    def __init__(self) -> None:
        self._rates: dict[Hashable, tuple[Rate, Rate]] = {}

    def sample(self, streams: Iterable[dict[str, Any]], now_s: float) -> None:
        """Takes the facts of all streams (Arena.streams()); those that are gone are forgotten."""
        rates = {}
        for facts in streams:
            key = self._key(facts)
            bytes_in, frames = rates[key] = self._rates.get(key) or (Rate(), Rate())
            bytes_in.sample(now_s, facts["bytes_in"])
            frames.sample(now_s, _video_frames(facts))
        self._rates = rates

    def of(self, facts: dict[str, Any]) -> dict[str, int | float]:
        """bitrate_bps and fps of that stream; 0 while they are not known, or it is not live."""
        bytes_in, frames = self._rates.get(self._key(facts)) or (Rate(), Rate())
        if facts["state"] != "live":
            return {"bitrate_bps": 0, "fps": 0.0}
        return {
            "bitrate_bps": round(8 * (bytes_in.per_second or 0)),
            "fps": round(frames.per_second or 0, 1),
        }

    @staticmethod
    def _key(facts: dict[str, Any]) -> Hashable:
        return facts["slot"], facts["generation"], facts["publishers"]


def _video_frames(facts: dict[str, Any]) -> int:
    return next((track["frames"] for track in facts["tracks"] if track.get("kind") == "video"), 0)
