"""Standard deviation and variance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..series.sparse import SparsePiece
from .accumulators import Accumulator, Gaps
from .base import Loop, Piece, State
from .counts import frame_count
from .extremes import Extreme
from .shared import Counting, applied, load_kernels, zero_counts, zeros
from .sums import add_sums, finish_average, writable


@dataclass(frozen=True)
class Moments(Accumulator):
    """Sums of squares of wide integers, in limbs; means and squared deviations of floats.

    Small integers have a loop that finds their sums as well: see `Squares`.
    """

    by_pixel: ClassVar[bool] = False

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> Loop | None:
        if piece.dtype.kind == "f":
            self._merge_floats(piece, state, counting)
            return None
        limbs = self._prepare(piece, state)
        return load_kernels().WideSquares(piece.arrays, limbs, counting.of(piece.dtype))

    def folds_sparse(self, frames: np.dtype) -> bool:
        return frames.kind != "f"  # of floats two passes are made

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        kernels = load_kernels()
        limbs = kernels.limb_state(self._prepare(piece, state))
        kernels.scatter(piece.blocks, piece.window, limbs)

    def _prepare(self, piece: Piece | SparsePiece, state: State) -> np.ndarray:
        """Return the limbs of a state of integers, which are made if it has none."""
        if "limbs" not in state:
            limbs = load_kernels().limbs_of_state(piece.dtype.itemsize)
            state["limbs"] = load_kernels().pooled_zeros((limbs, *piece.shape), "u8")
        return state["limbs"]

    def _merge_floats(self, piece: Piece, state: State, counting: Counting) -> None:
        """Merge the moments of a piece, and the counts that they depend on, into a state."""
        fresh, validity = "moments" not in state, counting.validity
        counts = counting.counts if fresh or validity is None else zero_counts(piece)
        valid = Counting(validity, counts).of(piece.dtype)
        more = {"moments": load_kernels().block_moments(piece.arrays, valid)}
        if fresh:
            state |= more
            return
        more["count"] = np.array(piece.nframes)
        if counts is not None:
            more["valid"] = counts
        state |= self.combine(state, more)
        if counts is not None:
            state["valid"] += counts

    def has_loop(self, frames: np.dtype) -> bool:
        return frames.kind != "f"

    def combine(self, a: State, b: State) -> State:
        if "limbs" in a:
            return {"limbs": load_kernels().combine_limbs(a["limbs"], b["limbs"])}
        counts = frame_count(a), frame_count(b)
        return {"moments": load_kernels().merge_moments(a["moments"], b["moments"], *counts)}

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return 32 if frames.kind == "f" else 40 if frames.itemsize == 8 else 24

    def temporaries(self, frames: np.dtype) -> int:
        # Of floats the moments of one piece, and those of both, with counts and their float64.
        return 2 * (36 + 8) if frames.kind == "f" else 0


@dataclass(frozen=True)
class Squares(Accumulator):
    """Sums of integers of at most 16 bits, of their squares, and their extremes, in one loop.

    With the maximum it takes 27 ms instead of 53 for frames in the outer cache.
    """

    extremes: tuple[Extreme, ...] = ()

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> Loop:
        kernels, fresh = load_kernels(), "squares" not in state
        if fresh:  # the loop itself begins with zeros
            sign = "i" if piece.dtype.kind == "i" else "u"
            dtypes: dict[str, DTypeLike] = {"sum": f"{sign}8", "squares": "u8"}
            dtypes |= {extreme.name: piece.dtype for extreme in self.extremes}
            state |= {name: kernels.pooled(piece.shape, dtype) for name, dtype in dtypes.items()}
        high, low = (state.get(name) if self._finds(name) else None for name in ("max", "min"))
        sums, valid = (state["sum"], state["squares"]), counting.of(piece.dtype)
        return kernels.Squares(piece.arrays, *sums, valid, high, low, fresh)

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        kernels = load_kernels()
        if "squares" not in state:
            sign = "i" if piece.dtype.kind == "i" else "u"
            state |= {"sum": zeros(piece, f"{sign}8"), "squares": zeros(piece, "u8")}
        flat = state["sum"].reshape(-1), state["squares"].reshape(-1)
        kernels.scatter(piece.blocks, piece.window, kernels.ValueSquares(*flat))
        for extreme in self.extremes:
            extreme.add_stored(piece, start, state)

    def heeds_zeros(self, frames: np.dtype) -> bool:
        return any(extreme.heeds_zeros(frames) for extreme in self.extremes)

    def add_zeros(self, gaps: Gaps, state: State) -> None:
        for extreme in self.extremes:
            extreme.add_zeros(gaps, state)

    def _finds(self, name: str) -> bool:
        return any(extreme.name == name for extreme in self.extremes)

    def has_loop(self, frames: np.dtype) -> bool:
        return True

    def combine(self, a: State, b: State) -> State:
        squares = applied(np.add, a["squares"], b["squares"], "u8")
        state = {"sum": add_sums(a, b), "squares": squares}
        for extreme in self.extremes:
            state |= extreme.combine(a, b)
        return state

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return 16 + frames.itemsize * len(self.extremes)

    def pack(self, state: State) -> State:
        """Return sums of 32 bits if the number of frames, or the squares, leave room for them."""
        packed = {}
        if int(state["count"]) <= load_kernels().FRAMES_IN_32_BITS:
            packed["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}4", copy=False)
        if state["squares"].max() < 1 << 32:
            packed["squares"] = state["squares"].astype("u4", copy=False)
        return packed


MOMENTS = Moments("moments")


def finish_deviation(state: State, image: np.ndarray, ddof: float, root: bool) -> None:
    """Write the variance, or its root, with ``count - ddof`` degrees of freedom."""
    counts = frame_count(state)
    if "moments" in state:
        _finish_floats(state["moments"], counts - ddof, root, image)
        return
    with writable(image) as out:
        if "squares" in state:
            sums = state["sum"], state["squares"]
            load_kernels().variance(*sums, counts, ddof, root, out)
        else:
            load_kernels().limb_variance(state["limbs"], counts, ddof, root, out)


def _finish_floats(
    moments: np.ndarray, freedom: float | np.ndarray, root: bool, image: np.ndarray
) -> None:
    _, _, squares, rest = moments
    # Errors of some 2^-100, which depend on the cut, must not decide which way a tie is rounded.
    grain = squares * 2.0**-38
    rest = (rest + grain) - grain
    found = np.maximum(np.where(np.isfinite(squares), squares + rest, squares), 0)
    found /= np.where(freedom > 0, freedom, np.nan)
    found[np.isnan(found)] = np.nan
    np.copyto(image, np.sqrt(found, out=found) if root else found, casting="unsafe")


def finish_ratio(state: State, image: np.ndarray) -> None:
    """Write the average over the standard deviation, divided in float64; NaN where that is 0."""
    average, deviation = np.empty((2, *image.shape))
    finish_average(state, average)
    finish_deviation(state, deviation, ddof=0, root=True)
    deviation[deviation == 0] = np.nan
    np.copyto(image, average / deviation, casting="unsafe")
