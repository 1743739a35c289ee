"""Sum and average: exact for integers, with their rounding errors for floats."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..series.sparse import SparsePiece
from .accumulators import Accumulator
from .base import Loop, Piece, State
from .counts import frame_count
from .shared import Counting, applied, load_kernels, zeros


@dataclass(frozen=True)
class Sum(Accumulator):
    """The sum: integers in 64 bits or in two limbs, floats with their rounding errors."""

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> Loop | None:
        kernels, valid = load_kernels(), counting.of(piece.dtype)
        _prepare_sums(piece, state)
        if self.has_loop(piece.dtype):
            return kernels.Integers(piece.arrays, state["sum"], valid)
        if "low" in state:
            kernels.add_limbs(piece.arrays, state["low"], state["high"], valid)
        else:
            kernels.add_floats(piece.arrays, state["sum"], state["rest"], valid)
        return None

    def has_loop(self, frames: np.dtype) -> bool:
        return frames.kind != "f" and frames.itemsize < 8

    def add_stored(self, piece: SparsePiece, start: int, state: State) -> None:
        _prepare_sums(piece, state)
        load_kernels().scatter(piece.blocks, piece.window, _stored_sums(state))

    def combine(self, a: State, b: State) -> State:
        if "rest" in a:
            total, rest = load_kernels().combine_sums(a["sum"], a["rest"], b["sum"], b["rest"])
            return {"sum": total, "rest": rest}
        if "low" in a:
            return {name: applied(np.add, a[name], b[name]) for name in ("low", "high")}
        return {"sum": add_sums(a, b)}

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        if not self.has_loop(frames):
            return 16
        return 4 if frames.itemsize <= 2 and nframes <= 1 << 16 else 8


SUM = Sum("sum")


def _prepare_sums(piece: Piece | SparsePiece, state: State) -> None:
    """Make the sums of a state, or widen them, so that the frames of a piece fit in."""
    nframes = int(state["count"]) + piece.nframes
    if not {"sum", "low"} & state.keys():
        state |= _zero_sums(piece)
    elif "sum" in state and sum_itemsize(state["sum"], nframes) > state["sum"].itemsize:
        state["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}8")


def _zero_sums(piece: Piece | SparsePiece) -> State:
    """Return zero sums that the frames of a piece cannot overflow."""
    if piece.dtype.kind == "f":
        return {"sum": zeros(piece, "f8"), "rest": zeros(piece, "f8")}
    sign, itemsize = "i" if piece.dtype.kind == "i" else "u", piece.dtype.itemsize
    if itemsize == 8:
        return {"low": zeros(piece, "u8"), "high": zeros(piece, f"{sign}8")}
    narrow = itemsize <= 2 and piece.nframes <= load_kernels().FRAMES_IN_32_BITS
    return {"sum": zeros(piece, f"{sign}{4 if narrow else 8}")}


def _stored_sums(state: State) -> tuple:
    """Return the sums of a state as compiled code takes them for stored values."""
    kernels = load_kernels()
    if "low" in state:
        return kernels.Parts(state["low"].reshape(-1), state["high"].reshape(-1))
    if "rest" in state:
        return kernels.FloatSums(state["sum"].reshape(-1), state["rest"].reshape(-1))
    return kernels.IntegerSums(state["sum"].reshape(-1))


def add_sums(a: State, b: State) -> np.ndarray:
    """Add sums of integers; those of 32 bits, from frames of 16, are widened in time."""
    count = int(a["count"] + b["count"])
    itemsize = max(sum_itemsize(a["sum"], count), sum_itemsize(b["sum"], count))
    return applied(np.add, a["sum"], b["sum"], f"{a['sum'].dtype.kind}{itemsize}")


def sum_itemsize(sums: np.ndarray, count: int) -> int:
    """Return the bytes that sums of ``count`` frames need; 4 are enough for frames of 16 bits."""
    return 4 if sums.itemsize == 4 and count <= load_kernels().FRAMES_IN_32_BITS else 8


def _total(state: State) -> np.ndarray:
    """Return the sum as 64-bit integers or float64, rounded at most once."""
    if "low" in state:
        carry, low = state["low"] >> np.uint64(32), state["low"] & np.uint64(0xFFFFFFFF)
        high = state["high"] + carry.astype(state["high"].dtype)
        # Both parts have at most 53 bits and are exact as float64, so only their sum is rounded.
        low |= (high & high.dtype.type(1023)).astype("u8") << np.uint64(32)
        return (high >> high.dtype.type(10)) * 2.0**42 + low
    if "rest" in state:
        total, rest = state["sum"], state["rest"]
        # An infinite or NaN sum has no rounding error to correct.
        return np.where(np.isfinite(total), total + rest, total)
    return state["sum"]


@contextmanager
def writable(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield an array that compiled code can write, for an image: it has no float16."""
    if image.dtype != np.float16:
        yield image
    else:
        wide = np.empty(image.shape)
        yield wide
        image[...] = wide


def finish_sum(state: State, image: np.ndarray) -> None:
    """Write the sum, rounded once."""
    with writable(image) as out:
        load_kernels().divide(_total(state), 1.0, out)


def finish_average(state: State, image: np.ndarray) -> None:
    """Write the sum divided by the number of frames that count."""
    count = frame_count(state)
    with writable(image) as out:
        load_kernels().divide(_total(state), float(count) if isinstance(count, int) else count, out)
