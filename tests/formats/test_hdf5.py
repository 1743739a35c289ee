"""HDF5 datasets, by path and open."""

import io
import os
import pickle

import numpy as np
import pytest
from dask.base import tokenize
from helpers import DTYPES, check_series, make_frames, read_dense

from daskstats.formats.hdf5 import Hdf5Source
from daskstats.formats.hdf5_objects import Hdf5DatasetSource
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")


def save(path, arrays, **options):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
    return path


@pytest.mark.parametrize(
    ("dtype", "chunks"),
    [
        *((dtype, (3, 2, 6)) for dtype in DTYPES),
        *((">u2", chunks) for chunks in (None, True, (1, 5, 6), (7, 5, 4))),
    ],
)
def test_every_dtype_and_chunking(tmp_path, dtype, chunks):
    frames = make_frames(dtype)
    path = save(tmp_path / "scan.h5", {"images": frames}, chunks=chunks)
    series = as_series(path)
    assert type(series) is Hdf5Source
    check_series(series, frames)
    with h5py.File(path) as file:
        series = as_series(file["images"])
        assert type(series) is Hdf5DatasetSource
        check_series(series, frames)


@pytest.mark.parametrize(
    ("chunks", "frame_unit", "row_unit"),
    [
        (None, 1, 1),
        ((1, 5, 6), 1, None),
        ((3, 2, 6), 3, 2),
        ((7, 5, 3), 7, None),
        ((2, 1, 1), 2, 1),
    ],
)
def test_units_are_those_of_the_chunks(tmp_path, chunks, frame_unit, row_unit):
    path = save(tmp_path / "scan.h5", {"images": make_frames("u2")}, chunks=chunks)
    series = as_series(path)
    assert (series.frame_unit, series.row_unit) == (frame_unit, row_unit)


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 6)}, {"compression": "gzip"}])
def test_single_frame(tmp_path, options):
    frame = make_frames("f4")[0]
    path = save(tmp_path / "dark.h5", {"data": frame}, **options)
    check_series(as_series(path), frame[None])
    with h5py.File(path) as file:
        check_series(as_series(file["data"]), frame[None])


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".hdf", ".nxs", ".H5"])
def test_path_variants(tmp_path, monkeypatch, suffix):
    frames = make_frames("u2")
    path = save(tmp_path / f"scan{suffix}", {"entry/data/images": frames})
    monkeypatch.chdir(tmp_path)
    for name in (
        path,
        str(path),
        f"scan{suffix}",
        f"{path}::/entry/data/images",
        f"{path}::entry/data/images",
        f"{path}::",
    ):
        check_series(as_series(name), frames)


def test_only_numeric_images_are_candidates(tmp_path):
    frames = make_frames("u2")
    arrays = {
        "angles": np.zeros(7),
        "flat": np.zeros((5, 6)),  # two dimensions count where none has three
        "names": np.full((2, 2, 2), b"x"),
        "table": np.zeros((2, 2, 2), [("a", "u2")]),
        "volume": np.zeros((2, 2, 2, 2)),
        "number": np.array(3),
        "deep/images": frames,
    }
    check_series(as_series(save(tmp_path / "scan.h5", arrays)), frames)


def test_one_of_several_must_be_named(tmp_path):
    frames = make_frames("u2")
    path = save(tmp_path / "scan.h5", {"a": frames, "b/c": frames[:2]})
    with pytest.raises(ValueError, match=r"2 datasets.*scan\.h5::/a.*/b/c"):
        as_series(path)
    check_series(as_series(f"{path}::/a"), frames)
    check_series(as_series(f"{path}::/b/c"), frames[:2])
    assert tokenize(as_series(f"{path}::/a")) != tokenize(as_series(f"{path}::/b/c"))


@pytest.mark.parametrize("name", ["/no/such", "/a/deeper"])
def test_name_that_is_no_dataset(tmp_path, name):
    path = save(tmp_path / "scan.h5", {"a": make_frames("u2"), "group/b": np.zeros(3)})
    with pytest.raises(ValueError, match=f"no dataset '{name}'"):
        as_series(f"{path}::{name}")
    with pytest.raises(ValueError, match=r"scan\.h5::/group has no numeric dataset of two or more"):
        as_series(f"{path}::/group")


def test_a_group_of_narrow_images_is_not_said_to_have_none(tmp_path):
    path = save(tmp_path / "scan.h5", {f"group/{name}": np.zeros((9, 3)) for name in "ab"})
    with pytest.raises(ValueError, match=r"scan\.h5::/group has 2 datasets, name one as .*group/a"):
        as_series(f"{path}::/group")


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.zeros(5), ValueError, "three-dimensional"),
        (np.zeros((2, 2, 5, 3)), ValueError, "one of colours: take one colour"),
        (np.array(3), ValueError, "three-dimensional"),
        (h5py.Empty("u2"), ValueError, "three-dimensional"),
        (np.zeros((0, 5, 6)), ValueError, "no frames"),
        (np.zeros((5, 0, 6)), ValueError, "empty"),
        (np.zeros((2, 3, 4), complex), TypeError, "complex128"),
        (np.full((2, 2, 2), b"x"), TypeError, "'/a' is no image series, it holds strings.*S1"),
        (np.full((2, 2), "x", object), TypeError, "'/a' is no image series, it holds strings"),
    ],
)
def test_dataset_that_is_no_series(tmp_path, array, error, text):
    path = save(tmp_path / "scan.h5", {"a": array})
    with pytest.raises(error, match=text):
        as_series(f"{path}::/a")


def test_file_without_images(tmp_path):
    path = save(tmp_path / "scan.h5", {"a": np.zeros(5)})
    text = r"scan\.h5 has no numeric dataset of two or more dimensions: it has /a \(5,\) float64$"
    with pytest.raises(ValueError, match=text):
        as_series(path)
    save(path, {f"n{number}": np.array(["a", "b"], object) for number in range(12)})
    text = r"it has /n0 \(2,\) strings, /n1 .*/n9 \(2,\) strings, and 2 more$"
    with pytest.raises(ValueError, match=text):
        as_series(path)
    with h5py.File(path, "w") as file:
        file.create_group("empty/inner")
    with pytest.raises(ValueError, match="dimensions: it is empty$"):
        as_series(path)
    with pytest.raises(ValueError, match=r"scan\.h5::/empty has no.*is empty$"):
        as_series(f"{path}::/empty")


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("chunks", [None, (1, 50, 60)])
def test_file_cut_off(tmp_path, part, chunks):
    path = save(tmp_path / "scan.h5", {"a": make_frames("u2", 7, 50, 60)}, chunks=chunks)
    os.truncate(path, int(part * path.stat().st_size))
    with pytest.raises(ValueError, match=r"scan\.h5 is not an HDF5 file, or is cut off"):
        as_series(path)


def test_damaged_chunk_names_the_frame(tmp_path, monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0,))
    frames = make_frames("u2", 7, 50, 60)
    path = save(tmp_path / "scan.h5", {"a": frames}, chunks=(1, 50, 60), fletcher32=True)
    with h5py.File(path) as file:
        offset = file["a"].id.get_chunk_info_by_coord((3, 0, 0)).byte_offset
    with path.open("r+b") as file:
        file.seek(offset + 100)
        file.write(b"\xff\x00\xff\x00")
    series = as_series(path)
    with pytest.raises(OSError) as caught:
        list(series.pieces(0, 7, 0, 50, 1))
    assert caught.value.__notes__ == ["while reading frame 3"]


def test_open_dataset_pickles_as_its_path(tmp_path):
    frames = make_frames("u2", 7, 50, 60)
    path = save(tmp_path / "scan.h5", {"a": frames, "b": frames[:1]})
    with h5py.File(path) as file:
        text = pickle.dumps(as_series(file["a"]))
    assert len(text) < 1000
    copy = pickle.loads(text)
    assert type(copy) is Hdf5Source
    np.testing.assert_array_equal(read_dense(copy, (0, 7, 0, 50, 3)), frames)


@pytest.mark.parametrize("kind", ["core", "file object"])
def test_file_in_memory_reads_but_does_not_pickle(tmp_path, kind):
    frames = make_frames("u2")
    how = {"driver": "core", "backing_store": False} if kind == "core" else {}
    where = tmp_path / "nowhere.h5" if kind == "core" else io.BytesIO()
    with h5py.File(where, "w", **how) as file:
        series = as_series(file.create_dataset("a", data=frames))
        check_series(series, frames, pickles=False)
        with pytest.raises(TypeError, match="'/a' is not in a file that can be opened again"):
            pickle.dumps(series)


def test_real_files(real_data):
    path = real_data / "ceria_50x30_740mm_000005_Pilatus2M.hdf5"
    with h5py.File(path) as file:
        frames = file["imageseries/images"][()]
    series = as_series(path)
    assert (len(series), series.shape, series.dtype) == (1, (1679, 1475), np.dtype("i4"))
    assert frames.min() < 0
    assert read_dense(series, (0, 1, 0, 1679, 8)).tobytes() == frames.tobytes()
    assert read_dense(series, (0, 1, 700, 900, 8)).tobytes() == frames[:, 700:900].tobytes()

    path = real_data / "ceria_ff1.h5"
    with h5py.File(path) as file:
        frame = file["data"][()]
    series = as_series(path)
    assert (len(series), series.shape, series.dtype) == (1, (3888, 3072), np.dtype("f4"))
    assert series.row_unit == 122
    assert read_dense(series, (0, 1, 0, 3888, 1))[0].tobytes() == frame.tobytes()
    assert read_dense(series, (0, 1, 100, 300, 1))[0].tobytes() == frame[100:300].tobytes()


# ---------------------------------------------------------------------- leading axes


@pytest.mark.parametrize(
    ("shape", "chunks", "units"),
    [
        ((3, 4, 5, 6), None, (1, 1)),
        ((3, 4, 5, 6), (1, 1, 5, 6), (1, None)),
        ((3, 4, 5, 6), (1, 2, 2, 6), (2, 2)),
        ((3, 4, 5, 6), (2, 2, 5, 6), (8, None)),  # parts of two rows of the scan
        ((3, 5, 5, 6), (1, 2, 5, 6), (2, None)),  # the last chunk of each row is cut
        ((12, 1, 5, 6), (5, 1, 5, 6), (5, None)),
        ((1, 12, 5, 6), (1, 5, 5, 6), (5, None)),
        ((2, 3, 2, 5, 6), (1, 2, 1, 3, 6), (4, 3)),
    ],
)
def test_leading_axes_count_as_frames(tmp_path, shape, chunks, units):
    scan = make_frames(">i4", int(np.prod(shape[:-2])), 5, 6).reshape(shape)
    path = save(tmp_path / "scan.h5", {"scan": scan, "angles": np.zeros((12, 2))}, chunks=None)
    with h5py.File(path, "a") as file:
        del file["scan"]
        file.create_dataset("scan", data=scan, chunks=chunks)
    series = as_series(path)
    check_series(series, scan.reshape(-1, 5, 6))
    assert (series.frame_unit, series.row_unit) == units
    with h5py.File(path) as file:
        check_series(as_series(file["scan"]), scan.reshape(-1, 5, 6))


def test_frames_of_a_scan_are_counted_in_c_order(tmp_path):
    import daskstats as stats

    scan = make_frames("u2", 12, 5, 6).reshape(3, 4, 5, 6)
    path = save(tmp_path / "scan.h5", {"scan": scan})
    found = stats.max(path, frames=[11, 5]).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, np.maximum(scan[2, 3], scan[1, 1]))


def test_scan_is_read_with_the_fewest_hyperslabs(tmp_path, monkeypatch):
    scan = make_frames("u2", 24, 5, 6).reshape(2, 3, 4, 5, 6)
    series = as_series(save(tmp_path / "scan.h5", {"scan": scan}))
    calls = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda *args, **kw: calls.append(args) or read(*args, **kw)
    )
    counts = {(0, 24): 1, (0, 12): 1, (12, 24): 1, (4, 12): 1, (5, 7): 1, (2, 6): 2, (3, 23): 4}
    for frames, count in counts.items():
        calls.clear()
        blocks = series.read(*frames, 1, 3)
        assert len(calls) == count, frames
        expected = scan.reshape(-1, 5, 6)[slice(*frames), 1:3]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_frames_of_a_scan_without_data(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        scan = file.create_dataset("scan", (3, 5, 8, 6), "u2", chunks=(2, 2, 4, 6))
        scan[0, 2], scan[2, 4, 5] = 1, 1
    # chunks are of rows 0 and 1, or 2, and of columns 0 and 1, 2 and 3, or 4
    there = np.zeros((3, 5), bool)
    there[:2, 2:4] = there[2, 4] = True
    np.testing.assert_array_equal(
        as_series(path).frames_without_data(), np.flatnonzero(~there.ravel())
    )


def test_virtual_dataset_of_a_scan(tmp_path):
    """One file for each row of the scan, as many beamlines write them."""
    rows = [make_frames("u2", 4, 8, 6, seed=seed) for seed in range(3)]
    layout = h5py.VirtualLayout((3, 4, 8, 6), "u2")
    for number, row in enumerate(rows):
        save(tmp_path / f"row_{number}.h5", {"data": row}, chunks=(2, 8, 6))
        layout[number] = h5py.VirtualSource(f"row_{number}.h5", "data", (4, 8, 6))
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("entry/scan", layout)
    series = as_series(path)
    check_series(series, np.concatenate(rows))
    assert series.frame_unit == 2
    series = as_series(path)
    (tmp_path / "row_1.h5").rename(tmp_path / "gone.h5")
    assert len(series.read(0, 4, 0, 8)) == 1
    with pytest.raises(FileNotFoundError):
        series.read(3, 6, 0, 8)
    with pytest.raises(FileNotFoundError, match=r"row_1\.h5"):
        as_series(path)
    # written only in part
    with h5py.File(tmp_path / "row_1.h5", "w") as file:
        file.create_dataset("data", (4, 8, 6), "u2", chunks=(2, 8, 6))[2] = 5
    assert as_series(path).frames_without_data().tolist() == [4, 5]


# ---------------------------------------------------------------------- real files


def test_real_files_without_frames(real_data):
    for name, number in (("bitshuffle_datasets", 30), ("lz4_datasets", 10)):
        text = rf"no numeric dataset of two or more.*/float32_bs\w+ \(20,\) float32.*{number} more$"
        with pytest.raises(ValueError, match=text):
            as_series(real_data / "formats" / f"{name}.hdf5")
    with pytest.raises(ValueError, match=r"it has /external_dataset \(21,\) float32$"):
        as_series(real_data / "formats" / "test_file_ext.hdf5")
