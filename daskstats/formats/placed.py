"""Series that open their file only to read it, and frames that are read in place.

A folder may have hundreds of thousands of files: nothing but numbers is kept of each.
"""

import bz2
import errno
import gzip
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..memory.pool import block_of_frames
from ..series.base import Source
from ..series.files import FileSource, digest_of_part, naming_place
from .choosing import listed
from .forward import ForwardReaders, InSlices

# How a file that is compressed as a whole is opened; a seek reads and skips: see `forward`.
OPENERS: dict[str, Callable] = {".gz": gzip.open, ".bz2": bz2.open}


class ReopenedSource(FileSource):
    """A series that opens its file for each read, and closes it unless it is read forwards."""

    forwards: bool = False
    """whether the file can only be read forwards, because it is compressed as a whole"""

    def __init__(self, path: str | os.PathLike, **parameters: Any) -> None:
        super().__init__(path, **parameters)
        # The state before the file is read: a change while it is read is found later.
        self._state = file_state(self.path)

    def layout(self) -> tuple:
        """Return everything that must be the same for reads to give the frames of the call."""
        return self.nframes, self.shape, self.dtype.str

    def opened(self) -> AbstractContextManager[Any]:
        """Open the file for a read."""
        return open_file(self.path)

    def opened_at(self, start: int, stop: int | None) -> AbstractContextManager[Any]:
        """Open the file to read from one place to another, or to the end; see `ForwardReaders`.

        A file that is read forwards stays open for the next read, until the series is released.
        """
        if not self.forwards:
            return self.opened()
        readers = vars(self).get("_readers")
        if readers is None:  # of two threads that find none, both get the same
            readers = vars(self).setdefault("_readers", ForwardReaders())
        if readers.process != os.getpid():
            readers = vars(self)["_readers"] = ForwardReaders()
        return readers.at(self.opened, start, stop, self._state)

    def release(self) -> None:
        super().release()
        readers = vars(self).pop("_readers", None)
        if readers is not None:
            readers.close()

    def check_unchanged(self) -> None:
        """Refuse a file that does not hold the frames of the call any more.

        One that was written again with the same layout is accepted.
        """
        with naming_place(self.path):
            state = file_state(self.path)
            if state == self._state:
                return
            now = type(self)(self.path, **self.parameters)
        if now.layout() != self.layout():
            rows, cols = now.shape
            found = f"{len(now)} frames of {rows} x {cols} {now.dtype}"
            raise self.changed(f"{found} in another place" if len(now) == len(self) else found)
        self._state = state


class PlacedSource(ReopenedSource):
    """Frames at known places of a file, in rows one after another, not encoded.

    A subclass calls `set_places` in its ``__init__``.
    """

    row_unit: int | None = 1
    _offsets: Sequence[int] = ()

    def set_places(
        self,
        shape: tuple[int, int],
        stored: np.dtype,
        offsets: Iterable[int],
        noun: str = "frame",
        check: bool = True,
    ) -> None:
        """Set the layout of frames, given the first byte of each; refuse a file that is cut off.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of a frame.
        stored : dtype
            Of the pixels, in the byte order of the file.
        offsets : iterable of int
            Of the first byte of each frame.
        noun : str
            Name of a frame in errors, such as "page".
        check : bool
            Whether the frames must lie within the size of the file: not where they are compressed.
        """
        self._offsets, self._stored = compact(offsets), np.dtype(stored)
        self.set_layout((len(self._offsets), *shape), stored)
        nbytes = self.shape[0] * self.shape[1] * self._stored.itemsize
        if not check or is_compressed(self.path):
            self.forwards, self.row_unit = True, None  # a frame is decompressed as a whole
            self.stored = InSlices.held / nbytes
            return  # the size is known once everything is decompressed: a read finds the end
        size = self._state[0]
        for index, offset in enumerate(self._offsets):
            if offset + nbytes > size:
                raise ValueError(
                    f"{self.path} is cut off: {noun} {index} of {len(self)} ends at byte "
                    f"{offset + nbytes} of {size}"
                )

    def layout(self) -> tuple:
        return *super().layout(), self._stored.str, self._offsets

    def digest_of_frame(self, index: int) -> bytes | None:
        if self.forwards or not self._offsets:  # a subclass decodes the frames
            return None
        nbytes = self.shape[0] * self.shape[1] * self._stored.itemsize
        return digest_of_part(self.path, self._offsets[index], nbytes)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        cols = self.shape[1]
        block = block_of_frames(stop - start, last - first, self.shape, self._stored)
        self.check_unchanged()
        # Frames in one piece of the file are read at once: less Python, which threads wait for.
        step = stop - start if self._adjoin(start, stop, block[0].nbytes) else 1
        row_nbytes = cols * block.itemsize
        begin = self._offsets[start] + first * row_nbytes
        end = None if stop == len(self) else self._offsets[stop - 1] + last * row_nbytes
        with self.opened_at(begin, end) as opened:
            file: Any = InSlices(opened) if self.forwards else opened
            for index in range(start, stop, step):
                offset = self._offsets[index] + first * row_nbytes
                frames = block[index - start : index - start + step]
                filled = fill(file, frames, offset)
                if filled < frames.nbytes:
                    lost = index + filled // block[0].nbytes
                    raise ValueError(f"{self.path} is cut off in frame {lost}")
        return [in_native_order(block)]

    def _adjoin(self, start: int, stop: int, nbytes: int) -> bool:
        """Whether frames of a number of bytes follow one another without a gap."""
        offsets = self._offsets[start:stop]
        even = range(offsets[0], offsets[0] + len(offsets) * nbytes, nbytes)
        return offsets == (even if isinstance(offsets, range) else array("q", even))


def compact(numbers: Iterable[int]) -> Sequence[int]:
    """Return numbers as a range if they are one, which takes no memory; otherwise as an array.

    >>> compact([10, 30, 50])
    range(10, 70, 20)
    """
    if isinstance(numbers, range):
        return numbers
    packed = array("q", numbers)
    if len(packed) > 1 and packed[1] > packed[0]:
        step = packed[1] - packed[0]
        even = range(packed[0], packed[0] + step * len(packed), step)
        if packed == array("q", even):
            return even
    return packed


def file_state(path: Path) -> tuple[int, int]:
    """Return size and time of change: values that every host has alike."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed as a whole, by its last suffix."""
    return path.suffix.lower() in OPENERS


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed if it is compressed as a whole."""
    opener = OPENERS.get(path.suffix.lower())
    with naming_place(path):
        file = opener(path, "rb") if opener else path.open("rb", buffering=0)
    # A plain read cannot notice damage; a decompressor can.
    with file, naming_damage(path, "a sound file") if opener else nullcontext():
        yield file


@contextmanager
def naming_damage(path: Path, noun: str) -> Iterator[None]:
    """Turn an error of a library about the content of a file into one that names the file.

    Parameters
    ----------
    path : Path
        Of the file.
    noun : str
        Its format with an article, such as "an MRC file".
    """
    try:
        yield
    except Exception as error:
        named = isinstance(error, ValueError) and str(path) in str(error)
        if named or not from_content(error):
            raise
        raise ValueError(f"{path} is not {noun}, or is cut off: {error}") from error


def from_content(error: Exception) -> bool:
    """Whether an error may come from the content of a file, and not from the system.

    >>> from_content(OSError("Invalid data stream")), from_content(OSError(28, "No space left"))
    (True, False)
    """
    # An OSError with a number is one of the system; libraries raise others for bad content, or
    # seek to where no file can be (EINVAL).
    system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
    return not system and not isinstance(error, MemoryError | ImportError)


def fill(file: BinaryIO, out: np.ndarray, offset: int) -> int:
    """Fill a contiguous array with the bytes from an offset on; return how many the file has."""
    file.seek(offset)
    view = out.reshape(-1).view(np.uint8).data
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            break
        view = view[count:]
    return out.nbytes - len(view)


def in_native_order(block: np.ndarray) -> np.ndarray:
    """Return an array that nobody else uses in native byte order; its bytes are swapped in place.

    >>> in_native_order(np.array([1, 2], ">u2"))
    array([1, 2], dtype=uint16)
    """
    if block.dtype.isnative:
        return block
    return block.byteswap(inplace=True).view(block.dtype.newbyteorder("="))


def only_image(source: Source) -> np.ndarray:
    """Return the frame of a series that has only one."""
    if len(source) != 1:
        name = next(iter(source.files()), source)
        raise ValueError(f"{name} has {len(source)} images, expected one")
    rows = source.shape[0]
    return next(source.pieces(0, 1, 0, rows, 1))[0][0]


def several(path: Path, images: dict[str, str]) -> str:
    """Return at most ten images of a file, each with the text that names it.

    >>> several(Path("a.npz"), {"x": "2 x 3 uint16", "y": "4 x 5 uint8"})
    'name one as a.npz::x (2 x 3 uint16), a.npz::y (4 x 5 uint8)'
    """
    texts = [f"{path.name}::{name} ({text})" for name, text in images.items()]
    return f"name one as {listed(texts)}"
