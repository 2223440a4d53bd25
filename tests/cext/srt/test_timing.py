"""Round trips, delivery times and budgets: the arithmetic, without packets."""

from __future__ import annotations

import pytest
from flux.cext.srt import congestion, rtt
from flux.cext.srt.tsbpd import Tsbpd

WRAP = 1 << 32


@pytest.mark.parametrize(
    ("samples_us", "estimate"),
    [
        ([], (100_000, 50_000)),
        ([20_000], (20_000, 10_000)),
        ([20_000, 20_000], (20_000, 7_500)),
        ([20_000, 28_000], (21_000, 9_500)),
        ([-5], (0, 0)),
        ([1 << 40], (10_000_000, 5_000_000)),
    ],
)
def test_rtt(samples_us: list[int], estimate: tuple[int, int]) -> None:
    assert rtt.estimate(samples_us) == estimate


def test_rtt_settles() -> None:
    assert rtt.estimate([30_000] * 200)[0] == 30_000
    assert rtt.estimate([30_000] * 200)[1] < 10


def test_delivery_is_base_plus_timestamp_plus_delay() -> None:
    clock = Tsbpd(1_000_000, 5_000, 120_000)
    assert clock.due_us(5_000) == 1_000_000 + 120_000
    assert clock.due_us(25_000) == 1_020_000 + 120_000
    assert clock.due_us(15_000) == 1_010_000 + 120_000


def test_timestamps_go_round_and_come_back_out_of_order() -> None:
    clock = Tsbpd(10_000_000, WRAP - 2_000_000, 120_000)
    base = 10_000_000 + 120_000
    assert clock.due_us(WRAP - 1_000) == base + 1_999_000
    assert clock.due_us(500) == base + 2_000_500
    assert clock.due_us(WRAP - 500) == base + 1_999_500
    assert clock.due_us(1_000_000) == base + 3_000_000
    for turn in range(1, 5):
        for quarter in range(4):
            stamp = (quarter * WRAP // 4 + 1_000_000) % WRAP
            if turn == 1 and quarter == 0:
                continue
            expected = base + 2_000_000 + (turn - 1) * WRAP + quarter * WRAP // 4 + 1_000_000
            assert clock.due_us(stamp) == expected


def test_the_base_follows_the_fastest_of_the_first_packets_a_little() -> None:
    clock = Tsbpd(1_000_000, 0, 120_000)
    assert clock.arrived(10_000, 1_010_400) == 1_000_000
    assert clock.arrived(20_000, 1_018_800) == 998_800
    assert clock.arrived(30_000, 1_029_500) == 998_800
    # A handshake that came 3 ms late or more did not wait in a program.
    assert clock.arrived(40_000, 1_030_000) == 997_000
    assert Tsbpd(1_000_000, 0, 120_000).arrived(1_001_000, 2_000_000) == 1_000_000


@pytest.mark.parametrize(
    ("drift_us", "kept_us", "moved_us"),
    [(0, 0, 0), (4_000, 4_000, 0), (7_000, 2_000, 5_000), (-9_000, -4_000, -5_000)],
)
def test_drift_is_the_mean_and_its_excess_goes_into_the_base(
    drift_us: int, kept_us: int, moved_us: int
) -> None:
    clock = Tsbpd(1_000_000, 0, 120_000)
    for n in range(1, 1001):
        noise = 100 if n % 2 else -100
        result = clock.drift(n * 10_000, 1_000_000 + n * 10_000 + drift_us + noise, 20_000)
        if n < 1000:
            assert result == (0, 1_000_000)
    assert result == (kept_us, 1_000_000 + moved_us)


def test_a_longer_path_is_no_drift() -> None:
    clock = Tsbpd(1_000_000, 0, 120_000)
    clock.drift(10_000, 1_010_000, 20_000)
    for n in range(2, 1001):
        result = clock.drift(n * 10_000, 1_000_000 + n * 10_000 + 15_000, 50_000)
    assert result == (0, 1_000_000)


def test_rates_are_averaged_over_half_seconds() -> None:
    amounts = [(1316, 1_000_000 + n * 10_000) for n in range(400)]
    bytes_per_s, pkts_per_s = congestion.measure(amounts)
    assert bytes_per_s == 131_600
    assert pkts_per_s == 100


@pytest.mark.parametrize(("percent", "share"), [(5, 0.05), (25, 0.25), (100, 1.0)])
def test_the_budget_is_a_share_of_the_rate(percent: int, share: float) -> None:
    rate = 10_000_000
    times = [1_000_000 + n * 1_000 for n in range(10_001)]
    allowed = congestion.spend(rate, percent, 1332, times)
    # A second's worth at once, then the share.
    assert allowed[0] == int(rate * share) // 1332
    assert sum(allowed[1:]) * 1332 == pytest.approx(10 * rate * share, rel=0.01)


def test_a_slow_stream_may_still_repair_a_loss() -> None:
    assert congestion.spend(0, 25, 1332, [1_000_000])[0] >= 32
