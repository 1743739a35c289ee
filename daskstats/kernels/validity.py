"""Which values count: arcs of keys that are left out, and how compiled code tests for them.

A *key* is an unsigned integer of the same order as the value: the bits with the sign flipped; of
negative floats, whose magnitude runs the other way, all bits flipped. What is left out is a few
*arcs* (first key, length) of the circle of all keys: a saturated value lies next to the smallest
one, the positive NaNs next to the negative ones, so that one arc is nearly always enough, and the
test of a value one subtraction and one comparison. Beside the longest arc, two more keys can be
tested for, by one comparison each. Code is compiled with no test, or with all three: for one arc
its beginning is tested for three times.

Of what is beyond these, `take` copies a few short rows of pixels into first-level cache, with a
value of the longest arc in its place.
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
from numba import types

from .frames import (
    LONG_TILE,
    STRETCH,
    Piece,
    addresses,
    aligned,
    part_of,
    plain,
    prefetch_frames,
    view,
)
from .jit import by_type, compiled, inlined, internal
from .keys import Arc, Keys, key_bits, merge_arcs

# Pixels between the rows of copies, or those of all rows would share a few places of each cache.
PADDING = 32

# Frames that a counter of 1 or 2 bytes can count, in whole groups of four.
MOST_FRAMES = {1: 252, 2: 65532}


class Valid:
    """Which values of frames of a dtype count, and how many have counted at each pixel.

    Parameters
    ----------
    arcs : sequence of (int, int)
        Keys that are left out.
    keys : Keys
        Of the frames.
    counts : ndarray
        uint32; folds add the frames that were valid.
    """

    def __init__(self, arcs: Iterable[Arc], keys: Keys, counts: np.ndarray) -> None:
        self.keys, self.counts = keys, counts.reshape(-1)
        self.arcs = merge_arcs(arcs, keys.circle)

    def rules(self, neutral: Any = 0) -> tuple:
        """Return what compiled code needs: ``neutral`` stands for what is left out."""
        assert self.arcs, "where all values count there is nothing to test for"
        unsigned, seen = self.keys.unsigned, self.keys.seen
        (tests, length), others = self._tests()
        left_out = np.array(self.keys.bits(self._by_length()[-1][0]), unsigned)
        return (
            tests,
            length,
            others,
            left_out.view(seen)[()],
            seen.type(neutral),
            aligned((LONG_TILE,), unsigned),
            aligned((8 if len(others) else 0, LONG_TILE + PADDING), seen),
            self.counts,
        )

    def rank_rules(self, count: bool = False) -> tuple:
        """Return the same for keys of floats and bits of integers; what is left out is last.

        Only if ``count`` is set are the frames counted that are valid.
        """
        unsigned, most = self.keys.unsigned, self.keys.circle - 1
        last = unsigned.type(most if self.keys.floats else self.keys.bits(most))
        if not self.arcs:
            # To put the last key in its own place leaves nothing out.
            tests, length, others = (last, last, last), unsigned.type(1), np.empty((0, 2), unsigned)
        else:
            (tests, length), others = self._tests()
        few, copies = aligned((LONG_TILE,), unsigned), np.empty((0, 0), unsigned)
        counts = self.counts if count else self.counts[:0]
        return tests, length, others, tests[0], last, few, copies, counts

    def _by_length(self) -> list[Arc]:
        return sorted(self.arcs, key=itemgetter(1))

    def _tests(self) -> tuple[tuple[tuple, Any], np.ndarray]:
        """Return what values are tested for, and the arcs for which there is no test.

        The tests are one key that the longest arc begins with, two more of shorter arcs, and the
        length of the longest.
        """
        cast, (*arcs, longest) = self.keys.unsigned.type, self._by_length()
        start, length = self._turned(longest)
        single: list[int] = []
        others: list[Arc] = []
        for arc in arcs:
            first, count = self._turned(arc)
            if len(single) + count <= 2:
                single += [(first + step) % self.keys.circle for step in range(count)]
            else:
                others.append((first, count))
        # The beginning of the arc is left out anyway.
        single += [start] * (2 - len(single))
        tests = tuple(map(cast, [start, *single]))
        return (tests, cast(length)), np.array(others, self.keys.unsigned).reshape(-1, 2)

    def _turned(self, arc: Arc) -> Arc:
        """Return an arc of the bits of integers: their keys are these, turned round the circle."""
        return arc if self.keys.floats else (self.keys.bits(arc[0]), arc[1])


def rules_of(valid: Valid | None, nframes: int, neutral: Any = 0) -> tuple | None:
    """Return `Valid.rules` for so many frames; if all values count, count them here, and None."""
    if valid is None:
        return None
    if not valid.arcs:
        valid.counts += np.uint32(nframes)
        return None
    return valid.rules(neutral)


def runs(every: np.ndarray, valid: Valid | None, most: int = 1 << 31) -> Iterator[np.ndarray]:
    """Yield at most so many frames at a time, and no more than the counters can count."""
    if valid is not None:
        most = min(most, MOST_FRAMES.get(valid.keys.unsigned.itemsize, most))
    for start in range(0, every.size, most):
        yield every[start : start + most]


@by_type
def begin(rules, count):
    """Begin a tile of so many pixels: return counters for `note`, all of them 0."""
    if rules is types.none:
        return lambda rules, count: None

    def start(rules, count):
        few = part_of(rules[5], 0, count)
        few[:] = 0
        return few

    return start


@by_type
def clear(rules, first, count):
    """Forget what has been counted of so many pixels, from ``first`` on."""
    if rules is types.none:
        return lambda rules, first, count: None

    def forget(rules, first, count):
        rules[7][first : first + count] = 0

    return forget


@by_type
def end(rules, first, few):
    """End a tile, from pixel ``first`` on: keep what has been counted."""
    if rules is types.none:
        return lambda rules, first, few: None

    def stop(rules, first, few):
        counts = rules[7][first : first + few.size]
        for p in range(counts.size):  # none, if nobody wants them
            counts[p] += few[p]

    return stop


@by_type
def take(address, like, first, count, rules, row):
    """Return pixels of a frame; of more keys than are tested for, in row 0 to 7 of a copy."""
    if rules is types.none:
        return lambda address, like, first, count, rules, row: view(address, like, first, count)

    def taken(address, like, first, count, rules, row):
        x = view(address, like, first, count)
        if rules[2].shape[0]:
            out = part_of(rules[6][row], 0, count)
            _gather_arcs(x, rules, out)
            return out
        return x

    return taken


@inlined
def take_four(addresses, f, like, first, count, rules, row):
    """Return pixels of four frames from number ``f`` on; copies are in rows from ``row`` on."""
    return (
        take(addresses[f], like, first, count, rules, row),
        take(addresses[f + 1], like, first, count, rules, row + 1),
        take(addresses[f + 2], like, first, count, rules, row + 2),
        take(addresses[f + 3], like, first, count, rules, row + 3),
    )


@internal
def _gather_arcs(x, rules, out):
    """Put a value of the longest arc in place of what the other arcs leave out."""
    others, canonical = rules[2], rules[3]
    cast = others.dtype.type
    # A loop, because numba takes a second to compile what assigns one array to a part of another.
    for p in range(out.size):
        out[p] = x[p]
    for i in range(others.shape[0]):
        start, length = others[i, 0], others[i, 1]
        for p in range(out.size):
            out[p] = canonical if cast(key_bits(out[p]) - start) < length else out[p]


@by_type
def has_strays(rules):
    """Whether there are keys that are left out and that no test is for."""
    if rules is types.none:
        return lambda rules: False
    return lambda rules: rules[2].shape[0] > 0


@by_type
def replace_strays(x, rules, out):
    """Copy keys, with one of the longest arc in place of those that no test is for."""
    if rules is types.none:
        return lambda x, rules, out: None
    return lambda x, rules, out: _gather_arcs(x, rules, out)


@by_type
def pick(value, rules):
    """Return a value if it is valid, else what stands for it."""
    if rules is types.none:
        return lambda value, rules: value
    return lambda value, rules: value if is_valid(value, rules) else rules[4]


@by_type
def counted(value, term, rules):
    """Return a term of a sum if the value that it comes from is valid, else 0."""
    if rules is types.none:
        return lambda value, term, rules: term
    return lambda value, term, rules: term if is_valid(value, rules) else 0.0


@by_type
def counts(value, rules):
    """Whether a value counts: always, without rules."""
    if rules is types.none:
        return lambda value, rules: True
    return lambda value, rules: is_valid(value, rules)


@by_type
def note(rules, few, pixel, *values):
    """Count the valid ones of a pixel's values."""
    if rules is types.none:
        return lambda rules, few, pixel, *values: None

    def count(rules, few, pixel, *values):
        cast = few.dtype.type
        for value in values:
            few[pixel] += cast(is_valid(value, rules))

    return count


@internal
def is_valid(value, rules):
    """Whether a value counts: whether it is nothing that is tested for."""
    cast, (start, one, two) = rules[2].dtype.type, rules[0]
    key = key_bits(value)
    return (cast(key - start) >= rules[1]) & (key != one) & (key != two)


def count_valid(piece: Piece, valid: Valid) -> None:
    """Add the number of valid frames at each pixel to the counts."""
    # Frames of float16 are widened: one at a time, for the memory.
    narrow = piece[0].dtype == np.float16
    for part in ([frame[None]] for block in piece for frame in block) if narrow else [piece]:
        frames = plain(part)
        every, like = addresses(frames), np.empty(1, valid.keys.seen)
        rules = rules_of(valid, every.size)
        for some in runs(every, valid) if rules is not None else ():
            _count_valid(some, like, rules)


@compiled
def _count_valid(addresses, like, rules):
    n, pixels, step = addresses.size, rules[7].size, STRETCH // like.itemsize
    for first in range(0, pixels, LONG_TILE):
        few = begin(rules, min(LONG_TILE, pixels - first))
        for f in range(0, n - 3, 4):
            for q in range(0, few.size, step):
                m = min(step, few.size - q)
                prefetch_frames(addresses, f, 4, like, first + q)
                four = take_four(addresses, f, like, first + q, m, rules, 0)
                _count_four(*four, part_of(few, q, m), rules)
        for f in range(n - n % 4, n):
            a = take(addresses[f], like, first, few.size, rules, 0)
            for p in range(few.size):
                note(rules, few, p, a[p])
        end(rules, first, few)


@inlined
def _count_four(a, b, c, d, few, rules):
    for p in range(few.size):
        note(rules, few, p, a[p], b[p], c[p], d[p])
