"""The bar, the lines of batch jobs, and the log of the command line."""

import io
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeSeries, Ramp
from programs import daskstats, run

import daskstats as stats
from daskstats.cli import computing
from daskstats.views import LogView, TerminalView, View


@pytest.fixture
def scan(tmp_path):
    np.save(tmp_path / "scan.npy", np.zeros((6, 10, 10), "u2"))
    return tmp_path / "scan.npy"


def test_a_batch_job_gets_lines_while_it_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("daskstats.views.LOG_INTERVAL", 0.1)
    options = {"quiet": False, "verbose": 0}
    scan = FakeSeries(Ramp(), 20, delay=0.05)
    image = computing.last_image(computing.reduce(scan, "max", 0, 2, running=True), options)
    np.testing.assert_array_equal(image, scan.stack().max(axis=0))
    found = capsys.readouterr().err.splitlines()
    assert len(found) >= 2
    assert all(line.startswith("max: computing, ") for line in found)


def test_a_short_batch_job_has_a_closing_line_only(tmp_path, scan):
    result = run("max", scan, "-o", tmp_path / "image.npy")
    (line,) = result.stderr.splitlines()
    assert line.startswith("max: 6 frames of 10 x 10 uint16 in ")
    assert run("max", scan, "-o", tmp_path / "image.npy", "--force", "--quiet").stderr == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [40, 80, 95, 120, 200])
def test_a_bar_is_one_line_of_the_terminal(monkeypatch, columns):
    """A line that wraps would not be replaced."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("daskstats.notebook.FIRST_PICTURE", 0)
    names = [("percentile", q) for q in range(10)]
    reduction = computing.reduce(FakeSeries(Ramp(), 6), names, 0, 3, running=True)
    computing.last_image(reduction, {"quiet": False, "verbose": 0})
    shown = sys.stderr.getvalue()
    assert "100%" in shown
    lines = re.sub(r"\x1b\[\?25[hl]|\x1b\[K", "", shown).replace("\n", "\r").split("\r")
    assert max(len(line.rstrip()) for line in lines) < columns
    assert any("#" * 12 in line for line in lines)


def test_programs_without_stderr(monkeypatch, scan):
    monkeypatch.setattr(sys, "stderr", None)
    assert computing.view_of({"quiet": False, "verbose": 0}) is not TerminalView
    assert stats.watch(np.ones((4, 5, 6), "u2"), "max").shape == (5, 6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("info", "scan.npy"), ("--help",)])
def test_a_full_disk_for_what_is_printed(tmp_path, scan, arguments):
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            daskstats(*arguments), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert found.returncode == 1
    assert found.stderr.startswith("daskstats: error: the output cannot be printed: ")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams(tmp_path, scan, closed):
    command = shlex.join(daskstats("max", "scan.npy", "-o", "image.npy", "--force"))
    subprocess.run(f"{command} {closed}>&-", shell=True, cwd=tmp_path, check=True)
    assert np.load(tmp_path / "image.npy").shape == (10, 10)


def test_a_bar_is_for_terminals_without_a_log(monkeypatch):
    view = computing.view_of
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert view({"quiet": False, "verbose": 0}) is TerminalView
    assert view({"quiet": True, "verbose": 0}) is View
    assert view({"quiet": False, "verbose": 1}).func is LogView


def test_the_log_goes_to_stderr_when_asked_for(tmp_path, scan):
    image, logger = tmp_path / "image.npy", logging.getLogger("daskstats")
    handlers = list(logger.handlers)
    first, *_ = run("max", scan, "-o", image, "-v", "--chunks", 3).stderr.splitlines()
    assert first.startswith("daskstats: max of 6 frames of 10 x 10 uint16, 3 steps: ")
    first, *_ = run("max", scan, "-o", image, "-vv", "--force").stderr.splitlines()
    assert first.startswith("daskstats: planned: max of 6 frames")
    assert (logger.level, logger.handlers) == (logging.NOTSET, handlers)
