"""Accumulators: arrays of a state, and the loop over frames that fills them.

A statistic says which accumulators its image is made of, and a `Fold` fills those of one statistic
or of several in one pass.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ..series.sparse import SparsePiece
from .base import Loop, Piece, State
from .shared import Counting


class Gaps(NamedTuple):
    """The frames of sparse pieces in which a pixel is not stored, and thus zero."""

    first: np.ndarray | None
    """flat uint32: how many frames come before the first gap of a pixel, if it is needed"""
    frames: tuple[int, int]
    """number of the first frame, and the end"""
    dtype: np.dtype

    @property
    def nframes(self) -> int:
        return self.frames[1] - self.frames[0]


@dataclass(frozen=True)
class Accumulator:
    """Arrays of a state, and the loop over frames that fills them.

    A state also has the arrays that all accumulators share: ``"count"``, the number of frames, and
    ``"valid"``, uint32, the number of valid frames at each pixel, if some values do not count.
    """

    name: str
    """of the array in the state, or the beginning of its name"""
    counts: ClassVar[bool] = True
    """whether the loop can count valid frames in passing"""
    by_pixel: ClassVar[bool] = True
    """whether frames may be folded in any memory order: each pixel by itself, into arrays of at
    most 8 bytes per pixel, of which the last axes are rows and columns"""

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> Loop | None:
        """Open the loop that folds a piece into a state, or fold it at once and return None.

        Parameters
        ----------
        piece : Piece
            Frames.
        start : int
            Number of the first frame.
        state : State
            Changed in place; arrays that are missing are made. ``"count"`` is the number of frames
            before the piece.
        counting : Counting
            Which values count.
        """
        raise NotImplementedError

    def has_loop(self, frames: np.dtype) -> bool:
        """Whether `open` returns a loop that passes over a few pixels at a time."""
        return False

    def folds_sparse(self, frames: np.dtype) -> bool:
        """Whether sparse frames of a dtype are folded as they are; others are made dense."""
        return frames != np.float16  # which is widened

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        """Fold the stored values of sparse frames into a state, as `open` does those of frames."""
        raise NotImplementedError

    def heeds_zeros(self, frames: np.dtype) -> bool:
        """Whether `add_zeros` needs the first gap of each pixel."""
        return False

    def add_zeros(self, gaps: Gaps, state: State) -> None:
        """Fold the zeros of sparse frames, if they change anything, after all stored values."""

    def combine(self, a: State, b: State) -> State:
        """Return the arrays of two states that follow one another together."""
        raise NotImplementedError

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        """Return the bytes of the arrays per pixel, for ``nframes`` frames of a dtype."""
        raise NotImplementedError

    def temporaries(self, frames: np.dtype) -> int:
        """Return the bytes of temporaries per pixel while a piece is folded."""
        return 0

    def pack(self, state: State) -> State:
        """Return the arrays that take fewer bytes when they are sent."""
        return {}

    def unseen(self, state: State) -> np.ndarray:
        """Return the pixels where no value was valid."""
        return state["valid"] == 0
