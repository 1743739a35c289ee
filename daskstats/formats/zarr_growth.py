"""How many frames of a zarr array are written while a program adds to it.

The shape tells nothing: it may be changed before the frames are written, or after. A frame is
complete if all its chunks are there, or a chunk of a later one: frames are written in their order,
and a chunk that would hold nothing but the fill value may be left out. A chunk of several frames is
written again for each of them, so it is complete only when there is one that follows it. ::

    chunks of 1 frame       #  #  .  #  #      5 frames are complete, the third of fill values
    chunks of 4 frames      #### #### ##..     8 are complete, and 12 are begun
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..series.files import Growth, digest_of_part

if TYPE_CHECKING:
    import zarr

    from .zarr_store import ArrayDirectory, Known


class GrowingArray:
    """The chunks of an array in a directory, in rows along its first axis, the one that grows.

    Parameters
    ----------
    array : zarr.Array
        Of at least three axes.
    store : ArrayDirectory
    known : Known
        The state of the array when it was opened.
    """

    def __init__(self, array: zarr.Array, store: ArrayDirectory, known: Known) -> None:
        self._store, grid = store, store.grid
        self._size, self._length = (array.shards or array.chunks)[0], array.shape[0]
        self._frames = prod(array.shape[1:-2])
        """for each index of the first axis"""
        self._slabs = prod(grid.slabs[1:])
        """for each row"""
        last = (known.written[-1][1] - 1) // self._slabs if known.written else -1
        # A directory may be there before its first chunk.
        while last >= 0 and not any(path.exists() for path in self._chunks(last)):
            last -= 1
        self._last = last
        """the last row with a chunk, -1: none"""

    def _chunks(self, row: int) -> Iterator[Path]:
        for slab in range(row * self._slabs, (row + 1) * self._slabs):
            yield from self._store.chunk_paths(slab)

    def growth(self, fill: float) -> Growth:
        """Return the frames that are written."""
        last = self._last
        whole = last >= 0 and all(path.exists() for path in self._chunks(last))
        alone = self._size == 1 and whole
        return Growth(self._up_to(last + alone), self._up_to(last + 1), fill, whole)

    def _up_to(self, row: int) -> int:
        return min(max(row, 0) * self._size, self._length) * self._frames

    def digest_of_frame(self, frame: int) -> bytes | None:
        """Return a digest of the first chunk file that there is of a frame."""
        ((slab,), _) = self._store.grid.slabs_with(frame, frame + 1)
        for path in self._store.chunk_paths(int(slab)):
            with suppress(FileNotFoundError):
                return digest_of_part(path)
        return None

    def paths(self) -> Iterator[Path]:
        """Yield the paths, one of which changes when a chunk is written, or the shape."""
        yield from self._store.places
        if self._last >= 0:
            yield from self._chunks(self._last)
        if (self._last + 1) * self._size < self._length:
            yield from self._chunks(self._last + 1)
