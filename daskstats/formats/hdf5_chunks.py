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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .hdf5_decoders import Decode
from .hdf5_files import CACHE_NBYTES
from .placed import in_native_order

FileState = tuple[int, int, int, int]


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
    fill: np.generic | None = None
    """value of all pixels of a chunk that was never written"""

    def read(self, start: int, stop: int, first: int, last: int) -> np.ndarray | None:
        """Return rows ``first:last`` of frames ``start:stop``; None if h5py has to read them.

        Raises
        ------
        DamagedChunkError
            If a chunk cannot be decoded here.
        OSError
            If no library decodes it.
        """
        if self._is_kept_by_h5py(start, stop):
            return None
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:  # h5py has it open, or finds the fault
            return None
        try:
            if handle_state(handle) != self.state:
                return None
            block = np.empty((stop - start, last - first, self.shape[2]), self.dtype)
            whole = self._fill_block(handle, block, start, first)
            # The bytes are those of the places only if nothing was written meanwhile.
            unchanged = whole and handle_state(handle) == self.state
        finally:
            os.close(handle)
        return in_native_order(block) if unchanged else None

    def _is_kept_by_h5py(self, start: int, stop: int) -> bool:
        """Whether a chunk is needed for other reads as well, and h5py keeps it decoded for them."""
        frames = self.chunk[0]
        parts = start % frames or (stop % frames and stop < self.shape[0])
        return bool(self.decode and parts and self._chunk_nbytes <= CACHE_NBYTES)

    @cached_property
    def largest(self) -> int:
        """The most bytes of a stored chunk."""
        return int(self.sizes.max())

    @property
    def _chunk_nbytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize

    def _fill_block(self, handle: int, block: np.ndarray, start: int, first: int) -> bool:
        """Fill a block with all chunks that it touches; return False if the file ends early."""
        frames, rows, _ = self.chunk
        stop, last = start + block.shape[0], first + block.shape[1]
        raw = np.empty(self.largest if self.decode else 0, np.uint8)
        for index in range(start // frames, -(-stop // frames)):
            for band in range(first // rows, -(-last // rows)):
                begin, top = index * frames, band * rows
                # Frames and rows within the chunk, and the part of the block that they are.
                inner = slice(max(0, start - begin), min(frames, stop - begin))
                lines = slice(max(0, first - top), min(rows, last - top))
                part = block[
                    begin + inner.start - start : begin + inner.stop - start,
                    top + lines.start - first : top + lines.stop - first,
                ]
                if not self._fill_part(handle, raw, part, (index, band), (inner, lines)):
                    return False
        return True

    def _fill_part(
        self,
        handle: int,
        raw: np.ndarray,
        part: np.ndarray,
        where: tuple[int, int],
        box: tuple[slice, slice],
    ) -> bool:
        """Fill a part of a block from the chunk at a place, given the box of it in the chunk."""
        offset = int(self.offsets[where])
        if offset < 0:
            part[...] = self.fill
            return True
        if self.decode is None:
            return self._fill_in_place(handle, part, offset, box)
        raw = raw[: int(self.sizes[where])]
        if not read_at(handle, raw, offset):
            return False
        if part.flags.c_contiguous and part.nbytes == self._chunk_nbytes:
            self._decode(raw, part, where)
        else:
            chunk = np.empty(self.chunk, self.dtype)
            self._decode(raw, chunk, where)
            part[...] = chunk[box]
        return True

    def _fill_in_place(
        self, handle: int, part: np.ndarray, offset: int, box: tuple[slice, slice]
    ) -> bool:
        """Fill a part of a block from a chunk that is stored as it is in memory."""
        inner, lines = box
        _, rows, cols = self.chunk
        row_nbytes = cols * self.dtype.itemsize
        if part.shape[1] == rows and part.flags.c_contiguous:  # one piece of the file
            return read_at(handle, part, offset + inner.start * rows * row_nbytes)
        places = (
            offset + (frame * rows + lines.start) * row_nbytes
            for frame in range(*inner.indices(inner.stop))
        )
        return all(read_at(handle, *pair) for pair in zip(part, places, strict=True))

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
