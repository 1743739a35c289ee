"""The line of progress: activity, steps, speed and the time left of a phase."""

import logging
from types import SimpleNamespace

import dask
import numpy as np
import pytest

import daskstats as stats
from daskstats import status as module
from daskstats.status import Status


@pytest.fixture
def run(monkeypatch):
    """Return a run whose progress and time can be set, and its status."""
    progress = SimpleNamespace(
        statistic="median", done=0, total=1024, unit="rows", nbytes=0, step=-1,
        phase="compute", next_phase="compute",
    )  # fmt: skip
    run = SimpleNamespace(progress=progress, phase="wait", now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: run.now)
    run.status = Status(run)
    return run


def set_progress(run, now, activity, **values):
    run.now, run.phase = now, activity
    vars(run.progress).update(values)
    return run.status.line()


def test_the_line_has_the_state_the_speed_and_the_time_left(run, monkeypatch):
    assert run.status.line() == "median: waiting for memory"
    monkeypatch.setattr(module, "remark", lambda: "compiling the median of uint16, once")
    assert set_progress(run, 101, "compile") == "median: compiling the median of uint16, once, 1 s"
    assert set_progress(run, 102, "compute") == "median: computing, 2 s"
    line = set_progress(run, 112, "compute", step=20, done=412, nbytes=14_500_000_000)
    assert line == "median: computing, 412 of 1024 rows, 12 s, 1.45 GB/s, about 15 s left"
    assert run.status.fraction == pytest.approx(412 / 1024)


def test_the_time_left_is_that_of_the_phase(run):
    values = {"phase": "read", "next_phase": "read", "unit": "frames", "total": 100}
    set_progress(run, 100, "read", **values)
    line = set_progress(run, 110, "read", step=3, done=50, nbytes=50_000_000)
    assert line == "median: reading, 50 of 100 frames, 10 s, 5 MB/s, about 10 s left"
    line = set_progress(run, 120, "compute", step=7, done=100, next_phase="compute")
    assert line == "median: computing, 20 s, 2.5 MB/s"
    values = {"phase": "compute", "unit": "rows", "total": 10}
    line = set_progress(run, 124, "compute", step=8, done=2, nbytes=100_000_000, **values)
    assert line == "median: computing, 2 of 10 rows, 24 s, 4.17 MB/s, about 16 s left"
    run.now = 130
    assert run.status.closing_line("interrupted") == (
        "median: 2 of 10 rows, interrupted after 30.0 s, 3.33 MB/s"
    )


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("limit", ["1 GiB", "11 MiB"], ids=["resident", "scratch"])
def test_phases_of_a_real_run(limit, scheduler, caplog):
    """All frames are read, in order, and then rows are computed; bytes never grow less."""
    caplog.set_level(logging.INFO, "daskstats")
    frames = np.random.default_rng(1).integers(0, 99, (100, 256, 256)).astype("u2")
    with dask.config.set(scheduler=scheduler):
        stream = stats.snapshots(Whole(frames), "median", 8, memory_limit=limit)
    status, seen = Status(stream), []
    for shot in stream:
        assert (shot.done, shot.total) == (stream.progress.done, stream.progress.total)
        seen.append((shot.phase, shot.unit, shot.done, shot.nbytes))
        assert "median" in status.line()
    reads = [each for each in seen if each[0] == "read"]
    assert seen[: len(reads)] == reads
    assert {each[1] for each in reads} == {"frames"}
    assert reads[-1][2:] == (100, frames.nbytes)
    assert [each[2] for each in reads] == sorted({each[2] for each in reads})
    assert len(reads) > 3
    assert [each[1] for each in seen[len(reads) :]] == ["rows"] * 8
    assert seen[-1][2:] == (256, frames.nbytes)
    assert stream.phase == "end"
    phases = [text for text in caplog.messages if text.startswith("median: ")]
    assert phases == ["median: reading all frames", "median: computing"]


class Whole:
    """Frames that are read whole."""

    def __init__(self, frames):
        self._frames, self.shape, self.dtype = frames, frames.shape[1:], frames.dtype

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, index):
        return self._frames[index].copy()
