"""What an argument may be: numbers, how errors show them, and warnings about them."""

import operator
import sys
import warnings
from collections.abc import Sized
from decimal import Decimal
from math import inf, isinf, log10
from numbers import Integral, Real
from typing import Any

import numpy as np

# Compiled code counts frames in 32 bits.
MOST_FRAMES = 2**32 - 1


def count_frames(nframes: Any, series: Sized) -> int:
    """Return how many frames ``nframes`` means: all for 0, less than 0, or more than there are."""
    nframes = integer(nframes, "nframes")
    count = min(nframes, len(series)) if nframes > 0 else len(series)
    if count > MOST_FRAMES:
        raise ValueError(
            f"the series has {count} frames, and at most {MOST_FRAMES} can be counted: use nframes "
            f"or frames for a part of them"
        )
    return count


def count_chunks(nchunk: Any, items: int, name: str = "nchunk") -> int:
    """Return the number of intermediate images, at least 1 and at most ``items``."""
    nchunk = integer(nchunk, name)
    if nchunk < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(nchunk)}")
    if nchunk > items:
        raise ValueError(
            f"number of chunks cannot exceed number of items: {name} is {shown(nchunk)}, "
            f"there are {items} items"
        )
    return nchunk


def integer(value: Any, name: str) -> int:
    """Return a Python int for any integer but a bool; raise TypeError naming the argument."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None


# Bits of the integers that errors show with all their digits.
FEW_BITS = 256

# Characters of a value that errors show.
MOST_TEXT = 100


def check_number(value: Any, name: str, expected: str = "a number") -> float:
    """Return a Python int or float for any real number but a bool.

    Raises
    ------
    TypeError
        If it is something else; the message names the argument and what was expected.
    ValueError
        If it is finite and beyond float64.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Decimal):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    try:
        number = float(value)
        beyond = isinf(number) and value not in (inf, -inf)
    except (OverflowError, ValueError):  # an integer or a fraction; a signalling NaN
        beyond = True
    if beyond:
        raise ValueError(
            f"{name} must be {expected}, of a size that float64 can hold, got {shown(value)}"
        )
    return int(value) if isinstance(value, Integral) else number


def shown(value: Any) -> str:
    """Return a value as a text of one line, also an integer of more digits than Python writes.

    >>> shown(2.5), shown(-(10**400)), shown(np.float32(3))
    ('2.5', 'an integer of about -10^400', 'np.float32(3.0)')
    """
    if isinstance(value, int) and value.bit_length() > FEW_BITS:
        sign = "-" if value < 0 else ""
        return f"an integer of about {sign}10^{round(value.bit_length() * log10(2))}"
    try:
        text = repr(value)
    except ValueError:
        return f"a {type(value).__name__} of too many digits"
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def warn(message: str) -> None:
    """Warn of something in a call, as from the line outside this package that made the call."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
