"""Scenario: a stream of 2 Mbit/s to many HTTP-FLV players, at several write intervals, against bare send()s.

The worker has one CPU, all that loads it another. The raw limit is a loop of send()s of the same bytes in the
same portions at the same times, written down from one player of the server, to as many sockets of the same
load generator; server and loop take turns. Every byte of every player is compared (native/players.c).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from perf.build import OUT
from perf.media import clip
from perf.programs import K_BUSY, K_CROWDED, LoadError, Program, Usage, busy, measuring_cpus, private_bytes
from perf.server import FluxServer

K_INTERVALS_MS = (0, 20, 40, 350)
K_PLAYERS = (100, 500, 1000, 2000)
K_JOINS_A_SECOND = 1000
K_STREAM = "live/bench"
K_LIMITS = (
    ("CPU, times the raw limit", "Flux / raw", 1.3),
    ("user memory a player, bytes", "bytes a player", 4096),
    ("players without every byte", "faults", 0),
)


def _players(port: int, path: str, count: int, *more: object) -> Program:
    _, load_cpu = measuring_cpus()
    arguments = ("--port", port, "--path", path, "--players", count, "--rate", K_JOINS_A_SECOND, *more)
    return Program("players", *arguments, cpu=load_cpu)


def _measure(pid: int, port: int, path: str, count: int, seconds: float) -> dict[str, Any]:
    """What `count` players cost the process `pid` for so long, and whether they got every byte."""
    memory = private_bytes(pid)
    with _players(port, path, count) as players:
        ready = players.read(60)
        memory = private_bytes(pid) - memory
        before, usage = players.mark(), Usage.of(pid)
        time.sleep(seconds)
        after, usage = players.mark(), Usage.of(pid).since(usage)
    gbits = (after["bytes"] - before["bytes"]) * 8e-9
    return {
        "cpu": usage.cpu_s / gbits,
        "gbits": gbits / usage.at_s,
        "share": usage.cpu_s / usage.at_s,
        "waited": usage.waited_s / usage.at_s,
        "busy": busy(before, after),
        "faults": after["gone"] + after["mismatched"] + after["behind"] + (after["unverified"] > 0),
        "verified": after["verified"],
        "memory": memory / count,
        "first": (ready["first_byte_p50_us"] / 1000, ready["first_byte_p95_us"] / 1000),
    }


def _trace(port: int, path: str, interval_ms: int, seconds: float) -> Path:
    """Writes down what one player is sent, and when."""
    file = OUT / f"fanout-{interval_ms}.trace"
    with _players(port, path, 1, "--trace", file, "--trace-s", seconds) as player:
        player.read()
        player.read(seconds + 30)
    return file


def _median(samples: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(sample[key] for sample in samples))


def _row(
    interval_ms: int, count: int, flux: list[dict[str, Any]], raw: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "interval ms": interval_ms,
        "players": count,
        "Gbit/s": _median(flux, "gbits"),
        "Flux CPU s/Gbit": _median(flux, "cpu"),
        "raw CPU s/Gbit": _median(raw, "cpu"),
        "Flux / raw": _median(flux, "cpu") / _median(raw, "cpu"),
        "worker CPU %": 100 * _median(flux, "share"),
        "generator CPU %": 100 * max(_median(flux, "busy"), _median(raw, "busy")),
        "waiting for CPU %": 100 * max(sample["waited"] for sample in flux + raw),
        "faults": sum(sample["faults"] for sample in flux + raw),
        "GB compared": sum(sample["verified"] for sample in flux) / 1e9,
        "bytes a player": round(_median(flux, "memory")),
        "first byte p50 ms": statistics.median(sample["first"][0] for sample in flux),
        "first byte p95 ms": statistics.median(sample["first"][1] for sample in flux),
    }


def run(quick: bool) -> dict[str, Any]:
    own_cpu, load_cpu = measuring_cpus()
    intervals, counts = ((20,), (100, 1000)) if quick else (K_INTERVALS_MS, K_PLAYERS)
    seconds, repeats = (1.0, 1) if quick else (3.0, 3)
    rows: list[dict[str, Any]] = []
    notes = []
    for interval_ms in intervals:
        settings = {"workers": 1, "cpus": [own_cpu], "http.write_interval_ms": interval_ms}
        with FluxServer(settings) as server:
            address = f"127.0.0.1:{server.srt_port}"
            arguments = ("--connect", address, "--streamid", f"publish:{K_STREAM}", "--clip", clip(2))
            with Program("srt_send", *arguments, cpu=load_cpu) as publisher:
                publisher.read()
                server.wait_stream(K_STREAM, tracks=2)
                (worker,) = server.worker_pids()
                path = f"/{K_STREAM}.flv"
                trace = _trace(server.http_port, path, interval_ms, 3 if quick else 9)
                with Program("raw_send", "--trace", trace, cpu=own_cpu) as sender:
                    raw_port = sender.read()["port"]
                    for count in counts:
                        flux, raw = [], []
                        for _ in range(repeats):
                            flux.append(_measure(worker, server.http_port, path, count, seconds))
                            raw.append(_measure(sender.pid, raw_port, path, count, seconds))
                        rows.append(_row(interval_ms, count, flux, raw))
                figures = publisher.mark()
                if figures["refused_pkts"] or figures["dropped_pkts"] or figures["lost_flows"]:
                    raise LoadError(f"the publisher could not send all: {figures}")
    for row in rows:
        where = f"at {row['interval ms']} ms with {row['players']} players"
        if row["generator CPU %"] > 100 * K_BUSY:
            notes.append(
                f"{where} the load generator was near its limit: the figure is not the server's alone"
            )
        if row["waiting for CPU %"] > 100 * K_CROWDED:
            notes.append(f"{where} something else ran on the CPU that was measured")
        if row["faults"]:
            notes.append(f"{where} players were lost, behind or given other bytes: {row['faults']} in all")
    limits = [
        (f"fan-out, {row['players']} players at {row['interval ms']} ms: {what}", most, row[column])
        for row in rows
        if row["players"] == 1000
        for what, column, most in K_LIMITS
    ]
    return {
        "title": "Fan-out: one stream of 2 Mbit/s to HTTP-FLV players",
        "rows": rows,
        "limits": limits,
        "notes": [
            "CPU s/Gbit: user and system time of the process that sends, a Gbit of what players received; "
            f"median of {repeats}, server and raw loop in turns. The server's includes ingest and muxing.",
            "Faults: players that were closed, more than 0.8 s behind, or got a byte that others did not; "
            "each byte of each player was compared.",
            "Bytes a player: growth of the worker's private memory. "
            f"First byte: from connect() to the body's, {K_JOINS_A_SECOND} joins a second.",
            *notes,
        ],
        "plots": [
            {"title": "Cost over the raw limit", "x": "players", "y": "Flux / raw", "by": "interval ms"},
            {"title": "Cost", "x": "players", "y": "Flux CPU s/Gbit", "by": "interval ms"},
            {"title": "Raw limit", "x": "players", "y": "raw CPU s/Gbit", "by": "interval ms"},
        ],
    }
