"""The loop over the frames of a tile, which every fold calls with a state of its own type."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .frames import LONG_TILE, STRETCH, TILE, Piece, part_of, plain, prefetch_frames
from .jit import by_type, compiled, inlined, internal
from .validity import (
    Valid,
    count_values,
    flush_counts,
    frame_runs,
    load,
    load_four,
    select,
    size_of,
    start_counts,
)

_adders: dict[type, Callable] = {}
_repeating: set[type] = set()


def adds_to(state: type, repeat: bool = False) -> Callable[[Callable], Callable]:
    """Register the function that adds four values of a pixel to states of a type.

    Its arguments are a state, of which only the type matters, the arrays of the state for some
    pixels, the number of one of these, and the values. One value is added with zeros, or with
    ``repeat`` four times.
    """

    def register(function: Callable) -> Callable:
        _adders[state] = function
        if repeat:
            _repeating.add(state)
        return function

    return register


@by_type
def add_values(state, parts, p, w, x, y, z):
    """Add values of a pixel to a state."""
    return _adders[state.instance_class]


@by_type
def padding(state, value):
    """Return the value to add with a single one."""
    if state.instance_class in _repeating:
        return lambda state, value: value
    return lambda state, value: type(value)(0)


@internal
def fold(frames, run, first, counts, state, offset):
    """Fold some frames into a state at the pixels of a tile, four frames at a time.

    Parameters
    ----------
    frames : Frames
    run : tuple of int
        First frame, and the one after the last.
    first : int
        First pixel of the tile in the frames.
    counts : int, or ndarray
        See `start_counts`.
    state : NamedTuple
        Arrays and constants, of a type given to `adds_to`.
    offset : int
        First pixel of the tile in the state.
    """
    test, size = frames.test, size_of(counts)
    # Where values are only compared and added, the processor reads ahead by itself.
    step = size if test is None else STRETCH // frames.like.itemsize
    begin, end = run
    last = end - (end - begin) % 4
    for f in range(begin, last, 4):
        for start in range(0, size, step):
            count = min(step, size - start)
            if test is not None:
                prefetch_frames(frames, f, 4, first + start)
            four = load_four(frames, f, first + start, count, 0)
            parts = part_of(state, offset + start, count)
            _fold_four(four, state, parts, part_of(counts, start, count), test)
    for f in range(last, end):
        a, parts = load(frames, f, first, size, 0), part_of(state, offset, size)
        for p in range(size):
            count_values(test, counts, p, a[p])
            x = select(a[p], test)
            y = padding(state, x)
            add_values(state, parts, p, x, y, y, y)


@inlined
def _fold_four(four, state, parts, counts, test):
    a, b, c, d = four
    for p in range(a.size):
        w, x, y, z = a[p], b[p], c[p], d[p]
        count_values(test, counts, p, w, x, y, z)
        add_values(
            *(state, parts, p, select(w, test), select(x, test), select(y, test), select(z, test))
        )


@compiled
def fold_pixels(frames, state, tile, start, stop):
    """Fold all frames at some pixels, ``tile`` of them at a time."""
    for first in range(start, stop, tile):
        counts = start_counts(frames.test, min(tile, stop - first))
        fold(frames, (0, frames.addresses.size), first, counts, state, first)
        flush_counts(frames.test, first, counts)


class Loop:
    """A fold of the frames of a piece into a state, some pixels at a time."""

    def __init__(self, piece: Piece, valid: Valid | None, state: tuple, tile: int = TILE) -> None:
        self._frames = plain(piece)  # they outlive their addresses
        self._runs, self._into = list(frame_runs(self._frames, valid)), (state, tile)

    def run(self, first: int, last: int) -> None:
        """Fold the pixels from ``first`` to ``last - 1`` of all frames of the piece."""
        for frames in self._runs:
            fold_pixels(frames, *self._into, first, last)


class Counts(NamedTuple):
    """The counts alone."""

    counts: np.ndarray


@adds_to(Counts)
def _add_nothing(state, parts, p, w, x, y, z):
    pass


def count_valid(piece: Piece, valid: Valid) -> None:
    """Add the number of valid frames at each pixel to the counts."""
    # Frames of float16 are widened: one at a time, for the memory.
    narrow = piece[0].dtype == np.float16
    for part in ([frame[None]] for block in piece for frame in block) if narrow else [piece]:
        for frames in frame_runs(part, valid):
            if frames.test is not None:
                fold_pixels(frames, Counts(valid.counts), LONG_TILE, 0, valid.counts.size)
