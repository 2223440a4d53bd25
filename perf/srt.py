"""Scenario: SRT ingest and SRT play, ours and libsrt's in turns, and bare datagrams as the raw limit.

Ingest: the same publisher (libsrt) sends to our worker, which also demuxes, and to a program on libsrt that
receives and discards. Play: our worker takes one stream of 2 Mbit/s in and gives it to 50 players on libsrt;
a program on libsrt gives the same to the same 50. The CPU of the process that is measured is compared.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from flux.config.schema import SrtSettings
from flux.srt.pace import K_CALM_INTERVAL_US
from perf.media import CLIPS, clip
from perf.programs import K_BUSY, K_CROWDED, Program, Usage, busy, measuring_cpus
from perf.server import FluxServer

K_STREAM = "live/bench"
K_SETTLE_S = 0.5
turns = itertools.count()  # no two publishers have the same name: an end may be noticed late


@dataclass(frozen=True, slots=True)
class Load:
    """`flows` streams of a clip of `mbits` Mbit/s, `speed` times as fast."""

    name: str
    flows: int
    mbits: int
    speed: int = 1
    passphrase: str = ""  # with AES-128

    @property
    def secret(self) -> tuple[str, ...]:
        return ("--passphrase", self.passphrase) if self.passphrase else ()

    @property
    def wide(self) -> int:
        """Whether libsrt needs larger buffers than its own: its 8,192 packets are 0.1 s of 1 Gbit/s."""
        return int(self.mbits * self.speed > 100)

    @property
    def bits(self) -> float:
        """Of one flow, a second."""
        return clip(self.mbits).stat().st_size * 8 / CLIPS[self.mbits].seconds * self.speed


INGEST = (
    Load("1 x 20 Mbit/s", 1, 20),
    Load("1 x 200 Mbit/s", 1, 200),
    Load("1 x 1,000 Mbit/s", 1, 200, 5),
    Load("50 x 2 Mbit/s", 50, 2),
)
K_PASSPHRASE = "a-passphrase-to-measure"
ENCRYPTED_INGEST = Load("1 x 200 Mbit/s, AES-128", 1, 200, passphrase=K_PASSPHRASE)
# How long libsrt's program gathers payloads before it sends: each as it is due, and as long as our worker,
# for which 2 Mbit/s are small batches that wait for one interval more.
PLAY_TICKS_US = (1000, 2000 * SrtSettings().play_interval_ms)
PLAY = Load("2 Mbit/s to 50 players", 50, 2)
ENCRYPTED_PLAY = Load("2 Mbit/s to 50 players, AES-128", 50, 2, passphrase=K_PASSPHRASE)
K_ENCRYPTED_LIMIT = 1 / 3
K_JOIN_S = 1.5  # what players get at once when they join is over by then


def _window(pid: int, load: Program, seconds: float) -> dict[str, float]:
    """CPU seconds of `pid` a Gbit of payload that `load` sends or receives, and how busy `load` is."""
    time.sleep(K_SETTLE_S)
    before, usage = load.mark(), Usage.of(pid)
    time.sleep(seconds)
    after, usage = load.mark(), Usage.of(pid).since(usage)
    gbits = (after["bytes"] - before["bytes"]) * 8e-9
    troubles = ("lost_pkts", "dropped_pkts", "retransmitted_pkts", "refused_pkts", "lost_flows")
    return {
        "cpu": usage.cpu_s / gbits if gbits else float("nan"),
        "waited": usage.waited_s / usage.at_s,
        "mbits": gbits * 1000 / usage.at_s,
        "busy": busy(before, after),
        "lost": sum(after.get(key, 0) - before.get(key, 0) for key in troubles),
    }


def _sender(load: Load, port: int, stream_id: str) -> Program:
    _, load_cpu = measuring_cpus()
    arguments = ("--connect", f"127.0.0.1:{port}", "--streamid", stream_id, "--clip", clip(load.mbits))
    more = ("--flows", load.flows, "--speed", load.speed, "--wide", load.wide)
    return Program("srt_send", *arguments, *more, *load.secret, cpu=load_cpu)


def _ingest_flux(server: FluxServer, load: Load, seconds: float) -> dict[str, float]:
    (worker,) = server.worker_pids()
    name = f"{K_STREAM}-{next(turns)}"
    with _sender(load, server.srt_port, f"publish:{name}-%d") as sender:
        sender.read()
        server.wait_stream(f"{name}-{load.flows - 1}", tracks=2)
        return _window(worker, sender, seconds)


def _ingest_libsrt(load: Load, seconds: float) -> dict[str, float]:
    own_cpu, _ = measuring_cpus()
    arguments = ("--listen", "127.0.0.1:0", "--flows", load.flows, "--wide", load.wide)
    with Program("srt_receive", *arguments, *load.secret, cpu=own_cpu) as receiver:
        port = receiver.read()["port"]
        with _sender(load, port, "bench%d") as sender:
            sender.read()
            receiver.read()
            return _window(receiver.pid, sender, seconds)


def _ingest_raw(load: Load, seconds: float, gso: int) -> dict[str, float]:
    """Datagrams one by one read on a calm tick as our worker does, or GSO batches read with GRO."""
    own_cpu, load_cpu = measuring_cpus()
    tick = ("--tick-us", K_CALM_INTERVAL_US)
    with Program("udp_raw", "receive", "--listen", "127.0.0.1:0", *tick, cpu=own_cpu) as receiver:
        address = f"127.0.0.1:{receiver.read()['port']}"
        arguments = ("--connect", address, "--flows", load.flows, "--bits", load.bits, "--gso", gso)
        with Program("udp_raw", "send", *arguments, cpu=load_cpu) as sender:
            sender.read()
            return _window(receiver.pid, sender, seconds)


def _play_flux(server: FluxServer, load: Load, seconds: float) -> dict[str, float]:
    _, load_cpu = measuring_cpus()
    (worker,) = server.worker_pids()
    name = f"{K_STREAM}-{next(turns)}"
    source = Load("", 1, load.mbits, passphrase=load.passphrase)
    with _sender(source, server.srt_port, f"publish:{name}") as sender:
        sender.read()
        server.wait_stream(name, tracks=2)
        address = f"127.0.0.1:{server.srt_port}"
        arguments = ("--connect", address, "--streamid", f"read:{name}", "--flows", load.flows)
        with Program("srt_receive", *arguments, *load.secret, cpu=load_cpu) as players:
            players.read()
            time.sleep(K_JOIN_S)
            return _window(worker, players, seconds)


def _play_libsrt(load: Load, tick_us: int, seconds: float) -> dict[str, float]:
    own_cpu, load_cpu = measuring_cpus()
    arguments = ("--listen", "127.0.0.1:0", "--flows", load.flows, "--clip", clip(load.mbits))
    with Program("srt_send", *arguments, "--tick-us", tick_us, *load.secret, cpu=own_cpu) as sender:
        call = ("--connect", f"127.0.0.1:{sender.read()['port']}", "--flows", load.flows, *load.secret)
        with Program("srt_receive", *call, cpu=load_cpu) as players:
            players.read()
            sender.read()
            time.sleep(K_JOIN_S)
            return _window(sender.pid, players, seconds)


def _play_raw(load: Load, seconds: float) -> dict[str, float]:
    own_cpu, load_cpu = measuring_cpus()
    with Program(
        "udp_raw", "receive", "--listen", "127.0.0.1:0", "--tick-us", 2000, cpu=load_cpu
    ) as receiver:
        address = f"127.0.0.1:{receiver.read()['port']}"
        arguments = ("--connect", address, "--flows", load.flows, "--bits", load.bits)
        with Program("udp_raw", "send", *arguments, "--tick-us", PLAY_TICKS_US[-1], cpu=own_cpu) as sender:
            sender.read()
            return _window(sender.pid, receiver, seconds)


def _in_turns(
    what: str, load: Load, repeats: int, limit: float | None, ways: dict[str, Callable[[], dict[str, float]]]
) -> dict[str, Any]:
    """One row: each way is measured once a turn; medians of all turns."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            samples[name].append(measure())
    cpu = {name: statistics.median(one["cpu"] for one in taken) for name, taken in samples.items()}
    raw = cpu.get("raw", cpu["gso"])
    return {
        "what": what,
        "load": load.name,
        "Mbit/s": statistics.median(one["mbits"] for one in samples["flux"]),
        "libsrt Mbit/s": statistics.median(one["mbits"] for one in samples["libsrt"]),
        "Flux CPU s/Gbit": cpu["flux"],
        "libsrt CPU s/Gbit": cpu["libsrt"],
        "Flux / libsrt": cpu["flux"] / cpu["libsrt"],
        "limit": "" if limit is None else limit,
        "raw CPU s/Gbit": raw,
        "Flux / raw": cpu["flux"] / raw,
        "GSO, GRO CPU s/Gbit": cpu["gso"],
        "generator CPU %": 100 * max(one["busy"] for one in samples["flux"] + samples["libsrt"]),
        "waiting for CPU %": 100 * max(one["waited"] for one in samples["flux"]),
        "troubles": round(sum(one["lost"] for one in samples["flux"])),
        "libsrt troubles": round(sum(one["lost"] for one in samples["libsrt"])),
    }


def _ingest(server: FluxServer, load: Load, repeats: int, seconds: float) -> dict[str, Any]:
    return _in_turns(
        "ingest",
        load,
        repeats,
        K_ENCRYPTED_LIMIT if load.passphrase else 0.5,
        {
            "flux": lambda: _ingest_flux(server, load, seconds),
            "libsrt": lambda: _ingest_libsrt(load, seconds),
            "raw": lambda: _ingest_raw(load, seconds, 0),
            "gso": lambda: _ingest_raw(load, seconds, 1),
        },
    )


def _play(server: FluxServer, load: Load, tick_us: int, repeats: int, seconds: float) -> dict[str, Any]:
    limit = K_ENCRYPTED_LIMIT if load.passphrase else 0.25
    return _in_turns(
        f"play, libsrt sends each {tick_us // 1000} ms",
        load,
        repeats,
        limit if tick_us == PLAY_TICKS_US[0] else None,
        {
            "flux": lambda: _play_flux(server, load, seconds),
            "libsrt": lambda: _play_libsrt(load, tick_us, seconds),
            "gso": lambda: _play_raw(load, seconds),
        },
    )


def run(quick: bool) -> dict[str, Any]:
    own_cpu, _ = measuring_cpus()
    seconds, repeats = (1.0, 1) if quick else (4.0, 3)
    rows = []
    settings = {
        "workers": 1,
        "cpus": [own_cpu],
        "srt.latency_ms": 120,
        "srt.receive_buffer_pkts": 65536,
        "srt.flow_window_pkts": 65536,
    }
    with ExitStack() as stack:
        server = stack.enter_context(FluxServer(settings))
        for load in INGEST[1::2] if quick else INGEST:
            rows.append(_ingest(server, load, repeats, seconds))
        for tick_us in PLAY_TICKS_US[:1] if quick else PLAY_TICKS_US:
            rows.append(_play(server, PLAY, tick_us, repeats, seconds))
    with ExitStack() as stack:
        server = stack.enter_context(FluxServer({**settings, "srt.passphrase": K_PASSPHRASE}))
        rows.append(_ingest(server, ENCRYPTED_INGEST, repeats, seconds))
        rows.append(_play(server, ENCRYPTED_PLAY, PLAY_TICKS_US[0], repeats, seconds))
    notes = [
        f"{row['what']} {row['load']}: the load generator was near its limit"
        for row in rows
        if row["generator CPU %"] > 100 * K_BUSY
    ] + [
        f"{row['what']} {row['load']}: something else ran on the CPU that was measured"
        for row in rows
        if row["waiting for CPU %"] > 100 * K_CROWDED
    ]
    return {
        "title": "SRT: ingest and play, Flux and libsrt",
        "rows": rows,
        "limits": [
            (f"SRT {row['what']}, {row['load']}: CPU, times libsrt's", row["limit"], row["Flux / libsrt"])
            for row in rows
            if row["limit"]
        ],
        "notes": [
            "CPU s/Gbit: user and system time of the process on the measured CPU, all its threads, "
            f"a Gbit of payload; median of {repeats}, in turns. Flux's ingest includes demuxing, "
            "libsrt's program only receives and discards; Flux's play includes taking the stream in.",
            "Play: compared is a program that sends each payload as it is due, as a live source does; "
            "the row after it shows what libsrt gains by gathering them as long as Flux does.",
            "Raw of ingest: datagrams sent one by one, as libsrt does, read by recvmmsg() each 10 ms. "
            "GSO, GRO: sent and received in batches of up to 44 with segmentation offload.",
            "Troubles: packets lost, dropped, sent again or refused, and flows that ended meanwhile.",
            *notes,
        ],
        "plots": [],
    }
