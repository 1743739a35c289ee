"""Clusters: the same images, a bounded window, nothing left behind, and deaths that cost little."""

import asyncio
import gc
import os
import pickle
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
from clusters import Watch, kill_when, local_cluster, logged_series, settle
from dask._task_spec import convert_legacy_graph
from dask.utils import key_split
from distributed import Client
from fakes import FakeSeries, Filled, Ramp

import daskstats as stats
from daskstats import reduction
from daskstats.graph import reducing
from daskstats.run import distributed
from daskstats.run import workers as run_workers
from daskstats.scratch import location, store
from daskstats.scratch import shared as scratch_shared

NAMES = ("max", "min", "sum", "average", "std", "median")


def on_threads(function, *args):
    with dask.config.set(scheduler="threads"):
        found = function(*args)
        return list(found) if hasattr(found, "__next__") else found.compute()


# ---------------------------------------------------------------------- streams


@pytest.mark.parametrize("name", NAMES)
def test_images_are_those_of_threads(client, tmp_path, name):
    scan = logged_series(tmp_path / "log", 30)
    images = list(getattr(stats, f"{name}_iter")(scan, 8))
    expected = on_threads(getattr(stats, f"{name}_iter"), scan.stack(), 8)
    np.testing.assert_array_equal(images, expected, strict=True)
    assert settle(client) == (0, 0, 0)
    assert set(scan.logged().values()) == {1}


def test_every_worker_has_the_source(client, tmp_path):
    """Tasks go where what they need is: if one worker had it, the others would wait."""
    scan = logged_series(tmp_path / "log", 32)
    for array in (stats.average(scan), stats.wrap(scan), stats.wrap(scan, "rows")):
        sources = {key for key in array.dask if key_split(key) == "source"}
        needed = [task.dependencies & sources for task in convert_legacy_graph(array.dask).values()]
        counts = [sum(key in each for each in needed) for key in sources]
        assert len(sources) == 2
        assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize(
    "kind",
    [
        "array",
        "list",
        "float",
        "dask",
        "npy",
        pytest.param("zarr", marks=pytest.mark.graphs("to_zarr")),
    ],
)
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
    """A slow consumer holds the run back."""
    scan = logged_series(tmp_path / "log", 400)
    images = stats.max_iter(scan, 400)
    gathered = []
    take = distributed.ClusterRunner._gather
    monkeypatch.setattr(
        distributed.ClusterRunner,
        "_gather",
        lambda run, key: (gathered.append(key), take(run, key))[1],
    )
    for _ in range(5):
        next(images)
    time.sleep(0.3)
    window = distributed.TASKS_PER_THREAD * 3
    assert len(gathered) == 5
    assert sum(scan.logged().values()) <= 5 + window
    assert len(inside.cluster.scheduler.tasks) <= 2 * window
    images.close()
    assert settle(inside) == (0, 0, 0)


# Ctrl-C may come just when distributed has made a coroutine and not yet begun it.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("leave", ["close", "del", "raise", "fail", "interrupt"])
def test_nothing_is_left_after_leaving(client, tmp_path, leave):
    """No task, key or future stays, and most frames are never read."""
    scan = logged_series(tmp_path / "log", 200, delay=0.01)
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
    assert sum(scan.logged().values()) < 250
    images = None
    gc.collect()  # such a coroutine, or it would warn in a later test


@dataclass(frozen=True)
class OneShorter(Ramp):
    """Frames of which number 30 has a row less than the others."""

    def __call__(self, index):
        frame = super().__call__(index)
        return frame[1:] if index == 30 else frame


def leave_by_failure(log):
    with pytest.raises(ValueError, match="frame 30 has shape") as caught:
        list(stats.max_iter(FakeSeries(OneShorter(), 60, log=log), 20))
    assert any("frame 30" in note for note in caught.value.__notes__)


def interrupt_soon(delay=0.2):
    main = threading.main_thread().ident
    timer = threading.Timer(delay, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()


def interrupt_after(steps, fetch, future):
    """Have a client gather a result, and cancel that after some steps of its loop."""
    assert future.exception() is None  # it is finished

    async def interrupt():
        gathering = asyncio.ensure_future(fetch(future))
        for _ in range(steps):
            await asyncio.sleep(0)
        gathering.cancel()
        with suppress(asyncio.CancelledError):
            await gathering

    future.client.sync(interrupt)


@pytest.mark.parametrize("steps", range(9))
def test_a_client_gathers_after_an_interrupt(inside, steps):
    gather = partial(inside.gather, direct=True, asynchronous=True)
    future = inside.submit(bytes, 9)
    interrupt_after(steps, partial(distributed.fetch, gather), future)
    assert inside.gather(future) == bytes(9)


def test_a_client_that_gathers_nothing_any_more_is_named(inside, tmp_path):
    """It waits for a call of its own `gather` that was interrupted."""
    address = inside.scheduler.address
    with Client(address, set_as_default=False) as client, client.as_current():
        gather = partial(client.gather, direct=True, asynchronous=True)
        future = client.submit(bytes, 9)
        for steps in range(9):
            interrupt_after(steps, gather, future)
        images = stats.max_iter(logged_series(tmp_path / "log", 20), 2)
        with pytest.raises(RuntimeError, match="gathers no results since .*: make a new one"):
            next(images)
    assert len(list(stats.max_iter(logged_series(tmp_path / "log", 20), 2))) == 2


@pytest.mark.nightly
def test_fifty_streams_are_left_and_nothing_of_them(client, tmp_path):
    for cycle in range(50):
        scan = logged_series(tmp_path / f"log{cycle}", 100, delay=0.005)
        images = stats.average_iter(scan, 50)
        for _ in range(cycle % 10):
            next(images)
        images.close()
        assert settle(client) == (0, 0, 0), f"cycle {cycle}"


def test_two_streams_of_one_file_do_not_meddle(inside, tmp_path):
    np.save(tmp_path / "scan.npy", logged_series(tmp_path / "log", 40).stack())
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
    np.save(path, logged_series(tmp_path / "log", 40).stack())
    futures = inside.map(lambda n: sum(1 for _ in stats.max_iter(str(path), n)), [5, 6, 7, 8])
    assert inside.gather(futures) == [5, 6, 7, 8]


# ---------------------------------------------------------------------- lazy results


def results(scan):
    lazy = {name: getattr(stats, name)(scan) for name in ("max", "average", "std")}
    lazy["partials"] = stats.partials(scan, "average", 4)
    return lazy


@pytest.mark.parametrize("how", ["compute", "persist", "client", "several"])
def test_lazy_results_read_each_frame_once(client, tmp_path, how, caplog):
    scan = logged_series(tmp_path / "log", 64, shape=(256, 512))
    expected = {name: on_threads(lambda x=image: x) for name, image in results(scan).items()}
    for name, image in results(scan).items():
        Path(scan._log).unlink(missing_ok=True)
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
        assert sorted(scan.logged().items()) == [(index, 1) for index in range(64)], name
    assert "run_spec" not in caplog.text
    assert settle(client) == (0, 0, 0)


def test_names_say_what_a_task_does(inside, tmp_path):
    scan = logged_series(tmp_path / "log", 64, shape=(256, 512))
    names = set()
    for ims, name in ((scan, "average"), (scan, "median")):
        job = reduction.reduce(ims, name)
        tasks, keys = reducing.per_step_partials(job._work)
        names |= {key_split(key) for key in tasks.runnable(keys)}
    names |= {key_split(key) for key in stats.partials(scan, "std", 2).dask}
    names |= {key_split(key) for key in stats.wrap(scan).dask}
    wanted = {"average-partial", "average-step", "median-band", "std-partial", "std-step"}
    assert {*wanted, "read-frames", "source"} <= names


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
    scan = logged_series(tmp_path / "log", nframes, shape=(512, 1024))
    with dask.config.set(SMALL), local_cluster(memory_limit=limit) as client:
        with Watch(client) as watch:
            *_, image = getattr(stats, f"{name}_iter")(scan, 20)
        assert settle(client) == (0, 0, 0)
    assert image.shape == scan.shape
    assert max(watch.peaks.values()) < 0.6 * limit
    assert (len(watch.peaks), watch.states) == (2, {"running"})
    assert set(scan.logged().values()) == {1}


@pytest.mark.parametrize(
    ("limit", "buffers", "use_buffer", "strategy"),
    [
        pytest.param("4 GiB", "64MiB", True, "p2p", id="exchanged"),
        pytest.param("4 GiB", "64MiB", False, "reread", id="not wanted"),
        pytest.param("1 GiB", "1GiB", True, "reread", id="buffers are larger than the limit"),
    ],
)
def test_plan_of_a_median(inside, tmp_path, limit, buffers, use_buffer, strategy):
    scan = logged_series(tmp_path / "log", 200, shape=(256, 256))
    settings = {"distributed.p2p.comm.buffer": buffers, "distributed.p2p.storage.buffer": buffers}
    with dask.config.set(settings):
        plan = reduction.reduce(scan, "median", memory_limit=limit, use_buffer=use_buffer).plan
    assert plan.strategy == strategy
    assert plan.nbytes <= plan.limit


@pytest.mark.parametrize("nframes", [200, 1201])
def test_bands_are_exchanged_from_the_blocks_that_are_read(inside, tmp_path, nframes):
    """If bands were larger than two blocks dask would join blocks, and hold many for that."""
    scan = logged_series(tmp_path / "log", nframes, shape=(128, 128))
    with dask.config.set(SMALL):
        plan = reduction.reduce(scan, "median", memory_limit="64 MiB").plan
        image = stats.median(scan, memory_limit="64 MiB")
    assert plan.strategy == "p2p"
    assert not [key for key in image.dask if "merge" in str(key)]
    assert max(last - first for first, last in plan.blocks) * nframes < 2 * plan.piece * 128


def test_snapshots_of_frames_that_workers_exchange(client, tmp_path):
    """There are snapshots while the frames are read, which end with all of them."""
    scan = logged_series(tmp_path / "log", 200, shape=(64, 64))
    with dask.config.set(SMALL):
        plan = reduction.reduce(scan, "median", 0, 4, memory_limit="400 MiB").plan
        found = list(stats.snapshots(scan, "median", 4, memory_limit="400 MiB"))
    assert plan.strategy == "p2p"
    reads = [shot.done for shot in found if shot.phase == "read"]
    assert reads == sorted(set(reads))
    assert len(reads) > 1
    assert reads[-1] == 200
    assert [(shot.phase, shot.unit) for shot in found[len(reads) :]] == [("compute", "rows")] * 4
    assert {shot.nbytes for shot in found[len(reads) :]} == {200 * 64 * 64 * 2}
    np.testing.assert_array_equal(found[-1].image, np.median(scan.stack(), axis=0))
    assert set(scan.logged().values()) == {1}


def test_results_that_an_exchange_does_not_release_are_not_asked_for(inside, tmp_path):
    """They would be those of the exchange before; the next would wait for others for ever."""
    scan = logged_series(tmp_path / "log", 200, shape=(64, 64))
    with dask.config.set(SMALL):
        call = reduction.reduce(scan, "median", 0, 4, memory_limit="400 MiB")
        execution = call.scheduler.execution(call._work, True)
    _, graph, steps, _ = execution.make_runner.args
    asked = {key for step in steps[: len(execution.reading)] for key in step}
    (barrier,) = (task for key, task in graph.items() if "barrier" in str(key))
    assert asked == set(barrier.dependencies)
    assert execution.reading[-1] == 200


def test_each_worker_has_its_budget():
    workers = run_workers.Workers(processes=4, threads=8, each=2, memory=8 << 30)
    assert workers.budget(0.5) == 4 << 30
    small = run_workers.Workers(4, 8, 2, 512 << 20)
    assert small.budget(0.5) == 0
    assert run_workers.Workers(4, 8, 2, None).budget(0.5) is None


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
    return logged_series(log, nframes, shape=(64, 512), **options)


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
    usage = store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=free))
    monkeypatch.setattr(location, "_file_system", lambda place: kind)
    name = {"scratch": "daskstats.scratch-directory", "temporary": "temporary-directory"}[setting]
    scan = logged_series(tmp_path / "log", 200, shape=(256, 256))
    with dask.config.set(SMALL | {name: str(tmp_path)}):
        found = reduction.reduce(scan, "median", memory_limit="200 MiB").plan
        again = reduction.reduce(scan, "median", memory_limit="200 MiB", use_buffer=False).plan
    assert found.strategy == strategy
    assert text in str(found)
    assert found.nbytes <= found.limit
    assert again.strategy == "reread"
    # Buffers for both threads of the worker.
    assert found.workers == 2


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_streams_by_scratch(client, tmp_path, shared, steps):
    scan = whole_frames(tmp_path / "log")
    assert (
        reduction.reduce(scan, "median", 0, steps, memory_limit=LITTLE).plan.strategy == "scratch"
    )
    images = list(stats.median_iter(scan, steps, memory_limit=LITTLE))
    np.testing.assert_array_equal(
        images, on_threads(stats.median_iter, scan.stack(), steps), strict=True
    )
    assert settle(client) == (0, 0, 0)
    assert set(scan.logged().values()) == {1}


def test_snapshots_and_several_statistics_by_scratch(client, tmp_path, shared):
    import dask.array as da

    scan = whole_frames(tmp_path / "log")
    plan = reduction.reduce(scan, "median", 0, 5, memory_limit=LITTLE).plan
    found = list(stats.snapshots(scan, "median", 5, memory_limit=LITTLE))
    assert [s.done for s in found if s.phase == "read"] == [stop for _, stop in plan.groups]
    assert [s.phase for s in found[-5:]] == ["compute"] * 5
    assert set(scan.logged().values()) == {1}
    array = da.from_array(scan.stack(), chunks=(9, 64, 512))
    *_, images = stats.aggregate_iter(array, ["median", "max"], 4, memory_limit=LITTLE)
    np.testing.assert_array_equal(images["median"], found[-1].image, strict=True)
    np.testing.assert_array_equal(images["max"], scan.stack().max(axis=0), strict=True)
    assert settle(client) == (0, 0, 0)


def test_lazy_results_by_scratch(client, tmp_path, shared, caplog):
    scan = whole_frames(tmp_path / "log")
    expected = np.median(scan.stack(), axis=0).astype("f4")

    def lazy():
        return stats.median(scan, memory_limit=LITTLE)

    image = lazy()
    calls = {
        "compute": lambda: lazy().compute(),
        "persist": lambda: lazy().persist().compute(),
        "client": lambda: client.compute(lazy()).result(),
        "several": lambda: dask.compute(image, image + np.float32(1))[1] - 1,
        "threads": lambda: on_threads(lazy),
    }
    for name, call in calls.items():
        Path(scan._log).unlink(missing_ok=True)
        np.testing.assert_array_equal(call(), expected, strict=True, err_msg=name)
        assert set(scan.logged().values()) == {1}, name
    assert "run_spec" not in caplog.text
    assert settle(client) == (0, 0, 0)


def test_a_source_that_has_changed_is_read_again(client, tmp_path, shared):
    """A run does not go on with what one before it, of the same name, has written."""
    lazy = stats.median(whole_frames(tmp_path / "log"), memory_limit=LITTLE)
    log = tmp_path / "log"
    for turn in range(1, 4):
        lazy.compute()
        assert set(logged_series(log, 60).logged().values()) == {turn}
        # Until nothing of it is left another run is part of this one.
        assert left_in(shared) == []
        assert settle(client) == (0, 0, 0)


@pytest.mark.parametrize("leave", ["close", "del", "fail"])
def test_scratch_is_gone_after_leaving(client, tmp_path, shared, leave):
    scan = whole_frames(tmp_path / "log", delay=0.005)
    images = stats.snapshots(scan, "median", 10, memory_limit=LITTLE)
    next(images)
    assert len(list(shared.iterdir())) == 1
    if leave == "fail":
        wrong = FakeSeries(OneShorter((64, 512)), 60)
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


@pytest.mark.filterwarnings("ignore")
def test_scratch_outlives_a_worker(tmp_path, shared):
    """Frames that have been written are not read again, and nothing is left."""
    with local_cluster() as client:
        for turn, how in enumerate(["writing", "reading", "lazy"]):
            scan = whole_frames(tmp_path / f"log{turn}", 120, delay=0.004)
            plan = reduction.reduce(scan, "median", 0, 8, memory_limit=LITTLE).plan
            wanted = 120 if how == "reading" else 60
            thread = kill_when(client, lambda scan=scan, n=wanted: len(scan.logged()) >= n)
            if how == "lazy":
                image = stats.median(scan, memory_limit=LITTLE).compute()
            else:
                *_, image = stats.median_iter(scan, 8, memory_limit=LITTLE)
            thread.join()
            np.testing.assert_array_equal(image, on_threads(stats.median, scan.stack()))
            again = sum(scan.logged().values()) - 120
            assert again <= plan.groups[0][1], f"{again} frames read again while {how}"
            assert settle(client) == (0, 0, 0)
            assert left_in(shared) == []
            client.wait_for_workers(2)


def test_a_chunk_is_never_half_of_one_and_half_of_another(shared, rng):
    """Two workers may write the same: each chunk and record appears by a rename."""
    frames = rng.integers(0, 99, (4, 8, 8)).astype("u2")
    template = scratch_shared.SharedScratchStore(
        shared, frames.shape, "u2", 4, 8, name="token-cluster"
    )
    spool = template.open()
    assert template.open() is spool
    first = spool.write(0, frames)
    files = [spool._file(0, 0), spool._record(0)]
    for file in files:
        os.link(file, shared / file.name)
    assert spool.write(0, frames) == first == spool.find_written(0, 4)
    assert not any(file.samefile(shared / file.name) for file in files)
    assert not [path for path in spool.directory.rglob("*") if "partial" in path.name]
    for file in files:
        (shared / file.name).unlink()
    assert spool.find_written(0, 3) is None
    spool._record(0).write_text("[0, 4")
    assert spool.find_written(0, 4) is None
    del template, spool, first


def test_data_only_on_the_disk_of_a_worker_hold_scratch(shared, monkeypatch):
    monkeypatch.setattr(scratch_shared, "LOOK", 0.05)
    spilled = ["scratch-token"]
    monkeypatch.setattr(scratch_shared, "_spilled", lambda token: f"scratch-{token}" in spilled)
    spool = scratch_shared.SharedScratchStore(
        shared, (4, 8, 8), "u2", 4, 8, name="token-cluster"
    ).open()
    sent = pickle.dumps(spool)
    del spool
    time.sleep(0.2)
    assert len(list(shared.iterdir())) == 1
    spool = pickle.loads(sent)
    spilled.clear()
    time.sleep(0.2)
    assert len(list(shared.iterdir())) == 1
    del spool


@pytest.mark.parametrize(
    ("name", "nframes", "side"), [("average", 32, 3000), ("median", 4000, 256)]
)
def test_an_image_planned_for_more_memory_than_the_workers_have_is_refused(name, nframes, side):
    """It was made before there was a client, for the threads of this process."""
    frames = np.random.default_rng(0).integers(0, 1000, (64, 64, 64), "u2")
    with dask.config.set(scheduler="threads"):
        lazy = getattr(stats, name)(FakeSeries(frames, decode=np.copy))
        large = getattr(stats, name)(
            FakeSeries(Filled((side, side)), nframes), memory_limit="2 GiB"
        )
    with local_cluster(1, 1, memory_limit="700 MiB") as client:
        assert np.array_equal(
            lazy.compute(), getattr(stats, name)(FakeSeries(frames, decode=np.copy)).compute()
        )
        began = time.monotonic()
        with pytest.raises(MemoryError, match="make the image while the client is active") as error:
            large.compute()
        assert time.monotonic() - began < 30
        assert client.cluster.workers[0].worker_address in str(error.value)
        assert client.submit(int, "1").result() == 1, "the worker lives"
