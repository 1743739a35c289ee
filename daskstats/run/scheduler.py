"""Which scheduler dask would use now, and how many tasks it runs at once."""

import multiprocessing.pool
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from numbers import Integral
from typing import Any

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import numpy as np
from dask.system import CPU_COUNT

from . import workers as run_workers
from .workers import Workers


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
        return run_workers.client_of(self.get)

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
        raise run_workers.asynchronous() if "asynchronous" in str(error) else error from None
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
        run_workers.check_client(scheduler.client)
        found = run_workers.look_at(scheduler.client)
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
