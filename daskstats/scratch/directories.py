"""Directories for scratch data of one process, and the removal of those left by dead processes."""

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
from typing import Any

from .. import ending, processes
from . import liveness

PREFIX = "daskstats-scratch-"

# Who made a directory, for people; its name tells as well. It is swept when there is no such
# process any more.
OWNER = "owner.json"

# Seconds without a change after which a directory is taken for left: one whose process cannot be
# told, and one of another machine, which may read its own data for long.
UNKNOWN, ELSEWHERE = 600.0, 7 * 24 * 3600.0

# Seconds for tasks to leave a directory when a signal ends the program.
PATIENCE = 1.0


class DamagedScratchError(ValueError):
    """A part of the scratch data is missing, or is not what was written."""


class ScratchDirectory:
    """A directory that is removed when it has ended and nobody uses it.

    A store would make the directory again for who still writes when it is gone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._users, self._ended = directory, 0, False
        self._cause: BaseException | None = None
        self._lock = threading.Lock()
        _directories.add(self)

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
_directories: "weakref.WeakSet[ScratchDirectory]" = weakref.WeakSet()
lock_files: set[Path] = set()
locations: set[Path] = set()


@ending.at_end
def _remove_all() -> None:
    """Remove all scratch data of this process, and of those that it has ended."""
    deadline = time.monotonic() + PATIENCE
    for lease in list(_directories):
        lease.finish(deadline)
    for mark in list(lock_files):
        liveness.let_go(mark)
    for place in list(locations):
        remove_stale(place)


# ---------------------------------------------------------------------- what others left


def remove_stale(place: str | os.PathLike, besides: Path | None = None) -> list[Path]:
    """Remove what processes of this user left in a directory when they were killed.

    Returns
    -------
    list of Path
        The directories that were removed.
    """
    mine = [path for path in Path(place).glob(f"{PREFIX}*") if path != besides]
    mine = [path for path in mine if processes.is_mine(path) and path.is_dir()]
    shared = [path for path in mine if liveness.is_held(path) and liveness.remove_unheld(path)]
    stale = [path for path in mine if liveness.GONE in path.name or _is_stale(path)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return [*shared, *stale]


def _is_stale(path: Path) -> bool:
    """Whether the process that made a directory has ended, or may be taken to have ended."""
    owner = _owner(path)
    if owner is None:
        return not liveness.is_held(path) and processes.unchanged(path) > UNKNOWN
    if processes.is_here(owner[0]):
        return processes.has_ended(*owner)
    return processes.unchanged(path) > ELSEWHERE


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


def new_directory(place: Path) -> Path:
    directory = place / f"{PREFIX}{processes.unique_name()}"
    directory.mkdir(mode=0o700)
    with suppress(OSError):
        (directory / OWNER).write_text(json.dumps(_this_process()))
    return directory


@contextmanager
def temporary_directory(place: str | os.PathLike) -> Iterator[Path]:
    """Give a new directory that is removed at the end, and swept if the process is killed."""
    remove_stale(place)
    with ending.writing:
        made = new_directory(Path(place))
        lease = ScratchDirectory(made)
    try:
        yield made
    finally:
        lease.end()


def _this_process() -> dict[str, Any]:
    return dict(zip(("host", "pid", "began"), processes.this_process(), strict=True))
