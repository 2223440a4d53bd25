"""srt:// URLs as people write them for ffmpeg and libsrt's tools."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import unquote

from flux.config.secrets import shown_stream_id, shown_url
from flux.errors import UserError
from flux.srt.stream_id import K_MAX_BYTES, Mode, StreamIdError, parse, render

T = TypeVar("T")
_EXAMPLE = "an SRT URL is srt://host:port?streamid=publish:live/cam1&latency=120"
_LATER = {
    "packetfilter": "FEC",
    "groupconnect": "bonding",
}
# Options that say what we do anyway, with the values that say so.
_FIXED = {
    "mode": ("caller",),
    "transtype": ("live",),
    "tsbpd": ("1", "true", "yes"),
    "tsbpdmode": ("1", "true", "yes"),
    "tlpktdrop": ("1", "true", "yes"),
    "messageapi": ("1", "true", "yes"),
    "payload_size": ("1316",),
    "payloadsize": ("1316",),
    "pkt_size": ("1316",),
}
_MODES = {"0": "auto", "1": "ctr", "2": "gcm", "auto": "auto", "ctr": "ctr", "gcm": "gcm"}
_TRUTHS = {
    "1": True,
    "yes": True,
    "on": True,
    "true": True,
    "0": False,
    "no": False,
    "off": False,
    "false": False,
}
_LATENCIES = ("latency", "rcvlatency", "peerlatency")
_TIMEOUTS = ("connect_timeout", "conntimeo")
K_MAX_LATENCY_MS = 60_000
K_MAX_TIMEOUT_MS = 600_000
K_LEAST_PASSPHRASE_BYTES = 10
K_MOST_PASSPHRASE_BYTES = 80
K_MAX_REFRESH_PKTS = 1 << 30
K_DEFAULT_REFRESH_PKTS = 1 << 24
K_KEY_BYTES = (0, 16, 24, 32)


class SrtUrlError(UserError):
    """A URL that can't be used."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """passphrase: "": none. pbkeylen: 0: as the listener wants it. km_…: None where the URL doesn't say."""

    passphrase: str = field(default="", repr=False)
    pbkeylen: int = 0
    crypto_mode: str = "auto"
    enforced_encryption: bool = True
    km_refresh_rate_pkts: int | None = None
    km_preannounce_pkts: int | None = None

    def settings(self) -> dict[str, Any]:
        """As Endpoint takes them."""
        names = (item.name for item in fields(self))
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SrtUrl:
    """latency_ms, connect_timeout_ms: None where the URL doesn't say."""

    host: str
    port: int
    stream_id: str
    latency_ms: int | None = None
    connect_timeout_ms: int | None = None
    encryption: Encryption = Encryption()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"srt://{host}:{self.port}?streamid={self.stream_id}"

    def addresses(self) -> list[tuple[str, int]]:
        """(ip, port) in the order in which to try them. Raises SrtUrlError when the name is not known."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise SrtUrlError(
                f"{self.host} is not known: {error.strerror}", "look whether the host is right"
            ) from None
        # IPv4 first: who listens on 0.0.0.0 is not reached by "localhost" as ::1, and UDP doesn't tell.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return list(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))


def hide_secrets(text: str) -> str:
    """A URL as it may be shown to anybody."""
    return shown_url(text)


def parse_url(text: str, mode: Mode) -> SrtUrl:
    """Reads a URL for a client that publishes or reads.

    Latencies and timeouts are in ms, as libsrt's own tools have them (ffmpeg's are µs). A path stands for a
    stream id: srt://host:8890/live/cam1. A `#` in the stream id need not be escaped. Raises SrtUrlError.
    """
    scheme, separator, rest = text.partition("://")
    if scheme.lower() != "srt" or not separator:
        raise SrtUrlError(f"{hide_secrets(text)[:80]} is no SRT URL", _EXAMPLE)
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    host, port = _split_authority(text, authority)
    options = _options(query)
    stream_id = options.pop("streamid", "")
    if path and not stream_id:
        stream_id = render(mode, unquote(path))
    _check_mode(stream_id, mode)
    latency_ms = _milliseconds(options, _LATENCIES, K_MAX_LATENCY_MS)
    timeout_ms = _milliseconds(options, _TIMEOUTS, K_MAX_TIMEOUT_MS)
    encryption = _encryption(options)
    for key, value in options.items():
        _check_option(key, value)
    return SrtUrl(host, port, stream_id, latency_ms, timeout_ms, encryption)


def _split_authority(text: str, authority: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare) != host.startswith("["):
        raise SrtUrlError(f"{hide_secrets(text)[:80]} has no host and port", _EXAMPLE)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise SrtUrlError(f"{port[:20]!r} in {hide_secrets(text)[:80]} is no port", _EXAMPLE)
    return bare, int(port)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        options[key.lower()] = unquote(value)
    return options


def _encryption(options: dict[str, str]) -> Encryption:
    """libsrt's options; enforced_encryption is what ffmpeg calls one of them."""
    passphrase = options.pop("passphrase", "")
    if passphrase and not K_LEAST_PASSPHRASE_BYTES <= len(passphrase.encode()) <= K_MOST_PASSPHRASE_BYTES:
        raise SrtUrlError(
            f"passphrase= has {len(passphrase.encode())} bytes",
            f"SRT wants {K_LEAST_PASSPHRASE_BYTES} to {K_MOST_PASSPHRASE_BYTES}",
        )
    refresh = _packets(options, "kmrefreshrate", K_MAX_REFRESH_PKTS)
    announce = _packets(options, "kmpreannounce", ((refresh or K_DEFAULT_REFRESH_PKTS) - 1) // 2)
    enforced = "enforced_encryption" if "enforced_encryption" in options else "enforcedencryption"
    return Encryption(
        passphrase,
        _one_of(options, "pbkeylen", {str(length): length for length in K_KEY_BYTES}, 0),
        _one_of(options, "cryptomode", _MODES, "auto"),
        _one_of(options, enforced, _TRUTHS, True),
        refresh,
        announce,
    )


def _one_of(options: dict[str, str], name: str, known: dict[str, T], default: T) -> T:
    value = options.pop(name, None)
    if value is None:
        return default
    if value.lower() not in known:
        raise SrtUrlError(f"{name}={value[:20]} is not known", f"it is one of {', '.join(known)}")
    return known[value.lower()]


def _packets(options: dict[str, str], name: str, most: int) -> int | None:
    """None and 0: the default."""
    value = options.pop(name, "0")
    if not value.isascii() or not value.isdigit() or int(value) > most:
        raise SrtUrlError(f"{name}={value[:20]} is no number of packets up to {most}", f"leave {name}= out")
    return int(value) or None


def _milliseconds(options: dict[str, str], names: tuple[str, ...], most: int) -> int | None:
    """The largest of the options of one meaning."""
    values = []
    for name in names:
        if (value := options.pop(name, None)) is None:
            continue
        if not value.isascii() or not value.isdigit() or int(value) > most:
            raise SrtUrlError(f"{name}={value[:20]} is no number of ms up to {most}", f"as in {name}=120")
        values.append(int(value))
    return max(values, default=None)


def _check_option(key: str, value: str) -> None:
    if key in _LATER:
        raise SrtUrlError(f"{key}= asks for {_LATER[key]}, which is not spoken yet", "leave it out")
    if key not in _FIXED:
        raise SrtUrlError(
            f"{key}= is not known", "use streamid, latency, connect_timeout, passphrase, pbkeylen"
        )
    if value.lower() not in _FIXED[key]:
        raise SrtUrlError(f"{key}={value[:20]} is not offered", f"leave it out; it is {_FIXED[key][0]}")


def _check_mode(stream_id: str, mode: Mode) -> None:
    """Other servers have other ids; only one that plainly says the contrary is refused."""
    if len(stream_id.encode()) > K_MAX_BYTES:
        raise SrtUrlError(f"the stream id has more than {K_MAX_BYTES} bytes", _EXAMPLE)
    if not stream_id.startswith(("read:", "publish:", "#!::")):
        return
    try:
        asked = parse(stream_id)
    except StreamIdError:
        return
    if asked.mode != mode:
        verb = "publishes" if mode == "publish" else "plays"
        raise SrtUrlError(
            f"{shown_stream_id(stream_id)} asks for the other direction",
            f"this command {verb}: streamid={mode}:{asked.name}",
        )
