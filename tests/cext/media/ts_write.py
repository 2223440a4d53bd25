"""Writes MPEG-TS packet by packet, well formed or not (ISO/IEC 13818-1, 2.4.3 and 2.4.4)."""

from __future__ import annotations

from collections.abc import Sequence

from flux.cext.media.ts import crc32, section_packets

PMT_PID = 0x1000


def with_crc(section: bytes) -> bytes:
    return section + crc32(section).to_bytes(4, "big")


def pat(
    programs: Sequence[tuple[int, int]] = ((1, PMT_PID),), version: int = 0, *, current: bool = True
) -> bytes:
    """A PAT section; programs: (number, PID of its PMT)."""
    body = b"".join(n.to_bytes(2, "big") + (0xE000 | pid).to_bytes(2, "big") for n, pid in programs)
    head = bytes([0, 0xB0, 9 + len(body), 0, 1, 0xC0 | version << 1 | current, 0, 0])
    return with_crc(head + body)


def pmt(streams: Sequence[tuple], version: int = 0, *, program: int = 1, info: bytes = b"") -> bytes:
    """A PMT section; streams: (stream_type, PID) or (stream_type, PID, descriptors)."""
    body = (0xE000 | streams[0][1] if streams else 0xFFFF).to_bytes(2, "big")
    body += (0xF000 | len(info)).to_bytes(2, "big") + info
    for kind, pid, *rest in streams:
        descriptors = rest[0] if rest else b""
        body += bytes([kind]) + (0xE000 | pid).to_bytes(2, "big")
        body += (0xF000 | len(descriptors)).to_bytes(2, "big") + descriptors
    length = 9 + len(body)
    head = bytes([2, 0xB0 | length >> 8, length & 0xFF]) + program.to_bytes(2, "big")
    return with_crc(head + bytes([0xC1 | version << 1, 0, 0]) + body)


def timestamp(prefix: int, ticks: int) -> bytes:
    ticks &= (1 << 33) - 1
    return bytes(
        [
            prefix << 4 | (ticks >> 30) << 1 | 1,
            ticks >> 22 & 0xFF,
            (ticks >> 15 & 0x7F) << 1 | 1,
            ticks >> 7 & 0xFF,
            (ticks & 0x7F) << 1 | 1,
        ]
    )


def pes(
    data: bytes, pts: int | None = None, dts: int | None = None, *, kind: int = 0xE0, bounded: bool = False
) -> bytes:
    """A PES packet. bounded: it tells its length."""
    times = b""
    if pts is not None:
        times = timestamp(2 if dts is None else 3, pts) + (b"" if dts is None else timestamp(1, dts))
    flags = 0 if pts is None else 0x80 if dts is None else 0xC0
    rest = bytes([0x80, flags, len(times)]) + times + data
    length = len(rest) if bounded else 0
    return b"\x00\x00\x01" + bytes([kind]) + length.to_bytes(2, "big") + rest


class Writer:
    """Counts continuity for each PID."""

    def __init__(self) -> None:
        self.counters: dict[int, int] = {}

    def next_counter(self, pid: int) -> int:
        self.counters[pid] = (self.counters.get(pid, -1) + 1) & 15
        return self.counters[pid]

    def section(self, section: bytes, pid: int) -> bytes:
        packets = bytearray(section_packets(section, pid))
        for at in range(0, len(packets), 188):
            packets[at + 3] = 0x10 | self.next_counter(pid)
        return bytes(packets)

    def tables(self, *streams: tuple[int, ...], version: int = 0) -> bytes:
        return self.section(pat(), 0) + self.section(pmt(streams, version), PMT_PID)

    def packet(self, payload: bytes, pid: int, *, start: bool = False, key: bool = False) -> bytes:
        """One packet; a payload under 184 bytes is led by stuffing."""
        room = 184 - len(payload)
        assert room >= 0
        if key and room < 2:
            raise ValueError("no room for random_access_indicator")
        head = bytes(
            [0x47, start << 6 | pid >> 8, pid & 0xFF, (0x30 if room else 0x10) | self.next_counter(pid)]
        )
        if not room:
            return head + payload
        field = bytes([room - 1])
        if room > 1:
            field += bytes([0x40 if key else 0]) + b"\xff" * (room - 2)
        return head + field + payload

    def packets(self, data: bytes, pid: int, *, key: bool = False) -> bytes:
        """A PES packet in as many packets as it takes; the last is stuffed."""
        out = b""
        start = True
        while data or start:
            n = 182 if start and key else 184
            out += self.packet(data[:n], pid, start=start, key=start and key)
            data = data[n:]
            start = False
        return out
