"""Frames as columns of single pixels, for bands that are parts of rows."""

from typing import Any

import numpy as np

from .arrays import ArraySource
from .base import Source
from .daskarrays import DaskSource


class FlatSource(Source):
    """A source whose frames (rows, cols) are seen as (rows * cols, 1).

    The source is read by whole rows: more than the pixels that are asked for only at both ends.

    Examples
    --------
    >>> source = FlatSource(ArraySource(np.arange(24).reshape(4, 2, 3)))
    >>> source.shape
    (6, 1)
    >>> [block.ravel().tolist() for block in source.read(1, 3, 2, 4)]
    [[8, 9], [14, 15]]
    """

    def __init__(self, source: Source) -> None:
        rows, self._cols = source.shape
        self.source, self.nframes, self.dtype = source, source.nframes, source.dtype
        self.shape = rows * self._cols, 1
        self.frame_unit, self.in_memory = source.frame_unit, source.in_memory
        self.buffers, self.again, self.apart = source.buffers, source.again, source.apart
        self.stored = source.stored
        if source.row_unit is not None:
            self.row_unit = source.row_unit * self._cols

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        top, bottom = first // self._cols, -(-last // self._cols)
        edge = top * self._cols
        return [
            self._cut(block, first - edge, last - edge)
            # No more frames at once than are decoded together, of which parts of rows are kept.
            for piece in self.source.pieces(start, stop, top, bottom, self.source.frame_unit)
            for block in piece
        ]

    def _try(self, *where: int) -> list[np.ndarray]:
        # The source itself tries again, and names the frames where it fails.
        return self.read(*where)

    def _cut(self, block: np.ndarray, first: int, last: int) -> np.ndarray:
        pixels = block.reshape(len(block), -1, 1)
        part = pixels[:, first:last]
        return part if self.in_memory or part.shape == pixels.shape else part.copy()

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return self._within(self.source.part, start, stop, first, last)

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return self._within(self.source.view, start, stop, first, last)

    def _within(self, cut: Any, start: int, stop: int, first: int, last: int) -> Source | None:
        """Return the pixels as an array if the rows that hold them are one in memory."""
        top, bottom = first // self._cols, -(-last // self._cols)
        rows = cut(start, stop, top, bottom)
        if not self.in_memory or type(rows) is not ArraySource:
            return None
        (block,) = rows.read(0, stop - start, 0, bottom - top)
        edge = top * self._cols
        pixels = block.reshape(stop - start, -1, 1)[:, first - edge : last - edge]
        return ArraySource(pixels) if np.may_share_memory(pixels, block) else None

    def __reduce__(self) -> Any:
        return FlatSource, (self.source,)

    def __dask_tokenize__(self) -> Any:
        return "flat", self.source.__dask_tokenize__()


def flattened(source: Source) -> Source:
    """Return a source whose frames are columns of single pixels; a dask array stays one."""
    if not isinstance(source, DaskSource):
        return FlatSource(source)
    rows, cols = source.shape
    array = source.array.rechunk({2: -1}).reshape(len(source), rows * cols, 1)
    return DaskSource(array)
