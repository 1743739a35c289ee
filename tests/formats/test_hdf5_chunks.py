"""HDF5 chunks that are read at their places and decoded without h5py, compared with h5py."""

import gc
import importlib.util
import io
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import read_dense

import daskstats as stats
from daskstats.formats import hdf5, hdf5_chunks, hdf5_decoders, hdf5_places
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")

FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "gzip, shuffle": {"compression": "gzip", "shuffle": True},
    "gzip, shuffle, fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4 in blocks": dict(hdf5plugin.LZ4(nbytes=256)),
    "blosc": dict(hdf5plugin.Blosc("lz4")),
    "blosc, bits": dict(hdf5plugin.Blosc("zstd", shuffle=2)),
    "zstd": dict(hdf5plugin.Zstd()),
    "zstd, shuffle": dict(hdf5plugin.Zstd()) | {"shuffle": True},
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle in blocks": dict(hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
}
# One frame, several (and a frame too few at the end), rows of several, of one, rows too few.
CHUNKS = [(1, 9, 64), (3, 9, 64), (2, 3, 64), (1, 4, 64), (4, 5, 64), (8, 16, 64)]
READS = [(0, 7, 0, 9), (1, 6, 0, 9), (2, 3, 2, 7), (0, 6, 4, 8), (6, 7, 8, 9)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(hdf5_places, "SMALL_FRAME", 0)


def save(path, data, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, **options)
    return path


def data_of(dtype, count=7):
    """Return frames with runs of equal values: filters leave a chunk that does not get smaller."""
    return (np.arange(count * 9 * 64) // 24 % 101).astype(dtype).reshape(count, 9, 64)


def only_at_places(monkeypatch):
    """Make every read by way of h5py an error."""
    monkeypatch.setattr(hdf5, "_read_with_h5py", None)
    # Chunks as small as these are kept decoded by h5py, which reads parts of them.
    monkeypatch.setattr(hdf5_chunks, "CACHE_NBYTES", 0)


def reading(path):
    """Return how the command ``info`` says that a dataset is read."""
    return as_series(path).reading_text()


@pytest.mark.parametrize("name", FILTERS)
def test_equal_to_h5py(tmp_path, monkeypatch, name):
    only_at_places(monkeypatch)
    path = tmp_path / "scan.h5"
    options = {"maxshape": (None,) * 3, **FILTERS[name]}
    with h5py.File(path, "w", libver="latest") as file:
        for dtype in ("u2", ">u2", "u1", "f8", ">i4"):
            for number, chunks in enumerate(CHUNKS):
                file.create_dataset(
                    f"{dtype}{number}", data=data_of(dtype), chunks=chunks, **options
                )
    with h5py.File(path) as file, ThreadPoolExecutor(2) as pool:
        for key, dataset in file.items():
            series = as_series(f"{path}::{key}")
            assert series.reading_text() == "at the places of the chunks, in parallel", key
            blocks = list(pool.map(lambda read, series=series: series.read(*read), READS * 2))
            for (start, stop, first, last), (block,) in zip(READS * 2, blocks, strict=True):
                expected = dataset[start:stop, first:last].astype(series.dtype)
                assert block.dtype == expected.dtype, key
                assert block.tobytes() == expected.tobytes(), (key, start, stop, first, last)


def test_other_layouts(tmp_path, monkeypatch):
    only_at_places(monkeypatch)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        scan = data_of(">u2", 12)
        file["whole"] = scan
        file["image"] = scan[0]
        gzip = {"compression": "gzip"}
        file.create_dataset("axes", data=scan.reshape(3, 4, 9, 64), chunks=(1, 1, 4, 64), **gzip)
        file.create_dataset("rows", data=scan[0], chunks=(4, 64), **gzip)
        file.create_dataset("fill", (12, 9, 64), ">u2", chunks=(2, 4, 64), fillvalue=770, **gzip)
        file["fill"][4:6, 4:9] = 3
        expected = {name: file[name][()].reshape(-1, 9, 64) for name in file}
    for name, frames in expected.items():
        series = as_series(f"{tmp_path / 'scan.h5'}::{name}")
        count = len(frames)
        for read in [(0, count, 0, 9), (count // 2, count, 3, 8), (0, 1, 0, 2)]:
            start, stop, first, last = read
            np.testing.assert_array_equal(
                read_dense(series, (*read, 5)), frames[start:stop, first:last], name
            )
        copy = pickle.loads(pickle.dumps(series))
        np.testing.assert_array_equal(read_dense(copy, (0, count, 0, 9, 3)), frames, name)
    filled = as_series(f"{tmp_path / 'scan.h5'}::fill")
    assert filled.frames_without_data().tolist() == [0, 1, 2, 3, *range(6, 12)]


def test_everything_else_is_left_to_h5py(tmp_path):
    data, path = data_of("u2"), tmp_path / "scan.h5"
    cases = {
        "chunk has 5 columns, and a frame 64": {"data": data, "chunks": (1, 9, 5)},
        "nothing else decodes shuffle$": {"data": data, "chunks": (1, 9, 64), "shuffle": True},
        "decodes lzf": {"data": data, "chunks": (1, 9, 64), "compression": "lzf"},
        "converted to bool": {"data": data > 2, "chunks": (1, 9, 64)},
        "no place of its own": {"shape": data.shape, "dtype": "u2"},
        "several of 2 leading axes": {"data": data[None], "chunks": (1, 2, 9, 64)},
        "without their filters": {
            "data": np.frombuffer(np.random.default_rng(0).bytes(7 * 9 * 64), "u1").reshape(
                7, 9, 64
            ),
            "chunks": (1, 9, 64),
            **hdf5plugin.Blosc(),
        },
    }
    with h5py.File(path, "w") as file:
        for number, options in enumerate(cases.values()):
            file.create_dataset(str(number), **options)
        kind = h5py.h5t.STD_U16LE.copy()
        kind.set_precision(12)
        space = h5py.h5s.create_simple(data.shape)
        file["bits"] = h5py.Dataset(h5py.h5d.create(file.id, None, kind, space))
        file["bits"][...] = data
        layout = h5py.VirtualLayout(data.shape, "u2")
        layout[:] = h5py.VirtualSource(file["0"])
        file.create_virtual_dataset("virtual", layout)
        expected = {name: file[name][()] for name in file}
    names = dict(zip(map(str, range(len(cases))), cases, strict=True))
    names |= {"bits": "converted to uint16", "virtual": "scan.h5::/0: a chunk has 5 columns"}
    for name, why in names.items():
        series = as_series(f"{path}::{name}")
        assert re.search(f"by h5py, one chunk at a time: .*{why}", series.reading_text()), name
        found = read_dense(series, (0, 7, 0, 9, 3))
        np.testing.assert_array_equal(found, expected[name].reshape(-1, 9, 64), name)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_dataset("data", (10**6, 9, 64), "u2", chunks=(1, 9, 64))
    assert "1000000 chunks are far more than there" in reading(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=512) as file:
        file["data"] = data
    assert reading(tmp_path / "block.h5").endswith("the file has a user block")
    with h5py.File(tmp_path / "now.h5", "w") as file:
        file["data"] = data
        assert as_series(file["data"]).reading_text().endswith("the file is being written")
    with h5py.File(io.BytesIO(), "w") as file:
        file["data"] = data
        assert "driver fileobj" in as_series(file["data"]).reading_text()


def test_small_chunks_are_left_to_h5py(tmp_path, monkeypatch):
    path = save(tmp_path / "scan.h5", data_of("u2"), chunks=(1, 9, 64))
    monkeypatch.setattr(hdf5_places, "SMALL_FRAME", 9 * 64 * 2 + 1)
    assert reading(path).endswith("a chunk is small: 1152 bytes")


def test_without_the_packages(tmp_path, monkeypatch):
    """gzip and zstd have other decoders, the others are left to h5py."""
    find = importlib.util.find_spec
    monkeypatch.setattr(hdf5_decoders, "_imagecodecs", lambda: None)
    monkeypatch.setattr(hdf5_decoders, "_bitshuffle_library", lambda: None)
    monkeypatch.setattr(hdf5_decoders, "_dectris", lambda: None)
    for name, ours in (
        ("gzip, shuffle", True),
        ("zstd", True),
        ("lz4", False),
        ("bitshuffle", False),
    ):
        path = save(tmp_path / f"{name}.h5", data_of("u2"), chunks=(1, 9, 64), **FILTERS[name])
        series = as_series(path)
        assert series.reading_text().startswith("at the places") == ours, name
        np.testing.assert_array_equal(read_dense(series, (0, 7, 0, 9, 3)), data_of("u2"), name)
    monkeypatch.undo()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: name != "hdf5plugin" and find(name)
    )
    assert hdf5_decoders._bitshuffle_library.__wrapped__() is None


def test_bitshuffle_by_dectris_compression(tmp_path, monkeypatch):
    """The package is called as it is documented, and its errors are those of damage."""
    only_at_places(monkeypatch)
    shape, calls = (1, 9, 64), []

    def decompress(data, algorithm, elem_size):
        calls.append((bytes(data[:8]), algorithm, elem_size))
        if len(calls) > 7:
            raise RuntimeError("error decompressing stream")
        return data_of("u4")[len(calls) - 1].tobytes()

    monkeypatch.setattr(hdf5_decoders, "_dectris", lambda: decompress)
    path = save(tmp_path / "scan.h5", data_of("u4"), chunks=shape, **FILTERS["bitshuffle"])
    series = as_series(path)
    np.testing.assert_array_equal(read_dense(series, (0, 7, 0, 9, 3)), data_of("u4"))
    assert calls == [((9 * 64 * 4).to_bytes(8, "big"), "bslz4", 4)] * 7
    with pytest.raises(OSError, match="frame 0 at byte .* is damaged: error decompressing stream"):
        series.read(0, 1, 0, 9)


@pytest.mark.parametrize(
    "name", [name for name in FILTERS if name not in ("none", "lz4 in blocks")]
)
def test_damaged_chunk(tmp_path, monkeypatch, name):
    """Whatever a decoder makes of damage, h5py has the last word."""
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", ())
    data = data_of("u2")
    path = save(tmp_path / "scan.h5", data, chunks=(1, 9, 64), **FILTERS[name])
    with h5py.File(path) as file:
        place = file["data"].id.get_chunk_info_by_coord((3, 0, 0))
    stored = path.read_bytes()
    damaged = bytearray(stored)
    damaged[place.byte_offset : place.byte_offset + 16] = b"\xff" * 16
    path.write_bytes(damaged)
    series = as_series(path)
    assert series.reading_text().startswith("at the places")
    np.testing.assert_array_equal(read_dense(series, (0, 3, 0, 9, 3)), data[:3])
    with pytest.raises(OSError, match=r"scan\.h5: the chunk of frame 3 at byte \d+ is damaged: "):
        read_dense(series, (0, 7, 0, 9, 4))


def test_damage_that_only_the_decoder_here_finds(tmp_path, monkeypatch):
    path = save(tmp_path / "scan.h5", data_of("u2"), chunks=(2, 9, 64), compression="gzip")
    series = as_series(path)

    def fail(raw, out):
        raise RuntimeError("no")

    (part,) = series._parts
    part.places = replace(part.places, decode=fail)
    np.testing.assert_array_equal(read_dense(series, (0, 7, 0, 9, 2)), data_of("u2"))


@pytest.mark.parametrize("change", ["replaced", "written", "gone"])
def test_file_that_changes_is_left_to_h5py(tmp_path, monkeypatch, change):
    data, path = data_of("u2"), tmp_path / "scan.h5"
    save(path, data, chunks=(1, 9, 64))
    series = as_series(path)
    if change == "replaced":
        save(tmp_path / "other.h5", data + 1, chunks=(1, 9, 64)).replace(path)
    elif change == "written":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
    calls, read = [], hdf5._read_with_h5py
    monkeypatch.setattr(hdf5, "_read_with_h5py", lambda *args: calls.append(args) or read(*args))
    np.testing.assert_array_equal(read_dense(series, (0, 7, 0, 9, 7)), data)
    assert len(calls) == 1


def test_file_that_is_cut_off_meanwhile(tmp_path):
    path = save(tmp_path / "scan.h5", data_of("u2"))
    series = as_series(path)
    os.truncate(path, path.stat().st_size - 300)
    with pytest.raises(ValueError, match="cut off while it was being read"):
        series.read(6, 7, 0, 9)


def test_parts_of_chunks_that_h5py_keeps(tmp_path, monkeypatch):
    series = as_series(
        save(tmp_path / "scan.h5", data_of("u2"), chunks=(3, 9, 64), compression="gzip")
    )
    calls, read = [], hdf5._read_with_h5py
    monkeypatch.setattr(hdf5, "_read_with_h5py", lambda *args: calls.append(args) or read(*args))
    series.read(0, 3, 2, 5), series.read(3, 7, 0, 9)
    assert not calls
    np.testing.assert_array_equal(series.read(1, 4, 0, 9)[0], data_of("u2")[1:4])
    assert len(calls) == 1


def test_image_computed_while_the_lock_is_held(tmp_path):
    path = save(tmp_path / "scan.h5", data_of("u2"), chunks=(1, 9, 64), compression="gzip")
    lazy = stats.max(path)
    gc.collect()  # objects of h5py that are deleted in a task take the lock
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["dark"] = lazy
        np.testing.assert_array_equal(file["dark"][()], data_of("u2").max(0))


# ---------------------------------------------------------------------- axes that may grow

GROWING = {
    "columns": ((5, 9, 64), (1, 9, 64), (5, 9, None)),
    "rows": ((5, 9, 64), (1, 3, 64), (5, None, 64)),
    "scan": ((2, 8, 9, 64), (1, 1, 9, 64), (2, None, 9, 64)),
    "both after the first": ((5, 9, 64), (1, 3, 64), (5, None, None)),
    "frames": ((5, 9, 64), (1, 3, 64), (None, 9, 64)),
}
"""shape, chunks and maxshape"""


def growing(path, kind, written=slice(None)):
    """Write a dataset of which some axes may grow; return its frames."""
    shape, chunks, maxshape = GROWING[kind]
    data = np.random.default_rng(1).integers(1, 9, shape).astype("u2")
    options = {"chunks": chunks, "maxshape": maxshape, "compression": "gzip"}
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset("data", shape, "u2", **options)
        dataset[:, written] = data[:, written]
        return dataset[()].reshape(-1, *shape[-2:])


@pytest.mark.parametrize("kind", GROWING)
def test_axes_that_may_grow(tmp_path, kind):
    """The library lists wrong places where the only axis that may grow is not the first."""
    frames = growing(tmp_path / "scan.h5", kind)
    layout = h5py.VirtualLayout(frames.shape, "u2")
    shape = GROWING[kind][0]
    if len(shape) == 3:
        layout[...] = h5py.VirtualSource("scan.h5", "data", shape)
    else:
        for number in range(shape[0]):
            source = h5py.VirtualSource("scan.h5", "data", shape)[number]
            layout[number * shape[1] : (number + 1) * shape[1]] = source
    with h5py.File(tmp_path / "shown.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    for name in ("scan.h5", "shown.h5"):
        series = as_series(tmp_path / name)
        found = read_dense(series, (0, len(frames), 0, 9, 3))
        np.testing.assert_array_equal(found, frames, name)
        assert not series.frames_without_data().size
        wrong = kind in ("columns", "rows", "scan")
        assert ("lists wrong chunks" in series.reading_text()) == wrong


def test_axes_that_may_grow_of_a_scan_that_was_stopped(tmp_path):
    """Chunks that are listed wrongly do not tell which frames were written."""
    frames = growing(tmp_path / "scan.h5", "scan", slice(0, 4))
    series = as_series(tmp_path / "scan.h5")
    np.testing.assert_array_equal(read_dense(series, (0, 16, 0, 9, 3)), frames)
    assert not series.frames_without_data().size


def test_image_whose_columns_may_grow(tmp_path):
    image = np.random.default_rng(2).random((200, 64))
    with h5py.File(tmp_path / "mask.h5", "w", libver="latest") as file:
        file.create_dataset("data", data=image, chunks=(16, 64), maxshape=(200, None))
    np.testing.assert_array_equal(hdf5.read_image(tmp_path / "mask.h5"), image)


@pytest.mark.parametrize("moved", [(0, 9, 0), (5, 0, 0), (2, 0, 0)])
def test_chunks_that_are_listed_in_impossible_places(tmp_path, moved):
    """Beyond the rows, beyond the frames, and where another chunk is."""
    path = save(tmp_path / "scan.h5", data_of("u2", 5), chunks=(1, 9, 64))

    class Listing:
        """Lists the second chunk in another place."""

        def __init__(self, dataset):
            self._id = dataset.id

        def __getattr__(self, name):
            return getattr(self._id, name)

        def chunk_iter(self, add):
            def one(info):
                add(info._replace(chunk_offset=moved) if info.chunk_offset[0] == 1 else info)

            self._id.chunk_iter(one)

    with h5py.File(path) as file:
        dataset = file["data"]
        state = hdf5_chunks.handle_state(file.id.get_vfd_handle())
        shown = SimpleNamespace(
            id=Listing(dataset),
            chunks=dataset.chunks,
            shape=dataset.shape,
            maxshape=dataset.maxshape,
        )
        with pytest.raises(hdf5_places.Obstacle, match="outside of the dataset, or two in one"):
            hdf5_places._chunk_table(shown, state)
