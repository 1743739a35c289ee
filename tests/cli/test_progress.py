"""The bar, the lines of batch jobs, and the log of the command line."""

import logging
import sys

import numpy as np
import pytest
from fakes import FakeSeries, Ramp
from programs import run

from daskstats.cli import computing
from daskstats.views import HiddenView, LogView, TerminalView


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


def test_a_bar_is_for_terminals_without_a_log(monkeypatch):
    view = computing.view_of
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert view({"quiet": False, "verbose": 0}) is TerminalView
    assert view({"quiet": True, "verbose": 0}) is HiddenView
    assert view({"quiet": False, "verbose": 1}).func is LogView


def test_the_log_goes_to_stderr_when_asked_for(tmp_path, scan):
    image, logger = tmp_path / "image.npy", logging.getLogger("daskstats")
    handlers = list(logger.handlers)
    first, *_ = run("max", scan, "-o", image, "-v", "--chunks", 3).stderr.splitlines()
    assert first.startswith("daskstats: max of 6 frames of 10 x 10 uint16, 3 steps: ")
    first, *_ = run("max", scan, "-o", image, "-vv", "--force").stderr.splitlines()
    assert first.startswith("daskstats: planned: max of 6 frames")
    assert (logger.level, logger.handlers) == (logging.NOTSET, handlers)
