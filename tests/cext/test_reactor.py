from __future__ import annotations

import asyncio
import os
import random
import select
import time

import pytest
import uvloop
from flux.cext.arena import Arena
from flux.cext.reactor import Doorbell, EventSource, Reactor, Timer, monotonic_us
from flux.cext.ring import Ring
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.arenas import FORK, beside, child, small_arena, wait_for

TS = 1


def now_us() -> int:
    return time.monotonic_ns() // 1000


def run_until(reactor: Reactor, condition, timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        reactor.run_once(10_000)


def test_the_clock_is_the_monotonic_one():
    assert abs(monotonic_us() - now_us()) < 1_000_000
    reactor = Reactor()
    reactor.run_once(0)
    assert abs(reactor.now_us - now_us()) < 1_000_000


def test_timers_run_in_the_order_of_their_deadlines():
    reactor = Reactor()
    ran = []
    start = now_us()
    timers = {}
    for n, after_us in enumerate([3000, 1000, 2000, 1000, -5_000_000]):
        timers[n] = Timer(reactor, lambda n=n: ran.append(n))
        timers[n].set(start + after_us)
    assert reactor.timers == 5
    run_until(reactor, lambda: len(ran) == 5)
    assert ran[0] == 4, "one in the past runs at once"
    assert sorted(ran[1:3]) == [1, 3]
    assert ran[3:] == [2, 0]
    assert now_us() >= start + 3000
    assert reactor.timers == 0


def test_a_timer_runs_once_and_can_be_moved_and_taken_back():
    reactor = Reactor()
    ran = []
    timer = Timer(reactor, lambda: ran.append(now_us()))
    far = now_us() + 60_000_000
    timer.set(far)
    timer.set(now_us() + 2000)
    assert reactor.timers == 1
    run_until(reactor, lambda: ran)
    reactor.run_once(0)
    assert len(ran) == 1
    timer.set(now_us() + 1000)
    timer.cancel()
    timer.cancel()
    assert reactor.timers == 0
    reactor.run_once(3000)
    assert len(ran) == 1
    timer.set(now_us() + 1000)
    timer.close()
    reactor.run_once(3000)
    assert len(ran) == 1


def test_a_timer_that_is_forgotten_is_taken_back():
    reactor = Reactor()
    timer = Timer(reactor, lambda: None)
    timer.set(now_us() + 60_000_000)
    timer.events.close()
    del timer
    assert reactor.timers == 0
    reactor.run_once(0)


def test_a_timer_may_set_itself_again():
    reactor = Reactor()
    ran = []

    def tick():
        ran.append(reactor.wakes)
        if len(ran) < 5:
            timer.set(now_us() - 1000)

    timer = Timer(reactor, tick)
    timer.set(now_us())
    run_until(reactor, lambda: len(ran) == 5)
    assert len(set(ran)) == 5, "at most once in a round: it can't hold the loop"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["set", "set", "cancel"]), st.integers(-50, 50)),
        max_size=80,
    )
)
def test_the_heap_of_timers(steps):
    """Any order of setting, moving and taking back: what is due runs, all else stays."""
    reactor = Reactor()
    ran: list[int] = []
    timers = [Timer(reactor, lambda n=n: ran.append(n)) for n in range(10)]
    base = now_us()
    expected: dict[int, int] = {}
    for n, what, after_s in steps:
        if what == "set":
            expected[n] = base + after_s * 10_000_000 - 5_000_000
            timers[n].set(expected[n])
        else:
            expected.pop(n, None)
            timers[n].cancel()
    assert reactor.timers == len(expected)
    due = sorted(n for n, deadline in expected.items() if deadline <= base)
    reactor.run_once(0)
    assert sorted(ran) == due
    assert [expected[n] for n in ran] == sorted(expected[n] for n in ran)
    assert reactor.timers == len(expected) - len(due)
    for timer in timers:
        timer.close()


def test_an_event_that_was_closed_is_not_told():
    reactor = Reactor()
    ran = []
    first = Timer(reactor, lambda: (ran.append("first"), second.close()))
    second = Timer(reactor, lambda: ran.append("second"))
    for timer in (first, second):
        timer.set(now_us() - 10)
    run_until(reactor, lambda: ran)
    reactor.run_once(0)
    assert ran == ["first"]


def test_an_exception_is_raised_after_the_other_callbacks():
    reactor = Reactor()
    ran = []

    def fail():
        raise KeyError("mine")

    timers = [Timer(reactor, callback) for callback in (lambda: ran.append(1), fail, lambda: ran.append(3))]
    for timer in timers:
        timer.set(now_us() - 10)
    with pytest.raises(KeyError, match="mine"):
        run_until(reactor, lambda: len(ran) == 2)
    assert ran == [1, 3]


def test_its_descriptor_is_readable_when_there_is_something_to_do():
    reactor = Reactor()
    poll = select.poll()
    poll.register(reactor.fd, select.POLLIN)
    assert poll.poll(0) == []
    ran = []
    timer = Timer(reactor, lambda: ran.append(1))
    timer.set(now_us() + 5000)
    assert poll.poll(2000)
    reactor.run_once(0)
    assert ran == [1]
    assert poll.poll(0) == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_runs_inside_an_event_loop(new_loop):
    arena = small_arena(process=3)
    reactor = Reactor(arena)
    slot, _ = arena.claim("live/x", 1)
    ring = Ring(arena, slot, TS)
    ring.subscribe()
    heard = []
    bell = Doorbell(reactor, lambda: heard.append(ring.commit))
    loop = new_loop()

    async def main():
        loop.add_reader(reactor.fd, reactor.run_once)
        done = asyncio.Event()
        timer = Timer(reactor, done.set)
        for n in range(20):
            ring.append(b"x" * 10)
            ring.notify()
            async with asyncio.timeout(5):
                while not heard or heard[-1] != ring.commit:
                    await asyncio.sleep(0)
            timer.set(now_us() + 500)
            async with asyncio.timeout(5):
                await done.wait()
            done.clear()
            assert n < 20
        loop.remove_reader(reactor.fd)

    loop.run_until_complete(main())
    loop.close()
    assert reactor.doorbells == 20
    bell.close()


def test_doorbells_are_heard_by_all_watchers():
    arena = small_arena(process=2)
    reactor = Reactor(arena)
    slot, _ = arena.claim("live/x", 1)
    ring = Ring(arena, slot, TS)
    heard = []
    bells = {}
    bells[0] = Doorbell(reactor, lambda: heard.append(0))
    bells[1] = Doorbell(reactor, lambda: (heard.append(1), bells[2].close()))
    bells[2] = Doorbell(reactor, lambda: heard.append(2))
    ring.append(b"x")
    ring.notify()
    reactor.run_once(0)
    assert heard == [], "nobody subscribed"
    ring.subscribe()
    ring.notify()
    ring.notify()
    run_until(reactor, lambda: heard)
    assert sorted(heard) == [0, 1, 2]
    assert reactor.doorbells == 1, "two rings before it is heard are one"
    heard.clear()
    ring.notify()
    run_until(reactor, lambda: heard)
    assert sorted(heard) == [0, 1]
    heard.clear()
    del bells[0]
    ring.notify()
    run_until(reactor, lambda: heard)
    assert heard in ([1], [0, 1]), "a bell lives as long as its source is open"
    ring.subscribe(False)
    ring.notify()
    heard.clear()
    reactor.run_once(0)
    assert heard == []


def test_a_reactor_needs_a_process_that_has_joined():
    with pytest.raises(ValueError, match="joined"):
        Reactor(small_arena(process=None))


def test_a_closed_reactor_can_go():
    reactor = Reactor()
    source = EventSource(reactor, lambda: None)
    timer = Timer(reactor, lambda: None)
    timer.set(now_us() + 1)
    reactor.close()
    reactor.close()
    assert reactor.fd == -1
    source.close()
    timer.close()


def write_in_bursts(arena: Arena, slot: int, bursts: int, acknowledged) -> None:
    ring = Ring(beside(arena, 1), slot, TS)
    source = random.Random(2)
    for _ in range(bursts):
        for _ in range(source.randrange(1, 6)):
            ring.append(b"x" * 8)
            ring.notify()
        end = ring.commit
        while acknowledged.value < end:
            time.sleep(0)


@pytest.mark.parametrize("bursts", [2000, pytest.param(300_000, marks=pytest.mark.slow)])
def test_no_wake_up_is_lost(bursts):
    """The writer waits until the reader has seen its last commit: a doorbell not rung would stop both."""
    arena = small_arena(process=2)
    slot, _ = arena.claim("live/x", 1)
    ring = Ring(arena, slot, TS)
    ring.subscribe()
    reactor = Reactor(arena)
    acknowledged = FORK.Value("Q", 0, lock=False)

    def look():
        acknowledged.value = ring.commit

    bell = Doorbell(reactor, look)
    with child(write_in_bursts, arena, slot, bursts, acknowledged) as writer:
        while writer.is_alive():
            before, since = reactor.doorbells, time.monotonic()
            reactor.run_once(2_000_000)
            told = reactor.doorbells > before or acknowledged.value == ring.commit
            assert told or time.monotonic() < since + 1.9, "a commit was not told"
    assert writer.exitcode == 0
    assert reactor.doorbells > bursts // 2
    bell.close()


def ring_and_exit(arena: Arena, slot: int) -> None:
    ring = Ring(beside(arena, 1), slot, TS)
    ring.append(b"last words")
    ring.notify()
    os._exit(0)


def test_what_a_process_told_before_it_died_is_heard():
    arena = small_arena(process=2)
    slot, _ = arena.claim("live/x", 1)
    ring = Ring(arena, slot, TS)
    ring.subscribe()
    with child(ring_and_exit, arena, slot) as writer:
        writer.join()
        reactor = Reactor(arena)
        heard = []
        bell = Doorbell(reactor, lambda: heard.append(ring.read(0, ring.commit)))
        run_until(reactor, lambda: heard)
    assert heard == [b"last words"]
    bell.close()
    wait_for(lambda: writer.exitcode == 0)
