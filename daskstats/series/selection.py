"""Some frames of a series, and a region of them: nothing else is read."""

from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from dask.array import concatenate
from dask.base import tokenize
from numpy.typing import ArrayLike

from ..arguments import Span, as_slice, check_frames, check_region, runs
from .arrays import ArraySource, FrameListSource
from .base import Cut, CutSource, Origins, Source
from .daskarrays import DaskSource


class SelectedSource(CutSource):
    """Chosen frames of a series, in any order, and a region of each.

    Parameters
    ----------
    source : Source
        The series to choose from.
    frames : sequence of int
        Indices into the series, from 0 to ``len(source) - 1``.
    rows, cols : (int, int)
        First and end of the region.

    Examples
    --------
    >>> source = ArraySource(np.arange(24).reshape(4, 2, 3))
    >>> selected = SelectedSource(source, [3, 0], rows=(1, 2), cols=(0, 2))
    >>> [block.tolist() for block in selected.read(0, 2, 0, 1)]
    [[[[21, 22]]], [[[3, 4]]]]
    """

    def __init__(self, source: Source, frames: ArrayLike, rows: Span, cols: Span) -> None:
        super().__init__(source)
        self.rows, self.cols = rows, cols
        self.frames = np.asarray(frames, np.int64)
        self.nframes = len(self.frames)
        self.shape = rows[1] - rows[0], cols[1] - cols[0]
        self._whole_rows = self.shape[1] == source.shape[1]
        self.in_memory = source.in_memory and self._whole_rows
        # A plan cannot rely on scattered frames to be decoded together.
        adjacent = bool((np.diff(self.frames) == 1).all())
        self.frame_unit = min(source.frame_unit, self.nframes) if adjacent else 1
        if source.row_unit is not None:
            self.row_unit = min(source.row_unit, self.shape[0])
        decoded = self._decoded()
        self.buffers = source.buffers * decoded
        units = source.frame_unit / self.frame_unit
        self.stored = max(0.0, decoded * units * (1 + source.stored) - 1)

    def _decoded(self) -> float:
        """Return the bytes of a frame that are decoded for each that is kept."""
        rows, cols = self.source.shape
        unit = self.source.row_unit
        if unit is not None:  # more than is kept at both ends
            rows = min(rows, self.shape[0] + 2 * (unit - 1))
        return rows * cols / (self.shape[0] * self.shape[1])

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        rows = self.rows[0] + first, self.rows[0] + last
        return [
            self._cut(block)
            for begin, end in runs(self.frames[start:stop])
            # If more is read than kept, at most the frames decoded together are in memory.
            for piece in self.source.pieces(
                begin, end, *rows, end if self._whole_rows else self.source.frame_unit
            )
            for block in piece.views
        ]

    def _cut(self, block: np.ndarray) -> np.ndarray:
        """Return the columns, as a copy if a view would keep much more alive."""
        cut = block[:, :, slice(*self.cols)]
        if self.source.in_memory or _held_nbytes(cut) < 2 * cut.nbytes:
            return cut
        return cut.copy()

    def _within(self, cut: Cut, start: int, stop: int, first: int, last: int) -> Source | None:
        """Select from the smallest part of the other series that holds the frames, if free."""
        frames = self.frames[start:stop]
        lowest = int(frames.min())
        held = cut(lowest, int(frames.max()) + 1, self.rows[0] + first, self.rows[0] + last)
        if held is None:
            return None
        return _selected(held, frames - lowest, (0, last - first), self.cols)

    def frames_without_data(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.frames, self.source.frames_without_data()))

    def origins(self) -> Origins:
        every = [(place, index) for place, frames in self.source.origins() for index in frames]
        chosen = [every[frame] for frame in self.frames]
        groups = groupby(chosen, key=itemgetter(0))
        return [(place, np.array([index for _, index in group])) for place, group in groups]

    def __reduce__(self) -> tuple:
        return type(self), (self.source, self.frames, self.rows, self.cols)

    def __dask_tokenize__(self) -> object:
        frames = self.frames.tobytes()
        return "selected", self.source.__dask_tokenize__(), frames, self.rows, self.cols


def select(source: Source, frames: Any = None, region: Any = None) -> Source:
    """Return a series of some frames of another one, or of a region of each.

    Parameters
    ----------
    source : Source
        The series to choose from.
    frames : slice, sequence of int, or bool array, optional
        Which frames, in which order; -1 is the last one, and a frame may be repeated. A bool array
        has one item for each frame. All by default.
    region : ((int, int), (int, int)), optional
        First row and end, first column and end. The whole frame by default.

    Returns
    -------
    Source
        A series in memory stays a view, and a dask array a dask array.

    Raises
    ------
    ValueError
        If nothing is left, or an index or a region lies outside of the series.
    TypeError
        If ``frames`` or ``region`` is of another type.

    Examples
    --------
    >>> source = ArraySource(np.arange(24).reshape(4, 2, 3))
    >>> select(source, frames=slice(1, None, 2), region=((0, 1), (1, 3)))
    <ArraySource: 2 frames of 1 x 2 int64>
    """
    if frames is None and region is None:
        return source
    return _selected(source, check_frames(frames, len(source)), *check_region(region, source.shape))


def _selected(source: Source, frames: np.ndarray, rows: Span, cols: Span) -> Source:
    if isinstance(source, SelectedSource):
        top, left = source.rows[0], source.cols[0]
        rows, cols = (rows[0] + top, rows[1] + top), (cols[0] + left, cols[1] + left)
        return _selected(source.source, source.frames[frames], rows, cols)
    chosen = _in_memory(source, frames, (slice(*rows), slice(*cols)))
    if chosen is None:
        return SelectedSource(source, frames, rows, cols)
    if not isinstance(chosen, DaskSource):
        # Two equal selections of one array have the same name in a graph.
        chosen._token = tokenize(source.__dask_tokenize__(), frames, rows, cols)
    return chosen


def _in_memory(source: Source, frames: np.ndarray, region: tuple[slice, slice]) -> Source | None:
    """Return the selection of an array, a list of frames or a dask array; None for others."""
    steps = as_slice(frames)
    if type(source) is FrameListSource:
        return FrameListSource([source._frames[index][region] for index in frames])
    if type(source) is ArraySource:
        array = source._array[(slice(None), *region)]
        if steps is not None:
            return ArraySource(array[steps])
        return FrameListSource([array[index] for index in frames])
    if isinstance(source, DaskSource):
        # Indices join blocks to others, which may lose their unit.
        array = (source.array if steps else source.checked)[(slice(None), *region)]
        if steps is None and hasattr(array, "expr"):  # dask fails to take indices of expressions
            return DaskSource(concatenate([array[first:end] for first, end in runs(frames)]))
        return DaskSource(array[frames if steps is None else steps])
    return None


def _held_nbytes(view: np.ndarray) -> int:
    """Return the bytes that an array keeps alive."""
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view.nbytes
