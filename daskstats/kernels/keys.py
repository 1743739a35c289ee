"""Values as ordered keys: unsigned integers of the same order, as wide as the values.

The key of an unsigned integer is its bits; that of a signed integer or a positive float, the bits
with the sign bit flipped; that of a negative float, all bits flipped, because its magnitude runs
the other way.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, isinf
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .jit import by_type, internal

KeyRange = tuple[int, int]
"""(first key, length): keys that follow one another; 0 comes after the largest"""


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
    """of the frames; numbers are rounded to floats of it before they are compared, as in numpy"""
    wide: bool = False
    """whether float16 is widened to float32, as in folds"""

    @property
    def seen(self) -> np.dtype:
        """The dtype of the frames in compiled code."""
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
        """The number of keys."""
        return 1 << (8 * self.unsigned.itemsize)

    @property
    def top(self) -> int:
        """The key after that of the largest value."""
        return self.of(inf if self.floats else self._limits[1]) + 1

    @property
    def flip(self) -> int:
        """The bits that differ between the key of a positive value and the value."""
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

    def equal_to(self, value: float) -> list[KeyRange]:
        """Return the keys of a number: none if frames cannot hold it, two for zero of floats."""
        if self.floats:
            held = self._rounded(value)
            if isinf(held) and not (isinstance(value, float) and isinf(value)):
                return []
            return [(self.of(-0.0), 2)] if held == 0 else [(self.of(held), 1)]
        low, high = self._limits
        held = isfinite(value) and value == floor(value) and low <= value <= high
        return [(self.of(value), 1)] if held else []

    def at_least(self, value: float) -> list[KeyRange]:
        """Return the keys of the values at or above a number."""
        if self.floats:
            first = self.of(self._rounded(value) or -0.0)
        else:
            first = self._of_integer(value if isinf(value) else ceil(value))
        return [(first, self.top - first)]

    def not_above(self, value: float) -> list[KeyRange]:
        """Return the keys of the values that are not above a number, NaN included."""
        if self.floats:
            first = self.of(self._rounded(value) or 0.0) + 1
        else:
            first = self._of_integer(value if isinf(value) else floor(value) + 1)
        return [(self.top, self.circle - self.top + first)]

    def _of_integer(self, value: float) -> int:
        low, high = self._limits
        return self.top if value > high else self.of(max(value, low))

    @property
    def nan(self) -> list[KeyRange]:
        """The keys of NaN."""
        return [(self.top, self.circle - self.top + self.of(-inf))] if self.floats else []

    @property
    def not_finite(self) -> list[KeyRange]:
        """The keys of NaN and of the infinities."""
        return [(first - 1, length + 2) for first, length in self.nan]

    def left_out(self, validity: Any) -> list[KeyRange]:
        """Return the keys that a `Validity` leaves out."""
        ranges = [each for value in validity.invalid for each in self.equal_to(value)]
        if validity.saturation is not None:
            ranges += self.at_least(validity.saturation)
        return ranges + self.nan if validity.skipna else ranges


def merge_ranges(ranges: Iterable[KeyRange], circle: int) -> list[KeyRange]:
    """Return the same keys as ranges that neither meet nor overlap; the whole circle as two.

    >>> merge_ranges([(255, 1), (0, 2), (7, 1)], 256)
    [(7, 1), (255, 3)]
    """
    merged: list[KeyRange] = []
    for first, length in sorted((first % circle, length) for first, length in ranges if length):
        if merged and sum(merged[-1]) >= first:
            start, held = merged.pop()
            first, length = start, max(start + held, first + length) - start
        merged.append((first, length))
    while len(merged) > 1 and sum(merged[-1]) - circle >= merged[0][0]:
        # The last range goes past the largest key, to the first range.
        first, length = merged.pop(0)
        start, held = merged.pop()
        merged.append((start, max(start + held, circle + first + length) - start))
    if any(length >= circle for _, length in merged):
        return [(0, circle - 1), (circle - 1, 1)]
    return merged


@intrinsic
def _bits(typingctx, value):
    """Return the bits of a float as an unsigned integer."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return {32: types.uint32, 64: types.uint64}[value.bitwidth](value), codegen


@by_type
def float_key(bits):
    """Return the key of the bits of a float."""
    cast: Any = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}[bits.bitwidth]
    top, sign = cast(bits.bitwidth - 1), cast(1 << (bits.bitwidth - 1))
    return lambda bits: cast(bits ^ cast(cast(cast(0) - cast(bits >> top)) | sign))


@by_type
def key_bits(value):
    """Return the key of a float, or the bits of an integer."""
    if isinstance(value, types.Float):
        return lambda value: float_key(_bits(value))
    unsigned = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}[value.bitwidth]
    return lambda value: unsigned(value)


@by_type
def ordered_key(value, flips):
    """Return a key for comparison: equal for both zeros, the largest for NaN.

    The bits of integers are turned into keys by the first of two flips, and all keys upside down,
    for a minimum, by the second.
    """
    if not isinstance(value, types.Float):
        return lambda value, flips: key_bits(value) ^ flips[0] ^ flips[1]

    def key(value, flips):
        # Adding 0.0 makes 0.0 of -0.0.
        return key_bits(value + type(value)(0)) ^ flips[1] if value == value else ~type(flips[1])(0)

    return key


@internal
def float_keys(bits, out):
    """Write the keys of the bits of floats."""
    for p in range(out.size):
        out[p] = float_key(bits[p])


def values_of_keys(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turn an array of keys into one of values, in its own memory."""
    sign = keys.dtype.type(1 << (8 * keys.itemsize - 1))
    if dtype.kind == "i":
        keys ^= sign
    elif dtype.kind == "f":
        negative = keys < sign
        keys ^= sign
        keys[negative] ^= ~sign
    return keys.view(dtype)
