"""Growth with frames and pixels: time, size of graphs, overhead of a block, start-up."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import common
import dask
import numpy as np
from report import Report

import daskstats as stats

STATISTICS = ("max", "average", "median")


class Zeros:
    """An image series of one frame, repeated."""

    def __init__(self, nframes: int, shape: tuple[int, int], dtype: Any = "uint16") -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._nframes = nframes
        self._frame = np.zeros(shape, dtype)

    def __len__(self) -> int:
        return self._nframes

    def __getitem__(self, index: int) -> np.ndarray:
        return self._frame


def growth(tiny: bool, repeats: int) -> Iterator[list[Any]]:
    """Yield times against frames, and against pixels: linear if the last column stays the same."""
    unit, side = (4, 32) if tiny else (60, 1024)
    by_frames = [(unit * factor, side, side) for factor in (1, 2, 4, 8)]
    by_pixels = [(unit, side * factor, side) for factor in (1, 2, 4, 8)]
    for name, shapes in (("frames", by_frames), ("pixels", by_pixels)):
        largest = common.series("uint16", shapes[-1])
        cut = {shape: np.ascontiguousarray(largest[: shape[0], : shape[1]]) for shape in shapes}
        for statistic in STATISTICS:
            best = common.in_turn(computations(statistic, cut), repeats)
            each = [best[shape] / cut[shape].nbytes for shape in shapes]
            for shape, cost in zip(shapes, each, strict=True):
                label = " x ".join(map(str, shape))
                yield [name, statistic, label, best[shape], 1e-9 / cost, cost / each[0]]


def computations(statistic: str, arrays: dict[Any, np.ndarray]) -> dict[Any, Callable]:
    function = getattr(stats, statistic)
    return {name: lambda a=array: function(a).compute() for name, array in arrays.items()}


def building(tiny: bool, repeats: int) -> Iterator[list[Any]]:
    """Yield the time of a call, which builds the graph and reads nothing."""
    for nframes in (1000, 10_000) if tiny else (1000, 10_000, 100_000, 1_000_000):
        series = Zeros(nframes, (2048, 2048))
        calls: dict[str, Callable] = {
            "max(ims)": partial(stats.max, series),
            "average(ims)": partial(stats.average, series),
            'partials(ims, "max", 1000)': partial(stats.partials, series, "max", 1000),
        }
        best = common.in_turn(calls, repeats)
        for name, call in calls.items():
            yield [name, f"{nframes:,}", len(call().__dask_graph__()), best[name]]


def overhead(tiny: bool, repeats: int) -> Iterator[list[Any]]:
    """Yield the overhead of a block: frames of 16 pixels, a block to each step."""
    few, many = (10, 50) if tiny else (100, 2100)
    frames = np.zeros((many, 4, 4), "u2")
    for statistic in ("max", "average"):
        function = getattr(stats, f"{statistic}_iter")
        runs = {count: lambda n=count, f=function: list(f(frames, n)) for count in (few, many)}
        best = common.in_turn(runs, repeats)
        each = (best[many] - best[few]) / (many - few)
        yield [f"{statistic}_iter, {many} blocks, with its image", 1e3 * each]
    lazy = stats.partials(frames, "max", many)[-1]
    best = common.in_turn({0: lazy.compute}, repeats)[0]
    yield [f"max, {many} blocks, no images", 1e3 * best / many]


IMPORT = """
import time; start = time.perf_counter()
import {before}
middle = time.perf_counter()
import {after}
print(middle - start, time.perf_counter() - middle)
"""
LOADED = """
import sys, dask.array
before = set(sys.modules)
import daskstats
heavy = {"numba", "distributed", "zarr", "matplotlib", "h5py", "xarray", "pandas", "scipy"}
print(*sorted(heavy & set(sys.modules) - before))
"""
FIRST_CALL = """
import time, numpy as np, daskstats
frames = np.arange(10 * 64 * 64, dtype="u2").reshape(10, 64, 64)
for _ in range(2):
    start = time.perf_counter()
    daskstats.{statistic}(frames).compute()
    print(time.perf_counter() - start)
"""


def fresh(code: str, count: int) -> list[list[str]]:
    """Return the words that a program prints, each time in a process of its own.

    Of several, the first is left out: it may have to compile, or to read from a cold disk.
    """
    command = [sys.executable, "-c", code]
    options = {"capture_output": True, "text": True, "check": True, "env": common.environment()}
    outputs = [subprocess.run(command, **options).stdout.split() for _ in range(count)]
    return outputs[min(1, count - 1) :]


def start_up(tiny: bool) -> Iterator[list[Any]]:
    """Yield times of fresh processes: imports, help, and the first call of a small series."""
    count = 1 if tiny else 10
    runs = fresh(IMPORT.format(before="dask.array", after="daskstats"), count)
    yield ["import dask.array", middle(runs, 0)]
    yield ["import daskstats, after dask.array", middle(runs, 1)]
    empty = least([sys.executable, "-c", "pass"], count)
    for arguments in ("--help", "--version", "max --help", "max no_such_file.h5 -o image.npy"):
        taken = least([sys.executable, "-m", "daskstats", *arguments.split()], count)
        yield [f"daskstats {arguments}, more than an empty Python", taken - empty]
    loaded = " ".join(fresh(LOADED, 1)[0])
    yield [f"also imported then: {loaded or 'nothing heavy'}", None]
    for statistic in ("max",) if tiny else ("max", "average", "std", "median"):
        if hasattr(stats, statistic):
            runs = fresh(FIRST_CALL.format(statistic=statistic), count)
            yield [f"{statistic} of 10 x 64 x 64, first call", middle(runs, 0)]
            yield [f"{statistic} of 10 x 64 x 64, second call", middle(runs, 1)]


def least(command: list[str], count: int) -> float:
    """Return the shortest time of a program in milliseconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, env=common.environment())
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def middle(runs: list[list[str]], index: int) -> float:
    """Return the median in milliseconds."""
    return 1e3 * statistics.median(float(run[index]) for run in runs)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    options = parser.parse_args()
    repeats = 1 if options.tiny else 3
    report = Report(
        [f"{common.THREADS} threads, best of {repeats}; start-up: medians of fresh processes"]
    )
    started = time.perf_counter()
    with dask.config.set(num_workers=common.THREADS):
        for title, header, rows in (
            ("Growth", GROWTH, growth(options.tiny, repeats)),
            ("Building the graph", BUILDING, building(options.tiny, repeats)),
            ("Overhead", ("call", "ms per block"), overhead(options.tiny, repeats)),
            ("Start-up", ("step", "ms"), start_up(options.tiny)),
        ):
            report.add(title, header, rows)
    report.save(options.json)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


GROWTH = ("against", "statistic", "series", "seconds", "GB/s", "per byte, of the first")
BUILDING = ("call", "frames", "tasks", "seconds")


if __name__ == "__main__":
    main()
