from __future__ import annotations

import pytest

from flux.config.diff import NEEDS_RESTART, compare
from flux.config.load import keys, load_config


@pytest.mark.parametrize(
    ("overrides", "changed", "needs_restart"),
    [
        ([], [], []),
        (["log.level=debug"], ["log.level"], []),
        (["workers=3", "streams.wait_ms=5"], ["workers", "streams.wait_ms"], ["workers"]),
        (
            ["http.listen=127.0.0.1:1", "arena.streams=8"],
            ["arena.streams", "http.listen"],
            ["arena.streams", "http.listen"],
        ),
    ],
)
def test_what_a_change_comes_to(overrides, changed, needs_restart):
    old, new = load_config(), load_config(None, overrides)
    change = compare(old, new)
    assert (change.changed, change.needs_restart) == (changed, needs_restart)


def test_what_needs_a_restart_stays_as_it_was():
    old = load_config(None, ["workers=2"])
    change = compare(old, load_config(None, ["workers=3", "log.level=debug"]))
    assert (change.config.workers, change.config.log.level) == (2, "debug")


def test_every_key_that_needs_a_restart_exists():
    known = list(keys())
    for fixed in NEEDS_RESTART:
        assert any(key == fixed or (fixed.endswith(".") and key.startswith(fixed)) for key in known), fixed
