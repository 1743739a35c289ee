"""Folds: extremes and exact sums over the frames of a piece."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .frames import (
    LONG_TILE,
    STRETCH,
    TILE,
    Piece,
    addresses,
    copy_bytes,
    part_of,
    plain,
    pooled,
    prefetch_frames,
)
from .jit import by_type, compiled, inlined, internal
from .keys import Keys, ordered
from .validity import (
    MOST_FRAMES,
    Valid,
    begin,
    counts,
    end,
    note,
    pick,
    rules_of,
    runs,
    take,
    take_four,
)

Trail = Sequence[tuple[int, np.ndarray]]
"""(frames of a piece, image): where the running result of so many frames is written"""


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


@by_type
def beyond(x, y, least):
    """Return the larger one, or the smaller one if ``least`` is not None; NaN if either is."""
    if isinstance(x, types.Float):
        if least is types.none:
            return lambda x, y, least: _maximum(x, y)
        return lambda x, y, least: _minimum(x, y)
    if least is types.none:
        return lambda x, y, least: larger(x, y)
    return lambda x, y, least: smaller(x, y)


@by_type
def unify_nan(values):
    """Replace every NaN by the canonical one: else its bits tell in which order frames came."""
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
