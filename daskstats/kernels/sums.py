"""Exact sums over the frames of a piece."""

import numpy as np

from .frames import (
    LONG_TILE,
    STRETCH,
    TILE,
    Piece,
    addresses,
    aligned,
    at,
    part_of,
    plain,
    pooled,
    prefetch_frames,
)
from .jit import compiled, dividing, inlined, internal
from .validity import Valid, begin, end, note, pick, rules_of, runs, take, take_four

# Frames whose upper bytes, and lower ones, 16 bits hold the sum of.
FRAMES_IN_HALVES = 256


class Integers:
    """Exact sums of 64 bits (or of 32, where they are enough) of integers of at most 32 bits."""

    def __init__(self, piece: Piece, into: np.ndarray, valid: Valid | None = None) -> None:
        self._frames = frames = plain(piece)
        like = np.empty(1, frames[0].dtype)
        every = addresses(frames)
        rules = rules_of(valid, every.size)
        self._into: tuple = like, into.reshape(-1), rules
        self._add = _add_wide
        if like.itemsize < 4:
            # Sums of 16 bits leave room for a longer tile, which is read the faster.
            halves = aligned((2, LONG_TILE // 2), f"{'u' if like.dtype.kind == 'u' else 'i'}2")
            self._add = _add_narrow
            self._into = like, halves, into.reshape(-1), rules
        self._parts = list(runs(every, valid))

    def run(self, first: int, last: int) -> None:
        """Add the pixels from ``first`` to ``last - 1`` of all frames of the piece."""
        for part in self._parts:
            self._add(part, *self._into, first, last)


@compiled
def _add_narrow(addresses, like, halves, out, rules, start, stop):
    """Add values of at most 16 bits, in 16 bits: their sum modulo 2^16, and that of upper bytes.

    The sum of the lower bytes of 256 frames is what the first lacks of the second one's, and below
    2^16. So nothing is widened, and twice as many values are worked on at once.
    """
    n, half = addresses.size, halves.dtype.type
    step = LONG_TILE if rules is None else STRETCH // like.itemsize
    for first in range(start, stop, halves.shape[1]):
        o = out[first : min(first + halves.shape[1], stop)]
        sums, uppers = part_of(halves[0], 0, o.size), part_of(halves[1], 0, o.size)
        few = begin(rules, o.size)
        for begun in range(0, n, FRAMES_IN_HALVES):
            end_of_run = min(n, begun + FRAMES_IN_HALVES)
            for p in range(o.size):
                sums[p] = uppers[p] = 0
            for f in range(begun, end_of_run - 3, 4):
                for q in range(0, o.size, step):
                    m = min(step, o.size - q)
                    if rules is not None:
                        prefetch_frames(addresses, f, 4, like, first + q)
                    four = take_four(addresses, f, like, first + q, m, rules, 0)
                    both = part_of(sums, q, m), part_of(uppers, q, m)
                    _add_four_narrow(*four, *both, part_of(few, q, m), rules)
            for f in range(end_of_run - (end_of_run - begun) % 4, end_of_run):
                a = take(addresses[f], like, first, o.size, rules, 0)
                for p in range(o.size):
                    note(rules, few, p, a[p])
                    w = half(pick(a[p], rules))
                    sums[p] += w
                    uppers[p] += half(w >> 8)
            for p in range(o.size):
                above = np.int64(uppers[p]) << 8
                o[p] += above + np.int64(np.uint16(np.int64(sums[p]) - above))
        end(rules, first, few)


@inlined
def _add_four_narrow(a, b, c, d, sums, uppers, few, rules):
    half = sums.dtype.type
    for p in range(sums.size):
        # Casts keep numba from widening to 64 bits.
        note(rules, few, p, a[p], b[p], c[p], d[p])
        w, x = half(pick(a[p], rules)), half(pick(b[p], rules))
        y, z = half(pick(c[p], rules)), half(pick(d[p], rules))
        sums[p] += half(half(w + x) + half(y + z))
        uppers[p] += half(half((w >> 8) + (x >> 8)) + half((y >> 8) + (z >> 8)))


@compiled
def _add_wide(addresses, like, out, rules, start, stop):
    n, wide = addresses.size, out.dtype.type
    step = LONG_TILE if rules is None else STRETCH // like.itemsize
    for first in range(start, stop, TILE):
        o = part_of(out, first, min(TILE, stop - first))
        few = begin(rules, o.size)
        for f in range(0, n - 3, 4):
            for q in range(0, o.size, step):
                m = min(step, o.size - q)
                if rules is not None:
                    prefetch_frames(addresses, f, 4, like, first + q)
                four = take_four(addresses, f, like, first + q, m, rules, 0)
                _add_four_wide(*four, part_of(o, q, m), part_of(few, q, m), rules)
        for f in range(n - n % 4, n):
            a = take(addresses[f], like, first, o.size, rules, 0)
            for p in range(o.size):
                note(rules, few, p, a[p])
                o[p] += wide(pick(a[p], rules))
        end(rules, first, few)


@inlined
def _add_four_wide(a, b, c, d, o, few, rules):
    wide = o.dtype.type
    for p in range(o.size):
        w, x = wide(pick(a[p], rules)), wide(pick(b[p], rules))
        y, z = wide(pick(c[p], rules)), wide(pick(d[p], rules))
        note(rules, few, p, a[p], b[p], c[p], d[p])
        o[p] += w + x + y + z


def add_limbs(piece: Piece, low: np.ndarray, high: np.ndarray, valid: Valid | None = None) -> None:
    """Add 64-bit integers in two parts: their lower 32 bits and the signed or unsigned rest.

    Neither sum can overflow before 2^32 frames.
    """
    every = addresses(piece)
    _add_limbs(every, low.reshape(-1), high.reshape(-1), rules_of(valid, every.size))


@compiled
def _add_limbs(addresses, low, high, rules):
    mask, half = high.dtype.type(0xFFFFFFFF), high.dtype.type(32)
    for first in range(0, low.size, TILE):
        lo = low[first : first + TILE]
        hi = high[first : first + TILE]
        few = begin(rules, lo.size)
        for f in range(addresses.size):
            x = take(addresses[f], high, first, lo.size, rules, 0)
            for p in range(lo.size):
                note(rules, few, p, x[p])
                value = pick(x[p], rules)
                lo[p] += np.uint64(value & mask)
                hi[p] += value >> half
        end(rules, first, few)


def add_floats(
    piece: Piece, total: np.ndarray, rest: np.ndarray, valid: Valid | None = None
) -> None:
    """Add floats to the unevaluated sum ``total + rest`` of two float64.

    The rounding error of every addition is found exactly and summed as well.
    """
    frames = plain(piece)
    every, like = addresses(frames), np.empty(1, frames[0].dtype)
    rules = rules_of(valid, every.size)
    _add_floats(every, like, total.reshape(-1), rest.reshape(-1), rules)


@internal
def two_sum(a, b):
    """Return a + b rounded, and the rounding error.

    D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)


@compiled
def _add_floats(addresses, like, total, rest, rules):
    for first in range(0, total.size, TILE):
        t = total[first : first + TILE]
        r = rest[first : first + TILE]
        few = begin(rules, t.size)
        for f in range(addresses.size):
            x = take(addresses[f], like, first, t.size, rules, 0)
            for p in range(t.size):
                note(rules, few, p, x[p])
                s, e = two_sum(t[p], np.float64(pick(x[p], rules)))
                t[p] = s
                r[p] += e
        end(rules, first, few)


def combine_sums(a: np.ndarray, rest_a: np.ndarray, b: np.ndarray, rest_b: np.ndarray) -> tuple:
    """Return ``(a + rest_a) + (b + rest_b)`` as such a sum of two float64."""
    total, rest = pooled(a.shape, a.dtype), pooled(a.shape, a.dtype)
    terms = (array.reshape(-1) for array in (a, rest_a, b, rest_b, total, rest))
    _combine_sums(*terms)
    return total, rest


@compiled
def _combine_sums(a, rest_a, b, rest_b, total, rest):
    for p in range(total.size):
        s, e = two_sum(a[p], b[p])
        total[p] = s
        rest[p] = rest_a[p] + rest_b[p] + e


def divide(total: np.ndarray, count: float | np.ndarray, out: np.ndarray) -> None:
    """Write sums divided in float64, rounded once, into an image of float32 or float64.

    ``count`` is a number, or one for each pixel; by 0 the result is NaN or infinite. Every NaN is
    the canonical one, whatever the frames and their order made of it.
    """
    counts = count.reshape(-1) if isinstance(count, np.ndarray) else count
    _divide_all(total.reshape(-1), counts, out.reshape(-1))


@dividing
def _divide_all(total, count, out):
    for p in range(out.size):
        quotient = np.float64(total[p]) / np.float64(at(count, p))
        out[p] = quotient if quotient == quotient else np.nan
