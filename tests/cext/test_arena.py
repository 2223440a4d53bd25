from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest
from flux.cext.arena import Arena, ArenaFull, NameTaken
from flux.cext.ring import Ring

from tests.cext.arenas import FORK, beside, child, small_arena, wait_for

TS, FLV = 1, 2


def state(arena: Arena, slot: int) -> str:
    return arena.slot(slot)["state"]


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"frame_ring_bytes": 100_000}, "frame_ring_bytes"),
        ({"wire_ring_bytes": 4096}, "wire_ring_bytes"),
        ({"hls_bytes": 3 << 20}, "hls_bytes"),
        ({"index_entries": 32}, "index_entries"),
        ({"slots": 0}, "slots"),
        ({"slots": 65537}, "slots"),
        ({"processes": 0}, "processes"),
        ({"processes": 65}, "processes"),
    ],
)
def test_sizes_out_of_bounds_are_named(sizes, name):
    with pytest.raises(ValueError, match=name):
        Arena.create(**{"slots": 1, "processes": 1, **sizes})


def test_an_arena_of_the_default_size_costs_next_to_nothing():
    arena = Arena.create()
    assert arena.slots == 1024
    # The table of slots is written at the start; a stream costs its pages from its first byte on.
    assert arena.memory_bytes < 16 << 20
    slot, _ = arena.claim("live/x", 1)
    Ring(arena, slot, TS).append(bytes(1000))
    assert arena.memory_bytes < 16 << 20


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(4096)])
def test_what_is_no_arena_is_refused(content):
    fd = os.memfd_create("other")
    os.write(fd, content)
    with pytest.raises(ValueError, match="not an arena"):
        Arena.attach(fd, [])
    os.close(fd)


def test_join_gives_a_process_its_slab():
    arena = small_arena(process=None)
    arena.join(3)
    assert arena.process == 3
    info = arena.process_info(3)
    assert info["pid"] == os.getpid()
    assert info["incarnation"] == 1
    assert abs(info["heartbeat_us"] - time.monotonic_ns() // 1000) < 5_000_000
    arena.heartbeat(42)
    assert arena.process_info(3)["heartbeat_us"] == 42
    beside(arena, 3)
    assert arena.process_info(3)["incarnation"] == 2
    with pytest.raises(ValueError, match="process number 8"):
        arena.join(8)


def test_counters_are_views_that_others_read():
    arena = small_arena(process=1)
    other = beside(arena, 2)
    arena.my_counters[5] += 7
    other.my_counters[5] = 1
    assert other.counters(1)[5] == 7
    assert arena.counters(2)[5] == 1
    assert arena.counters(0).sum() == 0
    assert arena.my_counters.dtype == np.uint64
    assert arena.my_counters.shape == (512,)
    view = arena.my_counters
    del arena
    view[6] = 9
    assert other.counters(1)[6] == 9
    with pytest.raises(ValueError, match="64"):
        other.counters(64)


def test_a_streams_life():
    arena = small_arena()
    assert arena.find("live/x") is None
    assert arena.look_up("live/x") is None
    slot, generation = arena.claim("live/x", 6)
    assert (state(arena, slot), generation) == ("claimed", 0)
    assert arena.find("live/x") == slot
    assert arena.look_up("live/x") is None, "players wait until it is live"
    arena.go_live(slot, 77)
    facts = arena.slot(slot)
    assert facts["name"] == "live/x"
    assert (facts["state"], facts["protocol"]) == ("live", "demo")
    assert (facts["session"], facts["publishers"]) == (77, 1)
    assert abs(facts["since_us"] / 1e6 - time.time()) < 60
    assert arena.look_up("live/x") == (slot, 0, True)
    arena.go_idle(slot, 1000)
    assert arena.look_up("live/x") == (slot, 0, False)
    assert arena.slot(slot)["session"] == 0
    assert arena.claim("live/x", 1) == (slot, 0), "whoever comes back has the same slot and rings"
    arena.go_live(slot, 78)
    assert arena.slot(slot)["publishers"] == 2
    arena.go_idle(slot, 2000)
    assert arena.expire_idle(2999, 1000) == []
    assert arena.expire_idle(3000, 1000) == [slot]
    assert state(arena, slot) == "free"
    assert arena.generation(slot) == 1
    assert arena.find("live/x") is None
    assert arena.streams() == []
    assert arena.claim("live/x", 1) == (slot, 1)


def test_a_name_is_taken_once():
    arena = small_arena(process=0)
    other = beside(arena, 1)
    slot, _ = arena.claim("live/x", 1)
    for claimant in (arena, other):
        with pytest.raises(NameTaken, match="live/x"):
            claimant.claim("live/x", 1)
    arena.go_live(slot, 1)
    with pytest.raises(NameTaken):
        other.claim("live/x", 1)
    assert other.claim("live/X", 1)[0] != slot


def test_a_full_arena_says_so():
    arena = small_arena()
    arena.claim("a", 1)
    slot, _ = arena.claim("b", 1)
    with pytest.raises(ArenaFull, match="2 stream slots"):
        arena.claim("c", 1)
    arena.go_idle(slot, 0)
    with pytest.raises(ArenaFull):
        arena.claim("c", 1)
    arena.expire_idle(1, 0)
    assert arena.claim("c", 1)[0] == slot


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128])
def test_names_out_of_bounds(name):
    with pytest.raises(ValueError, match="255 bytes"):
        small_arena().claim(name, 1)


@pytest.mark.parametrize("name", ["x", "x" * 255, "é" * 127, "a/b.c~d-e_f"])
def test_names_in_bounds(name):
    arena = small_arena()
    slot, _ = arena.claim(name, 1)
    assert arena.find(name) == slot
    assert arena.slot(slot)["name"] == name
    assert arena.find(name + "y") is None
    assert arena.find(name[:-1]) is None


def test_wants_and_viewers():
    arena = small_arena(process=2)
    other = beside(arena, 3)
    slot, _ = arena.claim("live/x", 1)
    arena.want(slot, FLV, True)
    other.want(slot, FLV, True)
    assert arena.slot(slot)["rings"]["flv"]["wanted"] == 0b1100
    arena.want(slot, FLV, False)
    assert other.slot(slot)["rings"]["flv"]["wanted"] == 0b1000
    with pytest.raises(ValueError, match="ring kind 6"):
        arena.want(slot, 6, True)
    arena.add_viewers(slot, 3)
    other.add_viewers(slot, 2)
    arena.add_viewers(slot, -1)
    assert arena.slot(slot)["viewers"] == 4
    arena.add_viewers(slot, -9)
    assert arena.slot(slot)["viewers"] == 2, "not below none"
    for call in (arena.slot, arena.generation, arena.retire):
        with pytest.raises(ValueError, match="slot 2"):
            call(2)


def test_a_dead_process_leaves_nothing_behind():
    arena = small_arena(process=7)
    dead, alive = beside(arena, 1), beside(arena, 2)
    own, _ = dead.claim("live/dead", 1)
    other, _ = alive.claim("live/alive", 1)
    dead.go_live(own, 1)
    alive.go_live(other, 1)
    Ring(dead, own, FLV).active = True
    for slot in (own, other):
        for process in (dead, alive):
            process.want(slot, FLV, True)
            process.add_viewers(slot, 1)
            Ring(process, slot, TS).subscribe()
    assert arena.process_died(1, 5000) == [own]
    assert state(arena, own) == "idle"
    assert arena.slot(own)["idle_since_us"] == 5000
    assert state(arena, other) == "live"
    for slot in (own, other):
        facts = arena.slot(slot)
        assert facts["viewers"] == 1
        assert facts["rings"]["flv"]["wanted"] == 0b100
        assert not facts["rings"]["flv"]["active"]
    assert arena.process_died(1, 6000) == []
    assert alive.claim("live/dead", 1) == (own, 0)


def test_a_death_wakes_everybody():
    """Whoever died between marking a process as rung and ringing it would leave it deaf."""
    arena = small_arena(process=7)
    reader = beside(arena, 2)
    slot, _ = arena.claim("live/x", 1)
    ring = Ring(arena, slot, TS)
    Ring(reader, slot, TS).subscribe()
    ring.append(b"x")
    ring.notify()
    assert os.eventfd_read(reader.doorbell_fd) == 1
    ring.notify()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(reader.doorbell_fd)
    arena.process_died(1, 0)
    assert os.eventfd_read(reader.doorbell_fd) == 1
    reader.clear_rung()
    ring.notify()
    assert os.eventfd_read(reader.doorbell_fd) == 1


def test_a_freed_slot_gives_its_memory_back_and_wakes_its_readers():
    arena = small_arena(process=0)
    reader = beside(arena, 2)
    idle = arena.memory_bytes
    slot, _ = arena.claim("live/x", 1)
    for kind in range(6):
        ring = Ring(arena, slot, kind)
        ring.append(bytes(32 << 10))
        ring.append(bytes(32 << 10))
        ring.set_header(bytes(8192))
    ours = Ring(reader, slot, TS)
    ours.subscribe()
    assert arena.memory_bytes > idle + 6 * (64 << 10)
    arena.go_idle(slot, 0)
    arena.retire(slot)
    assert arena.memory_bytes <= idle + 4096
    assert not ours.alive
    assert os.eventfd_read(reader.doorbell_fd) == 1
    facts = arena.slot(slot)
    assert facts["viewers"] == facts["bytes_in"] == facts["publishers"] == 0
    assert facts["tracks"] == []


def test_a_hundred_lives_of_a_slot():
    arena = small_arena()
    idle = arena.memory_bytes
    for n in range(100):
        slot, generation = arena.claim(f"live/{n}", 1)
        assert generation == n
        ring = Ring(arena, slot, TS)
        start = ring.commit
        ring.append(bytes([n]) * 30_000, flags=1)
        assert ring.read(start, 30_000) == bytes([n]) * 30_000
        arena.go_idle(slot, n)
        arena.expire_idle(n, 0)
    assert arena.memory_bytes <= idle + 4096


def claim_all(arena: Arena, number: int, names: list[str], results) -> None:
    view = beside(arena, number)
    won = []
    for name in names:
        try:
            slot, _ = view.claim(name, 1)
        except NameTaken:
            continue
        view.go_live(slot, number)
        won.append((name, slot))
    results.put((number, won))


def test_names_are_unique_over_processes():
    arena = small_arena(process=7, slots=64)
    names = [f"live/{n}" for n in range(60)]
    results = FORK.Queue()
    workers = []
    for number in range(4):
        shuffled = names[:]
        random.Random(number).shuffle(shuffled)
        workers.append(FORK.Process(target=claim_all, args=(arena, number, shuffled, results), daemon=True))
    for worker in workers:
        worker.start()
    won = dict(results.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    flat = [claim for claims in won.values() for claim in claims]
    assert sorted(name for name, _ in flat) == sorted(names)
    assert len({slot for _, slot in flat}) == len(names)
    for number, claims in won.items():
        for name, slot in claims:
            facts = arena.slot(slot)
            assert (facts["name"], facts["owner"], facts["session"]) == (name, number, number)


def live_and_die(arena: Arena, number: int) -> None:
    """Streams that come, write, go idle, and are freed, without end."""
    view = beside(arena, number)
    source = random.Random(os.getpid())
    while True:
        name = f"live/{source.randrange(6)}"
        try:
            slot, _ = view.claim(name, 1)
        except (NameTaken, ArenaFull):
            view.expire_idle(time.monotonic_ns() // 1000, 0)
            continue
        view.go_live(slot, 1)
        ring = Ring(view, slot, TS)
        for _ in range(source.randrange(10)):
            ring.append(bytes(source.randrange(30_000)), flags=source.randrange(2))
        view.want(slot, FLV, True)
        view.go_idle(slot, time.monotonic_ns() // 1000)
        if source.randrange(2):
            view.expire_idle(time.monotonic_ns() // 1000, 0)


@pytest.mark.parametrize("kills", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_processes_killed_at_random_leave_a_sound_table(kills):
    arena = small_arena(process=7, slots=8)
    source = random.Random(5)
    idle = arena.memory_bytes
    with child(live_and_die, arena, 1):
        for _ in range(kills):
            with child(live_and_die, arena, 2) as victim:
                wait_for(lambda pid=victim.pid: arena.process_info(2)["pid"] == pid)
                time.sleep(source.random() * 0.01)
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
            arena.process_died(2, time.monotonic_ns() // 1000)
            names = [facts["name"] for facts in arena.streams() if facts["owner"] == 2]
            assert len(names) == len(set(names))
            assert all(facts["state"] != "live" for facts in arena.streams() if facts["owner"] == 2)
    arena.process_died(1, time.monotonic_ns() // 1000)
    names = [facts["name"] for facts in arena.streams()]
    assert len(names) == len(set(names))
    arena.expire_idle(2**62, 0)
    assert arena.streams() == [], "each slot could be freed"
    assert arena.memory_bytes <= idle + (32 << 10), "the slabs of two processes, no ring"
    for n in range(8):
        slot, _ = arena.claim(f"again/{n}", 1)
        ring = Ring(arena, slot, TS)
        start = ring.commit
        ring.append(b"again")
        assert ring.read(ring.commit - 5, 5) == b"again"
        assert ring.commit >= start + 5


def test_a_dead_claimant_holds_the_lock_only_until_it_is_missed():
    arena = small_arena(process=7)
    os.pwrite(arena.fd, (3 + 1).to_bytes(8, "little"), 104)  # arena_header.claim_lock: process 3 has it
    with pytest.raises(RuntimeError, match="claim lock"):
        arena.claim("live/x", 1)
    arena.process_died(2, 0)
    assert os.pread(arena.fd, 8, 104) == (3 + 1).to_bytes(8, "little"), "that was another's"
    arena.process_died(3, 0)
    assert arena.claim("live/x", 1) == (0, 0)
