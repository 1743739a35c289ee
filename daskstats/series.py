"""What an image series is: the protocol, and how whatever a user has becomes one."""

import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from dask.utils import SerializableLock

from .arguments import shown
from .plan import Layout
from .sources import Source, open_source

# Compiled code counts frames in 32 bits.
MOST_FRAMES = 2**32 - 1


@runtime_checkable
class Series(Protocol):
    """Frames that can be read again and again, from several threads at once."""

    shape: tuple[int, int]
    """rows and columns of a frame"""
    dtype: np.dtype
    """of the frames, in native byte order"""

    def __len__(self) -> int: ...

    def pieces(
        self, start: int, stop: int, first: int, last: int, count: int
    ) -> Iterator[list[np.ndarray]]:
        """Yield rows ``first:last`` of frames ``start:stop``, ``count`` frames at a time."""

    def part(self, start: int, stop: int, first: int, last: int) -> "Series | None":
        """Return a series that is rows ``first:last`` of frames ``start:stop``, if that is free."""


class LockedSource(Source):
    """A source that one thread at a time may read."""

    def __init__(self, source: Source, lock: AbstractContextManager) -> None:
        self.shape, self.dtype, self.nframes = source.shape, source.dtype, source.nframes
        self.frame_unit, self.row_unit = source.frame_unit, source.row_unit
        self.in_memory, self.one_by_one = source.in_memory, source.one_by_one
        self.apart = source.apart
        self.buffers, self.again, self.stored = source.buffers, source.again, source.stored
        self._source, self._lock = source, lock

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        with self._lock:
            return self._source.read(start, stop, first, last)

    def files(self) -> tuple[Path, ...]:
        return self._source.files()

    def frames_without_data(self) -> np.ndarray:
        return self._source.frames_without_data()

    def __dask_tokenize__(self) -> Any:
        return "locked", self._source.__dask_tokenize__()


def as_series(ims: Any, lock: bool | AbstractContextManager = False) -> Source:
    """Return the image series for a path or an object.

    Parameters
    ----------
    ims : path, array, list of 2-D arrays, or HEXRD-like image series
        Anything with ``len(ims)``, ``ims[i]`` (a 2-D array for a Python int ``i``), ``.shape`` (of
        a frame) and ``.dtype``; a numpy, zarr, h5py or dask array (frames, rows, cols); a list of
        2-D arrays; the path of a ``.npy``, ``.npz`` (HEXRD frame cache), ``.zarr`` or HDF5 file.
    lock : bool or lock
        Whether only one thread at a time may read from it; a lock of one's own can be given.

    Returns
    -------
    Source
        With ``len``, ``shape`` and ``dtype``, which are read once.

    Examples
    --------
    >>> as_series(np.zeros((3, 4, 5), ">u2"))
    <ArraySource: 3 frames of 4 x 5 uint16>
    """
    source = open_source(ims)
    if lock is False or lock is None:
        return source
    if lock is not True and not isinstance(lock, AbstractContextManager):
        raise TypeError(f"lock must be True, False or a lock, got {lock!r}")
    # Two series of one object have one lock: they may be read by one computation.
    return LockedSource(source, SerializableLock(f"{id(ims)}") if lock is True else lock)


def layout(series: Source, nframes: int) -> Layout:
    """Return what a plan needs to know of the first ``nframes`` frames of a series."""
    rows, cols = series.shape
    # Frames of bool that are not 0 and 1 are copied: see `as_frames`.
    copied = series.dtype == np.bool_
    return Layout(
        nframes=nframes,
        rows=rows,
        cols=cols,
        itemsize=series.dtype.itemsize,
        frame_unit=series.frame_unit,
        row_unit=series.row_unit or rows,
        in_memory=series.in_memory and not copied,
        buffers=series.buffers + (copied and not series.in_memory),
        again=series.again,
        apart=series.apart,
        widened=4 if series.dtype == np.float16 else 0,
    )


def count_frames(nframes: Any, series: Source) -> int:
    """Return how many frames ``nframes`` means: all for 0, less than 0, or more than there are."""
    nframes = integer(nframes, "nframes")
    count = min(nframes, len(series)) if nframes > 0 else len(series)
    if count > MOST_FRAMES:
        raise ValueError(
            f"the series has {count} frames, and at most {MOST_FRAMES} can be counted: use nframes "
            f"or frames for a part of them"
        )
    return count


def count_chunks(nchunk: Any, items: int, name: str = "nchunk") -> int:
    """Return the number of intermediate images, at least 1 and at most ``items``."""
    nchunk = integer(nchunk, name)
    if nchunk < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(nchunk)}")
    if nchunk > items:
        raise ValueError(
            f"number of chunks cannot exceed number of items: {name} is {shown(nchunk)}, "
            f"there are {items} items"
        )
    return nchunk


def integer(value: Any, name: str) -> int:
    """Return a Python int for any integer but a bool; raise TypeError naming the argument."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
