"""Every benchmark runs, at a size at which its figures mean nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import worker_method

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Workers that fork need not import everything anew.
FORKING = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": worker_method()}

# Few peers and series: the others start slowly, and may not be installed.
ONLY = "average,median,daskstats,numpy,HEXRD loops,uint16,HDF5 gzip"

CASES = {
    "compare.py": (
        ["--only", ONLY],
        ["| series ", "| of the best peer |", "| goal ", "| uint16 ", "| HDF5 gzip |"],
    ),
    "steps.py": ([], ["| series ", "| of the plain call |", "| first image after "]),
    "aggregate.py": ([], ["### Several", "| zarr zstd | all ", "### What does", "| astropy "]),
    "memory.py": (["--only", "max,median"], ["| projected / peak |", "| generated | median "]),
    "cluster.py": ([], ["### Two workers", "### Streams", "### Scheduling", "| sleeping "]),
    "scale.py": ([], ["### Growth", "### Building the graph", "### Overhead", "### Start-up"]),
}


def run(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), "--tiny", *options]
    env = {**os.environ, **FORKING, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize("script", CASES)
def test_it_prints_its_tables(script):
    options, expected = CASES[script]
    result = run(script, *options)
    assert result.returncode == 0, result.stderr
    for words in expected:
        assert words in result.stdout
    assert "failed:" not in result.stdout
    assert str(BENCHMARKS.parent) not in result.stdout


def test_unknown_names_are_refused():
    result = run("compare.py", "--only", "mode,nonsense")
    assert result.returncode != 0
    assert "unknown mode, nonsense" in result.stderr


def test_all_scripts_are_run():
    scripts = {path.name for path in BENCHMARKS.glob("*.py")}
    assert scripts - {"common.py"} == set(CASES)
