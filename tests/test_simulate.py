"""Simulated series look like a detector's, and depend on nothing but their parameters."""

import sys

import numpy as np
import pytest

from daskstats import simulate as module
from daskstats.names import DTYPES
from daskstats.series.opening import open_source
from daskstats.simulate import FORMATS, Scene, simulate

SHAPE = (60, 80)


def read(path, **kwargs):
    source = open_source(path)
    return np.concatenate(source.read(0, len(source), 0, source.shape[0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_frames_come_back(tmp_path, suffix, dtype):
    path = tmp_path / f"scan{suffix}"
    simulate(path, 5, SHAPE, dtype, seed=3)
    scene = Scene(SHAPE, np.dtype(dtype), 3)
    expected = scene.frames(0, 5)
    if suffix == ".npz":
        expected[expected <= scene.threshold] = 0
        assert expected.any()
    np.testing.assert_array_equal(read(path), expected, strict=True)
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_block_size_does_not_matter(tmp_path, suffix, monkeypatch):
    simulate(tmp_path / f"a{suffix}", 7, SHAPE)
    monkeypatch.setattr(module, "SMALLEST_BLOCK", 2 * 2 * SHAPE[0] * SHAPE[1])
    written = []
    simulate(tmp_path / f"b{suffix}", 7, SHAPE, progress=written.append)
    assert written == [2, 2, 2, 1]
    np.testing.assert_array_equal(read(tmp_path / f"a{suffix}"), read(tmp_path / f"b{suffix}"))
    if suffix in (".npy", ".npz"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_number_of_frames_does_not_matter(tmp_path):
    simulate(tmp_path / "a.npy", 3, SHAPE)
    simulate(tmp_path / "b.npy", 6, SHAPE)
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), read(tmp_path / "b.npy")[:3])


def test_seeds_and_frames_differ():
    a, b = (Scene(SHAPE, np.dtype("u2"), seed).frames(0, 2) for seed in (0, 1))
    assert (a != b).mean() > 0.8
    assert (a[0] != a[1]).mean() > 0.8


@pytest.mark.parametrize("dtype", DTYPES)
def test_dead_and_hot_pixels(dtype):
    scene = Scene((100, 100), np.dtype(dtype), 0)
    frames = scene.frames(0, 4).reshape(4, -1)
    assert len(scene.dead) == 2
    assert len(scene.hot) == 1
    assert (frames[:, scene.dead] == 0).all()
    assert (frames[:, scene.hot] > 0.97 * scene.saturation).all()
    most = np.iinfo(dtype).max if dtype.startswith("uint") and dtype != "uint32" else 1 << 20
    assert scene.saturation == most


def test_noise_is_like_poisson():
    scene = Scene((50, 50), np.dtype("f4"), 0)
    scene._spots = lambda index: ()
    frames = scene.frames(0, 1000).reshape(1000, -1).astype("f8")
    sound = np.setdiff1d(np.arange(2500), [*scene.dead, *scene.hot])
    counts = frames[:, sound] / scene._gain.ravel()[sound]
    mean = scene._root.ravel()[sound] ** 2
    np.testing.assert_allclose(counts.mean(axis=0) / mean, 1, atol=0.03)
    assert (counts.var(axis=0) / mean).mean() == pytest.approx(1, abs=0.01)


def test_rings_and_spots():
    scene = Scene((400, 400), np.dtype("u2"), 0)
    frames = scene.frames(0, 30).astype("f8")
    typical = np.median(frames, axis=0)
    rows, cols = (np.arange(400) - centre for centre in scene.centre)
    radius = np.hypot(rows[:, None], cols)
    first = scene._rings()[0]
    on, off = abs(radius - first) < 1, abs(radius - first + 12) < 1
    assert np.median(typical[on]) > 3 * np.median(typical[off])
    # A spot is seen in a few consecutive frames: far above the median, and gone again.
    bright = frames > 5 * typical + 100
    bright.reshape(30, -1)[:, scene.hot] = False
    seen = bright.sum(axis=0)
    assert 20 < np.count_nonzero(seen) < 4000
    assert seen.max() <= 2 * len(module.ROCKING)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3), (5, 4)])
def test_tiny_frames(tmp_path, shape):
    simulate(tmp_path / "scan.npy", 2, shape)
    assert read(tmp_path / "scan.npy").shape == (2, *shape)


def test_frame_cache_is_hexrds(tmp_path):
    simulate(tmp_path / "scan.npz", 4, SHAPE)
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as arrays:
        assert arrays["shape"].dtype == np.int64
        assert arrays["shape"].tolist() == [*SHAPE]
        assert arrays["nframes"][()] == 4
        assert arrays["dtype"].item() == b"uint16"
        np.testing.assert_array_equal(
            arrays["omega"], [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]]
        )
        names = [f"{i}_{field}" for i in range(4) for field in ("row", "col", "data")]
        assert {*arrays.files} == {"shape", "nframes", "dtype", "omega", *names}
        assert {arrays[name].dtype for name in names} == {np.dtype("u2")}


def test_layout_of_stores(tmp_path):
    import h5py
    import zarr

    simulate(tmp_path / "scan.zarr", 200, (64, 512))
    assert zarr.open(tmp_path / "scan.zarr").chunks == (128, 64, 512)
    simulate(tmp_path / "scan.h5", 3, SHAPE)
    with h5py.File(tmp_path / "scan.h5") as file:
        dataset = file["/entry/data/data"]
        assert (dataset.chunks, dataset.compression_opts, dataset.shuffle) == ((1, *SHAPE), 1, True)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_failure_leaves_what_was(tmp_path, suffix, monkeypatch):
    def fail(self, start, stop):
        raise OSError("No space left on device")

    monkeypatch.setattr(Scene, "frames", fail)
    with pytest.raises(OSError, match="No space left"):
        simulate(tmp_path / f"scan{suffix}", 3, SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_existing_file_is_kept_without_force(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    simulate(path, 2, SHAPE)
    with pytest.raises(FileExistsError):
        simulate(path, 3, SHAPE)
    assert len(open_source(path)) == 2
    simulate(path, 3, SHAPE, force=True)
    assert len(open_source(path)) == 3


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'daskstats\[io\]'"):
        simulate(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"nframes": 0}, ValueError, "nframes must be at least 1, got 0"),
        ({"nframes": 1.5}, TypeError, "nframes must be an integer"),
        ({"nframes": True}, TypeError, "nframes must be an integer"),
        ({"shape": (0, 5)}, ValueError, "rows must be at least 1"),
        ({"shape": (5, -1)}, ValueError, "cols must be at least 1"),
        ({"shape": 5}, ValueError, r"shape must be \(rows, cols\)"),
        ({"shape": (5, 70_000)}, ValueError, "at most 65536 rows and columns"),
        ({"dtype": "float64"}, ValueError, "dtype must be one of uint8"),
        ({"dtype": "pixels"}, TypeError, "dtype must be a numpy dtype"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"path": "scan.tif"}, ValueError, "no known suffix"),
    ],
)
def test_wrong_arguments(tmp_path, argument, error, message):
    path = tmp_path / argument.pop("path", "scan.npz")
    with pytest.raises(error, match=message):
        simulate(path, **argument)
    assert list(tmp_path.iterdir()) == []
