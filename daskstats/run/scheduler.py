"""Which scheduler dask would use now, and how a reduction runs on it: chosen here and nowhere else.

    scheduler              tasks built by                 executed by          partials combined
    threads                reducing.step_partials         ThreadRunner         by Progress
      frames in memory     reducing.row_parallel          RowParallelRunner    within the tasks
    any other local one    reducing.running_states        CallbackRunner       by tasks
    distributed client     reducing.per_step_partials     ClusterRunner        by Progress

Plain calls are lazy dask arrays (`reducing.lazy_images`), which any scheduler computes.
"""

import multiprocessing.pool
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.pool import Pool
from numbers import Integral
from typing import Any
from uuid import uuid4

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import numpy as np
from dask.system import CPU_COUNT

from .. import config
from ..graph import reducing
from ..graph.build import Key, Tasks, Work
from ..memory import available
from ..memory.reservation import MemoryReservation
from ..planning.cuts import ranges, split
from ..planning.frame_wise import plan_frame_wise
from ..planning.request import Request
from ..planning.row_wise import plan_row_wise
from ..planning.values import FAN_IN, Layout, MemoryLimitError, Plan
from ..scratch.location import scratch_disk
from ..series.base import Source
from ..statistics import Statistic
from . import workers
from .callbacks import CallbackRunner
from .distributed import ClusterRunner
from .progress import Progress
from .runner import Runner
from .threads import RowParallelRunner, ThreadRunner
from .workers import Workers

# Steps in which frames are read before the first row is reduced, at most: one for each snapshot.
READ_STEPS = 50

# The tasks of a shuffle of distributed that send the blocks of the series to other workers.
TRANSFER_NAME = "rechunk-transfer-"


@dataclass(frozen=True)
class Execution:
    """Tasks, and how they are executed."""

    tasks: Tasks
    make_runner: Callable[[], Runner]
    """returns the runner of the tasks, which has not started"""
    absorb: Callable[[Progress, Iterable], None]
    """the method of `Progress` that takes the results of a step"""
    reading: tuple[int, ...] = ()
    """for each leading step that reads frames only: the frames that are read after it"""


class Scheduler:
    """One of dask's schedulers; a subclass for each way to run a reduction on it."""

    workers: int
    """tasks that run at once in one process"""
    processes = 0
    """workers of a cluster; 0: this process alone"""
    shares_memory = True
    """whether a result is there for every task without being sent"""

    def limit(self, value: int | float | str | None) -> int:
        """Return the bytes that a call may use in one process."""
        return available.memory_limit(value)

    def prepare(
        self, series: Source, statistic: Statistic | None, layout: Layout
    ) -> tuple[Layout, int]:
        """Refuse objects that cannot be sent to tasks; return the layout, and copies to send."""
        return layout, 1

    def plan(self, request: Request, along: str, use_buffer: bool) -> Plan:
        """Plan a reduction along frames or rows; ``use_buffer``: frames may be kept."""
        raise NotImplementedError

    def lazy_reservation(self, nbytes: int, limit: int) -> MemoryReservation | None:
        """Return the reservation that each run of a lazy image begins, where memory is shared."""
        return MemoryReservation(nbytes, limit) if self.shares_memory else None

    def execution(self, work: Work, reading: bool) -> Execution:
        """Build the tasks of a running reduction.

        Parameters
        ----------
        work : Work
        reading : bool
            Whether there are steps for the tasks that read all frames before the first row.
        """
        raise NotImplementedError


class LocalScheduler(Scheduler):
    """A scheduler that runs its tasks on this machine."""

    def plan(self, request: Request, along: str, use_buffer: bool) -> Plan:
        """Plan a reduction; frames are kept where tasks share memory."""
        if along == "frames":
            return plan_frame_wise(request, chained=self.shares_memory)
        use_buffer = use_buffer and self.shares_memory
        return plan_row_wise(request, use_buffer, scratch_disk() if use_buffer else None)


@dataclass(frozen=True)
class ThreadScheduler(LocalScheduler):
    """dask's threaded scheduler, which `ThreadRunner` gives threads of its own."""

    workers: int

    def execution(self, work: Work, reading: bool) -> Execution:
        """Build the partial states of all steps, or the tasks of each range of rows."""
        in_tasks = work.statistic.along == "frames" and work.start is None
        if in_tasks and work.series.view(0, 1, 0, 1) is not None:
            tasks, keys, images = reducing.row_parallel(work)
            graph, steps = tasks.runnable(keys), len(work.plan.steps)
            make: Callable[[], Runner] = partial(
                RowParallelRunner, self.workers, graph, keys, steps, images
            )
            return Execution(tasks, make, Progress.take_images)
        tasks, last = reducing.step_partials(work, token=uuid4().hex)
        reads, frames = read_steps(tasks.reads if reading else [])
        keys = [*reads, *([key] for key in last)]
        sizes = [len(group) for group in keys]
        graph = tasks.runnable(keys)
        make = partial(ThreadRunner, self.workers, graph, keys, sizes, reading=len(reads))
        make = partial(make, in_turn=work.in_turn)
        return Execution(tasks, make, Progress.add_partials, frames)


@dataclass(frozen=True)
class CallbackScheduler(LocalScheduler):
    """Any other of dask's local schedulers, and pools and executors of the user's."""

    get: Callable
    workers: int
    shares_memory: bool = True

    def prepare(
        self, series: Source, statistic: Statistic | None, layout: Layout
    ) -> tuple[Layout, int]:
        """Refuse objects that cannot be sent to other processes."""
        if not self.shares_memory:
            workers.check_sent(series, *([] if statistic is None else [statistic]))
        return layout, 1

    def execution(self, work: Work, reading: bool) -> Execution:
        """Build a chain of the states of all steps: dask keeps no other results."""
        tasks, steps = reducing.running_states(work)
        reads, frames = read_steps(tasks.reads if reading else [])
        graph = tasks.runnable([*reads, *steps])
        make = partial(CallbackRunner, self.get, graph, steps, reads)
        return Execution(tasks, make, Progress.replace_state, frames)


@dataclass(frozen=True)
class ClusterScheduler(Scheduler):
    """A distributed client; the plan is for each of its workers."""

    client: Any
    found: Workers
    shares_memory = False

    @property
    def workers(self) -> int:  # type: ignore[override]
        """Threads of the worker with the most."""
        return self.found.each

    @property
    def processes(self) -> int:  # type: ignore[override]
        """Workers of the cluster."""
        return self.found.processes

    def limit(self, value: int | float | str | None) -> int:
        """Return the bytes that a call may use in each worker.

        That is the budget of the smallest worker, and at most an equal part of the memory that the
        call is given.
        """
        budget = self.found.budget(config.memory_fraction())
        given = value is not None or config.memory_limit() is not None
        if given or budget is None:
            # Workers without a limit are taken to share this machine.
            part = available.memory_limit(value) // self.found.processes
            return part if budget is None else min(part, budget)
        return budget

    def prepare(
        self, series: Source, statistic: Statistic | None, layout: Layout
    ) -> tuple[Layout, int]:
        """Refuse objects that cannot be sent to the workers; count the copies of the series."""
        replicas = workers.count_replicas(series, self.found.processes)
        if statistic is None:
            return layout, replicas
        workers.sent_nbytes(statistic)
        # Frames that are not sent with their tasks are read by the workers.
        sent = series.part(0, 1, 0, 1) is not None
        return replace(layout, in_memory=layout.in_memory and sent), replicas

    def plan(self, request: Request, along: str, use_buffer: bool) -> Plan:
        """Plan for each worker."""
        request = replace(request, running=False)
        try:
            if along == "frames":
                fan_in = min(FAN_IN, self.found.threads)
                return plan_frame_wise(request, chained=False, fan_in=fan_in)
            shuffle = workers.shuffle_nbytes() if use_buffer else 0
            shared = use_buffer and config.scratch_directory() is not None
            disk = scratch_disk(self.found.cluster) if shared else None
            return plan_row_wise(request, use_buffer, disk, shuffle)
        except MemoryLimitError as error:
            raise MemoryLimitError(f"{error} ({self.found})") from None

    def execution(self, work: Work, reading: bool) -> Execution:
        """Build the states of a few blocks each, which the client combines."""
        tasks, keys = reducing.per_step_partials(work)
        every = tasks.reads if reading else []
        graph = tasks.runnable([*keys, *(key for key, _ in every)])
        if reading and tasks.shuffles:
            every = transfers(graph, work.plan.layout.nframes)
        reads, frames = read_steps(every)
        make = partial(ClusterRunner, self.client, graph, [*reads, *keys], tasks.shuffles)
        return Execution(tasks, make, Progress.add_partials, frames)


def read_steps(reads: list[tuple[Key, int]]) -> tuple[list[list[Key]], tuple[int, ...]]:
    """Return the keys of each step that reads frames, and the frames that are read after it.

    >>> read_steps([(("read", 0), 8), (("read", 1), 12)])
    ([[('read', 0)], [('read', 1)]], (8, 12))
    """
    parts = ranges(split(len(reads), min(READ_STEPS, len(reads)))) if reads else []
    keys = [[key for key, _ in reads[first:last]] for first, last in parts]
    return keys, tuple(reads[last - 1][1] for _, last in parts)


def transfers(graph: dict, nframes: int) -> list[tuple[Key, int]]:
    """Return the tasks that send frames from worker to worker, and the frames that are sent then.

    Each of them sends about as many. The barrier of the shuffle needs these keys. Where dask has
    joined another task to one, the key is an alias of ``read-frames-rechunk-transfer-...``, which
    must not be asked for: its result would stay. A shuffle that begins again, because a worker has
    died, releases what its barrier needs; the aliases would have the results of the first shuffle
    again, and the run would wait for ever.
    """
    keys = [key for key in graph if isinstance(key, tuple) and key[0].startswith(TRANSFER_NAME)]
    return [(key, nframes * done // len(keys)) for done, key in enumerate(keys, start=1)]


def current_scheduler() -> Scheduler:
    """Return the scheduler that dask would use for an array now: configured, client, or threads."""
    try:
        get = dask.base.get_scheduler() or dask.threaded.get
    except RuntimeError as error:
        # dask itself says it of some clients, but not the way out.
        raise workers.asynchronous() if "asynchronous" in str(error) else error from None
    except AssertionError:
        # An executor without a number of workers, or a wrong number of them.
        configured_workers()
        raise
    if getattr(get, "func", None) is dask.local.get_async:
        submit, count = get.args[0], check_workers(get.args[1])
        return CallbackScheduler(
            get, count, not _is_pool_of_processes(getattr(submit, "__self__", None))
        )
    if get is dask.local.get_sync:
        return CallbackScheduler(get, 1)
    client = workers.client_of(get)
    if client is not None:
        if client.asynchronous:
            raise workers.asynchronous()
        return ClusterScheduler(client, workers.inspect_workers(client))
    pool = dask.config.get("pool", None)
    count = (configured_workers() if pool is None else pool_workers(pool)) or CPU_COUNT
    if get is dask.threaded.get and pool is None:
        return ThreadScheduler(count)
    if get is dask.multiprocessing.get:
        # Fusion would rename the keys that are waited for.
        get = partial(get, num_workers=count, optimize_graph=False)
        return CallbackScheduler(get, count, shares_memory=False)
    return CallbackScheduler(get, count, not _is_pool_of_processes(pool))


def _is_pool_of_processes(pool: Any) -> bool:
    return isinstance(pool, ProcessPoolExecutor) or type(pool) is Pool


def configured_workers() -> int | None:
    """Return dask's ``num_workers``, None if it is not set."""
    count = dask.config.get("num_workers", None)
    return None if count is None else check_workers(count)


def check_workers(count: Any) -> int:
    """Return a number of workers that dask was given."""
    text = f"dask's num_workers must be a positive integer, got {count!r}"
    if isinstance(count, bool | np.bool_) or not isinstance(count, Integral):
        raise TypeError(text)
    if count < 1:
        raise ValueError(text)
    return int(count)


def pool_workers(pool: Any) -> int:
    """Return the number of workers of dask's ``pool``."""
    if isinstance(pool, multiprocessing.pool.Pool):
        return len(pool._pool)  # type: ignore[attr-defined]
    if not callable(getattr(pool, "submit", None)):
        raise TypeError(
            f"dask's pool must be an executor or a pool of multiprocessing, got {pool!r}: "
            f"for a number of threads set num_workers"
        )
    return getattr(pool, "_max_workers", None) or configured_workers() or CPU_COUNT
