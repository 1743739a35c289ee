"""Sigma-clipped means: values far from the median are clipped, round after round.

Each round takes the median and the standard deviation of the values kept at a pixel, and clips
values more than ``sigma`` deviations from the median. It ends when no value is clipped, or after
``maxiters`` rounds. The result is the mean of the valid values within the last bounds, as
astropy.stats.sigma_clipped_stats defines it.

Nothing is sorted or removed: the kept values lie between two bounds, so that their median is an
order statistic of all values, with a rank above the values below the bounds. Finished pixels drop
out, and the next round sees a compact copy of the others: with bounds at three deviations a half,
a fifth, a twentieth of the pixels.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .fold import count_valid
from .frames import TILE, Piece, count_frames, frames_of, part_of, plain, view
from .jit import by_type, compiled, inlined, internal
from .keys import KeyRange, Keys
from .selection import LEAST_BLOCK, ValidPercentiles
from .validity import Valid, is_valid, load

# Bytes of the frames of a group of pixels that goes through all rounds at once, in the last-level
# cache.
GROUP_NBYTES = 1 << 23

# Pixels of a tile that goes through the two passes of a round, in half of a second-level cache.
CLIP_TILE = TILE // 16


class Bounds(NamedTuple):
    """The values kept at some pixels: those within bounds."""

    low: np.ndarray
    """float64, inclusive"""
    high: np.ndarray
    """float64, inclusive"""
    below: np.ndarray
    """int32: valid values below the lower bound"""
    kept: np.ndarray
    """int32: valid values within the bounds"""


def clipped_average(
    piece: Piece, ranges: Iterable[KeyRange], keys: Keys, sigma: float, maxiters: int | None
) -> np.ndarray:
    """Return the sigma-clipped mean of each pixel, NaN where no value is kept.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    ranges : iterable of (int, int)
        Keys that are left out; for floats these must include NaN and the infinities.
    keys : Keys
        Of the frames.
    sigma : float
        Standard deviations from the median to the bounds.
    maxiters : int or None
        Rounds at most; None: until no value is clipped.

    Returns
    -------
    ndarray
        float64 (rows, cols).
    """
    ranges = list(ranges)
    rows, cols = piece[0].shape[1:]
    out = np.empty((rows, cols))
    flat = out.reshape(-1)
    size = max(LEAST_BLOCK, GROUP_NBYTES // (count_frames(piece) * keys.unsigned.itemsize))
    for first in range(0, flat.size, size):
        group = plain([b.reshape(len(b), 1, -1)[:, :, first : first + size] for b in piece])
        valid = Valid(ranges, keys, np.zeros(group[0].shape[2], "u4"))
        for index, mean in _clip(group, valid, sigma, maxiters):
            flat[first + index] = mean
    return out


def _clip(
    piece: Piece, valid: Valid, sigma: float, maxiters: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (pixels, means of these) as pixels are finished."""
    count_valid(piece, valid)
    index = np.arange(valid.counts.size)
    bounds = _all_of(valid.counts)
    for iteration in count(1):
        centre = _median(piece, valid, bounds)
        mean, low, high, clipped = _clip_once(piece, valid, bounds, centre, sigma)
        stopped = (clipped.kept == bounds.kept) | (clipped.kept == 0) | (iteration == maxiters)
        # The mean is of the values within the last bounds, unless these are wider somewhere.
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
    """Return the median of the kept values, of an even number the mean of the two in the middle."""
    found = ValidPercentiles(piece, [50], valid, True, bounds.kept, bounds.below)
    found.run(0, bounds.kept.size)
    ((low, high, weights),) = found.neighbours()
    with np.errstate(all="ignore"):  # pixels without a value have arbitrary ones
        centre = np.where(weights == 0, low, (low.astype("f8") + high) / 2).reshape(-1)
    centre[bounds.kept == 0] = np.nan
    return centre


def _gather(piece: Piece, index: np.ndarray) -> Piece:
    """Return the frames of some pixels, one after the other."""
    out = np.empty((count_frames(piece), 1, index.size), piece[0].dtype)
    _gather_all(frames_of(piece, None), index, out[:, 0])
    return [out]


@compiled
def _gather_all(frames, index, out):
    for f in range(out.shape[0]):
        x, o = view(frames.addresses[f], out, 0, index[-1] + 1), out[f]
        for p in range(o.size):
            o[p] = x[index[p]]


def _clip_once(
    piece: Piece, valid: Valid, bounds: Bounds, centre: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bounds]:
    """Return the mean of the values within bounds, the new bounds, and the bounds within both."""
    mean, low, high = found = tuple(np.empty((3, centre.size)))
    clipped = Bounds(*(np.empty_like(array) for array in bounds))
    frames = frames_of(piece, valid.test() if valid.key_ranges else None)
    # Frames are compared in their own dtype, but 64-bit integers as float64, the sums' dtype.
    dtype = np.dtype("f8" if piece[0].itemsize == 8 else piece[0].dtype)
    floats, edges, numbers = (np.empty((2, CLIP_TILE), t) for t in ("f8", dtype, "i4"))
    _clip_all(frames, bounds, centre, float(sigma), found, clipped, (*floats, *edges, *numbers))
    return mean, low, high, clipped


@compiled
def _clip_all(frames, bounds, centre, sigma, found, clipped, room):
    mean, low, high = found
    for first in range(0, centre.size, CLIP_TILE):
        g = min(CLIP_TILE, centre.size - first)
        sums, squares, lo, hi, below, kept = part_of(room, 0, g)
        c, lowest, highest = part_of((centre, bounds.low, bounds.high), first, g)
        for p in range(g):
            lo[p], hi[p] = values_within(lowest[p], highest[p], lo)
        _sum_within(frames, first, (lo, hi, c), sums, squares, kept)
        for p in range(g):
            n = np.float64(max(kept[p], 1))
            shift = sums[p] / n
            spread = sigma * np.sqrt(max(0.0, squares[p] / n - shift * shift))
            mean[first + p] = c[p] + shift if kept[p] else np.nan
            low[first + p], high[first + p] = c[p] - spread, c[p] + spread
            clipped.low[first + p] = max(low[first + p], lowest[p])
            clipped.high[first + p] = min(high[first + p], highest[p])
            edges = clipped.low[first + p], clipped.high[first + p]
            lo[p], hi[p] = values_within(*edges, lo)
        _count_within(frames, first, lo, hi, below, kept)
        for p in range(g):
            clipped.below[first + p], clipped.kept[first + p] = below[p], kept[p]


@by_type
def values_within(low, high, like):
    """Return the least and the largest value of a dtype within bounds; crossed if none is.

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
def _sum_within(frames, first, bounds, sums, squares, kept):
    """Sum the values within bounds about the centre, and the squares, two frames at a time."""
    n, g, test = frames.addresses.size, sums.size, frames.test
    for p in range(g):
        sums[p] = squares[p] = kept[p] = 0
    for f in range(0, n - 1, 2):
        x, y = load(frames, f, first, g, 0), load(frames, f + 1, first, g, 1)
        for p in range(g):
            k, d = _deviation(x[p], p, bounds, test)
            m, e = _deviation(y[p], p, bounds, test)
            sums[p] += d + e
            squares[p] += d * d + e * e
            kept[p] += np.int32(k) + np.int32(m)
    for f in range(n - n % 2, n):
        x = load(frames, f, first, g, 0)
        for p in range(g):
            k, d = _deviation(x[p], p, bounds, test)
            sums[p] += d
            squares[p] += d * d
            kept[p] += np.int32(k)


@inlined
def _deviation(value, p, bounds, test):
    """Return whether a value is within bounds, and its deviation from the centre if it is."""
    low, high, centre = bounds
    v = low.dtype.type(value)
    kept = is_valid(value, test) & (v >= low[p]) & (v <= high[p])
    return kept, np.float64(value) - centre[p] if kept else 0.0


@internal
def _count_within(frames, first, low, high, below, kept):
    cast = low.dtype.type
    for p in range(low.size):
        below[p] = kept[p] = 0
    for f in range(frames.addresses.size):
        x = load(frames, f, first, low.size, 0)
        for p in range(low.size):
            v, valid = cast(x[p]), is_valid(x[p], frames.test)
            below[p] += np.int32(valid & (v < low[p]))
            kept[p] += np.int32(valid & (v >= low[p]) & (v <= high[p]))
