"""What viewers and publishers see of what the supervisor does; the demo is the stream."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from flux.errors import ControlError
from tests.flux.supervisor.tree import descriptors, until

DEMO = ("demo.enabled=true", "http.listen=127.0.0.1:0")


class Viewer:
    """An HTTP-FLV player of live/demo."""

    def __init__(self, tree, path="/live/demo.flv"):
        host, _, port = tree.call("status")["listeners"]["http"].rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=10)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(65536)
        self.status = int(head.split()[1])

    def goes_on(self):
        """Whether bytes that were not there yet still come."""
        self.sock.setblocking(False)
        try:
            while self.sock.recv(1 << 20):
                pass
            return False
        except BlockingIOError:
            pass
        self.sock.setblocking(True)
        self.sock.settimeout(10)
        return bool(self.sock.recv(65536))

    def has_ended(self):
        self.sock.setblocking(False)
        try:
            while self.sock.recv(1 << 20):
                pass
            return True
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self):
        self.sock.close()


@pytest.fixture
def watch():
    """Makes viewers that leave with the test."""
    viewers = []

    def watch(tree):
        viewers.append(Viewer(tree))
        assert viewers[-1].status == 200
        return viewers[-1]

    yield watch
    for viewer in viewers:
        viewer.close()


def viewer_of_worker(tree, watch, number):
    """Connections are spread over the workers; one that is with that worker, and its session."""
    for _ in range(50):
        viewer = watch(tree)
        port = viewer.sock.getsockname()[1]
        session = next(s for s in tree.call("sessions")["sessions"] if s["peer"].endswith(f":{port}"))
        if session["worker"] == number:
            return viewer, session
        viewer.close()
    raise AssertionError(f"no connection of 50 came to worker {number}")


def test_streams_and_sessions_are_listed(start, watch):
    tree = start(*DEMO)
    _, session = viewer_of_worker(tree, watch, 1)
    assert (session["stream"], session["protocol"], session["role"]) == ("live/demo", "http-flv", "read")
    publisher = next(s for s in tree.call("sessions")["sessions"] if s["role"] == "publish")
    assert (publisher["protocol"], publisher["worker"]) == ("demo", 0)
    assert tree.call("sessions", stream="live/other") == {"sessions": []}
    until(lambda: tree.call("streams")["streams"][0]["bitrate_bps"] > 0)
    (stream,) = tree.call("streams")["streams"]
    assert (stream["name"], stream["state"], stream["worker"], stream["protocol"]) == (
        "live/demo",
        "live",
        0,
        "demo",
    )
    assert stream["viewers"] == 1
    until(lambda: 20 < tree.call("streams")["streams"][0]["fps"] < 30)
    watched = until(lambda: [s for s in tree.call("sessions")["sessions"] if s.get("bitrate_bps")])
    assert {s["id"] for s in watched} <= {session["id"], publisher["id"]}
    assert tree.call("status")["arena"]["used"] == 1
    assert {p["name"]: p["sessions"] for p in tree.call("status")["processes"]} == {
        "worker 0": 1,
        "worker 1": 1,
    }


def test_kicking_a_session_and_a_stream(start, watch):
    tree = start(*DEMO)
    viewer, session = viewer_of_worker(tree, watch, 1)
    other, _ = viewer_of_worker(tree, watch, 0)
    assert tree.call("kick", session=session["id"]) == {"kicked": 1}
    until(viewer.has_ended)
    with pytest.raises(ControlError, match="there is no session"):
        tree.call("kick", session=session["id"])
    assert other.goes_on()
    assert tree.call("kick", stream="live/demo") == {"kicked": 2}
    until(other.has_ended)
    assert tree.call("stats")["counters"]["flux_worker_kicked_total"] == 3


def test_viewers_of_other_workers_go_on_when_the_publisher_s_worker_dies(start, watch):
    tree = start(*DEMO)
    viewer, session = viewer_of_worker(tree, watch, 1)
    assert viewer.goes_on()
    assert tree.kill_worker("worker 0")["after_ms"] < 300
    assert tree.event("process_died")["streams_lost"] == 1
    until(lambda: tree.call("streams")["streams"][0]["publishers"] == 2)
    assert tree.call("streams")["streams"][0]["state"] == "live"
    assert viewer.goes_on()
    sessions = tree.call("sessions")["sessions"]
    assert session["id"] in {s["id"] for s in sessions}
    publisher = next(s for s in sessions if s["role"] == "publish")
    assert int(publisher["id"].removeprefix("w0-")) > 1, "an id is not given twice"


def test_totals_outlive_a_worker_and_gauges_do_not(start, watch):
    tree = start(*DEMO)
    viewer_of_worker(tree, watch, 1)
    before = tree.call("stats")
    assert before["processes"]["worker 1"]["flux_worker_sessions"] == 1
    tree.kill_worker("worker 1")
    after = tree.call("stats")
    assert after["processes"]["worker 1"]["flux_worker_sessions"] == 0
    fallen = {
        name: (total, after["counters"][name])
        for name, total in before["counters"].items()
        if name.endswith("_total") and after["counters"][name] < total
    }
    assert fallen == {}
    assert tree.call("streams")["streams"][0]["viewers"] == 0


def test_an_idle_stream_is_retired_after_its_grace_time(start):
    tree = start(*DEMO, "streams.idle_grace_ms=300", "supervisor.respawn_delay_ms=3000")
    os.kill(tree.pid_of("worker 0"), signal.SIGKILL)
    until(lambda: [s["state"] for s in tree.call("streams")["streams"]] == ["idle"])
    until(lambda: tree.call("streams")["streams"] == [])
    assert tree.call("stats")["counters"]["flux_supervisor_streams_retired_total"] == 1


def test_draining_lets_viewers_go_on_and_takes_no_new_ones(start, watch):
    tree = start(*DEMO, "supervisor.drain_timeout_ms=60000")
    viewer, _ = viewer_of_worker(tree, watch, 1)
    address = tree.call("status")["listeners"]["http"].rpartition(":")
    tree.signal(signal.SIGTERM)
    until(lambda: tree.call("status")["state"] == "draining")

    def refused():
        try:
            socket.create_connection((address[0], int(address[2])), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False

    until(refused)
    for _ in range(10):  # the worker that publishes stays for a viewer of the other
        assert viewer.goes_on()
    viewer.close()
    assert tree.wait() == 0
    assert tree.events("drain_timed_out") == []


def test_a_second_term_stops_now(start, watch):
    tree = start(*DEMO, "supervisor.drain_timeout_ms=60000")
    viewer = watch(tree)
    tree.signal(signal.SIGTERM)
    until(lambda: tree.call("status")["state"] == "draining")
    began = time.monotonic()
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert time.monotonic() - began < 10
    until(viewer.has_ended)
    assert tree.events("process_killed") == []


def test_draining_ends_viewers_at_its_deadline(start, watch):
    tree = start(*DEMO, "supervisor.drain_timeout_ms=300")
    viewer = watch(tree)
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert len(tree.events("drain_timed_out")) == 1
    until(viewer.has_ended)


def test_a_taken_name_makes_the_demo_wait(start):
    tree = start(*DEMO)
    assert tree.call("kick", stream="live/demo") == {"kicked": 1}
    until(lambda: [s["state"] for s in tree.call("streams")["streams"]] == ["idle"])
    until(lambda: [s["state"] for s in tree.call("streams")["streams"]] == ["live"])
    assert tree.call("streams")["streams"][0]["publishers"] == 2


def test_connections_wait_for_a_worker_that_is_being_respawned(start):
    tree = start("http.listen=127.0.0.1:0", "streams.wait_ms=0", "supervisor.respawn_delay_ms=400")
    Viewer(tree, "/live/none.flv").close()
    os.kill(tree.pid_of("worker 0"), signal.SIGKILL)
    tree.event("process_died", name="worker 0")
    viewers = [Viewer(tree, "/live/none.flv") for _ in range(10)]
    assert [viewer.status for viewer in viewers] == [404] * 10
    for viewer in viewers:
        viewer.close()


@pytest.mark.slow
def test_a_hundred_kills_under_load_leave_nothing_behind(start, watch):
    tree = start(*DEMO, "supervisor.stable_ms=0")
    viewers = [viewer_of_worker(tree, watch, 1)[0] for _ in range(20)]
    tree.kill_worker("worker 0")
    before = len(descriptors(tree.pid)), tree.call("status")["arena"]["memory_bytes"]
    delays = [tree.kill_worker("worker 0")["after_ms"] for _ in range(100)]
    assert max(delays) < 300
    until(lambda: len(descriptors(tree.pid)) == before[0])
    assert tree.call("status")["arena"]["used"] == 1
    assert tree.call("status")["arena"]["memory_bytes"] < before[1] + (32 << 20)
    assert all(viewer.goes_on() for viewer in viewers)
