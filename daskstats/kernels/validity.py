"""Valid values: ranges of keys that are left out, and the test of compiled code for them.

Left out are a few ranges of keys (`daskstats.kernels.keys`) of the circle of all keys: a saturated
value lies next to the smallest one, the positive NaNs next to the negative ones, so that one range
is nearly always enough, and the test of a value one subtraction and one comparison. Two more keys
are tested for by one comparison each. Code is compiled with no test, or with all three: for one
range its first key is tested for three times.

Values of any other ranges are replaced by a value of the longest one: `load` copies a few short
rows of pixels into first-level cache.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numba import types

from .frames import LINE, LONG_TILE, Frames, Piece, aligned, frames_of, part_of, plain, view
from .jit import by_type, if_tested, inlined, internal
from .keys import KeyRange, Keys, key_bits, merge_ranges


def most_counted(itemsize: int) -> int:
    """Return the frames that a counter of some bytes can count, in whole groups of eight."""
    return (1 << 8 * itemsize) - 8


class ValidityTest(NamedTuple):
    """The test of compiled code for valid values, and the memory that it counts them in.

    Folds test the key of a float, and the bits of an integer, which are its key rotated round the
    circle of all keys.
    """

    first: np.unsignedinteger
    """key at which the longest range begins"""
    length: np.unsignedinteger
    """number of keys of the longest range"""
    single: tuple[np.unsignedinteger, np.unsignedinteger]
    """two more keys, which may be the first one again"""
    untested: np.ndarray
    """(ranges, 2): first key and length of all other ranges"""
    replacement: np.generic
    """value of the longest range that replaces values of the untested ones"""
    neutral: np.generic
    """value that invalid ones are folded as"""
    narrow_counts: np.ndarray
    """counters of a tile, as wide as the keys"""
    copies: np.ndarray
    """(8, pixels): rows for copies of frames; none if there is no untested range"""
    counts: np.ndarray
    """uint32: number of valid frames of each pixel; empty if it is not wanted"""


class Valid:
    """The values that are left out of frames of a dtype, and the valid frames of each pixel.

    Parameters
    ----------
    ranges : iterable of (int, int)
        Keys that are left out.
    keys : Keys
        Of the frames.
    counts : ndarray
        uint32; folds add the number of valid frames. Empty if it is not wanted.
    """

    def __init__(self, ranges: Iterable[KeyRange], keys: Keys, counts: np.ndarray) -> None:
        self.keys, self.counts = keys, counts.reshape(-1)
        self.key_ranges = merge_ranges(ranges, keys.circle)

    def test(self, neutral: float = 0) -> ValidityTest:
        """Return the test of folds, in which ``neutral`` replaces values that are left out."""
        first, length, single, untested = self._tested()
        unsigned, seen = self.keys.unsigned, self.keys.seen
        bits = np.array([self.keys.bits(int(first)) if self.keys.floats else first], unsigned)
        # A few pixels between the rows, which would share a few places of each cache otherwise.
        copies = aligned((8 if len(untested) else 0, LONG_TILE + LINE // 2), seen)
        counters = aligned((LONG_TILE,), unsigned), copies, self.counts
        return ValidityTest(
            first, length, single, untested, bits.view(seen)[0], seen.type(neutral), *counters
        )

    def rank_test(self, count: bool) -> ValidityTest:
        """Return the test of order statistics, of keys of floats and bits of integers.

        Values that are left out are replaced by the last key. Only with ``count`` are the valid
        frames counted.
        """
        unsigned, most = self.keys.unsigned, self.keys.circle - 1
        last = unsigned.type(most if self.keys.floats else self.keys.bits(most))
        if self.key_ranges:
            first, length, single, untested = self._tested()
        else:  # the last key, replaced by itself
            first, length, single = last, unsigned.type(1), (last, last)
            untested = np.empty((0, 2), unsigned)
        counters = aligned((LONG_TILE,), unsigned), np.empty((0, 0), unsigned)
        counts = self.counts if count else self.counts[:0]
        return ValidityTest(first, length, single, untested, first, last, *counters, counts)

    def _tested(self) -> tuple:
        """Return the first four fields of a test."""
        cast = self.keys.unsigned.type
        *shorter, (first, length) = sorted(
            map(self._rotated, self.key_ranges), key=lambda each: each[1]
        )
        single: list[int] = []
        untested: list[KeyRange] = []
        for start, count in shorter:
            if len(single) + count <= 2:
                single += [(start + step) % self.keys.circle for step in range(count)]
            else:
                untested.append((start, count))
        one, two = (*single, first, first)[:2]
        ranges = np.array(untested, self.keys.unsigned).reshape(-1, 2)
        return cast(first), cast(length), (cast(one), cast(two)), ranges

    def _rotated(self, each: KeyRange) -> KeyRange:
        """Return a range of the bits of integers: their keys are these, rotated."""
        first, length = each
        return (first if self.keys.floats else self.keys.bits(first)), length


def frame_runs(
    piece: Piece, valid: Valid | None, neutral: float = 0, most: int = 1 << 31
) -> Iterator[Frames]:
    """Yield frames for compiled code, at most as many at a time as narrow counters can count.

    If all values count, their number is added here, and there is no test. A `plain` piece must
    outlive the frames; arrays that another one is widened to live until the next run.
    """
    piece, test = plain(piece), None
    every = frames_of(piece, None)
    if valid is not None:
        most = min(most, most_counted(valid.keys.unsigned.itemsize))
        if valid.key_ranges:
            test = valid.test(neutral)
        else:
            valid.counts += np.uint32(every.addresses.size)
    for start in range(0, every.addresses.size, most):
        yield Frames(every.addresses[start : start + most], every.like, test)


@inlined
def load(frames, f, first, count, row):
    """Return pixels of frame ``f``; with untested ranges, in row 0 to 7 of the copies."""
    x = view(frames.addresses[f], frames.like, first, count)
    return _tested_copy(x, frames.test, row)


@inlined
def load_four(frames, f, first, count, row):
    """Return pixels of four frames from number ``f`` on; copies are in rows from ``row`` on."""
    return (
        load(frames, f, first, count, row),
        load(frames, f + 1, first, count, row + 1),
        load(frames, f + 2, first, count, row + 2),
        load(frames, f + 3, first, count, row + 3),
    )


@if_tested(lambda x, test, row: x)
def _tested_copy(x, test, row):
    """Return pixels, or a copy without values of the untested ranges."""
    if test.untested.shape[0]:
        out = part_of(test.copies[row], 0, x.size)
        _replace_untested(x, test, out)
        return out
    return x


@inlined
def _replace_untested(x, test, out):
    """Copy values, but for those of untested ranges, which are replaced.

    A call of it, though rarely made, would double the time of folds.
    """
    untested, replacement = test.untested, test.replacement
    cast = untested.dtype.type
    # A loop, because numba takes a second to compile the assignment of an array to a part of one.
    for p in range(out.size):
        out[p] = x[p]
    for i in range(untested.shape[0]):
        start, length = untested[i, 0], untested[i, 1]
        for p in range(out.size):
            out[p] = replacement if cast(key_bits(out[p]) - start) < length else out[p]


@if_tested(lambda test: False)
def has_untested(test):
    """Whether there are ranges of keys that are left out and not tested for."""
    return test.untested.shape[0] > 0


@if_tested(lambda x, test, out: None)
def replace_untested(x, test, out):
    """Copy keys, but for those of untested ranges, which are replaced."""
    _replace_untested(x, test, out)


@if_tested(lambda test, count: count)
def start_counts(test, count):
    """Return counters of a tile of ``count`` pixels, all of them 0; their number without a test."""
    counts = part_of(test.narrow_counts, 0, count)
    counts[:] = 0
    return counts


@by_type
def size_of(counts):
    """Return the number of pixels that `start_counts` was called for."""
    if isinstance(counts, types.Array):
        return lambda counts: counts.size
    return lambda counts: counts


@if_tested(lambda test, counts, pixel, *values: None)
def count_values(test, counts, pixel, *values):
    """Count the valid ones of a pixel's values."""
    cast = counts.dtype.type
    for value in values:
        counts[pixel] += cast(_passes(value, test))


@if_tested(lambda test, first, counts: None)
def flush_counts(test, first, counts):
    """Add the counters of a tile to the counts from pixel ``first`` on."""
    total = test.counts[first : first + counts.size]
    for p in range(total.size):  # of no pixel, if counts are not wanted
        total[p] += counts[p]


@if_tested(lambda test, first, count: None)
def reset_counts(test, first, count):
    """Set the counts of ``count`` pixels from ``first`` on to 0."""
    test.counts[first : first + count] = 0


@if_tested(lambda value, test: value)
def select(value, test):
    """Return a valid value, or else the neutral one."""
    return value if _passes(value, test) else test.neutral


@if_tested(lambda value, term, test: term)
def select_term(value, term, test):
    """Return a term of a sum if the value that it follows from is valid, else 0."""
    return term if _passes(value, test) else 0.0


@if_tested(lambda value, test: True)
def is_valid(value, test):
    """Whether a value counts: always, if there is no test."""
    return _passes(value, test)


@internal
def _passes(value, test):
    """Whether a value has none of the keys that are tested for."""
    cast, key = test.untested.dtype.type, key_bits(value)
    outside = cast(key - test.first) >= test.length
    return outside & (key != test.single[0]) & (key != test.single[1])
