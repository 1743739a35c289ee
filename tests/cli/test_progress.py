"""The bar, the lines of batch jobs, the log, and the announcement of compilations."""

import logging
import re
import time

import numba
import numpy as np
import pytest
from programs import run

from daskstats.cli import progress
from daskstats.cli.progress import Bar, Count, Lines, displayed
from daskstats.compiling import compiled_for


@pytest.fixture
def scan(tmp_path):
    np.save(tmp_path / "scan.npy", np.zeros((6, 10, 10), "u2"))
    return tmp_path / "scan.npy"


def test_a_line_has_the_state_the_speed_and_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines("median", Count(0, 1024, "rows"), nbytes=36_000_000_000)
    assert lines.line() == "median: 0 of 1024 rows, 0 %, 0 s"
    now[0] = 112
    lines.move(1, Count(412, 1024, "rows"))
    assert lines.line() == "median: 412 of 1024 rows, 40 %, 12 s, 1.21 GB/s, about 18 s left"


def test_speed_and_time_left_are_of_the_phase(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines("median", Count(0, 8, "rows"))
    for now[0], count, remark in (
        (60, Count(4, 4, "frames"), "writing frames to disk"),
        (61, Count(1, 8, "rows"), ""),
        (63, Count(2, 8, "rows"), ""),
    ):
        lines.move(1, count, remark)
    assert lines.line() == "median: 2 of 8 rows, 25 %, 63 s, about 6 s left"
    lines.move(1, Count(1, 4, "frames"), "writing frames to disk")
    assert lines.line().endswith("left, writing frames to disk")


def test_a_batch_job_gets_lines_while_it_waits(monkeypatch, capsys):
    monkeypatch.setattr(Lines, "interval", 0.02)
    with displayed("max", 5, Count(0, 5, "frames")) as display:
        display.move(2, Count(2, 5, "frames"))
        time.sleep(0.2)
    found = capsys.readouterr().err.splitlines()
    assert len(found) >= 2
    assert re.fullmatch(r"max: 2 of 5 frames, 40 %, 0 s, about 0 s left", found[0])


def test_a_short_batch_job_has_a_closing_line_only(tmp_path, scan):
    result = run("max", scan, "-o", tmp_path / "image.npy")
    (line,) = result.stderr.splitlines()
    assert line.startswith("max: 6 frames of 10 x 10 uint16 in ")
    assert run("max", scan, "-o", tmp_path / "image.npy", "--force", "--quiet").stderr == ""


def test_the_log_goes_to_stderr_when_asked_for(tmp_path, scan):
    image, logger = tmp_path / "image.npy", logging.getLogger("daskstats")
    handlers = list(logger.handlers)
    first, *_ = run("max", scan, "-o", image, "-v", "--chunks", 3).stderr.splitlines()
    assert first.startswith("daskstats: max of 6 frames of 10 x 10 uint16, 3 steps: ")
    first, *_ = run("max", scan, "-o", image, "-vv", "--force").stderr.splitlines()
    assert first.startswith("daskstats: planned: max of 6 frames")
    assert (logger.level, logger.handlers) == (logging.NOTSET, handlers)


def test_a_compilation_is_a_remark_behind_the_bar(monkeypatch):
    monkeypatch.setattr("daskstats.compiling._subjects", {})
    bar, remarks = Bar("median", 4), []
    monkeypatch.setattr(
        bar.bar, "render_progress", lambda: remarks.append(bar.bar.current_item), raising=True
    )
    with progress.observed(bar.compile), compiled_for("median", "uint16", 5):
        numba.njit(lambda x: x + 2)(1)
        bar.move(1, Count(1, 4, "rows"), "writing frames to disk")
        numba.njit(lambda x: x + 3)(1)
    compiling, disk = "compiling the median of uint16, once: about 5 s", "writing frames to disk"
    assert remarks == [compiling, "", disk, compiling, disk]
