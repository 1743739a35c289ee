"""The public functions on every scheduler, against naive oracles, and their argument errors."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.array.utils import assert_eq
from fakes import FakeSeries
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import DTYPES, naive, random_frames
from tqdm import tqdm

import daskstats as stats
from daskstats.graph.arrays import EXPRESSIONS

FRAMEWISE = ["max", "min", "sum", "average", "std"]
NAMES = [*FRAMEWISE, "median"]


def call(name, ims, *arguments, **options):
    return getattr(stats, name)(ims, *arguments, **options)


def prefixes(name, frames, nchunk):
    """Return the naive intermediate images of a frame-wise statistic."""
    sizes = [len(part) for part in np.array_split(np.arange(len(frames)), nchunk)]
    return [naive(name, frames[:stop]) for stop in np.cumsum(sizes)]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
@pytest.mark.parametrize("kind", ["array", "sequence"])
def test_all_functions_on_every_scheduler(scheduler, kind, rng):
    frames = random_frames(rng, (13, 6, 5), "u2")
    ims = frames if kind == "array" else FakeSeries(frames)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        lazy = {name: call(name, ims) for name in NAMES}
        lazy["percentile"] = stats.percentile(ims, [5, 95])
        (images,) = dask.compute(lazy)
        streams = {name: list(call(f"{name}_iter", ims, 3)) for name in ("average", "median")}
    for name in NAMES:
        assert_eq(images[name], naive(name, frames))
    np.testing.assert_array_equal(images["percentile"][1], naive("percentile", frames, 95))
    np.testing.assert_array_equal(streams["average"], prefixes("average", frames, 3))
    for stop, image in zip((2, 4, 6), streams["median"], strict=True):
        np.testing.assert_array_equal(image[:stop], naive("median", frames)[:stop])
        assert not image[stop:].any()


def test_on_a_cluster(rng):
    from distributed import Client, LocalCluster

    frames = random_frames(rng, (13, 6, 5), "u2")
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    )
    with cluster, Client(cluster):
        assert_eq(stats.average(frames), naive("average", frames))
        images = list(stats.average_iter(frames, 3))
        np.testing.assert_array_equal(images, prefixes("average", frames, 3))
        images[0][...] = 0
        with stats.median_iter(FakeSeries(frames), 6) as stream:
            next(stream)
        assert_eq(stats.median(frames), naive("median", frames))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype, rng):
    frames = random_frames(rng, (11, 4, 3), dtype)
    expected = naive(name, frames)
    for ims in (frames, FakeSeries(frames), list(frames), da.from_array(frames, chunks=(3, 2, 2))):
        assert_eq(call(name, ims), expected)
        *_, last = call(f"{name}_iter", ims, 3)
        np.testing.assert_array_equal(last, expected)
        assert last.dtype == expected.dtype


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_streams_are_prefixes(data):
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 7), st.integers(1, 5)))
    dtype = data.draw(st.sampled_from(["u1", "u2", "i4", "f4", "f8", "bool"]))
    frames = random_frames(np.random.default_rng(data.draw(st.integers(0, 99))), shape, dtype)
    name = data.draw(st.sampled_from(FRAMEWISE))
    nframes = data.draw(st.integers(-1, 25))
    used = frames[:nframes] if nframes > 0 else frames
    nchunk = data.draw(st.integers(1, len(used)))
    chunks = data.draw(st.sampled_from([None, (1, 2, 2), (4, 3, 1), (7, -1, -1)]))
    ims = frames if chunks is None else da.from_array(frames, chunks=chunks)
    images = list(call(f"{name}_iter", ims, nchunk, nframes))
    np.testing.assert_array_equal(images, prefixes(name, used, nchunk))
    np.testing.assert_array_equal(images[-1], call(name, ims, nframes).compute())
    lazy = stats.partials(ims, name, nchunk, nframes)
    assert lazy.shape == (nchunk, *shape[1:])
    np.testing.assert_array_equal(lazy.compute(), images)


def test_partials_compute_only_what_is_asked_for(rng):
    frames = random_frames(rng, (12, 4, 3), "u2")
    ims = FakeSeries(frames)
    lazy = stats.partials(ims, "max", 6)
    assert ims.reads == []
    np.testing.assert_array_equal(lazy[2].compute(), frames[:6].max(axis=0))
    assert sorted(ims.reads) == [0, 1, 2, 3, 4, 5]
    rows = stats.partials(frames, "median", 4)
    np.testing.assert_array_equal(rows[1, :2].compute(), naive("median", frames)[:2])
    assert not rows[1, 2:].compute().any()
    assert stats.partials(frames, ("percentile", [1, 2, 3]), 2).shape == (2, 3, 4, 3)


def test_the_examples_of_the_semantics():
    frames = [np.full((2, 2), value, "u2") for value in (1, 2, 3, 4)]
    assert [image[0, 0] for image in stats.average_iter(frames, 4)] == [1, 1.5, 2, 2.5]
    pixel = np.array([32767, -1], "i2")[:, None, None]
    assert stats.median(pixel).compute().item() == 16383
    assert stats.average(np.full((3600, 1, 1), 65535, "u2")).compute().item() == 65535
    assert stats.average(frames, nframes=2).dtype == np.float32
    assert isinstance(stats.max(frames), da.Array)
    assert (stats.max(frames) + 1).compute().max() == 5
    assert len(list(tqdm(stats.median_iter(frames, 2), disable=True))) == 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 4), (3, 1, 7), (3, 7, 1), (100_000, 1, 1)])
def test_thin_series(shape, rng):
    frames = random_frames(rng, shape, "u2")
    for name in NAMES:
        assert_eq(call(name, frames), naive(name, frames))
    *_, last = stats.max_iter(frames, min(shape[0], 50))
    np.testing.assert_array_equal(last, frames.max(axis=0))


def test_resident_and_reread_give_the_same_median(rng):
    frames = random_frames(rng, (30, 400, 200), "u2")
    expected = np.median(frames.astype("f8"), axis=0).astype("f4")
    for options in ({}, {"use_buffer": False}, {"memory_limit": "10 MB"}):
        assert_eq(stats.median(FakeSeries(frames), **options), expected)
        *_, last = stats.median_iter(FakeSeries(frames), 7, **options)
        np.testing.assert_array_equal(last, expected)


def test_chunks_of_dask_arrays_are_used_as_they_are(rng):
    frames = random_frames(rng, (12, 6, 5), "u2")
    calls = []

    def block(_, block_info=None):
        calls.append(block_info[None]["array-location"])
        (f0, f1), (r0, r1), (c0, c1) = calls[-1]
        return frames[f0:f1, r0:r1, c0:c1]

    array = da.map_blocks(
        block, da.zeros((12, 6, 5), chunks=(5, 4, 3)), dtype="u2", meta=np.empty((0, 0, 0), "u2")
    )
    for name in NAMES:
        calls.clear()
        assert_eq(call(name, array), naive(name, frames), check_graph=False)
        assert len(calls) == 3 * 2 * 2


def test_std_and_var_take_ddof(rng):
    frames = random_frames(rng, (9, 4, 3), "u2")
    assert_eq(stats.var(frames, ddof=1), naive("var", frames, "f4", 1))
    *_, last = stats.std_iter(frames, 3, ddof=1)
    np.testing.assert_array_equal(last, naive("std", frames, "f4", 1))
    *_, last = stats.var_iter(frames, 9)
    np.testing.assert_array_equal(last, stats.var(frames).compute())


def test_a_limit_that_is_too_small():
    frames = np.zeros((10, 100, 100), "u2")
    for name in NAMES:
        with pytest.raises(stats.MemoryLimitError, match=r"10 frames of 100 x 100 .* MiB"):
            call(name, FakeSeries(frames), memory_limit=1)
    assert issubclass(stats.MemoryLimitError, MemoryError)


BAD_COUNTS = [(0, ValueError), (-1, ValueError), (11, ValueError), (10**30, ValueError)]
BAD_TYPES = [(value, TypeError) for value in (True, np.True_, 2.0, float("nan"), None, "2", [2])]


@pytest.mark.parametrize(("value", "error"), BAD_COUNTS + BAD_TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_bad_nchunk(name, value, error):
    with pytest.raises(error, match="nchunk"):
        call(f"{name}_iter", np.zeros((10, 10, 2), "u2"), value)


def test_more_chunks_than_items_says_both():
    message = "number of chunks cannot exceed number of items.*11.*10"
    with pytest.raises(ValueError, match=message):
        stats.max_iter(np.zeros((10, 3, 2)), 11)
    with pytest.raises(ValueError, match="number of chunks cannot exceed number of items.*4.*3"):
        stats.median_iter(np.zeros((10, 3, 2)), 4)


@pytest.mark.parametrize(("value", "error"), BAD_TYPES)
@pytest.mark.parametrize("name", [*NAMES, "wrap"])
def test_bad_nframes(name, value, error):
    with pytest.raises(error, match="nframes"):
        call(name, np.zeros((10, 3, 2), "u2"), nframes=value)


@pytest.mark.parametrize("nframes", [0, -1, -(10**30), 10, 11, 10**30, np.int8(0), np.uint64(10)])
def test_nframes_that_mean_all(nframes):
    assert stats.sum(np.ones((10, 1, 1)), nframes).compute().item() == 10


@pytest.mark.parametrize(
    ("value", "error"), [(101, ValueError), (np.nan, ValueError), *BAD_TYPES[:2]]
)
def test_bad_pctl(value, error):
    with pytest.raises(error, match="pctl"):
        stats.percentile(np.zeros((3, 2, 2)), value)
    with pytest.raises(error, match="pctl"):
        stats.percentile_iter(np.zeros((3, 2, 2)), value, 1)


@pytest.mark.parametrize(
    ("ims", "error", "message"),
    [
        (np.zeros((0, 2, 2)), ValueError, "has no frames"),
        ([], ValueError, "has no frames"),
        (np.zeros((2, 0, 2)), ValueError, "empty"),
        (np.zeros((2, 2)), ValueError, "three-dimensional"),
        (np.zeros((2, 2, 2), complex), TypeError, "complex"),
        (np.zeros((2, 2, 2), object), TypeError, "object"),
        (np.ma.zeros((2, 2, 2)), TypeError, "masked"),
        (None, TypeError, "NoneType is not an image series"),
        (3, TypeError, "int is not an image series"),
        ({1: 2}, TypeError, "dict is not an image series"),
        ("no-such-file.npy", FileNotFoundError, "no-such-file"),
        ("scan.xyz", ValueError, "suffix"),
    ],
)
@pytest.mark.parametrize("name", ["max", "median", "wrap"])
def test_bad_series(name, ims, error, message):
    with pytest.raises(error, match=message):
        call(name, ims)


@pytest.mark.parametrize("lock", [1, "yes", object()])
def test_bad_lock(lock):
    with pytest.raises(TypeError, match="lock"):
        stats.max(np.zeros((3, 2, 2)), lock=lock)


def test_lock_lets_one_thread_read_at_a_time(rng):
    import threading

    frames = random_frames(rng, (40, 4, 3), "u2")
    ims = FakeSeries(frames)
    for lock in (True, threading.Lock()):
        images = list(stats.max_iter(ims, 20, lock=lock))
        np.testing.assert_array_equal(images[-1], frames.max(axis=0))
    assert ims.most == 1


def test_configuration_is_read_at_the_call():
    frames = FakeSeries(np.zeros((10, 100, 100), "u2"))
    with dask.config.set({"daskstats.memory-limit": "1 kB"}):
        with pytest.raises(stats.MemoryLimitError):
            stats.max(frames)
        assert stats.memory_limit() == 1000
    stats.max(frames)
    planned = dask.config.set({"array.query-planning": not EXPRESSIONS})
    with planned, pytest.raises(RuntimeError, match="query-planning"):
        stats.max(frames)


def test_task_names_say_what_they_do(rng):
    from dask.utils import key_split

    frames = random_frames(rng, (60, 4, 3), "u2")
    names = {key_split(key) for key in stats.partials(frames, "average", 6).__dask_graph__()}
    assert names == {
        "reserve-memory",
        *(f"average-{what}" for what in ("partial", "step", "image")),
    }
    names = {key_split(key) for key in stats.median(FakeSeries(frames)).__dask_graph__()}
    assert names == {"reserve-memory", "source", "read-frames", "median-band", "median"}


@pytest.mark.parametrize("name", FRAMEWISE)
def test_streams_of_every_kind_in_memory(name, rng, tmp_path):
    """Lanes of rows, where frames are views; whole frames, where a lock or a copy is between."""
    frames = random_frames(rng, (12, 7, 5), "u2")
    np.save(tmp_path / "scan.npy", frames)
    kinds = [frames, list(frames), frames.astype(">u2"), np.asfortranarray(frames)]
    for ims in [*kinds, tmp_path / "scan.npy", np.load(tmp_path / "scan.npy", mmap_mode="r")]:
        for options in ({}, {"lock": True}):
            images = list(call(f"{name}_iter", ims, 5, **options))
            np.testing.assert_array_equal(images, prefixes(name, frames, 5))
