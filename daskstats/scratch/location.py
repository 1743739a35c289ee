"""Where scratch data goes, and how much fits there."""

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from .. import config
from ..planning.values import Disk

SETTING = "daskstats.scratch-directory"

RAM_DISKS = ("tmpfs", "ramfs", "devtmpfs")


def find_location(directory: str | os.PathLike | None = None) -> Disk:
    """Return the directory for scratch data and its free bytes.

    Parameters
    ----------
    directory : path, optional
        By default the configured ``daskstats.scratch-directory``, dask's ``temporary-directory``
        or, where both are null, that of the system (``TMPDIR``).

    Raises
    ------
    NotADirectoryError
        If the directory does not exist or cannot be written to; the message names the setting.
    """
    place, setting = (Path(directory), SETTING) if directory else configured_location()
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(
            f"frames that do not fit into memory would wait in {place} ({setting}), which is no "
            f"directory that can be written to: make it, or set {SETTING} to one that is there"
        )
    in_memory = _file_system(place) in RAM_DISKS
    return Disk(str(place), shutil.disk_usage(place).free, in_memory)


def scratch_disk(cluster: str = "") -> Disk:
    """Return the disk for the scratch data of a plan, shared by the workers of a cluster.

    A missing directory matters only to a plan that uses it, so it counts as an endless disk here.
    """
    compression = config.scratch_compression()
    try:
        disk = find_location()
    except NotADirectoryError:
        disk = Disk(str(configured_location()[0]), sys.maxsize)
    return replace(disk, compression=compression, cluster=cluster)


def configured_location() -> tuple[Path, str]:
    """Return the directory for scratch data, whether it exists or not, and its setting."""
    own = config.scratch_directory()
    if own is not None:
        return own, SETTING
    dasks = config.temporary_directory()
    if dasks is not None:
        return dasks, "dask's temporary-directory"
    try:
        return Path(tempfile.gettempdir()).absolute(), "TMPDIR"
    except FileNotFoundError:
        # The system's and this process's working directory cannot be written to either.
        return Path(os.environ.get("TMPDIR", "/tmp")).absolute(), "TMPDIR"


def _file_system(place: Path) -> str:
    """Return the type of the file system that holds a directory, "" where it cannot be told."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    real = Path(place).resolve()
    holding = [mount for mount in mounts if real.is_relative_to(mount.mountpoint)]
    # Of two mounts at one place the later one hides the other.
    innermost = max(reversed(holding), key=lambda mount: len(mount.mountpoint), default=None)
    return "" if innermost is None else innermost.fstype


def no_room(needed: int, free: int, place: str | os.PathLike) -> str:
    """Return the error of a disk that is too small for scratch data."""
    return (
        f"scratch data need {needed / 2**30:.3g} GiB, there are {free / 2**30:.3g} GiB at {place}: "
        f"make room, or set {SETTING} to another place"
    )
