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
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, isinf
from operator import itemgetter
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from .frames import (
    LONG_TILE,
    STRETCH,
    Piece,
    addresses,
    aligned,
    compiled,
    inlined,
    internal,
    part_of,
    plain,
    prefetch_frames,
    view,
)

Arc = tuple[int, int]
"""(first key, length): keys that follow one another; 0 comes after the largest"""

# Pixels between the rows of copies, or those of all rows would share a few places of each cache.
PADDING = 32

# Frames that a counter of 1 or 2 bytes can count, in whole groups of four.
MOST_FRAMES = {1: 252, 2: 65532}


# ---------------------------------------------------------------------- arcs


@dataclass(frozen=True)
class Keys:
    """The keys of a dtype.

    Examples
    --------
    >>> keys = Keys(np.dtype("i1"))
    >>> keys.of(-128), keys.of(3), keys.equal_to(-1), keys.equal_to(0.5), keys.at_least(127)
    (0, 131, [(127, 1)], [], [(255, 1)])
    """

    dtype: np.dtype
    """of the frames: numbers are compared with them as numpy does, rounded to floats of it"""
    wide: bool = False
    """whether float16 is seen as float32, as folds do"""

    @property
    def seen(self) -> np.dtype:
        """Return what compiled code sees the frames as."""
        if self.dtype.kind == "b":
            return np.dtype(np.uint8)
        return np.dtype(np.float32) if self.wide and self.dtype == np.float16 else self.dtype

    @property
    def floats(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def unsigned(self) -> np.dtype:
        return np.dtype(f"u{self.seen.itemsize}")

    @property
    def circle(self) -> int:
        """Return how many keys there are."""
        return 1 << (8 * self.unsigned.itemsize)

    @property
    def top(self) -> int:
        """Return the key after that of the largest value."""
        return self.of(inf if self.floats else self._limits[1]) + 1

    @property
    def flip(self) -> int:
        """Return the bits that differ between the key of a positive value and the value."""
        return 0 if self.dtype.kind in "ub" else self.circle // 2

    def of(self, value: float) -> int:
        """Return the key of a value of the dtype."""
        if not self.floats:
            return int(value) - self._limits[0]
        bits = int(np.array(value, self.seen).view(self.unsigned))
        return bits ^ (self.circle - 1 if bits & self.flip else self.flip)

    def bits(self, key: int) -> int:
        """Return the bits of the value of a key."""
        return key ^ (self.circle - 1 if self.floats and not key & self.flip else self.flip)

    @property
    def _limits(self) -> tuple[int, int]:
        limits = np.iinfo(self.seen)
        return int(limits.min), int(limits.max)

    def _rounded(self, value: float) -> float:
        try:
            with np.errstate(over="ignore"):
                return float(self.dtype.type(value))
        except OverflowError:  # an integer beyond float64
            return inf if value > 0 else -inf

    def equal_to(self, value: float) -> list[Arc]:
        """Return the keys of a number: none if frames cannot hold it, two for zero of floats."""
        if self.floats:
            held = self._rounded(value)
            if isinf(held) and not (isinstance(value, float) and isinf(value)):
                return []
            return [(self.of(-0.0), 2)] if held == 0 else [(self.of(held), 1)]
        low, high = self._limits
        held = isfinite(value) and value == floor(value) and low <= value <= high
        return [(self.of(value), 1)] if held else []

    def at_least(self, value: float) -> list[Arc]:
        """Return the keys of what is at or above a number."""
        if self.floats:
            held = self._rounded(value)
            first = self.of(-0.0 if held == 0 else held)
        else:
            first = self._of_integer(value if isinf(value) else ceil(value))
        return [(first, self.top - first)]

    def not_above(self, value: float) -> list[Arc]:
        """Return the keys of what is not larger than a number, NaN included."""
        if self.floats:
            held = self._rounded(value)
            first = self.of(0.0 if held == 0 else held) + 1
        else:
            first = self._of_integer(value if isinf(value) else floor(value) + 1)
        return [(self.top, self.circle - self.top + first)]

    def _of_integer(self, value: float) -> int:
        low, high = self._limits
        return self.top if value > high else self.of(max(value, low))

    @property
    def nan(self) -> list[Arc]:
        """Return the keys of NaN."""
        return [(self.top, self.circle - self.top + self.of(-inf))] if self.floats else []

    @property
    def not_finite(self) -> list[Arc]:
        """Return the keys of NaN and of the infinities."""
        return [(first - 1, length + 2) for first, length in self.nan]

    def left_out(self, validity: Any) -> list[Arc]:
        """Return the keys that a `Validity` leaves out."""
        arcs = [arc for value in validity.invalid for arc in self.equal_to(value)]
        if validity.saturation is not None:
            arcs += self.at_least(validity.saturation)
        return arcs + self.nan if validity.skipna else arcs


def merge_arcs(arcs: Iterable[Arc], circle: int) -> list[Arc]:
    """Return arcs that neither meet nor overlap; the whole circle as two.

    >>> merge_arcs([(255, 1), (0, 2), (7, 1)], 256)
    [(7, 1), (255, 3)]
    """
    merged: list[Arc] = []
    for first, length in sorted((first % circle, length) for first, length in arcs if length):
        if merged and sum(merged[-1]) >= first:
            start, held = merged.pop()
            first, length = start, max(start + held, first + length) - start
        merged.append((first, length))
    while len(merged) > 1 and sum(merged[-1]) - circle >= merged[0][0]:
        # The last one goes past the largest key, to where the first one is.
        first, length = merged.pop(0)
        start, held = merged.pop()
        merged.append((start, max(start + held, circle + first + length) - start))
    if any(length >= circle for _, length in merged):
        return [(0, circle - 1), (circle - 1, 1)]
    return merged


# ---------------------------------------------------------------------- clean frames


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


def begin(rules, count):
    """Begin a tile of so many pixels: return counters for `note`, all of them 0."""
    raise NotImplementedError("only compiled code calls this")


@overload(begin)
def _overload_begin(rules, count):
    if rules is types.none:
        return lambda rules, count: None

    def start(rules, count):
        few = part_of(rules[5], 0, count)
        few[:] = 0
        return few

    return start


def clear(rules, first, count):
    """Forget what has been counted of so many pixels, from ``first`` on."""
    raise NotImplementedError("only compiled code calls this")


@overload(clear)
def _overload_clear(rules, first, count):
    if rules is types.none:
        return lambda rules, first, count: None

    def forget(rules, first, count):
        rules[7][first : first + count] = 0

    return forget


def end(rules, first, few):
    """End a tile, from pixel ``first`` on: keep what has been counted."""
    raise NotImplementedError("only compiled code calls this")


@overload(end)
def _overload_end(rules, first, few):
    if rules is types.none:
        return lambda rules, first, few: None

    def stop(rules, first, few):
        counts = rules[7][first : first + few.size]
        for p in range(counts.size):  # none, if nobody wants them
            counts[p] += few[p]

    return stop


def take(address, like, first, count, rules, row):
    """Return pixels of a frame; of more keys than are tested for, in row 0 to 7 of a copy."""
    raise NotImplementedError("only compiled code calls this")


@overload(take)
def _overload_take(address, like, first, count, rules, row):
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


def has_strays(rules):
    """Whether there are keys that are left out and that no test is for."""
    raise NotImplementedError("only compiled code calls this")


@overload(has_strays)
def _overload_has_strays(rules):
    if rules is types.none:
        return lambda rules: False
    return lambda rules: rules[2].shape[0] > 0


def replace_strays(x, rules, out):
    """Copy keys, with one of the longest arc in place of those that no test is for."""
    raise NotImplementedError("only compiled code calls this")


@overload(replace_strays)
def _overload_replace_strays(x, rules, out):
    if rules is types.none:
        return lambda x, rules, out: None
    return lambda x, rules, out: _gather_arcs(x, rules, out)


def pick(value, rules):
    """Return a value if it is valid, else what stands for it."""
    raise NotImplementedError("only compiled code calls this")


@overload(pick)
def _overload_pick(value, rules):
    if rules is types.none:
        return lambda value, rules: value
    return lambda value, rules: value if is_valid(value, rules) else rules[4]


def counted(value, term, rules):
    """Return a term of a sum if the value that it comes from is valid, else 0."""
    raise NotImplementedError("only compiled code calls this")


@overload(counted)
def _overload_counted(value, term, rules):
    if rules is types.none:
        return lambda value, term, rules: term
    return lambda value, term, rules: term if is_valid(value, rules) else 0.0


def counts(value, rules):
    """Whether a value counts: always, without rules."""
    raise NotImplementedError("only compiled code calls this")


@overload(counts)
def _overload_counts(value, rules):
    if rules is types.none:
        return lambda value, rules: True
    return lambda value, rules: is_valid(value, rules)


def note(rules, few, pixel, *values):
    """Count the valid ones of a pixel's values."""
    raise NotImplementedError("only compiled code calls this")


@overload(note)
def _overload_note(rules, few, pixel, *values):
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


@intrinsic
def _bits(typingctx, value):
    """Return the bits of a float as an unsigned integer."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return {32: types.uint32, 64: types.uint64}[value.bitwidth](value), codegen


def key_bits(value):
    """Return the key of a float, the bits of an integer."""
    raise NotImplementedError("only compiled code calls this")


@overload(key_bits)
def _overload_key_bits(value):
    if not isinstance(value, types.Float):
        unsigned = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}[value.bitwidth]
        return lambda value: unsigned(value)
    cast: Any = {32: np.uint32, 64: np.uint64}[value.bitwidth]
    top, sign = cast(value.bitwidth - 1), cast(1 << (value.bitwidth - 1))

    def key(value):
        bits = _bits(value)
        return bits ^ cast(cast(cast(0) - cast(bits >> top)) | sign)

    return key


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
