"""The cost of storing states: runs with and without a checkpoint, in turn, at the default interval.

The interval is 30 s, so a run takes minutes. The share is that of the time by which a run with a
checkpoint is longer: the median over pairs of runs. The time of the commits themselves is measured
inside of the runs as well; it is not disturbed by other programs as the difference is.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import common
import dask
import numpy as np
from report import Report

import daskstats as stats
from daskstats.run.checkpoint import Checkpoint

# Frames of a run, and of those that are in memory; they come again and again.
FRAMES, DIFFERENT, SHAPE = 6400, 16, (2048, 2048)

# Seconds that a detector takes for a frame: a run of frames has three commits, and one at its end.
PACE = 0.02

# Percent of the time that committing may take.
GOAL = 2

HEADER = (
    *("statistic", "pairs", "without, s", "with, s", "commits", "of a commit, s", "MiB stored"),
    *("difference, %", "commits, %", "goal, %", "met"),
)

STATISTICS: list[Any] = ["average", "max", ["max", "average", "std"]]


class Scan:
    """Frames that come at the pace of a detector, from a few in memory."""

    dtype = np.dtype("u2")

    def __init__(self, nframes: int, shape: tuple[int, int], pace: float) -> None:
        self.shape, self._nframes, self._pace = shape, nframes, pace
        self._frames = common.series("u2", (DIFFERENT, *shape))

    def __len__(self) -> int:
        return self._nframes

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(self._pace)
        return self._frames[index % DIFFERENT].copy()


class Commits:
    """Notes the seconds of each commit that stores anything."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __enter__(self) -> "Commits":
        self._commit = commit = Checkpoint.commit

        def timed(checkpoint: Checkpoint) -> None:
            anything = checkpoint._latest is not None
            took = common.seconds(lambda: commit(checkpoint))
            self.seconds += [took] * anything

        Checkpoint.commit = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *exc_info: object) -> None:
        Checkpoint.commit = self._commit  # type: ignore[method-assign]


def run(scan: Scan, statistic: Any, checkpoint: Path | None) -> None:
    for _ in stats.snapshots(scan, statistic, min(200, len(scan)), checkpoint=checkpoint):
        pass


def compared(scan: Scan, statistic: Any, pairs: int) -> list[Any]:
    """Return a line of the table."""
    plain, stored, commits, nbytes = [], [], Commits(), 0
    run(Scan(4, scan.shape, 0), statistic, None)  # compiles
    for _ in range(pairs):
        plain.append(common.seconds(lambda: run(scan, statistic, None)))
        with tempfile.TemporaryDirectory() as place, commits:
            path = Path(place, "checkpoint")
            stored.append(common.seconds(lambda path=path: run(scan, statistic, path)))
            files = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            nbytes = max(nbytes, files)
    more = median(100 * (b - a) / a for a, b in zip(plain, stored, strict=True))
    inside = 100 * sum(commits.seconds) / sum(stored)
    name = ", ".join(statistic) if isinstance(statistic, list) else statistic
    times = median(plain), median(stored), len(commits.seconds), median(commits.seconds)
    met = "yes" if max(more, inside) <= GOAL else "no"
    return [name, pairs, *times, nbytes / (1 << 20), more, inside, GOAL, met]


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2, help="pairs of runs [2]")
    options = parser.parse_args()
    scan = Scan(20, (64, 64), 0.001) if options.tiny else Scan(FRAMES, SHAPE, PACE)
    rows, cols = scan.shape
    interval = dask.config.get("daskstats.checkpoint-interval")
    fact = f"{len(scan)} frames of {rows} x {cols} uint16, one in {scan._pace:g} s for each thread"
    report = Report([f"{fact}; {common.THREADS} threads; a commit each {interval}"])
    with dask.config.set(num_workers=common.THREADS):
        lines = [compared(scan, statistic, options.pairs) for statistic in STATISTICS]
    report.add(None, HEADER, lines)
    report.save(options.json)


if __name__ == "__main__":
    main()
