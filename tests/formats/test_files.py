"""Inputs of several files: names, patterns, folders, and the order of their frames."""

from math import prod

import numpy as np
import pytest
import zarr

from daskstats.formats.files import open_files
from daskstats.formats.natural import natural
from daskstats.formats.paths import Name, parse
from daskstats.series.opening import open_source


@pytest.fixture
def scan(tmp_path):
    """Return a folder with scan_1.npy to scan_12.npy, each of two frames with its number."""
    for number in (1, 2, 10, 12):
        np.save(tmp_path / f"scan_{number}.npy", np.full((2, 3, 4), number, "u2"))
    return tmp_path


def numbers(series):
    blocks = series.read(0, len(series), 0, 3)
    return [int(frame[0, 0]) for block in blocks for frame in block]


ALL = [1, 1, 2, 2, 10, 10, 12, 12]


def test_pattern_is_in_natural_order(scan):
    assert numbers(open_source(str(scan / "scan_*.npy"))) == ALL
    assert numbers(open_source(scan / "scan_1?.npy")) == [10, 10, 12, 12]
    assert numbers(open_source(str(scan / "scan_[12].npy"))) == [1, 1, 2, 2]


def test_recursive_pattern(tmp_path):
    for number in (9, 10):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        np.save(folder / "a.npy", np.full((1, 3, 4), number))
    assert numbers(open_source(str(tmp_path / "**" / "a.npy"))) == [9, 10]
    assert numbers(open_source(str(tmp_path / "run*" / "a.npy"))) == [9, 10]


def test_links_to_folders_do_not_count_files_twice(tmp_path):
    for number in (1, 2):
        np.save(tmp_path / f"a{number}.npy", np.full((1, 3, 4), number))
    (tmp_path / "again.npy").symlink_to("a2.npy")  # a file that is linked counts as often
    (tmp_path / "loop").symlink_to(".")
    assert numbers(open_source(str(tmp_path / "**" / "*.npy"))) == [1, 2, 2]
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "run" / "b.npy", np.full((1, 3, 4), 5))
    (tmp_path / "latest").symlink_to("run")
    assert numbers(open_source(str(tmp_path / "**" / "b.npy"))) == [5]
    assert numbers(open_source(str(tmp_path / "*" / "b.npy"))) == [5, 5]


@pytest.mark.parametrize("names", ["{}", "{}/*.npy", "{}/scan_99.npy"])
def test_link_to_a_file_that_is_gone(scan, names):
    (scan / "scan_99.npy").symlink_to("gone.npy")
    with pytest.raises(FileNotFoundError, match=r"scan_99\.npy"):
        open_source(names.format(scan))


def test_names_that_go_on_with_a_number(tmp_path):
    for number, name in enumerate(("x2.npy", "x.npy", "x10.npy", "x2b.npy")):
        np.save(tmp_path / name, np.full((1, 3, 4), number))
    assert numbers(open_source(str(tmp_path / "x*"))) == [0, 3, 2, 1]
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data2"], file["data"] = np.full((1, 3, 4), 2), np.full((1, 3, 4), 1)
    assert numbers(open_source(f"{tmp_path}/scan.h5::/data*")) == [1, 2]
    with pytest.raises(ValueError, match=r"(?s)/data .*/data2 "):
        open_source(tmp_path / "scan.h5")


def test_folder(scan):
    assert numbers(open_source(scan)) == ALL
    assert numbers(open_source(f"{scan}/")) == ALL


def test_folder_takes_the_most_frequent_suffix(scan):
    (scan / "notes.txt").write_text("x")
    (scan / ".scan_0.npy").write_bytes(b"hidden")
    np.savez(scan / "dark.npz", image=np.zeros((3, 4)))
    with pytest.warns(UserWarning, match=r"holds 4 .npy and 1 .npz files: the .npy files"):
        assert numbers(open_source(scan)) == ALL


def test_folder_with_as_many_of_two_kinds(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 3)))
    np.savez(tmp_path / "a.npz", np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"1 .npy and 1 .npz files: name a pattern"):
        open_source(tmp_path)


@pytest.mark.parametrize("entries", [[], ["notes.txt", "readme"]])
def test_folder_without_files(tmp_path, entries):
    for entry in entries:
        (tmp_path / entry).write_text("x")
    expected = (
        r"has no file of a known suffix: it has 2 entries, notes.txt" if entries else "is empty"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        open_source(tmp_path)


def test_pattern_without_a_match(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches the pattern .*x_\*\.tif"):
        open_source(tmp_path / "x_*.tif")


@pytest.mark.parametrize("pattern", ["*", "run*", "ru[mn]7"])
def test_pattern_that_matches_a_folder(tmp_path, pattern):
    (tmp_path / "run7").mkdir()
    for place in (tmp_path, tmp_path / "run7"):
        np.save(place / "a.npy", np.ones((1, 3, 4)))
    with pytest.raises(ValueError, match=r"matches the folder .*run7: end it with .*/\*\.tif"):
        open_source(tmp_path / pattern)


def test_iterator_that_is_used_up(scan):
    files = scan.glob("scan_*.npy")
    assert len(open_source(files)) == 8
    with pytest.raises(TypeError, match="no file matched or it was used before"):
        open_source(files)


def test_lists_keep_their_order(scan):
    paths = [scan / f"scan_{n}.npy" for n in (10, 2, 12)]
    expected = [10, 10, 2, 2, 12, 12]
    assert numbers(open_source(paths)) == expected
    assert numbers(open_source(tuple(map(str, paths)))) == expected
    assert numbers(open_source(iter(paths))) == expected
    assert numbers(open_source(path for path in paths)) == expected
    assert numbers(open_source(set(paths))) == [2, 2, 10, 10, 12, 12]
    assert numbers(open_source([scan / "scan_1?.npy", str(scan / "scan_1.npy")])) == [
        *(10, 10, 12, 12, 1, 1)
    ]


def test_one_file_twice_counts_twice(scan):
    path = scan / "scan_2.npy"
    assert numbers(open_source([path, path])) == [2, 2, 2, 2]


def test_list_of_paths_and_arrays_is_refused(scan):
    with pytest.raises(TypeError, match="must hold paths only: item 1 is of type ndarray"):
        open_source([scan / "scan_1.npy", np.zeros((3, 4))])
    with pytest.raises(TypeError, match="must hold paths only: item 1 is of type str"):
        open_source([np.zeros((3, 4)), "scan_1.npy"])


@pytest.mark.parametrize("empty", [[], (), set()])
def test_empty_list(empty):
    with pytest.raises((ValueError, TypeError), match="no frames|set is not an image series"):
        open_source(empty)


def test_another_shape_or_dtype_names_both_files(scan):
    np.save(scan / "scan_11.npy", np.zeros((2, 3, 5), "u2"))
    with pytest.raises(
        ValueError, match=r"scan_1.npy has frames of 3 x 4 uint16.*scan_11.npy.*3 x 5 uint16"
    ):
        open_source(scan)


def test_output_is_left_out_of_a_folder_and_a_pattern(scan):
    np.save(scan / "scan_0.npy", np.zeros((3, 4)))  # of another dtype as well
    for names in (scan, str(scan / "*.npy")):
        assert numbers(open_files(names, without=scan / "scan_0.npy")) == ALL


def test_output_is_left_out_of_several_names(scan):
    paths = sorted(scan.glob("*.npy"), key=natural)
    with pytest.warns(UserWarning, match=r"scan_12.npy is the output, and is left out"):
        assert numbers(open_files(paths, without=paths[-1])) == ALL[:-2]


@pytest.mark.parametrize("as_pattern", [True, False])
def test_data_files_that_a_master_file_shows_count_once(tmp_path, as_pattern):
    h5py = pytest.importorskip("h5py")
    for number in (1, 2):
        with h5py.File(tmp_path / f"scan_data_{number}.h5", "w") as file:
            file["data"] = np.full((2, 8, 9), number, "u2")
    with h5py.File(tmp_path / "scan_master.h5", "w") as file:
        for number in (1, 2):
            link = h5py.ExternalLink(f"scan_data_{number}.h5", "data")
            file[f"entry/data/data_00000{number}"] = link
    if as_pattern:
        with pytest.warns(UserWarning, match=r"scan_master.h5 shows the frames of .*1 more files"):
            series = open_source(tmp_path)
        assert len(series) == 4
    else:
        with pytest.raises(ValueError, match=r"scan_master.h5 shows the frames of .*count twice"):
            open_source([tmp_path / "scan_master.h5", tmp_path / "scan_data_1.h5"])


def test_literal_names_win_over_patterns(tmp_path):
    np.save(tmp_path / "a[1].npy", np.full((1, 3, 4), 1))
    np.save(tmp_path / "a1.npy", np.full((1, 3, 4), 2))
    assert numbers(open_source(tmp_path / "a[1].npy")) == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.h5", Name("a.h5")),
        ("a.h5::/e/d", Name("a.h5", "/e/d")),
        ("silx:a.h5::/e/d", Name("a.h5", "/e/d")),
        ("silx:///data/a.h5?path=/e/d", Name("/data/a.h5", "/e/d")),
        ("silx:/data/a.h5?/e/d", Name("/data/a.h5?/e/d")),
        ("a.h5?path=/e/d&slice=3", Name("a.h5", "/e/d", slice(3, 4))),
        ("a.h5?path=/e/d&slice=-1", Name("a.h5", "/e/d", slice(-1, None))),
        ("a.h5?slice=::2,:,:", Name("a.h5", "", slice(None, None, 2))),
        ("fabio:///data/a.edf?slice=0:10", Name("/data/a.edf", "", slice(0, 10))),
        ("scan_?.tif", Name("scan_?.tif")),
        ("s3://bucket/a.zarr?x=1", Name("s3://bucket/a.zarr?x=1")),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.h5?slice=1:2,3:4", "does not select frames"),
        ("a.h5?slice=x", "does not select frames"),
        ("a.h5?slice=0:9:0", "does not select frames"),
        ("a.h5?dataset=x", "expected path and slice"),
    ],
)
def test_bad_queries(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse(text)


def test_slice_of_a_dataset(tmp_path):
    h5py = pytest.importorskip("h5py")
    frames = np.arange(6, dtype="u2")[:, None, None] * np.ones((8, 9), "u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["e/d"] = frames
    assert numbers(open_source(f"silx:{tmp_path}/a.h5?path=/e/d&slice=1:4")) == [1, 2, 3]
    assert numbers(open_source(f"{tmp_path}/a.h5?path=/e/d&slice=-1")) == [5]
    joined = open_source([f"{tmp_path}/a.h5?slice=1", f"{tmp_path}/a.h5::e/d"])
    assert numbers(joined) == [1, 0, 1, 2, 3, 4, 5]


def write_array(path, array):
    """Write an array of any number of axes, in a group where the format has them."""
    if path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["e/d"] = array
    elif path.suffix == ".zarr":
        zarr.open_group(path, mode="w").create_array("e/d", data=array)
    elif path.suffix == ".npz":
        np.savez(path, images=array)
    else:
        pytest.importorskip("astropy.io.fits").PrimaryHDU(array).writeto(path)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 1, 8, 9), [1, 2]),
        ((3, 2, 8, 9), "along the first axis, that has 3 x 2 frames"),
        ((8, 9), "along the first axis, of rows"),
    ],
)
@pytest.mark.parametrize("form", ["h5", "zarr", "npz", "fits"])
def test_slice_of_the_first_axis(tmp_path, form, shape, expected):
    """Programs that write such names slice the first axis, of which an index may be many frames."""
    frames = (np.arange(prod(shape)).reshape(shape) // 72).astype("i2")
    path = tmp_path / f"scan.{form}"
    write_array(path, frames)
    name = f"{path}?{'path=/e/d&' if form in ('h5', 'zarr') else ''}slice=1:3"
    if isinstance(expected, list):
        assert numbers(open_source(name)) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            open_source(name)
