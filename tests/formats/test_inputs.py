"""Images, such as masks, are read from a file of any format."""

import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

import daskstats as stats
from daskstats.formats import outputs
from daskstats.formats.hdf5 import Hdf5Source
from daskstats.formats.inputs import image_source, read_image, read_mask
from daskstats.formats.table import FORMATS, suffixes

FRAMES = np.random.default_rng(3).integers(0, 1000, (5, 6, 7)).astype("u2")
IMAGE = np.random.default_rng(4).integers(0, 2, (6, 7)).astype("u1")


def write(image, path):
    fabio = {".edf": EdfImage, ".cbf": CbfImage}.get(path.suffix)
    if fabio is not None:
        fabio(data=image.astype("i4")).write(str(path))
    elif FORMATS[path.suffix].series is Hdf5Source:
        outputs.save(image, path.with_suffix(".h5"))
        path.with_suffix(".h5").replace(path)
    else:
        outputs.save(image, path)


# Files of the other formats are written in `test_every_format`.
WRITTEN = [
    suffix
    for suffix in suffixes("read")
    if FORMATS[suffix].write or FORMATS[suffix].series is Hdf5Source
]


@pytest.mark.parametrize("suffix", sorted({*WRITTEN} - {".png"}))
@pytest.mark.parametrize("kind", ["path", "text"])
def test_image_comes_back(tmp_path, suffix, kind):
    path = tmp_path / f"image{suffix}"
    write(IMAGE, path)
    found = read_image(str(path) if kind == "text" else path)
    np.testing.assert_array_equal(found, IMAGE)
    assert image_source(path).files == (path,)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".edf", ".h5", ".h5::/image", ".zarr", ".png"])
def test_mask_from_python(tmp_path, suffix):
    path = tmp_path / f"bad{suffix.partition('::')[0]}"
    write(IMAGE * 200, path)
    name = f"{tmp_path}/bad{suffix}"
    for ims in (FRAMES, da.from_array(FRAMES, chunks=(2, 6, 7))):
        np.testing.assert_array_equal(
            stats.median(ims, mask=name), stats.median(FRAMES, mask=IMAGE != 0), strict=True
        )
    if "::" not in suffix:
        image = stats.max(FRAMES, mask=path, fill_value=0)
        np.testing.assert_array_equal(image, np.where(IMAGE, 0, FRAMES.max(axis=0)))


def test_mask_of_the_whole_frame_is_cut_to_the_region(tmp_path):
    np.save(tmp_path / "bad.npy", IMAGE != 0)
    region = (1, 4), (2, 7)
    image = stats.average(FRAMES, mask=tmp_path / "bad.npy", region=region)
    expected = np.ma.array(FRAMES, mask=np.broadcast_to(IMAGE != 0, FRAMES.shape))
    expected = expected.mean(axis=0, dtype="f8").filled(np.nan).astype(image.dtype)
    np.testing.assert_array_equal(image, expected[1:4, 2:7])


def test_named_datasets(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["one"], file["entry/two"] = IMAGE, IMAGE + 1
    group = zarr.create_group(tmp_path / "two.zarr")
    group.create_array("one", data=IMAGE)
    group.create_array("two", data=IMAGE + 1)
    for name in ("two.h5::/entry/two", "two.zarr::/two"):
        np.testing.assert_array_equal(read_image(f"{tmp_path}/{name}"), IMAGE + 1)
    for name in ("two.h5", "two.zarr"):
        with pytest.raises(ValueError, match=f"name one as .*{name}::"):
            read_image(tmp_path / name)


def several_images(tmp_path):
    """Write a file of one image and a stack of images."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["m/mask"], file["m/stack"] = IMAGE, np.stack([1 - IMAGE, IMAGE])
    return path


@pytest.mark.parametrize("scheme", ["", "silx:", "fabio://", "file://"])
@pytest.mark.parametrize(
    ("rest", "origin"),
    [
        ("::/m/mask", "::/m/mask"),
        ("?path=/m/mask", "::/m/mask"),
        ("?path=/m/stack&slice=1", "::/m/stack, frames 1:2"),
    ],
)
def test_images_are_named_as_series_are(tmp_path, scheme, rest, origin):
    path = several_images(tmp_path)
    name = f"{scheme}{path}{rest}"
    np.testing.assert_array_equal(read_image(name), IMAGE, strict=True)
    assert image_source(name).files == (path,)
    assert image_source(name).origin == f"{path}{origin}"
    image = stats.median(FRAMES, mask=name)
    np.testing.assert_array_equal(image, stats.median(FRAMES, mask=IMAGE != 0), strict=True)
    image = stats.max(FRAMES, dark=name)
    np.testing.assert_array_equal(image, stats.max(FRAMES, dark=IMAGE), strict=True)


def test_frames_that_are_no_image(tmp_path):
    path = several_images(tmp_path)
    with pytest.raises(ValueError, match="m.h5 has 2 images, expected one"):
        read_image(f"{path}?path=/m/stack&slice=0:2")
    with pytest.raises(ValueError, match="expected path and slice"):
        read_image(f"{path}?dataset=/m/mask")


def test_image_at_an_address():
    zarr.create_array("memory://inputs/mask.zarr", data=IMAGE, overwrite=True)
    zarr.create_array("memory://inputs/scan.zarr", data=FRAMES, overwrite=True)
    np.testing.assert_array_equal(read_mask("memory://inputs/mask.zarr"), IMAGE != 0)
    assert image_source("memory://inputs/mask.zarr").files == ()
    assert image_source("memory://inputs/mask.zarr").origin == "memory://inputs/mask.zarr"
    with pytest.raises(ValueError, match="scan.zarr> has 5 images, expected one"):
        read_image("memory://inputs/scan.zarr")


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".npz", ".npy", ".png"])
def test_origin_names_the_image_that_was_chosen(tmp_path, suffix):
    path = tmp_path / f"dark{suffix}"
    if suffix == ".zarr":
        zarr.open_group(path, mode="w").create_array("x/dark", data=IMAGE)
    elif suffix == ".npz":
        np.savez(path, dark=IMAGE, numbers=np.arange(3))
    elif suffix == ".h5":
        outputs.save(IMAGE, f"{path}::/x/dark")
    else:
        outputs.save(IMAGE, path)
    datasets = {".h5": "::/x/dark", ".zarr": "::/x/dark", ".npz": "::dark"}
    expected = datasets.get(suffix, "")
    assert image_source(path).origin == f"{path}{expected}"
    assert image_source(f"{path}{expected}").origin == f"{path}{expected}"
    np.testing.assert_array_equal(read_mask(f"{path}{expected}"), IMAGE != 0)


def test_slice_of_an_image_is_of_the_first_axis(tmp_path):
    """As that of a series: an index of a scan is several frames, of which one would be taken."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["d"] = np.stack([IMAGE, IMAGE + 1])[:, None].repeat(2, axis=1)
    with pytest.raises(ValueError, match="slice= is along the first axis, that has 2 x 2 frames"):
        read_image(f"{tmp_path}/scan.h5?path=/d&slice=1")


def test_files_behind_links(tmp_path):
    with h5py.File(tmp_path / "pixels.h5", "w") as file:
        file["mask"] = IMAGE
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["mask"] = h5py.ExternalLink("pixels.h5", "/mask")
    found = image_source(tmp_path / "mask.h5").files
    assert set(found) == {tmp_path / "mask.h5", tmp_path / "pixels.h5"}


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("none.npy", FileNotFoundError, "there is no mask .*none.npy"),
        ("bad.txt", ValueError, "bad.txt has no known suffix: expected one of .cbf,"),
        ("floats.npy", TypeError, "the mask .*floats.npy must be of bool or integers, got float64"),
        ("mask.npy::/data", ValueError, "mask.npy holds one array: leave out ::/data"),
        ("series.h5", ValueError, "series.h5 has 5 images, expected one"),
        ("small.npy", ValueError, r"mask has shape \(2, 3\), expected \(6, 7\)"),
    ],
)
def test_files_that_are_no_mask(tmp_path, name, error, words):
    np.save(tmp_path / "floats.npy", np.zeros((6, 7)))
    np.save(tmp_path / "mask.npy", IMAGE)
    np.save(tmp_path / "small.npy", np.ones((2, 3), bool))
    outputs.save(FRAMES, tmp_path / "series.h5")
    with pytest.raises(error, match=words):
        stats.median(FRAMES, mask=f"{tmp_path}/{name}")


def test_picture_is_read(tmp_path):
    outputs.save(IMAGE, tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), IMAGE != 0)


def test_image_that_nexus_attributes_name(tmp_path):
    """One of several, which could not be chosen otherwise."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "out.nxs"
    images = {name: np.full((8, 9), number, "u2") for number, name in enumerate("abc")}
    with h5py.File(path, "w") as file:
        for name, image in images.items():
            file[f"entry/data/{name}"] = image
    with pytest.raises(ValueError, match="3 datasets"):
        read_image(path)
    with h5py.File(path, "a") as file:
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs.update({"NX_class": "NXdata", "signal": "b"})
    np.testing.assert_array_equal(read_image(path), images["b"])
