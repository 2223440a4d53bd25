"""Metrics for Prometheus, read out of the arena when they are asked for.

Each process counts in its own slab of shared memory; nothing is sent to be counted. So the admin process can
tell of all of them, and what a process counted stays there when it dies and another takes its place.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from flux._version import __version__
from flux.cext.counters import NAMES

K_PROCESSES = 64
K_ADMIN = 62
K_SUPERVISOR = 63
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def process_name(number: int) -> str:
    """What the process with that place in the arena is called."""
    return {K_ADMIN: "admin", K_SUPERVISOR: "supervisor"}.get(number, f"worker {number}")


class ArenaCollector:
    """Collects from `arena` (flux.cext.arena.Arena).

    sampled: the streams as the control socket's `streams` gives them, for what has to be measured over time
    (bitrate_bps, fps).
    """

    def __init__(self, arena: Any, sampled: Iterable[dict[str, Any]] = ()) -> None:
        self._arena = arena
        self._sampled = list(sampled)

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        numbers = [n for n in range(K_PROCESSES) if self._arena.process_info(n)["incarnation"]]
        info = GaugeMetricFamily("flux_info", "what runs here", labels=["version", "python"])
        info.add_metric([__version__, platform.python_version()], 1)
        yield info
        yield from self._counters(numbers)
        yield from self._processes(numbers)
        streams = self._arena.streams()
        for name, text, value in (
            ("flux_arena_slots", "streams that there is room for", self._arena.slots),
            ("flux_arena_slots_used", "streams that are live, idle or being set up", len(streams)),
            ("flux_arena_memory_bytes", "memory that the arena holds", self._arena.memory_bytes),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield from self._streams(streams)

    def _counters(self, numbers: list[int]) -> Iterator[Metric]:
        slabs = {process_name(n): self._arena.counters(n) for n in numbers}
        for number, (name, text) in NAMES.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, text, labels=["process"])
            for process, values in slabs.items():
                family.add_metric([process], float(values[number]))
            yield family

    def _processes(self, numbers: list[int]) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "flux_process_heartbeat_age_seconds",
            "since the process last said that it is alive",
            labels=["process"],
        )
        starts = CounterMetricFamily(
            "flux_process_starts_total", "times that the process was started", labels=["process"]
        )
        now_us = time.monotonic_ns() // 1000
        for number in numbers:
            info = self._arena.process_info(number)
            name = process_name(number)
            age.add_metric([name], max(0, now_us - info["heartbeat_us"]) / 1e6)
            starts.add_metric([name], info["incarnation"])
        yield age
        yield starts

    def _streams(self, streams: list[dict[str, Any]]) -> Iterator[Metric]:
        shown = [{**s, "live": s["state"] == "live"} for s in streams if s["state"] in ("live", "idle")]
        yield from _families(_STREAM_FACTS, shown)
        yield from _families(_STREAM_RATES, self._sampled)


# key in a stream's facts, metric, help
_STREAM_FACTS = (
    ("live", "flux_stream_live", "1 while the publisher is connected, 0 while its return is waited for"),
    ("viewers", "flux_stream_viewers", "players"),
    ("bytes_in", "flux_stream_bytes_in_total", "bytes that the publisher sent"),
    ("ts_errors", "flux_stream_ts_errors_total", "continuity errors, lost sync and bad CRCs"),
    ("discontinuities", "flux_stream_discontinuities_total", "jumps of time stamps"),
    ("publishers", "flux_stream_publishers_total", "publishers so far; a reconnect makes two"),
)
_STREAM_RATES = (
    ("bitrate_bps", "flux_stream_bitrate_bps", "bits a second that come in"),
    ("fps", "flux_stream_fps", "video frames a second that come in"),
)


def _families(facts: tuple[tuple[str, str, str], ...], streams: list[dict[str, Any]]) -> Iterator[Metric]:
    for key, name, text in facts:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, text, labels=["stream"])
        for stream in streams:
            if stream.get(key) is not None:
                family.add_metric([stream["name"]], float(stream[key]))
        yield family


def exposition(collector: ArenaCollector) -> bytes:
    """The metrics in Prometheus' text format, 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
