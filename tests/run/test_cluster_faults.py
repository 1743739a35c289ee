"""Clusters whose workers die, are missing or too small: the same images, or a clear error."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace

import dask
import distributed
import numpy as np
import pytest
from clusters import HERE, Killer, kill_when, local_cluster, logged_series, settle
from fakes import Kill, holding

import daskstats as stats
from daskstats import reduction
from daskstats.graph import reading
from daskstats.run import distributed as runner
from daskstats.run import workers as run_workers


def run_with_kills(client, scan, kills, seed, span):
    """Return the last image; the consumer sees to it that all kills come in time."""
    deadline = time.monotonic() + 60
    with Killer(client, kills, seed, span) as killer:
        images = stats.average_iter(scan, 20)
        for step in range(20):
            image = next(images)
            while killer.killed < min(kills, kills * (step + 1) / 15):
                assert time.monotonic() < deadline, f"{killer.killed} of {kills} kills"
                time.sleep(0.01)
    return image, killer.killed


def check_kills(client, log, seed):
    scan = logged_series(log, 60, delay=0.004)
    kills = 1 + seed % 6
    image, killed = run_with_kills(client, scan, kills, seed, span=0.1 * kills)
    assert killed == kills
    np.testing.assert_array_equal(image, scan.stack().mean(axis=0, dtype="f8").astype("f4"))
    window = runner.TASKS_PER_THREAD * 3 + 1
    in_flight = 3 * window
    again = sum(scan.logged().values()) - 60
    assert again <= killed * in_flight, f"{again} frames read again after {killed} kills"
    assert settle(client) == (0, 0, 0)
    return killed, again


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "seeds",
    [
        # One kill and six: a new worker takes some two seconds.
        (0, 5),
        *(pytest.param(range(n, n + 10), marks=pytest.mark.nightly) for n in (0, 10)),
    ],
    ids=str,
)
def test_killed_workers_cost_their_own_work(tmp_path, seeds):
    """The image is the same, bit for bit, and little is read again."""
    with local_cluster() as client:
        for seed in seeds:
            check_kills(client, tmp_path / f"log{seed}", seed)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_a_hundred_runs_with_killed_workers(tmp_path, capsys):
    figures = []
    for first in range(0, 100, 10):
        with local_cluster() as client:
            for seed in range(first, first + 10):
                figures.append(check_kills(client, tmp_path / f"log{seed}", 1000 + seed))
    kills, again = map(sum, zip(*figures, strict=True))
    with capsys.disabled():
        print(f"\n100 runs, {kills} kills, {again} frames of 6000 read again")


# ---------------------------------------------------------------------- frames that are exchanged

SMALL = {"distributed.p2p.comm.buffer": "4MiB", "distributed.p2p.storage.buffer": "4MiB"}


def check_exchange(client, log, name, read, taken):
    """A worker dies when some frames have been read, and some images taken."""
    scan = logged_series(log, 120, shape=(64, 96), delay=0.004)
    assert reduction.reduce(scan, "median").plan.strategy == "p2p"
    if name == "snapshots":
        images = stats.snapshots(scan, "median", 6)
    else:
        images = stats.median_iter(scan, 6)
    count = 0
    thread = kill_when(client, lambda: len(scan.logged()) >= read and count >= taken)
    for shot in images:
        count += getattr(shot, "phase", "compute") == "compute"
        if count == taken:
            thread.join()
    thread.join()
    np.testing.assert_array_equal(getattr(shot, "image", shot), np.median(scan.stack(), axis=0))
    assert settle(client) == (0, 0, 0)


# Frames that have been read, and images that have been taken: while workers send frames, at the
# barrier behind that, and while they compute bands.
MOMENTS = [(20, 0), (60, 0), (100, 0), (120, 0), (120, 1), (120, 3)]


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "cases",
    [
        [("snapshots", 60, 0), ("median_iter", 120, 1)],
        *(
            pytest.param([(name, *moment) for moment in MOMENTS], marks=pytest.mark.nightly)
            for name in ("snapshots", "median_iter")
        ),
    ],
    ids=["two", "snapshots", "median_iter"],
)
def test_an_exchange_begins_again_when_a_worker_dies(tmp_path, cases):
    with dask.config.set(SMALL), local_cluster(memory_limit="1GiB") as client:
        for turn, case in enumerate(cases):
            client.wait_for_workers(2)
            check_exchange(client, tmp_path / f"log{turn}", *case)


def test_an_exchange_that_does_not_go_on_is_told(caplog, monkeypatch):
    """Once, and only after a worker has left."""
    busy, clock = {"a": ("x",)}, [0.0]
    client = SimpleNamespace(nthreads=lambda: {"a": 1, "b": 1}, processing=lambda: dict(busy))
    monkeypatch.setattr(run_workers.time, "monotonic", lambda: clock[0])
    watch = run_workers.StallWatch(client)

    def look(*workers, after):
        clock[0] += after
        watch.look(workers)
        return len(caplog.records)

    assert look("a", "b", after=1000) == 0
    assert look("a", "c", after=0) == 0
    assert look("a", "c", after=50) == 0
    busy["c"] = ("y",)
    assert [look("a", "c", after=n) for n in (20, 50, 20, 1000)] == [0, 0, 1, 1]
    assert "begun or finished for 60 s, and before that the cluster lost b: if" in caplog.text


def test_an_error_of_a_transfer_that_was_given_up_is_not_printed(caplog):
    """asyncio prints errors of tasks that nobody has asked for."""

    async def fail(future):
        await asyncio.sleep(0.05)
        raise OSError("the worker is gone")

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.fetch(fail, None), 0.01)
        await asyncio.sleep(0.1)
        gc.collect()

    asyncio.run(give_up())
    assert caplog.text == ""


@pytest.mark.filterwarnings("ignore")
def test_a_frame_that_kills_its_worker_is_named(tmp_path):
    """Frames read by the same worker before it are not."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), local_cluster() as client:
        scan = logged_series(tmp_path / "log", 48, on_read=Kill(33))
        seen = []
        with pytest.raises(RuntimeError, match="took frames 32 to 33 of the series died"):
            for image in stats.average_iter(scan, 24):
                seen.append(image)
        assert len(seen) == 16
        assert settle(client) == (0, 0, 0)


def test_blocks_are_named_in_keys():
    keys = [("sum-partial-0", 3, "frames 4 to 9"), ("sum-band-0", 1, "row 7"), ("x", 0), "x"]
    assert [reading.block_of_key(key) for key in keys] == ["frames 4 to 9", "row 7", "", ""]


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_work_that_is_dropped_is_an_error(tmp_path, how):
    scan = logged_series(tmp_path / "log", 100, delay=0.01)
    here = f"{HERE}:0"
    options = {"dashboard_address": here, "worker_dashboard_address": here, "processes": False}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **options) as local:
        client = distributed.Client(local)
        images = stats.average_iter(scan, 100)
        next(images)
        if how == "cancel":
            client.cancel([distributed.Future(key, client) for key in client.futures])
        else:
            client.close()
        with pytest.raises(RuntimeError, match="dropped the work, or was closed"):
            list(images)
        if how == "cancel":
            client.close()  # not twice, which would leave its scheduler configured
    assert dask.config.get("scheduler", None) is None


@pytest.mark.filterwarnings("ignore")
def test_without_workers_there_is_an_error(tmp_path):
    """At the call, and when the last worker dies for good."""
    scan = logged_series(tmp_path / "log", 60, delay=0.05)
    with local_cluster(1, processes=False) as client:
        with dask.config.set({"daskstats.no-workers-timeout": "0.3 s"}):
            images = stats.max_iter(scan, 60)
            next(images)
            client.cluster.scale(0)
            with pytest.raises(TimeoutError, match=r"had no workers for 0\.3 s"):
                list(images)
            with pytest.raises(TimeoutError, match="no-workers-timeout"):
                stats.max(scan)
        assert settle(client) == (0, 0, 0)


def test_workers_may_come_later(tmp_path):
    scan = logged_series(tmp_path / "log", 20)
    with local_cluster(0, processes=False) as client:
        timer = threading.Timer(0.3, client.cluster.scale, (1,))
        timer.start()
        assert len(list(stats.max_iter(scan, 10))) == 10
        timer.join()


def test_a_source_that_cannot_be_sent_is_refused_at_the_call(inside, tmp_path):
    scan = holding(np.zeros((20, 16, 24), "u2"), threading.Lock())
    for call in (stats.max, stats.max_iter, stats.wrap):
        with pytest.raises(TypeError, match="FakeSeries cannot be sent .* give the path"):
            call(scan) if call is not stats.max_iter else call(scan, 5)
    assert scan.reads == []
    with dask.config.set(scheduler="threads"):
        assert stats.max(scan).compute().shape == scan.shape


def test_asynchronous_clients_are_refused(tmp_path):
    from distributed import Client, LocalCluster

    async def call():
        here = f"{HERE}:0"
        options = {"dashboard_address": here, "worker_dashboard_address": here}
        options |= {"n_workers": 1, "processes": False, "asynchronous": True}
        async with LocalCluster(**options) as local, Client(local, asynchronous=True):
            with pytest.raises(RuntimeError, match="asynchronous distributed.Client"):
                stats.max(logged_series(tmp_path / "log", 20))

    asyncio.run(call())


def test_a_worker_that_is_too_small_is_refused(tmp_path):
    """At planning, with the numbers."""
    with local_cluster(1, memory_limit="600MiB") as client:
        large = logged_series(tmp_path / "log", 100, shape=(4096, 4096))
        for name in ("average", "median"):
            with pytest.raises(stats.MemoryLimitError, match="40 MiB.* 600 MiB"):
                getattr(stats, name)(large)
        assert large.logged() == {}
        assert settle(client) == (0, 0, 0)
