"""Percentiles, the median, and the average of the values near to it, by bands of rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import islice
from math import floor
from numbers import Real
from typing import NamedTuple

import numpy as np

from ..arguments import check_maxiters, check_percentile, check_sigma
from .base import BandLoops, Chunk, Loop, Piece, State, Statistic, finish_rows, place_rows
from .shared import load_kernels
from .validity import Validity, fill_pixels

Planes = Callable[[], list[np.ndarray]]
"""returns the rows of each percentile as float64, after a loop has passed over all pixels"""


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
    return _percentiles(name, Percentiles(percentiles, plain))


@dataclass(frozen=True)
class Percentiles(Chunk):
    """The percentiles of all frames of a band of rows, as the `chunk` of a statistic."""

    percentiles: tuple[float, ...]
    plain: bool
    """whether the image has no axis for them"""
    validity: Validity | None = None
    fill: float | None = None

    def __call__(self, pieces: Iterable[Piece], start: int) -> State:
        piece = Piece.joined(pieces)
        (loop,), state = self.open_loops(piece)
        loop.run(0, piece[0][0].size)
        return {str(start): state()["0"]}

    def open_loops(self, piece: Piece | Sequence[np.ndarray]) -> BandLoops:
        """Return the loop over a band; its state has the rows as float64."""
        loop, planes = self.open_planes(piece)
        return BandLoops([loop], lambda: {"0": self.joined(planes())})

    def open_planes(self, piece: Piece | Sequence[np.ndarray]) -> tuple[Loop, Planes]:
        """Return the loop over a band, and the function for its rows of each percentile."""
        piece, kernels = Piece.of(piece), load_kernels()
        if self.validity is None:
            return self._of_all(piece)
        counts, keys = np.zeros(piece.shape, "u4"), kernels.Keys(piece.dtype)
        valid = kernels.Valid(keys.left_out(self.validity), keys, counts)
        if not valid.key_ranges:
            return self._of_all(piece)
        distinct = sorted(set(self.percentiles))
        loop = kernels.ValidPercentiles(piece.arrays, distinct, valid, self.validity.skipna)

        def planes() -> list[np.ndarray]:
            found = dict(zip(distinct, loop.neighbours(), strict=True))
            planes, empty = [interpolate(*found[q]) for q in self.percentiles], counts == 0
            for plane in planes:
                fill_pixels(plane, empty, self.fill)
            return planes

        return loop, planes

    def _of_all(self, piece: Piece) -> tuple[Loop, Planes]:
        """Find percentiles where every value counts: the same ranks at each pixel."""
        points = [rank_of(q, piece.nframes) for q in self.percentiles]
        ranks = sorted({r for r, _ in points} | {r + 1 for r, weight in points if weight})
        order = load_kernels().OrderStatistics(piece.arrays, ranks)

        def planes() -> list[np.ndarray]:
            values = dict(zip(ranks, order.values(), strict=True))
            return [interpolate(values[r], values.get(r + 1), weight) for r, weight in points]

        return order, planes

    def joined(self, planes: list[np.ndarray]) -> np.ndarray:
        """Return the rows of the image."""
        if self.plain:
            return planes[0]
        shape = len(planes), *planes[0].shape
        return np.stack(planes, out=load_kernels().pooled(shape, np.float64))


class SharedPercentiles(NamedTuple):
    """The percentiles of several statistics of the same valid values, found in one search."""

    members: tuple[Percentiles, ...]
    prefixes: tuple[str, ...]
    """for each member the prefix of the name of its rows in the state"""

    def open_loops(self, piece: Piece | Sequence[np.ndarray]) -> BandLoops:
        """Return the loop over a band; its state has the rows of each member."""
        every = tuple(q for member in self.members for q in member.percentiles)
        loop, planes = replace(self.members[0], percentiles=every).open_planes(piece)

        def state() -> State:
            found = iter(planes())
            return {
                f"{prefix}0": member.joined(list(islice(found, len(member.percentiles))))
                for prefix, member in zip(self.prefixes, self.members, strict=True)
            }

        return BandLoops([loop], state)


def _percentiles(name: str, band: Percentiles) -> Statistic:
    planes = len(band.percentiles)
    return Statistic(
        name=name,
        chunk=band,
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        state_nbytes=8 * planes,
        # Keys, values and, in float64, both neighbours, their difference and the result; where
        # some values do not count, ranks and weights as well, and counts.
        scratch=64 * planes if band.validity is None else 80 * planes + 8,
        # A tile is at most 256 KiB, or 256 pixels of all frames.
        tile=(1 << 20, 288),
        planes=None if band.plain else planes,
        begin=band.open_loops,
        leave_out=partial(_valid_percentiles, name, band),
        fill_value=band.fill,
    )


def _valid_percentiles(
    name: str, band: Percentiles, validity: Validity, fill: float | None
) -> Statistic:
    return _percentiles(name, replace(band, validity=validity, fill=fill))


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
    result = load_kernels().interpolate(below, above, weight)
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

    Values further than ``sigma`` standard deviations from the median are left out, repeatedly, as
    ``astropy.stats.sigma_clipped_stats`` does along the frames with its default centre and
    deviation. As there, NaN and the infinities are left out from the start, with ``skipna`` or
    without.

    Parameters
    ----------
    sigma : float
        More than 0.
    maxiters : int or None
        Rounds at most, at least 1; None: until a round leaves out nothing.

    Raises
    ------
    ValueError, TypeError
        If a parameter is something else.
    """
    return _clipped((check_sigma(sigma), check_maxiters(maxiters)))


@dataclass(frozen=True)
class ClippedAverage(Chunk):
    """The clipped average of all frames of a band of rows, as the `chunk` of a statistic."""

    clip: tuple[float, int | None]
    """deviations and rounds, at most"""
    validity: Validity
    fill: float | None

    def __call__(self, pieces: Iterable[Piece], start: int) -> State:
        kernels, piece = load_kernels(), Piece.joined(pieces)
        keys = kernels.Keys(piece.dtype, wide=True)
        left_out = keys.left_out(self.validity) + keys.not_finite
        band = kernels.clipped_average(piece.arrays, left_out, keys, *self.clip)
        fill_pixels(band, np.isnan(band), self.fill)
        return {str(start): band}


def _clipped(
    clip: tuple[float, int | None], validity: Validity | None = None, fill: float | None = None
) -> Statistic:
    return Statistic(
        name="clipped_average",
        chunk=ClippedAverage(clip, validity or Validity(), fill),
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        scratch=16,
        # The tile of order statistics, and three times 8 MiB, or 256 pixels of all frames: a
        # group of pixels widened from float16, its remaining values, and those of the next round.
        tile=(25 << 20, 288 + 3 * 256 * 8),
        leave_out=partial(_clipped, clip),
        leaves_out_nonfinite=True,
        fill_value=fill,
    )


median = percentile(50, name="median")
