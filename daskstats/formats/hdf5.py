"""HDF5 files, given as ``file.h5``, or as ``file.h5::/path/to/dataset``."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..series.base import Choice, check_native
from ..series.files import FileSource, Growth
from ..series.leading import boxes, flat_shape, lengths
from ..series.piece import Piece
from .hdf5_chunks import DamagedChunkError
from .hdf5_contents import kind_of
from .hdf5_files import import_h5py, open_file
from .hdf5_growth import digest_of_frame, growth_of
from .hdf5_links import follow
from .hdf5_lock import Parts, hdf5_lock, watch_starts
from .hdf5_named import find_named
from .hdf5_places import find_places
from .hdf5_search import find_image
from .hdf5_sources import check_shape
from .hdf5_storage import Storage, span, storage_text
from .hdf5_virtual import inspect
from .placed import only_image

if TYPE_CHECKING:
    import h5py


class Hdf5Source(FileSource):
    """A dataset (..., rows, cols), or several; all leading axes count as frames.

    Datasets of one group that are numbered ``data_000001``, ``data_000002``, ... are one series,
    and so are the images of a group, and the datasets that match a pattern.
    """

    has_datasets = True
    handles = ("_parts",)
    uses_h5py: bool = True
    """whether h5py's lock is needed for reads, also if the file does not change"""
    converted: np.dtype | None = None
    """the dtype that the library converts to while it reads, None for that of the datasets"""
    apart_files: tuple[Path, ...] = ()
    """the file of each dataset, where they are in several"""

    def __init__(
        self, path: str | os.PathLike, dataset: str = "", only_image: bool = False
    ) -> None:
        import_h5py(path)
        FileSource.__init__(self, path, dataset=dataset)
        with hdf5_lock():
            find = find_image if only_image else partial(find_named, name=dataset)
            self.choice, parts, files = opened(self.path, partial(find, path=self.path))
            self.parameters = {"dataset": self.choice.names}
            self._set_parts(parts, files)

    def _set_parts(self, parts: list[Storage], files: list[Path]) -> None:
        """Take over shape, dtype and units of open datasets, and the files they are in."""
        datasets = [part.dataset for part in parts]
        _check_alike(datasets, self.path)
        first = datasets[0]
        self._leads = [dataset.shape[:-2] for dataset in datasets]
        self.lead = self._leads[0] if len(datasets) == 1 else None
        counts = [lengths(dataset.shape)[0] for dataset in datasets]
        self._edges = list(accumulate(counts, initial=0))
        self.set_layout((self._edges[-1], *first.shape[-2:]), self.converted or first.dtype)
        watch_starts()
        self._parts = Parts(parts)
        found = [path for part in self._parts for path in part.files]
        self._files = tuple(dict.fromkeys([self.path, *files, *found]))
        self.uses_h5py = not all(map(self._has_places, parts))
        self._layout = [(dataset.shape, dataset.dtype.str) for dataset in datasets]
        self._set_units()

    def _has_places(self, part: Storage) -> bool:
        """Whether a part is read without h5py as long as its file does not change."""
        return self.converted is None and not isinstance(part.places, str)

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
        self._cuts = parts[0].edges if len(parts) == 1 else None

    def open(self) -> None:
        with hdf5_lock():
            parts = self._open_all()
            for part, layout in zip(parts, self._layout, strict=True):
                self._check_unchanged(part.dataset, *layout)
            self._parts = Parts(parts)

    def _open_all(self) -> list[Storage]:
        """Open the datasets of the call again."""
        paths = self.apart_files or (self.path,) * len(self.choice.names)
        parts: dict[int, Storage] = {}
        for path in dict.fromkeys(paths):
            indices = [index for index, each in enumerate(paths) if each == path]
            names = tuple(self.choice.names[index] for index in indices)
            parts |= zip(indices, opened(path, Choice(names, ""))[1], strict=True)
        return [parts[index] for index in range(len(parts))]

    def _check_unchanged(self, dataset: h5py.Dataset, shape: tuple[int, ...], dtype: str) -> None:
        """Refuse a dataset that is not the one of the call; one that is being written may grow."""
        found = dataset.shape, dataset.dtype.str
        grown = (
            dataset.file.swmr_mode
            and len(found[0]) == len(shape)
            and all(now >= then for now, then in zip(found[0], shape, strict=True))
            # Mappings number frames by all leading axes.
            and (not dataset.is_virtual or found[0][1:-2] == shape[1:-2])
        )
        if found[1] != dtype or (found[0] != shape and not grown):
            raise ValueError(
                f"{self.path} has changed since the call: dataset {dataset.name!r} has shape "
                f"{found[0]} and dtype {found[1]}, and had shape {shape} and dtype {dtype}"
            )

    def files(self) -> tuple[Path, ...]:
        return self._files

    def growth(self) -> Growth:
        with hdf5_lock():
            return growth_of(list(self._parts))

    def digest_of_frame(self, index: int) -> bytes | None:
        with hdf5_lock():
            number = bisect_right(self._edges, index) - 1
            return digest_of_frame(self._parts[number], index - self._edges[number])

    def storage_text(self) -> str:
        with hdf5_lock():
            return storage_text(self._parts[0])

    def reading_text(self) -> str:
        reasons = [part.places for part in self._parts if not self._has_places(part)]
        if not reasons:
            return "at the places of the chunks, in parallel"
        why = reasons[0] if isinstance(reasons[0], str) else f"converted to {self.converted}"
        return f"by h5py, one chunk at a time: {why}"

    def frames_without_data(self) -> np.ndarray:
        if "_missing" not in vars(self):
            with hdf5_lock():
                written = [part.written() for part in self._parts]
            self._missing = np.flatnonzero(~np.concatenate(written)).astype(np.int64)
        return self._missing

    def pieces(self, start: int, stop: int, first: int, last: int, count: int) -> Iterator[Piece]:
        """Yield pieces as every series does, cut where no chunk is cut if there is such a frame."""
        if self._cuts is None:
            yield from super().pieces(start, stop, first, last, count)
            return
        while start < stop:
            limit = min(start + count, stop)
            edge = int(self._cuts[np.searchsorted(self._cuts, limit, "right") - 1])
            end = edge if edge > start and limit < stop else limit
            yield self._piece(start, end, first, last)
            start = end

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        parts, edges = self._parts, self._edges
        blocks = []
        for index in range(bisect_right(edges, start) - 1, bisect_left(edges, stop)):
            frames = (
                max(start, edges[index]) - edges[index],
                min(stop, edges[index + 1]) - edges[index],
            )
            part, lead = parts[index], self._leads[index]
            blocks += _read(part, lead, frames, (first, last), self.converted)
        return blocks


Opened = tuple[Choice, list[Storage], list[Path]]


def opened(path: Path, find: Choice | Callable[[h5py.File], Choice]) -> Opened:
    """Open datasets of a file.

    Parameters
    ----------
    path : path
    find : Choice or callable
        Their names, or a function that returns these, given the open file.

    Returns
    -------
    choice : Choice
    parts : list of Storage
    files : list of paths
        That links on the way lead through.
    """

    def open_all(swmr: bool) -> Opened:
        file = open_file(path, swmr)
        choice = find if isinstance(find, Choice) else find(file)
        found = [follow(file, name) for name in choice.names]
        parts = [checked(dataset, path) for dataset, _ in found]
        return choice, parts, list(dict.fromkeys(passed for _, files in found for passed in files))

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


def checked(dataset: h5py.Dataset, path: Path) -> Storage:
    """Return how a dataset is stored, or refuse one that is no series."""
    given = f"dataset {dataset.name!r}"
    check_shape(dataset)
    if dataset.shape is None or len(dataset.shape) < 2:
        raise ValueError(
            f"an image series is three-dimensional (frames, rows, cols), "
            f"got {given} of shape {dataset.shape}"
        )
    try:
        check_native(dataset.dtype)
    except (TypeError, ValueError) as error:
        text = f"{path}: {given} is no image series, it holds {kind_of(dataset)}: {error}"
        raise TypeError(text) from None
    storage = inspect(dataset)  # which names a lost file that leaves no frames
    flat_shape(dataset.shape, given)
    storage.places = find_places(storage)
    return storage


def _check_alike(datasets: list[h5py.Dataset], path: Path) -> None:
    """Refuse datasets with frames of different shapes or dtypes."""
    first, *others = datasets
    for other in others:
        same = other.dtype.newbyteorder("=") == first.dtype.newbyteorder("=")
        if not same or other.shape[-2:] != first.shape[-2:]:
            raise ValueError(
                f"{path}: frames of one series have one shape and dtype, and dataset "
                f"{first.name!r} has {first.shape[-2:]} {first.dtype}, "
                f"{other.name!r} {other.shape[-2:]} {other.dtype}"
            )


def _read(
    part: Storage,
    lead: tuple[int, ...],
    frames: tuple[int, int],
    rows: tuple[int, int],
    converted: np.dtype | None,
) -> list[np.ndarray]:
    """Read rows of frames of one dataset, and check that all files it refers to are still there.

    h5py has the last word where a chunk cannot be decoded here, or the file has changed.
    """
    damage = ""
    if converted is None and not isinstance(part.places, str):
        try:
            blocks = part.places.read(*frames, *rows)
        except DamagedChunkError as error:
            blocks, damage = None, str(error)
        if blocks is not None:
            return blocks  # of files that were the same before and after the read
    try:
        return _read_with_h5py(part, lead, frames, rows, converted)
    except OSError as error:
        part.check(*frames)  # which names a file that was cut off, and h5py does not
        if not damage:
            raise
        raise OSError(damage) from error


def _read_with_h5py(
    part: Storage,
    lead: tuple[int, ...],
    frames: tuple[int, int],
    rows: tuple[int, int],
    converted: np.dtype | None,
) -> list[np.ndarray]:
    """Read rows of frames as h5py does, one chunk at a time in the whole process."""
    with hdf5_lock():  # which every attribute of a dataset needs as well
        dataset = part.dataset if converted is None else part.dataset.astype(converted)
        blocks = [
            dataset[(*box, slice(*rows))]
            for first in range(*frames, part.at_once)
            for box in boxes(first, min(first + part.at_once, frames[1]), lead)
        ]
    part.check(*frames)
    return [block.reshape(-1, *block.shape[-2:]) for block in blocks]


# ---------------------------------------------------------------------- single images


def image_series(path: Path, dataset: str = "") -> Hdf5Source:
    """Open the dataset of an image; if none is named, the only image in the file."""
    return Hdf5Source(path, dataset, only_image=not dataset)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return only_image(image_series(path, dataset))
