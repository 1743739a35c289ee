"""Jobs that are killed and started again: the image is that of a job that was not, bit for bit."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import jobs
import numpy as np
import pytest
from clusters import local_cluster
from jobs import NFRAMES, STEPS, Job
from programs import running

import daskstats as stats
from daskstats.checkpoints.store import MANIFEST

# Frames that identify the series.
SAMPLED = {0, NFRAMES // 2, NFRAMES - 1}

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals")


def check_killed(place, name, seed):
    """Kill a job at a random moment, or two of them, and let the next one finish."""
    rng = np.random.default_rng(seed)
    kills = rng.integers(1, 3)
    for _ in range(kills):
        with Job(place, name) as job:
            job.wait_for_step()
            time.sleep(rng.uniform(0, 0.03 if name == "median" else 0.2))
    with Job(place, name, delay=0) as job:
        _, image = job.finish()
        reads = job.reads()
    np.testing.assert_array_equal(image, jobs.expected(name))
    assert image.dtype == jobs.expected(name).dtype
    if name == "average":
        repeated = sum(reads[k] - 1 for k in set(range(NFRAMES)) - SAMPLED)
        assert repeated <= kills * NFRAMES // STEPS


@pytest.mark.parametrize("name", ["average", "median"])
def test_killed_at_random(tmp_path, name):
    for seed in range(5):
        check_killed(tmp_path / f"{seed}", name, seed)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["average", "median"])
def test_killed_at_random_often(tmp_path, name):
    for seed in range(5, 100):
        check_killed(tmp_path / f"{seed}", name, seed)


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_killed_on_threads_and_continued_on_a_cluster(tmp_path, count):
    for seed in range(count):
        with Job(tmp_path / f"{seed}", ["average", "median"][seed % 2]) as job:
            job.wait_for_step()
            time.sleep(np.random.default_rng(seed).uniform(0, 0.1))
    with local_cluster():
        for seed in range(count):
            name, place = ["average", "median"][seed % 2], tmp_path / f"{seed}"
            done = stats.load_checkpoint(place / "checkpoint").done
            iterate = getattr(stats, f"{name}_iter")
            images = list(iterate(jobs.series(), STEPS, checkpoint=place / "checkpoint"))
            np.testing.assert_array_equal(images[-1], jobs.expected(name))
            assert done > 0
            assert len(images) < STEPS


def test_steps_that_were_stored_are_not_repeated(tmp_path):
    """Nor are their frames read again, but for those that identify the series."""
    for seed in range(3):
        place = tmp_path / f"{seed}"
        with Job(place, "average") as job:
            for _ in range(2 + 3 * seed):
                job.wait_for_step()
        done, before = stats.load_checkpoint(place / "checkpoint").done, job.reads()
        with Job(place, "average", delay=0) as job:
            job.finish()
        again = job.reads() - before
        repeated = {index for index in again if index < done}
        assert repeated <= SAMPLED
        assert set(again) >= set(range(done, NFRAMES))


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGUSR1", pytest.param("SIGHUP", marks=pytest.mark.nightly)]
)
def test_signals_store_the_state(tmp_path, name):
    """A program that uses the library loses no step, however long the interval is."""
    number = signal.Signals[name]
    with Job(tmp_path, "average", interval=3600) as job:
        for _ in range(3):
            job.wait_for_step()
        job.send(number)
        began, count = time.monotonic(), 3
        while job.wait_for_step():
            count += 1
        job.process.join()
        assert job.process.exitcode == 128 + number
        assert time.monotonic() - began < 10
    done = stats.load_checkpoint(tmp_path / "checkpoint").done
    assert done >= count * NFRAMES // STEPS
    with Job(tmp_path, "average", delay=0) as job:
        steps, image = job.finish()
    assert steps == STEPS - done * STEPS // NFRAMES
    np.testing.assert_array_equal(image, jobs.expected("average"))


def test_signals_are_given_back(rng, tmp_path):
    """A program that handles a signal goes on to do so, and afterwards all is as before."""
    names = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    numbers = [signal.Signals[name] for name in names]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    own = signal.signal(signal.SIGUSR1, lambda *_: None)
    frames = rng.integers(0, 9, (8, 3, 4)).astype("u2")
    try:
        handler = signal.getsignal(signal.SIGUSR1)
        with stats.max_iter(frames, 2, checkpoint=tmp_path / "a") as first:
            next(first)
            with stats.max_iter(frames, 2, checkpoint=tmp_path / "b"):
                pass
            assert signal.getsignal(signal.SIGUSR1) is handler
            assert callable(signal.getsignal(signal.SIGTERM))
        others = [number for number in numbers if number != signal.SIGUSR1]
        assert {signal.getsignal(number) for number in others} == {signal.SIG_DFL}
    finally:
        signal.signal(signal.SIGUSR1, own)
        for number, action in zip(numbers, before, strict=True):
            with suppress(TypeError):  # of a program in another language
                signal.signal(number, action)


CLOSED_ELSEWHERE = """
import os, signal, threading, time
import numpy as np, daskstats as stats
images = stats.max_iter(np.zeros((4, 3, 4), "u2"), 2, checkpoint="place")
next(images)
closing = threading.Thread(target=images.close)
closing.start()
closing.join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_signal_after_another_thread_has_closed_the_iterator(tmp_path):
    """Only the main thread can give signals back; the program ends as if that had been done."""
    command = [sys.executable, "-c", CLOSED_ELSEWHERE]
    assert subprocess.run(command, cwd=tmp_path, timeout=50).returncode == -signal.SIGTERM


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_the_command_line(tmp_path, name):
    """A scheduler tells the end of the wall time; the same command goes on in the next job."""
    data, checkpoint = tmp_path / "long.npy", tmp_path / "c"
    np.lib.format.open_memmap(data, "w+", "u2", (20000, 256, 256))
    checkpoint.mkdir()
    arguments = "average", data, "-o", "x.npy", "--checkpoint", "c", "--chunks", 200, "-v"
    with running(tmp_path, *arguments, DASK_DASKSTATS__CHECKPOINT_INTERVAL="0") as program:
        program.wait_for((checkpoint / MANIFEST).exists)
        program.send(signal.Signals[name])
        code, lines = program.ended()
    assert code == 128 + signal.Signals[name], lines
    done = stats.load_checkpoint(checkpoint).done
    assert 0 < done < 20000
    assert done % 100 == 0
    with running(tmp_path, *arguments) as program:
        _, errors = program.process.communicate(timeout=120)
    assert program.process.returncode == 0, errors
    assert f"continued after {done} of 20000 frames" in errors
    assert not np.load(tmp_path / "x.npy").any()


def test_the_script_of_the_guide(tmp_path):
    """A job that is requeued: the signal goes to the shell, as Slurm sends it."""
    guide = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text()
    scripts = re.findall(r"```bash\n(.*?)```", guide, re.S)
    (script,) = (each for each in scripts if "requeue" in each)
    np.lib.format.open_memmap(tmp_path / "long.npy", "w+", "u2", (20000, 256, 256))
    # The stand-in for Slurm's command, and this environment's program.
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in {
        "scontrol": 'echo "$@" > requeued',
        "daskstats": f'exec {sys.executable} -m daskstats "$@"',
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SCAN": "long.npy",
        "SLURM_JOB_ID": "4711",
    }
    command = ["bash", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as job:
        # Its program handles signals from here on.
        deadline = time.monotonic() + 60
        while not (tmp_path / "flat.checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
    assert job.returncode == 0
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert not (tmp_path / "flat.npy").exists()
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=120).returncode == 0
    assert not np.load(tmp_path / "flat.npy").any()
