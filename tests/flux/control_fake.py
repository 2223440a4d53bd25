"""A control server with prepared answers, for tests of those who call it."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Answer = dict[str, Any] | Exception | Callable[..., dict[str, Any] | Exception]

SINCE = "2026-01-02T03:04:05.000+00:00"
VIDEO = {
    "kind": "video",
    "codec": "H264",
    "pid": 256,
    "width": 1280,
    "height": 720,
    "fps": 25.0,
    "profile": 100,
    "level": 31,
    "frames": 500,
    "keyframes": 10,
    "bytes": 1_000_000,
    "errors": 0,
}
AUDIO = {
    "kind": "audio",
    "codec": "AAC",
    "pid": 257,
    "channels": 2,
    "sample_rate": 48000,
    "profile": 2,
    "level": 0,
    "frames": 900,
    "keyframes": 900,
    "bytes": 100_000,
    "errors": 0,
}


def stream(name: str, state: str = "live", **facts: Any) -> dict[str, Any]:
    return {
        "slot": 0,
        "name": name,
        "state": state,
        "generation": 1,
        "owner": 0,
        "worker": 0,
        "protocol": "srt",
        "session": 1,
        "publishers": 1,
        "since_us": 1767323045000000,
        "since": SINCE,
        "idle_since_us": 0,
        "bytes_in": 12_345_678,
        "last_in_us": 0,
        "ts_errors": 0,
        "discontinuities": 0,
        "viewers": 3,
        "tracks": [VIDEO, AUDIO],
        "rings": {},
        "bitrate_bps": 2_050_000.0,
        "fps": 25.0,
        **facts,
    }


def session(id: str, stream: str = "live/a", role: str = "read", **facts: Any) -> dict[str, Any]:
    return {
        "id": id,
        "stream": stream,
        "protocol": "http-flv",
        "role": role,
        "peer": "192.0.2.7:50000",
        "worker": 0,
        "since": SINCE,
        "bytes": 1_234_567,
        **facts,
    }


def relay(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "direction": "pull",
        "start": "always",
        "stream": "live/a",
        "url": "srt://192.0.2.9:8890?streamid=read:live/a&passphrase=…",
        "state": "backing_off",
        "since": SINCE,
        "attempts": 3,
        "last_error": "the passphrase is wrong (SRT rejection 1010); set passphrase=",
        "worker": 1,
        "figures": {},
        **facts,
    }


def process(name: str, state: str = "running") -> dict[str, Any]:
    return {
        "name": name,
        "number": 0,
        "pid": 4242,
        "state": state,
        "restarts": 0,
        "heartbeat_age_ms": 12,
        "sessions": 2,
    }


def status(state: str = "running", **facts: Any) -> dict[str, Any]:
    return {
        "state": state,
        "since": SINCE,
        "uptime_s": 3725.2,
        "pid": 4241,
        "listeners": {"srt": "0.0.0.0:8890", "http": "0.0.0.0:8080", "admin": "127.0.0.1:8081"},
        "processes": [process("worker 0"), process("admin")],
        "arena": {"slots": 1024, "used": 1, "memory_bytes": 33_554_432},
        **facts,
    }


class FakeControl:
    """Answers each method with what `answers` has for it; `calls` keeps what was asked. A context manager."""

    def __init__(self, path: Path, answers: dict[str, Answer]) -> None:
        self.path = str(path)
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    request = json.loads(line)
                    reply = fake._answer(request["method"], request.get("params", {}))
                    self.wfile.write(
                        json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}).encode() + b"\n"
                    )

        self._server = socketserver.ThreadingUnixStreamServer(self.path, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> FakeControl:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((method, params))
        answer = self.answers.get(method, RuntimeError(f"no method {method}"))
        if callable(answer):
            answer = answer(**params)
        if isinstance(answer, Exception):
            return {"error": {"code": -32000, "message": str(answer), "data": {"cure": "look it up"}}}
        return {"result": answer}
