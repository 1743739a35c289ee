"""wrap: every kind of series as a lazily chunked dask array."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.utils import key_split
from fakes import FakeSeries
from helpers import DTYPES, make_frames

import daskstats as stats
from daskstats import MemoryLimitError
from daskstats.planning import cuts, frame_wise


def as_npy(frames, path):
    np.save(path / "scan.npy", frames)
    return path / "scan.npy"


def as_npz(frames, path):
    arrays = {"shape": frames.shape[1:], "nframes": len(frames), "dtype": str(frames.dtype)}
    rows, cols = np.indices(frames.shape[1:]).reshape(2, -1)
    for i, frame in enumerate(frames):
        arrays |= {f"{i}_row": rows, f"{i}_col": cols, f"{i}_data": frame.ravel()}
    np.savez(path / "scan.npz", **arrays)
    return path / "scan.npz"


def as_zarr(frames, path):
    import zarr

    chunks = 2, 2, frames.shape[2]
    array = zarr.create_array(
        path / "scan.zarr", shape=frames.shape, dtype=frames.dtype, chunks=chunks
    )
    array[...] = frames
    return path / "scan.zarr"


def as_hdf5(frames, path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path / "scan.h5", "w") as file:
        file.create_dataset("images", data=frames, chunks=(2, 5, frames.shape[2]))
    return path / "scan.h5"


KINDS = {
    "array": lambda frames, path: frames,
    "Fortran array": lambda frames, path: np.asfortranarray(frames),
    "list": lambda frames, path: list(frames),
    "sequence": lambda frames, path: FakeSeries(frames),
    "dask": lambda frames, path: da.from_array(frames, chunks=(3, 2, 4)),
    "npy": as_npy,
    "npz": as_npz,
    "zarr": as_zarr,
    "hdf5": as_hdf5,
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
both_ways = pytest.mark.parametrize("along", ["frames", "rows"])


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks so small that frames of 60 bytes take several."""
    monkeypatch.setattr(cuts, "SMALLEST_BLOCK", 1)
    monkeypatch.setattr(cuts, "LARGEST_BLOCK", 200)
    monkeypatch.setattr(frame_wise, "LARGEST_BLOCK", 200)


@every_kind
@both_ways
@pytest.mark.parametrize("dtype", ["u2", ">f4"])
@pytest.mark.parametrize("nframes", [0, 4])
@pytest.mark.usefixtures("small_blocks")
def test_values(tmp_path, kind, along, dtype, nframes):
    frames = make_frames(dtype)
    array = stats.wrap(kind(frames, tmp_path), along, nframes)
    expected = frames[: nframes or None].astype(frames.dtype.newbyteorder("="))
    assert isinstance(array, da.Array)
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype
    assert array.dtype.isnative
    result = array.compute()
    assert result.dtype == expected.dtype
    assert result.tobytes() == expected.tobytes()
    piece = array[1:3, 2:4, ::2].compute()
    assert piece.tobytes() == expected[1:3, 2:4, ::2].tobytes()


@every_kind
@pytest.mark.usefixtures("small_blocks")
def test_blocks_hold_whole_frames_or_all_frames_of_some_rows(tmp_path, kind):
    ims = kind(make_frames("u2"), tmp_path)
    assert stats.wrap(ims, "frames").chunks[1:] == ((5,), (6,))
    assert stats.wrap(ims, "frames").numblocks[0] > 1
    rows = stats.wrap(ims, "rows")
    assert (rows.chunks[0], rows.chunks[2]) == ((7,), (6,))
    assert rows.numblocks[1] > 1


@pytest.mark.parametrize("dtype", DTYPES)
@both_ways
def test_every_dtype(dtype, along):
    frames = make_frames(dtype)
    array = stats.wrap(FakeSeries(frames), along)
    assert array.dtype == frames.dtype.newbyteorder("=")
    assert np.array_equal(array.compute(), frames, equal_nan=frames.dtype.kind == "f")


@both_ways
@pytest.mark.usefixtures("small_blocks")
def test_nothing_is_read_before_it_is_computed(along):
    ims = FakeSeries(make_frames("u2"))
    array = stats.wrap(ims, along)
    array = array + 1
    repr(array)
    assert ims.reads == []
    assert ims.asked == {"len": 1, "shape": 1, "dtype": 1}


@both_ways
@pytest.mark.usefixtures("small_blocks")
def test_each_frame_is_read_once(along):
    ims = FakeSeries(make_frames("u2"))
    stats.wrap(ims, along).compute()
    assert sorted(ims.reads) == list(range(7))


@pytest.mark.usefixtures("small_blocks")
def test_only_the_blocks_that_are_needed_are_read():
    ims = FakeSeries(make_frames("u2"))
    array = stats.wrap(ims)
    array[0].compute()
    assert set(ims.reads) == set(range(array.chunks[0][0]))
    assert len(ims.reads) < 7


def test_nframes_limits_what_is_read():
    ims = FakeSeries(make_frames("u2"))
    stats.wrap(ims, "rows", 3).compute()
    assert sorted(ims.reads) == [0, 1, 2]


@both_ways
def test_blocks_of_an_array_are_read_only_views(along):
    frames = make_frames("u2")
    before = frames.copy()
    array = stats.wrap(frames, along)
    block = dask.get(dict(array.dask), (array.name, 0, 0, 0))  # compute() makes a copy
    assert np.shares_memory(block, frames)
    with pytest.raises(ValueError, match="read-only"):
        block[...] = 0
    assert frames.flags.writeable
    np.testing.assert_array_equal(frames, before)


def test_dask_array_that_fits_is_used_as_it_is():
    array = da.from_array(make_frames("u2", 8, 4, 6), chunks=(8, 4, 6))
    for along in ("frames", "rows"):
        assert stats.wrap(array, along).name == array.name


@pytest.mark.usefixtures("small_blocks")
def test_dask_array_is_cut_where_its_blocks_meet():
    array = da.from_array(make_frames("u2", 12, 4, 6), chunks=(3, 4, 6))
    own = set(np.cumsum(array.chunks[0]))
    assert own <= set(np.cumsum(stats.wrap(array).chunks[0]))


@both_ways
def test_names_tell_series_apart(tmp_path, along):
    frames = make_frames("u2")
    ims = FakeSeries(frames)
    path = as_npy(frames, tmp_path)
    assert stats.wrap(path, along).name == stats.wrap(path, along).name
    assert stats.wrap(ims, along).name != stats.wrap(FakeSeries(frames), along).name
    assert stats.wrap(path, along).name != stats.wrap(path, along, 3).name
    assert stats.wrap(path, "frames").name != stats.wrap(path, "rows").name


@pytest.mark.parametrize("kind", [as_npy, as_npz, as_zarr, as_hdf5])
@both_ways
def test_few_and_many_frames_at_once(tmp_path, kind, along):
    frames = make_frames("u2", 12, 16, 4096)  # 8 of them are read at once
    ims = kind(frames, tmp_path)
    for few, many in ((3, 7), (9, 11)):
        both = dask.compute(stats.wrap(ims, along, few), stats.wrap(ims, along, many))
        np.testing.assert_array_equal(both[0], frames[:few])
        np.testing.assert_array_equal(both[1], frames[:many])


@both_ways
def test_several_at_once(along):
    one, two = make_frames("u2", seed=1), make_frames("u2", seed=2)
    first, second = dask.compute(stats.wrap(one, along), stats.wrap(FakeSeries(two), along))
    np.testing.assert_array_equal(first, one)
    np.testing.assert_array_equal(second, two)


@every_kind
@both_ways
def test_synchronous_scheduler(tmp_path, kind, along):
    frames = make_frames("u2")
    array = stats.wrap(kind(frames, tmp_path), along)
    np.testing.assert_array_equal(array.compute(scheduler="synchronous"), frames)


def test_processes(tmp_path):
    frames = make_frames("u2")
    arrays = [stats.wrap(as_npz(frames, tmp_path)), stats.wrap(as_hdf5(frames, tmp_path), "rows")]
    for result in dask.compute(*arrays, scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(result, frames)


def test_processes_send_no_frames_to_each_other():
    """A series of whole frames: they would have to be sent to the tasks of all rows."""

    def names(array):
        return {key_split(key) for key in array.__dask_graph__()}

    frames = make_frames("u2", 12, 30, 40)
    ims = FakeSeries(frames)
    with dask.config.set(scheduler="processes", num_workers=2):
        assert stats.plan(ims, "median").strategy == "reread"
        array = stats.wrap(ims, "rows")
        assert "read-frames" not in names(array)
        np.testing.assert_array_equal(array.compute(), frames)
    with dask.config.set(scheduler="threads"):
        assert "read-frames" in names(stats.wrap(ims, "rows"))


@both_ways
@pytest.mark.parametrize("index", [0, 3, 6])
def test_wrong_frame_is_named_when_computed(along, index):
    frames = list(make_frames("u2"))
    ims = FakeSeries(list(frames))
    array = stats.wrap(ims, along)
    ims._frames[index] = frames[index][:, :5]
    with pytest.raises(ValueError, match=rf"frame {index} has shape \(5, 5\), expected \(5, 6\)"):
        array.compute()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"along": "cols"}, ValueError, "along must be"),
        ({"along": None}, ValueError, "along must be"),
        ({"along": 0}, ValueError, "along must be"),
        ({"along": ["frames"]}, ValueError, "along must be"),
        ({"nframes": 2.5}, TypeError, "nframes must be an integer"),
        ({"nframes": True}, TypeError, "nframes must be an integer"),
        ({"nframes": None}, TypeError, "nframes must be an integer"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be"),
        ({"memory_limit": "abc"}, ValueError, "memory_limit must be"),
        ({"memory_limit": True}, TypeError, "memory_limit must be"),
        ({"lock": 3}, TypeError, "lock must be"),
        ({"memory_limit": 100}, MemoryLimitError, "7 frames of 5 x 6 need at least"),
    ],
)
def test_errors_come_at_the_call_and_before_a_read(arguments, error, text):
    ims = FakeSeries(make_frames("u2"))
    with pytest.raises(error, match=text):
        stats.wrap(ims, **arguments)
    assert ims.reads == []


@pytest.mark.parametrize("ims", [None, 3, object(), "scan.txt", np.zeros((3, 4))])
def test_other_objects_than_series_are_refused(ims):
    with pytest.raises((TypeError, ValueError)):
        stats.wrap(ims)


def test_real_archive_larger_than_memory_is_wrapped_and_read_in_part(real_data):
    path = real_data / "mruby-0129_000004_ff1_000012-cachefile.npz"
    array = stats.wrap(path, "rows", memory_limit="2 GiB")
    assert array.shape == (1440, 3888, 3072)
    with np.load(path) as arrays:
        row, col, data = (arrays[f"700_{field}"] for field in ("row", "col", "data"))
    frame = np.zeros((3888, 3072), "u2")
    np.add.at(frame, (row, col), data)
    block = stats.wrap(path, memory_limit="2 GiB")[700].compute()
    assert np.array_equal(block, frame)
