"""Frames as columns of single pixels, for bands that are parts of rows."""

import numpy as np

from .arrays import ArraySource
from .base import Cut, CutSource, Source
from .daskarrays import DaskSource


class FlatSource(CutSource):
    """A series whose frames (rows, cols) are seen as (rows * cols, 1).

    It is read by whole rows: more pixels than requested at both ends only.

    Examples
    --------
    >>> source = FlatSource(ArraySource(np.arange(24).reshape(4, 2, 3)))
    >>> source.shape
    (6, 1)
    >>> [block.ravel().tolist() for block in source.read(1, 3, 2, 4)]
    [[8, 9], [14, 15]]
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        rows, self._cols = source.shape
        self.shape = rows * self._cols, 1
        if source.row_unit is not None:
            self.row_unit = source.row_unit * self._cols

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        top, bottom = first // self._cols, -(-last // self._cols)
        edge = top * self._cols
        return [
            self._cut(block, first - edge, last - edge)
            # Whole rows are in memory for no more frames than are decoded together.
            for piece in self.source.pieces(start, stop, top, bottom, self.source.frame_unit)
            for block in piece
        ]

    def _cut(self, block: np.ndarray, first: int, last: int) -> np.ndarray:
        pixels = block.reshape(len(block), -1, 1)
        part = pixels[:, first:last]
        return part if self.in_memory or part.shape == pixels.shape else part.copy()

    def _within(self, cut: Cut, start: int, stop: int, first: int, last: int) -> Source | None:
        """Return the pixels as an array if their rows are one array in memory."""
        top, bottom = first // self._cols, -(-last // self._cols)
        rows = cut(start, stop, top, bottom)
        if not self.in_memory or type(rows) is not ArraySource:
            return None
        (block,) = rows.read(0, stop - start, 0, bottom - top)
        edge = top * self._cols
        pixels = block.reshape(stop - start, -1, 1)[:, first - edge : last - edge]
        return ArraySource(pixels) if np.may_share_memory(pixels, block) else None

    def __reduce__(self) -> tuple:
        return FlatSource, (self.source,)

    def __dask_tokenize__(self) -> object:
        return "flat", self.source.__dask_tokenize__()


def flattened(source: Source) -> Source:
    """Return a series whose frames are columns of single pixels; a dask array stays one."""
    if not isinstance(source, DaskSource):
        return FlatSource(source)
    rows, cols = source.shape
    # A block that is joined to others may have lost its unit.
    array = source.checked.rechunk({2: -1}).reshape(len(source), rows * cols, 1)
    return DaskSource(array)
