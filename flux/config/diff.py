"""What a new configuration changes, and what of it a running Flux can take over."""

from __future__ import annotations

from typing import NamedTuple

from flux.config.load import flatten, unflatten
from flux.config.schema import Config

# Keys, or sections ending in ".", that are read once at the start, and what of them is not. All else is taken
# over while running; some of it holds for those who come from then on.
NEEDS_RESTART = (
    "workers",
    "pin_workers",
    "cpus",
    "arena.",
    "srt.",
    "http.listen",
    "admin.",
    "control.socket",
    "demo.",
    "log.file",
)
_EXCEPT = ("srt.poll_interval_us", "srt.passphrase", "srt.passphrases", "srt.enforced_encryption")


class Change(NamedTuple):
    """changed: keys that differ. needs_restart: those of them that stay as they were.

    config: the configuration to run with from now on.
    """

    changed: list[str]
    needs_restart: list[str]
    config: Config


def compare(old: Config, new: Config) -> Change:
    """What a Flux that runs with `old` makes of `new`."""
    before, after = flatten(old), flatten(new)
    changed = [key for key in after if after[key] != before[key]]
    fixed = [key for key in changed if needs_restart(key)]
    running = {**after, **{key: before[key] for key in fixed}}
    return Change(changed, fixed, unflatten(running))


def needs_restart(key: str) -> bool:
    """Whether a change of that setting is seen only after a restart."""
    return key not in _EXCEPT and any(
        key == fixed or (fixed.endswith(".") and key.startswith(fixed)) for fixed in NEEDS_RESTART
    )
