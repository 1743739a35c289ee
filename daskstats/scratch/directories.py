"""Directories of one process for scratch data, and the removal of those of dead processes."""

import json
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path

from .. import ending, processes
from . import liveness

PREFIX = "daskstats-scratch-"

# The process that made a directory, as people read it; the name of the directory has it, too.
OWNER = "owner.json"

# Seconds without a change after which the directory of an unknown process counts as left.
UNKNOWN = 600.0


class DamagedScratchError(ValueError):
    """A part of the scratch data is missing, or has been altered."""


class ScratchDirectory:
    """A new directory in a place; `end` removes it as soon as no user is inside of ``with``.

    A late writer would otherwise make the directory again.
    """

    def __init__(self, place: Path) -> None:
        self.path = place / f"{PREFIX}{processes.unique_name()}"
        self._users, self._ended = 0, False
        self._cause: BaseException | None = None
        self._lock = threading.Lock()
        with ending.writing:
            self.path.mkdir(mode=0o700)
            _directories.add(self)
            with suppress(OSError):
                (self.path / OWNER).write_text(json.dumps(processes.this_process()._asdict()))

    def end(self, cause: BaseException | None = None) -> None:
        """Remove the directory now, or when the last user has left."""
        with self._lock, suppress(Exception):
            # A copy has no traceback, which would keep the buffers of a failed task.
            self._cause = self._cause or (cause and copy(cause))
        with self._lock:
            self._ended = True
        self._remove_unused()

    def finish(self, deadline: float) -> None:
        """Wait for users to leave until a deadline, and remove the directory."""
        self.end()
        while self._users and time.monotonic() < deadline:
            time.sleep(0.01)
        self._remove()

    def check(self) -> None:
        """Raise the cause if the directory is to be removed: a user should leave."""
        if self._ended and self._cause is not None:
            # Of two tasks that fail, dask may hear of this one first.
            raise self._cause
        if self._ended:
            raise DamagedScratchError(f"scratch data in {self.path} have been removed")

    def __enter__(self) -> None:
        with self._lock:
            self.check()
            self._users += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._users -= 1
        self._remove_unused()

    def _remove_unused(self) -> None:
        with self._lock:
            unused = self._ended and not self._users
        if unused:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


# Directories of this process, and places where processes that it started may have more.
_directories: "weakref.WeakSet[ScratchDirectory]" = weakref.WeakSet()
locations: set[Path] = set()


@ending.at_end
def _remove_all() -> None:
    """Remove all scratch data of this process, and of processes that it has ended."""
    deadline = time.monotonic() + liveness.LEAVING
    for directory in list(_directories):
        directory.finish(deadline)
    liveness.release_all()
    for place in list(locations):
        remove_stale(place)


@contextmanager
def temporary_directory(place: str | os.PathLike) -> Iterator[Path]:
    """Give a new directory that is removed at the end, or later if the process is killed."""
    remove_stale(place)
    directory = ScratchDirectory(Path(place))
    try:
        yield directory.path
    finally:
        directory.end()


def remove_stale(place: str | os.PathLike, keep: Path | None = None) -> list[Path]:
    """Remove the directories that dead processes of this user left in a place, except one.

    Returns
    -------
    list of Path
        The directories that were removed.
    """
    mine = [path for path in Path(place).glob(f"{PREFIX}*") if path != keep]
    mine = [path for path in mine if processes.is_mine(path) and path.is_dir()]
    shared = [path for path in mine if liveness.is_locked(path) and liveness.remove_unlocked(path)]
    stale = [path for path in mine if liveness.GONE in path.name or _is_stale(path)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return [*shared, *stale]


def _is_stale(path: Path) -> bool:
    """Whether the process that made a directory has ended, or may be taken to have ended."""
    owner = _owner(path)
    if owner is None:
        return not liveness.is_locked(path) and processes.unchanged(path) > UNKNOWN
    return processes.is_abandoned(path, owner)


def _owner(path: Path) -> processes.Process | None:
    """Return the process that made a directory, if known."""
    named = processes.maker(path.name.removeprefix(PREFIX))
    if named is not None:
        return named
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((path / OWNER).read_text())
        return processes.Process(owner["host"], int(owner["pid"]), float(owner["began"]))
    return None
