"""Maximum, minimum, their difference, and the frames that they are in."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from .base import Begun, Piece, State, Statistic
from .shared import applied, compiled, copy_array, fill_empty, finisher, left_out, zero_counts
from .validity import Validity


def fold_extremes(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    names: tuple[str, ...],
    validity: Validity | None = None,
) -> State:
    """Fold extremes; with a validity also the number of valid frames."""
    state = dict(state or {})
    for piece in pieces:
        state, loops = _loops(piece, state, names, validity)
        for loop in loops:
            loop.run(0, state[names[0]].size)
        del piece, loop, loops  # or they would live on while the next is read
    return state


def _begin_extremes(
    piece: Piece, *, names: tuple[str, ...], validity: Validity | None = None
) -> Begun | None:
    if piece[0].dtype == np.float16:  # which is widened, a few frames at a time
        return None
    state, loops = _loops(piece, {}, names, validity)
    return loops, lambda: state


def _loops(
    piece: Piece, state: State, names: tuple[str, ...], validity: Validity | None, trail: Any = ()
) -> tuple[State, list]:
    """Return the state that loops fold a piece into, and the loops: one for each extreme."""
    kernels, counted = compiled(), validity is not None
    if not state:
        state = {name: kernels.begin_extreme(piece[0], name == "min", counted) for name in names}
        if counted:
            state["valid"] = zero_counts(piece[0])
    loops, counts = [], state.get("valid")
    for name in names:
        valid = left_out(validity, piece[0], counts)
        loops.append(kernels.Extremes(piece, state[name], name == "min", valid, trail))
        counts = None  # the next one need not count again
    return state, loops


def _leave_trail(piece: Piece, state: State | None, images: list, *, name: str) -> State:
    """Fold an extreme, and write what it is after some of the frames."""
    state, (loop,) = _loops(piece, state or {}, (name,), None, images)
    loop.run(0, state[name].size)
    return state


def combine_extremes(a: State, b: State) -> State:
    return {name: _combined(name, a[name], b[name]) for name in a}


def _combined(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if name == "valid":
        return applied(np.add, a, b)
    return compiled().combine_extremes(a, b, name == "min")


def _frame_size(frames: np.dtype, nframes: int, arrays: int, counted: bool) -> int:
    return arrays * frames.itemsize + 4 * counted


def _extreme(name: str, validity: Validity | None = None, fill: Any = None) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(fold_extremes, names=(name,), validity=validity),
        combine=combine_extremes,
        finalize=finisher(partial(copy_array, name=name), validity, fill),
        dtype=None,
        state_nbytes=partial(_frame_size, arrays=1, counted=validity is not None),
        in_place=True,
        begin=partial(_begin_extremes, names=(name,), validity=validity),
        trail=partial(_leave_trail, name=name) if validity is None else None,
        leave_out=partial(_extreme, name),
        fill_value=fill,
    )


def _range(validity: Validity | None = None, fill: Any = None) -> Statistic:
    return Statistic(
        name="range",
        chunk=partial(fold_extremes, names=("max", "min"), validity=validity),
        combine=combine_extremes,
        finalize=finisher(_finish_range, validity, fill),
        dtype="float64",
        state_nbytes=partial(_frame_size, arrays=2, counted=validity is not None),
        in_place=True,
        begin=partial(_begin_extremes, names=("max", "min"), validity=validity),
        leave_out=_range,
        fill_value=fill,
    )


def _finish_range(state: State, image: np.ndarray) -> None:
    """Subtract in float64, integers without a sign: their difference may need all of 64 bits."""
    high, low = state["max"], state["min"]
    if high.dtype.kind == "f":
        np.copyto(image, high.astype("f8") - low, casting="unsafe")
        image[np.isnan(image)] = np.nan
    else:
        unsigned = f"u{high.itemsize}"
        np.copyto(image, high.view(unsigned) - low.view(unsigned), casting="unsafe")


def _arg(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    name: str,
    validity: Validity | None = None,
) -> State:
    """Find the first frame with the extreme; -1 as long as there is none."""
    state = dict(state or {})
    for piece in pieces:
        if not state:
            shape, keys = piece[0].shape[1:], compiled().Keys(piece[0].dtype, wide=True)
            state["index"] = compiled().pooled(shape, "i8")
            state["index"][...] = -1
            state["key"] = compiled().pooled_zeros(shape, keys.unsigned)
        valid = left_out(validity, piece[0], None)
        getattr(compiled(), f"fold_{name}")(piece, start, state["key"], state["index"], valid)
        start += sum(len(block) for block in piece)
        del piece  # or it would live on while the next is read
    return state


def _combine_args(a: State, b: State) -> State:
    later = (b["index"] >= 0) & ((b["key"] > a["key"]) | (a["index"] < 0))
    return {name: np.where(later, b[name], a[name]) for name in a}


def _finish_arg(state: State, image: np.ndarray, fill: Any) -> None:
    copy_array(state, image, "index")
    fill_empty(image, state["index"] < 0, fill)


def _argument(name: str, validity: Validity | None = None, fill: Any = None) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(_arg, name=name, validity=validity),
        combine=_combine_args,
        finalize=partial(_finish_arg, fill=fill),
        dtype="int64",
        state_nbytes=16,
        in_place=True,
        leave_out=partial(_argument, name),
        fill_value=fill,
    )


maximum, minimum, value_range = _extreme("max"), _extreme("min"), _range()
argmax, argmin = _argument("argmax"), _argument("argmin")
