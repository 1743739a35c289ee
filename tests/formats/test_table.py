"""The format of a file is found by its suffix or, where that is unknown, by its first bytes."""

import bz2
import gzip
import shutil

import h5py
import numpy as np
import pytest
import tifffile
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from daskstats.formats.files import frames_from_raw, open_files
from daskstats.formats.growing import GrowingFiles
from daskstats.formats.inputs import read_image
from daskstats.formats.outputs import check_output
from daskstats.formats.table import FORMATS, TIFF, format_of, locate, suffixes
from daskstats.series.opening import open_source

FRAMES = np.random.default_rng(5).integers(0, 1000, (3, 6, 7)).astype("i4")


def test_suffixes_are_in_lower_case_and_begin_with_a_point():
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in FORMATS)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("scan.tif", ".tif"),
        ("SCAN.TIF", ".tif"),
        ("scan.0.1.tif", ".tif"),
        ("run.h5/scan.npy", ".npy"),
        ("scan.h5.npy", ".npy"),
        ("scan", None),
        (".tif", None),
        ("scan.tif.gz", None),
        ("scan.tif.txt", None),
        ("scan.png", None),  # no series
    ],
)
def test_format_of_a_name(name, suffix):
    assert format_of(name, "series") is (FORMATS[suffix] if suffix else None)


def test_suffixes_of_several_parts(monkeypatch):
    whole = TIFF._replace(package="other")
    monkeypatch.setitem(FORMATS, ".zarr.zip", whole)
    monkeypatch.setitem(FORMATS, ".xyz", TIFF._replace(compressed=(".gz",)))
    assert format_of("a.zarr.zip", "series") is whole
    assert format_of("a.1.ZARR.zip", "series") is whole
    assert format_of("a.zip", "series") is None
    assert format_of("a.xyz.gz", "series") is FORMATS[".xyz"]
    assert format_of("a.xyz.bz2", "series") is None
    assert format_of("a.zarr.zip.gz", "series") is None


@pytest.mark.parametrize(
    "suffix", [".emd", ".nx5", ".hspy", ".cxi", ".fch5", ".nc", ".he5", ".mat", ".tif", ".dat", ""]
)
def test_hdf5_whatever_its_suffix(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    with h5py.File(path, "w") as file:
        file["entry/data"] = FRAMES
    for name in (str(path), f"{path}::/entry/data"):
        np.testing.assert_array_equal(open_source(name).read(0, 3, 0, 6)[0], FRAMES)
    assert locate(f"{path}::/entry/data", "series")[:2] == (path, "/entry/data")


def write_tiff(path, **options):
    tifffile.imwrite(path, FRAMES[0], photometric="minisblack", **options)


@pytest.mark.parametrize("name", ["scan.0001", "scan", "scan.dat"])
@pytest.mark.parametrize("options", [{"bigtiff": b, "byteorder": o} for b in (0, 1) for o in "<>"])
def test_tiff_by_its_first_bytes(tmp_path, name, options):
    write_tiff(tmp_path / name, **options)
    np.testing.assert_array_equal(open_source(tmp_path / name).read(0, 1, 0, 6)[0][0], FRAMES[0])
    np.testing.assert_array_equal(read_image(tmp_path / name), FRAMES[0])


@pytest.mark.parametrize(("kind", "suffix"), [(EdfImage, ".edf"), (CbfImage, ".cbf")])
def test_fabio_by_its_first_bytes(tmp_path, kind, suffix):
    kind(data=FRAMES[0]).write(str(tmp_path / f"scan{suffix}"))
    shutil.move(tmp_path / f"scan{suffix}", tmp_path / "scan.0001")
    np.testing.assert_array_equal(read_image(tmp_path / "scan.0001"), FRAMES[0])


def test_an_empty_name_is_said_to_be_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", FRAMES)
    for call in (
        *(lambda: open_files(""), lambda: open_files(["scan.npy", "::/data"])),
        *(lambda: frames_from_raw("", (2, 3), "u2"), lambda: GrowingFiles("")),
    ):
        with pytest.raises(ValueError, match="^the name of the file is empty"):
            call()
    with pytest.raises(ValueError, match="^the name of the mask is empty"):
        read_image("", "mask")
    with pytest.raises(ValueError, match="^the name of the output is empty"):
        check_output("")


@pytest.mark.parametrize("content", [b"", b"II", b"some text\n" * 100, b"\x89HDF", bytes(2000)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "scan.txt").write_bytes(content)
    for column in ("series", "read"):
        expected = f"scan.txt has no known suffix: expected one of {suffixes(column)[0]}, "
        with pytest.raises(ValueError, match=expected):
            locate(str(tmp_path / "scan.txt"), column)


BY = {".gz": ("gzip", gzip.compress), ".bz2": ("bzip2", bz2.compress)}


@pytest.mark.parametrize("read", [open_source, read_image])
@pytest.mark.parametrize("kind", BY)
@pytest.mark.parametrize(
    ("suffix", "way"),
    [
        *((end, f"name it scan{end}{{}}") for end in (".mrc", ".fits", ".edf", ".cbf", ".MRC")),
        *((end, "decompress it") for end in (".npy", ".npz", ".tif", ".h5", ".mccd")),
    ],
)
def test_compressed_content_under_another_name(tmp_path, suffix, way, kind, read):
    """It was read as the header of the format, and called cut off."""
    path, (by, compress) = tmp_path / f"scan{suffix}", BY[kind]
    path.write_bytes(compress(b"any content"))
    with pytest.raises(
        ValueError, match=rf"scan{suffix} is compressed by {by}: {way.format(kind)}$"
    ):
        read(path)


def test_compressed_by_another_program_than_its_suffix_says(tmp_path):
    path = tmp_path / "scan.mrc.gz"
    path.write_bytes(bz2.compress(b"any content"))
    with pytest.raises(ValueError, match=r"gz is compressed by bzip2: name it scan\.mrc\.bz2$"):
        open_source(path)
