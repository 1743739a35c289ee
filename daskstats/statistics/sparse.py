"""Folds of sparse pieces: first the values that are stored, at the end the zeros that are not.

The state is that of the dense frames, bit for bit, so that it is combined and finished as theirs.
Stored values are folded one at a time, by the same compiled code as those of dense frames. Zeros
add nothing to a sum. They matter to an extreme, and to its position: a pixel has a zero if it has
a *gap*, a frame that does not store it, and the first of its gaps is all that is to be remembered.
"""

from collections.abc import Sequence

import numpy as np

from ..series.sparse import SparsePiece
from .accumulators import Accumulator
from .base import Piece, State
from .counts import Above, Count
from .extremes import Extreme, Position
from .moments import Moments, Squares
from .shared import Counting, load_kernels, zero_counts, zeros
from .sums import Sum, prepare_sums

# Bytes of the first gap of a pixel.
GAP = 4


def knows_sparse(accumulator: Accumulator, frames: np.dtype) -> bool:
    """Whether sparse frames of a dtype are folded as they are.

    Moments of floats are found in two passes, and float16 is widened: these are made dense.
    """
    if isinstance(accumulator, Moments):
        return frames.kind != "f"
    known = Above, Count, Extreme, Position, Squares, Sum
    return isinstance(accumulator, known) and frames != np.float16


class SparseFold:
    """A fold of sparse pieces that follow one another into a state, which is changed in place.

    Parameters
    ----------
    accumulators : sequence of Accumulator
        Those that are filled.
    start : int
        Number of the first frame.
    state : State
        Of the frames before; empty if there are none.
    dtype : dtype
        Of the frames.
    """

    def __init__(
        self, accumulators: Sequence[Accumulator], start: int, state: State, dtype: np.dtype
    ) -> None:
        self._accumulators, self._start, self._state = accumulators, start, state
        self._dtype, self._done = dtype, 0
        self._heeds_zeros = any(map(self._heeds, accumulators))
        self._gaps: np.ndarray | None = None

    def _heeds(self, accumulator: Accumulator) -> bool:
        """Whether zeros change anything: not the maximum of values without a sign."""
        if isinstance(accumulator, Squares):
            return any(map(self._heeds, accumulator.extremes))
        if isinstance(accumulator, Extreme):
            return not load_kernels().has_zeros_in(self._dtype, accumulator.least)
        return isinstance(accumulator, Position)

    def add(self, piece: SparsePiece) -> int:
        """Fold the stored values of the next piece; return the number of its frames."""
        state = self._state
        state.setdefault("count", np.array(0))
        if self._heeds_zeros:
            if self._gaps is None:
                self._gaps = zero_counts(piece).reshape(-1)
            load_kernels().note_gaps(piece.blocks, piece.window, self._done, self._gaps)
        for accumulator in self._accumulators:
            _fold_stored(accumulator, piece, self._start + self._done, state)
        state["count"] = np.asarray(state["count"] + piece.nframes)
        self._done += piece.nframes
        return piece.nframes

    def add_zeros(self) -> None:
        """Fold the zeros of all pieces."""
        for accumulator in self._accumulators:
            extremes = accumulator.extremes if isinstance(accumulator, Squares) else [accumulator]
            for each in filter(self._heeds, extremes):
                self._fold_gaps(each)
            if isinstance(accumulator, Above) and _above(accumulator, np.zeros(1, self._dtype))[0]:
                self._state[accumulator.name] += np.uint32(self._done)

    def _fold_gaps(self, each: Accumulator) -> None:
        kernels, into, least = load_kernels(), self._state[each.name], each.least  # type: ignore[attr-defined]
        if isinstance(each, Extreme):
            kernels.fold_zeros(self._gaps, self._done, kernels.extreme_state(into, least))
            return
        frames = self._start, self._start + self._done
        keys = self._state[f"{each.name}-key"]
        kernels.find_first_gap(self._gaps, frames, keys, into, self._dtype, least)


def _fold_stored(each: Accumulator, piece: SparsePiece, start: int, state: State) -> None:
    """Fold the stored values of a piece into the arrays of an accumulator."""
    kernels, where = load_kernels(), (piece.blocks, piece.window)
    if isinstance(each, Position):
        each.prepare(piece, state)
        arrays = state[f"{each.name}-key"], state[each.name]
        kernels.find_first_stored(*where, start, *arrays, each.least)
    elif isinstance(each, Above):
        _count_above(each, piece, state)
    elif isinstance(each, Squares):
        if "squares" not in state:
            sign = "i" if piece.dtype.kind == "i" else "u"
            state |= {"sum": zeros(piece, f"{sign}8"), "squares": zeros(piece, "u8")}
        flat = state["sum"].reshape(-1), state["squares"].reshape(-1)
        kernels.scatter(*where, kernels.ValueSquares(*flat))
        for extreme in each.extremes:
            _fold_stored(extreme, piece, start, state)
    elif isinstance(each, Extreme):
        if each.name not in state:
            state[each.name] = kernels.begin_extreme(piece.shape, piece.dtype, each.least)
        kernels.scatter(*where, kernels.extreme_state(state[each.name], each.least))
    elif isinstance(each, Moments):
        limbs = each.prepare(piece, state)
        kind = kernels.NarrowLimbs if len(limbs) == 3 else kernels.WideLimbs
        kernels.scatter(*where, kind(*limbs.reshape(len(limbs), -1)))
    elif isinstance(each, Sum):
        prepare_sums(piece, state)
        kernels.scatter(*where, _sums_of(state))


def _sums_of(state: State) -> tuple:
    """Return the sums of a state as compiled code takes them."""
    kernels = load_kernels()
    flat = {
        name: state[name].reshape(-1) for name in ("sum", "rest", "low", "high") if name in state
    }
    if "low" in flat:
        return kernels.Parts(flat["low"], flat["high"])
    if "rest" in flat:
        return kernels.FloatSums(flat["sum"], flat["rest"])
    return kernels.IntegerSums(flat["sum"])


def _count_above(each: Above, piece: SparsePiece, state: State) -> None:
    """Count stored values above the threshold, less one for each where a zero is above it too.

    That one is counted with the zeros of all frames: numbers of 32 bits may pass below 0.
    """
    if each.name not in state:
        state[each.name] = zero_counts(piece)
    counts = load_kernels().IntegerSums(state[each.name].reshape(-1))
    zero = _above(each, np.zeros(1, piece.dtype))
    for block in piece.blocks:
        found = block._replace(values=_above(each, block.values) - zero)
        load_kernels().scatter([found], piece.window, counts)


def _above(each: Above, values: np.ndarray) -> np.ndarray:
    """Return 1 for values above the threshold, as of the pixels of one dense frame, and else 0."""
    state: State = {}
    if not values.size:
        return np.empty(0, "u4")
    each.open(Piece([values.reshape(1, 1, -1)]), 0, state, Counting(None))
    return state[each.name].reshape(-1)
