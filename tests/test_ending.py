"""A signal ends the program in every phase: nothing is left, one line, and its exit code."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from programs import daskstats, python, running, started

from daskstats import ending
from daskstats.formats import outputs

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="there are no such signals"
)

INTERRUPTED = "daskstats: interrupted"
# The log: the plan of a statistic, and what it does now.
LOGGED = re.compile("dashboard: |daskstats: (average|median)( of |: )")
ENDS = {
    "SIGINT": INTERRUPTED,
    "SIGTERM": "daskstats: terminated by SIGTERM",
    "SIGHUP": "daskstats: terminated by SIGHUP",
    "SIGUSR1": "daskstats: terminated by SIGUSR1",
    "SIGXCPU": "daskstats: terminated by SIGXCPU",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a directory with series for each phase."""
    import zarr

    place = tmp_path_factory.mktemp("data")
    # A file of holes: many seconds of work, no disk space.
    np.lib.format.open_memmap(place / "long.npy", "w+", "u2", (20000, 512, 512))
    np.save(place / "large.npy", np.random.default_rng(0).random((1, 1500, 2000)))
    frames = zarr.create_array(
        place / "whole.zarr", shape=(800, 512, 512), chunks=(4, 512, 512), dtype="u2"
    )
    frames[:] = np.broadcast_to(np.arange(512, dtype="u2") + 1, frames.shape)
    return place


def check(program, name):
    """The program ends by a signal, with one line after those of the log and the address."""
    code, lines = program.ended()
    number = getattr(signal, name)
    assert code == ending.exit_code(number), lines
    said = [line for line in lines if not LOGGED.match(line)]
    assert said[-1] == ENDS[name]
    assert len(said) <= 2, lines


@pytest.mark.parametrize(
    ("name", "delay"), [("SIGINT", 0), ("SIGINT", 0.2), ("SIGTERM", 0.1), ("SIGHUP", 0.3)]
)
def test_while_packages_are_imported(tmp_path, data, name, delay):
    with running(tmp_path, "max", data / "long.npy", "-o", "x.npy") as program:
        program.wait_until_watched()
        time.sleep(delay)
        program.send(signal.Signals[name])
        check(program, name)


def test_while_kernels_are_compiled(tmp_path, data):
    arguments = "std", data / "long.npy", "-o", "x.npy", "-v"
    with running(tmp_path, *arguments, NUMBA_CACHE_DIR=str(tmp_path / "scratch")) as program:
        program.wait_for_line("daskstats: compiling the std of ")
        program.send(signal.SIGINT)
        code, lines = program.process.wait(30), program.process.stderr.read().splitlines()
        assert (code, lines) == (130, [INTERRUPTED])


@pytest.mark.parametrize("name", sorted(ENDS))
def test_while_frames_are_written_to_disk(tmp_path, data, name):
    limit = "--memory-limit", "40 MiB"
    with running(tmp_path, "median", data / "whole.zarr", "-o", "x.npy", *limit) as program:
        program.wait_for(program.is_spooling)
        program.send(signal.Signals[name], group=name in ("SIGINT", "SIGHUP"))
        check(program, name)


@pytest.mark.parametrize("pause", [0, 0.02, 0.2])
def test_a_second_signal(tmp_path, data, pause):
    limit = "--memory-limit", "40 MiB"
    with running(tmp_path, "median", data / "whole.zarr", "-o", "x.npy", *limit) as program:
        program.wait_for(program.is_spooling)
        program.send(signal.SIGINT)
        for name in ("SIGINT", "SIGTERM", "SIGINT"):
            time.sleep(pause)
            if program.process.poll() is None:
                program.send(signal.Signals[name], group=False)
        # Of signals that come together the first to be delivered counts.
        check(program, "SIGINT" if pause or program.process.wait(30) == 130 else "SIGTERM")


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("SIGINT", "threads"),
        ("SIGTERM", "synchronous"),
        ("SIGINT", "processes"),
        ("SIGTERM", "processes"),
    ],
)
def test_while_frames_are_reduced(tmp_path, data, name, scheduler):
    arguments = "average", data / "long.npy", "-o", "x.npy", "--scheduler", scheduler, "-v"
    with running(tmp_path, *arguments) as program:
        program.wait_for_line("daskstats: average of ")
        time.sleep(0.3)
        program.send(signal.Signals[name])
        check(program, name)


def test_a_signal_that_reaches_the_children_first(tmp_path, data):
    """The end of their processes is not the error to report."""
    arguments = "average", data / "long.npy", "-o", "x.npy", "--scheduler", "processes", "-v"
    with running(tmp_path, *arguments) as program:
        program.wait_for_line("daskstats: average of ")
        program.wait_for(lambda: len(program.family()) > 1)
        for child in program.family():
            child.terminate()
        time.sleep(0.1)
        program.send(signal.SIGTERM, group=False)
        check(program, "SIGTERM")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_while_the_output_is_written(tmp_path, data, name):
    """HDF5 compresses for most of a second; an interrupt used to be lost there in a callback."""
    output = tmp_path / "x.h5"
    outputs.save(np.ones((4, 5)), output)
    before = output.read_bytes()
    with running(tmp_path, "max", data / "large.npy", "-o", output, "--force") as program:
        program.wait_for(program.is_writing)
        program.send(signal.Signals[name])
        check(program, name)
    assert output.read_bytes() == before


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ".npy", ".npz"])
def test_while_a_series_is_simulated(tmp_path, suffix):
    arguments = "simulate", f"x{suffix}", "--nframes", 5000, "--shape", "256x256"
    with running(tmp_path, *arguments) as program:
        program.wait_for(program.is_writing)
        program.send(signal.SIGTERM)
        check(program, "SIGTERM")


@pytest.mark.parametrize(
    ("name", "group", "delay"),
    [
        ("SIGINT", True, 0.6),
        ("SIGTERM", False, 0.3),
        pytest.param("SIGINT", True, 0, marks=pytest.mark.nightly),
        pytest.param("SIGHUP", True, 0.9, marks=pytest.mark.nightly),
    ],
)
def test_while_a_cluster_starts(tmp_path, data, name, group, delay):
    """The workers are not there yet, but their processes are."""
    arguments = "median", data / "long.npy", "-o", "x.npy", "--workers", 2
    with running(tmp_path, *arguments) as program:
        program.wait_for(lambda: len(program.family()) > 1)
        time.sleep(delay)
        program.send(signal.Signals[name], group)
        check(program, name)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("SIGINT", True),
        pytest.param("SIGTERM", True, marks=pytest.mark.nightly),
        pytest.param("SIGUSR1", False, marks=pytest.mark.nightly),
    ],
)
def test_while_workers_compute(tmp_path, data, name, group):
    spill = tmp_path / "spill"
    spill.mkdir()
    # Through dask's own exchange, which writes to the disks of the workers.
    settings = {"DASK_TEMPORARY_DIRECTORY": str(spill), "DASK_DASKSTATS__SCRATCH_DIRECTORY": "None"}
    arguments = "median", data / "whole.zarr", "-o", "x.npy", "--workers", 2, "-v"
    with running(tmp_path, *arguments, **settings) as program:
        program.wait_for_line("daskstats: median of ")
        time.sleep(0.2)
        program.send(signal.Signals[name], group)
        check(program, name)
    # Locks of dask's, and of its scheduler, stay where they are for all its processes.
    assert not [path for path in spill.rglob("*") if path.name.startswith(("worker", "daskstats"))]


def test_signals_that_are_ignored_stay_so(tmp_path, data):
    """`nohup` ignores the first, and a shell the second in the background."""
    arguments, ignored = ("max", data / "whole.zarr", "-o", "x.npy", "-v"), ("SIGHUP", "SIGINT")
    with running(tmp_path, *arguments, ignored=ignored) as program:
        program.wait_for_line("daskstats: max of ")
        for name in ignored:
            program.send(signal.Signals[name], group=False)
        _, errors = program.process.communicate(timeout=60)
        assert program.process.returncode == 0, errors
    assert (np.load(tmp_path / "x.npy") == np.arange(512) + 1).all()


def test_a_progress_bar_gives_the_cursor_back(tmp_path):
    """On a terminal the bar hides it, and the line would stand behind the bar."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = daskstats("simulate", "x.zarr", "--nframes", 5000, "--shape", "256x256")
    process = subprocess.Popen(command, cwd=tmp_path, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"[#" not in shown:
        shown += os.read(ours, 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    with suppress(OSError):  # the end, on Linux
        while more := os.read(ours, 1000):
            shown += more
    os.close(ours)
    assert shown.endswith(b"\r\n\033[?25hdaskstats: interrupted\r\n")
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_ends_alike(tmp_path):
    """The package is imported before the function that the script calls."""
    script = tmp_path / "daskstats"
    script.write_text("import sys\nfrom daskstats.cli.program import main\nsys.exit(main())\n")
    with started(tmp_path, python(script, "simulate", "x.npy")) as program:
        program.wait_until_watched()
        program.send(signal.SIGINT)
        check(program, "SIGINT")


def test_importing_the_package_leaves_signals_alone():
    code = (
        "import signal, threading; before = [signal.getsignal(n) for n in signal.valid_signals()]; "
        "import daskstats.cli, daskstats.cli.program; "
        "assert before == [signal.getsignal(n) for n in signal.valid_signals()]; "
        "assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(); "
        "assert threading.active_count() == 1"
    )
    subprocess.run(python("-c", code), check=True)


def test_what_is_registered_is_called_in_reverse(monkeypatch):
    calls = []
    monkeypatch.setattr(ending, "_cleaners", [])
    ending.at_end(lambda: calls.append(1))
    ending.at_end(lambda: 1 / 0)
    ending.at_end(lambda: calls.append(2))
    ending._call(ending._cleaners)
    assert calls == [2, 1]


def test_a_closer_is_called_only_inside():
    with ending.closing(print):
        assert ending._closers == [print]
    assert ending._closers == []


@pytest.mark.parametrize(
    ("flags", "main", "expected"),
    [
        (["python", "-m", "daskstats", "max"], None, True),
        (["python", "-X", "dev", "-m", "daskstats"], None, True),
        (["python", "-m", "pytest", "-m", "daskstats"], None, False),
        (["python", "/usr/bin/daskstats"], "/usr/bin/daskstats", True),
        (["python", "-c", "from multiprocessing"], None, False),
        (["python", "/home/me/scan.py"], "/home/me/scan.py", False),
    ],
)
def test_only_the_program_is_the_program(monkeypatch, flags, main, expected):
    module = type(sys)("__main__")
    if main is not None:
        module.__file__ = main
    monkeypatch.setattr(sys, "orig_argv", flags)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert ending.is_program() is expected
