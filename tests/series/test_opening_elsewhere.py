"""Files that do not open where they are read: the real error, soon, and workers that live on."""

import os
import time
from contextlib import contextmanager

import dask
import numpy as np
import pytest
from helpers import make_frames

import daskstats as stats

h5py = pytest.importorskip("h5py")

FRAMES = make_frames("u2", 12, 8, 6)


@contextmanager
def moved(path):
    hidden = path.with_name("hidden")
    path.rename(hidden)
    yield
    hidden.rename(path)


@contextmanager
def a_directory(path):
    with moved(path):
        path.mkdir()
        yield
        path.rmdir()


@contextmanager
def behind_a_file(path):
    """Have a file where the directory of another was."""
    home = path.parent
    with moved(home):
        home.write_text("no directory")
        yield
        home.unlink()


@contextmanager
def garbage(path):
    with moved(path):
        path.write_bytes(b"no frames")
        yield
        path.unlink()


@contextmanager
def other_frames(path):
    with moved(path):
        save(path, FRAMES[:5])
        yield
        path.unlink()


def save(path, frames):
    if path.suffix == ".npy":
        np.save(path, frames)
    elif path.suffix == ".npz":
        arrays = {"shape": frames.shape[1:], "nframes": len(frames), "dtype": "uint16"}
        for index, frame in enumerate(frames):
            row, col = np.nonzero(frame)
            arrays |= {f"{index}_row": row, f"{index}_col": col, f"{index}_data": frame[row, col]}
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            file["data"] = frames


CASES = [
    *((suffix, fault) for suffix in (".h5", ".npy", ".npz") for fault in (moved, other_frames)),
    (".h5", a_directory),
    (".npy", behind_a_file),
    (".npz", garbage),
]


@pytest.mark.parametrize(("suffix", "fault"), CASES)
def test_file_that_does_not_open_on_a_worker(tmp_path, client, suffix, fault):
    home = tmp_path / "home"
    home.mkdir()
    path = home / f"scan{suffix}"
    save(path, FRAMES)
    pids = sorted(worker["id"] for worker in client.scheduler_info()["workers"].values())
    before = client.run(os.getpid)
    lazy, iterator = stats.max(path), stats.max_iter(path, 3)
    began = time.monotonic()
    with fault(path):
        for compute in (lazy.compute, lambda: list(iterator)):
            with pytest.raises((OSError, ValueError)) as caught:
                compute()
            text = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
            assert str(path) in text
            assert any(f"worker {address}" in text for address in before), text
            assert f"process {before[_worker_in(text, before)]}" in text
    assert time.monotonic() - began < 60  # it took minutes
    assert client.run(os.getpid) == before, "workers are gone"
    assert sorted(worker["id"] for worker in client.scheduler_info()["workers"].values()) == pids
    np.testing.assert_array_equal(stats.max(path).compute(), FRAMES.max(0))


def test_file_that_the_caller_has_open_for_writing(tmp_path, client):
    path = tmp_path / "scan.h5"
    save(path, FRAMES)
    before = client.run(os.getpid)
    with h5py.File(path, "r+") as file:
        file["other"] = np.zeros(100_000)  # not yet flushed
        lazy = stats.max(f"{path}::/data")
        with pytest.raises(BlockingIOError, match=r"scan\.h5 is open for writing") as caught:
            lazy.compute()
        assert any(f"worker {address}" in str(caught.value.__notes__) for address in before)
        with dask.config.set(scheduler="threads"):
            found = stats.max(f"{path}::/data").compute()
        np.testing.assert_array_equal(found, FRAMES.max(0))
        with dask.config.set(scheduler="processes", num_workers=1):
            lazy = stats.max(f"{path}::/data")
            with pytest.raises(BlockingIOError, match=r"scan\.h5 is open for writing"):
                lazy.compute()
    assert client.run(os.getpid) == before
    np.testing.assert_array_equal(stats.max(FRAMES).compute(), FRAMES.max(0))


def _worker_in(text, workers):
    return next(address for address in workers if address in text)


@pytest.mark.parametrize(("suffix", "fault"), [(".h5", moved), (".npy", garbage), (".npz", moved)])
def test_file_that_does_not_open_in_another_process(tmp_path, suffix, fault):
    path = tmp_path / f"scan{suffix}"
    save(path, FRAMES)
    with dask.config.set(scheduler="processes", num_workers=1):
        lazy = stats.max(path)
        with fault(path), pytest.raises((OSError, ValueError), match=r"scan\.np|scan\.h5|no file"):
            lazy.compute()


def test_source_of_a_virtual_dataset_that_is_not_there_on_a_worker(tmp_path, client):
    save(tmp_path / "part.h5", FRAMES)
    layout = h5py.VirtualLayout(FRAMES.shape, "u2")
    layout[:] = h5py.VirtualSource("part.h5", "data", FRAMES.shape)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    before = client.run(os.getpid)
    lazy = stats.max(f"{tmp_path}/scan.h5::/data")
    with moved(tmp_path / "part.h5"), pytest.raises(FileNotFoundError, match=r"refers to part\.h5"):
        lazy.compute()
    assert client.run(os.getpid) == before
    np.testing.assert_array_equal(lazy.compute(), FRAMES.max(0))
