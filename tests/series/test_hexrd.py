"""The ten kinds of HEXRD's image series, as objects and as the files that they read.

The classes here are doubles: each has the parts of HEXRD's class of that kind, and nothing else.
HEXRD itself, where it is installed, is not needed.
"""

import sys
from types import ModuleType

import dask
import numpy as np
import pytest
import yaml
from helpers import check_series

import daskstats as stats
from daskstats import eager
from daskstats.formats.framecache import SparseFramesSource
from daskstats.series.opening import as_series
from daskstats.series.sequence import SequenceSource

FRAMES = np.random.default_rng(7).integers(0, 60000, (12, 5, 6)).astype("u2")
FRAMES[:, ::2, 1::3] = 0
FRAMES[3] = 0


class Adapter:
    """Abstract: the four names, keys that are Python ints, and iteration."""

    nframes, shape, dtype = 12, (5, 6), np.dtype("u2")

    def __len__(self):
        return self.nframes

    def __getitem__(self, key):
        if not isinstance(key, int):
            raise TypeError(f"only int keys are supported, got {type(key)}")
        return self.frame(range(len(self))[key])

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    @property
    def metadata(self):
        return {"omega": np.arange(24.0).reshape(12, 2)}


class ArrayAdapter(Adapter):
    def __init__(self, path):
        np.save(path / "scan.npy", FRAMES)
        self.file = path / "scan.npy"

    def frame(self, index):
        return FRAMES[index].copy()


class FunctionAdapter(Adapter):
    def __init__(self, path):
        self.file, self.function = None, lambda index: np.array(FRAMES[index])

    def frame(self, index):
        return self.function(index)


class ImageFilesAdapter(Adapter):
    """Opens a file for each frame."""

    def __init__(self, path):
        tifffile = pytest.importorskip("tifffile")
        (path / "images").mkdir()
        for number in range(3):
            part = FRAMES[4 * number : 4 * number + 4]
            tifffile.imwrite(path / f"images/f_{number}.tif", part, photometric="minisblack")
        entry = {"directory": str(path / "images"), "files": "f_0.tif f_[12].tif"}
        self.file, self.images = path / "images.yml", path / "images"
        content = {"image-files": entry, "options": {"empty-frames": 0}, "meta": {}}
        self.file.write_text(yaml.safe_dump(content))

    def frame(self, index):
        import tifffile

        return tifffile.imread(self.images / f"f_{index // 4}.tif", key=index % 4)


class RawAdapter(Adapter):
    """One open file, and a lock."""

    def __init__(self, path):
        (path / "frames.raw").write_bytes(b"h" * 8 + FRAMES.astype(">u2").tobytes())
        scalar = {"type": "i", "bytes": 2, "signed": False, "endian": "big"}
        content = {"filename": str(path / "frames.raw"), "scalar": scalar, "shape": "5 6"}
        self.file, self.raw = path / "raw.yml", path / "frames.raw"
        self.file.write_text(yaml.safe_dump({**content, "skip": 8}))

    @property
    def dtype(self):
        return np.dtype(">u2")

    def frame(self, index):
        with self.raw.open("rb") as file:
            file.seek(8 + 60 * index)
            return np.fromfile(file, ">u2", 30).reshape(5, 6)


class Hdf5Adapter(Adapter):
    """An open file, and a group with the dataset ``images``."""

    def __init__(self, path):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path / "scan.h5", "w") as file:
            group = file.create_group("imageseries")
            group.attrs["panel"] = "ge2"
            group.create_dataset(
                "images", data=FRAMES, chunks=(1, 5, 6), compression="gzip", shuffle=True
            )
            file["other/images"] = FRAMES[::-1]
        self.file = f"{path / 'scan.h5'}::/imageseries"
        self._h5file = h5py.File(path / "scan.h5", "r")
        self._dataset = self._h5file["imageseries/images"]

    def frame(self, index):
        return self._dataset[index]

    def close(self):
        self._h5file.close()


class FrameCacheAdapter(Adapter):
    """Sparse matrices, loaded at the first use."""

    def __init__(self, path):
        sparse = pytest.importorskip("scipy.sparse")
        arrays = {"shape": (5, 6), "nframes": 12, "dtype": b"uint16", "omega": np.zeros((12, 2))}
        for index, frame in enumerate(FRAMES):
            row, col = np.nonzero(frame)
            each = {"row": row.astype("u2"), "col": col.astype("u2"), "data": frame[row, col]}
            arrays |= {f"{index}_{name}": array for name, array in each.items()}
        np.savez_compressed(path / "scan.npz", **arrays)
        self.file, self._framelist, self._sparse = path / "scan.npz", [], sparse.csr_matrix

    def _load_framelist_if_needed(self):
        if not self._framelist:
            self._framelist = [self._sparse(frame) for frame in FRAMES]

    def frame(self, index):
        self._load_framelist_if_needed()
        return self._framelist[index].toarray()


class EigerStreamAdapter(Adapter):
    """A group for each frame, which is decompressed when it is asked for."""

    version, key = 1, "data/{}"

    def __init__(self, path):
        h5py = pytest.importorskip("h5py")
        self.path = self.file = path / f"stream_{self.version}.h5"
        with h5py.File(self.path, "w") as file:
            file.create_group("metadata")["threshold_energy"] = 5.0
            for index, frame in enumerate(FRAMES):
                group = file.create_group(self.key.format(index))
                group["data"] = np.frombuffer(frame.tobytes(), "u1")
                group["dtype"], group["shape"] = "uint16", np.array(frame.shape)
                group["elem_size"] = np.array([2])

    def frame(self, index):
        import h5py

        with h5py.File(self.path, "r") as file:
            group = file[self.key.format(index)]
            dtype = group["dtype"][()].decode()
            return np.frombuffer(group["data"][()].tobytes(), dtype).reshape(group["shape"][()])


class EigerStream2Adapter(EigerStreamAdapter):
    version, key = 2, "data/{}/threshold_1"


class ImageSeries:
    """The object that users of HEXRD hold: it hands everything on to its adapter."""

    def __init__(self, adapter):
        self._adapter = adapter

    def __getitem__(self, key):
        return self._adapter[key]

    def __len__(self):
        return len(self._adapter)

    def __iter__(self):
        return iter(self._adapter)

    shape = property(lambda self: self._adapter.shape)
    dtype = property(lambda self: self._adapter.dtype)
    metadata = property(lambda self: self._adapter.metadata)


class ProcessedImageSeries(ImageSeries):
    """Shape and dtype cost it a frame; flips give views."""

    def __init__(self, imser, operations):
        self._imser, self._operations = imser, operations

    def __getitem__(self, key):
        image = self._imser[key]
        for operation, data in self._operations:
            if operation == "dark":
                image = image - data
                image[image < 0] = 0
            elif operation == "flip":
                image = {"v": image[:, ::-1], "h": image[::-1], "r90": image.T[::-1]}[data]
        return image

    def __len__(self):
        return len(self._imser)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    shape = property(lambda self: self[0].shape)
    dtype = property(lambda self: self[0].dtype)
    metadata = property(lambda self: self._imser.metadata)


class OmegaImageSeries(ImageSeries):
    def __init__(self, ims):
        super().__init__(ims)
        self.omega = ims.metadata["omega"]


def processed(path):
    return ProcessedImageSeries(ImageSeries(ArrayAdapter(path)), [("flip", "v"), ("flip", "v")])


KINDS = {
    "array": lambda path: ImageSeries(ArrayAdapter(path)),
    "frame-cache": lambda path: ImageSeries(FrameCacheAdapter(path)),
    "function": lambda path: ImageSeries(FunctionAdapter(path)),
    "hdf5": lambda path: ImageSeries(Hdf5Adapter(path)),
    "image-files": lambda path: ImageSeries(ImageFilesAdapter(path)),
    "raw-image": lambda path: ImageSeries(RawAdapter(path)),
    "eiger-stream-v1": lambda path: ImageSeries(EigerStreamAdapter(path)),
    "eiger-stream-v2": lambda path: ImageSeries(EigerStream2Adapter(path)),
    "processed": processed,
    "omega": lambda path: OmegaImageSeries(ImageSeries(ArrayAdapter(path))),
}


def check_images(ims):
    """Check the images of a series against numpy on all frames."""
    names = ["max", "min", "median", "average"]
    images = eager.aggregate(ims, names)
    for name in names:
        function = np.mean if name == "average" else getattr(np, name)
        expected = function(FRAMES, axis=0)
        if name in ("median", "average"):
            expected = expected.astype("f4")
        np.testing.assert_array_equal(images[name], expected, strict=True, err_msg=name)
    *_, last = stats.median_iter(ims, 3, use_buffer=False)
    np.testing.assert_array_equal(last, np.median(FRAMES, axis=0).astype("f4"))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_of_object_and_file(kind, tmp_path):
    ims = KINDS[kind](tmp_path)
    adapter = getattr(ims, "_adapter", None)
    try:
        assert isinstance(as_series(ims), SequenceSource)
        with dask.config.set(scheduler="threads", num_workers=2):
            check_images(ims)
        file = getattr(adapter, "file", None)
        if file is not None:
            series = as_series(file)
            assert not isinstance(series, SequenceSource)
            assert len(series) == 12
            with dask.config.set(scheduler="threads", num_workers=2):
                check_images(file)
    finally:
        getattr(adapter, "close", lambda: None)()


def test_the_trivial_adapter_is_refused():
    """It has no frames."""

    class TrivialAdapter(Adapter):
        nframes = 0

    with pytest.raises(ValueError, match="the image series has no frames"):
        stats.max(ImageSeries(TrivialAdapter()))


def test_a_processed_series_equals_dark_and_flip(tmp_path):
    """Where nothing is below zero: HEXRD sets such values to 0, and wraps around at 16 bits."""
    dark = FRAMES.min(axis=0)
    ims = ImageSeries(ArrayAdapter(tmp_path))
    theirs = ProcessedImageSeries(ims, [("dark", dark), ("flip", "r90")])
    for name in ("max", "median", "average"):
        ours = getattr(eager, name)(ims, dark=dark, flip="r90")
        np.testing.assert_array_equal(ours, getattr(eager, name)(theirs))


@pytest.fixture(params=["hexrd.core.imageseries", "hexrd.imageseries"])
def hexrd(request, monkeypatch):
    """Let the doubles be the classes of HEXRD."""
    classes = {
        "load.framecache": {"FrameCacheImageSeriesAdapter": FrameCacheAdapter},
        "baseclass": {"ImageSeries": ImageSeries},
        "omega": {"OmegaImageSeries": OmegaImageSeries},
    }
    for name, content in classes.items():
        module = ModuleType(f"{request.param}.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_an_open_frame_cache_is_read_from_its_sparse_frames(hexrd, tmp_path, monkeypatch):
    adapter = FrameCacheAdapter(tmp_path)
    monkeypatch.setattr(FrameCacheAdapter, "__getitem__", None)
    for ims in (adapter, ImageSeries(adapter), OmegaImageSeries(ImageSeries(adapter))):
        series = as_series(ims)
        assert type(series) is SparseFramesSource
        np.testing.assert_array_equal(np.concatenate(series.read(2, 9, 1, 4)), FRAMES[2:9, 1:4])
        check_series(series, FRAMES)
        check_images(ims)


def test_a_series_that_changes_the_frames_of_a_cache_is_not_taken_for_it(hexrd, tmp_path):
    class Doubled(FrameCacheAdapter):
        def frame(self, index):
            return super().frame(index) // 2

    for ims in (Doubled(tmp_path), ImageSeries(Doubled(tmp_path))):
        assert isinstance(as_series(ims), SequenceSource)
        np.testing.assert_array_equal(eager.max(ims), (FRAMES // 2).max(axis=0))
    flipped = ProcessedImageSeries(ImageSeries(FrameCacheAdapter(tmp_path)), [("flip", "h")])
    np.testing.assert_array_equal(eager.max(flipped), FRAMES.max(axis=0)[::-1])


@pytest.fixture
def files(tmp_path):
    """Return a file of each kind that has one."""
    found = []
    for kind, make in KINDS.items():
        (tmp_path / kind).mkdir()
        adapter = getattr(make(tmp_path / kind), "_adapter", None)
        getattr(adapter, "close", lambda: None)()
        found += [adapter.file] if getattr(adapter, "file", None) else []
    assert len(found) == 7
    return found


def check_files(files):
    lazy = [(stats.max(file), stats.median(file, flip="h", dark=FRAMES[0])) for file in files]
    for most, middle in dask.compute(*lazy):
        np.testing.assert_array_equal(most, FRAMES.max(axis=0))
        expected = np.median(FRAMES.astype("i4") - FRAMES[0], axis=0)[::-1]
        np.testing.assert_array_equal(middle, expected.astype("f4"))


def test_files_are_read_in_other_processes(files):
    with dask.config.set(scheduler="processes", num_workers=2):
        check_files(files)


def test_files_are_read_on_a_cluster(client, files):
    check_files(files)
