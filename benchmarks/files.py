"""Speed of HDF5 files: the maximum, at the places of the chunks and by h5py, beside decoding alone.

h5py decodes one chunk at a time. The limit is the time in which as many threads read and decode all
chunks, each into one buffer, and compute nothing. A virtual dataset shows the chunks of other
files, and should be as fast as one file that has them all. Frames that a sequence hands out, in any
memory order, should be nearly as fast as an array in memory.
"""

import resource
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

VIRTUAL_HEADER = (
    "filter",
    "files",
    "daskstats, GB/s",
    "one plain file",
    "by h5py",
    "of plain",
    "goal",
    "met",
)

SOURCES = 4

ORDER_HEADER = (
    "frame of a sequence",
    "daskstats, GB/s",
    "array in memory",
    "ratio",
    "goal",
    "met",
    "page faults per frame",
)

# Functions that return a frame of an array, and the least ratio to the speed of the array itself.
ORDERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float | None]] = {
    "rows of the array": (lambda frame: frame, 0.9),
    "transposed": (np.transpose, 0.5),
    "mirrored": (np.fliplr, 0.5),
    "a copy": (np.copy, None),
    "a transposed copy": (lambda frame: frame.copy().T, None),
}


class Frames:
    """An image series as strict as HEXRD's, of the frames of an array."""

    def __init__(self, frames: np.ndarray, fetch: Callable[[np.ndarray], np.ndarray]) -> None:
        self._frames, self._fetch = frames, fetch
        self.shape, self.dtype = fetch(frames[0]).shape, frames.dtype

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._fetch(self._frames[index])


def write(path: Path, frames: np.ndarray, options: dict[str, Any]) -> None:
    chunks = (1, *frames.shape[1:])
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=frames, chunks=chunks, **options)


def maximum(ims: Any) -> np.ndarray:
    return stats.max(ims).compute()


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


def show(place: Path, name: str, frames: np.ndarray, parts: Sequence[slice]) -> Path:
    """Write a virtual dataset; its parts are in as many files, compressed by a filter."""
    layout = h5py.VirtualLayout(frames.shape, frames.dtype)
    for number, part in enumerate(parts):
        path = place / f"part_{number}.h5"
        write(path, frames[part], FILTERS[name][0])
        layout[part] = h5py.VirtualSource(path.name, "data", frames[part].shape)
    path = place / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
    return path


def virtual_lines(frames: np.ndarray, place: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table of virtual datasets."""
    expected, length, goal = frames.max(axis=0), -(-len(frames) // SOURCES), 0.9
    kinds = {
        "one after the other": [
            slice(first, first + length) for first in range(0, len(frames), length)
        ],
        "taken in turn": [slice(number, None, SOURCES) for number in range(SOURCES)],
    }
    for name in ("none", "gzip, shuffle", "bitshuffle, lz4"):
        plain = place / "plain.h5"
        write(plain, frames, FILTERS[name][0])
        for kind, parts in kinds.items():
            ours = partial(maximum, show(place, name, frames, parts))
            assert np.array_equal(ours(), expected), (name, kind)
            best = common.in_turn({"ours": ours, "plain": partial(maximum, plain)}, repeats)
            best["h5py"] = common.seconds(by_h5py(ours))  # once: it may take ten seconds
            ratio = best["plain"] / best["ours"]
            speeds = [frames.nbytes / seconds / 1e9 for seconds in best.values()]
            yield [name, kind, *speeds, ratio, goal, reached(ratio, goal)]


def page_faults(function: Callable[[], Any]) -> int:
    """Return how many pages of memory a call makes the system map."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    function()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def order_lines(frames: np.ndarray, place: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table of sequences, by the memory order of their frames."""
    for name, (fetch, goal) in ORDERS.items():
        ours = partial(maximum, Frames(frames, fetch))
        assert np.array_equal(ours(), fetch(frames.max(axis=0))), name
        best = common.in_turn({"ours": ours, "array": partial(maximum, frames)}, 3 * repeats)
        ratio = best["array"] / best["ours"]
        speeds = [frames.nbytes / seconds / 1e9 for seconds in best.values()]
        yield [name, *speeds, ratio, goal, reached(ratio, goal), page_faults(ours) / len(frames)]


def main() -> None:
    measure_files(
        __doc__,
        SHAPE,
        [
            (None, HEADER, lines),
            ("Virtual datasets of four files", VIRTUAL_HEADER, virtual_lines),
            ("Frames that a sequence hands out one by one", ORDER_HEADER, order_lines),
        ],
        ("numpy", "h5py", "hdf5plugin", "imagecodecs", "numcodecs"),
    )


if __name__ == "__main__":
    main()
