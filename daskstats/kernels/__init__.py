"""The inner loops, compiled with numba: folds and order statistics over blocks of frames.

They take a *piece*, a list of arrays (frames, rows, cols) that follow one another, in native byte
order and with every frame contiguous. Nothing is joined: compiled code gets the address of each
frame. It works through tiles of pixels that stay in cache, in loops from index 0 of contiguous
views, which LLVM vectorises, and releases the GIL. The first call for a dtype compiles for a
second or two; the compiled code is cached on disk.

Figures are for one thread, 240 x 1024 x 1024 uint16 in memory.
"""

from .clip import clipped_average
from .extremes import Extremes, begin_extreme, combine_extremes, fold_arg
from .fold import count_valid
from .frames import FRAMES_IN_32_BITS, pooled, pooled_zeros
from .keys import Keys
from .limbs import WideSquares, combine_limbs, limb_state, limb_variance, limbs_of_state
from .moments import Squares, block_moments, merge_moments, variance
from .selection import OrderStatistics, ValidPercentiles, interpolate, sharing
from .sparse import (
    ValueSquares,
    extreme_state,
    find_first_gap,
    find_first_stored,
    fold_zeros,
    has_zeros_in,
    lay_out,
    mark_stored,
    note_gaps,
    scatter,
)
from .sums import (
    FloatSums,
    Integers,
    IntegerSums,
    Parts,
    add_floats,
    add_limbs,
    combine_sums,
    divide,
)
from .validity import Valid
