"""Standard deviation and variance."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arguments import check_number
from .base import Begun, Piece, State, Statistic
from .shared import compiled, finisher, left_out, zero_counts
from .sums import add_counts, add_sums, writable
from .validity import Validity


def fold_moments(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    validity: Validity | None = None,
    extremes: tuple[str, ...] = (),
) -> State:
    """Sum integers and their squares exactly; merge the moments of floats."""
    state = dict(state or {})
    for piece in pieces:
        if piece[0].dtype.kind == "f":
            more = _block_moments(piece, validity)
            state = merge_moments(state, more) if state else more
        else:
            state, loop = _loop(piece, state, validity, extremes)
            loop.run(0, piece[0][0].size)
            del loop
        del piece  # or it would live on while the next is read
    return state


def begin_moments(
    piece: Piece, *, validity: Validity | None, extremes: tuple[str, ...] = ()
) -> Begun | None:
    if piece[0].dtype.kind == "f":
        return None
    state, loop = _loop(piece, {}, validity, extremes)
    return [loop], lambda: state


def _loop(
    piece: Piece, state: State, validity: Validity | None, extremes: Sequence[str]
) -> tuple[State, Any]:
    """Return the state after a piece of integers, and the loop that adds it."""
    if is_small(piece[0].dtype):
        return _squares(piece, state, validity, extremes)
    return _limbs(piece, state, validity)


def _limbs(piece: Piece, state: State, validity: Validity | None) -> tuple[State, Any]:
    kernels = compiled()
    if not state:
        shape = kernels.limbs_of_state(piece[0].itemsize), *piece[0].shape[1:]
        state = {"limbs": kernels.pooled_zeros(shape, "u8"), "count": np.array(0)}
        if validity is not None:
            state["valid"] = zero_counts(piece[0])
    valid = left_out(validity, piece[0], state.get("valid"))
    adder = kernels.WideSquares(piece, state["limbs"], valid)
    count = np.asarray(state["count"] + sum(len(block) for block in piece))
    return {**state, "count": count}, adder


def _squares(
    piece: Piece, state: State, validity: Validity | None, extremes: Sequence[str]
) -> tuple[State, Any]:
    """Return the state after a piece, and what does add it."""
    kernels, fresh = compiled(), not state
    if fresh:
        shape, sign = piece[0].shape[1:], "i" if piece[0].dtype.kind == "i" else "u"
        state = {"sum": kernels.pooled(shape, f"{sign}8"), "squares": kernels.pooled(shape, "u8")}
        state["count"] = np.array(0)
        if validity is not None:
            state["valid"] = zero_counts(piece[0])
        for name in extremes:
            state[name] = kernels.pooled(shape, piece[0].dtype)
    valid = left_out(validity, piece[0], state.get("valid"))
    high, low = state.get("max"), state.get("min")
    adder = kernels.Squares(piece, state["sum"], state["squares"], valid, high, low, fresh)
    count = np.asarray(state["count"] + sum(len(block) for block in piece))
    return {**state, "count": count}, adder


def _block_moments(piece: Piece, validity: Validity | None) -> State:
    counts = {} if validity is None else {"valid": zero_counts(piece[0])}
    valid = left_out(validity, piece[0], counts.get("valid"))
    moments = compiled().block_moments(piece, valid)
    return {"moments": moments, "count": np.array(sum(len(block) for block in piece)), **counts}


def moments_size(frames: np.dtype, nframes: int, counted: bool) -> int:
    if frames.kind == "f":
        return 32 + 4 * counted
    return {8: 40, 4: 24}.get(frames.itemsize, 16) + 4 * counted


def merged_size(frames: np.dtype) -> int:
    """Return the bytes of the moments of one piece and of those it is merged to, for floats."""
    return 2 * (36 + 8) if frames.kind == "f" else 0


def merge_moments(a: State, b: State) -> State:
    if "squares" in a:
        return add_sums(a, b)
    counts = {"count": np.asarray(a["count"] + b["count"]), **add_counts(a, b)}
    if "limbs" in a:
        return {"limbs": compiled().combine_limbs(a["limbs"], b["limbs"]), **counts}
    moments = compiled().merge_moments(a["moments"], b["moments"], _numbers(a), _numbers(b))
    return {"moments": moments, **counts}


def pack_squares(state: State) -> State:
    """Make exact sums of small integers and their squares as narrow as what they hold."""
    if "squares" not in state:
        return state
    narrow = dict(state)
    if int(state["count"]) <= compiled().FRAMES_IN_32_BITS:
        narrow["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}4", copy=False)
    if state["squares"].max() < 1 << 32:
        narrow["squares"] = state["squares"].astype("u4", copy=False)
    return narrow


def _numbers(state: State) -> Any:
    """Return how many frames count: at each pixel, or at all of them."""
    return state["valid"] if "valid" in state else int(state["count"])


def _finish_moments(state: State, image: np.ndarray, ddof: float, root: bool) -> None:
    counts = _numbers(state)
    if "squares" in state:
        with writable(image) as out:
            compiled().variance(state["sum"], state["squares"], counts, ddof, root, out)
        return
    if "limbs" in state:
        with writable(image) as out:
            compiled().limb_variance(state["limbs"], counts, ddof, root, out)
        return
    _, _, squares, rest = state["moments"]
    # Errors of some 2^-100, which depend on the cut, must not decide which way a tie is rounded.
    grain = squares * 2.0**-38
    rest = (rest + grain) - grain
    found = np.maximum(np.where(np.isfinite(squares), squares + rest, squares), 0)
    freedom = counts - ddof
    found /= np.where(freedom > 0, freedom, np.nan)
    found[np.isnan(found)] = np.nan
    np.copyto(image, np.sqrt(found, out=found) if root else found, casting="unsafe")


def moments(name: str, ddof: float = 0) -> Statistic:
    """Return "std" or "var" with ``count - ddof`` degrees of freedom.

    Raises
    ------
    ValueError, TypeError
        If ``ddof`` is not a number of at least 0.
    """
    number = check_number(ddof, "ddof")
    if not 0 <= number < np.inf:
        raise ValueError(f"ddof must be at least 0, got {ddof!r}")
    return _deviation(name, float(number))


def _deviation(
    name: str, ddof: float, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    finish = partial(_finish_moments, ddof=ddof, root=name == "std")
    return Statistic(
        name=name,
        chunk=partial(fold_moments, validity=validity),
        combine=merge_moments,
        finalize=finisher(finish, validity, fill),
        state_nbytes=partial(moments_size, counted=validity is not None),
        scratch=merged_size,
        in_place=True,
        begin=partial(begin_moments, validity=validity),
        pack=pack_squares,
        leave_out=partial(_deviation, name, ddof),
        fill_value=fill,
    )


def is_small(frames: np.dtype) -> bool:
    """Whether frames are of integers whose squares are summed exactly."""
    return frames.kind in "biu" and frames.itemsize <= 2


std, var = moments("std"), moments("var")
