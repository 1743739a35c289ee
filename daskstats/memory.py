"""How much memory there is: psutil, control groups and resource limits, measured at the call."""

import ctypes
import dataclasses
import logging
import math
import numbers
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.utils import parse_bytes, parse_timedelta

from . import runs
from .arguments import shown

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
    if value is not None:
        return _parse(value)
    configured = dask.config.get("daskstats.memory-limit", None)
    if configured is not None:
        return _parse(configured, " as daskstats.memory-limit")
    return int(fraction() * available())


def fraction() -> float:
    """Return the configured part of the memory that may be used, in (0, 1]."""
    part = dask.config.get("daskstats.memory-fraction", 0.5)
    if isinstance(part, bool) or not isinstance(part, numbers.Real):
        raise TypeError(f"daskstats.memory-fraction must be a number, got {part!r}")
    if not 0 < float(part) <= 1:
        raise ValueError(f"daskstats.memory-fraction must be in (0, 1], got {part!r}")
    return float(part)


def _parse(value: Any, where: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
        raise TypeError(
            f'memory_limit must be bytes or text such as "4 GiB", got {shown(value)}{where}'
        )
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
            f'"4 GiB", got {shown(value)}{where}'
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

# Seconds of waiting after which the log says for what.
TELL_AFTER = 5.0

# No thread of this process.
ELSEWHERE = -1

# Bytes of a run that may have left something behind that is worth a few milliseconds.
WORTH_TRIMMING = 1 << 24

# A worker begins to spill at 60 % of its limit, and its process takes so much with numba, dask and
# the kernels loaded (measured: 300 MiB resident).
SAFE, PROCESS_NBYTES = 0.6, 320 << 20

# A time as text, and units that dask does not know.
TIME = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zA-Z]*)")
UNITS = {"min": "m", "mins": "m", "sec": "s", "secs": "s", "hr": "h", "hrs": "h"}

log = logging.getLogger("daskstats")


def worker_room(limit: int) -> int:
    """Return the bytes that tasks may take in a worker of a cluster that has a memory limit.

    >>> worker_room(1 << 30) >> 20
    294
    """
    return max(0, int(SAFE * limit - PROCESS_NBYTES))


def waiting_timeout() -> float:
    """Return the seconds to wait for memory that an iterator holds and nobody advances."""
    return configured_seconds("memory-timeout")


def configured_seconds(name: str) -> float:
    """Return a configured time in seconds, or refuse a value that is none."""
    value = dask.config.get(f"daskstats.{name}", "60 s")
    seconds = _seconds(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f'daskstats.{name} must be seconds, or text such as "30 s" or "1 min", got {value!r}'
        )
    return seconds


def _seconds(value: Any) -> float:
    """Return a time in seconds, NaN if it is none."""
    if not isinstance(value, str):
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return float(value) if is_number else math.nan
    found = TIME.fullmatch(value.strip())
    if found is None:
        return math.nan
    number, unit = found.groups()
    try:
        # dask takes "-5 s" and ".5 s" for something else, so it is given the unit only.
        return float(number) * parse_timedelta(f"1 {UNITS.get(unit, unit) or 's'}")
    except KeyError:
        return math.nan


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
    """threads of those that work now, the consumer included while it waits for an image"""
    worked: float = 0
    """when one last did"""
    runs: frozenset = frozenset()
    """the calls of dask's scheduler of which one is its own, if it has no consumer"""


_holdings: set[Holding] = set()
_changed = threading.Condition()


def left(limit: int) -> int:
    """Return what the runs of this process that are known now leave of a limit."""
    _end_what_is_over()
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
        self._at_failure: list[Callable[[], object]] = []
        self._told = self._failed = False

    def reserve(self) -> None:
        """Let calls that are planned from now on know of this one."""
        with _changed:
            _holdings.add(self._holding)

    def begin(self) -> None:
        """Wait until there is room for a run whose images this thread consumes.

        Raises
        ------
        MemoryError
            If this thread consumes or works for others, which could not go on meanwhile, or if
            the others are iterators that nobody advances.
        """
        self.caller = self._holding.thread = threading.get_ident()
        with _changed:
            self._wait()
            self._take()

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Say, while the consumer waits for an image, that the run goes on."""
        me = threading.get_ident()
        with _changed:
            self._holding.tasks.append(me)
            if self._holding.thread:
                self.caller = self._holding.thread = me  # it may be another one than before
        try:
            yield
        finally:
            self._worked(me)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the share for a task, once there is room for its run; errors as of `begin`."""
        me = threading.get_ident()
        with _changed:
            if not self._holding.begun or self._holding not in _holdings:
                run = runs.of_this_task()
                if self._holding.begun and run <= self._holding.runs:
                    raise RuntimeError("the computation that this task belongs to has ended")
                self._wait(run)
                self._holding.runs = run
            self._take()
            self._holding.tasks.append(me)
        _watch_for_end(self)
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        finally:
            self._worked(me)

    def _worked(self, thread: int) -> None:
        with _changed:
            self._holding.tasks.remove(thread)
            self._holding.worked = time.monotonic()

    def _wait(self, run: frozenset = frozenset()) -> None:
        """Wait, with the lock held, until there is room, or until the task's run has ended."""
        began = time.monotonic()
        # A computation that has failed lives on as long as somebody keeps its traceback.
        while not (self._fits() or _idle(self._holding)):
            self._check()
            if run and run.isdisjoint(runs.going_on()):
                raise RuntimeError("the computation has ended while a task of it waited for memory")
            if not self._told and time.monotonic() - began > TELL_AFTER:
                self._told = True
                log.warning("%s", self._needs("waiting for them to end"))
            _changed.wait(PATIENCE / 4)

    def _check(self) -> None:
        """Raise MemoryError if those that are waited for wait for this one, or for nobody."""
        others = _begun(self._holding)
        mine = [o for o in others if self.caller == o.thread or self.caller in o.tasks]
        if mine:
            raise MemoryError(
                self._needs("close them, raise memory_limit, or give each a part of it", mine)
            )
        left_alone = [other for other in others if _is_left_alone(other)]
        if left_alone and self.nbytes + sum(o.nbytes for o in left_alone) > self.limit:
            raise MemoryError(
                self._needs(
                    f"they are iterators whose thread has ended, or that nobody has advanced for "
                    f"{waiting_timeout():.4g} s (daskstats.memory-timeout): close them",
                    left_alone,
                )
            )

    def _needs(self, remedy: str, others: list[Holding] | None = None) -> str:
        others = _begun(self._holding) if others is None else others
        held = sum(other.nbytes for other in others)
        return (
            f"{self.nbytes >> 20} MiB do not fit next to the {held >> 20} MiB of the {len(others)} "
            f"iterators or computations that are open, with a memory limit of "
            f"{self.limit >> 20} MiB: {remedy}"
        )

    def release(self) -> None:
        """Give the memory back."""
        self._end()

    def at_failure(self, action: Callable[[], object]) -> None:
        """Have something given back when the run of a lazy image ends in an error."""
        self._at_failure.append(action)

    def end(self) -> None:
        """End a run that is over but whose results are kept, by a traceback or a cache."""
        if self._failed or not runs.keeps_results():
            while self._at_failure:
                with suppress(Exception):
                    self._at_failure.pop()()
        _forget(self._holding)

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


def _is_left_alone(holding: Holding) -> bool:
    """Whether an iterator will not be advanced any more, as far as can be told."""
    if not holding.thread or holding.tasks:
        return False
    alive = any(thread.ident == holding.thread for thread in threading.enumerate())
    return not alive or time.monotonic() - holding.worked > waiting_timeout()


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


# ---------------------------------------------------------------------- the end of a lazy run

_watched: "weakref.WeakSet[Share]" = weakref.WeakSet()
_watching = threading.Lock()


def _watch_for_end(share: Share) -> None:
    """Give a share back when its run has ended, whoever keeps the results of the run."""
    if share in _watched or not share._holding.runs:
        return
    with _watching:
        first = not _watched
        _watched.add(share)
    if first:
        threading.Thread(target=_watch, name="daskstats-watch", daemon=True).start()


def _watch() -> None:
    going_on = True
    while going_on:
        time.sleep(PATIENCE / 4)
        going_on = _end_what_is_over()


def _end_what_is_over() -> bool:
    """End the shares whose runs have ended, and return whether there are others."""
    with _watching:
        live = runs.going_on() if _watched else frozenset()
        over = [share for share in _watched if share._holding.runs.isdisjoint(live)]
        for share in over:
            _watched.discard(share)
            share.end()
        return bool(_watched)
