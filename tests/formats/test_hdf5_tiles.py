"""Virtual HDF5 datasets that are read at the places of their sources' chunks, beside h5py."""

import gc
import pickle
import re
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest
from helpers import make_frames, read_dense

import daskstats as stats
from daskstats.formats import hdf5, hdf5_chunks, hdf5_places
from daskstats.formats.hdf5_tiles import even_runs
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")

COUNT, ROWS, COLS = 10, 9, 64
STORED = {
    "contiguous": {},
    "gzip, shuffle": {"chunks": (4, ROWS, COLS), "compression": "gzip", "shuffle": True},
    "bitshuffle": {"chunks": (1, 4, COLS), **hdf5plugin.Bitshuffle(cname="lz4")},
}
AT_PLACES = "at the places of the chunks, in parallel"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(hdf5_places, "SMALL_FRAME", 0)


def save(path, stored="contiguous", dtype="u2", count=COUNT):
    """Write a file of frames with runs of equal values; each file has others."""
    seed = sum(path.name.encode())
    frames = (seed + np.arange(count * ROWS * COLS) // 24 % 101).astype(dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=frames.reshape(count, ROWS, COLS), **STORED[stored])
    return path


def sources(place, count=COUNT, dtype="u2", stored=("contiguous", "gzip, shuffle", "bitshuffle")):
    """Write a file of each kind; return their virtual sources."""
    place.mkdir(exist_ok=True)
    names = [f"part_{number}.h5" for number in range(len(stored))]
    for name, kind in zip(names, stored, strict=True):
        save(place / name, kind, dtype, count)
    return [h5py.VirtualSource(name, "data", (count, ROWS, COLS), dtype) for name in names]


def show(place, shape, mappings, dtype="u2", fillvalue=None):
    """Write a virtual dataset of pairs (index, source); return its path."""
    layout = h5py.VirtualLayout(shape, dtype)
    for index, source in mappings:
        layout[index] = source
    path = place / f"scan_{len([*place.glob('scan_*.h5')])}.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=fillvalue)
    return path


def followed(place, parts):
    """Show files one after the other."""
    count = parts[0].shape[0]
    mappings = [(slice(count * k, count * (k + 1)), part) for k, part in enumerate(parts)]
    return show(place, (count * len(parts), ROWS, COLS), mappings, parts[0].dtype)


def taken_in_turn(place, parts):
    """Show frame k of the file k mod n."""
    nframes = parts[0].shape[0] * len(parts)
    mappings = [(slice(number, None, len(parts)), part) for number, part in enumerate(parts)]
    return show(place, (nframes, ROWS, COLS), mappings, parts[0].dtype)


def layouts(place, count=COUNT, dtype="u2", **options):
    """Yield the name and the path of virtual datasets of all kinds that have places."""
    one, two, three = parts = sources(place, count, dtype, **options)
    yield "followed", followed(place, parts)
    yield "in turn", taken_in_turn(place, parts)
    each = [(slice(count * k, count * (k + 1)), part) for k, part in enumerate(parts)]
    cases = {
        "cropped": ((3 * count, 5, 35), [(index, part[:, 2:7, 5:40]) for index, part in each]),
        "unaligned": (
            (14, ROWS, COLS),
            [(slice(7), two[1:8]), (slice(7, 9), one[1:3]), (slice(9, 14), three[5:10])],
        ),
        "every other": (
            (count, ROWS, COLS),
            [(slice(count // 2), two[::2]), (slice(count // 2, count), two[1::2])],
        ),
        "backwards": ((count, ROWS, COLS), [(k, two[count - 1 - k]) for k in range(count)]),
        "modules": (
            (count, 2 * ROWS, 2 * COLS - 4),
            [
                (np.s_[:, :ROWS, :COLS], one),
                (np.s_[:, :ROWS, COLS:], two[:, :, 4:]),
                (np.s_[:, ROWS:, : COLS - 4], three[:, :, :-4]),
                (np.s_[:, ROWS:, COLS - 4 :], one),
            ],
        ),
        "swapped": ((count, ROWS, COLS), [(np.s_[:, :4], two[:, 5:]), (np.s_[:, 4:], two[:, :5])]),
        "scan": ((3, count, ROWS, COLS), [*enumerate(parts)]),
    }
    for name, (shape, mappings) in cases.items():
        yield name, show(place, shape, mappings, dtype)


def windows(nframes, rows):
    """Yield windows of reads: all, one frame, cut chunks, cut bands."""
    spans = (0, nframes), (0, 1), (3, nframes - 2), (nframes // 2, nframes)
    bands = (0, rows), (1, 2), (rows // 2, rows)
    return [(*span, *band) for span, band in product(spans, bands)]


@pytest.mark.parametrize("dtype", ["u2", ">i4"])
def test_equal_to_h5py(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(hdf5, "_read_with_h5py", None)
    monkeypatch.setattr(hdf5_places, "CACHE_NBYTES", 0)
    monkeypatch.setattr(hdf5_chunks, "CACHE_NBYTES", 3 * COLS * 2)  # three rows
    for name, path in layouts(tmp_path, dtype=dtype):
        series = as_series(f"{path}::/data")
        assert series.reading_text() == AT_PLACES, name
        assert not series.uses_h5py
        with h5py.File(path) as file:
            frames = file["data"][()]
        frames = frames.reshape(-1, *frames.shape[-2:]).astype(series.dtype)
        for each in (series, pickle.loads(pickle.dumps(series))):
            for start, stop, first, last in windows(*frames.shape[:2]):
                block = np.concatenate(each.read(start, stop, first, last))
                expected = frames[start:stop, first:last]
                assert block.dtype == expected.dtype
                assert block.tobytes() == expected.tobytes(), (name, start, stop, first, last)


def count_decodes(monkeypatch):
    """Count how often the chunk of each place is decoded."""
    found, decode = Counter(), hdf5_chunks.Places._decode

    def counted(places, raw, out, where):
        found[places.path.name, where] += 1
        decode(places, raw, out, where)

    monkeypatch.setattr(hdf5_chunks.Places, "_decode", counted)
    return found


def test_each_chunk_is_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr("daskstats.planning.cuts.SMALLEST_BLOCK", 2 * ROWS * COLS * 2)
    found = count_decodes(monkeypatch)
    for name, path in layouts(tmp_path, 12, stored=["gzip, shuffle"] * 3):
        found.clear()
        series = as_series(f"{path}::/data")
        with h5py.File(path) as file:
            frames = file["data"][()].reshape(-1, *series.shape)
        plan = stats.plan(series, "max")
        assert plan.reads == 1, name
        assert len(plan.blocks) > 1 or series.frame_unit == len(series), name
        np.testing.assert_array_equal(stats.max(series).compute(num_workers=2), frames.max(0))
        # No number of frames cuts none of the chunks that are not aligned: tasks may cut some.
        cut = len(plan.blocks) - 1 if name == "unaligned" else 0
        assert 0 <= found.total() - len(found) <= cut, (name, found)
        assert found


def test_chunks_of_files_that_end_within_one(tmp_path, monkeypatch):
    """Of files with 10 frames and chunks of 4, only the ends of tasks cut chunks."""
    found = count_decodes(monkeypatch)
    series = as_series(followed(tmp_path, sources(tmp_path, stored=["gzip, shuffle"] * 3)))
    assert series.frame_unit == 4
    for each in (series, pickle.loads(pickle.dumps(series))):
        found.clear()
        lengths = [len(block) for piece in each.pieces(0, 30, 0, ROWS, 4) for block in piece]
        assert lengths == [4, 4, 2] * 3
        assert found.total() == len(found) == 9
    read_dense(series, (1, 29, 0, ROWS, 3))  # fewer frames than a chunk has


def test_frames_of_chunks_that_several_mappings_show(tmp_path):
    """As many mappings as frames: the unit is that of all together."""
    (part,) = sources(tmp_path, stored=["gzip, shuffle"])
    one_by_one = [(number, part[number]) for number in range(COUNT)]
    series = as_series(show(tmp_path, (COUNT, ROWS, COLS), one_by_one))
    assert (series.frame_unit, series.reading_text()) == (4, AT_PLACES)


def obstacles(place):
    """Yield the reason why h5py has to read a virtual dataset, and that."""
    one, two, three = sources(place)
    shape, forever = (COUNT, ROWS, COLS), h5py.h5s.UNLIMITED
    half = slice(0, COUNT // 2)
    yield "show the same parts of every", show(place, shape, [(half, one[half])], fillvalue=7)
    yield "do not fill its frames", show(place, shape, [(np.s_[:, :5], one[:, :5])], fillvalue=7)
    yield "every frame, each once", show(place, shape, [(np.s_[:], one), (half, two[half])])
    boxes = [(np.s_[:, :6], one[:, :6]), (np.s_[:, 5:], two[:, 5:])]
    yield "its mappings overlap", show(place, shape, boxes)
    lines = [(np.s_[:, ::2], one[:, ::2]), (np.s_[:, 1::2], two[:, 1::2])]
    yield "no boxes of pixels", show(place, shape, lines)
    yield (
        "part_0.h5::/data has to be conv.* <u2 to <u4",
        show(place, shape, [(half, one[half]), (slice(5, 10), two[5:])], "u4"),
    )
    with h5py.File(place / "lzf.h5", "w") as file:
        file.create_dataset("data", shape, "u2", chunks=(1, ROWS, COLS), compression="lzf")[:] = 3
    other = h5py.VirtualSource("lzf.h5", "data", shape)
    yield "lzf.h5::/data: nothing else decodes lzf", show(place, shape, [(np.s_[:], other)])
    inner = show(place, shape, [(np.s_[:], three)]).rename(place / "inner.h5")
    nested = h5py.VirtualSource(inner.name, "data", shape)
    yield "inner.h5::/data: the dataset is virtual", show(place, shape, [(np.s_[:], nested)])
    layout = h5py.VirtualLayout(shape, "u2", maxshape=(None, ROWS, COLS))
    grows = h5py.VirtualSource("grows.h5", "data", shape, maxshape=(None, ROWS, COLS))
    layout[0:forever] = grows[0:forever]
    with h5py.File(place / "grows.h5", "w") as file:
        data = make_frames("u2", *shape)
        file.create_dataset("data", data=data, chunks=(1, ROWS, COLS), maxshape=(None, ROWS, COLS))
    with h5py.File(place / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    yield "it grows with the datasets", place / "scan.h5"


def test_everything_else_is_left_to_h5py(tmp_path):
    for why, path in obstacles(tmp_path):
        series = as_series(f"{path}::/data")
        assert re.search(f"by h5py, one chunk at a time: .*{why}", series.reading_text()), why
        with h5py.File(path) as file:
            expected = file["data"][()]
        np.testing.assert_array_equal(read_dense(series, (0, COUNT, 0, ROWS, 4)), expected, why)
    # The library takes a frame that is mapped twice for one that is not mapped at all.
    one, two, _ = sources(place := tmp_path / "twice")
    twice = [(slice(5), one[:5]), (slice(4, 9), two[:5])]
    series = as_series(show(place, (COUNT, ROWS, COLS), twice, fillvalue=7))
    assert series.reading_text().endswith("its mappings overlap")


class Noting:
    """A dataset that notes which frames are read at once."""

    def __init__(self, dataset):
        self.dataset, self.reads = dataset, []

    def __getitem__(self, index):
        self.reads.append(range(*index[0].indices(self.dataset.shape[0])))
        return self.dataset[index]


def by_h5py(path, read=(0, 3 * COUNT)):
    """Read frames by h5py; return them, and the numbers of those that it read at once."""
    series = as_series(path)
    (part,) = series._parts
    assert isinstance(part.places, str)
    part.dataset = noting = Noting(part.dataset)
    return np.concatenate(series.read(*read, 2, ROWS)), noting.reads


def test_h5py_never_reads_on_both_sides_of_a_gap(tmp_path, monkeypatch):
    """It would take a hundred times longer for each frame."""
    monkeypatch.setattr(hdf5_places, "SMALL_FRAME", 1 << 20)
    one, two, three = parts = sources(tmp_path)
    turns = [(slice(3 * k, 3 * k + 3), parts[k % 3][k // 3 * 3 : k // 3 * 3 + 3]) for k in range(9)]
    in_turn = taken_in_turn(tmp_path, parts)
    nested = h5py.VirtualSource(in_turn.name, "data", (3 * COUNT, ROWS, COLS), "u2")
    cases = [
        (3, in_turn),
        (3, show(tmp_path, (20, ROWS, COLS), [(slice(20), nested[:20])])),
        (5, show(tmp_path, (COUNT, ROWS, COLS), [(slice(None, None, 5), one[:2])])),
        (COUNT, show(tmp_path, (COUNT, ROWS, COLS), [(np.s_[:, :4], two[:, 5:])])),
        (3 * COUNT, followed(tmp_path, [one, two, three])),
        (27, show(tmp_path, (27, ROWS, COLS), turns)),  # each run is a mapping of its own
    ]
    for most, path in cases:
        with h5py.File(path) as file:
            expected = file["data"][:, 2:]
        frames, reads = by_h5py(path, (1, len(expected)))
        np.testing.assert_array_equal(frames, expected[1:])
        assert [number for each in reads for number in each] == [*range(1, len(expected))]
        assert max(map(len, reads)) == min(most, len(expected) - 1), path


CHANGES = {
    "gone": lambda part: part.unlink(),
    "replaced": lambda part: shutil.copy(part, part.with_name("o")).replace(part),
    "cut off": lambda part: part.write_bytes(part.read_bytes()[:-1]),
    "half": lambda part: part.write_bytes(part.read_bytes()[: part.stat().st_size // 2]),
    "empty": lambda part: part.write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_source_that_changes_after_the_call(tmp_path, monkeypatch, change):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", ())
    for number, make in enumerate((followed, taken_in_turn)):
        for kind in STORED:
            place = tmp_path / f"{number} {kind}"
            path = make(place, sources(place, stored=[kind] * 3))
            series = as_series(path)
            assert series.reading_text() == AT_PLACES
            lazy = stats.max(series)
            part = path.with_name("part_1.h5")
            CHANGES[change](part)
            with pytest.raises((ValueError, OSError), match=r"part_1\.h5"):
                lazy.compute(num_workers=2)
            if make is followed:
                assert read_dense(series, (0, COUNT, 0, ROWS, COUNT)).any()  # of another file


def test_source_that_is_written_after_the_call(tmp_path):
    """h5py reads a file that is the same one and has another time of change."""
    path = followed(tmp_path, sources(tmp_path))
    series = as_series(path)
    with h5py.File(path) as file:
        expected = file["data"][()]
    path.with_name("part_0.h5").touch()
    np.testing.assert_array_equal(read_dense(series, (0, 30, 0, ROWS, 30)), expected)


def test_image_computed_while_the_lock_is_held(tmp_path):
    lazy = stats.max(path := taken_in_turn(tmp_path, sources(tmp_path)))
    gc.collect()  # objects of h5py that are deleted in a task take the lock
    with h5py.File(tmp_path / "out.h5", "w") as file, h5py.File(path) as scan:
        file["dark"] = lazy
        np.testing.assert_array_equal(file["dark"][()], scan["data"][()].max(0))


def test_parts_of_chunks_that_h5py_keeps(tmp_path, monkeypatch):
    series = as_series(taken_in_turn(tmp_path, sources(tmp_path, 10, stored=["gzip, shuffle"] * 2)))
    calls, read = [], hdf5._read_with_h5py
    monkeypatch.setattr(hdf5, "_read_with_h5py", lambda *args: calls.append(args) or read(*args))
    assert series.frame_unit == 8
    series.read(0, 8, 2, 5), series.read(8, 20, 0, ROWS)
    assert not calls
    series.read(1, 8, 0, ROWS)
    assert len(calls) == 1


def test_damaged_chunk_of_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", ())
    path = taken_in_turn(tmp_path, sources(tmp_path, stored=["gzip, shuffle"] * 2))
    part = path.with_name("part_1.h5")
    with h5py.File(part) as file:
        place = file["data"].id.get_chunk_info_by_coord((4, 0, 0))
    stored = bytearray(part.read_bytes())
    stored[place.byte_offset : place.byte_offset + 16] = b"\xff" * 16
    part.write_bytes(stored)
    series = as_series(path)
    series.read(0, 8, 0, ROWS)
    with pytest.raises(OSError, match=r"part_1\.h5: the chunk of frames 4 to 7 at byte \d+ is dam"):
        series.read(8, 16, 0, ROWS)


def test_even_runs():
    rng = np.random.default_rng(0)
    for length in (1, 3, 50):
        numbers = rng.integers(0, 50, 40).tolist()
        pairs = [*zip(numbers, sorted(rng.permutation(100)[:40].tolist()), strict=True)]
        found = []
        for chunk, inner, here in even_runs(pairs, length):
            frames = range(*inner.indices(length)), range(*here.indices(100))
            found += (
                (chunk * length + number, place) for number, place in zip(*frames, strict=True)
            )
        assert found == pairs
