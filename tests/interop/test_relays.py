"""Relays between two servers, and with libsrt's tool as the other server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perf.server import FLUX, FluxServer, nested, until
from tests.interop.clients import Client, need
from tests.interop.server import SETTINGS, Server

QUICK = {"retry_min_ms": 50, "retry_max_ms": 400, "on_demand_linger_ms": 500}
K_PACKET = 188
K_CAPTURE_S = 3.0


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    """Publishes live/demo, and has it for whoever asks."""
    with Server({"demo.enabled": True, "streams.wait_ms": 0}) as running:
        running.wait_stream("live/demo", 2)
        yield running


def relay(name: str, url: str, stream: str, direction: str = "pull", **settings: Any) -> dict[str, Any]:
    return {"name": name, "url": url, "stream": stream, "direction": direction, **QUICK, **settings}


def relay_facts(server: FluxServer, name: str) -> dict[str, Any]:
    return next((dict(one) for one in server.call("relays")["relays"] if one["name"] == name), {})


def wait_state(server: FluxServer, name: str, state: str, within_s: float = 10.0) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        facts = relay_facts(server, name)
        return facts if facts.get("state") == state else None

    return until(reached, f"{name} to be {state}", within_s)


def counter(server: FluxServer, name: str) -> int:
    return int(server.call("stats")["counters"][f"flux_srt_{name}"])


def events(server: FluxServer, name: str) -> list[dict[str, Any]]:
    return [line for line in server.log_lines() if line.get("event") == name]


def reload(server: FluxServer, **settings: Any) -> dict[str, Any]:
    """Writes its configuration anew, and has it read."""
    server.settings = {**server.settings, **settings}
    (server.folder / "flux.yaml").write_text(json.dumps(nested(server.settings)))
    return dict(server.call("reload"))


def capture(*streams: tuple[FluxServer, str]) -> list[bytes]:
    """What HTTP-TS gives of each stream, over the same seconds."""
    taken = [bytearray() for _ in streams]

    def take(server: FluxServer, name: str, into: bytearray) -> None:
        end = time.monotonic() + K_CAPTURE_S
        with urllib.request.urlopen(server.http_url(f"{name}.ts"), timeout=10) as answer:
            while time.monotonic() < end:
                into += answer.read(50 * K_PACKET)

    threads = [
        threading.Thread(target=take, args=(*stream, into))
        for stream, into in zip(streams, taken, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [bytes(one) for one in taken]


def assert_same_bytes(original: bytes, copy: bytes) -> None:
    """Both are pieces of the same bytes, but for the tables that a player is sent first."""
    for first, second in ((original, copy), (copy, original)):
        tail = second[20 * K_PACKET :]
        at = first.find(tail[: 40 * K_PACKET])
        if at >= 0:
            common = min(len(first) - at, len(tail))
            assert common > 200 * K_PACKET
            is_same = first[at : at + common] == tail[:common]  # not compared by pytest: it is slow at that
            assert is_same, "they differ"
            return
    pytest.fail("neither begins within the other")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_pull_and_push_pass_the_bytes_on(source: Server, start_server: Callable[..., Server]) -> None:
    last = start_server()
    middle = start_server(
        {
            "relays": [
                relay("in", source.srt_url("read", "live/demo"), "live/in"),
                relay("out", last.srt_url("publish", "live/out"), "live/in", "push"),
            ]
        }
    )
    middle.wait_stream("live/in", 2)
    last.wait_stream("live/out", 2)
    original, pulled, pushed = capture((source, "live/demo"), (middle, "live/in"), (last, "live/out"))
    assert_same_bytes(original, pulled)
    assert_same_bytes(original, pushed)
    facts = wait_state(middle, "in", "connected")
    assert facts["attempts"] == 1
    assert facts["last_error"] == ""
    assert facts["figures"]["bytes"] > 100_000
    assert facts["url"] == source.srt_url("read", "live/demo")
    sessions = {(one["stream"], one["role"]): one for one in middle.call("sessions")["sessions"]}
    assert sessions["live/in", "publish"]["peer"] == f"127.0.0.1:{source.srt_port}"
    assert sessions["live/in", "read"]["peer"] == f"127.0.0.1:{last.srt_port}"
    assert counter(middle, "relays") == counter(middle, "relays_connected") == 2
    assert counter(middle, "relay_connects_total") == 2
    assert counter(middle, "relay_failures_total") == 0


def test_a_push_waits_for_its_stream_and_ends_with_it(
    source: Server, start_server: Callable[..., Server]
) -> None:
    here = start_server(
        {
            "streams.idle_grace_ms": 500,
            "relays": [relay("out", source.srt_url("publish", "live/late"), "live/cam", "push")],
        }
    )
    assert wait_state(here, "out", "waiting")["attempts"] == 0
    pulled = relay("in", source.srt_url("read", "live/demo"), "live/cam")
    reload(here, relays=[*here.settings["relays"], pulled])
    wait_state(here, "out", "connected")
    source.wait_stream("live/late", 2)
    reload(here, relays=[one for one in here.settings["relays"] if one["name"] == "out"])
    facts = wait_state(here, "out", "waiting")
    assert facts["attempts"] == 1
    assert events(here, "relay_lost")[-1]["reason"] == "stream_ended"
    assert counter(here, "relay_lost_total") == 0


def test_a_reload_adds_changes_and_removes(source: Server, start_server: Callable[..., Server]) -> None:
    here = start_server()
    assert here.call("relays") == {"relays": []}
    url = source.srt_url("read", "live/demo")
    answer = reload(here, relays=[relay("a", url, "live/a"), relay("b", url, "live/b")])
    assert answer == {"changed": ["relays"], "needs_restart": []}
    since = wait_state(here, "a", "connected")["since"]
    wait_state(here, "b", "connected")
    reload(here, relays=[relay("a", url, "live/a"), relay("b", f"{url}&latency=700", "live/b")])
    until(lambda: counter(here, "relay_connects_total") == 3, "b to begin anew")
    assert wait_state(here, "b", "connected")["figures"]["latency_ms"] == 700
    assert wait_state(here, "a", "connected")["since"] == since
    reload(here, relays=[])
    until(lambda: here.call("relays") == {"relays": []}, "all to be gone")
    until(lambda: here.call("sessions")["sessions"] == [], "their sessions to end")
    assert counter(here, "relays") == counter(here, "relays_connected") == 0


def test_on_demand(source: Server, start_server: Callable[..., Server]) -> None:
    url = source.srt_url("read", "live/demo")
    here = start_server({"relays": [relay("d", url, "live/d", start="on_demand")]})
    assert wait_state(here, "d", "waiting")["attempts"] == 0
    for attempts in (1, 2, 3):  # the third finds the stream idle, and is held until it is back
        with urllib.request.urlopen(here.http_url("live/d.ts"), timeout=10) as answer:
            assert len(answer.read(100 * K_PACKET)) == 100 * K_PACKET
            wait_state(here, "d", "connected")
        wait_state(here, "d", "waiting")
        assert events(here, "relay_lost")[-1]["reason"] == "no_viewers"
        assert len(events(here, "relay_connected")) == attempts
        if attempts == 1:
            until(lambda: here.call("streams")["streams"] == [], "the stream to be given up")
    assert counter(here, "relay_failures_total") == 0


def test_the_other_server_dies_and_comes_back(start_server: Callable[..., Server]) -> None:
    port = free_port()
    settings = {**SETTINGS, "demo.enabled": True, "srt.listen": f"127.0.0.1:{port}"}
    url = f"srt://127.0.0.1:{port}?streamid=read:live/demo&connect_timeout=300"
    here = start_server(
        {"srt.peer_idle_timeout_ms": 1000, "relays": [relay("in", url, "live/in", stable_ms=100)]}
    )
    first = FluxServer(settings)
    try:
        first.start()
        here.wait_stream("live/in", 2)
    finally:
        first.kill()
        first.cleanup()
    wait_state(here, "in", "backing_off")
    assert any("fell silent" in line["reason"] for line in events(here, "relay_retrying"))
    failures = counter(here, "relay_failures_total")
    until(lambda: counter(here, "relay_failures_total") >= failures + 2, "two attempts in vain")
    until(lambda: "did not answer within 300 ms" in relay_facts(here, "in")["last_error"], "it to be told")
    with FluxServer(settings):
        here.wait_stream("live/in", 2)
        assert wait_state(here, "in", "connected")["last_error"] == ""
    waits = [line["in_ms"] for line in events(here, "relay_retrying")]
    assert len(waits) >= 3
    assert max(waits) <= 400


def test_a_worker_dies_and_the_next_runs_its_relays(source: Server) -> None:
    url = source.srt_url("read", "live/demo")
    with FluxServer({**SETTINGS, "relays": [relay("in", url, "live/in")]}) as here:
        before = wait_state(here, "in", "connected")
        os.kill(here.worker_pids()[before["worker"]], signal.SIGKILL)
        until(
            lambda: relay_facts(here, "in").get("since", before["since"]) != before["since"], "it to be run"
        )
        assert wait_state(here, "in", "connected")["worker"] == before["worker"]
        here.wait_stream("live/in", 2)


def test_refusals_are_explained_and_secrets_are_not_told(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    there = start_server({"demo.enabled": True, "streams.wait_ms": 0, "srt.passphrase": "right passphrase"})
    there.wait_stream("live/demo", 2)
    url = f"srt://127.0.0.1:{there.srt_port}?streamid=read:"
    here = start_server(
        {
            "relays": [
                relay("right", f"{url}live/demo&passphrase=right%20passphrase", "a"),
                relay("wrong", f"{url}live/demo:bob:hidden1&passphrase=hidden%20passphrase", "b"),
                relay("none", f"{url}live/none&passphrase=right%20passphrase", "c"),
                relay("clear", f"{url}live/demo", "d"),
                relay("unknown", "srt://nowhere.invalid:1", "e"),
            ]
        }
    )
    assert wait_state(here, "right", "connected")["figures"]["cipher"].startswith("aes-128")
    expected = {
        "wrong": "the passphrase is wrong (SRT rejection 1010); set passphrase= to",
        "none": "nobody publishes that stream (SRT rejection 1404); publish it first",
        "clear": "one side wants encryption and the other does not (SRT rejection 1011)",
        "unknown": "nowhere.invalid is not known",
    }
    for name, words in expected.items():
        error = until(lambda name=name: relay_facts(here, name)["last_error"], f"{name} to fail")
        assert words in error, (name, error)
    told = json.dumps(here.call("relays")) + here.log()
    listed = subprocess.run(
        [FLUX, "relays", "--socket", here.control_path], capture_output=True, text=True, check=True
    ).stdout
    assert "live/demo:…" in listed
    assert "backing_off" in listed
    config = str(here.folder / "flux.yaml")
    for options in ([], ["--json"]):
        told += subprocess.run(
            [FLUX, "check", "--config", config, *options], capture_output=True, text=True, check=True
        ).stdout
    assert "hidden1" not in told + listed
    assert "passphrase=…" in told
    assert "right%20" not in told + listed
    assert "hidden%20" not in told + listed


def test_a_kicked_relay_comes_back(source: Server, start_server: Callable[..., Server]) -> None:
    here = start_server({"relays": [relay("in", source.srt_url("read", "live/demo"), "live/in")]})
    here.wait_stream("live/in", 2)
    session = here.call("sessions")["sessions"][0]["id"]
    assert here.call("kick", session=session) == {"kicked": 1}
    until(lambda: counter(here, "relay_connects_total") == 2, "it to come back")
    assert events(here, "relay_retrying")[0]["reason"] == "it was kicked"


def test_a_name_that_is_taken_is_left_to_its_publisher(
    source: Server, start_server: Callable[..., Server]
) -> None:
    url = source.srt_url("read", "live/demo")
    here = start_server({"demo.enabled": True, "relays": [relay("in", url, "live/demo")]})
    until(lambda: counter(here, "relay_failures_total") >= 2, "attempts in vain")
    assert "live/demo has a publisher here already" in relay_facts(here, "in")["last_error"]
    stream = here.stream("live/demo")
    assert stream is not None
    assert stream["protocol"] == "demo"


def test_pull_from_libsrt(source: Server, start_server: Callable[..., Server], tmp_path: Path) -> None:
    need("srt-live-transmit")
    port = free_port()
    here = start_server(
        {"srt.peer_idle_timeout_ms": 2000, "relays": [relay("in", f"srt://127.0.0.1:{port}", "live/in")]}
    )
    tool = ["srt-live-transmit", "-q", "-a", "no", "-chunk:1316"]
    target = f"srt://127.0.0.1:{port}?mode=listener&latency=500"
    with Client("tool", [*tool, source.srt_url("read", "live/demo"), target], tmp_path):
        here.wait_stream("live/in", 2)
        assert_same_bytes(*capture((source, "live/demo"), (here, "live/in")))
    wait_state(here, "in", "backing_off")


def test_push_to_libsrt(source: Server, start_server: Callable[..., Server], tmp_path: Path) -> None:
    need("srt-live-transmit")
    port = free_port()
    here = start_server(
        {
            "relays": [
                relay("in", source.srt_url("read", "live/demo"), "live/in"),
                relay("out", f"srt://127.0.0.1:{port}?latency=500", "live/in", "push"),
            ]
        }
    )
    tool = ["srt-live-transmit", "-q", "-a", "no", "-chunk:1316"]
    listener = f"srt://127.0.0.1:{port}?mode=listener&latency=500"
    with Client("tool", [*tool, listener, source.srt_url("publish", "live/back")], tmp_path):
        source.wait_stream("live/back", 2)
        assert_same_bytes(*capture((source, "live/demo"), (source, "live/back")))
        assert wait_state(here, "out", "connected")["figures"]["bytes"] > 0
