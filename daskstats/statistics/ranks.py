"""Percentiles, the median, and the average of what is near to it: by bands of rows."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from math import floor
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..arguments import check_number, shown
from .base import MOST_FRAMES, Begun, Piece, State, Statistic, finish_rows, place_rows
from .shared import compiled, fill_empty
from .validity import Validity


def percentile(pctl: float | Sequence[float], *, name: str = "percentile") -> Statistic:
    """Return the statistic for one percentile, or for several at once.

    Parameters
    ----------
    pctl : float or sequence of float
        In [0, 100]. A sequence gives an image (len(pctl), rows, cols).

    Raises
    ------
    ValueError, TypeError
        If one is not a number in [0, 100].
    """
    plain = isinstance(pctl, str | Real | Decimal) or pctl is None or np.ndim(pctl) == 0
    percentiles = tuple(check_percentile(q) for q in ([pctl] if plain else pctl))  # type: ignore[union-attr]
    if not percentiles:
        raise ValueError("pctl is an empty sequence, expected at least one percentile")
    return _percentiles(name, percentiles, plain)


def check_percentile(pctl: Any) -> float:
    """Return a percentile as a float in [0, 100]; the error names the argument."""
    number = check_number(pctl, "pctl", "a number from 0 to 100")
    if not 0 <= number <= 100:
        raise ValueError(f"pctl must be a number from 0 to 100, got {shown(pctl)}")
    return float(number)


def _percentiles(
    name: str,
    percentiles: tuple,
    plain: bool,
    validity: Validity | None = None,
    fill: Any = None,
) -> Statistic:
    planes = 1 if plain else len(percentiles)
    begin = partial(_begin_percentiles, percentiles=percentiles, plain=plain)
    # Keys, values and, in float64, both neighbours, their difference and what lies between.
    scratch = 64 * planes
    if validity is not None:
        begin = partial(
            _begin_valid_percentiles,
            percentiles=percentiles,
            plain=plain,
            validity=validity,
            fill=fill,
        )
        # The same, ranks and weights; counts.
        scratch = 80 * planes + 8
    return Statistic(
        name=name,
        chunk=partial(_percentile_band, begin=begin),
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        state_nbytes=8 * planes,
        scratch=scratch,
        # A tile is at most 256 KiB, or 256 pixels of all frames.
        tile=(1 << 20, 288),
        planes=None if plain else planes,
        begin=begin,
        leave_out=partial(_percentiles, name, percentiles, plain),
        fill_value=fill,
    )


def _percentile_band(pieces: Iterable[Piece], start: int, begin: Callable[[Piece], Begun]) -> State:
    piece = [block for piece in pieces for block in piece]
    (loop,), state = begin(piece)
    loop.run(0, piece[0][0].size)
    return {str(start): state()["0"]}


def _begin_percentiles(piece: Piece, percentiles: tuple, plain: bool) -> Begun:
    nframes = sum(len(block) for block in piece)
    points = [rank_of(q, nframes) for q in percentiles]
    ranks = sorted({rank for rank, weight in points} | {r + 1 for r, weight in points if weight})
    order = compiled().OrderStatistics(piece, ranks)

    def state() -> State:
        values = dict(zip(ranks, order.values(), strict=True))
        planes = [interpolate(values[r], values.get(r + 1), weight) for r, weight in points]
        return {"0": planes[0] if plain else np.stack(planes)}

    return [order], state


def _begin_valid_percentiles(
    piece: Piece, percentiles: tuple, plain: bool, validity: Validity, fill: Any
) -> Begun:
    """Find percentiles among the valid values of each pixel, whose number differs."""
    kernels = compiled()
    counts, keys = np.zeros(piece[0].shape[1:], "u4"), kernels.Keys(piece[0].dtype)
    valid = kernels.Valid(keys.left_out(validity), keys, counts)
    if not valid.key_ranges:
        return _begin_percentiles(piece, percentiles, plain)
    found = kernels.ValidPercentiles(piece, percentiles, valid, validity.skipna)

    def state() -> State:
        planes = [interpolate(*neighbours) for neighbours in found.neighbours()]
        band = planes[0] if plain else np.stack(planes)
        fill_empty(band, counts == 0, fill)
        return {"0": band}

    return [found], state


def rank_of(percentile: float, nframes: int) -> tuple[int, float]:
    """Return the rank below a percentile and the weight of the next one (numpy's "linear").

    >>> rank_of(50, 5), rank_of(50, 4)
    ((2, 0.0), (1, 0.5))
    """
    position = (nframes - 1) * (percentile / 100)
    rank = min(floor(position), nframes - 1)
    return rank, position - rank


def interpolate(
    below: np.ndarray, above: np.ndarray | None, weight: float | np.ndarray
) -> np.ndarray:
    """Return ``below + weight * (above - below)`` in float64, by numpy's two formulas.

    64-bit integers beyond 2^53 are interpolated as fractions and rounded once.
    """
    if above is None or (np.ndim(weight) == 0 and weight == 0):
        return below.astype(np.float64)
    result = compiled().interpolate(below, above, weight)
    if below.dtype.itemsize == 8 and below.dtype.kind in "iu":
        _interpolate_large(below, above, weight, result)
    return result


def _interpolate_large(
    below: np.ndarray, above: np.ndarray, weight: float | np.ndarray, result: np.ndarray
) -> None:
    a, b = below.astype(np.float64), above.astype(np.float64)
    large = np.maximum(np.abs(a), np.abs(b)) > 2.0**53
    weights = np.broadcast_to(weight, large.shape)[large]
    result[large] = [
        float(int(x) + Fraction(part) * (int(y) - int(x)))
        for x, y, part in zip(below[large], above[large], weights, strict=True)
    ]


def clipped_average(sigma: float = 3, maxiters: int | None = 5) -> Statistic:
    """Return the mean without outliers: the sigma-clipped mean of each pixel.

    What is further than ``sigma`` standard deviations from the median is left out, again and
    again, as ``astropy.stats.sigma_clipped_stats`` does along the frames with its default centre
    and deviation. As there, NaN and the infinities are left out from the start, ``skipna`` or
    not: leaving out what does not belong is what is asked for.

    Parameters
    ----------
    sigma : float
        More than 0.
    maxiters : int or None
        Rounds at most, at least 1; None: until nothing is left out any more.

    Raises
    ------
    ValueError, TypeError
        If one is something else.
    """
    number = check_number(sigma, "sigma")
    if not 0 < number < np.inf:
        raise ValueError(f"sigma must be more than 0, got {shown(sigma)}")
    if maxiters is not None:
        if isinstance(maxiters, bool | np.bool_) or not isinstance(maxiters, Integral):
            raise TypeError(f"maxiters must be an integer or None, got {shown(maxiters)}")
        if maxiters < 1:
            raise ValueError(f"maxiters must be at least 1, or None, got {shown(maxiters)}")
        # Each round leaves out a frame at least.
        maxiters = min(int(maxiters), MOST_FRAMES)
    return _clipped(float(number), maxiters)


def _clipped(
    sigma: float, maxiters: int | None, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    chunk = partial(
        _clipped_band,
        sigma=sigma,
        maxiters=maxiters,
        validity=validity or Validity(),
        fill=fill,
    )
    return Statistic(
        name="clipped_average",
        chunk=chunk,
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        scratch=16,
        # The tile of order statistics, and three times 8 MiB, or 256 pixels of all frames: a
        # group of pixels that float16 was widened for, what is left of it, and of that again.
        tile=(25 << 20, 288 + 3 * 256 * 8),
        leave_out=partial(_clipped, sigma, maxiters),
        never_counts=True,
        fill_value=fill,
    )


def _clipped_band(
    pieces: Iterable[Piece],
    start: int,
    sigma: float,
    maxiters: int | None,
    validity: Validity,
    fill: Any,
) -> State:
    kernels, piece = compiled(), [block for piece in pieces for block in piece]
    keys = kernels.Keys(piece[0].dtype, wide=True)
    arcs = keys.left_out(validity) + keys.not_finite
    band = kernels.clipped_average(piece, arcs, keys, sigma, maxiters)
    if fill is not None:
        fill_empty(band, np.isnan(band), fill)
    return {str(start): band}


median = percentile(50, name="median")
