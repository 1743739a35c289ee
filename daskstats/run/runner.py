"""A runner executes one graph and hands over the results of each step, in order.

The graph is started once, in a thread of its own, and never waits at the end of a step. Results
wait for the consumer in a short queue; while the queue is full, no further task is started
(back-pressure). When the consumer leaves, the runner stops.
"""

import atexit
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from dask.callbacks import Callback

from ..compiling import compiling

# Seconds between two calls of `Runner.on_wait`: the shortest delay that a person notices.
TICK = 0.2


class Stopped(Exception):
    """The consumer has left, and no results follow."""


class Runner:
    """Executes one graph, step by step; this one has no tasks, and steps without results.

    It has no threads and no tasks until it starts. So a stream keeps it first, and can stop it if
    an interrupt comes at any moment of its start.
    """

    on_wait: Callable[[], object] | None = None
    """called now and then by `next` while it waits, in the thread of the consumer"""

    def start(self) -> None:
        """Start the tasks; after `stop`, none."""

    def next(self) -> Iterable[Any]:
        """Wait for the next step, and return the results of its keys.

        Raises
        ------
        Stopped
            After `stop`.
        BaseException
            The error of a task, of any type.
        """
        return []

    def stop(self) -> None:
        """Start no more tasks, and wait for those that are running."""

    def compiling(self) -> bool:
        """Whether the tasks wait for code that is being compiled, as far as is known."""
        return False


class BackgroundRunner(Runner):
    """Executes a graph under one of dask's local schedulers, in a thread.

    The names of all threads of a runner begin with the name of that thread.
    """

    _numbers = count()

    def __init__(self, graph: dict, posttask: Callable, pretask: Callable | None = None) -> None:
        self._graph = graph
        # The callbacks that the user has registered (ProgressBar) see the tasks too. They are
        # passed on explicitly, because they may be gone by the time the graph ends.
        self._callbacks = [*Callback.active, (None, None, pretask, posttask, None)]
        self._name = f"daskstats-{next(BackgroundRunner._numbers)}-run"
        self._thread = threading.Thread(target=self._execute, name=self._name, daemon=True)

    def start(self) -> None:
        """Start the thread, which starts all others: an interrupt only comes in the main thread."""
        _stop_at_exit(self)
        self._thread.start()

    def compiling(self) -> bool:
        """Whether code is being compiled in this process."""
        return compiling()

    def _take(self, queue: SimpleQueue) -> Any:
        """Take the next item of a queue, and call `on_wait` meanwhile."""
        while self.on_wait is not None:
            with suppress(Empty):
                return queue.get(timeout=TICK)
            self.on_wait()
        return queue.get()

    def _execute(self) -> None:
        raise NotImplementedError

    def _join(self) -> None:
        # The garbage collector may call this from one of the runner's own threads. A thread that an
        # interrupt has left half started is not alive yet, and ends by itself.
        own = threading.current_thread().name.startswith(self._name)
        if self._thread.is_alive() and not own:
            self._thread.join()


_runners: "weakref.WeakSet[BackgroundRunner]" = weakref.WeakSet()


def _stop_at_exit(runner: BackgroundRunner) -> None:
    """Have a runner stopped at exit before the libraries that its tasks read with.

    Functions registered with `atexit` run in reverse order. That of zarr, which is loaded by now if
    it is used, ends the event loop that a task may wait for: the task would wait for ever.
    """
    _runners.add(runner)
    atexit.unregister(_stop_all)
    atexit.register(_stop_all)


def _stop_all() -> None:
    for runner in list(_runners):
        runner.stop()
