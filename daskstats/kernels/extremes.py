"""Folds: extremes and exact sums over the frames of a piece."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .frames import (
    LONG_TILE,
    STRETCH,
    TILE,
    Piece,
    addresses,
    aligned,
    at,
    compiled,
    copy_bytes,
    dividing,
    inlined,
    internal,
    part_of,
    plain,
    pooled,
    prefetch_frames,
)
from .validity import (
    MOST_FRAMES,
    Keys,
    Valid,
    begin,
    counts,
    end,
    key_bits,
    note,
    pick,
    rules_of,
    runs,
    take,
    take_four,
)

Trail = Sequence[tuple[int, np.ndarray]]
"""(frames of a piece, image): where the running result of so many frames is written"""

# Frames whose upper bytes, and lower ones, 16 bits hold the sum of.
FRAMES_IN_HALVES = 256

NOWHERE = np.empty(0, np.uint64)

# ---------------------------------------------------------------------- extremes


class Extremes:
    """The maximum of the frames of a piece, or the minimum, and of what was there before.

    Parameters
    ----------
    piece : list of ndarray
        Frames; those of float16 are widened, all of them at once.
    into : ndarray
        (rows, cols) of the frames' dtype: the extreme so far, which is overwritten.
    least : bool
        Whether it is the minimum.
    valid : Valid, optional
        What is left out.
    trail : sequence of (int, ndarray)
        Number of frames of the piece, and the array that the extreme of so many is copied into.
    """

    def __init__(
        self,
        piece: Piece,
        into: np.ndarray,
        least: bool,
        valid: Valid | None = None,
        trail: Trail = (),
    ) -> None:
        self._frames = frames = plain(piece)
        self._narrow = into.reshape(-1) if into.dtype == np.float16 else None
        (wide,) = plain([into[None]])
        ends = np.array([end for end, _ in trail], np.int64)
        images = addresses([image[None] for _, image in trail]) if trail else NOWHERE
        every = addresses(frames)
        rules = rules_of(valid, every.size, farthest(into.dtype, least))
        # Compiled code is made for a type: None for the maximum, a bool for the minimum.
        self._out = wide.reshape(-1)
        self._fixed = ends, images, least or None, rules
        self._parts = list(runs(every, valid))

    def run(self, first: int, last: int) -> None:
        """Fold the pixels from ``first`` to ``last - 1``."""
        for part in self._parts:
            _extreme(part, self._out, *self._fixed, first, last)
        if self._narrow is not None:
            self._narrow[first:last] = self._out[first:last]


def begin_extreme(block: np.ndarray, least: bool, valid: bool) -> np.ndarray:
    """Return the extreme of no frames: the first one, if all values count."""
    into = pooled(block.shape[1:], block.dtype)
    into[...] = farthest(block.dtype, least) if valid else block[0]
    return into


def combine_extremes(a: np.ndarray, b: np.ndarray, least: bool) -> np.ndarray:
    """Return the extreme of two, as of two frames."""
    out = pooled(a.shape, a.dtype)
    if a.dtype.kind != "f":
        (np.minimum if least else np.maximum)(a, b, out=out)
        return out
    # numpy's extreme of zeros of both signs depends on their order.
    out[...] = a
    Extremes([b[None]], out, least).run(0, out.size)
    return out


def farthest(dtype: np.dtype, least: bool) -> Any:
    """Return the value that every other is beyond: the lowest, or the highest for a minimum."""
    if dtype.kind == "f":
        return np.inf if least else -np.inf
    if dtype.kind == "b":
        return least
    return np.iinfo(dtype).max if least else np.iinfo(dtype).min


@internal
def larger(x, y):
    """Return the larger integer."""
    return x if x > y else y


@internal
def smaller(x, y):
    """Return the smaller integer."""
    return x if x < y else y


def _ieee(operation):
    """Return the maximum or minimum of IEEE 754-2019 for compiled code.

    It is NaN if either float is, and +0.0 is larger than -0.0, so that the order of the values does
    not matter. LLVM's own operation is as fast as a comparison that ignores the sign of zeros.
    """

    def of(typingctx, x, y):
        def codegen(context, builder, signature, arguments):
            kind = arguments[0].type
            name = f"llvm.{operation}.f{signature.return_type.bitwidth}"
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind, kind]), name
            )
            return builder.call(function, arguments)

        return x(x, x), codegen

    return intrinsic(of)


_maximum, _minimum = _ieee("maximum"), _ieee("minimum")


def beyond(x, y, least):
    """Return the larger one, or the smaller one if ``least`` is not None; NaN if either is."""
    raise NotImplementedError("only compiled code calls this")


@overload(beyond)
def _overload_beyond(x, y, least):
    if isinstance(x, types.Float):
        if least is types.none:
            return lambda x, y, least: _maximum(x, y)
        return lambda x, y, least: _minimum(x, y)
    if least is types.none:
        return lambda x, y, least: larger(x, y)
    return lambda x, y, least: smaller(x, y)


def unify_nan(values):
    """Replace every NaN by the canonical one: else its bits tell in which order frames came."""
    raise NotImplementedError("only compiled code calls this")


@overload(unify_nan)
def _overload_unify_nan(values):
    if not isinstance(values.dtype, types.Float):
        return lambda values: None

    def unify(values):
        nan = values.dtype.type(np.nan)
        for p in range(values.size):
            values[p] = values[p] if values[p] == values[p] else nan

    return unify


@compiled
def _extreme(addresses, out, ends, images, least, rules, start, stop):
    for first in range(start, stop, LONG_TILE):
        o, begun = part_of(out, first, min(LONG_TILE, stop - first)), 0
        offset = np.uint64(first * o.itemsize)
        few = begin(rules, o.size)
        for step in range(ends.size):
            _extreme_of_tile(addresses[begun : ends[step]], first, o, few, least, rules)
            unify_nan(o)
            copy_bytes(images[step] + offset, o.ctypes.data, o.size * o.itemsize)
            begun = ends[step]
        _extreme_of_tile(addresses[begun:], first, o, few, least, rules)
        unify_nan(o)
        end(rules, first, few)


@internal
def _extreme_of_tile(addresses, first, o, few, least, rules):
    n, step = addresses.size, LONG_TILE if rules is None else STRETCH // o.itemsize
    for f in range(0, n - 3, 4):
        for q in range(0, o.size, step):
            m = min(step, o.size - q)
            if rules is not None:
                prefetch_frames(addresses, f, 4, o, first + q)
            four = take_four(addresses, f, o, first + q, m, rules, 0)
            _extreme_of_four(*four, part_of(o, q, m), part_of(few, q, m), least, rules)
    for f in range(n - n % 4, n):
        a = take(addresses[f], o, first, o.size, rules, 0)
        for p in range(o.size):
            note(rules, few, p, a[p])
            o[p] = beyond(pick(a[p], rules), o[p], least)


@inlined
def _extreme_of_four(a, b, c, d, o, few, least, rules):
    for p in range(o.size):
        w, x = pick(a[p], rules), pick(b[p], rules)
        y, z = pick(c[p], rules), pick(d[p], rules)
        note(rules, few, p, a[p], b[p], c[p], d[p])
        most = beyond(beyond(w, x, least), beyond(y, z, least), least)
        o[p] = beyond(most, o[p], least)


# ---------------------------------------------------------------------- where extremes are


def fold_argmax(
    piece: Piece, start: int, keys: np.ndarray, index: np.ndarray, valid: Valid | None = None
) -> None:
    """Find the first frame that has the maximum of the frames of a piece and those before.

    Parameters
    ----------
    piece : list of ndarray
        Frames from number ``start`` on.
    keys : ndarray
        Unsigned, as wide as the frames (32 bits for float16): of the maxima so far. NaN counts
        as the largest value.
    index : ndarray
        int64: the frame of each maximum, -1 where there is none yet.
    """
    _fold_arg(piece, start, keys, index, valid, False)


def fold_argmin(
    piece: Piece, start: int, keys: np.ndarray, index: np.ndarray, valid: Valid | None = None
) -> None:
    """Find the first frame that has the minimum, as `fold_argmax`; keys are upside down."""
    _fold_arg(piece, start, keys, index, valid, True)


def _fold_arg(
    piece: Piece, start: int, best: np.ndarray, index: np.ndarray, valid: Valid | None, least: bool
) -> None:
    frames = plain(piece)
    like = np.empty(1, frames[0].dtype)
    keys = Keys(piece[0].dtype, wide=True)
    rules = rules_of(valid, sum(map(len, frames)))
    flip = best.dtype.type(0 if keys.floats else keys.flip)
    most = MOST_FRAMES.get(like.itemsize, 1 << 30)
    for part in runs(addresses(frames), valid, most):
        _find_first(part, like, start, flip, least, best.reshape(-1), index.reshape(-1), rules)
        start += part.size


@compiled
def _find_first(addresses, like, start, flip, least, best, index, rules):
    """Keep the best key of each pixel, and the number of the frame that it was first in."""
    cast = best.dtype.type
    turn = ~cast(0) if least else cast(0)
    new = np.empty(TILE, best.dtype)
    none = np.empty(TILE, best.dtype)
    for first in range(0, best.size, TILE):
        b, i = best[first : first + TILE], index[first : first + TILE]
        w, u = new[: b.size], none[: b.size]
        w[:] = 0
        for p in range(b.size):
            u[p] = i[p] < 0
        for f in range(addresses.size):
            x = take(addresses[f], like, first, b.size, rules, 0)
            number = cast(f + 1)
            for p in range(b.size):
                k = cast(ordered(x[p], flip, turn))
                better = counts(x[p], rules) & ((k > b[p]) | (u[p] != 0))
                b[p] = k if better else b[p]
                w[p] = number if better else w[p]
                u[p] = cast(0) if better else u[p]
        for p in range(b.size):
            if w[p]:
                i[p] = start + np.int64(w[p]) - 1


def ordered(value, flip, turn):
    """Return a key for comparison: equal for both zeros, the largest for NaN, or turned round."""
    raise NotImplementedError("only compiled code calls this")


@overload(ordered)
def _overload_ordered(value, flip, turn):
    if not isinstance(value, types.Float):
        return lambda value, flip, turn: key_bits(value) ^ flip ^ turn

    def key(value, flip, turn):
        # Adding 0.0 makes 0.0 of -0.0.
        return key_bits(value + type(value)(0)) ^ turn if value == value else turn | ~turn

    return key


# ---------------------------------------------------------------------- sums


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
