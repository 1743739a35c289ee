"""Medians of series that grow: of all frames that are there, each of them decoded once."""

import errno
import math
import multiprocessing
import shutil
import threading
import time
from collections import Counter
from contextlib import suppress

import dask
import numpy as np
import pytest
import zarr
from forking import start_method
from programs import run
from writers import SHAPE, WRITERS, frames, place_of, writing

import daskstats as stats
from daskstats.checkpoints.identity import OtherCallError
from daskstats.checkpoints.manifest import DamagedCheckpointError
from daskstats.formats.zarr_array import ZarrPathSource
from daskstats.growing_images import SelectedImages
from daskstats.memory.reservation import unreserved
from daskstats.scratch.directories import DamagedScratchError
from daskstats.scratch.growing import GrowingStore

SEVERAL = ["median", "max"]


def expected(count):
    return stats.aggregate(frames(count), SEVERAL)


def check_same(images, other):
    """Check that the images of several statistics have the same bits."""
    assert images.keys() == other.keys()
    for name, image in dask.compute(other)[0].items():
        assert images[name].dtype == image.dtype
        np.testing.assert_array_equal(images[name], image)


class Scan:
    """A zarr array that frames are added to, and the frames that are read from it."""

    def __init__(self, place, monkeypatch, series=None):
        self.place, self.series = place, frames(40) if series is None else series
        settings = {"chunks": (1, *SHAPE), "dtype": self.series.dtype}
        settings["config"] = {"write_empty_chunks": True}
        self._array = zarr.create_array(place, shape=(0, *SHAPE), **settings)
        self.reads, read = Counter(), ZarrPathSource.read

        def logged(source, start, stop, first, last):
            self.reads.update(range(start, stop))
            return read(source, start, stop, first, last)

        monkeypatch.setattr(ZarrPathSource, "read", logged)

    def write(self, stop):
        before = self._array.shape[0]
        self._array.resize((stop, *SHAPE))
        self._array[before:] = self.series[before:stop]


@pytest.fixture
def scan(tmp_path, monkeypatch):
    return Scan(tmp_path / "scan.zarr", monkeypatch)


def alter_frames(checkpoint):
    """Alter all frames in a checkpoint, but not the checksums behind them."""
    for path in (checkpoint / "frames" / "c").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(bytes(len(content) - 4) + content[-4:])


def take_without_an_image(scan, checkpoint):
    """Take 9 frames, of which one is there at first, as a run that is killed before an image."""
    scan.write(1)
    shots = stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint)
    next(shots)
    scan.write(9)
    list(shots)
    (checkpoint / "manifest.json").unlink()


@pytest.mark.parametrize("kind", WRITERS)
def test_images_of_a_writer_at_50_hz(tmp_path, kind):
    place = tmp_path / place_of(kind)
    with writing(kind, place, 40):
        shots = list(stats.follow(place, SEVERAL, 40, timeout=20))
    done = [shot.done for shot in shots]
    assert done == sorted({*done})
    assert done[-1] == shots[-1].total == 40
    for shot in {shots[0].done: shots[0], 40: shots[-1]}.values():
        check_same(shot.image, expected(shot.done))
        assert shot.unit == "frames"
        assert shot.seen.all()


def test_each_frame_is_decoded_once(scan):
    scan.write(3)
    shots = stats.follow(scan.place, "median", 40)
    done = []
    for shot in shots:
        done.append(shot.done)
        np.testing.assert_array_equal(shot.image, np.median(scan.series[: shot.done], axis=0))
        scan.write(min(40, shot.done + 7))
    assert done == [3, 10, 17, 24, 31, 38, 40]
    assert scan.reads == dict.fromkeys(range(40), 1)
    assert unreserved(1 << 30) == 1 << 30


def test_corrections_and_selections_are_those_of_a_plain_call(scan, tmp_path, rng):
    scan.write(12)
    options = {
        "region": ((3, 20), (1, 24)),
        "mask": rng.random(SHAPE[::-1]) < 0.1,
        "flip": "t",
        "fill_value": 7,
        "memory_limit": "200 MiB",
    }
    call = {"timeout": 20, "checkpoint": tmp_path / "checkpoint"}
    *_, shot = stats.follow(scan.place, ["median"], 12, **call, **options)
    check_same(shot.image, stats.aggregate(frames(12), ["median"], **options))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_a_run_goes_on(tmp_path, monkeypatch, dtype):
    """Frames that earlier runs have taken are not decoded again, on any scheduler."""
    scan = Scan(tmp_path / "scan.zarr", monkeypatch, (frames(20) / 3).astype(dtype))
    call = {"timeout": 0.2, "checkpoint": tmp_path / "checkpoint"}
    for number, stop in enumerate((3, 4, 11, 11, 20)):
        scan.write(stop)
        limit = {"memory_limit": f"{100 * (1 + number)} MiB"}
        with dask.config.set(scheduler=("threads", "sync")[number % 2]):
            *_, shot = stats.follow(scan.place, ["median", "sum"], **call, **limit)
        assert shot.done == stop
        np.testing.assert_array_equal(shot.image["median"], np.median(scan.series[:stop], axis=0))
        kept = stats.load_checkpoint(tmp_path / "checkpoint")
        check_same(kept.image, shot.image)
    # The first, middle and last frame identify a series; nothing else is read again.
    sampled = {0, 1, 2, 3, 5, 10, 19}
    assert all(scan.reads[index] == 1 for index in range(20) if index not in sampled)
    with pytest.raises(OtherCallError):
        list(stats.follow(scan.place, ["median", "std"], **call))
    before = scan.reads.total()
    (image,) = stats.aggregate_iter(
        scan.place, ["median", "sum"], 1, checkpoint=tmp_path / "checkpoint"
    )
    check_same(image, shot.image)
    assert scan.reads.total() <= before + 6
    assert (tmp_path / "checkpoint" / "frames").is_dir()
    # All frames are there: nobody needs them any more.
    *_, last = stats.follow(scan.place, ["median", "sum"], 20, checkpoint=tmp_path / "checkpoint")
    check_same(last.image, shot.image)
    assert not (tmp_path / "checkpoint" / "frames").exists()


def test_a_median_that_was_not_followed_goes_on(scan, tmp_path):
    scan.write(5)
    call = {"checkpoint": tmp_path / "checkpoint"}
    with stats.median_iter(scan.place, 3, **call) as images:
        next(images)  # and the other rows are not done
    assert stats.load_checkpoint(tmp_path / "checkpoint").done == SHAPE[0] // 3
    *_, shot = stats.follow(scan.place, "median", timeout=0.2, **call)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:5], axis=0))
    list(stats.median_iter(scan.place, 3, **call))
    scan.write(9)
    with pytest.raises(OtherCallError, match="its rows are of all frames"):
        stats.median_iter(scan.place, 3, **call)
    *_, shot = stats.follow(scan.place, "median", 9, **call)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:9], axis=0))
    *_, image = stats.median_iter(scan.place, 3, **call)
    np.testing.assert_array_equal(image, shot.image)


def test_frames_of_another_scan_are_not_used(scan, tmp_path):
    """Also where no image of them was stored."""
    scan.write(9)
    checkpoint = tmp_path / "checkpoint"
    list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    (checkpoint / "manifest.json").unlink()
    array = zarr.create_array(
        scan.place, shape=(12, *SHAPE), chunks=(1, *SHAPE), dtype="u2", overwrite=True
    )
    array[:] = scan.series[:12] + 1
    *_, shot = stats.follow(scan.place, "median", 12, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:12] + 1, axis=0))


def test_frames_of_another_scan_that_begins_with_the_same_frame(scan, tmp_path):
    """A process was killed that had seen one frame at first, and had stored no image."""
    checkpoint = tmp_path / "checkpoint"
    take_without_an_image(scan, checkpoint)
    identity = (checkpoint / "frames" / "identity.json").read_text()
    assert '"number of frames": 1,' in identity
    scan.series[1:] += 1
    array = zarr.open_array(scan.place)
    array[:] = scan.series[:9]
    *_, shot = stats.follow(scan.place, "median", 9, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:9], axis=0))


@pytest.mark.parametrize(
    "kind", [{"dtype": "f4"}, {"dtype": "u4"}, {"shape": (12, 1, 30)}], ids=str
)
def test_another_kind_of_frames_in_the_same_place_is_refused(scan, kind):
    scan.write(9)
    shots = stats.follow(scan.place, "median", timeout=0.3)
    next(shots)
    facts = {"shape": (12, *SHAPE), "dtype": "u2"} | kind
    array = zarr.create_array(scan.place, chunks=(1, *facts["shape"][1:]), overwrite=True, **facts)
    array[:] = 1
    with pytest.raises(ValueError, match="was replaced"):
        list(shots)


def test_frames_of_zeros(tmp_path, monkeypatch):
    """Before a scan begins, or where a beam stop is."""
    series = frames(20)
    series[:6] = 0
    series[:, 5:15] = 0
    scan = Scan(tmp_path / "scan.zarr", monkeypatch, series)
    for stop in (8, 20):
        scan.write(stop)
        *_, shot = stats.follow(scan.place, "median", stop, checkpoint=tmp_path / f"{stop}")
        np.testing.assert_array_equal(shot.image, np.median(series[:stop], axis=0))


def test_a_full_disk_is_told_at_once(scan, tmp_path, monkeypatch):
    scan.write(9)
    shots = stats.follow(scan.place, "median", timeout=60, checkpoint=tmp_path / "checkpoint")
    next(shots)

    def full(store, start, frames, count=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GrowingStore, "_write", full)
    scan.write(12)
    with pytest.raises(OSError, match="scratch data need .* GiB, there are .* No space left"):
        next(shots)
    monkeypatch.undo()
    *_, shot = stats.follow(scan.place, "median", 12, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:12], axis=0))


def test_frames_that_come_slowly_are_waited_for(scan, monkeypatch):
    """While an image is not due, the time without new frames is that of the writer."""
    ended = []
    update = SelectedImages.update

    def noted(images, reduction, series, end):
        ended.append(end)
        images._next = math.inf  # as after an image that took long
        return update(images, reduction, series, end)

    monkeypatch.setattr(SelectedImages, "update", noted)

    def go_on():
        for stop in range(2, 9):
            time.sleep(0.15)
            scan.write(stop)

    scan.write(1)
    writer = threading.Thread(target=go_on)
    writer.start()
    shots = list(stats.follow(scan.place, "median", timeout=0.6))
    writer.join()
    assert [shot.done for shot in shots] == [8]
    assert ended.count(True) == 1


def test_a_series_with_fewer_frames_than_were_taken(scan, tmp_path):
    scan.write(9)
    checkpoint = tmp_path / "checkpoint"
    list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    (checkpoint / "manifest.json").unlink()
    *_, shot = stats.follow(scan.place, "median", 5, timeout=0.1, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:5], axis=0))


def test_altered_frames_are_an_error(scan, tmp_path):
    scan.write(9)
    shots = stats.follow(scan.place, "median", timeout=0.5, checkpoint=tmp_path / "checkpoint")
    next(shots)
    alter_frames(tmp_path / "checkpoint")
    scan.write(12)
    with pytest.raises(DamagedScratchError, match="rows 0 to .* of frames 0 to 8 are damaged"):
        list(shots)
    # The next run takes them again, also where the checksum at the end of a chunk was left.
    *_, shot = stats.follow(scan.place, "median", 12, checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:12], axis=0))


def follow_in_process(place, checkpoint, told):
    with dask.config.set({"daskstats.checkpoint-interval": 0}):
        for shot in stats.follow(place, "median", 30, checkpoint=checkpoint):
            told.send(shot.done)


def check_killed(scan, checkpoint, seed):
    """Kill a process that follows a scan at random moments, until it gets to the end."""
    rng, context = np.random.default_rng(seed), multiprocessing.get_context(start_method())
    for stop in (8, 19, 30):
        scan.write(stop)
        steps, told = context.Pipe(duplex=False)
        process = context.Process(target=follow_in_process, args=(scan.place, checkpoint, told))
        process.start()
        told.close()
        try:
            if rng.random() < 0.5:
                with suppress(EOFError):
                    steps.recv()
            time.sleep(rng.uniform(0, 0.3))
        finally:
            process.kill()
            process.join()
            process.close()
            steps.close()
    *_, shot = stats.follow(scan.place, "median", 30, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:30], axis=0))


def test_killed_at_random(scan, tmp_path):
    for seed in range(3):
        shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)
        check_killed(scan, tmp_path / "checkpoint", seed)


@pytest.mark.nightly
def test_killed_at_random_often(scan, tmp_path):
    for seed in range(3, 40):
        shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)
        check_killed(scan, tmp_path / "checkpoint", seed)


def test_a_damaged_image_is_not_replaced_by_one_of_fewer_frames(scan, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    for stop in (5, 9):
        scan.write(stop)
        list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    (newest,) = [path for path in checkpoint.iterdir() if path.name.isdigit()]
    shutil.rmtree(newest)
    with pytest.raises(DamagedCheckpointError):
        list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    with pytest.raises(DamagedCheckpointError):
        stats.median_iter(scan.place, 1, checkpoint=checkpoint)


def test_damaged_frames_of_an_earlier_run_are_taken_again(scan, tmp_path):
    scan.write(9)
    checkpoint = tmp_path / "checkpoint"
    list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    alter_frames(checkpoint)
    scan.write(12)
    *_, shot = stats.follow(scan.place, "median", 12, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:12], axis=0))


def test_fewer_frames_than_an_earlier_run_has_taken(scan, tmp_path):
    """It saw one frame at first, and was killed before an image was stored."""
    checkpoint = tmp_path / "checkpoint"
    take_without_an_image(scan, checkpoint)
    *_, shot = stats.follow(scan.place, "median", 5, timeout=0.5, checkpoint=checkpoint)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:5], axis=0))


def test_restart_takes_all_frames_again(scan, tmp_path):
    scan.write(9)
    checkpoint = tmp_path / "checkpoint"
    list(stats.follow(scan.place, "median", timeout=0.1, checkpoint=checkpoint))
    shutil.rmtree(checkpoint / "frames" / "c")
    call = {"timeout": 0.1, "checkpoint": checkpoint, "restart": True}
    *_, shot = stats.follow(scan.place, "median", **call)
    np.testing.assert_array_equal(shot.image, np.median(scan.series[:9], axis=0))


def test_scratch_data_are_removed(scan, tmp_path):
    """With the iterator, at its end, or when it is left."""
    scan.write(9)
    place = tmp_path / "scratch"
    place.mkdir()
    with dask.config.set({"daskstats.scratch-directory": str(place)}):
        shots = stats.follow(scan.place, "median", timeout=0.2)
        next(shots)
        assert len([*place.iterdir()]) == 1
        shots.close()
        assert [*place.iterdir()] == []
        list(stats.follow(scan.place, "median", 9))
        assert [*place.iterdir()] == []


def test_a_ram_disk_is_refused(scan, monkeypatch):
    scan.write(2)
    monkeypatch.setattr("daskstats.scratch.location._file_system", lambda place: "tmpfs")
    with pytest.raises(OSError, match="growing series wait on disk for median: .* a RAM disk"):
        list(stats.follow(scan.place, "median", timeout=0.2))


def test_on_a_cluster(scan, tmp_path, client):
    scan.write(9)
    shots = stats.follow(scan.place, SEVERAL, 15, checkpoint=tmp_path / "checkpoint")
    check_same(next(shots).image, expected(9))
    scan.write(15)
    check_same(next(shots).image, expected(15))


def test_the_command_line(tmp_path):
    place, output = tmp_path / "scan.zarr", tmp_path / "dark.npy"
    with writing("zarr v3", place, 30):
        result = run("median", place, "--follow", "--nframes", 30, "-o", output)
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(output), np.median(frames(30), axis=0))
