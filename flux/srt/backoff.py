"""How long to wait before the next attempt: exponential back-off with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

K_MOST_DOUBLINGS = 32  # beyond these every bound that can be configured is reached


class Backoff:
    """Waits drawn evenly from 0 to a bound that doubles from `least_ms` up to `most_ms`.

    So many who lost the same server at once don't all come back at once. draw(a, b): a number between these.
    """

    def __init__(
        self, least_ms: int, most_ms: int, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._least_ms = least_ms
        self._most_ms = most_ms
        self._draw = draw
        self.failures = 0

    def next_ms(self) -> int:
        """After one more failure: the wait before the next attempt."""
        bound_ms = min(self._least_ms << min(self.failures, K_MOST_DOUBLINGS), self._most_ms)
        self.failures += 1
        return round(self._draw(0, bound_ms))

    def reset(self) -> None:
        """It went well: the next wait is a short one."""
        self.failures = 0
