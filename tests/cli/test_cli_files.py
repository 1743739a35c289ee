"""Files that the command line must not overwrite, and what it says of frames without data."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from programs import check_error, run

h5py = pytest.importorskip("h5py")

FRAMES = np.random.default_rng(0).integers(0, 1000, (6, 30, 40)).astype("u2")


def linked(tmp_path):
    """Write raw data that a master refers to in all ways; return it, and the files that matter."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "pixels.h5").write_bytes(FRAMES.tobytes())
    with h5py.File(raw / "part_0.h5", "w") as file:
        file["data"] = FRAMES
    with h5py.File(raw / "part_1.h5", "w") as file:
        outside = [(str(raw / "pixels.h5"), 0, FRAMES.nbytes)]
        file.create_dataset("data", FRAMES.shape, "u2", external=outside)
    layout = h5py.VirtualLayout((12, 30, 40), "u2")
    for number in range(2):
        source = h5py.VirtualSource(f"part_{number}.h5", "data", FRAMES.shape)
        layout[6 * number : 6 * number + 6] = source
    with h5py.File(raw / "inner.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    layout = h5py.VirtualLayout((12, 30, 40), "u2")
    layout[:] = h5py.VirtualSource("inner.h5", "data", (12, 30, 40))
    with h5py.File(raw / "outer.h5", "w") as file:
        file.create_virtual_dataset("scan/data", layout)
    with h5py.File(raw / "links.h5", "w") as file:
        file["inside"] = h5py.ExternalLink("outer.h5", "/scan")
        file["soft"] = h5py.SoftLink("/inside")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry"] = h5py.ExternalLink("raw/links.h5", "/soft")
    names = ["pixels", "part_0", "part_1", "inner", "outer", "links"]
    return tmp_path / "master.h5", [*(raw / f"{name}.h5" for name in names)]


def digests(files):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("command", ["max", "aggregate"])
def test_output_that_the_input_refers_to(tmp_path, command):
    """--force destroyed raw data, with exit code 0."""
    master, files = linked(tmp_path)
    files = [master, *files]
    before = digests(files)
    stats = ["--stats", "max,min"] if command == "aggregate" else []
    for file in files:
        for name in (str(master), f"{master}::/entry/data"):
            result = run(command, name, "-o", file, "--force", *stats)
            check_error(result, 2, "the output", "is the input", str(file))
    assert digests(files) == before
    assert sorted(file.name for file in (tmp_path / "raw").iterdir()) == sorted(
        file.name for file in files[1:]
    )
    result = run(command, master, "-o", tmp_path / "out.h5", "--force", *stats)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("several", [False, True])
def test_dataset_of_a_file_that_the_input_refers_to(tmp_path, several):
    """With --force a file that holds nothing but this dataset would be replaced."""
    master, files = linked(tmp_path)
    np.save(tmp_path / "more.npy", FRAMES)
    before = digests([master, *files])
    inputs = [str(master), tmp_path / "more.npy"] if several else [f"silx:{master}?slice=0:3"]
    for file in files[1:]:  # the first is no HDF5 file
        result = run("max", *inputs, "-o", f"{file}::/entry/dark", "--force")
        check_error(result, 2, "which would be lost", str(file))
    for file in [file for file in files if file.name.startswith("part")]:
        result = run("max", *inputs, "-o", f"{file}::/data", "--force")
        check_error(result, 2, "the output", "is the input", str(file))
    assert digests([master, *files]) == before


@pytest.mark.parametrize("how", ["symbolic link", "hard link", "another spelling"])
def test_output_that_is_such_a_file_under_another_name(tmp_path, monkeypatch, how):
    master, files = linked(tmp_path)
    before = digests(files)
    output = tmp_path / "other.h5"
    if how == "symbolic link":
        output.symlink_to(files[1])
    elif how == "hard link":
        os.link(files[1], output)
    elif how == "another spelling":
        monkeypatch.chdir(tmp_path)
        output = Path("raw", "..", "raw", "part_0.h5")
    result = run("max", master, "-o", output, "--force")
    check_error(result, 2, "is the input")
    assert digests(files) == before


def test_directory_of_outputs_that_holds_what_the_input_refers_to(tmp_path):
    (tmp_path / "out").mkdir()
    with h5py.File(tmp_path / "out" / "max.h5", "w") as file:
        file["data"] = FRAMES
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = h5py.ExternalLink("out/max.h5", "/data")
    before = digests([tmp_path / "out" / "max.h5"])
    options = "-o", tmp_path / "out", "--force", "--stats", "max", "--format", "h5"
    check_error(run("aggregate", tmp_path / "scan.h5", *options), 2, "is the input")
    assert digests([tmp_path / "out" / "max.h5"]) == before


def test_output_that_the_mask_refers_to(tmp_path):
    np.save(tmp_path / "scan.npy", FRAMES)
    with h5py.File(tmp_path / "pixels.h5", "w") as file:
        file["mask"] = np.eye(30, 40).astype("u1")
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["detector/pixel_mask"] = h5py.ExternalLink("pixels.h5", "/mask")
    before = digests([tmp_path / "pixels.h5"])
    mask = "--mask", tmp_path / "mask.h5"
    for name in ("pixels.h5", "mask.h5"):
        result = run("average", tmp_path / "scan.npy", "-o", tmp_path / name, "--force", *mask)
        check_error(result, 2, "is the input")
    assert digests([tmp_path / "pixels.h5"]) == before
    # A mask is found under a name that no series of images is found under.
    result = run("average", tmp_path / "scan.npy", "-o", tmp_path / "out.npy", *mask)
    assert result.exit_code == 0, result.stderr
    assert np.isnan(np.load(tmp_path / "out.npy")).sum() == 30


@pytest.fixture
def sparse(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        data = file.create_dataset("data", (100, 30, 40), "u2", chunks=(1, 30, 40))
        data[:60] = 7
    return tmp_path / "scan.h5"


@pytest.mark.filterwarnings("default")
def test_frames_without_data_are_told_in_one_line(tmp_path, sparse):
    result = run("average", sparse, "-o", tmp_path / "a.npy", "--quiet")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("daskstats: warning: 40 of 100 frames have no data")
    assert "--nframes 60" in lines[0]
    for option in (["--nframes", "60"], ["--frames", "0:60"], ["--frames", "10:20"]):
        result = run("average", sparse, "-o", tmp_path / "a.npy", "--quiet", "--force", *option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert (np.load(tmp_path / "a.npy") == 7).all()


def test_info_has_a_line_of_frames_without_data(sparse):
    result = run("info", sparse)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("no data")]
    assert "40 of 100 frames have no data" in line
    assert "--nframes 60" in line
    assert result.stderr == ""
    assert "no data" not in run("info", sparse, "--frames", ":60").stdout
    assert "no data" not in run("info", sparse, "--nframes", "60").stdout


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("command", "output", "checkpoint"),
    [
        ("max", "c.zarr", "c.zarr"),
        ("median", "c.zarr", "./sub/../c.zarr"),
        ("max", "sub/a.npy", "sub"),
        ("max", "c.zarr", "c.zarr/inner"),
        ("max", "x.h5::/dark", "x.h5"),
        ("aggregate", "all", "all"),
        ("aggregate", "all", "all/c"),
        ("aggregate", "all.zarr", "all.zarr"),
    ],
)
def test_an_output_and_a_checkpoint_in_one_place(
    tmp_path, monkeypatch, command, output, checkpoint, force
):
    """This was found only after everything had been computed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    np.save("scan.npy", FRAMES)
    stats = ["--stats", "max,min"] if command == "aggregate" else []
    again = ["--force"] if force else []
    result = run(command, "scan.npy", "-o", output, "--checkpoint", checkpoint, *stats, *again)
    check_error(
        result, 2, f"the output {output.split('::')[0]} and the checkpoint {checkpoint} are"
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["scan.npy", "sub"]


def test_a_picture_of_a_run_is_not_written_into_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", FRAMES)
    assert run("max", "scan.npy", "-o", "a.npy", "--checkpoint", "c").exit_code == 0
    check_error(run("show", "c", "-o", "c/a.png"), 2, "the output c/a.png and the checkpoint c are")
    assert run("show", "c", "-o", "a.png").exit_code == 0


def content(place):
    """Return the content of every file below a directory."""
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


ADDRESSES = ["file://{}", "local://{}", "file://localhost{}"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "command", [["max"], ["median"], ["aggregate", "--stats", "max,min"]], ids=lambda args: args[0]
)
def test_output_that_is_the_input_by_its_address(tmp_path, address, command):
    """A zarr directory would be replaced once its image was computed."""
    zarr.create_array(tmp_path / "f.zarr", data=FRAMES)
    zarr.create_array(tmp_path / "g.zarr", data=FRAMES)
    before, output = content(tmp_path), tmp_path / "f.zarr"
    url = address.format(output)
    for inputs in ([url], [tmp_path / "g.zarr", url]):
        result = run(*command, *inputs, "-o", output, "--force", "--quiet")
        check_error(result, 2, f"the output {output} is the input")
    result = run(*command, f"{url}/", "-o", tmp_path / "f.zarr" / "image.zarr")
    check_error(result, 2, "is the input")
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["silx:{}?path=/m/dark", "{}?path=/m/dark", "file://{}::m/dark"])
def test_output_that_is_the_image_in_other_words(tmp_path, name):
    np.save(tmp_path / "scan.npy", FRAMES)
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file["m/dark"], file["m/mask"] = FRAMES[:2]
    before, output = content(tmp_path), tmp_path / "dark.h5"
    options = "-o", output, "--force", "--dark", name.format(output)
    check_error(run("max", tmp_path / "scan.npy", *options), 2, f"the output {output} is the input")
    assert content(tmp_path) == before


def test_output_that_is_the_image_by_its_address(tmp_path):
    np.save(tmp_path / "dark.npy", FRAMES[0])
    np.save(tmp_path / "scan.npy", FRAMES)
    dark = (tmp_path / "dark.npy").as_uri()
    options = "-o", tmp_path / "dark.npy", "--force", "--dark", dark
    check_error(run("max", tmp_path / "scan.npy", *options), 2, "is the input")
    assert (np.load(tmp_path / "dark.npy") == FRAMES[0]).all()
