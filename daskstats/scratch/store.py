"""Where frames wait on disk, in row order, when memory is too small for them.

Frames come in groups and go out in bands of rows. A spool is a directory with one zarr array
(frames, rows, cols), whose chunks are the bands of a group::

             band 0    band 1    band 2
    group 0  chunk     chunk     chunk       written by one task
    group 1  chunk     chunk     chunk
               |
           read by one task

Only whole chunks are written and read. Each ends with its checksum (CRC-32C), and
`ScratchStore.write` returns a `GroupManifest`: size and checksum of every chunk. Without it nothing
is read, so that a chunk that is missing, cut or altered is an error, never an image.
"""

import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import ending
from ..config import check_compression
from ..memory.pool import BufferPool
from ..packages import load
from .directories import (
    DamagedScratchError,
    ScratchDirectory,
    locations,
    new_directory,
    remove_stale,
)
from .location import no_room

# Chunks that one call of zarr's writes or reads at the same time: enough to keep its threads busy,
# few enough to be small beside a memory limit.
CHUNKS_AT_ONCE = 4


class ScratchStore:
    """What is kept on disk, and where; `open` gives one whose directory is there.

    Parameters
    ----------
    place : path
        The directory to make the spool's own in.
    shape : tuple of int
        Frames, rows, cols.
    dtype : dtype
        Of the frames.
    group, height : int
        Frames of a group, and rows of a band; the last of each may have less.
    needed : int
        Bytes of room that must be there.
    buffers : int
        Groups and bands that are in memory at once.
    compression : "lz4", "zstd" or "none"
        Of the chunks. lz4 halves the frames of a counting detector and takes no longer than
        writing them as they are.
    """

    def __init__(
        self,
        place: str | os.PathLike,
        shape: tuple[int, int, int],
        dtype: Any,
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
        self._lease: ScratchDirectory | None = None
        self._pool = BufferPool(buffers)
        self.reservation: object = None
        """what must not be given back before this is no more"""
        # Loaded before the run begins, so that at exit it ends after the run.
        load("zarr")

    def open(self) -> "ScratchStore":
        """Return a spool like this one with a new directory, which is removed with it.

        `remove` of either removes it earlier.
        """
        remove_stale(self.place)
        free = shutil.disk_usage(self.place).free
        if free < self.needed:
            raise OSError(no_room(self.needed, free, self.place))
        opened = copy(self)
        opened._pool, opened.reservation = BufferPool(self.buffers), None
        opened._opened = weakref.WeakSet([opened])
        with ending.writing:
            opened.directory = new_directory(self.place)
            opened._lease = ScratchDirectory(opened.directory)
            weakref.finalize(opened, opened._lease.end)
            self._opened.add(opened)
            opened._array = opened._create(opened.directory)
        opened._metadata = (opened.directory / "zarr.json").read_bytes()
        return opened

    def remove(self, cause: BaseException | None = None) -> None:
        """Remove the directories, as soon as nobody is writing or reading there.

        Whoever comes too late is told the cause, if there is one.
        """
        for opened in list(self._opened):
            assert opened._lease is not None
            opened._lease.end(cause)

    @property
    def removal(self) -> Callable[[], None]:
        """The function that removes an open spool's directory; it does not keep the spool alive."""
        assert self._lease is not None, "only an open spool of this process is removed"
        return self._lease.end

    def buffer(self, nframes: int, nrows: int) -> np.ndarray:
        """Return an array for some rows of some frames, in memory that groups and bands share."""
        total, rows, cols = self.shape
        most = max(self.group * rows, total * self.height) * cols * self.dtype.itemsize
        return self._pool.array((nframes, nrows, cols), self.dtype, most)

    def write(self, start: int, frames: np.ndarray) -> "GroupManifest":
        """Write the group of frames (frames, rows, cols) that begins with ``start``, whole.

        Returns
        -------
        GroupManifest
            What `read` needs to know about it.
        """
        try:
            with self._using():
                return self._write(start, frames)
        except OSError as error:
            free = shutil.disk_usage(self.place).free
            text = f"{no_room(self.needed, free, self.place)} ({error})"
            failure = OSError(error.errno, text)
            self.remove(failure)
            raise failure from error

    def _write(self, start: int, frames: np.ndarray) -> "GroupManifest":
        stop, bands = start + len(frames), range(-(-self.shape[1] // self.height))
        few, array = CHUNKS_AT_ONCE * self.height, self._opened_array()
        for first in range(0, self.shape[1], few):
            if self._lease is not None:
                self._lease.check()
            array[start:stop, first : first + few] = frames[:, first : first + few]
        return GroupManifest(start, stop, tuple(_seal(self._file(start, band)) for band in bands))

    def find_written(self, start: int, stop: int) -> "GroupManifest | None":
        """Return what another process has written of a group before it died, if anything."""
        return None

    def read(self, band: int, every: Sequence["GroupManifest"]) -> np.ndarray:
        """Return the rows of one band of all frames (frames, rows, cols).

        Parameters
        ----------
        every : sequence of GroupManifest
            All groups, in order.

        Raises
        ------
        DamagedScratchError
            If they are not what was written; the message names rows, frames and file.
        """
        with self._using():
            return self._read(band, every)

    def _read(self, band: int, every: Sequence["GroupManifest"]) -> np.ndarray:
        first = band * self.height
        rows = self.buffer(every[-1].stop, min(self.height, self.shape[1] - first))
        for edge in range(0, len(every), CHUNKS_AT_ONCE):
            few = every[edge : edge + CHUNKS_AT_ONCE]
            for written in few:
                with self._blaming(band, written):
                    self._check(band, written)
            try:
                self._fill(rows, few, first)
            except Exception:
                # The same again, one by one, tells which it was.
                for written in few:
                    with self._blaming(band, written):
                        self._fill(rows, [written], first)
        return rows

    def _using(self) -> AbstractContextManager:
        """Keep the directory from being removed; another process knows nothing of that."""
        return self._lease if self._lease is not None else nullcontext()

    def _fill(self, rows: np.ndarray, few: Sequence["GroupManifest"], first: int) -> None:
        frames = slice(few[0].start, few[-1].stop)
        where = frames, slice(first, first + rows.shape[1]), slice(None)
        prototype = load("zarr.core.buffer").default_buffer_prototype()
        out = prototype.nd_buffer.from_numpy_array(rows[frames])
        self._opened_array().get_basic_selection(where, out=out)

    def _check(self, band: int, written: "GroupManifest") -> None:
        seal = _seal(self._file(written.start, band))
        if seal != written.chunks[band]:
            raise ValueError(f"its size and checksum are {seal}, not {written.chunks[band]}")

    @contextmanager
    def _blaming(self, band: int, written: "GroupManifest") -> Iterator[None]:
        """Say which rows and frames an error is about."""
        try:
            yield
        except Exception as error:
            first = band * self.height
            raise DamagedScratchError(
                f"scratch data of rows {first} to {min(first + self.height, self.shape[1]) - 1} "
                f"of frames {written.start} to {written.stop - 1} are damaged: {error}: "
                f"{self._file(written.start, band)}"
            ) from error

    def _file(self, start: int, band: int) -> Path:
        assert self.directory is not None, "only an open spool has files"
        return self.directory / "c" / f"{start // self.group}" / f"{band}" / "0"

    def _create(self, directory: Path) -> Any:
        return load("zarr").create_array(
            directory,
            shape=self.shape,
            chunks=(self.group, self.height, self.shape[2]),
            dtype=self.dtype,
            filters=None,
            compressors=_codecs(self.compression, self.dtype.itemsize),
            # A chunk of zeros must be there as well.
            config={"write_empty_chunks": True},
        )

    def _opened_array(self) -> Any:
        """Return the array; where the spool was sent to, it is opened again."""
        if self._array is None:
            assert self.directory is not None, "only an open spool has an array"
            if (self.directory / "zarr.json").read_bytes() != self._metadata:
                raise DamagedScratchError(f"scratch data in {self.directory} have been altered")
            self._array = load("zarr").open_array(self.directory, mode="r+")
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        # Whoever made a directory removes it.
        return {
            **vars(self),
            "_array": None,
            "_pool": None,
            "reservation": None,
            "_lease": None,
            "_opened": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pool, self._opened = BufferPool(self.buffers), weakref.WeakSet()


@dataclass(frozen=True)
class GroupManifest:
    """What a group of frames is on disk."""

    start: int
    """first frame"""
    stop: int
    """end of the frames"""
    chunks: tuple[tuple[int, int], ...]
    """size and checksum of the chunk of each band"""
    spool: Any = field(default=None, compare=False, repr=False)
    """what must live as long as this, so that there is what was written"""


def _seal(file: Path) -> tuple[int, int]:
    """Return a file's size and its last four bytes, which are the checksum of the others."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 4))
        return size, int.from_bytes(opened.read(), "little")


def _codecs(compression: str, itemsize: int) -> list:
    codecs = load("zarr.codecs")
    if compression == "none":
        return [codecs.Crc32cCodec()]
    blosc = codecs.BloscCodec(cname=compression, clevel=1, shuffle="shuffle", typesize=itemsize)
    return [blosc, codecs.Crc32cCodec()]
