"""How the frames of an HDF5 dataset are stored: files, chunks, and external raw data.

The library reads a file that it cannot open as fill values, whatever the reason: no such file, no
permission, too many open files. After each read of the library `Storage.check` looks whether every
file that the frames came from was there.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..series.leading import decoded_together, lengths
from .hdf5_files import absolute, check_filters, filter_names

if TYPE_CHECKING:
    import h5py

    from .hdf5_chunks import Places
    from .hdf5_tiles import TiledPlaces


@dataclass(eq=False)
class WatchedFile:
    """A file that frames are read from by way of another one."""

    path: Path
    first: int
    """first frame that it may hold"""
    last: int
    """the last one"""
    state: tuple[int, int]
    """device and inode at the time it was opened"""
    nbytes: int
    """least number of bytes that it must have"""

    @classmethod
    def of(cls, path: Path, first: int, last: int, nbytes: int | None = None) -> WatchedFile:
        """Return a file in its present state."""
        stat = path.stat()
        least = stat.st_size if nbytes is None else nbytes
        return cls(path, first, last, (stat.st_dev, stat.st_ino), least)

    def check(self) -> None:
        """Raise an error if it is gone, another one, shorter, or cannot be opened any more."""
        handle = os.open(self.path, os.O_RDONLY)  # as the library has just done
        try:
            stat = os.fstat(handle)
        finally:
            os.close(handle)
        if (stat.st_dev, stat.st_ino) != self.state:
            raise ValueError(f"{self.path} was replaced while it was being read")
        _check_size(self.path, stat.st_size, self.nbytes)


def _check_size(path: Path, nbytes: int, expected: int) -> None:
    """Refuse a file that has become shorter: the library reads zeros beyond its end."""
    if nbytes < expected:
        raise ValueError(
            f"{path} was cut off while it was being read: it has {nbytes} bytes of {expected}"
        )


Box = tuple[int, int, int, int]
"""first row and end, first column and end"""


@dataclass(eq=False)
class Mapping:
    """Some frames of a virtual dataset, and the frames that they are in a mapped dataset."""

    storage: Storage
    """of the mapped dataset"""
    frames: np.ndarray
    own: np.ndarray
    """frame numbers there, or none where the selections are no plain frames"""
    box: Box | str = "its mappings are no boxes of pixels"
    """the pixels of these frames that it fills, or the reason why they are not known"""
    corner: tuple[int, int] = (0, 0)
    """the row and the column there that the box begins with"""


@dataclass(eq=False)
class Storage:
    """How the frames of a dataset are stored; kept as long as they are read."""

    dataset: h5py.Dataset
    nframes: int
    shape: tuple[int, ...] = ()
    """of the dataset: h5py asks the library each time"""
    chunks: tuple[int, ...] | None = None
    """of the dataset"""
    itemsize: int = 1
    """bytes of a pixel"""
    files: list[Path] = field(default_factory=list)
    """every file that frames come from, this dataset's own first"""
    watched: list[WatchedFile] = field(default_factory=list)
    """files that are checked after each read"""
    frame_unit: int = 1
    """frames that are decoded together"""
    edges: np.ndarray | None = None
    """frames before which no chunk is cut, where these are not the multiples of the unit"""
    row_unit: int | None = None
    """rows that are decoded together; None: all"""
    buffers: float = 0
    """bytes allocated while a frame is read, in addition to the frame, per byte of it"""
    mappings: list[Mapping] = field(default_factory=list)
    """of a virtual dataset"""
    at_once: int = sys.maxsize
    """frames that the library can read at once without taking far longer for each"""
    opened: tuple[int, int] | None = None
    """handle of the file and its size, where the system has both"""
    places: Places | TiledPlaces | str = "it is shown by a virtual dataset"
    """of the chunks in its file or files, or the reason why h5py has to read them"""

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Storage:
        """Return the storage of a dataset, with the size of its file only."""
        nframes = lengths(dataset.shape)[0] if dataset.ndim > 1 else dataset.size
        storage = cls(dataset, nframes, dataset.shape, dataset.chunks, dataset.dtype.itemsize)
        storage.files, storage.opened = [absolute(dataset.file)], _handle(dataset.file)
        return storage

    def check(self, start: int, stop: int) -> None:
        """Raise an error if a file that frames ``start:stop`` were read from was not all there.

        It is called after the read: a file that is still the same was the same before.
        """
        if self.opened is not None:
            handle, nbytes = self.opened
            _check_size(self.files[0], os.fstat(handle).st_size, nbytes)
        for file in self.watched:
            if file.first < stop and file.last >= start:
                file.check()

    def close(self) -> None:
        """Drop all objects of h5py, even where another object still holds this one."""
        self.dataset = self.opened = None
        for mapping in self.mappings:
            mapping.storage.close()
        self.mappings = []

    def written(self) -> np.ndarray:
        """Return for each frame whether anything of it was written."""
        if not self.mappings:
            return _written_chunks(self.dataset, self.nframes)
        found = np.zeros(self.nframes, bool)
        cache: dict[int, np.ndarray] = {}
        for mapping in self.mappings:
            key = id(mapping.storage)
            if key not in cache:
                cache[key] = mapping.storage.written()
            found[mapping.frames] |= cache[key][mapping.own] if mapping.own.size else True
        return found

    def add_plain(self) -> None:
        """Add the chunks and the external files of a dataset that is not virtual."""
        check_filters(self.dataset)
        if self.dataset.external:
            self._add_external()
        if self.dataset.ndim > 1:
            self._set_units()

    def _set_units(self) -> None:
        dataset = self.dataset
        chunks = dataset.chunks or (1,) * dataset.ndim
        self.frame_unit, self.row_unit = decoded_together(dataset.shape, chunks)
        self.buffers = 0 if dataset.dtype.isnative else 1
        if dataset.chunks and dataset.id.get_create_plist().get_nfilters():
            # While a chunk is decoded, its compressed bytes are in memory, too.
            stored = dataset.id.get_storage_size() / max(1, dataset.id.get_num_chunks())
            full = math.prod(dataset.chunks) * dataset.dtype.itemsize
            self.buffers += min(1.0, stored / full)

    def _add_external(self) -> None:
        """Add the files that hold the raw data; refuse those of other directories."""
        dataset, own = self.dataset, self.files[0]
        home, left = own.resolve().parent, dataset.size * dataset.dtype.itemsize
        for name, offset, size in dataset.external:
            path = _external_path(dataset, name)
            problem = f"{own}: dataset {dataset.name!r} keeps its data in {path}"
            if home not in path.resolve().parents:
                raise ValueError(
                    f"{problem}, outside of the directory of its file, which is refused: move the "
                    f"data next to it and set HDF5_EXTFILE_PREFIX='${{ORIGIN}}', or convert the "
                    f"file"
                )
            if not path.is_file():
                raise FileNotFoundError(f"{problem}, and there is no such file")
            share = min(size, left)  # of the last file the size may be unlimited
            needed, left = offset + share if share else 0, left - share
            nbytes = path.stat().st_size
            if nbytes < needed:
                raise ValueError(f"{problem}, which is cut off: it has {nbytes} bytes of {needed}")
            self.files.append(path)
            self.watched.append(WatchedFile.of(path, 0, self.nframes, needed))


def _handle(file: h5py.File) -> tuple[int, int] | None:
    """Return the system's handle of a file and its size, where it is an ordinary one."""
    if file.driver != "sec2":
        return None
    handle = file.id.get_vfd_handle()
    return handle, os.fstat(handle).st_size


def _external_path(dataset: h5py.Dataset, name: str) -> Path:
    """Return the file that the library opens for raw data of a name."""
    if Path(name).is_absolute():
        return Path(name)
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX")
    if prefix is None:
        prefix = os.fsdecode(dataset.id.get_access_plist().get_efile_prefix() or b"")
    home = absolute(dataset.file).parent
    return (Path(prefix.replace("${ORIGIN}", str(home))) / name).absolute()


def lists_true_places(dataset: h5py.Dataset) -> bool:
    """Whether the library lists the chunks of a dataset where it reads them: ask before it lists.

    Files of HDF5 1.10 and later have an extensible array of the chunks of a dataset with one
    unlimited axis, which is the first one in that array whichever it is of the dataset. The library
    (up to 2.0.0 at least) does not put the axes back: `chunk_iter`, `get_chunk_info` and
    `get_chunk_info_by_coord` agree with each other, and not with its reads. Nothing tells which
    index a dataset has, so a B-tree, whose places are right, is not trusted either.
    """
    axes = dataset.maxshape
    return axes[0] is None or axes.count(None) != 1


def _written_chunks(dataset: h5py.Dataset, nframes: int) -> np.ndarray:
    """Return for each frame whether any of its chunks was allocated, or may have been."""
    if dataset.chunks is None:
        there = dataset.external or dataset.id.get_storage_size() > 0
        return np.full(nframes, bool(there))
    grid = [
        -(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    ]
    count = dataset.id.get_num_chunks()
    if count == math.prod(grid):
        return np.ones(nframes, bool)
    lead, chunks = dataset.shape[:-2], dataset.chunks[:-2]
    if not lead or not lists_true_places(dataset):
        return np.full(nframes, count > 0)
    there = np.zeros(grid[:-2], bool)

    def mark(chunk: h5py.h5d.StoreInfo) -> None:
        pairs = zip(chunk.chunk_offset, chunks, strict=False)
        index = tuple(start // length for start, length in pairs)
        # A writer may have added frames, along any leading axis, since the shape was read.
        if all(place < length for place, length in zip(index, there.shape, strict=True)):
            there[index] = True

    dataset.id.chunk_iter(mark)
    for axis, chunk in enumerate(chunks):
        there = np.repeat(there, chunk, axis=axis)
    return there[tuple(slice(length) for length in lead)].ravel()


def storage_text(storage: Storage) -> str:
    """Return how a dataset is stored, for people; of a virtual one, how the first one it shows."""
    if storage.mappings:
        count = len({id(mapping.storage) for mapping in storage.mappings})
        shown = storage_text(storage.mappings[0].storage)
        return f"virtual, of {count} dataset{'' if count == 1 else 's'}: {shown}"
    if storage.chunks is None:
        return "contiguous"
    filters = ", ".join(filter_names(storage.dataset)) or "not compressed"
    return f"chunks of {' x '.join(map(str, storage.chunks))}, {filters}"


def aligned_unit(groups: np.ndarray, frames: np.ndarray) -> tuple[int, np.ndarray | None]:
    """Return the number of frames to cut a series at multiples of, so that few groups are cut.

    That is the `span` of a group. If its multiples cut groups, it is the next number, up to twice
    as large, with multiples that cut none. Where there is no such number, all frames before which
    no group is cut are returned as well.

    >>> aligned_unit(np.array([0, 1, 0, 1, 2, 3, 2, 3]), np.arange(8))  # two files, taken in turn
    (4, None)
    >>> aligned_unit(np.array([0, 0, 0, 1, 2, 2, 2, 3]), np.arange(8))  # of two files with 4 frames
    (4, None)
    >>> aligned_unit(np.array([0, 0, 1, 1, 2, 3, 3, 4, 4, 5]), np.arange(10))  # with 5 frames
    (2, array([0, 2, 4, 5, 7, 9]))
    """
    smallest = span(groups, frames)
    if smallest == 1:
        return 1, None
    lowest, highest = _extents(groups, frames)
    edges = np.zeros(int(frames.max()) + 2, np.int64)
    np.add.at(edges, lowest + 1, 1)
    np.add.at(edges, highest + 1, -1)
    uncut = np.cumsum(edges) == 0  # no group begins before the frame and ends with it or later
    for unit in smallest + np.flatnonzero(uncut[smallest : 2 * smallest + 1]):
        if uncut[unit::unit].all():
            return int(unit), None
    return smallest, np.flatnonzero(uncut[:-1])


def span(groups: np.ndarray, frames: np.ndarray) -> int:
    """Return the largest number of frames that the frames of one group extend over.

    >>> span(np.array([0, 0, 1, 1]), np.array([0, 4, 8, 12]))  # every fourth, two decoded together
    5
    """
    if not groups.size:
        return 1
    lowest, highest = _extents(groups, frames)
    return int((highest - lowest).max()) + 1


def _extents(groups: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last frame of each group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    return np.minimum.reduceat(frames[order], starts), np.maximum.reduceat(frames[order], starts)
