"""Clusters: the same images, a bounded window, nothing left behind, and deaths that cost little."""

import gc
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from clusters import (
    HERE,
    Browser,
    Killer,
    Scan,
    Watch,
    find_browser,
    local_cluster,
    settle,
    workers_of,
)
from dask.utils import key_split

import daskstats as stats
from daskstats import api, cli, cluster, graph, scratch

NAMES = ("max", "min", "sum", "average", "std", "median")


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes of one thread each."""
    with local_cluster() as client:
        yield client


@pytest.fixture(scope="module")
def inside():
    """A cluster within this process, of two threads."""
    with local_cluster(1, 2, processes=False) as client:
        yield client


def on_threads(function, *args):
    with dask.config.set(scheduler="threads"):
        found = function(*args)
        return list(found) if hasattr(found, "__next__") else found.compute()


# ---------------------------------------------------------------------- streams


@pytest.mark.parametrize("name", NAMES)
def test_images_are_those_of_threads(client, tmp_path, name):
    scan = Scan(tmp_path / "log", 30)
    images = list(getattr(stats, f"{name}_iter")(scan, 8))
    expected = on_threads(getattr(stats, f"{name}_iter"), scan.frames(), 8)
    np.testing.assert_array_equal(images, expected, strict=True)
    assert settle(client) == (0, 0, 0)
    assert set(scan.reads().values()) == {1}


@pytest.mark.parametrize("kind", ["array", "list", "float", "dask", "npy", "zarr"])
def test_sources_of_all_kinds(inside, tmp_path, kind, rng):
    import dask.array as da

    frames = rng.normal(0, 1e6, (23, 9, 7)).astype("f4")
    np.save(tmp_path / "scan.npy", frames)
    makes = {
        "array": lambda: frames,
        "list": lambda: list(frames),
        "float": lambda: frames.astype("f8"),
        "dask": lambda: da.from_array(frames, chunks=(5, 4, 7)),
        "npy": lambda: tmp_path / "scan.npy",
        "zarr": lambda: da.to_zarr(da.from_array(frames), str(tmp_path / "s.zarr")) or "s.zarr",
    }
    ims = makes[kind]()
    ims = tmp_path / ims if isinstance(ims, str) else ims
    for name in ("average", "std", "median"):
        images = list(getattr(stats, f"{name}_iter")(ims, 5))
        np.testing.assert_array_equal(
            images, on_threads(getattr(stats, f"{name}_iter"), frames.astype(images[0].dtype), 5)
        ) if kind != "float" else None
        assert len(images) == 5
        np.testing.assert_array_equal(getattr(stats, name)(ims).compute(), images[-1], strict=True)
    assert settle(inside) == (0, 0, 0)


def test_work_in_flight_is_bounded_and_nothing_is_gathered_unasked(inside, tmp_path, monkeypatch):
    """RELIABILITY 18: a consumer that is slow holds the run back."""
    scan = Scan(tmp_path / "log", 400)
    images = stats.max_iter(scan, 400)
    gathered = []
    take = cluster.ClusterRun._gather
    monkeypatch.setattr(
        cluster.ClusterRun, "_gather", lambda run, key: (gathered.append(key), take(run, key))[1]
    )
    for _ in range(5):
        next(images)
    time.sleep(0.3)
    window = cluster.TASKS_PER_THREAD * 2 + cluster.TASKS_BEYOND
    assert len(gathered) == 5
    assert sum(scan.reads().values()) <= 5 + window
    assert len(inside.cluster.scheduler.tasks) <= 2 * window
    images.close()
    assert settle(inside) == (0, 0, 0)


# Ctrl-C may come just when distributed has made a coroutine and not yet begun it.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("leave", ["close", "del", "raise", "fail", "interrupt"])
def test_nothing_is_left_after_leaving(client, tmp_path, leave):
    """RELIABILITY 16, 17: no task, key or future stays, and most frames are never read."""
    scan = Scan(tmp_path / "log", 200, delay=0.01)
    for cycle in range(2):
        images = stats.average_iter(scan, 100)
        next(images)
        if leave == "close":
            images.close()
        elif leave == "del":
            del images
            gc.collect()
        elif leave == "raise":
            with pytest.raises(ZeroDivisionError), images:
                raise ZeroDivisionError
        elif leave == "fail":
            leave_by_failure(tmp_path / f"other{cycle}")
            images.close()
        else:
            interrupt_soon()
            with pytest.raises(KeyboardInterrupt):
                list(images)
        assert settle(client) == (0, 0, 0)
    assert sum(scan.reads().values()) < 250
    gc.collect()  # such a coroutine, or it would warn in a later test


def leave_by_failure(log):
    with pytest.raises(ValueError, match="frame 30 has shape") as caught:
        list(stats.max_iter(Wrong(log, 60), 20))
    assert any("frame 30" in note for note in caught.value.__notes__)


class Wrong(Scan):
    """A series of which one frame is not like the others."""

    def __getitem__(self, index):
        frame = super().__getitem__(index)
        return frame[1:] if index == 30 else frame


def interrupt_soon(delay=0.2):
    main = threading.main_thread().ident
    timer = threading.Timer(delay, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()


@pytest.mark.nightly
def test_fifty_streams_are_left_and_nothing_of_them(client, tmp_path):
    for cycle in range(50):
        scan = Scan(tmp_path / f"log{cycle}", 100, delay=0.005)
        images = stats.average_iter(scan, 50)
        for _ in range(cycle % 10):
            next(images)
        images.close()
        assert settle(client) == (0, 0, 0), f"cycle {cycle}"


def test_two_streams_of_one_file_do_not_meddle(inside, tmp_path):
    np.save(tmp_path / "scan.npy", Scan(tmp_path / "log", 40).frames())
    first, second = (stats.sum_iter(tmp_path / "scan.npy", 20) for _ in range(2))
    images = [next(first), next(second)]
    first.close()
    np.testing.assert_array_equal(images[0], images[1])
    assert len(list(second)) == 19
    assert settle(inside) == (0, 0, 0)


def test_a_persisted_array_outlives_its_stream(inside):
    import dask.array as da

    array = da.random.default_rng(0).integers(0, 9, (40, 8, 8), chunks=(6, 8, 8)).persist()
    expected = array.compute().max(axis=0)
    with stats.max_iter(array, 10) as images:
        next(images)
    np.testing.assert_array_equal(array.max(axis=0).compute(), expected)
    np.testing.assert_array_equal(list(stats.max_iter(array, 10))[-1], expected)
    del array, images
    assert settle(inside) == (0, 0, 0)


def test_a_stream_within_a_task(inside, tmp_path):
    """A worker's thread that waits for tasks lets others run them."""
    path = tmp_path / "scan.npy"
    np.save(path, Scan(tmp_path / "log", 40).frames())
    futures = inside.map(lambda n: sum(1 for _ in stats.max_iter(str(path), n)), [5, 6, 7, 8])
    assert inside.gather(futures) == [5, 6, 7, 8]


# ---------------------------------------------------------------------- lazy results


def results(scan):
    lazy = {name: getattr(stats, name)(scan) for name in ("max", "average", "std")}
    lazy["partials"] = stats.partials(scan, "average", 4)
    return lazy


@pytest.mark.parametrize("how", ["compute", "persist", "client", "several"])
def test_lazy_results_read_each_frame_once(client, tmp_path, how, caplog):
    scan = Scan(tmp_path / "log", 64, shape=(256, 512))
    expected = {name: on_threads(lambda x=image: x) for name, image in results(scan).items()}
    for name, image in results(scan).items():
        Path(scan.log).unlink(missing_ok=True)
        if how == "compute":
            found = image.compute()
        elif how == "persist":
            kept = image.persist()
            found = kept.compute()
            np.testing.assert_array_equal(kept.compute(), found)
            del kept
        elif how == "client":
            found = client.compute(image).result()
        else:
            found, twice = dask.compute(image, image + 1)
            np.testing.assert_array_equal(twice, found + 1)
        np.testing.assert_array_equal(found, expected[name], strict=True)
        assert sorted(scan.reads().items()) == [(index, 1) for index in range(64)], name
    assert "run_spec" not in caplog.text
    assert settle(client) == (0, 0, 0)


def test_names_say_what_a_task_does(inside, tmp_path):
    scan = Scan(tmp_path / "log", 64, shape=(256, 512))
    names = set()
    for ims, name in ((scan, "average"), (scan, "median")):
        job = api.Job(ims, name)
        tasks, keys, _ = job._running()
        names |= {key_split(key) for key in tasks.runnable(keys)}
    names |= {key_split(key) for key in stats.partials(scan, "std", 2).dask}
    names |= {key_split(key) for key in stats.wrap(scan).dask}
    wanted = {"average-partial", "average-step", "median-band", "std-partial", "std-step"}
    assert {*wanted, "read-frames", "source"} <= names


# ---------------------------------------------------------------------- faults


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
    scan = Scan(log, 60, delay=0.004)
    kills = 1 + seed % 6
    image, killed = run_with_kills(client, scan, kills, seed, span=0.1 * kills)
    assert killed == kills
    np.testing.assert_array_equal(image, scan.frames().mean(axis=0, dtype="f8").astype("f4"))
    window = cluster.TASKS_PER_THREAD * 2 + cluster.TASKS_BEYOND + 1
    in_flight = 3 * window
    again = sum(scan.reads().values()) - 60
    assert again <= killed * in_flight, f"{again} frames read again after {killed} kills"
    assert settle(client) == (0, 0, 0)
    return killed, again


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [range(start, start + 5) for start in range(0, 20, 5)], ids=str)
def test_killed_workers_cost_their_own_work(tmp_path, seeds):
    """RELIABILITY 1: the image is the same, bit for bit, and little is read again."""
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


@pytest.mark.filterwarnings("ignore")
def test_a_frame_that_kills_its_worker_is_named(tmp_path):
    """RELIABILITY 2: and frames beside it are not."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), local_cluster() as client:
        scan = Scan(tmp_path / "log", 48, deadly=(33,))
        seen = []
        with pytest.raises(RuntimeError, match="took frames 32 to 33 of the series died"):
            for image in stats.average_iter(scan, 24):
                seen.append(image)
        assert len(seen) == 16
        assert settle(client) == (0, 0, 0)


def test_blocks_are_named_in_keys():
    keys = [("sum-partial-0", 3, "frames 4 to 9"), ("sum-band-0", 1, "row 7"), ("x", 0), "x"]
    assert [graph.described(key) for key in keys] == ["frames 4 to 9", "row 7", "", ""]


@pytest.mark.filterwarnings("ignore")
def test_without_workers_there_is_an_error(tmp_path):
    """RELIABILITY 5: at the call, and when the last one dies for good."""
    scan = Scan(tmp_path / "log", 60, delay=0.05)
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
    scan = Scan(tmp_path / "log", 20)
    with local_cluster(0, processes=False) as client:
        timer = threading.Timer(0.3, client.cluster.scale, (1,))
        timer.start()
        assert len(list(stats.max_iter(scan, 10))) == 10
        timer.join()


class Unsendable(Scan):
    def __init__(self, *args):
        super().__init__(*args)
        self.lock = threading.Lock()


def test_a_source_that_cannot_be_sent_is_refused_at_the_call(inside, tmp_path):
    """RELIABILITY 15."""
    scan = Unsendable(tmp_path / "log", 20)
    for call in (stats.max, stats.max_iter, stats.wrap):
        with pytest.raises(TypeError, match="Unsendable cannot be sent .* give the path"):
            call(scan) if call is not stats.max_iter else call(scan, 5)
    assert scan.reads() == {}
    with dask.config.set(scheduler="threads"):
        assert stats.max(scan).compute().shape == scan.shape


def test_asynchronous_clients_are_refused(tmp_path):
    import asyncio

    from distributed import Client, LocalCluster

    async def call():
        here = f"{HERE}:0"
        options = {"dashboard_address": here, "worker_dashboard_address": here}
        options |= {"n_workers": 1, "processes": False, "asynchronous": True}
        async with LocalCluster(**options) as local, Client(local, asynchronous=True):
            with pytest.raises(RuntimeError, match="asynchronous distributed.Client"):
                stats.max(Scan(tmp_path / "log", 20))

    asyncio.run(call())


def test_a_worker_that_is_too_small_is_refused(tmp_path):
    """RELIABILITY 3: at planning, with the numbers."""
    with local_cluster(1, memory_limit="600MiB") as client:
        large = Scan(tmp_path / "log", 100, shape=(4096, 4096))
        for name in ("average", "median"):
            with pytest.raises(stats.MemoryLimitError, match="40 MiB.* 600 MiB"):
                getattr(stats, name)(large)
        assert large.reads() == {}
        assert settle(client) == (0, 0, 0)


# ---------------------------------------------------------------------- memory

SMALL = {"distributed.p2p.comm.buffer": "16MiB", "distributed.p2p.storage.buffer": "16MiB"}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "nframes"),
    [
        pytest.param("average", 1500, id="average"),
        pytest.param("median", 300, id="median"),
        # Ten times the memory of the cluster.
        pytest.param("average", 15360, id="average x 10", marks=pytest.mark.nightly),
        pytest.param("median", 15360, id="median x 10", marks=pytest.mark.nightly),
    ],
)
def test_workers_stay_below_the_threshold(tmp_path, name, nframes):
    """Below 60 % a worker neither spills nor is paused or killed."""
    limit = 768 << 20
    scan = Scan(tmp_path / "log", nframes, shape=(512, 1024))
    with dask.config.set(SMALL), local_cluster(memory_limit=limit) as client:
        with Watch(client) as watch:
            *_, image = getattr(stats, f"{name}_iter")(scan, 20)
        assert settle(client) == (0, 0, 0)
    assert image.shape == scan.shape
    assert max(watch.peaks.values()) < cluster.SAFE * limit
    assert (len(watch.peaks), watch.states) == (2, {"running"})
    assert set(scan.reads().values()) == {1}


@pytest.mark.parametrize(
    ("limit", "buffers", "use_buffer", "strategy"),
    [
        pytest.param("4 GiB", "64MiB", True, "p2p", id="exchanged"),
        pytest.param("4 GiB", "64MiB", False, "reread", id="not wanted"),
        pytest.param("1 GiB", "1GiB", True, "reread", id="buffers are larger than the limit"),
    ],
)
def test_plan_of_a_median(inside, tmp_path, limit, buffers, use_buffer, strategy):
    scan = Scan(tmp_path / "log", 200, shape=(256, 256))
    settings = {"distributed.p2p.comm.buffer": buffers, "distributed.p2p.storage.buffer": buffers}
    with dask.config.set(settings):
        plan = api.Job(scan, "median", memory_limit=limit, use_buffer=use_buffer).plan
    assert plan.strategy == strategy
    assert plan.nbytes <= plan.limit


def test_each_worker_has_its_budget():
    workers = cluster.Workers(processes=4, threads=8, each=2, memory=8 << 30)
    assert workers.budget(0.5) == 4 << 30
    small = cluster.Workers(4, 8, 2, 512 << 20)
    assert small.budget(0.5) == 0
    assert cluster.Workers(4, 8, 2, None).budget(0.5) is None


# ---------------------------------------------------------------------- a scratch directory


@pytest.fixture
def shared(tmp_path):
    """A directory that is configured for scratch data; nothing may be left there."""
    place = tmp_path / "shared"
    place.mkdir()
    with dask.config.set({"daskstats.scratch-directory": str(place)}):
        yield place
    assert left_in(place) == []


def left_in(place, seconds=5):
    """Return what is left when the workers have let go of it."""
    deadline = time.monotonic() + seconds
    while (found := sorted(path.name for path in place.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


# Of all workers together: some groups of frames, and some bands.
LITTLE = "40 MiB"


def whole_frames(log, nframes=60, **options):
    return Scan(log, nframes, shape=(64, 512), **options)


@pytest.mark.parametrize(
    ("setting", "free", "kind", "strategy", "text"),
    [
        pytest.param("scratch", 1 << 40, "ext4", "scratch", "scratch data in", id="configured"),
        pytest.param("temporary", 1 << 40, "ext4", "p2p", "p2p", id="each worker has its own"),
        pytest.param("scratch", 1 << 20, "ext4", "p2p", "there are 1 MiB in", id="no room"),
        pytest.param("scratch", 1 << 40, "tmpfs", "p2p", "is a RAM disk", id="memory"),
    ],
)
def test_plan_with_a_scratch_directory(
    inside, tmp_path, monkeypatch, setting, free, kind, strategy, text
):
    usage = scratch.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path: usage._replace(free=free))
    monkeypatch.setattr(scratch, "_file_system", lambda place, root: kind)
    name = {"scratch": "daskstats.scratch-directory", "temporary": "temporary-directory"}[setting]
    scan = Scan(tmp_path / "log", 200, shape=(256, 256))
    with dask.config.set(SMALL | {name: str(tmp_path)}):
        found = api.Job(scan, "median", memory_limit="200 MiB").plan
        again = api.Job(scan, "median", memory_limit="200 MiB", use_buffer=False).plan
    assert found.strategy == strategy
    assert text in str(found)
    assert found.nbytes <= found.limit
    assert again.strategy == "reread"
    # Buffers for both threads of the worker.
    assert found.workers == 2


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_streams_by_scratch(client, tmp_path, shared, steps):
    scan = whole_frames(tmp_path / "log")
    assert api.Job(scan, "median", 0, steps, memory_limit=LITTLE).plan.strategy == "scratch"
    images = list(stats.median_iter(scan, steps, memory_limit=LITTLE))
    np.testing.assert_array_equal(
        images, on_threads(stats.median_iter, scan.frames(), steps), strict=True
    )
    assert settle(client) == (0, 0, 0)
    assert set(scan.reads().values()) == {1}


def test_snapshots_and_several_statistics_by_scratch(client, tmp_path, shared):
    import dask.array as da

    scan = whole_frames(tmp_path / "log")
    plan = api.Job(scan, "median", 0, 5, memory_limit=LITTLE).plan
    found = list(stats.snapshots(scan, "median", 5, memory_limit=LITTLE))
    assert [s.done for s in found if s.phase == "spool"] == [stop for _, stop in plan.groups]
    assert [s.phase for s in found[-5:]] == ["reduce"] * 5
    assert set(scan.reads().values()) == {1}
    array = da.from_array(scan.frames(), chunks=(9, 64, 512))
    *_, images = stats.aggregate_iter(array, ["median", "max"], 4, memory_limit=LITTLE)
    np.testing.assert_array_equal(images["median"], found[-1].image, strict=True)
    np.testing.assert_array_equal(images["max"], scan.frames().max(axis=0), strict=True)
    assert settle(client) == (0, 0, 0)


def test_lazy_results_by_scratch(client, tmp_path, shared, caplog):
    scan = whole_frames(tmp_path / "log")
    expected = np.median(scan.frames(), axis=0).astype("f4")

    def lazy():
        return stats.median(scan, memory_limit=LITTLE)

    image = lazy()
    calls = {
        "compute": lambda: lazy().compute(),
        "persist": lambda: lazy().persist().compute(),
        "client": lambda: client.compute(lazy()).result(),
        "several": lambda: dask.compute(image, image + 1)[1] - 1,
        "threads": lambda: on_threads(lazy),
    }
    for name, call in calls.items():
        Path(scan.log).unlink(missing_ok=True)
        np.testing.assert_array_equal(call(), expected, strict=True, err_msg=name)
        assert set(scan.reads().values()) == {1}, name
    assert "run_spec" not in caplog.text
    assert settle(client) == (0, 0, 0)


def test_a_source_that_has_changed_is_read_again(client, tmp_path, shared):
    """A run does not go on with what one before it, of the same name, has written."""
    lazy = stats.median(whole_frames(tmp_path / "log"), memory_limit=LITTLE)
    log = tmp_path / "log"
    for turn in range(1, 4):
        lazy.compute()
        assert set(Scan(log, 60).reads().values()) == {turn}


@pytest.mark.parametrize("leave", ["close", "del", "fail"])
def test_scratch_is_gone_after_leaving(client, tmp_path, shared, leave):
    scan = whole_frames(tmp_path / "log", delay=0.005)
    images = stats.snapshots(scan, "median", 10, memory_limit=LITTLE)
    next(images)
    assert len(list(shared.iterdir())) == 1
    if leave == "fail":
        wrong = Wrong(tmp_path / "wrong", 60, shape=(64, 512))
        with pytest.raises(ValueError, match="frame 30 has shape"):
            stats.median(wrong, memory_limit=LITTLE).compute()
    if leave == "del":
        del images
    else:
        images.close()
    gc.collect()
    assert settle(client) == (0, 0, 0)
    assert left_in(shared) == []


@pytest.mark.parametrize("when", ["at the start", "meanwhile"])
def test_a_directory_that_workers_do_not_see(client, tmp_path, when):
    place = tmp_path / "mine"
    place.mkdir()
    with dask.config.set({"daskstats.scratch-directory": str(place)}):
        images = stats.snapshots(whole_frames(tmp_path / "log"), "median", 2, memory_limit=LITTLE)
    if when == "meanwhile":
        next(images)
        place.rename(tmp_path / "elsewhere")
    else:
        place.rmdir()
    with pytest.raises(OSError, match=f"{place}.* must be a directory that the client and all"):
        list(images)
    assert settle(client) == (0, 0, 0)


def kill_when(client, due):
    """Kill a worker of a local cluster as soon as something is so."""

    def run():
        while not due():
            time.sleep(0.01)
        os.kill(workers_of(client)[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.filterwarnings("ignore")
def test_scratch_outlives_a_worker(tmp_path, shared):
    """RELIABILITY 1: what has been written is not read again, and nothing is left."""
    with local_cluster() as client:
        for turn, how in enumerate(["writing", "reading", "lazy"]):
            scan = whole_frames(tmp_path / f"log{turn}", 120, delay=0.004)
            plan = api.Job(scan, "median", 0, 8, memory_limit=LITTLE).plan
            wanted = 120 if how == "reading" else 60
            thread = kill_when(client, lambda scan=scan, n=wanted: len(scan.reads()) >= n)
            if how == "lazy":
                image = stats.median(scan, memory_limit=LITTLE).compute()
            else:
                *_, image = stats.median_iter(scan, 8, memory_limit=LITTLE)
            thread.join()
            np.testing.assert_array_equal(image, on_threads(stats.median, scan.frames()))
            again = sum(scan.reads().values()) - 120
            assert again <= plan.groups[0][1], f"{again} frames read again while {how}"
            assert settle(client) == (0, 0, 0)
            assert left_in(shared) == []
            client.wait_for_workers(2)


def test_a_chunk_is_never_half_of_one_and_half_of_another(shared, rng):
    """Two workers may write the same: each chunk and record appears by a rename."""
    frames = rng.integers(0, 99, (4, 8, 8)).astype("u2")
    template = scratch.SharedSpool(shared, frames.shape, "u2", 4, 8, name="token-cluster")
    spool = template.open()
    assert template.open() is spool
    first = spool.write(0, frames)
    files = [spool._file(0, 0), spool._record(0)]
    for file in files:
        os.link(file, shared / file.name)
    assert spool.write(0, frames) == first == spool.recorded(0, 4)
    assert not any(file.samefile(shared / file.name) for file in files)
    assert not [path for path in spool.directory.rglob("*") if "partial" in path.name]
    for file in files:
        (shared / file.name).unlink()
    assert spool.recorded(0, 3) is None
    spool._record(0).write_text("[0, 4")
    assert spool.recorded(0, 4) is None
    del template, spool, first


def test_what_is_only_on_the_disk_of_a_worker_holds_scratch(shared, monkeypatch):
    monkeypatch.setattr(scratch, "LOOK", 0.05)
    spilled = ["scratch-token"]
    monkeypatch.setattr(scratch, "_spilled", lambda token: f"scratch-{token}" in spilled)
    spool = scratch.SharedSpool(shared, (4, 8, 8), "u2", 4, 8, name="token-cluster").open()
    sent = pickle.dumps(spool)
    del spool
    time.sleep(0.2)
    assert len(list(shared.iterdir())) == 1
    spool = pickle.loads(sent)
    spilled.clear()
    time.sleep(0.2)
    assert len(list(shared.iterdir())) == 1
    del spool


# ---------------------------------------------------------------------- the command line


def command(*args):
    return [sys.executable, "-m", "daskstats", *map(str, args)]


def run(*args, **options):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=100, **options)


def check_image(path, scan):
    np.testing.assert_array_equal(np.load(path), np.median(scan.frames(), axis=0).astype("f4"))


@pytest.fixture
def saved(tmp_path):
    scan = Scan(tmp_path / "log", 12)
    np.save(tmp_path / "scan.npy", scan.frames())
    return scan


def test_command_with_workers_of_its_own(tmp_path, saved):
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "image.npy", "--workers", 2]
    result = run(*args)
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "image.npy", saved)
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"dashboard: http://{HERE}:")


def test_command_with_a_scheduler_file(client, tmp_path, saved):
    client.write_scheduler_file(str(tmp_path / "scheduler.json"))
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "image.npy", "--scheduler-file"]
    result = run(*args, tmp_path / "scheduler.json")
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "image.npy", saved)
    args[3] = tmp_path / "other.npy"
    result = run(*args, tmp_path / "none.json")
    assert result.returncode == 2
    assert "there is no scheduler file" in result.stderr


def test_command_takes_one_kind_of_cluster(tmp_path, saved):
    args = ["max", tmp_path / "scan.npy", "-o", tmp_path / "x.npy", "--workers", 2]
    result = run(*args, "--scheduler", "threads")
    assert result.returncode == 2
    assert "--scheduler and --workers exclude each other" in result.stderr


def test_our_own_cluster_listens_on_loopback_only():
    psutil = pytest.importorskip("psutil")
    with cluster.start_here(2) as client:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [socket for process in family for socket in process.net_connections("inet")]
        listening = {socket.laddr.ip for socket in sockets if socket.status == "LISTEN"}
        assert len(client.scheduler_info()["workers"]) == 2
    assert listening == {HERE}


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_an_interrupted_command_leaves_no_process(tmp_path):
    """RELIABILITY 16: Ctrl-C reaches every process of a terminal at once."""
    psutil = pytest.importorskip("psutil")
    np.save(tmp_path / "scan.npy", np.zeros((3000, 512, 256), "u2"))
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "x.npy", "--workers", 2]
    process = subprocess.Popen(
        command(*args), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr.readline().startswith("dashboard: ")
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert (process.returncode, alive) == (130, [])
    assert errors.splitlines()[-1] == "daskstats: interrupted", errors
    assert not (tmp_path / "x.npy").exists()


# ---------------------------------------------------------------------- the dashboard

# What the page's own data say that it shows: the names in the bars, and those of the tasks.
SHOWN = """
JSON.stringify([...new Set(
    Bokeh.documents.flatMap(document => [...document._all_models.values()])
        .filter(model => model.type === "ColumnDataSource")
        .flatMap(model => [...(model.data.name || [])]))])
"""


def test_names_on_the_dashboard(tmp_path):
    """The tasks of a statistic are grouped under names that people can read."""
    pytest.importorskip("bokeh")
    if find_browser() is None:
        pytest.skip("there is no Chromium")
    scan = Scan(tmp_path / "log", 64, shape=(256, 512), delay=0.005)
    with local_cluster(1, 2, processes=False) as client:
        base = client.dashboard_link.removesuffix("/status")
        with Browser(tmp_path / "profile") as browser:
            kept = [image.persist() for image in (stats.average(scan), stats.wrap(scan))]
            kept += [stats.median(scan).persist()]
            bars = browser.values(f"{base}/individual-progress", SHOWN, "average-partial")
            browser.screenshot(tmp_path / "progress.png")
            browser.open(f"{base}/individual-task-stream")
            *_, _ = stats.average_iter(scan, 1)
            *_, _ = stats.percentile_iter(scan, 50, 1)
            tasks = browser.values("", SHOWN, "percentile-band")
            browser.screenshot(tmp_path / "tasks.png")
        del kept
    assert {"average-partial", "average", "read-frames", "median", "source"} <= set(bars)
    assert {"average-partial", "average-step", "percentile-band"} <= set(tasks)
    assert (tmp_path / "progress.png").stat().st_size > 5000


# ---------------------------------------------------------------------- the guide

GUIDE = Path(__file__).parents[1] / "docs" / "clusters.md"

# Starts two workers where Slurm's would start one for each task.
SRUN = """#!/bin/bash
"$@" & "$@" & wait
"""


def blocks_of_the_guide(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.S)


def test_the_example_of_the_guide_runs(tmp_path, saved):
    (block,) = blocks_of_the_guide("python")
    (tmp_path / "example.py").write_text(block)
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    address, *means = result.stdout.split()
    assert address.startswith(f"http://{HERE}:")
    assert len(means) == 10


def test_the_job_script_of_the_guide_runs(tmp_path, saved):
    (script,) = blocks_of_the_guide("bash")
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1", "INTERFACE": "lo"}
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    result = subprocess.run(
        ["bash", "-c", script], env=os.environ | slurm | {"PATH": path}, **options
    )
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "dark.npy", saved)
    assert not list(tmp_path.glob("*.json"))


def test_commands_of_the_guide_are_commands():
    lines = [line for block in blocks_of_the_guide("sh") for line in block.splitlines()]
    calls = [shlex.split(line) for line in lines if line.startswith("daskstats ")]
    assert len(calls) == 3
    for _, name, *args in calls:
        cli.main.commands[name].make_context(name, args)
