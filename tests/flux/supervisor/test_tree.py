"""What the supervisor does to real processes."""

from __future__ import annotations

import os
import signal
import socket

import psutil
import pytest

from flux.errors import ControlError
from tests.flux.supervisor.tree import ENTRY, descriptors, is_running, until


def test_every_process_is_there_and_says_what_it_is(start):
    tree = start("admin.listen=127.0.0.1:0")
    status = tree.call("status")
    assert (status["state"], status["pid"]) == ("running", tree.pid)
    processes = {process["name"]: process for process in status["processes"]}
    assert {name: process["number"] for name, process in processes.items()} == {
        "worker 0": 0,
        "worker 1": 1,
        "admin": 62,
    }
    for name, process in processes.items():
        assert process["state"] == "running"
        assert process["restarts"] == 0
        assert process["heartbeat_age_ms"] < 5000
        assert psutil.Process(process["pid"]).cmdline()[0] == f"flux: {name}"
        assert psutil.Process(process["pid"]).ppid() == tree.pid
    assert psutil.Process(tree.pid).cmdline()[0] == "flux: supervisor"
    assert psutil.Process(tree.pid).num_threads() == 1, "a process that forks must have one thread"
    host, _, port = status["listeners"]["admin"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert status["listeners"] == {"srt": "", "http": "", "admin": f"127.0.0.1:{port}"}
    assert f"http://127.0.0.1:{port}/" in tree.out_path.read_text()
    assert status["arena"]["slots"] == 1024
    version = tree.call("version")
    assert version["pid"] == tree.pid


def test_workers_are_pinned_to_cpus_in_turn(start):
    cpus = sorted(os.sched_getaffinity(0))
    tree = start("workers=3")
    for number in range(3):
        assert os.sched_getaffinity(tree.pid_of(f"worker {number}")) == {cpus[number % len(cpus)]}
    free = start("pin_workers=false")
    assert os.sched_getaffinity(free.pid_of("worker 0")) == set(cpus)


def test_a_killed_worker_is_back_at_once_and_the_others_go_on(start):
    tree = start()
    before = tree.processes()
    ready = tree.kill_worker("worker 0")
    assert ready["after_ms"] < 300
    after = tree.processes()
    assert after["worker 0"]["pid"] != before["worker 0"]["pid"]
    assert after["worker 0"]["restarts"] == 1
    assert after["worker 1"] == {
        **before["worker 1"],
        "heartbeat_age_ms": after["worker 1"]["heartbeat_age_ms"],
    }
    died = tree.event("process_died", name="worker 0")
    assert died["how"] == "killed by SIGKILL"
    assert tree.call("stats")["processes"]["supervisor"]["flux_supervisor_deaths_total"] == 1


def test_a_worker_that_was_asked_to_end_by_itself_is_replaced(start):
    tree = start()
    os.kill(tree.pid_of("worker 1"), signal.SIGTERM)
    tree.event("process_ready", 2, name="worker 1")
    assert tree.event("process_died", name="worker 1")["how"] == "exit code 0"


def test_a_stopped_worker_is_killed_when_its_heartbeat_is_overdue(start):
    tree = start("supervisor.heartbeat_timeout_ms=600")
    pid = tree.pid_of("worker 1")
    os.kill(pid, signal.SIGSTOP)
    hung = tree.event("process_hung", name="worker 1")
    assert hung["age_ms"] < 2000
    tree.event("process_ready", 2, name="worker 1")
    assert not is_running(pid)
    assert [line["name"] for line in tree.events("process_hung")] == ["worker 1"]


def test_a_supervisor_that_was_stopped_does_not_take_its_workers_for_hung(start):
    tree = start("supervisor.heartbeat_timeout_ms=600")
    before = tree.processes()
    pids = [tree.pid, *(process["pid"] for process in before.values())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    # Time has to pass for all of them: it is what the test is about.
    until(lambda: psutil.Process(pids[-1]).status() == psutil.STATUS_STOPPED)
    with pytest.raises(AssertionError, match="not in 2 s"):
        until(lambda: tree.events("process_hung"), 2)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert {name: p["pid"] for name, p in tree.processes().items()} == {
        n: p["pid"] for n, p in before.items()
    }
    tree.kill_worker("worker 0")
    assert tree.events("process_hung") == []


def test_a_crash_loop_is_slowed_down_and_others_are_not(start):
    tree = start("supervisor.respawn_max_delay_ms=350")
    for _ in range(5):
        tree.kill_worker("worker 0")
    delays = [line["delay_ms"] for line in tree.events("respawn_delayed", name="worker 0")]
    assert delays == [100, 200, 350, 350]
    assert tree.kill_worker("worker 1")["after_ms"] < 300


def test_a_process_that_lived_long_enough_is_back_at_once(start):
    tree = start("supervisor.stable_ms=0")
    for _ in range(4):
        assert tree.kill_worker("worker 0")["after_ms"] < 300
    assert tree.events("respawn_delayed") == []


def test_respawns_leave_nothing_behind(start):
    tree = start(
        "supervisor.stable_ms=0",
        "http.listen=127.0.0.1:0",
        "srt.listen=127.0.0.1:0",
        "admin.listen=127.0.0.1:0",
    )
    for name in ("worker 0", "worker 1", "admin"):
        tree.kill_worker(name)
    supervisor, neighbour = len(descriptors(tree.pid)), descriptors(tree.pid_of("worker 1"))
    worker = len(descriptors(tree.pid_of("worker 0")))
    memory = psutil.Process(tree.pid).memory_info().rss
    for _ in range(20):
        tree.kill_worker("worker 0")
    until(lambda: len(descriptors(tree.pid)) == supervisor)  # the connections of status may be closing yet
    assert descriptors(tree.pid_of("worker 1")) == neighbour
    assert len(descriptors(tree.pid_of("worker 0"))) == worker
    assert psutil.Process(tree.pid).memory_info().rss - memory < 4 << 20
    assert len(psutil.Process(tree.pid).children()) == 3


def test_a_worker_has_only_its_own_descriptors(start):
    tree = start("http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0")
    of = {name: descriptors(process["pid"]) for name, process in tree.processes().items()}
    of["supervisor"] = descriptors(tree.pid)
    sockets = {name: {fd for fd in fds if fd.startswith("socket:")} for name, fds in of.items()}
    for name in ("worker 0", "worker 1", "admin"):
        # Its listener, which the supervisor keeps; and its own end of its channel, which nobody else has.
        assert len(sockets[name] & sockets["supervisor"]) == 1
    for one, other in (("worker 0", "worker 1"), ("worker 0", "admin"), ("worker 1", "admin")):
        assert not sockets[one] & sockets[other]


def test_term_ends_all_and_removes_the_socket(start):
    tree = start("admin.listen=127.0.0.1:0")
    pids = [process["pid"] for process in tree.processes().values()]
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert not any(is_running(pid) for pid in pids)
    assert not os.path.exists(tree.path)
    ended = {line["name"]: line["how"] for line in tree.events("process_ended")}
    assert ended == {"worker 0": "exit code 0", "worker 1": "exit code 0", "admin": "exit code 0"}
    assert tree.events("process_killed") == []


def test_systemd_is_told_when_all_is_up_and_when_it_ends(start, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tree = start()
        assert systemd.recv(100) == b"READY=1"
        tree.signal(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"
        assert tree.wait() == 0


@pytest.mark.parametrize("method", ["drain", "stop"])
def test_the_control_socket_ends_all(start, method):
    tree = start()
    assert tree.call(method) == {"ok": True}
    assert tree.wait() == 0


def test_a_worker_that_does_not_stop_is_killed(start):
    tree = start("supervisor.stop_timeout_ms=300")
    os.kill(tree.pid_of("worker 0"), signal.SIGSTOP)
    tree.signal(signal.SIGTERM)
    tree.event("drain_started")
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0
    assert [line["name"] for line in tree.events("process_killed")] == ["worker 0"]


def test_draining_has_a_deadline(start):
    tree = start("supervisor.stop_timeout_ms=100", "supervisor.drain_timeout_ms=300")
    os.kill(tree.pid_of("worker 0"), signal.SIGSTOP)
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert len(tree.events("drain_timed_out")) == 1


def test_nothing_outlives_a_killed_supervisor(start):
    shared = sorted(os.listdir("/dev/shm"))
    tree = start("admin.listen=127.0.0.1:0")
    pids = [process["pid"] for process in tree.processes().values()]
    assert all(is_running(pid) for pid in pids)
    os.kill(tree.pid, signal.SIGKILL)
    tree.process.wait()
    until(lambda: not any(is_running(pid) for pid in pids), 5)
    assert sorted(os.listdir("/dev/shm")) == shared
    again = start(folder=tree.log_path.parent)  # in the place of a socket that nobody answers at
    assert again.is_up()


def patched(statement):
    """The CLI with a worker that runs that statement in place of making its services."""
    return f"""
from flux.worker.worker import Worker
def make_services(self, context):
    {statement}
Worker._make_services = make_services
{ENTRY}"""


def test_a_worker_that_can_not_start_stops_all_and_says_why(start):
    tree = start(entry=patched("raise RuntimeError('no such codec')"), wait=False)
    assert tree.wait() == 3
    failed = tree.events("start_failed")
    assert [(line["name"], line["reason"]) for line in failed] in (
        [("worker 0", "RuntimeError: no such codec")],
        [("worker 1", "RuntimeError: no such codec")],
    )
    assert not os.path.exists(tree.path)


def test_a_worker_that_never_gets_ready_stops_all(start):
    tree = start("supervisor.boot_timeout_ms=300", entry=patched("while True: pass"), wait=False)
    assert tree.wait() == 3
    assert "not ready after 300 ms" in {line["reason"] for line in tree.events("start_failed")}


def test_a_cpu_that_is_not_there(start):
    tree = start("cpus=4095", wait=False)
    assert tree.wait() == 2
    assert "flux: cpus: this process may not use CPU 4095; it may use [" in tree.log_path.read_text()


def test_an_arena_that_can_not_be_had(start):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))"
    tree = start(entry=f"{limit}\n{ENTRY}", wait=False)
    assert tree.wait() == 2
    told = tree.log_path.read_text()
    assert "no arena for 1024 streams: file too large; lower arena.streams or arena.hls_bytes" in told


def test_an_address_that_is_taken(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        tree = start(f"http.listen={address}", wait=False)
        assert tree.wait() == 2
    told = tree.log_path.read_text().splitlines()[-1]
    assert told.startswith(f"flux: can't listen on {address}: address already in use; ")
    assert told.endswith("stop what uses it, or set http.listen to another address")


def test_a_second_flux_on_the_same_addresses_is_refused(start):
    first = start("http.listen=127.0.0.1:0", "srt.listen=127.0.0.1:0")
    listeners = first.call("status")["listeners"]
    for name in ("http", "srt"):
        second = start(f"{name}.listen={listeners[name]}", wait=False)
        assert second.wait() == 2
        assert f"can't listen on {listeners[name]}" in second.log_path.read_text()
    third = start(f"control.socket={first.path}", wait=False)
    assert third.wait() == 2
    assert f"a Flux is running already at {first.path}" in third.log_path.read_text()
    assert first.is_up()


def test_every_worker_listens_on_the_same_port(start):
    tree = start("http.listen=127.0.0.1:0", "srt.listen=[::1]:0")
    listeners = tree.call("status")["listeners"]
    http = int(listeners["http"].rpartition(":")[2])
    srt = int(listeners["srt"].rpartition(":")[2])
    for name in ("worker 0", "worker 1"):
        bound = psutil.Process(tree.pid_of(name)).net_connections("inet")
        assert {(c.laddr.ip, c.laddr.port) for c in bound} == {("127.0.0.1", http), ("::1", srt)}


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        ("none", {}, "there is no method none; there are version, status, streams"),
        ("status", {"x": 1}, "status: Object contains unknown field `x`; it takes nothing"),
        ("kick", {}, "kick takes a session or a stream"),
        ("kick", {"session": "a", "stream": "b"}, "kick takes a session or a stream"),
        ("kick", {"session": 1}, "kick: Expected `str`, got `int`"),
        ("kick", {"session": "w0-000001"}, "there is no session w0-000001; `flux sessions` lists them"),
        ("kick", {"session": "w9-000001"}, "there is no session w9-000001"),
        ("kick", {"session": "nonsense"}, "there is no session nonsense"),
        ("kick", {"stream": "live/a"}, "nobody publishes or plays live/a"),
    ],
)
def test_calls_that_can_not_be_done(shared_tree, method, params, says):
    with pytest.raises(ControlError) as caught:
        shared_tree.call(method, **params)
    assert str(caught.value).startswith(says)


def test_listings_of_nothing(shared_tree):
    assert shared_tree.call("streams") == {"streams": []}
    assert shared_tree.call("sessions") == {"sessions": []}
    assert shared_tree.call("sessions", stream="live/a") == {"sessions": []}
    stats = shared_tree.call("stats")
    assert set(stats["processes"]) == {"worker 0", "worker 1", "supervisor"}
    for name, total in stats["counters"].items():
        assert total == sum(process[name] for process in stats["processes"].values())


def test_a_worker_that_does_not_answer_is_named(start):
    tree = start("control.timeout_ms=200", "supervisor.heartbeat_timeout_ms=60000")
    pid = tree.pid_of("worker 1")
    os.kill(pid, signal.SIGSTOP)
    assert tree.call("sessions") == {"sessions": [], "missing": ["worker 1"]}
    with pytest.raises(ControlError, match="worker 1 did not answer in time; try again"):
        tree.call("kick", session="w1-000001")
    os.kill(pid, signal.SIGCONT)
    until(lambda: "missing" not in tree.call("sessions"))
    assert tree.call("stats")["counters"]["flux_supervisor_asked_in_vain_total"] >= 2
