"""Draw the plots of the page of benchmarks from ``benchmarks/results/*.json``."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, OTHER = "#d1495b", "#7d93a8"
COLORS = {"daskstats": OURS, "read limit": "#d9dee3"}
PEERS = ("daskstats", "numpy", "HEXRD loops", "dask.array", "LiberTEM", "read limit")
STATISTICS = ("max", "sum", "average", "std", "median", "percentile")

Rows = list[list[Any]]


def rows_of(file: Path, table: int = 0) -> Rows:
    """Return the rows of a table of a result."""
    return json.loads(file.read_text())["tables"][table]["rows"]


def axes(title: str, label: str, height: float = 3.4) -> Axes:
    figure = Figure(figsize=(8, height), layout="constrained")
    found = figure.add_subplot(title=title)
    found.set_ylabel(label)
    found.spines[["top", "right"]].set_visible(False)
    return found


def bars(ax: Axes, groups: list[str], series: dict[str, list[float]], colors: dict) -> None:
    """Draw a group of bars for each name, one bar for each series."""
    width = 0.8 / len(series)
    for place, (name, values) in enumerate(series.items()):
        left = [group + (place - (len(series) - 1) / 2) * width for group in range(len(groups))]
        ax.bar(left, values, width * 0.92, label=name, color=colors.get(name))
    ax.set_xticks(range(len(groups)), groups)
    ax.legend(ncols=3, frameon=False, fontsize=9)


def speed(results: Path) -> Axes:
    rows = rows_of(results / "compare-uint16.json")
    found = {(row[1], peer): row[3] for row in rows for peer in PEERS if row[2].startswith(peer)}
    ax = axes("240 frames of 1024 x 1024 uint16 in memory", "GB/s")
    series = {peer: [number(found.get((each, peer))) for each in STATISTICS] for peer in PEERS}
    shades = ["#34495e", "#5d7a94", "#8ca6bc", "#b9c9d6"]
    bars(ax, list(STATISTICS), series, dict(zip(PEERS[1:5], shades, strict=True)) | COLORS)
    ax.set_yscale("log")
    ax.set_ylim(0.05, 400)
    return ax


def memory(results: Path) -> Axes:
    rows = [row for row in rows_of(results / "memory.json") if row[2] != "8 at once"]
    ax = axes("Peak memory of series of ten times the limit", "peak / limit")
    for limit, color in zip(sorted({row[3] for row in rows}), ("#5d7a94", OURS), strict=False):
        chosen = [row for row in rows if row[3] == limit and row[2] == "plain"]
        found = {row[1]: row[6] for row in chosen if row[0] == rows[0][0]}
        ax.plot(list(found), list(found.values()), "o", color=color, label=f"limit {limit} MiB")
    ax.axhline(1, color="#34495e", linewidth=1)
    ax.set_ylim(0, 1.1)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    return ax


def steps(results: Path) -> Axes:
    rows = [row for row in rows_of(results / "steps.json") if row[2] != "plain"]
    ax = axes("The cost of intermediate images", "time / time of the plain call")
    for statistic, color in (("max", "#34495e"), ("average", "#8ca6bc"), ("median", OURS)):
        for series, style in ((rows[0][0], "o--"), (rows[-1][0], "o-")):
            chosen = [row for row in rows if row[:2] == [series, statistic]]
            ratios = [row[4] for row in chosen]
            label = f"{statistic}, {series.split()[0]} frames"
            ax.plot([str(row[2]) for row in chosen], ratios, style, color=color, label=label)
    ax.set_xlabel("images")
    ax.set_ylim(bottom=0)
    ax.legend(ncols=3, frameon=False, fontsize=9, loc="lower right")
    return ax


def files(results: Path) -> Axes:
    rows = rows_of(results / "files.json")
    ax = axes("The maximum of HDF5 files, by filter", "GB/s")
    series = {"daskstats": [row[1] for row in rows], "by h5py": [row[2] for row in rows]}
    bars(ax, [row[0] for row in rows], series, {"daskstats": OURS, "by h5py": OTHER})
    return ax


def workers(results: Path) -> Axes:
    rows = rows_of(results / "cluster.json", 5)
    ax = axes("Workers of a cluster, frames that take their time", "speed-up")
    counts = [row[1] for row in rows]
    ax.plot(counts, [row[3] for row in rows], "o-", color=OURS, label="measured")
    ax.plot(counts, counts, "--", color=OTHER, label="one for each worker")
    ax.set_xlabel("workers")
    ax.legend(frameon=False, fontsize=9)
    return ax


def number(value: object) -> float:
    """Return a figure; nothing where a library has no such statistic."""
    return value if isinstance(value, int | float) else float("nan")


def draw_all(results: Path, target: Path) -> None:
    """Draw each plot as an SVG file."""
    target.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "daskstats", "font.size": 10}):
        for draw in (speed, memory, steps, files, workers):
            figure = draw(results).get_figure()
            figure.savefig(target / f"{draw.__name__}.svg", metadata={"Date": None})
