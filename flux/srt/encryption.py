"""With which passphrase a stream is encrypted, as the configuration has it."""

from __future__ import annotations

from fnmatch import fnmatchcase

from flux.cext.srt import libcrypto
from flux.config.schema import SrtSettings
from flux.errors import ConfigError


def passphrase_of(settings: SrtSettings, stream: str) -> str:
    """Of the first of srt.passphrases whose pattern fits its name, else srt.passphrase; "": in the clear."""
    for pattern, secret in settings.passphrases.items():
        if fnmatchcase(stream, pattern):
            return secret.get_secret_value()
    return settings.passphrase.get_secret_value()


def require_library(settings: SrtSettings) -> None:
    """Raises ConfigError when there are passphrases, but no library to encrypt with."""
    secrets = [settings.passphrase, *settings.passphrases.values()]
    if settings.listen and any(secret.get_secret_value() for secret in secrets):
        try:
            libcrypto.load()
        except RuntimeError as error:
            what, _, cure = str(error).partition("; ")
            raise ConfigError(f"srt.passphrase: {what}", cure) from None
