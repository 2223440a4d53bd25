"""Scenario: one writer and 1, 4 or 16 readers in other processes on a ring, against memcpy of the same bytes.

The writer writes a burst of half a ring, then every reader reads it, so that each frame is read by everybody.
What is timed is the CPU of the loops; bursts through the ring take turns with bursts of bare memcpy in the
memory of another.
"""

from __future__ import annotations

import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import multiprocess
from flux.cext.arena import Arena
from flux.cext.ring import Ring

from perf.build import ring_loops
from perf.programs import measuring_cpus

K_READERS = (1, 4, 16)
K_FRAME_BYTES = (1_000, 10_000, 100_000)
K_BURST_BYTES = 4 << 20
K_LEAST_BURSTS = 24
K_RING_TS, K_RING_FLV = 1, 2  # the one that is used as a ring, and the one that is only memory


def _read(arena: Arena, number: int, frame_bytes: int, frames: int, cpu: int, pipe: Connection) -> None:
    """A reader's process: answers each command, "ring" or "bare", by (ns it took, records lapped)."""
    os.sched_setaffinity(0, {cpu})
    arena.join(number)
    loops = ring_loops()
    ring, bare, frame = Ring(arena, 0, K_RING_TS), Ring(arena, 0, K_RING_FLV), loops.Frame(frame_bytes)
    rec, pos = ring.commit_rec, 0
    pipe.send("here")
    while (command := pipe.recv()) != "stop":
        if command == "ring":
            took_ns, rec, lapped = loops.read_ring(ring, frame, rec)
            pipe.send((took_ns, lapped))
        else:
            pipe.send((loops.read_bare(bare, frame, frames, pos), 0))
            pos += frames * frame_bytes


def _measure(readers: int, frame_bytes: int, seconds: float) -> dict[str, Any]:
    own_cpu, load_cpu = measuring_cpus()
    loops = ring_loops()
    fork = multiprocess.get_context("fork")
    arena = Arena.create(slots=1, processes=readers + 1)
    arena.join(0)
    slot, _ = arena.claim("bench", 1)
    arena.go_live(slot, 1)
    ring, bare, frame = Ring(arena, slot, K_RING_TS), Ring(arena, slot, K_RING_FLV), loops.Frame(frame_bytes)
    frames = K_BURST_BYTES // frame_bytes
    pipes, processes = [], []
    for number in range(readers):
        ours, theirs = fork.Pipe()
        process = fork.Process(
            target=_read, args=(arena, number + 1, frame_bytes, frames, load_cpu, theirs), daemon=True
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {own_cpu})
    figures: dict[str, dict[str, list[float]]] = {
        kind: {"write": [], "read": [], "wall": []} for kind in ("ring", "bare")
    }
    lapped = 0
    try:
        for pipe in pipes:
            pipe.recv()
        end = time.monotonic() + seconds
        burst = pos = 0
        while time.monotonic() < end or burst < K_LEAST_BURSTS:
            kind = ("ring", "bare")[burst % 2]
            start_s = time.perf_counter()
            if kind == "ring":
                write_ns = loops.write_ring(ring, frame, frames)
            else:
                write_ns = loops.write_bare(bare, frame, frames, pos)
                pos += frames * frame_bytes
            for pipe in pipes:
                pipe.send(kind)
            answers = [pipe.recv() for pipe in pipes]
            if burst >= 4:  # the first ones touch the pages
                figures[kind]["wall"].append(time.perf_counter() - start_s)
                figures[kind]["write"].append(write_ns / frames)
                figures[kind]["read"] += [took_ns / frames for took_ns, _ in answers]
            lapped += sum(count for _, count in answers)
            burst += 1
        for pipe in pipes:
            pipe.send("stop")
        for process in processes:
            process.join(10)
    finally:
        os.sched_setaffinity(0, everywhere)
        for process in processes:
            if process.is_alive():
                process.kill()
        arena.close()
    if lapped:
        raise RuntimeError(f"{lapped} records were lapped, which bursts of half a ring can't cause")
    median = {k: {what: statistics.median(v) for what, v in kind.items()} for k, kind in figures.items()}
    write_ns, read_ns = median["ring"]["write"], median["ring"]["read"]
    return {
        "readers": readers,
        "frame bytes": frame_bytes,
        "write ns/frame": write_ns,
        "write GB/s": frame_bytes / write_ns,
        "write / memcpy": write_ns / median["bare"]["write"],
        "read ns/frame": read_ns,
        "read GB/s": frame_bytes / read_ns,
        "read / memcpy": read_ns / median["bare"]["read"],
        "all readers GB/s": readers * frames * frame_bytes / median["ring"]["wall"] / 1e9,
    }


def run(quick: bool) -> dict[str, Any]:
    sizes = (1_000, 10_000) if quick else K_FRAME_BYTES
    seconds = 0.4 if quick else 2.0
    rows = [_measure(readers, size, seconds) for size in sizes for readers in K_READERS]
    return {
        "title": "Ring: one writer, readers in other processes",
        "rows": rows,
        "notes": [
            "ns/frame and GB/s are CPU time of the loop, median of all bursts; the writer has a CPU of its "
            "own, all readers share another.",
            "memcpy: the same bytes into and out of memory of the same kind, with no record, position or "
            "check, in turns with the ring's bursts.",
            "all readers GB/s: what all readers together took, by the clock, hand-over of bursts included.",
        ],
        "plots": [
            {"title": "Reading", "x": "readers", "y": "read GB/s", "by": "frame bytes", "log": True},
            {"title": "Writing", "x": "readers", "y": "write GB/s", "by": "frame bytes", "log": True},
        ],
    }
