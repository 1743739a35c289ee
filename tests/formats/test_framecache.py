"""HEXRD frame caches: sparse frames in a zip archive, checked in every member."""

import gc
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from caches import members, save, sparse
from helpers import DTYPES, check_series, make_frames, read_dense

from daskstats.formats import framecache
from daskstats.formats.framecache import FrameCacheSource
from daskstats.series.opening import as_series


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", ["i8", "u2", ">u1"])
def test_every_dtype(tmp_path, dtype, index):
    frames = sparse(make_frames(dtype))
    series = as_series(save(tmp_path / "scan.npz", members(frames, index=index)))
    assert type(series) is FrameCacheSource
    check_series(series, frames)


@pytest.mark.parametrize("spelling", ["uint16", b"uint16", "u2", b"<u2", ">u2"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_spelling_of_the_dtype(tmp_path, spelling, compressed):
    frames = sparse(make_frames("u2"))
    path = save(tmp_path / "scan.npz", members(frames, dtype=spelling), compressed)
    check_series(as_series(path), frames)


@pytest.mark.parametrize("name", ["shape", "nframes", "dtype"])
def test_numbers_may_come_as_arrays_of_one(tmp_path, name):
    frames = sparse(make_frames("u2"))
    arrays = members(frames)
    arrays[name] = np.array(arrays[name], ndmin=1)
    check_series(as_series(save(tmp_path / "scan.npz", arrays)), frames)


def test_unsorted_and_duplicate_pixels(tmp_path, rng):
    """A pixel that is named several times is the sum, as in a sparse matrix."""
    rows, cols, count = 5, 6, 200
    dense = np.zeros((3, rows, cols), "i4")
    arrays = members(dense)
    for i in range(3):
        row, col = rng.integers(0, rows, count), rng.integers(0, cols, count)
        data = rng.integers(-100, 100, count).astype("i4")
        np.add.at(dense[i], (row, col), data)
        arrays |= {f"{i}_row": row, f"{i}_col": col, f"{i}_data": data}
    check_series(as_series(save(tmp_path / "scan.npz", arrays)), dense)


def test_unsorted_distinct_pixels(tmp_path, rng):
    frames = sparse(make_frames("f4"))
    arrays = members(frames)
    for i in range(7):
        order = rng.permutation(len(arrays[f"{i}_row"]))
        arrays |= {name: arrays[name][order] for name in (f"{i}_row", f"{i}_col", f"{i}_data")}
    check_series(as_series(save(tmp_path / "scan.npz", arrays)), frames)


def test_only_zeros(tmp_path):
    frames = np.zeros((3, 4, 5), "u2")
    check_series(as_series(save(tmp_path / "scan.npz", members(frames))), frames)


def test_one_pixel(tmp_path):
    frames = np.full((2, 1, 1), 7, "u2")
    check_series(as_series(save(tmp_path / "scan.npz", members(frames))), frames)


@pytest.fixture
def parsed(monkeypatch):
    """Return the list of the archives that were parsed; nothing is kept from other tests."""
    paths = []
    parse = framecache._parse
    monkeypatch.setattr(framecache, "_parse", lambda path: paths.append(path) or parse(path))
    return paths


def test_archive_is_parsed_once_for_all_series_and_threads(tmp_path, parsed):
    frames = sparse(make_frames("u2"))
    path = save(tmp_path / "scan.npz", members(frames))
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(as_series, [path] * 16))
    many += [pickle.loads(pickle.dumps(many[0])), as_series(str(path))]
    for series in many:
        np.testing.assert_array_equal(read_dense(series, (0, 7, 0, 5, 7)), frames)
    assert parsed == [path]


def test_archive_is_parsed_once_for_tasks_that_follow_one_another(tmp_path, parsed):
    """A pool of processes unpickles the series for every task, and forgets it afterwards."""
    text = pickle.dumps(as_series(save(tmp_path / "scan.npz", members(make_frames("u2")))))
    for _ in range(3):
        list(pickle.loads(text).pieces(0, 7, 0, 5, 7))
        gc.collect()
    assert len(parsed) == 1


def test_archive_is_parsed_again_when_the_file_changes(tmp_path, parsed):
    path = tmp_path / "scan.npz"
    for seed in range(3):
        frames = make_frames("u2", seed=seed)
        check_series(as_series(save(path, members(frames))), frames)
        os.utime(path, ns=(seed, seed))
    assert len(parsed) >= 3


def test_rows_cost_their_share_only(tmp_path):
    assert as_series(save(tmp_path / "scan.npz", members(make_frames("u2")))).row_unit == 1


def without(*names):
    return lambda arrays: [arrays.pop(name) for name in names]


def replaced(**values):
    return lambda arrays: arrays.update(values)


def changed(name, index, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without("shape"), "no shape"),
        (without("nframes", "dtype"), "no nframes and no dtype"),
        (without("3_row"), "frame 3 .*3_row"),
        (without("6_data"), "frame 6 .*6_data"),
        (changed("3_row", 0, 5), "frame 3 has a pixel in row 5 of 5"),
        (changed("3_row", 0, -1), "frame 3 has a pixel in row -1 of 5"),
        (changed("3_col", -1, 6), "frame 3 has a pixel in column 6 of 6"),
        (replaced(**{"3_row": np.zeros(4, int)}), r"frame 3 has \(4,\) rows"),
        (replaced(**{"3_col": np.zeros((1, 30), int)}), r"frame 3 has \(30,\) rows, \(1, 30\)"),
        (replaced(**{"3_row": np.zeros(30)}), "frame 3 has positions of float64"),
        (replaced(**{"3_data": np.zeros(30, "f4")}), "frame 3 has dtype float32, expected uint16"),
        (replaced(**{"3_data": np.array([None] * 30)}), "frame 3 cannot be read"),
        (replaced(nframes=np.array(8)), "frame 7 .*7_row"),
        (replaced(nframes=np.array(0)), "no frames"),
        (replaced(nframes=np.array(-1)), "no frames"),
        (replaced(shape=np.array([5])), "two dimensions"),
        (replaced(shape=np.array([5, 6, 7])), "two dimensions"),
        (replaced(shape=np.array([0, 6])), "empty"),
    ],
)
def test_damaged_archive_is_refused(tmp_path, damage, text):
    frames = np.ones((7, 5, 6), "u2")
    arrays = members(frames)
    damage(arrays)
    with pytest.raises(ValueError, match=text):
        as_series(save(tmp_path / "scan.npz", arrays))


@pytest.mark.parametrize("dtype", ["complex64", "no such dtype", "object"])
def test_dtype_without_statistics_is_refused(tmp_path, dtype):
    arrays = members(np.ones((2, 3, 4), "u2"), dtype=dtype)
    with pytest.raises(TypeError, match=dtype):
        as_series(save(tmp_path / "scan.npz", arrays))


@pytest.mark.parametrize("part", [0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [True, False])
def test_archive_cut_off_is_refused(tmp_path, part, compressed):
    path = save(tmp_path / "scan.npz", members(make_frames("u2")), compressed)
    os.truncate(path, int(part * path.stat().st_size))
    with pytest.raises(ValueError, match=r"scan\.npz"):
        as_series(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_flipped_bits_are_never_silent(tmp_path, rng, compressed):
    frames = make_frames("u2", 3, 20, 30)
    path = save(tmp_path / "scan.npz", members(frames), compressed)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("1_data.npy")
        start, length = info.header_offset + 50, info.compress_size
    for offset in rng.integers(start, start + length - 50, 50):
        damaged = data.copy()
        damaged[offset] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"scan\.npz"):
            as_series(path)


@pytest.mark.parametrize("text", [b"no archive at all", b"\x93NUMPY\x01\x00", b"PK\x03\x04 what"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "scan.npz").write_bytes(text)
    with pytest.raises(ValueError, match=r"scan\.npz"):
        as_series(tmp_path / "scan.npz")


def test_single_array_under_this_name_is_refused(tmp_path):
    with (tmp_path / "scan.npz").open("wb") as file:
        np.save(file, make_frames("u2"))
    with pytest.raises(ValueError, match=r"scan\.npz"):
        as_series(tmp_path / "scan.npz")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("LT1_Ne_zr001_00000-fc_GE2.npz", (100, 2048, 2048)),
        ("mruby-0129_000004_ff1_000012-cachefile.npz", (1440, 3888, 3072)),
    ],
)
def test_real_archive(real_data, name, shape):
    series = as_series(real_data / name)
    assert (len(series), *series.shape) == shape
    assert series.dtype == np.uint16
    with np.load(real_data / name) as arrays:
        for index in (0, shape[0] // 2, shape[0] - 1):
            dense = np.zeros(shape[1:], "u2")
            row, col, data = (arrays[f"{index}_{field}"] for field in ("row", "col", "data"))
            for r, c, value in zip(row.tolist(), col.tolist(), data, strict=True):
                dense[r, c] += value
            assert dense.any()
            for first, last in ((0, shape[1]), (1000, 1100), (shape[1] - 1, shape[1])):
                block = read_dense(series, (index, index + 1, first, last, 1))
                assert np.array_equal(block[0], dense[first:last])


# ---------------------------------------------------------------------- other dtypes


def archive_of(path, dtype, data, positions=None, **others):
    """Write an archive of one frame of 4 x 5 pixels, with values of any dtype."""
    pixels = range(len(data)) if positions is None else positions
    row, col = np.divmod(np.array(pixels, "i8"), 5)
    arrays = {"shape": np.array([4, 5]), "nframes": np.array(1), "dtype": np.array(dtype)}
    arrays |= {"0_row": row, "0_col": col, "0_data": data}
    return save(path / "scan.npz", arrays | others)


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("uint16", np.array([7, 65535], "i8")),  # as HEXRD's own casts
        (b"uint16", np.array([0, 9], ">i4")),
        ("int8", np.array([-128, 127], "i2")),
        ("uint64", np.array([2**64 - 1, 3], "u8")),
        ("uint64", np.array([2**63 - 1, 3], "i8")),
        ("int64", np.array([2**63 - 1, 3], "u8")),
        ("float32", np.array([2**24, -(2**24)], "i8")),
        ("float64", np.array([0.1, 3], "f4")),
        ("bool", np.array([1, 0], "u1")),
        ("uint8", np.array([True, False])),
    ],
)
def test_values_of_another_dtype_are_cast(tmp_path, dtype, data):
    series = as_series(archive_of(tmp_path, dtype, data))
    frame = np.zeros((1, 4, 5), series.dtype)
    frame[0, 0, :2] = data.tolist()
    check_series(series, frame)


@pytest.mark.parametrize(
    ("dtype", "data", "value"),
    [
        ("uint16", np.array([7, 65536], "i8"), "65536 in row 0, column 1, which uint16"),
        ("uint16", np.array([-1, 7], "i2"), "-1 in row 0, column 0, which uint16"),
        (
            "int64",
            np.array([3, 2**63], "u8"),
            "9223372036854775808 in row 0, column 1",
        ),
        ("uint64", np.array([3, -(2**63)], "i8"), "-9223372036854775808 in row 0, column 1"),
        ("float32", np.array([2**24 + 1], "i8"), "16777217 in row 0, column 0, which float32"),
        ("float16", np.array([-2049], "i4"), "-2049 in row 0, column 0, which float16"),
        ("bool", np.array([1, 2], "u1"), "2 in row 0, column 1, which bool"),
    ],
)
def test_value_that_does_not_fit_is_named(tmp_path, dtype, data, value):
    with pytest.raises(ValueError, match=f"frame 0 has the value {value}.* cannot hold"):
        as_series(archive_of(tmp_path, dtype, data))


@pytest.mark.parametrize("dtype", ["uint16", "bool", "float32"])
def test_fractions_are_not_cast(tmp_path, dtype):
    with pytest.raises(ValueError, match=f"frame 0 has dtype float64, expected {dtype}"):
        as_series(archive_of(tmp_path, dtype, np.array([0.5, 1.0])))


def test_sum_at_a_pixel_that_does_not_fit(tmp_path):
    """It would wrap to 0."""
    data, twice = np.array([65535, 1, 3], "u2"), [7, 7, 2]
    with pytest.raises(ValueError, match="uint16 cannot hold their sum 65536"):
        as_series(archive_of(tmp_path, "uint16", data, twice))
    data = np.array([100, 100, -100, 3], "i4")  # only the sum has to fit
    series = as_series(archive_of(tmp_path, "int8", data, [7, 7, 7, 2]))
    assert series.read(0, 1, 0, 4)[0].sum() == 103


@pytest.mark.parametrize(
    "nframes",
    [1.7, -1.5, 1e30, np.nan, np.inf, [1, 2], [], True, "one", b"1.7", 10**18, 2 + 0j],
    ids=repr,
)
def test_number_of_frames_that_is_none(tmp_path, nframes):
    path = archive_of(tmp_path, "uint16", np.array([7], "u2"), nframes=np.array(nframes))
    with pytest.raises(ValueError, match=r"scan\.npz: nframes must be"):
        as_series(path)


@pytest.mark.parametrize("nframes", [1, [1], 1.0, b"1", "1", np.uint8(1)], ids=repr)
@pytest.mark.parametrize("dtype", ["u2", b"u2", ["u2"], [b"uint16"]], ids=repr)
def test_every_spelling_of_the_number_of_frames(tmp_path, nframes, dtype):
    path = archive_of(tmp_path, dtype, np.array([7], "i8"), nframes=np.array(nframes))
    assert as_series(path).read(0, 1, 0, 4)[0][0, 0, 0] == 7


def test_two_dtypes(tmp_path):
    with pytest.raises(ValueError, match=r"scan\.npz: dtype must be one value, got 2"):
        as_series(archive_of(tmp_path, ["u2", "u4"], np.array([7], "u2")))


# ---------------------------------------------------------------------- large archives


@pytest.fixture
def large(monkeypatch):
    """Let no archive be small enough to be kept."""
    monkeypatch.setattr(framecache, "MOST_KEPT", -1)


@pytest.mark.parametrize("compressed", [True, False])
def test_frames_that_are_not_kept(tmp_path, large, compressed):
    frames = sparse(make_frames("u2"))
    series = as_series(save(tmp_path / "scan.npz", members(frames), compressed))
    assert (series.row_unit, series.kept) == (None, 0)
    check_series(series, frames)


def test_damage_of_frames_that_are_not_kept(tmp_path, rng, large):
    frames = make_frames("u2", 3, 20, 30)
    path = save(tmp_path / "scan.npz", members(frames))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("1_data.npy")
    for offset in rng.integers(info.header_offset + 50, info.header_offset + info.compress_size, 9):
        damaged = data.copy()
        damaged[offset] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        series = as_series(path)
        np.testing.assert_array_equal(series.read(0, 1, 0, 20)[0][0], frames[0])
        with pytest.raises(ValueError, match="frame 1 cannot be read"):
            series.read(0, 3, 0, 20)


def test_a_file_that_changes_between_reads(tmp_path, large):
    path = save(tmp_path / "scan.npz", members(make_frames("u2")))
    series = as_series(path)
    save(path, members(make_frames("u2", seed=1)))
    with pytest.raises(ValueError, match="has changed since it was opened"):
        series.read(0, 1, 0, 5)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_named(tmp_path, method):
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in members(np.ones((2, 3, 4), "u2")).items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)
    with pytest.raises(ValueError, match=f"frame 0 cannot be read: compression {method}"):
        as_series(path)
