"""Which source takes what, locks, and the integers that come with a series."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize
from dask.utils import SerializableLock
from helpers import DTYPES, Obliging, Sequence, check_series, make_frames

from daskstats.plan import Layout
from daskstats.series import (
    LockedSource,
    Series,
    as_series,
    count_chunks,
    count_frames,
    integer,
    layout,
)
from daskstats.sources import suffixes


def test_kind_is_chosen_by_type(tmp_path):
    import h5py
    import zarr

    frames = make_frames("u2")
    np.save(tmp_path / "scan.npy", frames)
    file = h5py.File(tmp_path / "scan.h5", "w")
    things = {
        "ArraySource": frames,
        "FrameListSource": list(frames),
        "SequenceSource": Sequence(frames),
        "DaskSource": da.from_array(frames),
        "ZarrSource": zarr.array(frames),
        "Hdf5DatasetSource": file.create_dataset("a", data=frames),
        "NpySource": tmp_path / "scan.npy",
    }
    for name, ims in things.items():
        series = as_series(ims)
        assert type(series).__name__ == name
        assert isinstance(series, Series)
        assert repr(series).startswith(f"<{name}: 7 frames of 5 x 6 uint16")
    file.close()


def test_test_double_with_every_attribute_is_a_sequence():
    assert type(as_series(Obliging(make_frames("u2")))).__name__ == "SequenceSource"


def test_each_suffix_has_one_source():
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in suffixes())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [np.asarray, list, Sequence])
def test_locked_series_reads_the_same(dtype, kind):
    frames = make_frames(dtype)
    check_series(as_series(kind(frames), lock=True), frames)


class OneAtATime(Sequence):
    """A series that notices when two threads read from it."""

    def __init__(self, frames):
        super().__init__(frames)
        self.readers, self.most = 0, 0

    def __getitem__(self, index):
        self.readers += 1
        self.most = max(self.most, self.readers)
        time.sleep(0.002)
        self.readers -= 1
        return super().__getitem__(index)


def read_in_threads(*series):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda s: list(s.pieces(0, 7, 0, 5, 2)), series * 4))


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, SerializableLock, lambda: True])
def test_lock_lets_one_thread_at_a_time_in(lock):
    ims = OneAtATime(make_frames("u2"))
    read_in_threads(as_series(ims, lock=lock()))
    assert ims.most == 1


def test_without_a_lock_several_threads_read():
    ims = OneAtATime(make_frames("u2"))
    read_in_threads(as_series(ims))
    assert ims.most > 1


def test_two_series_of_one_object_share_their_lock():
    """Two statistics of one series may be computed together."""
    ims = OneAtATime(make_frames("u2"))
    read_in_threads(as_series(ims, lock=True), as_series(ims, lock=True))
    assert ims.most == 1


def test_locked_series_is_the_same_to_a_plan_and_retries(monkeypatch):
    monkeypatch.setattr("daskstats.sources.base.RETRY_AFTER", (0, 0))
    frames = make_frames("u2")
    for ims in (frames, np.asfortranarray(frames), list(frames), Sequence(frames)):
        assert layout(as_series(ims, lock=True), 7) == layout(as_series(ims), 7)

    class Down(Sequence):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise ConnectionError("down")

    ims = Down(frames)
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
        (Sequence(np.zeros((7, 5, 6), "f8")), Layout(3, 5, 6, 8, row_unit=5)),
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
    count = count_frames(nframes, as_series(make_frames("u2")))
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
        lambda: count_frames(value, as_series(make_frames("u2"))),
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
