"""dask arrays as series."""

import dask
import dask.array as da
import numpy as np
import pytest
from helpers import DTYPES, check_series, make_frames

import daskstats as stats
from daskstats.series.daskarrays import DaskSource
from daskstats.series.opening import as_series


@pytest.fixture(autouse=True)
def _in_this_thread():
    # Reads from many threads would each start a pool of threads.
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    frames = make_frames(dtype)
    series = as_series(da.from_array(frames, chunks=(3, 2, 4)))
    assert type(series) is DaskSource
    check_series(series, frames)


@pytest.mark.parametrize(
    ("chunks", "frame_unit", "row_unit"),
    [
        ((1, 5, 6), 1, None),
        (((3, 4), (2, 3), 6), 4, 3),
        ((7, 5, 1), 7, None),
        ((7, 1, 6), 7, 1),
        (((0, 7, 0), (5,), (6,)), 7, None),
    ],
)
def test_units_are_those_of_the_chunks(chunks, frame_unit, row_unit):
    frames = make_frames("u2")
    array = da.from_array(frames, chunks=(7, 5, 6)).rechunk(chunks)
    series = as_series(array)
    assert (series.frame_unit, series.row_unit) == (frame_unit, row_unit)
    check_series(series, frames)


@pytest.mark.parametrize(
    "chunks",
    [
        ((1, 0, 1), (4,), (6,)),
        ((0, 2), (0, 4, 0), (6, 0)),
        ((1, 0, 0, 1), (2, 0, 2), (0, 3, 0, 3)),
    ],
)
def test_empty_chunks_are_left_out(rng, chunks):
    frames = rng.integers(0, 50, (2, 4, 6)).astype("u2")
    array = da.from_array(frames, chunks=chunks)
    assert all(map(all, as_series(array).array.chunks))
    check_series(as_series(array), frames)
    dark = np.arange(24, dtype="u2").reshape(4, 6)
    for name in ("sum", "median", "clipped_average"):
        statistic = getattr(stats, name)
        for options in (
            *({}, {"frames": slice(None, None, -1)}, {"frames": [0, 1, 0]}, {"dark": dark}),
            *({"flip": "r90"}, {"flip": "hv"}, {"region": ((1, 4), (2, 6))}),
        ):
            image, expected = dask.compute(*(statistic(a, **options) for a in (array, frames)))
            np.testing.assert_array_equal(image, expected)
    for along in ("frames", "rows"):
        np.testing.assert_array_equal(stats.wrap(array, along).compute(), frames)


@pytest.mark.graphs("reshape")
def test_empty_chunks_of_leading_axes_are_left_out():
    frames = make_frames("u2", 12)
    chunks = (1, 0, 2), (0, 4), (2, 0, 3), (6,)
    array = da.from_array(frames.reshape(3, 4, 5, 6), chunks=chunks)
    check_series(as_series(array), frames)
    image, expected = dask.compute(*map(stats.clipped_average, (array, frames)))
    np.testing.assert_array_equal(image, expected)


def test_nothing_is_computed_before_it_is_read():
    def explode(block):
        raise AssertionError("computed")

    array = da.zeros((3, 4, 5), dtype="u2").map_blocks(explode, dtype="u2")
    assert len(as_series(array)) == 3


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (da.zeros((4, 5)), ValueError, "three-dimensional"),
        (da.zeros((0, 4, 5)), ValueError, "no frames"),
        (da.zeros((2, 0, 5)), ValueError, "empty"),
        (da.zeros((2, 3, 4), dtype=complex), TypeError, "complex128"),
    ],
)
def test_what_is_no_series_is_refused(array, error, text):
    with pytest.raises(error, match=text):
        as_series(array)


@pytest.mark.graphs("indexing with a bool array")
def test_unknown_lengths_are_refused():
    array = da.from_array(np.arange(24).reshape(4, 3, 2), chunks=2)
    with pytest.raises(ValueError, match="unknown lengths"):
        as_series(array[array[:, 0, 0] > 3])


def test_array_that_lies_about_its_frames_is_found_out():
    array = da.zeros((3, 4, 5), dtype="u2", chunks=(1, 4, 5))
    for lie in (lambda b: b.astype("u4"), lambda b: b[:, :2]):
        series = as_series(array.map_blocks(lie, dtype="u2", meta=np.empty((0, 0, 0), "u2")))
        with pytest.raises(ValueError, match="frame 0"):
            list(series.pieces(0, 1, 0, 4, 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda array: stats.max(array, dark=np.zeros((4, 5), "u2")).compute(),
        lambda array: stats.average(array, dark=np.zeros((4, 5)), frames=[2, 0]).compute(),
        lambda array: stats.wrap(array, "rows").compute(),
    ],
)
def test_blocks_of_another_dtype_are_never_cast(call):
    array = da.zeros((3, 4, 5), dtype="u2", chunks=(1, 4, 5))
    for dtype in ("f4", "i8"):
        other = array.map_blocks(np.ndarray.astype, dtype, meta=np.empty((0, 0, 0), "u2"))
        with pytest.raises(ValueError, match=rf"dtype {np.dtype(dtype)}, expected uint16"):
            call(other)
    swapped = (array + np.arange(5, dtype="u2")).map_blocks(
        np.ndarray.astype, ">u2", meta=np.empty((0, 0, 0), "u2")
    )
    np.testing.assert_array_equal(call(swapped)[..., -1], 4)


@pytest.mark.graphs("reshape")
@pytest.mark.parametrize(
    ("chunks", "units"),
    [((1, 4, 5, 6), (4, None)), ((2, 3, 5, 6), (3, None)), ((3, 4, 2, 3), (4, 2))],
)
def test_leading_axes_count_as_frames(chunks, units):
    frames = make_frames("u2", 12)
    array = da.from_array(frames.reshape(3, 4, 5, 6), chunks=chunks)
    series = as_series(array)
    check_series(series, frames)
    assert (series.frame_unit, series.row_unit) == units
    unknown = array[da.from_array(np.array([True, False, True]))]
    with pytest.raises(ValueError, match="unknown lengths"):
        as_series(unknown)
