"""Clusters from the command line, the dashboard in a browser, and what the guide says."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import h5py
import numpy as np
import pytest
from clusters import HERE, Browser, find_browser, local_cluster, logged_series
from programs import daskstats

import daskstats as stats
from daskstats.cli import commands
from daskstats.run import workers


def command(*args):
    return [sys.executable, "-m", "daskstats", *map(str, args)]


def run(*args, **options):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=100, **options)


@pytest.fixture(autouse=True, scope="module")
def _code_is_there():
    """Compile the code of these tests here, once; each worker of a command would do it."""
    stats.median(np.zeros((12, 2, 2), "u2")).compute()


def check_image(path, scan):
    np.testing.assert_array_equal(np.load(path), np.median(scan.stack(), axis=0).astype("f4"))


@pytest.fixture
def saved(tmp_path):
    scan = logged_series(tmp_path / "log", 12)
    np.save(tmp_path / "scan.npy", scan.stack())
    return scan


def test_command_with_workers_of_its_own(tmp_path, saved):
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "image.npy", "--workers", 2]
    result = run(*args)
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "image.npy", saved)
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"dashboard: http://{HERE}:")


def test_command_with_a_scheduler_file(client, tmp_path, saved):
    client.write_scheduler_file(str(tmp_path / "scheduler.json"))
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "image.npy", "--scheduler-file"]
    result = run(*args, tmp_path / "scheduler.json")
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "image.npy", saved)
    assert result.stderr.startswith(f"dashboard: {client.dashboard_link}\n")
    args[3] = tmp_path / "other.npy"
    result = run(*args, tmp_path / "none.json")
    assert result.returncode == 2
    assert "there is no scheduler file" in result.stderr


def test_command_takes_one_kind_of_cluster(tmp_path, saved):
    args = ["max", tmp_path / "scan.npy", "-o", tmp_path / "x.npy", "--workers", 2]
    result = run(*args, "--scheduler", "threads")
    assert result.returncode == 2
    assert "--scheduler and --workers exclude each other" in result.stderr


def test_our_own_cluster_listens_on_loopback_only():
    psutil = pytest.importorskip("psutil")
    with workers.local_cluster(2) as client:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [socket for process in family for socket in process.net_connections("inet")]
        listening = {socket.laddr.ip for socket in sockets if socket.status == "LISTEN"}
        assert len(client.scheduler_info()["workers"]) == 2
    assert listening == {HERE}


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_an_interrupted_command_leaves_no_process(tmp_path):
    """Ctrl-C reaches every process of a terminal at once."""
    psutil = pytest.importorskip("psutil")
    np.lib.format.open_memmap(tmp_path / "scan.npy", "w+", "u2", (3000, 512, 256))
    args = ["median", tmp_path / "scan.npy", "-o", tmp_path / "x.npy", "--workers", 2]
    process = subprocess.Popen(
        daskstats(*args), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr.readline().startswith("dashboard: ")
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert (process.returncode, alive) == (130, [])
    assert errors.splitlines()[-1] == "daskstats: interrupted", errors
    assert not (tmp_path / "x.npy").exists()


# ---------------------------------------------------------------------- the dashboard

# What the page's own data say that it shows: the names in the bars, and those of the tasks.
SHOWN = """
JSON.stringify([...new Set(
    Bokeh.documents.flatMap(document => [...document._all_models.values()])
        .filter(model => model.type === "ColumnDataSource")
        .flatMap(model => [...(model.data.name || [])]))])
"""


def test_names_on_the_dashboard(tmp_path):
    """The tasks of a statistic are grouped under names that people can read."""
    pytest.importorskip("bokeh")
    if find_browser() is None:
        pytest.skip("there is no Chromium")
    scan = logged_series(tmp_path / "log", 64, shape=(256, 512), delay=0.005)
    with local_cluster(1, 2, processes=False) as client:
        base = client.dashboard_link.removesuffix("/status")
        with Browser(tmp_path / "profile") as browser:
            kept = [image.persist() for image in (stats.average(scan), stats.wrap(scan))]
            kept += [stats.median(scan).persist()]
            bars = browser.values(f"{base}/individual-progress", SHOWN, "average-partial")
            browser.screenshot(tmp_path / "progress.png")
            browser.open(f"{base}/individual-task-stream")
            *_, _ = stats.average_iter(scan, 1)
            *_, _ = stats.percentile_iter(scan, 50, 1)
            tasks = browser.values("", SHOWN, "percentile-band")
            browser.screenshot(tmp_path / "tasks.png")
        del kept
    assert {"average-partial", "average", "read-frames", "median", "source"} <= set(bars)
    assert {"average-partial", "average-step", "percentile-band"} <= set(tasks)
    assert (tmp_path / "progress.png").stat().st_size > 5000


# ---------------------------------------------------------------------- the guide

GUIDE = Path(__file__).parents[2] / "docs" / "clusters.md"

# Starts two workers where Slurm's would start one for each task.
SRUN = """#!/bin/bash
"$@" & "$@" & wait
"""


def blocks_of_the_guide(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.S)


def test_the_example_of_the_guide_runs(tmp_path, saved):
    (block,) = blocks_of_the_guide("python")
    (tmp_path / "example.py").write_text(block)
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    address, *means = result.stdout.split()
    assert address.startswith(f"http://{HERE}:")
    assert len(means) == 10


def test_the_job_script_of_the_guide_runs(tmp_path, saved):
    (script,) = (each for each in blocks_of_the_guide("bash") if "srun" in each)
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1", "INTERFACE": "lo"}
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    result = subprocess.run(
        ["bash", "-c", script], env=os.environ | slurm | {"PATH": path}, **options
    )
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "dark.npy", saved)
    assert not list(tmp_path.glob("*.json"))


# Slurm's commands: a job is a group of processes on this machine.
SLURM = {
    "sbatch": 'setsid bash "$1" > "$PWD/job-$$.log" 2>&1 &\necho "Submitted batch job $!"',
    "scancel": 'for job in "$@"; do kill -- "-$job"; done',
}


@pytest.mark.nightly
def test_the_example_with_dask_jobqueue_runs(tmp_path, saved):
    """Real jobs of the real package; two on the loopback interface instead of eight."""
    pytest.importorskip("dask_jobqueue")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["images"] = saved.stack()
    (block,) = (each for each in blocks_of_the_guide("py") if "SLURMCluster" in each)
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    changes = {
        '"ib0"': '"lo"',
        "jobs=8": "jobs=2",
        ":8787": ":0",
        "50": "8",
        "...": "print(image.mean())",
    }
    for before, after in changes.items():
        assert before in block
        block = block.replace(before, after)
    (tmp_path / "example.py").write_text(block + "cluster.close()\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
    environment = os.environ | {"PATH": path, "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "example.py"], env=environment, **options)
    assert result.returncode == 0, result.stderr
    means = [float(line) for line in result.stdout.split()]
    assert len(means) == 8
    assert means[-1] == pytest.approx(np.median(saved.stack(), axis=0).mean())


TLS = """
{block} &
trap 'kill $(jobs -p); wait' EXIT
while [ ! -s scheduler.json ]; do sleep 0.1; done
dask worker --scheduler-file scheduler.json --host 127.0.0.1 --protocol tls --no-dashboard &
daskstats median scan.npy -o dark.npy --scheduler-file scheduler.json
grep tls:// scheduler.json
"""


@pytest.mark.nightly
@pytest.mark.skipif(which("openssl") is None, reason="there is no openssl")
def test_the_cluster_with_tls_of_the_guide_runs(tmp_path, saved):
    (block,) = (each for each in blocks_of_the_guide("sh") if "TLS" in each)
    place = tmp_path / "tls"
    place.mkdir()
    request = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=daskstats -days 2"
    files = ["-keyout", place / "key.pem", "-out", place / "cert.pem"]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    (place / "ca.pem").write_bytes((place / "cert.pem").read_bytes())
    here = "--protocol tls --host 127.0.0.1 --port 0 --no-dashboard"
    block = block.strip().replace("--protocol tls", here).replace("$HOME", str(tmp_path))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    script = TLS.format(block=block)
    result = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, **options)
    assert result.returncode == 0, result.stderr
    check_image(tmp_path / "dark.npy", saved)


def test_commands_of_the_guide_are_commands():
    lines = [line for block in blocks_of_the_guide("sh") for line in block.splitlines()]
    calls = [shlex.split(line) for line in lines if line.startswith("daskstats ")]
    assert len(calls) == 3
    for _, name, *args in calls:
        commands.main.commands[name].make_context(name, args)
