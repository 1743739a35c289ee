"""Exact variances of wide integers: sums and sums of squares in limbs of 64 bits.

The limbs of a number follow one another, the lowest first. A pixel has its sum, a signed number of
one limb (frames of 32 bits) or two (64 bits), and then its sum of squares, of two limbs or three.
Up to 2^31 frames neither overflows, so the state does not depend on how a series was cut, and the
variance ``(n * squares - sum^2) / (n * (n - ddof))`` is a fraction of integers, rounded once.
"""

from math import ldexp
from typing import NamedTuple

import numpy as np

from .fold import Loop, adds_to
from .frames import SHORT_TILE, Piece, part_of, pooled, value_at
from .jit import by_type, compiled, inlined, internal
from .validity import Valid

Limbs = np.ndarray
"""uint64 (3 or 5, rows, cols)"""


def limbs_of_state(itemsize: int) -> int:
    """Return the number of limbs of a pixel, for integers of a size in bytes."""
    return 5 if itemsize == 8 else 3


class NarrowLimbs(NamedTuple):
    """The limbs of 32-bit integers: of the sum, and two of the squares."""

    total: np.ndarray
    low: np.ndarray
    high: np.ndarray


class WideLimbs(NamedTuple):
    """The limbs of 64-bit integers: two of the sum, and three of the squares."""

    total: np.ndarray
    above: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def limb_state(limbs: Limbs) -> NarrowLimbs | WideLimbs:
    """Return the limbs of a state as compiled code takes them."""
    kind = NarrowLimbs if len(limbs) == 3 else WideLimbs
    return kind(*limbs.reshape(len(limbs), -1))


class WideSquares(Loop):
    """Exact sums of integers of 32 or 64 bits, and of their squares, added to limbs."""

    def __init__(self, piece: Piece, limbs: Limbs, valid: Valid | None = None) -> None:
        super().__init__(piece, valid, limb_state(limbs), SHORT_TILE)


@adds_to(NarrowLimbs)
def _add_narrow_squares(state, parts, p, w, x, y, z):
    total, low, high = parts
    s, lower, upper = total[p], low[p], high[p]
    for value in (w, x, y, z):
        wide = np.uint64(np.int64(value))
        s += wide
        square = np.uint64(wide * wide)
        lower += square
        upper += np.uint64(lower < square)
    total[p], low[p], high[p] = s, lower, upper


@adds_to(WideLimbs)
def _add_wide_squares(state, parts, p, w, x, y, z):
    total, above, low, middle, high = parts
    s0, s1 = total[p], above[p]
    q0, q1, q2 = low[p], middle[p], high[p]
    for value in (w, x, y, z):
        number, sign = np.uint64(value), sign_of(value)
        s0 += number
        # A negative number goes on with bits that are all set.
        s1 += np.uint64(s0 < number) + sign
        upper, lower = _square(np.uint64(np.uint64(number ^ sign) - sign))
        q0 += lower
        # The upper half of a square is below 2^64 - 1.
        upper += np.uint64(q0 < lower)
        q1 += upper
        q2 += np.uint64(q1 < upper)
    total[p], above[p] = s0, s1
    low[p], middle[p], high[p] = q0, q1, q2


@by_type
def sign_of(value):
    """Return 64 bits, all set for a negative value."""
    if value.signed:
        return lambda value: np.uint64(value >> np.int64(63))
    return lambda value: np.uint64(0)


@inlined
def _square(value):
    """Return the upper and the lower 64 bits of a square, with one product less than `multiply`."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a, b = value >> half, value & mask
    cross = a * b
    twice = cross << np.uint64(33)
    lower = b * b + twice
    return a * a + (cross >> np.uint64(31)) + np.uint64(lower < twice), lower


@inlined
def multiply(a, b):
    """Return the upper and the lower 64 bits of a product."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    low, one, two = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> half) + (one & mask) + (two & mask)
    upper = a1 * b1 + (one >> half) + (two >> half) + (middle >> half)
    return upper, (middle << half) | (low & mask)


def combine_limbs(a: Limbs, b: Limbs) -> Limbs:
    """Return the limbs of two runs of frames combined."""
    out = pooled(a.shape, a.dtype)
    _combine_limbs(*(limbs.reshape(len(limbs), -1) for limbs in (a, b, out)))
    return out


@compiled
def _combine_limbs(a, b, out):
    carries = np.empty(SHORT_TILE, np.uint64)
    for first in range(0, out.shape[1], SHORT_TILE):
        carry = carries[: min(SHORT_TILE, out.shape[1] - first)]
        for k in range(out.shape[0]):
            if k in (0, out.shape[0] // 2):  # the lowest of the sum, of the squares
                carry[:] = 0
            x, y = part_of(a[k], first, carry.size), part_of(b[k], first, carry.size)
            o = part_of(out[k], first, carry.size)
            for p in range(carry.size):
                part = x[p] + carry[p]
                o[p] = part + y[p]
                carry[p] = np.uint64(part < x[p]) + np.uint64(o[p] < part)


def limb_variance(
    limbs: Limbs, count: int | np.ndarray, ddof: float, root: bool, out: np.ndarray
) -> None:
    """Write the variance, or its root: the exact fraction, rounded once for a whole ``ddof``.

    ``count`` is a number, or one for each pixel; where it is not above ``ddof``, NaN is written.
    """
    n = count if isinstance(count, int) else count.reshape(-1)
    arguments = limbs.reshape(len(limbs), -1), n, ddof, root, out.reshape(-1)
    if _small_variance(*arguments):
        _large_variance(*arguments)


@compiled
def _small_variance(limbs, counts, ddof, root, out):
    """Write the variances that need at most 64 bits, and return the number of the others."""
    others = 0
    for p in range(out.size):
        n = np.int64(value_at(counts, p))
        freedom = np.float64(n) - ddof
        small, m, r = _small_moments(limbs, p, n)
        others += not small
        v = np.float64(m * n - r * r) / (np.float64(n) * freedom) if freedom > 0 else np.nan
        out[p] = np.sqrt(v) if root else v
    return others


@compiled
def _large_variance(limbs, counts, ddof, root, out):
    """Write the variances that need more than 64 bits."""
    one = np.uint64(1)
    for p in range(out.size):
        n = np.int64(value_at(counts, p))
        freedom = np.float64(n) - ddof
        small, _, _ = _small_moments(limbs, p, n)
        if small or not freedom > 0:
            continue
        whole = freedom == np.floor(freedom)
        a, b = (np.uint64(n), np.uint64(freedom)) if whole else (one, one)
        v = _quotient(*_numerator(limbs, p, n), a, b)
        v = v if whole else v / (np.float64(n) * freedom)
        out[p] = np.sqrt(v) if root else v


@inlined
def about_mean(total, squares, count):
    """Return the sum of squares about an integer next to the mean, and the rest of the sum.

    Both are small: products in them may overflow, and cancel.
    """
    middle = np.int64(np.rint(np.float64(total) * (1.0 / max(np.float64(count), 1.0))))
    rest = total - middle * count
    return squares - middle * (total + rest), rest


@inlined
def is_exact(squares, count):
    """Whether float64 holds the variance's numerator and denominator."""
    return np.float64(max(squares, count)) * np.float64(count) < 2.0**53


@internal
def _small_moments(limbs, pixel, count):
    """Return whether 64 bits suffice for a pixel, and the moments about its mean if they do."""
    wide, zero = limbs.shape[0] == 5, np.uint64(0)
    squares = 2 if wide else 1
    total = np.int64(limbs[0, pixel])
    fits = (limbs[squares, pixel] >> np.uint64(63) == zero) & (limbs[squares + 1, pixel] == zero)
    if wide:
        fits &= limbs[4, pixel] == zero
        fits &= np.int64(limbs[1, pixel]) == (total >> np.int64(63))
    if not fits:
        return False, np.int64(0), np.int64(0)
    m, r = about_mean(total, np.int64(limbs[squares, pixel]), count)
    return is_exact(m, count), m, r


@internal
def _numerator(limbs, pixel, count):
    """Return ``count * squares - sum^2``, the highest of three limbs first."""
    zero, n = np.uint64(0), np.uint64(count)
    wide = limbs.shape[0] == 5
    total = limbs[0, pixel]
    above = limbs[1, pixel] if wide else np.uint64(np.int64(total) >> np.int64(63))
    if np.int64(above) < 0:
        total = np.uint64(zero - total)
        above = np.uint64(~above + np.uint64(total == zero))
    first = 2 if wide else 1
    # The square of the sum, and the squares times their number.
    s1, s0 = multiply(total, total)
    c1, c0 = multiply(np.uint64(total << np.uint64(1)), above)
    c1 += above * (total >> np.uint64(63))
    s1 += c0
    s2 = above * above + c1 + np.uint64(s1 < c0)
    q1, q0 = multiply(n, limbs[first, pixel])
    c1, c0 = multiply(n, limbs[first + 1, pixel])
    q1 += c0
    q2 = c1 + np.uint64(q1 < c0) + (n * limbs[4, pixel] if wide else zero)
    v0 = q0 - s0
    borrow = np.uint64(q0 < s0)
    v1 = q1 - s1 - borrow
    borrow = np.uint64((q1 < s1) | ((q1 == s1) & (borrow > zero)))
    return q2 - s2 - borrow, v1, v0


@internal
def _quotient(v2, v1, v0, a, b):
    """Return the float64 nearest to a number of three limbs over two of at most 32 bits."""
    length = _length(v2) + 128 if v2 else _length(v1) + 64 if v1 else _length(v0)
    # The quotient has 60 to 62 bits, more than a float64, for its one rounding.
    shift = length - (_length(a) + _length(b) + 60)
    high, low, lost = _shifted(v2, v1, v0, shift)
    high, low, rest = _divide(high, low, a)
    lost |= rest
    high, low, rest = _divide(high, low, b)
    # A last bit stands for all that follow, so that only true ties are rounded as ties.
    low |= np.uint64((lost | rest) != np.uint64(0))
    return ldexp(np.float64(np.int64(low)), shift)


@internal
def _length(value):
    """Return the number of bits of a value."""
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> np.uint64(step):
            value >>= np.uint64(step)
            length += step
    return length + np.int64(value)


@internal
def _shifted(v2, v1, v0, shift):
    """Return the lower two limbs of a number shifted down, or up, and the bits that were lost."""
    zero, lost = np.uint64(0), np.uint64(0)
    while shift >= 64:
        lost |= v0
        v0, v1, v2 = v1, v2, zero
        shift -= 64
    while shift <= -64:
        v1, v0 = v0, zero
        shift += 64
    places, others = np.uint64(abs(shift)), np.uint64(64 - abs(shift))
    if shift > 0:
        lost |= v0 << others
        return (v1 >> places) | (v2 << others), (v0 >> places) | (v1 << others), lost
    if shift < 0:
        return (v1 << places) | (v0 >> others), v0 << places, lost
    return v1, v0, lost


@internal
def _divide(high, low, divisor):
    """Return the limbs of a quotient by a number of at most 32 bits, and the rest."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    d3 = high >> half
    q3 = d3 // divisor
    d2 = ((d3 - q3 * divisor) << half) | (high & mask)
    q2 = d2 // divisor
    d1 = ((d2 - q2 * divisor) << half) | (low >> half)
    q1 = d1 // divisor
    d0 = ((d1 - q1 * divisor) << half) | (low & mask)
    q0 = d0 // divisor
    return (q3 << half) | q2, (q1 << half) | q0, d0 - q0 * divisor
