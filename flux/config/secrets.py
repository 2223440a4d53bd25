"""URLs of other servers as they may be shown to anybody: without passphrases and passwords."""

from __future__ import annotations

import re
from urllib.parse import unquote

K_HIDDEN = "…"

_OPTION = re.compile(r"([?&])(passphrase|streamid)=([^&\s]*)", re.IGNORECASE)
_USER = re.compile(r"(://)[^/?@]*@")
_PLAIN = re.compile(r"(?:(?:publish|read):)?[A-Za-z0-9._~/-]*")
_SHOWN_KEYS = (
    "r",
    "m",
    "t",
    "h",
)  # SRT Access Control Guidelines, "Standard keys": the others are credentials


def shown_stream_id(text: str) -> str:
    """A stream id with nothing but the name, the mode and the type in it."""
    if _PLAIN.fullmatch(text):
        return text
    if text.startswith("#!::"):
        pairs = [pair for pair in text[4:].split(",") if pair.partition("=")[0] in _SHOWN_KEYS]
        return "#!::" + ",".join(pairs) + ("" if len(pairs) == text.count(",") + 1 else f",{K_HIDDEN}")
    mode, _, rest = text.partition(":")
    name = rest.partition(":")[0]
    if mode in ("publish", "read") and _PLAIN.fullmatch(name):
        return f"{mode}:{name}:{K_HIDDEN}"
    return K_HIDDEN


def shown_url(url: str) -> str:
    """The URL with its passphrase, and what of its stream id may be a password, left out."""

    def hide(option: re.Match[str]) -> str:
        lead, name, value = option.groups()
        shown = K_HIDDEN if name.lower() == "passphrase" else shown_stream_id(unquote(value))
        return f"{lead}{name}={shown if value else ''}"

    return _OPTION.sub(hide, _USER.sub(rf"\1{K_HIDDEN}@", url))
