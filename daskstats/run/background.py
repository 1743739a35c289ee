"""Threads that run a graph under dask's scheduler, and their end at exit."""

import atexit
import threading
import weakref
from collections.abc import Callable
from itertools import count

from dask.callbacks import Callback


class Background:
    """One graph being run under dask's scheduler in a thread, whose names all begin alike."""

    _numbers = count()

    def __init__(self, graph: dict, posttask: Callable, pretask: Callable | None = None) -> None:
        self._graph = graph
        # The user's own callbacks (ProgressBar) see the run; they are passed on explicitly
        # because they may be gone, or others registered, by the time the run ends.
        self._callbacks = [*Callback.active, (None, None, pretask, posttask, None)]
        self._name = f"daskstats-{next(Background._numbers)}-run"
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        _stop_at_exit(self)

    def stop(self) -> None:
        """Stop starting tasks, and wait for those that are running."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError

    def _join(self) -> None:
        # The garbage collector may call this from one of the run's own threads.
        if not threading.current_thread().name.startswith(self._name):
            self._thread.join()


_running: "weakref.WeakSet[Background]" = weakref.WeakSet()


def _stop_at_exit(run: Background) -> None:
    """Let a run be stopped at exit before what it reads with.

    Functions run at exit in reverse order. That of zarr, which is loaded by now if it is used,
    ends the loop that a task may wait for: it would wait for ever, and whoever stops the run, too.
    """
    _running.add(run)
    atexit.unregister(_stop_all)
    atexit.register(_stop_all)


def _stop_all() -> None:
    for run in list(_running):
        # An interrupt may have come before it was complete.
        if run._thread.ident is not None:
            run.stop()
