"""What an average is: a statistic is a frozen value of three functions.

    state = chunk(pieces, start)      some frames (or rows) folded into a partial state
    state = combine(state, partial)   two states of neighbouring ranges into one
    finalize(state, image)            the state's image, written into an array of the result's dtype

A state is a few named arrays. None of the functions changes a state that it was given. For
integers a state is exact, so an image does not depend on how the series was cut. Sums of floats
carry their rounding errors along, so that they do not depend on it either, short of a difference
in magnitude of 2^40 (float64 frames; 2^70 for float32) between the values of one pixel, and of
values whose sums or squares leave float64.

A row-wise statistic (``along="rows"``) is the same algebra on the other axis: `chunk` gets all
frames of a band of rows, and its state holds that band under the number of its first row.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property
from math import floor, isfinite
from numbers import Real
from typing import Any

import numpy as np
from dask.base import tokenize

from ..arguments import check_number, shown
from ..series.piece import Piece
from .validity import Validity

State = dict[str, np.ndarray]

Begun = tuple[list[Any], Callable[[], State]]
"""loops with ``run(first pixel, last pixel)``, and what returns the state when they have passed"""

# What counts and frame numbers stay below, so that their images may be of 32 bits.
MOST_FRAMES = (1 << 31) - 1


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
    >>> from daskstats.statistics import maximum
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
    scratch: int | Callable[[np.dtype], int] = 0
    """bytes of temporaries per pixel of a row-wise block, or of the frames that a task folds, for
    the plan; or a function that returns them for a dtype"""
    tile: tuple[int, int] = (0, 0)
    """bytes of a row-wise block's tile in cache, and more of them for each frame, for the plan"""
    planes: int | None = None
    """length of the image's leading axis, None for a plain image"""
    in_place: bool = False
    """whether ``chunk(pieces, start, state)`` goes on with a state of its own, overwriting it"""
    trail: Callable[[Piece, State | None, list], State] | None = None
    """where the image is the state's one array: (piece, state of one's own, [(frames, image), ...])
    to the state after the piece, having written each image after so many of its frames"""
    begin: Callable[[Piece], Begun | None] | None = None
    """(all frames of a band of rows) to what passes over them some pixels at a time, or to None"""
    pack: Callable[[State], State] | None = None
    """(state) to one of fewer bytes to be sent, which ``combine`` and ``finalize`` take as well"""
    leave_out: Callable[[Validity, Any], "Statistic"] | None = None
    """(validity, fill value) to the statistic of valid values only; see `excluding`"""
    never_counts: bool = False
    """whether there are values that do not count in any case, so that a pixel may have no other"""
    fill_value: Any = None
    """what stands in the image where no value was valid; None: NaN"""
    empty: Any = None
    """what the image has where there is no frame at all, if that is a value like others"""

    def excluding(self, validity: Validity, fill_value: Any = None) -> "Statistic":
        """Return the statistic of the valid values at each pixel.

        Parameters
        ----------
        validity : Validity
            What does not count. If every value does, this statistic itself is returned.
        fill_value : number, optional
            For pixels without a valid value. Images of floats have NaN there unless it is given;
            for images of integers that is an error.

        Raises
        ------
        TypeError
            If the statistic has no such version, or ``fill_value`` is not a number.

        Examples
        --------
        >>> from daskstats.statistics import maximum
        >>> frames = np.array([[[1, 255]], [[255, 255]]], "u1")
        >>> valid = maximum.excluding(Validity(invalid=(255,)), fill_value=0)
        >>> valid.image(valid.chunk([[frames]], 0), (1, 2), frames.dtype)
        array([[1, 0]], dtype=uint8)
        """
        if fill_value is not None and not isinstance(fill_value, Real | Decimal | np.bool_):
            raise TypeError(f"fill_value must be a number, got {fill_value!r}")
        if not validity and not (self.never_counts and fill_value is not None):
            return self
        if self.leave_out is None:
            raise TypeError(
                f"{self.name} cannot leave out values: a Statistic of your own needs leave_out, "
                f"a function of (validity, fill_value)"
            )
        return self.leave_out(validity, fill_value)

    def advance(self, pieces: Iterable[Piece], start: int, state: State | None) -> State:
        """Fold more frames into a state that nobody else has; it may be overwritten.

        The result of another task is copied first: see `copy_state`.
        """
        if state is None:
            return self.chunk(pieces, start)
        if self.in_place:
            return self.chunk(pieces, start, state)
        return self.combine(state, self.chunk(pieces, start))

    def begun(self, piece: Piece) -> Begun | None:
        """Return the loops over all frames of a band of rows, and what returns the state then.

        None where nothing is gained: `chunk` may be called for a few rows after the other.
        """
        return None if self.begin is None else self.begin(piece)

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

    def scratch_size(self, frames: np.dtype) -> int:
        """Return the bytes of temporaries per pixel for frames of a dtype."""
        return self.scratch(frames) if callable(self.scratch) else self.scratch

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
                f"fill_value {shown(self.fill_value)} cannot be held by the {dtype} image of "
                f"{self.name}"
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
    try:
        value = value if isinstance(value, bool | np.bool_) else check_number(value, "value")
    except ValueError:  # beyond float64
        return False
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(value)) or not isfinite(value))
    if dtype.kind not in "biu" or not isfinite(value) or value != floor(value):
        return False
    low, high = _limits(dtype)
    return bool(low <= value <= high)


def copy_state(state: State | None) -> State | None:
    """Return a copy of a state, for a task that folds further frames into it.

    A task never changes the result of another: dask may keep that result (a cache, `persist`), or
    run the task again (a retry, the death of a worker), which would count frames twice.
    """
    return None if state is None else {name: array.copy() for name, array in state.items()}


def _limits(dtype: np.dtype) -> tuple[int, int]:
    """Return the least and the largest value of a dtype of integers or of bool."""
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def without_effect(validity: Validity, dtype: np.dtype, nan: bool = False) -> str:
    """Return a sentence on values to leave out that frames of a dtype cannot have, "" without any.

    Floats are compared rounded to the dtype, so that only one beyond its range is without effect.

    Parameters
    ----------
    validity : Validity
        The values.
    dtype : dtype
        Of the frames.
    nan : bool
        Whether NaN was one of them.

    Examples
    --------
    >>> without_effect(Validity(invalid=(65535, 4294967295)), np.dtype("u2"))
    'invalid=4294967295 leaves out nothing: frames of uint16 hold integers from 0 to 65535'
    >>> without_effect(Validity(invalid=(-1,), saturation=70000), np.dtype("f4"))
    ''
    """
    found = [f"invalid={value}" for value in validity.invalid if not can_hold(value, dtype)]
    if dtype.kind == "f":
        held = f"numbers up to {np.finfo(dtype).max:.3g}"
    else:
        low, high = _limits(dtype)
        held = f"integers from {low} to {high}"
        found += ["invalid=nan"] if nan else []
        if validity.saturation is not None and validity.saturation > high:
            found.append(f"saturation={validity.saturation}")
    if not found:
        return ""
    leave = "leaves" if len(found) == 1 else "leave"
    return f"{' and '.join(found)} {leave} out nothing: frames of {dtype} hold {held}"


def place_rows(a: State, b: State) -> State:
    """Combine the states of two bands of rows."""
    return {**a, **b}


def finish_rows(state: State, image: np.ndarray) -> None:
    """Write the rows of every band to their place."""
    for first, band in state.items():
        image[..., int(first) : int(first) + band.shape[-2], :] = band
