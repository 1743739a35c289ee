"""Lazy images that are computed while h5py's lock is held: an error or a result, never a wait."""

import gc
import threading
import time

import dask
import dask.array
import numpy as np
import pytest
from fakes import FakeSeries
from helpers import make_frames

import daskstats as stats
from daskstats.formats import hdf5_lock
from daskstats.series.opening import open_source

h5py = pytest.importorskip("h5py")

FRAMES = make_frames("u2", 12, 8, 6)
EXPECTED = FRAMES.max(0)
LOOK = hdf5_lock.LOOK


@pytest.fixture(autouse=True)
def _no_garbage():
    """Delete objects of h5py that earlier tests have left, which takes the lock.

    The collector would do so in any thread: in that of a client, for example, while a test holds
    the lock and waits for the client.
    """
    gc.collect()


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(hdf5_lock, "LOOK", 0.1)


def test_a_look_comes_in_time():
    assert LOOK < 5


@pytest.fixture
def scan(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=FRAMES, chunks=(1, 8, 6))
    return tmp_path / "scan.h5"


def in_time(function, seconds=10):
    """Call a function in a thread; return its value, raise its error, fail if it hangs."""
    found = []

    def call():
        try:
            found.append((function(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    value, error = found[0]
    if error is not None:
        raise error
    return value


def assign(file, lazy):
    file["dark"] = lazy


def create(file, lazy):
    file.create_dataset("dark", data=lazy)


def fill(file, lazy):
    file["there"][...] = lazy


def attribute(file, lazy):
    file.attrs["dark"] = lazy


def in_a_visit(file, lazy):
    file.visititems(lambda name, node: np.asarray(lazy).shape)


WAYS = [assign, create, fill, attribute, in_a_visit]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", ["path", "dataset", "selected", "locked", "dask array"])
def test_lazy_image_within_h5py(tmp_path, scan, source, way):
    with h5py.File(scan) as opened, h5py.File(tmp_path / "out.h5", "w") as file:
        file["there"] = np.zeros((8, 6), "u2")
        lazy = {
            "path": lambda: stats.max(scan),
            "dataset": lambda: stats.max(opened["data"]),
            "selected": lambda: stats.max(scan, frames=[*range(12)]),
            "locked": lambda: stats.max(scan, lock=True),
            "dask array": lambda: stats.max(dask.array.from_array(opened["data"], lock=False)),
        }[source]()
        with pytest.raises(RuntimeError, match=r"lock.*compute it first.*\.compute\(\)"):
            in_time(lambda: way(file, lazy))
        assert "dark" not in file
        way(file, lazy.compute())
        np.testing.assert_array_equal(lazy.compute(), EXPECTED)


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_were_not_seen_to_start(tmp_path, scan, way, monkeypatch):
    monkeypatch.setattr(hdf5_lock, "needs_lock", lambda item: False)
    test_lazy_image_within_h5py(tmp_path, scan, "path", way)
    gc.collect()


@pytest.mark.parametrize("make", [stats.median, stats.average, stats.wrap])
def test_other_results_within_h5py(tmp_path, scan, make):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        lazy = make(scan)
        with pytest.raises(RuntimeError, match="compute it first"):
            in_time(lambda: assign(file, lazy))


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_iterator_within_h5py(tmp_path, scan, scheduler):
    with (
        dask.config.set(scheduler=scheduler),
        h5py.File(tmp_path / "out.h5", "w") as file,
        pytest.raises(RuntimeError, match="compute it first"),
    ):
        file["there"] = np.zeros((8, 6), "u2")
        iterator = stats.max_iter(scan, 3)
        in_time(lambda: file.visititems(lambda name, node: list(iterator)))


@pytest.mark.parametrize("way", WAYS)
def test_synchronous_scheduler_within_h5py(tmp_path, scan, way):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["there"] = np.zeros((8, 6), "u2")
        lazy = stats.max(scan)
        with dask.config.set(scheduler="synchronous"):
            way(file, lazy)
        if way in (assign, create):
            np.testing.assert_array_equal(file["dark"][()], EXPECTED)
    np.testing.assert_array_equal(lazy.compute(), EXPECTED)


def test_images_of_arrays_within_h5py(tmp_path):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        in_time(lambda: assign(file, stats.max(FRAMES)))
        np.testing.assert_array_equal(file["dark"][()], EXPECTED)


def test_cluster_in_this_process_within_h5py(tmp_path, scan, inside):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        lazy = stats.max(scan)
        with pytest.raises(RuntimeError, match="compute it first"):
            in_time(lambda: assign(file, lazy))
    np.testing.assert_array_equal(lazy.compute(), EXPECTED)


def test_cluster_of_processes_within_h5py(tmp_path, scan, client):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        lazy = stats.max(scan)
        in_time(lambda: assign(file, lazy), 60)
        np.testing.assert_array_equal(file["dark"][()], EXPECTED)


class Slow:
    """Something that h5py asks for its values, which takes a while."""

    def __init__(self, begun, seconds):
        self.begun, self.seconds = begun, seconds

    def __array__(self, dtype=None, copy=None):
        self.begun.set()
        time.sleep(self.seconds)
        return np.zeros(3)


class Computed:
    """Something that h5py asks for its values, which are computed on a scheduler."""

    def __init__(self, lazy, scheduler):
        self.lazy, self.scheduler = lazy, scheduler

    def __array__(self, dtype=None, copy=None):
        return self.lazy.compute(scheduler=self.scheduler)


@pytest.mark.parametrize("others", ["a write", "an image", "a synchronous image"])
def test_a_long_call_of_somebody_else_is_waited_for(tmp_path, scan, others):
    begun = threading.Event()
    with h5py.File(tmp_path / "out.h5", "w") as file:
        slow: object = Slow(begun, 1)
        if others != "a write":
            # Computed within h5py as well, but nothing of it needs the lock.
            name = "synchronous" if others == "a synchronous image" else "threads"
            block = dask.delayed(lambda: np.asarray(Slow(begun, 1)))()
            lazy = dask.array.from_delayed(block, (3,), "f8")
            slow = type(
                "Lazy", (), {"__array__": lambda self, *_, **__: lazy.compute(scheduler=name)}
            )()
        thread = threading.Thread(target=lambda: file.create_dataset("x", data=slow))
        thread.start()
        assert begun.wait(10)
        found = in_time(lambda: stats.max(str(scan)).compute())
        thread.join()
    np.testing.assert_array_equal(found, EXPECTED)


def test_a_long_wait_is_logged(scan, monkeypatch, caplog):
    from h5py._objects import phil

    monkeypatch.setattr(hdf5_lock, "TELL", 0.1)
    lazy = stats.max(scan)
    with phil:
        thread = threading.Thread(target=lambda: lazy.compute(scheduler="threads"))
        thread.start()
        time.sleep(0.5)
    thread.join()
    assert "waiting for h5py's lock" in caplog.text


def test_garbage_in_a_task_within_h5py(tmp_path, scan):
    """The collector deletes open files in any thread; it has to wait for nobody."""

    cycle = [open_source(scan)]
    cycle.append(cycle)
    with h5py.File(tmp_path / "out.h5", "w") as file:
        lazy = stats.max(FakeSeries(FRAMES, on_read=lambda _: gc.collect()))
        del cycle
        with dask.config.set(scheduler="threads"):  # the client of other tests may still be open
            in_time(lambda: assign(file, lazy))
        np.testing.assert_array_equal(file["dark"][()], EXPECTED)
    for _ in range(100):
        if not [thread for thread in threading.enumerate() if thread.name == "daskstats-close"]:
            break
        time.sleep(0.05)
    with h5py.File(scan, "w"):
        pass  # it is not open any more


def test_a_series_that_is_deleted_closes_its_files(scan):
    series = open_source(scan)
    del series
    with h5py.File(scan, "w"):
        pass
