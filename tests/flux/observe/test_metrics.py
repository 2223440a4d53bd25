from __future__ import annotations

from collections.abc import Iterator

import pytest
from flux.cext.arena import Arena
from flux.cext.counters import NAMES
from prometheus_client.parser import text_string_to_metric_families

from flux.observe.metrics import ArenaCollector, exposition, process_name


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(slots=4, hls_bytes=1 << 20)
    yield made
    made.close()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_by_process(arena: Arena) -> None:
    for number in (0, 3, 62):
        arena.join(number)
        arena.my_counters[384] = 10 + number
        arena.my_counters[387] = 100 + number
    found = samples(exposition(ArenaCollector(arena)).decode())
    for number, name in ((0, "worker 0"), (3, "worker 3"), (62, "admin")):
        assert found["flux_worker_sessions", (("process", name),)] == 10 + number
        assert found["flux_worker_publishers_refused_total", (("process", name),)] == 100 + number
    assert ("flux_worker_sessions", (("process", "worker 1"),)) not in found
    shown = {name for name, _ in found}
    assert {name for name, _ in NAMES.values()} <= shown


def test_processes(arena: Arena) -> None:
    arena.join(2)
    arena.join(2)
    found = samples(exposition(ArenaCollector(arena)).decode())
    assert found["flux_process_starts_total", (("process", "worker 2"),)] == 2
    assert 0 <= found["flux_process_heartbeat_age_seconds", (("process", "worker 2"),)] < 60


def test_streams(arena: Arena) -> None:
    arena.join(0)
    live, _ = arena.claim("live/a", 1)
    arena.go_live(live, 1)
    arena.add_viewers(live, 5)
    away, _ = arena.claim("live/b", 1)
    arena.go_live(away, 1)
    arena.go_idle(away, 0)
    arena.claim("live/c", 1)
    sampled = [
        {"name": "live/a", "bitrate_bps": 1.5e6, "fps": 25.0},
        {"name": "live/b", "bitrate_bps": None, "fps": None},
    ]
    found = samples(exposition(ArenaCollector(arena, sampled)).decode())
    a, b = (("stream", "live/a"),), (("stream", "live/b"),)
    assert found["flux_stream_live", a] == 1
    assert found["flux_stream_live", b] == 0
    assert found["flux_stream_viewers", a] == 5
    assert found["flux_stream_publishers_total", a] == 1
    assert found["flux_stream_bitrate_bps", a] == 1.5e6
    assert found["flux_stream_fps", a] == 25
    assert ("flux_stream_bitrate_bps", b) not in found
    assert not [name for name, labels in found if ("stream", "live/c") in labels]
    assert found["flux_arena_slots", ()] == 4
    assert found["flux_arena_slots_used", ()] == 3


@pytest.mark.parametrize(
    ("number", "name"), [(0, "worker 0"), (17, "worker 17"), (62, "admin"), (63, "supervisor")]
)
def test_names(number: int, name: str) -> None:
    assert process_name(number) == name
