"""The runner for a distributed cluster: a window of tasks in flight.

The runner submits *parts*, each with the tasks that one partial state needs, and gathers the states
in order when they are asked for::

    gathered          in flight: two tasks for each thread, and two        not yet submitted
    p0 p1 p2 p3       p4 p5 p6 p7 p8 p9                                    p10 p11 p12 ...

The client combines the states. If the workers combined them in a chain, the death of the worker
with the last link would have every frame read again; this way it costs only the tasks in flight.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import config
from ..graph.reading import block_of_key
from ..packages import load
from .compilations import subscribe, unsubscribe
from .runner import Runner
from .workers import POLL, TRANSFER, StallWatch, inspect_workers, no_workers

# Tasks in flight for each thread of the cluster, and in addition: a finished state waits on its
# worker until it is gathered, and every thread needs work while the next part is submitted.
TASKS_PER_THREAD = 2


@dataclass
class Part:
    """Tasks that are submitted together: those that one key needs and no earlier one."""

    key: Any
    tasks: dict
    """keys and tasks"""
    shared: list
    """keys of its tasks that later parts need too"""
    last: list
    """keys of earlier parts that no later one needs"""


def cut_in_parts(graph: dict, keys: list) -> deque[Part]:
    """Return the parts of a graph, one for each key."""
    first: dict = {}
    needed: dict = {}
    for index, key in enumerate(keys):
        behind = closure(graph, [key])
        for name in behind:
            first.setdefault(name, index)
            needed[name] = index
    parts = deque(Part(key, {}, [], []) for key in keys)
    for name, index in first.items():
        parts[index].tasks[name] = graph[name]
        if needed[name] > index:
            parts[index].shared.append(name)
            parts[needed[name]].last.append(name)
    return parts


def in_one(graph: dict, keys: list) -> deque[Part]:
    """Return parts of which the first submits all tasks.

    A shuffle between workers cannot be extended once it has begun.
    """
    first, *others = keys
    return deque([Part(first, graph, others, []), *(Part(key, {}, [], []) for key in others)])


def closure(graph: dict, keys: list) -> dict:
    """Return the tasks that some keys need, their own included.

    A key without a task is a block that the user has persisted; the scheduler knows it.
    """
    found: dict = {}
    stack = list(keys)
    while stack:
        key = stack.pop()
        if key not in found and key in graph:
            found[key] = graph[key]
            stack.extend(graph[key].dependencies)
    return found


class ClusterRunner(Runner):
    """Executes a graph on a distributed cluster, part by part.

    Parameters
    ----------
    client : distributed.Client
    graph : dict
        All tasks. No other run may have the same keys, except those of a user's dask array.
    keys : list of lists
        Of the partial states of each step.
    at_once : bool
        Whether all tasks are submitted at the start.
    """

    def __init__(self, client: Any, graph: dict, keys: list, at_once: bool = False) -> None:
        self._client, self._graph = client, graph
        self._steps = deque(len(group) for group in keys)
        self._keys = deque(key for group in keys for key in group)
        self._wanted = set(self._keys)
        self._kept: set = set()
        self._at_once = at_once
        self._waiting = (in_one if at_once else cut_in_parts)(graph, list(self._keys))
        self._flying: deque[Part] = deque()
        self._futures: dict = {}
        self._threads = inspect_workers(client).threads
        self._stalls = StallWatch(client) if at_once else None
        self._last_seen = self._looked = time.monotonic()
        distributed = load("distributed")
        self._killed = distributed.KilledWorker
        # From workers that were started here states come directly, and not by way of the scheduler.
        local = isinstance(client.cluster, distributed.LocalCluster)
        gather = partial(client.gather, direct=local or None, asynchronous=True)
        self._fetch = partial(fetch, gather)
        self._stopped = False

    def start(self) -> None:
        """Have the cluster tell how far it is; `next` submits the tasks."""
        load("daskstats.run.dashboard").show_progress(self._client, self._graph)
        self._compilations = subscribe(self._client, self)
        _leave_worker_pool()
        if self._stopped:  # by another thread meanwhile
            unsubscribe(self._client, self)

    def next(self) -> Iterator[Any]:
        """Return the partial states of the next step, each gathered as it is taken."""
        count = self._steps.popleft()
        return (self._take() for _ in range(count))

    def stop(self) -> None:
        """Cancel the tasks in flight; safe in any thread, where the garbage collector calls it."""
        self._stopped = True
        self._waiting.clear()
        self._flying.clear()
        self._graph = {}
        self._release(list(self._futures))
        unsubscribe(self._client, self)

    def compiling(self) -> bool:
        """Whether a worker is compiling code now."""
        return self._compilations.running()

    # ------------------------------------------------------------------ submitting

    def _fill(self) -> None:
        """Submit parts while there is room in the window."""
        room = TASKS_PER_THREAD * (self._threads + 1)
        room -= sum(len(part.tasks) for part in self._flying)
        while self._waiting and (room > 0 or len(self._flying) < 2):
            part = self._waiting.popleft()
            self._submit(part.tasks, [part.key, *part.shared])
            self._kept |= set(part.shared)
            self._kept -= set(part.last)
            self._release([key for key in part.last if key not in self._wanted])
            self._flying.append(part)
            room -= len(part.tasks)

    def _submit(self, tasks: dict, keys: list) -> None:
        keys = [key for key in dict.fromkeys(keys) if key not in self._futures]
        if keys:
            # Tasks submitted first go first: dask may take calls in quick succession as one.
            futures = self._client.get(tasks, keys, sync=False, fifo_timeout="0s")
            self._futures |= dict(zip(keys, futures, strict=True))

    def _release(self, keys: list) -> None:
        for key in keys:
            future = self._futures.pop(key, None)
            if future is not None:
                # The client may have been closed, and its loop with it.
                with suppress(RuntimeError):
                    future.release()

    # ------------------------------------------------------------------ gathering

    def _take(self) -> Any:
        self._fill()
        key = self._keys[0]
        try:
            state = self._gather(key)
        except self._killed as error:
            if self._at_once:
                raise killed_worker_error([error.task], error) from error
            state = self._compute_alone(key)
        self._keys.popleft()
        self._wanted.discard(key)
        if self._flying:
            self._flying.popleft()
        if key not in self._kept:
            self._release([key])
        # The workers go on while the consumer uses the state.
        self._fill()
        return state

    def _gather(self, key: Any) -> Any:
        """Wait for a state and return it, however often its worker dies while it is sent."""
        future, patient = self._futures[key], TRANSFER
        try:
            while True:
                self._wait_for(key)
                with suppress(TimeoutError):
                    return self._client.sync(self._fetch, future, callback_timeout=patient)
                patient *= 2
        except CancelledError as error:
            raise RuntimeError(
                f"the cluster has dropped the work, or was closed: {error}"
            ) from error

    def _wait_for(self, key: Any) -> None:
        """Wait until a state is finished, or raise the error of its task."""
        future = self._futures[key]
        while not future.done():
            with suppress(TimeoutError):
                # This waits as `distributed.wait` does, which asks the default client.
                future.exception(timeout=POLL)
            if self.on_wait is not None:
                self.on_wait()
            if time.monotonic() - self._looked > POLL:
                self._inspect_workers()
        if future.status == "error":
            future.result()

    def _inspect_workers(self) -> None:
        """Adapt the window to the workers; raise an error if there have been none for long."""
        self._looked = time.monotonic()
        try:
            workers = self._client.nthreads()
            if self._stalls is not None:
                self._stalls.look(workers)
        except OSError as error:
            raise ConnectionError(f"the scheduler does not answer: {error}") from error
        self._compilations.keep(workers)
        if workers:
            self._threads, self._last_seen = sum(workers.values()), self._looked
            self._fill()
        elif self._looked - self._last_seen > config.no_workers_timeout():
            raise no_workers()

    # ------------------------------------------------------------------ blocks that kill workers

    def _compute_alone(self, key: Any) -> Any:
        """Compute a state again, one block at a time with no other task, and go on.

        If workers die again, the block that was running is the cause.
        """
        self._waiting.clear()
        self._flying.clear()
        self._kept.clear()
        self._forget()
        behind = closure(self._graph, [key])
        blocks = [block for block in behind if block_of_key(block)]
        for block in blocks:
            self._submit(closure(self._graph, [block]), [block])
            self._get_alone(self._wait_for, block, [block])
        self._submit(behind, [key])
        state = self._get_alone(self._gather, key, blocks)
        self._forget()
        self._waiting = cut_in_parts(self._graph, [*self._keys][1:])
        return state

    def _forget(self) -> None:
        """Have the scheduler forget the tasks in flight, and how often they failed.

        Results that are finished stay: a source, and a directory with scratch data.
        """
        own = [key for key in self._futures if key in self._keys or block_of_key(key)]
        self._release([key for key in self._futures if not self._is_finished(key)] + own)
        # A key that is asked for again before the client has released it is not forgotten; one that
        # was cancelled is cancelled again when the scheduler confirms it.
        deadline = time.monotonic() + TRANSFER
        while any(key in self._client.futures for key in own) and time.monotonic() < deadline:
            time.sleep(POLL / 100)

    def _is_finished(self, key: Any) -> bool:
        return self._futures[key].status == "finished"

    def _get_alone(self, get: Callable[[Any], Any], key: Any, blocks: list) -> Any:
        try:
            return get(key)
        except self._killed as error:
            raise killed_worker_error(blocks, error) from error


async def fetch(gather: Callable[[Any], Awaitable[Any]], future: Any) -> Any:
    """Gather a result, in a task that goes on when the caller gives up or is interrupted.

    After a call of `gather` that is cancelled at its beginning, distributed has every later one of
    the client wait for it.
    """
    gathering = asyncio.ensure_future(gather(future))
    # The error of a task that was given up would be printed, as one that nobody has asked for.
    gathering.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(gathering)
    except asyncio.CancelledError:
        if gathering.cancelled():
            raise RuntimeError(
                "the client of the cluster gathers no results since a call of its `gather` was "
                "interrupted: make a new one"
            ) from None
        raise


def killed_worker_error(blocks: list, error: Any) -> RuntimeError:
    """Return the error that names the frames that kill the workers reading them."""
    names = " and ".join(block_of_key(block) or str(block) for block in blocks)
    return RuntimeError(
        f"every worker that took {names} of the series died ({error.allowed_failures + 1} in a "
        f"row, with nothing beside): see their logs, and try the frames one by one"
    )


def _leave_worker_pool() -> None:
    """Let a worker run other tasks while one of its tasks waits for results here."""
    if getattr(load("distributed.worker").thread_state, "key", None):
        with suppress(KeyError):
            load("distributed").secede()
