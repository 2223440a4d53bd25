"""The demultiplexer, through TsIngest: streams written packet by packet."""

from __future__ import annotations

import pytest

from tests.cext.media.material import AUDIO, CONFIG, DAMAGED, FRAME, KEY, TS, VIDEO, Stream
from tests.cext.media.test_aac import adts
from tests.cext.media.test_decoder_config import PPS, SPS
from tests.cext.media.ts_write import PMT_PID, Writer, pat, pes, pmt, with_crc

H264, H265, AAC, PRIVATE = 0x1B, 0x24, 0x0F, 0x06
NULL = bytes([0x47, 0x1F, 0xFF, 0x10]) + b"\xff" * 184  # sync is believed after three packets
V, A = 0x100, 0x101
START = b"\x00\x00\x00\x01"


def picture(n: int, *, key: bool = False, size: int = 600) -> bytes:
    """An access unit of H.264 with a slice that can be told from others."""
    nal = (b"\x65\x88" if key else b"\x41\x9a") + bytes([1 + n % 250]) * size
    sets = START + SPS + START + PPS if key else b""
    return START + b"\x09\xf0" + sets + START + nal


class Video:
    """A stream of H.264, PES by PES, one picture each."""

    def __init__(self, *streams: tuple, **sizes: int) -> None:
        self.writer = Writer()
        self.stream = Stream(**{"frame_ring_bytes": 1 << 20, "wire_ring_bytes": 1 << 20, **sizes})
        self.feed(self.writer.tables(*(streams or ((H264, V),))))
        self.n = 0

    def feed(self, data: bytes) -> None:
        self.stream.feed(data)

    def packets(self, **kw) -> bytes:
        """The next picture's packets; a keyframe at each tenth."""
        data = picture(self.n, key=self.n % 10 == 0, size=kw.pop("size", 600))
        out = self.writer.packets(pes(data, 90000 + self.n * 3600, **kw), V)
        self.n += 1
        return out

    def play(self, count: int, **kw) -> None:
        for _ in range(count):
            self.feed(self.packets(**kw))

    def seen(self) -> list[int]:
        """Which pictures came out, by the byte that fills them."""
        records = self.stream.records(FRAME, VIDEO, without=CONFIG)
        return [self.stream.payload(r)[-1] - 1 for r in records]


def test_the_first_program_is_followed_as_long_as_it_is_there():
    video = Video()
    two = pat([(0, 0x10), (7, 0x1100), (9, 0x1200)])
    video.feed(video.writer.section(two, 0))
    video.feed(video.writer.section(pmt([(H264, 0x300)], program=9), 0x1200))
    assert [t["pid"] for t in video.stream.facts["tracks"]] == [V]
    video.feed(video.writer.section(pmt([(H264, 0x200)], program=7), 0x1100))
    assert [t["pid"] for t in video.stream.facts["tracks"]] == [0x200]
    video.feed(video.writer.section(pat([(9, 0x1200), (7, 0x1100)], version=1), 0))
    assert [t["pid"] for t in video.stream.facts["tracks"]] == [0x200]


@pytest.mark.parametrize(
    ("what", "counter"),
    [
        ("crc", "crc_errors"),
        ("not current", None),
        ("too short", "table_errors"),
        ("private syntax", "table_errors"),
        ("other table", None),
        ("other program", None),
        ("info too long", "table_errors"),
    ],
)
def test_tables_that_are_not_taken(what, counter):
    video = Video()
    video.play(3)
    section = pmt([(H265, 0x200)], version=1)
    if what == "crc":
        section = section[:-1] + bytes([section[-1] ^ 1])
    elif what == "not current":
        section = with_crc(section[:5] + bytes([section[5] & 0xFE]) + section[6:-4])
    elif what == "too short":
        section = b"\x02\xb0\x05\x00\x01\xc1\x00\x00"
    elif what == "private syntax":
        section = with_crc(section[:1] + b"\x30" + section[2:-4])
    elif what == "other table":
        section = with_crc(b"\x42" + section[1:-4])
    elif what == "other program":
        section = pmt([(H265, 0x200)], program=5)
    elif what == "info too long":
        section = with_crc(section[:10] + b"\xf3\xff" + section[12:-4])
    video.feed(video.writer.section(section, PMT_PID))
    video.play(3)
    assert [t["pid"] for t in video.stream.facts["tracks"]] == [V]
    assert video.stream.count("table_changes") == 2
    for name in ("crc_errors", "table_errors"):
        assert video.stream.count(name) == (name == counter)
    video.stream.end()
    assert video.seen() == list(range(6))


def test_a_table_that_cuts_a_descriptor_short_keeps_what_came_before():
    video = Video()
    whole = pmt([(H264, V), (AAC, A, b"\x0a\x04eng\x00")])
    section = bytearray(whole[:-4])
    section[-8] = 0xF1  # ES_info_length of 256 and more
    video.feed(video.writer.section(with_crc(bytes(section)), PMT_PID))
    assert video.stream.count("table_errors") == 1
    assert [t["pid"] for t in video.stream.facts["tracks"]] == [V]


def test_tables_in_many_packets():
    streams = [(PRIVATE, 0x400 + n, b"\x0a\x04abc\x00" * 7) for n in range(14)]
    video = Video((H264, V), *streams)
    video.play(2)
    video.stream.end()
    assert video.seen() == [0, 1]
    assert len(video.stream.facts["tracks"]) == 8
    assert video.stream.count("streams_ignored") > 0
    header = video.stream.ring(TS).header()
    assert len(header) > 3 * 188


def test_tables_with_lost_packets_wait_for_the_next():
    streams = [(PRIVATE, 0x400 + n, b"\x0a\x04abc\x00" * 7) for n in range(14)]
    writer = Writer()
    stream = Stream()
    stream.feed(writer.section(pat(), 0))
    table = writer.section(pmt([(H264, V), *streams]), PMT_PID)
    stream.feed(table[:188] + table[376:])
    assert stream.facts["tracks"] == []
    assert stream.count("continuity_errors") == 1
    stream.feed(writer.section(pmt([(H264, V), *streams]), PMT_PID))
    assert stream.facts["tracks"][0]["codec"] == "H264"


@pytest.mark.parametrize(
    ("kind", "descriptors", "codec"),
    [
        (0x1B, b"", "H264"),
        (0x24, b"", "H265"),
        (0x0F, b"", "AAC"),
        (0x03, b"", "MP3"),
        (0x04, b"", "MP3"),
        (0x81, b"", "AC3"),
        (0x87, b"", "EAC3"),
        (0x06, b"", "data"),
        (0x06, b"\x6a\x01\x00", "AC3"),
        (0x06, b"\x7a\x01\x00", "EAC3"),
        (0x06, b"\x05\x04Opus", "Opus"),
        (0x06, b"\x05\x04HEVC", "H265"),
        (0x06, b"\x05\x04KLVA", "data"),
        (0x06, b"\x0a\x04eng\x00\x05\x04AC-3", "AC3"),
        (0x06, b"\x05\x10AC-3", "data"),  # a descriptor that lies about its length
        (0x86, b"", "data"),
        (0x02, b"", "data"),
    ],
)
def test_codecs(kind, descriptors, codec):
    stream = Stream()
    stream.feed(Writer().tables((kind, V, descriptors)) + NULL)
    assert [(t["codec"], t["pid"]) for t in stream.facts["tracks"]] == [(codec, V)]


def test_pids_that_are_taken_are_ignored():
    stream = Stream()
    stream.feed(
        Writer().tables((H264, V), (AAC, V), (AAC, 0), (AAC, PMT_PID), (AAC, 0x1FFF), (AAC, A)) + NULL
    )
    assert [t["pid"] for t in stream.facts["tracks"]] == [V, A]
    assert stream.count("streams_ignored") == 4


def test_duplicates_are_left_out():
    video = Video()
    for _ in range(20):
        data = video.packets(size=900)
        twice = b"".join(data[at : at + 188] * (2 if at % 376 == 0 else 1) for at in range(0, len(data), 188))
        video.feed(twice)
    video.stream.end()
    assert video.seen() == list(range(20))
    assert video.stream.count("duplicate_pkts") >= 20
    assert video.stream.count("continuity_errors") == 0
    assert not len(video.stream.records(FRAME, DAMAGED))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_packets_damage_one_picture(lost):
    video = Video()
    video.play(5)
    data = video.packets(size=900)
    video.feed(data[: 188 * lost] + data[188 * (lost + 1) :])
    video.play(5)
    video.stream.end()
    assert video.stream.count("continuity_errors") == 1
    damaged = [video.stream.payload(r)[-1] - 1 for r in video.stream.records(FRAME, VIDEO | DAMAGED)]
    assert damaged == [5]
    # Without the packet that begins a PES the rest of it looks like more of the one before.
    assert video.seen() == [0, 1, 2, 3, *([4] if lost else []), 5, 6, 7, 8, 9, 10]
    assert video.stream.facts["ts_errors"] == 1


def test_a_gap_that_is_announced_is_none():
    video = Video()
    video.play(3)
    video.writer.counters[V] = 9
    data = bytearray(video.packets(size=900))
    # an adaptation field with discontinuity_indicator, in a packet of its own in front
    front = bytes([0x47, V >> 8, V & 0xFF, 0x20 | 9, 183, 0x80]) + b"\xff" * 182
    data[3] = 0x30 | (data[3] & 0xF)
    first = data[:4] + bytes([1, 0x80]) + data[4:186]
    video.feed(front + bytes(first))
    assert video.stream.count("continuity_errors") == 0


@pytest.mark.parametrize(
    ("byte", "mask", "counter"), [(1, 0x80, "transport_errors"), (3, 0xC0, "scrambled_pkts")]
)
def test_packets_that_are_not_read(byte, mask, counter):
    video = Video()
    video.play(3)
    data = bytearray(video.packets(size=900))
    data[188 + byte] |= mask
    video.feed(bytes(data))
    video.play(3)
    video.stream.end()
    assert video.stream.count(counter) == 1
    assert [n for n in video.seen() if n != 3] == [0, 1, 2, 4, 5, 6]
    assert len(video.stream.records(FRAME, VIDEO | DAMAGED)) == 1


def test_malformed_packets_are_counted():
    video = Video()
    video.play(2)
    video.feed(bytes([0x47, V >> 8, V & 0xFF, 0x30 | video.writer.next_counter(V), 0xFF]) + bytes(183))
    video.play(2)
    assert video.stream.count("malformed_pkts") == 1
    assert video.stream.facts["ts_errors"] >= 1


def test_a_pes_without_a_header_is_counted():
    video = Video()
    video.play(2)
    video.feed(video.writer.packets(b"no PES begins like this", V))
    video.play(2)
    video.stream.end()
    assert video.stream.count("pes_errors") == 1
    assert video.seen() == [0, 1, 2, 3]


def test_a_header_over_many_packets():
    video = Video()
    video.play(1)
    data = pes(picture(1), 90000 + 3600)
    for at in range(14):
        video.feed(video.writer.packet(data[at : at + 1], V, start=at == 0))
    rest = data[14:]
    while rest:
        video.feed(video.writer.packet(rest[:184], V))
        rest = rest[184:]
    video.n = 2
    video.play(2)
    video.stream.end()
    assert video.seen() == [0, 1, 2, 3]
    times = [int(r["pts_ticks"]) for r in video.stream.records(FRAME, VIDEO, without=CONFIG)]
    assert times == [90000 + 3600 * n for n in range(4)]


def test_a_pes_that_tells_its_length_ends_with_it():
    video = Video()
    for n in range(12):
        video.play(1, bounded=True)
        assert video.seen() == list(range(n + 1)), "at once"
        video.feed(video.writer.packet(b"stray", V))
    assert video.stream.count("pes_stray_pkts") == 12
    assert video.seen() == list(range(12))


def test_stuffing_is_believed_after_a_while():
    video = Video()
    for n in range(30):
        video.play(1)
        late = n < 8  # so many that end in stuffing must be seen first
        assert len(video.seen()) == (n if late else n + 1)
    assert video.stream.count("stuffing_distrusted") == 0


def test_stuffing_in_the_middle_is_distrusted():
    video = Video()
    video.play(4)
    data = pes(picture(4, size=400), 90000 + 4 * 3600)
    video.feed(video.writer.packet(data[:100], V, start=True))
    video.feed(video.writer.packet(data[100:200], V))
    rest = data[200:]
    while rest:
        video.feed(video.writer.packet(rest[:184], V))
        rest = rest[184:]
    video.n = 5
    for n in range(5, 30):
        video.play(1)
        assert len(video.seen()) == n, "each waits for the next"
    assert video.stream.count("stuffing_distrusted") == 1
    video.stream.end()
    assert video.seen() == list(range(30))


def test_packets_of_other_pids_change_nothing():
    video = Video((H264, V), (AAC, A))
    for n in range(20):
        data = video.packets()
        other = video.writer.packet(bytes(184), 0x300)
        sound = video.writer.packets(pes(adts(bytes([n]) * 80), 90000 + n * 3600, kind=0xC0, bounded=True), A)
        pieces = [data[at : at + 188] for at in range(0, len(data), 188)]
        video.feed(pieces[0] + other + sound + NULL + b"".join(pieces[1:]))
    video.stream.end()
    assert video.seen() == list(range(20))
    assert len(video.stream.records(FRAME, AUDIO, without=CONFIG)) == 20
    assert len(video.stream.records(FRAME, VIDEO | KEY)) == 2
    assert video.stream.facts["ts_errors"] == 0
