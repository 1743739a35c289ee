"""Speed of HDF5 files: the maximum, at the places of the chunks and by h5py, beside decoding alone.

h5py decodes one chunk at a time. The limit is the time in which as many threads read and decode all
chunks, each into one buffer, and compute nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import common
import h5py
import hdf5plugin
import numpy as np
from filebench import measure_files, reached

import daskstats as stats
from daskstats.formats import hdf5
from daskstats.series.opening import as_series

SHAPE = (200, 1024, 1024)

HEADER = (
    "filter",
    "daskstats, GB/s",
    "by h5py",
    "decoding alone",
    "ratio",
    "goal",
    "met",
    "of alone",
)

# Filters, and how many times as fast as by h5py the maximum should be.
FILTERS: dict[str, tuple[dict[str, Any], float | None]] = {
    "none": ({}, None),
    "gzip": ({"compression": "gzip"}, 5),
    "gzip, shuffle": ({"compression": "gzip", "shuffle": True}, 5),
    "bitshuffle, lz4": (dict(hdf5plugin.Bitshuffle(cname="lz4")), 1.9),
    "lz4": (dict(hdf5plugin.LZ4()), 1.5),
    "blosc": (dict(hdf5plugin.Blosc("lz4")), 1.5),
    "zstd": (dict(hdf5plugin.Zstd()), 1.5),
}


def write(path: Path, frames: np.ndarray, options: dict[str, Any]) -> None:
    chunks = (1, *frames.shape[1:])
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=frames, chunks=chunks, **options)


def maximum(path: Path) -> np.ndarray:
    return stats.max(path).compute()


def by_h5py(call: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """Return a call that has h5py read everything."""

    def slow() -> np.ndarray:
        with mock.patch.object(hdf5, "find_places", return_value="as the peer"):
            return call()

    return slow


def decode_alone(path: Path, count: int) -> Callable[[], Any]:
    """Return a call that reads and decodes all frames of a file, and keeps none."""
    series = as_series(path)

    def decode(numbers: Sequence[int]) -> None:
        for number in numbers:
            series.read(number, number + 1, 0, series.shape[0])

    return lambda: common.in_threads(decode, count)


def lines(frames: np.ndarray, place: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table."""
    expected = frames.max(axis=0)
    for name, (options, goal) in FILTERS.items():
        path = place / f"{name}.h5"
        write(path, frames, options)
        ours = partial(maximum, path)
        functions = {
            "ours": ours,
            "h5py": by_h5py(ours),
            "alone": decode_alone(path, len(frames)),
        }
        for function in (ours, functions["h5py"]):
            assert np.array_equal(function(), expected), name
        best = common.in_turn(functions, repeats)
        path.unlink()
        ratio = best["h5py"] / best["ours"]
        met = reached(ratio, goal)
        speeds = [frames.nbytes / best[who] / 1e9 for who in functions]
        yield [name, *speeds, ratio, goal, met, best["alone"] / best["ours"]]


def main() -> None:
    measure_files(
        __doc__, SHAPE, HEADER, lines, ("numpy", "h5py", "hdf5plugin", "imagecodecs", "numcodecs")
    )


if __name__ == "__main__":
    main()
