"""Nothing heavy is imported before it is needed, and nothing at all for help and wrong usage."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import daskstats as stats
from daskstats import names
from daskstats.formats.table import suffixes
from daskstats.simulate import FORMATS
from daskstats.statistics import STATISTICS

HEAVY = {"numpy", "dask", "yaml", "numba", "distributed", "zarr", "h5py", "xarray", "pandas"}


def imported(*arguments: object, cwd: Path | None = None) -> tuple[set[str], str]:
    """Return the packages that a Python process has imported, and its other words on stderr."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    lines = result.stderr.splitlines()
    found = [re.match(r"import time:.*\| +([\w.]+)$", line) for line in lines]
    modules = {match[1] for match in found if match}
    return modules, " ".join(line for line in lines if not line.startswith("import time:"))


def test_import_takes_little_more_than_dask():
    modules, words = imported("-c", "import daskstats")
    assert "daskstats" in modules, words
    assert not modules & (HEAVY - {"numpy", "dask", "yaml"})
    assert not {"dask.array", "daskstats.api"} & modules


def test_settings_are_known_from_the_import_on():
    code = "import daskstats, dask; print(dask.config.get('daskstats.memory-fraction'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "0.5\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--help", ""),
        ("--version", ""),
        ("max --help", ""),
        ("mode", "No such command 'mode'"),
        ("max --mode", "No such option '--mode'"),
        ("max", "Missing argument"),
        ("max scan.npy", "Missing option"),
        ("max scan.npy -o a.npy --invalid many", "not a number"),
        ("max scan.npy -o a.npy --raw 20x30", "not ROWSxCOLS"),
        ("max scan.npy -o a.npy --flip up", "not one of"),
        ("max none.h5 -o a.npy", "there is no file none.h5"),
        ("max scan.npy -o a.npy --mask none.npy", "there is no mask none.npy"),
        ("max scan.npy -o a.bmp", "no known suffix"),
        ("max scan.npy -o scan.npy --force", "is the input"),
        ("max scan.npy -o none/a.npy", "there is no directory"),
        ("max scan.npy -o a.npy --workers 2 --scheduler threads", "exclude each other"),
        ("max scan.npy -o a.npy --scheduler-file none", "there is no scheduler file"),
        ("max scan.npy -o a.npy --scheduler-file scan.npy", "scan.npy was not written by a sch"),
        ("max scan.npy -o a.npy --scheduler-file list.json", "list.json was not written by a sch"),
        ("aggregate scan.npy -o a.h5 --stats max,mode", "there is no statistic 'mode'"),
        ("aggregate scan.npy -o a.tif --stats max", "holds one image only"),
        ("warm --stats mode", "there is no statistic 'mode'"),
        ("info none.h5", "there is no file none.h5"),
        ("simulate scan.npy", "exists already"),
        ("simulate a.npy --dtype int8", "is not one of"),
    ],
)
def test_help_and_wrong_usage_import_nothing_heavy(tmp_path, arguments, words):
    (tmp_path / "scan.npy").write_bytes(b"no array")
    (tmp_path / "list.json").write_text("[1]")
    modules, said = imported("-m", "daskstats", *arguments.split(), cwd=tmp_path)
    assert "daskstats.cli.commands" in modules
    assert not modules & HEAVY
    assert words in said
    assert bool(words) == said.startswith("daskstats: error: ")


def test_names_are_those_of_the_tables():
    assert list(names.STATISTICS) == list(STATISTICS)
    assert sorted(names.SIMULATED) == sorted(FORMATS)
    for found, column in (
        (names.WRITTEN, "write"),
        (names.COLLECTIONS, "write_all"),
        (names.WITH_DATASETS, "write_dataset"),
    ):
        assert list(found) == suffixes(column)


def test_public_names_are_those_of_their_modules():
    assert stats.max is stats.api.max
    assert pickle.loads(pickle.dumps(stats.median)) is stats.median
    assert {"max", "median", "Plan", "__version__"} <= set(dir(stats))
