"""Numbers of frames: that count, or that are above a threshold."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..series.sparse import SparsePiece
from .accumulators import Accumulator, Gaps
from .base import Piece, State
from .shared import Counting, applied, load_kernels, zero_counts
from .validity import Validity


@dataclass(frozen=True)
class Count(Accumulator):
    """The frames that count at each pixel, where no other loop counts them in passing."""

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> None:
        if counting.validity is not None:
            load_kernels().count_valid(piece.arrays, counting.of(piece.dtype))

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        pass  # all frames count

    def combine(self, a: State, b: State) -> State:
        return {}  # `Fold` combines the counts that all accumulators share

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return 0


@dataclass(frozen=True)
class Above(Accumulator):
    """The valid frames in which a pixel is above a threshold."""

    threshold: float
    counts: ClassVar[bool] = False

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> None:
        if self.name not in state:
            state[self.name] = zero_counts(piece)
        keys = load_kernels().Keys(piece.dtype, wide=True)
        left_out = keys.left_out(counting.validity or Validity()) + keys.not_above(self.threshold)
        valid = load_kernels().Valid(left_out, keys, state[self.name])
        load_kernels().count_valid(piece.arrays, valid)

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        """Count stored values above the threshold, less one for each where a zero is above it too.

        That one is counted with the zeros of all frames: numbers of 32 bits may pass below 0.
        """
        if self.name not in state:
            state[self.name] = zero_counts(piece)
        counts = load_kernels().IntegerSums(state[self.name].reshape(-1))
        zero = self._are_above(np.zeros(1, piece.dtype))
        for block in piece.blocks:
            found = block._replace(values=self._are_above(block.values) - zero)
            load_kernels().scatter([found], piece.window, counts)

    def add_zeros(self, gaps: Gaps, state: State) -> None:
        if self._are_above(np.zeros(1, gaps.dtype))[0]:
            state[self.name] += np.uint32(gaps.nframes)

    def _are_above(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for values above the threshold, as for pixels of a dense frame, and else 0."""
        state: State = {}
        if not values.size:
            return np.empty(0, "u4")
        self.open(Piece([values.reshape(1, 1, -1)]), 0, state, Counting(None))
        return state[self.name].reshape(-1)

    def combine(self, a: State, b: State) -> State:
        return {self.name: applied(np.add, a[self.name], b[self.name])}

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return 4


COUNT = Count("count")


def frame_count(state: State) -> int | np.ndarray:
    """Return the number of frames that count: of each pixel, or one number for all."""
    return state["valid"] if "valid" in state else int(state["count"])


def finish_count(state: State, image: np.ndarray) -> None:
    """Write the number of frames that count."""
    image[...] = frame_count(state)
