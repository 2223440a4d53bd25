"""A `flux serve` for benchmarks and tests: ephemeral ports, its own control socket and folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from flux.control.client import ControlClient
from flux.errors import ControlError

T = TypeVar("T")
FLUX = Path(sys.executable).with_name("flux")
DEFAULTS: dict[str, Any] = {
    "srt.listen": "127.0.0.1:0",
    "http.listen": "127.0.0.1:0",
    "admin.listen": "",
    "log.format": "json",
}


class ServerError(RuntimeError):
    """The server did not start, or did not end well; holds the end of its log."""


def until(condition: Callable[[], T | None], what: str, within_s: float = 10.0) -> T:
    """Polls `condition` until it gives something true, and gives that. Raises ServerError naming `what`."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise ServerError(f"waited {within_s:g} s in vain for {what}")
        time.sleep(0.02)
    return value


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """{"http.listen": x} as {"http": {"listen": x}}."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


class FluxServer:
    """Runs while its `with` block does; `settings` are by dotted key, as for --set."""

    def __init__(self, settings: dict[str, Any] | None = None, *, cpu: int | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flux-")
        self.folder = Path(self._folder.name)
        self.log_path = self.folder / "log"
        self.control_path = self.folder / "control.sock"
        self.settings = {**DEFAULTS, "control.socket": str(self.control_path), **(settings or {})}
        self._cpu = cpu
        self.exit_code: int | None = None

    def start(self) -> None:
        config = self.folder / "flux.yaml"
        config.write_text(json.dumps(nested(self.settings), indent=1))
        cpu = self._cpu
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [FLUX, "serve", "--config", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
            )
        self.pid = self._process.pid
        try:
            status = until(self._running, "the server to start", 20)
        except ServerError as error:
            self.kill()
            raise ServerError(f"{error}\n{self.log()[-4000:]}") from None
        self.http_port = int((status["listeners"]["http"] or ":0").rpartition(":")[2])
        self.srt_port = int((status["listeners"]["srt"] or ":0").rpartition(":")[2])
        self.admin_port = int((status["listeners"].get("admin") or ":0").rpartition(":")[2])

    def _running(self) -> dict[str, Any] | None:
        if self._process.poll() is not None:
            raise ServerError(f"flux serve ended with {self._process.returncode}")
        with contextlib.suppress(ControlError, OSError):
            status = self.call("status")
            workers = [one for one in status["processes"] if one["name"].startswith("worker")]
            if status["state"] == "running" and workers and all(one["pid"] for one in workers):
                return status
        return None

    def call(self, method: str, **params: Any) -> Any:
        """A call to its control socket. Raises ControlError."""
        return ControlClient(str(self.control_path)).call(method, **params)

    def worker_pids(self) -> list[int]:
        return [one["pid"] for one in self.call("status")["processes"] if one["name"].startswith("worker")]

    def stream(self, name: str) -> dict[str, Any] | None:
        """The facts of a stream that has a publisher."""
        for one in self.call("streams")["streams"]:
            if one["name"] == name and one["state"] == "live":
                return dict(one)
        return None

    def wait_stream(self, name: str, tracks: int = 1, within_s: float = 10.0) -> dict[str, Any]:
        """Waits until `name` is live and that many of its tracks are known."""

        def live() -> dict[str, Any] | None:
            one = self.stream(name)
            return one if one and len(one["tracks"]) >= tracks else None

        return until(live, f"the stream {name}", within_s)

    def srt_url(self, mode: str, name: str) -> str:
        """mode: publish or read."""
        return f"srt://127.0.0.1:{self.srt_port}?streamid={mode}:{name}"

    def http_url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}/{path}"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log's lines. One that is no JSON is kept as an event; a traceback counts as an error."""
        lines = []
        for line in self.log().splitlines():
            try:
                lines.append(dict(json.loads(line)))
            except ValueError:
                level = "error" if line.startswith("Traceback") else "info"
                lines.append({"level": level, "event": line})
        return lines

    def stop(self, within_s: float = 20.0) -> None:
        """TERM, and again so that it does not wait for sessions; its exit code is then in exit_code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"flux serve did not end within {within_s:g} s of TERM") from None

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.exit_code = self._process.wait()

    def cleanup(self) -> None:
        self._folder.cleanup()

    def __enter__(self) -> FluxServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        try:
            self.stop()
        except ServerError:
            if kind is None:
                raise
        finally:
            self.cleanup()
