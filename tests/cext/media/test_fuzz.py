"""Broken input for each parser: nothing crashes, and what comes out stays within its bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from flux.cext.media import aac, decoder_config, nal, sps, ts

from tests.cext.media.material import CONFIG, FRAME, Stream
from tests.cext.media.test_aac import adts
from tests.cext.media.test_annexb import annexb, unit
from tests.cext.media.test_decoder_config import PPS, SPS
from tests.cext.media.test_nal import LATER, RECOVERY, sei
from tests.cext.media.test_sps import TABLE, check_bounds
from tests.cext.media.ts_write import PMT_PID, Writer, pat, pes, pmt

H264_SETS = [bytes.fromhex(row[8]) for row in TABLE if row[0] == "h264"]
H265_SETS = [bytes.fromhex(row[8]) for row in TABLE if row[0] == "h265"]
SECTIONS = [pat(), pmt([(0x1B, 0x100), (0x0F, 0x101)]), pat([(n, 0x1000 + n) for n in range(1, 40)])]
WRITER = Writer()
PACKETS = [WRITER.packets(pes(b"x" * n, 90000, 86400), 0x100, key=n % 2 == 1)[:188] for n in range(0, 300, 7)]


def mutate(source: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with something broken in it, or nothing that ever was one."""
    kind = source.randrange(8)
    if kind == 0:
        return source.randbytes(source.randrange(300))
    data = bytearray(source.choice(seeds))
    if kind == 1:
        del data[source.randrange(len(data) + 1) :]
    elif kind == 2:
        at = source.randrange(len(data) + 1)
        data[at:at] = source.randbytes(source.randrange(20))
    elif kind == 3:
        other = source.choice(seeds)
        data[source.randrange(len(data) + 1) :] = other[source.randrange(len(other) + 1) :]
    elif kind == 4 and data:
        at = source.randrange(len(data))
        data[at : at + source.randrange(8)] = source.choice((b"\xff", b"\x00")) * source.randrange(8)
    for _ in range(source.randrange(1, 6) if data else 0):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(data)


def refused(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a parser gives, or None when it refuses its input."""
    try:
        return call(*arguments)
    except ValueError:
        return None


def check_units(data: bytes) -> None:
    spans = nal.split(data)
    place = 0
    for at, length in spans:
        assert place < at <= at + length <= len(data)
        place = at + length
        for codec in (1, 2):
            assert 0 <= nal.role(codec, data[at : at + length]) <= 7
    assert len(nal.unescape(data)) <= len(data)
    nal.recovery_point(data)
    value = refused(nal.exp_golomb, data)
    assert value is None or 0 <= value < 2**32


def check_adts(data: bytes) -> None:
    found = refused(aac.parse, data)
    assert found is None or found["header_bytes"] < found["frame_bytes"] <= 8191


def check_packet(data: bytes) -> None:
    data = data[:188].ljust(188, b"\x47")
    found = refused(ts.parse_packet, data)
    assert found is None or (len(found["payload"]) <= 184 and found["stuffing"] <= 183)
    found = refused(ts.parse_pes, data[source_offset(data) :])
    assert found is None or 6 <= found["header_bytes"] <= 264


def source_offset(data: bytes) -> int:
    return data[5] % 20


def check_h264(data: bytes) -> None:
    if data:
        check_bounds(refused(sps.parse, 1, data))
        found = refused(decoder_config.record, 1, [data, PPS])
        assert found is None or len(found) <= 4096


def check_h265(data: bytes) -> None:
    if data:
        check_bounds(refused(sps.parse, 2, data))
        found = refused(decoder_config.record, 2, [b"\x40\x01x", data, b"\x44\x01\xc0"])
        assert found is None or len(found) <= 4096


PARSERS = {
    "nal": (
        check_units,
        [annexb(unit(n, slices=3)) for n in range(11)] + [sei((6, RECOVERY)), sei((6, LATER))],
    ),
    "h264": (check_h264, [*H264_SETS, SPS]),
    "h265": (check_h265, H265_SETS),
    "adts": (check_adts, [adts(b"x" * n, rate=n % 13, crc=n % 2 == 1) for n in range(1, 40)]),
    "packet": (check_packet, PACKETS),
}


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("inputs", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_broken_input(name, inputs):
    check, seeds = PARSERS[name]
    source = random.Random(name)
    for _ in range(inputs):
        check(mutate(source, seeds))


def tables(writer: Writer, source: random.Random) -> bytes:
    """PAT and PMT, broken but with a CRC that is right, now and then."""
    out = b""
    for section, pid in ((pat(), 0), (pmt([(0x1B, 0x100), (0x0F, 0x101)]), PMT_PID)):
        section = mutate(source, [section, *SECTIONS]) if source.randrange(2) else section
        if source.randrange(2) and len(section) > 7:
            section = section[:-4] + ts.crc32(section[:-4]).to_bytes(4, "big")
        if 3 <= len(section) <= 1021:
            out += writer.section(section, pid)
    return out


def picture(n: int, source: random.Random) -> bytes:
    data = annexb(unit(n, slices=source.randrange(1, 4)))
    return mutate(source, [data]) if source.randrange(3) == 0 else data


def sound(n: int, source: random.Random) -> bytes:
    data = b"".join(adts(bytes([n % 256]) * source.randrange(1, 200)) for _ in range(source.randrange(1, 4)))
    return mutate(source, [data]) if source.randrange(3) == 0 else data


@pytest.mark.parametrize("pieces", [50_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_broken_streams(pieces):
    """Tables, PES packets and TS packets that are broken one inside the other."""
    source = random.Random(7)
    frames = packets = 0
    for turn in range(pieces // 500):
        stream = Stream(flv=turn % 2 == 0, frame_ring_bytes=256 << 10, wire_ring_bytes=256 << 10)
        writer = Writer()
        stream.feed(writer.tables((0x1B, 0x100), (0x0F, 0x101)))
        for n in range(500):
            time = None if source.randrange(10) == 0 else 90000 + n * 3600 + source.randrange(3) * 1_000_000
            if n % 40 == 0:
                data = tables(writer, source)
            elif n % 3:
                kind = source.choice((0xE0, 0xE0, 0xE0, 0xBE, 0xFF))
                data = writer.packets(pes(picture(n, source), time, kind=kind), 0x100, key=n % 10 == 0)
            else:
                data = writer.packets(pes(sound(n, source), time, kind=0xC0, bounded=True), 0x101)
            if source.randrange(4) == 0:
                data = mutate(source, [data])
            stream.feed(data, piece=source.randrange(1, 1500))
            packets += len(data) // 188
        stream.end()
        frames += len(stream.records(FRAME, without=CONFIG))
        assert stream.count("ts_pkts") > 200
        assert stream.count("continuity_errors") > 0
        assert all(r["length"] <= 128 << 10 for r in stream.records(FRAME))
    assert frames > pieces // 4, "much of it was whole"
    assert packets > pieces
