"""Numbers of frames: that count, or that are above a threshold."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .accumulators import Accumulator
from .base import Piece, State
from .shared import Counting, applied, load_kernels, zero_counts
from .validity import Validity


@dataclass(frozen=True)
class Count(Accumulator):
    """The frames that count at each pixel, where no other loop counts them in passing."""

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> None:
        if counting.validity is not None:
            load_kernels().count_valid(piece.arrays, counting.of(piece.dtype))

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
