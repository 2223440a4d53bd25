from __future__ import annotations

import re
from pathlib import Path

from flux.cext.counters import NAMES

from tests.cext.arenas import small_arena

SOURCE = Path(__file__).parents[2] / "cext" / "counters.pxd"
DECLARED = {
    name: int(number)
    for name, number in re.findall(r"^    C_(\w+) = (\d+)$", SOURCE.read_text(), re.MULTILINE)
    if not name.endswith("_FIRST")
}


def test_each_counter_has_a_number_of_its_own():
    assert len(set(DECLARED.values())) == len(DECLARED)
    assert set(NAMES) == set(DECLARED.values()), "each is named and explained, and nothing else is"


def test_numbers_lie_in_the_slab():
    assert all(0 <= number < small_arena().my_counters.size for number in DECLARED.values())


def test_metric_names():
    names = [name for name, _ in NAMES.values()]
    assert len(set(names)) == len(names)
    for name, text in NAMES.values():
        assert re.fullmatch(r"flux(_[a-z0-9]+)+", name)
        assert text
        assert not text.endswith(".")
