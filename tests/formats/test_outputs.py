"""Images are written whole or not at all, and come back as they were."""

import errno
import os
import re
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from daskstats.formats import npy, outputs
from daskstats.formats.notes import Notes
from daskstats.formats.png import picture
from daskstats.formats.table import FORMATS, suffixes
from daskstats.series.opening import open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*ImageJ opens")


def read_hdf5(path):
    import h5py

    with h5py.File(path) as file:
        assert list(file) == ["entry", "image"]
        dataset = file["image"]
        assert dataset.compression == "gzip"
        assert dataset.shuffle
        return dataset[...]


def read_zarr(path):
    import zarr

    array = zarr.open(path, mode="r")
    assert isinstance(array, zarr.Array)
    return array[...]


def read_tiff(path):
    import tifffile

    return tifffile.imread(path)


def read_png(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def read_fabio(path):
    import fabio

    with fabio.open(str(path)) as image:
        frames = [image.get_frame(index).data for index in range(image.nframes)]
    return np.stack(frames) if len(frames) > 1 else frames[0]


def read_mrc(path):
    import mrcfile

    with mrcfile.open(path) as file:
        return np.array(file.data)


def read_fits(path):
    from astropy.io import fits

    with fits.open(path) as file:
        assert len(file) == 1
        return np.array(file[0].data, file[0].data.dtype.newbyteorder("="))


READ = {
    ".cbf": read_fabio,
    ".edf": read_fabio,
    ".mrc": read_mrc,
    ".fits": read_fits,
    ".npy": np.load,
    ".zarr": read_zarr,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".nxs": read_hdf5,
    ".tif": read_tiff,
    ".tiff": read_tiff,
}
# The tests of the module of .cbf and .mrc tell which images these hold.
EXACT = sorted({*READ} - {".cbf", ".mrc"})

# Dtypes that a format has in a wider one.
WIDER = {".tif": {"bool": "u1"}, ".tiff": {"bool": "u1"}}
for suffix in (".edf", ".fits"):
    WIDER[suffix] = {"bool": "u1", "float16": "f4"}
DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def leftovers(path):
    return sorted(other.name for other in path.iterdir())


def test_every_suffix_is_tested():
    assert set(suffixes("write")) == {*READ, ".png"}


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_dtype_are_kept(tmp_path, suffix, dtype):
    dtype = np.dtype(dtype)
    image = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    if dtype.kind in "iu":
        image[0, 0], image[0, 1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    if dtype.kind == "f":
        image[0, :3] = np.nan, np.inf, np.finfo(dtype).max
    outputs.save(image, tmp_path / f"image{suffix}")
    back = READ[suffix](tmp_path / f"image{suffix}")
    assert back.dtype == WIDER.get(suffix, {}).get(dtype.name, dtype)
    np.testing.assert_array_equal(back, image)
    assert leftovers(tmp_path) == [f"image{suffix}"]


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize(
    "shape",
    [
        (2, 5, 7),
        pytest.param((3, 5, 7), id="not the planes of an RGB picture"),
        pytest.param((4, 5, 3), id="not the pixels of an RGB picture"),
        pytest.param((1, 5, 7), id="one plane"),
        pytest.param((1, 1), id="one pixel"),
        pytest.param((6, 1), id="one column"),
        pytest.param((3, 6, 1), id="planes of one column"),
        pytest.param((3, 1, 6), id="planes of one row"),
        pytest.param((3, 1, 1), id="planes of one pixel"),
    ],
)
def test_shape_is_kept(tmp_path, suffix, shape):
    image = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    outputs.save(image, tmp_path / f"image{suffix}")
    if suffix == ".edf" and shape == (1, 5, 7):
        image = image[0]  # one plane is the same file as a 2-D image
    np.testing.assert_array_equal(READ[suffix](tmp_path / f"image{suffix}"), image, strict=True)


SHAPES = [(3, 5, 7), (3, 6, 1), (3, 1, 6), (3, 1, 1), (1, 5, 7), (1, 6, 1), (6, 1), (1, 6), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["?", "u2", "f4"])
@pytest.mark.parametrize("facts", [{}, {"statistic": "levels"}])
def test_planes_are_pages_of_a_tiff(tmp_path, shape, dtype, facts):
    import tifffile

    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    planes = image.reshape(-1, *shape[-2:])
    path = tmp_path / "image.tif"
    outputs.save(image, path, notes=Notes({"levels": facts}, {}))
    with tifffile.TiffFile(path) as file:
        assert [page.shape for page in file.pages] == [shape[-2:]] * len(planes)
        for page, plane in zip(file.pages, planes, strict=True):
            np.testing.assert_array_equal(page.asarray(), plane)
        assert len(file.series) == 1
        text = file.pages[0].description
        assert ("levels" in text) == bool(facts)
        assert not file.pages[-1].description or len(planes) == 1
    series = open_source(path)
    np.testing.assert_array_equal(np.concatenate(series.read(0, len(planes), 0, shape[-2])), planes)


@pytest.mark.parametrize("suffix", suffixes("write"))
def test_suffix_in_capitals(tmp_path, suffix):
    path = tmp_path / f"image{suffix.upper()}"
    outputs.save(np.ones((2, 3)), path)
    assert leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", suffixes("write"))
def test_existing_file_is_kept_without_force(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    outputs.save(np.zeros((2, 3)), path)
    with pytest.raises(FileExistsError, match="exists already"):
        outputs.save(np.ones((4, 4)), path)
    outputs.save(np.ones((4, 4)), path, force=True)
    assert READ.get(suffix, read_png)(path).shape == (4, 4)
    assert leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", suffixes("write"))
@pytest.mark.parametrize("exists", [False, True])
def test_failed_write_leaves_what_was(tmp_path, suffix, exists, monkeypatch):
    path = tmp_path / f"image{suffix}"
    if exists:
        outputs.save(np.full((2, 3), 5.0), path)
    write = FORMATS[suffix].write

    def fail(image, path, notes):
        write(image, path, notes)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(FORMATS, suffix, FORMATS[suffix]._replace(write=fail))
    with pytest.raises(OSError, match="No space left"):
        outputs.save(np.ones((4, 4)), path, force=True)
    assert leftovers(tmp_path) == [path.name] * exists
    if exists:
        assert READ.get(suffix, read_png)(path).shape == (2, 3)


def test_file_that_appears_while_writing_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "image.npy"

    def slow(image, temporary, notes):
        path.write_text("somebody else's")
        npy.write_image(image, temporary)

    monkeypatch.setitem(FORMATS, ".npy", FORMATS[".npy"]._replace(write=slow))
    with pytest.raises(FileExistsError):
        outputs.save(np.ones((4, 4)), path)
    assert path.read_text() == "somebody else's"
    assert leftovers(tmp_path) == ["image.npy"]


def test_old_store_comes_back_if_the_new_cannot_be_renamed(tmp_path, monkeypatch):
    path = tmp_path / "image.zarr"
    outputs.save(np.zeros((2, 3)), path)
    replace = type(path).replace

    def fail(self, target):
        if target == path and "-old" not in self.parent.name:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        outputs.save(np.ones((4, 4)), path, force=True)
    assert read_zarr(path).shape == (2, 3)
    assert leftovers(tmp_path) == ["image.zarr"]


@pytest.mark.parametrize("length", [180, 250, 255])
@pytest.mark.parametrize("suffix", [*suffixes("write"), ""])
def test_outputs_of_long_names_are_replaced(tmp_path, suffix, length):
    path = tmp_path / ("x" * (length - len(suffix)) + suffix)
    for image in (np.zeros((2, 3)), np.ones((4, 4))):
        if suffix:
            outputs.save(image, path, force=True)
        else:
            outputs.save_all({"max": image}, path, force=True)
    read = READ.get(suffix, read_png)
    assert (read(path) if suffix else np.load(path / "max.npy")).shape == (4, 4)
    assert leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("output", "source"),
    [
        pytest.param("a.npy", "a.npy", id="the same name"),
        pytest.param("./sub/../a.npy", "a.npy", id="another way there"),
        pytest.param("link.npy", "a.npy", id="a symbolic link"),
        pytest.param("hard.npy", "a.npy", id="a hard link"),
        pytest.param("a.npy", "link.npy", id="input through a link"),
        pytest.param("store.zarr/image.npy", "store.zarr", id="inside the input"),
        pytest.param("store.zarr", "store.zarr/frames.zarr", id="around the input"),
    ],
)
def test_never_onto_the_input(tmp_path, output, source, force):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.npy").symlink_to("a.npy")
    (tmp_path / "hard.npy").hardlink_to(tmp_path / "a.npy")
    outputs.save(np.zeros((2, 2)), tmp_path / "store.zarr")
    outputs.save(np.zeros((2, 2)), tmp_path / "store.zarr" / "frames.zarr")
    with pytest.raises(ValueError, match="is the input"):
        outputs.check_output(tmp_path / output, [tmp_path / source], force)


def test_output_beside_the_input(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    outputs.check_output(tmp_path / "b.npy", [tmp_path / "a.npy", "missing.npy"])


@pytest.mark.parametrize("name", ["image.zarr", "image.npy"])
def test_other_directories_are_never_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").touch()
    with pytest.raises(IsADirectoryError, match="will not be replaced"):
        outputs.save(np.zeros((2, 2)), tmp_path / name, force=True)
    assert leftovers(tmp_path / name) == ["thesis.txt"]


def store(kind, path):
    """Make a zarr array or group."""
    import zarr

    data = np.arange(24.0).reshape(4, 6)
    options = {"data": data, "chunks": (2, 3)}
    if kind == "group":
        for name in ("a", "deep/b"):
            zarr.create_array(path, name=name, **options)
    elif kind == "old group":
        zarr.create_array(path, name="a", zarr_format=2, **options)
    elif kind == "old array":
        zarr.create_array(path, zarr_format=2, **options)
    elif kind == "old nested array":
        separator = {"name": "v2", "separator": "/"}
        zarr.create_array(path, zarr_format=2, chunk_key_encoding=separator, **options)
    elif kind == "shards":
        zarr.create_array(path, shards=(4, 6), **options)
    elif kind == "one value":
        zarr.create_array(path, data=np.array(3.0))
    else:
        zarr.create_array(path, **options)
    return path


KINDS = ["array", "group", "old group", "old array", "old nested array", "shards", "one value"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_zarr_alone_is_replaced(tmp_path, kind):
    path = store(kind, tmp_path / "image.zarr")
    # As of a writer that was killed.
    is_chunk = re.compile(r"c|[\d.]+").fullmatch
    chunks = [file for file in path.rglob("*") if file.is_file() and is_chunk(file.name)]
    chunks[0].with_suffix(f".{32 * 'a'}.partial").touch()
    outputs.save(np.ones((2, 2)), path, force=True)
    np.testing.assert_array_equal(read_zarr(path), np.ones((2, 2)))
    assert leftovers(tmp_path) == ["image.zarr"]


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        *[(kind, name) for kind in KINDS for name in ("thesis.txt", "src/main.py", "empty/")],
        ("array", "c/0/notes.md"),
        ("shards", "c/thesis.txt"),
        ("group", "a/thesis.txt"),
        ("group", "deep/b/c/1/thesis.txt"),
        ("group", "0/thesis.txt"),
        ("old group", "a/.hidden"),
        ("old array", "0/thesis.txt"),
        ("old nested array", "0/thesis.txt"),
    ],
)
def test_a_store_with_foreign_files_is_kept(tmp_path, kind, foreign):
    path = store(kind, tmp_path / "image.zarr")
    file = path / foreign
    if foreign.endswith("/"):
        file.mkdir()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("my work")
    before = sorted(path.rglob("*"))
    first = foreign.split("/")[0]
    with pytest.raises(IsADirectoryError, match=f"holds {first}.* will not be replaced: move"):
        outputs.save(np.ones((2, 2)), path, force=True)
    with pytest.raises(IsADirectoryError, match=f"holds {first}"):
        outputs.check_outputs(path, {"max": 2}, force=True)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("target", ["zarr.json", "c/0/1", "link"])
def test_a_store_with_a_symbolic_link_is_kept(tmp_path, target):
    path = store("array", tmp_path / "image.zarr")
    (tmp_path / "raw").write_text('{"zarr_format": 3}')
    if target != "link":
        (path / target).rename(tmp_path / "raw")
    (path / target).symlink_to(tmp_path / "raw")
    with pytest.raises(IsADirectoryError, match=f"holds {target}"):
        outputs.save(np.ones((2, 2)), path, force=True)
    assert (path / target).is_symlink()


@pytest.mark.parametrize("text", ["{}", "[1]", "not JSON", '{"name": "zarr"}'])
def test_a_project_with_a_file_of_that_name_is_kept(tmp_path, text):
    path = tmp_path / "image.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(text)
    with pytest.raises(IsADirectoryError, match="holds zarr.json"):
        outputs.save(np.ones((2, 2)), path, force=True)
    assert (path / "zarr.json").read_text() == text


def test_a_directory_of_images_with_foreign_files_is_kept(tmp_path):
    path = tmp_path / "images"
    images = {"max": np.ones((2, 3)), "min": np.ones((2, 3))}
    outputs.save_all(images, path, form="zarr")
    (path / "max.zarr" / "thesis.txt").touch()
    with pytest.raises(IsADirectoryError, match=r"holds max.zarr.thesis.txt"):
        outputs.save_all(images, path, force=True, form="zarr")
    (path / "max.zarr" / "thesis.txt").unlink()
    outputs.save_all(images, path, force=True, form="zarr")
    (path / "max.npy").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "max.npy").mkdir()
    with pytest.raises(IsADirectoryError, match="holds max.npy"):
        outputs.save_all({"max": np.ones((2, 3))}, tmp_path / "other", force=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "image.npy")
    with pytest.raises(ValueError, match="neither a file nor a directory"):
        outputs.save(np.ones((2, 2)), tmp_path / "image.npy", force=True)


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
def test_the_target_of_a_link_is_replaced(tmp_path, suffix):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / f"real{suffix}", tmp_path / f"link{suffix}"
    link.symlink_to(target)
    outputs.save(np.zeros((2, 2)), link)  # which leads nowhere yet
    with pytest.raises(FileExistsError):
        outputs.save(np.ones((2, 2)), link)
    outputs.save(np.ones((2, 2)), link, force=True)
    assert link.readlink() == target
    np.testing.assert_array_equal(READ[suffix](target), np.ones((2, 2)))
    assert leftovers(tmp_path / "disk") == [target.name]
    assert leftovers(tmp_path) == ["disk", link.name]


def test_a_link_to_a_directory_that_is_not_there(tmp_path):
    (tmp_path / "link.npy").symlink_to(tmp_path / "nowhere" / "real.npy")
    with pytest.raises(FileNotFoundError, match="there is no directory .*nowhere"):
        outputs.check_output(tmp_path / "link.npy")


def test_a_directory_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        outputs.check_output(tmp_path / "image.npy")


@pytest.mark.parametrize("begin", ["s3://me:pw@", "file://", "https://me@"])
def test_an_address_is_no_output(tmp_path, monkeypatch, begin):
    """A directory of such a name was written to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{begin}place").mkdir(parents=True)
    text = r"the output (s3|file|https)://place/image\S* is an address"
    with pytest.raises(ValueError, match=text):
        outputs.check_output(f"{begin}place/image.npy")
    with pytest.raises(ValueError, match=text):
        outputs.check_outputs(f"{begin}place/images.h5", {"max": 2})
    with pytest.raises(ValueError, match=text):
        outputs.save(np.zeros((2, 3)), f"{begin}place/image.h5::/entry/dark")


@pytest.mark.parametrize("name", ["image", "image.jpg", "image.npz", ".npy"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ValueError, match=r"no known suffix: expected one of .*\.npy"):
        outputs.check_output(tmp_path / name)


def test_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        outputs.check_output(tmp_path / "nowhere" / "image.npy")


@pytest.mark.parametrize(
    ("suffix", "package"), [(".h5", "h5py"), (".tif", "tifffile"), (".png", "PIL")]
)
def test_missing_package(tmp_path, suffix, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'daskstats\[io\]'"):
        outputs.check_output(tmp_path / f"image{suffix}")


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
def test_dimensions(tmp_path, shape):
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        outputs.save(np.zeros(shape), tmp_path / "image.npy")


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]"])
def test_what_is_no_image(tmp_path, dtype):
    with pytest.raises(TypeError, match="cannot be written"):
        outputs.save(np.zeros((2, 2), dtype), tmp_path / "image.npy")


@pytest.mark.parametrize("suffix", [".png", ".cbf"])
def test_planes_that_a_format_has_no_room_for_are_refused_before_computing(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"2-D image only: use \.npy, \.zarr, \.h5 or \.tif"):
        outputs.check_output(tmp_path / f"image{suffix}", ndim=3)


def test_picture_contrast(tmp_path):
    image = np.arange(1000, dtype="f4").reshape(20, 50)
    outputs.save(image, tmp_path / "image.png")
    grey = read_png(tmp_path / "image.png")
    assert grey.dtype == np.uint8
    assert (grey.ravel()[:11] == 0).all()
    assert (grey.ravel()[-5:] == 255).all()
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    # From 10 to 994 the greys are evenly spaced.
    assert grey[10, 2] == round(255 * (502 - 10) / (994 - 10))


NAN, INF, LARGE = float("nan"), float("inf"), sys.float_info.max


@pytest.mark.parametrize(
    ("pixels", "grey"),
    [
        pytest.param([3, 3, 3], [0, 0, 0], id="constant"),
        pytest.param([NAN, NAN, NAN], [0, 0, 0], id="no number at all"),
        pytest.param([NAN, INF, -INF], [0, 255, 0], id="nothing finite"),
        pytest.param([NAN, 0, 8], [0, 0, 255], id="NaN is black"),
        pytest.param([INF, 0, 8], [255, 0, 255], id="infinity is white"),
        pytest.param([-INF, 0, 8], [0, 0, 255], id="minus infinity is black"),
        pytest.param([INF, 5, 5], [255, 0, 0], id="constant but for infinity"),
        pytest.param([-LARGE, 0, LARGE], [0, 128, 255], id="a range beyond float64"),
        pytest.param([0] * 999 + [7], [0] * 999 + [255], id="sparse: percentiles coincide"),
    ],
)
def test_picture_of_odd_images(pixels, grey):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture(np.array([pixels], "f8")).tolist() == [grey]


@pytest.mark.parametrize("dtype", DTYPES)
def test_picture_of_every_dtype(dtype):
    assert picture(np.array([[0, 1]], dtype)).tolist() == [[0, 255]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_picture_of_many_pixels(rng, dtype):
    """Compared with all of them in float64 at once."""
    shape = (700, 801)
    image = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), "u1").view(dtype)[..., 0]
    if dtype == "?":
        image = rng.random(shape) < 0.9
    if image.dtype.kind == "f":
        image[np.isnan(image)] = np.nan  # none that signals
    values = image.astype("f8")
    low, high = np.percentile(values[np.isfinite(values)], (1, 99.5), method="nearest")
    part = (np.clip(values, low, high) / 2 - low / 2) / (high / 2 - low / 2)
    grey = np.rint(255 * np.nan_to_num(part, nan=0)).astype("u1")
    assert np.unique(grey).size > 1
    np.testing.assert_array_equal(picture(image), grey, strict=True)
    np.testing.assert_array_equal(picture(image.T), grey.T, strict=True)


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_a_picture_takes_twice_its_image_in_memory(tmp_path, dtype):
    image = np.zeros((2000, 2000), dtype)
    image[::3] = 7
    outputs.save(image[:5, :5], tmp_path / "small.png")  # imports are counted as well
    tracemalloc.start()
    outputs.save(image, tmp_path / "image.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * image.nbytes + (16 << 20)


# ---------------------------------------------------------------------- several images

IMAGES = {"max": np.arange(6, dtype="u2").reshape(2, 3), "levels_5_95": np.ones((2, 2, 3), "f4")}


def read_group(path):
    import zarr

    return {name: array[...] for name, array in zarr.open_group(path, mode="r").arrays()}


def read_datasets(path):
    import h5py

    with h5py.File(path) as file:
        return {name: file[name][...] for name in file if name != "entry"}


def read_archive(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


READ_ALL = {
    ".zarr": read_group,
    ".npz": read_archive,
    ".h5": read_datasets,
    ".hdf5": read_datasets,
    ".nxs": read_datasets,
}


def check_images(found):
    assert set(found) == set(IMAGES)
    for name, image in IMAGES.items():
        np.testing.assert_array_equal(found[name], image, strict=True)


def test_every_collection_is_tested():
    assert set(suffixes("write_all")) == set(READ_ALL)


@pytest.mark.parametrize("suffix", sorted(READ_ALL))
def test_images_together(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    outputs.save_all(IMAGES, path)
    check_images(READ_ALL[suffix](path))
    with pytest.raises(FileExistsError):
        outputs.save_all(IMAGES, path)
    outputs.save_all(IMAGES, path, force=True)
    assert leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("form", [None, *EXACT, "TIF"])
def test_images_in_a_directory(tmp_path, form):
    path = tmp_path / "scan 2024.05"
    outputs.save_all(IMAGES, path if form else tmp_path / "images", form=form)
    path = path if form else tmp_path / "images"
    suffix = f".{(form or 'npy').lower().lstrip('.')}"
    assert leftovers(path) == sorted(f"{name}{suffix}" for name in IMAGES)
    check_images({name: READ[suffix](path / f"{name}{suffix}") for name in IMAGES})
    assert leftovers(tmp_path) == [path.name]


def test_directory_is_replaced_only_if_nothing_else_is_in_it(tmp_path):
    path = tmp_path / "images"
    outputs.save_all(IMAGES, path)
    with pytest.raises(FileExistsError, match="exists already"):
        outputs.save_all(IMAGES, path)
    outputs.save_all(IMAGES, path, force=True)
    for form, names in (("tif", IMAGES), ("npy", ["max"])):
        with pytest.raises(IsADirectoryError, match="holds levels_5_95.npy and will not"):
            outputs.save_all({name: IMAGES[name] for name in names}, path, force=True, form=form)
    (path / "thesis.txt").touch()
    with pytest.raises(IsADirectoryError, match="holds thesis.txt"):
        outputs.save_all(IMAGES, path, force=True)
    assert len(leftovers(path)) == 3


@pytest.mark.parametrize("name", ["images.npz", "images.zarr", "images"])
@pytest.mark.parametrize("exists", [False, True])
def test_failed_write_of_images_leaves_what_was(tmp_path, name, exists, monkeypatch):
    path = tmp_path / name
    if exists:
        outputs.save_all(IMAGES, path)

    def fail(images, path, notes):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    for suffix in (".npz", ".zarr", ".npy"):
        failing = FORMATS[suffix]._replace(write=fail, write_all=fail)
        monkeypatch.setitem(FORMATS, suffix, failing)
    with pytest.raises(OSError, match="No space left"):
        outputs.save_all(IMAGES, path, force=True)
    assert leftovers(tmp_path) == [path.name] * exists
    if exists and name == "images":
        check_images({image: np.load(path / f"{image}.npy") for image in IMAGES})
    elif exists:
        check_images(READ_ALL[path.suffix](path))


@pytest.mark.parametrize(
    ("name", "form", "error", "words"),
    [
        ("images.tif", None, ValueError, "holds one image only"),
        ("images.tif", "jpg", ValueError, "holds one image only"),
        ("images.jpg", None, ValueError, "no known suffix"),
        ("images.npz", "tif", ValueError, "a format is for a directory"),
        ("images", "jpg", ValueError, "no format 'jpg'"),
        ("images", "png", ValueError, "2-D image only"),
        ("nowhere/images", None, FileNotFoundError, "there is no directory"),
    ],
)
def test_where_images_cannot_go(tmp_path, name, form, error, words):
    ndims = {name: image.ndim for name, image in IMAGES.items()}
    with pytest.raises(error, match=words):
        outputs.check_outputs(tmp_path / name, ndims, form=form)
    with pytest.raises(error, match=words):
        outputs.save_all(IMAGES, tmp_path / name, form=form)
    assert not leftovers(tmp_path)


def test_images_never_onto_the_input(tmp_path):
    np.save(tmp_path / "scan.npy", np.zeros(3))
    for path in (tmp_path, tmp_path / "scan.npy" / "images"):
        with pytest.raises((ValueError, FileNotFoundError)):
            outputs.check_outputs(path, {"max": 2}, [tmp_path / "scan.npy"], force=True)


def test_missing_package_of_a_collection(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    for name, form in (("images.h5", None), ("images", "h5")):
        with pytest.raises(ImportError, match=r"pip install 'daskstats\[io\]'"):
            outputs.check_outputs(tmp_path / name, {"max": 2}, form=form)


# ---------------------------------------------------------------------- pixels of 64 bits


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if np.dtype(dtype).itemsize == 8])
def test_wide_pixels_of_a_tiff_are_reported(tmp_path, dtype):
    counts = "int32 for counts and frame numbers, else --dtype " if dtype == "i8" else ""
    options = rf"\(--dtype {counts}float32\)"
    with pytest.warns(UserWarning, match=rf"x.tif of {np.dtype(dtype)}: .*{options}"):
        outputs.save(np.zeros((2, 3), dtype), tmp_path / "x.tif")
    assert read_tiff(tmp_path / "x.tif").dtype == dtype


def test_wide_pixels_of_a_directory_are_reported_once(tmp_path):
    images = {"a": np.zeros((2, 3), "f4"), "b": np.zeros((2, 3)), "c": np.zeros((2, 3), "i8")}
    with pytest.warns(UserWarning, match="^b.tif and 1 more of float64 and int64: ") as found:
        outputs.save_all(images, tmp_path / "x", form="tif")
    assert len(found) == 1


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr", "y.tif"])
def test_other_pixels_are_not(tmp_path, name):
    image = np.zeros((2, 3), "f4" if name == "y.tif" else "f8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs.save(image, tmp_path / name)
