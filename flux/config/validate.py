"""What a setting's type can't say: powers of two, addresses, names, and settings that go together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flux.address import split_address
from flux.config.schema import Config, RelaySettings, SrtSettings

K_MAX_NAME_BYTES = 255  # of a stream's name (arena.pxd: K_MAX_NAME)
K_MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), without its NUL
K_LEAST_PASSPHRASE_BYTES = 10  # crypto.pxd
K_MOST_PASSPHRASE_BYTES = 80
K_KEY_BYTES = (0, 16, 24, 32)

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
    yield from _srt_problems(config.srt)
    yield from _relay_problems(config.relays)
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


def _srt_problems(srt: SrtSettings) -> Iterator[tuple[str, str, str]]:
    secrets = [("srt.passphrase", srt.passphrase)]
    secrets += [(f"srt.passphrases.{pattern}", secret) for pattern, secret in srt.passphrases.items()]
    for key, secret in secrets:
        length = len(secret.get_secret_value().encode())
        if length and not K_LEAST_PASSPHRASE_BYTES <= length <= K_MOST_PASSPHRASE_BYTES:
            yield (
                key,
                f"{length} bytes are no passphrase of SRT",
                f"take {K_LEAST_PASSPHRASE_BYTES} to {K_MOST_PASSPHRASE_BYTES} bytes",
            )
    for pattern in srt.passphrases:
        if not is_stream_name(pattern.replace("*", "x")):
            yield "srt.passphrases", f'"{pattern}" is no pattern of stream names', 'write it as "live/*"'
    if srt.pbkeylen not in K_KEY_BYTES:
        yield "srt.pbkeylen", f"AES has no key of {srt.pbkeylen} bytes", "set it to 16, 24 or 32, or to 0"
    most = (srt.km_refresh_rate_pkts - 1) // 2
    if srt.km_preannounce_pkts > most:
        yield (
            "srt.km_preannounce_pkts",
            f"{srt.km_preannounce_pkts} is half of srt.km_refresh_rate_pkts, or more",
            f"set it to {most} or less",
        )


def _relay_problems(relays: tuple[RelaySettings, ...]) -> Iterator[tuple[str, str, str]]:
    names: set[str] = set()
    pulled: dict[str, str] = {}
    for number, relay in enumerate(relays):
        key = f"relays[{number}]"
        if relay.name in names:
            yield f"{key}.name", f'there is a relay "{relay.name}" already', "give each a name of its own"
        names.add(relay.name)
        if not is_stream_name(relay.stream):
            yield f"{key}.stream", f'"{relay.stream}" is no stream name', 'write it as "live/cam1"'
        if relay.direction == "pull":
            if relay.stream in pulled:
                yield (
                    f"{key}.stream",
                    f'the relay "{pulled[relay.stream]}" pulls {relay.stream} already',
                    "a stream has one publisher; give this one another name",
                )
            pulled[relay.stream] = relay.name
        elif relay.start == "on_demand":
            yield (
                f"{key}.start",
                "a push is not started on demand",
                "leave it out: a push waits for its stream, and ends with it",
            )
        if relay.retry_max_ms < relay.retry_min_ms:
            yield (
                f"{key}.retry_max_ms",
                f"{relay.retry_max_ms} is less than retry_min_ms",
                f"set it to {relay.retry_min_ms} or more",
            )


def is_stream_name(name: str) -> bool:
    """Whether `name` is parts of `[A-Za-z0-9._~-]` joined by "/", none of them empty, "." or ".."."""
    return len(name) <= K_MAX_NAME_BYTES and STREAM_NAME.fullmatch(name) is not None
