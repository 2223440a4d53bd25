"""HLS segments of synthetic transport streams."""

from __future__ import annotations

from itertools import pairwise

import pytest
from flux.cext.counters import NAMES
from flux.cext.media.hls import HlsReader
from flux.cext.media.hls_pump import HlsPump
from flux.cext.media.ts import section_packets
from flux.cext.ring import Ring
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.arenas import beside, small_arena

KEY, VIDEO, AUDIO, CONFIG, DISCONTINUITY = 1, 2, 4, 8, 16
TS = 1
S = 90_000  # ticks a second
FRAME = 3600
PMT_PID = 0x1000
NUMBERS = {name: number for number, (name, _) in NAMES.items()}


def tables(version: int = 0) -> bytes:
    """PAT and PMT as packets."""
    pat = bytes.fromhex("00b00d0001c100000001f000") + bytes(4)
    pmt = bytes([2, 0xB0, 13, 0, 1, 0xC1 | version << 1, 0, 0, 0xE1, 0, 0xF0, 0]) + bytes(4)
    return section_packets(pat, 0) + section_packets(pmt, PMT_PID)


def packets(pid: int, count: int, seed: int) -> bytes:
    """TS packets that can be told apart."""
    head = bytes([0x47, pid >> 8, pid & 0xFF, 0x10])
    return b"".join(head + (seed << 16 | n).to_bytes(8, "big") + bytes(176) for n in range(count))


class Stream:
    """A stream in an arena, with a segmenter, fed record by record."""

    def __init__(
        self, *, segment_s=2.0, max_s=10.0, linger_us=0, always=True, arena=None, name="live/x", **kw
    ):
        pump = {key: kw.pop(key) for key in ("keep_segments", "wall_us") if key in kw}
        sizes = {"wire_ring_bytes": 1 << 20, "hls_bytes": 4 << 20, "index_entries": 4096, **kw}
        self.arena = arena or small_arena(**sizes)
        self.slot, _ = self.arena.claim(name, 1)
        self.ring = Ring(self.arena, self.slot, TS)
        self.pump = HlsPump(
            self.arena,
            self.slot,
            self.arena.my_counters,
            segment_ticks=int(segment_s * S),
            max_segment_ticks=int(max_s * S),
            linger_us=linger_us,
            always=always,
            **pump,
        )
        self.arena.go_live(self.slot, 1)
        self.reader = HlsReader(self.arena, self.slot)
        self.source = b""
        self.marks: list[int] = []  # where records begin in `source`
        self.dts = 0
        self.now_us = 1_000_000
        self.seed = 0

    def tables(self, version: int = 0) -> None:
        self.ring.set_header(tables(version))

    def record(self, data: bytes, flags: int, dts: int | None = None) -> int:
        self.marks.append(len(self.source))
        self.source += data
        dts = self.dts if dts is None else dts
        return self.ring.append(data, dts=dts, pts=dts, flags=flags, arrival_us=self.now_us)

    def frame(self, key=False, count=2, ticks=FRAME, flags=0, run=True, late_key=False) -> None:
        """One video frame of `count` packets, `ticks` after the one before."""
        self.seed += 1
        flags |= VIDEO | (KEY if key and not late_key else 0)
        rec = self.record(packets(0x100, count, self.seed), flags)
        if run:
            self.pump.run(self.now_us)
        if key and late_key:
            self.ring.mark(rec, KEY)
        self.dts += ticks
        self.now_us += ticks * 100 // 9

    def play(self, seconds: float, gop_s: float = 2.0, **kw) -> None:
        """Frames for so long, with a keyframe each `gop_s`."""
        gop = round(gop_s * S / FRAME)
        for n in range(round(seconds * S / FRAME)):
            self.frame(key=n % gop == 0, **kw)

    def segments(self) -> list[dict]:
        return self.reader.snapshot()["segments"]

    def durations(self) -> list[float]:
        return [round(s["duration_s"], 3) for s in self.segments()]

    def bytes(self) -> list[bytes]:
        return [self.reader.read(s["sequence"]) for s in self.segments()]

    def count(self, name: str) -> int:
        return int(self.arena.my_counters[NUMBERS[f"flux_media_hls_{name}_total"]])


def without_tables(segment: bytes, length: int = 376) -> bytes:
    assert segment[0] == 0x47
    assert segment[1] & 0x5F == 0x40
    assert segment[2] == 0, "a segment begins with a PAT"
    assert segment[189] & 0x1F == PMT_PID >> 8, "and a PMT"
    return segment[length:]


@pytest.mark.parametrize(
    ("gop_s", "segment_s", "max_s", "seconds", "durations", "forced"),
    [
        (2, 2, 10, 8.2, [2, 2, 2, 2], 0),
        (1, 2, 10, 6.2, [2, 2, 2], 0),
        (1.2, 2, 10, 7.4, [2.4, 2.4, 2.4], 0),
        (4, 2, 10, 8.2, [4, 4], 0),
        (1.992, 2, 10, 4.2, [2, 2], 0),  # times rounded: a little early counts as well
        (20, 2, 4, 20.2, [4, 4, 4, 4, 4], 4),  # too few keyframes
        (0.04, 0.2, 10, 1.2, [0.2] * 5, 0),  # nothing but keyframes
        (2, 2, 2, 6.2, [2, 2, 2], 0),
    ],
)
@pytest.mark.parametrize("late_key", [False, True])
def test_segments_are_cut_at_keyframes(gop_s, segment_s, max_s, seconds, durations, forced, late_key):
    stream = Stream(segment_s=segment_s, max_s=max_s)
    stream.tables()
    stream.play(seconds, gop_s, late_key=late_key)
    assert stream.durations() == durations
    assert stream.count("forced_cuts") == forced
    assert stream.count("segments") == len(durations)
    stream.pump.close(stream.now_us)
    assert b"".join(map(without_tables, stream.bytes())) == stream.source


def test_the_last_segment_comes_when_the_publisher_goes():
    stream = Stream()
    stream.tables()
    stream.play(3.0)
    assert stream.durations() == [2]
    assert stream.reader.active
    stream.pump.close(stream.now_us)
    assert stream.durations() == [2, 1]
    assert not stream.reader.active
    stream.frame(key=True)
    stream.pump.close(stream.now_us)
    assert stream.durations() == [2, 1], "a closed segmenter takes nothing more"


def test_each_segment_begins_with_tables_that_are_duplicates():
    stream = Stream()
    stream.tables()
    counter = 0
    for n in range(160):
        if n % 10 == 7:
            repeated = bytearray(tables())
            repeated[3] = repeated[191] = 0x10 | counter % 16
            counter += 1
            stream.record(bytes(repeated), 0)
        stream.frame(key=n % 50 == 0)
    segments = stream.bytes()
    assert [s[3] & 15 for s in segments] == [0, 4, 9]
    assert [s[191] & 15 for s in segments] == [0, 4, 9]
    joined = segments[0][376:] + b"".join(segments[1:])
    for pid in (0, PMT_PID):
        seen = [
            joined[at + 3] & 15
            for at in range(0, len(joined), 188)
            if int.from_bytes(joined[at + 1 : at + 3], "big") & 0x1FFF == pid
        ]
        assert {(b - a) % 16 for a, b in pairwise(seen)} == {0, 1}


def test_tables_in_the_stream_are_not_put_in_twice():
    stream = Stream()
    stream.tables()
    for n in range(120):
        if n % 50 == 0:
            stream.seed += 1
            stream.record(tables() + packets(0x100, 2, stream.seed), VIDEO | KEY)
            stream.pump.run(stream.now_us)
            stream.dts += FRAME
        else:
            stream.frame()
    assert b"".join(stream.bytes()) == stream.source[: stream.marks[100]]


def test_tables_of_several_packets_keep_their_order():
    stream = Stream()
    pmt = bytes([2, 0xB1, 0x90, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0]) + bytes(391)
    blob = section_packets(bytes.fromhex("00b00d0001c100000001f000") + bytes(4), 0) + section_packets(
        pmt, PMT_PID
    )
    assert len(blob) == 4 * 188
    stream.ring.set_header(blob)
    for n in range(110):
        if n == 20:
            repeated = bytearray(blob)
            for i in range(3):
                repeated[188 * (1 + i) + 3] = 0x10 | (7 + i)
            stream.record(bytes(repeated), 0)
        stream.frame(key=n % 50 == 0)
    first, second = stream.bytes()
    assert first[: len(blob)] == blob
    assert [second[188 * i + 3] & 15 for i in range(4)] == [0, 7, 8, 9]


def test_other_tables_are_a_discontinuity():
    stream = Stream()
    stream.tables()
    stream.play(4.0)
    stream.tables(version=1)
    stream.play(4.2)
    assert [s["discontinuity"] for s in stream.segments()] == [False, False, True, False]
    assert stream.bytes()[2][:376] == tables(1)


@pytest.mark.parametrize(("seconds", "durations"), [(3.2, [2, 1.2, 2]), (4.0, [2, 2, 2]), (1.0, [1, 2])])
def test_a_jump_of_time_is_a_discontinuity(seconds, durations):
    stream = Stream()
    stream.tables()
    stream.play(seconds)
    stream.frame(key=True, flags=DISCONTINUITY)
    for _ in range(49):
        stream.frame()
    stream.play(0.2)
    assert stream.durations() == durations
    jump = len(durations) - 1
    assert [s["discontinuity"] for s in stream.segments()] == [n == jump for n in range(jump + 1)]
    stream.pump.close(stream.now_us)
    assert b"".join(map(without_tables, stream.bytes())) == stream.source
    assert stream.count("discontinuities") == 1


@pytest.mark.parametrize("jump_s", [-20, -1.5, 11, 4000])
def test_a_jump_that_nobody_told_of(jump_s):
    stream = Stream()
    stream.tables()
    stream.dts = 30 * S
    stream.play(3)
    stream.dts += int(jump_s * S)
    stream.play(2.2)
    assert stream.durations() == [2, 1, 2]
    assert [s["discontinuity"] for s in stream.segments()] == [False, False, True]
    assert stream.reader.snapshot()["target_duration"] == 2


def test_dates_follow_durations_and_the_wall_clock():
    stream = Stream(wall_us=1_700_000_000_000_000)
    stream.tables()
    begun = 1_700_000_000_000_000 + stream.now_us
    stream.play(4.0)
    stream.now_us += 100_000  # the network stutters: no matter
    stream.play(2.0)
    stream.now_us += 2_000_000  # the source stood still
    stream.play(2.2)
    dates = [s["date_us"] - begun for s in stream.segments()]
    assert dates == [0, 2_000_000, 4_000_000, 8_100_000]


def test_it_begins_with_what_the_ring_holds():
    stream = Stream(always=False)
    stream.tables()
    stream.play(9.0)
    assert stream.reader.snapshot()["segments"] == []
    assert not stream.pump.running
    stream.reader.want(stream.now_us + 1_000_000)
    stream.pump.run(stream.now_us)
    assert stream.durations() == [2, 2, 2], "as many as a player wants before it starts"
    stream.pump.close(stream.now_us)
    assert b"".join(map(without_tables, stream.bytes())) == stream.source[stream.marks[50] :]


def test_it_does_not_begin_in_the_part_of_the_ring_that_is_soon_overwritten():
    stream = Stream(always=False, wire_ring_bytes=64 << 10)
    stream.tables()
    stream.play(9.0, count=2, run=False)  # 376 bytes a frame: half of the ring is 87 frames
    stream.reader.want(stream.now_us + 1_000_000)
    stream.pump.run(stream.now_us)
    assert stream.durations() == [2]


def test_without_a_keyframe_it_waits_for_one():
    stream = Stream()
    stream.tables()
    for _ in range(30):
        stream.frame()
    stream.play(4.2)
    assert stream.durations() == [2, 2]
    assert without_tables(stream.bytes()[0]) == stream.source[stream.marks[30] : stream.marks[80]]


def test_a_stream_that_has_no_keyframes_is_cut_all_the_same():
    stream = Stream(segment_s=1, max_s=3)
    stream.tables()
    for _ in range(300):
        stream.frame()
    assert stream.durations() == [3, 3]


def test_audio_alone_is_cut_as_well():
    stream = Stream()
    stream.tables()
    for _ in range(18):
        stream.seed += 1
        stream.record(packets(0x101, 5, stream.seed), AUDIO | KEY)
        stream.pump.run(stream.now_us)
        stream.dts += S // 2
        stream.now_us += 500_000
    assert stream.durations() == [2, 2, 2, 2]


def test_it_runs_while_it_is_wanted_and_for_a_time_after():
    stream = Stream(always=False, linger_us=3_000_000)
    stream.tables()
    stream.play(3.0)
    assert not stream.pump.running
    assert stream.reader.snapshot()["segments"] == []
    stream.reader.want(stream.now_us + 2_000_000)
    stream.reader.want(stream.now_us)  # another player: it never takes back
    stream.play(4.8)
    assert stream.pump.running
    first = stream.segments()
    assert len(first) == 3
    held = stream.arena.memory_bytes
    stream.play(2.0)
    assert not stream.pump.running
    assert not stream.reader.active
    assert stream.reader.snapshot()["segments"] == []
    assert stream.reader.read(first[0]["sequence"]) is None
    assert not any(stream.reader.valid(s["pos"]) for s in first), "readers in the middle of one are told"
    assert stream.arena.memory_bytes < held
    stream.reader.want(stream.now_us + 60_000_000)
    stream.play(3.0)
    again = stream.segments()
    assert again[0]["sequence"] > first[-1]["sequence"]
    assert again[0]["discontinuity"]
    assert stream.count("starts") == 2


def test_a_publisher_that_comes_back_goes_on_in_another_worker():
    stream = Stream()
    stream.tables()
    stream.play(5.0)
    stream.pump.close(stream.now_us)
    stream.arena.go_idle(stream.slot, stream.now_us)
    before = stream.segments()
    held = stream.bytes()
    other = Stream(arena=beside(stream.arena, 1))
    assert other.slot == stream.slot
    other.tables()
    other.dts = stream.dts + S
    other.now_us = stream.now_us + 1_000_000
    other.play(4.2)
    after = other.segments()
    assert [s["sequence"] for s in after] == [before[0]["sequence"] + n for n in range(5)]
    assert after[:3] == before
    assert [s["discontinuity"] for s in after] == [False, False, False, True, False]
    assert after[3]["pos"] == after[2]["pos"] + after[2]["length"]
    assert stream.bytes()[:3] == held, "a reader of the first worker sees both"
    other.pump.close(other.now_us)
    assert b"".join(map(without_tables, other.bytes()[3:])) == other.source, "nothing of the first publisher"


def test_a_segmenter_does_not_read_what_was_published_before_it():
    stream = Stream(always=False)
    stream.tables()
    stream.play(5.0)
    stream.arena.go_idle(stream.slot, stream.now_us)
    other = Stream(arena=stream.arena)
    other.tables()
    other.play(2.2)
    assert other.durations() == [2]
    assert without_tables(other.bytes()[0]) == other.source[: other.marks[50]]


def test_an_owner_that_died_in_a_change_holds_up_nobody():
    stream = Stream()
    stream.tables()
    stream.play(5.0)
    before = stream.segments()
    assert stream.arena.process_died(0, stream.now_us) == [stream.slot]
    assert stream.segments() == before
    other = Stream(arena=beside(stream.arena, 1))
    other.tables()
    other.play(2.2)
    assert [s["sequence"] for s in other.segments()] == [before[0]["sequence"] + n for n in range(3)]
    assert [s["discontinuity"] for s in other.segments()] == [False, False, True]


def test_only_so_many_segments_are_kept_and_dropped_discontinuities_are_counted():
    stream = Stream(keep_segments=3)
    stream.tables()
    for n in range(5):
        stream.frame(key=True, flags=DISCONTINUITY if n else 0)
        for _ in range(49):
            stream.frame()
    stream.frame(key=True)
    shown = stream.reader.snapshot()
    assert len(shown["segments"]) == 3
    assert shown["media_sequence"] == shown["segments"][0]["sequence"]
    assert shown["discontinuity_sequence"] == 1
    assert [s["discontinuity"] for s in shown["segments"]] == [True, True, True]


def test_segments_that_are_overwritten_drop_out():
    stream = Stream(hls_bytes=1 << 20, keep_segments=60)
    stream.tables()
    known: dict[int, tuple[int, bytes]] = {}
    for _ in range(20):
        stream.play(2.0, count=20)  # 188 kB a segment: five have room
        for s, data in zip(stream.segments(), stream.bytes(), strict=True):
            known[s["sequence"]] = s["pos"], data
        shown = {s["sequence"] for s in stream.segments()}
        for sequence, (pos, data) in known.items():
            assert stream.reader.valid(pos) == (sequence in shown)
            assert stream.reader.read(sequence) == (data if sequence in shown else None)
    assert len(shown) >= 4
    assert stream.count("overwritten") == len(known) - len(shown)
    assert b"".join(without_tables(data) for _, data in known.values()) == stream.source[: stream.marks[-50]]


def test_a_segment_never_fills_the_area():
    stream = Stream(hls_bytes=1 << 20)
    stream.tables()
    stream.play(8.0, gop_s=20, count=60)
    assert stream.count("forced_cuts") > 0
    assert all(s["length"] <= 1 << 18 for s in stream.segments())
    assert len(stream.segments()) >= 3
    ends = [s["pos"] + s["length"] for s in stream.segments()]
    assert [s["pos"] for s in stream.segments()[1:]] == ends[:-1]


def test_the_area_is_gone_around_early():
    """And what lies beyond is given back when the bitrate has fallen."""
    stream = Stream(keep_segments=3, hls_bytes=32 << 20)
    stream.tables()
    known: dict[int, tuple[int, bytes]] = {}
    held = []
    for count in [40] * 12 + [4] * 12:
        stream.play(2.0, count=count)
        held.append(stream.arena.memory_bytes)
        for s, data in zip(stream.segments(), stream.bytes(), strict=True):
            assert known.setdefault(s["sequence"], (s["pos"], data)) == (s["pos"], data)
        shown = {s["sequence"] for s in stream.segments()}
        assert all(stream.reader.valid(pos) == (n in shown) for n, (pos, _) in known.items())
    assert len(known) == 24 - 1
    assert b"".join(without_tables(data) for _, data in known.values()) == stream.source[: stream.marks[-50]]
    places = [pos for pos, _ in known.values()]
    assert places == sorted(places)
    assert [pos for pos in places if pos and pos % (32 << 20) == 0], "it did go around"
    assert max(pos % (32 << 20) for pos in places) < 7 * 377_000
    assert held[-1] < held[11] / 2
    assert stream.count("overwritten") == 0


@pytest.mark.parametrize(
    ("bitrate", "segment_s"), [(100_000, 2), (2_000_000, 2), (50_000_000, 2), (50_000_000, 10)]
)
def test_memory_is_that_of_the_segments(bitrate, segment_s):
    """Three minutes; a second of 50 Mbit/s is 6.25 MB, so the last goes around its 512 MiB twice."""
    stream = Stream(
        segment_s=segment_s, max_s=20, wire_ring_bytes=8 << 20, hls_bytes=512 << 20, keep_segments=6
    )
    stream.tables()
    count = max(1, bitrate // 8 // 25 // 188)
    idle = stream.arena.memory_bytes
    data = packets(0x100, count, 1)
    held = []
    for n in range(180 * 25):
        for at in range(0, len(data), 65424):
            flags = (VIDEO | (0 if n % 50 else KEY)) if at == 0 else 0
            stream.ring.append(data[at : at + 65424], dts=n * FRAME, flags=flags, arrival_us=n * 40_000)
        stream.pump.run(n * 40_000)
        if n % 250 == 249:
            held.append(stream.arena.memory_bytes - idle)
    kept = sum(s["length"] for s in stream.segments())
    assert len(stream.segments()) == 6
    at_hand = segment_s * bitrate / 8
    assert max(held) < kept + 3 * at_hand + (9 << 20), "the ring, the segments, and three more at most"


def test_a_lapped_segmenter_goes_on_at_a_keyframe():
    stream = Stream(wire_ring_bytes=64 << 10)
    stream.tables()
    stream.play(3.0)
    lost_from = stream.marks[-1]
    stream.play(20.0, run=False)
    stream.play(4.2)
    assert stream.count("lapped") == 1
    segments = stream.segments()
    assert [s["discontinuity"] for s in segments] == [False, False, True] + [False] * (len(segments) - 3)
    assert b"".join(map(without_tables, stream.bytes()[:2])) == stream.source[:lost_from]
    for data in map(without_tables, stream.bytes()):
        assert data in stream.source


def test_a_freed_stream_has_no_segments():
    stream = Stream()
    stream.tables()
    stream.play(5.0)
    old = stream.segments()
    stream.arena.go_idle(stream.slot, stream.now_us)
    stream.arena.retire(stream.slot)
    assert not stream.reader.alive
    assert stream.reader.snapshot() is None
    assert stream.reader.read(old[0]["sequence"]) is None
    assert not any(stream.reader.valid(s["pos"]) for s in old)
    stream.pump.run(stream.now_us)
    stream.pump.close(stream.now_us)
    with pytest.raises(ValueError, match="free"):
        HlsReader(stream.arena, stream.slot)
    other = Stream(arena=stream.arena, name="live/other")
    assert other.slot == stream.slot
    other.tables()
    other.play(5.0)
    assert stream.reader.snapshot() is None, "another stream's segments are not shown to the old one's player"
    assert not any(stream.reader.valid(s["pos"]) for s in old)
    stream.reader.want(10**15)
    assert [s["discontinuity"] for s in other.segments()] == [False, False]
    assert all(other.reader.valid(s["pos"]) for s in other.segments())
    assert other.segments()[0]["sequence"] >= old[0]["sequence"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"segment_ticks": 0, "max_segment_ticks": 10},
        {"segment_ticks": 20, "max_segment_ticks": 10},
        {"segment_ticks": 1, "max_segment_ticks": 10, "keep_segments": 2},
        {"segment_ticks": 1, "max_segment_ticks": 10, "keep_segments": 61},
    ],
)
def test_numbers_out_of_bounds_are_refused(wrong):
    arena = small_arena()
    slot, _ = arena.claim("live/x", 1)
    with pytest.raises(ValueError, match="segment"):
        HlsPump(arena, slot, arena.my_counters, **wrong)


FRAMES = st.lists(
    st.tuples(
        st.integers(1, 30),  # packets
        st.sampled_from([0, 0, 0, 1, 1, 2]),  # a keyframe? known at once, or late
        st.sampled_from([FRAME, FRAME, 1, 3 * FRAME, 40 * FRAME]),  # ticks to the next
        st.integers(0, 20),  # 20: time jumps
        st.integers(0, 3),  # records that go on with it
        st.booleans(),  # the segmenter runs after it
        st.booleans(),  # tables pass before it
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.sampled_from([0.2, 1, 2]), st.sampled_from([2, 5]))
def test_segments_are_the_source_cut_in_pieces(frames, segment_s, max_s):
    stream = Stream(segment_s=segment_s, max_s=max_s, keep_segments=60, hls_bytes=1 << 20)
    stream.tables()
    stream.pump.run(stream.now_us)
    known: dict[int, dict] = {}
    begun = None

    def look():
        shown = stream.reader.snapshot()
        sequences = [s["sequence"] for s in shown["segments"]]
        assert sequences == list(range(shown["media_sequence"], shown["media_sequence"] + len(sequences)))
        for s in shown["segments"]:
            data = stream.reader.read(s["sequence"])
            assert len(data) == s["length"]
            assert s["duration_s"] > 0
            entry = {**s, "data": data}
            assert known.setdefault(s["sequence"], entry) == entry, "a segment never changes"
        assert sequences == sorted(known), "none is lost"

    for count, key, ticks, jump, more, run, again in frames:
        if again:
            stream.record(tables(), 0)
        if begun is None and key:
            begun = len(stream.source)
        jumped = jump == 20
        stream.frame(bool(key), count, ticks, DISCONTINUITY if jumped else 0, run=False, late_key=key == 2)
        for _ in range(more):
            stream.seed += 1
            stream.record(packets(0x101, 3, stream.seed), 0, stream.dts - ticks)
        if run:
            stream.pump.run(stream.now_us)
            look()
    stream.pump.run(stream.now_us)
    look()
    stream.pump.close(stream.now_us)
    look()
    if known:
        joined = b"".join(without_tables(known[n]["data"]) for n in sorted(known))
        assert stream.source.endswith(joined)
        if begun is not None:
            assert len(joined) >= len(stream.source) - begun
        places = [(known[n]["pos"], known[n]["length"]) for n in sorted(known)]
        assert all(a + n == b for (a, n), (b, _) in pairwise(places))
    assert stream.count("lapped") == 0
