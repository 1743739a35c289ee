"""Every setting of daskstats.yaml, given as people give it: in variables of the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import yaml
from fakes import FakeSeries, Filled

import daskstats as stats
from daskstats import config
from daskstats.memory import available
from daskstats.scratch import location

HERE = Path(stats.__file__).parent
SETTINGS = yaml.safe_load((HERE / "daskstats.yaml").read_text())["daskstats"]
LIMIT, FRACTION, DIRECTORY, COMPRESSION, TIMEOUT, WAITING, INTERVAL = (
    "memory-limit",
    "memory-fraction",
    "scratch-directory",
    "scratch-compression",
    "no-workers-timeout",
    "memory-timeout",
    "checkpoint-interval",
)

# What each is taken for, and whether a median through scratch data runs.
READ = """
import dask, json, os, sys
import numpy as np
import daskstats as stats
from daskstats import config
from daskstats.memory import available
from daskstats.scratch import location

def ask(function):
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

found = []
for line in sys.stdin:
    variables = json.loads(line)
    dask.config.refresh(env=variables)
    with dask.config.set({"temporary-directory": None}):
        found.append({
            "memory-limit": ask(available.memory_limit),
            "memory-fraction": ask(config.memory_fraction),
            "scratch-directory": ask(lambda: location.configured_location()[0].as_posix()),
            "scratch-compression": ask(config.scratch_compression),
            "no-workers-timeout": ask(config.no_workers_timeout),
            "memory-timeout": ask(config.memory_timeout),
            "checkpoint-interval": ask(config.checkpoint_interval),
            "median": ask(lambda: stats.plan(np.zeros((5, 4, 3)), "median").strategy),
        })
print(json.dumps(found))
"""


def variable(name):
    return f"DASK_DASKSTATS__{name.upper().replace('-', '_')}"


def read(every):
    """Return what some sets of variables are taken for, by a process that is given them."""
    lines = "\n".join(json.dumps(variables) for variables in every)
    done = subprocess.run(
        [sys.executable, "-c", READ], input=lines, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RIGHT = [
    (LIMIT, "4 GiB", 4 << 30),
    (LIMIT, "4GiB", 4 << 30),
    (LIMIT, "4 GB", 4 * 10**9),
    (LIMIT, "4e9", 4 * 10**9),
    (LIMIT, "4000000000", 4 * 10**9),
    (LIMIT, "512MiB", 512 << 20),
    (FRACTION, "0.25", 0.25),
    (FRACTION, "1", 1.0),
    (FRACTION, "5e-1", 0.5),
    (DIRECTORY, "/some/where", "/some/where"),
    (DIRECTORY, "~/scratch", (Path.home() / "scratch").as_posix()),
    (DIRECTORY, "/with a space/and,comma", "/with a space/and,comma"),
    (COMPRESSION, "none", "none"),
    (COMPRESSION, "None", "none"),
    (COMPRESSION, "null", "none"),
    (COMPRESSION, "'none'", "none"),
    (COMPRESSION, "lz4", "lz4"),
    (COMPRESSION, "LZ4", "lz4"),
    (COMPRESSION, "zstd", "zstd"),
    (TIMEOUT, "30 s", 30),
    (TIMEOUT, "30", 30),
    (TIMEOUT, "30.5", 30.5),
    (TIMEOUT, "1 min", 60),
    (TIMEOUT, "2h", 7200),
    (TIMEOUT, "90 seconds", 90),
    (TIMEOUT, "500ms", 0.5),
    (TIMEOUT, ".5 s", 0.5),
    (WAITING, "30", 30),
    (WAITING, "2 min", 120),
    (INTERVAL, "0", 0),
    (INTERVAL, "5 min", 300),
]

# Of which the message names the setting.
WRONG = [
    (LIMIT, "much"),
    (LIMIT, "-4 GiB"),
    (LIMIT, "0"),
    (LIMIT, "4,000"),
    (LIMIT, "True"),
    (FRACTION, "25%"),
    (FRACTION, "1/4"),
    (FRACTION, "0"),
    (FRACTION, "2"),
    (FRACTION, "none"),
    (DIRECTORY, "5"),
    (DIRECTORY, "True"),
    (COMPRESSION, "gzip"),
    (COMPRESSION, "9"),
    (COMPRESSION, "false"),
    (COMPRESSION, "['lz4']"),
    (TIMEOUT, "soon"),
    (TIMEOUT, "-5 s"),
    (TIMEOUT, "-5"),
    (TIMEOUT, "1 fortnight"),
    (TIMEOUT, "none"),
    (TIMEOUT, "True"),
    (TIMEOUT, "inf"),
    (TIMEOUT, "[30]"),
    (WAITING, "soon"),
    (INTERVAL, "never"),
]


def test_every_setting_is_tried():
    assert {name for name, *_ in RIGHT} == {name for name, _ in WRONG} == set(SETTINGS)


def test_settings_in_the_environment():
    every = [*RIGHT, *((name, text, None) for name, text in WRONG)]
    found = read([{variable(name): text} for name, text, _ in every])
    for (name, text, expected), values in zip(every, found, strict=True):
        if expected is None:
            assert f"daskstats.{name}" in str(values[name]), (name, text, values[name])
            assert str(values[name]).startswith(("TypeError: ", "ValueError: "))
        else:
            assert values[name] == expected, (name, text)
            assert values["median"] in ("direct", "resident"), (name, text, values["median"])


def test_variables_that_were_there_before_dask_was_imported(tmp_path):
    """The real way: all of them, for a median whose frames wait on disk."""
    # A program of its own, which needs no helpers of the tests.
    program = """if True:
        import daskstats as stats, numpy as np
        class Scan:
            shape, dtype = (128, 128), np.dtype("u2")
            def __len__(self):
                return 600
            def __getitem__(self, index):
                return np.full((128, 128), index % 7, "u2")
        print(stats.plan(Scan(), "median").strategy, stats.median(Scan()).compute()[3, 5])
        """
    variables = {
        variable(LIMIT): "12 MiB",
        variable(FRACTION): "0.25",
        variable(DIRECTORY): str(tmp_path),
        variable(COMPRESSION): "none",
        variable(TIMEOUT): "1 min",
        "DASK_NUM_WORKERS": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.split(), done.stderr) == (["scratch", "3.0"], "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_directories_are_not_set(empty):
    with dask.config.set({"daskstats.scratch-directory": empty, "temporary-directory": empty}):
        assert config.scratch_directory() is None
        assert location.configured_location()[1] == "TMPDIR"


# ---------------------------------------------------------------------- directories not there


SCAN = FakeSeries(Filled((128, 128), modulus=7), 600)

PLACES = {
    "daskstats.scratch-directory": "(daskstats.scratch-directory)",
    "temporary-directory": "(dask's temporary-directory)",
}


@pytest.mark.parametrize(("setting", "named"), PLACES.items())
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_directory_that_is_not_there_matters_only_where_frames_wait(tmp_path, setting, named, kind):
    place = tmp_path / kind
    if kind == "file":
        place.touch()
    frames = np.arange(60, dtype="u2").reshape(5, 4, 3)
    with dask.config.set({setting: str(place), "num_workers": 2}):
        np.testing.assert_array_equal(stats.median(frames).compute(), np.median(frames, axis=0))
        assert stats.plan(SCAN, "median").strategy == "resident"
        assert stats.plan(SCAN, "median", memory_limit="12 MiB", use_buffer=False)
        assert len(list(stats.percentile_iter(frames, 50, 2))) == 2
        for call in (stats.median, lambda *a, **k: stats.median_iter(*a, 3, **k)):
            with pytest.raises(NotADirectoryError) as caught:
                call(SCAN, memory_limit="12 MiB")
            assert named in str(caught.value)
            assert str(place) in str(caught.value)


def test_no_temporary_directory_at_all(tmp_path, monkeypatch):
    def none_found():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(location.tempfile, "gettempdir", none_found)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with dask.config.set({"temporary-directory": None, "num_workers": 2}):
        frames = np.arange(60, dtype="u2").reshape(5, 4, 3)
        np.testing.assert_array_equal(stats.median(frames).compute(), np.median(frames, axis=0))
        with pytest.raises(NotADirectoryError, match=r"gone \(TMPDIR\)"):
            stats.median(SCAN, memory_limit="12 MiB")


def test_fraction_and_limit_are_named_where_they_come_from():
    with (
        dask.config.set({"daskstats.memory-limit": "much"}),
        pytest.raises(ValueError, match="got 'much' as daskstats.memory-limit"),
    ):
        available.memory_limit()
    with pytest.raises(ValueError, match="got 'much'$"):
        available.memory_limit("much")


def test_time_without_workers_as_a_number():
    for value, seconds in ((30, 30), (0.5, 0.5), (np.float32(2), 2), (0, 0)):
        with dask.config.set({"daskstats.no-workers-timeout": value}):
            assert config.no_workers_timeout() == seconds
