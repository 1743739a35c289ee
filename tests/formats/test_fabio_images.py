"""Files that fabio reads: in place where it says where pixels are, and never with zeros made up."""

import gzip
import logging
import shutil

import fabio
import numpy as np
import pytest
from files import GE, MAR345, written
from helpers import check_series, make_frames

import daskstats as stats
from daskstats.formats import outputs
from daskstats.series.opening import open_source

EDF_NAMES = {"u1": "UnsignedByte", "i1": "SignedByte", "u2": "UnsignedShort", "i2": "SignedShort"}
EDF_NAMES |= {"u4": "UnsignedInteger", "i4": "SignedInteger", "u8": "Unsigned64"}
EDF_NAMES |= {"i8": "Signed64", "f4": "FloatValue", "f8": "DoubleValue"}


def edf_block(frame, order="<", **fields):
    """Return a frame of an EDF file, written by hand."""
    dtype = frame.dtype.newbyteorder(order)
    dims = {f"Dim_{n}": length for n, length in enumerate(reversed(frame.shape), 1)}
    fields = {
        "HeaderID": "EH:000001:000000:000000",
        "Image": 1,
        "ByteOrder": "LowByteFirst" if order == "<" else "HighByteFirst",
        "DataType": EDF_NAMES[frame.dtype.str[1:]],
        **dims,
        "Size": frame.nbytes,
        **fields,
    }
    text = "{\n" + "".join(f"{name} = {value} ;\n" for name, value in fields.items())
    return text.ljust(510).encode() + b"}\n" + frame.astype(dtype).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", EDF_NAMES)
def test_edf_of_every_dtype_and_order(tmp_path, dtype, order):
    frames = make_frames(dtype)
    path = tmp_path / "scan.edf"
    path.write_bytes(b"".join(edf_block(frame, order) for frame in frames))
    with fabio.open(str(path)) as image:
        found = np.stack([image.get_frame(index).data for index in range(image.nframes)])
    np.testing.assert_array_equal(found, frames)
    check_series(open_source(path), frames)


def test_edf_with_padding_and_volumes(tmp_path):
    frames = make_frames("u2", 6)
    blocks = [edf_block(frame, Size=frame.nbytes + 40) + bytes(40) for frame in frames]
    (tmp_path / "padded.edf").write_bytes(b"".join(blocks))
    check_series(open_source(tmp_path / "padded.edf"), frames)
    (tmp_path / "volume.edf").write_bytes(edf_block(frames))
    check_series(open_source(tmp_path / "volume.edf"), frames)


def test_edf_compressed_inside(tmp_path):
    frames = make_frames("u2", 3)
    path = tmp_path / "scan.edf"
    blocks = []
    for frame in frames:
        packed = gzip.compress(frame.tobytes())
        block = edf_block(frame, Compression="GzipCompression", Size=len(packed))
        blocks.append(block[:512] + packed)
    path.write_bytes(b"".join(blocks))
    check_series(open_source(path), frames)


def test_edf_frames_that_differ(tmp_path):
    frames = make_frames("u2", 3)
    for name, odd in (("shape", frames[2, :4]), ("dtype", frames[2].astype("u4"))):
        path = tmp_path / f"{name}.edf"
        path.write_bytes(b"".join(map(edf_block, [frames[0], frames[1], odd])))
        with pytest.raises(ValueError, match=rf"{name}\.edf.*frame 2 has {name}"):
            open_source(path)


def test_edf_block_smaller_than_its_frame(tmp_path):
    path = tmp_path / "scan.edf"
    path.write_bytes(edf_block(make_frames("u2")[0], Size=30) + bytes(100))
    with pytest.raises(ValueError, match=r"scan\.edf"):
        open_source(path)


def test_cbf_file_that_is_changed_in_one_byte(tmp_path):
    path, _ = written(".cbf", tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x0c\x1a\x04\xd5") + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"scan\.cbf is damaged or cut off: Checksum"):
        open_source(path).read(0, 1, 0, 12)


def test_cbf_with_mismatched_size(tmp_path):
    path, _ = written(".cbf", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"X-Binary-Size: ", b"X-Binary-Size: 9"))
    with pytest.raises(ValueError, match=r"scan\.cbf .* its pixels end at byte 9"):
        open_source(path)


def test_nothing_is_printed(tmp_path, capfd):
    """fabio logs what users need not see; an error of the content is raised."""
    logging.getLogger("fabio").handlers.clear()
    path, _ = written(".edf", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"LowByteFirst ", b"Middle       "))
    stats.max(path).compute()
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError):
        open_source(path)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("fabio").handlers == []


@pytest.mark.parametrize("header", ["ADEPT", "zeros", "EDF"])
def test_headers_of_ge_files(tmp_path, header):
    """The detector writes its own; others blank it, or put an EDF header there."""
    shape = (3, 2048, 2048) if header != "ADEPT" else (3, 12, 10)
    frames = np.random.default_rng(1).integers(0, 9999, shape, "u2")
    path = tmp_path / "scan.ge3"
    GE.write(frames, path)
    if header != "ADEPT":
        content = bytearray(path.read_bytes())
        text = b"{\nEDF_DataBlockID = 1.Image.Psd ;\nNum_Images = 3 ;\n}\n"
        content[:8192] = (text if header == "EDF" else b"").ljust(8192, b"\0")
        path.write_bytes(content)
    series = open_source(path)
    assert len(series) == 3
    np.testing.assert_array_equal(series.read(0, 3, 5, 9)[0], frames[:, 5:9])
    if header == "ADEPT":
        shutil.move(path, tmp_path / "scan.raw")
        check_series(open_source(tmp_path / "scan.raw"), frames)


@pytest.mark.parametrize("change", [-1, 1, 240])
@pytest.mark.parametrize("suffix", [".ge3", ".spe"])
def test_sizes_that_are_not_those_of_the_header(tmp_path, suffix, change):
    path, _ = written(suffix, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(ValueError, match=rf"scan\{suffix} .* its 6 frames end at byte \d+ of \d+"):
        open_source(path)


def test_overflows_of_mar345(tmp_path):
    path, frames = written(".mar2300", tmp_path)
    frames = frames.copy()
    frames[0, 3, 4:9] = 70000, 1 << 20, 65536, 65535, 0
    path.unlink()
    MAR345.write(frames, path)
    np.testing.assert_array_equal(fabio.open(str(path)).data, frames[0])
    np.testing.assert_array_equal(open_source(path).read(0, 1, 0, 256)[0], frames)


# ---------------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "f4", "f8", "i8", "u8"])
def test_cbf_keeps_whole_numbers(tmp_path, dtype):
    image = np.arange(12).reshape(3, 4).astype(dtype)
    outputs.save(image, tmp_path / "image.cbf")
    with fabio.open(str(tmp_path / "image.cbf")) as file:
        assert file.data.dtype == np.int32
        np.testing.assert_array_equal(file.data, image.astype("i4"))
    assert b"daskstats" not in (tmp_path / "image.cbf").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *[("f4", 0.5), ("f4", np.nan), ("f8", np.inf), ("f8", 1e300), ("i8", 2**31)],
        *[("u4", 2**32 - 1), ("f4", 2.0**31), ("f8", 2.0**31), ("f2", np.inf), ("f2", -np.inf)],
    ],
)
def test_cbf_refuses_other_values(tmp_path, dtype, value):
    image = np.ones((3, 4), dtype)
    image[1, 2] = value
    words = r"a .cbf file holds int32: the image of \w+ has 1 other values, .* in pixel \(1, 2\)"
    with pytest.raises(ValueError, match=words):
        outputs.save(image, tmp_path / "image.cbf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "pixels"),
    [
        ("f2", [-65504, 65504]),
        ("f4", [5, -(2**31), 2**31 - 128]),
        ("f8", [2**31 - 1, -(2**31), 2**31 - 2]),
        ("i8", [2**31 - 1, -(2**31), 2**31 - 2]),
    ],
)
def test_cbf_keeps_the_largest_whole_numbers(tmp_path, dtype, pixels):
    outputs.save(np.array([pixels], dtype), tmp_path / "image.cbf")
    with fabio.open(str(tmp_path / "image.cbf")) as file:
        assert file.data.tolist() == [pixels]


@pytest.mark.parametrize("pixels", [[-(2**31), 0], [0, -(2**31)], [-1, 2**31 - 1], [2**31 - 1, -1]])
def test_cbf_refuses_a_step_that_fabio_loses(tmp_path, pixels):
    fabio.cbfimage.CbfImage(data=np.array([pixels], "i4")).write(str(tmp_path / "lost.cbf"))
    with fabio.open(str(tmp_path / "lost.cbf")) as file:
        assert file.data.tolist() != [pixels], "fabio keeps such steps: the check is of no use"
    with pytest.raises(ValueError, match=r"no step of 2\*\*31 .* as to pixel \(0, [01]\)"):
        outputs.save(np.array([pixels]), tmp_path / "image.cbf")


def test_cbf_refuses_planes(tmp_path):
    with pytest.raises(ValueError, match=r"a CBF file .* holds a 2-D image only"):
        outputs.save(np.zeros((2, 3, 4)), tmp_path / "image.cbf")


def test_edf_planes_are_frames(tmp_path):
    planes = make_frames("f4", 3)
    outputs.save(planes, tmp_path / "image.edf")
    with fabio.open(str(tmp_path / "image.edf")) as file:
        assert file.nframes == 3
        np.testing.assert_array_equal(file.get_frame(2).data, planes[2])
    check_series(open_source(tmp_path / "image.edf"), planes)
