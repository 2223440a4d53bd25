"""kill -9, a hundred times under load: whoever was not hit notices nothing, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from perf.server import FluxServer, until
from tests.chaos.publishing import Publisher
from tests.chaos.watching import Watch, Watches, beginnings, long_clip
from tests.interop.media import FOLDER

K_KILLS = 100
K_SUPERVISOR_KILLS = 10
K_STREAMS = 4
K_PLAYERS = 24
K_CLIP_S = 240
K_PUBLISH_AGAIN_S = 1.0
K_RESPAWN_MS = 300
SETTINGS: dict[str, Any] = {
    "workers": 2,
    "srt.latency_ms": 120,
    "streams.idle_grace_ms": 5000,
    # A hundred quick deaths are no crash loop here.
    "supervisor.stable_ms": 0,
}


def owners(server: FluxServer) -> dict[str, tuple[int, int]]:
    """By the name of each live stream: its worker, and how many publishers it has had."""
    streams = server.call("streams")["streams"]
    return {one["name"]: (one["worker"], one["publishers"]) for one in streams if one["state"] == "live"}


def workers_of(server: FluxServer, watches: list[Watch]) -> dict[Watch, int]:
    """The worker of each player that has a session."""
    ports = {
        int(one["peer"].rpartition(":")[2]): one["worker"]
        for one in server.call("sessions")["sessions"]
        if one["protocol"] == "http-ts"
    }
    return {watch: ports[watch.local_port] for watch in watches if watch.local_port in ports}


def check(watch: Watch, received: bytes, file: bytes, restarts: int) -> None:
    """All that a player got is the file; it goes back to its beginning for a new publisher, and never leaps.

    A player that joins before a new publisher's first keyframe begins with the last GOP of the one before.
    """
    anew = restarts - watch.restarts
    assert beginnings(received, file) <= 1 + anew, f"{watch.name}: {anew} new publishers"


@pytest.mark.timeout(600)
def test_a_killed_worker_costs_only_its_own_sessions() -> None:
    file = long_clip(K_CLIP_S)
    path = FOLDER / f"small-{K_CLIP_S}s.ts"
    again_s: list[float] = []
    kept = lost = 0
    with FluxServer(SETTINGS) as server, Watches(server.http_port) as watches:
        names = [f"live/cam{number}" for number in range(K_STREAMS)]
        publishers = {name: Publisher(name, path, server.srt_url("publish", name)) for name in names}
        try:
            for name in names:
                server.wait_stream(name, 2)
            players = [watches.add(names[n % K_STREAMS], 0) for n in range(K_PLAYERS)]
            until(lambda: len(workers_of(server, players)) == K_PLAYERS, "all players")
            supervisor = psutil.Process(server.pid)
            descriptors = supervisor.num_fds()
            processes = len(supervisor.children(recursive=True))
            for kill in range(K_KILLS):
                where, owner = workers_of(server, players), owners(server)
                # Where there is something to lose, in turn.
                loaded = sorted({worker for worker, _ in owner.values()} | set(where.values()))
                victim = loaded[kill % len(loaded)]
                pid = server.worker_pids()[victim]
                before = server.call("status")["processes"][victim]["restarts"]
                os.kill(pid, signal.SIGKILL)
                killed_s = time.monotonic()
                for name, (worker, _) in owner.items():
                    if worker == victim:
                        publishers[name].restart()
                for name, (worker, had) in owner.items():
                    if worker == victim:
                        until(lambda n=name, h=had: owners(server).get(n, (0, 0))[1] > h, f"{name} again", 5)  # type: ignore[misc]
                        again_s.append(time.monotonic() - killed_s)
                until(
                    lambda b=before, v=victim: server.call("status")["processes"][v]["restarts"] > b,
                    "a respawn",
                    5,
                )  # type: ignore[misc]
                for number, watch in enumerate(players):
                    if where.get(watch) == victim:
                        until(lambda w=watch: w.ended, "the killed worker's players to be closed", 5)  # type: ignore[misc]
                    if not watch.ended:
                        kept += 1
                        continue
                    assert where.get(watch, victim) == victim, (
                        f"{watch.name}: a player of another worker was closed"
                    )
                    lost += 1
                    check(watch, watches.remove(watch), file, publishers[watch.name].restarts)
                    players[number] = watches.add(watch.name, publishers[watch.name].restarts)
                until(lambda: len(workers_of(server, players)) == K_PLAYERS, "all players")
            for watch in players:
                length = len(watch.received)
                until(lambda w=watch, n=length: len(w.received) > n, f"{watch.name} to go on", 5)  # type: ignore[misc]
                check(watch, watches.remove(watch), file, publishers[watch.name].restarts)
            assert len(supervisor.children(recursive=True)) == processes
            assert supervisor.num_fds() <= descriptors + 2
        finally:
            for publisher in publishers.values():
                publisher.stop()
        until(lambda: server.call("status")["arena"]["used"] == 0, "the slots to be free", 20)
        assert server.call("status")["arena"]["memory_bytes"] < 16 << 20
        assert server.call("stats")["counters"]["flux_worker_sessions"] == 0
        events = Counter(line["event"] for line in server.log_lines() if line.get("level") == "error")
        respawns = [line["after_ms"] for line in server.log_lines() if "after_ms" in line]
        server.stop()
        assert server.exit_code == 0
    print(f"{kept} sessions kept, {lost} lost with their worker")
    print(f"publishers back after {max(again_s):.2f} s at most")
    print(f"workers back after {sorted(respawns)[len(respawns) // 2]} ms, {max(respawns)} ms at most")
    assert events == {"process_died": K_KILLS}
    assert kept > K_KILLS
    assert lost > K_KILLS
    assert len(again_s) > K_KILLS // 4
    assert max(again_s) < K_PUBLISH_AGAIN_S
    assert len(respawns) == K_KILLS
    assert max(respawns) < K_RESPAWN_MS


def arenas() -> set[str]:
    """Processes, by pid, that hold an arena's memory."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if "memfd:flux-arena" in maps.read_text():
                found.add(maps.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.timeout(300)
def test_a_killed_supervisor_leaves_nothing() -> None:
    long_clip(K_CLIP_S)
    path = FOLDER / f"small-{K_CLIP_S}s.ts"
    shared = set(os.listdir("/dev/shm"))
    for _ in range(K_SUPERVISOR_KILLS):
        server = FluxServer(SETTINGS | {"admin.listen": "127.0.0.1:0"})
        server.start()
        publisher = Publisher("live/cam", path, server.srt_url("publish", "live/cam"))
        try:
            server.wait_stream("live/cam", 2)
            family = psutil.Process(server.pid).children(recursive=True)
            assert len(family) == 3
            mine = {str(one.pid) for one in family}
            assert mine <= arenas()
            server.kill()
            gone, alive = psutil.wait_procs(family, timeout=5)
            assert not alive, f"{alive} outlived the supervisor"
            assert len(gone) == 3
            assert not mine & arenas()
        finally:
            publisher.stop()
            server.kill()
            server.cleanup()
    assert set(os.listdir("/dev/shm")) <= shared
