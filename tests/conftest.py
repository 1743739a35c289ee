"""Fixtures that every test may use."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.threaded
import numpy as np
import pytest
from forking import start_method

from daskstats.graph.arrays import EXPRESSIONS
from daskstats.memory import reservation

# Programs that tests start take the package that is installed, as the tests do, and its compiled
# code, not that of the directory they are started in.
os.environ["PYTHONSAFEPATH"] = "1"

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"

# Threads of pools that other libraries keep for the life of the process.
KEPT_BY_OTHERS = ("asyncio", "zarr", "Dask-Offload", "Dask-Callback")


# Files without fixtures of their own that take a minute and more, most of it to compile.
LONG = "tests/kernels/test_kernels.py", "tests/statistics/test_validity.py"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run each file in one process, but each test of a long file in any of them."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(LONG) else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of parts of dask that are missing where arrays are expressions."""
    for item in items:
        marker = item.get_closest_marker("graphs")
        if EXPRESSIONS and marker is not None:
            reason = f"dask's array expressions have no {marker.args[0]}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Keep modules and thousands of tests out of garbage collections, of 0.3 s each otherwise.

    Compiling makes millions of objects that live on: with fewer collections it takes a tenth less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return random numbers that are the same in every run."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory of the real image series; skip the test where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real image series are not at {REAL_DATA}")
    return REAL_DATA.resolve()


@pytest.fixture(scope="module")
def cluster_of_processes() -> Iterator[Any]:
    """Return the client of a cluster of two processes of one thread each."""
    from clusters import local_cluster

    with local_cluster() as client:
        yield client


@pytest.fixture(scope="module")
def cluster_within() -> Iterator[Any]:
    """Return the client of a cluster within this process, of two threads."""
    from clusters import local_cluster

    with local_cluster(1, 2, processes=False) as client:
        yield client


# A module may have both clusters, and dask takes the one that was made last.


@pytest.fixture
def client(cluster_of_processes: Any) -> Iterator[Any]:
    """Have dask use the cluster of processes, and return its client."""
    with cluster_of_processes.as_current():
        yield cluster_of_processes


@pytest.fixture
def inside(cluster_within: Any) -> Iterator[Any]:
    """Have dask use the cluster within this process, and return its client."""
    with cluster_within.as_current():
        yield cluster_within


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt; a shell has it ignored in what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _pools_are_forked() -> Iterator[None]:
    """Fork the processes of dask's scheduler "processes", which by default import everything."""
    with dask.config.set({"multiprocessing.context": start_method()}):
        yield


@pytest.fixture(autouse=True, scope="session")
def _code_is_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of the processes of pytest-xdist let one compile code that the others need as well."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.name == "posix":
        from turns import compile_in_turn

        compile_in_turn(tmp_path_factory.getbasetemp().parent)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_held() -> Iterator[None]:
    """Forget the memory reservations left by tests of another file.

    An error that was caught keeps its traceback, which keeps the failed computation.
    """
    gc.collect()
    reservation._entries.clear()
    before = set(threading.enumerate())
    yield
    _wait_for_threads(before)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fail a test that leaves a thread of daskstats, or one that would keep the process alive."""
    before = set(threading.enumerate())
    yield
    # This does the work of one thread at once, which looks eight times a second: the end of the
    # file waits for it, not each of thousands of tests.
    reservation._end_finished()
    _wait_for_threads(before, ("daskstats-watch",))


def _wait_for_threads(before: set[threading.Thread], later: tuple[str, ...] = ()) -> None:
    """Wait for the threads that were told to end."""
    deadline = time.monotonic() + 5
    while (left := _threads_left(before, later)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"threads left behind: {sorted(thread.name for thread in left)}"


def _threads_left(
    before: set[threading.Thread], later: tuple[str, ...] = ()
) -> set[threading.Thread]:
    pools = [dask.threaded.default_pool, *_values(dask.threaded.pools)]
    kept = {thread for pool in pools for thread in getattr(pool, "_threads", ())}
    return {
        thread
        for thread in set(threading.enumerate()) - before - kept
        if (thread.name.startswith("daskstats-") and thread.name not in later)
        or not (thread.daemon or thread.name.startswith(KEPT_BY_OTHERS))
    }


def _values(pools: dict) -> list:
    return [pool for by_size in list(pools.values()) for pool in list(by_size.values())]
