"""Maximum, minimum, their difference, and the frames that they are in."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..series.sparse import SparsePiece
from .accumulators import Accumulator, Gaps
from .base import Loop, Piece, State
from .shared import Counting, load_kernels, zeros


@dataclass(frozen=True)
class Extreme(Accumulator):
    """The maximum or the minimum, in the dtype of the frames."""

    least: bool
    """whether it is the minimum"""

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> Loop:
        extremes, valid = self._prepare(piece, state), counting.of(piece.dtype)
        return load_kernels().Extremes(piece.arrays, extremes, self.least, valid)

    def _prepare(self, piece: Piece | SparsePiece, state: State) -> np.ndarray:
        """Return the extremes of a state, which are made if it has none."""
        if self.name not in state:
            begun = load_kernels().begin_extreme(piece.shape, piece.dtype, self.least)
            state[self.name] = begun
        return state[self.name]

    def has_loop(self, frames: np.dtype) -> bool:
        return frames != np.float16  # which is widened, a few frames at a time

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        kernels = load_kernels()
        extremes = kernels.extreme_state(self._prepare(piece, state), self.least)
        kernels.scatter(piece.blocks, piece.window, extremes)

    def heeds_zeros(self, frames: np.dtype) -> bool:
        return not load_kernels().has_zeros_in(frames, self.least)

    def add_zeros(self, gaps: Gaps, state: State) -> None:
        if self.heeds_zeros(gaps.dtype):
            kernels = load_kernels()
            extremes = kernels.extreme_state(state[self.name], self.least)
            kernels.fold_zeros(gaps.first, gaps.nframes, extremes)

    def combine(self, a: State, b: State) -> State:
        arrays = a[self.name], b[self.name]
        return {self.name: load_kernels().combine_extremes(*arrays, self.least)}

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return frames.itemsize

    def trail(
        self, piece: Piece, state: State | None, images: list[tuple[int, np.ndarray]]
    ) -> State:
        """Fold a piece and write the extreme into images after some of its frames."""
        state = state or {}
        extremes, frames = self._prepare(piece, state), piece.arrays
        load_kernels().Extremes(frames, extremes, self.least, None, images).run(0, extremes.size)
        return state


@dataclass(frozen=True)
class Position(Accumulator):
    """The first frame with the maximum, or the minimum; -1 as long as no value was valid."""

    least: bool
    """whether it is that of the minimum"""
    counts: ClassVar[bool] = False

    def _prepare(self, piece: Piece | SparsePiece, state: State) -> None:
        """Make the arrays of a state that has none."""
        if self.name not in state:
            keys = load_kernels().Keys(piece.dtype, wide=True)
            state |= {self.name: zeros(piece, "i8"), self._key: zeros(piece, keys.unsigned)}
            state[self.name] -= 1

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> None:
        self._prepare(piece, state)
        arrays, valid = (state[self._key], state[self.name]), counting.of(piece.dtype)
        load_kernels().fold_arg(piece.arrays, start, *arrays, self.least, valid)

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        self._prepare(piece, state)
        where, arrays = (piece.blocks, piece.window), (state[self._key], state[self.name])
        load_kernels().find_first_stored(*where, start, *arrays, self.least)

    def heeds_zeros(self, frames: np.dtype) -> bool:
        return True

    def add_zeros(self, gaps: Gaps, state: State) -> None:
        arrays = state[self._key], state[self.name]
        load_kernels().find_first_gap(gaps.first, gaps.frames, *arrays, gaps.dtype, self.least)

    @property
    def _key(self) -> str:
        """Name of the array of keys, unsigned integers in the order of the values."""
        return f"{self.name}-key"

    def combine(self, a: State, b: State) -> State:
        index, key = self.name, self._key
        later = (b[index] >= 0) & ((b[key] > a[key]) | (a[index] < 0))
        return {name: np.where(later, b[name], a[name]) for name in (index, key)}

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return 16

    def unseen(self, state: State) -> np.ndarray:
        return state[self.name] < 0


MAX, MIN = Extreme("max", False), Extreme("min", True)
ARGMAX, ARGMIN = Position("argmax", False), Position("argmin", True)


def finish_range(state: State, image: np.ndarray) -> None:
    """Subtract in float64, integers without a sign: their difference may need all of 64 bits."""
    high, low = state["max"], state["min"]
    if high.dtype.kind == "f":
        np.copyto(image, high.astype("f8") - low, casting="unsafe")
        image[np.isnan(image)] = np.nan
    else:
        unsigned = f"u{high.itemsize}"
        np.copyto(image, high.view(unsigned) - low.view(unsigned), casting="unsafe")
