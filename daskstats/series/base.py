"""The base class of all image series: checks of frames, retries of reads, names in a graph."""

import operator
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from ..planning.values import FEW, Layout
from .flips import UNFLIPPED
from .foreign import check_plain, is_a
from .orders import common_flip, in_c_order
from .piece import Piece

T = TypeVar("T")


# Seconds before a read that failed with an OSError (on a network file system, say) is tried again;
# the last failure is raised.
RETRY_AFTER = (0.05, 0.2, 0.5)

# Frames below this size are joined if they are read one by one: copying 32 KiB takes 3 us, and the
# objects around each array take 0.5 KiB.
SMALL_FRAME = 32 << 10

Origins = list[tuple[str, Sequence[int] | np.ndarray]]
"""names of files, or of datasets in files, and indices of their frames"""


class Choice(NamedTuple):
    """The datasets that are the series, where a file may hold several, and why, for people."""

    names: tuple[str, ...] = ()
    why: str = ""

    @property
    def text(self) -> str:
        """The name of the dataset, or of the first and the last one."""
        return " to ".join(dict.fromkeys(self.names[:1] + self.names[-1:]))

    def within(self, place: str) -> str:
        """Return the name of the datasets in a file, which is its own if it is one array.

        >>> Choice(("/a", "/b")).within("x.h5"), Choice(("/",)).within("x.zarr")
        ('x.h5::/a to /b', 'x.zarr')
        """
        return place if self.text in ("", "/") else f"{place}::{self.text}"


class Source:
    """An image series: ``len(source)`` frames of ``source.shape`` and ``source.dtype``.

    This is the base class of everything that frames are read from. A subclass sets `shape`, `dtype`
    and `nframes` and defines `read`. For files it is named in the table of formats; for objects it
    defines `accepts` itself (that of its base does not count).
    """

    shape: tuple[int, int]
    """rows and columns of a frame"""
    dtype: np.dtype
    """of the frames, in native byte order"""
    nframes: int
    """number of frames"""
    frame_unit: int = 1
    """frames that are decoded together"""
    row_unit: int | None = None
    """rows that are decoded together; None if a frame is always decoded whole"""
    in_memory: bool = False
    """whether blocks are views of memory that exists anyway"""
    buffers: float = 0
    """bytes allocated while frames are read, in addition to the frames, per byte of them"""
    stored: float = 0
    """bytes of stored frames in memory while they are decoded, per byte of the frames"""
    again: bool = True
    """whether frames can be read again without being kept"""
    apart: bool = False
    """whether each frame in memory is a separate array"""
    one_by_one: bool = False
    """whether `read` fetches frame after frame, so that one that fails is read again alone"""
    kept: int = 0
    """bytes that the series itself keeps in memory while frames are read"""
    lead: tuple[int, ...] | None = None
    """lengths of the axes before rows and columns of the one array that holds the frames"""

    choice: Choice = Choice()
    """the datasets in a file that may hold several"""

    opens: tuple[tuple[str, str], ...] = ()
    """modules and names of the classes of objects that ``cls(ims)`` is the series of"""

    @classmethod
    def accepts(cls, ims: object) -> bool:
        """Whether ``cls(ims)`` is the series for this object, judged by its type."""
        return any(is_a(ims, *name) for name in cls.opens)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        """Return rows ``first:last`` of frames ``start:stop``.

        Returns
        -------
        list of ndarray
            Arrays (frames, rows, cols) that follow one another. They may be views.
        """
        raise NotImplementedError

    def part(self, start: int, stop: int, first: int, last: int) -> "Source | None":
        """Return a series of rows ``first:last`` of frames ``start:stop``, if that is free.

        A series in memory returns a view, so that a task is sent its own pixels only; None means
        that the whole series is sent.
        """
        return None

    def view(self, start: int, stop: int, first: int, last: int) -> "Source | None":
        """Return such a part for a task in this process, which need not be sent anywhere."""
        return self.part(start, stop, first, last)

    def files(self) -> tuple[Path, ...]:
        """Return every file or directory that frames come from; none for an object in memory."""
        return ()

    def origins(self) -> Origins:
        """Return the files, or datasets in files, that frames come from, and which of their frames.

        They are in the order of the frames, and of all of them: an object without a name is one.
        """
        return [("an object", range(len(self)))]

    def release(self) -> None:
        """Close the file, which the next read opens again: a series may have thousands."""

    def frames_without_data(self) -> np.ndarray:
        """Return the indices, int64 and sorted, of the frames for which nothing was written.

        They read as the fill value of their format; `series.missing` reports them.
        """
        return np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.nframes

    def __repr__(self) -> str:
        rows, cols = self.shape
        return f"<{type(self).__name__}: {len(self)} frames of {rows} x {cols} {self.dtype}>"

    def __dask_tokenize__(self) -> Any:
        # Hashing gigabytes costs more than it saves: an object is equal to itself only.
        if not hasattr(self, "_token"):
            self._token = uuid.uuid4().hex
        return type(self).__name__, self._token

    def set_layout(self, shape: tuple[int, ...], dtype: DTypeLike, given: str = "an array") -> None:
        """Set number, shape and dtype of frames, given those of an array (frames, rows, cols)."""
        if len(shape) != 3:
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), "
                f"got {given} of shape {shape}"
            )
        self.nframes = check_count(shape[0])
        self.shape = check_shape(shape[1:])
        self.dtype = check_native(dtype)

    def pieces(self, start: int, stop: int, first: int, last: int, count: int) -> Iterator[Piece]:
        """Yield rows ``first:last`` of frames ``start:stop``, ``count`` frames at a time, checked.

        Yields
        ------
        Piece
            Arrays (frames, rows, cols), in native byte order, each frame contiguous; they may be
            stored in another memory order, which is the one of the frames that were read.

        Raises
        ------
        ValueError
            If a frame is not of the shape and dtype of the series; the message says which.
        """
        edge = start - start % count if count % self.frame_unit == 0 else start
        while edge < stop:
            frames = max(start, edge), min(stop, edge + count)
            # No variable holds the blocks here: the next ones are read after they are released.
            if count < FEW:  # copying them to C order takes less memory than turning the state
                yield Piece(self._piece(*frames, first, last).arrays)
            else:
                yield self._piece(*frames, first, last)
            edge += count

    def _piece(self, start: int, stop: int, first: int, last: int) -> Piece:
        step = 1 if self.one_by_one else stop - start
        blocks = [
            block
            for begin in range(start, stop, step)
            for block in self._try(begin, begin + step, first, last)
        ]
        self._check_blocks(blocks, start, stop, first, last)
        flip = common_flip(blocks)
        if flip != UNFLIPPED:
            blocks = [flip.stored(block) for block in blocks]
        frames = [as_frames(block, self.dtype) for block in blocks]
        return Piece(frames if self.in_memory else join_small(frames), flip)

    def _try(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return read_patiently(partial(self.read, start, stop, first, last), start, stop)

    def _check_blocks(
        self, blocks: list[np.ndarray], start: int, stop: int, first: int, last: int
    ) -> None:
        index = start
        for block in blocks:
            check_plain(block, index, self.dtype)
            check_frame(block.shape[1:], (last - first, self.shape[1]), index)
            check_dtype(block.dtype, self.dtype, index)
            index += block.shape[0]
        if index != stop:
            raise ValueError(f"{self!r} gave {index - start} frames where {start}:{stop} was read")


class DerivedSource(Source):
    """A series whose frames are read from another one.

    Parameters
    ----------
    source : Source
        The other series; units and memory are taken over from it.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        for name in (
            *("shape", "dtype", "nframes", "frame_unit", "row_unit", "in_memory"),
            *("buffers", "stored", "again", "apart", "kept"),
        ):
            setattr(self, name, getattr(source, name))

    def files(self) -> tuple[Path, ...]:
        return self.source.files()

    def origins(self) -> Origins:
        return self.source.origins()

    def release(self) -> None:
        self.source.release()

    def frames_without_data(self) -> np.ndarray:
        return self.source.frames_without_data()


Cut = Callable[[int, int, int, int], Source | None]
"""the method `part` or `view` of a series"""


class CutSource(DerivedSource):
    """A derived series that keeps a part of each block that it reads by way of `pieces`."""

    def _try(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        # The other series tries again, and names its own frames in errors.
        return self.read(start, stop, first, last)

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return self._within(self.source.part, start, stop, first, last)

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return self._within(self.source.view, start, stop, first, last)

    def _within(self, cut: Cut, start: int, stop: int, first: int, last: int) -> Source | None:
        """Return a part, given the method of the other series that returns its parts."""
        return None


# ---------------------------------------------------------------------- blocks of frames


def rows_of(frame: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return rows of a frame as a block of one; a view of a few would keep the whole frame."""
    return frame[None] if last - first == len(frame) else frame[None, first:last].copy()


def read_patiently(read: Callable[[], T], start: int, stop: int) -> T:
    """Read frames; try again after an OSError, and name the frames in an error."""
    for delay in (*RETRY_AFTER, None):
        try:
            return read()
        except StopIteration as error:
            # The generators on the way would make it an error of theirs.
            raise _named(RuntimeError("a frame raised StopIteration"), start, stop) from error
        except Exception as error:
            final = isinstance(error, FileNotFoundError | PermissionError)
            if delay is None or final or not isinstance(error, OSError):
                _named(error, start, stop)
                raise
        time.sleep(delay)
    raise AssertionError("unreachable")


def _named(error: Exception, start: int, stop: int) -> Exception:
    """Return an error with a note that names the frames that were read."""
    several = f"frames {start} to {stop - 1}"
    error.add_note(f"while reading {f'frame {start}' if stop - start == 1 else several}")
    return error


def join_small(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Return one array instead of many small ones, whose objects would take more than the frames.

    >>> [block.shape for block in join_small([np.zeros((1, 2, 3))] * 4)]
    [(4, 2, 3)]
    """
    if len(frames) > 1 and sum(block.nbytes for block in frames) < len(frames) * SMALL_FRAME:
        return [np.concatenate(frames)]
    return frames


def as_frames(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return (frames, rows, cols) in native byte order, each frame contiguous; copy if needed.

    Frames of bool are 0 and 1: any other byte but 0, which files and views may have, becomes 1.
    """
    if dtype == np.bool_ and block.size and block.view(np.uint8).max() > 1:
        return np.not_equal(block.view(np.uint8), 0, order="C")
    rows, cols = block.shape[1:]
    contiguous = (cols == 1 or block.strides[2] == block.itemsize) and (
        rows == 1 or block.strides[1] == cols * block.itemsize
    )
    if contiguous and block.dtype == dtype and block.dtype.isnative:
        return block
    return in_c_order(block, dtype)


def check_shape(shape: Iterable[Any]) -> tuple[int, int]:
    """Return a frame's shape as two ints, given any sequence of any kind of integers."""
    try:
        rows, cols = (operator.index(length) for length in shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"an image series has frames of two dimensions (rows, cols), got shape {shape!r}"
        ) from None
    if rows < 1 or cols < 1:
        raise ValueError(f"the frames of the image series are empty: shape ({rows}, {cols})")
    return rows, cols


def check_native(dtype: DTypeLike) -> np.dtype:
    """Return the dtype of frames in native byte order; refuse one without exact statistics."""
    if dtype is None:  # numpy takes it for float64
        raise TypeError("frames must have a dtype, got None")
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(f"frames must be bool, integers or floats of at most 64 bits, got {dtype}")
    return dtype


def check_count(nframes: int) -> int:
    """Return the number of frames, at least one."""
    if nframes < 1:
        raise ValueError("the image series has no frames")
    if nframes > sys.maxsize:
        raise ValueError(f"the image series has {nframes} frames, which is more than any memory")
    return int(nframes)


def check_frame(shape: tuple[int, ...], expected: tuple[int, ...], index: int) -> None:
    """Refuse a frame of another shape."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"frame {index} has shape {tuple(shape)}, expected {tuple(expected)}")


def check_dtype(dtype: np.dtype, expected: np.dtype, index: int) -> None:
    """Refuse a frame of another dtype; the byte order does not matter."""
    if dtype.newbyteorder("=") != expected:
        raise ValueError(f"frame {index} has dtype {dtype}, expected {expected}")


def layout(series: Source, nframes: int) -> Layout:
    """Return the properties of the first ``nframes`` frames of a series that a plan depends on."""
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
        stored=series.stored,
        again=series.again,
        apart=series.apart,
        widened=4 if series.dtype == np.float16 else 0,
        kept=series.kept,
    )
