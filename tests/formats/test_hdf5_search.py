"""Which dataset of an HDF5 file is meant where none is named."""

import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")

FRAMES = make_frames("u2", 7, 8, 6)


def frames_of(number, nframes=4, dtype="u2"):
    return make_frames(dtype, nframes, 8, 6, seed=number)


def save(path, contents):
    """Write arrays, links and groups (None) under their names."""
    with h5py.File(path, "w") as file:
        for name, item in contents.items():
            if item is None:
                file.create_group(name)
            else:
                file[name] = item
    return path


def master(tmp_path, count=3, lost=(), **others):
    """Write a DECTRIS master: external links to the files of data, and a pixel mask."""
    links = {}
    for number in range(1, count + 1):
        name = f"scan_data_{number:06}.h5"
        links[f"entry/data/data_{number:06}"] = h5py.ExternalLink(name, "/entry/data/data")
        if number not in lost:
            save(tmp_path / name, {"entry/data/data": frames_of(number)})
    detector = "entry/instrument/detector/detectorSpecific"
    links |= {
        f"{detector}/pixel_mask": np.zeros((8, 6), "u4"),
        f"{detector}/flatfield": np.ones((8, 6), "f4"),
        "entry/sample/goniometer/omega": np.zeros(count * 4),
        **others,
    }
    return save(tmp_path / "scan_master.h5", links)


def test_dectris_master(tmp_path):
    """It gave the pixel mask, because links were not followed."""
    series = as_series(master(tmp_path))
    check_series(series, np.concatenate([frames_of(number) for number in (1, 2, 3)]))
    assert len(series.files()) == 4


def test_more_than_nine_parts_are_in_the_order_of_their_numbers(tmp_path):
    contents = {f"entry/data_{number}": frames_of(number) for number in range(1, 12)}
    series = as_series(save(tmp_path / "scan.h5", contents))
    check_series(series, np.concatenate([frames_of(number) for number in range(1, 12)]))


def test_group_of_parts_may_be_named(tmp_path):
    path = master(tmp_path, **{"processed/frames": frames_of(9)})
    with pytest.raises(ValueError, match=r"2 datasets.*::/entry/data: /entry/data/data_000001 to "):
        as_series(path)
    expected = np.concatenate([frames_of(number) for number in (1, 2, 3)])
    check_series(as_series(f"{path}::/entry/data"), expected)
    check_series(as_series(f"{path}::entry/data/"), expected)
    check_series(as_series(f"{path}::/entry/data/data_000002"), frames_of(2))
    check_series(as_series(f"{path}::/processed"), frames_of(9))


@pytest.mark.parametrize("lost", [(2,), (1, 2, 3)])
def test_master_whose_data_are_gone(tmp_path, lost):
    path = master(tmp_path, lost=lost)
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        as_series(path)
    text = str(caught.value)
    for number in lost:
        assert f"scan_data_{number:06}.h5::/entry/data/data, and there is no file" in text
        assert str(tmp_path / f"scan_data_{number:06}.h5") in text
    assert "(4, 8, 6) uint16" in text or len(lost) == 3


@pytest.mark.parametrize("wrong", ["shape", "dtype", "gap", "dimensions"])
def test_parts_that_do_not_fit_are_not_joined(tmp_path, wrong):
    contents = {f"data_{number:06}": frames_of(number) for number in (1, 2)}
    if wrong == "gap":
        contents["data_000004"] = frames_of(4)
    elif wrong == "shape":
        contents["data_000003"] = make_frames("u2", 4, 8, 7)
    elif wrong == "dtype":
        contents["data_000003"] = frames_of(3, dtype="<i4")
    else:
        contents["data_000003"] = np.zeros((2, 4, 8, 6), "u2")
    path = save(tmp_path / "scan.h5", contents)
    with pytest.raises(ValueError, match=r"3 datasets.*data_000001 .*data_000002 .*data_00000[34]"):
        as_series(path)


def test_a_singleton_axis_beside_a_table(tmp_path):
    """The table was taken: it has two dimensions."""
    stack = make_frames("u2", 25, 8, 6)
    path = save(tmp_path / "scan.h5", {"stack": stack[:, None], "table": np.zeros((25, 2))})
    check_series(as_series(path), stack)
    check_series(as_series(f"{path}::/stack"), stack)
    with h5py.File(path) as file:
        check_series(as_series(file["stack"]), stack)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((1, 7, 8, 6), (1, 2, 8, 6)), ((7, 1, 1, 8, 6), None), ((1, 1, 7, 8, 6), (1, 1, 7, 4, 6))],
)
def test_singleton_axes_anywhere_before_the_frames(tmp_path, shape, chunks):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("stack", data=FRAMES.reshape(shape), chunks=chunks)
    series = as_series(path)
    check_series(series, FRAMES)
    expected = (1, 1) if chunks is None else (chunks[-3], None if chunks[-2] == 8 else chunks[-2])
    assert (series.frame_unit, series.row_unit) == expected


def test_frames_that_are_all_singletons(tmp_path):
    check_series(as_series(save(tmp_path / "a.h5", {"a": FRAMES[:1, None]})), FRAMES[:1])


def test_scan_of_four_dimensions_says_how_to_reshape(tmp_path):
    scan = np.arange(3 * 4 * 8 * 6, dtype="u2").reshape(3, 4, 8, 6)
    path = save(tmp_path / "scan.h5", {"scan": scan, "angles": np.zeros((12, 2))})
    for name in (path, f"{path}::/scan"):
        with pytest.raises(ValueError, match=r"reshape it to \(12, 8, 6\)") as caught:
            as_series(name)
    with h5py.File(path) as file, pytest.raises(ValueError, match=r"\(12, 8, 6\)"):
        as_series(file["scan"])
    # the way out is one
    import dask.array
    import h5py as h5py_  # as in the message

    import daskstats as stats

    code = str(caught.value).partition("as in ")[2]
    array = eval(code, {"dask": dask, "h5py": h5py_})
    found = stats.max(array).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, scan.reshape(-1, 8, 6).max(0))


def test_colours_are_no_frames(tmp_path):
    path = save(tmp_path / "scan.h5", {"movie": np.zeros((9, 20, 30, 3), "u1")})
    with pytest.raises(ValueError, match=r"one dataset|1 dataset.*\(9, 20, 30, 3\)"):
        as_series(path)
    with pytest.raises(ValueError, match="one colour"):
        as_series(f"{path}::/movie")


@pytest.mark.parametrize(
    "contents",
    [
        {"pixel_mask": np.zeros((80, 60), "u4")},
        {"entry/flatfield": np.zeros((80, 60), "f4")},
        {"dark": np.zeros((80, 60), "u2")},
        {"calibration/image": np.zeros((80, 60), "f4")},
        {"masks": np.zeros((2, 80, 60), bool)},
        {"table": np.zeros((500, 4))},
        {"orientations": np.zeros((500, 3, 3))},
        {"stiffness": np.zeros((6, 6))},
        {"quaternions": np.zeros((10, 50, 4))},
        {"spectra": np.zeros((1000, 3))},
        {"image": np.zeros((80, 60), "u2"), "other": np.zeros((80, 60), "u2")},
        {"image": np.zeros((80, 60), "u2"), "data": h5py.ExternalLink("lost.h5", "/data")},
        {"image": np.zeros((80, 60), "u2"), "meta": h5py.ExternalLink("lost.h5", "/data")},
        {"frames": FRAMES, "data_000001": h5py.SoftLink("/nowhere")},
    ],
)
def test_never_a_mask_or_table(tmp_path, contents):
    path = save(tmp_path / "scan.h5", contents)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        as_series(path)
    for name, item in contents.items():
        assert f"/{name}" in str(caught.value)
        if isinstance(item, np.ndarray):
            assert str(item.shape) in str(caught.value)
            check_series(as_series(f"{path}::/{name}"), item if item.ndim == 3 else item[None])


@pytest.mark.parametrize(
    "others",
    [
        {"pixel_mask": np.zeros((8, 6), "u4"), "flatfield": np.ones((8, 6), "f4")},
        {"dark": FRAMES[:3], "white": FRAMES[:2]},  # as in files of tomography
        {"alias": h5py.SoftLink("/entry/data"), "again": h5py.SoftLink("/entry")},
        {"circle": h5py.SoftLink("/")},
        {"mask": h5py.ExternalLink("meta.h5", "/mask"), "bit_depth": h5py.SoftLink("/nowhere")},
        {"image": np.zeros((80, 60), "u2"), "rois": np.zeros((100, 4, 4))},
        {"text": np.array(["a", "b"], "S1"), "one": 3, "none": h5py.Empty("u2")},
    ],
)
def test_the_only_series_among_others(tmp_path, others):
    path = save(tmp_path / "scan.h5", {"entry/data": FRAMES, **others})
    check_series(as_series(path), FRAMES)


def test_series_of_background_alone(tmp_path):
    check_series(as_series(save(tmp_path / "scan.h5", {"dark": FRAMES})), FRAMES)


def test_the_only_image(tmp_path):
    contents = {"entry/image": FRAMES[0], "positions": np.zeros((100, 2)), "pixel_mask": FRAMES[1]}
    check_series(as_series(save(tmp_path / "scan.h5", contents)), FRAMES[:1])


def test_hard_links_are_one_dataset(tmp_path):
    path = save(tmp_path / "scan.h5", {"entry/instrument/detector/data": FRAMES})
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = file["entry/instrument/detector/data"]
    check_series(as_series(path), FRAMES)


def test_sources_of_a_virtual_dataset_are_not_meant(tmp_path):
    """As of NeXus masters, which link to the files of data and have all of them in one dataset."""
    path = master(tmp_path)
    layout = h5py.VirtualLayout((12, 8, 6), "u2")
    for number in range(3):
        name = f"scan_data_{number + 1:06}.h5"
        source = h5py.VirtualSource(name, "entry/data/data", (4, 8, 6))
        layout[4 * number : 4 * number + 4] = source
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("entry/data/data", layout)
    series = as_series(path)
    check_series(series, np.concatenate([frames_of(number) for number in (1, 2, 3)]))
    assert series.parameters == {"dataset": ("/entry/data/data",)}


def test_sources_in_the_file_itself_by_way_of_links(tmp_path):
    path = master(tmp_path)
    layout = h5py.VirtualLayout((12, 8, 6), "u2")
    for number in range(3):
        source = h5py.VirtualSource(".", f"/entry/data/data_{number + 1:06}", (4, 8, 6))
        layout[4 * number : 4 * number + 4] = source
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("entry/data/data", layout)
    check_series(as_series(path), np.concatenate([frames_of(number) for number in (1, 2, 3)]))


def test_series_behind_links_of_links(tmp_path):
    save(tmp_path / "raw.h5", {"frames": FRAMES})
    save(tmp_path / "middle.h5", {"inner": h5py.ExternalLink("raw.h5", "/")})
    path = save(tmp_path / "top.h5", {"entry": h5py.ExternalLink("middle.h5", "/inner")})
    series = as_series(path)
    check_series(series, FRAMES)
    assert {file.name for file in series.files()} == {"raw.h5", "middle.h5", "top.h5"}
    (tmp_path / "raw.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"/entry.*raw\.h5"):
        as_series(path)


def test_real_master_names_the_file_that_is_gone(real_data):
    with pytest.raises(FileNotFoundError, match=r"xrc_209_000001\.h5"):
        as_series(real_data / "formats" / "xrc_209_master.h5")


def test_real_files_of_several_series(real_data):
    text = r"2 datasets.*/images/ff1/images \(1, 3888, 3072\) uint8, /images/ff2/images \(1, 3888"
    with pytest.raises(ValueError, match=text):
        as_series(real_data / "formats" / "dexelas_hedm.h5")
    with pytest.raises(
        ValueError, match=r"26 datasets.*_0000_0000\.tif \(1, 10, 10\) uint16.*_0019"
    ):
        as_series(real_data / "formats" / "read_stack.h5")
    with pytest.raises(FileNotFoundError, match=r"/root_dot to test_file\.hdf5::\..*no file"):
        as_series(real_data / "formats" / "external_link.hdf5")
