"""Series in files: opened where they are read, and compared with the state at the call."""

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from ..planning.values import MEBI
from .base import Origins, Source

# Attributes of a series that stay in this process: its lock, its cached missing frames, and files
# that it reads forwards.
UNSENT = ("_opening", "_missing", "_readers")


class Growth(NamedTuple):
    """How many frames of a file that grows are written; frames are written in their order."""

    certain: int
    """leading frames that are complete"""
    begun: int
    """those, and the following ones in chunks that hold something: some may not be written yet"""
    fill: float = 0
    """value of the pixels that are not written"""
    whole: bool = True
    """whether all chunks of the last frame that is begun are there"""


class FileSource(Source):
    """A series in a file: sent elsewhere, it opens its file at the first read.

    A subclass opens its file in ``__init__``, where an error is one of the call, and keeps it in
    the attributes named in `handles`. All other attributes (shape, dtype, units) are sent, so that
    nothing is opened, and nothing can fail, while a series is unpickled.
    """

    has_datasets: bool = False
    """whether a file may hold several series, opened as ``cls(path, dataset=name)``"""
    handles: tuple[str, ...] = ()
    """names of the attributes that hold open files: not sent, and opened again by `open`"""

    def __init__(self, path: str | os.PathLike, **parameters: Any) -> None:
        # The working directory may change before the path is sent elsewhere.
        self.path = Path(path).absolute()
        self.parameters = parameters

    def open(self) -> None:
        """Set the attributes named in `handles`; called at the first use of one that is missing.

        It raises an error if the file does not hold the frames any more that it held at the call.
        """
        raise NotImplementedError

    def release(self) -> None:
        with self._lock_of_handles():
            for name in self.handles:
                vars(self).pop(name, None)

    def _lock_of_handles(self) -> RLock:
        # `setdefault` is atomic: all threads get the same lock.
        return vars(self).setdefault("_opening", RLock())

    def changed(self, found: str) -> ValueError:
        """Return the error of a file that does not hold the frames of the call any more."""
        return ValueError(
            f"{self.path} has changed since the call: it holds {found}, and held {self!r}"
        )

    def files(self) -> tuple[Path, ...]:
        """Return every file or directory that frames come from.

        That is the path itself, targets of links, and files that a virtual dataset shows.
        """
        return (self.path,)

    def origins(self) -> Origins:
        return [(self.choice.within(str(self.path)), range(len(self)))]

    def growth(self) -> Growth:
        """Return how many frames are written; all of them in a file that has no others."""
        return Growth(len(self), len(self))

    def growing_paths(self) -> tuple[Path, ...]:
        """Return files and directories, one of which changes whenever frames are added."""
        return self.files()

    def digest_of_frame(self, index: int) -> bytes | None:
        """Return a digest of bytes that are stored for a frame, without decoding any.

        None where no place in a file is known that holds these bytes as long as the frame is the
        same.
        """
        return None

    def storage_text(self) -> str:
        """Return how the frames are stored, for people: chunks and compression."""
        return ""

    def reading_text(self) -> str:
        """Return which of several ways frames are read, for people, and why."""
        return ""

    def __getattr__(self, name: str) -> Any:
        # Python calls this for missing attributes only.
        if name not in type(self).handles:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._lock_of_handles():
            if name not in vars(self):
                with naming_place(self.path):
                    self.open()
            return vars(self)[name]

    def __getstate__(self) -> dict[str, Any]:
        left = {*type(self).handles, *UNSENT}
        return {name: value for name, value in vars(self).items() if name not in left}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} in {self.path}>"

    def __dask_tokenize__(self) -> tuple:
        try:
            self._prints = [(str(file), *fingerprint(file)) for file in self.files()]
        except OSError:
            # dask asks again when it submits tasks: the read raises the error of a missing file.
            vars(self).setdefault("_prints", ["gone"])
        parameters = sorted(self.parameters.items())
        return type(self).__name__, str(self.path), self._prints, parameters


def restore(cls: type[FileSource], state: dict[str, object]) -> FileSource:
    """Return a series with attributes that were sent; nothing is opened."""
    series = cls.__new__(cls)
    vars(series).update(state)
    return series


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


def digest_of_part(path: Path, offset: int = 0, nbytes: int | None = None) -> bytes:
    """Return a digest of a part of a file, by default of all; of a long one its middle is read."""
    nbytes = path.stat().st_size if nbytes is None else nbytes
    length = min(nbytes, MEBI)
    with path.open("rb") as file:
        file.seek(offset + (nbytes - length) // 2)
        return hashlib.sha256(file.read(length)).digest()


def fingerprint(path: Path) -> tuple[int | str, ...]:
    """Return values that change when a file, or any file of a directory, changes.

    Returns
    -------
    tuple
        Of a file: times of its last change of content and of status in ns, inode and size. Any
        program can set the time of content (``cp -p``), but not that of the status. Of a
        directory: a digest of the names and values of all files in it, and their number.
    """
    if not path.is_dir():
        return _stat_values(path.stat())
    digest, count = hashlib.sha256(), 0
    for name, stat in _tree(path):
        digest.update(repr((name, _stat_values(stat))).encode(errors="surrogateescape"))
        count += 1
    return digest.hexdigest(), count


def _stat_values(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size


def _tree(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return the name and state of each file below a directory, in the order of their names.

    A file that is removed meanwhile is left out. A directory behind a link is entered once.
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
