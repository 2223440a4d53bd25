"""A publisher's MPEG-TS into RING_TS and RING_FRAME."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from flux.cext.media.ts import crc32
from flux.cext.media.ts_ingest import TsIngest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.media.material import (
    AUDIO,
    CONFIG,
    DAMAGED,
    DISCONTINUITY,
    FRAME,
    KEY,
    TS,
    VIDEO,
    Stream,
    packets,
)

PACKET = 188
COLUMNS = ["pos", "length", "flags", "dts_ticks", "pts_ticks", "track", "codec"]


def pid_of(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def split(data: bytes) -> list[bytes]:
    return [data[at : at + PACKET] for at in range(0, len(data), PACKET)]


def contents(stream: Stream) -> tuple:
    """All that a publisher left in its rings, but for the times of arrival."""
    return tuple(
        (stream.bytes_of(kind), stream.ring(kind).records()[COLUMNS].tolist(), stream.ring(kind).header())
        for kind in (FRAME, TS)
    )


@pytest.mark.parametrize(
    "name",
    ["h264", "h265", "small", "video", "audio", "interlaced", "slices", "open_gop", "ac3", "lengths"],
)
def test_takes_what_ffprobe_finds(clips, name):
    data = clips.data(name)
    stream = Stream().feed(data).end()
    assert stream.bytes_of(TS) == data
    video = packets(clips.path(name), "v")
    assert stream.frames(VIDEO) == video
    audio = [pts for pts, _, _ in packets(clips.path(name), "a")]
    found = [pts for pts, _, _ in stream.frames(AUDIO)]
    assert len(found) == len(audio)
    # a frame of 44.1 kHz is no whole number of ticks: ffmpeg adds up what it rounds
    assert max((abs(a - b) for a, b in zip(found, audio, strict=True)), default=0) <= (name == "h265")
    keys = [dts for _, dts, key in video if key]
    if video:
        assert len(keys) == 3
        assert stream.records(TS, KEY | VIDEO)["dts_ticks"].tolist() == keys
        assert not len(stream.records(TS, AUDIO))
    facts = stream.facts
    assert (facts["ts_errors"], facts["discontinuities"], facts["bytes_in"]) == (0, 0, len(data))
    assert stream.count("access_units_damaged") == stream.count("nals_broken") == 0
    assert stream.count("stuffing_distrusted") == stream.count("random_access_distrusted") == 0
    assert not len(stream.records(FRAME, DISCONTINUITY))
    assert not len(stream.records(TS, DISCONTINUITY))


def test_tells_the_tracks(clips):
    video, audio = Stream().feed(clips.data("h264")).facts["tracks"]
    assert video.pop("bytes") > 100_000
    assert video == {
        "codec": "H264",
        "kind": "video",
        "pid": 256,
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "profile": 100,
        "level": 31,
        "frames": 75,
        "keyframes": 3,
        "errors": 0,
    }
    assert (audio["codec"], audio["channels"], audio["sample_rate"]) == ("AAC", 1, 48000)
    assert audio["frames"] == 142
    tracks = Stream().feed(clips.data("ac3")).facts["tracks"]
    assert [(t["codec"], t["kind"]) for t in tracks] == [
        ("H264", "video"),
        ("AAC", "audio"),
        ("AC3", "audio"),
    ]
    assert tracks[2]["frames"] > 10
    h265 = Stream().feed(clips.data("h265")).facts["tracks"][0]
    assert (h265["codec"], h265["width"], h265["height"], h265["fps"]) == ("H265", 320, 180, 25.0)


def test_frames_hold_length_prefixed_nal_units(clips):
    stream = Stream().feed(clips.data("slices")).end()
    for record in stream.records(FRAME, VIDEO, without=CONFIG):
        data = stream.payload(record)
        types = []
        while data:
            (length,) = struct.unpack(">I", data[:4])
            types.append(data[4] & 0x1F)
            assert 0 < length <= len(data) - 4
            data = data[4 + length :]
        assert types.count(5 if record["flags"] & KEY else 1) == 4
        assert not {7, 8, 9, 12} & set(types)
    config = stream.payload(stream.records(FRAME, VIDEO | CONFIG)[0])
    assert config[0] == 1
    assert config[4] & 3 == 3
    assert stream.payload(stream.records(FRAME, AUDIO | CONFIG)[0]) == b"\x11\x88"
    assert stream.payload(stream.records(FRAME, AUDIO, without=CONFIG)[0])[:1] != b"\xff"


def test_each_video_pes_begins_a_record(clips):
    """And the record is there whole after the flush, with the PES's times."""
    data = clips.data("small")
    stream = Stream().feed(data).end()
    begun = stream.records(TS, VIDEO)
    assert begun["dts_ticks"].tolist() == [dts for _, dts, _ in packets(clips.path("small"), "v")]
    for record in begun:
        first = stream.payload(record, TS)[:PACKET]
        assert pid_of(first) == 256
        assert first[1] & 0x40
    assert all(record["length"] % PACKET == 0 for record in stream.ring(TS).records())
    assert stream.ring(TS).records()["length"].max() <= 65536


def test_frames_come_without_waiting_for_the_next(clips):
    """Once the muxer's stuffing is known, an access unit is there with its last packet."""
    data = split(clips.data("small"))
    starts = [n for n, p in enumerate(data) if pid_of(p) == 256 and p[1] & 0x40]
    stream = Stream()
    late = 0
    before = 0
    for n, start in enumerate(starts[1:], 1):
        stream.feed(b"".join(data[before:start]), batch=1)
        before = start
        late += len(stream.frames(VIDEO)) < n
    assert late <= 8 + 3, "the first eight, and those that end with a full packet"


def test_frames_of_bounded_pes_are_never_late(clips):
    data = split(clips.data("lengths"))
    starts = [n for n, p in enumerate(data) if pid_of(p) == 256 and p[1] & 0x40]
    stream = Stream()
    before = 0
    for n, start in enumerate(starts[1:], 1):
        stream.feed(b"".join(data[before:start]), batch=1)
        before = start
        assert len(stream.frames(VIDEO)) == n


def test_header_blobs(clips):
    stream = Stream().feed(clips.data("small")).end()
    tables = split(stream.ring(TS).header())
    assert [pid_of(p) for p in tables] == [0, 4096]
    assert tables[0] in split(clips.data("small")), "ffmpeg stuffs its tables in the same way"
    blob = stream.ring(FRAME).header()
    found = []
    while blob:
        track, codec, length, _ = struct.unpack("=IIII", blob[:16])
        found.append((track, codec, blob[16 : 16 + length]))
        blob = blob[16 + length :]
    configs = stream.records(FRAME, CONFIG)
    assert found == [
        (r["track"], r["codec"], stream.payload(r)) for r in sorted(configs, key=lambda r: r["track"])
    ]


def test_audio_alone_can_be_joined_every_half_second(clips):
    stream = Stream().feed(clips.data("audio")).end()
    for kind in (FRAME, TS):
        times = stream.records(kind, KEY | AUDIO)["dts_ticks"]
        assert len(times) >= 4
        assert np.diff(times.astype(np.int64)).min() >= 45000
        assert np.diff(times.astype(np.int64)).max() <= 80000


def test_video_that_is_promised_but_absent(clips):
    """The PMT names video, none comes: after three seconds the stream can be joined at audio."""
    data = [p for p in split(clips.data("small")) if pid_of(p) != 256]
    stream = Stream().feed(b"".join(data))
    assert not len(stream.records(FRAME, KEY))
    looped = b"".join(retimed(data, 270_000))
    stream.feed(looped).end()
    assert len(stream.records(FRAME, KEY | AUDIO))
    assert len(stream.records(TS, KEY | AUDIO))


def retimed(data: list[bytes], ticks: int) -> list[bytes]:
    """The packets with their PTS and DTS moved, modulo 2**33. Continuity counters stay."""
    moved = []
    for packet in data:
        packet = bytearray(packet)
        at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        if packet[1] & 0x40 and packet[at : at + 3] == b"\0\0\1":
            for place in range(9, 9 + 5 * bin(packet[at + 7] >> 6).count("1"), 5):
                stamp = packet[at + place : at + place + 5]
                value = (
                    (stamp[0] >> 1 & 7) << 30
                    | stamp[1] << 22
                    | stamp[2] >> 1 << 15
                    | stamp[3] << 7
                    | stamp[4] >> 1
                )
                value = (value + ticks) % (1 << 33)
                packet[at + place : at + place + 5] = bytes(
                    [
                        stamp[0] & 0xF0 | value >> 30 << 1 | 1,
                        value >> 22 & 0xFF,
                        (value >> 15 & 0x7F) << 1 | 1,
                        value >> 7 & 0xFF,
                        (value & 0x7F) << 1 | 1,
                    ]
                )
        moved.append(bytes(packet))
    return moved


def test_time_stamps_wrap(clips):
    stream = Stream().feed(clips.data("wrap")).end()
    raw = [dts for _, dts, _ in packets(clips.path("wrap"), "v")]
    times = [dts for _, dts, _ in stream.frames(VIDEO)]
    assert max(times) > 1 << 33 > min(times)
    assert np.diff(times).tolist() == [3600] * 74
    assert [t % (1 << 33) for t in times] == [t % (1 << 33) for t in raw]
    assert stream.facts["discontinuities"] == 0
    assert np.diff(stream.records(TS, VIDEO)["dts_ticks"].astype(np.int64)).tolist() == [3600] * 74


@pytest.mark.parametrize("ticks", [90_000 * 3600, -90_000 * 3600, 90_000 * 30, -50_000, 1 << 32])
def test_a_jump_of_the_clock(clips, ticks):
    """The timeline goes on by one frame, audio and video stay in step."""
    data = split(clips.data("small"))
    half = next(n for n, p in enumerate(data) if n > len(data) // 2 and pid_of(p) == 256 and p[1] & 0x40)
    whole = Stream().feed(b"".join(data)).end()
    stream = Stream().feed(b"".join(data[:half] + retimed(data[half:], ticks))).end()
    assert stream.facts["discontinuities"] == 1
    video, plain = stream.frames(VIDEO), whole.frames(VIDEO)
    assert np.diff([dts for _, dts, _ in video]).tolist() == [3600] * 74
    assert [pts - dts for pts, dts, _ in video] == [pts - dts for pts, dts, _ in plain]
    shift = video[-1][1] - plain[-1][1]
    assert abs(stream.frames(AUDIO)[-1][1] - whole.frames(AUDIO)[-1][1] - shift) < 1920
    assert len(stream.records(FRAME, DISCONTINUITY | VIDEO)) == len(stream.records(TS, DISCONTINUITY)) == 1
    assert len(stream.records(FRAME, DISCONTINUITY | AUDIO)) == 1


def test_audio_that_pauses(clips):
    """For longer than a jump of the clock would be: it comes back in step with the video."""
    data = split(clips.data("small"))
    silent = [p for p in data if pid_of(p) != 257]
    stream = Stream().feed(b"".join(data))
    for n in range(1, 6):
        stream.feed(b"".join(retimed(silent if n < 5 else data, n * 270_000)))
    stream.end()
    assert stream.facts["discontinuities"] == 0
    audio = [dts for _, dts, _ in stream.frames(AUDIO)]
    assert audio[len(audio) // 2] - audio[0] == 5 * 270_000


def test_a_publisher_that_comes_back(clips):
    """The rings go on, the timeline too, whatever the new clock says; the tracks are told anew."""
    stream = Stream().feed(clips.data("small")).end()
    last = max(stream.ring(FRAME).records()["dts_ticks"])
    before = {kind: stream.ring(kind).commit_rec for kind in (FRAME, TS)}
    stream.again()
    stream.feed(clips.data("small")).end()
    for kind in (FRAME, TS):
        records = stream.ring(kind).records()[before[kind] :]
        assert records[0]["dts_ticks"] > last if kind == TS else records["dts_ticks"].min() > last
    first = stream.records(TS)[before[TS]]
    assert first["flags"] & DISCONTINUITY
    assert (
        len(stream.records(FRAME, DISCONTINUITY | VIDEO))
        == len(stream.records(FRAME, DISCONTINUITY | AUDIO))
        == 1
    )
    assert len(stream.records(FRAME, CONFIG | VIDEO)) == 2
    facts = stream.facts
    assert (facts["publishers"], facts["tracks"][0]["frames"]) == (2, 75)
    assert stream.bytes_of(TS) == clips.data("small") * 2
    assert 45000 <= stream.frames(VIDEO)[75][1] - stream.frames(VIDEO)[74][1] < 90000


def test_rings_say_whether_they_are_filled(clips):
    stream = Stream()
    assert stream.ring(TS).active
    assert stream.ring(FRAME).active
    stream.feed(clips.data("audio")).end()
    assert not stream.ring(TS).active
    assert not stream.ring(FRAME).active
    commit = stream.ring(TS).commit
    stream.feed(clips.data("audio"))
    assert stream.ring(TS).commit == commit, "closed: nothing is taken any more"


def test_takes_nothing_for_a_stream_that_was_freed(clips):
    stream = Stream().feed(clips.data("audio")[: 188 * 100])
    stream.arena.retire(stream.slot)
    with pytest.raises(ValueError, match="free"):
        TsIngest(stream.arena, stream.slot, stream.arena.my_counters)
    stream.arena.claim("live/other", 1)
    stream.feed(clips.data("audio"))
    assert stream.ring(TS).read(stream.ring(TS).commit - 1, 1) is None


def test_new_tables(clips):
    """Other PIDs and another codec from one packet to the next: the tracks follow, nothing of TS is lost."""
    data = clips.data("small") + clips.data("other_pids")
    stream = Stream().feed(data).end()
    assert stream.bytes_of(TS) == data
    assert [(t["codec"], t["pid"]) for t in stream.facts["tracks"]] == [("H265", 600), ("AAC", 601)]
    frames = stream.records(FRAME, VIDEO, without=CONFIG)
    assert frames["codec"].tolist() == [1] * 75 + [2] * 75
    assert len(stream.records(FRAME, CONFIG | VIDEO)) == 2
    changed = stream.records(TS, CONFIG)
    assert len(changed) == 2
    blob = stream.ring(TS).header(int(changed[1]["pos"]) - 1), stream.ring(TS).header(int(changed[1]["pos"]))
    assert blob[0] != blob[1] == stream.ring(TS).header()


def test_tracks_that_go(clips):
    stream = Stream().feed(clips.data("ac3") + clips.data("audio")).end()
    assert [(t["codec"], t["pid"]) for t in stream.facts["tracks"]] == [("AAC", 256)]
    assert len(stream.records(TS, KEY | AUDIO)) >= 4, "without video it can be joined at audio"
    stream = Stream().feed(clips.data("ac3") + clips.data("other_pids")).end()
    assert [t["pid"] for t in stream.facts["tracks"]] == [600, 601]


@pytest.mark.parametrize("name", ["mpeg2", "mp2"])
def test_codecs_that_pass_through(clips, name):
    """No frames are made of them, but players of MPEG-TS can join."""
    stream = Stream().feed(clips.data(name)).end()
    assert stream.bytes_of(TS) == clips.data(name)
    assert not len(stream.records(FRAME))
    keys = stream.records(TS, KEY | AUDIO)["dts_ticks"].astype(np.int64)
    assert len(keys) >= 4
    assert np.diff(keys).max() < 80_000


def with_metadata(data: list[bytes], pid: int) -> list[bytes]:
    """A private stream (KLV, say) in the PMT, and a packet of it after each begin of a video PES."""
    added = []
    counter = 0
    for packet in data:
        if pid_of(packet) == 4096:
            length = (packet[6] & 0xF) << 8 | packet[7]
            section = bytearray(packet[5 : 8 + length - 4]) + bytes(
                [0x06, 0xE0 | pid >> 8, pid & 0xFF, 0xF0, 0]
            )
            section[1:3] = (0xB000 | len(section) + 1).to_bytes(2, "big")
            section += crc32(bytes(section)).to_bytes(4, "big")
            packet = (packet[:5] + bytes(section)).ljust(PACKET, b"\xff")
        added.append(packet)
        if pid_of(packet) == 256 and packet[1] & 0x40:
            body = b"\0\0\1\xbd" + (3 + 170).to_bytes(2, "big") + b"\x80\0\0" + bytes(170)
            head = bytes([0x47, 0x40 | pid >> 8, pid & 0xFF, 0x30 | counter, 183 - len(body), 0])
            added.append(head + b"\xff" * (182 - len(body)) + body)
            counter = (counter + 1) & 0xF
    return added


def test_any_other_pid_passes_through(clips):
    data = b"".join(with_metadata(split(clips.data("small")), 500))
    stream = Stream().feed(data).end()
    assert stream.bytes_of(TS) == data
    assert stream.frames(VIDEO) == packets(clips.path("small"), "v")
    extra = stream.facts["tracks"][2]
    assert (extra["codec"], extra["kind"], extra["pid"]) == ("data", "data", 500)
    assert (extra["frames"], extra["bytes"]) == (75, 75 * 170)
    assert stream.facts["ts_errors"] == 0


def test_parameter_sets_that_change(clips):
    data = clips.data("small") + clips.data("h264")
    stream = Stream().feed(data).end()
    configs = stream.records(FRAME, CONFIG | VIDEO)
    assert len(configs) == 2
    assert stream.count("config_changes") == 1
    assert stream.facts["tracks"][0]["width"] == 1280
    assert configs[1]["pos"] + configs[1]["length"] == next(
        r["pos"] for r in stream.records(FRAME, VIDEO | KEY) if r["pos"] > configs[1]["pos"]
    )
    assert len(stream.ring(FRAME).header(int(configs[1]["pos"]) - 1)) < len(stream.bytes_of(FRAME))


def test_lost_packets(clips):
    """What the packets held is missing and marked, the rest is as it was."""
    data = split(clips.data("small"))
    starts = [n for n, p in enumerate(data) if pid_of(p) == 256 and p[1] & 0x40]
    gone = starts[40] + 1
    assert pid_of(data[gone]) == 256
    assert not data[gone][1] & 0x40
    stream = Stream().feed(b"".join(data[:gone] + data[gone + 1 :])).end()
    assert stream.frames(VIDEO) == packets(clips.path("small"), "v")
    damaged = stream.records(FRAME, DAMAGED)
    assert [int(r["dts_ticks"]) for r in damaged] == [stream.frames(VIDEO)[40][1]]
    assert stream.facts["ts_errors"] == 1
    assert stream.facts["tracks"][0]["errors"] == 1
    assert stream.count("continuity_errors") == stream.count("access_units_damaged") == 1


def test_lost_audio(clips):
    """Frames with missing bytes are left out, the others keep their times."""
    data = split(clips.data("audio"))
    sound = [n for n, p in enumerate(data) if pid_of(p) == 256]
    stream = Stream().feed(b"".join(data[: sound[20]] + data[sound[21] :])).end()
    plain = [pts for pts, _, _ in packets(clips.path("audio"), "a")]
    times = [pts for pts, _, _ in stream.frames(AUDIO)]
    assert set(times) < set(plain)
    assert len(times) >= len(plain) - 17
    assert stream.facts["ts_errors"] == 1


def test_refresh_without_keyframes_can_be_joined(clips):
    """Gradual decoder refresh: no IDR after the first, but random_access_indicator."""
    stream = Stream().feed(clips.data("refresh")).end()
    keys = stream.records(TS, KEY)["dts_ticks"].astype(np.int64)
    assert len(keys) >= 3
    assert np.diff(keys).max() <= 12 * 90_000


class Short:
    """The first packets of a clip, and what they leave in the rings when they come at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        stream = Stream()
        stream.ingest.deliver(data, 0)
        self.at_once = contents(stream.end())


@pytest.fixture(scope="module")
def short(clips) -> Short:
    return Short(clips.data("small")[: 188 * 250])


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 188 * 250), max_size=60))
def test_any_split_gives_the_same_rings(short, cuts):
    stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=1024)
    before = 0
    for cut in [*sorted(cuts), len(short.data)]:
        stream.ingest.deliver(short.data[before:cut], 0)
        before = cut
    stream.end()
    assert contents(stream) == short.at_once


@settings(max_examples=40, deadline=None)
@given(piece=st.integers(1, 3000), batch=st.integers(1, 20))
def test_any_batching_gives_the_same_frames(short, piece, batch):
    stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=2048)
    stream.feed(short.data, piece, batch).end()
    assert contents(stream)[0] == short.at_once[0]
    assert stream.bytes_of(TS) == short.data
    begun = stream.records(TS, VIDEO)
    assert begun["dts_ticks"].tolist() == [r[3] for r in short.at_once[1][1] if r[2] & VIDEO]


JUNK = st.binary(min_size=1, max_size=600).map(lambda b: b.replace(b"\x47", b"\x00"))


@settings(max_examples=60, deadline=None)
@given(
    junk=st.lists(st.tuples(st.sampled_from(range(0, 250, 3)), JUNK), max_size=5), piece=st.integers(1, 2000)
)
def test_sync_is_found_again(short, junk, piece):
    """Junk costs no packet where three follow in a row."""
    data, before = b"", 0
    for at, what in sorted(junk):
        data += short.data[before * PACKET : at * PACKET] + what
        before = at
    data += short.data[before * PACKET :]
    stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=1024)
    stream.feed(data, piece).end()
    assert stream.bytes_of(TS) == short.data
    assert stream.count("ts_skipped_bytes") == sum(len(what) for _, what in junk)
    assert stream.facts["ts_errors"] == stream.count("ts_lost_sync")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_survives_anything(short, data):
    """Flipped bits, cut and repeated pieces: whole packets go to RING_TS, frames stay well formed."""
    broken = bytearray(short.data[: 188 * 120])
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(0, len(broken) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "repeat"]))
        if kind == "flip":
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut" and len(broken) > 2000:
            del broken[at : at + data.draw(st.integers(1, 400))]
        else:
            broken[at:at] = broken[at : at + 188]
    stream = Stream(flv=True, frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=1024)
    stream.feed(bytes(broken), data.draw(st.integers(1, 2000))).end()
    assert all(packet[0] == 0x47 for packet in split(stream.bytes_of(TS)))
    for record in stream.records(FRAME, VIDEO, without=CONFIG):
        frame = stream.payload(record)
        while frame:
            (length,) = struct.unpack(">I", frame[:4])
            assert length <= len(frame) - 4
            frame = frame[4 + length :]


@pytest.mark.parametrize("seed", range(20))
def test_survives_noise(seed):
    noise = np.random.default_rng(seed)
    data = noise.integers(0, 256, 188 * 500, dtype=np.uint8)
    data[::188] = 0x47
    data[1::188] &= 0x5F  # few PIDs
    data[2::188] &= 1
    stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20, index_entries=1024)
    stream.feed(data.tobytes()).end()
    assert stream.bytes_of(TS) == data.tobytes()


def test_small_rings_are_enough(clips):
    """Frames that a ring has no room for are counted; the rest goes on."""
    stream = Stream(frame_ring_bytes=64 << 10, wire_ring_bytes=64 << 10, index_entries=64)
    stream.feed(clips.data("h264")).end()
    assert stream.ring(TS).commit == len(clips.data("h264"))
    assert stream.facts["tracks"][0]["frames"] + stream.count("ring_refused") == 75


def test_only_so_many_pumps():
    stream = Stream()
    for _ in range(7):
        stream.ingest.add_pump(stream.pump)
    with pytest.raises(ValueError, match="at most 8 pumps"):
        stream.ingest.add_pump(stream.pump)
