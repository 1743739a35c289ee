"""The inner loops, compiled with numba: folds and order statistics over blocks of frames.

They take a *piece*, a list of arrays (frames, rows, cols) that follow one another, in native byte
order and with every frame contiguous. Nothing is joined: compiled code gets the address of each
frame. It works through tiles of pixels that stay in cache, from index 0 of contiguous views, which
is what LLVM vectorises, and releases the GIL. The first call for a dtype compiles for a second or
two; the result is cached on disk.

Figures are for one thread, 240 x 1024 x 1024 uint16 in memory.
"""

from .clip import clipped_average
from .folds import (
    add_floats,
    add_integers,
    add_limbs,
    combine_sums,
    divide,
    fold_argmax,
    fold_argmin,
    fold_max,
    fold_min,
)
from .frames import FRAMES_IN_32_BITS, leased, leased_zeros
from .moments import add_squares, block_moments, merge_moments, variance
from .ranks import interpolate, order_statistics, order_statistics_of_valid
from .validity import Keys, Valid, count_valid

__all__ = [
    "FRAMES_IN_32_BITS",
    "Keys",
    "Valid",
    "add_floats",
    "add_integers",
    "add_limbs",
    "add_squares",
    "block_moments",
    "clipped_average",
    "combine_sums",
    "count_valid",
    "divide",
    "fold_argmax",
    "fold_argmin",
    "fold_max",
    "fold_min",
    "interpolate",
    "leased",
    "leased_zeros",
    "merge_moments",
    "order_statistics",
    "order_statistics_of_valid",
    "variance",
]
