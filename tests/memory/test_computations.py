"""The end of a run: memory and disk are given back when it is over, not when its objects die."""

import _thread
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from dask.callbacks import Callback
from fakes import At, FakeSeries, Filled

import daskstats as stats
from daskstats.memory import computations, reservation

SHAPE, NFRAMES = (64, 128), 400
LIMITS = {"resident": "24 MiB", "scratch": "12 MiB"}


def acting(at: int, act: Callable[[], object], **options: Any) -> FakeSeries:
    """Return a series that calls a function when one of its frames is read."""
    return FakeSeries(Filled(SHAPE), NFRAMES, on_read=At(at, act), **options)


def fail() -> None:
    raise RuntimeError("the detector is gone")


def interrupt() -> None:
    _thread.interrupt_main()
    time.sleep(0.05)


ENDS = {"error": (fail, RuntimeError), "Ctrl-C": (interrupt, KeyboardInterrupt)}


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def place(tmp_path: Path) -> Any:
    with dask.config.set({"daskstats.scratch-directory": str(tmp_path), "num_workers": 2}):
        yield tmp_path


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("strategy", LIMITS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_what_a_failed_call_held_is_given_back_though_its_traceback_is_kept(
    place, strategy, end, scheduler
):
    act, error = ENDS[end]
    kept, limit = [], LIMITS[strategy]
    with dask.config.set(scheduler=scheduler):
        for _ in range(3):
            lazy = stats.median(acting(NFRAMES // 2, act), memory_limit=limit)
            assert stats.plan(acting(-1, fail), "median", memory_limit=limit).strategy == strategy
            try:
                lazy.compute()
            except error as raised:
                kept.append(raised)
    assert len(kept) == 3
    assert until(lambda: not reservation._entries), "nothing is left of the share"
    assert until(lambda: not any(place.iterdir())), "no scratch data are left"
    assert stats.plan(acting(-1, fail), "median", memory_limit=limit).strategy == strategy


def test_frames_that_a_failed_call_kept_in_memory_are_let_go():
    frames: list[np.ndarray] = []

    def decode(frame: np.ndarray) -> np.ndarray:
        frames.append(Alive(frame))
        return frame

    with dask.config.set(num_workers=1), pytest.raises(RuntimeError) as kept:
        stats.median(acting(NFRAMES - 1, fail, decode=decode), memory_limit="24 MiB").compute()
    assert len(frames) > 20
    assert until(lambda: sum(frame.alive for frame in frames) < 20)
    assert kept.value.__traceback__ is not None


class Alive:
    """Whether an array still is."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = weakref.ref(array)

    @property
    def alive(self) -> bool:
        return self._array() is not None


def test_a_cache_of_results_keeps_them_when_the_run_has_ended_well(monkeypatch):
    """dask's opportunistic cache: the share is given back, the frames stay."""
    monkeypatch.setitem(sys.modules, "dask.cache", object())

    class Cached(Callback):
        def __init__(self) -> None:
            self.results: dict[Any, Any] = {}

        def _start(self, dsk: Any) -> None:
            dsk.update({key: self.results[key] for key in set(dsk) & set(self.results)})

        def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
            self.results[key] = value

    lazy = stats.median(acting(-1, fail), memory_limit="24 MiB")
    with dask.config.set(num_workers=2), Cached() as cache:
        first = lazy.compute()
        cache.results = {k: v for k, v in cache.results.items() if "median" not in str(k)}
        assert until(lambda: not reservation._entries)
        assert np.array_equal(lazy.compute(), first)
    cache.results.clear()
    assert (first == (NFRAMES - 1) / 2).all()


def test_a_run_that_goes_on_keeps_its_share():
    """It is told from one that has ended by the stack of its thread, not by a pause."""
    gate, reading = threading.Event(), threading.Event()

    def wait() -> None:
        reading.set()
        gate.wait(10)

    lazy = stats.median(acting(3, wait), memory_limit="24 MiB")
    thread = threading.Thread(target=lazy.compute)
    thread.start()
    assert reading.wait(10)
    time.sleep(4 * reservation.PATIENCE / 4)
    assert reservation.unreserved(24 << 20) < 24 << 20
    assert len(computations.running_calls()) == 1
    gate.set()
    thread.join()
    assert not computations.running_calls()
    assert until(lambda: not reservation._entries)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_task_knows_its_run(scheduler):
    """Also a task of a run within a task of another one."""
    found: list[frozenset] = []

    def note() -> None:
        found.append(computations.calls_of_this_task())

    def compute_within() -> None:
        note()
        dask.delayed(note)().compute(scheduler="synchronous")
        note()

    dask.delayed(compute_within)().compute(scheduler=scheduler)
    outer, inner, again = found
    assert len(outer) == len(inner) == 1
    assert outer == again != inner
    assert computations.calls_of_this_task() == frozenset()
    assert computations.current_worker() is None


def test_a_computation_may_have_the_id_of_an_earlier_one(monkeypatch):
    """A cache of results kept the reservation of a lazy image, which is computed again."""
    call = frozenset({(threading.get_ident(), 42)})
    monkeypatch.setattr(computations, "calls_of_this_task", lambda: call)
    monkeypatch.setattr(computations, "running_calls", lambda: call)
    again = reservation.MemoryReservation(1 << 20, limit=1 << 30)
    with again.working():
        assert again._entry in reservation._entries
    monkeypatch.setattr(computations, "running_calls", frozenset)
    assert until(lambda: again._entry not in reservation._entries)
    monkeypatch.setattr(computations, "running_calls", lambda: call)
    with again.working():
        assert again._entry in reservation._entries
    monkeypatch.setattr(computations, "running_calls", frozenset)
    assert until(lambda: again._entry not in reservation._entries)
    monkeypatch.setattr(computations, "calls_of_this_task", frozenset)
    with pytest.raises(RuntimeError, match="has ended"), again.working():
        pass


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_while_stacks_are_walked(monkeypatch, enabled):
    """A step to the caller's frame led to freed memory, which was a dict by then."""
    seen = []
    monkeypatch.setattr(computations, "_calls", lambda *_: seen.append(gc.isenabled()) or [])
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        computations.running_calls()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen
    assert not any(seen)


def test_one_thread_looks_for_the_end_of_all_runs():
    """Runs in quick succession, some of which go on, do not start a thread each."""
    frames = np.zeros((4, 8, 8), "u2")
    for _ in range(30):
        stats.max(frames).compute()
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("daskstats-watch") <= 1
