"""What every source has in common: its checks, its retries, its notes, its name in a graph."""

import hashlib
import operator
import os
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..planning.values import Layout
from .foreign import check_plain


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


# A read that fails with an OSError (a network file system, say) is tried again after so many
# seconds; the last failure is raised.
RETRY_AFTER = (0.05, 0.2, 0.5)

# Bytes below which frames that are read one by one are joined: copying 32 KiB takes 3 us, and the
# objects around each array 0.5 KiB.
SMALL_FRAME = 32 << 10

# The kinds and the largest item size, in bytes, of the frames that statistics are exact for.
KINDS, LARGEST_ITEM = "biuf", 8


class Source:
    """An image series: ``len(source)`` frames of ``source.shape`` and ``source.dtype``.

    A subclass sets `shape`, `dtype` and `nframes` and defines `read`. It is found by what it
    itself (not its base) names: the table of formats for paths, `accepts` for objects.
    """

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
    stored: float = 0
    """bytes of frames as they are stored that exist while they are decoded, for each of theirs"""
    again: bool = True
    """whether frames can be read again without being kept somewhere"""
    apart: bool = False
    """whether each frame in memory is an array of its own"""
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

    def files(self) -> tuple[Path, ...]:
        """Return every file or directory that frames come from; none for an object in memory."""
        return ()

    def frames_without_data(self) -> np.ndarray:
        """Return the indices, int64 and sorted, of the frames for which nothing was written.

        They read as the fill value of their format; `warn_about_missing` says so.
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
        frames = [as_frames(block, self.dtype) for block in blocks]
        return frames if self.in_memory else join_small(frames)

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
            check_plain(block, index, self.dtype)
            check_frame(block.shape[1:], (last - first, self.shape[1]), index)
            check_dtype(block.dtype, self.dtype, index)
            index += block.shape[0]
        if index != stop:
            raise ValueError(f"{self!r} gave {index - start} frames where {start}:{stop} was read")


class FileSource(Source):
    """A source that is a file: sent elsewhere, it opens its file at the first read.

    A subclass opens its file in ``__init__``, where an error is one of the call, and keeps it in
    the attributes named in `handles`. Everything else it knows (shape, dtype, units) is sent, so
    that nothing is opened, and nothing can fail, while a source is unpickled.
    """

    handles: tuple[str, ...] = ()
    """names of the attributes that hold open files: not sent, and opened again by `open`"""

    def __init__(self, path: str | os.PathLike, **parameters: Any) -> None:
        # The working directory may change before the path is sent elsewhere.
        self.path = Path(path).absolute()
        self.parameters = parameters

    def open(self) -> None:
        """Set the attributes named in `handles`; called at the first use of one that is missing.

        It raises an error if the file does not hold any more the frames that it held at the call.
        """
        raise NotImplementedError

    def changed(self, found: str) -> ValueError:
        """Return the error of a file that does not hold the frames of the call any more."""
        return ValueError(
            f"{self.path} has changed since the call: it holds {found}, and held {self!r}"
        )

    def files(self) -> tuple[Path, ...]:
        """Return every file or directory that frames come from.

        That is the path itself, targets of links, and sources of virtual datasets.
        """
        return (self.path,)

    def __getattr__(self, name: str) -> Any:
        # Python comes here for missing attributes only.
        if name not in type(self).handles:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # `setdefault` is atomic: all threads get the same lock.
        with vars(self).setdefault("_opening", RLock()):
            if name not in vars(self):
                with naming_place(self.path):
                    self.open()
        return vars(self)[name]

    def __getstate__(self) -> dict[str, Any]:
        left = {*type(self).handles, *UNSENT}
        return {name: value for name, value in vars(self).items() if name not in left}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} in {self.path}>"

    def __dask_tokenize__(self) -> Any:
        try:
            self._prints = [(str(file), *fingerprint(file)) for file in self.files()]
        except OSError:
            # dask asks again when it submits tasks: a file that is gone is an error of the read.
            vars(self).setdefault("_prints", ["gone"])
        parameters = sorted(self.parameters.items())
        return type(self).__name__, str(self.path), self._prints, parameters


def restore(cls: type[FileSource], state: dict[str, Any]) -> FileSource:
    """Return a source with attributes that were sent; nothing is opened."""
    source = cls.__new__(cls)
    vars(source).update(state)
    return source


# Attributes of a source that stay in this process: its lock, and its cached missing frames.
UNSENT = ("_opening", "_missing")


@contextmanager
def naming_place(path: Path | str) -> Iterator[None]:
    """Add a note to an error: which file was being opened, and in which process."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while opening {path} on {place()}")
        raise


def place() -> str:
    """Return the host and process, and the worker if this is one of a cluster, for people."""
    text = f"{socket.gethostname()}, process {os.getpid()}"
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with suppress(ValueError, AttributeError):  # it is no worker
            return f"{text}, worker {distributed.get_worker().address}"
    return text


def fingerprint(path: Path) -> tuple[int | str, ...]:
    """Return values that change when a file, or any file of a directory, changes.

    Returns
    -------
    tuple
        Of a file: times of its last change of content and of status in ns, inode and size. The
        time of content can be set by anybody (``cp -p``), that of the status cannot. Of a
        directory: a digest of the names and values of all files in it, and their number.
    """
    if not path.is_dir():
        return _fingerprint(path.stat())
    digest, count = hashlib.sha256(), 0
    for name, stat in _tree(path):
        digest.update(repr((name, _fingerprint(stat))).encode(errors="surrogateescape"))
        count += 1
    return digest.hexdigest(), count


def _fingerprint(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size


def _tree(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return the name and state of each file below a directory, in the order of their names.

    A file that goes away meanwhile is left out. A directory behind a link is looked into, once.
    """
    found, waiting, seen = [], [str(path)], set()
    while waiting:
        directory = waiting.pop()
        identity = os.path.realpath(directory)
        if identity in seen:
            continue
        seen.add(identity)
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir():
                        waiting.append(entry.path)
                    else:
                        found.append((os.path.relpath(entry.path, path), entry.stat()))
    return sorted(found)


def warn_about_missing(source: Source, nframes: int | None = None) -> None:
    """Warn that some of the first ``nframes`` frames of a source have no data."""
    text = describe_missing(source, nframes)
    if text:
        warnings.warn(text, UserWarning, stacklevel=_frames_inside())


def _frames_inside() -> int:
    """Return the stack level at which a warning names the line that called this package."""
    frame, level, package = sys._getframe(1), 1, __name__.partition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(package):
        frame, level = frame.f_back, level + 1
    return level


def describe_missing(source: Source, nframes: int | None = None) -> str:
    """Return how many of the first ``nframes`` frames have no data, and how to leave them out.

    The text is empty if all have.
    """
    total = len(source) if nframes is None else nframes
    missing = source.frames_without_data()
    missing = missing[missing < total]
    if not missing.size:
        return ""
    files = source.files()
    where = f" in {files[0]}" if files else ""
    return (
        f"{missing.size} of {total} frames have no data{where} and count as the fill value "
        f"({_spans_text(missing)}): {_way_out(missing, total)}"
    )


def _way_out(missing: np.ndarray, total: int) -> str:
    """Return how to leave frames out: as a slice where the others follow one another."""
    kept = np.setdiff1d(np.arange(total), missing)
    if not kept.size:
        return "there is nothing else"
    first, end = int(kept[0]), int(kept[-1]) + 1
    if kept.size < end - first:
        return "leave them out with frames=[...], the indices of the others"
    if first == 0:
        return f"leave them out with nframes={end} (--nframes {end})"
    return f"leave them out with frames=slice({first}, {end}) (--frames {first}:{end})"


def _spans_text(indices: np.ndarray, most: int = 5) -> str:
    """Return indices for people.

    >>> _spans_text(np.array([3, 4, 5, 9]))
    'frames 3 to 5, 9'
    """
    spans = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    texts = [f"{s[0]} to {s[-1]}" if s.size > 1 else f"{s[0]}" for s in spans[:most]]
    return f"frames {', '.join(texts)}" + (", ..." if len(spans) > most else "")


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


def _name_frames(error: BaseException, start: int, stop: int) -> None:
    error.add_note(
        f"while reading frame {start}"
        if stop - start == 1
        else f"while reading frames {start} to {stop - 1}"
    )


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
