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
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from ..memory.pool import block_of_frames
from .hdf5_chunks import Part, Places, Where, cuts
from .hdf5_storage import Box
from .placed import in_native_order

Pairs = list[tuple[int, int]]
"""numbers of the same frames in a dataset, and in an array"""


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
    edges: np.ndarray | None
    """frames before which no chunk is cut, where these are not the multiples of the unit"""
    cached: int
    """bytes of decoded chunks that h5py keeps for each file"""
    views: list[View]
    tiles: list[Tile]

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray] | None:
        """Return rows ``first:last`` of frames ``start:stop``; None if h5py has to read them.

        It raises the errors of `Places.read`.
        """
        if self._cuts_chunks(start, stop) and any(
            view.places.is_kept_by_h5py(self.cached) for view in self.views
        ):
            return None
        block = block_of_frames(stop - start, last - first, self.shape[1:], self.dtype)
        order = self._order(start, stop)
        wanted: dict[Places, dict[Where, list[Part]]] = defaultdict(lambda: defaultdict(list))
        for tile in self.tiles:
            for view, pairs in self._frames(tile, start, order):
                for where, part in _parts(tile, view, pairs, block, first):
                    wanted[view.places][where].append(part)
        if not all(places.fill(chunks.items()) for places, chunks in wanted.items()):
            return None
        block = in_native_order(block)
        if order == [*range(len(block))]:
            return [block]
        return [block[place : place + 1] for place in order]

    def _cuts_chunks(self, start: int, stop: int) -> bool:
        if self.edges is None:
            return cuts(start, stop, self.unit, self.shape[0])
        # The end of the series cuts nothing, and 0 is an edge.
        return not np.isin([start, stop % self.shape[0]], self.edges).all()

    def _order(self, start: int, stop: int) -> list[int]:
        """Return the places of frames in an array where the frames of a chunk are neighbours.

        Such a chunk is decoded in place, which takes a third less time than to copy its frames from
        where it was decoded: files taken in turn, four frames of bitshuffle to a chunk.
        """
        order = [*range(stop - start)]
        if self.unit > 1:
            shown, own = (each[start:stop] for each in (self.tiles[0].shown, self.tiles[0].own))
            for place, frame in enumerate(np.lexsort((own, shown)).tolist()):
                order[frame] = place
        return order

    def _frames(self, tile: Tile, start: int, order: list[int]) -> Iterator[tuple[View, Pairs]]:
        """Yield each view that a tile shows in a range of frames, and the frames of it."""
        found: dict[int, Pairs] = defaultdict(list)
        frames = slice(start, start + len(order))
        rows = zip(tile.shown[frames].tolist(), tile.own[frames].tolist(), order, strict=True)
        for index, number, place in rows:
            found[index].append((number, place))
        for index, pairs in found.items():
            yield self.views[index], sorted(pairs, key=itemgetter(1))


def _parts(
    tile: Tile, view: View, pairs: Pairs, block: np.ndarray, first: int
) -> Iterator[tuple[Where, Part]]:
    """Yield the parts of a block, from row ``first`` on, that a tile shows of a chunk each."""
    top, bottom, left, right = tile.box
    low, high = max(top, first), min(bottom, first + block.shape[1])
    if low >= high:
        return
    out = block[:, low - first : high - first, left:right]
    row, col = view.corner
    for chunk, inner, here in even_runs(pairs, view.places.chunk[0]):
        yield from view.places.parts(chunk, inner, out[here], (row + low - top, col))


def even_runs(pairs: Pairs, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Cut pairs of frame numbers into pairs of slices.

    Parameters
    ----------
    pairs : list of (int, int)
        Numbers of frames in a dataset, and in an array, where they ascend.
    length : int
        Frames of a chunk of the dataset.

    Yields
    ------
    chunk : int
        Index of the chunk that the frames are in.
    inner, here : slice
        The frames within the chunk, and within the array.

    Examples
    --------
    >>> list(even_runs([(2, 0), (3, 2), (4, 4), (5, 6)], 4))
    [(0, slice(2, 4, 1), slice(0, 3, 2)), (1, slice(0, 2, 1), slice(4, 7, 2))]
    """
    begin = 0
    while begin < len(pairs):
        (number, place), end = pairs[begin], begin + 1
        chunk, step, stride = number // length, 1, 1
        if end < len(pairs) and pairs[end][0] > number:  # slices that go backwards are not needed
            step, stride = pairs[end][0] - number, pairs[end][1] - place
        last, final = number, place
        while end < len(pairs) and pairs[end] == (last + step, final + stride):
            if pairs[end][0] // length != chunk:
                break
            (last, final), end = pairs[end], end + 1
        base = chunk * length
        yield chunk, slice(number - base, last - base + 1, step), slice(place, final + 1, stride)
        begin = end
