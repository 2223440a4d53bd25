"""A real `flux serve` for tests: two workers, ephemeral ports; it must end well and log no error."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from perf.server import FluxServer

SETTINGS: dict[str, Any] = {
    "workers": 2,
    # Tests run many clients on few CPUs: a publisher that waits for its turn must not lose packets to TSBPD.
    "srt.latency_ms": 500,
    # Players over SRT that wait for their publisher are in their handshake.
    "srt.handshake_timeout_ms": 15000,
    # Players end soon after their publisher; a decoder that is behind has time to read what it was sent.
    "streams.idle_grace_ms": 4000,
    "streams.wait_ms": 8000,
    "supervisor.drain_timeout_ms": 2000,
}


class Server(FluxServer):
    """Runs while its `with` block does; then its exit code and its log are checked."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        super().__init__({**SETTINGS, **(settings or {})})

    def errors(self) -> list[dict[str, Any]]:
        return [line for line in self.log_lines() if line.get("level") in ("error", "critical")]

    def check(self) -> None:
        assert self.exit_code == 0, f"flux serve ended with {self.exit_code}:\n{self.log()[-4000:]}"
        assert self.errors() == []

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        try:
            self.stop()
            if kind is None:
                self.check()
        finally:
            self.cleanup()
