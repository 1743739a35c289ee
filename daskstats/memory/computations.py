"""The computation of a task: a call of one of dask's local schedulers, or a worker of a cluster.

A lazy image is computed by calls that this package does not see. When such a call fails or is
interrupted, its traceback keeps every result alive, for as long as the traceback is kept (IPython
does). So the end of a call is read off the stacks of the threads instead: a call goes on as long as
the frame of dask's scheduler is on the stack of a thread.
"""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dask.local import get_async

from ..packages import loaded

# One thread after another, so that each knows whether the collector is to be on.
_walking = threading.RLock()

Call = tuple[int, int]
"""a call of dask's scheduler: its thread, and the id of its frame"""


def running_calls() -> frozenset[Call]:
    """Return the running calls of dask's local schedulers, without those of streams."""
    streams = {t.ident for t in threading.enumerate() if t.name.startswith("daskstats-")}
    # No local variable holds a frame: with its own, this call would keep its caller's values alive.
    with walking_stacks():
        return frozenset(
            call
            for thread, top in sys._current_frames().items()
            if thread not in streams
            for call in _calls(thread, top)
        )


@contextmanager
def walking_stacks() -> Iterator[None]:
    """Keep the garbage collector off while the stacks of other threads are walked.

    Before Python 3.12 a step from a frame to its caller may start a collection. If that lets
    another thread return from this caller, the step leads to memory that has been freed.
    """
    with _walking:
        enabled = gc.isenabled()
        try:
            gc.disable()
            yield
        finally:
            if enabled:
                gc.enable()


def calls_of_this_task() -> frozenset[Call]:
    """Return the calls that this task may belong to: one, unless threads compute in parallel.

    Empty where none of dask's local schedulers runs it, as on a cluster.
    """
    own = _calls(threading.get_ident(), sys._getframe())
    return frozenset(own[:1]) if own else running_calls()


def _calls(thread: int, top: FrameType | None) -> list[Call]:
    found = []
    while top is not None:
        if top.f_code is get_async.__code__:
            found.append((thread, id(top)))
        top = top.f_back
    return found


def keeps_results() -> bool:
    """Whether dask's opportunistic cache may keep the results of a call that has ended.

    Otherwise only the traceback of an interrupted call keeps them.
    """
    return "dask.cache" in sys.modules


def current_worker() -> Any:
    """Return the worker of a cluster that runs this task, None outside of one."""
    get_worker = loaded("distributed.worker", "get_worker")
    try:
        return get_worker() if get_worker is not None else None
    except ValueError:
        return None
