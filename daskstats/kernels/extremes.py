"""Maximum and minimum of the frames of a piece, and the frames that they are first in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .fold import adds_to, fold
from .frames import LONG_TILE, TILE, Piece, addresses_of, copy_bytes, part_of, plain, pooled
from .jit import by_type, compiled, internal
from .keys import Keys, ordered_key
from .validity import Valid, flush_counts, frame_runs, is_valid, load, most_counted, start_counts

Trail = Sequence[tuple[int, np.ndarray]]
"""(number of frames, image): the running extreme of the first frames is written to the image"""


class Extreme(NamedTuple):
    """The extremes so far."""

    out: np.ndarray
    least: bool | None
    """None for the maximum"""


class Extremes:
    """The maximum or minimum of the frames of a piece and of the frames before.

    Parameters
    ----------
    piece : list of ndarray
        Frames; if they are float16, all are widened at once.
    into : ndarray
        (rows, cols) of the frames' dtype: the extreme so far, which is overwritten.
    least : bool
        Whether to find the minimum.
    valid : Valid, optional
        Values that are left out.
    trail : sequence of (int, ndarray)
        Number of frames of the piece, and the array that their extreme is copied into, of their
        dtype: float16, which is widened, has none.
    """

    def __init__(
        self,
        piece: Piece,
        into: np.ndarray,
        least: bool,
        valid: Valid | None = None,
        trail: Trail = (),
    ) -> None:
        self._frames = plain(piece)  # they outlive their addresses
        self._narrow = into.reshape(-1) if into.dtype == np.float16 else None
        (wide,) = plain([into[None]])
        if any(image.itemsize != wide.itemsize for _, image in trail):
            raise TypeError(f"extremes of {into.dtype} frames cannot be copied as they are found")
        ends = np.array([end for end, _ in trail], np.int64)
        images = [image[None] for _, image in trail]
        self._trail = ends, addresses_of(images) if images else np.empty(0, np.uint64)
        # Compiled code is made for a type: None for the maximum, a bool for the minimum.
        self._state = Extreme(wide.reshape(-1), least or None)
        self._runs = list(frame_runs(self._frames, valid, farthest(into.dtype, least)))

    def run(self, first: int, last: int) -> None:
        """Fold the pixels from ``first`` to ``last - 1``."""
        for frames in self._runs:
            _extreme(frames, self._state, self._trail, first, last)
        if self._narrow is not None:
            self._narrow[first:last] = self._state.out[first:last]


def begin_extreme(shape: tuple[int, ...], dtype: np.dtype, least: bool) -> np.ndarray:
    """Return the extremes of no frames, to fold others into."""
    into = pooled(shape, dtype)
    into[...] = farthest(dtype, least)
    return into


def combine_extremes(a: np.ndarray, b: np.ndarray, least: bool) -> np.ndarray:
    """Return the extremes of two arrays, as of two frames."""
    out = pooled(a.shape, a.dtype)
    if a.dtype.kind != "f":
        (np.minimum if least else np.maximum)(a, b, out=out)
        return out
    # numpy's extreme of zeros of both signs depends on their order.
    out[...] = a
    Extremes([b[None]], out, least).run(0, out.size)
    return out


def farthest(dtype: np.dtype, least: bool) -> Any:
    """Return the lowest value of a dtype, or the highest for a minimum."""
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


_ieee_maximum, _ieee_minimum = _ieee("maximum"), _ieee("minimum")


@by_type
def beyond(x, y, least):
    """Return the larger value, or the smaller one if ``least`` is not None; NaN if either is."""
    if isinstance(x, types.Float):
        if least is types.none:
            return lambda x, y, least: _ieee_maximum(x, y)
        return lambda x, y, least: _ieee_minimum(x, y)
    if least is types.none:
        return lambda x, y, least: larger(x, y)
    return lambda x, y, least: smaller(x, y)


@by_type
def unify_nan(values):
    """Replace every NaN by the canonical one: its bits would depend on the order of frames."""
    if not isinstance(values.dtype, types.Float):
        return lambda values: None

    def unify(values):
        nan = values.dtype.type(np.nan)
        for p in range(values.size):
            values[p] = values[p] if values[p] == values[p] else nan

    return unify


@compiled
def _extreme(frames, state, trail, start, stop):
    ends, images = trail
    for first in range(start, stop, LONG_TILE):
        out = part_of(state.out, first, min(LONG_TILE, stop - first))
        begin = np.int64(0)  # with a constant the fold would be compiled twice
        offset = np.uint64(first * out.itemsize)
        counts = start_counts(frames.test, out.size)
        for i in range(ends.size):
            fold(frames, (begin, ends[i]), first, counts, state, first)
            unify_nan(out)
            copy_bytes(images[i] + offset, out.ctypes.data, out.size * out.itemsize)
            begin = ends[i]
        fold(frames, (begin, frames.addresses.size), first, counts, state, first)
        unify_nan(out)
        flush_counts(frames.test, first, counts)


@adds_to(Extreme, repeat=True)
def _add_extreme(state, parts, p, w, x, y, z):
    out, least = parts
    fold_extreme(out, least, p, w, x, y, z)


@by_type
def fold_extreme(out, least, p, w, x, y, z):
    """Fold four values of a pixel into its extreme; without an array do nothing."""
    if out is types.none:
        return lambda out, least, p, w, x, y, z: None

    def fold(out, least, p, w, x, y, z):
        most = beyond(beyond(w, x, least), beyond(y, z, least), least)
        out[p] = beyond(most, out[p], least)

    return fold


# ---------------------------------------------------------------------- where extremes are


def flips_of(dtype: np.dtype, best: np.ndarray, least: bool) -> tuple:
    """Return the bits that turn the bits of a value into its key, and a key upside down."""
    keys, cast = Keys(dtype, wide=True), best.dtype.type
    return cast(0 if keys.floats else keys.flip), ~cast(0) if least else cast(0)


def fold_arg(
    piece: Piece,
    start: int,
    best: np.ndarray,
    index: np.ndarray,
    least: bool,
    valid: Valid | None = None,
) -> None:
    """Find the first frame with the extreme of the frames of a piece and the frames before.

    Parameters
    ----------
    piece : list of ndarray
        Frames from number ``start`` on.
    best : ndarray
        Keys of the extremes so far: unsigned, as wide as the frames (32 bits for float16), upside
        down for minima. NaN counts as the largest value.
    index : ndarray
        int64: number of the frame of each extreme, -1 where there is none yet.
    least : bool
        Whether minima are wanted.
    """
    flips = flips_of(piece[0].dtype, best, least)
    for frames in frame_runs(piece, valid, most=most_counted(best.itemsize)):
        _find_first(frames, start, flips, best.reshape(-1), index.reshape(-1))
        start += frames.addresses.size


@compiled
def _find_first(frames, start, flips, best, index):
    """Keep the best key of each pixel, and the number of the first frame that has it."""
    cast = best.dtype.type
    numbers, unset = np.empty(TILE, best.dtype), np.empty(TILE, best.dtype)
    for first in range(0, best.size, TILE):
        b, i = best[first : first + TILE], index[first : first + TILE]
        w, u = numbers[: b.size], unset[: b.size]
        w[:] = 0
        for p in range(b.size):
            u[p] = i[p] < 0
        for f in range(frames.addresses.size):
            x = load(frames, f, first, b.size, 0)
            number = cast(f + 1)
            for p in range(b.size):
                k = cast(ordered_key(x[p], flips))
                better = is_valid(x[p], frames.test) & ((k > b[p]) | (u[p] != 0))
                b[p] = k if better else b[p]
                w[p] = number if better else w[p]
                u[p] = cast(0) if better else u[p]
        for p in range(b.size):
            if w[p]:
                i[p] = start + np.int64(w[p]) - 1
