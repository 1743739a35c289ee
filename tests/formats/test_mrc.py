"""MRC files: stacks and volumes of every mode, read in place, and what cannot be written."""

from contextlib import nullcontext
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.formats import mrc, outputs
from daskstats.series.opening import open_source

DOCS = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
@pytest.mark.parametrize("order", "<>")
def test_every_mode_in_either_byte_order(tmp_path, dtype, order):
    frames = make_frames(dtype)
    warned = pytest.warns(RuntimeWarning, match="NaN") if dtype[0] == "f" else nullcontext()
    with warned, mrcfile.new(tmp_path / "scan.mrc") as file:
        file.set_data(frames.astype(np.dtype(dtype).newbyteorder(order)))
    with mrcfile.mmap(tmp_path / "scan.mrc") as file:
        assert file.data.dtype.str[0] in (order, "|")
    check_series(open_source(tmp_path / "scan.mrc"), frames)


def test_extended_header_and_volumes(tmp_path):
    frames = make_frames("i2", 6)
    with mrcfile.new(tmp_path / "scan.mrcs") as file:
        file.set_data(frames.reshape(2, 3, 5, 6))
        file.set_extended_header(np.zeros(300, "V1"))
        assert file.is_volume_stack()
    check_series(open_source(tmp_path / "scan.mrcs"), frames)


def test_one_image(tmp_path):
    frames = make_frames("i2", 1)
    with mrcfile.new(tmp_path / "scan.mrc") as file:
        file.set_data(frames[0])
    check_series(open_source(tmp_path / "scan.mrc"), frames)


def test_by_its_first_bytes(tmp_path):
    frames = make_frames("i2")
    with mrcfile.new(tmp_path / "scan.0001") as file:
        file.set_data(frames)
    check_series(open_source(tmp_path / "scan.0001"), frames)


@pytest.mark.parametrize("field", ["nx", "ny", "nz", "mode", "nsymbt"])
@pytest.mark.parametrize("value", [-1, 0, 1000])
def test_headers_that_make_no_sense(tmp_path, field, value):
    path = tmp_path / "scan.mrc"
    with mrcfile.new(path) as file:
        file.set_data(make_frames("i2"))
    with mrcfile.open(path, "r+") as file:
        file.header[field] = value
        if (field, value) in (("mode", 0), ("nsymbt", 0)):
            return  # as good as any
    with pytest.raises((ValueError, TypeError), match=r"scan\.mrc|frames"):
        open_source(path)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("?", "i1"),
        ("u1", "i2"),
        ("i1", "i1"),
        ("i2", "i2"),
        ("u2", "u2"),
        ("f4", "f4"),
        ("f2", "f4"),
    ],
)
def test_values_are_kept(tmp_path, dtype, kept):
    image = make_frames(dtype)[0]
    image.flat[0] = 1 if dtype == "?" else image.flat[0]
    if dtype == "u1":
        image.flat[:2] = 0, 255
    if dtype == "u2":
        image.flat[:2] = 0, 65535
    outputs.save(image, tmp_path / "image.mrc")
    with mrcfile.mmap(tmp_path / "image.mrc") as file:
        assert file.data.dtype == kept
        np.testing.assert_array_equal(file.data, image)


def test_planes_are_a_stack(tmp_path):
    planes = make_frames("i2", 3)
    outputs.save(planes, tmp_path / "image.mrc")
    assert mrcfile.validate(tmp_path / "image.mrc")
    with mrcfile.mmap(tmp_path / "image.mrc") as file:
        assert file.is_image_stack()
        np.testing.assert_array_equal(file.data, planes)


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        (
            "i4",
            2**24 + 1,
            r"holds int8 or int16 or uint16 or float32: the image of int32 has 1 oth",
        ),
        (
            "f8",
            0.1,
            r"holds float32: the image of float64 has 1 other values, such as 0.1 in pixel",
        ),
        ("f8", 1e300, "such as 1e"),
        ("u8", 2**64 - 1, "such as 18446744073709551615"),
    ],
)
def test_values_that_no_mode_holds(tmp_path, dtype, value, words):
    image = np.ones((3, 4), dtype)
    image[1, 2] = value
    with pytest.raises(ValueError, match=words) as caught:
        outputs.save(image, tmp_path / "image.mrc")
    assert "in pixel (1, 2): use .edf, .tif or .h5" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_real_file(real_data):
    path = real_data / "formats" / "EMD-3197.map"
    with mrcfile.mmap(path) as file:
        frames = np.array(file.data)
    assert frames.shape == (20, 20, 20)
    check_series(open_source(path), frames)


def test_the_worked_example_is_the_module():
    source = Path(mrc.__file__).read_text()
    assert len(source.splitlines()) <= 60
    example = DOCS.read_text().partition("```python\nclass MrcSource")[2].partition("\n```")[0]
    assert source.endswith(f"class MrcSource{example}\n")
