"""The frames of a growing series that are written."""

from collections.abc import Iterator

import numpy as np

from .base import DerivedSource, Source
from .piece import Piece


class WrittenSource(DerivedSource):
    """The first frames of a series that grows.

    Each of them is written, also where it has no data: then it holds nothing but the fill value.

    Examples
    --------
    >>> from daskstats.series.arrays import ArraySource
    >>> WrittenSource(ArraySource(np.zeros((3, 4, 5))), 2)
    <WrittenSource: 2 frames of 4 x 5 float64>
    """

    def __init__(self, source: Source, nframes: int) -> None:
        super().__init__(source)
        self.nframes = nframes
        self.frame_unit = min(source.frame_unit, nframes)

    def pieces(self, start: int, stop: int, first: int, last: int, count: int) -> Iterator[Piece]:
        """Yield the pieces of the other series, which checks them."""
        yield from self.source.pieces(start, stop, first, last, count)

    def frames_without_data(self) -> np.ndarray:
        return np.empty(0, np.int64)

    def __reduce__(self) -> tuple:
        return WrittenSource, (self.source, self.nframes)

    def __dask_tokenize__(self) -> object:
        return "written", self.source.__dask_tokenize__(), self.nframes


def last_with_values(source: Source, first: int, last: int, fill: float) -> int:
    """Return the end of the frames ``first:last`` up to the last with another value than one.

    >>> from daskstats.series.arrays import ArraySource
    >>> last_with_values(ArraySource(np.array([[[0]], [[3]], [[0]]])), 0, 3, fill=0)
    2
    """
    same = np.isnan if np.isnan(fill) else lambda frame: frame == fill
    for end in range(last, first, -1):
        for piece in source.pieces(end - 1, end, 0, source.shape[0], 1):
            if not all(same(block).all() for block in piece):
                return end
    return first
