"""Checkpoints: a run that was stopped goes on after the last stored step, with the same bits."""

import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings

import dask
import numpy as np
import pytest
from clusters import local_cluster
from fakes import Fail, FakeSeries, Filled, Ramp

import daskstats as stats
from daskstats.checkpoints.identity import OtherCallError
from daskstats.checkpoints.manifest import DamagedCheckpointError
from daskstats.checkpoints.owner import CheckpointInUseError
from daskstats.checkpoints.store import CheckpointStore
from daskstats.memory.reservation import unreserved

STATISTICS = {
    "average": "average",
    "argmax": "argmax",
    "max": "max",
    "median": "median",
    "fused": ["max", "average"],
    "fused by rows": ["max", "median"],
}

EACH_STEP = {"daskstats.checkpoint-interval": 0}


@pytest.fixture
def frames(rng):
    return rng.integers(0, 4000, (60, 24, 30)).astype("u2")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "scan.checkpoint"


def test_no_step_begins_before_the_one_before_is_stored(place):
    """With an interval of 0, so that a process that is killed repeats one step at most."""
    series = FakeSeries(Ramp((16, 24)), 60)
    sampled = {0, 30, 59}
    with dask.config.set(EACH_STEP):
        for number, _ in enumerate(stats.average_iter(series, 6, checkpoint=place), start=1):
            assert stats.load_checkpoint(place).done == 10 * number
            time.sleep(0.02)
            assert set(series.reads) == set(range(10 * number)) | sampled


def as_dicts(images):
    return [image if isinstance(image, dict) else {"": image} for image in images]


def check_same(images, expected):
    """Check that images, or dicts of images, have the same bits."""
    for own, other in zip(as_dicts(images), as_dicts(expected), strict=True):
        assert own.keys() == other.keys()
        for name, image in own.items():
            assert image.dtype == other[name].dtype
            np.testing.assert_array_equal(image, other[name])


def run(ims, statistic, stop_after=None, nchunk=6, **options):
    """Return the images of a run, or the first of them."""
    images = []
    with stats.snapshots(ims, statistic, nchunk, **options) as shots:
        for shot in shots:
            if shot.phase == "compute":
                images.append(shot.image)
            if len(images) == stop_after:
                break
    return images


# Processes take the way of sync: a statistic of each kind is enough.
RUNS = [
    *((scheduler, name) for scheduler in ("threads", "sync") for name in STATISTICS),
    *(("processes", name) for name in ("average", "median")),
]


@pytest.mark.parametrize(("scheduler", "name"), RUNS)
def test_a_run_goes_on(frames, place, scheduler, name):
    statistic = STATISTICS[name]
    expected = run(frames, statistic)
    with dask.config.set(scheduler=scheduler):
        images = run(frames, statistic, stop_after=2, checkpoint=place)
        # The steps may differ: the state is of the frames, or rows, that are done.
        middle = run(frames, statistic, stop_after=1, nchunk=4, checkpoint=place)
        images += middle + run(frames, statistic, checkpoint=place)
    fourth = run(frames, statistic, nchunk=4)
    check_same(images, [*expected[:2], fourth[1], *expected[3:]])
    # After the end there is the last image, and nothing is read.
    check_same(run(frames, statistic, checkpoint=place), expected[-1:])
    assert unreserved(1 << 30) == 1 << 30


def test_memory_and_workers_may_differ(frames, place):
    """Bits do not depend on the memory limit, the workers, or the kind of scheduler."""
    whole = stats.median(frames).compute()
    for limit, options in [
        ("1 GiB", {"num_workers": 1}),
        ("7 MiB", {"num_workers": 2}),
        ("100 MiB", {"scheduler": "sync"}),
    ]:
        with dask.config.set(**options):
            run(frames, "median", stop_after=2, checkpoint=place, memory_limit=limit)
    (image,) = run(frames, "median", checkpoint=place)
    check_same([image], [whole])


def test_values_that_do_not_count(frames, place):
    """Counts of valid frames, masks and fill values are part of the state, or of its images."""
    mask = np.zeros((24, 30), bool)
    mask[::3] = True
    options = {"invalid": [3, 5], "mask": mask, "dark": np.ones((24, 30), "u2"), "flip": "v"}
    for statistic in ("average", "median"):
        expected = run(frames, statistic, **options)
        images = run(frames, statistic, 3, **options, checkpoint=place / statistic)
        images += run(frames, statistic, **options, checkpoint=place / statistic)
        check_same(images, expected)


def test_every_iterator(frames, place):
    for name in ("max", "min", "sum", "average", "std", "var", "snr", "median"):
        iterate = getattr(stats, f"{name}_iter")
        with iterate(frames, 4, checkpoint=place / name) as images:
            next(images)
        assert len(iterate(frames, 4, checkpoint=place / name)) == 3
    with stats.percentile_iter(frames, [5, 95], 4, checkpoint=place / "percentile") as images:
        next(images)
    assert (
        len(list(stats.percentile_iter(frames, [5, 95], 4, checkpoint=place / "percentile"))) == 3
    )
    with stats.aggregate_iter(frames, ["max", "sum"], 4, checkpoint=place / "several") as images:
        next(images)
    found = [*stats.aggregate_iter(frames, ["max", "sum"], 4, checkpoint=place / "several")]
    check_same(found, [*stats.aggregate_iter(frames, ["max", "sum"], 4)][1:])
    image = stats.watch(frames, "max", checkpoint=place / "watch")
    np.testing.assert_array_equal(image, frames.max(axis=0))


def test_lazy_functions_have_none(frames, place):
    with pytest.raises(TypeError, match="no keyword argument checkpoint"):
        stats.average(frames, checkpoint=place)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"restart": True}, TypeError, "restart is for a checkpoint"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a directory, got 3"),
        ({"checkpoint": ""}, ValueError, "the path of a directory, got an empty one"),
        ({"checkpoint": "s3://me:pw@b/c"}, ValueError, "checkpoint s3://b/c is an address: give"),
        ({"checkpoint": __file__}, NotADirectoryError, "is a file: a checkpoint is a directory"),
    ],
)
def test_bad_arguments(frames, options, error, text):
    with pytest.raises(error, match=text):
        stats.average_iter(frames, 3, **options)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("names", [["1/a"], ["frames/a", "scratch-a/b"], ["manifest.json"], ["3"]])
def test_files_of_others_are_not_removed(frames, place, names, restart):
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("precious")
    with pytest.raises(FileExistsError, match="is no checkpoint, but has . files or folders"):
        stats.max_iter(frames, 3, checkpoint=place, restart=restart)
    assert all((place / name).read_text() == "precious" for name in names)
    assert sum(each.is_file() for each in place.rglob("*")) == len(names)


@pytest.mark.parametrize("name", ["invalid", "frames"])
def test_arguments_that_are_no_arrays(frames, place, name):
    options = {"invalid": {0, 1}} if name == "invalid" else {"frames": iter([5, 1, 3])}
    expected = stats.max(frames, fill_value=0, invalid={0, 1}).compute()
    if "frames" in options:
        expected = frames[[5, 1, 3]].max(axis=0)
    *_, image = stats.max_iter(frames, 3, checkpoint=place, fill_value=0, **options)
    np.testing.assert_array_equal(image, expected)
    assert stats.load_checkpoint(place).done == (3 if "frames" in options else 60)


@pytest.mark.parametrize(
    "array", [np.zeros(0), np.array("abc"), np.zeros(2, "M8[s]"), np.zeros(1, object)], ids=str
)
def test_a_state_that_cannot_be_stored(frames, place, array):
    """It is refused at the first step, not when the run is to be continued."""

    def chunk(pieces, start):
        blocks = [block.max(axis=0) for piece in pieces for block in piece]
        return {"max": np.max(blocks, axis=0), "other": array}

    def finalize(state, image):
        image[...] = state["max"]

    def combine(first, second):
        return {"max": np.maximum(first["max"], second["max"]), "other": array}

    statistic = stats.Statistic("own", chunk, combine, finalize, state_nbytes=24)
    refused = pytest.raises(TypeError, match="'other' of the state has shape")
    with stats.snapshots(frames, statistic, 4, checkpoint=place) as images, refused:
        next(images)


HELD = """
import sys, numpy as np, daskstats as stats
frames = np.arange(60 * 8 * 8).reshape(60, 8, 8).astype("u2")
if sys.argv[2] == "follow":
    np.save("scan.npy", frames)
    it = stats.follow("scan.npy", "max", 80, timeout=30, checkpoint="place")
else:
    it = stats.max_iter(frames, 20, checkpoint="place")
for image in it:
    if sys.argv[1] == "error":
        raise KeyError
    break
"""


@pytest.mark.parametrize("how", ["error", "exit"])
@pytest.mark.parametrize("call", ["iterate", "follow"])
def test_an_iterator_that_has_a_name_at_exit(tmp_path, how, call):
    command = [sys.executable, "-c", HELD, how, call]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    said = [line for line in found.stderr.splitlines() if line]
    assert (said[-1] == "KeyError") if how == "error" else not said, found.stderr
    assert "Exception ignored" not in found.stderr
    assert stats.load_checkpoint(tmp_path / "place").done == (60 if call == "follow" else 3)


def test_a_state_that_is_lost_at_exit_is_told(tmp_path):
    lost = (
        "from daskstats.checkpoints.store import CheckpointStore\n"
        "def full(*_):\n    raise OSError('no space is left')\n"
        "CheckpointStore.commit = full\n"
    )
    command = [sys.executable, "-c", HELD + lost, "exit", "iterate"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    place = tmp_path.resolve() / "place"
    said = f"the last state of {place} is not stored: no space is left"
    assert found.stderr.strip().splitlines() == [said]


@pytest.mark.parametrize("restart", ["no", 0, 3])
def test_restart_is_a_bool(frames, place, restart):
    """Any other value would remove a state, or keep one, by mistake."""
    run(frames, "max", stop_after=2, checkpoint=place)
    with pytest.raises(TypeError, match="restart must be True or False"):
        stats.max_iter(frames, 6, checkpoint=place, restart=restart)
    assert stats.load_checkpoint(place).done == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_leaves_it_to_its_parent(frames, place):
    with stats.max_iter(frames, 20, checkpoint=place) as images:
        next(images)
        child = os.fork()
        if not child:
            images._checkpoint.end()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(CheckpointInUseError):
            stats.max_iter(frames, 20, checkpoint=place)


def test_other_calls_are_refused(frames, place):
    run(frames, "average", stop_after=2, checkpoint=place)
    text = (
        r"scan.checkpoint is the checkpoint of another call \(average, 20 of 60 frames\): "
        r"statistic was 'average' there and is 'max' here: give another checkpoint, or start "
        r"over with restart"
    )
    with pytest.raises(OtherCallError, match=text):
        stats.max_iter(frames, 3, checkpoint=place)
    # It is free again, and as it was.
    assert stats.load_checkpoint(place).done == 20
    assert len(run(frames, "max", checkpoint=place, restart=True)) == 6
    assert stats.load_checkpoint(place).statistic == "max"


def test_in_use(frames, place):
    with stats.average_iter(frames, 6, checkpoint=place) as images:
        next(images)
        with pytest.raises(CheckpointInUseError, match=f"process {os.getpid()} on "):
            stats.average_iter(frames, 6, checkpoint=place)
        with pytest.raises(CheckpointInUseError):
            stats.average_iter(frames, 6, checkpoint=place, restart=True)
    assert stats.load_checkpoint(place).done == 10


@pytest.mark.parametrize("leave", ["close", "break", "del", "error", "failing task"])
def test_the_state_is_stored_at_the_end(frames, place, leave):
    """However a run ends, also long before the interval is over."""
    series = FakeSeries(Filled((24, 30)), 60)
    if leave == "failing task":
        series = FakeSeries(
            Filled((24, 30)),
            60,
            delay=0.002,
            on_read=Fail({55: 99}, RuntimeError("detector on fire")),
        )
    images = stats.average_iter(series, 6, checkpoint=place)
    try:
        for count, _ in enumerate(images, start=1):
            if count == 2 and leave != "failing task":
                break
            if leave == "error" and count == 3:
                raise ValueError("of the consumer")
    except (ValueError, RuntimeError):
        assert leave in ("error", "failing task")
    if leave == "close":
        images.close()
    del images
    gc.collect()
    done = stats.load_checkpoint(place).done
    assert done in ((10, 20, 30, 40, 50) if leave == "failing task" else (20,))
    assert not [each for each in threading.enumerate() if each.name.startswith("daskstats")]


def test_commits_are_seldom(frames, place, monkeypatch):
    """By default every 30 seconds, and at the end."""
    commits = []
    monkeypatch.setattr(
        CheckpointStore,
        "commit",
        lambda self, manifest, arrays: commits.append(manifest.newest.done) or manifest,
    )
    run(frames, "average", checkpoint=place)
    assert commits == [60]
    with dask.config.set(EACH_STEP):
        run(frames, "average", checkpoint=place / "each")
    assert commits[1:] == [10, 20, 30, 40, 50, 60]


def test_a_damaged_generation(frames, place):
    with dask.config.set(EACH_STEP):
        run(frames, "average", stop_after=3, checkpoint=place)
    expected = run(frames, "average")
    chunk = place / "3" / "0" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match="image average in .* is damaged"):
        stats.load_checkpoint(place)
    with pytest.warns(UserWarning, match="image average in .*: the run continues from the gen"):
        images = run(frames, "average", checkpoint=place)
    check_same(images, expected[2:])


def test_a_fill_value_of_nan(frames, place):
    """NaN is equal to itself: the call is the same, and a damaged image is read once."""
    options = {"invalid": 3, "fill_value": np.nan, "checkpoint": place}
    run(frames, "average", stop_after=2, **options)
    assert len(run(frames, "average", **options)) == 4
    (place / "2" / "0" / "zarr.json").unlink()
    with pytest.raises(DamagedCheckpointError, match="image average"):
        stats.load_checkpoint(place)


def test_no_generation_can_be_read(frames, place):
    with dask.config.set(EACH_STEP):
        run(frames, "average", stop_after=3, checkpoint=place)
    for number in ("2", "3"):
        (place / number / "1" / "zarr.json").unlink()
    with (
        pytest.raises(DamagedCheckpointError, match="state .* is damaged.*restart"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        stats.average_iter(frames, 3, checkpoint=place)


def test_load_checkpoint(frames, place):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        stats.load_checkpoint(place)
    with dask.config.set(EACH_STEP), stats.snapshots(frames, "max", 6, checkpoint=place) as shots:
        for shot in shots:
            loaded = stats.load_checkpoint(place)  # while the run goes on
            check_same([loaded.image], [shot.image])
            for name in ("done", "total", "unit", "statistic", "nbytes", "phase"):
                assert getattr(loaded, name) == getattr(shot, name)
            assert loaded.seen.all()
    run(frames, ["max", "median"], stop_after=2, checkpoint=place / "rows")
    loaded = stats.load_checkpoint(place / "rows")
    assert (loaded.done, loaded.total, loaded.unit) == (8, 24, "rows")
    assert loaded.seen[:8].all()
    assert not loaded.seen[8:].any()
    np.testing.assert_array_equal(loaded.image["max"][:8], frames.max(axis=0)[:8])
    assert not loaded.image["median"][8:].any()


def test_frames_are_appended(frames, place):
    """A fold goes on with them; rows are of all frames."""
    for count in (10, 11, 60):
        *_, image = stats.average_iter(frames[:count], 3, checkpoint=place)
        check_same([image], [stats.average(frames[:count]).compute()])
    with pytest.raises(OtherCallError, match="number of frames was 60 there and is 59 here"):
        stats.average_iter(frames[:59], 3, checkpoint=place)
    run(frames[:30], "median", checkpoint=place / "median")
    with pytest.raises(OtherCallError, match="was 30 there and is 60 here, and its rows are of"):
        stats.median_iter(frames, 3, checkpoint=place / "median")


def test_appended_frames_are_read_once(place):
    for nframes in (20, 50):
        series = FakeSeries(Filled((4, 3)), nframes)
        list(stats.max_iter(series, 2, checkpoint=place))
        fresh = [index for index in series.reads if index >= 20] if nframes == 50 else series.reads
        # Three frames tell whether the series is the same.
        assert set(fresh) == set(range(20) if nframes == 20 else range(20, 50))
        assert len(series.reads) <= (20 if nframes == 20 else 30) + 6


def test_scratch_data_are_kept(place):
    """A run that was stopped while it wrote frames to disk reads only the others."""
    options = {"checkpoint": place, "memory_limit": "16 MiB"}
    whole = stats.median(FakeSeries(Ramp((64, 256)), 800)).compute()
    first, second = (FakeSeries(Ramp((64, 256)), 800) for _ in range(2))
    with stats.snapshots(first, "median", 8, **options) as shots:
        for shot in shots:
            if shot.phase == "read" and shot.done > 300:
                break
    kept = set(place.glob("scratch-*"))
    assert len(kept) == 1
    # Neither a group that is not whole, nor the frames of another call, are used.
    chunk = next(iter(kept)) / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with stats.snapshots(first, ("percentile", 5), 8, **options) as shots:
        next(shots)
    assert set(place.glob("scratch-*")).isdisjoint(kept)
    list(stats.snapshots(first, "median", 8, **options))
    assert not list(place.glob("scratch-*"))
    with stats.snapshots(first, "median", 8, **options | {"restart": True}) as shots:
        for shot in shots:
            if shot.phase == "read" and shot.done > 300:
                break
    for shot in stats.snapshots(second, "median", 8, **options):
        image = shot.image
    np.testing.assert_array_equal(image, whole)
    assert len(second.reads) < 800 - 200
    assert not list(place.glob("scratch-*"))


def test_rows_of_an_earlier_run_are_no_frames_that_are_read(place):
    series, options = FakeSeries(Ramp((64, 256)), 800), {"checkpoint": place}
    with stats.snapshots(series, "median", 8, **options) as shots:
        done = next(shot.done for shot in shots if shot.phase == "compute")
    with stats.snapshots(series, "median", 8, **options | {"memory_limit": "16 MiB"}) as shots:
        progress = shots.progress
        assert (progress.phase, progress.unit) == ("read", "frames")
        assert (progress.done, progress.total) == (0, 800)
        assert progress.rows_seen == done
        *_, last = shots
    np.testing.assert_array_equal(last.image, stats.median(series).compute())


def test_the_log_says_where_it_goes_on(frames, place, caplog):
    run(frames, "max", stop_after=2, checkpoint=place)
    with caplog.at_level(logging.INFO, "daskstats"):
        run(frames, "max", stop_after=1, checkpoint=place)
    assert "continued after 20 of 60 frames" in caplog.text


def test_threads_then_a_cluster(frames, tmp_path, rng):
    """Twenty runs begin on threads and go on on a cluster, with the same bits."""
    saved = tmp_path / "scan.npy"
    np.save(saved, frames)
    names = ["average", "median", "fused", "argmax"]
    expected = {name: run(frames, STATISTICS[name]) for name in names}
    for number in range(20):
        name = names[number % len(names)]
        stop = int(rng.integers(1, 6))
        place = tmp_path / f"{number}"
        images = run(str(saved), STATISTICS[name], stop_after=stop, checkpoint=place)
        check_same(images, expected[name][:stop])
    with local_cluster():
        for number in range(20):
            name = names[number % len(names)]
            images = run(str(saved), STATISTICS[name], checkpoint=tmp_path / f"{number}")
            check_same(images, expected[name][-len(images) :])
            assert len(images) < 6
