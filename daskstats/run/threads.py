"""The runner for threads: steps in order, and not far ahead of the consumer."""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any

import dask.threaded

from ..graph.row_parallel import StepImages
from ..planning.values import WAITING
from .runner import BackgroundRunner, Stopped


class StepExecutor:
    """An executor for dask that runs tasks in the order of the steps.

    dask's own order knows nothing of steps that do not depend on each other. dask is told of more
    workers than there are, so that it submits every task that is ready; the order is made here.

    Parameters
    ----------
    steps : dict
        The first step that needs a task, by its key.
    inputs : InputTracker
    workers : int
        Number of threads.
    name : str
        Beginning of the threads' names.
    ahead : int
        Steps that may begin before the consumer asks for the first of them.
    """

    _max_workers = sys.maxsize  # the name of `concurrent.futures`, which dask reads

    def __init__(
        self, steps: dict, inputs: "InputTracker", workers: int, name: str, ahead: int
    ) -> None:
        self._steps, self._inputs, self._workers = steps, inputs, workers
        self._unseen = self._unlocking = 0
        self._most = (workers + 1) * inputs.most
        self._ready: list[tuple] = []
        self._numbers = count()
        # An interrupt in a function of Python that acquires a lock would leave it locked: that of
        # a condition is acquired in C.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._open = ahead
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(workers)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable, tasks: list[tuple]) -> Future:
        """Queue a batch of dask's; the first item of its first task is the key of that task."""
        future: Future = Future()
        key = tasks[0][0]
        # Tasks that use inputs go before those that make more of them, or all chunks of a dask
        # array would exist before the first is used. An input that many tasks wait for, such as
        # a memory reservation, goes first.
        order = self._steps[key], key in self._inputs, -self._inputs.users(key)
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                heappush(self._ready, (*order, next(self._numbers), future, function, tasks))
                # All, because tasks within `wait_for_step` wait for this condition too.
                self._changed.notify_all()
        return future

    def advance(self) -> None:
        """Let one more step begin."""
        with self._lock:
            self._open += 1
            self._changed.notify_all()

    def note_seen(self, key: Any) -> None:
        """Note that dask has seen the result of a task, and submitted the tasks that needed it."""
        with self._lock:
            self._unseen -= 1
            if self._inputs.note_done(key) or self._unseen == self._workers - 1:
                self._changed.notify_all()

    def wait_for_step(self, step: int) -> None:
        """Wait, within a task, until a step may begin; raise CancelledError if none will."""
        if step < self._open and not self._closed:
            return  # nearly always: without the lock, for which the consumer would have to wait
        with self._lock:
            self._changed.wait_for(lambda: self._closed or step < self._open)
            if self._closed:
                raise CancelledError

    def close(self) -> None:
        """Start no more tasks."""
        with self._lock:
            self._closed = True
            for *_, future, _, _ in self._ready:
                future.cancel()
            self._ready.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether no more tasks start."""
        return self._closed

    def join(self) -> None:
        """Wait for the tasks that are running."""
        for thread in self._threads:
            if thread.ident is not None:  # the system may refuse to start a thread
                thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(self._may_run)
                if self._closed:
                    return
                _, is_input, users, _, future, function, tasks = heappop(self._ready)
                self._inputs.stock += is_input
                several = not is_input or users < -1
                self._unlocking += several
            result = function(tasks)
            with self._lock:
                self._unseen += 1
                self._unlocking -= several
                if not self._unlocking:
                    self._changed.notify_all()
            future.set_result(result)
            # No local variable may keep a result alive until the next task comes.
            del future, function, tasks, result

    def _may_run(self) -> bool:
        if self._closed or not self._ready:
            return self._closed
        step, is_input, *_ = self._ready[0]
        if is_input:
            # The tasks that use inputs may not be ready only because dask has not yet seen the
            # last input, or because another task that they need is still running.
            enough = self._inputs.stock >= self._most and self._unlocking > 0
            return step < self._open and self._unseen < self._workers and not enough
        return step < self._open


class InputTracker:
    """Counts the inputs: results of tasks without dependencies, such as chunks of a dask array."""

    def __init__(self, graph: dict) -> None:
        needs = {key: graph[key].dependencies for key in graph}
        needed = Counter(key for keys in needs.values() for key in keys)
        self._users = {key: count for key, count in needed.items() if not needs[key]}
        self._used = {key: [k for k in keys if k in self._users] for key, keys in needs.items()}
        self.most = max(map(len, self._used.values()), default=0)
        """inputs of the task that needs most of them"""
        self.stock = 0
        """inputs that tasks still need, those that are being made included"""

    def __contains__(self, key: Any) -> bool:
        return key in self._users

    def users(self, key: Any) -> int:
        """Return how many tasks still need an input; 0 for other keys."""
        return self._users.get(key, 0)

    def note_done(self, key: Any) -> bool:
        """Note that a task is done; return whether it was the last that needed some input."""
        before = self.stock
        for used in self._used[key]:
            self._users[used] -= 1
            self.stock -= not self._users[used]
        return self.stock < before


class ThreadRunner(BackgroundRunner):
    """Executes a graph with threads of its own, under dask's threaded scheduler.

    Parameters
    ----------
    workers : int
        Number of threads.
    graph : dict
    keys : list of lists
        Of each step; they may finish in any order.
    steps : list of int
        Number of results of each step.
    waiting : int
        Steps that may be finished before the consumer takes the first of them.
    reading : int
        Leading steps that read frames for the others: their results are not handed over.
    in_turn : bool
        Whether a step begins only when the consumer asks for it.
    """

    def __init__(
        self,
        workers: int,
        graph: dict,
        keys: list,
        steps: list[int],
        waiting: int = WAITING,
        reading: int = 0,
        in_turn: bool = False,
    ) -> None:
        super().__init__(graph, self._posttask)
        self._sizes, self._reading = steps, reading
        self._wanted = {key: step for step, group in enumerate(keys) for key in group}
        needed = {key for task in graph.values() for key in task.dependencies}
        self._last = self._wanted.keys() - needed
        self._results: SimpleQueue = SimpleQueue()
        self._early: list[list] = [[] for _ in steps]
        self._step = 0
        order, self._in_turn = first_steps(graph, keys), in_turn
        ahead = 0 if in_turn else workers + waiting
        self._executor = StepExecutor(order, InputTracker(graph), workers, self._name, ahead)

    def next(self) -> list[Any]:
        """Return the results of the next step."""
        if self._in_turn:
            self._executor.advance()
        values = self._early[self._step]
        while len(values) < self._sizes[self._step]:
            step, value = self._take(self._results)
            if isinstance(value, BaseException):
                raise value
            self._early[step].append(value)
        if not self._in_turn:
            self._executor.advance()
        self._early[self._step] = []
        self._step += 1
        return values

    def stop(self) -> None:
        """Start no more tasks, and wait for those that are running."""
        self._executor.close()
        self._join()

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        self._executor.note_seen(key)
        if key in self._wanted:
            step = self._wanted[key]
            self._results.put((step, None if step < self._reading else value))
            if key in self._last:
                # The scheduler would keep it until the graph has ended.
                state["cache"][key] = None

    def _execute(self) -> None:
        error: BaseException = Stopped()
        try:
            self._executor.start()
            dask.threaded.get(
                self._graph, list(self._last), pool=self._executor, callbacks=self._callbacks
            )
        except BaseException as raised:
            # Closing the executor cancels tasks; a task may raise the same error by itself.
            if not (isinstance(raised, CancelledError) and self._executor.is_closed):
                error = raised
        # The blocks that the threads hold are freed only when the threads have ended.
        self._executor.close()
        self._executor.join()
        self._graph = {}
        self._results.put((len(self._sizes), error))


class RowParallelRunner(ThreadRunner):
    """Executes tasks that each reduce some rows and deliver the images of a step themselves."""

    def __init__(
        self, workers: int, graph: dict, keys: list, steps: int, images: StepImages
    ) -> None:
        images.connect(
            deliver=lambda step, made: self._results.put((step, made)),
            wait_for_step=lambda step: self._executor.wait_for_step(step),
        )
        waiting = WAITING + 2 * (images.batch - 1)
        super().__init__(workers, graph, keys, [1] * steps, waiting)

    def _posttask(self, key: Any, value: Any, graph: Any, state: Any, worker: Any) -> None:
        """Leave the states of the rows where they are."""
        self._executor.note_seen(key)


def first_steps(graph: dict, keys: list) -> dict:
    """Return for each task the number of the first step that needs it."""
    steps: dict = {}
    for step, group in enumerate(keys):
        stack = list(group)
        while stack:
            task = stack.pop()
            if task not in steps:
                steps[task] = step
                stack.extend(graph[task].dependencies)
    return steps
