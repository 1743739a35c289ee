"""The pages of TIFF files are series: read lazily, in any order, from several threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
import tifffile
from helpers import check_series
from programs import daskstats

import daskstats as stats
from daskstats.formats.tiff import TiffSource
from daskstats.series.opening import as_series


def make_frames(dtype, shape=(7, 12, 9)):
    return np.random.default_rng(0).integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)


def write(path, frames, **options):
    with tifffile.TiffWriter(path) as file:
        for frame in frames:
            file.write(frame, contiguous=False, photometric="minisblack", **options)


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8", "?"])
def test_dtypes(tmp_path, dtype, suffix):
    frames = make_frames(dtype)
    path = tmp_path / f"scan{suffix}"
    write(path, frames)
    series = as_series(path)
    assert isinstance(series, TiffSource)
    check_series(series, frames)
    pages = tifffile.imread(path, key=range(len(frames)))
    np.testing.assert_array_equal(pages, frames, strict=True)
    np.testing.assert_array_equal(stats.max(path), frames.max(axis=0), strict=True)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"rowsperstrip": 5},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"imagej": True},
        {"ome": True},
    ],
    ids=str,
)
def test_layouts(tmp_path, options):
    frames = make_frames("u2", (5, 40, 33))
    whole = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    whole |= {name: options.pop(name) for name in ("imagej", "ome") if name in options}
    if whole:
        tifffile.imwrite(tmp_path / "scan.tif", frames, photometric="minisblack", **whole)
    else:
        write(tmp_path / "scan.tif", frames, **options)
    check_series(as_series(tmp_path / "scan.tif"), frames)
    median = stats.median(tmp_path / "scan.tif", region=((3, 20), (5, 30)))
    np.testing.assert_array_equal(median, np.median(frames[:, 3:20, 5:30], axis=0).astype("f4"))


def test_one_page(tmp_path):
    frames = make_frames("u2", (1, 4, 5))
    write(tmp_path / "scan.tif", frames)
    check_series(as_series(tmp_path / "scan.tif"), frames)


def test_threads_read_in_any_order(tmp_path):
    frames = make_frames("u2", (40, 30, 20))
    write(tmp_path / "scan.tif", frames, compression="zlib")
    series = as_series(tmp_path / "scan.tif")
    order = np.random.default_rng(1).integers(0, 40, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: next(series.pieces(i, i + 1, 3, 17, 1))[0][0], order))
    for index, frame in zip(order, found, strict=True):
        np.testing.assert_array_equal(frame, frames[index, 3:17])
        assert frame.base is None or frame.base.nbytes == frame.nbytes  # no whole page behind it


def test_pixels_are_read_when_asked_for(tmp_path, monkeypatch):
    write(tmp_path / "scan.tif", make_frames("u2"))
    decoded = []
    asarray = tifffile.TiffPage.asarray

    def count(page, **options):
        decoded.append(page.index)
        return asarray(page, **options)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", count)
    series = as_series(tmp_path / "scan.tif")
    assert decoded == []
    series.read(4, 6, 0, 12)
    assert decoded == [4, 5]


def test_sent_elsewhere(tmp_path):
    frames = make_frames("u2")
    write(tmp_path / "scan.tif", frames)
    sent = cloudpickle.dumps(as_series(tmp_path / "scan.tif"))
    assert len(sent) < 2000
    check_series(cloudpickle.loads(sent), frames)
    write(tmp_path / "scan.tif", frames[:3])
    with pytest.raises(ValueError, match=r"has changed since the call: it holds 3 pages of shape"):
        cloudpickle.loads(sent).read(0, 1, 0, 12)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.zeros((12, 8), "u2"), r"frame 2 has shape \(12, 8\), expected \(12, 9\)"),
        (np.zeros((12, 9), "u4"), "frame 2 has dtype uint32, expected uint16"),
    ],
)
def test_pages_that_differ(tmp_path, other, words):
    write(tmp_path / "scan.tif", [*make_frames("u2")[:2], other])
    with pytest.raises(ValueError, match=words):
        as_series(tmp_path / "scan.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_is_refused(tmp_path, planar):
    picture = np.zeros((12, 9, 3) if planar == "contig" else (3, 12, 9), "u1")
    tifffile.imwrite(tmp_path / "rgb.tif", picture, photometric="rgb", planarconfig=planar)
    with pytest.raises(
        ValueError, match=r"must be a frame \(rows, cols\) without colours, got shape"
    ):
        stats.max(tmp_path / "rgb.tif")


def test_several_frames_in_a_page_are_refused(tmp_path):
    frames = make_frames("u2")
    tifffile.imwrite(tmp_path / "scan.tif", frames, photometric="minisblack", truncate=True)
    with pytest.raises(
        ValueError, match=r"got shape \(7, 12, 9\) in 1 pages: write a page for each frame"
    ):
        as_series(tmp_path / "scan.tif")


def test_complex_numbers_are_refused(tmp_path):
    write(tmp_path / "scan.tif", np.zeros((2, 4, 5), "c8"))
    with pytest.raises(TypeError, match="frames must be bool, integers or floats"):
        as_series(tmp_path / "scan.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_file(tmp_path, compression):
    path = tmp_path / "scan.tif"
    if compression is None:
        tifffile.imwrite(path, make_frames("u2"), photometric="minisblack")
    else:
        write(path, make_frames("u2"), compression=compression)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages[-1]
        end = max(page.dataoffsets[-1] + page.databytecounts[-1], page.offset + 100)
    cuts = 0, 5, 100, 300, len(content) // 2, len(content) * 3 // 4, min(end, len(content)) - 1
    for nbytes in cuts:
        path.write_bytes(content[:nbytes])
        with pytest.raises(ValueError, match=r"scan\.tif is not a TIFF file, or is cut off"):
            as_series(path)


def test_damaged_page(tmp_path):
    path = tmp_path / "scan.tif"
    write(path, make_frames("u2"), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset + 5 : offset + 40] = bytes(35)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page 3 cannot be decoded") as caught:
        stats.max(path).compute()
    assert "while reading frame 3" in caught.value.__notes__


def test_missing_package(tmp_path, monkeypatch):
    write(tmp_path / "scan.tif", make_frames("u2"))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r"needs tifffile: pip install 'daskstats\[io\]'"):
        as_series(tmp_path / "scan.tif")


def test_command_line(tmp_path):
    frames = make_frames("u2")
    write(tmp_path / "scan.tif", frames)
    subprocess.run(daskstats("max", "scan.tif", "-o", "out.npy"), cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), frames.max(axis=0), strict=True)


def test_real_file(real_data):
    path = real_data / "formats" / "stuck.tif"
    frames = tifffile.imread(path)
    assert frames.shape == (5, 512, 512)
    check_series(as_series(path), frames)
    np.testing.assert_array_equal(stats.max(path), frames.max(axis=0), strict=True)


def test_real_file_that_lacks_eleven_bytes(real_data):
    with pytest.raises(ValueError, match=r"Pilatus\.tiff .* is cut off: the last of 1 pages is"):
        as_series(real_data / "formats" / "Pilatus.tiff")
