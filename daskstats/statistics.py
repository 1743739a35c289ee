"""What an average is: a statistic is a frozen value of three functions.

    state = chunk(pieces, start)      some frames (or rows) folded into a partial state
    state = combine(state, partial)   two states of neighbouring ranges into one
    finalize(state, image)            the state's image, written into an array of the result's dtype

A state is a few named arrays. None of the functions changes a state that it was given. For
integers a state is exact, so an image does not depend on how the series was cut. Sums of floats
carry their rounding errors along, so that they do not depend on it either, short of a difference
in magnitude of 2^40 (float64 frames; 2^70 for float32) between the values of one pixel.

A row-wise statistic (``along="rows"``) is the same algebra on the other axis: `chunk` gets all
frames of a band of rows, and its state holds that band under the number of its first row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib import import_module
from math import floor
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np

State = dict[str, np.ndarray]

Piece = list[np.ndarray]
"""arrays (frames, rows, cols) that follow one another"""


@dataclass(frozen=True)
class Statistic:
    """One statistic; see the module for the algebra.

    Examples
    --------
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> state = maximum.chunk([[frames]], 0)
    >>> maximum.image(state, (1, 2), frames.dtype)
    array([[3, 2]], dtype=uint8)
    """

    name: str
    """as in the registry and in task names"""
    chunk: Callable[[Iterable[Piece], int], State]
    """(pieces, index of the first frame or row) to a partial state"""
    combine: Callable[[State, State], State]
    """(state, state of what follows it) to the state of both"""
    finalize: Callable[[State, np.ndarray], None]
    """(state, image): write the image; the rows a state has not seen are zero already"""
    along: str = "frames"
    """"frames" if partial states cover all rows of some frames, "rows" the other way round"""
    dtype: str | None = "float32"
    """default dtype of the image; None: that of the frames"""
    state_nbytes: int = 8
    """bytes of a state per pixel, for the plan"""
    scratch: int = 0
    """bytes of temporaries per pixel of a row-wise block, for the plan"""
    tile: tuple[int, int] = (0, 0)
    """bytes of a row-wise block's tile in cache, and more of them for each frame, for the plan"""
    planes: int | None = None
    """length of the image's leading axis, None for a plain image"""
    in_place: bool = False
    """whether ``chunk(pieces, start, state)`` goes on with a state of its own, overwriting it"""

    def advance(self, pieces: Iterable[Piece], start: int, state: State | None) -> State:
        """Fold more frames into a state that nobody else has; it may be overwritten."""
        if state is None:
            return self.chunk(pieces, start)
        if self.in_place:
            return self.chunk(pieces, start, state)  # type: ignore[call-arg]
        return self.combine(state, self.chunk(pieces, start))

    def image_shape(self, rows: int, cols: int) -> tuple[int, ...]:
        """Return the shape of the image for frames of ``rows`` x ``cols``."""
        return (rows, cols) if self.planes is None else (self.planes, rows, cols)

    def image_dtype(self, frames: np.dtype, dtype: Any = None) -> np.dtype:
        """Return the dtype of the image, or refuse one that cannot hold it.

        Parameters
        ----------
        frames : dtype
            Of the frames.
        dtype : dtype, optional
            What the caller asked for.

        Raises
        ------
        TypeError
            If values could be lost: only floats, and for max and min also what holds every
            value of the frames, are taken.
        """
        natural = np.dtype(self.dtype or frames).newbyteorder("=")
        if dtype is None:
            return natural
        try:
            dtype = np.dtype(dtype).newbyteorder("=")
        except TypeError:
            raise TypeError(f"dtype must be a numpy dtype, got {dtype!r}") from None
        if not (dtype.kind == "f" and dtype.itemsize <= 8):
            if self.dtype is not None:
                raise TypeError(f"dtype of {self.name} must be a float, got {dtype}")
            if dtype.kind not in "biu" or not np.can_cast(frames, dtype, "safe"):
                raise TypeError(f"dtype {dtype} cannot hold the {self.name} of {frames} frames")
        return dtype

    def image(self, state: State, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return the image of a state: always an array of its own."""
        image = np.zeros(shape, dtype) if self.along == "rows" else np.empty(shape, dtype)
        self.write(state, image)
        return image

    def write(self, state: State, image: np.ndarray) -> None:
        """Write a state's image into an array; values beyond float32 become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.finalize(state, image)


class Images:
    """The images of a running reduction, as the partial states of its steps come in.

    Parameters
    ----------
    running : bool
        Whether what comes in is the state of all steps so far instead.

    Examples
    --------
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> images = Images(maximum, (1, 2), frames.dtype)
    >>> [images.next(maximum.chunk([[frame[None]]], k)).tolist() for k, frame in enumerate(frames)]
    [[[1, 2]], [[3, 2]]]
    """

    def __init__(
        self,
        statistic: Statistic,
        shape: tuple[int, ...],
        dtype: np.dtype,
        running: bool = False,
    ) -> None:
        self._statistic, self._shape, self._dtype = statistic, shape, dtype
        self._running = running
        self._state: State | None = None
        # Rows that are done stay as they are: an image is a copy of this one, which fills up.
        self._rows = np.zeros(shape, dtype) if statistic.along == "rows" else None

    def next(self, state: State) -> np.ndarray:
        """Return the image up to the next step: always an array of its own."""
        before = self._state
        if self._rows is not None:
            new = state if before is None else {k: state[k] for k in state.keys() - before.keys()}
            self._state = state
            self._statistic.write(new, self._rows)
            return self._rows.copy()
        if before is not None and not self._running:
            state = self._statistic.combine(before, state)
        self._state = state
        return self._statistic.image(state, self._shape, self._dtype)


def _kernels() -> ModuleType:
    """Import the compiled code: half a second that only what computes should take."""
    return import_module(".kernels", __package__)


def _fold(pieces: Iterable[Piece], start: int, state: State | None = None, *, name: str) -> State:
    fold = getattr(_kernels(), f"fold_{name}")
    into = None if state is None else state[name]
    for piece in pieces:
        into = fold(piece, into)
        del piece  # or it would live on while the next is read
    assert into is not None
    return {name: into}


def _combine_with(a: State, b: State, ufunc: np.ufunc, name: str) -> State:
    return {name: _apply(ufunc, a[name], b[name])}


def _apply(ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    return ufunc(a, b, out=_kernels().leased(a.shape, dtype or a.dtype), dtype=dtype)


def _copy(state: State, image: np.ndarray, name: str) -> None:
    np.copyto(image, state[name], casting="unsafe")


def _extreme(name: str, ufunc: np.ufunc) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(_fold, name=name),
        combine=partial(_combine_with, ufunc=ufunc, name=name),
        finalize=partial(_copy, name=name),
        dtype=None,
        in_place=True,
    )


def _sum(pieces: Iterable[Piece], start: int, state: State | None = None) -> State:
    """Sum exactly: integers in 64 bits, or in two limbs; floats with their rounding errors."""
    kernels = _kernels()
    state = dict(state or {})
    count = int(state.get("count", 0))
    for piece in pieces:
        more = sum(len(block) for block in piece)
        if not state:
            state = _zero_sums(piece[0], more)
        elif "sum" in state and _itemsize(state["sum"], count + more) > state["sum"].itemsize:
            state["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}8")
        if "low" in state:
            kernels.add_limbs(piece, state["low"], state["high"])
        elif "rest" in state:
            kernels.add_floats(piece, state["sum"], state["rest"])
        else:
            kernels.add_integers(piece, state["sum"])
        count += more
        del piece  # or it would live on while the next is read
    return {**state, "count": np.array(count)}


def _zero_sums(block: np.ndarray, nframes: int) -> State:
    """Return zero sums that ``nframes`` frames like those of a block cannot overflow."""
    zeros, shape, dtype = _kernels().leased_zeros, block.shape[1:], block.dtype
    if dtype.kind == "f":
        return {"sum": zeros(shape, "f8"), "rest": zeros(shape, "f8")}
    sign = "i" if dtype.kind == "i" else "u"
    if dtype.itemsize == 8:
        return {"low": zeros(shape, "u8"), "high": zeros(shape, f"{sign}8")}
    narrow = dtype.itemsize <= 2 and nframes <= _kernels().FRAMES_IN_32_BITS
    return {"sum": zeros(shape, f"{sign}{4 if narrow else 8}")}


def _add_sums(a: State, b: State) -> State:
    count = np.asarray(a["count"] + b["count"])
    if "rest" in a:
        total, rest = _kernels().combine_sums(a["sum"], a["rest"], b["sum"], b["rest"])
        return {"sum": total, "rest": rest, "count": count}
    sums = {name: _add(a[name], b[name], int(count)) for name in a if name != "count"}
    return {**sums, "count": count}


def _add(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Add sums; those of 32 bits, which only frames of 16 bits have, are widened in time."""
    itemsize = max(_itemsize(a, count), _itemsize(b, count))
    return _apply(np.add, a, b, np.dtype(f"{a.dtype.kind}{itemsize}"))


def _itemsize(sums: np.ndarray, count: int) -> int:
    """Return the bytes that sums need with so many frames; 4 stay enough for frames of 16 bits."""
    return 4 if sums.itemsize == 4 and count <= _kernels().FRAMES_IN_32_BITS else 8


def _total(state: State) -> np.ndarray:
    """Return the sum as 64-bit integers or float64, rounded at most once."""
    if "low" in state:
        carry, low = state["low"] >> np.uint64(32), state["low"] & np.uint64(0xFFFFFFFF)
        high = state["high"] + carry.astype(state["high"].dtype)
        return high * 2.0**32 + low
    if "rest" in state:
        total, rest = state["sum"], state["rest"]
        # An infinite or NaN sum has no rounding error to mend.
        return np.where(np.isfinite(total), total + rest, total)
    return state["sum"]


@contextmanager
def _writable(image: np.ndarray) -> Iterator[np.ndarray]:
    """Give an array of an image's values that compiled code can write: it knows no float16."""
    if image.dtype != np.float16:
        yield image
    else:
        wide = np.empty(image.shape)
        yield wide
        image[...] = wide


def _finish_sum(state: State, image: np.ndarray) -> None:
    with _writable(image) as out:
        _kernels().divide(_total(state), 1.0, out)


def _finish_average(state: State, image: np.ndarray) -> None:
    with _writable(image) as out:
        _kernels().divide(_total(state), float(state["count"]), out)


def _moments(pieces: Iterable[Piece], start: int, state: State | None = None) -> State:
    """Sum small integers and their squares exactly; merge the moments of others."""
    kernels = _kernels()
    state = dict(state or {})
    for piece in pieces:
        count = np.array(sum(len(block) for block in piece))
        if piece[0].dtype.kind in "biu" and piece[0].dtype.itemsize <= 2:
            if not state:
                squares = kernels.leased_zeros(piece[0].shape[1:], "u8")
                wide = _zero_sums(piece[0], kernels.FRAMES_IN_32_BITS + 1)
                state = {**wide, "squares": squares, "count": count * 0}
            kernels.add_squares(piece, state["sum"], state["squares"])
            state["count"] = state["count"] + count
        else:
            partial_state = {"moments": kernels.block_moments(piece), "count": count}
            state = _merge_moments(state, partial_state) if state else partial_state
        del piece  # or it would live on while the next is read
    return {name: np.asarray(value) for name, value in state.items()}


def _merge_moments(a: State, b: State) -> State:
    if "squares" in a:
        return _add_sums(a, b)
    na, nb = int(a["count"]), int(b["count"])
    moments = _kernels().merge_moments(a["moments"], b["moments"], na, nb)
    return {"moments": moments, "count": np.asarray(na + nb)}


def _finish_moments(state: State, image: np.ndarray, ddof: float, root: bool) -> None:
    count = int(state["count"])
    if count <= ddof:
        image[...] = np.nan
    elif "squares" in state:
        with _writable(image) as out:
            _kernels().variance(state["sum"], state["squares"], count, ddof, root, out)
    else:
        _, _, squares, rest = state["moments"]
        found = np.maximum(np.where(np.isfinite(squares), squares + rest, squares), 0)
        found /= count - ddof
        np.copyto(image, np.sqrt(found, out=found) if root else found, casting="unsafe")


def moments(name: str, ddof: float = 0) -> Statistic:
    """Return "std" or "var" with ``count - ddof`` degrees of freedom.

    Raises
    ------
    ValueError, TypeError
        If ``ddof`` is not a number of at least 0.
    """
    if isinstance(ddof, bool | np.bool_) or not isinstance(ddof, Real):
        raise TypeError(f"ddof must be a number, got {ddof!r}")
    if not 0 <= float(ddof) < np.inf:
        raise ValueError(f"ddof must be at least 0, got {ddof!r}")
    finalize = partial(_finish_moments, ddof=float(ddof), root=name == "std")
    return Statistic(name, _moments, _merge_moments, finalize, state_nbytes=32, in_place=True)


def _percentile_band(pieces: Iterable[Piece], start: int, percentiles: tuple, plain: bool) -> State:
    piece = [block for piece in pieces for block in piece]
    nframes = sum(len(block) for block in piece)
    points = [rank_of(q, nframes) for q in percentiles]
    ranks = sorted({rank for rank, weight in points} | {r + 1 for r, weight in points if weight})
    values = dict(zip(ranks, _kernels().order_statistics(piece, ranks), strict=True))
    band = [interpolate(values[r], values.get(r + 1), weight) for r, weight in points]
    return {str(start): band[0] if plain else np.stack(band)}


def rank_of(percentile: float, nframes: int) -> tuple[int, float]:
    """Return the rank below a percentile and the weight of the next one (numpy's "linear").

    >>> rank_of(50, 5), rank_of(50, 4)
    ((2, 0.0), (1, 0.5))
    """
    position = (nframes - 1) * (percentile / 100)
    rank = min(floor(position), nframes - 1)
    return rank, position - rank


def interpolate(below: np.ndarray, above: np.ndarray | None, weight: float) -> np.ndarray:
    """Return ``below + weight * (above - below)`` in float64, by numpy's two formulas.

    64-bit integers beyond 2^53 are interpolated as fractions and rounded once.
    """
    a = below.astype(np.float64)
    if above is None or weight == 0:
        return a
    b = above.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        step = b - a
        result = a + step * weight if weight < 0.5 else b - step * (1 - weight)
    if below.dtype.itemsize == 8 and below.dtype.kind in "iu":
        large = np.maximum(np.abs(a), np.abs(b)) > 2.0**53
        part = Fraction(weight)
        result[large] = [
            float(int(x) + part * (int(y) - int(x)))
            for x, y in zip(below[large], above[large], strict=True)
        ]
    return result


def _place_rows(a: State, b: State) -> State:
    return {**a, **b}


def _finish_rows(state: State, image: np.ndarray) -> None:
    for first, band in state.items():
        image[..., int(first) : int(first) + band.shape[-2], :] = band


maximum = _extreme("max", np.maximum)
minimum = _extreme("min", np.minimum)
total = Statistic(
    "sum", _sum, _add_sums, _finish_sum, dtype="float64", state_nbytes=16, in_place=True
)
average = Statistic("average", _sum, _add_sums, _finish_average, state_nbytes=16, in_place=True)


def percentile(pctl: float | Sequence[float], name: str = "percentile") -> Statistic:
    """Return the statistic for one percentile, or for several at once.

    Parameters
    ----------
    pctl : float or sequence of float
        In [0, 100]. A sequence gives an image (len(pctl), rows, cols).

    Raises
    ------
    ValueError, TypeError
        If one is not a number in [0, 100].
    """
    plain = isinstance(pctl, str | Real) or pctl is None or np.ndim(pctl) == 0
    percentiles = tuple(check_percentile(q) for q in ([pctl] if plain else pctl))  # type: ignore
    if not percentiles:
        raise ValueError("pctl is an empty sequence, expected at least one percentile")
    planes = None if plain else len(percentiles)
    return Statistic(
        name=name,
        chunk=partial(_percentile_band, percentiles=percentiles, plain=plain),
        combine=_place_rows,
        finalize=_finish_rows,
        along="rows",
        state_nbytes=8 * (planes or 1),
        # Keys, values and, in float64, both neighbours, their difference and what lies between.
        scratch=64 * (planes or 1),
        # A tile is at most 512 KiB, or 256 pixels of all frames; samples of it are half of that.
        tile=(1 << 20, 288),
        planes=planes,
    )


def check_percentile(pctl: Any) -> float:
    """Return a percentile as a float in [0, 100]; the error names the argument."""
    if isinstance(pctl, np.ndarray) and pctl.ndim == 0:
        pctl = pctl[()]
    if isinstance(pctl, bool | np.bool_) or not isinstance(pctl, Real):
        raise TypeError(f"pctl must be a number from 0 to 100, got {pctl!r}")
    if not 0 <= float(pctl) <= 100:
        raise ValueError(f"pctl must be a number from 0 to 100, got {pctl!r}")
    return float(pctl)


std, var = moments("std"), moments("var")
median = percentile(50, name="median")

STATISTICS: dict[str, Statistic | Callable[..., Statistic]] = {
    "max": maximum,
    "min": minimum,
    "sum": total,
    "average": average,
    "std": std,
    "var": var,
    "percentile": percentile,
    "median": median,
}


def as_statistic(statistic: Any) -> Statistic:
    """Return the statistic for a name, a pair such as ("percentile", 95), or a Statistic.

    >>> as_statistic("max").name, as_statistic(("percentile", 95)).along
    ('max', 'rows')
    """
    if isinstance(statistic, Statistic):
        return statistic
    name, *parameters = statistic if isinstance(statistic, tuple) else (statistic,)
    if not isinstance(name, str) or name not in STATISTICS:
        raise ValueError(f"there is no statistic {name!r}: choose from {', '.join(STATISTICS)}")
    found = STATISTICS[name]
    if isinstance(found, Statistic):
        if parameters:
            raise TypeError(f"{name} takes no parameter, got {parameters}")
        return found
    if len(parameters) != 1:
        raise TypeError(f'{name} takes one parameter, for example ("{name}", 95)')
    return found(*parameters)
