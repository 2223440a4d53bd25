"""Byte ranges of a representation (RFC 9110, section 14)."""

from __future__ import annotations

import re

from flux.http.errors import range_not_satisfiable

_ONE_RANGE = re.compile(r"\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


def wanted_range(header: str, if_range: str, etag: str, total_bytes: int) -> tuple[int, int] | None:
    """(first byte, count) that a GET asks for, or None for the whole.

    A Range that is malformed, in another unit, in several parts, or whose If-Range names another version is
    ignored, as RFC 9110 allows. Raises 416 for one that lies outside.
    """
    if not header or (if_range and if_range != etag):
        return None
    unit, equals, spec = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    match = _ONE_RANGE.fullmatch(spec)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        count = min(int(match[2]), total_bytes)
        if count == 0:
            raise range_not_satisfiable(total_bytes)
        return total_bytes - count, count
    first = int(match[1])
    last = min(int(match[2]), total_bytes - 1) if match[2] else total_bytes - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= total_bytes:
        raise range_not_satisfiable(total_bytes)
    return first, last - first + 1
