"""Viewers of NeXus and HEXRD find the image in HDF5 files that were written."""

import h5py
import numpy as np
import pytest

from daskstats.formats import nexus, outputs
from daskstats.formats.inputs import read_image
from daskstats.series.opening import open_source

IMAGE = np.arange(35, dtype="f4").reshape(5, 7)
PLANES = np.arange(70, dtype="u4").reshape(2, 5, 7)

# Names of datasets, and one for none.
NAMES = ["", "/entry/dark", "dark", "/entry", "/entry/plot", "/entry/process/process"]
NAMES += ["/entry/data/data", "/a/b/c/d", "/imageseries/images", "images"]


def target(path, name):
    return f"{path}::{name}" if name else path


def stored(image, name):
    """Return the dataset of a name as it should be in the file."""
    return image[None] if name.rpartition("/")[2] == "images" else image


@pytest.mark.parametrize("name", NAMES)
def test_silx_finds_the_default_plot(tmp_path, name):
    silx_io = pytest.importorskip("silx.io")
    from silx.io.nxdata import get_default

    outputs.save(IMAGE, target(tmp_path / "out.nxs", name))
    with silx_io.open(str(tmp_path / "out.nxs")) as file:
        data = get_default(file, validate=True)
        assert data is not None
        assert data.issues == []
        assert data.interpretation == "image"
        assert data.is_image or data.is_stack
        np.testing.assert_array_equal(data.signal[()], stored(IMAGE, name), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_nexusformat_finds_the_default_plot(tmp_path, name):
    pytest.importorskip("nexusformat")
    from nexusformat.nexus import NXdata, nxload

    outputs.save(IMAGE, target(tmp_path / "out.nxs", name))
    with nxload(tmp_path / "out.nxs") as root:
        data = root.get_default()
        assert isinstance(data, NXdata)
        assert data.plottable_data is not None
        found = data.nxsignal.nxdata
        np.testing.assert_array_equal(found, stored(IMAGE, name), strict=True)


def test_silx_finds_the_first_of_several_images(tmp_path):
    silx_io = pytest.importorskip("silx.io")
    from silx.io.nxdata import get_default

    # Names that the layout uses itself are names of images as well.
    images = {"process": IMAGE, "entry": IMAGE + 1, "levels": PLANES, "a/b": IMAGE + 2}
    outputs.save_all(images, tmp_path / "out.h5")
    with silx_io.open(str(tmp_path / "out.h5")) as file:
        np.testing.assert_array_equal(get_default(file, validate=True).signal[()], IMAGE)
    with h5py.File(tmp_path / "out.h5") as file:
        for key, image in images.items():
            np.testing.assert_array_equal(file[key], image, strict=True)


@pytest.mark.parametrize("image", [IMAGE, PLANES], ids=["image", "planes"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_a_dataset_of_the_name(tmp_path, name, image):
    outputs.save(image, f"{tmp_path / 'out.h5'}::{name}")
    with h5py.File(tmp_path / "out.h5") as file:
        found = file[name]
        np.testing.assert_array_equal(found, stored(image, name) if image is IMAGE else image)
        assert found.dtype == image.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


class Hdf5Adapter:
    """The reading of HEXRD's adapter of that name: ``path/images``, of two or three dimensions."""

    def __init__(self, name, path, dataname="images"):
        self._dataset = h5py.File(name)["/".join([path, dataname])]
        assert self._dataset.ndim in (2, 3)

    def __len__(self):
        return len(self._dataset) if self._dataset.ndim == 3 else 1

    def __getitem__(self, key):
        return self._dataset[key]

    def get_region(self, frame, region):
        return self._dataset[frame][tuple(slice(*edges) for edges in region)]


@pytest.mark.parametrize("path", ["/imageseries", "/a/b/imageseries"])
def test_hexrd_reads_a_series_of_one_frame(tmp_path, path):
    outputs.save(IMAGE, f"{tmp_path / 'dark.h5'}::{path}/images")
    hexrd = Hdf5Adapter(tmp_path / "dark.h5", path)
    assert len(hexrd) == 1
    np.testing.assert_array_equal(hexrd[0], IMAGE, strict=True)
    np.testing.assert_array_equal(hexrd.get_region(0, ((1, 3), (2, 6))), IMAGE[1:3, 2:6])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_again(tmp_path, name):
    """The link does not make two images of one."""
    outputs.save(IMAGE, target(tmp_path / "out.nxs", name))
    np.testing.assert_array_equal(read_image(tmp_path / "out.nxs"), IMAGE, strict=True)
    source = open_source(target(tmp_path / "out.nxs", name))
    np.testing.assert_array_equal(source.read(0, 1, 0, 5)[0], IMAGE[None], strict=True)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("out.h5::", "is not the name of a dataset, such as /entry/dark"),
        ("out.h5::/", "is not the name of a dataset"),
        ("out.h5::/a//b", "is not the name of a dataset"),
        ("out.h5::/a/../b", "is not the name of a dataset"),
        pytest.param("out.h5::/\udcfe", "is not the name of a dataset", id="no text"),
        ("out.npy::/a", r"out.npy holds one image: leave out ::/a, or use one of .h5, .hdf5, .nxs"),
        ("out.jpg::/a", "no known suffix"),
    ],
)
def test_names_that_no_dataset_can_have(tmp_path, output, words):
    with pytest.raises(ValueError, match=words):
        outputs.check_output(f"{tmp_path}/{output}")
    assert not list(tmp_path.iterdir())


def test_several_images_are_not_one_dataset(tmp_path):
    with pytest.raises(ValueError, match="names one dataset for several images"):
        outputs.check_outputs(tmp_path / "out.h5::/a", {"max": 2, "min": 2})


# ---------------------------------------------------------------------- files that exist


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_file_that_holds_this_dataset_alone_is_replaced(tmp_path, name):
    path = f"{tmp_path / 'out.h5'}::{name}"
    outputs.save(IMAGE, path)
    with pytest.raises(FileExistsError, match="exists already"):
        outputs.save(IMAGE, path)
    outputs.save(IMAGE + 1, path, force=True)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file[name], stored(IMAGE + 1, name))


def foreign(kind, path):
    """Make a file with something that must not be lost; return its name."""
    with h5py.File(path, "w") as file:
        file["/entry/dark"] = IMAGE
        if kind == "dataset":
            file["/entry/data/data"] = PLANES
            return "/entry/data/data"
        if kind == "external link":
            file["/entry/scan"] = h5py.ExternalLink("scan.h5", "/entry/data")
            return "/entry/scan"
        if kind == "soft link":
            file["/entry/scan"] = h5py.SoftLink("/entry/data")
            return "/entry/scan"
        file["/entry/process/program"] = "another"
        file["/entry/process"].attrs["NX_class"] = "NXprocess"
        return "/entry/process/program"


@pytest.mark.parametrize("kind", ["dataset", "external link", "soft link", "process"])
def test_a_file_that_holds_anything_else_is_kept(tmp_path, kind):
    name = foreign(kind, tmp_path / "out.h5")
    before = (tmp_path / "out.h5").read_bytes()
    for attempt in (outputs.check_output, lambda *args, **kw: outputs.save(IMAGE, *args, **kw)):
        with pytest.raises(ValueError, match=f"holds {name}, which would be lost"):
            attempt(f"{tmp_path / 'out.h5'}::/entry/dark", force=True)
    assert (tmp_path / "out.h5").read_bytes() == before


def test_a_file_that_is_damaged_is_kept(tmp_path):
    (tmp_path / "out.h5").write_text("my work")
    with pytest.raises(ValueError, match="out.h5"):
        outputs.save(IMAGE, f"{tmp_path / 'out.h5'}::/entry/dark", force=True)
    assert (tmp_path / "out.h5").read_text() == "my work"


def test_a_file_that_appears_while_another_is_written_is_kept(tmp_path, monkeypatch):
    """It is looked at again before the new one is renamed."""
    write = nexus.write_pixels

    def slow(*args):
        write(*args)
        foreign("dataset", tmp_path / "out.h5")

    monkeypatch.setattr(nexus, "write_pixels", slow)
    with pytest.raises(ValueError, match="holds /entry/data/data"):
        outputs.save(IMAGE, f"{tmp_path / 'out.h5'}::/entry/dark", force=True)
    with h5py.File(tmp_path / "out.h5") as file:
        assert "/entry/data/data" in file
