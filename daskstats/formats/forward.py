"""Files that can only be read forwards, because they are compressed as a whole."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from weakref import finalize

T = TypeVar("T")


class Opened(NamedTuple):
    """A file that is open, and not in use."""

    place: int
    """before which it has been read"""
    version: object
    """of the file when it was opened"""
    file: Any
    closing: ExitStack


class ForwardReaders:
    """Open files of one path, each for one read at a time.

    To go back in such a file, everything before is decompressed again. So a read takes the file
    that has been left nearest before its own place, and threads that read one after another go on
    where each of them was.

    Examples
    --------
    >>> from contextlib import nullcontext
    >>> opened, readers = [], ForwardReaders()
    >>> for start in (0, 8, 16, 4):
    ...     with readers.at(lambda: nullcontext(opened.append(start)), start, start + 8):
    ...         pass
    >>> opened
    [0, 4]
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        """in which the files were opened: one that is forked from it would move their places"""
        self._idle: list[Opened] = []
        self._lock = Lock()
        # When a series is deleted, its files are closed in order; the interpreter has none.
        finalize(self, _close, self._idle)

    @contextmanager
    def at(
        self,
        opener: Callable[[], AbstractContextManager[T]],
        start: int,
        stop: int | None,
        version: object = None,
    ) -> Iterator[T]:
        """Give a file to read from one place to another; an error closes it, and so does its end.

        Parameters
        ----------
        opener : callable
            Opens the file. The context that it returns must not refer to the series, or neither
            would ever be deleted.
        start, stop : int
            Places in the file: bytes, or any other numbers that grow along it. None is the end,
            after which the file is of no more use.
        version : object
            Of the file: one that was opened in another version is not used.
        """
        taken = self._taken(start, version)
        with taken.closing if taken else ExitStack() as closing:
            file = taken.file if taken else closing.enter_context(opener())
            yield file
            if stop is None:
                return
            left = Opened(stop, version, file, closing.pop_all())
        with self._lock:
            self._idle.append(left)

    def _taken(self, start: int, version: object) -> Opened | None:
        """Take the file that was left nearest before a place; None if there is none."""
        with self._lock:
            usable = [
                (each.place, number)
                for number, each in enumerate(self._idle)
                if each.version == version and each.place <= start
            ]
            if not self._idle:
                return None
            # One that is of no use is closed, so that no more are open than are read at a time.
            taken = self._idle.pop(max(usable)[1] if usable else 0)
        if not usable:
            taken.closing.close()
            return None
        return taken

    def close(self) -> None:
        """Close the files that are not in use."""
        with self._lock:
            _close(self._idle)


def _close(idle: list[Opened]) -> None:
    while idle:
        idle.pop().closing.close()


class InSlices:
    """A stream that is read, and moved forwards, in slices.

    A member of a zip file reads as many compressed bytes as it is asked for, and keeps those that
    it does not need; to move it reads as well. One read takes at most `held` bytes beside its own.

    Examples
    --------
    >>> stream, buffer = InSlices(io.BytesIO(bytes(range(8)))), memoryview(bytearray(3))
    >>> stream.seek(4)
    >>> stream.readinto(buffer), list(buffer)
    (3, [4, 5, 6])
    """

    size = 1 << 18
    """bytes of a slice"""
    # The compressed bytes that are left, and with those that are read; the decompressed ones in
    # parts, as a whole, and added to others.
    held = 6 * size
    """most bytes that a stream of the standard library takes to read a slice"""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def seek(self, offset: int) -> None:
        place = self._stream.tell()
        if place > offset:
            place = self._stream.seek(0)
        while place < offset:
            skipped = len(self._stream.read(min(self.size, offset - place)))
            if not skipped:  # the end
                break
            place += skipped

    def readinto(self, buffer: memoryview) -> int:
        return int(self._stream.readinto(buffer[: self.size]))


class DeferredSeeks(io.RawIOBase):
    """A stream that moves only when it is read.

    astropy leaves a file at the end of the image each time it has read some of it: everything up
    to there would be decompressed for every frame.

    Examples
    --------
    >>> stream = DeferredSeeks(io.BytesIO(b"abcdef"))
    >>> stream.seek(1 << 40), stream.seek(2), stream.read(3), stream.tell()
    (1099511627776, 2, b'cde', 5)
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._place = stream, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            self._place = self._stream.seek(offset, whence)
        else:
            self._place = offset + (self._place if whence == os.SEEK_CUR else 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._place)
        count = self._stream.readinto(buffer)
        self._place += count
        return int(count)
