"""When a directory that several processes use is removed: with the last of them that holds it.

Each process that holds a directory has a mark in it, an empty file with its name::

    daskstats-scratch-0f3a/holders/node1~4711~1763942917.25~9c41
                                   node2~1234~1763942918.50~07be

Nobody asks anybody; it all rests on what a file system does for one of several processes only. A
directory appears by a rename, with its first mark in it. Who takes its mark away tries to remove
``holders``, which fails as long as another mark is there, or comes; who succeeds has the directory
for itself, renames it, so that its name is free, and removes it. Marks of processes that have been
killed do not count, as far as can be told: on their own machine.
"""

import errno
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from ..processes import has_ended, unique_name

HOLDERS = "holders"

# In the names of directories that are not there yet, or not there any more.
NEW, GONE = ".new-", ".gone-"

# Seconds that those who hold a directory are given to let go, if nothing tells that it goes on; and
# beyond which one that somebody has begun to remove is taken for left.
LEAVING = 1.0

# What a rename onto a directory with something in it ends with.
OCCUPIED = errno.ENOTEMPTY, errno.EEXIST


def hold(directory: Path, fill: Callable[[Path], object]) -> Path:
    """Return this process's mark in a directory, which is made if it is not there.

    Parameters
    ----------
    directory : Path
    fill : callable
        Puts into a new directory what belongs there before anybody sees it.
    """
    made = directory.with_name(f"{directory.name}{NEW}{uuid4().hex}")
    mark = made / HOLDERS / unique_name()
    mark.parent.mkdir(mode=0o700, parents=True)
    made.chmod(0o700)
    try:
        mark.touch()
        fill(made)
        deadline = time.monotonic() + LEAVING
        while True:
            try:
                made.rename(directory)
                return directory / HOLDERS / mark.name
            except OSError as error:
                if error.errno not in OCCUPIED:
                    raise
            with suppress(FileNotFoundError):
                return join(directory)
            time.sleep(LEAVING / 100)
            if time.monotonic() > deadline:
                _remove(directory)  # for whoever has begun to
    finally:
        shutil.rmtree(made, ignore_errors=True)


def join(directory: Path) -> Path:
    """Return this process's mark in a directory that is held.

    Raises
    ------
    FileNotFoundError
        If it is not.
    """
    mark = directory / HOLDERS / unique_name()
    mark.touch(exist_ok=False)
    return mark


def let_go(mark: Path) -> None:
    """Take a mark away; the directory goes with the last one."""
    mark.unlink(missing_ok=True)
    remove_unheld(mark.parent.parent)


def wait_for_leavers(directory: Path) -> None:
    """Wait for a run that has just ended to let go of its directory.

    One that goes on is told by a mark of a process that was killed, or by time.
    """
    deadline = time.monotonic() + LEAVING
    while is_held(directory) and not _ended_marks(directory) and time.monotonic() < deadline:
        time.sleep(LEAVING / 100)


def is_held(directory: Path) -> bool:
    """Whether a directory has marks, be they of processes that have ended."""
    return (directory / HOLDERS).is_dir()


def remove_unheld(directory: Path) -> bool:
    """Remove a directory if no process that may live holds it, and return whether it is so."""
    for mark in _ended_marks(directory):
        mark.unlink(missing_ok=True)
    try:
        (directory / HOLDERS).rmdir()
    except OSError:
        return False
    _remove(directory)
    return True


def _ended_marks(directory: Path) -> list[Path]:
    found = []
    with suppress(OSError):
        for mark in (directory / HOLDERS).iterdir():
            with suppress(ValueError):
                host, pid, began, _ = mark.name.split("~")
                if has_ended(host, int(pid), float(began)):
                    found.append(mark)
    return found


def _remove(directory: Path) -> None:
    """Remove a directory at once from where it is, and then what is in it.

    A worker lets go where it talks to others, who would miss it while it removes many files.
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
