"""Memory that is available to this process, and to the workers of a cluster."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil

from .. import config
from ..packages import load
from ..planning.values import MEBI

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]

# Version 1 control groups write "no limit" as the largest multiple of the page size below 2^63.
UNLIMITED = sys.maxsize // 2


def memory_limit(value: int | float | str | None = None) -> int:
    """Return the bytes that a call may use now.

    Parameters
    ----------
    value : int or str, optional
        A limit in bytes, or as text with a unit ("4 GiB"). By default the configured
        ``daskstats.memory-limit`` or, where that is null, ``daskstats.memory-fraction`` of the
        memory that is available to this process at this moment.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        If the limit is not a positive number of bytes.
    TypeError
        If it is neither a number nor text.

    Examples
    --------
    >>> memory_limit("4 GiB")
    4294967296
    >>> 0 < memory_limit() < available()
    True
    """
    configured = config.memory_limit() if value is None else config.parse_memory(value)
    return int(config.memory_fraction() * available()) if configured is None else configured


def available(root: str | Path = "/") -> int:
    """Return the bytes this process can still allocate.

    It is psutil's available memory, lowered by every control group from this process's own to
    the root (limit minus memory in use that cannot be reclaimed) and by ``RLIMIT_AS`` and
    ``RLIMIT_DATA``.

    Parameters
    ----------
    root : path
        Directory that contains ``proc`` and ``sys``; tests give made-up trees.

    Returns
    -------
    int
        Bytes, at least 0.
    """
    free = [psutil.virtual_memory().available, *cgroup_free(root), *rlimit_free()]
    return max(0, min(free))


def cgroup_free(root: str | Path = "/") -> Iterator[int]:
    """Yield the bytes left under each control group that holds this process, v1 and v2."""
    root = Path(root)
    for group, mount, version in _memory_groups(root):
        # The mount may show a part of the hierarchy only: climb until a directory exists.
        for directory in (mount / group, *(mount / group).parents):
            free = _group_free(directory, version)
            if free is not None:
                yield free
            if directory == mount:
                break


def _memory_groups(root: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield (group, mount point, version) of the hierarchies that account for memory."""
    mounts = {}
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, tail = line.partition(" - ")
        kind, _, options = [*tail.split(), "", "", ""][:3]
        if kind == "cgroup2":
            mounts[2] = fields.split()[3:5]
        elif kind == "cgroup" and "memory" in options.split(","):
            mounts[1] = fields.split()[3:5]
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        version = 1 if "memory" in controllers.split(",") else 2 if not controllers else 0
        if version in mounts:
            mount_root, mount_point = mounts[version]
            if group.startswith(mount_root):
                group = group[len(mount_root) :]
            parts = [part for part in group.split("/") if part not in ("", "..", ".")]
            yield "/".join(parts), root / mount_point.lstrip("/"), version


def _group_free(directory: Path, version: int) -> int | None:
    names = {
        1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
        2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    }
    limits, usage, reclaimable = names[version]
    values = [_number(directory / name) for name in limits]
    finite = [value for value in values if value is not None and value < UNLIMITED]
    if not finite:
        return None
    used = _number(directory / usage) or 0
    # Cached file pages count as usage but are dropped as soon as memory is asked for.
    stat = dict(line.split() for line in _lines(directory / "memory.stat") if " " in line)
    return max(0, min(finite) - max(0, used - int(stat.get(reclaimable, 0))))


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        # Mount points and groups may have names in any encoding.
        return path.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def rlimit_free() -> Iterator[int]:
    """Yield the bytes left under RLIMIT_AS and RLIMIT_DATA, where they are set."""
    if resource is None:
        return
    used = psutil.Process().memory_info()
    for name, field in (("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")):
        if hasattr(resource, name):
            soft, _ = resource.getrlimit(getattr(resource, name))
            if soft != resource.RLIM_INFINITY:
                yield max(0, soft - getattr(used, field, 0))


# Bytes of the process of a worker with numba, dask and the kernels loaded (measured: 300 MiB
# resident).
PROCESS_NBYTES = 320 * MEBI


def worker_budget(limit: int) -> int:
    """Return the bytes that tasks may take in a worker of a cluster that has a memory limit.

    >>> worker_budget(1 << 30) >> 20
    294
    """
    load("distributed")  # which has the default
    target = dask.config.get("distributed.worker.memory.target") or 1
    return max(0, int(target * limit - PROCESS_NBYTES))
