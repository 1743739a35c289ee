"""What every source has in common: its checks, its retries, its notes, its name in a graph."""

import operator
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# A read that fails with an OSError (a network file system, say) is tried again after so many
# seconds; the last failure is raised.
RETRY_AFTER = (0.05, 0.2, 0.5)

# The kinds and the largest item size, in bytes, of the frames that statistics are exact for.
KINDS, LARGEST_ITEM = "biuf", 8


class Source:
    """An image series: ``len(source)`` frames of ``source.shape`` and ``source.dtype``.

    A subclass sets `shape`, `dtype` and `nframes` and defines `read`. It is found by what it
    itself (not its base) names: `suffixes` for paths, `accepts` for objects.
    """

    suffixes: tuple[str, ...] = ()
    """of the files it opens, as ``cls(path)``"""
    has_datasets: bool = False
    """whether a file may hold several, opened as ``cls(path, dataset=name)``"""
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
    """whether blocks are views of memory that is there anyway"""
    buffers: float = 0
    """bytes that exist while frames are read beside those that `read` returns, for each of these"""
    again: bool = True
    """whether frames can be read again without being kept somewhere"""
    one_by_one: bool = False
    """whether `read` fetches frame after frame, so that one that fails is read again alone"""

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        """Whether ``cls(ims)`` is the source for this object, judged by its type."""
        return False

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        """Return rows ``first:last`` of frames ``start:stop``.

        Returns
        -------
        list of ndarray
            Arrays (frames, rows, cols) that follow one another. They may be views.
        """
        raise NotImplementedError

    def part(self, start: int, stop: int, first: int, last: int) -> "Source | None":
        """Return a source that is rows ``first:last`` of frames ``start:stop``, if that is free.

        What lives in memory gives a view, so that a task is sent its own pixels only; None means
        that this source itself is sent.
        """
        return None

    def view(self, start: int, stop: int, first: int, last: int) -> "Source | None":
        """Return such a part for a task in this process, which need not be sent anywhere."""
        return self.part(start, stop, first, last)

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

    def pieces(
        self, start: int, stop: int, first: int, last: int, count: int
    ) -> Iterator[list[np.ndarray]]:
        """Yield rows ``first:last`` of frames ``start:stop``, ``count`` frames at a time, checked.

        Yields
        ------
        list of ndarray
            Arrays (frames, rows, cols), in native byte order, each frame contiguous.

        Raises
        ------
        ValueError
            If a frame is not of the shape and dtype of the series; the message says which.
        """
        edge = start - start % count if count % self.frame_unit == 0 else start
        while edge < stop:
            # No name holds the blocks here, or they would live on while the next are read.
            yield self._piece(max(start, edge), min(stop, edge + count), first, last)
            edge += count

    def _piece(self, *where: int) -> list[np.ndarray]:
        blocks = self._read_patiently(*where)
        self._check_blocks(blocks, *where)
        return [as_frames(block, self.dtype) for block in blocks]

    def _read_patiently(self, start: int, stop: int, *rows: int) -> list[np.ndarray]:
        step = 1 if self.one_by_one else stop - start
        starts = range(start, stop, step)
        return [block for begin in starts for block in self._try(begin, begin + step, *rows)]

    def _try(self, *where: int) -> list[np.ndarray]:
        for delay in (*RETRY_AFTER, None):
            try:
                return self.read(*where)
            except OSError as error:
                if delay is None or isinstance(error, FileNotFoundError | PermissionError):
                    _name_frames(error, *where[:2])
                    raise
                time.sleep(delay)
            except Exception as error:
                _name_frames(error, *where[:2])
                raise
        raise AssertionError("unreachable")

    def _check_blocks(
        self, blocks: list[np.ndarray], start: int, stop: int, first: int, last: int
    ) -> None:
        index = start
        for block in blocks:
            check_frame(block.shape[1:], (last - first, self.shape[1]), index)
            check_dtype(block.dtype, self.dtype, index)
            index += block.shape[0]
        if index != stop:
            raise ValueError(f"{self!r} gave {index - start} frames where {start}:{stop} was read")


class FileSource(Source):
    """A source that is a file: it pickles as its path and opens again where it lands."""

    def __init__(self, path: str | os.PathLike, **parameters: Any) -> None:
        # The working directory may change before the path is sent elsewhere.
        self.path = Path(path).absolute()
        self.parameters = parameters

    def __reduce__(self):
        return _reopen, (type(self), str(self.path), self.parameters)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} in {self.path}>"

    def __dask_tokenize__(self) -> Any:
        parameters = sorted(self.parameters.items())
        return type(self).__name__, str(self.path), *fingerprint(self.path), parameters


def _reopen(cls: type[FileSource], path: str, parameters: dict) -> FileSource:
    return cls(path, **parameters)


def fingerprint(path: Path) -> tuple[int, int]:
    """Return (mtime in ns, size in bytes) of a file, or of the files of a directory."""
    if path.is_dir():
        stats = [file.stat() for file in path.rglob("*")]
        return max((s.st_mtime_ns for s in stats), default=0), sum(s.st_size for s in stats)
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def as_frames(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return (frames, rows, cols) in native byte order, each frame contiguous; copy if needed."""
    rows, cols = block.shape[1:]
    contiguous = (cols == 1 or block.strides[2] == block.itemsize) and (
        rows == 1 or block.strides[1] == cols * block.itemsize
    )
    if contiguous and block.dtype == dtype and block.dtype.isnative:
        return block
    return np.ascontiguousarray(block, dtype=dtype)


def check_shape(shape: Any) -> tuple[int, int]:
    """Return a frame's shape as two ints, whatever kind of sequence and integers it came as."""
    try:
        rows, cols = (operator.index(length) for length in shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"an image series has frames of two dimensions (rows, cols), got shape {shape!r}"
        ) from None
    if rows < 1 or cols < 1:
        raise ValueError(f"the frames of the image series are empty: shape ({rows}, {cols})")
    return rows, cols


def check_native(dtype: Any) -> np.dtype:
    """Return the dtype of frames in native byte order; refuse what has no exact statistics."""
    if dtype is None:  # numpy takes it for float64
        raise TypeError("frames must have a dtype, got None")
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind not in KINDS or dtype.itemsize > LARGEST_ITEM:
        raise TypeError(
            f"frames must be bool, integers or floats of at most {8 * LARGEST_ITEM} bits, "
            f"got {dtype}"
        )
    return dtype


def check_count(nframes: int) -> int:
    """Return the number of frames, at least one."""
    if nframes < 1:
        raise ValueError("the image series has no frames")
    return int(nframes)


def check_frame(shape: tuple[int, ...], expected: tuple[int, ...], index: int) -> None:
    """Refuse a frame of another shape."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"frame {index} has shape {tuple(shape)}, expected {tuple(expected)}")


def check_dtype(dtype: np.dtype, expected: np.dtype, index: int) -> None:
    """Refuse a frame of another dtype; the byte order does not matter."""
    if dtype.newbyteorder("=") != expected:
        raise ValueError(f"frame {index} has dtype {dtype}, expected {expected}")


def _name_frames(error: BaseException, start: int, stop: int) -> None:
    error.add_note(
        f"while reading frame {start}"
        if stop - start == 1
        else f"while reading frames {start} to {stop - 1}"
    )
