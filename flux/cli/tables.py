"""Tables and numbers as people read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> str:
    """Aligned text, a line a row. right: the columns that are aligned to the right."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    to_right = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in to_right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def as_json(value: Any) -> str:
    """As --json prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def bitrate(bps: float | None) -> str:
    """Bits a second: "864 kbit/s", "2.05 Mbit/s"."""
    if bps is None:
        return "-"
    if bps < 999_500:
        return f"{bps / 1000:.0f} kbit/s"
    return f"{bps / 1e6:.{2 if bps < 9.995e6 else 1 if bps < 99.95e6 else 0}f} Mbit/s"


def size(count: float) -> str:
    """Bytes: "512 B", "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.{1 if unit != 'B' and count < 99.95 else 0}f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """ "42 s", "3 min 07 s", "2 h 05 min", "3 d 4 h"."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def since(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 time was."""
    if not moment:
        return "-"
    return duration(((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds())


def rate(fps: float | None) -> str:
    """Frames a second: "25", "29.97"; "-" for unknown."""
    return f"{fps:.2f}".rstrip("0").rstrip(".") if fps else "-"
