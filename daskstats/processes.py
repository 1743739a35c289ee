"""Names of processes, and files of processes that have ended."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil


def is_mine(path: Path) -> bool:
    """Whether a file or directory belongs to this user, and is no symbolic link."""
    with suppress(OSError):
        return not path.is_symlink() and (
            not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
        )
    return False


def unchanged(path: Path) -> float:
    """Return the seconds since the last change in a file or a directory; 0 if it is gone."""
    latest = _changed(path)
    # Another process may be removing it: missing files are skipped.
    for place, directories, files in os.walk(path):
        latest = max([latest, *(_changed(Path(place, name)) for name in (*directories, *files))])
    return time.time() - latest if latest else 0.0


def _changed(path: Path) -> float:
    """Return the time of the last change of a file, 0 if it is gone."""
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def this_process() -> tuple[str, int, float]:
    """Return the machine, number and start of this process."""
    return socket.gethostname(), os.getpid(), psutil.Process().create_time()


def is_here(host: str) -> bool:
    """Whether a machine is this one."""
    return host == socket.gethostname()


def has_ended(host: str, pid: int, began: float) -> bool:
    """Whether a process is known to have ended; a process of another machine may be alive."""
    if not is_here(host):
        return False
    try:
        return abs(psutil.Process(pid).create_time() - began) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def new_mark() -> str:
    """Return a unique name that identifies the process it was made in."""
    host, pid, began = this_process()
    return f"{host}~{pid}~{began:.2f}~{uuid4().hex}"
