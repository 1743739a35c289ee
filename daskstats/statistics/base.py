"""A statistic is a frozen value of three functions over states.

    state = chunk(pieces, start)      fold some frames (or rows) into a partial state
    state = combine(state, partial)   combine the states of two neighbouring ranges
    finalize(state, image)            write the image of a state into an array

A state is a few named arrays. None of the functions changes a state that it was given. For
integers a state is exact, so an image does not depend on how the series was cut. Sums of floats
carry their rounding errors along: their images do not depend on the cut either, up to a difference
in magnitude of 2^40 (float64 frames; 2^70 for float32) between the values of one pixel, and unless
sums or squares overflow float64.

A row-wise statistic (``along="rows"``) is the same algebra on the other axis: `chunk` gets all
frames of a band of rows, and its state holds that band under the number of its first row.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import NamedTuple, Protocol

import numpy as np
from dask.base import tokenize
from numpy.typing import DTypeLike

from ..arguments import MOST_FRAMES
from ..series.piece import Piece
from ..series.sparse import SparsePiece
from ..texts import shown
from .validity import Validity, can_hold, fill_pixels

State = dict[str, np.ndarray]


class Loop(Protocol):
    """A compiled loop over the frames of a piece, for some pixels at a time."""

    def run(self, first: int, last: int) -> None:
        """Pass over the pixels from ``first`` to ``last - 1``."""


class BandLoops(NamedTuple):
    """Loops over all frames of a band of rows, which can alternate with loops of others."""

    loops: list[Loop]
    state: Callable[[], State]
    """returns the state after all loops have passed over all pixels"""


class Chunk:
    """A `chunk` of this package: it never writes to the frames that it gets."""

    __call__: Callable[..., State]


@dataclass
class ReadOnly:
    """Pieces that cannot be written to, for any number of passes over them."""

    pieces: Iterable[Piece | SparsePiece]
    shape: tuple[int, ...] = ()
    """rows and columns of the frames, as soon as there was one"""

    def __iter__(self) -> Iterator[Piece | SparsePiece]:
        for each in self.pieces:
            self.shape = each.shape
            yield each if isinstance(each, SparsePiece) else each.read_only()
            del each  # or it would live on while the next is read


@dataclass(frozen=True)
class Statistic:
    """One statistic: three functions over states, which are dicts of named arrays.

    A user's own statistic is made like those of the library and is accepted wherever a name is.
    ``chunk`` gets an iterable of pieces, which are sequences of read-only arrays (frames, rows,
    cols) in native byte order, and folds them into a state; ``combine`` combines two states;
    ``finalize`` writes the image of a state into an array. None of them may change a state that it
    is given. They are sent to other processes, so they must be functions that can be pickled.

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
    """(state, state of the frames that follow) to the state of both"""
    finalize: Callable[[State, np.ndarray], object]
    """(state, image): write the image; rows that a state has not seen are zero already"""
    along: str = "frames"
    """"frames" if partial states cover all rows of some frames, "rows" the other way round"""
    dtype: str | None = "float32"
    """default dtype of the image: a float; "int64" for counts and frame numbers; None for that of
    the frames"""
    state_nbytes: int | Callable[[np.dtype, int], int] = 8
    """bytes of a state per pixel, or a function of (dtype, number of frames), for the plan"""
    scratch: int | Callable[[np.dtype], int] = 0
    """bytes of temporaries per pixel of a row-wise block, or of the frames that a task folds, or a
    function of the dtype, for the plan"""
    tile: tuple[int, int] = (0, 0)
    """bytes of a row-wise block's tile in cache, and more of them for each frame, for the plan"""
    planes: int | None = None
    """length of the image's leading axis, None for a plain image"""
    in_place: bool = False
    """whether ``chunk(pieces, start, state)`` continues a state, which it overwrites"""
    trail: Callable[[Piece, State | None, list[tuple[int, np.ndarray]]], State] | None = None
    """where the image is the state's one array: (piece, state to overwrite, [(frames, image), ...])
    to the state after the piece; each image is written after that number of its frames"""
    begin: Callable[[Piece], BandLoops | None] | None = None
    """(all frames of a band of rows) to loops over a few pixels at a time, or to None"""
    pack: Callable[[State], State] | None = None
    """(state) to a smaller one to be sent, which ``combine`` and ``finalize`` accept as well"""
    leave_out: Callable[[Validity, float | None], "Statistic"] | None = None
    """(validity, fill value) to the statistic of valid values only; see `excluding`"""
    leaves_out_nonfinite: bool = False
    """whether NaN and infinities never count, so that a pixel may have no valid value"""
    fill_value: float | None = None
    """value of the image where no value was valid; None: NaN"""
    empty: float | None = None
    """value of the image where there is no frame at all, if that is a value like others"""
    unseen: Callable[[State], np.ndarray] | None = None
    """(state) to the pixels, a bool array, where no value was valid: `write` fills them"""

    def excluding(self, validity: Validity, fill_value: float | None = None) -> "Statistic":
        """Return the statistic of the valid values at each pixel.

        Parameters
        ----------
        validity : Validity
            Values that do not count. If all count, this statistic itself is returned.
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
        if not validity and not (self.leaves_out_nonfinite and fill_value is not None):
            return self
        if self.leave_out is None:
            raise TypeError(
                f"{self.name} cannot leave out values: a Statistic of your own needs leave_out, "
                f"a function of (validity, fill_value)"
            )
        return self.leave_out(validity, fill_value)

    def advance(
        self, pieces: Iterable[Piece | SparsePiece], start: int, state: State | None
    ) -> State:
        """Fold more frames into a state that no other task uses; it may be overwritten.

        The result of another task is copied first: see `copy_state`.
        """
        if state is None:
            return self.first_state(pieces, start)
        if self.in_place:
            return self.chunk(self._guarded(pieces), start, state)
        return self.combine(state, self.chunk(self._guarded(pieces), start))

    def first_state(self, pieces: Iterable[Piece | SparsePiece], start: int) -> State:
        """Fold the first frames of a range, or a band of rows, into a state."""
        guarded = self._guarded(pieces)
        state = self.chunk(guarded, start)
        if self.along == "rows" and isinstance(guarded, ReadOnly):
            self._check_band(state, start, guarded.shape)
        return state

    def _check_band(self, state: State, start: int, shape: tuple[int, ...]) -> None:
        """Refuse a state that is no band like the frames: rows that it lacks would stay zero."""
        if list(state) != [str(start)]:
            raise ValueError(
                f"{self.name} is row-wise, so chunk must return its band of rows under the number "
                f'of its first row, {{"{start}": band}}: got the names {shown(list(state))}'
            )
        found = np.shape(state[str(start)])
        if shape and found[-2:] != shape:
            raise ValueError(
                f"{self.name} is row-wise, so chunk must return a band like its frames, of shape "
                f"{shape}: got shape {found}"
            )

    def _guarded(self, pieces: Iterable[Piece | SparsePiece]) -> Iterable[Piece | SparsePiece]:
        """Return pieces that the chunk cannot write to: the arrays may be those of the caller."""
        return pieces if isinstance(self.chunk, Chunk) else ReadOnly(pieces)

    def packed(self, state: State) -> State:
        """Return a state as it is sent to another process."""
        return state if self.pack is None else self.pack(state)

    def split(self, state: State) -> tuple[State, ...]:
        """Return the state of each image; a fused statistic has several."""
        return (state,)

    def state_size(self, frames: np.dtype, nframes: int) -> int:
        """Return the bytes of a state per pixel for ``nframes`` frames of a dtype."""
        size = self.state_nbytes
        return size(frames, nframes) if callable(size) else size

    def scratch_size(self, frames: np.dtype) -> int:
        """Return the bytes of temporaries per pixel for frames of a dtype."""
        return self.scratch(frames) if callable(self.scratch) else self.scratch

    def image_shape(self, rows: int, cols: int) -> tuple[int, ...]:
        """Return the shape of the image for frames of ``rows`` x ``cols``."""
        return (rows, cols) if self.planes is None else (self.planes, rows, cols)

    def image_dtype(self, frames: np.dtype, dtype: DTypeLike | None = None) -> np.dtype:
        """Return the dtype of the image, or refuse one that cannot hold it.

        Parameters
        ----------
        frames : dtype
            Of the frames.
        dtype : dtype, optional
            Asked for by the caller.

        Raises
        ------
        TypeError
            If values could be lost: only floats are accepted and, for max and min, dtypes that
            hold every value of the frames; for counts and frame numbers float64 and integers that
            hold 2^31 - 1.
        ValueError
            If it cannot hold the fill value.
        """
        natural = np.dtype(self.dtype or frames).newbyteorder("=")
        if natural.kind not in "biufc":  # objects cannot be in memory that is used again
            raise TypeError(f"an image is of numbers, and the dtype of {self.name} is {natural}")
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

    def __dask_tokenize__(self) -> str:
        return self._token

    @cached_property
    def _token(self) -> str:
        """Identify the statistic; computed once, because it takes 0.2 ms."""
        return tokenize(*(getattr(self, each.name) for each in fields(self)))

    def image(self, state: State, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return the image of a state, always in a new array."""
        image = np.zeros(shape, dtype) if self.along == "rows" else np.empty(shape, dtype)
        self.write(state, image)
        return image

    def write(self, state: State, image: np.ndarray) -> None:
        """Write a state's image into an array, and the fill value where no value was valid.

        Values beyond float32 become infinite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                returned = self.finalize(state, image)
            except StopIteration as error:  # it would end the loop of a caller without a word
                raise RuntimeError(f"finalize of {self.name} raised StopIteration") from error
        if isinstance(returned, np.ndarray) and not np.may_share_memory(returned, image):
            raise TypeError(
                f"finalize of {self.name} returned an array, and must write into the image that it "
                f"is given: image[...] = array"
            )
        if self.unseen is not None:
            fill_pixels(image, self.unseen(state), self.fill_value)


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" and dtype.itemsize <= 8


def copy_state(state: State | None) -> State | None:
    """Return a copy of a state, for a task that folds further frames into it.

    A task never changes the result of another: dask may keep that result (a cache, `persist`) or
    run the task again (a retry, the death of a worker), which would count frames twice. The state
    of a user's own statistic may have numbers beside arrays.
    """
    if state is None:
        return None
    return {k: each.copy() if hasattr(each, "copy") else each for k, each in state.items()}


def place_rows(a: State, b: State) -> State:
    """Combine the states of two bands of rows."""
    return {**a, **b}


def finish_rows(state: State, image: np.ndarray) -> None:
    """Write the rows of every band to their place."""
    for first, band in state.items():
        image[..., int(first) : int(first) + band.shape[-2], :] = band
