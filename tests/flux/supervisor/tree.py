"""A real Flux as a child of the test: its processes, its log, its control socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flux.control.client import ControlClient
from flux.errors import ControlError

K_PATIENCE_S = 20  # on a machine that does much else

ENTRY = "import sys; from flux.cli import main; sys.exit(main())"
QUIET = ["srt.listen=", "http.listen=", "admin.listen=", "workers=2"]


def until(what, seconds=K_PATIENCE_S):
    """The first true value of what(), called again and again."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds} s: {what.__name__}")
        time.sleep(0.005)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descriptors(pid):
    """Where each open descriptor of a process leads."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(found)


class Tree:
    """Starts `flux serve` with those overrides over quiet ones. entry: Python to run in place of the CLI."""

    def __init__(self, folder: Path, *overrides, config=None, entry=ENTRY, wait=True):
        self.path = str(folder / "control.sock")
        self.log_path = folder / "log"
        arguments = ["serve", *(["--config", str(config)] if config else [])]
        for override in [*QUIET, f"control.socket={self.path}", *overrides]:
            arguments += ["--set", override]
        with self.log_path.open("wb") as log, (folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", entry, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )
        self.pid = self.process.pid
        self.out_path = folder / "out"
        if wait:
            try:
                self.event("flux_ready")
            except BaseException:
                self.close()
                raise

    def call(self, method, **params):
        return ControlClient(self.path).call(method, **params)

    def processes(self):
        """Status of each process, by name."""
        return {process["name"]: process for process in self.call("status")["processes"]}

    def pid_of(self, name):
        return self.processes()[name]["pid"]

    def lines(self):
        """The log so far."""
        lines = []
        for line in self.log_path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"event": line})
        return lines

    def events(self, name, /, **facts):
        """The lines of that event with those facts."""
        return [
            line
            for line in self.lines()
            if line["event"] == name and all(line.get(key) == value for key, value in facts.items())
        ]

    def event(self, name, count=1, /, **facts):
        """The count-th of them, once it is there."""

        def there():
            found = self.events(name, **facts)
            if len(found) < count and self.process.poll() is not None:
                raise AssertionError(f"ended without {name}:\n{self.log_path.read_text()}")
            return found[count - 1 : count]

        return until(there)[0]

    def kill_worker(self, name):
        """kill -9, and what is logged when its successor is ready."""
        ready = len(self.events("process_ready", name=name))
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        return self.event("process_ready", ready + 1, name=name)

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """The exit code."""
        return self.process.wait(K_PATIENCE_S)

    def is_up(self):
        try:
            return bool(self.call("version"))
        except ControlError:
            return False

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
