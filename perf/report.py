"""Runs the scenarios and writes a Markdown report with plots and the machine's description.

A scenario is a module of this package with `run(quick: bool) -> dict`: `title`, `rows` (a list of dicts with
the same keys), `notes` (a list of lines), and optionally `plots`, a list of dicts: `title`, `x`, `y` (column
names), `by` (the column that tells the lines apart) and `log` (true for a logarithmic x axis); and `limits`:
(what, most that is allowed, measured), which the report shows first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

SCENARIOS = {
    "ring": "perf.ring",
    "fanout": "perf.fanout",
    "srt": "perf.srt",
    "latency": "perf.latency",
}


def machine() -> list[tuple[str, str]]:
    """What the figures were measured on, as (name, value) pairs."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line), "?"
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1048576
    return [
        ("processor", f"{model}, {len(os.sched_getaffinity(0))} CPUs"),
        ("memory", f"{memory:.0f} GiB"),
        ("load average at the start", f"{os.getloadavg()[0]:.2f}"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        (
            "rmem_max, wmem_max",
            ", ".join(
                Path(f"/proc/sys/net/core/{name}_max").read_text().strip() for name in ("rmem", "wmem")
            ),
        ),
    ]


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """`rows` as a Markdown table; the columns are the keys of the first."""
    if not rows:
        return "(no rows)"
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(cell(row.get(column, "")) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def limits(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured against what is promised, of all scenarios, as rows of a table."""
    return [
        {"what": what, "at most": most, "measured": measured, "holds": "yes" if measured <= most else "NO"}
        for result in results.values()
        for what, most, measured in result.get("limits", [])
    ]


def draw(result: dict[str, Any], plot: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    by = plot.get("by")
    for name in sorted({row[by] for row in result["rows"]}, key=str) if by else [None]:
        rows = [row for row in result["rows"] if by is None or row[by] == name]
        points = [
            (row[plot["x"]], row[plot["y"]]) for row in rows if isinstance(row[plot["y"]], (int, float))
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=str(name))
    if plot.get("log"):
        axes.set_xscale("log")
    axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"], ylim=(0, None))
    axes.grid(alpha=0.3)
    if by:
        axes.legend(title=by)
    figure.savefig(path)
    pyplot.close(figure)


def write(results: dict[str, dict[str, Any]], folder: Path, facts: list[tuple[str, str]]) -> Path:
    """Writes report.md, report.json and plots into `folder`; gives the report's path. facts: machine()."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Flux: benchmark report",
        "",
        time.strftime("Measured on %Y-%m-%d %H:%M UTC.", time.gmtime()),
        "",
    ]
    lines += [table([dict(zip(("what", "value"), pair, strict=True)) for pair in facts]), ""]
    if checked := limits(results):
        lines += ["## Limits", "", table(checked), ""]
    for name, result in results.items():
        lines += [f"## {result['title']}", "", table(result["rows"]), ""]
        for number, plot in enumerate(result.get("plots", [])):
            image = f"{name}-{number}.svg"
            draw(result, plot, folder / image)
            lines += [f"![{plot['title']}]({image})", ""]
        lines += [f"- {note}" for note in result.get("notes", [])] + [""]
    (folder / "report.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    report = folder / "report.md"
    report.write_text("\n".join(lines))
    return report


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    parser.add_argument("--out", type=Path, default=Path("perf/out"))
    args = parser.parse_args(argv)
    unknown = [name for name in args.scenarios if name not in SCENARIOS]
    if unknown:
        print(f"scripts/bench: no scenario {unknown[0]!r}; known: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    facts = machine()
    results = {}
    for name in args.scenarios or SCENARIOS:
        print(f"{name} …", file=sys.stderr, flush=True)
        results[name] = importlib.import_module(SCENARIOS[name]).run(args.quick)
        print(table(results[name]["rows"]), flush=True)
    print(f"report: {write(results, args.out, facts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
