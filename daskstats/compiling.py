"""Which code is being compiled in this process, and for which statistic.

numba announces each function that it compiles. A compilation belongs to the statistic that its
thread folds; code that finishes or combines states belongs to the statistic that was folded last.
The logger "daskstats" gets a line before the first compilation of a statistic and dtype, and one
when its code is there.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .packages import load

logger = logging.getLogger("daskstats")


@dataclass
class Subject:
    """A statistic of frames of one dtype, and the compilation of its code."""

    name: str
    """such as "median of uint16" """
    estimate: float | None = None
    """seconds that it takes, about"""
    seconds: float = 0
    """that it has taken"""
    running: int = 0
    """compilations that have begun and not ended"""
    begun: bool = False
    finished: bool = False

    def __str__(self) -> str:
        about = "" if self.estimate is None else f": about {self.estimate:.2g} s"
        return f"compiling the {self.name}, once{about}"


_lock = threading.Lock()
_subjects: dict[str, Subject] = {}
_last: Subject | None = None
_running = 0
_listening = False
_observers: list[Callable[[str], object]] = []


class _Thread(threading.local):
    """The compilations of a thread, each of which may compile the functions that it calls."""

    subject: Subject | None = None

    def __init__(self) -> None:
        self.begun: list[tuple[float, Subject | None]] = []


_thread = _Thread()


def compiling() -> bool:
    """Whether code is being compiled now, in any thread of this process.

    >>> compiling()
    False
    """
    return _running > 0


def remark() -> str:
    """Return a remark on the statistic whose code is being compiled, "" if there is none.

    >>> remark()
    ''
    """
    with _lock:
        running = [str(subject) for subject in _subjects.values() if subject.running]
    return running[0] if running else ""


@contextmanager
def compiled_for(statistic: str, dtype: object, estimate: float | None = None) -> Iterator[Subject]:
    """Say which statistic this thread folds, and how many seconds compiling its code takes."""
    global _last
    name = f"{statistic.replace('-', ', ')} of {dtype}"
    with _lock:
        subject = _last = _subjects.setdefault(name, Subject(name, estimate))
    outer, _thread.subject = _thread.subject, subject
    try:
        yield subject
    finally:
        _thread.subject = outer
        _finish(subject)


@contextmanager
def observed(observer: Callable[[str], object]) -> Iterator[None]:
    """Have a function called with a remark as each compilation begins, and with "" at its end.

    It is called in the thread that compiles.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def listen() -> None:
    """Note the compilations of numba from now on."""
    global _listening
    events = load("numba.core.event")

    class Listener(events.Listener):  # type: ignore[name-defined]
        def on_start(self, event: Any) -> None:
            _begin(event.data["dispatcher"].py_func)

        def on_end(self, event: Any) -> None:
            _end(event.data["dispatcher"].py_func)

    with _lock:
        if not _listening:
            events.register("numba:compile", Listener())
            _listening = True


def _begin(function: Callable) -> None:
    global _running
    own = function.__module__.startswith(f"{__package__}.")
    subject = _thread.subject or (_last if own else None)
    with _lock:
        _running += 1
        first = subject is not None and not subject.begun
        if subject is not None:
            subject.running += 1
            subject.begun = True
    if first:
        logger.info("%s", subject)
    if not _thread.begun:
        _tell(subject, str(subject))
    _thread.begun.append((time.perf_counter(), subject))


def _end(function: Callable) -> None:
    global _running
    began, subject = _thread.begun.pop()
    seconds = time.perf_counter() - began
    with _lock:
        _running -= 1
        if subject is not None:
            subject.running -= 1
            # The time of the functions that it calls is part of it.
            subject.seconds += 0 if _thread.begun else seconds
    if subject is not None and not _thread.begun:
        logger.debug("compiled %s for the %s: %.1f s", function.__name__, subject.name, seconds)
        _tell(subject, "")


def _finish(subject: Subject) -> None:
    """Say that the code of a statistic is there, if it has been compiled and nobody said so."""
    with _lock:
        finished = subject.begun and not subject.running and not subject.finished
        subject.finished |= finished
    if finished:
        logger.info("compiled the %s in %.1f s", subject.name, subject.seconds)


def _tell(subject: Subject | None, text: str) -> None:
    if subject is not None:
        for observer in list(_observers):
            observer(text)
