"""Graphs run by any of dask's local schedulers, whose callbacks deliver the results."""

from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded

from ..planning.values import WAITING
from .background import Background
from .scheduler import Scheduler

T = TypeVar("T")


class Closed(Exception):
    """The consumer has left."""


class BoundedQueue(Generic[T]):
    """A bounded queue between one producer and one consumer, which either can end.

    Two queues in C, one of items and one of free places, take a third of the time that a
    condition variable does.
    """

    def __init__(self, size: int) -> None:
        self._items: SimpleQueue = SimpleQueue()
        self._places: SimpleQueue = SimpleQueue()
        for _ in range(size):
            self._places.put(None)
        self._closed = False

    def put(self, item: T) -> None:
        """Wait until there is room; raise Closed if the consumer has left."""
        self._places.get()
        self.check()
        self._items.put((item, None))

    def check(self) -> None:
        """Raise Closed if the consumer has left."""
        if self._closed:
            raise Closed

    def end(self, error: BaseException | None = None) -> None:
        """Tell the consumer that nothing follows, or what went wrong."""
        self._items.put((None, error or StopIteration()))

    def get(self) -> T:
        """Wait for the next item; raise the producer's error, or StopIteration, after the last."""
        item, error = self._items.get()
        if error is not None:
            raise error
        self._places.put(None)
        return item

    def close(self) -> None:
        """Leave: the producer's next `put` or `check` raises Closed."""
        self._closed = True
        self._places.put(None)


class Run(Background):
    """One graph being run by one of dask's own schedulers, in a thread."""

    def __init__(self, scheduler: Scheduler, graph: dict, keys: list) -> None:
        super().__init__(graph, self._posttask, self._pretask)
        self._handoff: BoundedQueue = BoundedQueue(WAITING)
        self._scheduler, self._keys = scheduler, keys
        self._wanted = set(keys)
        self._thread.start()

    def next(self) -> Any:
        """Return the next state, in the order of the keys."""
        return self._handoff.get()

    def stop(self) -> None:
        """Stop starting tasks, and wait for those that are running."""
        self._handoff.close()
        self._join()

    def _pretask(self, key: Any, graph: Any, state: Any) -> None:
        self._handoff.check()

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        if key in self._wanted:
            self._handoff.put(value)

    def _run(self) -> None:
        error: BaseException | None = None
        options: dict[str, Any] = {}
        if self._scheduler.get is dask.multiprocessing.get:
            # Fusing would rename the keys that are waited for.
            options = {"num_workers": self._scheduler.workers, "optimize_graph": False}
        try:
            self._scheduler.get(self._graph, self._keys[-1], callbacks=self._callbacks, **options)
        except Closed:
            pass
        except BaseException as raised:
            error = raised
        self._graph = {}
        self._handoff.end(error)
