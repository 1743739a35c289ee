"""Memory reserved by the calls of this process that run at the same time."""

import ctypes
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from .. import config
from ..planning.values import MEBI
from . import computations
from .computations import Call

# Seconds after which an idle run without a consumer is taken to wait for a thread that itself waits
# for memory, as when several lazy images are computed together. It then holds no other run up.
PATIENCE = 0.5

# Seconds of waiting after which the log tells the reason.
TELL_AFTER = 10 * PATIENCE

# Bytes of a run after which returning freed memory to the system is worth a few milliseconds.
WORTH_TRIMMING = 16 * MEBI

log = logging.getLogger("daskstats")


@dataclass(eq=False)
class ReservationEntry:
    """The memory of one run; it is listed until its `MemoryReservation` is deleted or released."""

    nbytes: int
    """projected peak"""
    begun: bool = False
    """whether the run has begun; until then another may be quicker"""
    thread: int = 0
    """of the consumer of the images; 0: none, tasks only"""
    tasks: list[int] = field(default_factory=list)
    """threads of the tasks that work now, and of the consumer while it waits for an image"""
    worked: float = 0
    """time when a task last worked"""
    calls: frozenset[Call] = frozenset()
    """calls of dask's scheduler, one of which is the run, if there is no consumer"""


_entries: set[ReservationEntry] = set()
# An interrupt in a function of Python that acquires a lock would leave it locked: that of the
# condition is acquired in C.
_lock = threading.RLock()
_changed = threading.Condition(_lock)


def unreserved(limit: int) -> int:
    """Return the bytes of a limit that no run of this process has reserved."""
    _end_finished()
    with _lock:
        return max(0, limit - sum(entry.nbytes for entry in _entries))


class MemoryReservation:
    """The memory of one run among the runs of this process.

    Parameters
    ----------
    nbytes : int
        Projected peak of the run.
    limit : int
        Bytes of all runs together.
    caller : int, optional
        Thread that waits for the results; by default this one.

    Examples
    --------
    >>> reservation = MemoryReservation(100, limit=1000)
    >>> reservation.reserve()
    >>> unreserved(1000)
    900
    >>> reservation.release()
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
        """Count the run in the plans of later calls."""
        with _lock:
            _entries.add(self._entry)

    def begin(self, on_wait: Callable[[], object] | None = None) -> None:
        """Wait until the run fits; this thread consumes its images.

        ``on_wait`` is called now and then while it waits. Nothing is taken, nor waited for, once
        another thread has released the reservation.

        Raises
        ------
        MemoryError
            If this thread also consumes or computes another run, which could not go on, or if
            the other runs are iterators that are no longer advanced.
        """
        self.caller = self._entry.thread = threading.get_ident()
        with _lock:
            self._wait(on_wait=on_wait)
            if self._end.alive:
                self._take()

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Mark the run as active while the consumer waits for an image."""
        me = threading.get_ident()
        try:
            with _lock:
                self._entry.tasks.append(me)
                if self._entry.thread:
                    self.caller = self._entry.thread = me  # it may be another one than before
            yield
        finally:
            self._worked(me)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Use the memory for a task, as soon as its run fits; errors as of `begin`."""
        me, entry = threading.get_ident(), self._entry
        with _lock:
            if not entry.begun or entry not in _entries:
                calls = computations.calls_of_this_task()
                if entry.begun and calls <= entry.calls:
                    raise RuntimeError("the computation that this task belongs to has ended")
                self._wait(calls)
                entry.calls = calls
            self._take()
            entry.tasks.append(me)
        try:
            _watch_for_end(self)
            yield
        except BaseException:
            self._failed = True
            raise
        finally:
            self._worked(me)

    def _worked(self, thread: int) -> None:
        with _lock:
            with suppress(ValueError):  # an interrupt came before it was marked
                self._entry.tasks.remove(thread)
            self._entry.worked = time.monotonic()

    def _take(self) -> None:
        self._entry.begun, self._entry.worked = True, time.monotonic()
        _entries.add(self._entry)

    def _wait(
        self,
        calls: frozenset[Call] = frozenset(),
        on_wait: Callable[[], object] | None = None,
    ) -> None:
        """Wait, with the lock held, until the run fits, or until the calls of a task have ended."""
        began = time.monotonic()
        # A failed computation stays listed as long as its traceback is kept.
        while self._end.alive and (others := self._others()):
            if sum(other.nbytes for other in others) + self.nbytes <= self.limit or _idle(others):
                return
            self._check(others)
            if calls and calls.isdisjoint(computations.running_calls()):
                raise RuntimeError("the computation has ended while a task of it waited for memory")
            if not self._told and time.monotonic() - began > TELL_AFTER:
                self._told = True
                log.warning("%s", self._needs("waiting for them to end", others))
            _changed.wait(PATIENCE / 4)
            if on_wait is not None:
                with _unlocked():
                    on_wait()

    def _others(self) -> list[ReservationEntry]:
        """Return the entries of the other runs that have begun."""
        return [entry for entry in _entries if entry.begun and entry is not self._entry]

    def _check(self, others: list[ReservationEntry]) -> None:
        """Raise MemoryError if the other runs wait for this one, or are not advanced."""
        mine = [o for o in others if self.caller == o.thread or self.caller in o.tasks]
        if mine:
            raise MemoryError(
                self._needs("close them, raise memory_limit, or give each a part of it", mine)
            )
        abandoned = [other for other in others if _is_abandoned(other)]
        if abandoned and self.nbytes + sum(o.nbytes for o in abandoned) > self.limit:
            raise MemoryError(
                self._needs(
                    f"they are iterators whose thread has ended, or that nobody has advanced for "
                    f"{config.memory_timeout():.4g} s (daskstats.memory-timeout): close them",
                    abandoned,
                )
            )

    def _needs(self, remedy: str, others: list[ReservationEntry]) -> str:
        return (
            f"{self.nbytes >> 20} MiB do not fit next to the "
            f"{sum(other.nbytes for other in others) >> 20} MiB of the {len(others)} iterators or "
            f"computations that are open, with a memory limit of {self.limit >> 20} MiB: {remedy}"
        )

    def leave(self) -> None:
        """Note that no thread consumes the images any more: the run is about to end."""
        self._entry.thread = 0

    def release(self) -> None:
        """Return the memory."""
        self._end()

    def at_failure(self, action: Callable[[], object]) -> None:
        """Register a function that is called when the run of a lazy image fails."""
        self._at_failure.append(action)

    def end(self) -> None:
        """End a finished run, also if a traceback or a cache keeps its results."""
        if self._failed or not computations.keeps_results():
            while self._at_failure:
                with suppress(Exception):
                    self._at_failure.pop()()
        # A later call of dask may get the id of this one's frame.
        self._entry.calls = frozenset()
        _forget(self._entry)

    def __reduce__(self) -> tuple:
        # Another process has memory of its own, and -1 is none of its threads.
        return MemoryReservation, (self.nbytes, self.limit, -1)


@contextmanager
def _unlocked() -> Iterator[None]:
    """Release the lock, which this thread holds, for other runs."""
    _lock.release()
    try:
        yield
    finally:
        _lock.acquire()


def _idle(others: list[ReservationEntry]) -> bool:
    """Whether no other run has worked for a while; one with a consumer always may."""
    newest = max(other.worked for other in others)
    busy = any(other.tasks or other.thread for other in others)
    return not busy and time.monotonic() - newest > PATIENCE


def _is_abandoned(entry: ReservationEntry) -> bool:
    """Whether an iterator is not advanced any more, as far as known."""
    if not entry.thread or entry.tasks:
        return False
    alive = any(thread.ident == entry.thread for thread in threading.enumerate())
    return not alive or time.monotonic() - entry.worked > config.memory_timeout()


def _forget(entry: ReservationEntry) -> None:
    try:
        if entry.begun and entry.nbytes >= WORTH_TRIMMING:
            # glibc returns the memory that the threads of the run have freed before the next run.
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
    finally:  # also after an interrupt, which may come here
        with _lock:
            _entries.discard(entry)
            _changed.notify_all()


# ---------------------------------------------------------------------- the end of a lazy run

_watched: "weakref.WeakSet[MemoryReservation]" = weakref.WeakSet()
_watching = threading.Lock()
_watcher: threading.Thread | None = None


def _watch_for_end(reservation: MemoryReservation) -> None:
    """Release a reservation when its run has ended, even if the results of the run are kept."""
    global _watcher
    if reservation in _watched or not reservation._entry.calls:
        return
    with _watching:
        _watched.add(reservation)
        # One thread for all runs: each look at the stacks of the threads has its cost, and risk.
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_watch, name="daskstats-watch", daemon=True)
            _watcher.start()


def _watch() -> None:
    global _watcher
    while True:
        time.sleep(PATIENCE / 4)
        _end_finished()
        with _watching:
            if not _watched:
                _watcher = None
                return


def _end_finished() -> None:
    """End the reservations of finished runs."""
    with _watching:
        calls = computations.running_calls() if _watched else frozenset()
        finished = [each for each in _watched if each._entry.calls.isdisjoint(calls)]
        for reservation in finished:
            _watched.discard(reservation)
            reservation.end()
