"""Folds of sparse pieces: first the values that are stored, at the end the zeros that are not.

The state is that of the dense frames, bit for bit, so that it is combined and finished as theirs.
Stored values are folded one at a time, by the same compiled code as those of dense frames. Zeros
add nothing to a sum. They matter to an extreme, and to its position: a pixel has a zero if it has
a *gap*, a frame that does not store it, and the first of its gaps is all that is to be remembered.
"""

from collections.abc import Sequence

import numpy as np

from ..series.sparse import SparsePiece
from .accumulators import Accumulator, Gaps
from .base import State
from .shared import load_kernels, zero_counts

# Bytes of the first gap of a pixel.
GAP = 4


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
        self._heeds_zeros = any(each.heeds_zeros(dtype) for each in accumulators)
        self._first: np.ndarray | None = None

    def add(self, piece: SparsePiece) -> int:
        """Fold the stored values of the next piece; return the number of its frames."""
        state = self._state
        state.setdefault("count", np.array(0))
        if self._heeds_zeros:
            if self._first is None:
                self._first = zero_counts(piece).reshape(-1)
            load_kernels().note_gaps(piece.blocks, piece.window, self._done, self._first)
        for accumulator in self._accumulators:
            accumulator.add_stored(piece, self._start + self._done, state)
        state["count"] = np.asarray(state["count"] + piece.nframes)
        self._done += piece.nframes
        return piece.nframes

    def add_zeros(self) -> None:
        """Fold the zeros of all pieces."""
        gaps = Gaps(self._first, (self._start, self._start + self._done), self._dtype)
        for accumulator in self._accumulators:
            accumulator.add_zeros(gaps, self._state)
