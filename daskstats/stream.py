"""How partial results come out, in order, on every scheduler: runs graphs, computes nothing.

One graph is started once, in a thread of its own, and never waits at the end of a step. Results
wait for the consumer in a short queue; while that is full no further task is started
(back-pressure), and when the consumer leaves the run is stopped.
"""

import atexit
import multiprocessing.pool
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from multiprocessing.pool import Pool
from numbers import Integral
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import numpy as np
from dask.callbacks import Callback
from dask.system import CPU_COUNT

from . import cluster
from .cluster import ClusterRun, Workers
from .lanes import Canvases
from .plan import WAITING

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


class Closed(Exception):
    """The consumer has left."""


class Handoff(Generic[T]):
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


@dataclass(frozen=True)
class Scheduler:
    """What runs the tasks: a dask ``get`` function and the number of tasks it runs at once."""

    get: Callable
    workers: int
    cluster: Workers | None = None
    """what the workers of a distributed client are"""

    @property
    def client(self) -> Any:
        """The distributed client that it is a method of, or None."""
        return cluster.client_of(self.get)

    @property
    def in_turn(self) -> bool:
        """Whether tasks run in threads of the run's own, in the order of the steps."""
        return self.get is dask.threaded.get and dask.config.get("pool", None) is None

    @property
    def shares_memory(self) -> bool:
        """Whether a result is there for every task without being sent."""
        return self.client is None and not self.sends

    @property
    def sends(self) -> bool:
        """Whether tasks are sent to other processes of this machine."""
        pool = dask.config.get("pool", None)
        if isinstance(self.get, partial):  # an executor that was given as the scheduler
            pool = getattr(self.get.args[0], "__self__", None)
        in_processes = isinstance(pool, ProcessPoolExecutor) or type(pool) is Pool
        return self.get is dask.multiprocessing.get or in_processes


def current_scheduler() -> Scheduler:
    """Return the scheduler that dask would use for an array now: configured, client, or threads."""
    try:
        get = dask.base.get_scheduler() or dask.threaded.get
    except RuntimeError as error:
        # dask itself says it of some clients, but not what to do.
        raise cluster.asynchronous() if "asynchronous" in str(error) else error from None
    except AssertionError:
        # Of an executor that does not say how many workers it has, and a wrong number of them.
        configured_workers()
        raise
    if getattr(get, "func", None) is dask.local.get_async:
        return Scheduler(get, check_workers(get.args[1]))
    if get is dask.local.get_sync:
        return Scheduler(get, 1)
    scheduler = Scheduler(get, 1)
    if scheduler.client is not None:
        cluster.check_client(scheduler.client)
        found = cluster.look_at(scheduler.client)
        return Scheduler(get, found.threads, found)
    pool = dask.config.get("pool", None)
    workers = configured_workers() if pool is None else pool_workers(pool)
    return Scheduler(get, workers or CPU_COUNT)


def configured_workers() -> int | None:
    """Return dask's ``num_workers``, None if it is not set."""
    workers = dask.config.get("num_workers", None)
    return None if workers is None else check_workers(workers)


def check_workers(workers: Any) -> int:
    """Return a number of workers that dask was given."""
    text = f"dask's num_workers must be a positive integer, got {workers!r}"
    if isinstance(workers, bool | np.bool_) or not isinstance(workers, Integral):
        raise TypeError(text)
    if workers < 1:
        raise ValueError(text)
    return int(workers)


def pool_workers(pool: Any) -> int:
    """Return how many workers dask's ``pool`` has."""
    if isinstance(pool, multiprocessing.pool.Pool):
        return len(pool._pool)  # type: ignore[attr-defined]
    if not callable(getattr(pool, "submit", None)):
        raise TypeError(
            f"dask's pool must be an executor or a pool of multiprocessing, got {pool!r}: "
            f"for a number of threads set num_workers"
        )
    return getattr(pool, "_max_workers", None) or configured_workers() or CPU_COUNT


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


class Run(Background):
    """One graph being run by one of dask's own schedulers, in a thread."""

    def __init__(self, scheduler: Scheduler, graph: dict, keys: list) -> None:
        super().__init__(graph, self._posttask, self._pretask)
        self._handoff: Handoff = Handoff(WAITING)
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


class Turnstile:
    """Threads that run what is ready in the order of the steps, and not far ahead of the consumer.

    dask's own order knows nothing of steps that do not depend on each other. It is told of more
    workers than there are, so it hands over all that is ready, and the choice is made here.
    """

    _max_workers = sys.maxsize  # as `concurrent.futures` names it, and dask reads it

    def __init__(
        self, turns: dict, supplies: "Supplies", workers: int, name: str, waiting: int
    ) -> None:
        self._turns, self._supplies, self._workers = turns, supplies, workers
        self._unseen = self._unlocking = 0
        self._most = (workers + 1) * supplies.most
        self._ready: list[tuple] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._open = workers + waiting
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable, tasks: list[tuple]) -> Future:
        """Queue a batch of dask's, of which the first item of the first task is its key."""
        future: Future = Future()
        key = tasks[0][0]
        # What uses results goes before what makes more of them, or the chunks of a dask array
        # would all be there before the first is used.
        # What most of them wait for, such as a share of the memory, goes before all others.
        turn = self._turns[key], key in self._supplies, -self._supplies.users(key)
        with self._changed:
            if self._closed:
                future.cancel()
            else:
                heappush(self._ready, (*turn, next(self._numbers), future, function, tasks))
                # All, because tasks that hold wait for this condition as well as idle threads.
                self._changed.notify_all()
        return future

    def advance(self) -> None:
        """Let one more step begin, because the consumer has taken one."""
        with self._changed:
            self._open += 1
            self._changed.notify_all()

    def seen(self, key: Any) -> None:
        """Count a result that dask has looked at, to hand over what needed it."""
        with self._changed:
            self._unseen -= 1
            if self._supplies.used_by(key) or self._unseen == self._workers - 1:
                self._changed.notify_all()

    def hold(self, turn: int) -> None:
        """Wait, within a task, until a step may begin; raise CancelledError if none will."""
        if turn < self._open and not self._closed:
            return  # as nearly always: without the lock, for which the consumer would have to wait
        with self._changed:
            self._changed.wait_for(lambda: self._closed or turn < self._open)
            if self._closed:
                raise CancelledError

    def close(self) -> None:
        """Run nothing more."""
        with self._changed:
            self._closed = True
            for *_, future, _, _ in self._ready:
                future.cancel()
            self._ready.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for what is running."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_run)
                if self._closed:
                    return
                _, supplies, users, _, future, function, tasks = heappop(self._ready)
                self._supplies.stock += supplies
                several = not supplies or users < -1
                self._unlocking += several
            result = function(tasks)
            with self._changed:
                self._unseen += 1
                self._unlocking -= several
                if not self._unlocking:
                    self._changed.notify_all()
            future.set_result(result)
            # Nothing here may keep a result alive until the next task comes.
            del future, function, tasks, result

    def _may_run(self) -> bool:
        if self._closed or not self._ready:
            return self._closed
        turn, supplies, *_ = self._ready[0]
        if supplies:
            # Who uses results may not be ready only because dask has not yet seen the last of
            # them, or because something else that they need is still being done.
            enough = self._supplies.stock >= self._most and self._unlocking > 0
            return turn < self._open and self._unseen < self._workers and not enough
        return turn < self._open


class Supplies:
    """The tasks that only make results for others, such as the chunks of a dask array."""

    def __init__(self, graph: dict) -> None:
        needs = {key: graph[key].dependencies for key in graph}
        needed = Counter(key for keys in needs.values() for key in keys)
        self._users = {key: count for key, count in needed.items() if not needs[key]}
        self._used = {key: [k for k in keys if k in self._users] for key, keys in needs.items()}
        self.most = max(map(len, self._used.values()), default=0)
        """results that one task needs"""
        self.stock = 0
        """results that tasks still need, those that are being made included"""

    def __contains__(self, key: Any) -> bool:
        return key in self._users

    def users(self, key: Any) -> int:
        """Return how many tasks still need a result of these."""
        return self._users.get(key, 0)

    def used_by(self, key: Any) -> bool:
        """Count a task that is done; return whether it was the last that needed a result."""
        before = self.stock
        for used in self._used[key]:
            self._users[used] -= 1
            self.stock -= not self._users[used]
        return self.stock < before


class ThreadedRun(Background):
    """One graph being run in turn by threads of its own, under dask's scheduler.

    A step is a group of keys, which may finish in any order; ``sizes`` are those of the groups.
    So many steps as ``waiting`` says may be finished before the consumer takes the first of them.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        graph: dict,
        keys: list,
        sizes: list[int],
        waiting: int = WAITING,
    ) -> None:
        super().__init__(graph, self._posttask)
        self._sizes = sizes
        self._turns = {key: turn for turn, group in enumerate(keys) for key in group}
        needed = {key for task in graph.values() for key in task.dependencies}
        self._last = self._turns.keys() - needed
        self._results: SimpleQueue = SimpleQueue()
        self._early: list[list] = [[] for _ in sizes]
        self._turn = 0
        turns, workers = turns_of(graph, keys), scheduler.workers
        self._turnstile = Turnstile(turns, Supplies(graph), workers, self._name, waiting)
        self._thread.start()

    def next(self) -> Any:
        """Return the values of the next group of keys."""
        values = self._early[self._turn]
        while len(values) < self._sizes[self._turn]:
            turn, value = self._results.get()
            if isinstance(value, BaseException):
                raise value
            self._early[turn].append(value)
        self._turnstile.advance()
        self._early[self._turn] = []
        self._turn += 1
        return values

    def stop(self) -> None:
        """Stop starting tasks, and wait for those that are running."""
        self._turnstile.close()
        self._join()

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        self._turnstile.seen(key)
        if key in self._turns:
            self._results.put((self._turns[key], value))
            if key in self._last:
                # The scheduler would keep it until the run has ended.
                state["cache"][key] = None

    def _run(self) -> None:
        error: BaseException = StopIteration()
        try:
            dask.threaded.get(
                self._graph, list(self._last), pool=self._turnstile, callbacks=self._callbacks
            )
        except CancelledError:
            pass
        except BaseException as raised:
            error = raised
        # Only when the threads are gone are their blocks.
        self._turnstile.close()
        self._turnstile.join()
        self._graph = {}
        self._results.put((len(self._sizes), error))


class LanesRun(ThreadedRun):
    """Lanes of rows being run, whose tasks deliver the images themselves, in the midst of them."""

    def __init__(
        self, scheduler: Scheduler, graph: dict, keys: list, steps: int, canvases: Canvases
    ) -> None:
        canvases.deliver = lambda step, image: self._results.put((step, image))
        canvases.hold = lambda step: self._turnstile.hold(step)
        waiting = WAITING + 2 * (canvases.burst - 1)
        super().__init__(scheduler, graph, keys, [1] * steps, waiting)

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        """Leave the states of the lanes where they are."""
        self._turnstile.seen(key)


def turns_of(graph: dict, keys: list) -> dict:
    """Return for each task the first group of keys that needs it, by its number."""
    turns: dict = {}
    for turn, group in enumerate(keys):
        stack = list(group)
        while stack:
            task = stack.pop()
            if task not in turns:
                turns[task] = turn
                stack.extend(graph[task].dependencies)
    return turns


AnyRun = Run | ThreadedRun | ClusterRun
"""whatever has `next` and `stop`"""


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
    canvases: Canvases | None = None,
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
