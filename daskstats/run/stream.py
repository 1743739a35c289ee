"""How partial results come out, in order, on every scheduler: runs graphs, computes nothing.

One graph is started once, in a thread of its own, and never waits at the end of a step. Results
wait for the consumer in a short queue; while that is full no further task is started
(back-pressure), and when the consumer leaves the run is stopped.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..graph.row_parallel import StepImages
from .callbacks import Run
from .distributed import ClusterRun
from .scheduler import Scheduler
from .threads import LanesRun, ThreadedRun

AnyRun: TypeAlias = Run | ThreadedRun | ClusterRun
"""whatever has `next` and `stop`"""

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """An intermediate image, and what it has seen."""

    image: np.ndarray
    """the statistic of what has been seen so far; the caller's own array"""
    done: int
    """frames (or, for percentiles, rows) that the image covers"""
    total: int
    """frames (or rows) that the last image will cover"""
    seen: np.ndarray
    """(rows, cols) bool, read-only: pixels whose value counts (row-wise images fill up)"""
    phase: str = "reduce"
    """"reduce", or "spool" while frames that do not fit into memory are written to disk: then the
    image is zero, and ``done`` and ``total`` are frames"""


class Stream(Iterator[T]):
    """Sized iterator over intermediate images; also a context manager.

    ``len(stream)`` is the number of all images, so that progress bars know the total. The run
    starts at the first `next`. It ends with the last image, with `close`, with the ``with`` block,
    when the iterator is deleted, or when a task fails. Several threads may call `next`: each image
    goes to one of them.
    """

    def __init__(
        self,
        start: Callable[[], AnyRun],
        finish: Callable[[int, Any], T],
        length: int,
        release: Callable[[], Any] = lambda: None,
        waiting: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._start, self._finish, self._release = start, finish, release
        self._waiting = waiting
        self._length, self._position = length, 0
        self._run: AnyRun | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._stop: weakref.finalize = weakref.finalize(self, release)

    def __len__(self) -> int:
        return self._length

    def __next__(self) -> T:
        with self._lock:
            if self._closed or self._position == self._length:
                self.close()
                raise StopIteration
            try:
                with self._waiting():
                    item = self._next()
            except BaseException as error:
                # Another thread that closes the iterator ends the wait for an image.
                over = self._closed and isinstance(error, Exception)
                self.close()
                if over:
                    raise StopIteration from None
                raise
            self._position += 1
            if self._position == self._length:
                self.close()
            return item

    def _next(self) -> T:
        run = self._run
        if run is None:
            run = self._run = self._start()
            self._stop.detach()
            self._stop = weakref.finalize(self, _end, run.stop, self._release)
            if self._closed:  # by another thread, while this one waited for memory
                self._stop()
                raise StopIteration
        return self._finish(self._position, run.next())

    def close(self) -> None:
        """Stop the run; nothing is left of it. Further calls do nothing."""
        self._closed = True
        self._stop()
        self._run = None

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def _end(stop: Callable[[], Any], release: Callable[[], Any]) -> None:
    """Stop a run, and then let go what its tasks have used."""
    try:
        stop()
    finally:
        release()


def run(
    graph: dict,
    keys: list,
    scheduler: Scheduler,
    steps: int,
    canvases: StepImages | None = None,
    at_once: bool = False,
) -> AnyRun:
    """Start a graph and give what it has for each step, in order.

    Where `Scheduler.in_turn` holds and on clusters, ``keys`` are a list for each step, or the
    tasks deliver to canvases; elsewhere there is one key for each step, which depends on the one
    before. ``at_once`` has a cluster see the whole graph at the start.
    """
    if canvases is not None:
        return LanesRun(scheduler, graph, keys, steps, canvases)
    if scheduler.in_turn:
        return ThreadedRun(scheduler, graph, keys, [len(group) for group in keys])
    if scheduler.client is not None:
        return ClusterRun(scheduler.client, graph, keys, at_once)
    return Run(scheduler, graph, keys)
