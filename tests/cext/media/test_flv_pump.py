"""RING_FRAME → RING_FLV."""

from __future__ import annotations

import random
import subprocess

import numpy as np
import pytest
from flux.cext.media import flv
from flux.cext.ring import Ring

from tests.cext.arenas import beside
from tests.cext.media.material import (
    AUDIO,
    CONFIG,
    DISCONTINUITY,
    FLV,
    FRAME,
    KEY,
    VIDEO,
    Stream,
    hashes,
    packets,
)
from tests.cext.media.test_ts_ingest import pid_of, retimed, split

START = b"\0\0\0\1"


def tags_of(stream: Stream) -> list[flv.Tag]:
    return flv.read(stream.flv_file())


def annexb(tags: list[flv.Tag]) -> bytes:
    """The H.265 of Enhanced FLV as a byte stream: the ffmpeg of Debian 12 does not read the tags."""
    out = bytearray()
    for frame in (tag.frame() for tag in tags if tag.type == flv.VIDEO):
        data = frame.data
        if frame.config:
            at = 23
            for _ in range(data[22]):
                at += 3
                for _ in range(int.from_bytes(data[at - 2 : at], "big")):
                    length = int.from_bytes(data[at : at + 2], "big")
                    out += START + data[at + 2 : at + 2 + length]
                    at += 2 + length
            continue
        while data:
            length = int.from_bytes(data[:4], "big")
            out += START + data[4 : 4 + length]
            data = data[4 + length :]
    return bytes(out)


@pytest.mark.parametrize("name", ["h264", "video", "slices", "interlaced", "open_gop"])
def test_decodes_as_the_source(clips, tmp_path, name):
    stream = Stream(flv=True).feed(clips.data(name)).end()
    path = tmp_path / "out.flv"
    path.write_bytes(stream.flv_file())
    assert hashes(path, "0:v") == hashes(clips.path(name), "0:v")
    if name in ("h264", "slices"):
        assert hashes(path, "0:a") == hashes(clips.path(name), "0:a")
    assert not stream.count("flv_backward") + stream.count("flv_undecodable") + stream.count("flv_lapped")


def test_h265_decodes_as_the_source(clips, tmp_path):
    stream = Stream(flv=True).feed(clips.data("h265")).end()
    path = tmp_path / "out.hevc"
    path.write_bytes(annexb(tags_of(stream)))
    assert hashes(path, "0:v") == hashes(clips.path("h265"), "0:v")
    kinds = {tag.data[0] & 0xF for tag in tags_of(stream) if tag.type == flv.VIDEO}
    assert kinds == {0, 1, 3}, "sequence start, coded frames, coded frames without composition time"


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_times(clips, name):
    """dts and pts in whole ms, audio and video in the order of dts within what came at once."""
    stream = Stream(flv=True).feed(clips.data(name), batch=10_000).end()
    tags = tags_of(stream)
    frames = [tag.frame() for tag in tags if tag.type != flv.SCRIPT]
    video = [f for f in frames if f.codec != "AAC" and not f.config]
    expected = packets(clips.path(name), "v")
    key = next(n for n, (_, _, key) in reversed(list(enumerate(expected))) if key)
    assert [(f.pts_ms, f.dts_ms, f.key) for f in video] == [
        (p // 90, d // 90, k) for p, d, k in expected[key:]
    ]
    times = [f.dts_ms for f in frames if not f.config]
    assert times == sorted(times)


def test_records(clips):
    """One tag a record; the flags, times and arrivals are the frames'."""
    stream = Stream(flv=True).feed(clips.data("h264")).end()
    frames = stream.records(FRAME, without=CONFIG)
    records = stream.ring(FLV).records()
    assert sorted(records["dts_ticks"]) == sorted(frames["dts_ticks"])
    assert records[records["flags"] & KEY > 0]["dts_ticks"].tolist() == [
        d for _, d, key in packets(clips.path("h264"), "v") if key
    ]
    for record in records[:50]:
        (tag,) = flv.read(flv.file_header(audio=True, video=True) + stream.payload(record, FLV))
        assert tag.timestamp_ms == record["dts_ticks"] // 90
        assert (tag.type == flv.VIDEO) == bool(record["flags"] & VIDEO)
    assert set(records["arrival_us"]) <= set(frames["arrival_us"])


def test_header(clips):
    stream = Stream(flv=True).feed(clips.data("h264")).end()
    reader = flv.Reader()
    script, *configs = reader.feed(stream.ring(FLV).header())
    assert (reader.has_audio, reader.has_video) == (True, True)
    name, values = script.values()
    assert name == "onMetaData"
    assert (values["width"], values["height"], values["framerate"]) == (1280, 720, 25)
    assert (values["audiosamplerate"], values["stereo"]) == (48000, False)
    assert [(c.frame().codec, c.frame().config) for c in configs] == [("H264", True), ("AAC", True)]


@pytest.mark.parametrize(("name", "flags"), [("audio", (True, False)), ("video", (False, True))])
def test_one_track_only(clips, name, flags):
    stream = Stream(flv=True).feed(clips.data(name), batch=1).end()
    reader = flv.Reader()
    reader.feed(stream.flv_file())
    assert (reader.has_audio, reader.has_video) == flags
    keys = stream.records(FLV, KEY)
    assert len(keys) >= 3
    assert keys["dts_ticks"].tolist() == stream.records(FRAME, KEY)["dts_ticks"].tolist()
    if name == "audio":
        assert np.diff(keys["dts_ticks"].astype(np.int64)).max() < 60_000


@pytest.mark.parametrize("missing", [256, 257])
def test_a_track_that_the_pmt_names_but_never_comes(clips, missing):
    """It is waited for, a second of the other or three; then the other plays alone."""
    data = [p for p in split(clips.data("small")) if pid_of(p) != missing]
    stream = Stream(flv=True).feed(b"".join(data), batch=1)
    if missing == 256:
        assert not stream.pump.running
        stream.feed(b"".join(retimed(data, 270_000)), batch=1)
    assert stream.pump.running
    kind = flv.AUDIO if missing == 256 else flv.VIDEO
    assert {tag.type for tag in tags_of(stream)} == {flv.SCRIPT, kind}
    reader = flv.Reader()
    reader.feed(stream.ring(FLV).header())
    assert (reader.has_audio, reader.has_video) == (missing == 256, missing == 257)


def test_a_track_that_comes_late(clips):
    """Players that are there get its sequence header between the tags, later ones at the beginning."""
    data = split(clips.data("small"))
    without = [p for p in data if pid_of(p) != 257]
    stream = Stream(flv=True).feed(b"".join(without), batch=1)
    early = stream.ring(FLV).commit
    stream.feed(b"".join(retimed(data, 270_000)), batch=1).end()
    (config,) = stream.records(FLV, CONFIG)
    assert config["flags"] == AUDIO | CONFIG
    assert config["pos"] >= early
    before = stream.ring(FLV).header(int(config["pos"]) - 1)
    after = stream.ring(FLV).header(int(config["pos"]))
    assert (before[4], after[4]) == (1, 5)


def test_starts_with_the_newest_group_of_pictures(clips):
    """When it is wanted only later, it begins at the newest keyframe, at once."""
    stream = Stream().feed(clips.data("h264"))
    assert not stream.ring(FLV).commit
    stream.arena.want(stream.slot, FLV, True)
    stream.flush()
    records = stream.ring(FLV).records()
    key = packets(clips.path("h264"), "v")[50]
    first = next(r for r in records if r["flags"] & VIDEO)
    assert (first["dts_ticks"], first["flags"] & KEY) == (key[1], KEY)
    assert len(stream.records(FLV, VIDEO)) == 25
    assert stream.ring(FLV).active


def test_each_frame_is_there_after_its_flush(clips):
    """Nothing is held back: with each flush FLV has all the frames that the frame ring has."""
    stream = Stream(flv=True)
    data = clips.data("small")
    started = False
    for at in range(0, len(data), 1316):
        stream.ingest.deliver(data[at : at + 1316], stream.now_us)
        stream.flush()
        started = started or stream.pump.running
        if started:
            for kind in (VIDEO, AUDIO):
                frames = stream.records(FRAME, kind, without=CONFIG)
                tags = stream.records(FLV, kind, without=CONFIG)
                assert not len(frames) or tags[-1]["dts_ticks"] == frames[-1]["dts_ticks"]
    assert started


def test_stops_when_nobody_wants_it(clips):
    data = clips.data("h264")
    half = len(data) // 376 * 188
    stream = Stream(flv=True, linger_us=10_000).feed(data[:half])
    before = stream.ring(FLV)
    position = before.commit
    stream.arena.want(stream.slot, FLV, False)
    stream.flush()
    assert stream.pump.running, "it lingers"
    stream.now_us += 20_000
    stream.flush()
    assert not stream.pump.running
    assert not before.active
    assert before.read(position - 1, 1) is None, "the ring is empty, readers notice"
    stream.arena.want(stream.slot, FLV, True)
    stream.feed(data[half:]).end()
    records = stream.records(FLV)
    assert records[records["length"] > 0][0]["flags"] & KEY
    assert stream.count("flv_starts") == 2


def test_rings_doorbells_once_a_flush(clips):
    stream = Stream(flv=True)
    other = beside(stream.arena, 3)
    data = clips.data("small")
    stream.feed(data[: len(data) // 2 // 188 * 188])
    subscribe(stream, other, FLV)
    stream.feed(data[len(data) // 2 // 188 * 188 :], batch=10_000)
    with open(other.doorbell_fd, "rb", buffering=0, closefd=False) as bell:
        assert int.from_bytes(bell.read(8), "little") == 1


def subscribe(stream: Stream, process, kind: int) -> None:
    """As a process with players does, through the arena's memory."""
    ring = Ring(process, stream.slot, kind)
    ring.subscribe(True)


def test_new_parameter_sets(clips, tmp_path):
    """A new sequence header goes before the frame that needs it, and into the header."""
    data = clips.data("small") + clips.data("h264")
    stream = Stream(flv=True).feed(data).end()
    (config,) = stream.records(FLV, CONFIG)
    records = stream.ring(FLV).records().tolist()
    following = [r for r in records if r[0] > config["pos"] and r[2] & VIDEO]
    assert following[0][2] & KEY
    before = stream.ring(FLV).header(int(config["pos"]) - 1)
    after = stream.ring(FLV).header(int(config["pos"]))
    assert flv.read(before)[0].values()[1]["width"] == 320
    assert flv.read(after)[0].values()[1]["width"] == 1280
    path = tmp_path / "out.flv"
    path.write_bytes(stream.flv_file())
    assert len(hashes(path, "0:v")) == 150


def test_a_publisher_that_comes_back(clips, tmp_path):
    """In another worker: players stay; no tag twice, none missing, time stamps go on."""
    stream = Stream(flv=True).feed(clips.data("h264")).end()
    assert not stream.ring(FLV).active
    tail = stream.ring(FLV).commit
    stream.arena = beside(stream.arena, 5)
    stream.again()
    stream.feed(clips.data("h264")).end()
    tags = tags_of(stream)
    for kind, name in ((flv.VIDEO, "v"), (flv.AUDIO, "a")):
        times = [tag.timestamp_ms for tag in tags if tag.type == kind and not tag.frame().config]
        assert times == sorted(set(times))
        assert len(times) == 2 * len(packets(clips.path("h264"), name))
    told = stream.records(FLV, CONFIG)
    assert told["flags"].tolist() == [VIDEO | CONFIG, AUDIO | CONFIG], "for the players that stayed"
    assert told[0]["pos"] == tail
    assert len(stream.records(FLV, DISCONTINUITY | VIDEO)) == 1
    path = tmp_path / "out.flv"
    path.write_bytes(stream.flv_file())
    assert hashes(path, "0:v") == hashes(clips.path("h264"), "0:v") * 2


def test_a_worker_that_dies(clips):
    """Frames that it committed but did not mux any more are in FLV after all, and once."""
    data = clips.data("h264")
    cut = len(data) // 2 // 188 * 188
    stream = Stream(flv=True).feed(data[:cut], batch=1)
    muxed = len(stream.records(FLV, VIDEO, without=CONFIG))
    stream.ingest.deliver(data[cut : cut + 188 * 1000], stream.now_us)
    left = stream.ring(FRAME).commit_rec
    framed = len(stream.records(FRAME, VIDEO, without=CONFIG))
    assert framed > muxed + 5
    other = beside(stream.arena, 5)
    other.want(stream.slot, FLV, True)
    other.process_died(0, stream.now_us)
    stream.arena = other
    stream.again()
    stream.feed(data, batch=1).end()
    for kind in (VIDEO, AUDIO):
        frames = stream.records(FRAME, kind, without=CONFIG)["dts_ticks"].tolist()
        assert stream.records(FLV, kind, without=CONFIG)["dts_ticks"].tolist() == frames
    assert left < stream.ring(FRAME).commit_rec
    assert stream.count("flv_undecodable") == 0


def test_a_publisher_that_comes_back_in_the_middle_of_a_group(clips):
    """What can't be decoded before its first keyframe is left out and counted."""
    data = split(clips.data("h264"))
    starts = [n for n, p in enumerate(data) if pid_of(p) == 256 and p[1] & 0x40]
    stream = Stream(flv=True).feed(b"".join(data)).end()
    stream.again()
    tables = data[:3]
    # the parameter sets come with a keyframe only: the frames before it are refused by the ingest
    stream.feed(b"".join(tables + data[starts[10] :])).end()
    assert stream.count("access_units_without_config") == 15
    frames = stream.records(FLV, VIDEO, without=CONFIG)
    resumed = next(r for r in frames if r["flags"] & DISCONTINUITY)
    assert resumed["flags"] & KEY


def test_another_codec(clips):
    data = clips.data("small") + clips.data("other_pids")
    stream = Stream(flv=True).feed(data).end()
    frames = [tag.frame() for tag in tags_of(stream) if tag.type == flv.VIDEO]
    assert [f.codec for f in frames if f.config] == ["H264", "H265"]
    assert [f.codec for f in frames if not f.config] == ["H264"] * 75 + ["H265"] * 75


def test_a_jump_of_the_clock(clips):
    data = split(clips.data("small"))
    half = next(n for n, p in enumerate(data) if n > len(data) // 2 and pid_of(p) == 256 and p[1] & 0x40)
    moved = data[:half] + retimed(data[half:], -3_000_000)
    stream = Stream(flv=True).feed(b"".join(moved)).end()
    for kind in (flv.VIDEO, flv.AUDIO):
        times = [t.timestamp_ms for t in tags_of(stream) if t.type == kind and not t.frame().config]
        assert times == sorted(times)
        assert max(np.diff(times)) < 100


def test_a_timeline_that_begins_below_zero(clips):
    """The clock wraps between the first audio and the first video: no tag gets a time stamp of 49 days."""
    data = retimed(split(clips.data("small")), -131_000)
    first, second = [n for n, p in enumerate(data) if pid_of(p) == 257 and p[1] & 0x40][:2]
    sound = [n for n in range(first, second) if pid_of(data[n]) == 257]
    order = [0, 1, 2, *sound, *(n for n in range(3, len(data)) if n not in sound)]
    data = [data[n] for n in order]
    stream = Stream(flv=True).feed(b"".join(data)).end()
    times = [t.timestamp_ms for t in tags_of(stream)]
    assert max(times) < 4000
    video = [t.frame() for t in tags_of(stream) if t.type == flv.VIDEO and not t.frame().config]
    assert [f.pts_ms for f in video] == [p // 90 for p, _, _ in stream.frames(VIDEO)]
    assert stream.frames(VIDEO)[0][1] == -5000


def test_overtaken_by_its_frame_ring(clips):
    """A batch larger than the frame ring: it goes on at the newest keyframe, and that is counted."""
    stream = Stream(flv=True, frame_ring_bytes=1 << 19)
    data = clips.data("h264")
    stream.feed(data[: 188 * 1000])
    assert stream.pump.running
    for at in range(188 * 1000, len(data), 1316):
        stream.ingest.deliver(data[at : at + 1316], stream.now_us)
    stream.flush()
    stream.end()
    assert stream.count("flv_lapped") == 1
    video = stream.records(FLV, VIDEO, without=CONFIG)
    jump = int(np.argmax(np.diff(video["dts_ticks"].astype(np.int64)))) + 1
    assert video[jump]["flags"] & KEY


def test_lost_packets(clips, tmp_path):
    """Damaged frames are kept: a decoder gets every frame but those that are gone altogether."""
    lucky = random.Random(5)
    data = [p for p in split(clips.data("h264")) if pid_of(p) != 256 or lucky.random() > 0.01]
    stream = Stream(flv=True).feed(b"".join(data)).end()
    assert stream.count("access_units_damaged") > 20
    path = tmp_path / "out.flv"
    path.write_bytes(stream.flv_file())
    done = subprocess.run(
        ["ffmpeg", "-v", "quiet", "-i", str(path), "-map", "0:v", "-f", "null", "-"], check=False, timeout=60
    )
    assert done.returncode == 0
    assert len(stream.records(FLV, VIDEO, without=CONFIG)) >= 65


def test_small_rings(clips):
    """Tags that the ring has no room for are counted, the rest goes on."""
    stream = Stream(flv=True, wire_ring_bytes=64 << 10, frame_ring_bytes=1 << 20)
    stream.feed(clips.data("noisy"), batch=1).end()
    refused = stream.count("ring_refused")
    assert refused
    assert stream.count("flv_tags") + refused == len(stream.records(FRAME, without=CONFIG))


def test_a_player_of_the_real_thing(clips, tmp_path):
    """ffprobe finds the same times and keyframes in the FLV as in the source."""
    stream = Stream(flv=True).feed(clips.data("h264")).end()
    path = tmp_path / "out.flv"
    path.write_bytes(stream.flv_file())
    found = packets(path, "v")
    assert found == [(p // 90, d // 90, k) for p, d, k in packets(clips.path("h264"), "v")]
    assert "h264" in ffmpeg_streams(path)


def ffmpeg_streams(path) -> str:
    command = [
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name,width,height",
        "-of",
        "csv",
        str(path),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_needs_a_slot():
    stream = Stream()
    stream.arena.retire(stream.slot)
    with pytest.raises(ValueError, match="free"):
        type(stream.pump)(stream.arena, stream.slot, stream.arena.my_counters, linger_us=0)
