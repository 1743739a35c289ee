"""Directories of several processes: each is removed by the last process that releases it.

Each process that uses a directory has a lock file there, an empty file named after the process::

    daskstats-scratch-0f3a/locks/node1~4711~1763942917.25~9c41
                                 node2~1234~1763942918.50~07be

Processes exchange no messages: everything relies on atomic rename and rmdir. A directory appears by
a rename, with its first lock file in it. A process that releases a directory removes its lock file
and then tries to remove ``locks``, which fails as long as another lock file is there, or arrives.
The process that succeeds renames the directory, so that its name is free, and removes it. Lock
files of dead processes do not count, if they ran on this machine: only there can that be known.
"""

import errno
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from ..ending import FINISHING
from ..processes import has_ended, maker, unique_name

LOCKS = "locks"

# In the names of directories that are being made, or removed.
NEW, GONE = ".new-", ".gone-"

# Seconds that the users of a directory have to leave it. After this time a removal that another
# process has begun counts as abandoned.
LEAVING = FINISHING

# Errors of a rename onto a directory that is not empty.
OCCUPIED = errno.ENOTEMPTY, errno.EEXIST

_acquired: set[Path] = set()
"""lock files of this process"""


def acquire(directory: Path, fill: Callable[[Path], object]) -> Path:
    """Return a new lock file in a directory, which is made if it does not exist.

    Parameters
    ----------
    directory : Path
    fill : callable
        Fills a new directory before other processes see it.
    """
    made = directory.with_name(f"{directory.name}{NEW}{uuid4().hex}")
    lock = made / LOCKS / unique_name()
    lock.parent.mkdir(mode=0o700, parents=True)
    made.chmod(0o700)
    try:
        lock.touch()
        fill(made)
        deadline = time.monotonic() + LEAVING
        while True:
            try:
                made.rename(directory)
                _acquired.add(directory / LOCKS / lock.name)
                return directory / LOCKS / lock.name
            except OSError as error:
                if error.errno not in OCCUPIED:
                    raise
            with suppress(FileNotFoundError):
                return join(directory)
            time.sleep(LEAVING / 100)
            if time.monotonic() > deadline:
                _remove(directory)  # in place of the process that has begun to
    finally:
        shutil.rmtree(made, ignore_errors=True)


def join(directory: Path) -> Path:
    """Return a new lock file in a directory that other processes use.

    Raises
    ------
    FileNotFoundError
        If no process uses it.
    """
    lock = directory / LOCKS / unique_name()
    lock.touch(exist_ok=False)
    _acquired.add(lock)
    return lock


def release(lock: Path) -> None:
    """Remove a lock file, and with the last one the directory."""
    lock.unlink(missing_ok=True)
    _acquired.discard(lock)
    remove_unlocked(lock.parent.parent)


def release_all() -> None:
    """Release all directories of this process."""
    for lock in list(_acquired):
        release(lock)


def wait_for_release(directory: Path) -> None:
    """Wait for a run that has just ended to release its directory.

    A run that goes on is recognised by the lock file of a dead process, or by time.
    """
    deadline = time.monotonic() + LEAVING
    while is_locked(directory) and not _dead_locks(directory) and time.monotonic() < deadline:
        time.sleep(LEAVING / 100)


def is_locked(directory: Path) -> bool:
    """Whether a directory may have lock files, also of dead processes."""
    return (directory / LOCKS).is_dir()


def remove_unlocked(directory: Path) -> bool:
    """Remove a directory unless a process that may live uses it; return whether it was removed."""
    for lock in _dead_locks(directory):
        lock.unlink(missing_ok=True)
    try:
        (directory / LOCKS).rmdir()
    except OSError:
        return False
    _remove(directory)
    return True


def _dead_locks(directory: Path) -> list[Path]:
    """Return the lock files of dead processes."""
    with suppress(OSError):
        locks = [(lock, maker(lock.name)) for lock in (directory / LOCKS).iterdir()]
        return [lock for lock, process in locks if process and has_ended(*process)]
    return []


def _remove(directory: Path) -> None:
    """Free the name of a directory at once, and then remove its files, in a thread.

    Otherwise a worker would not answer other workers while it removes many files.
    """
    gone = directory.with_name(f"{directory.name}{GONE}{uuid4().hex}")
    try:
        directory.rename(gone)
    except OSError:
        return
    try:
        threading.Thread(target=shutil.rmtree, args=(gone, True)).start()
    except RuntimeError:  # the interpreter is ending
        shutil.rmtree(gone, ignore_errors=True)
