"""Virtual HDF5 datasets, read at the places of the chunks of the datasets that they show.

Every frame is made of the same boxes of pixels, the tiles: one for files that follow one another or
are taken in turn, several for the modules of a detector. Each tile is a part of a frame of another
dataset::

    frame         0         1         2         3
    rows 0 .. 3   a.h5, 0   b.h5, 0   a.h5, 1   b.h5, 1     tile: file and frame there
    rows 4 .. 7   c.h5, 0   d.h5, 0   c.h5, 1   d.h5, 1     another one

All parts of a read that are of one chunk are filled together, so that it is decoded once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .hdf5_chunks import Part, Places, Where, cuts
from .hdf5_storage import Box
from .placed import in_native_order


@dataclass(frozen=True, eq=False)
class View:
    """Frames of a dataset from a row and a column on."""

    places: Places
    corner: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Tile:
    """A box of pixels of all frames, and where its pixels are."""

    box: Box
    shown: np.ndarray
    """index of a view for each frame"""
    own: np.ndarray
    """number of the frame there"""


@dataclass(frozen=True, eq=False)
class TiledPlaces:
    """The places of the chunks that a virtual dataset shows."""

    dtype: np.dtype
    """of the stored pixels, in the byte order of the files"""
    shape: tuple[int, int, int]
    """frames, rows and columns"""
    unit: int
    """frames that are read at once so that few chunks are cut"""
    cached: int
    """bytes of decoded chunks that h5py keeps for each file"""
    views: list[View]
    tiles: list[Tile]

    def read(self, start: int, stop: int, first: int, last: int) -> np.ndarray | None:
        """Return rows ``first:last`` of frames ``start:stop``; None if h5py has to read them.

        It raises the errors of `Places.read`.
        """
        parted = cuts(start, stop, self.unit, self.shape[0])
        if parted and any(view.places.is_kept_by_h5py(self.cached) for view in self.views):
            return None
        block = np.empty((stop - start, last - first, self.shape[2]), self.dtype)
        wanted: dict[Places, dict[Where, list[Part]]] = defaultdict(lambda: defaultdict(list))
        for tile in self.tiles:
            for places, where, part in self._parts(tile, block, start, first):
                wanted[places][where].append(part)
        filled = all(places.fill(chunks.items()) for places, chunks in wanted.items())
        return in_native_order(block) if filled else None

    def _parts(
        self, tile: Tile, block: np.ndarray, start: int, first: int
    ) -> Iterator[tuple[Places, Where, Part]]:
        """Yield the parts of a block that are of one tile and one chunk each."""
        top, bottom, left, right = tile.box
        low, high = max(top, first), min(bottom, first + block.shape[1])
        if low >= high:
            return
        out = block[:, low - first : high - first, left:right]
        shown, own = (each[start : start + len(block)] for each in (tile.shown, tile.own))
        for index in np.unique(shown):
            view, frames = self.views[index], np.flatnonzero(shown == index)
            row, col = view.corner
            corner = row + low - top, col
            for chunk, inner, here in even_runs(own[frames], frames, view.places.chunk[0]):
                for where, part in view.places.parts(chunk, inner, out[here], corner):
                    yield view.places, where, part


def even_runs(
    numbers: Sequence[int] | np.ndarray, here: Sequence[int] | np.ndarray, length: int
) -> Iterator[tuple[int, slice, slice]]:
    """Cut pairs of frame numbers, in a dataset and in an array, into pairs of slices.

    Parameters
    ----------
    numbers, here : sequence of int
        Frames of the dataset, and their places in an array, which ascend.
    length : int
        Frames of a chunk of the dataset.

    Yields
    ------
    chunk : int
        Index of the chunk that the frames are in.
    inner, here : slice
        The frames within the chunk, and their places in the array.

    Examples
    --------
    >>> list(even_runs([2, 3, 4, 5], [0, 2, 4, 6], 4))
    [(0, slice(2, 4, 1), slice(0, 3, 2)), (1, slice(0, 2, 1), slice(4, 7, 2))]
    """
    pairs = [*zip(map(int, numbers), map(int, here), strict=True)]
    begin = 0
    while begin < len(pairs):
        (number, place), end = pairs[begin], begin + 1
        chunk, steps = number // length, (1, 1)
        if end < len(pairs):
            steps = pairs[end][0] - number, pairs[end][1] - place
        if steps[0] < 1:
            steps = 1, 1
        while (
            end < len(pairs)
            and pairs[end] == (pairs[end - 1][0] + steps[0], pairs[end - 1][1] + steps[1])
            and pairs[end][0] // length == chunk
        ):
            end += 1
        (last, final), inner = pairs[end - 1], number - chunk * length
        yield (
            chunk,
            slice(inner, last - chunk * length + 1, steps[0]),
            slice(place, final + 1, steps[1]),
        )
        begin = end
