"""The pages of TIFF files are series: read lazily, in any order, from several threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import tifffile
from helpers import check_series
from programs import daskstats

import daskstats as stats
from daskstats.formats import placed
from daskstats.formats.inputs import read_mask
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
    read = []
    fill = placed.fill

    def record(file, out, offset):
        read.append(offset)
        return fill(file, out, offset)

    monkeypatch.setattr(placed, "fill", record)
    series = as_series(tmp_path / "scan.tif")
    assert read == []
    series.read(4, 6, 0, 12)
    with tifffile.TiffFile(tmp_path / "scan.tif") as file:
        assert read == [file.pages[index].dataoffsets[0] for index in (4, 5)]


def test_sent_elsewhere(tmp_path):
    frames = make_frames("u2")
    write(tmp_path / "scan.tif", frames)
    sent = cloudpickle.dumps(as_series(tmp_path / "scan.tif"))
    assert len(sent) < 2000
    check_series(cloudpickle.loads(sent), frames)
    write(tmp_path / "scan.tif", frames[:3])
    with pytest.raises(
        ValueError, match=r"has changed since the call: it holds 3 frames of 12 x 9"
    ):
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


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["imagej", "shaped"])
def test_frames_behind_a_single_page(tmp_path, kind, order):
    """ImageJ writes stacks of more than 4 GB like this: one page says where the first frame is."""
    frames = make_frames("u2")
    options = {"imagej": True} if kind == "imagej" else {"truncate": True}
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", byteorder=order, **options)
    if kind == "imagej":
        with tifffile.TiffFile(path) as file:
            place = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
        content = bytearray(path.read_bytes())
        content[place : place + 4] = bytes(4)  # there is no next page
        path.write_bytes(content)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        begin = file.pages[0].dataoffsets[0]
    check_series(as_series(path), frames)
    path.write_bytes(path.read_bytes()[: begin + frames[:6].nbytes + 10])
    with pytest.raises(ValueError, match=r"scan\.tif.* 1 pages.* 7 frames"):
        as_series(path)


@pytest.mark.parametrize(("order", "bigtiff"), [("<", False), (">", False), (">", True)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True, "rowsperstrip": 7},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "zlib", "predictor": True, "tile": (16, 32)},
        {"compression": "zstd"},
        {"tile": (16, 16)},
        {"rowsperstrip": 7, "predictor": True, "compression": "packbits"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_every_layout_in_either_byte_order(tmp_path, options, bigtiff, order, dtype):
    if options.get("predictor") and options["compression"] == "packbits":
        options = options | {"predictor": None}
    frames = make_frames(dtype, (3, 40, 33))
    path = tmp_path / "scan.tif"
    options = options | {"photometric": "minisblack", "metadata": None}
    if dtype == "f4" and options.get("predictor"):
        options["predictor"] = 3
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=order) as file:
        for frame in frames:
            file.write(frame, **options)
    np.testing.assert_array_equal(tifffile.imread(path, key=range(3)), frames)
    check_series(as_series(path), frames)


def test_strips_that_do_not_follow_one_another(tmp_path):
    """A file that was written again in place has its strips anywhere."""
    frames = make_frames("u2", (2, 40, 33))
    path = tmp_path / "scan.tif"
    write(path, frames, rowsperstrip=20)
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        tag, (first, second) = page.tags["StripOffsets"], page.dataoffsets
    content = bytearray(path.read_bytes())
    content[tag.valueoffset : tag.valueoffset + 8] = np.array([second, first], "<u4").tobytes()
    path.write_bytes(content)
    frames[1] = np.concatenate([frames[1, 20:], frames[1, :20]])
    np.testing.assert_array_equal(tifffile.imread(path, key=1), frames[1])
    check_series(as_series(path), frames)


def test_pages_of_several_compressions(tmp_path):
    frames = make_frames("u2", (5, 40, 33))
    path = tmp_path / "scan.tif"
    with tifffile.TiffWriter(path) as file:
        for frame, name in zip(frames, [None, "zlib", "lzw", None, "zlib"], strict=True):
            file.write(frame, compression=name, contiguous=False)
    check_series(as_series(path), frames)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize("axes", ["TZYX", "TYX", "CYX", "TCZYX"])
def test_leading_axes_are_frames_in_their_order(tmp_path, kind, axes):
    lengths = {"T": 3, "Z": 2, "C": 1 if len(axes) > 3 else 4, "Y": 12, "X": 9}
    order = sorted(axes, key="TZCYX".index) if kind == "imagej" else axes
    frames = make_frames("u2", tuple(lengths[axis] for axis in order))
    path = tmp_path / "scan.tif"
    options = {kind: True, "metadata": {"axes": "".join(order)}}
    tifffile.imwrite(path, frames, photometric="minisblack", **options)
    check_series(as_series(path), frames.reshape(-1, 12, 9))


def test_order_of_pages_in_ome_differs_from_that_of_the_axes(tmp_path):
    frames = make_frames("u2", (3, 2, 12, 9))
    path = tmp_path / "scan.ome.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", ome=True, metadata={"axes": "TZYX"})
    content = path.read_bytes()
    # The same pages, said to be written with time running fastest.
    assert content.count(b'DimensionOrder="XYCZT"') == 1
    path.write_bytes(content.replace(b'DimensionOrder="XYCZT"', b'DimensionOrder="XYCTZ"'))
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        expected, axes = series.asarray(), series.axes
    assert axes == "ZTYX"
    check_series(as_series(path), expected.reshape(-1, 12, 9))


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_beside_other_axes_are_refused(tmp_path, kind):
    path = tmp_path / "scan.tif"
    axes = {"axes": "TCYX"}
    tifffile.imwrite(
        path, make_frames("u2", (3, 2, 12, 9)), photometric="minisblack", metadata=axes, **{kind: 1}
    )
    with pytest.raises(ValueError, match=r"scan\.tif: it has 2 channels \(axes TCYX, shape \(3, 2"):
        as_series(path)


def test_ome_set_of_several_files_is_read_as_one_file_each(tmp_path):
    frames = make_frames("u2", (2, 12, 9))
    uuid = "urn:uuid:00000000-0000-0000-0000-00000000000"
    blocks = "".join(
        f'<TiffData IFD="0" FirstT="{t}"><UUID FileName="{t}.ome.tif">{uuid}{t}</UUID></TiffData>'
        for t in range(2)
    )
    for t in range(2):
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="{uuid}{t}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYCZT" Type="uint16" SizeX="9" SizeY="12" SizeC="1" SizeZ="1" '
            f'SizeT="2"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}</Pixels></Image>'
            f"</OME>"
        )
        tifffile.imwrite(tmp_path / f"{t}.ome.tif", frames[t], description=text, metadata=None)
    with tifffile.TiffFile(tmp_path / "0.ome.tif") as file:
        assert file.series[0].is_multifile
        assert file.series[0].shape == (2, 12, 9)
    for t in range(2):
        check_series(as_series(tmp_path / f"{t}.ome.tif"), frames[t : t + 1])


def test_thumbnail_is_refused(tmp_path):
    path = tmp_path / "scan.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(make_frames("u2", (2, 40, 33)), photometric="minisblack")
        file.write(make_frames("u2", (1, 8, 7))[0], subfiletype=1)
    with pytest.raises(
        ValueError, match=r"scan\.tif: frame 2 has shape \(8, 7\), expected \(40, 33"
    ):
        as_series(path)


def test_packed_bits(tmp_path):
    frames = make_frames("?", (3, 12, 9))
    write(tmp_path / "scan.tif", frames)
    with tifffile.TiffFile(tmp_path / "scan.tif") as file:
        assert file.pages[0].bitspersample == 1
    check_series(as_series(tmp_path / "scan.tif"), frames)


def test_one_thousand_reads_from_two_threads(tmp_path):
    """Sharing the page objects of tifffile gave hundreds of wrong frames."""
    frames = make_frames("u2", (20, 64, 48))
    write(tmp_path / "scan.tif", frames, compression="zlib", predictor=True, tile=(16, 16))
    series = as_series(tmp_path / "scan.tif")
    order = np.random.default_rng(2).integers(0, 20, 1000).tolist()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda i: series.read(i, i + 1, 0, 64)[0][0], order))
    assert all(np.array_equal(found[k], frames[i]) for k, i in enumerate(order))


def test_no_file_stays_open(tmp_path):
    for name, options in (("a.tif", {}), ("b.tif", {"compression": "zlib"})):
        write(tmp_path / name, make_frames("u2"), **options)
        series = as_series(tmp_path / name)
        series.read(0, 7, 0, 12)
        held = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        assert tmp_path / name not in held


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


STRIPS, TILES = {"rowsperstrip": 10}, {"tile": (16, 16)}


def set_segments(path, page, offsets=None, counts=None, count=None):
    """Change which strips or tiles a page lists: their number, or the values of some."""
    with tifffile.TiffFile(path) as file:
        kind = "Tile" if file.pages[page].is_tiled else "Strip"
        tags = [file.pages[page].tags[f"{kind}{name}"] for name in ("Offsets", "ByteCounts")]
    content = bytearray(path.read_bytes())
    for tag, values in zip(tags, (offsets, counts), strict=True):
        if count is not None:
            content[tag.offset + 4 : tag.offset + 8] = np.uint32(count).tobytes()
        size = tag.valuebytecount // tag.count
        for number, value in (values or {}).items():
            place = tag.valueoffset + number * size
            content[place : place + size] = value.to_bytes(size, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("layout", "needed"), [(STRIPS, 4), (TILES, 9)], ids=["strips", "tiles"])
def test_page_that_lists_too_few_strips(tmp_path, compression, layout, needed):
    """Its missing rows were those of memory that other frames had used."""
    path = tmp_path / "scan.tif"
    write(path, make_frames("u2", (4, 40, 33)), compression=compression, **layout)
    set_segments(path, 2, count=needed - 1)
    words = rf"page 2 of 4 is incomplete: it lists {needed - 1} of {needed} strips or tiles"
    with pytest.raises(ValueError, match=words):
        as_series(path)
    with pytest.raises(ValueError, match=words):
        read_mask(path)


@pytest.mark.filterwarnings("ignore:.*incorrect Strip")
def test_one_strip_that_is_said_to_have_fewer_rows(tmp_path):
    """It has all pixels."""
    frames = make_frames("u2", (3, 40, 33))
    path = tmp_path / "scan.tif"
    write(path, frames)
    with tifffile.TiffFile(path) as file:
        places = [page.tags["RowsPerStrip"].valueoffset for page in file.pages]
    content = bytearray(path.read_bytes())
    for place in places:
        content[place : place + 2] = np.uint16(10).tobytes()
    path.write_bytes(content)
    check_series(as_series(path), frames)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("empty", ["offset", "count", "both"])
@pytest.mark.parametrize("nodata", [None, 7])
def test_strips_without_data(tmp_path, compression, empty, nodata):
    """They are zeros, or the value for no data; a whole page was the first bytes of the file."""
    frames = make_frames("u2", (3, 40, 33))
    extra = [] if nodata is None else [(42113, "s", 2, str(nodata), True)]
    zero = {0: 0}
    given = {"offsets": None if empty == "count" else zero}
    given["counts"] = None if empty == "offset" else zero
    for name, layout, rows in (("a.tif", {"rowsperstrip": 40}, 40), ("b.tif", STRIPS, 10)):
        path = tmp_path / name
        write(path, frames, compression=compression, extratags=extra, **layout)
        set_segments(path, 1, **given)
        expected = frames.copy()
        if (name, compression, empty) != ("a.tif", None, "count"):  # pixels need no count
            expected[1, :rows] = nodata or 0
        check_series(as_series(path), expected)


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


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("stuck.tif", (5, 512, 512), "u2")]
    + [(f"reader_0000{number}.tiff", (1, 8, 16), "i1") for number in range(4)],
)
def test_real_file(real_data, name, shape, dtype):
    path = real_data / "formats" / name
    frames = tifffile.imread(path).reshape(shape)
    series = as_series(path)
    check_series(series, frames)
    assert series.dtype == dtype
    np.testing.assert_array_equal(stats.max(path), frames.max(axis=0), strict=True)


def test_real_file_that_lacks_eleven_bytes(real_data):
    with pytest.raises(ValueError, match=r"Pilatus\.tiff .* is cut off: the last of 1 pages is"):
        as_series(real_data / "formats" / "Pilatus.tiff")
