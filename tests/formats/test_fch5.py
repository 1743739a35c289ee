"""HEXRD frame caches in HDF5, against scipy's sparse matrices and dense frames."""

import numpy as np
import pytest
from caches import sparse
from helpers import check_series, make_frames

from daskstats.formats.fch5 import Fch5Source
from daskstats.series.opening import open_source

h5py = pytest.importorskip("h5py")


def save(path, frames, order=None, **changes):
    """Write a frame cache as HEXRD's threads do: frames in any order, values as columns."""
    order = range(len(frames)) if order is None else order
    data, indices, ids = [], [], np.zeros(2 * len(frames), "u8")
    place = 0
    for index in order:
        row, col = np.nonzero((frames[index] != 0) | np.signbit(frames[index]))
        data.append(frames[index][row, col][:, None])
        indices.append(np.stack([row, col], axis=1).astype("u2"))
        ids[2 * index : 2 * index + 2] = place, place + len(row)
        place += len(row)
    content = {
        "shape": frames.shape[1:],
        "nframes": len(frames),
        "dtype": str(frames.dtype).encode(),
        "data": np.concatenate(data),
        "indices": np.concatenate(indices),
        "frame_ids": ids,
        **changes,
    }
    with h5py.File(path, "w") as file:
        file.attrs["HEXRD_FRAMECACHE_VERSION"] = content.pop("version", 1)
        for name, value in content.items():
            if value is not None:
                # Compressed, as HEXRD's are.
                packed = {"compression": "gzip"} if np.ndim(value) and len(value) else {}
                file.create_dataset(name, data=value, **packed)
        file.create_group("metadata")["omega"] = np.zeros((len(frames), 2))
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u8", "f4", "f8"])
def test_every_dtype(tmp_path, dtype):
    frames = sparse(make_frames(dtype))
    series = open_source(save(tmp_path / "scan.fch5", frames, [4, 1, 0, 6, 2, 3, 5]))
    assert type(series) is Fch5Source
    check_series(series, frames)


def test_is_found_under_any_suffix(tmp_path):
    frames = sparse(make_frames("u2"))
    for name in ("scan.h5", "scan.hdf5", "scan"):
        series = open_source(save(tmp_path / name, frames))
        assert type(series) is Fch5Source
        assert series.files() == (tmp_path / name,)
        np.testing.assert_array_equal(series.read(0, 7, 0, 5)[0], frames)


def test_the_values_are_those_of_scipy(tmp_path, rng):
    """Pixels in any order; one that is named twice has the sum."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    row, col = rng.integers(0, 5, 40), rng.integers(0, 6, 40)
    values = rng.integers(0, 99, 40).astype("u2")
    ids = np.array([0, 15, 15, 40], "u8")
    path = save(
        tmp_path / "scan.fch5",
        np.zeros((2, 5, 6), "u2"),
        data=values[:, None],
        indices=np.stack([row, col], axis=1).astype("u2"),
        frame_ids=ids,
    )
    expected = [
        scipy_sparse.csr_matrix((values[part], (row[part], col[part])), shape=(5, 6)).toarray()
        for part in (slice(0, 15), slice(15, 40))
    ]
    check_series(open_source(path), np.array(expected, "u2"))


def test_compressed_by_blosc(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    frames = sparse(make_frames("u2"))
    path = save(tmp_path / "scan.fch5", frames)
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices", "frame_ids"):
            values = file[name][()]
            del file[name]
            file.create_dataset(name, data=values, **hdf5plugin.Blosc(cname="zstd", clevel=5))
    check_series(open_source(path), frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "is not a frame cache of version 1: it has HEXRD_FRAMECACHE_VERSION 2"),
        ({"indices": None}, "is not a frame cache: it has no indices"),
        ({"frame_ids": np.arange(13)}, r"frame_ids has int64 \(13,\), expected integers \(14,\)"),
        ({"frame_ids": np.full(14, 9999)}, "frame 0 is at 9999 to 9999 of .* values"),
        ({"frame_ids": np.arange(14)[::-1]}, "frame 0 is at 13 to 12 of"),
        ({"frame_ids": np.arange(14) - 5}, "frame 0 is at -5 to -4 of"),
        ({"data": np.zeros(5, "u2")}, r"data and indices have shapes \(5,\)"),
        ({"shape": (3, 6)}, r"frame 1 has a pixel in row 4 of 3"),
        ({"dtype": b"complex64"}, "frames must be bool, integers or floats"),
        ({"dtype": b"uint8"}, "which uint8 cannot hold"),
    ],
)
def test_wrong_files_are_refused(tmp_path, changes, message):
    path = save(tmp_path / "scan.fch5", sparse(make_frames("u2")), **changes)
    with pytest.raises((ValueError, TypeError), match=message):
        open_source(path)


def test_other_hdf5_files_and_cut_ones_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.fch5", "w") as file:
        file["images"] = np.zeros((3, 4, 5), "u2")
    # The suffix is one of HDF5 as any other.
    assert len(open_source(tmp_path / "a.fch5")) == 3
    path = save(tmp_path / "scan.fch5", sparse(make_frames("u2")))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        open_source(path)


def test_a_file_that_changes_is_refused_elsewhere(tmp_path):
    import pickle

    series = open_source(save(tmp_path / "scan.fch5", sparse(make_frames("u2"))))
    sent = pickle.dumps(series)
    save(tmp_path / "scan.fch5", sparse(make_frames("u2", nframes=3)))
    with pytest.raises(ValueError, match="has changed since the call: it holds 3 frames"):
        pickle.loads(sent).read(0, 1, 0, 1)
