"""Archives of plain arrays: one of them is the series, read in place unless it is compressed."""

import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from helpers import DTYPES, check_series, make_frames

from daskstats.formats.forward import InSlices
from daskstats.formats.framecache import FrameCacheSource
from daskstats.formats.inputs import read_mask
from daskstats.formats.npz import NpzSource
from daskstats.series.opening import open_source

SAVE = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, dtype, save):
    frames = make_frames(dtype)
    SAVE[save](tmp_path / "scan.npz", omega=np.zeros((7, 2), "c8"), images=frames, n=np.array(7))
    series = open_source(tmp_path / "scan.npz")
    assert type(series) is NpzSource
    check_series(series, frames)


@pytest.mark.parametrize("save", SAVE)
def test_a_series_beside_an_image(tmp_path, save):
    frames = make_frames("u2")
    SAVE[save](tmp_path / "scan.npz", mask=frames[0], images=frames)
    check_series(open_source(tmp_path / "scan.npz"), frames)
    check_series(open_source(f"{tmp_path}/scan.npz::mask"), frames[:1])


def test_one_image_and_leading_axes(tmp_path):
    frames = make_frames("u2", 6)
    np.savez(tmp_path / "dark.npz", frames[0])
    check_series(open_source(tmp_path / "dark.npz"), frames[:1])
    np.savez(tmp_path / "grid.npz", frames.reshape(2, 3, 5, 6))
    check_series(open_source(tmp_path / "grid.npz"), frames)


def test_mask(tmp_path):
    mask = make_frames("?")[0]
    np.savez(tmp_path / "mask.npz", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.npz"), mask)


@pytest.mark.parametrize(
    ("arrays", "name", "words"),
    [
        (
            {"a": 3, "b": 3},
            "",
            r"2 arrays: name one as s.npz::a \(7 x 5 x 6 uint16\), s.npz::b",
        ),
        ({"a": 2, "b": 2}, "", "has 2 arrays: name one as"),
        ({"a": 3}, "::b", "has no array b: name one as s.npz::a"),
        ({}, "", "has no array of two or three dimensions"),
        ({f"a{n}": 3 for n in range(13)}, "", r"a9 \(7 x 5 x 6 uint16\), and 3 more$"),
    ],
)
def test_archives_without_one_series(tmp_path, arrays, name, words):
    frames = make_frames("u2")
    given = {key: frames if ndim == 3 else frames[0] for key, ndim in arrays.items()}
    np.savez(tmp_path / "s.npz", n=np.arange(3), **given)
    with pytest.raises(ValueError, match=words):
        open_source(f"{tmp_path}/s.npz{name}")


def test_fortran_order_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", a=np.asfortranarray(make_frames("u2")))
    with pytest.raises(ValueError, match="a is in Fortran order"):
        open_source(tmp_path / "s.npz")


@pytest.mark.parametrize("save", SAVE)
def test_damaged_archive(tmp_path, save):
    path = tmp_path / "s.npz"
    SAVE[save](path, a=make_frames("u2"))
    series, content = open_source(path), path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"s\.npz"):
        open_source(path)
    with pytest.raises(ValueError, match=r"s\.npz"):
        series.read(0, 7, 0, 5)
    damaged = bytearray(content)
    damaged[150:200] = bytes(50)
    path.write_bytes(damaged)
    if save == "deflated":
        with pytest.raises(ValueError, match=r"s\.npz"):
            open_source(path).read(0, 7, 0, 5)


def test_frame_cache_is_none_of_these(tmp_path):
    np.savez(
        tmp_path / "fc.npz",
        **{"shape": [5, 6], "nframes": 1, "dtype": "u2", "0_row": [1], "0_col": [2], "0_data": [3]},
    )
    assert type(open_source(tmp_path / "fc.npz")) is FrameCacheSource


COMPRESSIONS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def write_members(path, members, compression):
    """Write an archive of (name, array or bytes), also of several members of one name."""
    with (
        zipfile.ZipFile(path, "w", COMPRESSIONS[compression]) as archive,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            if isinstance(content, bytes):
                archive.writestr(name, content)
            else:
                with archive.open(name, "w") as file:
                    np.lib.format.write_array(file, content)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_members_that_are_no_arrays(tmp_path, compression):
    frames = make_frames("u2")
    others = [("README.txt", b"the sample of Monday"), ("raw/", b""), ("empty", b"")]
    write_members(tmp_path / "s.npz", [*others, ("images.npy", frames)], compression)
    assert "images" in np.load(tmp_path / "s.npz")
    check_series(open_source(tmp_path / "s.npz"), frames)
    write_members(tmp_path / "t.npz", [("images.npy", b"no array")], compression)
    with pytest.raises(ValueError, match=r"t\.npz is damaged or cut off: the magic string"):
        open_source(tmp_path / "t.npz")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["images", "raw/images.npy", "images.npy.npy"])
def test_names_of_members(tmp_path, name, compression):
    frames = make_frames("u2")
    write_members(tmp_path / "s.npz", [(name, frames), ("mask.npy", frames[0])], compression)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")[name.removesuffix(".npy")], frames)
    check_series(open_source(tmp_path / "s.npz"), frames)
    check_series(open_source(f"{tmp_path}/s.npz::{name.removesuffix('.npy')}"), frames)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_of_members_of_one_name_the_last_one_counts(tmp_path, compression):
    frames = make_frames("u2", 8)
    members = [("images.npy", frames[:3]), ("images.npy", frames[3:])]
    write_members(tmp_path / "s.npz", members, compression)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["images"], frames[3:])
    check_series(open_source(tmp_path / "s.npz"), frames[3:])


@pytest.mark.parametrize("save", SAVE)
def test_images_with_the_number_of_their_frames(tmp_path, save):
    frames = make_frames("u2")
    SAVE[save](tmp_path / "s.npz", images=frames, nframes=7)
    check_series(open_source(tmp_path / "s.npz"), frames)
    check_series(open_source(f"{tmp_path}/s.npz::images"), frames)


@pytest.mark.parametrize("kind", ["noise", "counts", "zeros"])
def test_frames_are_decompressed_in_little_memory(tmp_path, rng, kind):
    """A read took three times its frames, and a skip 48 MiB, which no plan counted."""
    frames = np.zeros((40, 600, 700), "u2")
    if kind == "noise":
        frames = rng.integers(0, 1 << 16, frames.shape, "u2")
    elif kind == "counts":
        frames = rng.poisson(3, frames.shape).astype("u2")
    np.savez_compressed(tmp_path / "scan.npz", frames)
    series = open_source(tmp_path / "scan.npz")
    frame, first = frames[0].nbytes, frames[:8].nbytes
    assert series.stored * frame == InSlices.held
    tracemalloc.start()
    blocks = series.read(0, 8, 0, 600)
    _, read = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    last = series.read(39, 40, 0, 600)
    _, skipped = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read < first + InSlices.held + (1 << 18)
    assert skipped < first + frame + InSlices.held + (1 << 18)
    np.testing.assert_array_equal(blocks[0], frames[:8])
    np.testing.assert_array_equal(last[0], frames[39:])
