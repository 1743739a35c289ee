"""Arguments of calls: their types, their checks, and warnings."""

import operator
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from math import inf, isinf
from numbers import Integral, Real
from typing import Any, Protocol, TypedDict

import numpy as np

from .texts import shown


class FrameSeries(Protocol):
    """Frames (rows, cols) by index, all of one shape and dtype; an array of frames is one too."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> object: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


Paths = Iterable[str] | Iterable[os.PathLike[str]]
ImageSeries = str | os.PathLike[str] | Paths | Sequence[np.ndarray] | FrameSeries
"""one or more paths, a list of 2-D arrays, or an object with frames"""

Span = tuple[int, int]
"""(first, end), half-open"""


class Options(TypedDict, total=False):
    """The keywords that every public function takes; `api` documents them."""

    dtype: Any
    memory_limit: int | str | None
    lock: bool | AbstractContextManager
    frames: Any
    region: Any
    mask: Any
    invalid: Any
    saturation: float | None
    skipna: bool
    fill_value: Any
    dark: Any
    flip: str | None
    dim: str | Sequence[str] | None


class RunOptions(Options, total=False):
    """The keywords of functions that run at once, and may be continued later."""

    checkpoint: str | os.PathLike | None
    restart: bool


# Compiled code of row-wise statistics, and images of counts and frame numbers, have the numbers of
# frames in 32 bits, of which one is the sign.
MOST_FRAMES = int(np.iinfo(np.int32).max)

# The most frames in a selection: their indices, of 8 bytes each, are kept in memory.
MOST_SELECTED = 1 << 28


def check_list(statistics: object) -> list:
    """Return a sequence of statistics as a list; a single name or statistic is refused."""
    if isinstance(statistics, str) or not isinstance(statistics, Sequence):
        raise TypeError(f'statistics must be a list such as ["max", "median"], got {statistics!r}')
    return list(statistics)


def count_frames(nframes: object, available: int) -> int:
    """Return the number of frames to use: all if ``nframes`` is at most 0, or more than all."""
    nframes = integer(nframes, "nframes")
    count = min(nframes, available) if nframes > 0 else available
    if count > MOST_FRAMES:
        raise ValueError(
            f"the series has {count} frames, and at most {MOST_FRAMES} can be counted: use nframes "
            f"or frames for a part of them"
        )
    return count


def count_chunks(nchunk: object, items: int, name: str = "nchunk") -> int:
    """Return the number of intermediate images, from 1 to ``items``."""
    nchunk = integer(nchunk, name)
    if nchunk < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(nchunk)}")
    if nchunk > items:
        raise ValueError(
            f"number of chunks cannot exceed number of items: {name} is {shown(nchunk)}, "
            f"there are {items} items"
        )
    return nchunk


def check_lock(lock: object) -> None:
    if not isinstance(lock, bool | AbstractContextManager):
        raise TypeError(f"lock must be True, False or a lock, got {lock!r}")


def check_frames(frames: object, count: int) -> np.ndarray:
    """Return the indices, from 0 to ``count - 1``, of the selected frames; at least one.

    >>> check_frames(slice(-2, None), 5), check_frames([True, False, False], 3)
    (array([3, 4]), array([0]))
    """
    if frames is None or isinstance(frames, slice):
        try:
            selected = range(count)[slice(None) if frames is None else frames]
        except TypeError:
            raise TypeError(f"frames must be a slice of integers, got {shown(frames)}") from None
        if len(selected) > MOST_SELECTED:
            raise ValueError(
                f"frames or region selects from {len(selected)} frames, at most {MOST_SELECTED} "
                f"can be chosen: give the first and the last as frames=slice(first, end)"
            )
        indices = np.arange(selected.start, selected.stop, selected.step)
    else:
        indices = _check_indices(frames, count)
    if not indices.size:
        raise ValueError(f"frames selects none of the {count} frames: {shown(frames)}")
    return indices


def _check_indices(frames: object, count: int) -> np.ndarray:
    expected = "frames must be a slice, a sequence of integers or a bool array"
    if not isinstance(frames, Iterable) or isinstance(frames, str | bytes | dict):
        raise TypeError(f"{expected}, got {shown(frames)}")
    array = np.asarray(frames if isinstance(frames, np.ndarray) else list(frames))
    if array.ndim != 1 or not (array.dtype.kind in "biu" or not array.size):
        raise TypeError(f"{expected}, got {array.ndim} dimensions of {array.dtype}")
    if array.dtype.kind == "b":
        if array.size != count:
            raise ValueError(f"frames has {array.size} bools for {count} frames")
        return np.flatnonzero(array)
    outside = array[(array >= count) | (array < -count)]
    if outside.size:
        raise ValueError(f"frames has index {outside[0]}, but there are {count} frames")
    array = array.astype(np.int64)
    return np.where(array < 0, array + count, array)


def runs(numbers: np.ndarray) -> Iterator[Span]:
    """Yield (first, end) of numbers that follow one another.

    >>> list(runs(np.array([3, 4, 5, 0, 0])))
    [(3, 6), (0, 1), (0, 1)]
    """
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        if run.size:
            yield int(run[0]), int(run[-1]) + 1


def as_slice(frames: Sequence[int] | np.ndarray) -> slice | None:
    """Return indices of frames as a slice, if their steps are equal.

    >>> as_slice(np.array([5, 3, 1])), as_slice(np.array([0, 0])), as_slice(np.array([4]))
    (slice(5, 0, -2), None, slice(4, 5, 1))
    """
    first, last = int(frames[0]), int(frames[-1])
    step = int(frames[1]) - first if len(frames) > 1 else 1
    if step == 0 or not (isinstance(frames, range) or (np.diff(frames) == step).all()):
        return None
    end = last + (1 if step > 0 else -1)
    return slice(first, end if end >= 0 else None, step)


def frames_text(frames: Sequence[int] | np.ndarray) -> str:
    """Return indices of frames as slices.

    >>> frames_text(range(10, 200, 5)), frames_text([5, 3, 1]), frames_text([3, 4, 9])
    ('10:196:5', '5:0:-2', '3:5,9:10')
    """
    found = as_slice(frames)
    if found is None:
        return ",".join(f"{first}:{end}" for first, end in runs(np.asarray(frames)))
    end = "" if found.stop is None else found.stop
    return f"{found.start}:{end}" + (f":{found.step}" if found.step != 1 else "")


def check_region(region: tuple[Span, Span] | None, shape: tuple[int, int]) -> tuple[Span, Span]:
    """Return the rows and the columns of a region; all of them for None.

    >>> check_region(((0, 2), (1, 3)), (4, 5)), check_region(None, (4, 5))
    (((0, 2), (1, 3)), ((0, 4), (0, 5)))
    """
    if region is None:
        return (0, shape[0]), (0, shape[1])
    try:
        (r0, r1), (c0, c1) = region
        edges = [operator.index(edge) for edge in (r0, r1, c0, c1) if not isinstance(edge, bool)]
        r0, r1, c0, c1 = edges
    except (TypeError, ValueError):
        raise TypeError(
            f"region must be ((first row, end), (first column, end)), got {shown(region)}"
        ) from None
    for name, first, end, length in (("rows", r0, r1, shape[0]), ("columns", c0, c1, shape[1])):
        if not 0 <= first < end <= length:
            raise ValueError(
                f"region has {name} {shown(first)}:{shown(end)}, "
                f"but frames have {name} 0:{length}, of which it must be at least one"
            )
    return (r0, r1), (c0, c1)


def integer(value: object, name: str) -> int:
    """Return a Python int for any integer except a bool; raise TypeError with the argument name."""
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, got {shown(value)}")


def check_bool(value: object, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_number(value: object, name: str, expected: str = "a number") -> float:
    """Return a Python int or float for any real number except a bool.

    Raises
    ------
    TypeError
        If it is not a real number; the message has the argument name and ``expected``.
    ValueError
        If it is finite and beyond the range of float64.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Decimal):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    try:
        number = float(value)
        beyond = isinf(number) and value not in (inf, -inf)
    except (OverflowError, ValueError):  # an integer or a fraction; a signalling NaN
        beyond = True
    if beyond:
        raise ValueError(
            f"{name} must be {expected}, of a size that float64 can hold, got {shown(value)}"
        )
    return int(value) if isinstance(value, Integral) else number


def check_percentile(pctl: object) -> float:
    number = check_number(pctl, "pctl", "a number from 0 to 100")
    if not 0 <= number <= 100:
        raise ValueError(f"pctl must be a number from 0 to 100, got {shown(pctl)}")
    return float(number)


def check_ddof(ddof: object) -> float:
    number = check_number(ddof, "ddof")
    if not 0 <= number < inf:
        raise ValueError(f"ddof must be at least 0, got {ddof!r}")
    return float(number)


def check_threshold(threshold: object) -> float:
    number = check_number(threshold, "threshold")
    if number != number:
        raise ValueError("threshold must be a number, got nan")
    return number


def check_sigma(sigma: object) -> float:
    number = check_number(sigma, "sigma")
    if not 0 < number < inf:
        raise ValueError(f"sigma must be more than 0, got {shown(sigma)}")
    return float(number)


def check_maxiters(maxiters: object) -> int | None:
    """Return the number of rounds, at most `MOST_FRAMES`: each leaves out at least one frame."""
    if maxiters is None:
        return None
    if isinstance(maxiters, bool | np.bool_) or not isinstance(maxiters, Integral):
        raise TypeError(f"maxiters must be an integer or None, got {shown(maxiters)}")
    if maxiters < 1:
        raise ValueError(f"maxiters must be at least 1, or None, got {shown(maxiters)}")
    return min(int(maxiters), MOST_FRAMES)


def warn(message: str) -> None:
    """Warn with the location of the call into this package, the first line outside of it."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
