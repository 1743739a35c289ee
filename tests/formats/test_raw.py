"""Flat binary files: any header, any byte order, whole frames only."""

import os
import pickle

import pytest
from helpers import DTYPES, check_series, make_frames

from daskstats.formats.placed import compact
from daskstats.formats.raw import RawSource


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("skip", "gap"), [(0, 0), (8192, 0), (3, 5)])
def test_every_dtype(tmp_path, dtype, skip, gap):
    frames = make_frames(dtype)
    path = tmp_path / "scan.raw"
    path.write_bytes(bytes(skip) + b"".join(frame.tobytes() + b"x" * gap for frame in frames))
    series = RawSource(path, (5, 6), dtype, skip, gap)
    check_series(series, frames)
    assert len(pickle.dumps(series)) < 1000
    assert series.files() == (path,)


def test_the_last_gap_may_be_missing(tmp_path):
    frames = make_frames("u2", 3)
    path = tmp_path / "scan.raw"
    path.write_bytes(b"gapgap".join(frame.tobytes() for frame in frames))
    check_series(RawSource(path, (5, 6), "u2", gap=6), frames)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (
            121,
            {},
            r"scan.raw has 121 bytes: after 0 .* 5 x 6 uint16 \(60 bytes\): 121 = 2 x 60 \+ 1",
        ),
        (120, {"skip": 8}, r"after 8 bytes .* 112 = 1 x 60 \+ 52"),
        (120, {"skip": 120}, "has 120 bytes: after 120 bytes"),
        (120, {"skip": 1000}, "has 120 bytes: after 1000 bytes"),
        (0, {}, "has 0 bytes"),
        (120, {"gap": 7}, r"60 bytes and 7 bytes between them\): 120 = 1 x 67 \+ 53"),
        (120, {"skip": -1}, "at least 0, got skip=-1"),
        (120, {"gap": -60}, "at least 0, got gap=-60"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, size, options, words):
    path = tmp_path / "scan.raw"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=words):
        RawSource(path, (5, 6), "u2", **options)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 6), "c8"), ((0, 6), "u2"), ((5, 6, 7), "u2"), ((5, 6), "O")]
)
def test_descriptions_that_make_no_frames(tmp_path, shape, dtype):
    (tmp_path / "scan.raw").write_bytes(bytes(600))
    with pytest.raises((ValueError, TypeError), match="frame"):
        RawSource(tmp_path / "scan.raw", shape, dtype)


def test_file_that_changes(tmp_path):
    frames = make_frames("u2")
    path = tmp_path / "scan.raw"
    path.write_bytes(frames.tobytes())
    series = RawSource(path, (5, 6), "u2")
    sent = pickle.dumps(series)
    path.write_bytes(frames[::-1].tobytes())  # another scan of the same layout
    os.utime(path, ns=(1, 1))
    check_series(series, frames[::-1])
    path.write_bytes(frames[:4].tobytes())
    for copy in (series, pickle.loads(sent)):
        with pytest.raises(ValueError, match="has changed since the call: it holds 4 frames of 5"):
            copy.read(0, 1, 0, 5)
    path.write_bytes(frames[:4].tobytes()[:-1])
    with pytest.raises(ValueError, match="no whole number of frames"):
        series.read(0, 1, 0, 5)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"scan\.raw"):
        series.read(0, 1, 0, 5)


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [([5], "array"), ([5, 7, 9], "range"), ([5, 7, 8], "array"), ([7, 5], "array"), ([], "array")],
)
def test_places_take_little_memory(numbers, kind):
    packed = compact(numbers)
    assert list(packed) == numbers
    assert type(packed).__name__ == kind
