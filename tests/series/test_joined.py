"""Several series, one after the other."""

import pickle
import threading
from itertools import pairwise

import numpy as np
import pytest
from helpers import run_in_threads

from daskstats.formats.files import open_files
from daskstats.formats.raw import RawSource
from daskstats.series.arrays import ArraySource
from daskstats.series.joined import MOST_OPEN, JoinedSource
from daskstats.series.opening import open_source
from daskstats.series.selection import select


def make_parts(rng, counts):
    frames = rng.integers(0, 1000, (sum(counts), 5, 7), "u2")
    edges = np.cumsum([0, *counts])
    parts = [ArraySource(frames[a:b]) for a, b in pairwise(edges)]
    return frames, parts


@pytest.mark.parametrize("counts", [[1], [3], [1, 1, 1], [4, 1, 7, 2]])
def test_every_range_of_frames_and_rows(rng, counts):
    frames, parts = make_parts(rng, counts)
    joined = JoinedSource(parts)
    assert len(joined) == sum(counts)
    for start in range(len(joined)):
        for stop in range(start + 1, len(joined) + 1):
            blocks = joined.read(start, stop, 1, 4)
            assert (np.concatenate(blocks) == frames[start:stop, 1:4]).all()
            for count in (1, 2, 100):
                pieces = joined.pieces(start, stop, 0, 5, count)
                found = np.concatenate([block for piece in pieces for block in piece])
                assert (found == frames[start:stop]).all()


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (np.zeros((2, 5, 8), "u2"), "frames of 5 x 7 uint16.*frames of 5 x 8 uint16"),
        (np.zeros((2, 5, 7), "i2"), "frames of 5 x 7 uint16.*frames of 5 x 7 int16"),
    ],
)
def test_frames_that_differ_are_refused(other, text):
    with pytest.raises(ValueError, match=text):
        JoinedSource([ArraySource(np.zeros((3, 5, 7), "u2")), ArraySource(other)])


def write_scan(folder, frames, suffix=".h5"):
    """Write one file for each frame, and return the paths."""
    h5py = pytest.importorskip("h5py")
    paths = []
    for number, frame in enumerate(frames):
        paths.append(folder / f"scan_{number}{suffix}")
        if suffix == ".h5":
            with h5py.File(paths[-1], "w") as file:
                file["data"] = frame[None]
        else:
            np.save(paths[-1], frame[None])
    return paths


def test_few_files_stay_open(tmp_path, rng):
    frames = rng.integers(0, 1000, (MOST_OPEN + 20, 8, 7), "u2")
    joined = open_files(write_scan(tmp_path, frames))
    assert not any("_parts" in vars(part) for part in joined.parts)

    right = []

    def read():
        order = np.random.default_rng(threading.get_ident()).permutation(len(frames))
        for i in order:
            right.append((joined.read(i, i + 1, 0, 8)[0][0] == frames[i]).all())

    run_in_threads(read, 3)
    assert all(right)
    assert len(right) == 3 * len(frames)
    assert sum("_parts" in vars(part) for part in joined.parts) <= MOST_OPEN
    joined.release()
    assert not any("_parts" in vars(part) for part in joined.parts)


@pytest.mark.parametrize("suffix", [".raw", ".tif"])
def test_frames_of_files_are_read_into_memory_that_is_used_again(tmp_path, rng, suffix):
    """Several that are released together would go back to the system, and new ones are slow."""
    parts = []
    for index, frame in enumerate(rng.integers(0, 1000, (12, 700, 800), "u2")):
        path = tmp_path / f"{index}{suffix}"
        if suffix == ".raw":
            frame.tofile(path)
            parts.append(RawSource(path, frame.shape, frame.dtype))
        else:
            pytest.importorskip("tifffile").imwrite(path, frame, compression="zlib")
            parts.append(open_source(path))
    joined = JoinedSource(parts)
    places = []
    for piece in joined.pieces(0, 12, 0, 700, 4):
        places.append({block.ctypes.data for block in piece})
        del piece
    assert len(places[0]) == 4
    assert places[0] == places[1] == places[2]


def test_files_are_read_in_another_process(tmp_path, rng):
    frames = rng.integers(0, 1000, (3, 5, 7), "u2")
    joined = open_files(write_scan(tmp_path, frames, ".npy"))
    assert joined.in_memory
    sent = pickle.loads(pickle.dumps(joined))
    assert not sent.in_memory
    assert (np.concatenate(sent.read(0, 3, 0, 5)) == frames).all()
    assert sent.__dask_tokenize__() == joined.__dask_tokenize__()


def test_name_in_a_graph_changes_with_any_file(tmp_path, rng):
    frames = rng.integers(0, 1000, (3, 5, 7), "u2")
    paths = write_scan(tmp_path, frames, ".npy")
    before = open_files(paths).__dask_tokenize__()
    assert open_files(paths).__dask_tokenize__() == before
    assert open_files(paths[::-1]).__dask_tokenize__() != before
    np.save(paths[1], frames[:1])
    assert open_files(paths).__dask_tokenize__() != before


def test_error_names_the_file(tmp_path, rng):
    frames = rng.integers(0, 1000, (3, 5, 7), "u2")
    paths = write_scan(tmp_path, frames)
    joined = open_files(paths)
    joined.release()
    paths[1].write_bytes(b"")
    with pytest.raises(Exception, match="scan_1") as caught:
        joined.read(0, 3, 0, 5)
    assert any("scan_1.h5" in note for note in caught.value.__notes__)


def test_memory_of_all_parts_counts(rng):
    _, parts = make_parts(rng, [2, 3])
    parts[0].kept, parts[1].kept = 300, 500
    assert JoinedSource(parts).kept == 800


def test_origins_are_of_all_frames(tmp_path, rng):
    """Also where a part is no file."""
    frames = rng.integers(0, 1000, (3, 5, 7), "u2")
    path = write_scan(tmp_path, frames, ".npy")[0]
    joined = JoinedSource([open_source(frames), open_source(path)])
    assert list_origins(joined) == [("an object", [0, 1, 2]), (str(path), [0])]
    assert list_origins(select(joined, [3, 2])) == [(str(path), [0]), ("an object", [2])]


def list_origins(series):
    return [(place, [*frames]) for place, frames in series.origins()]


def test_frames_without_data(tmp_path):
    zarr = pytest.importorskip("zarr")
    for number in range(2):
        array = zarr.create_array(
            tmp_path / f"scan_{number}.zarr", shape=(3, 4, 5), chunks=(1, 4, 5), dtype="u2"
        )
        array[number] = 7
    joined = open_source(str(tmp_path / "scan_*.zarr"))
    assert joined.frames_without_data().tolist() == [1, 2, 3, 5]


def test_threads_may_release_and_read(tmp_path, rng):
    frames = rng.integers(0, 1000, (4, 8, 7), "u2")
    joined = open_files(write_scan(tmp_path, frames))
    ended = threading.Event()

    def release():
        while not ended.is_set():
            joined.release()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        for _ in range(100):
            assert (np.concatenate(joined.read(0, 4, 0, 8)) == frames).all()
    finally:
        ended.set()
        thread.join()
