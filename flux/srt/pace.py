"""How often an SRT socket is read."""

from __future__ import annotations

from flux.config.schema import Config

K_CALM_INTERVAL_US = 10_000  # the interval of SRT's ACKs


def calm_interval_us(config: Config) -> int:
    """The longest time between two reads under load, while nothing is lost; µs.

    Media are no later for it than half of the time over which writes to players are gathered anyhow.
    """
    return min(K_CALM_INTERVAL_US, config.http.write_interval_ms * 1000 // 2)
