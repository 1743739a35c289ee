"""Readers of other packages: PIMS, fabio and scikit-image."""

import pickle
import sys
import threading
from unittest import mock

import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.series.opening import as_series
from daskstats.series.readers import ReaderSource

FRAMES = make_frames("u2", 7, 12, 10)


@pytest.fixture
def tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, FRAMES, photometric="minisblack", compression="zlib")
    return path


def test_sequence_of_pims(tiff):
    pims = pytest.importorskip("pims")
    with pims.TiffStack(str(tiff)) as reader:
        series = as_series(reader)
        assert type(series) is ReaderSource
        check_series(series, FRAMES, pickles=False)
        check_series(as_series(reader[2:5]), FRAMES[2:5], pickles=False)
        inverted = pims.pipeline(lambda frame: 1000 - frame)(reader)
        check_series(as_series(inverted), 1000 - FRAMES, pickles=False)


# Of scikit-image itself, for all of its readers.
@pytest.mark.filterwarnings("ignore:The plugin infrastructure")
@pytest.mark.parametrize("kept", [True, False])
def test_collection_of_scikit_image(tiff, kept):
    io = pytest.importorskip("skimage.io")
    collection = io.ImageCollection(str(tiff), conserve_memory=not kept)
    check_series(as_series(collection), FRAMES, pickles=False)


@pytest.mark.filterwarnings("ignore:The plugin infrastructure")
def test_collection_of_colours_is_refused(tmp_path):
    io = pytest.importorskip("skimage.io")
    io.imsave(tmp_path / "a.png", np.zeros((8, 9, 3), "u1"), check_contrast=False)
    with pytest.raises(ValueError, match=r"ImageCollection of frames of shape \(1, 8, 9, 3\)"):
        as_series(io.ImageCollection(str(tmp_path / "*.png")))


@pytest.fixture
def edf(tmp_path):
    edfimage = pytest.importorskip("fabio.edfimage")
    paths = []
    for number, part in enumerate((FRAMES[:3], FRAMES[3:4], FRAMES[4:])):
        image = edfimage.EdfImage(data=part[0])
        for frame in part[1:]:
            image.append_frame(data=frame)
        paths.append(str(tmp_path / f"scan_{number:04}.edf"))
        image.write(paths[-1])
    return paths


def test_image_of_fabio(edf):
    import fabio

    with fabio.open(edf[0]) as image:
        check_series(as_series(image), FRAMES[:3], pickles=False)
    with fabio.open(edf[1]) as image:
        check_series(as_series(image), FRAMES[3:4], pickles=False)
    check_series(as_series(fabio.edfimage.EdfImage(data=FRAMES[5])), FRAMES[5:6], pickles=False)


def test_series_of_fabio(edf):
    import fabio

    for series in (fabio.open_series(edf), fabio.open_series(first_filename=edf[0])):
        with series:
            check_series(as_series(series), FRAMES, pickles=False)


class Jumping:
    """Stands for a reader of one file: two threads at a time would mix its frames."""

    def __init__(self):
        self.inside = threading.Lock()

    def __len__(self):
        return len(FRAMES)

    def __getitem__(self, index):
        assert self.inside.acquire(blocking=False), "two threads at a time"
        try:
            return FRAMES[index]
        finally:
            self.inside.release()

    def __reduce__(self):
        return Jumping, ()


def test_one_thread_at_a_time(monkeypatch):
    module = type(sys)("slicerator")
    module.Slicerator, module.Pipeline = Jumping, Jumping
    monkeypatch.setitem(sys.modules, "slicerator", module)
    reader = Jumping()
    series = as_series(reader)
    assert type(series) is ReaderSource
    check_series(series, FRAMES)
    # another series of the same reader, here or where it was sent, has the same lock
    assert as_series(reader)._lock.lock is series._lock.lock
    assert pickle.loads(pickle.dumps(series))._lock.lock is series._lock.lock


def test_readers_of_open_files_cannot_be_sent(tiff, edf):
    pims = pytest.importorskip("pims")
    import fabio

    text = "{} has a file open and cannot be sent to another process: give the path"
    with pims.TiffStack(str(tiff)) as reader:
        series = as_series(reader)
        with pytest.raises(TypeError, match=text.format(r"pims\.\w+")):
            pickle.dumps(series)
        np.testing.assert_array_equal(series.read(3, 4, 0, 12)[0], FRAMES[3:4])
    with fabio.open(edf[0]) as image, pytest.raises(TypeError, match=text.format("EdfImage")):
        pickle.dumps(as_series(image))


def test_packages_are_not_imported_for_their_types(monkeypatch):
    for name in ("pims", "slicerator", "skimage", "fabio", "nexusformat", "h5py"):
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    with mock.patch("importlib.import_module", side_effect=AssertionError):
        check_series(as_series(FRAMES), FRAMES)
        check_series(as_series(list(FRAMES)), FRAMES)
    assert not {"pims", "slicerator", "skimage", "fabio", "nexusformat"} & {*sys.modules}
