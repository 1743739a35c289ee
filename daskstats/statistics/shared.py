"""Shared by folds: compiled code, imported at first use, and arrays of states."""

import os
from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import DTypeLike

from .. import compiling
from ..packages import load, loaded
from ..series.sparse import SparsePiece
from .base import Piece, State
from .validity import Validity


@cache
def load_kernels() -> ModuleType:
    """Import the compiled code: half a second that only calls that compute should take."""
    load("numba")  # which a file may have configured
    check_jit()
    compiling.listen()
    return load(f"{__package__.rpartition('.')[0]}.kernels")


def check_jit() -> None:
    """Refuse to compute where numba is told not to compile; there is no other code."""
    settings = loaded("numba", "config")
    given = os.environ.get("NUMBA_DISABLE_JIT", "0").strip()
    if given not in ("", "0") if settings is None else settings.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, but daskstats has compiled code only: unset it, and start "
            "Python again"
        )


def zeros(piece: Piece | SparsePiece, dtype: DTypeLike) -> np.ndarray:
    """Return zeros of the shape of a piece's frames."""
    return load_kernels().pooled_zeros(piece.shape, dtype)


def zero_counts(piece: Piece | SparsePiece) -> np.ndarray:
    """Return zero counts of frames, in 32 bits: a series has at most 2^31 frames."""
    return zeros(piece, "u4")


def applied(
    ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, dtype: DTypeLike | None = None
) -> np.ndarray:
    """Return the result of a ufunc of two arrays, in recycled memory."""
    dtype = np.dtype(a.dtype if dtype is None else dtype)
    return ufunc(a, b, out=load_kernels().pooled(a.shape, dtype), dtype=dtype)


def copy_array(state: State, image: np.ndarray, name: str) -> None:
    """Write an array of a state into an image."""
    np.copyto(image, state[name], casting="unsafe")


class Counting:
    """Which values of a piece a loop counts as valid, and where it counts them.

    Parameters
    ----------
    validity : Validity or None
        None: every value is valid, and compiled code tests nothing.
    counts : ndarray, optional
        uint32 (rows, cols), to which the loop adds the numbers of valid frames.
    """

    def __init__(self, validity: Validity | None, counts: np.ndarray | None = None) -> None:
        self.validity, self.counts = validity, counts

    def of(self, dtype: np.dtype) -> object:
        """Return the argument of compiled code for frames of a dtype."""
        if self.validity is None:
            return None
        keys = load_kernels().Keys(dtype, wide=True)
        counts = np.empty(0, "u4") if self.counts is None else self.counts
        return load_kernels().Valid(keys.left_out(self.validity), keys, counts)
