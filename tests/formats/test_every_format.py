"""Every format of the table gives the frames that independent readers give, however it is read."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain
from multiprocessing import get_context

import dask
import numpy as np
import pytest
from files import KINDS, written
from helpers import check_series

import daskstats as stats
from daskstats.formats.growing import GrowingFiles
from daskstats.formats.inputs import read_image
from daskstats.formats.placed import ReopenedSource
from daskstats.formats.table import FORMATS, suffixes
from daskstats.series.opening import open_source

# One suffix of each way in which files are read.
WAYS = (
    *(".npy", ".npz", ".h5", ".zarr", ".tif", ".tiff", ".edf", ".edf.gz", ".cbf", ".cbf.bz2"),
    *(".img", ".sfrm", ".spe", ".ge3", ".mrc", ".mrc.gz", ".fits", ".fts", ".fits.gz", ".fz"),
)

# Files of one frame, as the formats of masks and single images are.
SINGLE = [suffix for suffix, kind in KINDS.items() if kind.shape[0] == 1]


def test_every_suffix_is_tested():
    packed = {s + end for s, row in FORMATS.items() if row.series for end in row.compressed}
    lists = {".yml", ".yaml"}  # of files in other formats: see test_hexrd_yaml
    assert set(suffixes("series")) - lists <= set(KINDS) <= {*suffixes("series"), *packed}


@pytest.mark.parametrize("suffix", sorted({*KINDS} - {*WAYS}))
def test_plain_path(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    series = open_source(path)
    assert series.dtype == frames.dtype
    found = np.concatenate(series.read(0, len(frames), 0, len(frames[0])))
    np.testing.assert_array_equal(found, frames)
    assert series.files() == (path,)
    ((place, chosen),) = series.origins()
    assert place.partition("::")[0] == str(path)
    assert [*chosen] == [*range(len(frames))]


@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_bytes_that_are_stored_tell_frames_apart(tmp_path, suffix):
    """They are those of a frame as long as its file is the same, or they are not known."""
    path, frames = written(suffix, tmp_path)
    files = GrowingFiles(str(path))
    assert len(files.look(ended=True)) == len(files.look(ended=True)) == len(frames)
    series = open_source(path)
    every = range(0, len(frames), series.frame_unit)
    digests = [series.digest_of_frame(index) for index in every]
    assert digests == [series.digest_of_frame(index) for index in every]
    assert {*digests} == {None} or len({*digests}) == len(every)
    if suffix in {".npy", ".h5", ".zarr", ".tif", ".edf", ".spe", ".ge3", ".mrc"}:
        assert None not in digests


@pytest.mark.parametrize("suffix", WAYS)
def test_frames_and_parts_of_frames(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    check_series(open_source(path), frames)


@pytest.mark.parametrize("suffix", WAYS)
def test_a_thousand_reads_from_two_threads(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    series, rng = open_source(path), np.random.default_rng(7)
    count, rows = frames.shape[:2]
    windows = [
        (start, start + 1 + rng.integers(0, count - start), first, first + 1 + rng.integers(0, 3))
        for start, first in zip(
            rng.integers(0, count, 1000).tolist(),
            rng.integers(0, rows - 3, 1000).tolist(),
            strict=True,
        )
    ]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda w: np.concatenate(series.read(*map(int, w))), windows))
    for (start, stop, first, last), block in zip(windows, found, strict=True):
        assert np.array_equal(block, frames[start:stop, first:last]), (start, stop, first, last)


def _read(series):
    pieces = series.pieces(0, len(series), 1, 9, 2)
    return np.concatenate(list(chain.from_iterable(pieces)))


def test_another_process(tmp_path):
    files = []
    for suffix in WAYS:
        (tmp_path / suffix).mkdir()
        files.append(written(suffix, tmp_path / suffix))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_read, [open_source(path) for path, _ in files]))
    for (path, frames), block in zip(files, found, strict=True):
        assert np.array_equal(block, frames[:, 1:9]), path


def test_a_cluster_of_two(tmp_path, client):
    for suffix in sorted(KINDS):
        (tmp_path / suffix).mkdir()
        path, frames = written(suffix, tmp_path / suffix)
        with dask.config.set(scheduler=client):
            found = stats.wrap(path).compute()
        np.testing.assert_array_equal(found, frames, err_msg=suffix)


@pytest.mark.parametrize("suffix", sorted({*WAYS} - {".npy", ".h5", ".zarr"}))
def test_file_replaced_after_the_call(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    series, content = open_source(path), path.read_bytes()
    assert isinstance(series, ReopenedSource)
    sent = pickle.loads(pickle.dumps(series))

    path.unlink()
    kind = KINDS[suffix]
    kind.write(np.ascontiguousarray(frames[:, :-4].astype(kind.dtype)), path)
    for copy in (series, sent):
        with pytest.raises(ValueError, match="has changed since the call: it holds"):
            copy.read(0, 1, 0, 2)

    path.unlink()
    for nbytes in (0, len(content) // 3, len(content) - len(content) // 8):
        path.write_bytes(content[:nbytes])
        for copy in (series, sent):
            with pytest.raises(ValueError, match=path.name):
                copy.read(len(frames) - 1, len(frames), 0, len(frames[0]))

    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(_read(series), frames[:, 1:9])


@pytest.mark.parametrize("suffix", sorted({*WAYS} - {".npy", ".h5", ".zarr"}))
def test_file_that_is_cut_off_or_something_else(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    content = path.read_bytes()
    for bad in (
        b"",
        b"nonsense" * 1000,
        *(content[: len(content) * k // 8 + 1] for k in range(1, 7)),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=path.name):
            np.concatenate(open_source(path).read(0, len(frames), 0, len(frames[0])))


@pytest.mark.parametrize("suffix", sorted(SINGLE))
def test_one_image(tmp_path, suffix):
    path, frames = written(suffix, tmp_path)
    np.testing.assert_array_equal(read_image(path), frames[0], strict=True)


@pytest.mark.parametrize("suffix", [".edf", ".ge", ".mrc", ".fits", ".npz"])
def test_several_images_are_not_one(tmp_path, suffix):
    path, _ = written(suffix, tmp_path)
    with pytest.raises(ValueError, match="has 6 images, expected one"):
        read_image(path)
