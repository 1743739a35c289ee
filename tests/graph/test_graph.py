"""Graphs: which tasks there are, and that each frame is read once."""

import dataclasses
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
from dask.utils import key_split
from fakes import FakeSeries, Filled

import daskstats as stats
from daskstats.graph import reducing
from daskstats.graph.build import Work
from daskstats.graph.reading import token_of
from daskstats.planning import frame_wise, row_wise, values
from daskstats.planning.request import Request
from daskstats.series import base, opening
from daskstats.statistics import as_statistic


def filled(nframes, shape=(6, 5)):
    return FakeSeries(Filled(shape), nframes)


def states(name, ims, steps, nframes, use_buffer=True):
    source, statistic = opening.as_series(ims), as_statistic(name)
    layout = base.layout(source, nframes)
    request = Request(layout, values.Cost(8, 8, 4), steps, 2, 1 << 30)
    by_rows = statistic.along == "rows"
    plan = (row_wise.plan_row_wise if by_rows else frame_wise.plan_frame_wise)(request)
    return reducing.running_states(Work(source, statistic, plan, ()))


@pytest.mark.parametrize("name", ["max", "average", "median"])
@pytest.mark.parametrize("steps", [1, 5, 6])
def test_each_frame_is_read_once(name, steps):
    ims = filled(30)
    tasks, keys = states(name, ims, steps, 30)
    assert len(keys) == steps
    dask.get(tasks.runnable(keys), keys)
    assert sorted(ims.reads) == list(range(30))


def test_two_statistics_of_one_call_share_nothing_but_give_both():
    ims = filled(10)
    high, low = dask.compute(stats.max(ims), stats.min(ims))
    assert (high.max(), low.max()) == (9, 0)


def test_a_step_waits_for_the_one_before_only():
    tasks, keys = states("average", filled(30), 6, 30)
    flat = tasks.runnable(keys)
    for before, key in pairwise(keys):
        others = flat[key].dependencies - {before}
        assert {key_split(other) for other in others} == {"average-partial"}


def test_blocks_of_a_step_are_combined_as_a_tree():
    layout = values.Layout(nframes=200, rows=6, cols=5, itemsize=2)
    blocks = tuple((start, start + 2) for start in range(0, 200, 2))
    cut = values.Plan("fold", layout, blocks, (blocks,), 2, 2, 0, 0, 1.0)
    ims = filled(200)
    work = Work(opening.as_series(ims), as_statistic("sum"), cut, ())
    tasks, (key,) = reducing.running_states(work)
    flat = tasks.runnable([key])
    assert max(len(task.dependencies) for task in flat.values()) <= values.FAN_IN
    state = dask.get(flat, key)
    assert state["sum"].max() == sum(range(200))
    assert state["count"] == 200


def test_a_million_frames_make_a_graph_of_moderate_size():
    ims = filled(1_000_000, (512, 512))
    tasks, keys = states("average", ims, 60, 1_000_000)
    assert len(tasks.runnable(keys)) < 10_000


def test_names_are_those_of_the_work():
    image = stats.average(filled(10))
    assert image.name.startswith("average-")
    assert image.dask is not None
    again = stats.average(filled(10))
    assert again.name != image.name, "two objects in memory are two series"


def as_npy(frames, path):
    np.save(path / "scan.npy", frames)
    return path / "scan.npy"


def as_zarr(frames, path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        path / "scan.zarr", shape=frames.shape, chunks=frames.shape, dtype="u2"
    )
    array[...] = frames
    return path / "scan.zarr"


def as_hdf5(frames, path):
    with pytest.importorskip("h5py").File(path / "scan.h5", "w") as file:
        file["data"] = frames
    return f"{path / 'scan.h5'}::data"


def as_dataset(frames, path):
    name, _, dataset = as_hdf5(frames, path).partition("::")
    return pytest.importorskip("h5py").File(name)[dataset]


SOURCES = {
    "npy": as_npy,
    "zarr": as_zarr,
    "hdf5": as_hdf5,
    "dataset": as_dataset,
    "dask": lambda frames, path: da.from_array(frames, chunks=(3, 4, 4)),
    "array": lambda frames, path: frames,
    "list": lambda frames, path: list(frames),
}

ROW_WISE = {
    "median": stats.median,
    "percentile": lambda ims, n: stats.percentile(ims, [5, 95], n),
    "clipped_average": lambda ims, n: stats.clipped_average(ims, nframes=n),
    "partials": lambda ims, n: stats.partials(ims, "median", 2, n),
    "aggregate": lambda ims, n: stats.aggregate(ims, ["median", "max"], n)["max"],
}


@pytest.mark.parametrize("call", ROW_WISE.values(), ids=ROW_WISE)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_images_of_fewer_frames_have_other_names(tmp_path, rng, source, call):
    """Rows are the same whatever the number of frames: their tasks are not."""
    frames = rng.integers(0, 50, (9, 4, 4)).astype("u2")
    ims = source(frames, tmp_path)
    few, many = call(ims, 3), call(ims, 7)
    assert few.name != many.name
    found = dask.compute(few, many)
    for image, nframes in zip(found, (3, 7), strict=True):
        np.testing.assert_array_equal(image, call(frames[:nframes], 0).compute())


@pytest.mark.parametrize("name", ["max", "median"])
def test_equal_calls_have_one_name(tmp_path, rng, name):
    path = as_npy(rng.integers(0, 50, (9, 4, 4)).astype("u2"), tmp_path)
    one, two = getattr(stats, name)(path), getattr(stats, name)(path)
    assert (one.name, set(one.dask)) == (two.name, set(two.dask))


OTHERS = {
    "strategy": "reread",
    "layout": values.Layout(8, 6, 5, 2),
    "blocks": ((0, 9),),
    "steps": (((0, 9),),),
    "groups": ((0, 9),),
    "disk": values.Disk("/tmp", 1 << 30),
}


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(values.Plan)])
def test_names_tell_plans_of_other_tasks_apart(name):
    series = opening.as_series(filled(9))
    plan = values.Plan("direct", values.Layout(9, 6, 5, 2), ((0, 6),), (((0, 6),),), 9, 2, 1, 2, 1)
    other = dataclasses.replace(plan, **{name: OTHERS.get(name, 77)})
    same = token_of(series, plan, None) == token_of(series, other, None)
    assert same == (name in ("limit", "note", "refused"))


def test_free_bytes_of_a_disk_are_in_no_name():
    source = opening.as_series(filled(9))
    layout = base.layout(source, 9)
    disks = [values.Disk("/tmp", nbytes) for nbytes in (1 << 30, 1 << 31)]
    plans = [values.Plan("scratch", layout, (), (), 1, 1, 1, 1, 1, disk=disk) for disk in disks]
    one, two = (token_of(source, plan, None) for plan in plans)
    assert one == two


@pytest.mark.parametrize("name", ["source", "reserve-memory", "scratch", "read-frames", "max-band"])
@pytest.mark.parametrize("other", ["max", "median"])
def test_a_statistic_may_have_the_name_of_a_layer(tmp_path, rng, name, other):
    frames = rng.integers(0, 50, (9, 4, 4)).astype("u2")
    own = dataclasses.replace(as_statistic("min"), name=name)
    for ims in (as_npy(frames, tmp_path), da.from_array(frames, chunks=(3, 2, 4))):
        image = stats.aggregate(ims, [own, other])[name]
        np.testing.assert_array_equal(image.compute(), frames.min(axis=0))


@pytest.mark.parametrize("name", ["max", "sum", "median"])
@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_blocks_of_a_dask_array_are_checked(name, change):
    """A block with another shape or dtype than its array is an error, not a wrong image."""
    wrong = {"shape": lambda block: block[:, :1], "dtype": lambda block: block.astype("u4")}
    meta = np.empty((0, 0, 0), "u2")
    array = da.zeros((3, 4, 5), dtype="u2", chunks=(1, 4, 5))
    array = array.map_blocks(wrong[change], dtype="u2", meta=meta)
    with pytest.raises(ValueError, match=f"frame . has {change} .*expected"):
        getattr(stats, name)(array).compute()


def test_frames_that_are_decoded_together_are_decoded_once(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        str(tmp_path / "x"), shape=(95, 160, 160), chunks=(10, 160, 160), dtype="u2"
    )
    source = opening.as_series(array)
    layout = base.layout(source, 95)
    found = row_wise.plan_row_wise(Request(layout, values.Cost(8, 4, 4), 1, 2, 1 << 30))
    tasks, _ = reducing.running_states(Work(source, as_statistic("median"), found, ()))
    loads = [layer for name, layer in tasks.layers.items() if name.startswith("read-frames")]
    assert [len(layer) for layer in loads] == [10]
