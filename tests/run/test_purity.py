"""A lazy result is a value: no task changes the result of another, however often it is computed."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import dask.array as da
import dask.threaded
import numpy as np
import pytest
from dask.callbacks import Callback
from dask.graph_manipulation import bind
from dask.graph_manipulation import clone as clone_of
from fakes import FakeSeries
from helpers import make_frames

import daskstats as stats
from daskstats import Statistic
from daskstats.statistics import STATISTICS

PARAMETERS = {"percentile": (25,), "count_above": (100,)}
NAMES = [(name, *PARAMETERS.get(name, ())) for name in STATISTICS]
SEVERAL = ["max", "min", "average", "std", "argmax"]


class Unchanged(Callback):
    """Checks, when a run has ended, that the result of each task is what it was at first."""

    def __init__(self) -> None:
        self.results: dict[Any, tuple[Any, Any]] = {}
        self.changed: list[Any] = []

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
        if isinstance(value, dict | np.ndarray):
            self.results[key] = value, copy.deepcopy(value)

    def _finish(self, dsk: Any, state: Any, errored: bool) -> None:
        for key, (value, before) in self.results.items():
            if not _equal(value, before):
                self.changed.append(key)


def _equal(value: Any, before: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == before.keys() and all(_equal(value[k], before[k]) for k in value)
    return np.asarray(value).tobytes() == np.asarray(before).tobytes()


class Cached(Callback):
    """Keeps the result of every task and puts it into later graphs, as `dask.cache.Cache` does."""

    def __init__(self) -> None:
        self.results: dict[Any, Any] = {}

    def _start(self, dsk: Any) -> None:
        for key in set(dsk) & set(self.results):
            dsk[key] = self.results[key]

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
        self.results[key] = value


FAILS: set[int] = set()
"""Frames that will fail once, for all copies of a series in this process."""


def stumble(index: int) -> None:
    """Fail with an error for which no read is tried again."""
    if index in FAILS:
        FAILS.discard(index)
        raise RuntimeError(f"frame {index} failed once")


def made(index: int) -> np.ndarray:
    """Return a frame that is made as it is read, so that none are sent with the series."""
    return FRAMES[index].copy()


def stumbling(nframes: int = 96) -> FakeSeries:
    shape, dtype = FRAMES[0].shape, FRAMES.dtype
    return FakeSeries(made, nframes, shape=shape, dtype=dtype, on_read=stumble)


def frames_of(count: int = 96) -> np.ndarray:
    # Large enough for several blocks to a worker: blocks have 8 MiB at least.
    base = np.random.default_rng(1).integers(0, 3000, (8, 512, 512), "u2")
    return np.concatenate([base + np.uint16(k) for k in range(count // 8)])


FRAMES = frames_of()


def blocks_of(array: np.ndarray) -> Any:
    return da.from_array(array, chunks=(8, -1, -1))


@contextmanager
def workers(count: int) -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=count):
        yield


KINDS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda name: stats.aggregate(FakeSeries(FRAMES), [name]),
    "stack": lambda name: stats.partials(FakeSeries(FRAMES), name, 5),
    "dask": lambda name: stats.aggregate(blocks_of(FRAMES), [name]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statistic", NAMES, ids=lambda name: name[0])
def test_no_task_changes_the_result_of_another(kind, statistic):
    name = statistic if len(statistic) > 1 else statistic[0]
    with workers(1), Unchanged() as watch:
        dask.compute(KINDS[kind](name))
    assert watch.results
    assert watch.changed == []


def test_no_task_of_several_statistics_changes_the_result_of_another():
    with workers(1), Unchanged() as watch:
        dask.compute(stats.aggregate(FakeSeries(FRAMES), SEVERAL))
    assert watch.changed == []


@pytest.mark.parametrize("name", ["max", "average", "std"])
def test_lanes_of_rows_fold_in_copies(name):
    """Frames in memory: the tasks of a lane hand on their state."""
    frames = np.broadcast_to(FRAMES[:1], (2400, *FRAMES.shape[1:]))
    watch = Unchanged()
    with workers(2), watch:
        images = list(getattr(stats, f"{name}_iter")(frames, 4))
    assert len(watch.results) > 2, "several tasks to a lane"
    assert watch.changed == []
    assert np.array_equal(images[-1], getattr(stats, name)(frames).compute())


@pytest.mark.parametrize("name", ["sum", "average", "std", "max", "median"])
def test_a_cache_of_results_changes_no_image(name, monkeypatch):
    """dask's opportunistic cache puts the results of one computation into the next."""
    monkeypatch.setitem(sys.modules, "dask.cache", object())  # as where it is used
    series = FakeSeries(FRAMES)
    once = getattr(stats, name)(series).compute()
    with workers(1), Cached():
        lazy = getattr(stats, name)(series)
        images = [lazy.compute() for _ in range(3)]
        longer = [stats.partials(series, name, 4)[k].compute() for k in (3, 1, 3)]
    assert all(np.array_equal(image, once) for image in [*images, longer[0], longer[2]])
    assert np.array_equal(longer[1], _prefix(name, 2, 4))


def _prefix(name: str, steps: int, of: int) -> np.ndarray:
    image = getattr(stats, name)(FRAMES[: len(FRAMES) * steps // of]).compute()
    if name != "median":
        return image
    full, rows = stats.median(FRAMES).compute(), FRAMES.shape[1] * steps // of
    return np.concatenate([full[:rows], np.zeros_like(full[rows:])])


@pytest.mark.parametrize("name", ["sum", "average", "std", "median"])
def test_a_task_that_is_tried_again_counts_no_frame_twice(inside, name):
    """The image was made before the client: it is planned for the threads of this process."""
    for frame in (0, 50, len(FRAMES) - 1):
        with workers(2):
            lazy = getattr(stats, name)(stumbling())
        FAILS.add(frame)
        image = inside.compute(lazy, retries=2).result()
        assert not FAILS, "the frame has failed"
        with workers(2):
            assert np.array_equal(image, getattr(stats, name)(FRAMES).compute())


@pytest.mark.graphs("dask.graph_manipulation")
@pytest.mark.parametrize("name", ["average", "std", "median"])
def test_an_image_computed_twice_persisted_and_cloned_has_the_same_bits(name):
    frames = make_frames("f4", 40, 64, 64)
    frames[~np.isfinite(frames)] = 1
    with workers(2):
        lazy = getattr(stats, name)(FakeSeries(frames))
        first, kept = lazy.compute(), lazy.persist()
        clone, bound = clone_of(lazy), bind(lazy, da.ones(3))
        others = [
            lazy.compute(),
            kept.compute(),
            kept.copy().compute(),
            clone.compute(),
            bound.compute(),
        ]
    assert all(other.tobytes() == first.tobytes() for other in others)


def test_a_statistic_of_ones_own_that_folds_in_place_is_given_copies():
    def chunk(pieces, start, state=None):
        state = state or {"lit": np.zeros(FRAMES.shape[1:], "i8")}
        for piece in pieces:
            for block in piece:
                state["lit"] += np.count_nonzero(block > 1500, axis=0)
        return state

    def combine(a, b):
        return {"lit": a["lit"] + b["lit"]}

    def finalize(state, image):
        image[...] = state["lit"]

    lit = Statistic("lit", chunk, combine, finalize, dtype="int64", in_place=True)
    with workers(1), Cached():
        lazy = stats.aggregate(FakeSeries(FRAMES), [lit])["lit"]
        images = [lazy.compute() for _ in range(2)]
    assert all(np.array_equal(image, (FRAMES > 1500).sum(0)) for image in images)
