"""HDF5 datasets, given as an object, as ``file.h5``, or as ``file.h5::/path/to/dataset``."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..packages import loaded
from ..series.base import Source
from ..series.files import FileSource, restore
from .hdf5_files import NO_OBJECT, absolute, import_h5py, open_file
from .hdf5_links import follow
from .hdf5_lock import Parts, hdf5_lock, watch_starts
from .hdf5_search import find_datasets, find_image, reshaping
from .hdf5_storage import Storage, span
from .hdf5_virtual import inspect

if TYPE_CHECKING:
    import h5py

if TYPE_CHECKING:
    pass


class Hdf5Source(FileSource):
    """A dataset (frames, rows, cols), or (rows, cols) for a single frame.

    Datasets of one group that are numbered ``data_000001``, ``data_000002``, ... are one series.
    """

    has_datasets = True
    handles = ("_parts",)
    uses_h5py = True

    def __init__(
        self, path: str | os.PathLike, dataset: str = "", only_image: bool = False
    ) -> None:
        import_h5py(path)
        FileSource.__init__(self, path, dataset=dataset)
        with hdf5_lock():
            self._names, parts, files = _opened(
                self.path,
                lambda file: find_image(file, self.path) if only_image else self._find(file),
            )
            self.parameters = {"dataset": self._names}
            self._set_parts(parts, files)

    def _find(self, file: h5py.File) -> tuple[str, ...]:
        """Return the names of the datasets; search for them if none is named."""
        h5py = import_h5py(self.path)
        name = self.parameters["dataset"]
        if not name:
            return find_datasets(file, self.path)
        node = None
        with suppress(*NO_OBJECT):  # `follow` names the fault
            node = file[name]
        return _in_group(file, name, self.path) if isinstance(node, h5py.Group) else (name,)

    def _set_parts(self, parts: list[Storage], files: list[Path]) -> None:
        """Take over shape, dtype and units of open datasets, and the files they are in."""
        datasets = [part.dataset for part in parts]
        first = datasets[0]
        self._axes = [axes_of(dataset.shape) for dataset in datasets]
        counts = [
            1 if axes[0] is None else dataset.shape[axes[0]]
            for dataset, axes in zip(datasets, self._axes, strict=True)
        ]
        self._edges = list(accumulate(counts, initial=0))
        frame = (first.shape[axis] for axis in self._axes[0][1:])
        self.set_layout((self._edges[-1], *frame), first.dtype)
        watch_starts()
        self._parts = Parts(parts)
        found = [path for part in self._parts for path in part.files]
        self._files = tuple(dict.fromkeys([self.path, *files, *found]))
        self._layout = [(dataset.shape, dataset.dtype.str) for dataset in datasets]
        self._set_units()

    def _set_units(self) -> None:
        parts = self._parts
        groups = [
            first + np.arange(last - first) // part.frame_unit * part.frame_unit
            for part, (first, last) in zip(parts, pairwise(self._edges), strict=True)
        ]
        unit = span(np.concatenate(groups), np.arange(self.nframes))
        self.frame_unit = max(1, min(unit, self.nframes))
        units = {part.row_unit for part in parts}
        self.row_unit = units.pop() if len(units) == 1 else None
        self.buffers = max(part.buffers for part in parts)

    def open(self) -> None:
        with hdf5_lock():
            _, parts, _ = _opened(self.path, lambda file: self._names)
            for part, layout in zip(parts, self._layout, strict=True):
                self._check_unchanged(part.dataset, *layout)
            self._parts = Parts(parts)

    def _check_unchanged(self, dataset: h5py.Dataset, shape: tuple[int, ...], dtype: str) -> None:
        """Refuse a dataset that is not the one of the call; one that is being written may grow."""
        found = dataset.shape, dataset.dtype.str
        grown = (
            dataset.file.swmr_mode
            and len(found[0]) == len(shape)
            and all(now >= then for now, then in zip(found[0], shape, strict=True))
        )
        if found[1] != dtype or (found[0] != shape and not grown):
            raise ValueError(
                f"{self.path} has changed since the call: dataset {dataset.name!r} has shape "
                f"{found[0]} and dtype {found[1]}, and had shape {shape} and dtype {dtype}"
            )

    def files(self) -> tuple[Path, ...]:
        return self._files

    def frames_without_data(self) -> np.ndarray:
        if "_missing" not in vars(self):
            with hdf5_lock():
                written = [part.written() for part in self._parts]
            self._missing = np.flatnonzero(~np.concatenate(written)).astype(np.int64)
        return self._missing

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        parts, blocks = self._parts, []
        for part, axes, (begin, end) in zip(parts, self._axes, pairwise(self._edges), strict=True):
            if begin < stop and end > start:
                window = max(start, begin) - begin, min(stop, end) - begin
                blocks.append(_read(part, axes, window, (first, last)))
        return blocks


class Hdf5DatasetSource(Hdf5Source):
    """An open h5py dataset; where it is sent, its file is opened again by path."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        with hdf5_lock():
            FileSource.__init__(self, absolute(dataset.file), dataset=dataset.name)
            self._names = (dataset.name,)
            self._set_parts([_checked(dataset, self.path)], [])

    @classmethod
    def accepts(cls, ims: object) -> bool:
        dataset = loaded("h5py", "Dataset")
        return dataset is not None and isinstance(ims, dataset)

    def __dask_tokenize__(self) -> tuple:
        # A file in memory has a name but no fingerprint.
        return (FileSource if self.path.is_file() else Source).__dask_tokenize__(self)

    def __reduce__(self) -> tuple:
        if not self.path.is_file():
            raise TypeError(
                f"dataset {self._names[0]!r} is not in a file that can be opened again: "
                f"save it to a file and give its path"
            )
        return restore, (Hdf5Source, self.__getstate__())


Opened = tuple[tuple[str, ...], list[Storage], list[Path]]


def _opened(path: Path, find: Callable[[h5py.File], tuple[str, ...]]) -> Opened:
    """Open datasets of a file.

    Parameters
    ----------
    path : path
    find : callable
        Returns their names, given the open file.

    Returns
    -------
    names : tuple of str
    parts : list of Storage
    files : list of paths
        That links on the way lead through.
    """

    def open_all(swmr: bool) -> Opened:
        file = open_file(path, swmr)
        names = find(file)
        found = [follow(file, name) for name in names]
        parts = [_checked(dataset, path) for dataset, _ in found]
        return names, parts, list(dict.fromkeys(passed for _, files in found for passed in files))

    try:
        return open_all(swmr=False)
    except BlockingIOError as error:
        # Without its traceback, which would keep open all files that are to be opened again.
        problem = BlockingIOError(str(error))
    try:
        # This file, or one behind a link, is being written: in HDF5's mode for readers?
        return open_all(swmr=True)
    except (OSError, ValueError):
        raise problem from None


def _checked(dataset: h5py.Dataset, path: Path) -> Storage:
    """Return how a dataset is stored, or refuse one that is no series."""
    _check_dimensions(dataset, path)
    return inspect(dataset)


def _in_group(file: h5py.File, name: str, path: Path) -> tuple[str, ...]:
    """Return the names of the series in a group that was named."""
    group = file[name]
    try:
        return find_datasets(group, path, name if name.startswith("/") else f"/{name}")
    except ValueError as error:
        raise ValueError(f"{path} has no dataset {name!r}: {error}") from None


def _read(part: Storage, axes: tuple, frames: tuple[int, int], rows: tuple[int, int]) -> np.ndarray:
    """Read rows of frames of one dataset, and check that all files it refers to are still there."""
    with hdf5_lock():  # which every attribute of a dataset needs as well
        index: list[int | slice] = [0] * part.dataset.ndim
        if axes[0] is not None:
            index[axes[0]] = slice(*frames)
        index[axes[1]], index[axes[2]] = slice(*rows), slice(None)
        block = part.dataset[tuple(index)]
    part.check(*frames)
    return block[None] if axes[0] is None else block


def axes_of(shape: tuple[int, ...]) -> tuple[int | None, int, int]:
    """Return the axes of frames, rows and columns; all others have length one.

    >>> axes_of((25, 1, 8, 6)), axes_of((8, 6)), axes_of((1, 1, 8, 6))
    ((0, 2, 3), (None, 0, 1), (1, 2, 3))
    """
    if len(shape) == 2:
        return None, 0, 1
    last = len(shape) - 1
    lead = [axis for axis in range(last - 1) if shape[axis] != 1]
    return (lead[0] if lead else last - 2), last - 1, last


def _check_dimensions(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset that is no series of frames."""
    shape = dataset.shape
    problem = (
        f"an image series is three-dimensional (frames, rows, cols), "
        f"got dataset {dataset.name!r} of shape {shape}"
    )
    if shape is None or len(shape) < 2:
        raise ValueError(problem)
    if len(shape) <= 3:
        return
    kept = axes_of(shape)
    if any(length != 1 for axis, length in enumerate(shape) if axis not in kept):
        colour = " (or take one colour of it)" if shape[-1] in (3, 4) else ""
        raise ValueError(f"{problem}: {reshaping(path, dataset.name, shape)}{colour}")


# ---------------------------------------------------------------------- single images


def image_series(path: Path, dataset: str = "") -> Hdf5Source:
    """Open the dataset of an image; if none is named, the only image in the file."""
    return Hdf5Source(path, dataset, only_image=not dataset)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    series = image_series(path, dataset)
    if len(series) != 1:
        raise ValueError(f"{path} has {len(series)} images, expected one")
    (block,) = series.read(0, 1, 0, series.shape[0])
    return block[0]
