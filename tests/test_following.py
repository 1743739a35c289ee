"""Following series that grow: every frame counts once, and only when it is written."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import dask
import h5py
import numpy as np
import pytest
import tifffile
import zarr
from helpers import read_dense
from programs import check_error, run
from writers import SHAPE, WRITERS, frame, frames, place_of, writing

import daskstats as stats
from daskstats.checkpoints.identity import OtherCallError
from daskstats.checkpoints.store import CheckpointStore
from daskstats.formats.growing import GrowingFiles, ReplacedFileError
from daskstats.growing_images import FoldedImages
from daskstats.memory.reservation import unreserved
from daskstats.statistics.validity import NoValidValueError

SEVERAL = ["max", "average", "argmax"]


def check_same(images, other):
    """Check that the images of several statistics have the same bits."""
    assert images.keys() == other.keys()
    for name in images:
        assert images[name].dtype == other[name].dtype
        np.testing.assert_array_equal(images[name], other[name])


def expected(count):
    return {name: getattr(stats, name)(frames(count)).compute() for name in SEVERAL}


def check_followed(kind, place, count, checkpoint=None):
    """Follow a writer at 50 Hz."""
    with writing(kind, place, count):
        shots = list(stats.follow(place, SEVERAL, count, timeout=20, checkpoint=checkpoint))
    done = [shot.done for shot in shots]
    assert done == sorted({*done})
    assert done[-1] == shots[-1].total == count
    check_same(shots[-1].image, expected(count))
    for shot in shots[:: max(1, len(shots) // 5)]:
        check_same(shot.image, expected(shot.done))


@pytest.mark.parametrize("kind", WRITERS)
def test_each_frame_counts_once(tmp_path, kind):
    check_followed(kind, tmp_path / place_of(kind), 40)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", WRITERS)
def test_each_of_200_frames_counts_once(tmp_path, kind):
    check_followed(kind, tmp_path / place_of(kind), 200, checkpoint=tmp_path / "checkpoint")


def written(place, total=0, ended=False):
    """Return the number of frames that are written."""
    series = GrowingFiles(str(place)).look(total, ended)
    return 0 if series is None else len(series)


@pytest.mark.parametrize("version", [2, 3])
def test_frames_of_zarr_arrays_that_are_written(tmp_path, version):
    """The shape tells nothing, and a chunk of several frames is complete when the next is there."""
    place = tmp_path / "scan.zarr"
    settings = {"dtype": "u2", "zarr_format": version}
    array = zarr.create_array(place, shape=(9, 4, 6), chunks=(1, 2, 6), **settings)
    assert written(place) == 0
    array[0] = 1
    assert written(place) == 1
    array[1, :2] = 1  # one of its two chunks
    assert written(place) == written(place, total=2) == 1
    assert written(place, ended=True) == 2
    array[3] = 1  # frame 2 has no chunk, because it is empty
    assert written(place) == written(place, ended=True) == 4

    array = zarr.create_array(place, shape=(9, 4, 6), chunks=(4, 4, 6), overwrite=True, **settings)
    array[:2] = 1
    assert written(place) == written(place, total=3) == 0
    assert written(place, ended=True) == written(place, total=2) == 2
    array[2:5] = 1
    assert written(place) == 4
    assert written(place, total=5) == 5

    array = zarr.create_array(
        place, shape=(2, 3, 4, 6), chunks=(1, 2, 4, 6), overwrite=True, **settings
    )
    array[0, :2] = 1
    assert written(place) == 0
    array[0, 2:] = 1
    assert written(place) == 3


def test_the_metadata_of_an_array_count(tmp_path):
    """Those that a group has of its arrays, consolidated, are older."""
    place = tmp_path / "scan.zarr"
    array = zarr.create_group(place, zarr_format=2).create_array(
        "images", shape=(3, 4, 6), chunks=(1, 4, 6), dtype="u2"
    )
    array[:] = 1
    zarr.consolidate_metadata(place)
    files = GrowingFiles(str(place))
    assert len(files.look()) == 3
    array.resize((5, 4, 6))
    array[3:] = 1
    assert len(files.look()) == 5


def test_shards_are_chunks(tmp_path):
    place = tmp_path / "scan.zarr"
    settings = {"shards": (4, 4, 6), "chunks": (1, 4, 6), "dtype": "u2"}
    array = zarr.create_array(place, shape=(9, 4, 6), **settings)
    array[:4] = 1
    assert written(place) == 0
    array[4] = 1
    assert written(place) == 4
    assert written(place, ended=True) == 5


def test_frames_of_hdf5_datasets_that_are_written(tmp_path):
    place = tmp_path / "scan.h5"

    def write(count, **settings):
        with h5py.File(place, "w") as file:
            data = file.create_dataset("images", (9, 4, 6), "u2", **settings)
            data[:count] = 1

    for count in (0, 3):
        write(count, chunks=(1, 4, 6))
        assert written(place) == written(place, ended=True) == count
    write(3, chunks=(1, 2, 6))
    assert written(place) == 2
    assert written(place, ended=True) == written(place, total=3) == 3
    with h5py.File(place, "w") as file:
        data = file.create_dataset("images", (9, 4, 6), "u2", chunks=(1, 2, 6))
        data[:3] = 1
        data[3, :2] = 1  # one of its two chunks
    assert written(place) == written(place, total=4) == 3
    assert written(place, ended=True) == 4
    write(6, chunks=(4, 4, 6))
    assert written(place) == written(place, total=7) == 4
    assert written(place, ended=True) == 6
    write(3)  # not in chunks, and nobody writes it
    assert written(place) == 9


def test_hdf5_datasets_that_do_not_tell_which_frames_are_written(tmp_path):
    """Frames whose chunks the library lists wrongly count at the end, if they hold something."""
    place, shown = tmp_path / "scan.h5", tmp_path / "shown.h5"
    shape = 3, 4, *SHAPE
    with h5py.File(shown, "w", libver="latest") as file:
        layout = h5py.VirtualLayout(shape, "u2")
        layout[...] = h5py.VirtualSource("scan.h5", "images", shape)
        file.create_virtual_dataset("images", layout)
        file.swmr_mode = True
        with h5py.File(place, "w", libver="latest") as source:
            data = source.create_dataset(
                "images", shape, "u2", chunks=(1, 1, *SHAPE), maxshape=(3, None, *SHAPE)
            )
            source.swmr_mode = True
            data[0, :2] = 1
            data.flush()
            assert written(place) == written(shown) == 0
    for path in (place, shown):
        assert written(path) == 0
        assert written(path, ended=True) == written(path, total=2) == 2


def test_a_file_is_closed_after_a_look_that_counts_no_more_frames(tmp_path):
    """HDF5 gives the state of a file that is still open, and its writer may want to open it."""
    place = tmp_path / "scan.h5"
    settings = {"shape": (0, 4, 6), "maxshape": (None, 4, 6), "chunks": (4, 4, 6), "dtype": "u2"}
    with h5py.File(place, "w") as file:
        file.create_dataset("images", **settings)
    files, counts = GrowingFiles(str(place)), []
    for count in (5, 6, 7, 10, 13):
        with h5py.File(place, "a") as file:
            before = len(file["images"])
            file["images"].resize(count, axis=0)
            file["images"][before:] = 1 + np.arange(before, count)[:, None, None]
        series = files.look()
        counts.append(len(series))
        assert [frame[0, 0] for frame in read_dense(series, (0, len(series), 0, 4, 3))] == list(
            range(1, 1 + counts[-1])
        )
        files.release()
    assert counts == [4, 4, 4, 8, 12]


def test_a_file_that_is_opened_for_each_frame(tmp_path):
    """Whenever there is no new frame, the program that writes may open it."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=frames(1), maxshape=(None, *SHAPE), chunks=(1, *SHAPE))

    def write():
        with h5py.File(path, "a") as file:
            count = len(file["x"])
            file["x"].resize(count + 1, axis=0)
            file["x"][count] = frame(count)

    with stats.follow(path, "max", 5, timeout=5) as images:
        images.on_wait = write
        *_, last = images
    np.testing.assert_array_equal(last.image, frames(5).max(axis=0))


@pytest.mark.parametrize("statistic", ["max", "median"])
def test_a_file_that_has_grown_when_the_iterator_is_closed(tmp_path, statistic):
    """The state that is stored is of the frames that were there."""
    path, place = tmp_path / "scan.npy", tmp_path / "place"

    def write(count):
        np.save(tmp_path / "new.npy", frames(count))
        (tmp_path / "new.npy").replace(path)

    write(10)
    images = stats.follow(path, statistic, 40, timeout=5, checkpoint=place)
    next(images)
    write(12)
    images.close()
    assert stats.load_checkpoint(place).done == (10 if statistic == "max" else SHAPE[0])
    write(40)
    *_, last = stats.follow(path, statistic, 40, timeout=5, checkpoint=place)
    np.testing.assert_array_equal(last.image, getattr(stats, statistic)(frames(40)).compute())


def test_files_appear_in_natural_order(tmp_path):
    files, place = GrowingFiles(str(tmp_path / "*.tif")), tmp_path
    assert files.look() is None
    assert isinstance(files.problem, FileNotFoundError)
    for index in range(12):
        tifffile.imwrite(place / f"scan_{index}.tif", frame(index))
    tifffile.imwrite(place / ".scan_13.tif", frame(13))
    (place / "scan.txt").touch()
    assert len(files.look()) == 12
    blocks = [block for piece in files.look().pieces(0, 12, 0, 24, 12) for block in piece]
    np.testing.assert_array_equal(np.concatenate(blocks), frames(12))
    tifffile.imwrite(place / "scan_012.tif", np.stack([frame(12)] * 2))
    assert len(files.look()) == 14
    tifffile.imwrite(place / "scan_5b.tif", frame(5))
    with pytest.warns(UserWarning, match="appeared after a file that follows it"):
        assert len(files.look()) == 15
    assert len(GrowingFiles(str(place), without=place / "scan_3.tif").look()) == 14


def test_many_files(tmp_path):
    """Hundreds of files are joined in groups, and one without frames is left out."""
    files = GrowingFiles(str(tmp_path))
    for index in range(150):
        np.save(tmp_path / f"scan_{index}.npy", np.full((1 + index % 2, 2, 3), index, "u2"))
    while files.look() is None or len(files.look()) < 225:
        pass
    blocks = [block for piece in files.look().pieces(0, 225, 0, 2, 9) for block in piece]
    numbers = np.concatenate(blocks)[:, 0, 0]
    np.testing.assert_array_equal(numbers, np.repeat(np.arange(150), 1 + np.arange(150) % 2))

    for index in range(3):
        place, shape = tmp_path / "stores" / f"scan_{index}.zarr", (2, 4, 6)
        array = zarr.create_array(place, shape=shape, chunks=(1, 4, 6), dtype="u2")
        if index != 1:
            array[:] = index + 1
    files = GrowingFiles(str(tmp_path / "stores"))
    with pytest.warns(UserWarning, match="scan_1.zarr has 2 frames, of which the first 0 count"):
        assert len(files.look()) == 4


def test_a_file_that_is_half_written_is_waited_for(tmp_path):
    place, name = tmp_path / "scan", tmp_path / "scan" / "scan_1.tif"
    place.mkdir()
    tifffile.imwrite(place / "scan_0.tif", frame(0))
    tifffile.imwrite(tmp_path / "whole.tif", frame(1))
    whole = (tmp_path / "whole.tif").read_bytes()
    files = GrowingFiles(str(place))
    for length in range(0, len(whole), 9):
        name.write_bytes(whole[:length])
        assert len(files.look()) == 1
        assert files.problem is not None
    for length in (0, len(whole) - 1):
        name.write_bytes(whole[:length])
        shots = stats.follow(place, "max", timeout=0.2)
        assert next(shots).done == 1
        with pytest.raises(ValueError, match=r"scan_1.tif.*no frame.* for 0.2 s, after 1 frame"):
            next(shots)
    shots = stats.follow(place, "max", 2)
    assert next(shots).done == 1
    later = threading.Timer(0.1, lambda: name.write_bytes(whole))
    later.start()
    np.testing.assert_array_equal(next(shots).image, frames(2).max(axis=0))
    later.join()


def test_a_file_that_grows(tmp_path):
    """Pages are added to one file, and it is not the last for ever."""
    for index in range(3):
        tifffile.imwrite(tmp_path / "scan_0.tif", frame(index), append=True)
        if not index:
            shots = stats.follow(tmp_path, "argmax", 4)
        assert next(shots).done == index + 1
    tifffile.imwrite(tmp_path / "scan_1.tif", frame(3))
    *_, last = shots
    np.testing.assert_array_equal(last.image, frames(4).argmax(axis=0))


def test_frames_that_are_not_written_at_the_end(tmp_path):
    place = tmp_path / "scan.zarr"
    array = zarr.create_array(place, shape=(9, 4, 6), chunks=(4, 4, 6), dtype="u2")
    with pytest.raises(ValueError, match="scan.zarr has no frames that are written"):
        list(stats.follow(place, "max", timeout=0.1))
    array[:6] = 7
    with pytest.warns(UserWarning, match="has 9 frames, of which the first 6 count"):
        *_, last = stats.follow(place, "sum", timeout=0.1)
    assert last.done == 6
    assert (last.image == 42).all()
    first = pytest.warns(UserWarning, match="has 9 frames, of which the first 6 count")
    with first, pytest.warns(UserWarning, match="has 6 of 8 frames, and no frame"):
        list(stats.follow(place, "sum", 8, timeout=0.1))


def test_another_array_in_the_same_place(tmp_path):
    place = tmp_path / "scan.zarr"
    zarr.create_array(place, data=frames(3), chunks=(1, *SHAPE))
    shots = stats.follow(place, "max", timeout=0.5)
    assert next(shots).done == 3
    zarr.create_array(tmp_path / "other.zarr", data=frames(5), chunks=(1, *SHAPE))
    place.rename(tmp_path / "old.zarr")
    (tmp_path / "other.zarr").rename(place)
    with pytest.raises(ValueError, match="replaced by another one after 3 of its frames"):
        list(shots)


def write_hdf5(place, series, shape=0, **settings):
    """Write an HDF5 file frame by frame, in the mode SWMR; a file that is there keeps its inode."""
    with h5py.File(place, "w", libver="latest") as file:
        settings = {"maxshape": (None, *SHAPE), "chunks": (1, *SHAPE), "dtype": "u2"} | settings
        data = file.create_dataset("images", (shape, *SHAPE), **settings)
        file.swmr_mode = True
        for index, image in enumerate(series):
            data.resize(max(shape, index + 1), axis=0)
            data[index] = image
            data.flush()


def write_zarr(place, series, **settings):
    """Write a zarr array in place of one that is there, whose inode file systems give it again."""
    for path in place.glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    settings = {"chunks": (1, *SHAPE), "dtype": "u2"} | settings
    array = zarr.create_array(place, shape=series.shape, **settings)
    array[:] = series


def write_virtual(place, series):
    """Write a file that shows the frames of another one, which alone is written anew."""
    write_hdf5(place.with_suffix(".data.h5"), series)
    layout = h5py.VirtualLayout((len(series), *SHAPE), "u2")
    source = h5py.VirtualSource(f"{place.stem}.data.h5", "images", series.shape)
    layout[:] = source
    with h5py.File(place, "w") as file:
        file.create_virtual_dataset("images", layout)


def write_contiguous(place, series):
    with h5py.File(place, "w") as file:
        file["images"] = series


REPLACED = {
    "grown.h5": write_hdf5,
    "gzip.h5": partial(write_hdf5, compression="gzip"),
    "long.h5": partial(write_hdf5, shape=12),
    "contiguous.h5": write_contiguous,
    "virtual.h5": write_virtual,
    "chunks.zarr": write_zarr,
    "old.zarr": partial(write_zarr, zarr_format=2),
    "shards.zarr": partial(write_zarr, shards=(2, *SHAPE)),
    "scan.npy": np.save,
    "scan.tif": partial(tifffile.imwrite, photometric="minisblack"),
    "zlib.tif": partial(tifffile.imwrite, photometric="minisblack", compression="zlib"),
}


@pytest.mark.parametrize("statistic", ["sum", "median"])
@pytest.mark.parametrize("name", REPLACED)
def test_a_file_that_is_written_anew_with_other_frames(tmp_path, name, statistic):
    """Its number of frames and its inode do not tell: the bytes of counted frames do."""
    place = tmp_path / name
    REPLACED[name](place, frames(5)[:4])
    shots = stats.follow(place, statistic, timeout=0.3)
    assert next(shots).done <= 4
    REPLACED[name](place, frames(20)[8:16])
    with pytest.raises(ValueError, match=r"was replaced by another one after \d of its frames"):
        list(shots)


@pytest.mark.parametrize("name", REPLACED)
def test_a_file_that_is_written_anew_with_more_frames(tmp_path, name):
    """Those that were counted are the same: it has grown."""
    place = tmp_path / name
    REPLACED[name](place, frames(4))
    files = GrowingFiles(str(place))
    before = files.look()
    assert before is None or len(before) <= 4
    files.release()
    REPLACED[name](place, frames(8))
    assert len(files.look(ended=True)) == 8


@pytest.mark.parametrize("name", ["grown.h5", "chunks.zarr", "scan.npy", "scan.tif"])
def test_a_file_with_fewer_frames_than_were_counted_is_an_error_from_then_on(tmp_path, name):
    """It may be as long as before soon, and the first frames may be the same ones."""
    place = tmp_path / name
    REPLACED[name](place, frames(6))
    files = GrowingFiles(str(place))
    assert len(files.look()) == 6
    files.release()
    REPLACED[name](place, frames(5))
    with pytest.raises(ReplacedFileError, match="after 6 of its frames had been counted: it has 5"):
        files.look()
    files.release()
    REPLACED[name](place, frames(8))
    with pytest.raises(ReplacedFileError):
        files.look()


@pytest.mark.parametrize("settings", [{"chunks": (4, *SHAPE)}, {"shards": (4, *SHAPE)}], ids=str)
def test_chunks_that_are_written_several_times_are_of_the_same_array(tmp_path, settings):
    place = tmp_path / "scan.zarr"
    settings = {"shape": (0, *SHAPE), "chunks": (1, *SHAPE), "dtype": "u2"} | settings
    array, files, counts = zarr.create_array(place, **settings), GrowingFiles(str(place)), []
    for index in range(14):
        array.resize((index + 1, *SHAPE))
        array.attrs["newest"] = index
        array[: index + 1] = frames(index + 1)  # also all the others once more
        counts.append(len(files.look(ended=index == 5) or ()))
    assert counts == [0, 0, 0, 0, 4, 6, 6, 6, 8, 8, 8, 8, 12, 12]


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_a_run_goes_on(tmp_path, dtype):
    """Bits depend neither on the times of frames nor on stops, also of floats."""
    series = (frames(20) / 3).astype(dtype)
    place, checkpoint = tmp_path / "scan.zarr", tmp_path / "checkpoint"
    array = zarr.create_array(place, shape=(0, *SHAPE), chunks=(1, *SHAPE), dtype=dtype)
    done = []
    for number, stop in enumerate((3, 4, 11, 11, 20)):
        array.resize((stop, *SHAPE))
        array[done[-1] if done else 0 : stop] = series[done[-1] if done else 0 : stop]
        with dask.config.set(scheduler=("threads", "sync")[number % 2]):
            for shot in stats.follow(place, ["std", "sum"], stop, checkpoint=checkpoint):
                done.append(shot.done)
    assert done == [3, 4, 11, 11, 20]
    *_, image = stats.aggregate_iter(series, ["std", "sum"], 20)
    check_same(shot.image, image)
    assert stats.load_checkpoint(checkpoint).done == 20
    with pytest.raises(OtherCallError):
        list(stats.follow(place, "max", 20, checkpoint=checkpoint))
    # A plain call takes it over, and has nothing to fold.
    (image,) = stats.aggregate_iter(place, ["std", "sum"], 5, checkpoint=checkpoint)
    check_same(image, shot.image)
    assert unreserved(1 << 30) == 1 << 30


def test_a_chunk_that_was_begun_when_the_run_ended(tmp_path):
    place, checkpoint = tmp_path / "scan.zarr", tmp_path / "checkpoint"
    array = zarr.create_array(place, shape=(6, *SHAPE), chunks=(4, *SHAPE), dtype="u2")
    array[:] = frames(6)
    *_, last = stats.follow(place, "average", timeout=0.1, checkpoint=checkpoint)
    assert last.done == 6
    array.resize((9, *SHAPE))
    array[6:] = frames(9)[6:]
    shots = list(stats.follow(place, "average", 9, checkpoint=checkpoint))
    assert shots[-1].done == 9
    np.testing.assert_array_equal(shots[-1].image, stats.average(frames(9)).compute())


def test_an_iterator_that_is_closed_stores_its_state(tmp_path):
    place = tmp_path / "scan.npy"
    np.save(place, frames(5))
    shots = stats.follow(place, "max", checkpoint=tmp_path / "checkpoint")
    next(shots)
    shots.close()
    assert stats.load_checkpoint(tmp_path / "checkpoint").done == 5


@pytest.mark.parametrize("statistic", ["max", SEVERAL, ["median", "max"]], ids=str)
@pytest.mark.parametrize("nframes", [0, 3])
@pytest.mark.parametrize("kept", [False, True])
def test_an_image_without_any_valid_value_is_an_error_at_the_end(
    tmp_path, statistic, nframes, kept
):
    np.save(tmp_path / "scan.npy", np.full((3, *SHAPE), 7, "u2"))
    options = {"invalid": 7, "timeout": 0.2} | ({"checkpoint": tmp_path / "place"} if kept else {})
    shots = stats.follow(tmp_path / "scan.npy", statistic, nframes, **options)
    with pytest.raises(NoValidValueError, match="720 pixels have no valid value.*fill_value"):
        next(shots)


@pytest.mark.parametrize("statistic", ["max", ["median", "max"]], ids=str)
def test_a_pixel_without_a_valid_value_is_waited_for(tmp_path, statistic):
    """A later frame may have one."""
    series = frames(3)
    series[:2, 4, 5] = 0
    np.save(tmp_path / "scan_0.npy", series[:2])
    shots = stats.follow(tmp_path, statistic, timeout=20, invalid=0)
    shots.on_wait = lambda: np.save(tmp_path / "scan_1.npy", series[2:])
    shot = next(shots)
    shots.close()
    assert shot.done == 3
    np.testing.assert_array_equal(shot.images["max"], series.max(axis=0))


def test_the_command_line_tells_that_no_pixel_has_a_value(tmp_path):
    np.save(tmp_path / "scan.npy", np.full((3, *SHAPE), 7, "u2"))
    call = "max", tmp_path / "scan.npy", "--follow", "--timeout", 0.2, "--invalid", 7
    check_error(run(*call, "-o", tmp_path / "x.npy"), 2, "have no valid value")
    assert not (tmp_path / "x.npy").exists()


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    """The image of these frames is not there yet, and is tried again."""

    def full(*arguments):
        raise OSError("no space is left")

    np.save(tmp_path / "scan.npy", frames(3))
    monkeypatch.setattr(CheckpointStore, "commit", full)
    with dask.config.set({"daskstats.checkpoint-interval": 0}):
        shots = stats.follow(
            tmp_path / "scan.npy", "max", timeout=0.2, checkpoint=tmp_path / "place"
        )
        with pytest.raises(ValueError, match="no space is left"):
            list(shots)


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_another_thread_ends_the_wait_for_frames(tmp_path):
    """The state is stored when `close` returns."""
    place, waits, done = tmp_path / "place", threading.Event(), []
    np.save(tmp_path / "scan.npy", frames(5))
    shots = stats.follow(tmp_path / "scan.npy", "max", timeout=500, checkpoint=place)
    shots.on_wait = waits.set
    thread = in_thread(lambda: done.extend(shot.done for shot in shots))
    assert waits.wait(60)
    shots.close()
    assert stats.load_checkpoint(place).done == 5
    thread.join(60)
    assert not thread.is_alive()
    assert done == [5]
    assert list(shots) == []
    shots.close()


def test_frames_that_are_being_taken_are_in_the_state_that_close_stores(tmp_path, monkeypatch):
    begun, place, done, update = threading.Event(), tmp_path / "place", [], FoldedImages.update

    def slow(*arguments):
        begun.set()
        time.sleep(0.1)
        return update(*arguments)

    monkeypatch.setattr(FoldedImages, "update", slow)
    np.save(tmp_path / "scan.npy", frames(5))
    shots = stats.follow(tmp_path / "scan.npy", "max", timeout=500, checkpoint=place)
    thread = in_thread(lambda: done.extend(shot.done for shot in shots))
    assert begun.wait(60)
    shots.close()
    assert stats.load_checkpoint(place).done == 5
    thread.join(60)
    assert done == [5]


def test_an_iterator_is_closed_while_it_calls_its_consumer(tmp_path):
    np.save(tmp_path / "scan.npy", frames(5))
    shots = stats.follow(tmp_path / "scan.npy", "max", timeout=500)
    shots.on_wait = shots.close
    assert [shot.done for shot in shots] == [5]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_an_interrupt_ends_the_wait_for_frames(tmp_path):
    np.save(tmp_path / "scan.npy", frames(5))
    shots = stats.follow(tmp_path / "scan.npy", "max", timeout=500, checkpoint=tmp_path / "place")
    next(shots)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            next(shots)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert stats.load_checkpoint(tmp_path / "place").done == 5


AT_EXIT = """
import threading, daskstats as stats
shots = stats.follow("scan.npy", "max", 40, timeout=500, checkpoint="place")
waits = threading.Event()
shots.on_wait = waits.set
threading.Thread(target=list, args=[shots], daemon={daemon}).start()
waits.wait()
"""


@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_that_follows_when_the_program_ends(tmp_path, daemon):
    np.save(tmp_path / "scan.npy", frames(5))
    command = [sys.executable, "-c", AT_EXIT.format(daemon=daemon)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (found.returncode, found.stderr) == (0, "")
    assert stats.load_checkpoint(tmp_path / "place").done == 5


def test_a_checkpoint_tells_how_many_frames_there_will_be(tmp_path):
    place = tmp_path / "place"
    np.save(tmp_path / "scan.npy", frames(5))
    shots = stats.follow(tmp_path / "scan.npy", "max", 40, checkpoint=place)
    next(shots)
    shots.close()
    kept = stats.load_checkpoint(place)
    assert (kept.done, kept.total) == (5, 40)


def test_fewer_frames_than_a_checkpoint_has_are_refused_at_once(tmp_path):
    call = tmp_path / "scan.npy", "max"
    np.save(tmp_path / "scan.npy", frames(5))
    list(stats.follow(*call, 5, checkpoint=tmp_path / "place"))
    with pytest.raises(OtherCallError, match="number of frames was 5 there and is 3 here"):
        next(stats.follow(*call, 3, timeout=1000, checkpoint=tmp_path / "place"))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("scan.h5", "mode"), {}, ValueError, "there is no statistic 'mode'"),
        (("scan.h5", "max"), {"frames": slice(3)}, TypeError, "give their number as nframes"),
        (("scan.h5", "max"), {"timeout": 0}, ValueError, "timeout must be more than 0 seconds"),
        (("scan.h5", "max"), {"timeout": "1"}, TypeError, "timeout must be a number"),
        (("scan.h5", "max", 2.5), {}, TypeError, "nframes must be an integer"),
        ((np.zeros((3, 4, 5)), "max"), {}, TypeError, "path of a file, .* of type ndarray"),
        (("s3://place/scan.zarr", "max"), {}, ValueError, "is an address"),
        (("scan.h5?path=/x&slice=0:3", "max"), {}, ValueError, "selects frames"),
    ],
)
def test_bad_arguments(arguments, options, error, text):
    with pytest.raises(error, match=text):
        stats.follow(*arguments, **options)


def test_nothing_is_there(tmp_path):
    for name in ("scan.h5", "*.tif", "scan.zarr"):
        shots = stats.follow(tmp_path / name, "max", timeout=0.1)
        with pytest.raises(FileNotFoundError, match="no .*file .*no frame has been added for 0.1"):
            next(shots)


def test_the_command_line_replaces_its_output(tmp_path):
    place, output = tmp_path / "scan.zarr", tmp_path / "peaks.npy"
    with writing("zarr v3", place, 30):
        result = run("max", place, "--follow", "--nframes", 30, "-o", output, "-v")
    assert result.exit_code == 0, result.stderr
    dones = [line for line in result.stderr.splitlines() if line.endswith(" frames")]
    assert len(dones) > 1
    np.testing.assert_array_equal(np.load(output), frames(30).max(axis=0))
    check_error(run("max", place, "--follow", "-o", output), 2, "peaks.npy exists already")
    check_error(run("max", place, "--follow", "--chunks", 3, "-o", "x.npy"), 2, "--chunks")
    check_error(run("max", place, place, "--follow", "-o", "x.npy"), 2, "got 2 inputs")
    frames_too = run("max", place, "--follow", "--frames", "0:3", "-o", tmp_path / "x.npy")
    check_error(frames_too, 2, "give their number as nframes (--nframes)")
    several = "aggregate", place, "--stats", "max,sum", "--follow", "--timeout", 0.2
    assert run(*several, "-o", tmp_path / "images.npz", "--quiet").stderr == ""
    with np.load(tmp_path / "images.npz") as images:
        np.testing.assert_array_equal(images["max"], frames(30).max(axis=0))


def test_waiting_takes_no_time_of_a_core(tmp_path, monkeypatch):
    """A look where nothing has changed opens no file."""
    place = tmp_path / "scan.zarr"
    zarr.create_array(place, data=frames(3), chunks=(1, *SHAPE))
    time.sleep(0.15)
    files = GrowingFiles(str(place))
    assert len(files.look()) == 3
    monkeypatch.setattr("daskstats.formats.growing.parse", None)
    opened = []
    monkeypatch.setattr(files._opener.__class__, "open", opened.append)
    assert len(files.look()) == 3
    assert opened == []
