"""The runner for any local scheduler of dask: results are taken from its callbacks."""

from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..planning.values import WAITING
from .runner import BackgroundRunner, Stopped

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A bounded queue between one producer and one consumer, which either can end.

    Two queues in C, one of items and one of free places, take a third of the time that a condition
    variable takes.
    """

    def __init__(self, size: int) -> None:
        self._items: SimpleQueue = SimpleQueue()
        self._places: SimpleQueue = SimpleQueue()
        for _ in range(size):
            self._places.put(None)
        self._closed = False

    def put(self, item: T) -> None:
        """Wait until there is room; raise Stopped if the consumer has left."""
        self._places.get()
        self.check()
        self._items.put((item, None))

    def check(self) -> None:
        """Raise Stopped if the consumer has left."""
        if self._closed:
            raise Stopped

    def end(self, error: BaseException | None = None) -> None:
        """Tell the consumer that nothing follows, or which error ended the producer."""
        self._items.put((None, error or Stopped()))

    def get(self, take: Callable = SimpleQueue.get) -> T:
        """Wait for the next item; raise the producer's error, or Stopped, after the last.

        ``take`` is the function that waits for an item of a queue.
        """
        item, error = take(self._items)
        if error is not None:
            raise error
        self._places.put(None)
        return item

    def close(self) -> None:
        """Leave: the producer's next `put` or `check` raises Stopped."""
        self._closed = True
        self._places.put(None)


class CallbackRunner(BackgroundRunner):
    """Executes a graph with a ``get`` function; each step is one key, which needs the one before.

    Parameters
    ----------
    get : callable
        ``get(graph, key, callbacks=...)`` of one of dask's local schedulers.
    graph : dict
    keys : list
        Of the steps, in order.
    reads : list of lists
        Keys of the steps before these that read frames for them: no results are handed over.
    """

    def __init__(self, get: Callable, graph: dict, keys: list, reads: Sequence[list] = ()) -> None:
        super().__init__(graph, self._posttask, self._pretask)
        self._queue: BoundedQueue = BoundedQueue(WAITING)
        self._get, self._keys = get, keys
        self._wanted = set(keys)
        self._reads = {key for group in reads for key in group}
        # How many keys of each reading step are not done; which ones does not matter.
        self._unread = deque(len(group) for group in reads)

    def next(self) -> list[Any]:
        """Return the result of the next key."""
        return [self._queue.get(self._take)]

    def stop(self) -> None:
        """Start no more tasks, and wait for those that are running."""
        self._queue.close()
        self._join()

    def _pretask(self, key: Any, graph: Any, state: Any) -> None:
        self._queue.check()

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        if key in self._reads:
            self._unread[0] -= 1
            if not self._unread[0]:
                self._unread.popleft()
                self._queue.put(None)
        if key in self._wanted:
            self._queue.put(value)

    def _execute(self) -> None:
        error: BaseException | None = None
        try:
            self._get(self._graph, self._keys[-1], callbacks=self._callbacks)
        except Stopped:
            pass
        except BaseException as raised:
            error = raised
        self._graph = {}
        self._queue.end(error)
