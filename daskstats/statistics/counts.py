"""Numbers of frames: that count, or that are above a threshold."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from ..arguments import check_number
from .base import Piece, State, Statistic
from .shared import compiled, copy_array, zero_counts
from .validity import Validity


def count_above(threshold: float) -> Statistic:
    """Return the statistic that counts the frames in which a pixel is larger than a threshold.

    Floats are compared with it as numpy does, rounded to their dtype; NaN is not larger.

    Raises
    ------
    TypeError, ValueError
        If the threshold is not a number.
    """
    number = check_number(threshold, "threshold")
    if number != number:
        raise ValueError("threshold must be a number, got nan")
    return _counter("count_above", number)


def _counter(
    name: str,
    threshold: float | None = None,
    validity: Validity | None = None,
    fill: Any = None,
) -> Statistic:
    """Count frames: where none is, the image is 0 and needs no fill value."""
    chunk: Callable[..., State] = _count_frames
    if validity is not None or threshold is not None:
        chunk = partial(_count_where, validity=validity or Validity(), threshold=threshold)
    return Statistic(
        name=name,
        chunk=chunk,
        combine=_add_counted,
        finalize=partial(copy_array, name="count"),
        dtype="int64",
        state_nbytes=4,
        in_place=True,
        leave_out=partial(_counter, name, threshold),
        empty=0,
    )


def _count_frames(pieces: Iterable[Piece], start: int, state: State | None = None) -> State:
    """Count frames without a look at their pixels: all are valid."""
    count = int(state["count"]) if state else 0
    return {"count": np.array(count + sum(len(block) for piece in pieces for block in piece))}


def _count_where(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    validity: Validity,
    threshold: float | None = None,
) -> State:
    """Count the frames in which a pixel is valid and, if there is a threshold, above it."""
    state = dict(state or {})
    for piece in pieces:
        if not state:
            state["count"] = zero_counts(piece[0])
        keys = compiled().Keys(piece[0].dtype, wide=True)
        arcs = keys.left_out(validity)
        if threshold is not None:
            arcs = arcs + keys.not_above(threshold)
        compiled().count_valid(piece, compiled().Valid(arcs, keys, state["count"]))
        del piece  # or it would live on while the next is read
    return state


def _add_counted(a: State, b: State) -> State:
    return {"count": np.asarray(np.add(a["count"], b["count"]))}


count = _counter("count")
