"""Files that are read forwards: how often they are opened, and when they are closed."""

import gc
import gzip
import threading
import weakref
import zipfile
from contextlib import ExitStack, contextmanager

import dask
import numpy as np
import pytest
from helpers import run_in_threads
from numpy.testing import assert_array_equal

import daskstats as stats
from daskstats.formats import npz, placed
from daskstats.formats.forward import ForwardReaders, InSlices
from daskstats.formats.raw import RawSource

FRAMES = np.random.default_rng(8).integers(0, 1 << 16, (240, 128, 160), "u2")

OPENED = []


class Stream:
    """A file that cannot go back, and notes whether it is open and used by several threads."""

    def __init__(self):
        self.place, self.is_open, self.using = 0, True, threading.Lock()
        OPENED.append(self)

    def read(self, start, stop):
        assert self.is_open
        assert start >= self.place
        assert self.using.acquire(blocking=False)
        self.place = stop
        self.using.release()


@contextmanager
def stream():
    found = Stream()
    try:
        yield found
    finally:
        found.is_open = False


@pytest.fixture(autouse=True)
def _none_opened():
    OPENED.clear()


def read(readers, start, stop, version=None):
    with readers.at(stream, start, stop, version) as found:
        found.read(start, stop)
        return found


def test_reads_in_order_share_one_file():
    readers = ForwardReaders()
    found = {read(readers, start, start + 3) for start in (0, 3, 9, 9 + 3)}
    assert len(found) == len(OPENED) == 1


def test_a_read_takes_the_file_that_is_nearest_before_it():
    readers = ForwardReaders()
    with readers.at(stream, 0, 5) as low, readers.at(stream, 50, 60) as high:
        pass
    assert read(readers, 60, 70) is high
    assert read(readers, 7, 8) is low
    assert read(readers, 65, 66) is low, "since the other is at 70"


def test_reads_that_go_back_do_not_add_up():
    readers = ForwardReaders()
    for start in range(50, 0, -1):
        read(readers, start, start + 1)
    assert len(OPENED) == 50
    assert sum(found.is_open for found in OPENED) == 1


@pytest.mark.parametrize("readings", [2, 4])
def test_threads_read_with_a_file_each(readings):
    readers = ForwardReaders()

    numbers = iter(range(readings))

    def read_some():
        first = 100 * next(numbers)
        for start in range(first, first + 100):
            read(readers, start, start + 1)

    run_in_threads(read_some, readings)
    assert sum(found.is_open for found in OPENED) <= readings
    readers.close()
    assert not any(found.is_open for found in OPENED)


def test_an_error_closes_the_file():
    readers = ForwardReaders()
    with pytest.raises(ValueError, match="damaged"), readers.at(stream, 0, 5):
        raise ValueError("damaged")
    assert [found.is_open for found in OPENED] == [False]
    assert read(readers, 5, 6) is not OPENED[0]


def test_a_file_is_closed_at_its_end():
    """A folder has many files, and a decompressor of bz2 takes 4 MB."""
    readers = ForwardReaders()
    assert not read(readers, 0, None).is_open
    assert read(readers, 0, 5).is_open


def test_a_file_of_another_version_is_not_used():
    readers = ForwardReaders()
    old = read(readers, 0, 5, version="old")
    assert read(readers, 5, 6, version="new") is not old
    assert not old.is_open


def test_files_are_closed_once_nobody_reads():
    readers = ForwardReaders()
    read(readers, 0, 5)
    del readers
    assert not OPENED[0].is_open


# ---------------------------------------------------------------------- series


def open_gzip(path, frames=FRAMES):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(frames.tobytes())
    return Compressed(path)


class Compressed(placed.PlacedSource):
    """Raw frames in a file that is compressed as a whole."""

    def __init__(self, path):
        super().__init__(path)
        nbytes = FRAMES[0].nbytes
        self.set_places(FRAMES.shape[1:], FRAMES.dtype, range(0, FRAMES.nbytes, nbytes))


@pytest.fixture
def openings(monkeypatch):
    """Every opening of a compressed file: a function of its path."""
    found = []

    def opener(path, mode):
        file = gzip.open(path, mode)  # noqa: SIM115 -- the caller closes it
        found.append(weakref.ref(file))
        return file

    monkeypatch.setitem(placed.OPENERS, ".gz", opener)
    return found


class InOrder(Compressed):
    """Reads begin in the order of the frames: on a busy machine one thread overtakes the other."""

    def __init__(self, path):
        super().__init__(path)
        self.begun, self.turn = 0, threading.Condition()

    @contextmanager
    def opened_at(self, start, stop):
        with ExitStack() as stack:
            with self.turn:
                self.turn.wait_for(lambda: self.begun >= start, timeout=5)
                file = stack.enter_context(super().opened_at(start, stop))
                self.begun = max(self.begun, FRAMES.nbytes if stop is None else stop)
                self.turn.notify_all()
            yield file


@pytest.mark.parametrize("statistic", ["max", "median", "std"])
@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 4)])
def test_frames_are_decompressed_once_for_each_worker(tmp_path, openings, statistic, workers, most):
    """Workers have a file each, and each block of frames begins where the one before ends."""
    open_gzip(tmp_path / "scan.raw.gz")
    series = InOrder(tmp_path / "scan.raw.gz")
    oracle = {"max": np.max, "median": np.median, "std": np.std}[statistic]
    with dask.config.set(num_workers=workers):
        image = getattr(stats, statistic)(series).compute()
    np.testing.assert_allclose(image, oracle(FRAMES, axis=0), rtol=1e-6)
    assert len(openings) <= most


def test_threads_that_begin_at_once_share_the_files(tmp_path, monkeypatch):
    barrier, found = threading.Barrier(4), []

    def make():
        barrier.wait(10)  # no thread has seen another one's
        return ForwardReaders()

    monkeypatch.setattr(placed, "ForwardReaders", make)
    series = open_gzip(tmp_path / "scan.raw.gz")

    def begin():
        with series.opened_at(0, 1):
            found.append(vars(series)["_readers"])

    run_in_threads(begin, 4)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_rows_of_frames_in_any_order(tmp_path, openings, rng):
    series = open_gzip(tmp_path / "scan.raw.gz")
    for start in rng.permutation(239)[:60]:
        (block,) = series.read(start, start + 2, 3, 50)
        assert_array_equal(block, FRAMES[start : start + 2, 3:50])
    assert sum(file() is not None for file in openings) == 1


def test_nothing_stays_open(tmp_path, openings):
    for end in ("released", "deleted"):
        series = open_gzip(tmp_path / "scan.raw.gz")
        series.read(0, 5, 0, 128)
        if end == "released":
            series.release()
        else:
            del series
        gc.collect()
        assert not any(file() is not None and not file().closed for file in openings), end


def test_a_file_that_was_written_again_is_opened_again(tmp_path, openings):
    series = open_gzip(tmp_path / "scan.raw.gz")
    series.read(0, 5, 0, 128)
    other = np.roll(FRAMES, 1, axis=0)[:, ::-1]
    open_gzip(tmp_path / "scan.raw.gz", other)
    (block,) = series.read(5, 8, 0, 128)
    assert_array_equal(block, other[5:8])
    assert len(openings) == 2


def test_frames_that_are_not_compressed_are_read_in_rows(tmp_path):
    FRAMES.tofile(tmp_path / "scan.raw")
    series = RawSource(tmp_path / "scan.raw", FRAMES.shape[1:], "u2")
    assert (series.forwards, series.row_unit) == (False, 1)
    assert open_gzip(tmp_path / "scan.raw.gz").row_unit is None


def test_a_forked_process_opens_its_own_file(tmp_path, openings, monkeypatch):
    """Both would move the place of the other in a file that they share."""
    series = open_gzip(tmp_path / "scan.raw.gz")
    series.read(0, 5, 0, 128)
    monkeypatch.setattr("os.getpid", lambda: 1)
    (block,) = series.read(5, 8, 0, 128)
    assert_array_equal(block, FRAMES[5:8])
    assert len(openings) == 2


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".npz"])
def test_slices_are_the_bytes_of_the_file(tmp_path, rng, suffix):
    """Forwards, backwards, and beyond the end."""
    data = np.cumsum(rng.integers(0, 2, 5 * InSlices.size + 7, "u1"), dtype="u1").tobytes()
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", data)
    else:
        with placed.OPENERS[suffix](path, "wb") as file:
            file.write(data)
    with npz.opened(path, "x.npy") if suffix == ".npz" else placed.open_file(path) as file:
        stream = InSlices(file)
        for _ in range(20):
            start, length = (int(each) for each in rng.integers(0, [len(data), 2 * InSlices.size]))
            found = np.empty(length, "u1")
            count = placed.fill(stream, found, start)
            assert found[:count].tobytes() == data[start : start + length]
        assert placed.fill(stream, found, len(data) + 9) == 0
