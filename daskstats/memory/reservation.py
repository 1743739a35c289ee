"""Memory reserved by the calls of this process that run at the same time."""

import ctypes
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .. import config
from . import computations

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

log = logging.getLogger("daskstats")


@dataclass(eq=False)
class ReservationEntry:
    """What a run holds; it is known until its `MemoryReservation` is no more."""

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


_entries: set[ReservationEntry] = set()
_changed = threading.Condition()


def unreserved(limit: int) -> int:
    """Return what the runs of this process that are known now leave of a limit."""
    _end_what_is_over()
    with _changed:
        return max(0, limit - sum(entry.nbytes for entry in _entries))


class MemoryReservation:
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
    >>> share = MemoryReservation(100, limit=1000)
    >>> share.reserve()
    >>> unreserved(1000)
    900
    >>> share.release()
    >>> unreserved(1000)
    1000
    """

    def __init__(self, nbytes: int, limit: int, caller: int | None = None) -> None:
        self.nbytes, self.limit = nbytes, limit
        self.caller = threading.get_ident() if caller is None else caller
        self._entry = ReservationEntry(nbytes)
        self._end = weakref.finalize(self, _forget, self._entry)
        self._at_failure: list[Callable[[], object]] = []
        self._told = self._failed = False

    def reserve(self) -> None:
        """Let calls that are planned from now on know of this one."""
        with _changed:
            _entries.add(self._entry)

    def begin(self) -> None:
        """Wait until there is room for a run whose images this thread consumes.

        Raises
        ------
        MemoryError
            If this thread consumes or works for others, which could not go on meanwhile, or if
            the others are iterators that nobody advances.
        """
        self.caller = self._entry.thread = threading.get_ident()
        with _changed:
            self._wait()
            self._take()

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Say, while the consumer waits for an image, that the run goes on."""
        me = threading.get_ident()
        with _changed:
            self._entry.tasks.append(me)
            if self._entry.thread:
                self.caller = self._entry.thread = me  # it may be another one than before
        try:
            yield
        finally:
            self._worked(me)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the share for a task, once there is room for its run; errors as of `begin`."""
        me = threading.get_ident()
        with _changed:
            if not self._entry.begun or self._entry not in _entries:
                run = computations.of_this_task()
                if self._entry.begun and run <= self._entry.runs:
                    raise RuntimeError("the computation that this task belongs to has ended")
                self._wait(run)
                self._entry.runs = run
            self._take()
            self._entry.tasks.append(me)
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
            self._entry.tasks.remove(thread)
            self._entry.worked = time.monotonic()

    def _wait(self, run: frozenset = frozenset()) -> None:
        """Wait, with the lock held, until there is room, or until the task's run has ended."""
        began = time.monotonic()
        # A computation that has failed lives on as long as somebody keeps its traceback.
        while not (self._fits() or _idle(self._entry)):
            self._check()
            if run and run.isdisjoint(computations.going_on()):
                raise RuntimeError("the computation has ended while a task of it waited for memory")
            if not self._told and time.monotonic() - began > TELL_AFTER:
                self._told = True
                log.warning("%s", self._needs("waiting for them to end"))
            _changed.wait(PATIENCE / 4)

    def _check(self) -> None:
        """Raise MemoryError if those that are waited for wait for this one, or for nobody."""
        others = _begun(self._entry)
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
                    f"{config.memory_timeout():.4g} s (daskstats.memory-timeout): close them",
                    left_alone,
                )
            )

    def _needs(self, remedy: str, others: list[ReservationEntry] | None = None) -> str:
        others = _begun(self._entry) if others is None else others
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
        if self._failed or not computations.keeps_results():
            while self._at_failure:
                with suppress(Exception):
                    self._at_failure.pop()()
        _forget(self._entry)

    def _fits(self) -> bool:
        others = sum(other.nbytes for other in _begun(self._entry))
        return not others or others + self.nbytes <= self.limit

    def _take(self) -> None:
        self._entry.begun, self._entry.worked = True, time.monotonic()
        _entries.add(self._entry)

    def __reduce__(self) -> Any:
        # Another process has memory of its own.
        return MemoryReservation, (self.nbytes, self.limit, ELSEWHERE)


def _begun(mine: ReservationEntry) -> list[ReservationEntry]:
    return [other for other in _entries if other.begun and other is not mine]


def _idle(mine: ReservationEntry) -> bool:
    """Whether no other run has worked for a while; one with a consumer always may."""
    others = _begun(mine)
    newest = max(other.worked for other in others)
    busy = any(other.tasks or other.thread for other in others)
    return not busy and time.monotonic() - newest > PATIENCE


def _is_left_alone(entry: ReservationEntry) -> bool:
    """Whether an iterator will not be advanced any more, as far as can be told."""
    if not entry.thread or entry.tasks:
        return False
    alive = any(thread.ident == entry.thread for thread in threading.enumerate())
    return not alive or time.monotonic() - entry.worked > config.memory_timeout()


def _forget(entry: ReservationEntry) -> None:
    if entry.begun and entry.nbytes >= WORTH_TRIMMING:
        _trim()
    with _changed:
        _entries.discard(entry)
        _changed.notify_all()


def _trim() -> None:
    """Let glibc give the system back what the threads of a run have freed, before the next one."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


# ---------------------------------------------------------------------- the end of a lazy run

_watched: "weakref.WeakSet[MemoryReservation]" = weakref.WeakSet()
_watching = threading.Lock()


def _watch_for_end(share: MemoryReservation) -> None:
    """Give a share back when its run has ended, whoever keeps the results of the run."""
    if share in _watched or not share._entry.runs:
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
        live = computations.going_on() if _watched else frozenset()
        over = [share for share in _watched if share._entry.runs.isdisjoint(live)]
        for share in over:
            _watched.discard(share)
            share.end()
        return bool(_watched)
