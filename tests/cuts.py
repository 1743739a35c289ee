"""The cut through products of statistic and dtype that every run takes; the rest is nightly.

numba compiles code for each statistic and dtype, once more where values are left out, and for
2 to 15 seconds: all of it takes six minutes of a core. The cut has every statistic, with and
without values that are left out, of an unsigned integer and of floats, every dtype at least once,
and of code that depends on the width of values alone, or on their sign, each of these.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

# Code of float16 is that of float32, or for order statistics that of uint16.
USUAL = "u2", "f4", "f2"

COUNTS = {"count", "count_above"}
PLACES = {"argmax", "argmin"}
RANKS = {"median", "percentile"}
SQUARES = {"std", "var"}
SUMS = {"sum", "average"}

# Of other dtypes those that leave values out, and bool is compiled as uint8.
LEAVING_OUT = {
    "u1": {"max"} | RANKS | COUNTS | PLACES,
    "i1": {"min"} | SQUARES,
    "i2": SUMS,
    "u4": {"argmax"} | RANKS,
    "i4": {"max", "count"} | SUMS | SQUARES | RANKS,
    "u8": SUMS | SQUARES,
    "i8": {"min", "argmin"} | COUNTS,
    "f8": {"max"} | SUMS | SQUARES,
}

# Of these the maximum of other dtypes takes other values of the same code; clipping finds medians
# and sums squares in float64.
FEW = {
    "min": {"u1", "i4", "i8", "f8"},
    "range": {"u1", "i8", "f8"},
    "clipped_average": set(),
}


def is_usual(name: Any, dtype: Any, leaving_out: bool = True) -> bool:
    """Whether a statistic of a dtype, with or without values that are left out, is in the cut."""
    name = name[0] if isinstance(name, tuple) else name
    dtype = np.dtype(dtype)
    kind = "u1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"
    if kind in USUAL:
        return True
    if leaving_out:
        return name in LEAVING_OUT[kind]
    return kind in FEW.get(name, LEAVING_OUT)


def cut(names: Iterable[Any], dtypes: Sequence[str], leaving_out: bool = True) -> list[Any]:
    """Return all pairs of statistic and dtype as parameters; those beyond the cut are nightly."""
    return [
        pytest.param(
            name, dtype, marks=[] if is_usual(name, dtype, leaving_out) else pytest.mark.nightly
        )
        for name in names
        for dtype in dtypes
    ]


def pairs(
    names: Iterable[Any], dtypes: Sequence[str], leaving_out: bool = True
) -> list[tuple[Any, str]]:
    """Return the pairs of statistic and dtype that are in the cut."""
    return [(n, d) for n in names for d in dtypes if is_usual(n, d, leaving_out)]
