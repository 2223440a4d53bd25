"""What the supervisor does later: a heap of monotonic deadlines."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count


class Timer:
    """Something that runs once. cancel() keeps it from running."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], None]) -> None:
        self.run: Callable[[], None] | None = run

    def cancel(self) -> None:
        self.run = None


class Timers:
    """Deadlines in seconds of time.monotonic()."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def after(self, seconds: float, run: Callable[[], None]) -> Timer:
        """Runs `run` once, `seconds` from now."""
        timer = Timer(run)
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def every(self, seconds: float, run: Callable[[], None]) -> None:
        """Runs `run` again and again."""

        def again() -> None:
            self.after(seconds, again)
            run()

        self.after(seconds, again)

    def wait_s(self) -> float | None:
        """Seconds until the first deadline; None: there is none."""
        while self._heap and self._heap[0][2].run is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def due(self) -> Callable[[], None] | None:
        """Takes out what is due first, to be run by the caller; None: nothing is."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            run, timer.run = timer.run, None
            if run is not None:
                return run
        return None
