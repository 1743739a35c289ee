"""Names of processes, and files left behind by processes that have ended."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil

# Seconds without a change after which a file or directory of another machine counts as abandoned:
# there is no way to tell whether its process is alive, which may read its own data for long.
ABANDONED = 7 * 24 * 3600.0


class Process(NamedTuple):
    """A process, in a form that can be written into a file."""

    host: str
    """machine"""
    pid: int
    """number"""
    began: float
    """time of its start"""


def this_process() -> Process:
    """Return this process."""
    return Process(socket.gethostname(), os.getpid(), psutil.Process().create_time())


def unique_name() -> str:
    """Return a new name that contains this process."""
    host, pid, began = this_process()
    return f"{host}~{pid}~{began:.2f}~{uuid4().hex}"


def maker(name: str) -> Process | None:
    """Return the process that a unique name contains, None for another name.

    >>> maker("node1~4711~1763942917.25~9c41")
    Process(host='node1', pid=4711, began=1763942917.25)
    """
    with suppress(ValueError):
        host, pid, began, _ = name.split("~")
        return Process(host, int(pid), float(began))
    return None


def is_here(host: str) -> bool:
    """Whether a machine is this one."""
    return host == socket.gethostname()


def has_ended(host: str, pid: int, began: float) -> bool:
    """Whether a process is known to have ended; one of another machine may live."""
    if not is_here(host):
        return False
    try:
        return abs(psutil.Process(pid).create_time() - began) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def is_mine(path: Path) -> bool:
    """Whether this user has made a file or directory, and it is not a symbolic link."""
    with suppress(OSError):
        return not path.is_symlink() and (
            not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
        )
    return False


def is_abandoned(path: Path, owner: Process) -> bool:
    """Whether the process that made a file or directory has ended, or may be assumed to have."""
    return has_ended(*owner) if is_here(owner.host) else unchanged(path) > ABANDONED


def unchanged(path: Path) -> float:
    """Return the seconds since the last change in a file or a directory; 0 if it is gone."""
    latest = _changed(path)
    # Another process may be removing it: missing files are passed over.
    for place, directories, files in os.walk(path):
        latest = max([latest, *(_changed(Path(place, name)) for name in (*directories, *files))])
    return time.time() - latest if latest else 0.0


def _changed(path: Path) -> float:
    """Return the time of the last change of a file, 0 if it is gone."""
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
