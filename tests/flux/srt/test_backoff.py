"""The waits between attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.srt.backoff import Backoff


def most(_least: float, most: float) -> float:
    return most


def test_the_bound_doubles_up_to_the_most() -> None:
    backoff = Backoff(500, 30_000, most)
    waits = [backoff.next_ms() for _ in range(9)]
    assert waits == [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]


def test_it_begins_anew_after_a_success() -> None:
    backoff = Backoff(500, 30_000, most)
    backoff.next_ms()
    backoff.next_ms()
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_ms() == 500


def test_it_never_gives_up() -> None:
    backoff = Backoff(500, 30_000, most)
    for _ in range(10_000):
        assert 0 < backoff.next_ms() <= 30_000
    assert backoff.failures == 10_000


@given(st.integers(1, 10_000), st.integers(0, 100_000), st.integers(0, 100))
def test_waits_lie_between_nothing_and_the_bound(least: int, more: int, failures: int) -> None:
    backoff = Backoff(least, least + more)
    for n in range(failures):
        assert 0 <= backoff.next_ms() <= min(least * 2**n, least + more)


@pytest.mark.parametrize("seed", range(3))
def test_many_who_failed_at_once_come_back_spread(seed: int) -> None:
    import random

    draw = random.Random(seed).uniform
    waits = sorted(Backoff(1000, 30_000, draw).next_ms() for _ in range(1000))
    assert waits[250] == pytest.approx(250, abs=60)
    assert waits[750] == pytest.approx(750, abs=60)
