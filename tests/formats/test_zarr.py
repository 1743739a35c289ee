"""zarr arrays and paths, formats 2 and 3."""

import json
import pickle
import shutil
import threading
import time
import zipfile

import fsspec
import numpy as np
import pytest
import zarr
from dask.base import tokenize
from helpers import DTYPES, check_series, make_frames

import daskstats as stats
from daskstats.formats import outputs, zarr_store
from daskstats.formats.zarr_array import ZarrPathSource, ZarrSource
from daskstats.series.opening import as_series


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


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", [(5, 6), (2, 4)])
def test_one_image(tmp_path, chunks, zarr_format):
    image = make_frames("u2")[0]
    group = zarr.open_group(tmp_path / "scan.zarr", mode="w", zarr_format=zarr_format)
    array = group.create_array("image", shape=image.shape, dtype="u2", chunks=chunks)
    for written in ([2], []):
        series = as_series(f"{tmp_path}/scan.zarr::/image")
        assert series.frames_without_data().tolist() == ([0] if written else [])
        array[...] = image
    check_series(series, image[None])
    np.testing.assert_array_equal(stats.sum([tmp_path / "scan.zarr"] * 2).compute(), 2.0 * image)
    outputs.save(image, tmp_path / "out.zarr")
    np.testing.assert_array_equal(stats.max(tmp_path / "out.zarr").compute(), image)


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
    with pytest.raises(
        ValueError, match=r"scan\.zarr has 3 arrays, .*scan\.zarr::/a: .*/c.*/deep/b"
    ):
        as_series(path)
    check_series(as_series(f"{path}::/a"), frames)
    check_series(as_series(f"{path}::c"), frames[:2])
    check_series(as_series(f"{path}::/deep/b"), frames[:3])
    assert tokenize(as_series(f"{path}::/a")) != tokenize(as_series(f"{path}::/c"))


@pytest.mark.parametrize("name", ["/no/such", "/deeper", "/a/deeper"])
def test_name_that_is_no_array(tmp_path, name):
    path = tmp_path / "scan.zarr"
    save(path, make_frames("u2"), name="a")
    save(path, make_frames("u2"), name="deep/b")
    with pytest.raises(ValueError, match=f"has no array '{name}'"):
        as_series(f"{path}::{name}")


def test_group_with_parts_of_a_single_frame(tmp_path):
    """It was left out: the series had the frames of the other part alone."""
    frames = make_frames("u2")
    save(tmp_path / "scan.zarr", frames, (3, 5, 6), name="data_000001")
    save(tmp_path / "scan.zarr", frames[0], (5, 6), name="data_000002")
    with pytest.raises(ValueError, match="data_000001 to /data_000002"):
        as_series(tmp_path / "scan.zarr")


def test_group_without_series(tmp_path):
    save(tmp_path / "scan.zarr", make_frames("u2")[0], (5, 6), name="dark")
    with pytest.raises(ValueError, match=r"scan\.zarr has no three-dimensional array"):
        as_series(tmp_path / "scan.zarr")


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.zeros((4, 5)), ValueError, r"three-dimensional.*\(4, 5\)"),
        (np.zeros((2, 5, 5, 3)), ValueError, "one of colours"),
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
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0,))
    path = tmp_path / "scan.zarr"
    save(path, make_frames("u2"), (1, 5, 6), compressors=compressors, zarr_format=zarr_format)
    chunk = path / ("3.0.0" if zarr_format == 2 else "c/3/0/0")
    data = chunk.read_bytes()
    chunk.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    series = as_series(path)
    # Each codec raises an error of its own, which names nothing.
    text = rf"the zarr array {series.path} cannot be decoded"
    with pytest.raises(ValueError, match=text) as caught:
        list(series.pieces(0, 7, 0, 5, 1))
    assert "while reading frame 3" in caught.value.__notes__


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99])
@pytest.mark.parametrize("shards", [None, (4, 6, 5)])
def test_a_chunk_of_blosc_that_was_cut_off_is_an_error(tmp_path, shards, kept):
    """Blosc would go on with what happens to lie behind it in memory."""
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


# ---------------------------------------------------------------------- stores that vanish


HUNDRED = np.full((40, 8, 6), 100, "u2")

# How a series may be given that is the array "images" in the group at a path.
GIVEN = {
    "path": lambda path: f"{path}::images",
    "array": lambda path: zarr.open(path, mode="r")["images"],
    "writable array": lambda path: zarr.open(path, mode="r+")["images"],
}


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    """Return the path of a group with an array of forty frames of 100, as format 2 and 3."""
    path = tmp_path / "scan.zarr"
    zarr.open_group(path, mode="w", zarr_format=request.param)
    save(path, HUNDRED, (1, 4, 6), name="images", zarr_format=request.param)
    return path


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("statistic", ["average", "median"])
def test_store_that_vanishes_before_the_run(store, given, statistic):
    """It would read as zeros."""
    image = getattr(stats, statistic)(given(store))
    shutil.rmtree(store)
    with pytest.raises(FileNotFoundError, match=r"scan\.zarr/images is not there"):
        image.compute()
    assert not store.exists(), "reading has made a directory"


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_store_that_vanishes_during_the_run(store, given):
    """The running means would sink from 100 to 22."""
    images = stats.average_iter(given(store), 40)
    assert (next(images) == 100).all()
    shutil.rmtree(store)
    with pytest.raises(FileNotFoundError, match=r"scan\.zarr/images is not there"):
        for image in images:
            assert (image == 100).all()


def test_store_that_vanished_before_the_call(store):
    array = zarr.open(store, mode="r+")["images"]
    shutil.rmtree(store)
    with pytest.raises(FileNotFoundError, match=r"scan\.zarr/images"):
        stats.average(array)
    assert not store.exists()


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_chunks_that_vanish_while_the_metadata_stay(store, given):
    """Removing a directory may take seconds, and begins with either."""
    image = stats.average(given(store))
    for entry in (store / "images").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith((".z", "zarr")):
            entry.unlink()
    with pytest.raises(FileNotFoundError, match="the chunks of frame 0 were removed"):
        image.compute()


def chunk_files(store):
    return sorted(
        file
        for file in (store / "images").rglob("*")
        if file.is_file() and not file.name.startswith((".z", "zarr"))
    )


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("with_directories", [False, True])
def test_one_chunk_of_a_frame_vanishes(store, given, which, with_directories):
    """The other one is still there: removing a directory takes chunk after chunk."""
    image = stats.average(given(store))
    time.sleep(0.02)  # the clock of the file system advances every few milliseconds
    chunk = chunk_files(store)[which]
    chunk.unlink()
    if with_directories and not any(chunk.parent.iterdir()):
        chunk.parent.rmdir()
    with pytest.raises(FileNotFoundError, match="the chunks of frame 0 were removed"):
        image.compute()


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_chunks_without_data_stay_legitimate_while_others_are_written(store, given):
    for chunk in chunk_files(store)[1::2]:
        chunk.unlink()
    time.sleep(0.02)
    images = stats.average_iter(given(store), 40)
    first = next(images)
    array = zarr.open(store, mode="r+")["images"]
    array.resize((44, 8, 6))
    array[40:] = 7
    halves = first.mean(axis=1)
    assert sorted({0.0, 100.0}) == sorted(set(halves.tolist()))
    assert all((image == first).all() for image in images)


# Half of them in every run: each seed with each format, and with either number of rows.
REMOVED = [
    pytest.param(
        *(seed, zarr_format, nrows),
        marks=pytest.mark.nightly if (seed + zarr_format + nrows // 4) % 2 else [],
    )
    for seed in range(6)
    for zarr_format in (2, 3)
    for nrows in (8, 4)
]


@pytest.mark.parametrize(("seed", "zarr_format", "nrows"), REMOVED)
def test_no_image_is_wrong_while_a_store_is_being_removed(tmp_path, seed, zarr_format, nrows):
    path = tmp_path / "scan.zarr"
    save(path, np.full((300, 8, 6), 100, "u2"), (1, nrows, 6), zarr_format=zarr_format)
    images = stats.average_iter(path, 50)
    seen = [next(images) for _ in range(1 + 3 * seed)]
    removing = threading.Thread(target=shutil.rmtree, args=[path])
    removing.start()
    with pytest.raises(FileNotFoundError):
        seen += images
        removing.join()
        stats.average(path).compute()  # if everything had been read by then
    removing.join()
    assert all((image == 100).all() for image in seen)


def replace_by_rename(store, frames, **options):
    save(store.with_name("new.zarr"), frames, name="images", **options)
    store.rename(store.with_name("old.zarr"))
    store.with_name("new.zarr").rename(store)


def replace_in_place(store, frames, **options):
    shutil.rmtree(store)
    save(store, frames, name="images", **options)


def overwrite(store, frames, **options):
    group = zarr.open_group(store, mode="r+")
    array = group.create_array(
        "images", shape=frames.shape, dtype=frames.dtype, overwrite=True, **options
    )
    array[...] = frames


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("put", [replace_by_rename, replace_in_place, overwrite])
@pytest.mark.parametrize(
    "frames", [HUNDRED + 1, HUNDRED[:20], HUNDRED.astype("i4")], ids=["values", "length", "dtype"]
)
def test_another_store_in_its_place(tmp_path, given, put, frames):
    """Frames of two stores would be mixed."""
    store = tmp_path / "scan.zarr"
    save(store, HUNDRED, (1, 4, 6), name="images")
    images = stats.average_iter(given(store), 40)
    assert (next(images) == 100).all()
    put(store, frames, chunks=(1, 4, 6))
    # A task may have looked while neither was there.
    text = r"scan\.zarr/images (was replaced|is not there)"
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        for image in images:
            assert (image == 100).all()


def test_a_store_may_grow_and_get_attributes(store):
    array = zarr.open(store, mode="r+")["images"]
    images = stats.average_iter(f"{store}::images", 40)
    next(images)
    array.attrs["note"] = "the beam was lost"
    array.append(HUNDRED[:3] + 1)
    assert all((image == 100).all() for image in images)
    series = as_series(f"{store}::images")
    array.resize((20, 8, 6))
    with pytest.raises(ValueError, match="had 43 frames, and has 20"):
        series.read(0, 5, 0, 8)


@pytest.mark.parametrize("emptied", ["memory", "fsspec"])
def test_other_stores_that_are_emptied(emptied):
    """In memory, by zarr and by fsspec."""
    where = zarr.storage.MemoryStore() if emptied == "memory" else "memory://series15"
    array = save(where, HUNDRED, (1, 4, 6))
    images = stats.average_iter(array, 40)
    next(images)
    if emptied == "memory":
        array.store._store_dict.clear()
    else:
        fsspec.filesystem("memory").rm("/series15", recursive=True)
    with pytest.raises(FileNotFoundError, match="the zarr array memory.* is not there"):
        for image in images:
            assert (image == 100).all()


@pytest.mark.filterwarnings("ignore")
def test_store_in_the_memory_of_another_process(client):
    """A worker opens an empty store, and says so; it is there afterwards."""
    array = save("memory://elsewhere15", HUNDRED, (1, 4, 6))
    assert (stats.average(array).compute(scheduler="threads") == 100).all()
    with pytest.raises(FileNotFoundError, match=r"memory.*elsewhere15 is not there.*worker tcp"):
        stats.average(array).compute()
    assert (stats.average(HUNDRED).compute() == 100).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["zip", "directory", "path"])
def test_store_that_a_worker_does_not_see(tmp_path, client, kind):
    """An error of the task that names the store, not a dead worker."""
    path = tmp_path / "scan.zarr"
    if kind == "zip":
        with zarr.storage.ZipStore(path, mode="w") as zipped:
            save(zipped, HUNDRED, (1, 4, 6))
        array = zarr.open_array(zarr.storage.ZipStore(path, mode="r"))
        assert (stats.average(array).compute() == 100).all()
    else:
        array = save(path, HUNDRED, (1, 4, 6))
    image = stats.average(path if kind == "path" else array)
    path.rename(tmp_path / "hidden")
    with pytest.raises(FileNotFoundError) as caught:
        image.compute()
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert str(path) in text
    assert "worker tcp" in text
    assert (stats.average(HUNDRED).compute() == 100).all()


def test_nothing_is_opened_while_unpickling(tmp_path):
    """Neither a path nor a zip file, whose store opens it when it is unpickled."""
    save(tmp_path / "scan.zarr", HUNDRED)
    with zarr.storage.ZipStore(tmp_path / "scan.zip", mode="w") as zipped:
        save(zipped, HUNDRED)
    array = zarr.open_array(zarr.storage.ZipStore(tmp_path / "scan.zip", mode="r"))
    check_series(as_series(array), HUNDRED)
    texts = [pickle.dumps(as_series(ims)) for ims in (tmp_path / "scan.zarr", array)]
    shutil.rmtree(tmp_path / "scan.zarr")
    (tmp_path / "scan.zip").unlink()
    for text in texts:
        series = pickle.loads(pickle.dumps(pickle.loads(text)))  # as a worker sends it on
        assert (len(series), series.shape, series.dtype) == (40, (8, 6), "u2")
        with pytest.raises(FileNotFoundError):
            series.read(0, 1, 0, 8)


def test_sent_source_knows_the_store_of_the_call(tmp_path):
    path = tmp_path / "scan.zarr"
    texts = [pickle.dumps(as_series(ims)) for ims in (save(path, HUNDRED), path)]
    with_others = path.with_name("old.zarr")
    path.rename(with_others)
    save(path, HUNDRED + 1)
    for text in texts:
        with pytest.raises(ValueError, match="was replaced"):
            pickle.loads(text).read(0, 1, 0, 8)


# ---------------------------------------------------------------------- frames without data


LAYOUTS = {
    "default": {"chunks": (1, 4, 6)},
    "dots": {"chunks": (1, 4, 6), "chunk_key_encoding": {"name": "default", "separator": "."}},
    "old names": {"chunks": (1, 4, 6), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "format 2": {"chunks": (1, 4, 6), "zarr_format": 2},
    "format 2, slashes": {
        "chunks": (1, 4, 6),
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "shards of two rows": {"chunks": (1, 2, 6), "shards": (4, 4, 6)},
    "shards": {"chunks": (1, 8, 6), "shards": (16, 8, 6)},
}

STORES = {
    "directory": lambda path: path,
    "memory": lambda path: zarr.storage.MemoryStore(),
    "zip": lambda path: zarr.storage.ZipStore(path, mode="w"),
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("where", STORES.values(), ids=STORES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_frames_for_which_no_chunk_was_written(tmp_path, options, where):
    """One chunk of a frame is enough; a chunk of the fill value is none."""
    written = [*range(25), 30, 31]
    store = where(tmp_path / "scan.zarr")
    array = zarr.create_array(store, shape=(41, 8, 6), dtype="u2", fill_value=0, **options)
    array[:25] = 100
    array[30, 5:] = 100
    array[31, 2] = 100
    missing = as_series(array).frames_without_data()
    assert missing.dtype == np.int64
    assert missing.tolist() == sorted({*range(41)} - {*written})
    if where is STORES["directory"]:
        np.testing.assert_array_equal(as_series(store).frames_without_data(), missing)
    if where is STORES["zip"]:
        store.close()


def test_frames_whose_chunk_was_removed(tmp_path):
    """The directory of the chunk is still there."""
    path = tmp_path / "scan.zarr"
    save(path, HUNDRED, (2, 8, 6))
    assert as_series(path).frames_without_data().tolist() == []
    (path / "c" / "3" / "0" / "0").unlink()
    series = as_series(path)
    assert series.frames_without_data().tolist() == [6, 7]
    (block,) = series.read(5, 9, 0, 8)
    assert block[:, 0, 0].tolist() == [100, 0, 0, 100]


def test_array_that_nobody_has_written_to(tmp_path):
    for path, shards in ((tmp_path / "a.zarr", None), (tmp_path / "b.zarr", (4, 8, 6))):
        zarr.create_array(path, shape=(7, 8, 6), dtype="u2", chunks=(2, 8, 6), shards=shards)
        assert as_series(path).frames_without_data().tolist() == list(range(7))


def test_looking_for_chunks_is_cheap_in_large_stores(tmp_path, monkeypatch):
    """Beyond some number one listing has to do."""
    path = tmp_path / "scan.zarr"
    array = zarr.create_array(path, shape=(60, 8, 6), dtype="u2", chunks=(1, 8, 6))
    array[:40] = 100
    monkeypatch.setattr(zarr_store, "MOST_LOOKED_INTO", 10)
    monkeypatch.setattr(zarr_store.ArrayDirectory, "_has_chunk", None)
    assert as_series(path).frames_without_data().tolist() == list(range(40, 60))


# ---------------------------------------------------------------------- keys


def test_key_follows_an_array_in_a_group(tmp_path):
    """The directory of the group itself does not change."""
    path = tmp_path / "scan.zarr"
    zarr.open_group(path, mode="w")
    array = save(path, HUNDRED, (1, 8, 6), name="entry/images")
    before = path.stat()
    keys = [stats.average(f"{path}::entry/images").name]
    array[20] = 7
    keys.append(stats.average(f"{path}::entry/images").name)
    array[20] = 8  # a chunk of the same size
    keys.append(stats.average(f"{path}::entry/images").name)
    array.append(HUNDRED[:1])
    keys.append(stats.average(f"{path}::entry/images").name)
    shutil.rmtree(path / "entry" / "images" / "c" / "3")
    with pytest.warns(UserWarning, match="1 of 41 frames have no data"):
        keys.append(stats.average(f"{path}::entry/images").name)
    assert len(set(keys)) == 5
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.warns(UserWarning, match="frames 3"):
        assert stats.average(f"{path}::entry/images").name == keys[-1]


@pytest.mark.parametrize("where", ["directory", "memory"])
def test_an_array_that_was_written_to_gives_new_values(tmp_path, where):
    """Two images of one object may see different data, and are never taken for another."""
    array = save(
        tmp_path / "x.zarr" if where == "directory" else zarr.storage.MemoryStore(), HUNDRED
    )
    first = stats.average(array)
    assert (first.compute() == 100).all()
    array[...] = 7
    second = stats.average(array)
    assert first.name != second.name
    assert (second.compute() == 7).all()


# ---------------------------------------------------------------------- metadata


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("lengths", [[0, 5, 6], [1, 0, 6], [1, 5, 0]])
def test_chunk_length_of_zero(tmp_path, zarr_format, lengths):
    """A sentence, not ZeroDivisionError; from zarr 3.4 on the warning is zarr's own."""
    change(save(tmp_path / "scan.zarr", make_frames("u2"), zarr_format=zarr_format), lengths)
    sentence = r"scan\.zarr has chunks of shape \(. ?|chunk shape .* is invalid"
    with pytest.raises(ValueError, match=sentence):
        as_series(tmp_path / "scan.zarr")


def change(array, lengths):
    """Give an array chunks of other lengths, in its metadata only."""
    root = array.store.root
    if array.metadata.zarr_format == 2:
        file, metadata = root / ".zarray", json.loads((root / ".zarray").read_text())
        metadata["chunks"] = lengths
    else:
        file, metadata = root / "zarr.json", json.loads((root / "zarr.json").read_text())
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = lengths
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize("lengths", [[1, 5], [-1, 5, 6], [1.5, 5, 6], None, [[1], 5, 6]])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunk_lengths_that_are_none(tmp_path, zarr_format, lengths):
    change(save(tmp_path / "scan.zarr", make_frames("u2"), zarr_format=zarr_format), lengths)
    with pytest.raises(ValueError, match=r"scan\.zarr is no zarr array or group that can be read"):
        as_series(tmp_path / "scan.zarr")


@pytest.mark.parametrize("name", ["zarr.json", ".zarray"])
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"])
def test_metadata_that_are_none(tmp_path, name, text):
    (tmp_path / "scan.zarr").mkdir()
    (tmp_path / "scan.zarr" / name).write_bytes(text)
    with pytest.raises(ValueError, match=r"scan\.zarr"):
        as_series(tmp_path / "scan.zarr")


@pytest.mark.parametrize(("length", "shards"), [(2**62, None), (2**40, None), (1, (2**40, 5, 6))])
def test_chunks_much_longer_than_the_array(tmp_path, length, shards):
    """Nothing is allocated for frames that are not there."""
    path = tmp_path / "scan.zarr"
    zarr.create_array(path, shape=(7, 5, 6), dtype="u2", chunks=(length, 5, 6), shards=shards)
    assert len(as_series(path).frames_without_data()) <= 7


SHAPES = {
    "frames": ((40, 8, 6), (3, 4, 6)),
    "scan": ((5, 8, 8, 6), (2, 3, 4, 6)),
    "many axes": ((2, 5, 4, 8, 6), (1, 2, 3, 8, 6)),
    "image": ((8, 6), (4, 6)),
}


@pytest.mark.parametrize(("shape", "chunks"), SHAPES.values(), ids=SHAPES)
def test_every_format_names_its_chunks_as_zarr_does(tmp_path, shape, chunks):
    frames = np.arange(1, np.prod(shape) + 1, dtype="u2").reshape(shape)
    for options in LAYOUTS.values():
        options = {key: value for key, value in options.items() if "s" not in key[-1:]}
        path = tmp_path / "x.zarr"
        array = save(path, frames, chunks, **options)
        grid = zarr_store.Grid.of(array)
        keys = [key for slab in range(grid.counts[0]) for key in grid.keys(slab)]
        assert all((path / key).is_file() for key in keys)
        assert len(keys) == len(set(keys)) == np.prod(grid.counts)
        slabs, numbers = grid.slabs_of(keys)
        assert slabs.tolist() == list(range(grid.counts[0]))
        assert (numbers == np.prod(grid.counts[1:])).all()
        names = as_series(path)._array.store._listing()
        assert grid.slabs_of([*names, ".zarray", "zarr.json"])[0].tolist() == slabs.tolist()
        shutil.rmtree(path)


# ---------------------------------------------------------------------- leading axes


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "chunks", "units"),
    [
        ((3, 4, 5, 6), (1, 1, 5, 6), (1, None)),
        ((3, 4, 5, 6), (1, 3, 2, 6), (3, 2)),
        ((3, 4, 5, 6), (2, 2, 5, 6), (8, None)),
        ((12, 1, 5, 6), (5, 1, 5, 6), (5, None)),
        ((2, 3, 2, 5, 6), (1, 2, 1, 3, 6), (4, 3)),
        ((5, 6), (2, 6), (1, 2)),
    ],
)
def test_leading_axes_count_as_frames(tmp_path, zarr_format, shape, chunks, units):
    scan = make_frames("u2", int(np.prod(shape[:-2])), 5, 6)
    array = save(tmp_path / "scan.zarr", scan.reshape(shape), chunks, zarr_format=zarr_format)
    for ims in (tmp_path / "scan.zarr", array)[: len(shape) - 1]:
        series = as_series(ims)
        check_series(series, scan)
        assert (series.frame_unit, series.row_unit) == units


@pytest.mark.parametrize("options", [{}, {"shards": (2, 4, 8, 6)}], ids=["chunks", "shards"])
@pytest.mark.parametrize("where", STORES.values(), ids=STORES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_frames_of_a_scan_without_a_chunk(tmp_path, options, where):
    store = where(tmp_path / "scan.zarr")
    chunks = (1, 2, 8, 6)
    array = zarr.create_array(store, shape=(3, 5, 8, 6), dtype="u2", chunks=chunks, **options)
    array[0, 1] = array[2, 4] = 1
    there = np.zeros((3, 5), bool)
    there[0, :2] = there[2, 4] = True
    found = as_series(array).frames_without_data()
    assert found.tolist() == np.flatnonzero(~there).tolist()
    if where is STORES["zip"]:
        store.close()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (8, 6)])
def test_chunks_of_a_scan_that_vanish(tmp_path, zarr_format, shape):
    path = tmp_path / "scan.zarr"
    frames = np.full(shape, 100, "u2")
    for lost in (0, -1):
        save(path, frames, (*[1] * (len(shape) - 2), 4, 6), zarr_format=zarr_format)
        series = as_series(path)
        chunks = [file for file in sorted(path.rglob("*")) if file.is_file()]
        chunks = [file for file in chunks if not file.name.startswith((".z", "zarr"))]
        time.sleep(0.02)  # the clock of the file system advances every few milliseconds
        chunks[lost].unlink()
        with pytest.raises(FileNotFoundError, match="the chunks of frame"):
            series.read(0, len(series), 0, 8)
        shutil.rmtree(path)


def test_chunks_of_a_scan_that_were_never_written_stay_legitimate(tmp_path):
    array = zarr.create_array(
        tmp_path / "scan.zarr", shape=(3, 4, 8, 6), dtype="u2", chunks=(1, 1, 4, 6)
    )
    array[1, 2, 4:] = 5
    series = as_series(tmp_path / "scan.zarr")
    time.sleep(0.02)
    array[2, 3] = 7  # another one meanwhile
    expected = np.zeros((12, 8, 6), "u2")
    expected[6, 4:] = 5
    np.testing.assert_array_equal(np.concatenate(series.read(0, 11, 0, 8)), expected[:11])


# ---------------------------------------------------------------------- paths and groups


def test_image_alone_is_one_frame(tmp_path):
    frame = make_frames("f4")[0]
    save(tmp_path / "flat.zarr", frame, (2, 6))
    check_series(as_series(tmp_path / "flat.zarr"), frame[None])
    save(tmp_path / "group.zarr", frame, (2, 6), name="image")
    save(tmp_path / "group.zarr", np.zeros((8, 6), bool), (2, 6), name="mask")
    check_series(as_series(tmp_path / "group.zarr"), frame[None])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_path_into_a_store(tmp_path, monkeypatch, zarr_format):
    frames = make_frames("u2")
    path = tmp_path / "x.zarr"
    zarr.open_group(path, mode="w", zarr_format=zarr_format)
    save(path, frames, name="0", zarr_format=zarr_format)
    save(path, frames[:3], name="deep/images", zarr_format=zarr_format)
    monkeypatch.chdir(tmp_path)
    for name in ("x.zarr/0", f"{path}/0", path / "0", "x.zarr/0/", "x.zarr::0"):
        check_series(as_series(name), frames)
    for name in ("x.zarr/deep", "x.zarr/deep/images", "x.zarr::/deep", "x.zarr/deep::images"):
        check_series(as_series(name), frames[:3])
    with pytest.raises(ValueError, match=r"x\.zarr has no array '1'"):
        as_series("x.zarr/1")
    with pytest.raises(ValueError, match=r"x\.zarr/deep has no array 'other/a'"):
        as_series("x.zarr/deep/other::/a")
    with pytest.raises(ValueError, match=r"x\.zarr/0 has no array 'c'"):
        as_series("x.zarr/0/c")
    for name in ("no.zarr", "no.zarr/0", "no.zarr.zip", "no.zarr.zip/0"):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*no\.zarr"):
            as_series(name)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("top", ["", "x.zarr/"])
def test_zip_file(tmp_path, zarr_format, top):
    frames = make_frames("u2")
    store = tmp_path / "x.zarr"
    zarr.open_group(store, mode="w", zarr_format=zarr_format)
    save(store, frames, name="images", zarr_format=zarr_format)
    path = tmp_path / "x.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(store.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(store)}")
    shutil.rmtree(store)
    for name in (path, f"{path}::images", f"{path}/images"):
        check_series(as_series(name), frames)
    text = pickle.dumps(as_series(path))
    before = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"")
    with pytest.raises(ValueError, match=r"x\.zarr\.zip has changed since the call"):
        pickle.loads(text).read(0, 1, 0, 5)
    path.write_bytes(before[:-100])
    with pytest.raises(ValueError, match=r"x\.zarr\.zip is no zarr array or group"):
        as_series(path)


def test_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zarr.zip", "w") as archive:
        archive.writestr("notes.txt", b"")
    with pytest.raises(ValueError, match=r"x\.zarr\.zip is no zarr array or group"):
        as_series(tmp_path / "x.zarr.zip")


def ome(path, shape, axes, zarr_format=3, version="0.5"):
    """Write an image of two levels."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    frames = make_frames("u2", int(np.prod(shape[:-2])), *shape[-2:])
    save(path, frames.reshape(shape), shape, name="0", zarr_format=zarr_format)
    half = np.zeros((*shape[:-2], 4, 5), "u2")
    save(path, half, half.shape, name="1", zarr_format=zarr_format)
    image = {"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [image]}}
        if zarr_format == 3
        else {"multiscales": [image | {"version": version}]}
    )
    return frames


AXES = [
    {"name": "t", "type": "time"},
    {"name": "c", "type": "channel"},
    *({"name": name, "type": "space"} for name in "zyx"),
]


@pytest.mark.parametrize(
    ("zarr_format", "axes"), [(3, AXES), (2, AXES), (2, list("tczyx")), (2, [])]
)
def test_first_level_of_an_ome_image(tmp_path, zarr_format, axes):
    path = tmp_path / "x.zarr"
    frames = ome(path, (2, 1, 3, 8, 10), axes, zarr_format)
    for ims in (path, f"{path}/0", zarr.open(path, mode="r")):
        check_series(as_series(ims), frames)
    assert as_series(path).choice == (("/0",), "the first level of an OME-Zarr image")
    outer = tmp_path / "all.zarr"
    zarr.open_group(outer, mode="w", zarr_format=zarr_format)
    path.rename(outer / "image")
    check_series(as_series(outer), frames)
    check_series(as_series(f"{outer}::image"), frames)


def test_channels_are_no_frames(tmp_path):
    path = tmp_path / "x.zarr"
    frames = ome(path, (1, 2, 3, 8, 10), AXES)
    with pytest.raises(ValueError, match=r"x\.zarr::0 has 2 channels, axes \(t, c, z, y, x\)"):
        as_series(path)
    check_series(as_series(f"{path}/0"), frames)


@pytest.mark.parametrize("images", [None, [], {}, "x", [{}], [{"datasets": [{"path": "9"}]}]])
def test_attributes_that_are_no_ome_image(tmp_path, images):
    path = tmp_path / "x.zarr"
    frames = make_frames("u2")
    save(path, frames, name="a")
    zarr.open_group(path, mode="a").attrs["ome"] = {"multiscales": images}
    check_series(as_series(path), frames)


def test_open_group(tmp_path):
    frames = make_frames("u2")
    save(tmp_path / "x.zarr", frames, name="entry/images")
    save(tmp_path / "x.zarr", np.zeros((7, 2)), (7, 2), name="entry/angles")
    group = zarr.open(tmp_path / "x.zarr", mode="r")
    check_series(as_series(group), frames)
    assert as_series(group).choice == (("/entry/images",), "the only series of images")
    check_series(as_series(group["entry"]), frames)


@pytest.mark.parametrize("tiled", [False, True])
def test_store_of_tifffile(tmp_path, tiled):
    # The stores of older ones are for zarr 2.
    tifffile = pytest.importorskip("tifffile", minversion="2025.5")
    frames = make_frames("u2", 7, 32, 48)
    options = {"tile": (16, 16)} if tiled else {"rowsperstrip": 8}
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", compression="zlib", **options)
    with tifffile.imread(path, aszarr=True) as store:
        check_series(as_series(store), frames, pickles=False)


def test_errors_list_ten_arrays(tmp_path):
    for number in range(14):
        save(tmp_path / "x.zarr", make_frames("u2", 1), (1, 5, 6), name=f"a{number}")
    with pytest.raises(ValueError, match=r"14 arrays.*::/a0: /a0 .*/a9 .* and 4 more$"):
        as_series(tmp_path / "x.zarr")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["zarr", "zip", "h5", "group", "several files"])
def test_scans_on_a_cluster(tmp_path, client, kind):
    h5py = pytest.importorskip("h5py")
    scan = make_frames("u2", 12, 8, 6).reshape(3, 4, 8, 6)
    save(tmp_path / "x.zarr", scan, (2, 3, 4, 6))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["scan"] = scan
        for number, frame in enumerate(scan.reshape(-1, 8, 6)):
            file[f"single/frame_{number}"] = frame
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["scan"] = scan[2]
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "x.zarr"), "zip", tmp_path / "x.zarr")
    ims = {
        "zarr": tmp_path / "x.zarr",
        "zip": tmp_path / "x.zarr.zip",
        "h5": f"{tmp_path}/x.h5::/scan",
        "group": f"{tmp_path}/x.h5::/single",
        "several files": [h5py.File(tmp_path / f"{name}.h5")["scan"] for name in "xy"],
    }[kind]
    for statistic in (np.max, np.median):
        image = getattr(stats, statistic.__name__)(ims).compute()
        frames = [scan.reshape(-1, 8, 6), *([scan[2]] if kind == "several files" else [])]
        np.testing.assert_array_equal(image, statistic(np.concatenate(frames), axis=0))
