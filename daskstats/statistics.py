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
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache, cached_property, partial
from importlib import import_module
from inspect import signature
from itertools import repeat
from math import floor
from numbers import Integral, Real
from types import ModuleType
from typing import Any

import numpy as np
from dask.base import tokenize

State = dict[str, np.ndarray]

Piece = list[np.ndarray]
"""arrays (frames, rows, cols) that follow one another"""

Part = tuple[int, int, State] | None
"""the first of some rows, their end, and their state; None: it comes with that of later rows"""


# Bytes of a few rows that several loops pass over before the next: small enough for a cache that
# is shared by the cores, large beside the cost of calling them.
CACHED = 2 << 20

# So many times as many rows are taken where a state is made for each part: that is more work.
ANEW = 4

# Frames that float16 is widened for at once.
FEW_FRAMES = 8

# What counts and frame numbers stay below, so that their images may be of 32 bits.
MOST_FRAMES = (1 << 31) - 1


@dataclass(frozen=True)
class Validity:
    """Which values of a frame do not count; `check_validity` makes one of a user's arguments.

    Examples
    --------
    >>> bool(Validity()), bool(Validity(invalid=(65535,)))
    (False, True)
    """

    invalid: tuple[float, ...] = ()
    """values that do not count; one that frames cannot hold never matches"""
    saturation: float | None = None
    """values at or above it do not count"""
    skipna: bool = False
    """whether NaN does not count"""

    def __bool__(self) -> bool:
        return self != Validity()


def check_validity(invalid: Any = None, saturation: Any = None, skipna: Any = False) -> Validity:
    """Return what a user's arguments leave out of each frame.

    Parameters
    ----------
    invalid : number or sequence of numbers, optional
        Values that do not count, such as 4294967295, or -1 and -2. One that the frames' dtype
        cannot hold never matches; floats are compared as numpy does, rounded to it. NaN means
        ``skipna=True``.
    saturation : number, optional
        Values at or above it do not count.
    skipna : bool
        Whether NaN does not count, instead of making its pixel NaN.

    Returns
    -------
    Validity

    Raises
    ------
    TypeError, ValueError
        If one is something else; the message names it.

    Examples
    --------
    >>> check_validity([-1, -2, float("nan")], saturation=1e6)
    Validity(invalid=(-2, -1), saturation=1000000.0, skipna=True)
    """
    if not isinstance(skipna, bool | np.bool_):
        raise TypeError(f"skipna must be True or False, got {skipna!r}")
    several = isinstance(invalid, list | tuple | set | frozenset | range | np.ndarray)
    several = several and not (isinstance(invalid, np.ndarray) and invalid.ndim == 0)
    values = () if invalid is None else invalid if several else (invalid,)
    numbers = {_check_number(value, "invalid") for value in values}
    finite = sorted(number for number in numbers if number == number)
    if saturation is not None:
        saturation = _check_number(saturation, "saturation")
        if saturation != saturation:
            raise ValueError("saturation must be a number, got nan: NaN is left out by skipna")
    return Validity(tuple(finite), saturation, bool(skipna) or len(finite) < len(numbers))


def _check_number(value: Any, name: str) -> float:
    """Return a Python int or float for any real number but a bool."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


@dataclass(frozen=True)
class Statistic:
    """One statistic: three functions over states, which are dicts of named arrays.

    A user's own is made like those that come with the library, and is taken wherever the name of
    one is. ``chunk`` gets an iterable of pieces, lists of arrays (frames, rows, cols) in native
    byte order, and folds them into a state; ``combine`` makes one state of two; ``finalize``
    writes a state's image into an array. None of them may change a state that it is given. They
    are sent to other processes, so they must be functions that can be pickled.

    Examples
    --------
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> state = maximum.chunk([[frames]], 0)
    >>> maximum.image(state, (1, 2), frames.dtype)
    array([[3, 2]], dtype=uint8)

    The number of frames in which a pixel is not zero:

    >>> def chunk(pieces, start):
    ...     blocks = [block for piece in pieces for block in piece]
    ...     return {"lit": sum(np.count_nonzero(block, axis=0) for block in blocks)}
    >>> def combine(a, b):
    ...     return {"lit": a["lit"] + b["lit"]}
    >>> def finalize(state, image):
    ...     image[...] = state["lit"]
    >>> lit = Statistic("lit", chunk, combine, finalize, dtype="int64")
    >>> both = lit.combine(lit.chunk([[frames[:1]]], 0), lit.chunk([[frames[1:]]], 1))
    >>> image = lit.image(both, (1, 2), lit.image_dtype(frames.dtype))
    >>> image
    array([[2, 1]])
    >>> bool((image == np.count_nonzero(frames, axis=0)).all())
    True
    """

    name: str
    """as in the registry and in task names"""
    chunk: Callable[..., State]
    """(pieces, index of the first frame or row) to a partial state"""
    combine: Callable[[State, State], State]
    """(state, state of what follows it) to the state of both"""
    finalize: Callable[[State, np.ndarray], None]
    """(state, image): write the image; the rows a state has not seen are zero already"""
    along: str = "frames"
    """"frames" if partial states cover all rows of some frames, "rows" the other way round"""
    dtype: str | None = "float32"
    """default dtype of the image: a float; "int64" for counts and frame numbers; None for that of
    the frames"""
    state_nbytes: int | Callable[[np.dtype, int], int] = 8
    """bytes of a state per pixel, or what gives them for (dtype, number of frames), for the plan"""
    scratch: int = 0
    """bytes of temporaries per pixel of a row-wise block, for the plan"""
    tile: tuple[int, int] = (0, 0)
    """bytes of a row-wise block's tile in cache, and more of them for each frame, for the plan"""
    planes: int | None = None
    """length of the image's leading axis, None for a plain image"""
    in_place: bool = False
    """whether ``chunk(pieces, start, state)`` goes on with a state of its own, overwriting it"""
    trail: Callable[[Piece, State | None, list], State] | None = None
    """where the image is the state's one array: (piece, state of one's own, [(frames, image), ...])
    to the state after the piece, having written each image after so many of its frames"""
    parts: Callable[[Piece, int], Iterator[Part]] | None = None
    """(piece, number of rows): what ``in_parts`` yields, for what is dear to begin anew"""
    pack: Callable[[State], State] | None = None
    """(state) to one of fewer bytes to be sent, which ``combine`` and ``finalize`` take as well"""
    leave_out: Callable[[Validity, Any], "Statistic"] | None = None
    """(validity, fill value) to the statistic of valid values only; see `excluding`"""
    fill_value: Any = None
    """what stands in the image where no value was valid; None: NaN"""
    empty: Any = None
    """what the image has where there is no frame at all, if that is a value like others"""

    def excluding(self, validity: Validity, fill_value: Any = None) -> "Statistic":
        """Return the statistic of the valid values at each pixel.

        Parameters
        ----------
        validity : Validity
            What does not count. If that is nothing, this statistic itself is returned.
        fill_value : number, optional
            For pixels without a valid value. Images of floats have NaN there unless it is given;
            for images of integers that is an error.

        Raises
        ------
        TypeError
            If the statistic has no such version, or ``fill_value`` is not a number.

        Examples
        --------
        >>> frames = np.array([[[1, 255]], [[255, 255]]], "u1")
        >>> valid = maximum.excluding(Validity(invalid=(255,)), fill_value=0)
        >>> valid.image(valid.chunk([[frames]], 0), (1, 2), frames.dtype)
        array([[1, 0]], dtype=uint8)
        """
        if fill_value is not None and not isinstance(fill_value, Real | np.bool_):
            raise TypeError(f"fill_value must be a number, got {fill_value!r}")
        if not validity:
            return self
        if self.leave_out is None:
            raise TypeError(
                f"{self.name} cannot leave out values: a Statistic of your own needs leave_out, "
                f"a function of (validity, fill_value)"
            )
        return self.leave_out(validity, fill_value)

    def advance(self, pieces: Iterable[Piece], start: int, state: State | None) -> State:
        """Fold more frames into a state that nobody else has; it may be overwritten."""
        if state is None:
            return self.chunk(pieces, start)
        if self.in_place:
            return self.chunk(pieces, start, state)
        return self.combine(state, self.chunk(pieces, start))

    def in_parts(self, piece: Piece, few: int) -> Iterator[Part]:
        """Fold all frames of a piece, a few rows at a time; others may do so in between."""
        make = self.parts or partial(chunks_in_parts, self.chunk)
        return make(piece, few)

    def packed(self, state: State) -> State:
        """Return a state as it is sent to another process."""
        return state if self.pack is None else self.pack(state)

    def split(self, state: State) -> tuple[State, ...]:
        """Return the state of each image: of several, if several are computed together."""
        return (state,)

    def state_size(self, frames: np.dtype, nframes: int) -> int:
        """Return the bytes of a state per pixel for so many frames of a dtype."""
        size = self.state_nbytes
        return size(frames, nframes) if callable(size) else size

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
            If values could be lost: only floats, and for max and min also what holds every value
            of the frames, are taken; for counts and frame numbers float64 and integers that hold
            2^31 - 1.
        ValueError
            If it cannot hold the fill value.
        """
        natural = np.dtype(self.dtype or frames).newbyteorder("=")
        try:
            dtype = natural if dtype is None else np.dtype(dtype).newbyteorder("=")
        except TypeError:
            raise TypeError(f"dtype must be a numpy dtype, got {dtype!r}") from None
        if dtype != natural:
            self._check_dtype(natural, dtype)
        if self.fill_value is not None and not can_hold(self.fill_value, dtype):
            raise ValueError(
                f"fill_value {self.fill_value!r} cannot be held by the {dtype} image of {self.name}"
            )
        return dtype

    def _check_dtype(self, natural: np.dtype, dtype: np.dtype) -> None:
        if self.dtype is None:
            if not _is_float(dtype) and not (
                dtype.kind in "biu" and np.can_cast(natural, dtype, "safe")
            ):
                raise TypeError(f"dtype {dtype} cannot hold the {self.name} of {natural} frames")
        elif natural.kind == "f":
            if not _is_float(dtype):
                raise TypeError(f"dtype of {self.name} must be a float, got {dtype}")
        elif dtype != np.float64 and (dtype.kind == "f" or not can_hold(MOST_FRAMES, dtype)):
            raise TypeError(
                f"dtype of {self.name} must hold numbers of frames: an integer of at least "
                f"32 bits or float64, got {dtype}"
            )

    def __dask_tokenize__(self) -> Any:
        return self._token

    @cached_property
    def _token(self) -> str:
        """Tell the statistic from others; to find out takes dask 0.2 ms."""
        return tokenize(*(getattr(self, each.name) for each in fields(self)))

    def image(self, state: State, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return the image of a state: always an array of its own."""
        image = np.zeros(shape, dtype) if self.along == "rows" else np.empty(shape, dtype)
        self.write(state, image)
        return image

    def write(self, state: State, image: np.ndarray) -> None:
        """Write a state's image into an array; values beyond float32 become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.finalize(state, image)


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" and dtype.itemsize <= 8


def can_hold(value: Any, dtype: np.dtype) -> bool:
    """Whether a number can stand in an image: for floats short of becoming infinite."""
    if dtype.kind == "f":
        try:
            with np.errstate(over="ignore"):
                return bool(np.isfinite(dtype.type(value)) or not np.isfinite(value))
        except OverflowError:
            return False
    if dtype.kind not in "biu" or not np.isfinite(value) or value != floor(value):
        return False
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(low <= value <= high)


def chunks_in_parts(chunk: Callable[..., State], piece: Piece, few: int) -> Iterator[Part]:
    """Yield the state of some rows of a piece after the other; what is begun anew takes more."""
    height, several = piece[0].shape[1], few * ANEW
    for first in range(0, height, several):
        last = min(first + several, height)
        rows = [block[:, first:last] for block in piece]
        yield first, last, chunk(_few_frames(rows), 0)
        # To stay in step with others.
        yield from repeat(None, ANEW - 1)


def rows_in_cache(piece: Piece) -> int:
    """Return how many rows of a piece are passed over by several loops before the next ones."""
    return max(1, CACHED // sum(block[:, :1].nbytes for block in piece))


def _run_in_parts(loops: Sequence[Any], piece: Piece, few: int) -> Iterator[None]:
    """Run compiled loops over a few rows at a time."""
    rows, cols = piece[0].shape[1:]
    for first in range(0, rows, few):
        for loop in loops:
            loop.run(first * cols, min(first + few, rows) * cols)
        yield


def _few_frames(piece: Piece) -> Iterable[Piece]:
    """Return all frames as one piece, or a few at a time where a fold would copy them."""
    if piece[0].dtype != np.float16:
        return [piece]
    return (
        [block[edge : edge + FEW_FRAMES]]
        for block in piece
        for edge in range(0, len(block), FEW_FRAMES)
    )


@cache
def _kernels() -> ModuleType:
    """Import the compiled code: half a second that only what computes should take."""
    return import_module(".kernels", __package__)


def _valid(validity: Validity | None, block: np.ndarray, counts: np.ndarray | None) -> Any:
    """Return what compiled code needs to leave values out and count the others, or None."""
    if validity is None:
        return None
    keys = _kernels().Keys(block.dtype, wide=True)
    counts = np.empty(0, "u4") if counts is None else counts
    return _kernels().Valid(keys.left_out(validity), keys, counts)


def _counts(block: np.ndarray) -> np.ndarray:
    """Return zero counts of frames: 32 bits, as many as there can be."""
    return _kernels().leased_zeros(block.shape[1:], "u4")


def _fold(
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
        if validity is not None and not state:
            state["valid"] = _counts(piece[0])
        counts = state.get("valid")
        for name in names:
            valid = _valid(validity, piece[0], counts)
            state[name] = getattr(_kernels(), f"fold_{name}")(piece, state.get(name), valid)
            counts = None  # the next one need not count again
        del piece  # or it would live on while the next is read
    return state


def _extremes_in_parts(
    piece: Piece, few: int, *, names: tuple[str, ...], validity: Validity | None = None
) -> Iterator[Part]:
    if piece[0].dtype == np.float16:
        chunk = partial(_fold, names=names, validity=validity)
        yield from chunks_in_parts(chunk, piece, few)
        return
    kernels, counted = _kernels(), validity is not None
    state = {name: kernels.begin_extreme(piece[0], name == "min", counted) for name in names}
    valid = [_valid(validity, piece[0], None) for _ in names]
    if counted:
        state["valid"] = _counts(piece[0])
        valid[0] = _valid(validity, piece[0], state["valid"])
    every = zip(names, valid, strict=True)
    loops = [kernels.Extremes(piece, state[name], name == "min", own) for name, own in every]
    yield from _run_in_parts(loops, piece, few)
    yield 0, piece[0].shape[1], state


def _leave_trail(piece: Piece, state: State | None, images: list, *, name: str) -> State:
    """Fold an extreme, and write what it is after some of the frames."""
    fold = getattr(_kernels(), f"fold_{name}")
    return {name: fold(piece, state[name] if state else None, None, images)}


UFUNCS = {"max": np.maximum, "min": np.minimum, "valid": np.add}


def _combine_extremes(a: State, b: State) -> State:
    return {name: _apply(UFUNCS[name], a[name], b[name]) for name in a}


def _apply(ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    return ufunc(a, b, out=_kernels().leased(a.shape, dtype or a.dtype), dtype=dtype)


def _copy(state: State, image: np.ndarray, name: str) -> None:
    np.copyto(image, state[name], casting="unsafe")


def _finish_valid(state: State, image: np.ndarray, finish: Callable, fill: Any) -> None:
    """Write an image, and what stands for a value where no frame was valid."""
    finish(state, image)
    fill_empty(image, state["valid"] == 0, fill)


def fill_empty(image: np.ndarray, empty: np.ndarray, fill: Any) -> None:
    """Write the fill value, NaN if it is None, to the pixels of an image that have no value.

    Raises
    ------
    ValueError
        If there are such pixels in an image of integers and no fill value was given.
    """
    count = np.count_nonzero(empty)
    if count and fill is None and image.dtype.kind != "f":
        raise ValueError(
            f"{count} pixels have no valid value, and an image of {image.dtype} has no NaN: "
            f"give a fill_value, or a float as dtype"
        )
    if count:
        image[..., empty] = np.nan if fill is None else fill


def _finisher(finish: Callable, validity: Validity | None, fill: Any) -> Callable:
    if validity is None:
        return finish
    return partial(_finish_valid, finish=finish, fill=fill)


def _frame_size(frames: np.dtype, nframes: int, arrays: int, counted: bool) -> int:
    return arrays * frames.itemsize + 4 * counted


def _extreme(name: str, validity: Validity | None = None, fill: Any = None) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(_fold, names=(name,), validity=validity),
        combine=_combine_extremes,
        finalize=_finisher(partial(_copy, name=name), validity, fill),
        dtype=None,
        state_nbytes=partial(_frame_size, arrays=1, counted=validity is not None),
        in_place=True,
        parts=partial(_extremes_in_parts, names=(name,), validity=validity),
        trail=partial(_leave_trail, name=name) if validity is None else None,
        leave_out=partial(_extreme, name),
        fill_value=fill,
    )


def _range(validity: Validity | None = None, fill: Any = None) -> Statistic:
    return Statistic(
        name="range",
        chunk=partial(_fold, names=("max", "min"), validity=validity),
        combine=_combine_extremes,
        finalize=_finisher(_finish_range, validity, fill),
        dtype="float64",
        state_nbytes=partial(_frame_size, arrays=2, counted=validity is not None),
        in_place=True,
        parts=partial(_extremes_in_parts, names=("max", "min"), validity=validity),
        leave_out=_range,
        fill_value=fill,
    )


def _finish_range(state: State, image: np.ndarray) -> None:
    """Subtract in float64, integers without a sign: their difference may need all of 64 bits."""
    high, low = state["max"], state["min"]
    if high.dtype.kind == "f":
        np.copyto(image, high.astype("f8") - low, casting="unsafe")
    else:
        unsigned = f"u{high.itemsize}"
        np.copyto(image, high.view(unsigned) - low.view(unsigned), casting="unsafe")


def _sum(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    validity: Validity | None = None,
) -> State:
    """Sum exactly: integers in 64 bits, or in two limbs; floats with their rounding errors."""
    kernels = _kernels()
    state = dict(state or {})
    count = int(state.get("count", 0))
    for piece in pieces:
        more = sum(len(block) for block in piece)
        if not state:
            state = _zero_sums(piece[0], more, validity)
        elif "sum" in state and _itemsize(state["sum"], count + more) > state["sum"].itemsize:
            state["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}8")
        valid = _valid(validity, piece[0], state.get("valid"))
        if "low" in state:
            kernels.add_limbs(piece, state["low"], state["high"], valid)
        elif "rest" in state:
            kernels.add_floats(piece, state["sum"], state["rest"], valid)
        else:
            kernels.Integers(piece, state["sum"], valid).run(0, state["sum"].size)
        count += more
        del piece  # or it would live on while the next is read
    return {**state, "count": np.array(count)}


def _sums_in_parts(piece: Piece, few: int, *, validity: Validity | None = None) -> Iterator[Part]:
    if piece[0].dtype.kind == "f" or piece[0].dtype.itemsize == 8:
        yield from chunks_in_parts(partial(_sum, validity=validity), piece, few)
        return
    nframes = sum(len(block) for block in piece)
    state = _zero_sums(piece[0], nframes, validity)
    valid = _valid(validity, piece[0], state.get("valid"))
    yield from _run_in_parts([_kernels().Integers(piece, state["sum"], valid)], piece, few)
    yield 0, piece[0].shape[1], {**state, "count": np.array(nframes)}


def _zero_sums(block: np.ndarray, nframes: int, validity: Validity | None = None) -> State:
    """Return zero sums that ``nframes`` frames like those of a block cannot overflow."""
    zeros, shape, dtype = _kernels().leased_zeros, block.shape[1:], block.dtype
    valid = {} if validity is None else {"valid": _counts(block)}
    if dtype.kind == "f":
        return {"sum": zeros(shape, "f8"), "rest": zeros(shape, "f8"), **valid}
    sign = "i" if dtype.kind == "i" else "u"
    if dtype.itemsize == 8:
        return {"low": zeros(shape, "u8"), "high": zeros(shape, f"{sign}8"), **valid}
    narrow = dtype.itemsize <= 2 and nframes <= _kernels().FRAMES_IN_32_BITS
    return {"sum": zeros(shape, f"{sign}{4 if narrow else 8}"), **valid}


def _sums_size(frames: np.dtype, nframes: int, counted: bool) -> int:
    if frames.kind == "f" or frames.itemsize == 8:
        return 16 + 4 * counted
    return (4 if frames.itemsize <= 2 and nframes <= 1 << 16 else 8) + 4 * counted


def _moments_size(frames: np.dtype, nframes: int, counted: bool) -> int:
    return (16 if _is_small(frames) else 32) + 4 * counted


def _add_sums(a: State, b: State) -> State:
    count = np.asarray(a["count"] + b["count"])
    counts = {"count": count, **_add_counts(a, b)}
    if "rest" in a:
        total, rest = _kernels().combine_sums(a["sum"], a["rest"], b["sum"], b["rest"])
        return {"sum": total, "rest": rest, **counts}
    names = [name for name in a if name not in {*counts, "squares"}]
    sums = {name: _add(a[name], b[name], int(count)) for name in names}
    if "squares" in a:
        sums["squares"] = _apply(np.add, a["squares"], b["squares"], np.dtype("u8"))
    return {**sums, **counts}


def _pack_squares(state: State) -> State:
    """Make exact sums of small integers and their squares as narrow as what they hold."""
    if "squares" not in state:
        return state
    narrow = dict(state)
    if int(state["count"]) <= _kernels().FRAMES_IN_32_BITS:
        narrow["sum"] = state["sum"].astype(f"{state['sum'].dtype.kind}4", copy=False)
    if state["squares"].max() < 1 << 32:
        narrow["squares"] = state["squares"].astype("u4", copy=False)
    return narrow


def _add_counts(a: State, b: State) -> State:
    return {"valid": _apply(np.add, a["valid"], b["valid"])} if "valid" in a else {}


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
        _kernels().divide(_total(state), _divisor(state), out)


def _divisor(state: State) -> Any:
    return state["valid"] if "valid" in state else float(state["count"])


def _summed(
    name: str, dtype: str, finish: Callable, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    return Statistic(
        name=name,
        chunk=partial(_sum, validity=validity),
        combine=_add_sums,
        finalize=_finisher(finish, validity, fill),
        dtype=dtype,
        state_nbytes=partial(_sums_size, counted=validity is not None),
        in_place=True,
        parts=partial(_sums_in_parts, validity=validity),
        leave_out=partial(_summed, name, dtype, finish),
        fill_value=fill,
    )


def _moments(
    pieces: Iterable[Piece],
    start: int,
    state: State | None = None,
    *,
    validity: Validity | None = None,
    extremes: tuple[str, ...] = (),
) -> State:
    """Sum small integers and their squares exactly; merge the moments of others."""
    state = dict(state or {})
    for piece in pieces:
        if _is_small(piece[0].dtype):
            state, squares = _squares(piece, state, validity, extremes)
            squares.run(0, state["sum"].size)
            del squares
        else:
            more = _block_moments(piece, validity)
            state = _merge_moments(state, more) if state else more
        del piece  # or it would live on while the next is read
    return state


def _moments_in_parts(
    piece: Piece, few: int, *, validity: Validity | None, extremes: tuple[str, ...] = ()
) -> Iterator[Part]:
    if not _is_small(piece[0].dtype):
        chunk = partial(_moments, validity=validity, extremes=extremes)
        yield from chunks_in_parts(chunk, piece, few)
        return
    state, squares = _squares(piece, {}, validity, extremes)
    yield from _run_in_parts([squares], piece, few)
    yield 0, piece[0].shape[1], state


def _squares(
    piece: Piece, state: State, validity: Validity | None, extremes: Sequence[str]
) -> tuple[State, Any]:
    """Return the state after a piece, and what does add it."""
    kernels, fresh = _kernels(), not state
    if fresh:
        shape, sign = piece[0].shape[1:], "i" if piece[0].dtype.kind == "i" else "u"
        state = {"sum": kernels.leased(shape, f"{sign}8"), "squares": kernels.leased(shape, "u8")}
        state["count"] = np.array(0)
        if validity is not None:
            state["valid"] = _counts(piece[0])
        for name in extremes:
            state[name] = kernels.begin_extreme(piece[0], name == "min", False)
    valid = _valid(validity, piece[0], state.get("valid"))
    high, low = state.get("max"), state.get("min")
    adder = kernels.Squares(piece, state["sum"], state["squares"], valid, high, low, fresh)
    count = np.asarray(state["count"] + sum(len(block) for block in piece))
    return {**state, "count": count}, adder


def _block_moments(piece: Piece, validity: Validity | None) -> State:
    counts = {} if validity is None else {"valid": _counts(piece[0])}
    valid = _valid(validity, piece[0], counts.get("valid"))
    moments = _kernels().block_moments(piece, valid)
    return {"moments": moments, "count": np.array(sum(len(block) for block in piece)), **counts}


def _merge_moments(a: State, b: State) -> State:
    if "squares" in a:
        return _add_sums(a, b)
    moments = _kernels().merge_moments(a["moments"], b["moments"], _numbers(a), _numbers(b))
    return {"moments": moments, "count": np.asarray(a["count"] + b["count"]), **_add_counts(a, b)}


def _numbers(state: State) -> Any:
    """Return how many frames count: at each pixel, or at all of them."""
    return state["valid"] if "valid" in state else int(state["count"])


def _finish_moments(state: State, image: np.ndarray, ddof: float, root: bool) -> None:
    counts = _numbers(state)
    if "squares" in state:
        with _writable(image) as out:
            _kernels().variance(state["sum"], state["squares"], counts, ddof, root, out)
        return
    _, _, squares, rest = state["moments"]
    found = np.maximum(np.where(np.isfinite(squares), squares + rest, squares), 0)
    freedom = counts - ddof
    found /= np.where(freedom > 0, freedom, np.nan)
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
    return _deviation(name, float(ddof))


def _deviation(
    name: str, ddof: float, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    finish = partial(_finish_moments, ddof=ddof, root=name == "std")
    return Statistic(
        name=name,
        chunk=partial(_moments, validity=validity),
        combine=_merge_moments,
        finalize=_finisher(finish, validity, fill),
        state_nbytes=partial(_moments_size, counted=validity is not None),
        in_place=True,
        parts=partial(_moments_in_parts, validity=validity),
        pack=_pack_squares,
        leave_out=partial(_deviation, name, ddof),
        fill_value=fill,
    )


def _percentile_band(pieces: Iterable[Piece], start: int, parts: Callable, several: bool) -> State:
    """Find percentiles in one loop over all pixels, or in several that take turns."""
    piece = [block for piece in pieces for block in piece]
    few = rows_in_cache(piece) if several else piece[0].shape[1]
    *_, (_, _, state) = parts(piece, few)
    return {str(start): state["0"]}


def _percentiles_in_parts(
    piece: Piece, few: int, percentiles: tuple, plain: bool
) -> Iterator[Part]:
    nframes = sum(len(block) for block in piece)
    points = [rank_of(q, nframes) for q in percentiles]
    ranks = sorted({rank for rank, weight in points} | {r + 1 for r, weight in points if weight})
    found = _kernels().OrderStatistics(piece, ranks)
    yield from _run_in_parts([found], piece, few)
    values = dict(zip(ranks, found.values(), strict=True))
    band = [interpolate(values[r], values.get(r + 1), weight) for r, weight in points]
    yield 0, piece[0].shape[1], {"0": band[0] if plain else np.stack(band)}


def rank_of(percentile: float, nframes: int) -> tuple[int, float]:
    """Return the rank below a percentile and the weight of the next one (numpy's "linear").

    >>> rank_of(50, 5), rank_of(50, 4)
    ((2, 0.0), (1, 0.5))
    """
    position = (nframes - 1) * (percentile / 100)
    rank = min(floor(position), nframes - 1)
    return rank, position - rank


def interpolate(
    below: np.ndarray, above: np.ndarray | None, weight: float | np.ndarray
) -> np.ndarray:
    """Return ``below + weight * (above - below)`` in float64, by numpy's two formulas.

    64-bit integers beyond 2^53 are interpolated as fractions and rounded once.
    """
    if above is None or (np.ndim(weight) == 0 and weight == 0):
        return below.astype(np.float64)
    result = _kernels().interpolate(below, above, weight)
    if below.dtype.itemsize == 8 and below.dtype.kind in "iu":
        _interpolate_large(below, above, weight, result)
    return result


def _interpolate_large(
    below: np.ndarray, above: np.ndarray, weight: float | np.ndarray, result: np.ndarray
) -> None:
    a, b = below.astype(np.float64), above.astype(np.float64)
    large = np.maximum(np.abs(a), np.abs(b)) > 2.0**53
    weights = np.broadcast_to(weight, large.shape)[large]
    result[large] = [
        float(int(x) + Fraction(part) * (int(y) - int(x)))
        for x, y, part in zip(below[large], above[large], weights, strict=True)
    ]


def _valid_percentiles_in_parts(
    piece: Piece, few: int, percentiles: tuple, plain: bool, validity: Validity, fill: Any
) -> Iterator[Part]:
    """Find percentiles among the valid values of each pixel, whose number differs."""
    kernels = _kernels()
    counts = np.zeros(piece[0].shape[1:], "u4")
    wide, keys = _valid(validity, piece[0], counts), kernels.Keys(piece[0].dtype)
    valid = kernels.Valid(keys.left_out(validity), keys, counts)
    found = [kernels.ValidPercentile(piece, q, valid, validity.skipna) for q in percentiles]
    if piece[0].dtype == np.float16:  # which is widened to be counted
        kernels.count_valid(piece, wide)
        loops: list[Any] = found
    else:
        loops = [kernels.Count(piece, wide), *found]
    yield from _run_in_parts(loops, piece, few)
    planes = [interpolate(*each.neighbours()) for each in found]
    band = planes[0] if plain else np.stack(planes)
    fill_empty(band, counts == 0, fill)
    yield 0, len(counts), {"0": band}


def covers(fold: Statistic, other: Statistic, frames: np.dtype) -> bool:
    """Whether the state of a frame-wise statistic is enough to finish another.

    >>> covers(std, average, np.dtype("u2")), covers(std, average, np.dtype("f4"))
    (True, False)
    """
    one, two = _folding(fold), _folding(other)
    if one == two:
        return True
    if not (_is_small(frames) and one[0] is _moments):
        return False
    if one[1]["validity"] != two[1].get("validity"):
        return False
    return two[0] in (_sum, _moments) or (
        two[0] is _fold and set(two[1]["names"]) <= set(one[1].get("extremes", ()))
    )


def _folding(statistic: Statistic) -> tuple[Any, dict]:
    """Return what folds the frames, and how; two that are equal have the same state."""
    chunk = statistic.chunk
    if not isinstance(chunk, partial) or chunk.args:
        return chunk, {}
    return chunk.func, chunk.keywords


def _is_small(frames: np.dtype) -> bool:
    """Whether frames are of integers whose squares are summed exactly."""
    return frames.kind in "biu" and frames.itemsize <= 2


def joined(folds: Sequence[Statistic], frames: np.dtype) -> list[Statistic]:
    """Return as many or fewer statistics whose states are enough to finish the same ones.

    Extremes of small integers are found while their squares are summed, which reads them once.

    >>> [fold.name for fold in joined([maximum, std], np.dtype("u2"))]
    ['std-max']
    """
    moments = [fold for fold in folds if _folding(fold) == (_moments, {"validity": None})]
    extremes = [
        fold
        for fold in folds
        if _folding(fold)[0] is _fold and _folding(fold)[1]["validity"] is None
    ]
    if not (_is_small(frames) and moments and extremes):
        return list(folds)
    both = [*moments, *extremes]
    names = sorted({name for fold in extremes for name in _folding(fold)[1]["names"]})
    options: dict[str, Any] = {"validity": None, "extremes": tuple(names)}
    one = Statistic(
        name="-".join(fold.name for fold in both),
        chunk=partial(_moments, **options),
        combine=_merge_with_extremes,
        finalize=_finish_sum,
        state_nbytes=partial(_joined_size, extremes=len(names)),
        in_place=True,
        parts=partial(_moments_in_parts, **options),
        pack=_pack_squares,
    )
    return [one, *(fold for fold in folds if fold not in both)]


def _merge_with_extremes(a: State, b: State) -> State:
    names = [name for name in a if name in ("max", "min")]
    sums, others = ({name: state[name] for name in state if name not in names} for state in (a, b))
    return {**_add_sums(sums, others), **_combine_extremes({name: a[name] for name in names}, b)}


def _joined_size(frames: np.dtype, nframes: int, extremes: int) -> int:
    return _moments_size(frames, nframes, False) + extremes * frames.itemsize


def place_rows(a: State, b: State) -> State:
    """Combine the states of two bands of rows."""
    return {**a, **b}


def finish_rows(state: State, image: np.ndarray) -> None:
    """Write the rows of every band to their place."""
    for first, band in state.items():
        image[..., int(first) : int(first) + band.shape[-2], :] = band


maximum, minimum = _extreme("max"), _extreme("min")
total = _summed("sum", "float64", _finish_sum)
average = _summed("average", "float32", _finish_average)


def percentile(pctl: float | Sequence[float], *, name: str = "percentile") -> Statistic:
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
    percentiles = tuple(check_percentile(q) for q in ([pctl] if plain else pctl))  # type: ignore[union-attr]
    if not percentiles:
        raise ValueError("pctl is an empty sequence, expected at least one percentile")
    return _percentiles(name, percentiles, plain)


def _percentiles(
    name: str,
    percentiles: tuple,
    plain: bool,
    validity: Validity | None = None,
    fill: Any = None,
) -> Statistic:
    planes = 1 if plain else len(percentiles)
    parts, loops = partial(_percentiles_in_parts, percentiles=percentiles, plain=plain), 1
    # Keys, values and, in float64, both neighbours, their difference and what lies between.
    scratch = 64 * planes
    if validity is not None:
        parts = partial(
            _valid_percentiles_in_parts,
            percentiles=percentiles,
            plain=plain,
            validity=validity,
            fill=fill,
        )
        loops = planes
        # The same, ranks and weights; counts.
        scratch = 80 * planes + 8
    return Statistic(
        name=name,
        chunk=partial(_percentile_band, parts=parts, several=validity is not None),
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        state_nbytes=8 * planes,
        scratch=scratch,
        # A tile is at most 512 KiB, or 256 pixels of all frames; samples of it are half of that.
        tile=(loops << 20, loops * 288),
        planes=None if plain else planes,
        parts=parts,
        leave_out=partial(_percentiles, name, percentiles, plain),
        fill_value=fill,
    )


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
            shape, keys = piece[0].shape[1:], _kernels().Keys(piece[0].dtype, wide=True)
            state["index"] = _kernels().leased(shape, "i8")
            state["index"][...] = -1
            state["key"] = _kernels().leased_zeros(shape, keys.unsigned)
        valid = _valid(validity, piece[0], None)
        getattr(_kernels(), f"fold_{name}")(piece, start, state["key"], state["index"], valid)
        start += sum(len(block) for block in piece)
        del piece  # or it would live on while the next is read
    return state


def _combine_args(a: State, b: State) -> State:
    later = (b["index"] >= 0) & ((b["key"] > a["key"]) | (a["index"] < 0))
    return {name: np.where(later, b[name], a[name]) for name in a}


def _finish_arg(state: State, image: np.ndarray, fill: Any) -> None:
    _copy(state, image, "index")
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
            state["count"] = _counts(piece[0])
        keys = _kernels().Keys(piece[0].dtype, wide=True)
        arcs = keys.left_out(validity)
        if threshold is not None:
            arcs = arcs + keys.not_above(threshold)
        _kernels().count_valid(piece, _kernels().Valid(arcs, keys, state["count"]))
        del piece  # or it would live on while the next is read
    return state


def _add_counted(a: State, b: State) -> State:
    return {"count": np.asarray(np.add(a["count"], b["count"]))}


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
        finalize=partial(_copy, name="count"),
        dtype="int64",
        state_nbytes=4,
        in_place=True,
        leave_out=partial(_counter, name, threshold),
        empty=0,
    )


def count_above(threshold: float) -> Statistic:
    """Return the statistic that counts the frames in which a pixel is larger than a threshold.

    Floats are compared with it as numpy does, rounded to their dtype; NaN is not larger.

    Raises
    ------
    TypeError, ValueError
        If the threshold is not a number.
    """
    number = _check_number(threshold, "threshold")
    if number != number:
        raise ValueError("threshold must be a number, got nan")
    return _counter("count_above", number)


def _clipped_band(
    pieces: Iterable[Piece],
    start: int,
    sigma: float,
    maxiters: int | None,
    validity: Validity,
    fill: Any,
) -> State:
    kernels, piece = _kernels(), [block for piece in pieces for block in piece]
    keys = kernels.Keys(piece[0].dtype, wide=True)
    arcs = keys.left_out(validity) + keys.not_finite
    band = kernels.clipped_average(piece, arcs, keys, sigma, maxiters)
    if fill is not None:
        fill_empty(band, np.isnan(band), fill)
    return {str(start): band}


def clipped_average(sigma: float = 3, maxiters: int | None = 5) -> Statistic:
    """Return the mean without outliers: the sigma-clipped mean of each pixel.

    What is further than ``sigma`` standard deviations from the median is left out, again and
    again, as ``astropy.stats.sigma_clipped_stats`` does along the frames with its default centre
    and deviation. As there, NaN and the infinities are left out from the start, ``skipna`` or
    not: leaving out what does not belong is what is asked for.

    Parameters
    ----------
    sigma : float
        More than 0.
    maxiters : int or None
        Rounds at most, at least 1; None: until nothing is left out any more.

    Raises
    ------
    ValueError, TypeError
        If one is something else.
    """
    number = _check_number(sigma, "sigma")
    if not 0 < number < np.inf:
        raise ValueError(f"sigma must be more than 0, got {sigma!r}")
    if maxiters is not None:
        if isinstance(maxiters, bool | np.bool_) or not isinstance(maxiters, Integral):
            raise TypeError(f"maxiters must be an integer or None, got {maxiters!r}")
        if maxiters < 1:
            raise ValueError(f"maxiters must be at least 1, or None, got {maxiters}")
    return _clipped(float(number), None if maxiters is None else int(maxiters))


def _clipped(
    sigma: float, maxiters: int | None, validity: Validity | None = None, fill: Any = None
) -> Statistic:
    chunk = partial(
        _clipped_band,
        sigma=sigma,
        maxiters=maxiters,
        validity=validity or Validity(),
        fill=fill,
    )
    return Statistic(
        name="clipped_average",
        chunk=chunk,
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        scratch=16,
        # The tile of order statistics, and three times 8 MiB, or 256 pixels of all frames: a
        # group of pixels that float16 was widened for, what is left of it, and of that again.
        tile=(25 << 20, 288 + 3 * 256 * 8),
        leave_out=partial(_clipped, sigma, maxiters),
        fill_value=fill,
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
    "range": _range(),
    "argmax": _argument("argmax"),
    "argmin": _argument("argmin"),
    "count": _counter("count"),
    "count_above": count_above,
    "clipped_average": clipped_average,
}


# Parameters that an error shows.
EXAMPLES = {"percentile": "95", "count_above": "1000", "clipped_average": "3, 5"}


def as_statistic(statistic: Any) -> Statistic:
    """Return the statistic for a name, a tuple such as ("percentile", 95), or a Statistic.

    Raises
    ------
    ValueError
        If there is no statistic of that name.
    TypeError
        If it takes other parameters.

    Examples
    --------
    >>> as_statistic("max").name, as_statistic(("percentile", 95)).along
    ('max', 'rows')
    """
    if isinstance(statistic, Statistic):
        return statistic
    name, *parameters = statistic if isinstance(statistic, tuple) and statistic else (statistic,)
    if not isinstance(name, str) or name not in STATISTICS:
        raise ValueError(f"there is no statistic {name!r}: choose from {', '.join(STATISTICS)}")
    found = STATISTICS[name]
    if isinstance(found, Statistic):
        if parameters:
            raise TypeError(f"{name} takes no parameter, got {parameters}")
        return found
    return found(*_check_parameters(name, found, parameters))


def _check_parameters(name: str, make: Callable, parameters: list) -> list:
    """Return the parameters of a statistic, or refuse a wrong number of them."""
    expected = [
        parameter
        for parameter in signature(make).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    least = sum(parameter.default is parameter.empty for parameter in expected)
    if not least <= len(parameters) <= len(expected):
        names = ", ".join(str(parameter).partition(":")[0] for parameter in expected)
        raise TypeError(
            f"{name} takes the parameters ({names}), got {len(parameters)} of them: "
            f'for example ("{name}", {EXAMPLES[name]})'
        )
    return parameters
