"""Every command, its help, its errors, and the real programs behind it."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import dask
import numpy as np
import pytest
from fakes import Fail, FakeSeries, Filled
from programs import check_error, daskstats, run

from daskstats import reduction
from daskstats.cli import commands, computing, options
from daskstats.formats import outputs
from daskstats.formats.table import FORMATS, suffixes
from daskstats.planning.values import Disk
from daskstats.scratch import location
from daskstats.series.opening import open_source
from daskstats.simulate import simulate
from daskstats.statistics import STATISTICS
from daskstats.views import View

DATA = Path(__file__).parents[3] / "shared" / "data"
FRAMES = np.random.default_rng(0).integers(0, 1000, (12, 30, 40)).astype("u2")
OPTIONS = {
    "percentile": ["--pctl", "30"],
    "count_above": ["--threshold", "900"],
    "clipped_average": ["--sigma", "1.5", "--maxiters", "2"],
}


def expected(name, frames=FRAMES):
    if name == "average":
        return frames.mean(axis=0, dtype="f8").astype("f4")
    if name == "percentile":
        return np.percentile(frames.astype("f8"), 30, axis=0).astype("f4")
    if name == "sum":
        return frames.sum(axis=0, dtype="f8")
    if name == "range":
        return np.ptp(frames.astype("f8"), axis=0)
    if name == "count":
        return np.full(frames.shape[1:], len(frames))
    if name == "count_above":
        return np.count_nonzero(frames > 900, axis=0)
    if name == "snr":
        return (frames.mean(axis=0) / frames.std(axis=0)).astype("f4")
    if name == "clipped_average":
        return clipped_average(frames.astype("f8")).astype("f4")
    image = getattr(np, name)(frames, axis=0)
    return image.astype("f4") if name in ("median", "std", "var") else image


def clipped_average(frames, sigma=1.5, maxiters=2):
    kept = frames.copy()
    for _ in range(maxiters):
        middle, width = np.nanmedian(kept, axis=0), np.nanstd(kept, axis=0)
        kept[np.abs(kept - middle) > sigma * width] = np.nan
    return np.nanmean(kept, axis=0)


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, FRAMES)
    return path


def spawn(*args, **options):
    command = [sys.executable, "-m", "daskstats", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for name in (*commands.COMMANDS, "aggregate", "info", "simulate"):
        assert f"  {name} " in result.stdout
    assert run().stdout == result.stdout


@pytest.mark.parametrize("name", sorted(commands.main.commands))
def test_help_of_command(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    command = commands.main.commands[name]
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


def test_every_statistic_is_a_command():
    assert list(commands.COMMANDS) == list(STATISTICS)


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_image(tmp_path, scan, name):
    result = run(name, scan, "-o", tmp_path / "image.npy", *OPTIONS.get(name, ()))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    image, oracle = np.load(tmp_path / "image.npy"), expected(name)
    if name == "clipped_average":
        np.testing.assert_allclose(image, oracle, rtol=1e-6, strict=True)
    else:
        np.testing.assert_array_equal(image, oracle, strict=True)
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
        options.parse_percentiles(None, None, "5,")
    assert options.parse_percentiles(None, None, "5") == 5.0
    assert options.parse_percentiles(None, None, "5, 50") == (5.0, 50.0)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_scheduler(tmp_path, scan, scheduler, monkeypatch):
    seen = []
    last_image = computing.last_image
    monkeypatch.setattr(
        computing,
        "last_image",
        lambda *args: (seen.append(dask.config.get("scheduler")), last_image(*args))[1],
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


def test_cluster_that_does_not_answer(tmp_path, scan):
    with dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}):
        result = run("max", scan, "-o", tmp_path / "image.npy", "--scheduler", "tcp://127.0.0.1:9")
    check_error(result, 2, "127.0.0.1:9")


@pytest.mark.parametrize(("chunks", "steps"), [(["--chunks", "5"], 5), ([], 12)])
def test_progress_is_fed_by_intermediate_images(tmp_path, scan, monkeypatch, chunks, steps):
    shown = recorded(monkeypatch)
    assert run("max", scan, "-o", tmp_path / "image.npy", *chunks).exit_code == 0
    assert len({done for _, done, _ in shown}) == steps
    assert shown[-1] == ("compute", 12, 12)


def recorded(monkeypatch):
    """Return a list that gets phase, done and total whenever a command may show its progress."""
    shown = []

    class Recorded(View):
        def show(self, status, figures):
            progress = status.progress
            if progress.step >= 0:
                shown.append((progress.phase, progress.done, progress.total))

    monkeypatch.setattr("daskstats.notebook.FIRST_PICTURE", 0)
    monkeypatch.setattr("daskstats.notebook.SHORTEST", 0)
    monkeypatch.setattr("daskstats.notebook.BUDGET", 1e9)
    monkeypatch.setattr(computing, "view_of", lambda options: Recorded)
    return shown


@pytest.mark.parametrize(
    ("suffix", "shape", "statistic", "limit", "steps"),
    [
        pytest.param(".npy", (7, 60, 80), "max", None, 7, id="no more than frames"),
        pytest.param(".npy", (7, 60, 80), "median", None, 50, id="of rows there are more"),
        pytest.param(".npy", (120, 20, 20), "max", None, 50, id="fifty are enough"),
        pytest.param(".zarr", (100, 60, 80), "max", None, 25, id="chunks of four frames"),
        pytest.param(".zarr", (100, 60, 80), "median", "5500 KiB", 50, id="read for each band"),
    ],
)
def test_default_number_of_images(tmp_path, monkeypatch, suffix, shape, statistic, limit, steps):
    monkeypatch.setattr("daskstats.simulate.SMALLEST_BLOCK", 4 * 60 * 80 * 2)
    simulate(tmp_path / f"scan{suffix}", shape[0], shape[1:])
    source = open_source(tmp_path / f"scan{suffix}")
    given = {"nframes": 0, "memory_limit": limit}
    with dask.config.set(scheduler="synchronous"):
        job = computing.plan_reduction(source, statistic, given)
        once = computing.plan_reduction(source, statistic, given | {"chunks": 1})
    assert steps in (len(job.plan.steps), None)
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
        (["max"], ["Missing argument 'INPUT...'", "daskstats max --help"]),
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
        (["max", "scan.txt", "-o", "OUT"], ["there is no file scan.txt"]),
        (["max", "IN", "-o", "image.jpg"], ["image.jpg has no known suffix"]),
        (["max", "IN", "-o", "nowhere/image.npy"], ["there is no directory"]),
        (["max", "IN", "-o", "IN", "--force"], ["is the input"]),
        (["percentile", "IN", "-o", "OUT"], ["Missing option '--pctl'"]),
        (["percentile", "IN", "-o", "OUT", "--pctl", "high"], ["'high' is not a number"]),
        (["percentile", "IN", "-o", "OUT", "--pctl", "101"], ["pctl must be", "101"]),
        (["percentile", "IN", "-o", "nan.npy", "--pctl", "nan"], ["pctl must be"]),
        (["percentile", "IN", "-o", "a.png", "--pctl", "5,95"], ["2-D image only"]),
        (["count_above", "IN", "-o", "OUT"], ["Missing option '--threshold'"]),
        (["count_above", "IN", "-o", "OUT", "--threshold", "nan"], ["threshold must be"]),
        (["clipped_average", "IN", "-o", "OUT", "--sigma", "0"], ["sigma must be more than 0"]),
        (["clipped_average", "IN", "-o", "OUT", "--sigma", "few"], ["'few' is not a number"]),
        (["clipped_average", "IN", "-o", "OUT", "--maxiters", "0"], ["maxiters", "at least 1"]),
        (["clipped_average", "IN", "-o", "OUT", "--maxiters", "2.5"], ["nor none"]),
        (["max", "IN", "-o", "OUT", "--frames", "5"], ["'5' is not START:STOP[:STEP]"]),
        (["max", "IN", "-o", "OUT", "--frames", "a:b"], ["'a:b' is not START:STOP[:STEP]"]),
        (["max", "IN", "-o", "OUT", "--frames", "::0"], ["'::0' is not START:STOP[:STEP]"]),
        (["max", "IN", "-o", "OUT", "--frames", "20:"], ["selects none of the 12 frames"]),
        (["max", "IN", "-o", "OUT", "--region", "0:5"], ["'0:5' is not R0:R1,C0:C1"]),
        (["max", "IN", "-o", "OUT", "--region", "0:5,9"], ["'0:5,9' is not R0:R1,C0:C1"]),
        (["max", "IN", "-o", "OUT", "--region", "0:31,0:9"], ["region has rows 0:31"]),
        (["max", "IN", "-o", "OUT", "--invalid", "-1,"], ["'-1,' is not a number"]),
        (["max", "IN", "-o", "OUT", "--saturation", "much"], ["'much' is not a number"]),
        (["max", "IN", "-o", "OUT", "--saturation", "nan"], ["saturation must be a number"]),
        (["max", "IN", "-o", "OUT", "--invalid", "0", "--fill-value", "-1"], ["fill_value -1"]),
        (["max", "IN", "-o", "OUT", "--fill-value", "none"], ["'none' is not a number"]),
        (["max", "IN", "-o", "OUT", "--mask", "none.npy"], ["there is no mask none.npy"]),
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


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
def test_notes_are_in_the_line(tmp_path, scan, monkeypatch, scheduler):
    error = ValueError("the detector\nwas off")
    ims = FakeSeries(Filled((3, 4)), 5, on_read=Fail({3: 1}, error))
    monkeypatch.setattr(computing, "open_files", lambda names, **_: open_source(ims))
    arguments = "--chunks", 5, "--scheduler", scheduler
    with dask.config.set(num_workers=1):
        result = run("max", scan, "-o", tmp_path / "image.npy", *arguments)
    check_error(result, 2, "error: the detector was off (while reading frame", "3")


def test_failure_while_writing(tmp_path, scan, monkeypatch):
    def full(image, path, notes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(FORMATS, ".npy", FORMATS[".npy"]._replace(write=full))
    result = run("max", scan, "-o", tmp_path / "image.npy")
    check_error(result, 1, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


def test_failure_while_computing(tmp_path, scan, monkeypatch):
    def fail(*args, **options):
        raise KeyError("x")

    monkeypatch.setattr(reduction.Reduction, "stream", fail)
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
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(reduction.Reduction, "stream", interrupt)
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


# ---------------------------------------------------------------------- what is left out


def ended(result):
    assert result.exit_code == 0, result.stderr
    return result


def test_frames_and_region(tmp_path, scan):
    output = tmp_path / "image.npy"
    chosen = ["--frames", "2:-1:3", "--region", "5:25,0:8"]
    result = ended(run("median", scan, "-o", output, *chosen))
    oracle = expected("median", FRAMES[2:-1:3, 5:25, :8])
    np.testing.assert_array_equal(np.load(output), oracle, strict=True)
    assert "median: 3 frames of 20 x 8 uint16" in result.stderr
    ended(run("max", scan, "-o", output, "--frames", "::2", "--nframes", 2, "--force"))
    np.testing.assert_array_equal(np.load(output), FRAMES[:4:2].max(axis=0))


def test_selection_is_in_info(scan):
    result = ended(run("info", scan, "--frames", "-5:", "--region", "0:10,0:40"))
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert (lines["frames"], lines["shape"]) == ("5 of 12", "10 x 40 of 30 x 40")


def test_values_that_do_not_count(tmp_path):
    frames = FRAMES.astype("i4")
    frames[frames < 300] = -1
    frames[(frames >= 300) & (frames < 400)] = -2
    frames[0] = 500  # so that every pixel has a value
    np.save(tmp_path / "scan.npy", frames)
    output = tmp_path / "image.npy"
    left_out = "--invalid", "-1,-2", "--saturation", "900"
    valid = (frames >= 0) & (frames < 900)
    masked = np.ma.array(frames, mask=~valid)
    for name, oracle in {
        "average": masked.mean(axis=0, dtype="f8").filled().astype("f4"),
        "max": masked.max(axis=0).filled(),
        "count": valid.sum(axis=0),
        "median": np.ma.median(masked, axis=0).filled().astype("f4"),
    }.items():
        ended(run(name, tmp_path / "scan.npy", "-o", output, *left_out, "--force"))
        np.testing.assert_array_equal(np.load(output), oracle, strict=True)


def test_nan_and_fill_value(tmp_path):
    frames = FRAMES.astype("f4")
    frames[::2, 3], frames[:, 4] = np.nan, np.nan
    np.save(tmp_path / "scan.npy", frames)
    output = tmp_path / "image.npy"
    ended(run("max", tmp_path / "scan.npy", "-o", output, "--skipna", "--fill-value", "-1"))
    oracle = np.fmax.reduce(frames, axis=0)
    oracle[4] = -1
    np.testing.assert_array_equal(np.load(output), oracle, strict=True)
    ended(run("max", tmp_path / "scan.npy", "-o", output, "--force"))
    np.testing.assert_array_equal(np.load(output), frames.max(axis=0))


def write_fabio(mask, path):
    import fabio

    fabio.edfimage.EdfImage(data=mask.astype("u1")).write(str(path))


@pytest.mark.filterwarnings("ignore:.*ImageJ opens")
@pytest.mark.parametrize("dtype", ["?", "u1", "i4"])
@pytest.mark.parametrize("suffix", [".npy", ".tif", ".png", ".h5", ".edf", ".h5::/image"])
def test_mask(tmp_path, scan, suffix, dtype):
    mask = np.random.default_rng(1).random(FRAMES.shape[1:]) < 0.2
    file = tmp_path / f"mask{suffix.partition('::')[0]}"
    if file.suffix == ".edf":
        write_fabio(mask, file)
    else:
        outputs.save(mask.astype("u1" if file.suffix == ".png" else dtype) * 3, file)
    arguments = "--mask", f"{tmp_path}/mask{suffix}", "--fill-value", 7
    ended(run("max", scan, "-o", tmp_path / "image.npy", *arguments))
    image = np.load(tmp_path / "image.npy")
    np.testing.assert_array_equal(image, np.where(mask, 7, FRAMES.max(axis=0)))


def test_every_mask_suffix_is_known():
    assert set(suffixes("read")) >= {
        *(".npy", ".tif", ".tiff", ".png", ".edf", ".cbf", ".msk"),
        *(".h5", ".hdf5", ".hdf", ".nxs", ".zarr"),
    }


def test_bad_masks(tmp_path, scan):
    np.save(tmp_path / "floats.npy", np.zeros((30, 40)))
    np.save(tmp_path / "small.npy", np.ones((3, 4), bool))
    np.save(tmp_path / "mask.npy", np.ones((30, 40), bool))
    outputs.save(np.zeros((2, 30, 40), "u1"), tmp_path / "two.h5")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "mask.txt").write_text("no image")
    for file, *words in (
        ("missing.npy", "there is no mask"),
        ("mask.txt", "no known suffix"),
        ("floats.npy", "bool or integers, got float64"),
        ("small.npy", "mask has shape (3, 4), expected (30, 40)"),
        ("two.h5", "2 images, expected one"),
        ("mask.npy", "give a fill_value"),
        ("text.npy",),
    ):
        result = run("max", scan, "-o", tmp_path / "image.npy", "--mask", tmp_path / file)
        check_error(result, 2, *words)
    arguments = "--mask", tmp_path / "mask.npy", "--force"
    check_error(run("average", scan, "-o", tmp_path / "mask.npy", *arguments), 2, "is the input")
    assert not (tmp_path / "image.npy").exists()


def test_pixels_without_a_value(tmp_path, scan):
    arguments = scan, "-o", tmp_path / "image.npy", "--saturation", 0
    check_error(run("max", *arguments), 2, "pixels have no valid value", "give a fill_value")
    ended(run("average", *arguments))
    assert np.isnan(np.load(tmp_path / "image.npy")).all()


# ---------------------------------------------------------------------- several statistics

STATS = "max,average,median,argmax,percentile:30,percentile:0:50:100,count_above:900"


def expected_images(frames=FRAMES):
    names = "max", "average", "median", "argmax"
    return {
        **{name: expected(name, frames) for name in names},
        "percentile_30": expected("percentile", frames),
        "percentile_0_50_100": np.percentile(frames.astype("f8"), [0, 50, 100], axis=0).astype(
            "f4"
        ),
        "count_above_900": expected("count_above", frames),
    }


def read_images(path):
    if path.suffix == ".zarr":
        import zarr

        return {name: array[...] for name, array in zarr.open_group(path, mode="r").arrays()}
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return dict(archive)
    if path.suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(path) as file:
            return {name: dataset[...] for name, dataset in file.items() if name != "entry"}
    import tifffile

    readers = {".npy": np.load, ".tif": tifffile.imread}
    return {file.stem: readers[file.suffix](file) for file in path.iterdir()}


def check_images(found, oracle):
    assert set(found) == set(oracle)
    for name, image in oracle.items():
        np.testing.assert_array_equal(found[name], image, err_msg=name, strict=True)


@pytest.mark.filterwarnings("ignore:.*ImageJ opens")
@pytest.mark.parametrize(
    "output", ["all.zarr", "all.npz", "all.h5", "all.HDF5", "all", "all/", "all --format tif"]
)
def test_aggregate(tmp_path, scan, output):
    name, *form = output.split()
    result = ended(run("aggregate", scan, "--stats", STATS, "-o", f"{tmp_path}/{name}", *form))
    path = tmp_path / name
    found = read_images(path.with_suffix(path.suffix.lower()) if path.is_dir() else moved(path))
    check_images(found, expected_images())
    assert result.stderr.splitlines()[-1].startswith("aggregate: 12 frames of 30 x 40 uint16 in ")


def moved(path):
    return path.rename(path.with_suffix(path.suffix.lower()))


def test_aggregate_of_frame_wise_statistics(tmp_path, scan):
    chosen = "--frames", "1:8", "--region", "2:9,3:30", "--invalid", "0"
    arguments = "--stats", "max, std", "--dtype", "f8", "-o", tmp_path / "all.npz", "--quiet"
    assert ended(run("aggregate", scan, *arguments, *chosen)).stderr == ""
    frames = np.ma.masked_equal(FRAMES[1:8, 2:9, 3:30].astype("f8"), 0)
    found = read_images(tmp_path / "all.npz")
    np.testing.assert_array_equal(found["max"], frames.max(axis=0).filled(), strict=True)
    np.testing.assert_allclose(found["std"], frames.std(axis=0).filled(), rtol=1e-12)


def test_clipped_average_of_a_list(tmp_path, scan):
    names = "clipped_average:1.5:2,clipped_average:3:none"
    ended(run("aggregate", scan, "--stats", names, "-o", tmp_path / "all.npz"))
    image = read_images(tmp_path / "all.npz")["clipped_average_1.5_2"]
    np.testing.assert_allclose(image, expected("clipped_average"), rtol=1e-6)


@pytest.mark.parametrize("output", ["all.zarr", "all.npz", "all.h5", "all"])
def test_existing_images(tmp_path, scan, output):
    path = tmp_path / output
    arguments = scan, "--stats", "max,min", "-o", path
    ended(run("aggregate", *arguments))
    check_error(run("aggregate", *arguments, "--nframes", 3), 2, "exists already")
    check_images(read_images(path), {name: expected(name) for name in ("max", "min")})
    ended(run("aggregate", *arguments, "--nframes", 3, "--force"))
    check_images(read_images(path), {name: expected(name, FRAMES[:3]) for name in ("max", "min")})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["scan.npy", output])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "a.npz"], ["Missing option '--stats'"]),
        (["--stats", "max"], ["Missing option '-o'"]),
        (["--stats", "maxi", "-o", "a.npz"], ["no statistic 'maxi'", "choose from max"]),
        (["--stats", "max,,min", "-o", "a.npz"], ["no statistic ''"]),
        (["--stats", "max,max", "-o", "a.npz"], ["names more than once: max"]),
        (["--stats", "max:3", "-o", "a.npz"], ["max takes no parameter"]),
        (["--stats", "percentile", "-o", "a.npz"], ["percentile takes the parameters"]),
        (["--stats", "percentile:", "-o", "a.npz"], ["'percentile:' is not names"]),
        (["--stats", "percentile:high", "-o", "a.npz"], ["'percentile:high' is not names"]),
        (["--stats", "percentile:5:101", "-o", "a.npz"], ["pctl must be", "101"]),
        (["--stats", "clipped_average:0", "-o", "a.npz"], ["sigma must be more than 0"]),
        (["--stats", "max", "-o", "a.tif"], ["one image only", "a directory", ".npz"]),
        (["--stats", "max", "-o", "a.jpg"], ["no known suffix", "a directory"]),
        (["--stats", "max", "-o", "a.npz", "--format", "tif"], ["a format is for a directory"]),
        (["--stats", "max", "-o", "a", "--format", "jpg"], ["'jpg' is not one of"]),
        (["--stats", "percentile:5:9", "-o", "a", "--format", "png"], ["2-D image only"]),
        (["--stats", "max", "-o", "nowhere/a"], ["there is no directory"]),
        (["--stats", "max", "-o", ".", "--force"], ["is the input"]),
        (["--stats", "max", "-o", "other", "--force"], ["holds thesis.txt"]),
        (["--stats", "max", "-o", "a.npz", "--chunks", "0"], ["--chunks must be at least 1"]),
        (["--stats", "max,std", "-o", "a.npz", "--dtype", "i4"], ["dtype of std"]),
    ],
)
def test_bad_usage_of_aggregate(tmp_path, scan, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    check_error(run("aggregate", "scan.npy", *args), 2, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "scan.npy"]


@pytest.mark.parametrize("output", ["all.npz", "all"])
def test_failure_while_writing_images(tmp_path, scan, monkeypatch, output):
    def full(images, path, notes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(FORMATS, ".npz", FORMATS[".npz"]._replace(write_all=full))
    monkeypatch.setitem(FORMATS, ".npy", FORMATS[".npy"]._replace(write=full))
    result = run("aggregate", scan, "--stats", "max,min", "-o", tmp_path / output)
    check_error(result, 1, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Return the path and frames of whole-frame chunks that 16 MiB cannot hold."""
    import zarr

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    frames = np.random.default_rng(0).integers(0, 1000, (300, 128, 256)).astype("u2")
    zarr.create_array(tmp_path / "scan.zarr", data=frames, chunks=(1, 128, 256))
    with dask.config.set({"daskstats.scratch-directory": str(tmp_path)}):
        yield tmp_path / "scan.zarr", frames


@pytest.mark.parametrize("command", ["median", "aggregate --stats max,median"])
def test_progress_while_frames_are_written_to_disk(tmp_path, large, monkeypatch, command):
    path, frames = large
    shown = recorded(monkeypatch)
    # Whatever the machine: a RAM disk is not used.
    monkeypatch.setattr("daskstats.scratch.location.RAM_DISKS", ())
    output = tmp_path / "image.npz" if "stats" in command else tmp_path / "image.npy"
    name, *arguments = command.split()
    ended(run(name, path, *arguments, "-o", output, "--memory-limit", "16 MiB"))
    reads = [done for phase, done, total in shown if phase == "read" and total == 300]
    assert reads == sorted(reads)
    assert len(set(reads)) > 5
    assert [phase for phase, *_ in shown[len(reads) :]] == ["compute"] * (len(shown) - len(reads))
    assert shown[-1] == ("compute", 128, 128)
    found = np.load(output)
    image = found["median"] if "stats" in command else found
    np.testing.assert_array_equal(image, expected("median", frames))
    if "stats" in command:
        np.testing.assert_array_equal(found["max"], frames.max(axis=0))
        found.close()
    assert {path.name for path in tmp_path.iterdir()} == {"scan.zarr", output.name}


def test_info_of_what_is_written_to_disk(large, monkeypatch):
    monkeypatch.setattr("daskstats.scratch.location.RAM_DISKS", ())
    path, _ = large
    result = ended(run("info", path, "--memory-limit", "16 MiB"))
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert lines["scratch"].endswith(f" GB free in {path.parent}")
    assert lines["row-wise"].startswith("scratch: ")
    assert f"18.75 MiB of scratch data in {path.parent} (50" in lines["row-wise"]


def test_info_names_a_ram_disk(scan, monkeypatch):
    found = Disk("/ram", 2 * 10**9, in_memory=True)
    monkeypatch.setattr(location, "find_location", lambda: found)
    result = ended(run("info", scan))
    assert "2 GB free in /ram, a RAM disk, which is not used" in result.stdout


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


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_ctrl_c(tmp_path, scheduler):
    # A file of holes: many seconds of work, no disk space.
    shape = (6000, 1024, 1024)
    np.lib.format.open_memmap(tmp_path / "scan.npy", "w+", "u1", shape)
    arguments = ["average", "scan.npy", "-o", "image.npy", "--scheduler", scheduler, "-v"]
    program = subprocess.Popen(
        daskstats(*arguments),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A terminal sends Ctrl-C to the whole process group.
        start_new_session=True,
    )
    with program:
        assert program.stderr.readline().startswith("daskstats: average of 6000 frames")
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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(
            *(["--invalid", "4294967295"], "invalid=4294967295 leaves out nothing"),
            marks=pytest.mark.nightly,
        ),
        (["--invalid", "-1,0.5"], "invalid=-1 and invalid=0.5 leave out nothing"),
        (["--saturation", "70000"], "saturation=70000 leaves out nothing"),
    ],
)
def test_a_warning_is_one_line(scan, tmp_path, options, text):
    """However many plans are tried, and without the line of code that it is from."""
    command = [sys.executable, "-m", "daskstats", "average", str(scan), "-o"]
    output = subprocess.run(
        [*command, str(tmp_path / "image.npy"), "--quiet", *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert output.returncode == 0
    (line,) = output.stderr.splitlines()
    assert line.startswith("daskstats: warning: ")
    assert text in line
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), expected("average"))


@pytest.mark.parametrize("option", ["invalid", "saturation", "fill-value"])
def test_numbers_beyond_float64(scan, tmp_path, option):
    for text in ("1" + "0" * 400, "-1" + "0" * 5000):
        given = f"--{option}={text}", "--skipna"
        result = run("average", scan, "-o", tmp_path / "image.npy", *given)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert option.replace("-", "_") in result.stderr.replace("-", "_")
