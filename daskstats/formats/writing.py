"""Output files and directories that appear whole or not at all: a temporary name, then a rename.

The name of a temporary tells which process writes it. A temporary of a killed process is removed by
the next process that writes into the same directory::

    .daskstats-node1~4711~1763942917.25~9c41...npy
    .daskstats-node1~4711~1763942917.25~9c41...-old/image.zarr    the old output, for a moment
"""

import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import ending, processes
from ..processes import is_mine

PREFIX, OLD = ".daskstats-", "-old"

# Host, pid and start of the process, a random number, and the mark of an old output.
TEMPORARY = re.compile(
    rf"{re.escape(PREFIX)}(?P<host>[^~]*)~(?P<pid>\d+)~(?P<began>[\d.]+)~[0-9a-f]{{32}}"
    rf"(?:(?P<old>{OLD})|(?:\.\w+)?)"
)

# Errors of the disk, not of the call: the message gets the path and the way out.
DISK = {errno.ENOSPC, errno.EFBIG, errno.EIO} | {
    getattr(errno, name) for name in ("EDQUOT", "ESTALE", "EROFS") if hasattr(errno, name)
}

# Some file systems have no fsync.
NO_FSYNC = errno.EINVAL, errno.ENOSYS, errno.ENOTSUP


@contextmanager
def replacing(path: Path, check: Callable[[Path], object]) -> Iterator[Path]:
    """Give a temporary path for the caller to write, and rename it on success.

    After an error the temporary is removed. A symbolic link at the path stays, and its target is
    replaced.

    Parameters
    ----------
    path : Path
        Of the output; the temporary has its suffix, in lower case.
    check : callable
        Called with the path before the rename; refuses to replace a file that has appeared.
    """
    target = Path(os.path.realpath(path))
    remove_stale(target.parent)
    with (
        _temporary(target.parent, path.suffix.lower()) as temporary,
        naming_disk_errors(path, target.parent),
    ):
        yield temporary
        check(path)
        with ending.writing:
            _put(temporary, target)


@contextmanager
def _temporary(place: Path, suffix: str = "") -> Iterator[Path]:
    """Give a path in a directory for a temporary, which is removed in the end, and by a signal."""
    path = place / f"{PREFIX}{processes.unique_name()}{suffix}"
    _own.add(path)
    try:
        yield path
    finally:
        remove(path)
        _own.discard(path)


@contextmanager
def naming_disk_errors(path: Path, place: Path) -> Iterator[None]:
    """Turn an error of the disk into one that names the output, the reason and a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK:
            raise _disk_error(error, path, place) from error
        raise


def _disk_error(error: OSError, path: Path, place: Path) -> OSError:
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.ENOSPC:
        with suppress(OSError):
            reason += f", {shutil.disk_usage(place).free / 2**20:.3g} MiB are free in {place}"
    raised = OSError(f"{path} cannot be written: {reason}: make room, or write to another place")
    raised.errno = error.errno
    return raised


def check_room(place: Path, nbytes: int) -> None:
    """Refuse to begin a file that does not fit in a directory."""
    free = shutil.disk_usage(place).free
    if free < nbytes:
        raise OSError(
            f"the output takes {nbytes / 2**20:.3g} MiB, and {free / 2**20:.3g} MiB are free in "
            f"{place.absolute()}: make room, or write to another place"
        )


def _put(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        temporary.replace(target)
        return
    # A directory with content cannot be replaced in one step. The old one is put back if the second
    # step fails, or by `remove_stale` if the process is killed before it. It keeps its name, which
    # may have no room for another one around it.
    place = target.with_name(f"{PREFIX}{processes.unique_name()}{OLD}")
    place.mkdir()
    try:
        old = target.replace(place / target.name)
        try:
            temporary.replace(target)
        except BaseException:
            old.replace(target)
            raise
    except BaseException:
        with suppress(OSError):
            place.rmdir()
        raise
    remove(place)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it exists; of a symbolic link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------------- temporaries of others


_own: set[Path] = set()


@ending.at_end
def _remove_own() -> None:
    for temporary in list(_own):
        remove(temporary)


def remove_stale(place: Path) -> list[Path]:
    """Remove temporaries of this user and of killed processes; put old outputs back.

    Returns
    -------
    list of Path
        The temporaries that were removed.
    """
    removed = []
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            found = TEMPORARY.fullmatch(entry.name) if entry.name.startswith(PREFIX) else None
            if found and is_mine(Path(entry.path)) and _is_stale(Path(entry.path), found):
                _undo(Path(entry.path), bool(found["old"]))
                removed.append(Path(entry.path))
    return removed


def _undo(path: Path, old: bool) -> None:
    """Remove a temporary; put the old output in it back first, if there is no new one."""
    with suppress(OSError):
        for output in [*path.iterdir()] if old else []:
            if not os.path.lexists(path.with_name(output.name)):
                output.rename(path.with_name(output.name))
        remove(path)


def _is_stale(path: Path, found: re.Match) -> bool:
    owner = processes.Process(found["host"], int(found["pid"]), float(found["began"]))
    return processes.is_abandoned(path, owner)


# ---------------------------------------------------------------------- files


def sync(descriptor: int) -> None:
    """Wait until a file, or a directory, is on the disk."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Write an output with a library that opens its file by name.

    The library writes into a temporary directory beside the output, and the file is then moved to
    its place. It is called ``image``, because some libraries write the file's name into the file.
    """
    with _temporary(path.parent) as place:
        place.mkdir()
        written = place / f"image{path.suffix}"
        write(written)
        with written.open("rb+") as file:
            sync(file.fileno())
        written.replace(path)


def exactly(image: np.ndarray, dtypes: Sequence[str], path: Path) -> np.ndarray:
    """Return an image in the first of some dtypes that holds each of its values, or refuse it.

    >>> exactly(np.array([[1, 300]]), ("i1", "i2"), Path("image.mrc")).dtype
    dtype('int16')
    """
    wanted = sorted(map(np.dtype, dtypes), key=lambda dtype: dtype != image.dtype)
    for dtype in wanted:
        lost = _lost(image, dtype)
        if not lost.any():
            return image.astype(dtype)
    names = " or ".join(np.dtype(name).name for name in dtypes)
    place = tuple(np.argwhere(lost)[0].tolist())
    raise ValueError(
        f"a {path.suffix} file holds {names}: the image of {image.dtype} has {lost.sum()} other "
        f"values, such as {image[place]} in pixel {place}: use .edf, .tif or .h5"
    )


def _lost(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return which values of an image a dtype does not hold."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = image.astype(dtype)
        if image.dtype.kind == "f":
            return (cast.astype(image.dtype) != image) & ~np.isnan(image)
        # Beyond these bounds some whole numbers are between two values of the dtype.
        most = 2 ** (np.finfo(dtype).nmant + 1)
        return (image < -most) | (image > most)
    bounds = np.iinfo(dtype)
    if image.dtype.kind != "f":
        return (image < bounds.min) | (image > bounds.max)
    # A float compares in its own dtype, where the largest integer may be rounded up: the power of
    # two above it is exact, but in float16.
    values = image.astype("f4") if image.dtype == np.float16 else image
    inside = (values >= float(bounds.min)) & (values < float(bounds.max) + 1)
    return ~(inside & (np.floor(values) == values))


class OutputFile(io.RawIOBase):
    """A new file that is written and read, and is on the disk once it is closed.

    An error of the disk is raised where it occurs or, if deferred, by `check`: libraries in C crash
    when they cannot write the last part of a file that they close. After an error the data stay in
    memory, where these libraries can read them again.

    Parameters
    ----------
    path : Path
        Of the file, which must not exist yet.
    deferred : bool
        Whether `write` and `truncate` keep their error for `check`.
    """

    def __init__(self, path: Path, deferred: bool = False) -> None:
        try:
            self._file = path.open("xb+", buffering=0)
        except BaseException:
            super().close()  # or else the object would be closed when it is deleted
            raise
        self._deferred, self._error = deferred, None  # type: bool, OSError | None
        self._position = self._size = 0
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            self._try(self._write_all, view)
        if self._error is not None:
            self._kept.append((self._position, bytes(view)))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        self._file.seek(self._position)
        while view:
            view = view[self._file.write(view) :]

    def _try(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if not self._deferred:
                raise
            self._error = error

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._position)
        have = self._file.readinto(view[:count]) or 0
        view[have:count] = bytes(count - have)
        for start, data in self._kept:
            _overlay(view[:count], start - self._position, data)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        if self._error is None:
            self._try(self._file.truncate, self._size)
        return self._size

    def seekable(self) -> bool:
        return True

    readable = writable = seekable

    def close(self) -> None:
        if not self.closed:
            try:
                # A network file system, or a quota, may complain only now.
                self._file.close() if self._error else self._finish()
            finally:
                super().close()

    def _finish(self) -> None:
        try:
            sync(self._file.fileno())
        finally:
            self._file.close()


def _overlay(view: memoryview, start: int, data: bytes) -> None:
    """Copy the bytes that begin at ``start``, maybe before a view, as far as they lie in it."""
    skipped = max(0, -start)
    first = max(0, start)
    part = data[skipped : skipped + max(0, len(view) - first)]
    view[first : first + len(part)] = part
