"""Small arenas, and other processes that share them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import multiprocess
from flux.cext.arena import Arena

FORK = multiprocess.get_context("fork")


def small_arena(process: int | None = 0, **sizes: int) -> Arena:
    """An arena of two streams and eight processes with 64 KiB rings, joined as `process`."""
    sizes = {
        "slots": 2,
        "processes": 8,
        "frame_ring_bytes": 64 << 10,
        "wire_ring_bytes": 64 << 10,
        "hls_bytes": 1 << 20,
        "index_entries": 256,
        **sizes,
    }
    arena = Arena.create(**sizes)
    if process is not None:
        arena.join(process)
    return arena


def beside(arena: Arena, process: int | None = None) -> Arena:
    """Another view of the same arena, as another process has it; joined as `process`."""
    other = Arena.attach(os.dup(arena.fd), [os.dup(fd) for fd in arena.doorbells], owns=True)
    if process is not None:
        other.join(process)
    return other


@contextmanager
def child(target: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """A forked process that runs `target`; killed at the end if it still lives."""
    process = FORK.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def wait_for(condition: Callable[[], Any], timeout_s: float = 10) -> Any:
    """What `condition` gives once that is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{condition} did not come true within {timeout_s} s"
        time.sleep(0.002)
