"""The workers of a cluster: their number, their memory, and objects that are sent to them."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from .. import config
from ..memory import available
from ..packages import load
from ..planning.values import rounded_down
from ..series.base import DerivedSource, Source
from ..series.daskarrays import DaskSource
from ..series.locked import LockedSource

# Seconds between inspections of the workers while a state is waited for, and seconds for the first
# attempt to fetch it, because its worker may have died; the next attempt has twice as long.
POLL, TRANSFER = 0.5, 2.0

# A local cluster stops replacing a worker if the new one dies as well this long after the first;
# ours goes on.
LASTING = {"distributed.deploy.lost-worker-timeout": "1h"}

# Bytes of all copies of a series that are sent to workers.
REPLICAS_NBYTES = 64 << 20

# Part of the memory of our own workers for their buffers while they exchange bands.
SHUFFLE_PART = 1 / 16

logger = logging.getLogger("daskstats")


def client_of(get: Any) -> Any:
    """Return the distributed client that a ``get`` function is a method of, or None."""
    owner = getattr(get, "__self__", None)
    return owner if "Client" in type(owner).__name__ else None


def asynchronous() -> RuntimeError:
    return RuntimeError(
        "daskstats does not work with an asynchronous distributed.Client: make one with "
        "Client(address), or compute elsewhere by dask.config.set(scheduler='threads')"
    )


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster."""

    processes: int
    """number of workers"""
    threads: int
    """of all workers"""
    each: int
    """threads of the worker with the most"""
    memory: int | None
    """bytes of the smallest limit, None if there is no limit"""
    cluster: str = ""
    """a name that no other cluster has"""

    def __str__(self) -> str:
        limit = "no limit" if self.memory is None else f"{rounded_down(self.memory)} at least"
        return f"in each of {self.processes} workers of the cluster, which have {limit}"

    def budget(self, fraction: float) -> int | None:
        """Return the bytes that tasks may use in each worker, or None if there is no limit.

        >>> Workers(2, 2, 1, 4 << 30).budget(0.5) >> 20
        2048
        >>> Workers(2, 2, 1, 1 << 30).budget(0.5) >> 20
        294
        """
        if self.memory is None:
            return None
        return min(int(fraction * self.memory), available.worker_budget(self.memory))


def inspect_workers(client: Any) -> Workers:
    """Return the workers of now; wait for the first one if there is none.

    Raises
    ------
    TimeoutError
        If there is none for ``daskstats.no-workers-timeout``.
    """
    found = _workers(client)
    deadline = time.monotonic() + config.no_workers_timeout()
    while not found:
        if time.monotonic() > deadline:
            raise no_workers()
        time.sleep(0.1)
        found = _workers(client)
    limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
    threads = [worker["nthreads"] for worker in found]
    smallest, name = min(limits, default=None), client.scheduler_info(n_workers=0)["id"]
    return Workers(len(found), sum(threads), max(threads), smallest, name)


@contextmanager
def local_cluster(count: int, directory: str | None = None) -> Iterator[Any]:
    """Start a cluster of ``count`` processes that only this machine can reach; yield its client.

    The workers share the memory that is available now, and the processors. Their files go into a
    directory, by default dask's own.
    """
    distributed = load("distributed")
    here = "127.0.0.1"
    share = available.available() // count
    buffer = min(1 << 30, int(SHUFFLE_PART * share))
    settings = {
        **LASTING,
        "distributed.p2p.comm.buffer": buffer,
        "distributed.p2p.storage.buffer": buffer,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=max(1, CPU_COUNT // count),
            memory_limit=share,
            host=here,
            dashboard_address=f"{here}:0",
            worker_dashboard_address=f"{here}:0",
            local_directory=directory,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def shuffle_nbytes() -> int:
    """Return the bytes of a worker's buffers while workers exchange blocks (dask's P2P).

    The setting here is taken for that of the workers, to which a `LocalCluster` passes it on.
    """
    names = "distributed.p2p.comm.buffer", "distributed.p2p.storage.buffer"
    return sum(parse_bytes(dask.config.get(name, "1 GiB")) for name in names)


def _workers(client: Any) -> list[dict]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def no_workers() -> TimeoutError:
    return TimeoutError(
        f"the cluster has had no workers for {config.no_workers_timeout():.4g} s: start some, or "
        f"raise daskstats.no-workers-timeout"
    )


class StallWatch:
    """Warns if workers that exchange frames go on with nothing after one of them has left.

    dask begins the exchange again. If that ever failed, the run would wait without a word. An error
    would end runs of which single tasks take as long.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known, self._lost = set(client.nthreads()), set[str]()
        self._busy: dict = {}
        self._since = time.monotonic()

    def look(self, workers: Iterable[str]) -> None:
        """Compare the work of the workers of now with that of the last look."""
        self._lost |= self._known.difference(workers)
        self._known.update(workers)
        if not self._lost:
            return
        now, busy, limit = time.monotonic(), self._client.processing(), config.no_workers_timeout()
        if busy != self._busy:
            self._busy, self._since = busy, now
        elif now - self._since > limit:
            self._since = math.inf
            logger.warning(
                "no task has begun or finished for %.4g s, and before that the cluster lost %s: if "
                "its dashboard shows no task at work, begin again, or set "
                "daskstats.scratch-directory, where the frames wait if a worker dies",
                limit,
                " and ".join(sorted(self._lost)),
            )


def sent_nbytes(value: Any) -> int:
    """Return the bytes of a pickled object; refuse, at the call, one that cannot be sent."""
    dumps = load("distributed.protocol.pickle").dumps
    with _silent("distributed.protocol.pickle"):
        return _pickled_nbytes(value, dumps, "the workers of a cluster")


def check_sent(series: Any, *others: Any) -> None:
    """Refuse, at the call, objects that cannot be sent to other processes of this machine.

    Of a series in memory only the parts that tasks need are sent.
    """
    part = series.part(0, 1, 0, 1)
    # A dask array is not sent itself, but its tasks, which dask checks.
    sent = [] if isinstance(series, DaskSource) else [series if part is None else part]
    for value in (*sent, *others):
        _pickled_nbytes(value, load("cloudpickle").dumps, "other processes")


def _pickled_nbytes(value: Any, dumps: Callable, where: str) -> int:
    """Return the bytes of a pickled value, in which arrays are not copied."""
    buffers: list = []
    try:
        return len(dumps(value, protocol=5, buffer_callback=buffers.append)) + sum(
            buffer.raw().nbytes for buffer in buffers
        )
    except Exception as error:
        name, way_out = _unsendable(value)
        raise TypeError(f"{name} cannot be sent to {where} ({error}): {way_out}") from error


def _unsendable(value: Any) -> tuple[str, str]:
    """Return the name of the object that cannot be pickled, and the way out."""
    if not isinstance(value, Source):
        return f"the statistic {value.name}", "give it functions and values that can be pickled"
    while isinstance(value, DerivedSource):
        if isinstance(value, LockedSource):
            try:
                load("cloudpickle").dumps(value._lock)
            except Exception:
                return "the lock", "give lock=True, or a lock that can be, as distributed.Lock"
        value = value.source
    return (
        type(getattr(value, "_ims", value)).__name__,
        "give the path of a file, or an object that opens its file where it is read",
    )


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Keep this thread from logging: the error that follows has the message."""
    own = threading.get_ident()

    def is_other(record: logging.LogRecord) -> bool:
        return record.thread != own

    logging.getLogger(logger).addFilter(is_other)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(is_other)


def count_replicas(series: Any, processes: int) -> int:
    """Return the number of copies of a series to send, at most one to each worker.

    Raises
    ------
    TypeError
        If it cannot be sent.

    Examples
    --------
    >>> count_replicas(bytes(1 << 20), processes=16), count_replicas(bytes(1 << 27), processes=16)
    (16, 1)
    """
    return max(1, min(processes, REPLICAS_NBYTES // sent_nbytes(series)))
