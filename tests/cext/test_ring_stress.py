"""One writer and eight readers in processes of their own: no torn record is ever handed out."""

from __future__ import annotations

import random
import time
import zlib
from contextlib import ExitStack

from flux.cext.arena import Arena
from flux.cext.ring import Ring

from tests.cext.arenas import FORK, beside, child, small_arena

TS = 1
KEY = 1
K_SECONDS = 60
READERS = 8
BLOCK = 1 << 20


def write(arena: Arena, slot: int, seconds: float) -> None:
    """Records of random sizes, now and then as large as the ring takes; dts is the CRC of each."""
    ring = Ring(beside(arena, 0), slot, TS)
    source = random.Random(1)
    block = source.randbytes(BLOCK)
    end = time.monotonic() + seconds
    n = 0
    while n % 64 or time.monotonic() < end:
        length = source.choice((0, 1, 188, 1316, source.randrange(4000), source.randrange(ring.size // 2)))
        at = source.randrange(BLOCK - length)
        data = block[at : at + length]
        ring.append(data, dts=zlib.crc32(data), pts=n, flags=KEY if n % 16 == 0 else 0)
        if n % 1024 == 0:
            ring.set_header(n.to_bytes(8, "big") * (1 + n // 1024 % 1000))
        n += 1
    ring.active = False


def read(arena: Arena, number: int, slot: int, results) -> None:
    """Follows the ring as a player does: lapped, it goes on at the newest keyframe."""
    ring = Ring(beside(arena, number), slot, TS)
    names = ("verified", "lapped", "torn", "spoiled", "disordered", "headers", "by_position")
    tally = dict.fromkeys(names, 0)
    rec = 0
    newest = -1
    while ring.active or rec < ring.commit_rec:
        if rec >= ring.commit_rec:
            time.sleep(0)
            continue
        record = ring.record(rec)
        if record is None:
            tally["lapped"] += 1
            key = ring.key_record()
            rec = ring.commit_rec if key is None else key["rec"]
            header = ring.header()
            tally["headers"] += 1
            tally["torn"] += header != header[:8] * (len(header) // 8)
            continue
        data = ring.read(record["pos"], record["length"])
        rec += 1
        if data is None:
            tally["spoiled"] += 1
            continue
        tally["torn"] += zlib.crc32(data) != record["dts_ticks"]
        tally["disordered"] += record["pts_ticks"] <= newest or record["pts_ticks"] != rec - 1
        newest = record["pts_ticks"]
        tally["verified"] += 1
        if rec % 16 == 0 and data:
            found = ring.find(record["pos"] + len(data) - 1)
            tally["by_position"] += found is not None
            tally["torn"] += found is not None and found != record
    results.put((number, tally))


def test_no_reader_is_ever_given_a_torn_record():
    arena = small_arena(process=7, processes=16, index_entries=512)
    slot, _ = arena.claim("live/x", 1)
    Ring(arena, slot, TS).active = True
    results = FORK.Queue()
    with ExitStack() as processes:
        readers = [processes.enter_context(child(read, arena, 1 + n, slot, results)) for n in range(READERS)]
        writer = processes.enter_context(child(write, arena, slot, K_SECONDS))
        tallies = dict(results.get(timeout=K_SECONDS + 30) for _ in readers)
        writer.join()
        assert writer.exitcode == 0
    assert len(tallies) == READERS
    for number, tally in tallies.items():
        assert tally["torn"] == 0, f"reader {number}: {tally}"
        assert tally["disordered"] == 0, f"reader {number}: {tally}"
        assert tally["verified"] > 200 * K_SECONDS, f"reader {number}: {tally}"
        assert tally["lapped"] > K_SECONDS, f"reader {number}: {tally}"
        assert tally["by_position"] > 0
    assert sum(tally["spoiled"] for tally in tallies.values()) > 0, "some were overtaken while they copied"
    assert Ring(arena, slot, TS).commit > 1000 * (64 << 10), "the ring went around often"
    print(
        f"{sum(tally['verified'] for tally in tallies.values())} records verified, "
        f"{sum(tally['lapped'] for tally in tallies.values())} times lapped, none torn"
    )
