"""Order statistics: the values of given ranks at each pixel, without sorting."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .frames import LINE, TILE, Piece, addresses, aligned, at, plain, pooled, prefetch, view
from .jit import by_type, compiled, inlined, internal
from .keys import _keys, _values
from .moments import Squares
from .tile_squares import squares_of_tile
from .tiles import LACKING, descend, next_in_tile
from .validity import MOST_FRAMES, Valid, begin, clear, end, has_strays, note, pick, replace_strays

# Pixels of a block, at most and at least, and the bytes of its tile: for the counters, and for all
# frames with a part of each key, in a second-level cache.
MOST_BLOCK, LEAST_BLOCK, TILE_NBYTES = 1024, 256, 1 << 18

# Where values are left out, a block is at most so many times smaller, so that what was asked for is
# still in cache: more work with each value, and the processor reads less ahead by itself.
SMALLER = 2

# Frames of the sample that says where a pixel's values lie, and a network that sorts as many
# (D. E. Knuth, The Art of Computer Programming, volume 3, section 5.3.4; 19 comparisons).
SAMPLE = 8
# fmt: off
NETWORK = (
    (0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6),
    (0, 4), (3, 7), (1, 5), (2, 6), (1, 4), (3, 6), (2, 4), (3, 5), (3, 4),
)
# fmt: on

# Bits of a tile of order statistics, at most and at least; its ends stand for what lies outside.
MOST_BITS, LEAST_BITS = 8, 5

# Frames whose valid values a counter as wide as their keys can count.
COUNTED = MOST_FRAMES[1]

# Half the range of a tile must be so many times the spread of the sample, for less than one pixel
# in a thousand to be outside.
MARGIN = 1.75


# One pixel of so many may be done alone; if more are not next to the mean, the block is searched
# again, and the next ones with one bit more about the mean than these, at first.
FEW_ALONE, BITS_ABOUT_MEAN = 512, 3


class Among(NamedTuple):
    """Ranks among the valid values of each pixel: how they follow from the number of these."""

    counts: np.ndarray
    """of each pixel: written before a rank is wanted"""
    parts: np.ndarray
    """for each rank the fraction of the way from the least to the largest value"""
    steps: np.ndarray
    """for each rank 0, or 1 if it is the next one"""
    planes: np.ndarray
    """for each rank the row of weights"""
    weights: np.ndarray
    """(percentiles, pixels): how far the way is from the rank to the next one"""


class OrderStatistics:
    """The values of some ranks (0 is the smallest) at each pixel, found some pixels at a time.

    Every value is first turned into an unsigned key of the same order. In a block of pixels, a
    sample of frames tells where the keys of a pixel lie; 8 bits around there are cut out of all
    frames into a tile, and the wanted one of them is found bit by bit: each bit counts the frames
    that are below a trial value, one compare and one add per frame, without a branch. Where the
    keys spread further than 8 bits, the next 7 follow in a further round. A pixel that the sample
    was wrong about is done alone, or the block from the top bits on if there are many.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    ranks : sequence of int, ndarray, or Among
        In rising order; or, with ``guesses``, int32 (ranks, pixels) or what the valid values are
        counted for. What is returned for rank -1, of a pixel without a value, means nothing.
    guesses : sequence of int, optional
        For each rank the frame of the sorted sample that it is near to; -1: it is the rank before,
        or the next one.
    rules : tuple, optional
        What is left out.
    find_nan : bool
        Whether a pixel with a NaN in any frame is NaN.
    """

    def __init__(
        self,
        piece: Piece,
        ranks: Sequence[int] | np.ndarray | Among,
        guesses: Sequence[int] | np.ndarray | None = None,
        rules: tuple | None = None,
        find_nan: bool = True,
    ) -> None:
        if not isinstance(ranks, Among):
            ranks = np.asarray(ranks)
        if guesses is None:
            guesses = _near([int(rank) for rank in ranks], count_frames(piece))
        dtype = self._dtype = piece[0].dtype
        unsigned = np.dtype(f"u{dtype.itemsize}")
        self._shape = piece[0].shape[1:]
        pixels = prod(self._shape)
        self._frames = [block.view(unsigned) for block in piece]
        every = addresses(self._frames)
        self._out = pooled((len(guesses), pixels), unsigned)
        block = _block(every.size, pixels, rules is not None)
        tile = aligned((every.size, block), np.uint8)
        self._sign = unsigned.type(1 << (8 * dtype.itemsize - 1))
        flip = unsigned.type(0) if dtype.kind in "ub" else self._sign
        self._missing = np.zeros(pixels if dtype.kind == "f" and find_nan else 0, np.bool_)
        infinity = np.array(np.inf, dtype).view(unsigned)[()] if dtype.kind == "f" else flip
        self._nan = every, self._out[0], infinity, unsigned.type(self._sign - 1)
        keys = flip, dtype.kind == "f", tile
        self._wanted = every, ranks, np.array(guesses), *keys, self._out, rules
        self._along: tuple | None = None

    def take_along(self, squares: Squares) -> bool:
        """Sum the squares of the same frames as well if that can be done, and say whether it is."""
        free = self._along is None and self._wanted[-1] is None
        along = squares.of_tiles() if free else None
        self._along = along or self._along
        return along is not None

    def run(self, first: int, last: int) -> None:
        """Find the values of the pixels from ``first`` to ``last - 1``."""
        if self._missing.size:
            _find_missing(*self._nan, self._missing, first, last)
        _select(*self._wanted, self._along, first, last)

    def values(self) -> np.ndarray:
        """Return the values (ranks, rows, cols), which the keys become: call it once."""
        values = _values(self._out, self._dtype, self._sign)
        if self._missing.any():
            values[:, self._missing] = np.nan
        return values.reshape(-1, *self._shape)


def sharing(loops: Iterable[Any]) -> list[Any]:
    """Return loops over the same frames that do what these do, as few as can be.

    Squares of small integers are summed from what is cut out of the frames for order statistics.
    """
    loops = list(loops)
    for order in [loop for loop in loops if isinstance(loop, OrderStatistics)]:
        loops = [
            loop for loop in loops if not (isinstance(loop, Squares) and order.take_along(loop))
        ]
    return loops


def _near(ranks: Sequence[int], nframes: int) -> list[int]:
    """Return which frame of the sorted sample each rank is near to, -1 if it follows another."""
    guesses, searched = [], -2
    for rank in ranks:
        follows = rank == searched + 1
        guesses.append(-1 if follows else rank * SAMPLE // nframes)
        searched = searched if follows else rank
    return guesses


class ValidPercentiles:
    """Percentiles of the valid values of each pixel, whose number differs, some pixels at a time.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    percentiles : sequence of float
        From 0 to 100.
    valid : Valid
        What is left out, and where the number of frames that count at each pixel is written.
    skipna : bool
        Whether NaN is left out; otherwise a pixel with one in any frame is NaN.

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
        self, piece: Piece, percentiles: Sequence[float], valid: Valid, skipna: bool
    ) -> None:
        # The least and the largest value are at a rank, and have no neighbour to look at.
        both = [[0, 1][: 1 + (0 < q < 100)] for q in percentiles]
        self._rows = np.cumsum([0, *map(len, both)])
        parts = np.repeat(np.array(percentiles) / 100, np.diff(self._rows))
        steps = np.concatenate(both)
        guesses = np.where(steps, -1, np.minimum(SAMPLE - 1, parts * SAMPLE)).astype(int)
        self._weights = pooled((len(both), *piece[0].shape[1:]), np.float64)
        planes = np.cumsum(steps == 0) - 1
        weights = self._weights.reshape(len(both), -1)
        ranks = Among(valid.counts, parts, steps, planes, weights)
        rules = valid.rank_rules(count=True)
        self._order = OrderStatistics(piece, ranks, guesses, rules, not skipna)

    def run(self, first: int, last: int) -> None:
        """Find the values of the pixels from ``first`` to ``last - 1``."""
        self._order.run(first, last)

    def neighbours(self) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Return, for each percentile, the values below, those above if needed, and their weight.

        See `rank_of`. Where nothing counts they mean nothing.
        """
        values = self._order.values()
        return [
            (values[row], values[row + 1] if end - row > 1 else None, weights)
            for (row, end), weights in zip(pairwise(self._rows), self._weights, strict=True)
        ]


def count_frames(piece: Piece) -> int:
    """Return the number of frames of a piece."""
    return sum(len(block) for block in piece)


def interpolate(below: np.ndarray, above: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    """Return what lies between neighbours, in float64, by numpy's two formulas, at each pixel.

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
        a, b, weight = np.float64(below[p]), np.float64(above[p]), at(weights, p)
        low, high = a + (b - a) * weight, b - (b - a) * (1 - weight)
        # Where the rank is an integer, the next value, which may be infinite, takes no part.
        out[p] = a if weight == 0 else low if weight < 0.5 else high


def _block(nframes: int, pixels: int, testing: bool) -> int:
    """Return how many pixels make a block."""
    smaller = SMALLER if testing else 1
    most = min(MOST_BLOCK, TILE_NBYTES // nframes) // smaller
    most = min(most, -(-pixels // LEAST_BLOCK) * LEAST_BLOCK)
    return max(1, most // LEAST_BLOCK) * LEAST_BLOCK


@compiled
def _find_missing(addresses, like, infinity, magnitude, missing, start, stop):
    """Mark the pixels that have a NaN in any frame, by their bits."""
    for first in range(start, stop, TILE):
        m = missing[first : min(first + TILE, stop)]
        for f in range(addresses.size):
            x = view(addresses[f], like, first, m.size)
            for p in range(m.size):
                m[p] |= (x[p] & magnitude) > infinity


@compiled
def _select(addresses, ranks, guesses, flip, floating, tile, out, rules, along, start, stop):
    """Fill some pixels of out (ranks, pixels) with keys, block by block."""
    like, block = out[0], tile.shape[1]
    sample = np.empty((SAMPLE, block), like.dtype)
    keys = np.empty(block, like.dtype)
    base = np.empty(block, like.dtype)
    found = np.empty(block, np.uint8)
    wrong = np.empty(block, np.bool_)
    wanted = np.zeros(block, np.int32)
    single = np.empty(addresses.size, like.dtype)
    about = np.int64(BITS_ABOUT_MEAN)
    for first in range(start, stop, block):
        g = min(block, stop - first)
        k, b, w = keys[:g], base[:g], wrong[:g]
        spread = _sample(addresses, first, flip, floating, sample, g, rules)
        bits, bad = np.int64(MOST_BITS), 0
        later = max(0, min(block, stop - first - block))
        for r in range(guesses.size):
            o = out[r, first : first + g]
            if guesses[r] < 0:
                rank = ranks_of(ranks, r, first, wanted[:g], wanted)
                below = out[r - 1, first : first + g]
                _follow(
                    *(addresses, first, rank, flip, floating, bits, below, k, b, found, tile, o),
                    rules,
                )
            else:
                guess = sample[guesses[r]][:g]
                least = np.int64(MOST_BITS if along is not None and r == 0 else LEAST_BITS)
                shift, bits, cut = _cut_about(
                    *(addresses, first, flip, floating, guess, spread, least, k, b, tile, rules),
                    later,
                )
                rank = ranks_of(ranks, r, first, wanted[:g], wanted)
                seen = False
                if along is not None and r == 0:
                    whole = shift == 0 and cut == MOST_BITS
                    squares_of_tile(tile, b, flip, whole, found, *along, first)
                    middle = abs(2 * at(rank, 0) + 1 - addresses.size) * 8 <= addresses.size
                    if whole and middle and about < bits:
                        bad = _search_about_means(tile, b, rank, about, found, w)
                        seen = bad * FEW_ALONE <= g
                        about += not seen
                if not seen:
                    cut, bad = _search(
                        *(addresses, first, rank, flip, floating, shift, bits, cut, guess, k, b),
                        *(found, w, tile, rules),
                    )
                bits = cut
                later = 0
                for p in range(g):
                    o[p] = b[p] + like.dtype.type(found[p])
            for p in range(g if bad else 0):
                if w[p]:
                    o[p] = _alone(addresses, first + p, at(rank, p), flip, floating, single, rules)


@by_type
def ranks_of(ranks, row, first, wanted, padded):
    """Return the rank of all pixels, or those of the pixels of a block, with room to its end."""
    if isinstance(ranks, types.BaseNamedTuple):

        def among(ranks, row, first, wanted, padded):
            counts = ranks.counts[first : first + wanted.size]
            weights = ranks.weights[ranks.planes[row], first : first + wanted.size]
            _rank_among(counts, ranks.parts[row], ranks.steps[row], weights, wanted)
            return padded

        return among
    if ranks.ndim == 1:
        return lambda ranks, row, first, wanted, padded: ranks[row]

    def copied(ranks, row, first, wanted, padded):
        for p in range(wanted.size):
            wanted[p] = ranks[row, first + p]
        return padded

    return copied


@internal
def _rank_among(counts, part, step, weights, ranks):
    """Fill in the rank below a part of so many values, or the next one, and the weight of that."""
    for p in range(ranks.size):
        last = np.float64(counts[p]) - 1.0
        position = last * part
        rank = min(np.floor(position), last)
        weights[p] = position - rank if last >= 0 else 0.0
        ranks[p] = np.int32(min(rank + step, last)) if last >= 0 else np.int32(-1)


@internal
def _valid_keys(x, flip, floating, rules, out):
    """Turn the bits of values into keys; that of what is left out is the largest."""
    strays = has_strays(rules)
    if floating:
        _keys(x, flip, out)
    if strays:
        _copy_but_strays(x, floating, rules, out)
    turn = out.dtype.type(0) if floating else flip
    for p in range(out.size):
        out[p] = pick(out[p] if floating or strays else x[p], rules) ^ turn


@internal
def _copy_but_strays(x, floating, rules, keys):
    """Copy the bits of integers, or keep the keys of floats, but for what no test is for."""
    if floating:
        replace_strays(keys, rules, keys)
    else:
        replace_strays(x, rules, keys)


@internal
def _sample(addresses, first, flip, floating, sample, g, rules):
    """Sort the keys of a few frames at g pixels; return how far the middle six lie apart."""
    n = addresses.size
    for j in range(SAMPLE):
        s = sample[j][:g]
        x = view(addresses[(2 * j + 1) * n // (2 * SAMPLE)], s, first, g)
        _valid_keys(x, flip, floating, rules, s)
    fill_gaps(sample, g, rules)
    for i, j in NETWORK:
        low, high = sample[i][:g], sample[j][:g]
        for p in range(g):
            a, b = low[p], high[p]
            low[p], high[p] = min(a, b), max(a, b)
    spread = 0.0
    low, high = sample[1][:g], sample[SAMPLE - 2][:g]
    for p in range(g):
        spread += np.float64(high[p] - low[p])
    return spread / g


@by_type
def fill_gaps(sample, count, rules):
    """Put another frame's key where a pixel of the sample is left out, if there is one."""
    if rules is types.none:
        return lambda sample, count, rules: None

    def fill(sample, count, rules):
        gap = ~sample.dtype.type(0)
        for k in range(2 * SAMPLE - 2):
            # Down the sample, and up again for the first ones.
            j = k + 1 if k < SAMPLE - 1 else 2 * SAMPLE - 3 - k
            s, near = sample[j], sample[j - 1 if k < SAMPLE - 1 else j + 1]
            for p in range(count):
                s[p] = near[p] if s[p] == gap else s[p]

    return fill


@internal
def _cut_about(
    addresses, first, flip, floating, guess, spread, least, keys, base, tile, rules, later
):
    """Cut a tile about a guess, and return how it is cut: see `_cut`.

    The tile has at least so many bits, though fewer may be searched: its shift, the bits to be
    searched and its own are returned.
    """
    cast, g = base.dtype.type, base.size
    widest = 8 * base.itemsize - MOST_BITS
    # Variables of one type: with a constant among them each callee would be compiled twice.
    shift, most = 0, np.int64(MOST_BITS)
    bits = np.int64(LEAST_BITS if widest else MOST_BITS)
    while MARGIN * spread > np.float64(((1 << (bits - 1)) - 1) << shift) and shift < widest:
        if bits < most:
            bits += 1
        else:
            shift += 1
    cut = max(bits, least)
    half = cast(cast((1 << (cut - 1)) - 1) << cast(shift))
    # All top bits leave nothing to guess.
    certain = shift == widest and bits == most
    for p in range(g):
        base[p] = cast(0) if certain else cast(max(guess[p], half) - half)
    _cut(addresses, first, flip, floating, shift, cut, keys, base, tile, rules, later)
    return shift, bits, cut


@internal
def _search(
    addresses,
    first,
    rank,
    flip,
    floating,
    shift,
    bits,
    cut,
    guess,
    keys,
    base,
    found,
    wrong,
    tile,
    rules,
):
    """Find the keys of a rank, as ``base + found``, in rounds of up to 8 and then 7 bits each.

    The tile is that of `_cut_about`, and in the end that of the last round, whose bits are returned
    with the number of pixels that are marked as wrong.
    """
    cast, g = base.dtype.type, base.size
    widest, most = 8 * base.itemsize - MOST_BITS, np.int64(MOST_BITS)
    lowest = np.zeros(found.size, np.uint8)
    near = cast((1 << (bits - 1)) - 1)
    for p in range(g if cut > bits else 0):
        lowest[p] = max(cast(guess[p] - base[p]), near) - near
    found[:] = lowest
    descend(tile, rank, bits, found)
    bad, later = 0, np.int64(0)
    wrong[:] = False
    if shift < widest or bits < most:
        bad = _mark_ends(found, lowest, base, bits, rank, wrong)
    if bad * 16 > g:
        shift, cut, bad = widest, most, 0
        wrong[:] = False
        base[:] = found[:] = 0
        _cut(addresses, first, flip, floating, shift, cut, keys, base, tile, rules, later)
        descend(tile, rank, cut, found)
    while shift > 0:
        for p in range(g):
            base[p] += cast(cast(found[p]) << cast(shift))
        shift, cut = max(0, shift - 7), most
        found[:] = 0
        _cut(addresses, first, flip, floating, shift, cut, keys, base, tile, rules, later)
        descend(tile, rank, cut, found)
    return cut, bad


@internal
def _search_about_means(tile, base, rank, bits, found, wrong):
    """Find the keys of a rank among so many bits about the means of a tile, which are replaced.

    Returned is how many pixels are marked as wrong.
    """
    half, most = np.uint8((1 << (bits - 1)) - 1), np.uint8(256 - (1 << bits))
    lowest = np.empty(found.size, np.uint8)
    for p in range(found.size):
        found[p] = lowest[p] = min(np.uint8(max(found[p], half) - half), most)
    descend(tile, rank, bits, found)
    return _mark_ends(found, lowest, base, bits, rank, wrong)


@internal
def _mark_ends(found, lowest, base, bits, rank, wrong):
    """Mark the pixels whose key may be beyond what was searched, and return how many they are."""
    bad, last = 0, (1 << bits) - 1
    for p in range(base.size):
        low = (found[p] == lowest[p]) & (base.dtype.type(base[p] + lowest[p]) > 0)
        high = found[p] - lowest[p] == last
        wrong[p] = (low | high) & (at(rank, p) >= 0)
        bad += wrong[p]
    return bad


@internal
def _cut(addresses, first, flip, floating, shift, bits, keys, base, tile, rules, later):
    """Fill the tile with a few bits of every key: (key - base) >> shift, from 0 to 2^bits - 1.

    Valid keys are counted, where that is wanted. So many pixels ``later`` of the next block are
    asked for: the search leaves the memory idle, and each frame is too far from the one before
    for the processor to read ahead by itself.
    """
    n, g = addresses.size, base.size
    # To hand the rules over for each frame would take longer than its work.
    strays = has_strays(rules)
    turn = base.dtype.type(0) if floating else flip
    ahead = np.uint64((first + g) * base.itemsize)
    clear(rules, first, g)
    for start in range(0, n, COUNTED):
        few = begin(rules, g)
        for f in range(start, min(n, start + COUNTED)):
            x = view(addresses[f], base, first, g)
            for byte in range(0, later * base.itemsize, LINE):
                prefetch(addresses[f] + ahead + np.uint64(byte))
            if floating:
                _keys(x, flip, keys)
            if strays:
                _copy_but_strays(x, floating, rules, keys)
            # Two calls, because a variable for one or the other would count references.
            if floating or strays:
                _cut_block(keys, turn, base, shift, bits, tile[f], few, rules)
            else:
                _cut_block(x, turn, base, shift, bits, tile[f], few, rules)
        end(rules, first, few)


@inlined
def _cut_block(x, flip, base, shift, bits, out, few, rules):
    # The casts keep numba from widening to 64 bits.
    cast = base.dtype.type
    last, places = cast((1 << bits) - 1), cast(shift & (8 * base.itemsize - 1))
    if shift == 0:
        for p in range(x.size):
            value = x[p]
            note(rules, few, p, value)
            k = cast(pick(value, rules) ^ flip)
            out[p] = np.uint8(min(cast(max(k, base[p]) - base[p]), last))
    else:
        for p in range(x.size):
            value = x[p]
            note(rules, few, p, value)
            k = cast(pick(value, rules) ^ flip)
            out[p] = np.uint8(min(cast(cast(max(k, base[p]) - base[p]) >> places), last))


@internal
def _follow(
    addresses, first, rank, flip, floating, bits, below, keys, base, found, tile, out, rules
):
    """Find the keys of a rank after those of the rank before, ``below``, were found."""
    g = out.size
    lacking, last = 0, np.uint8((1 << bits) - 1)
    upto = np.empty(found.size, np.int32)
    few = np.empty(found.size, np.uint8)
    above = np.empty(found.size, np.uint8)
    next_in_tile(tile, found, few, upto, above)
    for p in range(g):
        same = upto[p] > at(rank, p)
        out[p] = below[p] if same else base[p] + base.dtype.type(above[p])
        # What is larger than the tile's range is looked for in the frames themselves.
        lacks = (not same) & (above[p] >= last)
        found[p] = np.uint8(LACKING) if lacks else found[p]
        lacking += lacks
    if lacking:
        _next_in_frames(addresses, first, flip, floating, below, keys, found, out, rules)


@internal
def _next_in_frames(addresses, first, flip, floating, below, keys, found, out, rules):
    """Find the least key above ``below`` for the pixels that are marked as lacking one."""
    least = np.empty(out.size, out.dtype)
    most = ~out.dtype.type(0)
    least[:] = most
    for f in range(addresses.size):
        _valid_keys(view(addresses[f], out, first, out.size), flip, floating, rules, keys)
        for p in range(out.size):
            k = keys[p]
            least[p] = min(least[p], k if k > below[p] else most)
    for p in range(out.size):
        if found[p] == LACKING:
            out[p] = least[p]


@internal
def _alone(addresses, pixel, rank, flip, floating, keys, rules):
    """Find the key of a rank at one pixel, bit by bit."""
    cast, n = keys.dtype.type, addresses.size
    for f in range(n):
        keys[f] = view(addresses[f], keys, pixel, 1)[0]
    _valid_keys(keys, flip, floating, rules, keys)
    value = cast(0)
    for place in range(8 * keys.itemsize - 1, -1, -1):
        trial = cast(value | cast(cast(1) << cast(place)))
        count = 0
        for f in range(n):
            count += keys[f] < trial
        if count <= rank:
            value = trial
    return value
