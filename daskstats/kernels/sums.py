"""Exact sums: of integers in integers, of floats in pairs of float64."""

from typing import NamedTuple

import numpy as np

from .fold import Loop, adds_to, fold
from .frames import LONG_TILE, Piece, aligned, part_of, pooled, value_at
from .jit import compiled, internal
from .validity import Valid, flush_counts, start_counts

# Frames with sums of upper bytes, and of lower bytes, that fit in 16 bits.
FRAMES_IN_HALVES = 1 << 8


class Halves(NamedTuple):
    """Sums of 16 bits: of values, and of their upper bytes."""

    sums: np.ndarray
    uppers: np.ndarray


class IntegerSums(NamedTuple):
    """Sums in integers of 32 or 64 bits."""

    sums: np.ndarray


class Parts(NamedTuple):
    """Sums of the lower 32 bits of integers, and of the rest."""

    low: np.ndarray
    high: np.ndarray


class FloatSums(NamedTuple):
    """Unevaluated sums ``total + rest`` of two float64."""

    total: np.ndarray
    rest: np.ndarray


class Integers(Loop):
    """Exact sums of 64 bits (or of 32, where they are enough) of integers of at most 32 bits."""

    def __init__(self, piece: Piece, into: np.ndarray, valid: Valid | None = None) -> None:
        self._out = into.reshape(-1)
        super().__init__(piece, valid, IntegerSums(self._out))
        dtype = self._frames[0].dtype
        self._halves: Halves | None = None
        if dtype.itemsize < 4:
            # Sums of 16 bits leave room for a longer tile, which is read faster.
            kind = "u" if dtype.kind == "u" else "i"
            self._halves = Halves(*aligned((2, LONG_TILE // 2), f"{kind}2"))

    def run(self, first: int, last: int) -> None:
        """Add the pixels from ``first`` to ``last - 1`` of all frames of the piece."""
        if self._halves is None:
            return super().run(first, last)
        for frames in self._runs:
            _add_narrow(frames, self._out, self._halves, first, last)
        return None


@compiled
def _add_narrow(frames, out, halves, start, stop):
    """Add values of at most 16 bits, in 16 bits: their sum modulo 2^16, and that of upper bytes.

    The sum of the lower bytes of 256 frames, the difference of the two, is below 2^16. So nothing
    is widened, and twice as many values are added at once.
    """
    n, tile = frames.addresses.size, halves.sums.size
    for first in range(start, stop, tile):
        o = part_of(out, first, min(tile, stop - first))
        sums, uppers = part_of(halves.sums, 0, o.size), part_of(halves.uppers, 0, o.size)
        counts = start_counts(frames.test, o.size)
        for begin in range(0, n, FRAMES_IN_HALVES):
            for p in range(o.size):
                sums[p] = uppers[p] = 0
            run = begin, min(n, begin + FRAMES_IN_HALVES)
            fold(frames, run, first, counts, halves, 0)
            for p in range(o.size):
                above = np.int64(uppers[p]) << 8
                o[p] += above + np.int64(np.uint16(np.int64(sums[p]) - above))
        flush_counts(frames.test, first, counts)


@adds_to(Halves)
def _add_halves(state, parts, p, w, x, y, z):
    sums, uppers = parts
    half = sums.dtype.type
    # Casts keep numba from widening to 64 bits.
    a, b, c, d = half(w), half(x), half(y), half(z)
    sums[p] += half(half(a + b) + half(c + d))
    uppers[p] += half(half((a >> 8) + (b >> 8)) + half((c >> 8) + (d >> 8)))


@adds_to(IntegerSums)
def _add_integers(state, parts, p, w, x, y, z):
    (sums,) = parts
    wide = sums.dtype.type
    sums[p] += wide(w) + wide(x) + wide(y) + wide(z)


def add_limbs(piece: Piece, low: np.ndarray, high: np.ndarray, valid: Valid | None = None) -> None:
    """Add 64-bit integers in two parts: their lower 32 bits and the signed or unsigned rest.

    Neither sum can overflow before 2^32 frames.
    """
    Loop(piece, valid, Parts(low.reshape(-1), high.reshape(-1))).run(0, low.size)


@adds_to(Parts)
def _add_parts(state, parts, p, w, x, y, z):
    low, high = parts
    mask, half = high.dtype.type(0xFFFFFFFF), high.dtype.type(32)
    low[p] += np.uint64(w & mask) + np.uint64(x & mask) + np.uint64(y & mask) + np.uint64(z & mask)
    high[p] += (w >> half) + (x >> half) + (y >> half) + (z >> half)


def add_floats(
    piece: Piece, total: np.ndarray, rest: np.ndarray, valid: Valid | None = None
) -> None:
    """Add floats to the unevaluated sum ``total + rest`` of two float64.

    The rounding error of every addition is found exactly and summed as well.
    """
    Loop(piece, valid, FloatSums(total.reshape(-1), rest.reshape(-1))).run(0, total.size)


@internal
def two_sum(a, b):
    """Return a + b rounded, and the rounding error.

    D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)


@adds_to(FloatSums)
def _add_with_errors(state, parts, p, w, x, y, z):
    total, rest = parts
    a, e = two_sum(total[p], np.float64(w))
    b, f = two_sum(a, np.float64(x))
    c, g = two_sum(b, np.float64(y))
    d, h = two_sum(c, np.float64(z))
    total[p] = d
    rest[p] = rest[p] + e + f + g + h


def combine_sums(
    a: np.ndarray, rest_a: np.ndarray, b: np.ndarray, rest_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(a + rest_a) + (b + rest_b)`` as such a sum of two float64."""
    total, rest = pooled(a.shape, a.dtype), pooled(a.shape, a.dtype)
    terms = (array.reshape(-1) for array in (a, rest_a, b, rest_b, total, rest))
    _combine_sums(*terms)
    return total, rest


@compiled
def _combine_sums(a, rest_a, b, rest_b, total, rest):
    for p in range(total.size):
        total[p], error = two_sum(a[p], b[p])
        rest[p] = rest_a[p] + rest_b[p] + error


def divide(total: np.ndarray, count: float | np.ndarray, out: np.ndarray) -> None:
    """Write sums divided in float64, rounded once, into an image of float32 or float64.

    ``count`` is a number, or one for each pixel; by 0 the result is NaN or infinite. Every NaN is
    the canonical one, whatever the frames and their order made of it.
    """
    counts = count.reshape(-1) if isinstance(count, np.ndarray) else count
    _divide_all(total.reshape(-1), counts, out.reshape(-1))


@compiled
def _divide_all(total, count, out):
    for p in range(out.size):
        quotient = np.float64(total[p]) / np.float64(value_at(count, p))
        out[p] = quotient if quotient == quotient else np.nan
