from __future__ import annotations

import pytest

from flux.observe.rates import Rate, StreamRates


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([(0, 5)], None),
        ([(0, 0), (1, 100)], 100),
        ([(0, 0), (0.1, 100)], None),
        ([(0, 0), (0.1, 100), (1, 100)], 100),
        ([(0, 100), (1, 200), (2, 50)], None),
        ([(0, 100), (1, 50), (2, 60)], 10),
        ([(n, n * n) for n in range(8)], 10),
    ],
)
def test_rates(samples, expected):
    rate = Rate()
    for now_s, total in samples:
        rate.sample(now_s, total)
    assert rate.per_second == expected


def facts(slot=0, state="live", bytes_in=0, frames=0, publishers=1):
    tracks = [{"kind": "audio", "frames": 9}, {"kind": "video", "frames": frames}]
    return {
        "slot": slot,
        "generation": 0,
        "publishers": publishers,
        "state": state,
        "bytes_in": bytes_in,
        "tracks": tracks,
    }


def test_streams_have_rates_while_they_are_live():
    rates = StreamRates()
    for second in range(3):
        rates.sample([facts(bytes_in=1000 * second, frames=25 * second), facts(1)], second)
    assert rates.of(facts()) == {"bitrate_bps": 8000, "fps": 25.0}
    assert rates.of(facts(1)) == {"bitrate_bps": 0, "fps": 0.0}
    assert rates.of(facts(state="idle")) == {"bitrate_bps": 0, "fps": 0.0}
    assert rates.of(facts(publishers=2)) == {"bitrate_bps": 0, "fps": 0.0}
    assert rates.of(facts(7)) == {"bitrate_bps": 0, "fps": 0.0}


def test_streams_that_are_gone_are_forgotten():
    rates = StreamRates()
    rates.sample([facts(0), facts(1)], 0)
    rates.sample([facts(1)], 1)
    assert len(rates._rates) == 1
