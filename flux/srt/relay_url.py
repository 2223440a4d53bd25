"""The URLs of relays: what of SRT's URLs they may be."""

from __future__ import annotations

import re

from flux.cext.srt import libcrypto
from flux.config.schema import Config, RelaySettings
from flux.config.secrets import shown_url
from flux.errors import ConfigError
from flux.srt.url import SrtUrl, SrtUrlError, parse_url

_MODE = re.compile(r"[?&]mode=(listener|rendezvous|server)(?:&|$)", re.IGNORECASE)


def relay_url(settings: RelaySettings) -> SrtUrl:
    """Reads a relay's URL. Raises ConfigError that names the relay, and shows no secret."""
    where = f"relays: {settings.name}: url"
    mode = _MODE.search(settings.url)
    if mode is not None or re.match(r"srt://@?:[0-9]", settings.url, re.IGNORECASE):
        kind = "a listener" if mode is None else f"mode={mode[1].lower()}"
        raise ConfigError(
            f"{where}: {kind} is not offered yet",
            "name the host that is to be called, as in srt://host:8890, and leave mode= out",
        )
    try:
        url = parse_url(settings.url, "read" if settings.direction == "pull" else "publish")
    except SrtUrlError as error:
        raise ConfigError(f"{where}: {error.what}", error.cure) from None
    if url.encryption.km_refresh_rate_pkts is not None or url.encryption.km_preannounce_pkts is not None:
        raise ConfigError(
            f"{where}: kmrefreshrate= and kmpreannounce= are the same for all relays",
            "set srt.km_refresh_rate_pkts and srt.km_preannounce_pkts",
        )
    return url


def check_relays(config: Config) -> None:
    """Raises ConfigError for the first relay that can't be run."""
    for settings in config.relays:
        if relay_url(settings).encryption.passphrase:
            try:
                libcrypto.load()
            except RuntimeError as error:
                what, _, cure = str(error).partition("; ")
                raise ConfigError(f"relays: {settings.name}: {what}", cure) from None


def described(settings: RelaySettings) -> dict[str, str]:
    """What is told of a relay's settings to anybody who asks."""
    return {
        "name": settings.name,
        "direction": settings.direction,
        "start": settings.start,
        "stream": settings.stream,
        "url": shown_url(settings.url),
    }
