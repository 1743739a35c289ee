"""Frames behind links and in virtual datasets: found, checked, and never read as fill values."""

import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from dask.base import tokenize
from helpers import check_series, make_frames, read_dense

import daskstats as stats
from daskstats.formats import hdf5_places
from daskstats.formats.hdf5_links import find_file
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")

NFRAMES, ROWS, COLS = 10, 8, 6


def frames_of(number, nframes=NFRAMES):
    return make_frames("u2", nframes, ROWS, COLS, seed=number)


def save(path, frames, name="data", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=frames, **options)
    return path


def virtual(path, parts, nframes=None, name="data", dtype="u2", **options):
    """Write a virtual dataset; parts are (frames of it, file, dataset, selection of the source).

    A selection is (shape of the source, index).
    """
    total = nframes or max(np.arange(10**6)[where].max() + 1 for where, *_ in parts)
    layout = h5py.VirtualLayout((total, ROWS, COLS), dtype)
    for where, file, dataset, (shape, index) in parts:
        layout[where] = h5py.VirtualSource(str(file), dataset, shape)[index]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout, **options)
    return path


def three(tmp_path, **options):
    """Write three files of ten frames, and a virtual dataset of them; return it and its frames."""
    every = []
    for number in range(3):
        save(tmp_path / f"part_{number}.h5", frames_of(number), **options)
        every.append(frames_of(number))
    parts = [
        (slice(10 * k, 10 * k + 10), f"part_{k}.h5", "data", ((NFRAMES, ROWS, COLS), slice(None)))
        for k in range(3)
    ]
    return virtual(tmp_path / "scan.h5", parts), np.concatenate(every)


def unlimited(path, names, stride=1, maxshape=(None, ROWS, COLS), **options):
    """Write a virtual dataset that grows: frame k of file i is frame ``stride * k + i``."""
    forever = h5py.h5s.UNLIMITED
    layout = h5py.VirtualLayout((len(names), ROWS, COLS), "u2", maxshape=(None, ROWS, COLS))
    for number, name in enumerate(names):
        source = h5py.VirtualSource(name, "data", (1, ROWS, COLS), maxshape=maxshape)
        layout[number:forever:stride] = source[0:forever]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout, **options)
    return path


def printf(path, pattern, block=NFRAMES, dataset="data"):
    """Write a virtual dataset whose sources are numbered files."""
    h5s, forever = h5py.h5s, h5py.h5s.UNLIMITED
    space = h5s.create_simple((block, ROWS, COLS), (forever, ROWS, COLS))
    space.select_hyperslab(
        (0, 0, 0), (forever, 1, 1), stride=(block, ROWS, COLS), block=(block, ROWS, COLS)
    )
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    source = h5s.create_simple((block, ROWS, COLS))
    plist.set_virtual(space, pattern.encode(), dataset.encode(), source)
    extent = h5s.create_simple((0, ROWS, COLS), (forever, ROWS, COLS))
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, extent, plist)
    return path


# ---------------------------------------------------------------------- right values


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4, 6), "compression": "gzip"}])
def test_virtual_dataset(tmp_path, options):
    path, frames = three(tmp_path, **options)
    series = as_series(f"{path}::/data")
    check_series(series, frames)
    assert series.files() == (path, *(tmp_path / f"part_{k}.h5" for k in range(3)))
    with h5py.File(path) as file:
        check_series(as_series(file["data"]), frames)
    check_series(as_series(path), frames)  # its sources are in other files


def test_virtual_dataset_of_virtual_datasets_behind_links(tmp_path):
    path, frames = three(tmp_path / "deep")
    shape = 30, ROWS, COLS
    middle = virtual(
        tmp_path / "middle.h5",
        [
            (slice(0, 5), "deep/scan.h5", "data", (shape, slice(20, 25))),
            (slice(5, 10), "deep/scan.h5", "data", (shape, slice(0, 25, 5))),
        ],
    )
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["entry/scan"] = h5py.ExternalLink("middle.h5", "/")
        file["entry/soft"] = h5py.SoftLink("/entry/scan/data")
    with h5py.File(tmp_path / "top.h5", "w") as file:
        file["everything"] = h5py.ExternalLink("links.h5", "/entry")
    expected = np.concatenate([frames[20:25], frames[0:25:5]])
    for name in ("/everything/soft", "everything/scan/data"):
        series = as_series(f"{tmp_path / 'top.h5'}::{name}")
        check_series(series, expected)
        assert set(series.files()) == {
            tmp_path / "top.h5",
            tmp_path / "links.h5",
            middle,
            path,
            *(tmp_path / "deep" / f"part_{k}.h5" for k in range(3)),
        }


@pytest.mark.parametrize("count", [1, 3])
def test_numbered_files_of_a_pattern(tmp_path, count):
    for number in range(count):
        save(tmp_path / f"part_{number}.h5", frames_of(number))
    path = printf(tmp_path / "scan.h5", "part_%b.h5")
    series = as_series(f"{path}::/data")
    check_series(series, np.concatenate([frames_of(number) for number in range(count)]))
    assert len(series.files()) == 1 + count
    assert not series.frames_without_data().size


def test_interleaved_files_that_grow(tmp_path):
    for number in range(2):
        save(
            tmp_path / f"part_{number}.h5",
            frames_of(number),
            chunks=(2, ROWS, COLS),
            maxshape=(None, ROWS, COLS),
        )
    path = unlimited(tmp_path / "scan.h5", ["part_0.h5", "part_1.h5"], stride=2)
    expected = np.stack([frames_of(0), frames_of(1)], 1).reshape(-1, ROWS, COLS)
    series = as_series(f"{path}::/data")
    check_series(series, expected)
    # the two frames of a chunk are two apart, and cuts at multiples of 3 would part some of them
    assert series.frame_unit == 4


@pytest.mark.parametrize(
    "where", ["same", "next", "absolute", "moved", "prefix", "working directory", "link"]
)
def test_sources_are_found_where_the_library_finds_them(tmp_path, monkeypatch, where):
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    monkeypatch.chdir(other if where == "working directory" else "/")
    name = {"absolute": str(other / "part.h5"), "moved": "/no/such/directory/part.h5"}.get(
        where, "." if where == "same" else "part.h5"
    )
    place = {"same": home / "scan.h5", "next": home, "moved": home, "link": home}.get(where, other)
    save(place if where == "same" else place / "part.h5", frames_of(0), "raw")
    path = virtual(
        home / "scan.h5", [(slice(0, 10), name, "raw", ((NFRAMES, ROWS, COLS), slice(None)))]
    )
    if where == "link":
        (other / "scan.h5").symlink_to(path)
        path = other / "scan.h5"
    if where == "prefix":
        monkeypatch.setenv("HDF5_VDS_PREFIX", str(other))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][:], frames_of(0))
    series = as_series(f"{path}::/data")
    np.testing.assert_array_equal(read_dense(series, (0, NFRAMES, 0, ROWS, 4)), frames_of(0))


def test_directories_are_searched_in_order(tmp_path, monkeypatch):
    for name in ("home", "first", "second", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    own = tmp_path / "home" / "scan.h5"
    assert find_file("part.h5", own) is None
    for name in ("here", "home", "second", "first"):
        (tmp_path / name / "part.h5").touch()
        prefixes = f"{tmp_path}/first:${{ORIGIN}}/../second"
        assert find_file("part.h5", own, prefixes) == tmp_path / name / "part.h5"


# ---------------------------------------------------------------------- what is not there


def test_source_that_is_gone(tmp_path):
    """Three files of ten frames of 100, one of them deleted: the average was 66.67."""
    for number in range(3):
        save(tmp_path / f"part_{number}.h5", np.full((NFRAMES, ROWS, COLS), 100, "u2"))
    whole = (NFRAMES, ROWS, COLS), slice(None)
    path = virtual(
        tmp_path / "scan.h5",
        [(slice(10 * k, 10 * k + 10), f"part_{k}.h5", "data", whole) for k in range(3)],
    )
    assert (stats.average(path).compute() == 100).all()
    (tmp_path / "part_1.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"scan\.h5.*'/data' refers to part_1\.h5.*no file"):
        stats.average(path)
    with (
        h5py.File(path) as file,
        pytest.raises(FileNotFoundError, match=r"refers to part_1\.h5"),
    ):
        stats.average(file["data"])


@pytest.mark.parametrize("lost", [(0,), (1,), (1, 2)])
@pytest.mark.parametrize(
    "pattern", ["part_%b.h5", "{home}/part_%b.h5", "{home}/%b/100%%_%b[0].h5", "/lost/part_%b.h5"]
)
def test_numbered_file_that_is_gone(tmp_path, pattern, lost):
    """The library takes the series to end before it."""
    names = [
        pattern.replace("%b", str(number)).replace("%%", "%").format(home=tmp_path)
        for number in range(5)
    ]
    kept = [tmp_path / name.removeprefix("/lost/") for name in names]
    for number, place in enumerate(kept):
        save(place, frames_of(number))
    path = printf(tmp_path / "scan.h5", pattern.format(home=tmp_path))
    assert len(as_series(f"{path}::/data")) == 5 * NFRAMES
    for number in lost:
        kept[number].unlink()
    with pytest.raises(FileNotFoundError, match=f"refers to {re.escape(names[lost[0]])}, and .*no"):
        as_series(f"{path}::/data")


def test_numbered_dataset_that_is_gone(tmp_path):
    for number in (0, 1, 2, 3):
        save(tmp_path / "parts.h5", frames_of(number), f"deep/part_{number}")
    path = printf(tmp_path / "scan.h5", "parts.h5", dataset="deep/part_%b")
    assert len(as_series(f"{path}::/data")) == 4 * NFRAMES
    with h5py.File(tmp_path / "parts.h5", "a") as file:
        file.move("deep/part_2", "deep/other")
    with pytest.raises(ValueError, match=r"parts\.h5::deep/part_2: there is no 'part_2' in /deep"):
        as_series(f"{path}::/data")


def test_numbered_files_that_are_not_written_yet(tmp_path):
    for number in range(2):
        save(tmp_path / f"part_{number}.h5", frames_of(number))
    for number in range(2, 5):  # a program has created its files
        with h5py.File(tmp_path / f"part_{number}.h5", "w"):
            pass
    save(tmp_path / "part_04.h5", frames_of(4))
    save(tmp_path / "part_x.h5", frames_of(5))
    path = printf(tmp_path / "scan.h5", "part_%b.h5")
    check_series(as_series(f"{path}::/data"), np.concatenate([frames_of(0), frames_of(1)]))


@pytest.mark.parametrize("name", ["scan.h5", "scan.h5::/data", "top.h5"])
@pytest.mark.parametrize("fault", ["no group", "damaged"])
def test_numbered_file_without_a_shape(tmp_path, name, fault):
    """The library says that a component is not found, and not of which file."""
    place = save(tmp_path / "part_0.h5", frames_of(0), "other" if fault == "no group" else "a/data")
    printf(tmp_path / "scan.h5", "part_%b.h5", dataset="a/data")
    if fault == "damaged":
        place.write_bytes(b"frames" * 100)
    virtual(
        tmp_path / "top.h5",
        [(slice(0, 10), "scan.h5", "data", ((NFRAMES, ROWS, COLS), slice(None)))],
    )
    with pytest.raises(ValueError, match=r"part_0\.h5"):
        as_series(f"{tmp_path}/{name}")


@pytest.mark.parametrize("how", ["whole", "selected", "chunked", "rows"])
def test_source_that_is_shorter_than_it_says(tmp_path, how):
    shape = (NFRAMES - 3, ROWS, COLS) if how != "rows" else (NFRAMES, ROWS - 1, COLS)
    save(
        tmp_path / "part.h5",
        make_frames("u2", *shape),
        chunks=(2, ROWS - 1, COLS) if how == "chunked" else None,
    )
    index = slice(None) if how == "whole" else slice(0, NFRAMES)
    claimed = (NFRAMES if how in ("whole", "rows") else NFRAMES + 5, ROWS, COLS)
    path = virtual(tmp_path / "scan.h5", [(slice(0, 10), "part.h5", "data", (claimed, index))])
    with pytest.raises(ValueError, match=r"refers to part\.h5::data, which is shorter than it say"):
        as_series(f"{path}::/data")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ((3, ROWS + 1, COLS + 2), (3, ROWS, COLS)),
        ((3, ROWS + 1, COLS), (3, ROWS, COLS)),
        ((3, ROWS, COLS + 1), (3, ROWS, COLS)),
        ((2, 4, ROWS, COLS), (2, 3, ROWS, COLS)),
        ((2 * ROWS, COLS), (1, ROWS, COLS)),
    ],
)
def test_source_that_is_larger_than_it_says(tmp_path, libver, found, shown):
    """Its pixels were taken in their order, as sheared frames."""
    save(tmp_path / "part.h5", np.ones(found, "u2"))
    layout = h5py.VirtualLayout(shown, "u2")
    layout[...] = h5py.VirtualSource("part.h5", "data", shown)
    with h5py.File(tmp_path / "scan.h5", "w", libver=libver) as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(ValueError, match=r"refers to part\.h5::data, which is larger than it says"):
        as_series(f"{tmp_path / 'scan.h5'}::/data")


def test_source_with_more_frames_than_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_places, "SMALL_FRAME", 0)  # the library cannot read it
    save(tmp_path / "part.h5", frames_of(0))
    layout = h5py.VirtualLayout((3, ROWS, COLS), "u2")
    layout[...] = h5py.VirtualSource("part.h5", "data", (3, ROWS, COLS))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    check_series(as_series(f"{tmp_path / 'scan.h5'}::/data"), frames_of(0)[:3])


@pytest.mark.parametrize("how", ["dataset", "group", "not HDF5", "empty", "two levels", "link"])
def test_source_that_is_something_else(tmp_path, how):
    path, _ = three(tmp_path)
    part = tmp_path / "part_1.h5"
    if how in ("dataset", "group"):
        with h5py.File(part, "a") as file:
            file.move("data", "other")
            if how == "group":
                file.create_group("data")
    elif how in ("not HDF5", "empty"):
        part.write_bytes(b"frames" * 100 if how == "not HDF5" else b"")
    elif how == "two levels":
        part.unlink()
        whole = (NFRAMES, ROWS, COLS), slice(None)
        virtual(part, [(slice(0, 10), "lost.h5", "data", whole)])
    else:
        part.unlink()
        with h5py.File(part, "w") as file:
            file["data"] = h5py.ExternalLink("lost.h5", "/data")
    with pytest.raises((ValueError, FileNotFoundError), match=r"part_1\.h5|lost\.h5"):
        as_series(f"{path}::/data")


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (lambda: h5py.ExternalLink("lost.h5", "/data"), r"link to lost\.h5::/data.*no file .*lost"),
        (lambda: h5py.ExternalLink("part.h5", "/lost"), r"no 'lost' in /"),
        (lambda: h5py.ExternalLink("part.h5", "/deep/lost"), r"link to nowhere\.h5::/x"),
        (lambda: h5py.SoftLink("/lost"), r"no 'lost' in /"),
        (lambda: h5py.SoftLink("/entry/data"), "circles"),
    ],
)
def test_link_that_leads_nowhere(tmp_path, link, text):
    with h5py.File(save(tmp_path / "part.h5", frames_of(0)), "a") as file:
        file["deep/lost"] = h5py.ExternalLink("nowhere.h5", "/x")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data"] = link()
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        as_series(f"{tmp_path / 'scan.h5'}::/entry/data")


def test_links_in_circles_are_named_once(tmp_path):
    for name, other in (("scan.h5", "part.h5"), ("part.h5", "scan.h5")):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = h5py.ExternalLink(other, "/data")
    for name in ("scan.h5::/data", "scan.h5"):
        with pytest.raises(
            (ValueError, FileNotFoundError), match="links lead in circles"
        ) as caught:
            as_series(f"{tmp_path}/{name}")
        for file in ("scan.h5", "part.h5"):
            assert str(caught.value).count(f"({tmp_path / file}::/)") == 1


@pytest.mark.parametrize("change", ["gone", "replaced", "garbage", "cut off", "a directory"])
def test_source_that_changes_after_the_call(tmp_path, monkeypatch, change):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0,))
    path, frames = three(tmp_path)
    series = as_series(f"{path}::/data")
    sent = pickle.dumps(series)
    np.testing.assert_array_equal(read_dense(series, (0, 10, 0, ROWS, 10)), frames[:10])
    part = tmp_path / "part_1.h5"
    if change in ("gone", "a directory"):
        part.unlink()
        if change == "a directory":
            part.mkdir()
    elif change == "replaced":
        shutil.copy(tmp_path / "part_0.h5", tmp_path / "other.h5")
        (tmp_path / "other.h5").replace(part)
    elif change == "garbage":
        part.write_bytes(b"no frames")
    else:
        os.truncate(part, part.stat().st_size - 1)
    # read before, and read for the first time
    np.testing.assert_array_equal(read_dense(series, (20, 30, 0, ROWS, 10)), frames[20:])
    for window in ((0, 30, 0, ROWS, 30), (15, 25, 2, 4, 3)):
        with pytest.raises((ValueError, OSError), match=r"part_1\.h5"):
            read_dense(series, window)
    if change != "replaced":
        with pytest.raises((ValueError, OSError), match=r"part_1\.h5"):
            read_dense(pickle.loads(sent), (0, 10, 0, ROWS, 10))
        with pytest.raises((ValueError, OSError), match=r"part_1\.h5"):
            as_series(f"{path}::/data")


def test_file_that_is_cut_off_after_the_call(tmp_path):
    frames = make_frames("u2", 50, ROWS, COLS)
    path = save(tmp_path / "scan.h5", frames)
    series = as_series(path)
    os.truncate(path, path.stat().st_size // 2)  # the library reads zeros behind the end
    with pytest.raises(ValueError, match=r"scan\.h5 was cut off while it was being read"):
        read_dense(series, (0, 50, 0, ROWS, 8))


def test_more_sources_than_files_may_be_open(tmp_path):
    """The library reads those that it cannot open as zeros."""
    whole = (1, ROWS, COLS), slice(None)
    parts = []
    for number in range(60):
        save(tmp_path / f"part_{number}.h5", np.full((1, ROWS, COLS), 100, "u2"))
        parts.append((slice(number, number + 1), f"part_{number}.h5", "data", whole))
    path = virtual(tmp_path / "scan.h5", parts)
    with few_files(30), pytest.raises(OSError, match="too many files are open"):
        as_series(f"{path}::/data")
    series = as_series(f"{path}::/data")
    copy = pickle.loads(pickle.dumps(series))
    with few_files(0):
        for each in (series, copy):
            with pytest.raises(OSError, match="[Tt]oo many (open files|files are open)"):
                each.read(0, 60, 0, ROWS)
    assert (series.read(0, 60, 0, ROWS)[0] == 100).all()


@contextmanager
def few_files(count):
    """Let this process open a few more files only."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        used = len([*Path("/proc/self/fd").iterdir()])
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, before[1]))
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for handle in held:
            os.close(handle)


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", ["virtual", "external", "two levels", "joined", "open dataset"])
def test_key_follows_files_behind_links(tmp_path, kind):
    path, _ = three(tmp_path)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/one"] = h5py.ExternalLink("part_1.h5", "/data")
        file["entry/all"] = h5py.ExternalLink("scan.h5", "/data")
        for number in range(3):
            file[f"parts/data_00000{number}"] = h5py.ExternalLink(f"part_{number}.h5", "/data")
    names = {"external": "/entry/one", "two levels": "/entry/all", "joined": "/parts"}

    def key():
        if kind == "open dataset":
            with h5py.File(path) as file:
                return stats.average(file["data"]).name
        where = f"{path}::/data" if kind == "virtual" else f"{path.parent}/master.h5::{names[kind]}"
        return stats.average(where).name

    before = key()
    assert key() == before
    with h5py.File(tmp_path / "part_1.h5", "a") as file:
        file["data"][3, 2, 1] += 1
    assert key() != before


# ---------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("options", "shift", "units"),
    [
        ({}, 0, (1, 1)),
        ({"chunks": (5, ROWS, COLS)}, 0, (5, None)),
        ({"chunks": (1, 4, 3)}, 0, (1, 4)),
        ({"chunks": (10, 2, COLS)}, 0, (10, 2)),
        # Chunks begin at frames 0, 2, 7, 10, 12, 17: multiples of 10 cut none of them.
        ({"chunks": (5, ROWS, COLS)}, 3, (10, None)),
    ],
)
def test_units_are_those_of_the_sources(tmp_path, options, shift, units):
    for number in range(2):
        save(tmp_path / f"part_{number}.h5", frames_of(number, 20), **options)
    shape = 20, ROWS, COLS
    path = virtual(
        tmp_path / "scan.h5",
        [
            (slice(0, 10), "part_0.h5", "data", (shape, slice(shift, 10 + shift))),
            (slice(10, 20), "part_1.h5", "data", (shape, slice(shift, 10 + shift))),
        ],
    )
    series = as_series(f"{path}::/data")
    assert (series.frame_unit, series.row_unit) == units


@pytest.mark.parametrize(
    ("rows", "row_unit"), [((0, 4), 4), ((0, 2, 4, 6), 2), ((1, 4), None), ((0, 5), None)]
)
def test_modules_on_top_of_each_other(tmp_path, rows, row_unit):
    """Modules are chunks of all their rows; some lie across multiples of their height."""
    height = 3 if row_unit is None else row_unit
    layout = h5py.VirtualLayout((NFRAMES, ROWS, COLS), "u2", maxshape=None)
    expected = np.zeros((NFRAMES, ROWS, COLS), "u2")
    for number, row in enumerate(rows):
        data = make_frames("u2", NFRAMES, height, COLS, seed=number)
        save(tmp_path / f"m{number}.h5", data, chunks=(2, height, COLS))
        source = h5py.VirtualSource(f"m{number}.h5", "data", data.shape)
        layout[:, row : row + height] = source
        expected[:, row : row + height] = data
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    series = as_series(f"{tmp_path}/scan.h5::/data")
    assert (series.frame_unit, series.row_unit) == (2, row_unit)
    check_series(series, expected)


def test_units_of_a_virtual_dataset_of_a_virtual_dataset(tmp_path):
    save(tmp_path / "part.h5", frames_of(0, 40), chunks=(8, 4, COLS))
    whole = (40, ROWS, COLS), slice(None)
    virtual(tmp_path / "middle.h5", [(slice(0, 40), "part.h5", "data", whole)])
    path = virtual(tmp_path / "top.h5", [(slice(0, 40), "middle.h5", "data", whole)])
    series = as_series(f"{path}::/data")
    assert (series.frame_unit, series.row_unit) == (8, 4)


def test_a_region_of_large_chunks_counts_the_chunks(tmp_path):
    data = make_frames("u2", 20, 160, 120)
    save(tmp_path / "part.h5", data, chunks=(10, 160, 120))
    layout = h5py.VirtualLayout((20, ROWS, COLS), "u2")
    layout[:] = h5py.VirtualSource("part.h5", "data", data.shape)[:, 20 : 20 + ROWS, 30 : 30 + COLS]
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    series = as_series(f"{tmp_path}/scan.h5::/data")
    check_series(series, data[:, 20 : 20 + ROWS, 30 : 30 + COLS])
    one = ROWS * COLS * 2
    assert (series.frame_unit + series.buffers) * one >= 10 * 160 * 120 * 2


MEASURED = """
import sys
import daskstats as stats
from pathlib import Path

path, limit = sys.argv[1], int(sys.argv[2]) << 20
status = Path("/proc/self/status")
def peak(name):
    return int(status.read_text().partition(f"{name}:")[2].split()[0]) << 10
stats.average(path, nframes=1, memory_limit="1 GiB").compute(scheduler="synchronous")
Path("/proc/self/clear_refs").write_text("5")
before = peak("VmRSS")
try:
    stats.average(path, memory_limit=limit).compute(num_workers=1)
except MemoryError as error:
    print("refused", error)
else:
    print("used", peak("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(("limit", "refused"), [(64, True), (400, False)])
def test_a_chunk_of_128_mib_behind_a_virtual_dataset(tmp_path, limit, refused):
    frame = 1024, 1024
    with h5py.File(tmp_path / "part.h5", "w") as file:
        data = np.empty((64, *frame), "u2")
        data[:] = np.arange(1024)
        file.create_dataset("data", data=data, chunks=data.shape, shuffle=True)
    layout = h5py.VirtualLayout((64, *frame), "u2")
    layout[:] = h5py.VirtualSource("part.h5", "data", (64, *frame))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, f"{tmp_path}/scan.h5::/data", str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    kind, _, text = result.stdout.partition(" ")
    assert result.returncode == 0, result.stderr
    assert kind == ("refused" if refused else "used"), result.stdout
    if not refused:
        assert int(text) <= limit << 20


def test_a_chunk_behind_a_virtual_dataset_is_decoded_once(tmp_path):
    save(tmp_path / "part.h5", frames_of(0, 128), chunks=(128, ROWS, COLS))
    whole = (128, ROWS, COLS), slice(None)
    path = virtual(tmp_path / "scan.h5", [(slice(0, 128), "part.h5", "data", whole)])
    plan = stats.plan(f"{path}::/data", "average", memory_limit="13 MiB")
    assert (len(plan.blocks), plan.piece, plan.reads) == (1, 128, 1.0)
    plan = stats.plan(f"{path}::/data", "median", memory_limit="13 MiB")
    assert plan.piece == 128


# ---------------------------------------------------------------------- frames without data


def sparse(path, written, nframes, **options):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (nframes, ROWS, COLS), "u2", **options)
        for start, stop in written:
            data[start:stop] = 7
    return path


@pytest.mark.parametrize(
    ("written", "options", "missing"),
    [
        ([(0, 60)], {"chunks": (1, ROWS, COLS)}, range(60, 100)),
        (
            [(10, 20), (50, 60)],
            {"chunks": (5, 4, 3)},
            [*range(10), *range(20, 50), *range(60, 100)],
        ),
        ([], {"chunks": (10, ROWS, COLS)}, range(100)),
        ([], {}, range(100)),
        ([(3, 4)], {}, []),  # contiguous: all or nothing
        ([(0, 100)], {"chunks": (7, ROWS, COLS), "compression": "gzip"}, []),
        ([(0, 3)], {"chunks": (10, ROWS, COLS)}, range(10, 100)),  # a chunk is there as a whole
    ],
)
def test_frames_that_were_never_written(tmp_path, written, options, missing):
    path = sparse(tmp_path / "scan.h5", written, 100, **options)
    series = as_series(path)
    found = series.frames_without_data()
    assert found.dtype == np.int64
    assert found.tolist() == sorted(missing)
    with h5py.File(path) as file:
        assert as_series(file["data"]).frames_without_data().tolist() == sorted(missing)


def test_sixty_of_a_hundred_frames(tmp_path, recwarn):
    path = sparse(tmp_path / "scan.h5", [(0, 60)], 100, chunks=(1, ROWS, COLS))
    with pytest.warns(UserWarning, match=r"40 of 100 frames have no data.*nframes=60") as caught:
        stats.average(path)
    assert caught[0].filename == __file__
    for make in (
        lambda: stats.median(path, nframes=60),
        lambda: stats.average(path, frames=slice(0, 60)),
        lambda: stats.max(path, frames=[5, 3]),
        lambda: stats.wrap(path, nframes=60),
    ):
        make()
    assert not recwarn.list
    assert (stats.average(path, nframes=60).compute() == 7).all()
    for make in (
        lambda: stats.average(path, frames=slice(50, 70)),
        lambda: stats.median_iter(path, 2, nframes=61),
        lambda: stats.aggregate(path, ["max", "min"], lock=True),
        lambda: stats.wrap(path),
    ):
        with pytest.warns(UserWarning, match="have no data"):
            make()


def test_frames_of_a_virtual_dataset_without_data(tmp_path):
    sparse(tmp_path / "part_0.h5", [(0, 6)], 10, chunks=(1, ROWS, COLS))
    sparse(tmp_path / "part_1.h5", [(0, 10)], 10)
    whole = (NFRAMES, ROWS, COLS), slice(None)
    path = virtual(
        tmp_path / "scan.h5",
        [
            (slice(0, 10), "part_0.h5", "data", whole),
            (slice(15, 25), "part_1.h5", "data", whole),  # nothing is behind 10 .. 14
        ],
        nframes=27,
    )
    series = as_series(f"{path}::/data")
    assert series.frames_without_data().tolist() == [*range(6, 15), 25, 26]


def test_frames_that_one_of_two_growing_files_does_not_have_yet(tmp_path):
    for number, nframes in enumerate((5, 3)):
        save(
            tmp_path / f"part_{number}.h5",
            frames_of(number, nframes),
            chunks=(1, ROWS, COLS),
            maxshape=(None, ROWS, COLS),
        )
    path = unlimited(tmp_path / "scan.h5", ["part_0.h5", "part_1.h5"], stride=2)
    series = as_series(f"{path}::/data")
    assert series.frames_without_data().tolist() == [7]
    (tmp_path / "part_1.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"refers to part_1\.h5"):
        as_series(f"{path}::/data")


def test_half_a_detector_counts_as_data(tmp_path):
    sparse(tmp_path / "left.h5", [(0, 10)], 10, chunks=(1, ROWS, COLS))
    sparse(tmp_path / "right.h5", [(0, 4)], 10, chunks=(1, ROWS, COLS))
    layout = h5py.VirtualLayout((NFRAMES, ROWS, 2 * COLS), "u2")
    for number, name in enumerate(("left.h5", "right.h5")):
        source = h5py.VirtualSource(name, "data", (NFRAMES, ROWS, COLS))
        layout[:, :, number * COLS : (number + 1) * COLS] = source
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    assert not as_series(f"{tmp_path}/scan.h5::/data").frames_without_data().size


def test_frames_without_data_of_joined_files(tmp_path):
    with h5py.File(tmp_path / "master.h5", "w") as file:
        for number, written in enumerate((10, 4)):
            name = f"part_{number}.h5"
            sparse(tmp_path / name, [(0, written)], 10, chunks=(1, ROWS, COLS))
            file[f"data_00000{number + 1}"] = h5py.ExternalLink(name, "/data")
    series = as_series(tmp_path / "master.h5")
    assert series.frames_without_data().tolist() == list(range(14, 20))
    copy = pickle.loads(pickle.dumps(series))
    assert copy.frames_without_data().tolist() == list(range(14, 20))
    assert tokenize(copy) == tokenize(series)
