"""The frame of benchmarks of files: size, repeats, a directory for the files, and the report."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import common
import dask
import numpy as np
from report import Report

Table = tuple[str | None, Sequence[str], Callable[[np.ndarray, Path, int], Iterable[list[Any]]]]
"""title, header, and a function of (frames, directory, repeats) that gives the rows"""


def reached(ratio: float, goal: float | None) -> str | None:
    """Return whether a ratio is at least as large as a goal, if there is one."""
    return None if goal is None else ("yes" if ratio >= goal else "no")


def measure_files(
    doc: str,
    shape: tuple[int, int, int],
    tables: Sequence[Table],
    packages: Sequence[str],
) -> None:
    """Run a benchmark of files, table by table."""
    options = common.parser(doc.splitlines()[0]).parse_args()
    shape, repeats = (common.TINY_SHAPE, 2) if options.tiny else (shape, 5)
    facts = [f"{' x '.join(map(str, shape))} uint16, {common.THREADS} threads, best of {repeats}"]
    report = Report(facts, packages)
    with tempfile.TemporaryDirectory() as place, dask.config.set(num_workers=common.THREADS):
        frames = common.series("uint16", shape)
        for title, header, lines in tables:
            report.add(title, header, list(lines(frames, Path(place), repeats)))
    report.save(options.json)
