"""zarr arrays and paths, formats 2 and 3."""

import pickle

import numpy as np
import pytest
import zarr
from dask.base import tokenize
from helpers import DTYPES, check_series, make_frames

from daskstats.series import as_series
from daskstats.sources.zarrays import ZarrPathSource, ZarrSource


def save(path, frames, chunks=(2, 5, 6), name=None, **options):
    """Write an array at a path, or under a name in the group at that path."""
    where = zarr.open_group(path, mode="a") if name else path
    options |= {"name": name} if name else {}
    array = zarr.create_array(
        where.store if name else where,
        shape=frames.shape,
        dtype=frames.dtype,
        chunks=chunks,
        **options,
    )
    array[...] = frames
    return array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_dtype_and_format(tmp_path, dtype, zarr_format):
    frames = make_frames(dtype)
    path = tmp_path / "scan.zarr"
    array = save(path, frames, zarr_format=zarr_format)
    assert type(as_series(path)) is ZarrPathSource
    check_series(as_series(path), frames)
    assert type(as_series(array)) is ZarrSource
    check_series(as_series(array), frames)


@pytest.mark.parametrize(
    ("chunks", "frame_unit", "row_unit"),
    [
        ((1, 5, 6), 1, None),
        ((3, 2, 6), 3, 2),
        ((100, 5, 6), 7, None),
        ((2, 5, 1), 2, None),
        ((1, 1, 6), 1, 1),
        ((4, 3, 4), 4, 3),
    ],
)
def test_every_chunking(tmp_path, chunks, frame_unit, row_unit):
    frames = make_frames("u2")
    save(tmp_path / "scan.zarr", frames, chunks)
    series = as_series(str(tmp_path / "scan.zarr"))
    assert (series.frame_unit, series.row_unit) == (frame_unit, row_unit)
    check_series(series, frames)


def test_shards(tmp_path):
    frames = make_frames("u2", 8, 4, 6)
    save(tmp_path / "scan.zarr", frames, chunks=(1, 2, 6), shards=(4, 4, 6))
    check_series(as_series(tmp_path / "scan.zarr"), frames)


def test_array_in_memory():
    frames = make_frames("u2")
    check_series(as_series(save(zarr.storage.MemoryStore(), frames)), frames, pickles=False)


def test_chunks_that_were_never_written_are_the_fill_value(tmp_path):
    array = zarr.create_array(
        tmp_path / "scan.zarr", shape=(7, 5, 6), dtype="u2", chunks=(1, 5, 6), fill_value=3
    )
    frames = np.full((7, 5, 6), 3, "u2")
    array[2] = frames[2] = 9
    check_series(as_series(tmp_path / "scan.zarr"), frames)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_group_with_one_series(tmp_path, zarr_format):
    frames = make_frames("u2")
    path = tmp_path / "scan.zarr"
    zarr.open_group(path, mode="w", zarr_format=zarr_format)
    save(path, frames, name="images", zarr_format=zarr_format)
    save(path, frames[0], (5, 6), name="dark", zarr_format=zarr_format)
    save(path, frames[0, 0], (6,), name="angles", zarr_format=zarr_format)
    check_series(as_series(path), frames)
    check_series(as_series(f"{path}::images"), frames)
    check_series(as_series(zarr.open(path)["images"]), frames)


def test_group_with_several_series(tmp_path):
    frames = make_frames("u2")
    path = tmp_path / "scan.zarr"
    save(path, frames, name="a")
    save(path, frames[:3], name="deep/b")
    save(path, frames[:2], name="c")
    with pytest.raises(ValueError, match=r"scan\.zarr has 2 arrays, .*scan\.zarr::/a.*/c"):
        as_series(path)
    check_series(as_series(f"{path}::/a"), frames)
    check_series(as_series(f"{path}::c"), frames[:2])
    check_series(as_series(f"{path}::/deep/b"), frames[:3])
    assert tokenize(as_series(f"{path}::/a")) != tokenize(as_series(f"{path}::/c"))


@pytest.mark.parametrize("name", ["/no/such", "/deep", "/a/deeper"])
def test_name_that_is_no_array(tmp_path, name):
    path = tmp_path / "scan.zarr"
    save(path, make_frames("u2"), name="a")
    save(path, make_frames("u2"), name="deep/b")
    with pytest.raises(ValueError, match=f"has no array '{name}'"):
        as_series(f"{path}::{name}")


def test_group_without_series(tmp_path):
    save(tmp_path / "scan.zarr", make_frames("u2")[0], (5, 6), name="dark")
    with pytest.raises(ValueError, match=r"scan\.zarr has no three-dimensional array"):
        as_series(tmp_path / "scan.zarr")


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.zeros((4, 5)), ValueError, r"three-dimensional.*\(4, 5\)"),
        (np.zeros((2, 2, 2, 2)), ValueError, "three-dimensional"),
        (np.zeros((0, 4, 5)), ValueError, "no frames"),
        (np.zeros((3, 0, 5)), ValueError, "empty"),
        (np.zeros((2, 3, 4), complex), TypeError, "complex128"),
    ],
)
def test_array_that_is_no_series(array, error, text):
    with pytest.raises(error, match=text):
        as_series(zarr.array(array))


@pytest.mark.parametrize("kind", ["empty directory", "file"])
def test_path_that_is_no_zarr(tmp_path, kind):
    path = tmp_path / "scan.zarr"
    path.mkdir() if kind == "empty directory" else path.write_text("no array")
    with pytest.raises(ValueError, match=r"scan\.zarr is no zarr array or group"):
        as_series(path)


def test_path_pickles_as_itself(tmp_path, monkeypatch):
    frames = make_frames("u2")
    save(tmp_path / "scan.zarr", frames)
    monkeypatch.chdir(tmp_path)
    series = as_series("scan.zarr")
    monkeypatch.chdir("/")
    assert len(pickle.dumps(series)) < 1000
    check_series(pickle.loads(pickle.dumps(series)), frames)


def test_token_follows_the_files(tmp_path):
    array = save(tmp_path / "scan.zarr", make_frames("u2"))
    token = tokenize(as_series(tmp_path / "scan.zarr"))
    assert tokenize(as_series(tmp_path / "scan.zarr")) == token
    array[3, 2, 1] += 1
    assert tokenize(as_series(tmp_path / "scan.zarr")) != token


@pytest.mark.parametrize("keep", [0, 7, 0.5])
@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunk_cut_off_names_the_frame(tmp_path, monkeypatch, keep, compressors, zarr_format):
    monkeypatch.setattr("daskstats.sources.base.RETRY_AFTER", (0,))
    path = tmp_path / "scan.zarr"
    save(path, make_frames("u2"), (1, 5, 6), compressors=compressors, zarr_format=zarr_format)
    chunk = path / ("3.0.0" if zarr_format == 2 else "c/3/0/0")
    data = chunk.read_bytes()
    chunk.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    series = as_series(path)
    # Each codec raises an error of its own.
    with pytest.raises(Exception) as caught:
        list(series.pieces(0, 7, 0, 5, 1))
    assert "while reading frame 3" in caught.value.__notes__


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99])
@pytest.mark.parametrize("shards", [None, (4, 6, 5)])
def test_a_chunk_of_blosc_that_was_cut_off_is_an_error(tmp_path, shards, kept):
    """RELIABILITY 11: blosc would go on with what happens to lie behind it in memory."""
    codec = zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle")
    options = {"chunks": (2, 6, 5), "shards": shards, "compressors": codec}
    array = zarr.create_array(tmp_path / "x.zarr", shape=(8, 6, 5), dtype="u2", **options)
    array[...] = np.random.default_rng(0).integers(0, 999, (8, 6, 5))
    series = as_series(tmp_path / "x.zarr")
    check_series(series, array[...])
    chunk = tmp_path / "x.zarr" / "c" / "0" / "0" / "0"
    held = chunk.read_bytes()
    chunk.write_bytes(held[: int(kept * len(held)) if kept < 1 else kept])
    with pytest.raises(Exception, match="damaged|checksum|index|buffer|size"):
        series.read(0, 2, 0, 6)
    np.testing.assert_array_equal(series.read(4, 8, 0, 6)[0], array[4:])
