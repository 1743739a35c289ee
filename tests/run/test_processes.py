"""Series that are sent to other processes of this machine, or are refused at the call."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
from dask.utils import SerializableLock
from fakes import FakeSeries, count_unequal, holding

import daskstats as stats

FRAMES = np.arange(6 * 4 * 5, dtype="u2").reshape(6, 4, 5)


CALLS = {
    "average": stats.average,
    "max_iter": partial(stats.max_iter, nchunk=2),
    "median": stats.median,
    "median_iter": partial(stats.median_iter, nchunks=2),
    "snapshots": lambda ims, **options: stats.snapshots(ims, "sum", 2, **options),
    "partials": lambda ims, **options: stats.partials(ims, "sum", 2, **options),
    "aggregate": lambda ims, **options: stats.aggregate(ims, ["max", "std"], **options),
    "wrap": stats.wrap,
}


@pytest.fixture
def opened():
    with Path(os.devnull).open("rb") as file:
        yield file


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_series_that_holds_a_lock_is_refused_at_the_call(call):
    ims = holding(FRAMES, threading.Lock())
    text = "^FakeSeries cannot be sent to other processes .*lock.*: give the path"
    with dask.config.set(scheduler="processes"), pytest.raises(TypeError, match=text):
        call(ims)
    assert ims.reads == []


@pytest.mark.parametrize("kind", ["a file", "a generator", "a thread", "a lock of processes"])
def test_series_that_cannot_be_pickled_are_refused(opened, kind):
    held = {
        "a file": opened,
        "a generator": (index for index in range(3)),
        "a thread": threading.current_thread(),
        "a lock of processes": multiprocessing.Lock(),
    }[kind]
    with dask.config.set(scheduler="processes"):
        for options in ({}, {"frames": [3, 1]}, {"region": ((0, 2), (0, 2))}, {"lock": True}):
            with pytest.raises(TypeError, match="^FakeSeries cannot be sent to other processes"):
                stats.average(holding(FRAMES, held), **options)


@contextmanager
def pool_as(kind):
    """Use a pool of one process that dask can be given, in each of three ways."""
    if kind == "multiprocessing":
        with multiprocessing.get_context("spawn").Pool(1) as pool, dask.config.set(pool=pool):
            yield
            return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool, dask.config.set(**{kind: pool}):
        yield


@pytest.mark.parametrize("kind", ["scheduler", "pool", "multiprocessing"])
def test_pools_of_processes(kind):
    with pool_as(kind):
        with pytest.raises(TypeError, match="^FakeSeries cannot be sent to other processes"):
            stats.average(holding(FRAMES, threading.Lock()))
        np.testing.assert_array_equal(stats.sum(FRAMES).compute(), FRAMES.sum(axis=0))
        *_, last = stats.max_iter(FRAMES, 3)
        np.testing.assert_array_equal(last, FRAMES.max(axis=0))


@pytest.mark.parametrize("kind", ["scheduler", "pool"])
def test_pools_of_threads_take_everything(kind):
    with ThreadPoolExecutor(1) as pool, dask.config.set(**{kind: pool}):
        image = stats.sum(holding(FRAMES, threading.Lock()), lock=threading.Lock()).compute()
    np.testing.assert_array_equal(image, FRAMES.sum(axis=0))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("lock", [threading.Lock(), threading.RLock()], ids=["Lock", "RLock"])
def test_a_lock_that_cannot_be_sent_is_named(call, lock):
    text = "^the lock cannot be sent to other processes .*: give lock=True"
    with dask.config.set(scheduler="processes"), pytest.raises(TypeError, match=text):
        call(FakeSeries(FRAMES), lock=lock)


def test_locks_that_can_be_sent():
    with dask.config.set(scheduler="processes", num_workers=1):
        for lock in (True, SerializableLock("15")):
            image = stats.sum(FakeSeries(FRAMES), lock=lock).compute()
            np.testing.assert_array_equal(image, FRAMES.sum(axis=0))


def test_a_statistic_of_lambdas_is_sent():
    with dask.config.set(scheduler="processes", num_workers=1):
        (image,) = dask.compute(stats.aggregate(FakeSeries(FRAMES), [count_unequal(7)])["lit"])
    np.testing.assert_array_equal(image, (FRAMES != 7).sum(axis=0))


def test_a_statistic_that_cannot_be_sent_is_named():
    with dask.config.set(scheduler="processes"):
        for chosen in ([count_unequal(threading.Lock())], ["max", count_unequal(threading.Lock())]):
            with pytest.raises(TypeError, match=r"^the statistic .*lit.* cannot be sent to other"):
                stats.aggregate(FRAMES, chosen)


def test_frames_in_memory_are_not_copied_to_find_out():
    """Sixteen gigabytes, if they were."""
    frames = np.broadcast_to(FRAMES[0], (400_000_000, 4, 5))
    with dask.config.set(scheduler="processes"):
        assert stats.average(frames, nframes=100).shape == (4, 5)


REFUSED = """
import threading
import dask, distributed, numpy as np
import daskstats as stats
from fakes import FakeSeries, count_unequal, holding

FRAMES = np.zeros((6, 4, 5), "u2")

if __name__ == "__main__":
    here = "127.0.0.1:0"
    options = {"dashboard_address": here, "worker_dashboard_address": here, "host": "127.0.0.1"}
    # A heartbeat that the end of the cluster interrupts is logged as an error.
    options["heartbeat_interval"] = "1 hour"
    with distributed.LocalCluster(1, **options) as cluster, distributed.Client(cluster):
        for call in (
            lambda: stats.average(holding(FRAMES, threading.Lock())),
            lambda: stats.median_iter(holding(FRAMES, threading.Lock()), 2),
            lambda: stats.wrap(holding(FRAMES, threading.Lock())),
            lambda: stats.max(FakeSeries(FRAMES), lock=threading.Lock()),
            lambda: stats.aggregate(FakeSeries(FRAMES), [count_unequal(threading.Lock())]),
        ):
            try:
                call()
            except TypeError as error:
                print(error)
"""


def test_distributed_prints_nothing_about_a_refusal(tmp_path):
    (tmp_path / "refused.py").write_text(REFUSED)
    here = [str(folder) for folder in Path(__file__).parents[:2]]
    path = os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, tmp_path / "refused.py"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert all("cannot be sent to the workers of a cluster" in line for line in lines)
    assert lines[3].startswith("the lock")
    assert lines[4].startswith("the statistic lit")
