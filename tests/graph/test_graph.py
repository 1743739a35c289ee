"""Graphs: which tasks there are, and that each frame is read once."""

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
