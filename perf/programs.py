"""Load programs as the scenarios run them, and what a process has used, from /proc."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.build import binary

K_ANSWER_S = 30.0
K_CROWDED = 0.05  # of the time: a process that waits longer for its CPU shares it
K_BUSY = 0.8  # of its CPU: a generator that uses more may be what limits a figure


class LoadError(RuntimeError):
    """A load program failed or did not answer; says what it printed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What all threads of a process used until `at_s`: seconds on a CPU, and ready but waiting for one."""

    at_s: float
    cpu_s: float
    waited_s: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        ran = waited = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (task / "schedstat").read_text().split()
                ran, waited = ran + int(words[0]), waited + int(words[1])
        return cls(time.monotonic(), ran / 1e9, waited / 1e9)

    def since(self, before: Usage) -> Usage:
        """The differences."""
        return Usage(self.at_s - before.at_s, self.cpu_s - before.cpu_s, self.waited_s - before.waited_s)


def private_bytes(pid: int) -> int:
    """Memory that is the process's own: the arena's pages, which all share, are not in it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise LoadError(f"process {pid} has no Pss_Anon in smaps_rollup")


class Program:
    """A running load program of perf/native, pinned to `cpu`. It ends with the `with` block, or with us."""

    def __init__(self, name: str, *arguments: object, cpu: int | None = None) -> None:
        self.name = name
        command = [str(binary(name)), *map(str, arguments)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._output = self._process.stdout
        self._input = self._process.stdin
        self._buffer = b""

    def read(self, within_s: float = K_ANSWER_S) -> dict[str, Any]:
        """The next line it prints. Raises LoadError when it ends or says nothing for `within_s`."""
        deadline = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise LoadError(f"{self.name} said nothing for {within_s:g} s")
                data = os.read(self._output.fileno(), 65536)
                if not data:
                    assert self._process.stderr is not None
                    text = self._process.stderr.read().decode(errors="replace").strip()
                    raise LoadError(f"{self.name} ended ({self._process.wait()}): {text}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    def tell(self, command: str) -> None:
        self._input.write(command.encode() + b"\n")
        self._input.flush()

    def mark(self) -> dict[str, Any]:
        """Its figures now: t_us (CLOCK_MONOTONIC), cpu_us, and what it counts."""
        self.tell("mark")
        return self.read()

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def busy(before: dict[str, Any], after: dict[str, Any]) -> float:
    """The share of a CPU that a program used between two marks."""
    return float((after["cpu_us"] - before["cpu_us"]) / (after["t_us"] - before["t_us"]))


def measuring_cpus() -> tuple[int, int]:
    """(CPU of what is measured, CPU of what loads it): the first and the last that we may use."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0], cpus[-1]
