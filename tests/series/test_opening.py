"""Which source takes what, locks, and the integers that come with a series."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.base import tokenize
from dask.utils import SerializableLock
from fakes import Fail, FakeSeries, Mock, wait_for_another
from helpers import DTYPES, check_series, make_frames

import daskstats as stats
from daskstats.arguments import count_chunks, count_frames, integer
from daskstats.formats.table import FORMATS
from daskstats.planning.values import Layout
from daskstats.series.base import Source, layout
from daskstats.series.locked import LockedSource
from daskstats.series.opening import as_series


def test_kind_is_chosen_by_type(tmp_path):
    import h5py
    import zarr

    frames = make_frames("u2")
    np.save(tmp_path / "scan.npy", frames)
    file = h5py.File(tmp_path / "scan.h5", "w")
    things = {
        "ArraySource": frames,
        "FrameListSource": list(frames),
        "SequenceSource": FakeSeries(frames),
        "DaskSource": da.from_array(frames),
        "ZarrSource": zarr.array(frames),
        "Hdf5DatasetSource": file.create_dataset("a", data=frames),
        "NpySource": tmp_path / "scan.npy",
    }
    for name, ims in things.items():
        series = as_series(ims)
        assert type(series).__name__ == name
        assert isinstance(series, Source)
        assert repr(series).startswith(f"<{name}: 7 frames of 5 x 6 uint16")
    file.close()


def test_test_double_with_every_attribute_is_a_sequence():
    assert type(as_series(Mock(make_frames("u2")))).__name__ == "SequenceSource"


def mocked(frames, **options):
    ims = mock.MagicMock(**options)
    ims.__len__.return_value = len(frames)
    ims.__getitem__.side_effect = lambda index: frames[index]
    ims.shape, ims.dtype = frames.shape[1:], frames.dtype
    return ims


SPECS = [None, np.ndarray, list, str, Path, da.Array, zarr.Array, os.PathLike, Source, FakeSeries]


@pytest.mark.parametrize("spec", SPECS)
def test_mock_with_the_four_names_is_a_series(spec):
    """It has every attribute, __fspath__ too, and says that it is of another class."""
    frames = make_frames("u2")
    names = [*dir(spec), "__len__", "__getitem__", "shape", "dtype"] if spec else None
    ims = mocked(frames, spec=names)
    if spec:
        ims.__class__ = spec
    series = as_series(ims)
    assert type(series).__name__ == "SequenceSource"
    check_series(series, frames, pickles=False)
    np.testing.assert_array_equal(stats.max(ims).compute(), frames.max(axis=0))


def test_mock_that_follows_a_class_is_a_series():
    h5py = pytest.importorskip("h5py")
    frames = make_frames("u2")
    for spec in (np.ndarray, da.Array, h5py.Dataset, FakeSeries):
        assert type(as_series(mocked(frames, spec=spec))).__name__ == "SequenceSource"


def test_mock_of_a_frame_is_no_frame():
    frames = make_frames("u2")
    ims = mocked(frames)
    ims.__getitem__.side_effect = lambda index: mock.MagicMock(spec=np.ndarray)
    with pytest.raises(ValueError, match="frame 0 is an? .*MagicMock"):
        list(as_series(ims).pieces(0, 7, 0, 5, 1))
    with pytest.raises(TypeError, match="frame 0 is an? .*MagicMock"):
        as_series([mock.MagicMock(spec=np.ndarray)])


def test_mock_without_the_names_is_refused():
    with pytest.raises(ValueError, match="no frames"):
        as_series(mock.MagicMock())
    with pytest.raises(TypeError, match="NonCallableMock is not an image series"):
        as_series(mock.NonCallableMock(spec=["shape", "dtype"]))


class PathLike:
    """As of pathlib's many cousins."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class ScanOfAPath(PathLike, FakeSeries):
    """A series that knows where its frames are."""

    def __init__(self, path, frames):
        PathLike.__init__(self, path)
        FakeSeries.__init__(self, frames)


class Delegating(PathLike):
    """A wrapper, whose class has no shape and no dtype, as no subclass of `FakeSeries` could be."""

    def __init__(self, path, ims):
        super().__init__(path)
        self._ims = ims

    def __len__(self):
        return len(self._ims)

    def __getitem__(self, index):
        return self._ims[index]

    def __getattr__(self, name):
        return getattr(self.__dict__["_ims"], name)


def test_series_that_is_also_a_path_is_a_series():
    frames = make_frames("u2")
    ims = ScanOfAPath("scan.tif", frames)
    assert type(as_series(ims)).__name__ == "SequenceSource"
    assert ims.asked == {"len": 1, "shape": 1, "dtype": 1}
    check_series(as_series(Delegating("scan.tif", FakeSeries(frames))), frames, pickles=False)


def test_everything_that_is_only_a_path_is_opened(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, make_frames("u2"))
    (entry,) = os.scandir(tmp_path)

    class Text(str):
        shape = dtype = None  # a path is a path

    for name in (path, str(path), PathLike(path), entry, Text(path)):
        assert type(as_series(name)).__name__ == "NpySource"


def test_each_suffix_has_one_source():
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in FORMATS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [np.asarray, list, FakeSeries])
def test_locked_series_reads_the_same(dtype, kind):
    frames = make_frames(dtype)
    check_series(as_series(kind(frames), lock=True), frames)


def read_in_threads(*series):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda s: list(s.pieces(0, 7, 0, 5, 2)), series * 4))


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, SerializableLock, lambda: True])
def test_lock_lets_one_thread_at_a_time_in(lock):
    ims = FakeSeries(make_frames("u2"), delay=0.002)
    read_in_threads(as_series(ims, lock=lock()))
    assert ims.most == 1


def test_without_a_lock_several_threads_read():
    ims = FakeSeries(make_frames("u2"), on_read=lambda index: wait_for_another(ims))
    read_in_threads(as_series(ims))
    assert ims.most > 1


def test_two_series_of_one_object_share_their_lock():
    """Two statistics of one series may be computed together."""
    ims = FakeSeries(make_frames("u2"), delay=0.002)
    read_in_threads(as_series(ims, lock=True), as_series(ims, lock=True))
    assert ims.most == 1


def test_locked_series_is_the_same_to_a_plan_and_retries(monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0, 0))
    frames = make_frames("u2")
    for ims in (frames, np.asfortranarray(frames), list(frames), FakeSeries(frames)):
        assert layout(as_series(ims, lock=True), 7) == layout(as_series(ims), 7)

    ims = FakeSeries(frames, on_read=Fail({2: 3}, ConnectionError("down")))
    with pytest.raises(ConnectionError) as caught:
        list(as_series(ims, lock=True).pieces(2, 5, 0, 5, 10))
    assert ims.reads == [2, 2, 2]
    assert caught.value.__notes__ == ["while reading frame 2"]


def test_locked_series_pickles_with_its_lock(tmp_path):
    np.save(tmp_path / "scan.npy", make_frames("u2"))
    series = as_series(tmp_path / "scan.npy", lock=True)
    copy = pickle.loads(pickle.dumps(series))
    assert isinstance(copy, LockedSource)
    assert copy._lock.lock is series._lock.lock
    assert tokenize(copy) == tokenize(series)
    assert tokenize(series) != tokenize(as_series(tmp_path / "scan.npy"))


@pytest.mark.parametrize("lock", [0, 1, "yes", np.True_, object()])
def test_what_is_no_lock_is_refused(lock):
    with pytest.raises(TypeError, match="lock must be True, False or a lock"):
        as_series(make_frames("u2"), lock=lock)


@pytest.mark.parametrize("lock", [False, None])
def test_no_lock(lock):
    assert type(as_series(make_frames("u2"), lock=lock)).__name__ == "ArraySource"


@pytest.mark.parametrize(
    ("ims", "expected"),
    [
        (np.zeros((7, 5, 6), "u2"), Layout(3, 5, 6, 2, in_memory=True)),
        (np.zeros((7, 5, 6), ">u2"), Layout(3, 5, 6, 2)),
        (FakeSeries(np.zeros((7, 5, 6), "f8")), Layout(3, 5, 6, 8, row_unit=5)),
        (da.zeros((7, 5, 6), chunks=(2, 3, 6)), Layout(3, 5, 6, 8, 2, 3, again=False)),
        (da.zeros((7, 5, 6), chunks=(2, 5, 6)), Layout(3, 5, 6, 8, 2, 5, again=False)),
    ],
)
def test_layout(ims, expected):
    assert layout(as_series(ims), 3) == expected


@pytest.mark.parametrize(
    ("nframes", "expected"),
    [
        (0, 7),
        (-1, 7),
        (-(10**30), 7),
        (1, 1),
        (7, 7),
        (8, 7),
        (10**30, 7),
        (np.int8(3), 3),
        (np.uint64(3), 3),
        (np.array(3), 3),
    ],
)
def test_count_frames(nframes, expected):
    count = count_frames(nframes, len(make_frames("u2")))
    assert count == expected
    assert type(count) is int


NOT_INTEGERS = [
    None,
    True,
    False,
    np.True_,
    1.0,
    2.5,
    float("nan"),
    np.float64(3),
    "3",
    b"3",
    3j,
    Fraction(3),
    [3],
    (),
    np.array([3, 4]),
    np.array([3.0]),
    Path("3"),
]


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_what_is_no_integer_is_refused(value):
    for check in (
        lambda: integer(value, "nframes"),
        lambda: count_frames(value, len(make_frames("u2"))),
    ):
        with pytest.raises(TypeError, match="nframes must be an integer"):
            check()
    with pytest.raises(TypeError, match="nchunks must be an integer"):
        count_chunks(value, 7, "nchunks")


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_count_chunks(value):
    assert count_chunks(value, 7) == value
    assert type(count_chunks(value, 7)) is int


@pytest.mark.parametrize("value", [0, -1, np.int8(-128), -(10**30)])
def test_too_few_chunks(value):
    with pytest.raises(ValueError, match=f"nchunks must be at least 1, got {value}"):
        count_chunks(value, 7, "nchunks")


@pytest.mark.parametrize("value", [8, 10**30])
def test_too_many_chunks(value):
    text = f"number of chunks cannot exceed number of items: nchunk is {value}, there are 7 items"
    with pytest.raises(ValueError, match=text):
        count_chunks(value, 7)


STRANGE = np.random.default_rng(0).integers(0, 256, (6, 5, 7), "u1")
STRANGE[STRANGE < 128] = 0

BOOL_SOURCES = {
    "array": lambda frames, path: frames,
    "reversed": lambda frames, path: frames[:, ::-1][:, ::-1],
    "strided": lambda frames, path: np.repeat(frames.view("u1"), 2, axis=2).view("?")[:, :, ::2],
    "list": lambda frames, path: list(frames),
    "series": lambda frames, path: FakeSeries(frames),
    "dask": lambda frames, path: da.from_array(frames, chunks=(2, 2, 4)),
    "npy": lambda frames, path: np.save(path / "scan.npy", frames) or path / "scan.npy",
}


@pytest.mark.parametrize("kind", BOOL_SOURCES)
def test_every_byte_but_0_is_true(kind, tmp_path):
    """Frames of bool whose bytes are neither 0 nor 1: each of them counts once."""
    frames, right = STRANGE.view("?"), STRANGE != 0
    ims = BOOL_SOURCES[kind](frames, tmp_path)
    before = STRANGE.copy()
    for name in ("max", "min", "sum", "average", "std", "median", "range", "argmax", "argmin"):
        image = getattr(stats, name)(ims).compute()
        assert image.tobytes() == getattr(stats, name)(right).compute().tobytes(), name
    check_strange(ims, right, [("count_above", 0.5), ("percentile", 30), "max"])
    for name in ("max", "average", "median"):
        images = getattr(stats, f"{name}_iter")(ims, 3)
        assert [i.tobytes() for i in images] == [
            i.tobytes() for i in getattr(stats, f"{name}_iter")(right, 3)
        ]
    assert (before == STRANGE).all(), "the frames themselves have been changed"


def check_strange(ims, right, every):
    for options in ({}, {"invalid": 1, "fill_value": 0}, {"saturation": 1, "fill_value": 0}):
        images = dask.compute(stats.aggregate(ims, every, **options))[0]
        wanted = dask.compute(stats.aggregate(right, every, **options))[0]
        for name, image in images.items():
            assert image.tobytes() == wanted[name].tobytes(), (name, options)


@pytest.mark.nightly
def test_every_byte_but_0_is_true_in_more_statistics():
    every = ["min", "sum", "std", ("clipped_average", 1), "argmax", "argmin"]
    check_strange(STRANGE.view("?"), STRANGE != 0, every)


def test_strange_bools_that_wait_on_disk(tmp_path):
    frames = np.tile(STRANGE, (20, 20, 20)).view("?")
    with dask.config.set({"temporary-directory": str(tmp_path), "num_workers": 1}):
        for limit in ("6 MiB", "1 GiB"):
            image = stats.median(FakeSeries(frames), memory_limit=limit).compute()
            np.testing.assert_array_equal(image, np.median(frames.view("u1") != 0, axis=0))


def test_strange_bools_are_copied_within_the_plan():
    """A piece is copied, and planned for, even where it could be a view of the user's array."""
    frames = STRANGE.view("?")
    assert not layout(as_series(frames), 6).in_memory
    series = as_series(FakeSeries(frames))
    assert layout(series, 6).buffers == 1 + series.buffers
    assert layout(as_series(frames.astype("u1")), 6).in_memory
    (piece,) = as_series(STRANGE.astype("?")).pieces(0, 6, 0, 5, 6)
    assert piece[0].base is not None, "what is 0 and 1 is not copied"
