"""Scenario: how old a frame is when HTTP-FLV players have it, beyond the SRT latency; write interval 0.

Each frame holds the time at which its publisher made it; a player that has the whole FLV tag looks at the
clock. The raw limit is a loop that makes such tags itself and sends each at once to as many sockets.
"""

from __future__ import annotations

import time
from typing import Any

from perf.programs import K_BUSY, K_CROWDED, Program, Usage, busy, measuring_cpus
from perf.server import FluxServer

K_PLAYERS = (1, 100, 1000)
K_LATENCY_MS = 120
K_FRAME_BYTES = 10_000
K_LIMIT_MS = 5.0  # added at the 99th percentile
K_STREAM = "live/bench"


def _ages(pid: int, port: int, path: str, count: int, seconds: float) -> dict[str, Any]:
    _, load_cpu = measuring_cpus()
    arguments = ("--port", port, "--path", path, "--players", count, "--stamps", 1)
    with Program("players", *arguments, cpu=load_cpu) as players:
        players.read(60)
        before, usage = players.mark(), Usage.of(pid)
        time.sleep(seconds)
        after, usage = players.mark(), Usage.of(pid).since(usage)
    return {**after, "busy": busy(before, after), "waited": usage.waited_s / usage.at_s}


def run(quick: bool) -> dict[str, Any]:
    own_cpu, load_cpu = measuring_cpus()
    seconds = 2.0 if quick else 20.0
    rows, notes = [], []
    settings = {
        "workers": 1,
        "cpus": [own_cpu],
        "http.write_interval_ms": 0,
        "srt.latency_ms": K_LATENCY_MS,
    }
    with FluxServer(settings) as server:
        arguments = ("--streamid", f"publish:{K_STREAM}", "--latency-ms", K_LATENCY_MS)
        frames = ("--frame-bytes", K_FRAME_BYTES, "--fps", 25)
        address = f"127.0.0.1:{server.srt_port}"
        with Program("stamp_send", "--connect", address, *arguments, *frames, cpu=load_cpu) as publisher:
            publisher.read()
            server.wait_stream(K_STREAM)
            (worker,) = server.worker_pids()
            with Program("raw_send", *frames, cpu=own_cpu) as sender:
                raw_port = sender.read()["port"]
                for count in (100,) if quick else K_PLAYERS:
                    flux = _ages(worker, server.http_port, f"/{K_STREAM}.flv", count, seconds)
                    raw = _ages(sender.pid, raw_port, "/", count, seconds)
                    added = {key: flux[key] / 1000 - K_LATENCY_MS for key in ("p50_us", "p99_us", "max_us")}
                    rows.append(
                        {
                            "players": count,
                            "frames seen": flux["samples"],
                            "added p50 ms": added["p50_us"],
                            "added p99 ms": added["p99_us"],
                            "added max ms": added["max_us"],
                            "raw p50 ms": raw["p50_us"] / 1000,
                            "raw p99 ms": raw["p99_us"] / 1000,
                            "p50 / raw": added["p50_us"] * 1000 / raw["p50_us"],
                            "p99 / raw": added["p99_us"] * 1000 / raw["p99_us"],
                            "waiting for CPU %": 100 * flux["waited"],
                            "faults": flux["gone"] + flux["mismatched"] + flux["behind"],
                        }
                    )
                    if flux["waited"] > K_CROWDED:
                        notes.append(f"with {count} players something else ran on the worker's CPU")
                    if max(flux["busy"], raw["busy"]) > K_BUSY:
                        notes.append(f"with {count} players the load generator was near its limit")
    return {
        "title": "Latency: from the publisher's frame to the players', beyond the SRT latency",
        "rows": rows,
        "limits": [
            (
                f"latency, {row['players']} players at interval 0: added p99, ms",
                K_LIMIT_MS,
                row["added p99 ms"],
            )
            for row in rows
            if row["players"] == 100
        ],
        "notes": [
            f"Publisher: libsrt, 25 frames of {K_FRAME_BYTES:,} bytes a second. Write interval 0. "
            f"The SRT latency of {K_LATENCY_MS} ms is taken off.",
            "Raw: a frame is sent at once, in one loop of send()s, with no SRT in front.",
            *notes,
        ],
        "plots": [{"title": "Added latency, p99", "x": "players", "y": "added p99 ms", "log": True}],
    }
