"""Bands that are parts of rows: where not even one row of all frames fits the memory limit."""

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from fakes import FakeSeries
from helpers import check_series

import daskstats as stats
from daskstats.series.flat import FlatSource, flattened
from daskstats.series.opening import as_series
from daskstats.series.selection import select

NFRAMES, SHAPE = 3000, (3, 2053)  # a prime: a row cannot be cut into equal parts
LIMIT = "22 MiB"  # a row of all frames is 11.7 MiB, and there are two threads
NAMES = ["median", ("percentile", [5, 50, 95])]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with dask.config.set(num_workers=2):
        yield


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.poisson(100, (NFRAMES, 1)).astype("u2")[:, :, None] + rng.integers(
        0, 50, SHAPE
    ).astype("u2")


@pytest.fixture(scope="module")
def expected(frames: np.ndarray) -> dict[str, np.ndarray]:
    lazy = {str(name): stats.aggregate(frames, [name]) for name in NAMES}
    found = {key: next(iter(images.values())).compute() for key, images in lazy.items()}
    assert np.array_equal(found["median"], np.median(frames, axis=0).astype("f4"))
    return found


@pytest.fixture(scope="module")
def series(frames: np.ndarray, tmp_path_factory: Any) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("series")
    np.save(place / "a.npy", frames)
    zarr.create_array(place / "a.zarr", data=frames, chunks=(100, 1, SHAPE[1]))
    with h5py.File(place / "a.h5", "w") as file:
        file["x"] = frames
        file.create_dataset("y", data=frames, chunks=(10, *SHAPE))
    return {
        "array": frames,
        "list": list(frames),
        "sequence": FakeSeries(frames),
        "npy": place / "a.npy",
        "zarr": place / "a.zarr",
        "h5": f"{place}/a.h5::x",
        "h5 chunks": f"{place}/a.h5::y",
        "dask": da.from_array(frames, chunks=(50, 2, 400)),
    }


KINDS = ["array", "list", "sequence", "npy", "zarr", "h5", "h5 chunks", "dask"]


@pytest.mark.parametrize(
    ("kind", "use_buffer"), [*((kind, True) for kind in KINDS), ("sequence", False)]
)
def test_images_are_the_same(series, expected, kind, use_buffer):
    options = {"memory_limit": LIMIT, "use_buffer": use_buffer}
    plan = stats.plan(series[kind], "median", **options)
    assert plan.in_pixels == (kind not in ("array", "list", "npy"))
    for name in NAMES:
        (image,) = stats.aggregate(series[kind], [name], **options).values()
        assert np.array_equal(image.compute(), expected[str(name)])


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [("sequence", "threads"), ("dask", "threads"), ("h5", "synchronous"), ("zarr", "processes")],
)
def test_images_fill_up_by_rows(series, expected, kind, scheduler):
    median, limit = expected["median"], "14 MiB" if scheduler == "synchronous" else LIMIT
    with dask.config.set(scheduler=scheduler, num_workers=2):
        plan = stats.plan(series[kind], "median", 3, memory_limit=limit)
        assert plan.in_pixels
        assert "pixel" in str(plan)
        shots = list(stats.snapshots(series[kind], "median", 3, memory_limit=limit))
    shots = [shot for shot in shots if shot.phase == "compute"]
    assert [(shot.done, shot.total) for shot in shots] == [(1, 3), (2, 3), (3, 3)]
    for rows, shot in enumerate(shots, start=1):
        assert np.array_equal(shot.image[:rows], median[:rows])
        assert not shot.image[rows:].any()
        assert np.array_equal(shot.seen, np.arange(3)[:, None] < np.full((1, SHAPE[1]), rows))


def test_a_mask_and_several_statistics(series, frames):
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    names = ["max", "median", "average", ("percentile", [1, 99])]
    options = {"mask": mask, "invalid": [101], "fill_value": 7, "nframes": 2800}
    whole = dask.compute(stats.aggregate(frames, names, **options))[0]
    for kind in ("sequence", "zarr"):
        lazy = stats.aggregate(series[kind], names, memory_limit="24 MiB", **options)
        assert stats.plan(series[kind], names, memory_limit="24 MiB", **options).in_pixels
        parts = dask.compute(lazy)[0]
        assert all(np.array_equal(parts[key], whole[key]) for key in whole)
    partial = stats.partials(series["zarr"], "median", 3, memory_limit=LIMIT)
    assert np.array_equal(partial[2].compute(), stats.median(frames).compute())


def test_one_pixel_of_all_frames_is_the_least():
    series = FakeSeries(np.broadcast_to(np.ones((4, 8), "u2"), (1_000_000, 4, 8)))
    with pytest.raises(stats.MemoryLimitError, match="one pixel of all frames for each of 2"):
        stats.median(series, memory_limit="16 MiB")


def test_rows_are_whole_in_a_wrapped_series(series):
    with pytest.raises(stats.MemoryLimitError, match="one row of all 3000 frames"):
        stats.wrap(series["sequence"], "rows", memory_limit=LIMIT)


@pytest.mark.parametrize("kind", ["array", "list", "sequence", "npy", "zarr", "h5"])
def test_a_flat_source_is_a_source(series, frames, kind):
    source = FlatSource(select(as_series(series[kind]), slice(0, 9), ((0, 3), (5, 26))))
    check_series(source, frames[:9, :, 5:26].reshape(9, -1, 1))


def test_a_dask_array_stays_one(series, frames):
    source = flattened(as_series(series["dask"]))
    assert source.array.chunks[0] == (50,) * 60
    assert np.array_equal(source.array.compute(), frames.reshape(NFRAMES, -1, 1))


def test_on_a_cluster(series, expected, client):
    for kind in ("zarr", "h5 chunks"):
        lazy = stats.median(series[kind], memory_limit="30 MiB")
        assert stats.plan(series[kind], "median", memory_limit="30 MiB").in_pixels
        assert np.array_equal(lazy.compute(), expected["median"])
        *_, last = stats.median_iter(series[kind], 3, memory_limit="30 MiB")
        assert np.array_equal(last, expected["median"])
