"""Cost of intermediate images: the time of 1 to 200 steps against the plain call.

Also how early the first of them comes. The first of n frame-wise images should be there within
2/n of the time of all.
"""

import time
from collections.abc import Iterator
from typing import Any

import common
import dask
import numpy as np
from report import Report

import daskstats as stats

STATISTICS = ("max", "average", "median")
STEPS = (1, 10, 60, 200)

HEADER = ("series", "statistic", "steps", "seconds", "of the plain call", "first image after")


def shapes(tiny: bool, quick: bool) -> list[tuple[int, int, int]]:
    """Return the shapes of the series: all of them in memory."""
    if tiny:
        return [common.TINY_SHAPE]
    if quick:
        return [(60, 1024, 1024)]
    return [common.SHAPE, (3 * common.SHAPE[0], *common.SHAPE[1:])]


def lines(frames: np.ndarray, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table for one series."""
    label = " x ".join(map(str, frames.shape))
    for statistic in STATISTICS:
        total = frames.shape[1] if statistic == "median" else len(frames)
        counts = sorted({min(count, total) for count in STEPS})
        plain, times, first = timed(frames, statistic, counts, repeats)
        yield [label, statistic, "plain", plain, None, None]
        for count in counts:
            yield [
                label,
                statistic,
                count,
                times[count],
                times[count] / plain,
                f"{first[count]:.3g} s, {first[count] / times[count]:.1%} of all",
            ]


def timed(
    frames: np.ndarray, statistic: str, counts: list[int], repeats: int
) -> tuple[float, dict[int, float], dict[int, float]]:
    """Return the best seconds of the plain call, of each number of steps, and to a first image."""
    first: dict[int, float] = {}
    iterate = getattr(stats, f"{statistic}_iter")

    def run(count: int) -> None:
        start = time.perf_counter()
        for index, _ in enumerate(iterate(frames, count)):
            if index == 0:
                took = time.perf_counter() - start
                first[count] = min(first.get(count, took), took)

    functions = {count: lambda count=count: run(count) for count in counts}
    functions[0] = lambda: getattr(stats, statistic)(frames).compute()
    best = common.in_turn(functions, repeats)
    return best[0], best, first


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer frames, fewer repeats")
    options = parser.parse_args()
    repeats = 2 if options.tiny or options.quick else 5
    report = Report([f"uint16 in memory, {common.THREADS} threads, best of {repeats}"])
    rows: list[list[Any]] = []
    with dask.config.set(num_workers=common.THREADS):
        for shape in shapes(options.tiny, options.quick):
            rows += lines(common.series("uint16", shape), repeats)
    report.add(None, HEADER, rows)
    report.save(options.json)


if __name__ == "__main__":
    main()
