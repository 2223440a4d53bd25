"""This process's counters in shared memory, for Python: by the names in cext/counters.pyx."""

from __future__ import annotations

from typing import Any

from flux.cext.counters import NAMES

_NUMBERS: dict[str, int] = {name: number for number, (name, _) in NAMES.items()}


class Counters:
    """A uint64 array of counters (Arena.my_counters), for what happens once a request or a session."""

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        self.values = values

    def add(self, name: str, count: int = 1) -> None:
        """Counts; the name is the metric's."""
        self.values[_NUMBERS[name]] += count

    def set(self, name: str, value: int) -> None:
        """Sets a gauge."""
        self.values[_NUMBERS[name]] = value

    def get(self, name: str) -> int:
        """The counter's value now."""
        return int(self.values[_NUMBERS[name]])
