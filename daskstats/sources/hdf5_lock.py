"""The lock that h5py takes around every call: had without a deadlock, or an error.

h5py has one lock for the whole process and holds it while it turns whatever it is to write into an
array. A lazy image that is computed there, ``file["dark"] = stats.median("scan.h5")``, waits for
tasks in other threads, and these wait for the lock::

    caller   file["dark"] = lazy -- holds the lock -- waits for the tasks
    task     reads scan.h5       -- waits for the lock
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..packages import load

# Seconds between two tries, between two looks at the threads that may hold the lock, and after
# which a line of the log says what is waited for.
POLL, LOOK, TELL = 0.001, 2.0, 30.0

# Threads that wait for the lock queue here: only the first of them polls.
_queue = threading.RLock()


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
    lock = load("h5py._objects").phil
    # The one who has it already must not queue: whoever polls may wait for just this thread.
    if not lock.acquire(blocking=False):
        _wait(lock)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: Any) -> None:
    """Acquire the lock, and look from time to time whether that can ever succeed."""
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


def check_holder() -> None:
    """Raise an error if a thread in a call of h5py's waits for the task of this thread."""
    mine = threading.get_ident()
    for ident, frame in sys._current_frames().items():
        if ident != mine and (waiting := _waiting_in_h5py(frame)) is not None and _for_us(waiting):
            raise HeldLockError(
                "a lazy image is computed within a call of h5py, whose lock its tasks need to read "
                "HDF5 files: compute it first, as in file['dark'] = lazy.compute()"
            )


def _waiting_in_h5py(frame: FrameType | None) -> FrameType | None:
    """Return the frame that waits for tasks, if it was called from h5py further out."""
    waiting = None
    while frame is not None:
        if waiting is None and _waits_for_tasks(frame):
            waiting = frame
        elif waiting is not None and _module(frame).startswith("h5py."):
            return waiting
        frame = frame.f_back
    return None


def _waits_for_tasks(frame: FrameType) -> bool:
    where = _module(frame), frame.f_code.co_name
    return where in {
        ("dask.local", "get_async"),
        ("distributed.utils", "sync"),
        (f"{__name__.partition('.')[0]}.stream", "__next__"),
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
    run = getattr(local.get("self"), "_run", None)
    prefix = getattr(run, "_name", None)
    if prefix is None:  # of a cluster
        return _worker_thread()
    return threading.current_thread().name.startswith(prefix) or _own_key() in _keys(run)


def _own_key() -> Any:
    """Return the key of the task that dask runs in this thread, or None."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if _module(frame) == "dask.local" and frame.f_code.co_name == "execute_task":
            return frame.f_locals.get("key")
        frame = frame.f_back
    return None


def _keys(run: Any) -> Any:
    return getattr(run, "_graph", None) or ()


def _worker_thread() -> bool:
    """Whether this thread runs a task of a distributed worker in this process."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if _module(frame) == "distributed.worker":
            return True
        frame = frame.f_back
    return False
