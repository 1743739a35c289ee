"""Open objects of h5py and nexusformat: groups, lists, views with another dtype, fields."""

import os
import pickle

import numpy as np
import pytest
from dask.base import tokenize
from helpers import check_series, make_frames

from daskstats.formats.hdf5 import Hdf5Source
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")

FRAMES = make_frames("u2", 7, 8, 6)


@pytest.fixture
def path(tmp_path):
    """Return the path of a file with a series, single frames, and a scan."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = FRAMES
        file["entry/mask"] = np.zeros((8, 6), bool)
        for number in (10, 2, 1):
            file[f"single/frame_{number}"] = FRAMES[number % 7]
        file["scan"] = FRAMES[:6].reshape(2, 3, 8, 6)
    return path


def test_groups_are_searched(path):
    with h5py.File(path) as file:
        check_series(as_series(file["entry"]), FRAMES)
        check_series(as_series(file["single"]), FRAMES[[1, 2, 3]])
        with pytest.raises(ValueError, match=r"2 datasets.*::/scan: /scan .*, /entry/data "):
            as_series(file)


def test_files_and_empty_groups(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = FRAMES
        group = file.create_group("empty")
        with pytest.raises(ValueError, match=r"scan\.h5::/empty has no numeric.*: it is empty$"):
            as_series(group)
    with h5py.File(tmp_path / "scan.h5") as file:
        series = as_series(file)
        check_series(series, FRAMES)
        assert type(pickle.loads(pickle.dumps(series))) is Hdf5Source


def test_group_in_memory():
    with h5py.File("nowhere.h5", "w", driver="core", backing_store=False) as file:
        file["entry/data"] = FRAMES
        series = as_series(file)
        check_series(series, FRAMES, pickles=False)
        with pytest.raises(TypeError, match="'/entry/data' is not in a file that can be opened"):
            pickle.dumps(series)


def test_group_behind_links(tmp_path, path):
    with h5py.File(tmp_path / "top.h5", "w") as file:
        file["inner"] = h5py.ExternalLink("scan.h5", "/entry")
        file["linked/frames"] = h5py.ExternalLink("scan.h5", "/entry/data")
    with h5py.File(tmp_path / "top.h5") as file:
        check_series(as_series(file["inner"]), FRAMES)
        series = as_series(file["linked"])
        check_series(series, FRAMES)
        assert series.files() == (path,)


def test_list_of_datasets(path):
    with h5py.File(path) as file:
        single = [file[f"single/frame_{number}"] for number in (10, 1)]
        check_series(as_series(single), FRAMES[[3, 1]])
        mixed = (single[0], file["entry/data"], file["scan"])
        series = as_series(mixed)
        check_series(series, np.concatenate([FRAMES[3:4], FRAMES, FRAMES[:6]]))
        text = pickle.dumps(series)
        assert tokenize(as_series(single)) != tokenize(as_series(single[::-1]))
    np.testing.assert_array_equal(pickle.loads(text).read(0, 2, 0, 8)[1][0], FRAMES[0])


def test_list_of_datasets_of_several_files(tmp_path):
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, part in zip(paths, (FRAMES[:2], FRAMES[2], FRAMES[3:]), strict=True):
        with h5py.File(path, "w") as file:
            file["data"] = part
    files = [h5py.File(path) for path in (*paths, paths[0])]
    series = as_series([file["data"] for file in files])
    check_series(series, np.concatenate([FRAMES, FRAMES[:2]]))
    assert series.files() == tuple(paths)
    swapped = as_series([files[0]["data"], files[2]["data"], files[1]["data"]])
    assert tokenize(swapped) != tokenize(as_series([file["data"] for file in files[:3]]))
    text = pickle.dumps(series)
    for file in files:
        file.close()
    os.truncate(paths[1], 10)
    with pytest.raises(ValueError, match=r"b\.h5 is not an HDF5 file"):
        pickle.loads(text).read(0, 1, 0, 8)


def test_lists_of_different_things(path):
    with h5py.File(path) as file:
        with pytest.raises(ValueError, match="item 1 is a ndarray"):
            as_series([file["entry/data"], FRAMES])
        with pytest.raises(ValueError, match=r"'/entry/data' has .* uint16, '/entry/mask' .* bool"):
            as_series([file["entry/data"], file["entry/mask"]])
        with pytest.raises(ValueError, match="frame 1 is a h5py.Dataset"):
            as_series([FRAMES[0], file["single/frame_1"]])


@pytest.mark.parametrize("dtype", ["f4", ">i4", "u1", "f8"])
def test_views_with_another_dtype(path, dtype):
    """The library cuts values that are too large, where numpy would wrap them."""
    with h5py.File(path) as file:
        view = file["entry/data"].astype(dtype)
        check_series(as_series(view), view[()])
        view = file["scan"].astype(dtype)
        series = as_series(view)
        check_series(series, view[()].reshape(6, 8, 6))
        assert tokenize(series) != tokenize(as_series(file["scan"]))


def test_virtual_dataset_as_an_object(path):
    layout = h5py.VirtualLayout((7, 8, 6), "u2")
    layout[:] = h5py.VirtualSource("scan.h5", "/entry/data", (7, 8, 6))
    with h5py.File(path.with_name("virtual.h5"), "w") as file:
        file.create_virtual_dataset("data", layout)
    with h5py.File(path.with_name("virtual.h5")) as file:
        check_series(as_series(file["data"]), FRAMES)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"scan\.h5"):
            as_series(file["data"])


# ---------------------------------------------------------------------- nexusformat


def test_fields_of_nexusformat(path):
    nexus = pytest.importorskip("nexusformat.nexus")
    root = nexus.nxload(str(path))
    series = as_series(root["entry/data"])
    check_series(series, FRAMES)
    assert series.files() == (path,)
    check_series(as_series(root["scan"]), FRAMES[:6])
    check_series(as_series(root["single/frame_2"]), FRAMES[2:3])
    check_series(as_series(nexus.NXfield(FRAMES)), FRAMES)
    check_series(as_series(root["entry/data"][2:4]), FRAMES[2:4])
    field = root["entry/data"] + 1
    check_series(as_series(field), FRAMES + 1)


def test_masked_field_of_nexusformat():
    nexus = pytest.importorskip("nexusformat.nexus")
    field = nexus.NXfield(np.ma.masked_equal(FRAMES, FRAMES[0, 0, 0]))
    with pytest.raises(TypeError, match=r"MaskedArray.*filled\(value\)|has a mask"):
        as_series(field)
