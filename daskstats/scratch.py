"""Where frames wait on disk, in row order, when memory is too small for them.

Frames come in groups and go out in bands of rows. A spool is a directory with one zarr array
(frames, rows, cols), whose chunks are the bands of a group::

             band 0    band 1    band 2
    group 0  chunk     chunk     chunk       written by one task
    group 1  chunk     chunk     chunk
               |
           read by one task

Only whole chunks are written and read. Each ends with its checksum (CRC-32C), and `Spool.write`
returns what it wrote: size and checksum of every chunk. Without that record nothing is read, so
that a chunk that is missing, cut or altered is an error, never an image.
"""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import numpy as np

from . import ending, holders, writing
from .leases import Pool
from .packages import load, loaded

PREFIX = "daskstats-scratch-"

OWN = "daskstats.scratch-directory"

# Who made a directory, for people; its name tells as well. It is swept when there is no such
# process any more.
OWNER = "owner.json"

# Seconds without a change after which a directory is taken for left: one whose process cannot be
# told, and one of another machine, which may read its own data for long.
UNKNOWN, ELSEWHERE = 600.0, 7 * 24 * 3600.0

# Chunks that one call of zarr's writes or reads at the same time: enough to keep its threads busy,
# few enough to be small beside a memory limit.
CHUNKS_AT_ONCE = 4

# Seconds for tasks to leave a directory when a signal ends the program.
PATIENCE = 1.0

# Seconds between looks whether a worker still has what holds a shared directory.
LOOK = 0.5

RAM_DISKS = ("tmpfs", "ramfs", "devtmpfs")


class DamagedScratchError(ValueError):
    """A part of the scratch data is missing, or is not what was written."""


@dataclass(frozen=True)
class Room:
    """Where scratch data may go, and how much."""

    directory: str
    """an existing directory"""
    nbytes: int
    """free bytes"""
    in_memory: bool = False
    """whether it is a RAM disk, whose bytes are memory"""


def room(directory: str | os.PathLike | None = None, root: str | Path = "/") -> Room:
    """Return where scratch data goes, and the room there.

    Parameters
    ----------
    directory : path, optional
        By default the configured ``daskstats.scratch-directory``, dask's ``temporary-directory``
        or, where both are null, that of the system (``TMPDIR``).
    root : path
        Where ``proc`` is; tests give made-up trees.

    Raises
    ------
    NotADirectoryError
        If it is no directory that can be written to; the message names the setting.
    """
    place, setting = (Path(directory), OWN) if directory else location()
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(
            f"frames that do not fit into memory would wait in {place} ({setting}), which is no "
            f"directory that can be written to: make it, or set {OWN} to one that is there"
        )
    return Room(str(place), shutil.disk_usage(place).free, _file_system(place, root) in RAM_DISKS)


def location() -> tuple[Path, str]:
    """Return the directory for scratch data, be it there or not, and the setting it comes from."""
    own = own_directory()
    if own is not None:
        return Path(own).absolute(), OWN
    dasks = _directory("temporary-directory")
    if dasks is not None:
        return Path(dasks).absolute(), "dask's temporary-directory"
    try:
        return Path(tempfile.gettempdir()).absolute(), "TMPDIR"
    except FileNotFoundError:
        # The system's and this process's working directory cannot be written to either.
        return Path(os.environ.get("TMPDIR", "/tmp")).absolute(), "TMPDIR"


def own_directory() -> str | None:
    """Return the directory that is configured for nothing else; the workers of a cluster share it.

    dask's own ``temporary-directory`` is for what each worker has for itself.
    """
    return _directory(OWN)


def _directory(setting: str) -> str | None:
    """Return a directory that is configured, None if it is null or an empty variable."""
    value = dask.config.get(setting, None)
    if value is None or value == "":
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{setting} must be the path of a directory, got {value!r}")
    return str(Path(value).expanduser())


def _file_system(place: Path, root: str | Path) -> str:
    """Return the type of the file system that holds a directory, "" where it cannot be told."""
    found = ("", "")
    try:
        lines = Path(root, "proc/mounts").read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""
    real = os.path.realpath(place)
    for line in lines.splitlines():
        mount, kind = line.split(" ")[1:3]
        mount = mount.replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(found[0]):
            found = mount, kind
    return found[1]


class Spool:
    """What is kept on disk, and where; `open` gives one whose directory is there.

    Parameters
    ----------
    place : path
        The directory to make the spool's own in.
    shape : tuple of int
        Frames, rows, cols.
    dtype : dtype
        Of the frames.
    group, height : int
        Frames of a group, and rows of a band; the last of each may have less.
    needed : int
        Bytes of room that must be there.
    buffers : int
        Groups and bands that are in memory at once.
    compression : "lz4", "zstd" or "none"
        Of the chunks. lz4 halves the frames of a counting detector and takes no longer than
        writing them as they are.
    """

    def __init__(
        self,
        place: str | os.PathLike,
        shape: tuple[int, int, int],
        dtype: Any,
        group: int,
        height: int,
        needed: int = 0,
        buffers: int = 1,
        compression: str = "lz4",
    ) -> None:
        self.place, self.shape, self.dtype = Path(place), shape, np.dtype(dtype)
        _places.add(self.place)
        self.group, self.height = group, height
        self.needed, self.buffers = needed, buffers
        self.compression = check_compression(compression)
        self.directory: Path | None = None
        self._array: Any = None
        self._metadata = b""
        self._opened: weakref.WeakSet[Spool] = weakref.WeakSet()
        self._lease: _Lease | None = None
        self._pool = Pool(buffers)
        self.share: Any = None
        """what must not be given back before this is no more"""
        # Loaded before the run begins, so that at exit it ends after the run.
        load("zarr")

    def open(self) -> "Spool":
        """Return a spool like this one with a new directory, which is removed with it.

        `remove` of either removes it earlier.
        """
        sweep(self.place)
        free = shutil.disk_usage(self.place).free
        if free < self.needed:
            raise OSError(no_room(self.needed, free, self.place))
        opened = copy(self)
        opened._pool, opened.share = Pool(self.buffers), None
        opened._opened = weakref.WeakSet([opened])
        with ending.writing:
            opened.directory = _new_directory(self.place)
            opened._lease = _Lease(opened.directory)
            weakref.finalize(opened, opened._lease.end)
            self._opened.add(opened)
            opened._array = opened._create(opened.directory)
        opened._metadata = (opened.directory / "zarr.json").read_bytes()
        return opened

    def remove(self, cause: BaseException | None = None) -> None:
        """Remove the directories, as soon as nobody is writing or reading there.

        Whoever comes too late is told the cause, if there is one.
        """
        for opened in list(self._opened):
            assert opened._lease is not None
            opened._lease.end(cause)

    @property
    def removal(self) -> Callable[[], None]:
        """The function that removes an open spool's directory; it does not keep the spool alive."""
        assert self._lease is not None, "only an open spool of this process is removed"
        return self._lease.end

    def buffer(self, nframes: int, nrows: int) -> np.ndarray:
        """Return an array for some rows of some frames, in memory that groups and bands share."""
        total, rows, cols = self.shape
        most = max(self.group * rows, total * self.height) * cols * self.dtype.itemsize
        return self._pool.array((nframes, nrows, cols), self.dtype, most)

    def write(self, start: int, frames: np.ndarray) -> "Written":
        """Write the group of frames (frames, rows, cols) that begins with ``start``, whole.

        Returns
        -------
        Written
            What `read` needs to know about it.
        """
        try:
            with self._using():
                return self._write(start, frames)
        except OSError as error:
            free = shutil.disk_usage(self.place).free
            text = f"{no_room(self.needed, free, self.place)} ({error})"
            failure = OSError(error.errno, text)
            self.remove(failure)
            raise failure from error

    def _write(self, start: int, frames: np.ndarray) -> "Written":
        stop, bands = start + len(frames), range(-(-self.shape[1] // self.height))
        few, array = CHUNKS_AT_ONCE * self.height, self._opened_array()
        for first in range(0, self.shape[1], few):
            if self._lease is not None:
                self._lease.check()
            array[start:stop, first : first + few] = frames[:, first : first + few]
        return Written(start, stop, tuple(_seal(self._file(start, band)) for band in bands))

    def recorded(self, start: int, stop: int) -> "Written | None":
        """Return what another process has written of a group before it died, if anything."""
        return None

    def read(self, band: int, every: Sequence["Written"]) -> np.ndarray:
        """Return the rows of one band of all frames (frames, rows, cols).

        Parameters
        ----------
        every : sequence of Written
            All groups, in order.

        Raises
        ------
        DamagedScratchError
            If they are not what was written; the message names rows, frames and file.
        """
        with self._using():
            return self._read(band, every)

    def _read(self, band: int, every: Sequence["Written"]) -> np.ndarray:
        first = band * self.height
        rows = self.buffer(every[-1].stop, min(self.height, self.shape[1] - first))
        for edge in range(0, len(every), CHUNKS_AT_ONCE):
            few = every[edge : edge + CHUNKS_AT_ONCE]
            for written in few:
                with self._blaming(band, written):
                    self._check(band, written)
            try:
                self._fill(rows, few, first)
            except Exception:
                # The same again, one by one, tells which it was.
                for written in few:
                    with self._blaming(band, written):
                        self._fill(rows, [written], first)
        return rows

    def _using(self) -> AbstractContextManager:
        """Keep the directory from being removed; another process knows nothing of that."""
        return self._lease if self._lease is not None else nullcontext()

    def _fill(self, rows: np.ndarray, few: Sequence["Written"], first: int) -> None:
        frames = slice(few[0].start, few[-1].stop)
        where = frames, slice(first, first + rows.shape[1]), slice(None)
        prototype = load("zarr.core.buffer").default_buffer_prototype()
        out = prototype.nd_buffer.from_numpy_array(rows[frames])
        self._opened_array().get_basic_selection(where, out=out)

    def _check(self, band: int, written: "Written") -> None:
        seal = _seal(self._file(written.start, band))
        if seal != written.chunks[band]:
            raise ValueError(f"its size and checksum are {seal}, not {written.chunks[band]}")

    @contextmanager
    def _blaming(self, band: int, written: "Written") -> Iterator[None]:
        """Say which rows and frames an error is about."""
        try:
            yield
        except Exception as error:
            first = band * self.height
            raise DamagedScratchError(
                f"scratch data of rows {first} to {min(first + self.height, self.shape[1]) - 1} "
                f"of frames {written.start} to {written.stop - 1} are damaged: {error}: "
                f"{self._file(written.start, band)}"
            ) from error

    def _file(self, start: int, band: int) -> Path:
        assert self.directory is not None, "only an open spool has files"
        return self.directory / "c" / f"{start // self.group}" / f"{band}" / "0"

    def _create(self, directory: Path) -> Any:
        return load("zarr").create_array(
            directory,
            shape=self.shape,
            chunks=(self.group, self.height, self.shape[2]),
            dtype=self.dtype,
            filters=None,
            compressors=_codecs(self.compression, self.dtype.itemsize),
            # A chunk of zeros must be there as well.
            config={"write_empty_chunks": True},
        )

    def _opened_array(self) -> Any:
        """Return the array; where the spool was sent to, it is opened again."""
        if self._array is None:
            assert self.directory is not None, "only an open spool has an array"
            if (self.directory / "zarr.json").read_bytes() != self._metadata:
                raise DamagedScratchError(f"scratch data in {self.directory} have been altered")
            self._array = load("zarr").open_array(self.directory, mode="r+")
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        # Whoever made a directory removes it.
        return {
            **vars(self),
            "_array": None,
            "_pool": None,
            "share": None,
            "_lease": None,
            "_opened": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pool, self._opened = Pool(self.buffers), weakref.WeakSet()


class SharedSpool(Spool):
    """A spool of several processes, in a directory whose name they all know.

    `open` makes the directory, or finds it with what processes that have died have written. What it
    returns, and every `Written`, holds the directory in each process that it is sent to; the last
    one that lets go of them removes it.

    Parameters
    ----------
    name : str
        Of the directory; the same for tasks that write the same. It begins with what the keys of
        these tasks have in common, and a hyphen.
    """

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        self._lost = False

    def open(self) -> Spool:
        """Return this process's spool with the directory."""
        check_seen(self.place)
        directory = self.place / f"{PREFIX}{self.name}"
        sweep(self.place, besides=directory)
        if directory not in _shared:
            holders.wait_for_leavers(directory)
        with _sharing:
            return _shared.get(directory) or self._first(directory)

    def _first(self, directory: Path) -> "SharedSpool":
        free = shutil.disk_usage(self.place).free
        if free < self.needed and not directory.exists():
            raise OSError(no_room(self.needed, free, self.place))
        opened = copy(self)
        mark = holders.hold(directory, opened._begin)
        return opened._held(directory, mark)

    def _begin(self, made: Path) -> None:
        self._create(made)
        self._metadata = (made / "zarr.json").read_bytes()

    def _held(self, directory: Path, mark: Path) -> "SharedSpool":
        token = self.name.partition("-")[0]
        self.directory = directory
        _shared[directory] = self
        end = weakref.finalize(self, _let_go, mark, token)
        _marks.add(mark)
        if _known(token):
            arguments = directory, end, token
            threading.Thread(target=_watch, args=arguments, daemon=True).start()
        return self

    def remove(self, cause: BaseException | None = None) -> None:
        """Leave the directory to those that hold it; a task that has failed may run again."""

    def recorded(self, start: int, stop: int) -> "Written | None":
        """Return what another process has written of a group before it died, if anything."""
        with self._using():
            try:
                begin, end, chunks = json.loads(self._record(start).read_text())
            except (OSError, ValueError):
                return None
        found = Written(begin, end, tuple((size, seal) for size, seal in chunks), self)
        return found if (begin, end) == (start, stop) else None

    def _write(self, start: int, frames: np.ndarray) -> "Written":
        # Chunks and the record appear whole, by a rename: two processes may write the same.
        found = super()._write(start, frames)
        part = self._record(start).with_suffix(f".{uuid4().hex}")
        part.write_text(json.dumps([found.start, found.stop, found.chunks]))
        part.replace(self._record(start))
        return replace(found, spool=self)

    def write(self, start: int, frames: np.ndarray) -> "Written":
        """Write as any spool does, and a record of it for whoever has to do it again."""
        with self._using():
            try:
                return super().write(start, frames)
            except OSError:
                self._using()  # which tells if the directory is not there any more
                raise

    def _record(self, start: int) -> Path:
        assert self.directory is not None, "only an open spool has records"
        return self.directory / f"written-{start}.json"

    def _using(self) -> AbstractContextManager:
        assert self.directory is not None, "only an open spool is used"
        if self._lost or not holders.is_held(self.directory):
            check_seen(self.place)
            raise FileNotFoundError(unseen(self.directory))
        return nullcontext()

    def __reduce__(self) -> Any:
        return _arrived, (self.__getstate__(),)


_shared: "weakref.WeakValueDictionary[Path, SharedSpool]" = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _arrived(state: dict[str, Any]) -> SharedSpool:
    """Return the shared spool that has been sent; each process has one for a directory."""
    spool = SharedSpool.__new__(SharedSpool)
    spool.__setstate__(state)
    directory = spool.directory
    if directory is None:
        return spool
    with _sharing:
        known = _shared.get(directory)
        if known is not None:
            return known
        try:
            return spool._held(directory, holders.join(directory))
        except OSError:
            # Whoever uses it is told; here it would end the worker's connection.
            spool._lost = True
            return spool


def _let_go(mark: Path, token: str) -> None:
    """Let a shared directory go, but not while what holds it is only on a worker's own disk."""
    if _spilled(token):
        timer = threading.Timer(LOOK, _let_go, (mark, token))
        timer.daemon = True
        timer.start()
    else:
        holders.let_go(mark)
        _marks.discard(mark)


def _spilled(token: str) -> bool:
    """Whether a worker of this process has results on its disk whose keys have a token."""
    slow = [getattr(worker.data, "slow", ()) for worker in _workers_here()]
    return any(token in str(key) for keys in slow for key in list(keys))


def _watch(directory: Path, end: weakref.finalize, token: str) -> None:
    """Let a directory go as soon as no worker here has tasks of its run any more.

    A spool may live on then: the traceback of a task that has failed, or been cancelled, has it.
    """
    while end.alive:
        time.sleep(LOOK)
        with _sharing:
            if end.alive and not _known(token):
                _shared.pop(directory, None)
                end()


def _known(token: str) -> bool:
    """Whether a worker of this process knows of tasks whose keys have a token."""
    every = (key for worker in _workers_here() for key in list(worker.state.tasks))
    return any((key[0] if isinstance(key, tuple) else key).endswith(token) for key in every)


def _workers_here() -> list:
    """Return the workers of clusters that this process is."""
    worker = loaded("distributed.worker", "Worker")
    return list(worker._instances) if worker is not None else []


def check_seen(place: Path) -> None:
    """Raise NotADirectoryError if a worker does not see the directory for scratch data."""
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(unseen(place))


def unseen(path: Path | None) -> str:
    """Say that a directory is not shared."""
    return (
        f"{path} is not there, or cannot be written to, on worker {socket.gethostname()}: "
        f"daskstats.scratch-directory must be a directory that the client and all workers share"
    )


class _Lease:
    """A directory that is removed when it has ended and nobody uses it.

    A store would make the directory again for who still writes when it is gone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._users, self._ended = directory, 0, False
        self._cause: BaseException | None = None
        self._lock = threading.Lock()
        _leases.add(self)

    def end(self, cause: BaseException | None = None) -> None:
        """Remove the directory now, or when the last user has left."""
        with self._lock, suppress(Exception):
            # A copy has no traceback, which would keep the buffers of a failed task.
            self._cause = self._cause or (cause and copy(cause))
        with self._lock:
            self._ended, unused = True, not self._users
        if unused:
            shutil.rmtree(self._directory, ignore_errors=True)

    def finish(self, deadline: float) -> None:
        """Wait for users to leave, but remove the directory when their time is over."""
        self.end()
        while self._users and time.monotonic() < deadline:
            time.sleep(0.01)
        shutil.rmtree(self._directory, ignore_errors=True)

    def check(self) -> None:
        """Raise the cause if the directory is to be removed: a user should leave."""
        if self._ended and self._cause is not None:
            # Of two tasks that fail, dask may hear of this one first.
            raise self._cause
        if self._ended:
            raise DamagedScratchError(f"scratch data in {self._directory} have been removed")

    def __enter__(self) -> None:
        with self._lock:
            self.check()
            self._users += 1

    def __exit__(self, *exc_info: Any) -> None:
        with self._lock:
            self._users -= 1
            unused = self._ended and not self._users
        if unused:
            shutil.rmtree(self._directory, ignore_errors=True)


# What this process has on disk, and the directories where processes that it started may have more.
_leases: "weakref.WeakSet[_Lease]" = weakref.WeakSet()
_marks: set[Path] = set()
_places: set[Path] = set()


@ending.at_end
def _remove_all() -> None:
    """Remove all scratch data of this process, and of those that it has ended."""
    deadline = time.monotonic() + PATIENCE
    for lease in list(_leases):
        lease.finish(deadline)
    for mark in list(_marks):
        holders.let_go(mark)
    for place in list(_places):
        sweep(place)


@dataclass(frozen=True)
class Written:
    """What a group of frames is on disk."""

    start: int
    """first frame"""
    stop: int
    """end of the frames"""
    chunks: tuple[tuple[int, int], ...]
    """size and checksum of the chunk of each band"""
    spool: Any = field(default=None, compare=False, repr=False)
    """what must live as long as this, so that there is what was written"""


def _seal(file: Path) -> tuple[int, int]:
    """Return a file's size and its last four bytes, which are the checksum of the others."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 4))
        return size, int.from_bytes(opened.read(), "little")


COMPRESSIONS = ("lz4", "zstd", "none")


def compression() -> str:
    """Return the configured compression; null, as dask reads ``none`` in a variable, is none."""
    name = dask.config.get("daskstats.scratch-compression", "lz4")
    return check_compression("none" if name is None else name)


def check_compression(name: Any) -> str:
    """Return the name of a compression, or say which there are."""
    lower = name.lower() if isinstance(name, str) else name
    if lower not in list(COMPRESSIONS):
        raise ValueError(
            f"daskstats.scratch-compression must be one of {', '.join(COMPRESSIONS)}, got {name!r}"
        )
    return lower


def _codecs(compression: str, itemsize: int) -> list:
    codecs = load("zarr.codecs")
    if compression == "none":
        return [codecs.Crc32cCodec()]
    blosc = codecs.BloscCodec(cname=compression, clevel=1, shuffle="shuffle", typesize=itemsize)
    return [blosc, codecs.Crc32cCodec()]


def no_room(needed: int, free: int, place: str | os.PathLike) -> str:
    """Say what scratch data need and what there is."""
    return (
        f"scratch data need {needed / 2**30:.3g} GiB, there are {free / 2**30:.3g} GiB at {place}: "
        f"make room, or set daskstats.scratch-directory to another place"
    )


# ---------------------------------------------------------------------- what others left


def sweep(place: str | os.PathLike, besides: Path | None = None) -> list[Path]:
    """Remove what processes of this user left in a directory when they were killed.

    Returns
    -------
    list of Path
        The directories that were removed.
    """
    mine = [path for path in Path(place).glob(f"{PREFIX}*") if path != besides]
    mine = [path for path in mine if writing.is_mine(path) and path.is_dir()]
    shared = [path for path in mine if holders.is_held(path) and holders.remove_unheld(path)]
    stale = [path for path in mine if holders.GONE in path.name or _is_stale(path)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return [*shared, *stale]


def _is_stale(path: Path) -> bool:
    """Whether the process that made a directory has ended, or may be taken to have ended."""
    owner = _owner(path)
    if owner is None:
        return not holders.is_held(path) and writing.unchanged(path) > UNKNOWN
    if holders.is_here(owner[0]):
        return holders.has_ended(*owner)
    return writing.unchanged(path) > ELSEWHERE


def _owner(path: Path) -> tuple[str, int, float] | None:
    """Return the machine, number and start of the process that made a directory, if known."""
    try:
        if path.name.count("~") == 3:
            host, pid, began, _ = path.name.removeprefix(PREFIX).split("~")
        else:
            owner = json.loads((path / OWNER).read_text())
            host, pid, began = owner["host"], owner["pid"], owner["began"]
        return host, int(pid), float(began)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _new_directory(place: Path) -> Path:
    directory = place / f"{PREFIX}{holders.new_mark()}"
    directory.mkdir(mode=0o700)
    with suppress(OSError):
        (directory / OWNER).write_text(json.dumps(_this_process()))
    return directory


@contextmanager
def directory(place: str | os.PathLike) -> Iterator[Path]:
    """Give a new directory that is removed at the end, and swept if the process is killed."""
    sweep(place)
    with ending.writing:
        made = _new_directory(Path(place))
        lease = _Lease(made)
    try:
        yield made
    finally:
        lease.end()


def _this_process() -> dict[str, Any]:
    return dict(zip(("host", "pid", "began"), holders.this_process(), strict=True))
