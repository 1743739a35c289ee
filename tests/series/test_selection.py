"""Chosen frames and regions read as numpy indexes them, and nothing else is read."""

import pickle
from unittest import mock

import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize
from fakes import Fail, FakeSeries
from helpers import DTYPES, check_series, make_frames, read_dense
from hypothesis import given, settings
from hypothesis import strategies as st

import daskstats as stats
from daskstats.series.arrays import ArraySource, FrameListSource
from daskstats.series.daskarrays import DaskSource
from daskstats.series.opening import as_series
from daskstats.series.selection import SelectedSource, select

FRAMES = [
    slice(2, 5),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(-3, None),
    [0],
    [-1, 0, 3, 3, 4, 5],
    range(1, 6),
    np.array([6, 2], "u1"),
    np.arange(7) % 3 == 0,
    [True, False, True, True, False, False, False],
]
REGIONS = [None, ((0, 5), (0, 6)), ((1, 3), (0, 6)), ((0, 5), (2, 5)), ((4, 5), (5, 6))]


def expected(frames, chosen, region):
    (r0, r1), (c0, c1) = region or ((0, None), (0, None))
    chosen = chosen if isinstance(chosen, slice) else np.asarray(chosen)
    return frames[chosen, r0:r1, c0:c1]


def hdf5(frames, tmp_path):
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("scan", data=frames, chunks=(2, 2, 6))
    return tmp_path / "scan.h5"


def npy(frames, tmp_path):
    np.save(tmp_path / "scan.npy", frames)
    return tmp_path / "scan.npy"


KINDS = {
    "array": lambda frames, tmp_path: frames,
    "fortran": lambda frames, tmp_path: np.asfortranarray(frames),
    "list": lambda frames, tmp_path: list(frames),
    "sequence": lambda frames, tmp_path: FakeSeries(frames),
    "dask": lambda frames, tmp_path: da.from_array(frames, chunks=(3, 2, 6)),
    "hdf5": hdf5,
    "npy": npy,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("region", REGIONS)
def test_selections_are_series(kind, region, tmp_path):
    frames = make_frames("u2")
    source = as_series(KINDS[kind](frames, tmp_path))
    for chosen in FRAMES:
        selected = select(source, chosen, region)
        wanted = expected(frames, chosen, region)
        dense = read_dense(selected, (0, len(wanted), 0, wanted.shape[1], 3))
        np.testing.assert_array_equal(dense, wanted)
    check_series(select(source, FRAMES[5], region), expected(frames, FRAMES[5], region))
    check_series(select(source, FRAMES[0], region), expected(frames, FRAMES[0], region))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    frames = make_frames(dtype)
    for kind in (np.asarray, FakeSeries):
        chosen = select(as_series(kind(frames)), [4, 4, 0], ((1, 4), (2, 3)))
        check_series(chosen, frames[[4, 4, 0], 1:4, 2:3])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_selection_of_a_selection_is_one(data):
    frames = make_frames("i4", 9, 6, 8)
    source = data.draw(st.sampled_from([frames, FakeSeries(frames), list(frames)]))
    source = as_series(source)
    for _ in range(2):
        indices = st.integers(-len(frames), len(frames) - 1)
        chosen = data.draw(
            st.one_of(st.lists(indices, min_size=1), st.just(slice(0, None, 2)), st.none())
        )
        region = tuple(
            tuple(sorted(data.draw(st.lists(edges, min_size=2, max_size=2, unique=True))))
            for edges in (st.integers(0, length) for length in frames.shape[1:])
        )
        source = select(source, chosen, region)
        frames = expected(frames, slice(None) if chosen is None else chosen, region)
    dense = read_dense(source, (0, len(frames), 0, frames.shape[1], 4))
    np.testing.assert_array_equal(dense, frames)
    assert not isinstance(source, SelectedSource) or not isinstance(source.source, SelectedSource)


def test_nothing_else_is_read():
    ims = FakeSeries(make_frames("u2"))
    selected = select(as_series(ims), [5, 1, 2], ((0, 2), (0, 2)))
    assert ims.reads == []
    list(selected.pieces(1, 3, 0, 2, 5))
    assert ims.reads == [1, 2]


def test_neighbours_are_read_at_once_and_only_their_rows():
    source = ArraySource(make_frames("u2"))
    selected = SelectedSource(source, [1, 2, 3, 6, 0], (2, 4), (0, 6))
    with mock.patch.object(source, "read", wraps=source.read) as read:
        selected.read(0, 5, 0, 1)
    assert [call.args for call in read.call_args_list] == [(1, 4, 2, 3), (6, 7, 2, 3), (0, 1, 2, 3)]


def test_what_is_in_memory_stays_a_view():
    frames = make_frames("u2")
    for chosen, kind in ((slice(1, 6, 2), ArraySource), ([3, 0, 1], FrameListSource)):
        for ims in (frames, list(frames)):
            selected = select(as_series(ims), chosen, ((1, 3), (0, 6)))
            assert selected.in_memory
            assert type(selected) is (kind if ims is frames else FrameListSource)
            for piece in selected.pieces(0, 3, 0, 2, 3):
                assert all(np.shares_memory(block, frames) for block in piece)
            # A task is sent its own pixels.
            part = selected.part(0, 1, 0, 1)
            assert len(pickle.dumps(part)) < len(pickle.dumps(selected)) + 100


def test_maps_stay_views_for_threads_and_paths_for_processes(tmp_path):
    frames = make_frames("u2", 40, 30, 20)
    selected = select(as_series(npy(frames, tmp_path)), [7, 3], ((2, 5), (0, 20)))
    assert selected.in_memory
    assert selected.part(0, 1, 0, 1) is None
    view = selected.view(0, 2, 1, 3)
    np.testing.assert_array_equal(read_dense(view, (0, 2, 0, 2, 1)), frames[[7, 3], 3:5])
    assert len(pickle.dumps(selected)) < 2000


def test_a_region_keeps_no_whole_frame_alive():
    frames = make_frames("u2", 3, 40, 50)
    selected = select(as_series(FakeSeries(frames)), region=((0, 4), (0, 50)))
    (piece,) = selected.pieces(0, 3, 0, 4, 3)
    assert all(block.base is None or block.base.nbytes == block.nbytes for block in piece)


def test_dask_arrays_are_sliced():
    array = da.from_array(make_frames("u2"), chunks=(2, 5, 6))
    selected = select(as_series(array), [6, 0], ((0, 2), (1, 6)))
    assert isinstance(selected, DaskSource)
    assert selected.array.shape == (2, 2, 5)


@pytest.mark.parametrize(
    ("frames", "region", "units"),
    [
        (slice(3, 7), None, (2, 2)),
        ([3], None, (1, 2)),
        ([0, 2, 4], None, (1, 2)),
        (slice(0, 6), ((0, 1), (0, 6)), (2, 1)),
    ],
)
def test_units_for_the_plan(frames, region, units, tmp_path):
    source = as_series(hdf5(make_frames("u2"), tmp_path))
    assert (source.frame_unit, source.row_unit) == (2, 2)
    selected = select(source, frames, region)
    assert (selected.frame_unit, selected.row_unit) == units


def test_errors_name_the_frame_of_the_source(monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0, 0))
    frames = make_frames("u2")
    ims = FakeSeries(frames, on_read=Fail({5: 2}, ConnectionError("down")))
    selected = select(as_series(ims), [2, 5])
    assert len(list(selected.pieces(0, 2, 0, 5, 2))) == 1
    ims = FakeSeries(frames, on_read=Fail({5: 10}, ConnectionError("down")))
    with pytest.raises(ConnectionError) as raised:
        list(select(as_series(ims), [2, 5]).pieces(0, 2, 0, 5, 2))
    assert raised.value.__notes__ == ["while reading frame 5"]
    ragged = FakeSeries([*frames[:6], frames[6, :3]])
    with pytest.raises(ValueError, match=r"frame 6 has shape \(3, 6\)"):
        list(select(as_series(ragged), [1, 6]).pieces(0, 2, 0, 5, 2))


def test_all_of_it_is_the_source_itself():
    source = as_series(make_frames("u2"))
    assert select(source) is source


def test_tokens_tell_selections_apart():
    for ims in (make_frames("u2"), FakeSeries(make_frames("u2"))):
        source = as_series(ims)
        assert tokenize(select(source, [1, 2])) == tokenize(select(source, [1, 2]))
        assert tokenize(select(source, [1, 2])) != tokenize(select(source, [1, 3]))
        assert tokenize(select(source, [1])) != tokenize(select(source, [1], ((0, 1), (0, 1))))


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ([7], ValueError, "frames has index 7, but there are 7 frames"),
        ([0, -8], ValueError, "frames has index -8"),
        ([], ValueError, "none of the 7 frames"),
        (slice(5, 5), ValueError, "none of the 7 frames"),
        (np.zeros(7, bool), ValueError, "none of the 7 frames"),
        (np.ones(6, bool), ValueError, "6 bools for 7 frames"),
        ([1.0], TypeError, "frames"),
        ([[1]], TypeError, "frames"),
        (3, TypeError, "frames"),
        ("1", TypeError, "frames"),
        (slice(0, "a"), TypeError, "frames"),
        (slice(0, 2.5), TypeError, "frames"),
        ({"a": 1}, TypeError, "frames"),
    ],
)
def test_bad_frames(frames, error, message):
    with pytest.raises(error, match=message):
        select(as_series(make_frames("u2")), frames)


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        (((0, 6), (0, 6)), ValueError, "rows 0:6, but frames have rows 0:5"),
        (((0, 5), (3, 3)), ValueError, "columns 3:3"),
        (((-1, 5), (0, 6)), ValueError, "rows -1:5"),
        ((0, 5, 0, 6), TypeError, "region"),
        (((0, 5),), TypeError, "region"),
        (((0, 5.0), (0, 6)), TypeError, "region"),
        (((0, True), (0, 6)), TypeError, "region"),
        ("abcd", TypeError, "region"),
        (7, TypeError, "region"),
    ],
)
def test_bad_regions(region, error, message):
    with pytest.raises(error, match=message):
        select(as_series(make_frames("u2")), region=region)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_a_selection(kind, tmp_path):
    frames = make_frames("u2", 12, 20, 6)
    source = as_series(KINDS[kind](frames, tmp_path))
    selected = select(source, [3, 4, 9, 1, 1], ((3, 17), (1, 4)))
    wanted = frames[[3, 4, 9, 1, 1], 3:17, 1:4]
    np.testing.assert_array_equal(stats.max(selected).compute(), wanted.max(axis=0))
    median = np.median(wanted, axis=0).astype("f4")
    np.testing.assert_array_equal(stats.median(selected).compute(), median)
