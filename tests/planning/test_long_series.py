"""Series of a great many frames are planned at once, or refused at once."""

import sys
from itertools import product

import numpy as np
import pytest
import zarr
from fakes import FakeSeries

import daskstats as stats
from daskstats.planning.cuts import units_read
from daskstats.planning.frame_wise import plan_frame_wise
from daskstats.planning.margins import MOST_TASKS
from daskstats.planning.request import Request
from daskstats.planning.row_wise import plan_row_wise
from daskstats.planning.values import Cost, Layout


def long(nframes, shape=(4, 4)):
    """Return a series of any number of frames, which are hardly ever read."""
    return FakeSeries(lambda _: np.full(shape, 7, "u2"), nframes, shape=shape, dtype="u2")


CALLS = {
    "average": stats.average,
    "average_iter": lambda ims, **o: stats.average_iter(ims, 10, **o),
    "an image for each frame": lambda ims, **o: stats.average_iter(ims, len(ims), **o),
    "percentile": lambda ims, **o: stats.percentile(ims, 95, **o),
    "percentile_iter": lambda ims, **o: stats.percentile_iter(ims, 95, 2, **o),
    "wrap frames": stats.wrap,
    "wrap rows": lambda ims, **o: stats.wrap(ims, along="rows", **o),
    "aggregate": lambda ims, **o: stats.aggregate(ims, ["max", "std"], **o),
    "every second": lambda ims, **o: stats.average(ims, frames=slice(None, None, 2), **o),
    "region": lambda ims, **o: stats.average(ims, region=((0, 2), (0, 2)), **o),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("nframes", [2**40, 2**62, sys.maxsize, 2**31])
def test_too_many_frames_are_refused_at_once(call, nframes):
    if nframes == 2**31 and call is CALLS["every second"]:
        nframes = 2**32
    with pytest.raises((ValueError, MemoryError), match=r"\d{9}.* frames"):
        call(long(nframes))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("nframes", [2**40, 2**62])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_too_many_frames_of_a_zarr_array(tmp_path, nframes, zarr_format):
    path, options = tmp_path / "scan.zarr", {"chunks": (1, 4, 4), "zarr_format": zarr_format}
    array = zarr.create_array(path, shape=(nframes, 4, 4), dtype="u2", **options)
    for ims in (path, array):
        with pytest.raises(ValueError, match=f"{nframes} frames, and at most 2147483647"):
            stats.average(ims)
        with pytest.raises(ValueError, match=f"{nframes} frames, and at most 2147483647"):
            stats.median_iter(ims, 2)
        assert (stats.max(ims, nframes=3).compute() == 0).all()


def test_more_frames_than_python_counts(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(2**70, 4, 4), dtype="u2", chunks=(1, 4, 4)
    )
    with pytest.raises(ValueError, match=f"has {2**70} frames"):
        stats.average(array)
    with pytest.raises(ValueError, match="FakeSeries has more frames than Python can count"):
        stats.average(long(2**63))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("nframes", [10**6, 2**31, 2**40, 2**62])
def test_a_part_of_a_series_of_any_length(nframes):
    series = long(nframes)
    for options in (
        {"nframes": 3},
        {"frames": slice(nframes - 3, None)},
        {"frames": slice(-3, None)},
        {"frames": slice(None, None, nframes // 2)},
        {"frames": [0, nframes - 1, -1]},
        {"frames": slice(2), "region": ((1, 3), (0, 4))},
    ):
        assert (stats.average(series, **options).compute() == 7).all()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("shape", [(4, 4), (1024, 1024), (2048, 2048)])
def test_a_million_frames_are_planned(shape):
    series = long(10**6, shape)
    limit = {"memory_limit": "4 GiB"}
    assert stats.average(series, **limit).shape == shape
    assert len(stats.average_iter(series, 100, **limit)) == 100
    assert stats.wrap(series, **limit).shape == (10**6, *shape)
    if shape == (4, 4):
        assert stats.median(series, **limit).shape == shape


def naive_units(start, stop, count, unit):
    """Count the units of each read, of which `Source.pieces` says where it begins."""
    edge = start - start % count if count % unit == 0 else start
    units = 0
    while edge < stop:
        units += len({frame // unit for frame in range(max(start, edge), min(stop, edge + count))})
        edge += count
    return units


def test_units_are_counted_without_listing_the_reads():
    """It took a tuple for every eight frames."""
    for start, length, count, unit in product(range(7), range(1, 30), range(1, 14), range(1, 13)):
        stop = start + length
        assert units_read(start, stop, count, unit) == naive_units(start, stop, count, unit), (
            f"{start}:{stop}, {count} at once of {unit}"
        )
    assert units_read(0, 2**62, 8, 3) == 2**62 // 3 + 1 + 2**59 - 1 - (2**59 - 1) // 3


@pytest.mark.parametrize("name", ["count", "argmax", "sum", "median"])
def test_no_more_frames_than_images_and_compiled_code_can_count(name):
    """Images of int32 were negative beyond, and ranks of medians have 32 bits as well."""
    one, most = np.zeros((), "u1"), np.iinfo("i4").max
    assert stats.plan(np.broadcast_to(one, (most, 1, 1)), name, memory_limit="2 TiB")
    for nframes in (most + 1, 3 * 10**9):
        ims = np.broadcast_to(one, (nframes, 1, 1))
        with pytest.raises(ValueError, match=f"has {nframes} frames, and at most {most} can be"):
            stats.plan(ims, name, memory_limit="2 TiB")
        assert stats.plan(ims, name, nframes=most, memory_limit="2 TiB").total


def layout(nframes, rows=2048, cols=2048):
    return Layout(nframes=nframes, rows=rows, cols=cols, itemsize=2, row_unit=rows)


@pytest.mark.parametrize(
    ("nframes", "steps"),
    [(2**32 - 1, 1), (2**31, 10), (2**30, 2**30), (10**8, MOST_TASKS + 1)],
)
def test_too_many_tasks_are_refused(nframes, steps):
    with pytest.raises(
        ValueError, match=f"{nframes} frames of 2048 x 2048 .* more than the 2000000"
    ):
        plan_frame_wise(Request(layout(nframes), Cost(state=8, image=4), steps, 2, 4 << 30))


def test_bands_that_need_too_many_tasks_are_read_in_another_way():
    """A hundred million frames: kept in memory they would be read by twelve million tasks."""
    cost = Cost(state=4, image=4, temporaries=4)
    many = layout(10**8, 256, 256)
    made = plan_row_wise(Request(many, cost, 1, 2, limit=1 << 50))
    assert made.strategy == "reread"
    with pytest.raises(ValueError, match="would be 1250000[0-9] tasks"):
        once = Layout(nframes=10**8, rows=256, cols=256, itemsize=2, row_unit=256, again=False)
        plan_row_wise(Request(once, cost, 1, 2, limit=1 << 50))
    small = Request(layout(10**6, 4, 4), cost, 1, 2, limit=4 << 30)
    assert plan_row_wise(small).strategy == "resident"
