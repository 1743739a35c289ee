"""Runs that end at a bad moment: no image is taken for the last, no lock stays acquired."""

import asyncio
import concurrent.futures
import gc
import shutil
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest
from fakes import Fail, FakeSeries, Filled, Ramp

import daskstats as stats
from daskstats.memory import reservation
from daskstats.memory.reservation import unreserved
from daskstats.run import checkpoint, stream
from daskstats.run.threads import StepExecutor

EACH_STEP = {"daskstats.checkpoint-interval": 0}


@pytest.fixture
def frames(rng):
    return rng.integers(0, 4000, (12, 16, 20)).astype("u2")


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("daskstats")]


def ended(function, seconds=20):
    """Call a function in another thread; return whether it ends, and its result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    return found[0]


# ---------------------------------------------------------------------- errors that mean an end


def failing(where, error):
    """Return a series and a statistic, of which one raises an error in the second half."""

    def check(bad):
        if bad:
            raise error

    def chunk(pieces, start):
        check(where == "chunk" and start >= 6)
        blocks = [block.max(axis=0) for piece in pieces for block in piece]
        return {"max": np.max(blocks, axis=0)}

    def combine(first, second):
        check(where == "combine" and second["max"].max() > 7)
        return {"max": np.maximum(first["max"], second["max"])}

    def finalize(state, image):
        check(where == "finalize" and state["max"].max() > 7)
        image[...] = state["max"]

    def block(values):
        check(where == "blocks" and values.max() > 7)
        return values

    frames = np.arange(12, dtype="u2")[:, None, None] * np.ones((1, 8, 8), "u2")
    series = da.from_array(frames, chunks=(3, 8, 8)).map_blocks(block, dtype="u2")
    if where == "frames":
        series = FakeSeries(list(frames), on_read=Fail({8: 99}, error))
    own = stats.Statistic("own", chunk, combine, finalize, state_nbytes=8)
    return (series if where in ("blocks", "frames") else frames), own


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("where", ["blocks", "frames", "chunk", "combine", "finalize"])
@pytest.mark.parametrize("error", [StopIteration, CancelledError, asyncio.CancelledError])
def test_no_error_of_a_task_means_the_end(scheduler, where, error):
    """An iterator would end early without a word, and its last image would seem to be whole."""
    series, own = failing(where, error)
    with dask.config.set(scheduler=scheduler):
        for statistic in (own, "max", "median") if where == "frames" else (own,):
            with pytest.raises((RuntimeError, error)) as raised:
                list(stats.snapshots(series, statistic, 4))
            assert not isinstance(raised.value, StopIteration)
            with pytest.raises((RuntimeError, error)):
                stats.watch(series, statistic, 4)
    assert our_threads() == []
    assert unreserved(1 << 40) == 1 << 40


def test_the_error_of_a_run_is_not_replaced_by_one_of_closing(frames, tmp_path):
    series = FakeSeries(list(frames), on_read=Fail({9: 99}, ValueError("the detector has failed")))
    images = stats.max_iter(series, 4, checkpoint=tmp_path / "place")
    next(images)
    shutil.rmtree(tmp_path / "place")
    with pytest.raises(ValueError, match="the detector has failed") as raised:
        list(images)
    assert any("place was removed while a run was writing it" in n for n in raised.value.__notes__)
    images = stats.max_iter(frames, 4, checkpoint=tmp_path / "other")
    with pytest.raises(ZeroDivisionError), images:
        next(images)
        shutil.rmtree(tmp_path / "other")
        raise ZeroDivisionError


# ---------------------------------------------------------------------- locks


@pytest.mark.parametrize("watched", [False, True])
def test_an_abandoned_iterator_waits_for_no_lock_of_its_thread(tmp_path, monkeypatch, watched):
    """Garbage collection begins anywhere, here in a thread that holds the lock of h5py."""
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(stream, "LIMIT", 0.4)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("a", data=np.ones((400, 64, 64), "u2"), chunks=(4, 64, 64))

    def abandon():
        with h5py.File(tmp_path / "scan.h5") as file:
            images = stats.max_iter(da.from_array(file["a"], chunks=(4, 64, 64)), 100)
            images = stats.watch(images) if watched else images
            next(images)
            cycle = [images]
            cycle.append(cycle)
            del images, cycle
            with h5py._hl.base.phil:
                gc.collect()
            deadline = time.monotonic() + 20
            while our_threads() and time.monotonic() < deadline:
                time.sleep(0.01)
            return unreserved(1 << 40)

    assert ended(abandon, 40) == 1 << 40
    assert our_threads() == []


class Interrupting:
    """Interrupts the main thread once, in a function of Python that has acquired a lock."""

    def __init__(self, enter, concerns):
        self.enter, self.concerns, self.left = enter, concerns, 1

    def __get__(self, condition, kind=None):
        def enter():
            self.enter(condition)
            main = threading.get_ident() == threading.main_thread().ident
            if main and self.left and self.concerns(condition):
                self.left -= 1
                raise KeyboardInterrupt

        return enter


def test_no_condition_is_entered_where_an_interrupt_would_leave_it_locked(frames, monkeypatch):
    made = []
    monkeypatch.setattr(
        StepExecutor,
        "start",
        lambda self, start=StepExecutor.start: (made.append(self), start(self)),
    )

    def concerns(condition):
        own = condition is reservation._changed
        return own or any(condition is executor._changed for executor in made)

    enter = threading.Condition.__enter__
    monkeypatch.setattr(threading.Condition, "__enter__", Interrupting(enter, concerns))
    for _ in range(3):
        *_, image = stats.max_iter(frames, 4)
        np.testing.assert_array_equal(image, frames.max(axis=0))
        stats.max_iter(frames, 4).close()
    assert made
    assert ended(lambda: unreserved(1 << 40)) == 1 << 40


def test_no_interrupt_reaches_the_waits_of_zarr(frames, tmp_path, monkeypatch):
    """One that leaves the lock of a future acquired would stop every later call of zarr."""
    kind = concurrent.futures._base._AcquireFutures
    monkeypatch.setattr(kind, "__enter__", Interrupting(kind.__enter__, lambda _: True))
    with dask.config.set(EACH_STEP):
        images = stats.max_iter(frames, 4, checkpoint=tmp_path / "place")
        next(images)
        images.close()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stats.load_checkpoint, tmp_path / "place").result(20).done == 3


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_during_a_commit_is_raised_as_itself(frames, tmp_path, monkeypatch, times):
    """The commit goes on, and the state is that of the step."""
    left = [times]
    wait = checkpoint.Apart.wait

    def interrupted(self):
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        wait(self)

    monkeypatch.setattr(checkpoint.Apart, "wait", interrupted)
    with dask.config.set(EACH_STEP), pytest.raises(KeyboardInterrupt):
        list(stats.max_iter(frames, 4, checkpoint=tmp_path / "place"))
    deadline = time.monotonic() + 20
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    monkeypatch.undo()
    assert stats.load_checkpoint(tmp_path / "place").done == 3
    *_, image = stats.max_iter(frames, 4, checkpoint=tmp_path / "place")
    np.testing.assert_array_equal(image, frames.max(axis=0))


# ---------------------------------------------------------------------- threads


@pytest.mark.parametrize("first", range(1, 6))
def test_a_thread_that_cannot_be_started_is_an_error(frames, tmp_path, monkeypatch, first):
    # Of Python 3.13 and later, and of those before.
    name = next(n for n in ("_start_joinable_thread", "_start_new_thread") if hasattr(threading, n))
    started, start = [], getattr(threading, name)

    def refused(*args, **options):
        started.append(args)
        if len(started) >= first:
            raise RuntimeError("can't start new thread")
        return start(*args, **options)

    place = tmp_path / "place"
    for options in ({}, {"checkpoint": place}):
        images, said = [], ""
        with monkeypatch.context() as patch, dask.config.set(num_workers=2):
            patch.setattr(threading, name, refused)
            started.clear()
            try:
                images = list(stats.average_iter(FakeSeries(Ramp((4, 5)), 12), 4, **options))
            except RuntimeError as error:
                said = str(error)
        assert len(images) in (0, 4)
        assert not said if images else "can't start new thread" in said
        assert our_threads() == []
        assert unreserved(1 << 40) == 1 << 40
        assert len(list(stats.average_iter(FakeSeries(Filled((4, 5)), 12), 4))) == 4
    stats.max_iter(frames, 4, checkpoint=place, restart=True).close()  # nobody owns it
