"""How much memory there is: psutil, control groups and resource limits, measured at the call."""

import ctypes
import dataclasses
import math
import numbers
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.utils import parse_bytes

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]

# Version 1 control groups write "no limit" as the largest multiple of the page size below 2^63.
UNLIMITED = 1 << 62


def memory_limit(value: int | float | str | None = None) -> int:
    """Return how many bytes a call may use now.

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
    if value is None:
        value = dask.config.get("daskstats.memory-limit", None)
    if value is not None:
        return _parse(value)
    return int(fraction() * available())


def fraction() -> float:
    """Return the configured part of the memory that may be used, in (0, 1]."""
    part = dask.config.get("daskstats.memory-fraction", 0.5)
    if isinstance(part, bool) or not isinstance(part, numbers.Real):
        raise TypeError(f"daskstats.memory-fraction must be a number, got {part!r}")
    if not 0 < float(part) <= 1:
        raise ValueError(f"daskstats.memory-fraction must be in (0, 1], got {part!r}")
    return float(part)


def _parse(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
        raise TypeError(f'memory_limit must be bytes or text such as "4 GiB", got {value!r}')
    try:
        size = parse_bytes(value) if isinstance(value, str) else float(value)
        # dask takes text without a number, such as an empty variable, for one byte.
        number = not isinstance(value, str) or any(map(str.isdigit, value))
        positive = number and math.isfinite(size) and size >= 1
    except (ValueError, OverflowError):
        positive = False
    if not positive:
        raise ValueError(
            f"memory_limit must be a positive number of bytes, or text such as "
            f'"4 GiB", got {value!r}'
        )
    return int(size)


def available(root: str | Path = "/") -> int:
    """Return the bytes this process can still allocate.

    That is psutil's available memory, lowered by every control group from this process's own to
    the root (limit minus what is in use and cannot be reclaimed) and by ``RLIMIT_AS`` and
    ``RLIMIT_DATA``.

    Parameters
    ----------
    root : path
        Where ``proc`` and ``sys`` are; tests give made-up trees.

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


# ---------------------------------------------------------------------- calls at the same time

# Seconds without work after which a run is taken to wait for a thread that waits for its memory,
# as when several lazy images are computed together.
PATIENCE = 0.5

# No thread of this process.
ELSEWHERE = -1

# Bytes of a run that may have left something behind that is worth a few milliseconds.
WORTH_TRIMMING = 1 << 24


@dataclass(eq=False)
class Holding:
    """What a run holds; it is known until its `Share` is no more."""

    nbytes: int
    """projected peak"""
    begun: bool = False
    """whether it has begun; until then another may be quicker"""
    thread: int = 0
    """of the consumer of its images; 0: none, tasks only"""
    tasks: list[int] = dataclasses.field(default_factory=list)
    """threads of those that work now"""
    worked: float = 0
    """when one last did"""


_holdings: set[Holding] = set()
_changed = threading.Condition()


def left(limit: int) -> int:
    """Return what the runs of this process that are known now leave of a limit."""
    with _changed:
        return max(0, limit - sum(holding.nbytes for holding in _holdings))


class Share:
    """The memory of one run beside those of others in this process.

    Parameters
    ----------
    nbytes : int
        Projected peak of the run.
    limit : int
        Bytes of all runs together.
    caller : int, optional
        The thread that waits for the results; by default this one.

    Examples
    --------
    >>> share = Share(100, limit=1000)
    >>> share.reserve()
    >>> left(1000)
    900
    >>> share.release()
    >>> left(1000)
    1000
    """

    def __init__(self, nbytes: int, limit: int, caller: int | None = None) -> None:
        self.nbytes, self.limit = nbytes, limit
        self.caller = threading.get_ident() if caller is None else caller
        self._holding = Holding(nbytes)
        self._end = weakref.finalize(self, _forget, self._holding)

    def reserve(self) -> None:
        """Let calls that are planned from now on know of this one."""
        with _changed:
            _holdings.add(self._holding)

    def begin(self) -> None:
        """Wait until there is room for a run whose images this thread consumes.

        Raises
        ------
        MemoryError
            If this thread consumes or works for others, which could not go on meanwhile.
        """
        self.caller = self._holding.thread = threading.get_ident()
        with _changed:
            # A computation that has failed lives on as long as somebody keeps its traceback.
            while not (self._fits() or _idle(self._holding)):
                self._check()
                _changed.wait(PATIENCE / 4)
            self._take()

    def _check(self) -> None:
        """Raise MemoryError if those that are waited for wait for this one."""
        others = [
            other.nbytes
            for other in _begun(self._holding)
            if self.caller == other.thread or self.caller in other.tasks
        ]
        if others:
            raise MemoryError(
                f"{self.nbytes >> 20} MiB do not fit beside the {sum(others) >> 20} MiB of "
                f"the {len(others)} iterators or computations that are open, with a memory limit "
                f"of {self.limit >> 20} MiB: close them, raise memory_limit, or give each "
                f"a part of it"
            )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the share for a task, once there is room for its run; errors as of `begin`."""
        with _changed:
            while not (self._holding.begun or self._fits() or _idle(self._holding)):
                self._check()
                _changed.wait(PATIENCE / 4)
            self._take()
            self._holding.tasks.append(threading.get_ident())
        try:
            yield
        finally:
            with _changed:
                self._holding.tasks.remove(threading.get_ident())
                self._holding.worked = time.monotonic()

    def release(self) -> None:
        """Give the memory back."""
        self._end()

    def _fits(self) -> bool:
        others = sum(other.nbytes for other in _begun(self._holding))
        return not others or others + self.nbytes <= self.limit

    def _take(self) -> None:
        self._holding.begun, self._holding.worked = True, time.monotonic()
        _holdings.add(self._holding)

    def __reduce__(self) -> Any:
        # Another process has memory of its own.
        return Share, (self.nbytes, self.limit, ELSEWHERE)


def _begun(mine: Holding) -> list[Holding]:
    return [other for other in _holdings if other.begun and other is not mine]


def _idle(mine: Holding) -> bool:
    """Whether no other run has worked for a while; one with a consumer always may."""
    others = _begun(mine)
    newest = max(other.worked for other in others)
    busy = any(other.tasks or other.thread for other in others)
    return not busy and time.monotonic() - newest > PATIENCE


def _forget(holding: Holding) -> None:
    if holding.begun and holding.nbytes >= WORTH_TRIMMING:
        _trim()
    with _changed:
        _holdings.discard(holding)
        _changed.notify_all()


def _trim() -> None:
    """Let glibc give the system back what the threads of a run have freed, before the next one."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
