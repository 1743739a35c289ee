"""What folds share: compiled code, imported at first use, and pixels without a valid value."""

import os
import sys
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from ..packages import load
from .base import State
from .validity import Validity


@cache
def compiled() -> ModuleType:
    """Import the compiled code: half a second that only what computes should take."""
    load("numba")  # which a file may have configured
    check_jit()
    return load(f"{__package__.rpartition('.')[0]}.kernels")


def check_jit() -> None:
    """Refuse to compute where numba is told not to compile; there is no other code."""
    numba = sys.modules.get("numba")
    given = os.environ.get("NUMBA_DISABLE_JIT", "0").strip() if numba is None else ""
    if numba.config.DISABLE_JIT if numba is not None else given not in ("", "0"):
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, but daskstats has compiled code only: unset it, and start "
            "Python again"
        )


def left_out(validity: Validity | None, block: np.ndarray, counts: np.ndarray | None) -> Any:
    """Return what compiled code needs to leave values out and count the others, or None."""
    if validity is None:
        return None
    keys = compiled().Keys(block.dtype, wide=True)
    counts = np.empty(0, "u4") if counts is None else counts
    return compiled().Valid(keys.left_out(validity), keys, counts)


def zero_counts(block: np.ndarray) -> np.ndarray:
    """Return zero counts of frames: 32 bits, as many as there can be."""
    return compiled().pooled_zeros(block.shape[1:], "u4")


def applied(ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    return ufunc(a, b, out=compiled().pooled(a.shape, dtype or a.dtype), dtype=dtype)


def copy_array(state: State, image: np.ndarray, name: str) -> None:
    np.copyto(image, state[name], casting="unsafe")


def finisher(finish: Callable, validity: Validity | None, fill: Any) -> Callable:
    if validity is None:
        return finish
    return partial(_finish_valid, finish=finish, fill=fill)


def _finish_valid(state: State, image: np.ndarray, finish: Callable, fill: Any) -> None:
    """Write an image, and what stands for a value where no frame was valid."""
    finish(state, image)
    fill_empty(image, state["valid"] == 0, fill)


def fill_empty(image: np.ndarray, empty: np.ndarray, fill: Any) -> None:
    """Write the fill value, NaN if it is None, to the pixels of an image that have no value.

    Raises
    ------
    ValueError
        If there are such pixels in an image of integers and no fill value was given.
    """
    count = np.count_nonzero(empty)
    if count and fill is None and image.dtype.kind != "f":
        raise ValueError(
            f"{count} pixels have no valid value, and an image of {image.dtype} has no NaN: "
            f"give a fill_value, or a float as dtype"
        )
    if count:
        image[..., empty] = np.nan if fill is None else fill
