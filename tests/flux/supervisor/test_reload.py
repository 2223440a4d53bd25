from __future__ import annotations

import os
import signal

import psutil
import pytest

from flux.errors import ControlError
from tests.flux.supervisor.tree import descriptors, until


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "flux.yaml"
    path.write_text("streams: {wait_ms: 1000}\n")
    return path


def test_hup_takes_over_what_can_be_and_tells_what_needs_a_restart(start, config):
    tree = start(config=config)
    pids = {name: process["pid"] for name, process in tree.processes().items()}
    config.write_text("streams: {wait_ms: 2000}\nlog: {level: debug}\narena: {streams: 8}\n")
    tree.signal(signal.SIGHUP)
    line = tree.event("config_reloaded")
    assert line["changed"] == ["arena.streams", "streams.wait_ms", "log.level"]
    assert tree.event("restart_needed")["keys"] == ["arena.streams"]
    assert {name: process["pid"] for name, process in tree.processes().items()} == pids
    # What needs a restart is told again, what was taken over is not.
    assert tree.call("reload") == {"changed": ["arena.streams"], "needs_restart": ["arena.streams"]}
    assert tree.call("status")["arena"]["slots"] == 1024


def test_overrides_still_win_after_a_reload(start, config):
    tree = start("streams.wait_ms=5", config=config)
    config.write_text("streams: {wait_ms: 2000, idle_grace_ms: 1}\n")
    assert tree.call("reload")["changed"] == ["streams.idle_grace_ms"]


def test_a_bad_file_changes_nothing(start, config):
    tree = start(config=config)
    config.write_text("streams: {wait_sm: 2000}\n")
    with pytest.raises(ControlError) as caught:
        tree.call("reload")
    assert str(caught.value) == (
        f"{config}: streams.wait_sm: no such setting; did you mean streams.wait_ms?"
        "; mend it and reload again; Flux goes on with what it had"
    )
    assert tree.event("reload_refused")["reason"].startswith(f"{config}: streams.wait_sm")
    assert tree.call("stats")["counters"]["flux_supervisor_reloads_refused_total"] == 1
    config.write_text("streams: {wait_ms: 2000}\n")
    assert tree.call("reload")["changed"] == ["streams.wait_ms"]


def test_a_file_that_can_not_be_read_in_time_holds_nobody(start, config):
    tree = start("supervisor.reload_timeout_ms=300", config=config)
    config.unlink()
    os.mkfifo(config)  # opening it waits for a writer, for ever
    with pytest.raises(ControlError, match="not read after 300 ms"):
        tree.call("reload")
    assert tree.kill_worker("worker 0")["after_ms"] < 300
    config.unlink()
    config.write_text("streams: {wait_ms: 3}\n")
    assert tree.call("reload")["changed"] == ["streams.wait_ms"]


def test_reading_again_leaves_no_process_and_no_descriptor(start, config):
    tree = start(config=config)
    tree.call("reload")
    before = len(descriptors(tree.pid))
    for number in range(10):
        config.write_text(f"streams: {{wait_ms: {number}}}\n")
        assert tree.call("reload")["changed"] == ["streams.wait_ms"]
    until(lambda: len(descriptors(tree.pid)) <= before)
    assert len(psutil.Process(tree.pid).children()) == 2


def test_a_respawned_worker_has_the_new_configuration(start, config):
    tree = start(config=config)
    config.write_text("log: {level: error}\n")
    assert "log.level" in tree.call("reload")["changed"]
    lines = len(tree.lines())
    pid = tree.pid_of("worker 0")
    os.kill(pid, signal.SIGKILL)
    tree.event("process_died", name="worker 0")
    assert all(line["level"] == "error" for line in tree.lines()[lines:])


def test_usr1_opens_the_log_file_anew_in_every_process(start, tmp_path):
    log = tmp_path / "flux.log"
    tree = start(f"log.file={log}", wait=False)
    tree.log_path = log
    log.touch()
    tree.event("flux_ready")
    moved = log.rename(tmp_path / "flux.log.1")
    tree.signal(signal.SIGUSR1)
    tree.log_path = log
    until(lambda: log.exists() and tree.events("logs_reopened"))
    for pid in (tree.pid, tree.pid_of("worker 0"), tree.pid_of("worker 1")):
        until(lambda pid=pid: str(log) in descriptors(pid))
        assert str(moved) not in descriptors(pid)


def test_usr1_without_a_log_file_is_told_of(start):
    tree = start()
    tree.signal(signal.SIGUSR1)
    assert tree.event("logs_not_reopened")["cure"] == "set log.file to log to a file"
    assert tree.is_up()
