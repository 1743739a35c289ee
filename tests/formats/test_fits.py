"""FITS files: which image is taken, scaled and unsigned pixels, compressed ones."""

import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from helpers import check_series, make_frames, run_in_threads
from numpy.testing import assert_array_equal

from daskstats.formats import placed
from daskstats.formats.fits import FitsSource
from daskstats.formats.inputs import read_mask
from daskstats.series.opening import open_source

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def save(path, *images, primary=None):
    fits.HDUList([fits.PrimaryHDU(primary), *images]).writeto(path)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", ["primary", "extension"])
def test_every_dtype(tmp_path, dtype, place):
    frames = make_frames(dtype)
    images = [fits.ImageHDU(frames)] if place == "extension" else []
    path = save(tmp_path / "scan.fits", *images, primary=frames if place == "primary" else None)
    check_series(open_source(path), frames)


TILES = (None, (1, 8, 10), (2, 12, 10))
COMPRESSED = [
    *(("RICE_1", tile) for tile in TILES),
    *zip(("GZIP_1", "GZIP_2", "PLIO_1"), TILES, strict=True),
    # This compression takes two dimensions.
    *(("HCOMPRESS_1", tile) for tile in ((1, 12, 10), (1, 8, 10))),
    # The other pairs.
    *(
        pytest.param(kind, tile, marks=pytest.mark.nightly)
        for at, kind in enumerate(("GZIP_1", "GZIP_2", "PLIO_1"))
        for tile in TILES[:at] + TILES[at + 1 :]
    ),
]


@pytest.mark.parametrize(("kind", "tile"), COMPRESSED)
def test_compressed(tmp_path, kind, tile):
    frames = np.random.default_rng(1).integers(0, 3000, (5, 12, 10)).astype("i2")
    image = fits.CompImageHDU(frames, compression_type=kind, tile_shape=tile)
    path = save(tmp_path / "scan.fz", image)
    with fits.open(path) as file:
        np.testing.assert_array_equal(file[1].data, frames)
    check_series(open_source(path), frames)


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "HCOMPRESS_1", "PLIO_1"])
def test_compressed_frames_in_several_threads(tmp_path, kind):
    """cfitsio decodes HCOMPRESS_1 with variables that all threads share."""
    frames = np.random.default_rng(1).integers(0, 3000, (5, 64, 50)).astype("i2")
    image = fits.CompImageHDU(frames, compression_type=kind, tile_shape=(1, 64, 50))
    series = open_source(save(tmp_path / "scan.fz", image))
    right = []

    def read():
        for number in range(60):
            (block,) = series.read(number % 5, number % 5 + 1, 0, 64)
            right.append((block[0] == frames[number % 5]).all())

    run_in_threads(read, 4)
    assert len(right) == 240
    assert all(right)


@pytest.mark.parametrize("compressed", [False, True])
def test_scaled_pixels_and_blank_ones(tmp_path, compressed):
    stored = np.random.default_rng(1).integers(0, 3000, (5, 12, 10)).astype("i2")
    stored[2, 3, 4] = -32768
    image = fits.ImageHDU(stored)
    image.header["BLANK"] = -32768
    # The keywords are set in the file: astropy would scale the pixels before they are written.
    path = save(tmp_path / "scan.fits", image)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as file:
        file[1].header["BSCALE"], file[1].header["BZERO"] = 0.5, 100.0
    if compressed:
        with fits.open(path, do_not_scale_image_data=True) as file:
            again = fits.CompImageHDU(file[1].data, file[1].header, do_not_scale_image_data=True)
            path = save(tmp_path / "scan.fz", again)
    with fits.open(path) as file:
        expected = file[1].data.astype("=f4")
    if not compressed:
        reference = np.where(stored == -32768, np.nan, stored * 0.5 + 100).astype("f4")
        np.testing.assert_array_equal(expected, reference)
    check_series(open_source(path), expected)


def test_leading_axes(tmp_path):
    frames = make_frames("i2", 6)
    check_series(open_source(save(tmp_path / "s.fits", primary=frames.reshape(2, 3, 5, 6))), frames)
    check_series(open_source(save(tmp_path / "t.fits", primary=frames[0])), frames[:1])


def test_images_of_several_extensions_are_frames(tmp_path):
    frames = make_frames("u2")
    path = save(tmp_path / "scan.fits", *map(fits.ImageHDU, frames))
    check_series(open_source(path), frames)
    check_series(open_source(f"{path}::3"), frames[2:3])


@pytest.mark.parametrize("name", ["2", "/2", "SCI", "sci"])
def test_named_extension(tmp_path, name):
    frames = make_frames("i4")
    images = fits.ImageHDU(frames[0], name="MASK"), fits.ImageHDU(frames, name="SCI")
    path = save(tmp_path / "scan.fits", *images)
    check_series(open_source(f"{path}::{name}"), frames)
    np.testing.assert_array_equal(read_mask(f"{path}::MASK"), frames[0] != 0)


def test_tables_are_no_images(tmp_path):
    frames = make_frames("u2")
    table = fits.BinTableHDU.from_columns([fits.Column("x", "J", array=np.arange(3))])
    path = save(tmp_path / "scan.fits", table, fits.ImageHDU(frames), fits.ImageHDU(np.arange(3)))
    check_series(open_source(path), frames)


@pytest.mark.parametrize(
    ("images", "name", "words"),
    [
        (
            [3, 2],
            "",
            r"has 2 images: name one as s.fits::1 \(7 x 5 x 6 int16\), s.fits::2 \(5 x 6 ",
        ),
        ([3, 3], "", "has 2 images: name one as"),
        ([3], "::2", "has no image 2: name one as s.fits::1"),
        ([3], "::-1", "has no image -1: name one as"),
        ([3], "::0", "has no image 0: name one as"),
        ([3], "::SCI", "has no image SCI: name one as"),
        ([1], "", "has no image of two or more dimensions"),
        ([], "", "has no image of two or more dimensions"),
        ([3] * 13, "", r"s.fits::10 \(7 x 5 x 6 int16\), and 3 more$"),
    ],
)
def test_files_without_one_series(tmp_path, images, name, words):
    frames = make_frames("i2")
    given = [fits.ImageHDU({3: frames, 2: frames[0], 1: frames[0, 0]}[ndim]) for ndim in images]
    path = save(tmp_path / "s.fits", *given)
    with pytest.raises(ValueError, match=words):
        open_source(f"{path}{name}")


def test_by_its_first_bytes(tmp_path):
    frames = make_frames("i2")
    path = save(tmp_path / "scan.fits", primary=frames).rename(tmp_path / "scan.0001")
    series = open_source(path)
    assert type(series) is FitsSource
    check_series(series, frames)


class Forwards(io.BytesIO):
    """A decompressed file that counts how often it goes back, for which it would begin again."""

    back = 0
    place = 0

    def readinto(self, buffer):
        Forwards.back += self.tell() < self.place
        count = super().readinto(buffer)
        self.place = self.tell()
        return count


@pytest.mark.parametrize("place", ["primary", "extensions"])
def test_frames_of_a_compressed_file_are_read_forwards(tmp_path, monkeypatch, place):
    frames, opened = make_frames("u2", 12), []

    def opener(path, mode):
        opened.append(path)
        return Forwards(gzip.decompress(path.read_bytes()))

    monkeypatch.setitem(placed.OPENERS, ".gz", opener)
    images = [] if place == "primary" else [fits.ImageHDU(frame) for frame in frames]
    path = save(tmp_path / "scan.fits", *images, primary=None if images else frames)
    (tmp_path / "scan.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    series = open_source(tmp_path / "scan.fits.gz")
    before = len(opened), Forwards.back
    for start in range(0, 12, 2):
        found = series.read(start, start + 2, 0, frames.shape[1])
        assert_array_equal(np.concatenate(found), frames[start : start + 2])
    assert len(opened) == before[0] + 1
    assert Forwards.back <= before[1] + 1, "for the first bytes, by which astropy knows the format"


PARTS = {
    "header": r"it ends at byte \d+, in the header of part 5$",
    "pixels": r"part 4 ends at byte \d+ of \d+$",
}


@pytest.mark.filterwarnings("ignore")  # astropy warns, and gives fewer images
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("lost", [1, 1000, 2875])
def test_cut_off_within_an_extension(tmp_path, suffix, part, lost):
    path = save(tmp_path / "scan.fits", *map(fits.ImageHDU, make_frames("u2")))
    with fits.open(path) as file:
        place = file.fileinfo(5 if part == "header" else 4)
    end = place["datLoc"] + (place["datSpan"] if part == "pixels" else 0)
    content = path.read_bytes()[: end - lost]
    path = path.with_name(f"cut{suffix}")
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(ValueError, match=f"cut{suffix} is cut off: {PARTS[part]}"):
        open_source(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extra", [bytes(2880), b"made by a camera", b"\n"])
def test_bytes_after_the_last_extension(tmp_path, extra):
    frames = make_frames("u2")
    path = save(tmp_path / "scan.fits", *map(fits.ImageHDU, frames))
    path.write_bytes(path.read_bytes() + extra)
    check_series(open_source(path), frames)
