"""How the chunks of a zarr array, or its shards, are cut and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Grid:
    """The chunks of an array, or its shards if it has any.

    A slab is all chunks of one index of each leading axis; slabs are numbered in C order.
    """

    lead: tuple[int, ...]
    """lengths of the leading axes, all of which count as frames"""
    sizes: tuple[int, ...]
    """lengths of a chunk along them"""
    nrows: int
    """rows of a chunk"""
    counts: tuple[int, int, int]
    """slabs, and chunks of a slab along rows and columns"""
    encode: Callable[[tuple[int, ...]], str]
    """the key of a chunk"""

    @classmethod
    def of(cls, array: zarr.Array) -> Grid:
        lengths, lead = array.shards or array.chunks, array.shape[:-2]
        sizes = lengths[:-2] if array.shards else tuple(map(min, lengths[:-2], lead))
        down, across = (-(-array.shape[axis] // lengths[axis]) for axis in (-2, -1))
        slabs = prod(_numbers(lead, sizes))
        return cls(lead, sizes, lengths[-2], (slabs, down, across), array.metadata.encode_chunk_key)

    @cached_property
    def slabs(self) -> tuple[int, ...]:
        """Numbers of slabs along the leading axes."""
        return _numbers(self.lead, self.sizes)

    @property
    def padded(self) -> int:
        """Frames of all slabs, those beyond the end of the array included."""
        return prod(self.slabs) * prod(self.sizes)

    def keys(self, slab: int, rows: tuple[int, int] | None = None) -> Iterator[str]:
        """Yield the keys of the chunks of a slab, or of those that have some of its rows."""
        first, last = rows or (0, self.counts[1] * self.nrows)
        chunks = range(first // self.nrows, (last - 1) // self.nrows + 1)
        index = tuple(map(int, np.unravel_index(slab, self.slabs))) if self.slabs else ()
        for row, col in product(chunks, range(self.counts[2])):
            yield self.encode((*index, row, col))

    def slabs_with(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the slabs that have frames ``start:stop``, rising, and the first frame in each."""
        frames = np.arange(start, stop)
        if not self.lead:
            return np.zeros(1, np.int64), frames[:1]
        index = np.unravel_index(frames, self.lead)
        pairs = zip(index, self.sizes, strict=True)
        numbers = np.ravel_multi_index(tuple(each // size for each, size in pairs), self.slabs)
        found, first = np.unique(numbers, return_index=True)
        return found, frames[first]

    def frames_of(self, there: np.ndarray) -> np.ndarray:
        """Return for each frame whether it is there.

        Parameters
        ----------
        there : ndarray
            For each slab, and each frame of a slab.
        """
        naxes = len(self.lead)
        order = [axis + part for axis in range(naxes) for part in (0, naxes)]
        pairs = zip(self.slabs, self.sizes, strict=True)
        whole = there.reshape((*self.slabs, *self.sizes)).transpose(order)
        whole = whole.reshape([count * size for count, size in pairs])
        return whole[tuple(map(slice, self.lead))].ravel()

    @cached_property
    def _texts(self) -> list[str]:
        """The parts of a key around the indices of a slab, or that of a row if there are none."""
        numbers = [10**15 + axis for axis in range(len(self.lead) or 1)]  # none else is as long
        index = (*numbers, 0, 0)[: len(self.lead) + 2]
        return re.split("|".join(map(str, numbers)), self.encode(index))

    @property
    def parent(self) -> str:
        """The directory with an entry for each first index of slabs; "" for that of the array."""
        return self._texts[0].rpartition("/")[0]

    @property
    def flat(self) -> bool:
        """Whether one directory has all chunks."""
        return not any("/" in text for text in self._texts[1:])

    @property
    def levels(self) -> int:
        """Levels of directories below `parent` down to that of a slab."""
        return 0 if self.flat else len(self.lead)

    def slabs_of(self, keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the slabs of keys, or of the beginnings of keys, rising; and their counts."""
        before = map(re.escape, self._texts[:-1])
        pattern = re.compile(r"(\d{1,18})".join(before) + r"(\d{1,18})(?!\d)")
        found = [match.groups() for key in keys if (match := pattern.match(key))]
        index = np.array(found, np.int64).reshape(len(found), len(self._texts) - 1).T
        if not (found and self.lead):
            slabs = np.zeros(len(found), np.int64)
        else:
            within = (index < np.array(self.slabs)[:, None]).all(axis=0)
            slabs = np.ravel_multi_index(tuple(index[:, within]), self.slabs)
        return np.unique(slabs, return_counts=True)


def _numbers(lead: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of chunks along axes."""
    return tuple(-(-length // size) for length, size in zip(lead, sizes, strict=True))


@dataclass(frozen=True)
class ShardIndex:
    """The index at the end of a shard: 64-bit offset and length of each chunk, and a checksum.

    The offset of a chunk that was never written has all bits set.
    """

    counts: tuple[int, ...]
    """chunks of a shard along each axis"""

    @classmethod
    def of(cls, array: zarr.Array) -> ShardIndex | None:
        """Return the index of an array with shards, if it has the place and form of zarr's own."""
        if array.shards is None or len(array.metadata.codecs) != 1:
            return None
        codec, codecs = array.metadata.codecs[0], load("zarr.codecs")
        endian, *checksum = codec.index_codecs
        # The place is a text from zarr 3.4 on, and was an enum.
        as_usual = (
            getattr(codec.index_location, "value", codec.index_location) == "end"
            and endian == codecs.BytesCodec(endian="little")
            and list(map(type, checksum)) == [codecs.Crc32cCodec]
        )
        pairs = zip(array.shards, array.chunks, strict=True)
        return cls(tuple(shard // chunk for shard, chunk in pairs)) if as_usual else None

    @property
    def nbytes(self) -> int:
        return 16 * prod(self.counts) + 4

    def written(self, index: bytes) -> np.ndarray:
        """Return for each index along the leading axes whether one of its chunks was written."""
        if len(index) != self.nbytes:
            return np.ones(self.counts[:-2], bool)  # damaged: reading it raises an error
        offsets = np.frombuffer(index[:-4], "<u8").reshape(*self.counts, 2)[..., 0]
        return (offsets != np.iinfo("u8").max).any(axis=(-2, -1))
