"""HDF5 files that are being written, need a filter, or keep their data elsewhere."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import check_series, make_frames, read_dense

import daskstats as stats
from daskstats.series.opening import as_series

h5py = pytest.importorskip("h5py")

FRAMES = make_frames("u2", 7, 8, 6)

WRITER = """
import sys
import h5py
import numpy as np

path, frames, kind = sys.argv[1:4]
file = h5py.File(path, "w", libver="latest" if kind != "old" else None)
frames = np.load(frames)
if kind != "empty":
    data = file.create_dataset(
        "data", data=frames[:4], chunks=(1, *frames.shape[1:]), maxshape=(None, *frames.shape[1:])
    )
    file.flush()
if kind == "swmr":
    file.swmr_mode = True
print("ready", flush=True)
for line in sys.stdin:
    if line == "more\\n":
        data.resize(len(frames), axis=0)
        data[4:] = frames[4:]
        data.flush()
        print("ready", flush=True)
    else:
        break
"""


@contextmanager
def writer(path, kind):
    """Have another process write a file; give a function that has it write the other frames."""
    np.save(path.with_suffix(".npy"), FRAMES)
    arguments = [sys.executable, "-c", WRITER, str(path), str(path.with_suffix(".npy")), kind]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def say(text):
            process.stdin.write(text)
            process.stdin.flush()

        def more():
            say("more\n")
            assert process.stdout.readline() == "ready\n"

        assert process.stdout.readline() == "ready\n"
        try:
            yield more
        finally:
            say("end\n")


def link_to(path, how):
    """Return the path of the data of a file, given as such or by way of another one."""
    if how == "plain":
        return path
    with h5py.File(path.with_name("master.h5"), "w") as file:
        if how == "link":
            file["entry/data"] = h5py.ExternalLink(path.name, "/data")
        elif how == "joined":
            file["entry/data_000001"] = h5py.ExternalLink(path.name, "/data")
        else:
            layout = h5py.VirtualLayout((4, 8, 6), "u2")
            layout[:] = h5py.VirtualSource(path.name, "data", (4, 8, 6))
            file.create_virtual_dataset("entry/data", layout)
    return path.with_name("master.h5")


@pytest.mark.parametrize("how", ["plain", "link", "joined", "virtual"])
def test_file_that_is_written_in_swmr_mode(tmp_path, how):
    with writer(tmp_path / "scan.h5", "swmr") as more:
        path = link_to(tmp_path / "scan.h5", how)
        series = as_series(path)
        np.testing.assert_array_equal(read_dense(series, (0, 4, 0, 8, 2)), FRAMES[:4])
        more()
        # the series of the call stays as it was
        assert len(series) == 4
        np.testing.assert_array_equal(read_dense(series, (0, 4, 0, 8, 2)), FRAMES[:4])
        del series
        again = as_series(path)
        count = 4 if how == "virtual" else 7
        np.testing.assert_array_equal(read_dense(again, (0, count, 0, 8, 7)), FRAMES[:count])


@pytest.mark.parametrize("how", ["plain", "link", "joined", "virtual"])
@pytest.mark.parametrize("kind", ["old", "latest", "empty"])
def test_file_that_is_open_for_writing(tmp_path, kind, how):
    with writer(tmp_path / "scan.h5", kind):
        path = link_to(tmp_path / "scan.h5", how)
        with pytest.raises(BlockingIOError) as caught:
            as_series(path)
    text = str(caught.value)
    assert f"{tmp_path / 'scan.h5'} is open for writing by some process" in text
    assert "h5clear" not in text


def test_file_whose_writer_was_killed(tmp_path):
    with writer(tmp_path / "scan.h5", "latest"):
        data = (tmp_path / "scan.h5").read_bytes()  # as it stays if the process is killed
    (tmp_path / "left.h5").write_bytes(data)
    with pytest.raises(BlockingIOError, match="one that ended without closing it"):
        as_series(tmp_path / "left.h5")


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.h5").write_text("no frames")
    (tmp_path / "empty.h5").touch()
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.h5 is not an HDF5 file"):
            as_series(tmp_path / f"{name}.h5")


# ---------------------------------------------------------------------- filters

WITHOUT_PLUGINS = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *_: None if name == "hdf5plugin" else find(name)
from daskstats.series.opening import as_series
try:
    as_series(sys.argv[1])
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "code", "how"),
    [("bitshuffle", 32008, "plain"), ("lz4", 32004, "virtual"), ("zstd", 32015, "joined")],
)
def test_filter_that_is_not_installed(tmp_path, name, code, how):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    options = {
        "bitshuffle": hdf5plugin.Bitshuffle,
        "lz4": hdf5plugin.LZ4,
        "zstd": hdf5plugin.Zstd,
    }[name]()
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=FRAMES[:4], chunks=(1, 8, 6), **options)
    path = link_to(tmp_path / "scan.h5", how)
    check_series(as_series(path), FRAMES[:4])
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGINS, str(path)],
        env={**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = result.stdout
    assert f"scan.h5: dataset '/data' is compressed by the HDF5 filter {name} ({code})" in text, (
        result.stderr
    )
    assert "pip install hdf5plugin" in text


def test_filter_that_nobody_has(tmp_path):
    path = tmp_path / "scan.h5"
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 8, 6))
    plist.set_filter(400, h5py.h5z.FLAG_OPTIONAL)  # a number of nobody's
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((7, 8, 6))
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, space, plist)
    with pytest.raises(ImportError, match=r"HDF5 filter .*\(400\).*HDF5_PLUGIN_PATH"):
        as_series(path)


# ---------------------------------------------------------------------- raw data elsewhere


def external(path, name, offset=0, frames=FRAMES):
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data", frames.shape, frames.dtype, external=[(str(name), offset, frames.nbytes)]
        )
    return path


def test_raw_data_in_several_files(tmp_path):
    """Of the last one the size may be unlimited; a file that is cut off is found."""
    parts = [(tmp_path / "a.raw", FRAMES[:3]), (tmp_path / "b.raw", FRAMES[3:])]
    for file, frames in parts:
        frames.tofile(file)
    names = [str(file) for file, _ in parts]
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        where = [(names[0], 0, FRAMES[:3].nbytes), (names[1], 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("data", FRAMES.shape, FRAMES.dtype, external=where)
    np.testing.assert_array_equal(stats.max(tmp_path / "scan.h5").compute(), FRAMES.max(axis=0))
    Path(names[1]).write_bytes(FRAMES[3:].tobytes()[:-1])
    with pytest.raises(ValueError, match=r"b\.raw, which is cut off: it has \d+ bytes of"):
        as_series(tmp_path / "scan.h5")


@pytest.mark.parametrize("how", ["absolute", "working directory"])
def test_raw_data_in_the_directory_of_the_file(tmp_path, monkeypatch, how):
    (tmp_path / "frames.raw").write_bytes(bytes(16) + FRAMES.tobytes())
    name = tmp_path / "frames.raw" if how == "absolute" else "frames.raw"
    monkeypatch.chdir(tmp_path if how == "working directory" else "/")
    path = external(tmp_path / "scan.h5", name, 16)
    series = as_series(path)
    assert set(series.files()) == {path, tmp_path / "frames.raw"}
    check_series(series, FRAMES)
    key = stats.average(path).name
    with (tmp_path / "frames.raw").open("ab") as file:
        file.write(b"1")
    assert stats.average(path).name != key
    os.truncate(tmp_path / "frames.raw", 100)  # the library reads zeros behind the end
    with pytest.raises(ValueError, match=r"frames\.raw was cut off"):
        read_dense(series, (0, 7, 0, 8, 7))
    with pytest.raises(ValueError, match=r"frames\.raw, which is cut off: it has 100 bytes of 688"):
        as_series(path)
    (tmp_path / "frames.raw").unlink()
    with pytest.raises(FileNotFoundError, match=r"frames\.raw, and there is no such file"):
        as_series(path)


READ = """
import sys
import numpy as np
from daskstats.series.opening import as_series

frames = as_series(sys.argv[1]).read(0, 7, 0, 8)[0]
assert (frames == np.fromfile(sys.argv[2], "u2").reshape(7, 8, 6)).all()
"""


def test_raw_data_found_by_a_prefix(tmp_path):
    (tmp_path / "frames.raw").write_bytes(FRAMES.tobytes())
    path = external(tmp_path / "scan.h5", "frames.raw")
    with pytest.raises(ValueError, match=r"HDF5_EXTFILE_PREFIX='\$\{ORIGIN\}'"):
        as_series(path)
    # The library looks at the variable when it is loaded.
    subprocess.run(
        [sys.executable, "-c", READ, str(path), str(tmp_path / "frames.raw")],
        env={**os.environ, "HDF5_EXTFILE_PREFIX": "${ORIGIN}"},
        check=True,
        timeout=120,
    )


@pytest.mark.parametrize("how", ["absolute", "up", "link", "working directory", "virtual"])
def test_raw_data_outside_of_the_directory_of_the_file(tmp_path, monkeypatch, how):
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    (other / "secret.raw").write_bytes(FRAMES.tobytes())
    monkeypatch.chdir(other if how == "working directory" else home)
    name = {"up": "../other/secret.raw", "working directory": "secret.raw", "link": "here.raw"}
    (home / "here.raw").symlink_to(other / "secret.raw")
    path = external(home / "scan.h5", name.get(how, other / "secret.raw"))
    if how == "virtual":
        layout = h5py.VirtualLayout(FRAMES.shape, "u2")
        layout[:] = h5py.VirtualSource("scan.h5", "data", FRAMES.shape)
        with h5py.File(home / "top.h5", "w") as file:
            file.create_virtual_dataset("data", layout)
        path = home / "top.h5"
    with pytest.raises(ValueError, match=r"keeps its data in .*outside of the directory") as caught:
        as_series(path)
    assert str(Path(home / "scan.h5")) in str(caught.value)
    with h5py.File(path) as file, pytest.raises(ValueError, match="outside of the directory"):
        as_series(file["data"])
