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


@pytest.mark.parametrize("single", [(1,), (2,), (1, 3)])
def test_parts_of_a_single_frame(tmp_path, single):
    """They were left out: the series had the frames of the others alone."""
    parts = {number: frames_of(number) for number in (1, 2, 3)}
    parts |= {number: parts[number][0] for number in single}
    contents = {f"entry/data_{number:06}": part for number, part in parts.items()}
    frames = np.concatenate([part.reshape(-1, 8, 6) for part in parts.values()])
    check_series(as_series(save(tmp_path / "scan.h5", contents)), frames)


@pytest.mark.parametrize(
    "other",
    [
        {"data_000002": np.ones((8, 6), "i4")},
        {"data_000003": np.ones((8, 6), "u2")},
        {"data_000002": np.ones((1, 1, 8, 6), "u2"), "data_000003": np.ones((8, 6), "u2")},
    ],
)
def test_a_single_frame_that_may_be_a_part(tmp_path, other):
    path = save(tmp_path / "scan.h5", {"data_000001": frames_of(1), **other})
    with pytest.raises(
        ValueError, match=rf"{1 + len(other)} datasets.*data_000001 .*data_00000[23] "
    ):
        as_series(path)


def test_a_numbered_table_is_no_part(tmp_path):
    contents = {"data_1": frames_of(1), "data_2": np.ones((100, 7))}
    check_series(as_series(save(tmp_path / "scan.h5", contents)), frames_of(1))


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


def test_scan_of_four_dimensions(tmp_path):
    scan = np.arange(3 * 4 * 8 * 6, dtype="u2").reshape(3, 4, 8, 6)
    path = save(tmp_path / "scan.h5", {"scan": scan, "angles": np.zeros((12, 2))})
    for name in (path, f"{path}::/scan"):
        check_series(as_series(name), scan.reshape(-1, 8, 6))
    path = save(tmp_path / "two.h5", {"scan": scan, "movie": scan[0]})
    with pytest.raises(ValueError, match=r"2 datasets.*/movie \(4, 8, 6\).*/scan \(3, 4, 8, 6\)"):
        as_series(path)


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


def test_sources_in_the_directory_of_a_setting_are_not_meant(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    with h5py.File(tmp_path / "raw/part.h5", "w") as file:
        file["data"] = np.arange(192, dtype="u2").reshape(4, 8, 6)
    layout = h5py.VirtualLayout((4, 8, 6), "u2")
    layout[:] = h5py.VirtualSource("part.h5", "data", (4, 8, 6))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("shown", layout)
        file["part"] = h5py.ExternalLink("raw/part.h5", "data")
    monkeypatch.setenv("HDF5_VDS_PREFIX", str(tmp_path / "raw"))
    assert as_series(tmp_path / "scan.h5").choice.text == "/shown"


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


@pytest.mark.parametrize("kind", ["time", "24 bits"])
def test_datasets_of_a_type_that_numpy_does_not_have(tmp_path, kind):
    frames = frames_of(0)
    path = save(tmp_path / "scan.h5", {"frames": frames})
    with h5py.File(path, "a") as file:
        stored = (h5py.h5t.STD_U32LE if kind == "24 bits" else h5py.h5t.UNIX_D32LE).copy()
        if kind == "24 bits":
            stored.set_precision(24)
            stored.set_size(3)
        h5py.h5d.create(file.id, b"other", stored, h5py.h5s.create_simple((4, 5, 6)))
    check_series(as_series(path), frames)
    text = "scan.h5: dataset '/other' is no image series, it holds values of a type that h5py"
    with pytest.raises(TypeError, match=text):
        as_series(f"{path}::other")


def test_real_master_names_the_file_that_is_gone(real_data):
    with pytest.raises(FileNotFoundError, match=r"xrc_209_000001\.h5"):
        as_series(real_data / "formats" / "xrc_209_master.h5")


def test_real_files_of_several_series(real_data):
    path = real_data / "formats" / "dexelas_hedm.h5"
    text = r"2 datasets.*/images/ff1/images \(1, 3888, 3072\) uint8, /images/ff2/images \(1, 3888"
    with pytest.raises(ValueError, match=text):
        as_series(path)
    for name in ("images/ff2/images", "images/ff2"):
        with h5py.File(path) as file:
            expected = file["images/ff2/images"][0, 100:110]
        series = as_series(f"{path}::/{name}")
        assert (len(series), series.shape, series.dtype) == (1, (3888, 3072), np.dtype("u1"))
        np.testing.assert_array_equal(series.read(0, 1, 100, 110)[0][0], expected)
    with pytest.raises(FileNotFoundError, match=r"/root_dot to test_file\.hdf5::\..*no file"):
        as_series(real_data / "formats" / "external_link.hdf5")


def test_real_group_of_single_frames(real_data):
    path = real_data / "formats" / "read_stack.h5"
    group = "20151120_100640_testBL832h5file"
    with h5py.File(path) as file:
        expected = {name: dataset[0] for name, dataset in file[group].items()}
    assert len(expected) == 26
    for name in (path, f"{path}::/{group}", f"{path}::/{group}/*.tif"):
        series = as_series(name)
        assert len(series) == 26
        check_series(series, np.array(list(expected.values())))
    projections = [frame for name, frame in expected.items() if "file_" in name]
    check_series(as_series(f"{path}::/*/*file_0000_*"), np.array(projections))


# ---------------------------------------------------------------------- NeXus


def nexus(path, contents, attributes):
    save(path, contents)
    with h5py.File(path, "a") as file:
        for name, values in attributes.items():
            file[name].attrs.update(values)
    return path


DEFAULT = {
    "/": {"default": "entry"},
    "/entry": {"NX_class": "NXentry", "default": "shown"},
    "/entry/shown": {"NX_class": "NXdata", "signal": "counts"},
}


@pytest.mark.parametrize("kind", ["text", "bytes", "path", "only entry", "old signal", "axes"])
def test_signal_of_the_nexus_default(tmp_path, kind):
    contents = {"entry/shown/counts": FRAMES, "entry/raw/frames": frames_of(1), "a": frames_of(2)}
    attributes = {name: dict(values) for name, values in DEFAULT.items()}
    if kind == "bytes":
        attributes["/"]["default"] = np.bytes_("entry")
        attributes["/entry/shown"]["signal"] = np.array([b"counts"])
    elif kind == "path":
        attributes["/"]["default"] = "/entry/shown"
    elif kind == "only entry":
        del attributes["/"]
    elif kind == "old signal":
        del attributes["/entry/shown"]["signal"]
        attributes["/entry/shown/counts"] = {"signal": 1}
    elif kind == "axes":
        contents["entry/shown/x"] = np.zeros((4, 8, 6))
        attributes["/entry/shown"]["axes"] = ["x", ".", "."]
    series = as_series(nexus(tmp_path / "scan.nxs", contents, attributes))
    check_series(series, FRAMES)
    assert series.choice.why == "the signal of the NeXus default"


def test_default_plot_that_is_a_line_or_a_map(tmp_path):
    contents = {
        "entry/shown/counts": np.zeros(40),
        "entry/detector/data": FRAMES,
        "entry/result/map": np.zeros((9, 9, 9)),
    }
    attributes = DEFAULT | {"/entry/detector": {"NX_class": "NXdetector"}}
    path = nexus(tmp_path / "scan.nxs", contents, attributes)
    check_series(as_series(path), FRAMES)
    assert as_series(path).choice.why == "the only data of a NeXus detector"
    contents["entry/shown/counts"] = np.zeros((30, 40))
    path = nexus(tmp_path / "map.nxs", contents, attributes)
    check_series(as_series(path), FRAMES)


def test_detectors_of_nexus(tmp_path):
    contents = {
        "entry/a/data": FRAMES,
        "entry/a/pixel_mask": np.zeros((8, 6), "u4"),
        "entry/mca/data": np.zeros((4, 8, 64), "u4"),
        "entry/processed/frames": frames_of(1),
        "entry/plot": h5py.SoftLink("/entry/a/data"),
    }
    attributes = {
        "/entry/a": {"NX_class": "NXdetector"},
        "/entry/mca": {"NX_class": "NXdetector"},
        "/entry/mca/data": {"interpretation": "spectrum"},
    }
    path = tmp_path / "scan.nxs"
    check_series(as_series(nexus(path, contents, attributes)), FRAMES)
    del attributes["/entry/mca/data"]
    path = tmp_path / "spectra.nxs"
    with pytest.raises(ValueError, match=r"3 datasets.*/entry/mca/data"):
        as_series(nexus(path, contents, attributes))


def test_default_whose_file_is_gone(tmp_path):
    contents = {"entry/shown/counts": h5py.ExternalLink("raw.h5", "/data"), "other": FRAMES}
    path = nexus(tmp_path / "scan.nxs", contents, DEFAULT)
    with pytest.raises((FileNotFoundError, ValueError), match=r"/entry/shown/counts to raw\.h5"):
        as_series(path)
    save(tmp_path / "raw.h5", {"data": frames_of(1)})
    check_series(as_series(path), frames_of(1))


@pytest.mark.parametrize("gap", [False, True])
def test_signal_that_is_one_part_of_a_series(tmp_path, gap):
    """As DECTRIS writes it: a part alone would be a shorter series."""
    numbers = (1, 2, 4) if gap else (1, 2, 3)
    contents = {f"entry/shown/data_{number:06}": frames_of(number) for number in numbers}
    attributes = DEFAULT | {"/entry/shown": {"NX_class": "NXdata", "signal": "data_000001"}}
    path = nexus(tmp_path / "scan.h5", contents, attributes)
    if gap:
        with pytest.raises(ValueError, match="3 datasets"):
            as_series(path)
    else:
        check_series(as_series(path), np.concatenate([*contents.values()]))


def test_damaged_attributes_are_none(tmp_path):
    path = save(tmp_path / "scan.nxs", {"entry/data": FRAMES})
    with h5py.File(path, "a") as file:
        file.attrs["default"] = np.arange(3)
        file["entry"].attrs["NX_class"] = np.zeros((2, 2))
        file["entry"].attrs["default"] = ""
        file["entry/data"].attrs["interpretation"] = h5py.Empty("S1")
    check_series(as_series(path), FRAMES)
    circle = {"/": {"default": "a"}, "/a": {"default": "/"}}
    path = nexus(tmp_path / "circle.nxs", {"a/b": FRAMES}, circle)
    check_series(as_series(path), FRAMES)


# ---------------------------------------------------------------------- groups and patterns


def test_group_of_images(tmp_path):
    frames = {f"scan_{number}": FRAMES[number % 7] for number in (10, 2, 1, 33)}
    others = {"angles": np.zeros(4), "names": np.array([b"a"])}
    contents = {f"run/{name}": item for name, item in (frames | others).items()}
    path = save(tmp_path / "scan.h5", contents)
    expected = FRAMES[[1, 2, 3, 5]]
    for name in (path, f"{path}::/run", f"{path}::run/", f"{path}::/run/scan_*"):
        series = as_series(name)
        check_series(series, expected)
        assert series.choice.names[:2] == ("/run/scan_1", "/run/scan_2")


def test_group_of_images_that_are_not_counted(tmp_path):
    """Images of several detectors, or statistics: a series only where somebody says so."""
    path = save(tmp_path / "masks.h5", {"mask_001": FRAMES[0], "mask_002": FRAMES[1]})
    with pytest.raises(ValueError, match="2 datasets"):
        as_series(path)
    contents = {"run/min": FRAMES[0], "run/max": FRAMES[1]}
    path = save(tmp_path / "scan.h5", contents)
    with pytest.raises(
        ValueError, match=r"2 datasets.* they are 2 frames of one series as .*::/run"
    ):
        as_series(path)
    check_series(as_series(f"{path}::/run"), FRAMES[[1, 0]])


@pytest.mark.parametrize(
    "other",
    [
        {"run/frame_3": FRAMES[0, :5]},
        {"run/frame_3": FRAMES[0].astype("f4")},
        {"run/frame_3": h5py.ExternalLink("gone.h5", "/a")},
        {"run/deep/frame_3": FRAMES[0]},
    ],
)
def test_group_of_different_images(tmp_path, other):
    contents = {"run/frame_1": FRAMES[0], "run/frame_2": FRAMES[1], **other}
    path = save(tmp_path / "scan.h5", contents)
    for name in (path, f"{path}::/run"):
        with pytest.raises((ValueError, FileNotFoundError), match="frame_1.*frame_2.*frame_3"):
            as_series(name)


def test_errors_list_ten_candidates(tmp_path):
    path = save(tmp_path / "a.h5", {f"scan{number}/data": frames_of(1) for number in range(1, 15)})
    with pytest.raises(ValueError, match=r"14 datasets, name one as .*::/scan1/data: ") as caught:
        as_series(path)
    text = str(caught.value)
    assert text.count("(4, 8, 6) uint16") == 10
    assert "/scan10/data (4, 8, 6) uint16, and 4 more" in text
    check_series(as_series(f"{path}::/scan*/data"), np.concatenate([frames_of(1)] * 14))


def test_pattern(tmp_path):
    contents = {
        "scan10/frame_1": FRAMES[6],
        "scan2/frame_10": FRAMES[5],
        "scan2/frame_9": FRAMES[1:4],
        "scan2/other": np.zeros(3),
        "scan2/frames/deep": FRAMES[4],
        "alias2": h5py.SoftLink("/scan2"),
        "scan3": np.zeros(4),
    }
    path = save(tmp_path / "scan.h5", contents)
    expected = FRAMES[[1, 2, 3, 5, 6]]
    check_series(as_series(f"{path}::/scan*/frame_*"), expected)
    check_series(as_series(f"{path}::scan*/frame_*"), expected)
    check_series(as_series(f"{path}::/*/frame_*"), expected)  # each dataset once
    check_series(as_series(f"{path}::/scan[2-9]/frame_?"), FRAMES[1:4])
    check_series(as_series(f"{path}::/scan2/fr*/d*"), FRAMES[4:5])
    check_series(as_series(f"{path}::/scan1*"), FRAMES[6:])  # the series in a group


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (FRAMES[0, :5], r"'/s/frame_1' has \(8, 6\) uint16, '/s/frame_3' \(5, 6\) uint16"),
        (FRAMES[0].astype("i2"), r"'/s/frame_1' has .* uint16, '/s/frame_3' \(8, 6\) int16"),
        (np.zeros(4), r"got dataset '/s/frame_3' of shape \(4,\)"),
        (h5py.ExternalLink("gone.h5", "/a"), r"link to gone\.h5::/a, and there is no file .*gone"),
    ],
)
def test_pattern_of_different_datasets(tmp_path, other, text):
    contents = {"s/frame_1": FRAMES[0], "s/frame_2": FRAMES[1], "s/frame_3": other}
    path = save(tmp_path / "scan.h5", contents)
    for pattern in ("/s/frame_*", "/*/frame_*"):
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            as_series(f"{path}::{pattern}")


def test_pattern_whose_file_is_gone(tmp_path):
    """The scan would have been left out."""
    contents = {"s1/frame": FRAMES[0], "s2": h5py.ExternalLink("gone.h5", "/s2")}
    path = save(tmp_path / "scan.h5", contents)
    with pytest.raises(FileNotFoundError, match=r"gone\.h5"):
        as_series(f"{path}::/s*/frame")


def test_pattern_without_a_match(tmp_path):
    path = save(tmp_path / "scan.h5", {"a/b": FRAMES, "c": FRAMES})
    with pytest.raises(ValueError, match=r"nothing that matches '/x\*': its names are a, c$"):
        as_series(f"{path}::/x*")


def test_name_with_a_wildcard_is_taken_as_it_is(tmp_path):
    path = save(tmp_path / "scan.h5", {"a[1]*": FRAMES, "a1": FRAMES[:2]})
    check_series(as_series(f"{path}::/a[1]*"), FRAMES)


def test_layout_of_hexrd(tmp_path):
    contents = {"imageseries/images": FRAMES, "imageseries/omega": np.zeros((7, 2)), "x": FRAMES}
    path = save(tmp_path / "scan.h5", contents)
    check_series(as_series(f"{path}::imageseries"), FRAMES)


def test_corrections_in_the_name_of_a_group_that_is_named(tmp_path):
    path = save(tmp_path / "scan.h5", {"calibration/frames": FRAMES, "calibration/mask": FRAMES})
    check_series(as_series(f"{path}::/calibration"), FRAMES)


def test_previews_in_colour_are_not_meant(tmp_path):
    previews = {"preview": np.zeros((80, 60, 3), "u1"), "thumbs": np.zeros((7, 8, 6, 3), "u1")}
    previews["matrices"] = np.zeros((7, 3, 3))
    check_series(as_series(save(tmp_path / "a.h5", {"entry/data": FRAMES, **previews})), FRAMES)
