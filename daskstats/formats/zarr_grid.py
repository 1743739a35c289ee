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
    """The chunks of an array, or its shards if it has any; a slab is those of one frame index."""

    nframes: int
    """frames of a slab"""
    nrows: int
    """rows of a chunk"""
    counts: tuple[int, int, int]
    """slabs, and chunks of a slab along rows and columns"""
    encode: Callable[[tuple[int, int, int]], str]
    """the key of a chunk"""

    @classmethod
    def of(cls, array: zarr.Array) -> Grid:
        lengths = array.shards or array.chunks
        counts = (-(-length // each) for length, each in zip(array.shape, lengths, strict=True))
        nframes = lengths[0] if array.shards else min(lengths[0], array.shape[0])
        return cls(nframes, lengths[1], tuple(counts), array.metadata.encode_chunk_key)

    def keys(self, slab: int, rows: tuple[int, int] | None = None) -> Iterator[str]:
        """Yield the keys of the chunks of a slab, or of those that have some of its rows."""
        first, last = rows or (0, self.counts[1] * self.nrows)
        chunks = range(first // self.nrows, (last - 1) // self.nrows + 1)
        for row, col in product(chunks, range(self.counts[2])):
            yield self.encode((slab, row, col))

    @cached_property
    def _around(self) -> tuple[str, str]:
        """The parts of a key before and after the index of a slab."""
        number = 10**15  # no other part of a key has this many digits
        before, _, after = self.encode((number, 0, 0)).partition(str(number))
        return before, after

    @property
    def parent(self) -> str:
        """The directory with an entry for each slab; "" for that of the array."""
        return self._around[0].rpartition("/")[0]

    @property
    def flat(self) -> bool:
        """Whether one directory has all chunks."""
        return "/" not in self._around[1]

    def slabs_of(self, keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the slabs of keys, or of the beginnings of keys, rising; and their counts."""
        pattern = re.compile(re.escape(self._around[0]) + r"(\d{1,18})(?!\d)")
        slabs = [int(match[1]) for key in keys if (match := pattern.match(key))]
        found, numbers = np.unique(np.array(slabs, np.int64), return_counts=True)
        within = found < self.counts[0]
        return found[within], numbers[within]


@dataclass(frozen=True)
class ShardIndex:
    """The index at the end of a shard: 64-bit offset and length of each chunk, and a checksum.

    The offset of a chunk that was never written has all bits set.
    """

    counts: tuple[int, ...]
    """chunks of a shard along frames, rows and columns"""

    @classmethod
    def of(cls, array: zarr.Array) -> ShardIndex | None:
        """Return the index of an array with shards, if it has the place and form of zarr's own."""
        if array.shards is None or len(array.metadata.codecs) != 1:
            return None
        codec, codecs = array.metadata.codecs[0], load("zarr.codecs")
        endian, *checksum = codec.index_codecs
        as_usual = (
            codec.index_location.value == "end"
            and endian == codecs.BytesCodec(endian="little")
            and list(map(type, checksum)) == [codecs.Crc32cCodec]
        )
        pairs = zip(array.shards, array.chunks, strict=True)
        return cls(tuple(shard // chunk for shard, chunk in pairs)) if as_usual else None

    @property
    def nbytes(self) -> int:
        return 16 * prod(self.counts) + 4

    def written(self, index: bytes) -> np.ndarray:
        """Return for each index along the frames whether one of its chunks was written."""
        if len(index) != self.nbytes:
            return np.ones(self.counts[0], bool)  # damaged: reading it raises an error
        offsets = np.frombuffer(index[:-4], "<u8").reshape(*self.counts, 2)[..., 0]
        return (offsets != np.iinfo("u8").max).any(axis=(1, 2))


def runs(numbers: np.ndarray) -> np.ndarray:
    """Return (first, end) of the runs in rising numbers.

    >>> runs(np.array([0, 1, 2, 5])).tolist()
    [[0, 3], [5, 6]]
    """
    if not numbers.size:
        return np.empty((0, 2), np.int64)
    every = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return np.array([(run[0], run[-1] + 1) for run in every])
