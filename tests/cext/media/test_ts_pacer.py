"""An MPEG-TS file as a live source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flux.cext.media.ts import parse_packet
from flux.cext.media.ts_pacer import TsPacer
from hypothesis import given, settings
from hypothesis import strategies as st

import flux.demo
from tests.cext.media.material import AUDIO, TS, VIDEO, Stream, packets
from tests.cext.media.test_ts_ingest import pid_of, retimed, split

DEMO = Path(flux.demo.__file__).parent / "demo.ts"
PACKET = 188


def play(pacer: TsPacer, stream: Stream, until_us: int | None = None, passes: int = 1) -> list[int]:
    """Read at the times that the pacer asks for; gives them, from the first read on."""
    start = stream.now_us
    times = [0]
    while pacer.passes < passes and (until_us is None or times[-1] < until_us):
        due = pacer.read(stream.now_us, stream.ingest)
        if due is None:
            break
        assert due > stream.now_us
        stream.now_us = due
        times.append(due - start)
    return times


@pytest.mark.parametrize("name", ["small", "audio", "h265", "wrap"])
def test_sends_the_file_at_its_pace(clips, name):
    data = clips.data(name)
    pacer = TsPacer(data, loop=False)
    stream = Stream()
    times = play(pacer, stream)
    stream.end()
    assert stream.bytes_of(TS) == data
    assert pacer.read(stream.now_us, stream.ingest) is None
    assert times == sorted(times)
    assert times[-1] / 1e6 == pytest.approx(3, abs=0.4)
    # each frame comes as long before its time as the muxer meant
    frames = stream.records(TS, AUDIO if name == "audio" else VIDEO)
    lead = frames["dts_ticks"] / 0.09 - frames["arrival_us"]
    assert np.ptp(lead[:-1]) < (200_000 if name == "audio" else 100_000)


@pytest.mark.parametrize("source", ["demo", "small", "h265", "audio", "video", "wrap"])
def test_loops_without_a_seam(clips, source):
    """Nothing but the times of decoding tells where a pass begins, and these go on."""
    data = DEMO.read_bytes() if source == "demo" else clips.data(source)
    stream = Stream(frame_ring_bytes=16 << 20, wire_ring_bytes=16 << 20)
    pacer = TsPacer(data, loop=True)
    times = play(pacer, stream, passes=3)
    stream.end()
    assert stream.bytes_of(TS)[: len(data)] == data, "the first pass is the file as it is"
    assert stream.facts["ts_errors"] == stream.facts["discontinuities"] == 0
    assert stream.count("access_units_damaged") == stream.count("duplicate_pkts") == 0
    assert times[-1] == pytest.approx(3 * pacer.length_us, abs=20_000)
    assert max(np.diff(times)) < 150_000
    for kind in (VIDEO, AUDIO):
        dts = [d for _, d, _ in stream.frames(kind)]
        if not dts:
            continue
        steps = Counter(np.diff(dts).tolist())
        common = steps.most_common(1)[0][0]
        assert min(steps) >= common - 1
        assert max(steps) < 2 * common + 1200
        assert sum(steps.values()) + 1 == 3 * (len(dts) // 3)


def test_audio_and_video_stay_in_step(clips):
    stream = Stream()
    pacer = TsPacer(clips.data("small"), loop=True)
    play(pacer, stream, passes=3)
    stream.end()
    video = [p for p, _, _ in stream.frames(VIDEO)]
    audio = [p for p, _, _ in stream.frames(AUDIO)]
    n, m = len(video) // 3, len(audio) // 3
    assert len({video[i * n] - audio[i * m] for i in range(3)}) == 1


def test_clocks_go_on(clips):
    """PCR by exactly a pass, continuity counters by one a payload, for every PID of the file."""
    stream = Stream()
    data = clips.data("ac3")
    pacer = TsPacer(data, loop=True)
    play(pacer, stream, passes=3)
    stream.end()
    whole = split(stream.bytes_of(TS))
    count = len(data) // PACKET
    assert len(whole) == 3 * count
    first = [parse_packet(p) for p in whole[:count]]
    second = [parse_packet(p) for p in whole[count : 2 * count]]
    moved = {b["pcr"] - a["pcr"] for a, b in zip(first, second, strict=True) if a["pcr"] is not None}
    assert len(moved) == 1
    assert abs(moved.pop() / 27 - pacer.length_us) <= 1
    counters: dict[int, int] = {}
    for packet in whole:
        if packet[3] & 0x10:
            assert packet[3] & 0xF == (counters.get(pid_of(packet), (packet[3] & 0xF) - 1) + 1) & 0xF
            counters[pid_of(packet)] = packet[3] & 0xF


def test_clocks_wrap(clips):
    """A loop that runs over 2**33 ticks."""
    data = b"".join(retimed(split(clips.data("small")), (1 << 33) - 126_000 - 400_000))
    stream = Stream()
    play(TsPacer(data, loop=True), stream, passes=4)
    stream.end()
    assert stream.facts["discontinuities"] == 0
    dts = [d for _, d, _ in stream.frames(VIDEO)]
    assert dts == sorted(dts)
    assert dts[-1] > 1 << 33


def without_pcr(data: bytes) -> bytes:
    packets = []
    for packet in split(data):
        if packet[3] & 0x20 and packet[4] >= 7 and packet[5] & 0x10:
            packet = packet[:5] + bytes([packet[5] & ~0x10]) + b"\xff" * 6 + packet[12:]
        packets.append(packet)
    return b"".join(packets)


@pytest.mark.parametrize("name", ["small", "audio"])
def test_without_pcr_the_frames_tell_the_pace(clips, name):
    data = without_pcr(clips.data(name))
    stream = Stream()
    times = play(TsPacer(data, loop=False), stream)
    stream.end()
    assert stream.bytes_of(TS) == data
    assert times[-1] / 1e6 == pytest.approx(3, abs=0.4)


def test_a_jump_of_the_pcr_takes_no_time(clips):
    """Two recordings in one file: the second follows at once, not in hours."""
    data = clips.data("small") + clips.data("wrap")
    stream = Stream()
    times = play(TsPacer(data, loop=False), stream)
    assert times[-1] / 1e6 == pytest.approx(6, abs=0.5)
    assert max(np.diff(times)) < 200_000


def test_a_caller_who_is_late(clips):
    """Half a second is caught up with; after ten, what is due since is not sent all at once."""
    stream = Stream()
    pacer = TsPacer(clips.data("small"), loop=False)
    pacer.read(0, stream.ingest)
    due = pacer.read(500_000, stream.ingest)
    assert 500_000 < due < 600_000
    sent = stream.facts["bytes_in"]
    due = pacer.read(10_500_000, stream.ingest)
    assert 10_500_000 < due < 10_600_000
    assert stream.facts["bytes_in"] - sent < len(clips.data("small")) // 2


def test_passes_over_what_nobody_takes(clips):
    pacer = TsPacer(clips.data("small"), loop=False)
    assert pacer.read(0, None) is not None
    assert pacer.read(900_000, None) > 900_000


def test_payloads_are_of_seven_packets(clips):
    stream = Stream(wire_ring_bytes=1 << 20)
    pacer = TsPacer(clips.data("audio"), loop=False)
    taken = [stream.facts["bytes_in"]]
    now = 0
    while now is not None:
        now = pacer.read(now, stream.ingest)
        taken.append(stream.facts["bytes_in"])
    assert all(step % PACKET == 0 for step in np.diff(taken))
    assert taken[-1] == len(clips.data("audio"))


def m2ts(data: bytes) -> bytes:
    return b"".join(b"\0\0\0\0" + packet for packet in split(data))


def broken(clips, kind: str) -> bytes:
    data = clips.data("small")
    tables = b"".join(p for p in split(data) if pid_of(p) in (0, 4096))
    return {
        "empty": b"",
        "text": b"no transport stream, but a text of more than one packet's length " * 10,
        "short": data[:100],
        "m2ts": m2ts(data),
        "cut": data[: 188 * 50] + data[188 * 50 + 7 :],
        "no_tables": b"".join(p for p in split(data) if pid_of(p) not in (0, 4096)),
        "no_clock": tables,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "0 bytes are no MPEG-TS"),
        ("text", "sync byte 0x47 is missing at byte 0"),
        ("short", "100 bytes are no MPEG-TS"),
        ("m2ts", r"packets of 192 bytes \(M2TS\)"),
        ("cut", "from byte 9400 on"),
        ("no_tables", "no program"),
        ("no_clock", "no clock"),
    ],
)
def test_says_what_is_wrong(clips, kind, message):
    with pytest.raises(ValueError, match=message):
        TsPacer(broken(clips, kind), loop=True)


def test_a_last_packet_that_is_cut_off_is_left_out(clips):
    data = clips.data("audio")
    stream = Stream()
    play(TsPacer(data + data[:100], loop=False), stream)
    stream.end()
    assert stream.bytes_of(TS) == data


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 188 * 100 - 1), st.integers(0, 7)), min_size=1, max_size=40))
def test_survives_broken_files(flips):
    """Whatever the bytes behind the sync bytes say, it gives a ValueError or plays on."""
    data = bytearray(DEMO.read_bytes()[: 188 * 100])
    for at, bit in flips:
        if at % PACKET:
            data[at] ^= 1 << bit
    stream = Stream(frame_ring_bytes=1 << 20, wire_ring_bytes=1 << 20)
    try:
        pacer = TsPacer(bytes(data), loop=True)
    except ValueError:
        return
    for _ in range(200):
        stream.now_us = pacer.read(stream.now_us, stream.ingest)
    assert stream.ring(TS).commit


def test_frames_of_the_demo():
    """What flux serve --demo shows: 10 s of 640x360 with sound."""
    stream = Stream()
    play(TsPacer(DEMO.read_bytes(), loop=True), stream, passes=1)
    video, audio = stream.facts["tracks"]
    assert (video["codec"], video["width"], video["height"], video["fps"]) == ("H264", 640, 360, 25.0)
    assert (audio["codec"], audio["sample_rate"]) == ("AAC", 48000)
    assert len(packets(DEMO, "v")) == video["frames"] == 250
