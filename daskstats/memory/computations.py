"""Where a task runs: in which calls of dask's local schedulers, or on which worker of a cluster.

A lazy image is computed by calls that this package does not see. When such a call fails or is
interrupted, its traceback keeps every result alive, for as long as somebody keeps the traceback
(IPython does). So the end of a call is read off the stacks of the threads instead: a call goes on
as long as the frame of dask's scheduler is on the stack of a thread.
"""

import sys
import threading
from types import FrameType
from typing import Any

from dask.local import get_async

Run = tuple[int, int]
"""a call of dask's scheduler: its thread, and the id of its frame"""


def going_on() -> frozenset[Run]:
    """Return the calls of dask's local schedulers that some thread is in, streams left out."""
    streams = {t.ident for t in threading.enumerate() if t.name.startswith("daskstats-")}
    # No local variable holds a frame: with its own, this call would keep its caller's values alive.
    return frozenset(
        run
        for thread, top in sys._current_frames().items()
        if thread not in streams
        for run in _calls(thread, top)
    )


def of_this_task() -> frozenset[Run]:
    """Return the calls that this task may belong to: one, unless threads compute in parallel.

    Empty where none of dask's local schedulers runs it, as on a cluster.
    """
    own = _calls(threading.get_ident(), sys._getframe())
    return frozenset(own[:1]) if own else going_on()


def _calls(thread: int, top: FrameType | None) -> list[Run]:
    found = []
    while top is not None:
        if top.f_code is get_async.__code__:
            found.append((thread, id(top)))
        top = top.f_back
    return found


def keeps_results() -> bool:
    """Whether results may be kept on purpose when a call has ended: by dask's opportunistic cache.

    Otherwise only the traceback of a call that was interrupted keeps them.
    """
    return "dask.cache" in sys.modules


def current_worker() -> Any:
    """Return the worker of a cluster that runs this task, None outside of one."""
    worker = sys.modules.get("distributed.worker")
    try:
        return worker.get_worker() if worker is not None else None
    except ValueError:
        return None
