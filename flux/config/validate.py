"""What a setting's type can't say: powers of two, addresses, names, and settings that go together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flux.address import split_address
from flux.config.schema import Config

K_MAX_NAME_BYTES = 255  # of a stream's name (arena.pxd: K_MAX_NAME)
K_MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), without its NUL

_PART = r"(?:\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*|\.{3,})"  # neither empty nor "." nor ".."
STREAM_NAME = re.compile(rf"{_PART}(?:/{_PART})*")

_POWERS_OF_TWO = ("frame_ring_bytes", "wire_ring_bytes", "hls_bytes", "index_entries")


def problems(config: Config) -> Iterator[tuple[str, str, str]]:
    """(key, what is wrong, what to do) of each setting that can't be used."""
    for name in _POWERS_OF_TWO:
        value = getattr(config.arena, name)
        if value & (value - 1):
            below = 1 << (value.bit_length() - 1)
            yield f"arena.{name}", f"{value} is no power of two", f"set it to {below} or {2 * below}"
    listen = {
        "srt.listen": config.srt.listen,
        "http.listen": config.http.listen,
        "admin.listen": config.admin.listen,
    }
    for key, address in listen.items():
        if address:
            try:
                split_address(address)
            except ValueError as error:
                yield key, str(error), 'write an address and a port, or "" for none'
    if config.hls.max_segment_ms < config.hls.segment_ms:
        yield (
            "hls.max_segment_ms",
            f"{config.hls.max_segment_ms} is less than hls.segment_ms",
            f"set it to {config.hls.segment_ms} or more",
        )
    if not is_stream_name(config.demo.stream):
        yield "demo.stream", f'"{config.demo.stream}" is no stream name', 'write it as "live/demo"'
    if len(config.control.socket.encode()) > K_MAX_SOCKET_PATH_BYTES:
        yield (
            "control.socket",
            f"a socket's path has at most {K_MAX_SOCKET_PATH_BYTES} bytes",
            "use a shorter path",
        )
    if any(cpu < 0 for cpu in config.cpus):
        yield "cpus", "CPUs are numbered from 0", "write them as [0, 1]"


def is_stream_name(name: str) -> bool:
    """Whether `name` is parts of `[A-Za-z0-9._~-]` joined by "/", none of them empty, "." or ".."."""
    return len(name) <= K_MAX_NAME_BYTES and STREAM_NAME.fullmatch(name) is not None
