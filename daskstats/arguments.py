"""What an argument may be: numbers, how errors show them, and warnings about them."""

import sys
import warnings
from decimal import Decimal
from math import inf, isinf, log10
from numbers import Integral, Real
from typing import Any

import numpy as np

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
