"""Chunks of HDF5 datasets, read at their places in the file and decoded in the thread of each task.

h5py reads and decodes one chunk at a time, whatever the number of threads: HDF5 has one lock. So
the places of all chunks are asked for once, when a series is opened::

    dataset (frames, rows, cols)          file
    chunk of frames 0 .. 3, rows 0 .. 63  bytes 4096 .. 90112     decoded in one thread
    chunk of frames 4 .. 7, rows 0 .. 63  bytes 90112 .. 171000   decoded in another

Everything that is not as expected is left to h5py: a dataset as a whole when it is opened, and a
read whenever the file has changed. h5py is also asked for a chunk that cannot be decoded here,
unless its filter would crash.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..memory.pool import block_of_frames
from .hdf5_decoders import Decode
from .hdf5_files import CACHE_NBYTES
from .placed import in_native_order

FileState = tuple[int, int, int, int]

Where = tuple[int, int]
"""indices of a chunk, along frames and along rows"""

Slices = tuple[slice, slice, slice]
"""frames, rows and columns within a chunk"""

Part = tuple[np.ndarray, Slices]
"""a part (frames, rows, cols) of an array, and the slices of a chunk that fill it"""


class DamagedChunkError(ValueError):
    """A chunk cannot be decoded here, and h5py may be asked for it."""


@dataclass(frozen=True, eq=False)
class Places:
    """The places of the chunks of a dataset in its file."""

    path: Path
    state: FileState
    """of the file when the places were read"""
    dtype: np.dtype
    """of the stored pixels, in the byte order of the file"""
    shape: tuple[int, int, int]
    """frames, rows and columns of the dataset"""
    chunk: tuple[int, int, int]
    """those of a chunk; the columns are the same"""
    offsets: np.ndarray
    """(along frames, along rows), first byte of each chunk, -1 of one that was never written"""
    sizes: np.ndarray
    """bytes of each chunk as it is stored"""
    decode: Decode | None = None
    """None for pixels that are read in place"""
    crashing: bool = False
    """whether h5py must not be asked for a damaged chunk"""
    fill_value: np.generic | None = None
    """value of all pixels of a chunk that was never written"""

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray] | None:
        """Return rows ``first:last`` of frames ``start:stop``; None if h5py has to read them.

        Raises
        ------
        DamagedChunkError
            If a chunk cannot be decoded here.
        OSError
            If no library decodes it.
        """
        frames = self.chunk[0]
        parted = cuts(start, stop, frames, self.shape[0])
        if parted and self.is_kept_by_h5py(CACHE_NBYTES):
            return None
        block = block_of_frames(stop - start, last - first, self.shape[1:], self.dtype)
        wanted = (
            (where, [part])
            for index in range(start // frames, -(-stop // frames))
            for where, part in self._parts_of(index, block, start, first)
        )
        return [in_native_order(block)] if self.fill(wanted) else None

    def _parts_of(
        self, index: int, block: np.ndarray, start: int, first: int
    ) -> Iterator[tuple[Where, Part]]:
        """Yield the parts of a block that are of the chunks with an index along the frames."""
        begin, end = index * self.chunk[0], (index + 1) * self.chunk[0]
        low, high = max(start, begin), min(start + block.shape[0], end)
        inner = slice(low - begin, high - begin)
        return self.parts(index, inner, block[low - start : high - start], (first, 0))

    def parts(
        self, index: int, inner: slice, out: np.ndarray, corner: tuple[int, int]
    ) -> Iterator[tuple[Where, Part]]:
        """Yield the parts of an array that are of one chunk each, and the places of these.

        Parameters
        ----------
        index : int
            Of the chunks along the frames.
        inner : slice
            The frames within them.
        out : ndarray
            (frames, rows, cols) to fill.
        corner : tuple of int
            The row and the column of the dataset with which it begins.
        """
        (top, left), rows = corner, self.chunk[1]
        end = top + out.shape[1]
        for band in range(top // rows, -(-end // rows)):
            begin = band * rows
            low, high = max(top, begin), min(end, begin + rows)
            slices = inner, slice(low - begin, high - begin), slice(left, left + out.shape[2])
            yield (index, band), (out[:, low - top : high - top], slices)

    def is_kept_by_h5py(self, nbytes: int) -> bool:
        """Whether h5py keeps a chunk decoded, for other reads of it, in a cache of this size."""
        return self.decode is not None and self._chunk_nbytes <= nbytes

    def fill(self, wanted: Iterable[tuple[Where, list[Part]]]) -> bool:
        """Fill the parts of arrays that are of each chunk; return False if h5py has to read them.

        Each chunk is decoded once.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:  # h5py has it open, or finds the fault
            return False
        try:
            # The bytes are those of the places only if nothing was written meanwhile.
            return (
                handle_state(handle) == self.state
                and self._fill_chunks(handle, wanted)
                and handle_state(handle) == self.state
            )
        finally:
            os.close(handle)

    @cached_property
    def largest(self) -> int:
        """The most bytes of a stored chunk."""
        return int(self.sizes.max())

    @property
    def _chunk_nbytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize

    def _fill_chunks(self, handle: int, wanted: Iterable[tuple[Where, list[Part]]]) -> bool:
        """Fill parts of arrays from an open file; return False if it ends early."""
        raw = np.empty(self.largest if self.decode else 0, np.uint8)
        chunk = None
        for where, parts in wanted:
            offset = int(self.offsets[where])
            if offset < 0:
                for part, _ in parts:
                    part[...] = self.fill_value
            elif self.decode is None:
                if not all(self._fill_in_place(handle, *part, offset) for part in parts):
                    return False
            elif not read_at(handle, stored := raw[: int(self.sizes[where])], offset):
                return False
            elif self._is_whole(parts):
                self._decode(stored, parts[0][0], where)
            else:
                chunk = np.empty(self.chunk, self.dtype) if chunk is None else chunk
                self._decode(stored, chunk, where)
                for part, slices in parts:
                    part[...] = chunk[slices]
        return True

    def _is_whole(self, parts: list[Part]) -> bool:
        """Whether a chunk can be decoded into the only part that is wanted of it."""
        part, _ = parts[0]
        return len(parts) == 1 and part.flags.c_contiguous and part.nbytes == self._chunk_nbytes

    def _fill_in_place(self, handle: int, part: np.ndarray, slices: Slices, offset: int) -> bool:
        """Fill a part of an array from a chunk that is stored as it is in memory."""
        inner, lines, columns = slices
        _, rows, cols = self.chunk
        row_nbytes = cols * self.dtype.itemsize
        even = inner.step in (None, 1)
        if even and part.shape[1:] == (rows, cols) and part.flags.c_contiguous:
            # One piece of the file.
            return read_at(handle, part, offset + inner.start * rows * row_nbytes)
        whole = part.shape[2] == cols and part[0].flags.c_contiguous
        # Where only some columns are wanted, whole rows are read, as many as h5py keeps of a chunk.
        step = part.shape[1] if whole else max(1, CACHE_NBYTES // row_nbytes)
        for frame, number in zip(part, range(*inner.indices(inner.stop)), strict=True):
            for line in range(0, len(frame), step):
                out = frame[line : line + step]
                place = offset + (number * rows + lines.start + line) * row_nbytes
                found = out if whole else np.empty((len(out), cols), self.dtype)
                if not read_at(handle, found, place):
                    return False
                if not whole:
                    out[...] = found[:, columns]
        return True

    def _decode(self, raw: np.ndarray, out: np.ndarray, where: tuple[int, int]) -> None:
        assert self.decode is not None
        try:
            self.decode(raw, out.reshape(-1).view(np.uint8))
        except MemoryError:
            raise
        except Exception as error:  # each package has its own kinds
            first = where[0] * self.chunk[0]
            last = min(first + self.chunk[0], self.shape[0]) - 1
            frames = f"frame {first}" if first == last else f"frames {first} to {last}"
            # A filter may have left a chunk at the edge as it was.
            final = self.crashing and raw.nbytes != out.nbytes
            raise (OSError if final else DamagedChunkError)(
                f"{self.path}: the chunk of {frames} at byte {self.offsets[where]} is damaged: "
                f"{error}"
            ) from error


def cuts(start: int, stop: int, unit: int, nframes: int) -> bool:
    """Whether a range of frames begins or ends within a unit of them.

    >>> cuts(4, 10, 4, 10), cuts(0, 6, 4, 10)
    (False, True)
    """
    return bool(start % unit or (stop % unit and stop < nframes))


def read_at(handle: int, out: np.ndarray, offset: int) -> bool:
    """Fill a contiguous array with the bytes at an offset; return False if the file ends before."""
    view = out.reshape(-1).view(np.uint8).data
    while view:
        count = os.preadv(handle, [view], offset)
        if not count:
            return False
        view, offset = view[count:], offset + count
    return True


def handle_state(handle: int) -> FileState:
    """Return values of an open file that change when it is written or replaced."""
    stat = os.fstat(handle)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
