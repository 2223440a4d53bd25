from __future__ import annotations

import gc
import random
import zlib

import numpy as np
import pytest
from flux.cext.arena import Arena
from flux.cext.ring import RECORD, Ring
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.arenas import beside, child, small_arena, wait_for

FRAME, TS, FLV = 0, 1, 2
KEY, VIDEO = 1, 2
SIZE = 64 << 10


def new_ring(kind: int = TS, **sizes: int) -> Ring:
    arena = small_arena(**sizes)
    slot, _ = arena.claim("live/x", 1)
    arena.go_live(slot, 1)
    return Ring(arena, slot, kind)


def test_a_new_ring_is_empty():
    ring = new_ring()
    assert (ring.size, ring.commit, ring.reserve, ring.commit_rec, ring.oldest_rec) == (SIZE, 0, 0, 0, 0)
    assert not ring.active
    assert ring.alive
    assert ring.record(0) is None
    assert ring.key_record() is None
    assert ring.find(0) is None
    assert ring.header() == b""
    assert ring.read(0, 1) is None
    assert ring.read(0, 0) == b""
    assert len(ring.records()) == 0


def test_a_record_says_what_was_written():
    ring = new_ring()
    assert ring.append(b"first", dts=-90, pts=2**40, flags=VIDEO | KEY, arrival_us=7, track=3, codec=2) == 0
    assert ring.append(b"", flags=VIDEO) == 1
    assert ring.append(b"third") == 2
    record = ring.record(0)
    assert record["pos"] == 0
    assert record["length"] == 5
    assert record["flags"] == VIDEO | KEY
    assert record["dts_ticks"] == -90
    assert record["pts_ticks"] == 2**40
    assert (record["arrival_us"], record["track"], record["codec"]) == (7, 3, 2)
    assert ring.read(0, 10) == b"firstthird"
    assert ring.commit == 10
    assert [ring.record(n)["length"] for n in range(3)] == [5, 0, 5]
    assert ring.record(3) is None


@pytest.mark.parametrize("length", [SIZE // 2 + 1, SIZE, 2 * SIZE])
def test_a_record_over_half_the_ring_is_refused(length):
    ring = new_ring()
    with pytest.raises(ValueError, match="half"):
        ring.append(bytes(length))
    with pytest.raises(ValueError, match="half"):
        ring.begin(length)
    assert ring.append(bytes(SIZE // 2)) == 0
    assert ring.commit == SIZE // 2


def test_any_range_is_contiguous_over_the_end():
    ring = new_ring()
    source = random.Random(1).randbytes(10 * SIZE)
    at = 0
    for length in [30_000] * 7:
        ring.append(source[at : at + length])
        at += length
    for start in range(at - SIZE, at, 1000):
        assert ring.read(start, at - start) == source[start:at]
    assert ring.read(at - SIZE - 1, 1) is None
    assert ring.read(at - 10, 11) is None
    assert ring.read(at - SIZE, SIZE) == source[at - SIZE : at]
    assert ring.read(at - SIZE, SIZE + 1) is None


def test_a_reader_that_is_lapped_is_told():
    ring = new_ring()
    ring.append(b"x" * 1000)
    for _ in range(64):
        ring.append(bytes(1000))
    assert ring.read(0, 1000) == b"x" * 1000
    ring.begin(536)
    assert ring.read(0, 1000) == b"x" * 1000
    ring.begin(537)
    assert ring.read(0, 1000) is None, "the writer may be there already"
    assert ring.record(0) is None
    assert ring.record(1) is not None
    assert ring.find(500) is None
    assert ring.find(1500)["rec"] == 1


def test_the_index_may_be_lapped_before_the_bytes():
    ring = new_ring(index_entries=64)
    for n in range(100):
        ring.append(bytes([n]))
    assert ring.oldest_rec == 36
    assert ring.record(35) is None
    assert ring.record(36)["pos"] == 36
    assert ring.read(0, 100) == bytes(range(100)), "a reader of bytes needs no index"
    assert ring.find(35) is None
    assert ring.find(36)["rec"] == 36
    ring.begin(1)
    assert ring.record(36) is None, "its place is taken from reserve on"


def test_find_tells_the_record_of_a_position():
    ring = new_ring(index_entries=64)
    lengths = [random.Random(3).randrange(1, 900) for _ in range(200)]
    starts = []
    for length in lengths:
        starts.append(ring.commit)
        ring.append(bytes(length))
    for n in range(ring.oldest_rec, 200):
        for pos in (starts[n], starts[n] + lengths[n] - 1):
            assert ring.find(pos)["rec"] == n
    assert ring.find(ring.commit) is None
    assert ring.find(0) is None
    assert ring.find(2**63) is None


def test_keyframes():
    ring = new_ring()
    ring.append(b"a")
    assert ring.key_record() is None
    ring.append(b"b", flags=KEY)
    ring.append(b"c")
    assert ring.key_record()["rec"] == 1
    ring.mark(2, KEY)
    assert ring.key_record()["rec"] == 2
    assert ring.record(2)["flags"] == KEY
    ring.mark(0, KEY)
    assert ring.key_record()["rec"] == 2, "an older one does not become the newest"
    assert ring.record(0)["flags"] == KEY
    ring.mark(99, KEY)
    assert ring.key_record()["rec"] == 2
    for _ in range(3):
        ring.append(bytes(SIZE // 2))
    assert ring.key_record() is None, "it was overwritten"


def test_records_as_an_array():
    ring = new_ring(index_entries=64)
    for n in range(80):
        ring.append(bytes(n), dts=n, flags=n & 1)
    records = ring.records()
    assert records.dtype == RECORD
    assert records["dts_ticks"].tolist() == list(range(16, 80))
    assert records["length"].tolist() == list(range(16, 80))
    records["pos"] = 0
    assert ring.record(79)["pos"] == sum(range(79)), "it is a copy"


def test_views_outlive_the_ring():
    ring = new_ring()
    ring.append(b"abc")
    view = ring.view_bytes()
    assert view.dtype == np.uint8
    assert view.shape == (SIZE,)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    ring.append(b"d")
    assert view[:4].tobytes() == b"abcd", "it shows the memory itself"
    del ring
    gc.collect()
    assert view[:4].tobytes() == b"abcd"
    assert int(view.sum()) == sum(b"abcd")


def test_headers_by_position():
    ring = new_ring()
    ring.set_header(b"one")
    ring.append(bytes(100))
    ring.set_header(b"two", ring.commit)
    ring.append(bytes(100))
    ring.set_header(b"three", 200)
    expected = {0: b"one", 99: b"one", 100: b"two", 199: b"two", 200: b"three", 900: b"three"}
    assert {pos: ring.header(pos) for pos in expected} == expected
    assert ring.header() == b"three"
    ring.append(bytes(100))
    ring.set_header(b"four")
    assert ring.header(0) == b"two", "three versions are kept: the oldest of them is the best there is"
    assert ring.header() == b"four"
    ring.set_header(bytes(8192))
    assert ring.header() == bytes(8192)
    with pytest.raises(ValueError, match="8192"):
        ring.set_header(bytes(8193))
    ring.set_header(b"")
    assert ring.header() == b""


def test_a_restart_empties_the_ring_and_gives_its_memory_back():
    ring = new_ring()
    ring.append(b"x" * 30_000, flags=KEY)
    ring.append(b"y" * 30_000)
    ring.set_header(b"header")
    ring.active = True
    held = ring.arena.memory_bytes
    end = ring.commit
    ring.restart()
    assert ring.arena.memory_bytes <= held - 56_000
    assert not ring.active
    assert ring.commit >= end + SIZE
    assert ring.key_record() is None
    assert ring.read(0, 100) is None
    assert ring.read(end - 1, 1) is None
    assert ring.record(0) is None
    assert ring.record(1) is None
    assert ring.record(2) is None, "a reader at the end is told as well"
    assert len(ring.records()) == 0 or all(ring.record(ring.oldest_rec + n) is None for n in range(3))
    start = ring.commit
    rec = ring.append(b"z" * 100, flags=KEY)
    assert ring.record(rec)["pos"] == start
    assert ring.key_record()["rec"] == rec
    assert ring.find(start + 50)["rec"] == rec
    assert ring.read(start, 100) == b"z" * 100
    assert ring.header() == b"header"
    assert ring.record(rec + 1) is None


def test_a_ring_of_a_free_slot_cannot_be_opened():
    arena = small_arena()
    with pytest.raises(ValueError, match="free"):
        Ring(arena, 0, TS)
    with pytest.raises(ValueError, match="can't be opened"):
        Ring(arena, 99, TS)
    slot, _ = arena.claim("live/x", 1)
    with pytest.raises(ValueError, match="can't be opened"):
        Ring(arena, slot, 6)


def test_a_reader_of_the_last_generation_gets_nothing_of_the_next():
    ring = new_ring()
    arena, slot = ring.arena, ring.slot
    for n in range(5):
        ring.append(bytes([n]) * 100, flags=KEY)
    ring.set_header(b"old")
    old = Ring(arena, slot, TS)
    cursor, rec = old.commit, old.commit_rec
    arena.go_idle(slot, 0)
    arena.retire(slot)
    assert not old.alive
    assert old.read(0, 100) is None
    assert arena.claim("live/other", 1) == (slot, 1)
    new = Ring(arena, slot, TS)
    assert not old.alive
    assert new.alive
    new.set_header(b"new")
    new.append(b"secret" * 10, flags=KEY)
    for pos in (0, 100, 400, cursor - 1, cursor, cursor + 10):
        assert old.read(pos, 10) is None
    assert old.record(rec) is None
    assert old.record(rec - 1) is None
    assert old.find(cursor) is None
    assert old.key_record() is None, "the newest keyframe is another stream's"
    assert old.header() == b""
    assert new.header() == b"new"
    assert new.key_record() is not None
    assert new.read(new.commit - 60, 60) == b"secret" * 10
    assert new.commit > cursor


def test_what_a_dead_writer_left_half_done_is_never_seen():
    ring = new_ring()
    ring.append(b"whole")
    ring.begin(1000)
    other = Ring(beside(ring.arena, 1), ring.slot, TS)
    assert other.commit == 5
    assert other.append(b"next") == 1
    assert ring.read(0, 9) == b"wholenext"
    assert ring.record(1)["pos"] == 5


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, SIZE // 2), st.booleans()),
            st.tuples(st.just("begin"), st.integers(0, SIZE // 2), st.just(False)),
            st.tuples(st.just("restart"), st.just(0), st.just(False)),
            st.tuples(st.just("header"), st.integers(0, 100), st.just(False)),
        ),
        max_size=60,
    ),
    st.sampled_from([64, 256]),
)
def test_whatever_a_reader_is_given_is_what_was_written(steps, entries):
    """A model beside the ring: everything that was ever committed, by position and by record."""
    ring = new_ring(index_entries=entries)
    reader = Ring(beside(ring.arena), ring.slot, TS)
    written: dict[int, tuple[int, bytes]] = {}
    headers: list[tuple[int, bytes]] = []
    newest_key = None
    begun = 0
    for seed, (what, length, key) in enumerate(steps):
        if what == "append":
            data = random.Random(seed).randbytes(length)
            pos = ring.commit
            rec = ring.append(data, flags=KEY if key else 0, dts=zlib.crc32(data))
            written[rec] = pos, data
            newest_key = rec if key else newest_key
        elif what == "begin":
            ring.begin(length)
        elif what == "restart":
            ring.restart()
            begun = ring.commit
            newest_key = None
        else:
            headers.append((ring.commit, bytes([seed % 256]) * length))
            ring.set_header(headers[-1][1])
        last = max(written, default=0)
        for rec, (pos, data) in written.items():
            got = reader.record(rec)
            intact = reader.reserve <= pos + SIZE and pos >= begun
            if got is None:
                assert not intact or rec < reader.oldest_rec
                continue
            assert (got["pos"], got["length"], got["dts_ticks"]) == (pos, len(data), zlib.crc32(data))
            assert reader.read(pos, len(data)) == data
            if data:
                assert reader.find(pos)["rec"] == rec
        if what == "append":
            assert reader.record(last) is not None
        got = reader.key_record()
        assert got is None or got["rec"] == newest_key
        if headers:
            assert reader.header() == headers[-1][1]
            assert reader.header(0) in [data for _, data in headers[-3:]]


def write_marked(arena: Arena, slot: int) -> None:
    ring = Ring(beside(arena, 1), slot, TS)
    for n in range(1000):
        ring.append(n.to_bytes(4, "big"), dts=n, flags=KEY if n % 10 == 0 else 0)


def test_another_process_sees_what_is_written():
    ring = new_ring(index_entries=1024)
    with child(write_marked, ring.arena, ring.slot) as writer:
        wait_for(lambda: ring.commit_rec == 1000)
        writer.join()
    assert ring.read(0, 4000) == b"".join(n.to_bytes(4, "big") for n in range(1000))
    assert ring.key_record()["dts_ticks"] == 990


def test_rings_of_a_stream_are_apart():
    arena = small_arena()
    slot, _ = arena.claim("live/x", 1)
    other, _ = arena.claim("live/y", 1)
    rings = [Ring(arena, n, kind) for n in (slot, other) for kind in range(6)]
    for n, ring in enumerate(rings):
        ring.append(bytes([n]) * SIZE_OF[ring.kind])
        ring.set_header(bytes([n]))
    for n, ring in enumerate(rings):
        assert ring.read(0, SIZE_OF[ring.kind]) == bytes([n]) * SIZE_OF[ring.kind]
        assert ring.header() == bytes([n])


SIZE_OF = dict.fromkeys(range(6), SIZE // 2)
