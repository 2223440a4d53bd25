"""The admin process as the supervisor runs it: forked, with a listening socket, ended by SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import multiprocess
from flux.cext.arena import Arena

from flux.admin.server import run
from flux.config.schema import Config, SupervisorSettings
from tests.flux.control_fake import FakeControl, status


def test_serves_beats_and_ends(tmp_path: Path) -> None:
    arena = Arena.create(slots=2, hls_bytes=1 << 20)
    listener = socket.create_server(("127.0.0.1", 0))
    path = tmp_path / "control.sock"

    def child() -> None:
        arena.join(62)
        config = Config(supervisor=SupervisorSettings(heartbeat_timeout_ms=400))
        run(listener, arena, config, str(path), lambda: arena.heartbeat(time.monotonic_ns() // 1000))

    process = multiprocess.get_context("fork").Process(target=child)
    process.start()
    try:
        with FakeControl(path, {"status": status(), "streams": {"streams": []}}):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
                assert client.get("/healthz").text == "ok\n"
                assert client.get("/readyz").text == "ready\n"
                first = arena.process_info(62)["heartbeat_us"]
                deadline = time.monotonic() + 5
                while arena.process_info(62)["heartbeat_us"] == first and time.monotonic() < deadline:
                    client.get("/api/v1/streams")
                assert arena.process_info(62)["heartbeat_us"] > first
        process_id = process.pid
        assert process_id is not None
        # A terminal's interrupt is the supervisor's matter.
        os.kill(process_id, signal.SIGINT)
        os.kill(process_id, signal.SIGTERM)
        process.join(10)
        assert process.exitcode == 0
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        listener.close()
        arena.close()
