"""Every benchmark runs, at a size at which its figures mean nothing."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from clusters import worker_method
from peers import PEERS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Workers that fork need not import everything anew.
FORKING = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": worker_method()}

# Peers that every installation has; the others start slowly.
ALWAYS = ("daskstats", "numpy", "HEXRD loops", "dask.array", "read limit", "decode only")
ONLY = f"average,median,uint16,HDF5 gzip,{','.join(ALWAYS)}"

CASES = {
    "compare.py": (
        ["--only", ONLY],
        ["| series ", "| of the best peer |", "| goal ", "| uint16 ", "| HDF5 gzip |"],
    ),
    "files.py": (
        [],
        ["| filter ", "| gzip, shuffle ", "| decoding alone ", "| taken in turn ", "| transposed "],
    ),
    "caches.py": ([], ["| statistic ", "| max ", "| median "]),
    "formats.py": ([], ["| format ", "| cbf files ", "| stack.mrc ", "| ratio "]),
    "steps.py": ([], ["| series ", "| of the plain call |", "| first image after "]),
    "checkpoint.py": ([], ["| statistic ", "| average ", "| of a commit, s |"]),
    "follow.py": ([], ["| files ", "| HDF5, SWMR ", "| load when idle, % |"]),
    "watch.py": ([], ["| run ", "| watch ", "| four statistics ", "| average, two workers "]),
    "aggregate.py": ([], ["### Several", "| zarr zstd | all ", "### Values", "| astropy "]),
    "memory.py": (["--only", "max,median"], ["| projected / peak |", "| generated | median "]),
    "cluster.py": ([], ["### Two workers", "### Streams", "### Scheduling", "| sleeping "]),
    "scale.py": ([], ["### Growth", "### Building the graph", "### Overhead", "### Start-up"]),
}


def run(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    env = {**os.environ, **FORKING, "PYTHONWARNINGS": "ignore"}
    del env["PYTHONSAFEPATH"]  # benchmarks import others from their directory
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def check(result, expected):
    assert result.returncode == 0, result.stderr
    for words in expected:
        assert words in result.stdout
    assert "failed:" not in result.stdout
    assert str(BENCHMARKS.parent) not in result.stdout


# These take a minute each, or share most of their code with others.
LONG = {
    *("aggregate.py", "caches.py", "checkpoint.py", "cluster.py", "follow.py", "formats.py"),
    *("memory.py", "scale.py", "watch.py"),
}


@pytest.mark.parametrize(
    "script",
    [pytest.param(case, marks=[pytest.mark.nightly] * (case in LONG)) for case in CASES],
)
def test_it_prints_its_tables(script, tmp_path):
    options, expected = CASES[script]
    result = run(script, "--tiny", "--json", tmp_path / "result.json", *options)
    check(result, expected)
    saved = json.loads((tmp_path / "result.json").read_text())
    titles = [line[4:] for line in result.stdout.splitlines() if line.startswith("### ")]
    assert [table["title"] for table in saved["tables"] if table["title"]] == titles
    assert all(table["rows"] for table in saved["tables"])


def test_peers_that_are_installed():
    found = [
        peer
        for peer in PEERS
        if peer not in ALWAYS
        and (PEERS[peer].package is None or find_spec(PEERS[peer].package) is not None)
    ]
    assert {"daskstats, plain call", "numpy in float32", "dask.array in float32"} <= {*found}
    found.remove("daskstats, plain call")  # which takes part in any case
    # The plain call is measured beside an iterator.
    only = ["uint16", "average", "median_iter", "daskstats", *found]
    result = run("compare.py", "--tiny", "--only", ",".join(only))
    every = [*found, "daskstats", "daskstats, plain call"]
    check(result, [f"| {PEERS[peer].label}" for peer in every])


def test_unknown_names_are_refused():
    result = run("compare.py", "--tiny", "--only", "mode,nonsense")
    assert result.returncode != 0
    assert "unknown mode, nonsense" in result.stderr


def test_pages_are_rendered_from_the_results():
    assert run("render.py", "--check").returncode == 0


def test_all_scripts_are_run():
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert scripts - {"change.py", "render.py"} == set(CASES)


def test_every_peer_is_registered():
    modules = {path.stem for path in (BENCHMARKS / "peers").glob("*.py")} - {"__init__", "base"}
    assert modules <= set(vars(sys.modules["peers"]))


def test_the_cost_of_a_change(tmp_path):
    """The slowest first; statistics that only one run has are left out."""
    header = ["series", "statistic", "peer", "GB/s", "of the best peer", "of the limit", "peak MiB"]

    def result(name, **speeds):
        rows = [["u2", each, "daskstats (2 threads)", speeds[each], 1, 1, 7] for each in speeds]
        rows.append(["u2", "max", "numpy (1 thread)", 5, 1, 1, 0])
        table = {"title": None, "header": header, "rows": rows}
        (tmp_path / name).write_text(json.dumps({"tables": [table]}))
        return str(tmp_path / name)

    before = result("before.json", max=10, sum=4, std=3)
    after = result("after.json", sum=5, max=9)
    done = run("change.py", before, after)
    lines = [line.replace(" ", "").split("|")[1:-1] for line in done.stdout.splitlines()]
    assert lines[2:] == [
        ["u2", "max", "10", "9", "0.9", "7", "7"],
        ["u2", "sum", "4", "5", "1.25", "7", "7"],
    ]
