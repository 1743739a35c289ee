"""Sparse frames reduced as they are, bit for bit as dense ones, in every way there is."""

import dask
import numpy as np
import pytest
from caches import members, save

import daskstats as stats
from daskstats.formats import framecache
from daskstats.planning.steps import AtMost
from daskstats.reduction import reduce
from daskstats.series.opening import as_series
from daskstats.statistics import STATISTICS, Statistic

PARAMETERS = {"percentile": (("percentile", [95, 5]),), "count_above": (("count_above", -0.5),)}
EVERY = [each for name in STATISTICS for each in PARAMETERS.get(name, (name,))]
OPTIONS = (
    {},
    {"invalid": [0, 7], "fill_value": 3},
    {"saturation": 8, "fill_value": 9, "mask": np.eye(9, 11, dtype=bool)},
)


def frames_of(dtype, rng, nframes=21):
    """Return frames with pixels that no frame stores, that some do, and that all do."""
    frames = rng.integers(0, 12, (nframes, 9, 11)) * (rng.random((nframes, 9, 11)) < 0.2)
    frames[:, 4] = rng.integers(1, 12, (nframes, 11))
    frames[:, ::3] = 0
    frames[:, 1, ::2] *= -1 if np.dtype(dtype).kind in "if" else 1
    return frames.astype(dtype)


def few_of(dtype, rng):
    """Return larger frames, of which most pixels are not stored at all."""
    frames = np.zeros((21, 60, 70), dtype)
    frames[:, 20:29, 30:41] = frames_of(dtype, rng)
    return frames


def way_of(ims, statistic, **options):
    found = reduce(ims, statistic, **options)
    return ("sparse" if found.plan.layout.sparse else "dense"), found.plan.strategy


@pytest.fixture
def reads(monkeypatch):
    """Return the offsets of members that were read; the frames of small archives are not kept."""
    read, offsets = framecache._member, []
    monkeypatch.setattr(
        framecache, "_member", lambda file, *place: offsets.append(place[0]) or read(file, *place)
    )
    monkeypatch.setattr(framecache, "MOST_KEPT", -1)
    return offsets


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_every_statistic_of_bands(tmp_path, rng, dtype):
    frames = frames_of(dtype, rng)
    path = save(tmp_path / "scan.npz", members(frames))
    for options in OPTIONS:
        assert way_of(path, EVERY, **options) == ("sparse", "resident")
        (images,) = dask.compute(stats.aggregate(path, EVERY, **options))
        (expected,) = dask.compute(stats.aggregate(frames, EVERY, **options))
        for name, image in expected.items():
            assert images[name].tobytes() == image.tobytes(), (name, options)


def test_a_single_statistic_of_a_few_frames(tmp_path, rng):
    frames = few_of("u2", rng)
    path = save(tmp_path / "scan.npz", members(frames))
    for name in ("max", "median", "argmin"):
        assert way_of(path, name) == ("sparse", "resident")
        for nframes in (1, 5):
            image = getattr(stats, name)(path, nframes=nframes).compute()
            expected = getattr(stats, name)(frames, nframes=nframes).compute()
            assert image.tobytes() == expected.tobytes()


def test_running_images_of_folds(tmp_path, rng):
    frames = frames_of("u2", rng)
    path = save(tmp_path / "scan.npz", members(frames))
    names = ["max", "min", "average", "std", "argmax", ("count_above", 3)]
    assert way_of(path, names, nchunk=4, running=True) == ("sparse", "fold")
    for scheduler in ("threads", "sync"):
        with dask.config.set(scheduler=scheduler):
            images = list(stats.aggregate_iter(path, names, 4))
            expected = list(stats.aggregate_iter(frames, names, 4))
        assert len(images) == 4
        for found, wanted in zip(images, expected, strict=True):
            assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_a_statistic_of_the_users_gets_dense_frames(tmp_path, rng):
    frames = frames_of("u2", rng)
    path = save(tmp_path / "scan.npz", members(frames))

    def chunk(pieces, start):
        return {"lit": sum((block > 0).sum(axis=0) for piece in pieces for block in piece)}

    def finalize(state, image):
        image[...] = state["lit"]

    lit = Statistic(
        "lit", chunk, lambda a, b: {"lit": a["lit"] + b["lit"]}, finalize, dtype="int64"
    )
    (images,) = dask.compute(stats.aggregate(path, [lit, "max"]))
    np.testing.assert_array_equal(images["lit"], (frames > 0).sum(axis=0))
    np.testing.assert_array_equal(images["max"], frames.max(axis=0))


@pytest.mark.parametrize("statistic", ["max", "median"])
def test_members_of_a_large_archive_are_read_once(tmp_path, rng, reads, statistic):
    """Where memory holds all stored values, and where it does not."""
    frames = np.repeat(np.repeat(frames_of("u2", rng, 60), 40, axis=1), 40, axis=2)
    path = save(tmp_path / "scan.npz", members(frames))
    for limit in ("1 GB", "24 MB"):
        reads.clear()
        series = as_series(path)
        assert series.row_unit is None
        assert not reads
        found = getattr(stats, statistic)(series, memory_limit=limit)
        with dask.config.set({"daskstats.scratch-directory": str(tmp_path)}):
            image = found.compute()
        np.testing.assert_array_equal(image, getattr(np, statistic)(frames, axis=0))
        assert len(reads) == len(set(reads)) == 3 * len(frames)


def test_a_memory_limit_without_room_for_all_values(tmp_path, rng, reads):
    frames = np.repeat(np.repeat(frames_of("u2", rng, 60), 40, axis=1), 40, axis=2)
    path = save(tmp_path / "scan.npz", members(frames))
    assert way_of(path, "max", memory_limit="24 MB") == ("sparse", "fold")
    assert way_of(path, "median", memory_limit="24 MB")[0] == "dense"


def test_the_way_depends_on_the_call(tmp_path, rng, client):
    """The last test, as the client of a cluster stays: its workers keep no frames."""
    frames = few_of("f4", rng)
    path = save(tmp_path / "scan.npz", members(frames))
    dark = frames[0]
    assert way_of(path, "max") == ("sparse", "fold")
    assert way_of(path, "std") == ("dense", "fold")
    with dask.config.set(scheduler="threads"):
        bar = AtMost(50, of_rows=True)
        assert way_of(path, "max", nchunk=bar, running=True) == ("sparse", "resident")
        assert way_of(path, "max", nchunk=AtMost(50), running=True) == ("sparse", "fold")
        assert way_of(path, "std", nchunk=3, running=True) == ("dense", "fold")
        assert way_of(path, "max", nchunk=3, running=True, skipna=True) == ("dense", "fold")
        assert way_of(path, "max", checkpoint=tmp_path / "c")[1] == "fold"
        assert way_of(path, "median", use_buffer=False) == ("dense", "direct")
        assert way_of(path, "median", dark=dark) == ("dense", "direct")
        assert way_of(np.ones((3, 4, 5)), "median")[0] == "dense"
        every = save(tmp_path / "lit.npz", members(np.ones((21, 9, 11), "u2")))
        assert way_of(every, "max") == ("sparse", "fold")
        assert way_of(every, "median") == ("sparse", "resident")
    for name in ("max", "std", "median"):
        expected = getattr(stats, name)(frames).compute(scheduler="threads")
        assert getattr(stats, name)(path).compute().tobytes() == expected.tobytes()
