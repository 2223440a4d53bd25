"""HLS segments read by one process while another makes them."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from flux.cext.media.hls import HlsReader
from flux.cext.media.hls_pump import HlsPump
from flux.cext.ring import Ring

from tests.cext.arenas import beside, child, small_arena, wait_for
from tests.cext.media.test_hls_pump import FRAME, KEY, TS, VIDEO, Stream, tables

BYTES = np.dtype([("head", "u1", 4), ("number", ">u8"), ("filler", "u1", 176)])


def numbered(first: int, count: int) -> bytes:
    """TS packets numbered from `first` on, the rest of each filled with its number's low byte."""
    packets = np.zeros(count, BYTES)
    packets["head"] = [0x47, 1, 0, 0x10]
    packets["number"] = np.arange(first, first + count)
    packets["filler"] = (packets["number"] & 0xFF).astype("u1")[:, None]
    return packets.tobytes()


def check(segment: bytes) -> tuple[int, int]:
    """The numbers of the first and last packet of a segment in which each byte is as it was written."""
    assert segment[:376] == tables()
    packets = np.frombuffer(segment[376:], BYTES)
    assert (packets["head"] == [0x47, 1, 0, 0x10]).all()
    assert (np.diff(packets["number"].astype(np.int64)) == 1).all()
    assert (packets["filler"] == (packets["number"] & 0xFF).astype("u1")[:, None]).all()
    return int(packets["number"][0]), int(packets["number"][-1])


def write_segments(arena, slot, seconds):
    """The owner: 40 frames a segment, of sizes that differ, as fast as it can."""
    owner = beside(arena, 1)
    ring = Ring(owner, slot, TS)
    ring.set_header(tables())
    pump = HlsPump(
        owner,
        slot,
        owner.my_counters,
        segment_ticks=40 * FRAME,
        max_segment_ticks=400 * FRAME,
        always=True,
        keep_segments=8,
    )
    number = 0
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end:
        count = 1 + (n * 7919) % 40
        ring.append(
            numbered(number, count), dts=n * FRAME, flags=VIDEO | (0 if n % 40 else KEY), arrival_us=n
        )
        number += count
        n += 1
        pump.run(n)


def read_segments(seconds: float) -> tuple[int, int, int]:
    arena = small_arena(process=0, hls_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=4096)
    slot, _ = arena.claim("live/x", 1)
    reader = HlsReader(arena, slot)
    numbers: dict[int, tuple[int, int]] = {}
    listed: dict[int, dict] = {}
    whole = gone = snapshots = 0
    with child(write_segments, arena, slot, seconds) as writer:
        wait_for(lambda: reader.snapshot()["segments"])
        newest = 0
        while writer.is_alive() or not snapshots:
            shown = reader.snapshot()
            snapshots += 1
            sequences = [s["sequence"] for s in shown["segments"]]
            assert sequences == list(range(shown["media_sequence"], shown["media_sequence"] + len(sequences)))
            assert not sequences or sequences[-1] >= newest
            newest = sequences[-1] if sequences else newest
            for a, b in pairwise(shown["segments"]):
                assert b["pos"] == a["pos"] + a["length"] or (
                    b["pos"] > a["pos"] and b["pos"] % (1 << 20) == 0
                )
            for s in shown["segments"]:
                assert listed.setdefault(s["sequence"], s) == s
                assert s["duration_s"] == pytest.approx(1.6)
                data = reader.read(s["sequence"])
                if data is None:
                    gone += 1
                    continue
                assert len(data) == s["length"]
                found = check(data)
                assert numbers.setdefault(s["sequence"], found) == found
                whole += 1
                if s["sequence"] - 1 in numbers:
                    assert numbers[s["sequence"] - 1][1] + 1 == found[0]
        writer.join()
        assert writer.exitcode == 0
    return whole, gone, snapshots


def test_what_is_read_is_whole():
    whole, gone, snapshots = read_segments(2)
    assert whole > 200
    assert gone > 0, "the writer was faster now and then"
    assert snapshots > 50


@pytest.mark.slow
def test_what_is_read_is_whole_for_long():
    whole, gone, _ = read_segments(30)
    assert whole > 3000
    assert gone > 0


def test_a_segment_that_is_yet_to_come_or_gone_is_none():
    stream = Stream(keep_segments=3)
    stream.tables()
    stream.play(10.2)
    first = stream.reader.snapshot()["media_sequence"]
    assert [stream.reader.segment(first + n) is None for n in range(-3, 5)] == [
        True, True, True, False, False, False, True, True,
    ]  # fmt: skip
    pos, length = stream.reader.segment(first)
    assert stream.reader.valid(pos)
    assert len(stream.reader.read(first)) == length
    assert stream.reader.read(first - 1) is None
    assert stream.reader.read(2**64 - 1) is None
