"""Scratch data: frames on disk, in row order, while memory is too small for them.

Frames are written in groups and read in bands of rows. A store is a directory with one zarr array
(frames, rows, cols); the bands of a group are its chunks::

             band 0    band 1    band 2
    group 0  chunk     chunk     chunk       written by one task
    group 1  chunk     chunk     chunk
               |
           read by one task

Only whole chunks are written and read. Each ends with its checksum (CRC-32C), and
`ScratchStore.write` returns a `GroupManifest`: size and checksum of every chunk. Nothing is read
without it, so that a missing, cut or altered chunk is an error, never an image.
"""

import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import ending
from ..config import check_compression
from ..memory.pool import BufferPool
from ..packages import load
from ..planning.strategies import CHUNKS_AT_ONCE
from .directories import DamagedScratchError, ScratchDirectory, locations, remove_stale
from .location import no_room


class ScratchStore:
    """Frames of a series on disk; `open` returns a store with a directory.

    Parameters
    ----------
    place : path
        The directory that gets a directory for the store.
    shape : tuple of int
        Frames, rows, cols.
    dtype : dtype
        Dtype of the frames.
    group, height : int
        Frames of a group, and rows of a band; the last of each may have less.
    needed : int
        Free bytes that the disk must have.
    buffers : int
        Groups and bands that exist in memory at once.
    compression : "lz4", "zstd" or "none"
        Compression of chunks. lz4 halves the frames of a counting detector, and takes no longer
        than writing them uncompressed.
    """

    def __init__(
        self,
        place: str | os.PathLike,
        shape: tuple[int, int, int],
        dtype: DTypeLike,
        group: int,
        height: int,
        needed: int = 0,
        buffers: int = 1,
        compression: str = "lz4",
    ) -> None:
        self.place, self.shape, self.dtype = Path(place), shape, np.dtype(dtype)
        locations.add(self.place)
        self.group, self.height = group, height
        self.needed, self.buffers = needed, buffers
        self.compression = check_compression(compression)
        self.directory: Path | None = None
        self._array: Any = None
        self._metadata = b""
        self._opened: weakref.WeakSet[ScratchStore] = weakref.WeakSet()
        self._owned: ScratchDirectory | None = None
        self._pool = BufferPool(buffers)
        self.reservation: object = None
        """kept alive as long as the store: the memory of its run"""
        # Loaded before the run begins, so that at exit zarr ends after the run.
        load("zarr")

    def open(self) -> "ScratchStore":
        """Return a store like this one with a new directory, which is removed with that store.

        `remove` of either store removes the directory earlier.
        """
        remove_stale(self.place)
        self._check_room()
        opened = self._copy()
        with ending.writing:
            opened._owned = ScratchDirectory(self.place)
            weakref.finalize(opened, opened._owned.end)
            self._opened.add(opened)
            opened.directory = opened._owned.path
            opened._array = opened._create(opened.directory)
        return opened

    def _copy(self) -> "ScratchStore":
        opened = copy(self)
        opened._pool, opened.reservation = BufferPool(self.buffers), None
        opened._opened = weakref.WeakSet([opened])
        return opened

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.place).free
        if free < self.needed:
            raise OSError(no_room(self.needed, free, self.place))

    def remove(self, cause: BaseException | None = None) -> None:
        """Remove the directories, as soon as no task is writing or reading there.

        A task that comes later gets the cause, if there is one, as its error.
        """
        for opened in list(self._opened):
            opened.removal(cause)

    @property
    def removal(self) -> Callable[..., None]:
        """Function that removes the directory of an open store, without a reference to it."""
        assert self._owned is not None, "only an open store of this process is removed"
        return self._owned.end

    def buffer(self, nframes: int, nrows: int) -> np.ndarray:
        """Return an array for some rows of some frames; groups and bands share a buffer pool."""
        total, rows, cols = self.shape
        most = max(self.group * rows, total * self.height) * cols * self.dtype.itemsize
        return self._pool.array((nframes, nrows, cols), self.dtype, most)

    def write(self, start: int, frames: np.ndarray, count: int | None = None) -> "GroupManifest":
        """Write the group of frames (frames, rows, cols) that begins with ``start``, whole.

        Parameters
        ----------
        start : int
        frames : ndarray
        count : int, optional
            The frames that count, where others only fill up the group.

        Returns
        -------
        GroupManifest
            Required by `read`.
        """
        try:
            with self._using():
                return self._write(start, frames, count)
        except OSError as error:
            free = shutil.disk_usage(self.place).free
            text = f"{no_room(self.needed, free, self.place)} ({error})"
            failure = OSError(error.errno, text)
            self.remove(failure)
            raise failure from error

    def _write(self, start: int, frames: np.ndarray, count: int | None = None) -> "GroupManifest":
        stop, bands = start + len(frames), range(-(-self.shape[1] // self.height))
        few, array = CHUNKS_AT_ONCE * self.height, self._opened_array()
        for first in range(0, self.shape[1], few):
            if self._owned is not None:
                self._owned.check()
            array[start:stop, first : first + few] = frames[:, first : first + few]
        files = [self._file(start, band) for band in bands]
        counted = stop if count is None else start + count
        return GroupManifest(start, counted, tuple(map(checksum, files)))

    def find_written(self, start: int, stop: int) -> "GroupManifest | None":
        """Return the manifest of a group that a dead process has written, if there is one."""
        return None

    def read(self, band: int, groups: Sequence["GroupManifest"]) -> np.ndarray:
        """Return the rows of one band of all frames (frames, rows, cols).

        Parameters
        ----------
        groups : sequence of GroupManifest
            All groups, in order.

        Raises
        ------
        DamagedScratchError
            If the data differ from the manifest; the message names rows, frames and file.
        """
        first = band * self.height
        with self._using():
            rows = self.buffer(groups[-1].stop, min(self.height, self.shape[1] - first))
            self.read_into(rows, groups, 0, first)
            return rows

    def read_into(
        self, out: np.ndarray, groups: Sequence["GroupManifest"], start: int, first: int
    ) -> None:
        """Read rows from ``first`` on, of frames from ``start`` on, until the array is full.

        Parameters
        ----------
        out : ndarray (frames, rows, cols)
        groups : sequence of GroupManifest
            Those of these frames, in order.
        start, first : int

        Raises
        ------
        DamagedScratchError
            As of `read`.
        """
        bands = range(first // self.height, -(-(first + out.shape[1]) // self.height))
        with self._using():
            for edge in range(0, len(groups), CHUNKS_AT_ONCE):
                few = groups[edge : edge + CHUNKS_AT_ONCE]
                for group, band in product(few, bands):
                    with self._blaming(band, group):
                        self._check(band, group)
                try:
                    self._fill(out, few, start, first)
                except Exception:
                    # Group by group, to find out the one that fails.
                    for group in few:
                        with self._blaming(bands[0], group):
                            self._fill(out, [group], start, first)

    def _using(self) -> AbstractContextManager:
        """Keep the directory from being removed by this process."""
        return self._owned if self._owned is not None else nullcontext()

    def _fill(
        self, out: np.ndarray, few: Sequence["GroupManifest"], start: int, first: int
    ) -> None:
        frames = slice(max(few[0].start, start), min(few[-1].stop, start + len(out)))
        where = frames, slice(first, first + out.shape[1]), slice(None)
        prototype = load("zarr.core.buffer").default_buffer_prototype()
        part = prototype.nd_buffer.from_numpy_array(out[frames.start - start : frames.stop - start])
        self._opened_array().get_basic_selection(where, out=part)

    def _check(self, band: int, group: "GroupManifest") -> None:
        found = checksum(self._file(group.start, band))
        if found != group.chunks[band]:
            raise ValueError(f"its size and checksum are {found}, not {group.chunks[band]}")

    @contextmanager
    def _blaming(self, band: int, group: "GroupManifest") -> Iterator[None]:
        """Add rows, frames and file to an error."""
        try:
            yield
        except Exception as error:
            first = band * self.height
            raise DamagedScratchError(
                f"scratch data of rows {first} to {min(first + self.height, self.shape[1]) - 1} "
                f"of frames {group.start} to {group.stop - 1} are damaged: {error}: "
                f"{self._file(group.start, band)}"
            ) from error

    def _file(self, start: int, band: int) -> Path:
        assert self.directory is not None, "only an open store has files"
        return self.directory / "c" / f"{start // self.group}" / f"{band}" / "0"

    def _create(self, directory: Path) -> Any:
        """Return a new array in a directory."""
        codecs = load("zarr.codecs")
        compressors = [codecs.Crc32cCodec()]
        if self.compression != "none":
            options = {"clevel": 1, "shuffle": "shuffle", "typesize": self.dtype.itemsize}
            compressors.insert(0, codecs.BloscCodec(cname=self.compression, **options))
        array = load("zarr").create_array(
            directory,
            shape=self.shape,
            chunks=(self.group, self.height, self.shape[2]),
            dtype=self.dtype,
            filters=None,
            compressors=compressors,
            # Chunks of zeros are written, too.
            config={"write_empty_chunks": True},
        )
        self._metadata = (directory / "zarr.json").read_bytes()
        return array

    def _opened_array(self) -> Any:
        """Return the array; a process that the store was sent to opens it again."""
        if self._array is None:
            assert self.directory is not None, "only an open store has an array"
            if (self.directory / "zarr.json").read_bytes() != self._metadata:
                raise DamagedScratchError(f"scratch data in {self.directory} have been altered")
            # Chunks of zeros are written, too.
            config = {"write_empty_chunks": True}
            self._array = load("zarr").open_array(self.directory, mode="r+", config=config)
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        # The process that made a directory removes it.
        unsent = dict.fromkeys(("_array", "_pool", "reservation", "_owned", "_opened"))
        return vars(self) | unsent

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pool, self._opened = BufferPool(self.buffers), weakref.WeakSet()


@dataclass(frozen=True)
class GroupManifest:
    """The chunks of a group of frames on disk."""

    start: int
    """first frame"""
    stop: int
    """end of the frames"""
    chunks: tuple[tuple[int, int], ...]
    """size and checksum of the chunk of each band"""
    store: object = field(default=None, compare=False, repr=False)
    """kept alive as long as this manifest, so that the chunks exist"""


def checksum(file: Path) -> tuple[int, int]:
    """Return a file's size and its last four bytes, which are the checksum of the others."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 4))
        return size, int.from_bytes(opened.read(), "little")
