"""Every scenario runs in its quick form, and its figures make sense."""

import math
import os

import pytest

from perf import fanout, latency, report, ring, srt
from perf.build import BuildError, binary
from perf.media import clip


@pytest.fixture(autouse=True)
def _tools():
    try:
        binary("srt_send")
        clip(2)
    except BuildError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def figures(result, *columns):
    """Those columns of all rows; each a finite number over 0."""
    values = [row[column] for row in result["rows"] for column in columns]
    assert values
    assert all(math.isfinite(value) and value > 0 for value in values), result["rows"]
    return values


def test_ring():
    result = ring.run(quick=True)
    assert {row["readers"] for row in result["rows"]} == {1, 4, 16}
    figures(result, "write ns/frame", "read ns/frame", "all readers GB/s", "write / memcpy", "read / memcpy")


def test_fanout():
    result = fanout.run(quick=True)
    figures(result, "Flux CPU s/Gbit", "raw CPU s/Gbit", "Flux / raw", "first byte p50 ms")
    for row in result["rows"]:
        assert row["faults"] == 0
        assert row["Gbit/s"] == pytest.approx(row["players"] * 0.002, rel=0.5)
    assert result["rows"][-1]["bytes a player"] < 4096


def test_srt():
    result = srt.run(quick=True)
    figures(result, "Flux CPU s/Gbit", "libsrt CPU s/Gbit", "Flux / libsrt", "raw CPU s/Gbit")
    for row in result["rows"]:
        assert row["Mbit/s"] == pytest.approx(row["libsrt Mbit/s"], rel=0.5)


def test_latency():
    result = latency.run(quick=True)
    figures(result, "frames seen", "raw p50 ms")
    for row in result["rows"]:
        assert row["faults"] == 0
        assert -5 < row["added p50 ms"] < 50


def test_report(tmp_path):
    rows = [{"x": 1, "y": 2.5, "by": "a"}, {"x": 10, "y": 3.5, "by": "a"}, {"x": 1, "y": 1.5, "by": "b"}]
    plots = [{"title": "A plot", "x": "x", "y": "y", "by": "by", "log": True}]
    text = report.write(
        {
            "some": {
                "title": "Some",
                "rows": rows,
                "notes": ["A note."],
                "plots": plots,
                "limits": [("one", 2, 1.5), ("two", 2, 3)],
            }
        },
        tmp_path,
        report.machine(),
    ).read_text()
    for part in (
        "| one | 2 | 1.5 | yes |",
        "| two | 2 | 3 | NO |",
        "## Some",
        "| 10 | 3.5 | a |",
        "![A plot](some-0.svg)",
        "- A note.",
        "| processor |",
    ):
        assert part in text
    assert (tmp_path / "some-0.svg").stat().st_size > 1000
    assert (tmp_path / "report.json").exists()


def test_an_unknown_scenario_is_named(capsys):
    assert report.main(["rung"]) == 2
    assert "'rung'; known: ring, fanout, srt, latency" in capsys.readouterr().err
