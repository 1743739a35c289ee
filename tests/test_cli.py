"""Every command, its help, its errors, and the real programs behind it."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import click
import dask
import numpy as np
import pytest
from click.testing import CliRunner

from daskstats import api, cli, sinks
from daskstats.simulate import simulate
from daskstats.sources import open_source

DATA = Path(__file__).parents[2] / "shared" / "data"
FRAMES = np.random.default_rng(0).integers(0, 1000, (12, 30, 40)).astype("u2")
OPTIONS = {"percentile": ["--pctl", "30"]}


def expected(name, frames=FRAMES):
    if name == "average":
        return frames.mean(axis=0, dtype="f8").astype("f4")
    if name == "percentile":
        return np.percentile(frames.astype("f8"), 30, axis=0).astype("f4")
    if name == "sum":
        return frames.sum(axis=0, dtype="f8")
    image = getattr(np, name)(frames, axis=0)
    return image.astype("f4") if name in ("median", "std", "var") else image


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, FRAMES)
    return path


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], prog_name="daskstats")


def check_error(result, code, *words):
    """One line on stderr, and nothing else."""
    lines = [line for line in result.stderr.splitlines() if line not in cli.COMMANDS]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("daskstats: error: ")
    for word in words:
        assert word in lines[0]
    assert result.exit_code == code
    assert result.stdout == ""


def spawn(*args, **options):
    command = [sys.executable, "-m", "daskstats", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for name in (*cli.COMMANDS, "info", "simulate"):
        assert f"  {name} " in result.stdout
    assert run().stdout == result.stdout


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_help_of_command(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    command = cli.main.commands[name]
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help
            assert param.opts[0] in result.stdout
    example = result.stdout.split("Example:\n")[1].splitlines()[0].strip()
    program, called, *args = shlex.split(example)
    assert (program, called) == ("daskstats", name)
    # The example is one that the command takes.
    command.make_context(name, args)


def test_version():
    assert run("--version").stdout.startswith("daskstats ")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_image(tmp_path, scan, name):
    result = run(name, scan, "-o", tmp_path / "image.npy", *OPTIONS.get(name, ()))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), expected(name), strict=True)
    closing = result.stderr.splitlines()[-1]
    assert closing.startswith(f"{name}: 12 frames of 30 x 40 uint16 in ")
    assert " GB/s: " in closing


def test_options(tmp_path, scan):
    output = tmp_path / "image.zarr"
    arguments = ["--nframes", 5, "--chunks", 3, "--dtype", "f8", "--memory-limit", "1 GiB"]
    result = run("average", scan, "-o", output, *arguments, "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    np.testing.assert_array_equal(open_image(output), FRAMES[:5].mean(axis=0))


def open_image(path):
    import zarr

    return zarr.open(path, mode="r")[...]


def test_several_percentiles_are_planes(tmp_path, scan):
    run("percentile", scan, "--pctl", "0,50,100", "-o", tmp_path / "image.npy")
    image = np.load(tmp_path / "image.npy")
    np.testing.assert_array_equal(image, np.percentile(FRAMES, [0, 50, 100], axis=0).astype("f4"))


def test_list_of_percentiles():
    with pytest.raises(click.BadParameter):
        cli.parse_percentiles(None, None, "5,")
    assert cli.parse_percentiles(None, None, "5") == 5.0
    assert cli.parse_percentiles(None, None, "5, 50") == (5.0, 50.0)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_scheduler(tmp_path, scan, scheduler, monkeypatch):
    seen = []
    compute = cli.compute
    monkeypatch.setattr(
        cli, "compute", lambda *args: (seen.append(dask.config.get("scheduler")), compute(*args))[1]
    )
    result = run("max", scan, "-o", tmp_path / "image.npy", "--scheduler", scheduler)
    assert result.exit_code == 0, result.stderr
    assert seen == [scheduler]
    assert dask.config.get("scheduler", None) is None


def test_address_of_a_cluster(tmp_path, scan):
    from distributed import LocalCluster, default_client

    here = "127.0.0.1:0"
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=here,
        worker_dashboard_address=here,
    ) as cluster:
        address = cluster.scheduler_address
        result = run("average", scan, "-o", tmp_path / "image.npy", "--scheduler", address)
        assert result.exit_code == 0, result.stderr
        with pytest.raises(ValueError, match="No client"):
            default_client()
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), expected("average"))


def test_cluster_that_does_not_answer(tmp_path, scan, monkeypatch):
    monkeypatch.setattr(cli, "CONNECT_TIMEOUT", 0.5)
    result = run("max", scan, "-o", tmp_path / "image.npy", "--scheduler", "tcp://127.0.0.1:9")
    check_error(result, 2, "127.0.0.1:9")


@pytest.mark.parametrize(("chunks", "steps"), [(["--chunks", "5"], 5), ([], 12)])
def test_progress_is_fed_by_intermediate_images(tmp_path, scan, monkeypatch, chunks, steps):
    moves = []

    @contextmanager
    def bar(length, label, quiet):
        assert (length, label, quiet) == (steps, "max", False)
        yield moves.append

    monkeypatch.setattr(cli, "_bar", bar)
    assert run("max", scan, "-o", tmp_path / "image.npy", *chunks).exit_code == 0
    assert moves == [1] * steps


@pytest.mark.parametrize(
    ("suffix", "shape", "statistic", "limit", "steps"),
    [
        pytest.param(".npy", (7, 60, 80), "max", None, 7, id="no more than frames"),
        pytest.param(".npy", (7, 60, 80), "median", None, 50, id="of rows there are more"),
        pytest.param(".npy", (120, 20, 20), "max", None, 50, id="fifty are enough"),
        pytest.param(".zarr", (100, 60, 80), "max", None, 25, id="chunks of four frames"),
        pytest.param(".zarr", (100, 60, 80), "median", "1300 KiB", None, id="read for each band"),
    ],
)
def test_default_number_of_images(tmp_path, monkeypatch, suffix, shape, statistic, limit, steps):
    monkeypatch.setattr("daskstats.simulate.BLOCK", 4 * 60 * 80 * 2)
    simulate(tmp_path / f"scan{suffix}", shape[0], shape[1:])
    source = open_source(tmp_path / f"scan{suffix}")
    options = {"nframes": 0, "memory_limit": limit}
    with dask.config.set(scheduler="synchronous"):
        job = cli.plan_job(source, statistic, options)
        once = cli.job_of(source, statistic, options)
    assert steps in (job.steps, None)
    assert job.plan.reads <= 1.1 * once.plan.reads


def test_named_dataset(tmp_path):
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["one"], file["two"] = FRAMES, FRAMES[:3]
    check_error(run("max", tmp_path / "scan.h5", "-o", tmp_path / "a.npy"), 2, "2 datasets")
    result = run("max", f"{tmp_path}/scan.h5::/two", "-o", tmp_path / "a.npy")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), FRAMES[:3].max(axis=0))
    result = run("max", f"{tmp_path}/scan.h5::/two", "-o", tmp_path / "scan.h5", "--force")
    check_error(result, 2, "is the input")


def test_existing_output(tmp_path, scan):
    output = tmp_path / "image.npy"
    output.write_text("mine")
    check_error(run("max", scan, "-o", output), 2, "exists already")
    assert output.read_text() == "mine"
    assert run("max", scan, "-o", output, "--force").exit_code == 0
    np.testing.assert_array_equal(np.load(output), expected("max"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["max"], ["Missing argument 'INPUT'", "daskstats max --help"]),
        (["max", "IN"], ["Missing option '-o'"]),
        (["maxi", "IN"], ["No such command 'maxi'"]),
        (["max", "IN", "-o", "OUT", "--what"], ["--what"]),
        (["max", "IN", "-o", "OUT", "--nframes", "few"], ["--nframes", "few"]),
        (["max", "IN", "-o", "OUT", "--chunks", "0"], ["--chunks must be at least 1"]),
        (["max", "IN", "-o", "OUT", "--chunks", "13"], ["--chunks is 13", "12 items"]),
        (["max", "IN", "-o", "OUT", "--dtype", "colour"], ["dtype", "colour"]),
        (["max", "IN", "-o", "OUT", "--memory-limit", "much"], ["memory_limit", "much"]),
        (["max", "IN", "-o", "OUT", "--memory-limit", "1 kB"], ["the memory limit is"]),
        (["max", "IN", "-o", "OUT", "--scheduler", "slurm"], ["slurm", "an address"]),
        (["max", "missing.npy", "-o", "OUT"], ["there is no file missing.npy"]),
        (["max", "scan.txt", "-o", "OUT"], ["scan.txt has no known suffix"]),
        (["max", "IN", "-o", "image.jpg"], ["image.jpg has no known suffix"]),
        (["max", "IN", "-o", "nowhere/image.npy"], ["there is no directory"]),
        (["max", "IN", "-o", "IN", "--force"], ["is the input"]),
        (["percentile", "IN", "-o", "OUT"], ["Missing option '--pctl'"]),
        (["percentile", "IN", "-o", "OUT", "--pctl", "high"], ["'high' is not a number"]),
        (["percentile", "IN", "-o", "OUT", "--pctl", "101"], ["pctl must be", "101"]),
        (["percentile", "IN", "-o", "nan.npy", "--pctl", "nan"], ["pctl must be"]),
        (["percentile", "IN", "-o", "a.png", "--pctl", "5,95"], ["2-D image only"]),
        (["info", "missing.npy"], ["there is no file"]),
        (["simulate", "scan.txt"], ["no known suffix"]),
        (["simulate", "new.npy", "--shape", "10"], ["'10' is not ROWSxCOLS"]),
        (["simulate", "new.npy", "--shape", "0x10"], ["rows must be at least 1"]),
        (["simulate", "new.npy", "--nframes", "0"], ["nframes must be at least 1"]),
        (["simulate", "new.npy", "--dtype", "int8"], ["int8"]),
        (["simulate", "IN"], ["exists already"]),
    ],
)
def test_bad_usage(tmp_path, scan, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    names = {"IN": "scan.npy", "OUT": "image.npy"}
    check_error(run(*(names.get(arg, arg) for arg in args)), 2, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]
    np.testing.assert_array_equal(np.load(scan), FRAMES)


def test_input_without_frames(tmp_path):
    np.save(tmp_path / "empty.npy", FRAMES[:0])
    check_error(run("max", tmp_path / "empty.npy", "-o", tmp_path / "a.npy"), 2, "no frames")


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".npy", ".zarr"])
def test_damaged_input(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    simulate(path, 20, (64, 64))
    damaged = path / "c" / "0" / "0" / "0" if suffix == ".zarr" else path
    os.truncate(damaged, damaged.stat().st_size // 2)
    result = run("max", path, "-o", tmp_path / "image.npy", "--quiet")
    check_error(result, 2)
    assert not (tmp_path / "image.npy").exists()


class Broken:
    """Frames of which one cannot be had."""

    shape, dtype = (3, 4), np.dtype("u2")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 3:
            raise ValueError("the detector\nwas off")
        return np.zeros(self.shape, self.dtype)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
def test_notes_are_in_the_line(tmp_path, scan, monkeypatch, scheduler):
    monkeypatch.setattr(cli, "open_source", lambda path: open_source(Broken()))
    arguments = "--chunks", 5, "--scheduler", scheduler
    with dask.config.set(num_workers=1):
        result = run("max", scan, "-o", tmp_path / "image.npy", *arguments)
    check_error(result, 2, "error: the detector was off (while reading frame", "3")


def test_failure_while_writing(tmp_path, scan, monkeypatch):
    def full(image, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(sinks.FORMATS, ".npy", (full, None))
    result = run("max", scan, "-o", tmp_path / "image.npy")
    check_error(result, 1, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


def test_failure_while_computing(tmp_path, scan, monkeypatch):
    def fail(self):
        raise KeyError("x")

    monkeypatch.setattr(api.Job, "snapshots", fail)
    check_error(run("max", scan, "-o", tmp_path / "image.npy"), 1, "KeyError: 'x'")


def test_failure_while_simulating(tmp_path, monkeypatch):
    def fail(self, start, stop):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("daskstats.simulate.Scene.frames", fail)
    check_error(run("simulate", tmp_path / "scan.npy", "--quiet"), 1, "No space left on device")


def test_traceback_only_if_asked_for(tmp_path, scan):
    result = run("max", scan, "-o", tmp_path / "image.npy", "--chunks", 0, "--traceback")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1].startswith("daskstats: error: --chunks")


@pytest.mark.parametrize("name", ["max", "simulate"])
def test_interrupted(tmp_path, scan, monkeypatch, name):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(api.Job, "snapshots", interrupt)
    monkeypatch.setattr("daskstats.simulate.Scene.frames", interrupt)
    arguments = [scan, "-o"] if name == "max" else []
    result = run(name, *arguments, tmp_path / "new.npy", "--quiet")
    assert (result.exit_code, result.stderr) == (130, "daskstats: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


def test_info(scan):
    result = run("info", scan, "--nframes", 10, "--memory-limit", "1 GiB")
    assert result.exit_code == 0
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert lines["frames"] == "10 of 12"
    assert (lines["shape"], lines["dtype"]) == ("30 x 40", "uint16")
    assert "GB on disk" in lines["size"]
    assert lines["frame-wise"].startswith("fold: ")
    assert "of 1024 MiB" in lines["frame-wise"]
    assert lines["row-wise"].startswith("direct: ")


def test_info_says_what_does_not_fit(scan):
    result = run("info", scan, "--memory-limit", "20 kB")
    assert result.exit_code == 0
    assert "refused: 12 frames of 30 x 40 need at least" in result.stdout


def test_simulate(tmp_path):
    path = tmp_path / "scan.zarr"
    result = run("simulate", path, "--frames", 3, "--shape", "20x30", "--dtype", "int32")
    assert result.exit_code == 0, result.stderr
    assert "simulate: 3 frames of 20 x 30 int32" in result.stderr.splitlines()[-1]
    assert repr(open_source(path)).startswith("<ZarrPathSource: 3 frames of 20 x 30 int32")
    again = tmp_path / "again.npy"
    arguments = "--nframes", 3, "--shape", "20X30", "--dtype", "int32", "--seed", 0, "--quiet"
    assert run("simulate", again, *arguments).stderr == ""
    np.testing.assert_array_equal(np.load(again), open_image(path))


def test_module_is_the_command_line():
    result = spawn("--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("daskstats ")


def test_program_reports_errors(tmp_path):
    result = spawn("max", "missing.npy", "-o", tmp_path / "image.npy")
    line = "daskstats: error: there is no file missing.npy\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)


def test_processes(tmp_path, scan):
    arguments = "--scheduler", "processes", "--chunks", 3, "--quiet"
    result = spawn("max", scan, "-o", tmp_path / "image.npy", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), expected("max"))


def test_importing_the_command_line_is_light():
    heavy = "numba", "zarr", "h5py", "matplotlib", "distributed", "tifffile", "PIL"
    # dask.array itself imports what it finds of other array libraries.
    code = (
        "import sys, dask.array; before = set(sys.modules); import daskstats.cli; "
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_ctrl_c(tmp_path, scheduler):
    # A file of holes: many seconds of work, no disk space.
    shape = (6000, 1024, 1024)
    np.lib.format.open_memmap(tmp_path / "scan.npy", "w+", "u1", shape)
    arguments = ["average", "scan.npy", "-o", "image.npy", "--scheduler", scheduler]
    program = subprocess.Popen(
        [sys.executable, "-m", "daskstats", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A terminal sends Ctrl-C to the whole process group.
        start_new_session=True,
    )
    with program:
        # The label of the progress bar comes when the work begins.
        assert program.stderr.readline() == "average\n"
        try:
            program.wait(1.5)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGINT)
        assert program.stderr.read().splitlines()[-1] == "daskstats: interrupted"
        assert program.wait(30) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


def test_reader_that_has_left(scan):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "daskstats", "info", scan]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (130, "daskstats: interrupted\n")


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return path


@pytest.fixture(scope="module")
def zirconium():
    """Yield the path and the frames, dense, of a real frame cache."""
    path = real("LT1_Ne_zr001_00000-fc_GE2.npz")
    with np.load(path, allow_pickle=False) as arrays:
        dense = np.zeros((int(arrays["nframes"]), *arrays["shape"]), arrays["dtype"].item())
        for index, frame in enumerate(dense):
            row, col, data = (arrays[f"{index}_{field}"] for field in ("row", "col", "data"))
            frame[row, col] = data
    return path, dense


@pytest.mark.parametrize("name", ["max", "average", "median"])
def test_real_frame_cache(tmp_path, zirconium, name):
    path, dense = zirconium
    result = run(name, path, "-o", tmp_path / "image.npy", "--quiet")
    assert result.exit_code == 0, result.stderr
    image = np.load(tmp_path / "image.npy")
    assert image.shape == (2048, 2048)
    assert image.any() or name == "median"
    rows = slice(1000, 1032) if name == "median" else slice(None)
    np.testing.assert_array_equal(image[rows], expected(name, dense[:, rows]), strict=True)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("ceria_50x30_740mm_000005_Pilatus2M.hdf5", "imageseries/images"),
        ("ceria_ff1.h5", "data"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_real_hdf5(tmp_path, name, dataset, named):
    import h5py

    path = real(name)
    with h5py.File(path) as file:
        frame = np.squeeze(file[dataset][...])
    series = f"{path}::/{dataset}" if named else path
    result = run("max", series, "-o", tmp_path / "image.h5", "--quiet")
    assert result.exit_code == 0, result.stderr
    with h5py.File(tmp_path / "image.h5") as file:
        np.testing.assert_array_equal(file["image"][...], frame, strict=True)
