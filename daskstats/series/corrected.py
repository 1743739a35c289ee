"""Corrected frames: an image subtracted from each of them, and each of them flipped."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from dask.array import Array, from_array
from dask.base import tokenize

from ..memory.pool import frame_pool
from .base import Cut, CutSource, Source
from .daskarrays import DaskSource
from .flips import UNFLIPPED, Flip, check_flip
from .foreign import is_plain, refusal
from .orders import in_c_order
from .selection import select

LeftOut = Callable[[np.ndarray], np.ndarray]
"""(values of the file) to a bool array, True where a value does not count"""

# The dtype of integers less integers: one that holds the difference of any two of 8 to 32 bits.
WIDER = {1: "i2", 2: "i4", 4: "i8", 8: "i8"}


@dataclass(frozen=True, eq=False)
class Dark:
    """An image to subtract from frames; `check_dark` makes one."""

    image: np.ndarray
    """(rows, cols) as in the file, of the dtype of the differences"""
    limits: tuple[int, int] | None
    """the least and the largest value of a frame that can be subtracted from; None: all can"""
    left_out: LeftOut | None
    """finds the values that do not count, which become `mark_of` the dtype"""

    def subtract(self, frame: np.ndarray, image: np.ndarray, out: np.ndarray) -> None:
        """Write the difference of some rows of a frame and the same rows of the image."""
        if frame.shape != image.shape:  # which numpy might stretch
            raise ValueError(f"a frame has shape {frame.shape}, and its dark {image.shape}")
        left = None if self.left_out is None else self.left_out(frame)
        self._check(frame, left)
        with np.errstate(invalid="ignore", over="ignore"):
            np.copyto(out, frame, casting="unsafe")
            out -= image
        if left is not None:
            _check_mark(out, left)
            np.copyto(out, mark_of(out.dtype), where=left)

    def _check(self, frame: np.ndarray, left: np.ndarray | None) -> None:
        """Refuse values that count, and are beyond the limits."""
        if self.limits is None:
            return
        low, high = self.limits
        outside = (frame < low) | (frame > high)
        if left is not None:
            outside &= ~left
        if outside.any():
            raise ValueError(
                f"a frame has the value {frame[outside][0]}, and {self.image.dtype} holds "
                f"differences from the dark of values from {low} to {high} only: leave such values "
                f"out with invalid or saturation"
            )


def mark_of(dtype: np.dtype) -> float:
    """Return the value of a difference that does not count: the least of its dtype.

    >>> mark_of(np.dtype("i2")), mark_of(np.dtype("f4")) < -3e38
    (-32768, True)
    """
    return float(np.finfo(dtype).min) if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _check_mark(difference: np.ndarray, left: np.ndarray) -> None:
    """Refuse a difference that counts and is the mark; integers cannot have one."""
    mark = mark_of(difference.dtype)
    if difference.dtype.kind == "f" and ((difference == mark) & ~left).any():
        raise ValueError(f"a value less the dark is {mark}, the mark of values that do not count")


class CorrectedSource(CutSource):
    """The frames of another series less a dark image, and then flipped.

    Examples
    --------
    >>> from .arrays import ArraySource
    >>> from .flips import FLIPS
    >>> source = ArraySource(np.array([[[1, 2], [3, 4]]], "u1"))
    >>> dark = check_dark(np.array([[2, 0], [0, 0]]), source)
    >>> corrected = CorrectedSource(source, dark, FLIPS["h"])
    >>> corrected
    <CorrectedSource: 1 frames of 2 x 2 int16>
    >>> corrected.read(0, 1, 0, 2)[0].tolist()
    [[[3, 4], [-1, 2]]]
    """

    def __init__(self, source: Source, dark: Dark | None, flip: Flip = UNFLIPPED) -> None:
        super().__init__(source)
        self.dark, self.flip = dark, flip
        rows, cols = source.shape
        self.shape = (cols, rows) if flip.turned else (rows, cols)
        self.in_memory = self.apart = False
        if dark is not None:
            self.dtype = dark.image.dtype
            self.kept += dark.image.nbytes
        # Rows that are decoded together end elsewhere if the first of them are the last.
        cut = flip.up and source.row_unit is not None and rows % source.row_unit
        ratio = source.dtype.itemsize / self.dtype.itemsize * (2 if cut else 1)
        self.stored = source.stored * ratio
        self.buffers = 0.0 if source.in_memory else ratio * (1 + source.buffers)
        # Flipped differences are views: a fold, or a copy in C order, needs them a second time.
        self.buffers += ratio if flip != UNFLIPPED and dark is not None else 0
        if dark is not None and dark.left_out is not None:
            self.buffers += 3 / self.dtype.itemsize  # bool arrays of a frame
        if flip.turned:
            self.row_unit = None

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        top, bottom = self.flip.rows_of_file(first, last, self.source.shape[0])
        # Whole frames that are cut are in memory for no more than are decoded together.
        cut = self.flip.turned and last - first < self.shape[0]
        count = self.source.frame_unit if cut else stop - start
        blocks = []
        for piece in self.source.pieces(start, stop, top, bottom, count):
            for block in piece.views:
                frames = self.flip.of(block if self.dark is None else self._less_dark(block, top))
                blocks.append(in_c_order(frames[:, first:last]) if cut else frames)
        return blocks

    def _less_dark(self, block: np.ndarray, first: int) -> np.ndarray:
        """Return rows from ``first`` on of frames of the file, less those of the dark."""
        assert self.dark is not None
        image = self.dark.image[first : first + block.shape[1]]
        out = frame_pool.array(block.shape, self.dtype)
        for frame, difference in zip(block, out, strict=True):
            self.dark.subtract(frame, image, difference)
        return out

    def _within(self, cut: Cut, start: int, stop: int, first: int, last: int) -> Source | None:
        """Correct the part of the other series that holds the rows, if that is free."""
        top, bottom = self.flip.rows_of_file(first, last, self.source.shape[0])
        held = cut(start, stop, top, bottom)
        if held is None:
            return None
        dark = self.dark
        if dark is not None:
            dark = Dark(dark.image[top:bottom], dark.limits, dark.left_out)
        part = CorrectedSource(held, dark, self.flip)
        if self.flip.turned and last - first < self.shape[0]:
            return select(part, region=((first, last), (0, self.shape[1])))
        return part

    def __reduce__(self) -> tuple:
        return CorrectedSource, (self.source, self.dark, self.flip)

    def __dask_tokenize__(self) -> object:
        dark = self.dark and (self.dark.image, self.dark.left_out)
        return "corrected", self.source.__dask_tokenize__(), tokenize(dark), tuple(self.flip)


def correct(
    source: Source, dark: object = None, flip: str | None = None, left_out: LeftOut | None = None
) -> Source:
    """Return the series of the corrected frames of another one.

    Parameters
    ----------
    source : Source
        The frames.
    dark : array, optional
        (rows, cols) as in the file: subtracted first.
    flip : str, optional
        A name of `FLIPS`.
    left_out : function, optional
        Finds the values of the file that do not count: they become `mark_of` the new dtype.

    Raises
    ------
    TypeError, ValueError
        If the dark has another shape, or is not of numbers, or the differences may not fit into
        64 bits; or if there is no such flip.
    """
    found = UNFLIPPED if flip is None else check_flip(flip)
    checked = None if dark is None else check_dark(dark, source, left_out)
    if checked is None and found == UNFLIPPED:
        return source
    if isinstance(source, DaskSource):
        # A difference is plain memory of its dtype, whatever a block was.
        array = source.array if checked is None else _difference(source.checked, checked)
        return DaskSource(found.of(array))
    return CorrectedSource(source, checked, found)


def check_dark(dark: object, source: Source, left_out: LeftOut | None = None) -> Dark:
    """Return the dark image for the frames of a series, in the dtype of the differences."""
    if isinstance(dark, np.ndarray) and not is_plain(type(dark)):
        raise TypeError(refusal(type(dark), "dark", "a plain numpy array"))
    image = np.asarray(dark)
    if image.dtype.kind not in "iuf" or image.dtype.itemsize > 8:
        raise TypeError(f"dark must be of integers or floats of at most 64 bits, got {image.dtype}")
    if source.dtype.kind == "b":
        raise TypeError("a dark cannot be subtracted from frames of bool")
    if image.shape != source.shape:
        raise ValueError(f"dark has shape {image.shape}, expected {source.shape} as the frames")
    dtype = _dtype_of_difference(source.dtype, image)
    limits = _limits(source.dtype, image, dtype)
    return Dark(np.array(image, dtype, order="C"), limits, left_out)


def _dtype_of_difference(frames: np.dtype, image: np.ndarray) -> np.dtype:
    """Return the smallest dtype of the table that holds every difference, or the float of numpy."""
    if "f" in (frames.kind, image.dtype.kind):
        return np.result_type(frames, image.dtype, np.float32)
    least, most = int(image.min()), int(image.max())
    low, high = int(np.iinfo(frames).min), int(np.iinfo(frames).max)
    for size in (frames.itemsize, 2, 4):
        dtype = np.dtype(WIDER[size])
        held = np.iinfo(dtype)
        # The least value of the dtype marks values that do not count.
        if size >= frames.itemsize and held.min < low - most and high - least <= held.max:
            return dtype
    if not -(2**63) < least <= most < 2**63:
        raise ValueError(
            f"dark has values from {least} to {most}, and int64 holds numbers up to {2**63 - 1}"
        )
    return np.dtype("i8")


def _limits(frames: np.dtype, image: np.ndarray, dtype: np.dtype) -> tuple[int, int] | None:
    """Return the values of frames within which each difference is exact, or rounded once."""
    if frames.kind == "f":
        return None
    if dtype.kind == "f":
        low, high = (-(2 ** (np.finfo(dtype).nmant + 1)), 2 ** (np.finfo(dtype).nmant + 1))
    else:
        low = int(np.iinfo(dtype).min) + 1 + max(0, int(image.max()))
        high = int(np.iinfo(dtype).max) + min(0, int(image.min()))
    all_fit = low <= int(np.iinfo(frames).min) and int(np.iinfo(frames).max) <= high
    return None if all_fit else (low, high)


def _difference(array: Array, dark: Dark) -> Array:
    """Return the frames of a dask array less a dark image."""
    chunks = (1,), *array.chunks[1:]
    name = f"dark-{tokenize(dark.image, chunks)}"
    image = from_array(dark.image[None], chunks=chunks, name=name)
    whole = Dark(dark.image[:0], dark.limits, dark.left_out)
    function = partial(_subtract, whole)
    dtype = dark.image.dtype
    return array.map_blocks(function, image, dtype=dtype, meta=np.empty((0, 0, 0), dtype))


def _subtract(dark: Dark, block: np.ndarray, image: np.ndarray) -> np.ndarray:
    out = np.empty(block.shape, image.dtype)
    for frame, difference in zip(block, out, strict=True):
        dark.subtract(frame, image[0], difference)
    return out
