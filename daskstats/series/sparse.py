"""Sparse frames: pieces of the pixels that are stored, all others being zero."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..planning.values import Layout
from .base import Source, read_patiently
from .piece import Piece

# Bytes of the number of a pixel, which is stored with each value.
PIXEL = np.dtype(np.int64).itemsize

# Bytes that are allocated while sparse frames are read, per byte of them: each frame before it is
# joined to others, and the arrays that it is made of.
READING = 2.0


class SparseFrame(NamedTuple):
    """The pixels of a frame that are stored; all others are zero."""

    pixels: np.ndarray
    """int64: row * cols + col, rising"""
    values: np.ndarray


class SparseBlock(NamedTuple):
    """Sparse frames, one after the other."""

    pixels: np.ndarray
    """int64: row * cols + col, rising within each frame"""
    values: np.ndarray
    edges: np.ndarray
    """int64: where each frame begins, and the end of the last"""


class SparsePiece:
    """Frames that follow one another, as the pixels of some rows that are stored.

    It has the properties of a `Piece`, but iterating over it gives sparse blocks; the arrays of
    frames are those of ``dense()``.

    Parameters
    ----------
    blocks : iterable of SparseBlock
        At least one.
    cols : int
        Columns of a frame.
    first, last : int
        First row and end; pixels of other rows, which blocks may have, do not belong to the piece.

    Examples
    --------
    >>> frames = [SparseFrame(np.array(pixels), np.array([7, 8])) for pixels in ((1, 5), (0, 2))]
    >>> piece = SparsePiece([joined_frames(frames, np.dtype(int))], cols=3, first=0, last=2)
    >>> piece.nframes, piece.shape, piece.dtype
    (2, (2, 3), dtype('int64'))
    >>> piece.rows(1, 2).dense()[0].tolist()
    [[[0, 0, 8]], [[0, 0, 0]]]
    """

    __slots__ = ("blocks", "cols", "first", "last")

    def __init__(self, blocks: Iterable[SparseBlock], cols: int, first: int, last: int) -> None:
        self.blocks, self.cols, self.first, self.last = list(blocks), cols, first, last

    @classmethod
    def joined(cls, pieces: "Iterable[SparsePiece]") -> "SparsePiece":
        """Return one piece with the frames of several that have the same rows."""
        every = list(pieces)
        blocks = (block for piece in every for block in piece.blocks)
        return cls(blocks, every[0].cols, every[0].first, every[0].last)

    @property
    def nframes(self) -> int:
        """Number of frames."""
        return sum(len(block.edges) - 1 for block in self.blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.last - self.first, self.cols

    @property
    def dtype(self) -> np.dtype:
        """Of the frames."""
        return self.blocks[0].values.dtype

    @property
    def window(self) -> tuple[int, int]:
        """First pixel and end of the rows, among those of whole frames."""
        return self.first * self.cols, self.last * self.cols

    def rows(self, first: int, last: int) -> "SparsePiece":
        """Return rows ``first:last`` of all frames; nothing is copied."""
        return SparsePiece(self.blocks, self.cols, self.first + first, self.first + last)

    def __iter__(self) -> Iterator[SparseBlock]:
        return iter(self.blocks)

    def dense(self) -> Piece:
        """Return the frames with all of their pixels."""
        first, last = self.window
        arrays = []
        for pixels, values, edges in self.blocks:
            array = np.zeros((len(edges) - 1, *self.shape), values.dtype)
            for number, frame in enumerate(array.reshape(len(array), -1)):
                part = slice(edges[number], edges[number + 1])
                low, high = part.start + np.searchsorted(pixels[part], (first, last))
                frame[pixels[low:high] - first] = values[low:high]
            arrays.append(array)
        return Piece(arrays)


class SparseSource(Source):
    """A series of sparse frames, which are read as such or with all of their pixels.

    A subclass sets `values` and defines `read_sparse`.
    """

    values: np.ndarray
    """int64 (frames): number of values that each frame stores, or more"""

    def read_sparse(self, start: int, stop: int) -> list[SparseFrame]:
        """Return frames ``start:stop``."""
        raise NotImplementedError

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        block = joined_frames(self.read_sparse(start, stop), self.dtype)
        return SparsePiece([block], self.shape[1], first, last).dense().arrays

    def sparse_pieces(
        self, start: int, stop: int, first: int, last: int, count: int
    ) -> Iterator[SparsePiece]:
        """Yield rows ``first:last`` of frames ``start:stop``, ``count`` frames at a time."""
        for begin in range(start, stop, count):
            end = min(stop, begin + count)
            frames = read_patiently(partial(self.read_sparse, begin, end), begin, end)
            block = joined_frames(frames, self.dtype)
            del frames  # they are copied
            yield SparsePiece([block], self.shape[1], first, last)

    def sparse_layout(self, dense: Layout) -> Layout:
        """Return the layout of frames as sparse ones, given that of the dense ones."""
        values = self.values[: dense.nframes]
        largest, total = (sparse_nbytes(some, self.dtype) for some in (values.max(), values))
        sizes = max(1, largest), max(1, total)
        return replace(dense, sparse=sizes, row_unit=dense.rows, buffers=READING, widened=0)


def sparse_nbytes(values: ArrayLike, dtype: np.dtype) -> int:
    """Return the bytes of frames of a dtype, given the number of values that each stores."""
    return int(np.sum(values)) * (PIXEL + dtype.itemsize)


def joined_frames(frames: list[SparseFrame], dtype: np.dtype) -> SparseBlock:
    """Return a block of some frames of a dtype."""
    pixels = np.concatenate([frame.pixels for frame in frames])
    values = np.concatenate([frame.values for frame in frames], dtype=dtype)
    edges = np.cumsum([0, *(len(frame.pixels) for frame in frames)])
    return SparseBlock(pixels, values, edges)
