"""The lock that h5py takes around every call: acquired without a deadlock, or an error is raised.

h5py has one lock for the whole process and holds it while it converts the values to write to an
array. A lazy image that is computed there, ``file["dark"] = stats.median("scan.h5")``, waits for
tasks in other threads, and these wait for the lock::

    caller   file["dark"] = lazy -- holds the lock -- waits for the tasks
    task     reads scan.h5       -- waits for the lock

dask calls `check_start` in the caller's thread before it starts tasks, which detects this. Where
dask does not (iterators, clusters within the process) a task that waits for the lock inspects the
threads that may hold it.

Objects of h5py take the lock when they are deleted, too, and the garbage collector may delete them
in any thread. So they are closed here, once the lock is free.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from dask.callbacks import Callback

from ..memory.computations import walking_stacks
from ..packages import load
from ..series.base import DerivedSource, Source

# Seconds between two tries, between two inspections of the threads that may hold the lock, and
# until a line of the log names the lock.
POLL, LOOK, TELL = 0.001, 2.0, 30.0

# Threads that wait for the lock queue here: only the first of them polls.
_queue = threading.RLock()


class Closable(Protocol):
    """Has objects of h5py, and closes them."""

    def close(self) -> None: ...


# Objects that wait until the lock is free.
_closing: list[Closable] = []


class HeldLockError(RuntimeError):
    """A lazy image is computed while its thread holds the lock of h5py that its tasks need."""


@contextmanager
def hdf5_lock() -> Iterator[None]:
    """Hold h5py's lock.

    Raises
    ------
    HeldLockError
        If the thread that holds it waits for the task that asks for it.
    """
    lock = _lock()
    # A thread that holds it already must not queue: the first in the queue may wait for it.
    if not lock.acquire(blocking=False):
        _wait(lock)
    try:
        _close_all()
        yield
    finally:
        lock.release()


def _lock() -> threading.RLock:
    return load("h5py._objects").phil


def close_with_lock(things: list[Closable]) -> None:
    """Close objects while the lock is held: now, if it is free, or else later."""
    _closing.extend(things)
    lock = _lock()
    if lock.acquire(blocking=False):
        try:
            _close_all()
        finally:
            lock.release()
    else:
        with suppress(RuntimeError):  # no thread can be started while Python ends
            threading.Thread(target=_close_later, name="daskstats-close", daemon=True).start()


def _close_later() -> None:
    with _lock():
        _close_all()


def _close_all() -> None:
    while _closing:
        _closing.pop().close()  # the lock is held: no other thread takes one


class Parts(list):
    """A list of objects that are closed when the list is deleted."""

    def __init__(self, things: list) -> None:
        super().__init__(things)
        weakref.finalize(self, close_with_lock, list(things)).atexit = False


def _wait(lock: threading.RLock) -> None:
    """Acquire the lock; check from time to time that this can succeed."""
    began = time.monotonic()
    told, look = False, began + LOOK
    while not _queue.acquire(timeout=LOOK):
        check_holder()
    try:
        while not lock.acquire(blocking=False):
            time.sleep(POLL)
            now = time.monotonic()
            if now > look:
                check_holder()
                look = now + LOOK
            if now > began + TELL and not told:
                told = True
                logging.getLogger("daskstats").warning(
                    "waiting for h5py's lock, which another thread has held for %.0f s", TELL
                )
    finally:
        _queue.release()


def watch_starts() -> None:
    """Have dask call `check_start` whenever it starts tasks in this process."""
    Callback.active.add((check_start, None, None, None, None))


def check_start(graph: dict) -> None:
    """Refuse to start tasks in other threads that need a lock which this thread holds."""
    owned = getattr(_lock(), "_is_owned", None)
    if owned is None or not owned():
        return
    submit = sys._getframe(1).f_locals.get("submit")
    in_threads = isinstance(getattr(submit, "__self__", None), ThreadPoolExecutor)
    if in_threads and any(map(needs_lock, graph.values())):
        raise held_lock()


def needs_lock(item: object) -> bool:
    """Whether a task, or something in its arguments, reads with h5py."""
    if isinstance(item, dict | list | tuple):
        return any(map(needs_lock, item.values() if isinstance(item, dict) else item))
    if any(kind.__name__ == "GraphNode" for kind in type(item).__mro__):  # a task of dask's
        held = (getattr(item, name, None) for name in ("args", "kwargs", "value"))
        return any(map(needs_lock, held))
    if isinstance(item, DerivedSource):
        return needs_lock(item.source)
    h5py = sys.modules["h5py"]
    if isinstance(item, Source):
        return getattr(item, "uses_h5py", False)
    return isinstance(item, h5py.Dataset)


def held_lock() -> HeldLockError:
    return HeldLockError(
        "a lazy image is computed within a call of h5py, whose lock its tasks need to read HDF5 "
        "files: compute it first, as in file['dark'] = lazy.compute()"
    )


def check_holder() -> None:
    """Raise an error if a thread waits, within a call of h5py, for the task of this thread."""
    mine = threading.get_ident()
    with walking_stacks():
        for ident, frame in sys._current_frames().items():
            if ident != mine and (waiting := _waiting_in_h5py(frame)) and _for_us(waiting):
                raise held_lock()


def _waiting_in_h5py(innermost: FrameType) -> FrameType | None:
    """Return the frame that waits for tasks, if a function of h5py is among its callers."""
    waiting = None
    for frame in _outwards(innermost):
        if waiting is None and _waits_for_tasks(frame):
            waiting = frame
        elif waiting is not None and _module(frame).startswith("h5py."):
            return waiting
    return None


def _waits_for_tasks(frame: FrameType) -> bool:
    where = _module(frame), frame.f_code.co_name
    return where in {
        ("dask.local", "get_async"),
        ("distributed.utils", "sync"),
        (f"{__name__.partition('.')[0]}.run.stream", "__next__"),
    }


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _for_us(waiting: FrameType) -> bool:
    """Whether a frame waits for the task of this thread.

    A wait for something else ends by itself, however long it takes.
    """
    name, local = _module(waiting), waiting.f_locals
    if name == "dask.local":
        state = local.get("state") or {}
        return _own_key() in state.get("running", ())
    if name == "distributed.utils":
        return _worker_thread()
    runner = getattr(local.get("self"), "_runner", None)
    prefix = getattr(runner, "_name", None)
    if prefix is None:  # of a cluster
        return _worker_thread()
    graph: Container = getattr(runner, "_graph", None) or ()
    return threading.current_thread().name.startswith(prefix) or _own_key() in graph


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame, its caller, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _own_key() -> object:
    """Return the key of the task that dask runs in this thread, or None."""
    for frame in _outwards(sys._getframe()):
        if _module(frame) == "dask.local" and frame.f_code.co_name == "execute_task":
            return frame.f_locals.get("key")
    return None


def _worker_thread() -> bool:
    """Whether this thread runs a task of a distributed worker in this process."""
    return any(_module(frame) == "distributed.worker" for frame in _outwards(sys._getframe()))
