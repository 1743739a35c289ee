"""The mean of what is left after values far from the median have been clipped, again and again.

At each pixel: centre and spread are the median and the standard deviation of the values that are
left; what is further than so many deviations from the centre goes; until nothing goes, or for so
many rounds. The result is the mean of the valid values within the last bounds, which is how
astropy.stats.sigma_clipped_stats defines it.

Nothing is sorted and nothing is taken out: what is left lies between two bounds, so that its
median is an order statistic of all values, whose rank starts after those below. Pixels that are
finished drop out, and a round sees a compact copy of the others: half, a fifth, a twentieth of
them with bounds at three deviations.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .frames import Piece, addresses, plain, view
from .jit import by_type, compiled, internal
from .keys import Arc, Keys
from .selection import SAMPLE, OrderStatistics, count_frames
from .validity import Valid, count_valid, counts, take

# Bytes of the frames of a group of pixels that goes through all rounds at once, in the last-level
# cache, and its least number of pixels.
GROUP_NBYTES, LEAST_GROUP = 1 << 23, 256

# Pixels of a tile that goes through the two passes of a round: half of a second-level cache.
CLIP_TILE = 512


class Bounds(NamedTuple):
    """What is left of some pixels: the values within bounds."""

    low: np.ndarray
    """float64, inclusive"""
    high: np.ndarray
    """float64, inclusive"""
    below: np.ndarray
    """int32: valid values below the lower bound"""
    kept: np.ndarray
    """int32: valid values within the bounds"""


def clipped_average(
    piece: Piece, arcs: Iterable[Arc], keys: Keys, sigma: float, maxiters: int | None
) -> np.ndarray:
    """Return the sigma-clipped mean of each pixel, NaN where no value is left.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    arcs : iterable of (int, int)
        Keys that are left out; of floats these must include what is not finite.
    keys : Keys
        Of the frames.
    sigma : float
        Standard deviations from the median to the bounds.
    maxiters : int or None
        Rounds at most; None: until nothing goes.

    Returns
    -------
    ndarray
        float64 (rows, cols).
    """
    arcs = list(arcs)
    rows, cols = piece[0].shape[1:]
    out = np.empty((rows, cols))
    flat = out.reshape(-1)
    size = max(LEAST_GROUP, GROUP_NBYTES // (count_frames(piece) * keys.unsigned.itemsize))
    for first in range(0, flat.size, size):
        group = plain([b.reshape(len(b), 1, -1)[:, :, first : first + size] for b in piece])
        valid = Valid(arcs, keys, np.zeros(group[0].shape[2], "u4"))
        for index, mean in _clip(group, valid, sigma, maxiters):
            flat[first + index] = mean
    return out


def _clip(
    piece: Piece, valid: Valid, sigma: float, maxiters: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (pixels, their means) as they are finished."""
    count_valid(piece, valid)
    index = np.arange(valid.counts.size)
    bounds = _all_of(valid.counts)
    for iteration in count(1):
        centre = _median(piece, valid, bounds)
        mean, low, high, clipped = _clip_once(piece, valid, bounds, centre, sigma)
        stopped = (clipped.kept == bounds.kept) | (clipped.kept == 0) | (iteration == maxiters)
        # The last bounds hold just what the mean is of, unless they are wider somewhere.
        ready = (clipped.kept == bounds.kept) & (low >= bounds.low) & (high <= bounds.high)
        yield index[ready], mean[ready]
        if (late := np.flatnonzero(stopped & ~ready)).size:
            last = Bounds(low[late], high[late], clipped.below[late], clipped.kept[late])
            yield index[late], _clip_once(_gather(piece, late), valid, last, centre[late], 0)[0]
        if stopped.all():
            return
        active = np.flatnonzero(~stopped)
        piece, index = _gather(piece, active), index[active]
        bounds = Bounds(*(array[active] for array in clipped))


def _all_of(counts: np.ndarray) -> Bounds:
    infinite = np.full(counts.size, np.inf)
    return Bounds(-infinite, infinite, np.zeros(counts.size, "i4"), counts.astype("i4"))


def _median(piece: Piece, valid: Valid, bounds: Bounds) -> np.ndarray:
    """Return the median of what is left: the mean of the two values in the middle."""
    none = bounds.kept == 0
    ranks = bounds.below + (bounds.kept - 1) // 2
    after = bounds.below + bounds.kept // 2
    ranks[none] = after[none] = -1
    middle = [SAMPLE // 2, -1]
    found = OrderStatistics(piece, np.array([ranks, after]), middle, valid.rank_rules(), False)
    found.run(0, ranks.size)
    low, high = found.values().reshape(2, -1)
    with np.errstate(all="ignore"):  # of what pixels without a value have in place of ranks
        centre = (low.astype("f8") + high) / 2
    centre[none] = np.nan
    return centre


def _gather(piece: Piece, index: np.ndarray) -> Piece:
    """Return the frames of some pixels, one after the other."""
    out = np.empty((count_frames(piece), 1, index.size), piece[0].dtype)
    _gather_all(addresses(piece), index, out[:, 0])
    return [out]


@compiled
def _gather_all(addresses, index, out):
    for f in range(addresses.size):
        x = view(addresses[f], out, 0, index[-1] + 1)
        o = out[f]
        for p in range(o.size):
            o[p] = x[index[p]]


def _clip_once(
    piece: Piece, valid: Valid, bounds: Bounds, centre: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bounds]:
    """Return the mean of what is left, the new bounds, and what is left within both."""
    mean, low, high = np.empty((3, centre.size))
    clipped = Bounds(*(np.empty_like(array) for array in bounds))
    like = np.empty(1, piece[0].dtype)
    # Frames are compared in their own dtype, but 64-bit integers as float64, the sums' dtype.
    tile = np.empty((2, CLIP_TILE), "f8" if like.itemsize == 8 else like.dtype)
    fixed = addresses(piece), like, valid.rules() if valid.arcs else None
    _clip_all(*fixed, tile, tuple(bounds), centre, float(sigma), mean, low, high, tuple(clipped))
    return mean, low, high, clipped


@compiled
def _clip_all(addresses, like, rules, edges, bounds, centre, sigma, mean, low, high, clipped):
    sums, squares = np.empty(CLIP_TILE), np.empty(CLIP_TILE)
    kept, below = np.empty(CLIP_TILE, np.int32), np.empty(CLIP_TILE, np.int32)
    for first in range(0, centre.size, CLIP_TILE):
        g = min(CLIP_TILE, centre.size - first)
        tile = slice(first, first + g)
        c, lowest, highest = centre[tile], bounds[0][tile], bounds[1][tile]
        s, q, m, b, lo, hi = (
            sums[:g],
            squares[:g],
            kept[:g],
            below[:g],
            edges[0, :g],
            edges[1, :g],
        )
        for p in range(g):
            lo[p], hi[p] = values_within(lowest[p], highest[p], edges)
        _sum_within(addresses, like, first, rules, lo, hi, c, s, q, m)
        for p in range(g):
            n = np.float64(max(m[p], 1))
            shift = s[p] / n
            spread = sigma * np.sqrt(max(0.0, q[p] / n - shift * shift))
            mean[first + p] = c[p] + shift if m[p] else np.nan
            low[first + p], high[first + p] = c[p] - spread, c[p] + spread
            clipped[0][first + p] = max(low[first + p], lowest[p])
            clipped[1][first + p] = min(high[first + p], highest[p])
            lo[p], hi[p] = values_within(clipped[0][first + p], clipped[1][first + p], edges)
        _count_within(addresses, like, first, rules, lo, hi, b, m)
        for p in range(g):
            clipped[2][first + p], clipped[3][first + p] = b[p], m[p]


@by_type
def values_within(low, high, like):
    """Return the least and the largest value of a dtype within bounds; crossed if there is none.

    Comparing frames with these in their own dtype takes half as long as in float64.
    """
    if isinstance(like.dtype, types.Float):
        cast: Any = {32: np.float32, 64: np.float64}[like.dtype.bitwidth]
        infinity = cast(np.inf)

        def floats(low, high, like):
            least, most = cast(low), cast(high)
            least = np.nextafter(least, infinity) if np.float64(least) < low else least
            return least, np.nextafter(most, -infinity) if np.float64(most) > high else most

        return floats
    limits = np.iinfo(like.dtype.name)
    lowest, highest = int(limits.min), int(limits.max)
    number: Any = getattr(np, like.dtype.name)

    def integers(low, high, like):
        if not low <= high:  # NaN as well: a pixel without a value
            return number(highest), number(lowest)
        least = number(lowest) if low <= lowest else number(np.ceil(low))
        return least, number(highest) if high >= highest else number(np.floor(high))

    return integers


@internal
def _sum_within(addresses, like, first, rules, low, high, centre, sums, squares, within):
    """Sum what is within bounds about the centre, and the squares, two frames at a time."""
    n, cast = addresses.size, low.dtype.type
    sums[:] = 0
    squares[:] = 0
    within[:] = 0
    for f in range(0, n - 1, 2):
        x = take(addresses[f], like, first, low.size, rules, 0)
        y = take(addresses[f + 1], like, first, low.size, rules, 1)
        for p in range(low.size):
            v, w = cast(x[p]), cast(y[p])
            held = counts(x[p], rules) & (v >= low[p]) & (v <= high[p])
            also = counts(y[p], rules) & (w >= low[p]) & (w <= high[p])
            d = np.float64(x[p]) - centre[p] if held else 0.0
            e = np.float64(y[p]) - centre[p] if also else 0.0
            sums[p] += d + e
            squares[p] += d * d + e * e
            within[p] += np.int32(held) + np.int32(also)
    for f in range(n - n % 2, n):
        x = take(addresses[f], like, first, low.size, rules, 0)
        for p in range(low.size):
            v = cast(x[p])
            held = counts(x[p], rules) & (v >= low[p]) & (v <= high[p])
            d = np.float64(x[p]) - centre[p] if held else 0.0
            sums[p] += d
            squares[p] += d * d
            within[p] += np.int32(held)


@internal
def _count_within(addresses, like, first, rules, low, high, below, within):
    cast = low.dtype.type
    below[:] = 0
    within[:] = 0
    for f in range(addresses.size):
        x = take(addresses[f], like, first, low.size, rules, 0)
        for p in range(low.size):
            v, valid = cast(x[p]), counts(x[p], rules)
            below[p] += np.int32(valid & (v < low[p]))
            within[p] += np.int32(valid & (v >= low[p]) & (v <= high[p]))
