"""Order statistics: the values of given ranks at each pixel, without sorting."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .frames import (
    SHORT_TILE,
    TILE,
    Frames,
    Piece,
    addresses_of,
    aligned,
    count_frames,
    part_of,
    plain,
    pooled,
    value_at,
    view,
)
from .jit import compiled, internal, merged
from .keys import Keys, values_of_keys
from .moments import Squares, SquareSums
from .ranks import Among, ranks_of
from .search import (
    SAMPLE,
    Block,
    Cut,
    KeyFrames,
    cut_about,
    follow,
    in_tile,
    mean_step,
    middle_of,
    sample_keys,
    search,
    search_alone,
    search_near,
)
from .tile_squares import squares_of_tile
from .tiles import MOST_BITS
from .validity import Valid, ValidityTest

# Fewest pixels of a block (`SHORT_TILE` at most), and bytes of its tile, which holds a part of each
# key of all frames, so that its counters and its tile stay in a second-level cache.
LEAST_BLOCK = SHORT_TILE // 4
TILE_NBYTES = 1 << 18

# Bits about the mean, or about the key of the rank before, that are searched at first. If one pixel
# in 512 lies beyond, the block is searched again, and the next ones with one bit more.
FEW_BITS = 3


class Wanted(NamedTuple):
    """The order statistics to find, and memory for it."""

    ranks: np.ndarray | Among
    guesses: np.ndarray
    """for each rank; see `OrderStatistics`"""
    out: np.ndarray
    """(ranks, pixels): keys"""
    tile: np.ndarray
    """uint8 (frames, pixels of a block)"""
    padded: np.ndarray
    """int32: ranks of the pixels of a block, with room to the end of the tile"""
    few: np.ndarray
    """int64: for each rank the bits that are searched first, where a key is nearly known"""
    steps: np.ndarray
    """int64: for each rank the mean difference from the keys of the rank before in the last block,
    -1 if it is not known"""


class OrderStatistics:
    """The values of some ranks (0 is the smallest) at each pixel, found some pixels at a time.

    Every value is turned into a key (`daskstats.kernels.keys`), and the keys of the ranks are
    found block by block: see `daskstats.kernels.search`.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    ranks : sequence of int, or Among
        In rising order; or, with ``guesses``, ranks that follow from numbers of values. The value
        of rank -1, of a pixel without values, is arbitrary.
    guesses : sequence of int, optional
        For each rank the nearest frame of the sorted sample; -1: it is the rank before, or the
        next one.
    test : ValidityTest, optional
        Test for values that are left out; see `Valid.rank_test`.
    find_nan : bool
        Whether a pixel with a NaN in any frame is NaN.
    """

    def __init__(
        self,
        piece: Piece,
        ranks: Sequence[int] | np.ndarray | Among,
        guesses: Sequence[int] | np.ndarray | None = None,
        test: ValidityTest | None = None,
        find_nan: bool = True,
    ) -> None:
        if not isinstance(ranks, Among):
            ranks = np.asarray(ranks)
        if guesses is None:
            guesses = _near([int(rank) for rank in ranks], count_frames(piece))
        keys, self._dtype, self._shape = Keys(piece[0].dtype), piece[0].dtype, piece[0].shape[1:]
        unsigned, pixels = keys.unsigned, prod(self._shape)
        self._frames = [block.view(unsigned) for block in piece]  # they outlive their addresses
        every = addresses_of(self._frames)
        self._out = pooled((len(guesses), pixels), unsigned)
        self._missing = np.zeros(pixels if keys.floats and find_nan else 0, np.bool_)
        flip = unsigned.type(0 if keys.floats else keys.flip)
        self._key_frames = KeyFrames(every, flip, keys.floats, test)
        tile = aligned((every.size, _block(every.size, pixels, test is not None)), np.uint8)
        padded, each = np.zeros(tile.shape[1], np.int32), np.ones(len(guesses), np.int64)
        learnt = FEW_BITS * each, -each
        self._wanted = Wanted(ranks, np.array(guesses), self._out, tile, padded, *learnt)
        self._along: tuple[Frames, SquareSums] | None = None

    def take_along(self, squares: Squares) -> bool:
        """Sum the squares of the same frames as well if that is possible; return whether it is."""
        free = self._along is None and self._key_frames.test is None
        along = squares.of_tiles() if free else None
        self._along = along or self._along
        return along is not None

    def run(self, first: int, last: int) -> None:
        """Find the values of the pixels from ``first`` to ``last - 1``."""
        if self._missing.size:
            infinity = np.array(np.inf, self._dtype).view(self._out.dtype)[()]
            _find_missing(self._key_frames.addresses, infinity, self._missing, first, last)
        _select(self._key_frames, self._wanted, self._along, first, last)

    def values(self) -> np.ndarray:
        """Turn the keys into values (ranks, rows, cols) and return these: call it once."""
        values = values_of_keys(self._out, self._dtype)
        if self._missing.any():
            values[:, self._missing] = np.nan
        return values.reshape(-1, *self._shape)


def sharing(loops: Iterable[Any]) -> list[Any]:
    """Return the fewest loops over the same frames that have the results of the given ones.

    Squares of small integers are summed from the tiles of order statistics.
    """
    loops = list(loops)
    for order in [loop for loop in loops if isinstance(loop, OrderStatistics)]:
        loops = [
            loop for loop in loops if not (isinstance(loop, Squares) and order.take_along(loop))
        ]
    return loops


def _near(ranks: Sequence[int], nframes: int) -> list[int]:
    """Return the nearest frame of the sorted sample for each rank, -1 if it follows another."""
    guesses, searched = [], -2
    for rank in ranks:
        follows = rank == searched + 1
        guesses.append(-1 if follows else rank * SAMPLE // nframes)
        searched = searched if follows else rank
    return guesses


class ValidPercentiles:
    """Percentiles of the valid values of each pixel, some pixels at a time.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    percentiles : sequence of float
        From 0 to 100.
    valid : Valid
        Values that are left out; the number of valid frames of each pixel is written to its counts.
    skipna : bool
        Whether NaN is left out; otherwise a pixel with one in any frame is NaN.
    kept, below : ndarray, optional
        int32: at each pixel the number of valid values that the percentiles are of, and of those
        below them; by default they are of all valid values.

    Examples
    --------
    >>> from daskstats.kernels import Keys
    >>> frames = np.array([7, 9, 3, 8], "u1")[:, None, None]
    >>> keys = Keys(frames.dtype)
    >>> valid = Valid(keys.equal_to(9), keys, np.array([[0]], "u4"))
    >>> found = ValidPercentiles([frames], [75], valid, True)
    >>> found.run(0, 1)
    >>> [values.item() for values in found.neighbours()[0]]
    [7, 8, 0.5]
    """

    def __init__(
        self,
        piece: Piece,
        percentiles: Sequence[float],
        valid: Valid,
        skipna: bool,
        kept: np.ndarray | None = None,
        below: np.ndarray | None = None,
    ) -> None:
        # The least and the largest value are at a rank, and need no neighbour.
        both = [[0, 1][: 1 + (0 < q < 100)] for q in percentiles]
        self._rows = np.cumsum([0, *map(len, both)])
        parts = np.repeat(np.array(percentiles) / 100, np.diff(self._rows))
        steps = np.concatenate(both)
        guesses = np.where(steps, -1, np.minimum(SAMPLE - 1, parts * SAMPLE)).astype(int)
        self._weights = pooled((len(both), *piece[0].shape[1:]), np.float64)
        planes = np.cumsum(steps == 0) - 1
        weights = self._weights.reshape(len(both), -1)
        counts = valid.counts if kept is None else kept.view(np.uint32)
        below = np.zeros(counts.size, np.int32) if below is None else below
        ranks = Among(counts, below, parts, steps, planes, weights)
        test = valid.rank_test(count=kept is None)
        self._order = OrderStatistics(piece, ranks, guesses, test, not skipna)

    def run(self, first: int, last: int) -> None:
        """Find the values of the pixels from ``first`` to ``last - 1``."""
        self._order.run(first, last)

    def neighbours(self) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Return, for each percentile, the values below, those above if needed, and their weight.

        See `rank_of`. Where no value is valid they are arbitrary.
        """
        values = self._order.values()
        return [
            (values[row], values[row + 1] if end - row > 1 else None, weights)
            for (row, end), weights in zip(pairwise(self._rows), self._weights, strict=True)
        ]


def interpolate(below: np.ndarray, above: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """Interpolate between neighbours at each pixel, in float64, by numpy's two formulas.

    ``weight`` is a number, or one for each pixel.
    """
    out = pooled(below.shape, np.float64)
    neighbours = (values.reshape(-1) for values in plain([below[None], above[None]]))
    weights = weight.reshape(-1) if isinstance(weight, np.ndarray) else weight
    _interpolate(*neighbours, weights, out.reshape(-1))
    return out


@compiled
def _interpolate(below, above, weights, out):
    for p in range(out.size):
        a, b, weight = np.float64(below[p]), np.float64(above[p]), value_at(weights, p)
        low, high = a + (b - a) * weight, b - (b - a) * (1 - weight)
        # Where the rank is an integer, the next value, which may be infinite, takes no part.
        out[p] = a if weight == 0 else low if weight < 0.5 else high


def _block(nframes: int, pixels: int, testing: bool) -> int:
    """Return the number of pixels of a block."""
    most = min(SHORT_TILE, TILE_NBYTES // nframes)
    if testing:
        # So that prefetched frames are still in cache: there is more work with each value, and the
        # processor reads less ahead by itself.
        most //= 2
    most = min(most, -(-pixels // LEAST_BLOCK) * LEAST_BLOCK)
    return max(1, most // LEAST_BLOCK) * LEAST_BLOCK


@compiled
def _find_missing(addresses, infinity, missing, start, stop):
    """Mark the pixels that have a NaN in any frame, by their bits: a magnitude above infinity's."""
    like = np.empty(1, type(infinity))
    magnitude = type(infinity)(~type(infinity)(0)) >> type(infinity)(1)
    for first in range(start, stop, TILE):
        m = part_of(missing, first, min(TILE, stop - first))
        for f in range(addresses.size):
            x = view(addresses[f], like, first, m.size)
            for p in range(m.size):
                m[p] |= (x[p] & magnitude) > infinity


@compiled
def _select(frames, wanted, along, start, stop):
    """Find the wanted keys of some pixels, block by block."""
    dtype, tile = wanted.out.dtype, wanted.tile
    size = tile.shape[1]
    sample = np.empty((SAMPLE, size), dtype)
    keys, base = np.empty(size, dtype), np.empty(size, dtype)
    found, wrong = np.empty(size, np.uint8), np.empty(size, np.bool_)
    for first in range(start, stop, size):
        g = min(size, stop - first)
        block = Block(first, keys[:g], base[:g], found, wrong[:g], tile)
        later = max(0, min(size, stop - first - size))
        _select_block(frames, block, wanted, sample, along, later)


@merged
def _select_block(frames, block, wanted, sample, along, later):
    """Find the wanted keys of a block. Ranks that are near enough share a tile."""
    first, g = block.first, block.base.size
    spread = sample_keys(frames, block, sample)
    last = sample[max(wanted.guesses)][:g]
    cut, bad = Cut(np.int64(0), np.int64(MOST_BITS)), 0
    for r in range(wanted.guesses.size):
        o = wanted.out[r, first : first + g]
        if wanted.guesses[r] < 0:
            rank = ranks_of(wanted.ranks, r, first, g, wanted.padded)
            follow(frames, block, rank, wanted.out[r - 1, first : first + g], o)
        else:
            guess = sample[wanted.guesses[r]][:g]
            if r == 0 or not in_tile(block, cut, guess, spread):
                centre = middle_of(block, guess, last, spread)
                cut = cut_about(frames, block, centre, spread, later)
                later = 0
            rank = ranks_of(wanted.ranks, r, first, g, wanted.padded)
            if r > 0:
                near = _near_before(block, wanted, r)
            else:
                near = along is not None and _near_means(frames, block, rank, cut, along)
            bad = _search_rank(frames, block, rank, cut, guess, near, wanted.few[r : r + 1])
            for p in range(g):
                o[p] = block.base[p] + o.dtype.type(block.found[p])
            if r > 0:
                wanted.steps[r] = mean_step(wanted.out[r - 1, first : first + g], o, rank)
        if bad:
            search_alone(frames, block, rank, o)


@internal
def _near_before(block, wanted, row):
    """Guess the keys of a rank from those of the rank before; return whether that is possible."""
    before, step = wanted.out[row - 1], wanted.steps[row]
    for p in range(block.keys.size):
        block.keys[p] = before[block.first + p] + block.keys.dtype.type(step)
    return step >= 0


@internal
def _near_means(frames, block, rank, cut, along):
    """Sum squares; guess the keys of a rank from means, and return whether that is possible."""
    whole, n = cut.shift == 0, frames.addresses.size
    squares_of_tile(block, frames.flip, whole, along)
    for p in range(block.keys.size):
        block.keys[p] = block.base[p] + block.keys.dtype.type(block.found[p])
    return whole and abs(2 * value_at(rank, 0) + 1 - n) * 8 <= n


@merged
def _search_rank(frames, block, rank, cut, guess, near, few):
    """Find the keys of a rank near to the block's keys, or else about the guess of a sample.

    Return the number of pixels that are marked as wrong.
    """
    if near and cut.shift == 0 and few[0] < cut.bits:
        bad = search_near(block, rank, block.keys, few[0])
        if bad * 512 <= block.base.size:
            return bad
        few[0] += 1
    return search(frames, block, rank, cut, guess)
