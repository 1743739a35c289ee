"""Graphs run in the order of the steps, by threads of the run's own."""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded

from ..graph.row_parallel import StepImages
from ..planning.values import WAITING
from .background import Background
from .scheduler import Scheduler


class StepExecutor:
    """Threads that run what is ready in the order of the steps, and not far ahead of the consumer.

    dask's own order knows nothing of steps that do not depend on each other. It is told of more
    workers than there are, so it hands over all that is ready, and the choice is made here.
    """

    _max_workers = sys.maxsize  # as `concurrent.futures` names it, and dask reads it

    def __init__(
        self, turns: dict, supplies: "InputTracker", workers: int, name: str, waiting: int
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


class InputTracker:
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
        self._turnstile = StepExecutor(turns, InputTracker(graph), workers, self._name, waiting)
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
        self, scheduler: Scheduler, graph: dict, keys: list, steps: int, canvases: StepImages
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
