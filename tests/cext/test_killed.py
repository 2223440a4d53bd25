"""Processes killed at any instruction: each state that shared memory goes through is taken for a death."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise

import pytest
from flux.cext.arena import Arena, NameTaken
from flux.cext.media.hls import HlsReader
from flux.cext.media.hls_pump import HlsPump
from flux.cext.ring import Ring

from tests.cext.arenas import beside, small_arena
from tests.cext.media.test_hls_pump import FRAME, VIDEO, packets, tables
from tests.cext.stepping import copy_of, instants

TS = 1
KEY = 1
HEADERS = 5 * 8216 + (64 << 6)  # the first ring's headers and index, by arena.pxd


class Death:
    """An arena in which process 1 does something that it may not survive."""

    def __init__(self, **sizes: int) -> None:
        self.arena = small_arena(process=1, slots=1, **sizes)
        self.moments = 0

    def each(self, action, span_bytes: int = 0):
        """A copy of the arena for each instant of `action`, seen by process 7."""
        for _ in instants(self.arena, action, span_bytes):
            copy = copy_of(self.arena)
            copy.join(7)
            self.moments += 1
            yield copy
            copy.close()


def fill(ring: Ring, count: int, seed: int = 0) -> None:
    for n in range(count):
        data = random.Random(seed * 1000 + n).randbytes(50 + n * 7919 % 3000)
        ring.append(data, dts=zlib.crc32(data), flags=KEY if n % 5 == 0 else 0)


def audit(ring: Ring) -> dict[int, bytes]:
    """Every record that a reader is given, each of them as it was written."""
    found = {}
    for rec in range(ring.oldest_rec, ring.commit_rec):
        record = ring.record(rec)
        if record is None:
            continue
        data = ring.read(record["pos"], record["length"])
        if data is None:
            assert record["pos"] + record["length"] > ring.commit, "whole, but not told yet"
            continue
        assert zlib.crc32(data) == record["dts_ticks"], f"record {rec} is torn"
        found[rec] = data
    key = ring.key_record()
    assert key is None or key["flags"] & KEY
    return found


def take_over(copy: Arena, name: str = "live/x", process: int = 2) -> Arena:
    """The supervisor cleans up after process 1, and another process takes the stream."""
    copy.process_died(1, 1000)
    other = beside(copy, process)
    slot, _ = other.claim(name, 1)
    other.go_live(slot, 1)
    return other


@pytest.fixture
def full() -> tuple[Death, Ring]:
    """A live stream with a ring that has gone around a few times."""
    death = Death(index_entries=64)
    slot, _ = death.arena.claim("live/x", 1)
    death.arena.go_live(slot, 1)
    ring = Ring(death.arena, slot, TS)
    fill(ring, 150)
    return death, ring


@pytest.mark.parametrize("before", ["nothing", "begun"])
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_in_an_append(full, before, length):
    death, ring = full
    data = random.Random(9).randbytes(length)
    if before == "begun":
        ring.begin(30_000)
    seen = set()
    for copy in death.each(lambda: ring.append(data, dts=zlib.crc32(data), flags=KEY)):
        reader = Ring(copy, 0, TS)
        known = audit(reader)
        last = reader.commit_rec
        other = Ring(take_over(copy), 0, TS)
        fill(other, 8, seed=1)
        after = audit(other)
        assert audit(reader) == after, "a reader that was there before sees the same"
        for rec, data_before in known.items():
            assert after.get(rec, data_before) == data_before
        fresh = [other.record(rec) for rec in range(last, other.commit_rec)]
        assert len(fresh) == 8
        assert all(fresh), "the new writer's records are read at once"
        places = [other.record(rec) for rec in sorted(after)]
        assert all(a["pos"] + a["length"] == b["pos"] for a, b in pairwise(places))
        seen.add((last, reader.commit))
    assert death.moments >= 2
    assert before == "begun" or len({rec for rec, _ in seen}) == 2, "before it and after"


def test_in_a_mark(full):
    death, ring = full
    rec = ring.commit_rec - 1
    for copy in death.each(lambda: ring.mark(rec, KEY), HEADERS):
        reader = Ring(copy, 0, TS)
        audit(reader)
        other = Ring(take_over(copy), 0, TS)
        assert other.append(b"", flags=KEY) == rec + 1
        assert reader.key_record()["rec"] == rec + 1
    assert death.moments >= 1


@pytest.mark.parametrize("versions", [0, 1, 5])
def test_in_a_new_header(versions):
    death = Death(index_entries=64)
    slot, _ = death.arena.claim("live/x", 1)
    ring = Ring(death.arena, slot, 0)  # the first ring, whose headers are watched
    for n in range(versions):
        ring.set_header(bytes([n]) * 100, n)
    before = ring.header(50)
    new = b"new" * 1000
    for copy in death.each(lambda: ring.set_header(new, 50), HEADERS):
        reader = Ring(copy, 0, 0)
        assert reader.header(50) in (before, new)
        if versions == 5:
            assert reader.header(49) == before
            assert reader.header(3) == bytes([3]) * 100
            assert reader.header(0) in (bytes([2]) * 100, bytes([3]) * 100)
        other = Ring(take_over(copy), 0, 0)
        other.set_header(b"next", 60)
        assert reader.header(60) == b"next"
        assert reader.header(50) in (before, new, b"next")
    assert death.moments >= 3


def test_in_a_restart(full):
    death, ring = full
    for copy in death.each(ring.restart):
        reader = Ring(copy, 0, TS)
        audit(reader)
        last = reader.commit_rec
        other = Ring(take_over(copy), 0, TS)
        fill(other, 8, seed=1)
        after = audit(other)
        assert [rec in after for rec in range(last, other.commit_rec)] == [True] * 8
        assert reader.key_record()["rec"] == last + 5
    assert death.moments >= 5


def test_in_a_claim():
    death = Death()
    for copy in death.each(lambda: death.arena.claim("live/x", 1)):
        other = take_over(copy)
        assert [facts["name"] for facts in other.streams()] == ["live/x"]
        with pytest.raises(NameTaken):
            copy.claim("live/x", 1)
    assert death.moments >= 3


@pytest.mark.parametrize("name", ["live/x", "live/other"])
def test_in_a_claim_of_an_idle_stream(full, name):
    death, ring = full
    death.arena.go_idle(0, 0)
    for copy in death.each(lambda: death.arena.claim("live/x", 1)):
        reader = Ring(copy, 0, TS)
        known = audit(reader)
        copy.process_died(1, 1000)
        assert [facts["state"] for facts in copy.streams()] == ["idle"]
        assert reader.alive
        assert audit(reader) == known
        if name == "live/other":
            assert copy.expire_idle(2**62, 0) == [0]
        other = beside(copy, 2)
        assert other.claim(name, 1) == (0, int(name == "live/other"))
    assert death.moments >= 3
    assert ring.alive


@pytest.mark.parametrize("call", ["go_live", "go_idle"])
def test_in_a_change_of_state(full, call):
    death, _ = full
    for copy in death.each(lambda: getattr(death.arena, call)(0, 5)):
        other = take_over(copy)
        assert other.slot(0)["state"] == "live"
        assert other.slot(0)["owner"] == 2
    assert death.moments >= 2


def test_in_a_retire(full):
    death, ring = full
    cursor = ring.commit
    death.arena.go_idle(0, 0)
    for copy in death.each(lambda: death.arena.retire(0)):
        copy.process_died(1, 1000)
        copy.expire_idle(2**62, 0)
        assert copy.streams() == []
        assert copy.generation(0) in (1, 2)
        other = beside(copy, 2)
        assert other.claim("live/other", 1)[0] == 0
        other.go_live(0, 1)
        fresh = Ring(other, 0, TS)
        assert fresh.read(cursor - 1, 1) is None
        assert audit(fresh) == {}
        assert fresh.header() == b""
        last = fresh.commit_rec
        fill(fresh, 8)
        assert sorted(audit(fresh)) == list(range(last, last + 8))
        assert other.slot(0)["rings"]["ts"]["wanted"] == 0
    assert death.moments >= 20


def segments_of(reader: HlsReader) -> dict[int, tuple[dict, bytes]]:
    """Everything that is listed, whole and one behind the other."""
    shown = reader.snapshot()
    assert shown is not None
    found = {}
    place = None
    for n, s in enumerate(shown["segments"]):
        assert s["sequence"] == shown["media_sequence"] + n
        assert place is None or place == s["pos"] or s["pos"] % (1 << 20) == 0, "or at the area's start again"
        place = s["pos"] + s["length"]
        data = reader.read(s["sequence"])
        assert data is not None
        assert data[:376] == tables()
        numbers = [int.from_bytes(data[at + 4 : at + 10], "big") for at in range(376, len(data), 2 * 188)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no frame is lost in it"
        found[s["sequence"]] = s, data
    return found


def frame(ring: Ring, n: int) -> None:
    ring.append(
        packets(0x100, 2, n), dts=n * FRAME, flags=VIDEO | (0 if n % 5 else KEY), arrival_us=n * 40_000
    )


def segmenter(arena: Arena, slot: int) -> HlsPump:
    lengths = {"segment_ticks": 5 * FRAME, "max_segment_ticks": 50 * FRAME}
    return HlsPump(arena, slot, arena.my_counters, **lengths, always=True, keep_segments=3)


@pytest.mark.parametrize("frames", [0, 5, 30])
def test_in_a_cut_of_a_segment(frames):
    death = Death(index_entries=64)
    slot, _ = death.arena.claim("live/x", 1)
    death.arena.go_live(slot, 1)
    ring = Ring(death.arena, slot, TS)
    ring.set_header(tables())
    pump = segmenter(death.arena, slot)
    for n in range(frames):
        frame(ring, n)
        pump.run(n)
    frame(ring, frames)
    for copy in death.each(lambda: pump.run(frames)):
        reader = HlsReader(copy, slot)
        other = take_over(copy)
        before = segments_of(reader)
        fresh = Ring(other, slot, TS)
        fresh.set_header(tables())
        again = segmenter(other, slot)
        for n in range(1000, 1011):
            frame(fresh, n)
            again.run(n)
        after = segments_of(reader)
        for sequence, segment in after.items():
            assert before.get(sequence, segment) == segment, "what was listed does not change"
        new = [s for sequence, (s, _) in sorted(after.items()) if sequence not in before]
        assert len(new) == 2
        assert new[0]["discontinuity"] or not before
        assert not new[1]["discontinuity"]
    assert death.moments >= 3
