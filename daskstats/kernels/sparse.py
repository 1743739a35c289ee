"""Folds of sparse frames: of the values that are stored, and of the zeros that are not.

Sparse frames are blocks (pixels, values, edges) as of `daskstats.series.sparse.SparseBlock`; of
their pixels those in a window (first, end) are folded, at the cost of a binary search per frame.

A *gap* of a pixel is a frame that does not store it. The first gap of each pixel tells all that a
fold needs to know of zeros: whether there is one, and in which frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .extremes import Extreme, farthest, flips_of, fold_extreme, unify_nan
from .fold import add_values, adds_to, padding
from .frames import part_of, plain
from .jit import compiled, internal
from .keys import ordered_key

Blocks = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
Window = tuple[int, int]


class ValueSquares(NamedTuple):
    """Sums of 64 bits of small values and of their squares; one value is added at a time."""

    sums: np.ndarray
    squares: np.ndarray


@adds_to(ValueSquares)
def _add_square(state, parts, p, w, x, y, z):
    sums, squares = parts
    sums[p] += sums.dtype.type(w)
    squares[p] += np.uint64(np.int64(w) * np.int64(w))


def scatter(blocks: Blocks, window: Window, state: tuple) -> None:
    """Fold the stored values into a state of a type that was given to `adds_to`.

    Its arrays are flat and have the pixels of the window.
    """
    for pixels, values, edges in blocks:
        _scatter(pixels, *plain([values]), edges, window, state)


@compiled
def _scatter(pixels, values, edges, window, state):
    first, last = window
    parts = part_of(state, 0, last - first)
    for f in range(edges.size - 1):
        begin = _place(pixels, edges[f], edges[f + 1], first)
        for i in range(begin, _place(pixels, begin, edges[f + 1], last)):
            x = values[i]
            y = padding(state, x)
            add_values(state, parts, pixels[i] - first, x, y, y, y)


@internal
def _place(pixels, begin, end, pixel):
    """Return the place of the first pixel of a frame that is not below a given one."""
    while begin < end:
        middle = (begin + end) // 2
        if pixels[middle] < pixel:
            begin = middle + 1
        else:
            end = middle
    return begin


def mark_stored(blocks: Blocks, window: Window, stored: np.ndarray) -> None:
    """Set the pixels, a flat bool array of the window, that any frame stores."""
    for pixels, _, edges in blocks:
        _mark_stored(pixels, edges, window, stored)


@compiled
def _mark_stored(pixels, edges, window, stored):
    first, last = window
    for f in range(edges.size - 1):
        begin = _place(pixels, edges[f], edges[f + 1], first)
        for i in range(begin, _place(pixels, begin, edges[f + 1], last)):
            stored[pixels[i] - first] = True


def lay_out(blocks: Blocks, window: Window, columns: np.ndarray, out: np.ndarray) -> None:
    """Write the stored values into zeros (frames, columns), given the column of each pixel."""
    start, bits = 0, f"u{out.itemsize}"
    for pixels, values, edges in blocks:
        _lay_out(pixels, values.view(bits), edges, window, columns, out.view(bits)[start:])
        start += len(edges) - 1


@compiled
def _lay_out(pixels, values, edges, window, columns, out):
    first, last = window
    for f in range(edges.size - 1):
        begin = _place(pixels, edges[f], edges[f + 1], first)
        for i in range(begin, _place(pixels, begin, edges[f + 1], last)):
            out[f, columns[pixels[i] - first]] = values[i]


def note_gaps(blocks: Blocks, window: Window, start: int, gaps: np.ndarray) -> None:
    """Move the first gap of each pixel on, given frames from number ``start`` on.

    ``gaps``, flat, is zero before frame 0; a gap that is not below the number of frames is none.
    """
    for pixels, _, edges in blocks:
        _note_gaps(pixels, edges, window, start, gaps)
        start += len(edges) - 1


@compiled
def _note_gaps(pixels, edges, window, start, gaps):
    first, last = window
    for f in range(edges.size - 1):
        begin = _place(pixels, edges[f], edges[f + 1], first)
        for i in range(begin, _place(pixels, begin, edges[f + 1], last)):
            p = pixels[i] - first
            if gaps[p] == start + f:
                gaps[p] += gaps.dtype.type(1)


# ---------------------------------------------------------------------- extremes


def extreme_state(into: np.ndarray, least: bool) -> Extreme:
    """Return the state for `scatter` that folds extremes into an array."""
    (wide,) = plain([into])
    return Extreme(wide.reshape(-1), least or None)


def has_zeros_in(dtype: np.dtype, least: bool) -> bool:
    """Whether an array of extremes without any value has zeros: then zeros need no fold."""
    return bool(farthest(dtype, least) == 0)


def fold_zeros(gaps: np.ndarray, nframes: int, state: Extreme) -> None:
    """Fold a zero into the extreme of each pixel that has a gap."""
    _fold_zeros(gaps, nframes, state.out, state.least)


@compiled
def _fold_zeros(gaps, nframes, out, least):
    zero = out.dtype.type(0)
    for p in range(out.size):
        if gaps[p] < nframes:
            fold_extreme(out, least, p, zero, zero, zero, zero)
    unify_nan(out)


def find_first_stored(
    blocks: Blocks, window: Window, start: int, best: np.ndarray, index: np.ndarray, least: bool
) -> None:
    """Keep the best key of each pixel, and the first frame that stores it; as `fold_arg`."""
    best, index = best.reshape(-1), index.reshape(-1)
    flips = flips_of(blocks[0][1].dtype, best, least)
    for pixels, values, edges in blocks:
        _find_first(pixels, *plain([values]), edges, window, start, flips, best, index)
        start += len(edges) - 1


@compiled
def _find_first(pixels, values, edges, window, start, flips, best, index):
    first, last = window
    for f in range(edges.size - 1):
        begin = _place(pixels, edges[f], edges[f + 1], first)
        for i in range(begin, _place(pixels, begin, edges[f + 1], last)):
            p = pixels[i] - first
            k = best.dtype.type(ordered_key(values[i], flips))
            if index[p] < 0 or k > best[p]:
                best[p], index[p] = k, start + f


def find_first_gap(
    gaps: np.ndarray,
    frames: tuple[int, int],
    best: np.ndarray,
    index: np.ndarray,
    dtype: np.dtype,
    least: bool,
) -> None:
    """Fold the zeros of the gaps after all stored values of ``frames``, (first, end)."""
    best, index = best.reshape(-1), index.reshape(-1)
    (zero,) = plain([np.zeros(1, dtype)])
    _find_first_gap(gaps, *frames, zero, flips_of(dtype, best, least), best, index)


@compiled
def _find_first_gap(gaps, start, stop, zero, flips, best, index):
    k = best.dtype.type(ordered_key(zero[0], flips))
    for p in range(best.size):
        number = start + np.int64(gaps[p])
        if number < stop and (index[p] < 0 or k > best[p] or (k == best[p] and number < index[p])):
            best[p], index[p] = k, number
