"""The mappings of virtual HDF5 datasets: which frames of which other datasets they show.

A virtual dataset is a list of mappings, each from a selection of another dataset to one of its
own::

    scan.h5::/data (30, rows, cols)      frames  0 ..  9   part_0.h5::/data
                                         frames 10 .. 19   part_1.h5::/data
                                         frames 20 .. 29   part_2.h5::/data

The library reads fill values for a mapped dataset that it cannot open. So every one is opened here,
where errors are errors, and kept open as long as the frames are read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from ..series.leading import lengths
from .hdf5_links import DEEPEST
from .hdf5_sources import Names, Sources, check_shape, has_number, named
from .hdf5_storage import Box, Mapping, Storage, WatchedFile, aligned_unit

if TYPE_CHECKING:
    import h5py

Axes = list[np.ndarray]
"""selected indices along each axis of a dataset"""


def inspect(dataset: h5py.Dataset, depth: int = 0) -> Storage:
    """Return how a dataset is stored; open all files and datasets that it refers to.

    Raises
    ------
    FileNotFoundError, ValueError, BlockingIOError, OSError
        If a file is missing, damaged, shorter than it is said to be, being written, or outside of
        the directory of a file that keeps its raw data elsewhere.
    ImportError
        If chunks are compressed by a filter that is not installed.
    """
    if depth > DEEPEST:
        raise ValueError(
            f"{dataset.file.filename}: virtual datasets refer to each other in circles"
        )
    storage = Storage.of(dataset)
    if dataset.is_virtual:
        _VirtualReader(storage, depth).read()
    else:
        storage.add_plain()
    return storage


class _VirtualReader:
    """Reads the mappings of a virtual dataset into a `Storage`."""

    def __init__(self, storage: Storage, depth: int) -> None:
        self.storage, self.depth = storage, depth
        self.dataset, self.shape = storage.dataset, storage.shape
        self.own = storage.files[0]
        self.sources = Sources(self.dataset)
        self._inspected: dict[Names, tuple[Storage, list[Path]]] = {}
        self._watched: dict[Path, WatchedFile] = {}
        self._bands: set[tuple[int, int]] = set()
        self._groups: list[tuple[np.ndarray, np.ndarray]] = []
        self._next_group = 0
        self._first_group: dict[Storage, int] = {}
        self._whole_rows = False
        self._chunk_nbytes = 0.0

    def read(self) -> None:
        for mapping in self.sources.maps:
            for axes, names in self._blocks(mapping):
                self._add(mapping, axes, names)
        storage, (_, rows, cols) = self.storage, lengths(self.shape)
        storage.files += self._watched
        storage.watched += self._watched.values()
        unit, storage.edges = self._unit()
        storage.frame_unit = max(1, min(unit, storage.nframes))
        storage.row_unit = None if self._whole_rows else row_unit(self._bands, rows)
        frame = rows * cols * storage.itemsize
        # A chunk may be larger than all that is taken from it.
        beyond = self._chunk_nbytes - storage.frame_unit * frame
        storage.buffers += max(0.0, beyond / frame) if frame else 0

    # ------------------------------------------------------------------ which datasets

    def _blocks(self, mapping: h5py.VDSmap) -> Iterator[tuple[Axes | None, Names]]:
        """Yield (selected indices, names of file and dataset) for each dataset of a mapping.

        A pattern such as ``scan_%b.h5`` names one for each block of an unlimited selection.
        """
        selected = _selected_axes(mapping.vspace, self.shape)
        pattern = mapping.file_name, mapping.dset_name
        if not any(map(has_number, pattern)):
            yield selected, named(pattern, 0)
            return
        starts, strides, counts, blocks = mapping.vspace.get_regular_hyperslab()
        axis = counts.index(load("h5py.h5s").UNLIMITED)
        assert selected is not None
        length = self.shape[axis]
        missing = []
        end = -(-max(0, length - starts[axis]) // strides[axis])
        for number in range(end):
            first = starts[axis] + number * strides[axis]
            block = np.arange(first, min(first + blocks[axis], length))
            names = named(pattern, number)
            if self.sources.find(names[0]) is None:
                missing.append(number)
            else:
                yield [*selected[:axis], block, *selected[axis + 1 :]], names
        self.sources.check_end(pattern, min(missing, default=end))

    # ------------------------------------------------------------------ one mapped dataset

    def _add(self, mapping: h5py.VDSmap, selected: Axes | None, names: Names) -> None:
        if names not in self._inspected:
            dataset, files = self.sources.follow(names)
            check_shape(dataset)
            found = inspect(dataset, self.depth + 1)
            self._inspected[names] = found, list(dict.fromkeys([*files, *found.files]))
        found, files = self._inspected[names]
        _check_extent(mapping, found.shape, selected, self.sources.where(names))
        match = self._match(mapping, selected, found)
        self.storage.mappings.append(match)
        self.storage.at_once = min(self.storage.at_once, found.at_once, gap(match.frames))
        if match.frames.size:
            self._watch(files, int(match.frames.min()), int(match.frames.max()))
        self._add_buffers(found)

    def _watch(self, files: list[Path], first: int, last: int) -> None:
        for path in files:
            known = self._watched.get(path)
            if known is not None:
                known.first, known.last = min(known.first, first), max(known.last, last)
            elif path != self.own:
                self._watched[path] = WatchedFile.of(path, first, last)

    def _add_buffers(self, found: Storage) -> None:
        self.storage.buffers = max(self.storage.buffers, found.buffers)
        if len(found.shape) > 1 and (found.chunks or found.mappings):
            _, rows, cols = lengths(found.shape)
            cols = min(cols, found.chunks[-1]) if found.chunks else cols
            decoded = found.frame_unit * (found.row_unit or rows) * cols
            self._chunk_nbytes = max(self._chunk_nbytes, decoded * found.itemsize)

    def _match(self, mapping: h5py.VDSmap, selected: Axes | None, found: Storage) -> Mapping:
        """Return the frames of a mapping, and their numbers in the mapped dataset if it has them.

        Frames and rows that are decoded together there are decoded together here.
        """
        nothing = np.empty(0, np.int64)
        if selected is None:
            self._whole_rows = True
            every = np.arange(self.storage.nframes)
            self._add_group(every)
            return Mapping(found, every, nothing)
        frames = _frame_numbers(selected, self.shape)
        mapped = _selected_axes(mapping.src_space, found.shape) if len(found.shape) > 1 else None
        if mapped is None or [*map(len, mapped[-2:])] != [*map(len, selected[-2:])]:
            # Other lengths that hold as many pixels: frames are not told apart.
            self._whole_rows = True
            self._add_group(frames)
            return Mapping(found, frames, nothing)
        numbers = _frame_numbers(mapped, found.shape)
        count = min(len(frames), len(numbers))
        grows = _is_unlimited(mapping.src_space)
        if grows:
            frames = frames[:count]  # the mapped dataset ends here, and others may go on
        numbers = numbers[:count]
        if len(frames) != len(numbers):
            return Mapping(found, frames, nothing)
        self._add_groups(frames, numbers, found)
        self._add_bands(selected[-2], mapped[-2], found.row_unit or lengths(found.shape)[1])
        if grows or _is_unlimited(mapping.vspace):
            return Mapping(found, frames, numbers, "it grows with the datasets that it shows")
        return Mapping(found, frames, numbers, *_box(selected, mapped))

    def _add_group(self, frames: np.ndarray) -> None:
        """Add frames that are decoded together."""
        self._groups.append((np.full(frames.shape, self._next_group), frames))
        self._next_group += 1

    def _add_groups(self, frames: np.ndarray, numbers: np.ndarray, found: Storage) -> None:
        """Add frames with their numbers in a mapped dataset, which several mappings may show."""
        if found not in self._first_group:
            self._first_group[found] = self._next_group
            self._next_group += -(-found.nframes // found.frame_unit)
        self._groups.append((self._first_group[found] + numbers // found.frame_unit, frames))

    def _unit(self) -> tuple[int, np.ndarray | None]:
        """Return the frames to read at once, and where to cut the series if not at multiples."""
        if not self._groups:
            return 1, None
        groups, frames = map(np.concatenate, zip(*self._groups, strict=True))
        return aligned_unit(groups, frames)

    def _add_bands(self, rows: np.ndarray, mapped: np.ndarray, unit: int) -> None:
        """Add the first row and end of each band that is decoded together."""
        if unit == 1:
            self._bands.add((0, 1))
            return
        for band in np.split(rows, np.flatnonzero(np.diff(mapped // unit)) + 1):
            if band.size:
                self._bands.add((int(band.min()), int(band.max()) + 1))


def _check_extent(
    mapping: h5py.VDSmap, shape: tuple[int, ...], selected: Axes | None, where: str
) -> None:
    """Refuse a mapped dataset that does not have the selected pixels of the virtual dataset."""
    space = mapping.src_space
    problem = f"{where}, which is shorter than it says: shape {shape}"
    if _selection_kind(space) == "all":
        claimed = math.prod(map(len, selected)) if selected else mapping.vspace.get_select_npoints()
        if math.prod(shape) < claimed:
            raise ValueError(f"{problem}, {claimed} pixels are expected")
        if math.prod(shape) > claimed and not _begins_with(shape, selected):
            raise ValueError(
                f"{where}, which is larger than it says: shape {shape}, {claimed} pixels are "
                f"expected"
            )
        return
    if space.get_simple_extent_ndims() != len(shape):
        raise ValueError(f"{where}, which has other dimensions than it says: shape {shape}")
    if _is_unlimited(space):
        return
    _, ends = space.get_select_bounds()
    if any(end >= length for end, length in zip(ends, shape, strict=True)):
        expected = tuple(end + 1 for end in ends)
        raise ValueError(f"{problem}, at least {expected} is expected")


def _begins_with(shape: tuple[int, ...], selected: Axes | None) -> bool:
    """Whether the first pixels of a shape, in C order, are those of a smaller selection.

    Only the first axis is longer: pixels of frames that are wider, or frames of a scan that is,
    would be taken for others.
    """
    expected = tuple(map(len, selected or ()))
    rest = shape[1:]
    return len(rest) > 1 and rest == expected[-len(rest) :]


def gap(frames: np.ndarray) -> int:
    """Return the most frames in a row that never have frames of a mapping on both sides of a gap.

    The library takes a hundred times longer to read those: 0.1 us for each pixel.

    >>> gap(np.array([0, 4, 8])), gap(np.array([0, 1, 2, 3, 16, 17, 18, 19]))  # of files in turn
    (4, 13)
    """
    steps = np.diff(frames)
    return int(steps[steps > 1].min(initial=sys.maxsize))


def row_unit(bands: set[tuple[int, int]], rows: int) -> int | None:
    """Return the height of the bands of rows that are decoded together; None if they overlap.

    Bands that lie across multiples of their height would be decoded twice each.

    >>> row_unit({(0, 16), (16, 32), (32, 40)}, 40), row_unit({(0, 16), (20, 36)}, 36)
    (16, None)
    """
    unit = max((last - first for first, last in bands), default=1)
    crossing = any(first // unit != (last - 1) // unit for first, last in bands)
    return None if crossing or unit >= rows else unit


# ---------------------------------------------------------------------- selections


def _selection_kind(space: h5py.h5s.SpaceID) -> str:
    """Return "all", "grid" for a regular hyperslab, or "other"."""
    h5s = load("h5py.h5s")
    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return "all"
    return "grid" if kind == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab() else "other"


def _is_unlimited(space: h5py.h5s.SpaceID) -> bool:
    """Whether a selection goes on as its dataset grows."""
    if _selection_kind(space) != "grid":
        return False
    _, _, count, block = space.get_regular_hyperslab()
    return load("h5py.h5s").UNLIMITED in (*count, *block)


def _selected_axes(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> Axes | None:
    """Return the selected indices along each axis; None if the selection is no grid of them."""
    kind, unlimited = _selection_kind(space), load("h5py.h5s").UNLIMITED
    if kind == "all":
        return [np.arange(length) for length in shape]
    if kind != "grid":
        return None
    found = []
    for start, stride, count, block, length in zip(
        *space.get_regular_hyperslab(), shape, strict=True
    ):
        width = length if block == unlimited else block
        most = -(-max(0, length - start) // stride)
        steps = np.arange(most if count == unlimited else count) * stride
        indices = (start + steps[:, None] + np.arange(width)).ravel()
        found.append(indices[indices < length] if unlimited in (count, width) else indices)
    return found


def _frame_numbers(axes: Axes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of the frames at indices along the leading axes."""
    frames = np.zeros(1, np.int64)
    for indices, length in zip(axes[:-2], shape[:-2], strict=True):
        frames = (frames[:, None] * length + indices).ravel()
    return frames


def _box(selected: Axes, mapped: Axes) -> tuple[Box | str, tuple[int, int]]:
    """Return the box of pixels that a mapping fills, and the corner of it in the mapped dataset."""
    ends = [
        (int(side[0]), int(side[-1]) + 1) for side in (*selected[-2:], *mapped[-2:]) if side.size
    ]
    sizes = [*map(len, selected[-2:]), *map(len, mapped[-2:])]
    if [end - first for first, end in ends] != sizes:  # indices ascend
        return Mapping.box, (0, 0)
    (top, bottom), (left, right), (row, _), (col, _) = ends
    return (top, bottom, left, right), (row, col)
