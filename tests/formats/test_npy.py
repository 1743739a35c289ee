"""``.npy`` files are mapped, not loaded."""

import os
import pickle

import numpy as np
import pytest
from dask.base import tokenize
from helpers import DTYPES, check_series, make_frames

from daskstats.formats.npy import NpySource
from daskstats.series.opening import as_series


def save(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_every_dtype_and_order(tmp_path, dtype, order):
    frames = make_frames(dtype)
    series = as_series(save(tmp_path / "scan.npy", order(frames)))
    assert type(series) is NpySource
    check_series(series, frames)


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_one_image_is_one_frame(tmp_path, order):
    frames = make_frames("u2", 1)
    check_series(as_series(save(tmp_path / "dark.npy", order(frames[0]))), frames)


def test_path_variants(tmp_path, monkeypatch):
    frames = make_frames("u2")
    path = save(tmp_path / "a scan, n° 5.NPY.npy", frames)
    other = tmp_path / "SCAN.NPY"
    path.rename(other)
    monkeypatch.chdir(tmp_path)
    for name in (other, str(other), "SCAN.NPY", "./SCAN.NPY"):
        check_series(as_series(name), frames)


def test_nothing_is_loaded(tmp_path):
    path = save(tmp_path / "scan.npy", make_frames("u2"))
    ((block,),) = as_series(path).pieces(0, 7, 0, 5, 7)
    assert not block.flags.writeable
    np.load(path, mmap_mode="r+")[3, 2, 1] = 12345
    assert block[3, 2, 1] == 12345, "the block is not the file"


def test_pickle_is_the_path_even_after_a_change_of_directory(tmp_path, monkeypatch):
    frames = make_frames("u2", 50, 20, 20)
    save(tmp_path / "scan.npy", frames)
    monkeypatch.chdir(tmp_path)
    series = as_series("scan.npy")
    token = tokenize(series)
    monkeypatch.chdir("/")
    text = pickle.dumps(series)
    assert len(text) < 1000
    assert tokenize(series) == token
    check_series(pickle.loads(text), frames)


def test_token_follows_path_time_and_size(tmp_path):
    frames = make_frames("u2")
    first = save(tmp_path / "scan.npy", frames)
    token = tokenize(as_series(first))
    assert tokenize(as_series(str(first))) == token
    os.utime(first, ns=(1, 1))
    assert tokenize(as_series(first)) != token
    second = save(tmp_path / "other.npy", frames)
    os.utime(second, ns=(1, 1))
    assert tokenize(as_series(second)) != tokenize(as_series(first))


@pytest.mark.parametrize("keep", [0, 3, 60, 128, 200])
def test_file_cut_off_is_refused(tmp_path, keep):
    path = save(tmp_path / "scan.npy", make_frames("u2"))
    assert path.stat().st_size > keep
    os.truncate(path, keep)
    with pytest.raises(ValueError, match=r"scan\.npy"):
        as_series(path)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.zeros(4), ValueError),
        (np.zeros((0, 4)), ValueError),
        (np.zeros((0, 3, 4)), ValueError),
        (np.zeros((2, 3, 4), complex), TypeError),
        (np.array([[[None]]]), ValueError),
    ],
)
def test_file_without_frames_is_refused(tmp_path, array, error):
    np.save(tmp_path / "scan.npy", array, allow_pickle=True)
    with pytest.raises(error):
        as_series(tmp_path / "scan.npy")


def test_other_formats_under_this_name_are_refused(tmp_path):
    with (tmp_path / "scan.npy").open("wb") as file:
        np.savez(file, make_frames("u2"))
    with pytest.raises(ValueError, match=r"scan\.npy"):
        as_series(tmp_path / "scan.npy")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*scan\.npy"):
        as_series(tmp_path / "scan.npy")


def test_file_holds_no_datasets(tmp_path):
    path = save(tmp_path / "scan.npy", make_frames("u2"))
    with pytest.raises(ValueError, match="leave out ::/data"):
        as_series(f"{path}::/data")


def with_header(path, shape, descr="<u2", version=(1, 0)):
    """Write a header by hand, and 96 bytes."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    path.write_bytes(b"\x93NUMPY" + bytes(version) + length + header + bytes(96))
    return path


@pytest.mark.parametrize(
    "shape",
    [
        (2**62, 4, 4),
        (2**40, 4, 4),
        (2**31, 2**31, 4),
        (2**63, 1, 1),
        (2**64, 4, 4),
        (2**62, 4, 0),
        (-3, -4, 4),
        (4, 4, 4),
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_header_that_claims_more_than_there_is(tmp_path, shape, version):
    """The size overflows, where it is multiplied in 64 bits."""
    path = with_header(tmp_path / "scan.npy", shape, version=version)
    with pytest.raises(ValueError, match=r"scan\.npy is .*cut off: its header says shape \("):
        as_series(path)


@pytest.mark.parametrize(
    ("shape", "descr", "version"),
    [
        ((2.5, 4, 4), "<u2", (1, 0)),
        ((True, 4, 4), "<u2", (1, 0)),
        ((3, 4, 4), "nope", (1, 0)),
        ((3, 4, 4), "<u2", (9, 0)),
        ((), "<u2", (1, 0)),
    ],
)
def test_header_that_makes_no_sense(tmp_path, shape, descr, version):
    with pytest.raises(ValueError, match=r"scan\.npy|three-dimensional"):
        as_series(with_header(tmp_path / "scan.npy", shape, descr, version))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(tmp_path, version):
    check_series(
        as_series(with_header(tmp_path / "scan.npy", (3, 4, 4), version=version)),
        np.zeros((3, 4, 4), "u2"),
    )
