from __future__ import annotations

import asyncio
import time

import pytest
from flux.cext.arena import Arena

from flux.config.load import load_config
from flux.errors import LimitError, StreamNameError, StreamNotFoundError, StreamTakenError
from flux.observe.counters import Counters
from flux.streams.registry import StreamRegistry
from flux.streams.session import SessionTable


def now_us():
    return time.monotonic_ns() // 1000


@pytest.fixture
def arena():
    arena = Arena.create(
        slots=4,
        frame_ring_bytes=1 << 16,
        wire_ring_bytes=1 << 16,
        hls_bytes=1 << 20,
        index_entries=64,
        processes=3,
    )
    arena.join(0)
    yield arena
    arena.close()


class Worker:
    """A registry and what it needs, in the arena's process 0; kicked: reasons given to its publishers."""

    def __init__(self, arena, *overrides):
        self.arena = arena
        self.counters = Counters(arena.my_counters)
        self.sessions = SessionTable(0, self.counters)
        self.streams = StreamRegistry(arena, self.counters, self.sessions, load_config(None, overrides))
        self.kicked = []

    def publish(self, name="live/a", protocol="srt"):
        return self.streams.publish(name, protocol, "127.0.0.1:1", self.kicked.append, dict)


@pytest.fixture
def worker(arena):
    return Worker(arena)


def test_a_publisher_has_a_live_stream_and_a_session(arena, worker):
    publication = worker.publish()
    facts = arena.slot(publication.slot)
    assert (facts["name"], facts["state"], facts["protocol"], facts["owner"]) == ("live/a", "live", "srt", 0)
    assert facts["session"] == publication.session.serial
    assert worker.streams.find("live/a") == ("live/a", publication.slot, publication.generation, True)
    assert publication.session.describe()["role"] == "publish"
    assert worker.counters.get("flux_worker_publishers_total") == 1
    publication.end("done")


def test_an_ended_publisher_leaves_an_idle_stream_and_no_session(arena, worker):
    publication = worker.publish()
    publication.end("done")
    publication.end("again")
    assert worker.streams.find("live/a") == ("live/a", publication.slot, publication.generation, False)
    assert len(worker.sessions) == 0


def test_a_second_publisher_is_refused_and_the_next_takes_the_idle_stream_over(arena, worker):
    first = worker.publish()
    with pytest.raises(StreamTakenError, match="live/a has a publisher already; publish under another name"):
        worker.publish()
    assert worker.counters.get("flux_worker_publishers_refused_total") == 1
    first.end("done")
    second = worker.publish()
    assert (second.slot, second.generation) == (first.slot, first.generation)
    assert arena.slot(second.slot)["publishers"] == 2
    first.end("late")
    assert arena.slot(second.slot)["state"] == "live"
    second.end("done")


def test_names_and_slots_have_bounds(arena, worker):
    with pytest.raises(StreamNameError):
        worker.publish("a//b")
    publications = [worker.publish(f"live/{n}") for n in range(4)]
    with pytest.raises(LimitError, match=r"all 4 streams are taken; raise arena\.streams"):
        worker.publish("live/more")
    worker.streams.end_all("stopped")
    assert [arena.slot(p.slot)["state"] for p in publications] == ["idle"] * 4
    assert len(worker.sessions) == 0


def test_muxers_that_can_not_be_made_leave_no_live_stream(arena, worker, monkeypatch):
    def fail(slot):
        raise MemoryError

    monkeypatch.setattr(worker.streams, "_make_muxers", fail)
    with pytest.raises(MemoryError):
        worker.publish()
    assert worker.streams.find("live/a").live is False
    assert len(worker.sessions) == 0


def test_kicking_reaches_the_publisher(worker):
    publication = worker.publish()
    assert worker.sessions.kick(publication.session.id)
    assert worker.kicked == ["kicked"]
    assert worker.sessions.kick_stream("live/a") == 1
    assert worker.sessions.kick_stream("live/b") == 0
    publication.end("kicked")


def test_a_player_finds_what_is_there_at_once(worker):
    publication = worker.publish()
    ref = asyncio.run(worker.streams.wait("live/a", 0))
    assert ref.slot == publication.slot
    publication.end("done")
    assert asyncio.run(worker.streams.wait("live/a", 0)).live is False


def test_an_offer_is_called_for_each_player_that_waits(arena, worker):
    called = []

    def call():
        called.append(worker.streams.is_waited_for("live/a"))

    async def wait(timeout_ms):
        with pytest.raises(StreamNotFoundError):
            await worker.streams.wait("live/a", timeout_ms)

    worker.streams.offer("live/a", call)
    asyncio.run(wait(10))
    asyncio.run(wait(0))  # has no time for it
    assert called == [True]
    assert not worker.streams.is_waited_for("live/a")
    worker.streams.withdraw("live/a", print)
    asyncio.run(wait(10))
    assert called == [True, True]
    worker.streams.withdraw("live/a", call)
    asyncio.run(wait(10))
    worker.publish()
    asyncio.run(worker.streams.wait("live/a", 10))
    assert called == [True, True]


def test_a_player_waits_in_vain(worker):
    with pytest.raises(StreamNotFoundError, match="nobody publishes live/a"):
        asyncio.run(worker.streams.wait("live/a", 0))
    began = time.monotonic()
    with pytest.raises(StreamNotFoundError):
        asyncio.run(worker.streams.wait("live/a", 60))
    assert 0.05 < time.monotonic() - began < 2
    assert worker.counters.get("flux_worker_waits_total") == 1
    assert worker.counters.get("flux_worker_waits_in_vain_total") == 1
    with pytest.raises(StreamNameError):
        asyncio.run(worker.streams.wait("..", 60))


def test_players_hear_of_a_publisher_of_their_own_worker_at_once(worker):
    async def play():
        players = [asyncio.ensure_future(worker.streams.wait("live/a", 5000)) for _ in range(3)]
        other = asyncio.ensure_future(worker.streams.wait("live/b", 5000))
        await asyncio.sleep(0)
        publication = worker.publish()
        refs = await asyncio.gather(*players)
        other.cancel()
        publication.end("done")
        return {ref.slot for ref in refs} == {publication.slot} and not other.done()

    assert asyncio.run(play())


def test_players_hear_of_another_worker_s_publisher(arena, worker):
    other = Arena.attach(arena.fd, arena.doorbells)
    other.join(1)

    async def play():
        player = asyncio.ensure_future(worker.streams.wait("live/a", 5000))
        await asyncio.sleep(0.03)
        slot, _ = other.claim("live/a", 1)
        await asyncio.sleep(0.05)
        assert not player.done(), "a stream that is being set up is not there yet"
        other.go_live(slot, 1)
        began = time.monotonic()
        ref = await player
        return ref, time.monotonic() - began

    ref, took_s = asyncio.run(play())
    assert ref.live
    assert took_s < 0.5


def test_a_player_who_gives_up_is_forgotten(worker):
    async def play():
        player = asyncio.ensure_future(worker.streams.wait("live/a", 5000))
        await asyncio.sleep(0)
        player.cancel()
        with pytest.raises(asyncio.CancelledError):
            await player
        await asyncio.sleep(0.05)
        return worker.streams._waiting, worker.streams._look_timer

    assert asyncio.run(play()) == ({}, None)


def test_waiting_players_have_a_bound(arena):
    worker = Worker(arena, "streams.max_waiting=2")

    async def play():
        players = [asyncio.ensure_future(worker.streams.wait(f"live/{n}", 5000)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimitError, match=r"raise streams\.max_waiting"):
            await worker.streams.wait("live/x", 5000)
        for player in players:
            player.cancel()

    asyncio.run(play())


def test_more_names_than_are_looked_up_in_a_turn_all_have_their_turn(arena, worker, monkeypatch):
    monkeypatch.setattr("flux.streams.registry.K_LOOKS_A_TURN", 3)
    other = Arena.attach(arena.fd, arena.doorbells)
    other.join(1)

    async def play():
        players = [asyncio.ensure_future(worker.streams.wait(f"live/{n}", 5000)) for n in range(10)]
        await asyncio.sleep(0)
        slot, _ = other.claim("live/9", 1)
        other.go_live(slot, 1)
        ref = await asyncio.wait_for(players[9], 5)
        for player in players[:9]:
            player.cancel()
        return ref.slot == slot

    assert asyncio.run(play())


def test_sessions_are_listed_page_by_page(arena):
    table = SessionTable(0, Counters(arena.my_counters))
    sessions = [table.begin(f"live/{n % 2}", "http-flv", "read", "", print) for n in range(5)]
    first, after = table.page(0, 2)
    assert [s["id"] for s in first] == ["w0-000001", "w0-000002"]
    table.end(sessions[0], "gone")
    table.end(sessions[1], "gone")
    second, after = table.page(after, 2)
    assert [s["id"] for s in second] == ["w0-000003", "w0-000004"]
    third, after = table.page(after, 2)
    assert [s["id"] for s in third] == ["w0-000005"]
    assert after == 0
    assert [s["id"] for s in table.page(0, 9, "live/1")[0]] == ["w0-000004"]
    assert table.count_but("http-flv") == 0
    assert table.count_but("demo") == 3
