"""Sum and average: exact for integers, with their rounding errors for floats."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from .base import Begun, Piece, State, Statistic
from .shared import applied, compiled, finisher, left_out, zero_counts
from .validity import Validity


def fold_sums(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    validity: Validity | None = None,
) -> State:
    """Sum exactly: integers in 64 bits, or in two limbs; floats with their rounding errors."""
    kernels = compiled()
    state = dict(state or {})
    count = int(state.get("count", 0))
    for piece in pieces:
        more = sum(len(block) for block in piece)
        if not state:
            state = _zero_sums(piece[0], more, validity)
        elif "sum" in state and _itemsize(state["sum"], count + more) > state["sum"].itemsize:
            state["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}8")
        valid = left_out(validity, piece[0], state.get("valid"))
        if "low" in state:
            kernels.add_limbs(piece, state["low"], state["high"], valid)
        elif "rest" in state:
            kernels.add_floats(piece, state["sum"], state["rest"], valid)
        else:
            kernels.Integers(piece, state["sum"], valid).run(0, state["sum"].size)
        count += more
        del piece  # or it would live on while the next is read
    return {**state, "count": np.array(count)}


def _begin_sums(piece: Piece, *, validity: Validity | None = None) -> Begun | None:
    if piece[0].dtype.kind == "f" or piece[0].dtype.itemsize == 8:
        return None
    nframes = sum(len(block) for block in piece)
    state = {**_zero_sums(piece[0], nframes, validity), "count": np.array(nframes)}
    valid = left_out(validity, piece[0], state.get("valid"))
    return [compiled().Integers(piece, state["sum"], valid)], lambda: state


def _zero_sums(block: np.ndarray, nframes: int, validity: Validity | None = None) -> State:
    """Return zero sums that ``nframes`` frames like those of a block cannot overflow."""
    zeros, shape, dtype = compiled().pooled_zeros, block.shape[1:], block.dtype
    valid = {} if validity is None else {"valid": zero_counts(block)}
    if dtype.kind == "f":
        return {"sum": zeros(shape, "f8"), "rest": zeros(shape, "f8"), **valid}
    sign = "i" if dtype.kind == "i" else "u"
    if dtype.itemsize == 8:
        return {"low": zeros(shape, "u8"), "high": zeros(shape, f"{sign}8"), **valid}
    narrow = dtype.itemsize <= 2 and nframes <= compiled().FRAMES_IN_32_BITS
    return {"sum": zeros(shape, f"{sign}{4 if narrow else 8}"), **valid}


def _sums_size(frames: np.dtype, nframes: int, counted: bool) -> int:
    if frames.kind == "f" or frames.itemsize == 8:
        return 16 + 4 * counted
    return (4 if frames.itemsize <= 2 and nframes <= 1 << 16 else 8) + 4 * counted


def add_sums(a: State, b: State) -> State:
    count = np.asarray(a["count"] + b["count"])
    counts = {"count": count, **add_counts(a, b)}
    if "rest" in a:
        total, rest = compiled().combine_sums(a["sum"], a["rest"], b["sum"], b["rest"])
        return {"sum": total, "rest": rest, **counts}
    names = [name for name in a if name not in {*counts, "squares"}]
    sums = {name: _add(a[name], b[name], int(count)) for name in names}
    if "squares" in a:
        sums["squares"] = applied(np.add, a["squares"], b["squares"], np.dtype("u8"))
    return {**sums, **counts}


def add_counts(a: State, b: State) -> State:
    return {"valid": applied(np.add, a["valid"], b["valid"])} if "valid" in a else {}


def _add(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Add sums; those of 32 bits, which only frames of 16 bits have, are widened in time."""
    itemsize = max(_itemsize(a, count), _itemsize(b, count))
    return applied(np.add, a, b, np.dtype(f"{a.dtype.kind}{itemsize}"))


def _itemsize(sums: np.ndarray, count: int) -> int:
    """Return the bytes that sums need with so many frames; 4 stay enough for frames of 16 bits."""
    return 4 if sums.itemsize == 4 and count <= compiled().FRAMES_IN_32_BITS else 8


def _total(state: State) -> np.ndarray:
    """Return the sum as 64-bit integers or float64, rounded at most once."""
    if "low" in state:
        carry, low = state["low"] >> np.uint64(32), state["low"] & np.uint64(0xFFFFFFFF)
        high = state["high"] + carry.astype(state["high"].dtype)
        # Both parts are at most 53 bits, and exact as float64, so that only their sum is rounded.
        low |= (high & high.dtype.type(1023)).astype("u8") << np.uint64(32)
        return (high >> high.dtype.type(10)) * 2.0**42 + low
    if "rest" in state:
        total, rest = state["sum"], state["rest"]
        # An infinite or NaN sum has no rounding error to mend.
        return np.where(np.isfinite(total), total + rest, total)
    return state["sum"]


@contextmanager
def writable(image: np.ndarray) -> Iterator[np.ndarray]:
    """Give an array of an image's values that compiled code can write: it knows no float16."""
    if image.dtype != np.float16:
        yield image
    else:
        wide = np.empty(image.shape)
        yield wide
        image[...] = wide


def finish_sum(state: State, image: np.ndarray) -> None:
    with writable(image) as out:
        compiled().divide(_total(state), 1.0, out)


def _finish_average(state: State, image: np.ndarray) -> None:
    with writable(image) as out:
        compiled().divide(_total(state), _divisor(state), out)


def _divisor(state: State) -> Any:
    return state["valid"] if "valid" in state else float(state["count"])


def _summed(
    name: str, dtype: str, finish: Callable, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(fold_sums, validity=validity),
        combine=add_sums,
        finalize=finisher(finish, validity, fill),
        dtype=dtype,
        state_nbytes=partial(_sums_size, counted=validity is not None),
        in_place=True,
        begin=partial(_begin_sums, validity=validity),
        leave_out=partial(_summed, name, dtype, finish),
        fill_value=fill,
    )


total = _summed("sum", "float64", finish_sum)
average = _summed("average", "float32", _finish_average)
