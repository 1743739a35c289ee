"""Watching: images in time, at little cost, and nothing left behind when it is interrupted."""

import gc
import logging
import signal
import sys
import threading
import time
from typing import ClassVar

import clusters
import dask
import numpy as np
import pytest
from fakes import FakeSeries, Ramp

import daskstats as stats
from daskstats import notebook, pictures
from daskstats.memory.reservation import unreserved
from daskstats.run.progress import Progress

FRAMES = np.random.default_rng(18).integers(0, 1000, (40, 30, 20)).astype("u2")
HUGE = 1 << 40


class Recorded:
    """A view that keeps everything that it is told to show."""

    pictures = True
    made: ClassVar[list["Recorded"]] = []

    def __init__(self, status):
        self.shown, self.figures, self.state, self.closing = [status.line()], [], None, ""
        self.made.append(self)

    def show(self, status, figures):
        self.shown.append(status.line())
        if figures and figures not in self.figures[-1:]:
            self.figures.append(figures)

    def end(self, status, figures, state):
        self.state, self.closing = state, status.closing_line(state)
        if figures not in self.figures[-1:]:
            self.figures.append(figures)


@pytest.fixture
def views(monkeypatch, _ctrl_c):
    """Return the views that are made, which record."""
    monkeypatch.setattr(notebook, "current_view", lambda: Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


@pytest.mark.parametrize("statistic", ["max", "median", ("percentile", [5, 95])], ids=str)
def test_the_last_image_is_returned_and_kept(views, statistic):
    image = stats.watch(FRAMES, statistic)
    (expected,) = list(stats.snapshots(FRAMES, statistic, 1))
    np.testing.assert_array_equal(image, expected.image)
    assert stats.last_watched().image is image
    assert stats.last_watched().done == stats.last_watched().total
    (view,) = views
    assert view.state == "done"
    assert view.figures[-1].count("<img") == (1 if image.ndim == 2 else len(image))


def test_several_statistics_are_a_dict_and_a_picture_each(views):
    images = stats.watch(FRAMES, ["max", "average"], 7, dtype="f8", frames=slice(5, 25))
    np.testing.assert_array_equal(images["max"], FRAMES[5:25].max(axis=0))
    assert images["average"].dtype == np.float64
    assert views[0].figures[-1].count("<img") == 2
    assert views[0].closing.startswith("max, average: 20 of 20 frames, done after")


@pytest.mark.parametrize("kind", ["snapshots", "max_iter", "aggregate_iter"])
def test_iterators_are_watched_as_they_go(views, kind):
    first = {"snapshots": ["max"], "max_iter": [], "aggregate_iter": [["max"]]}[kind]
    plain = list(getattr(stats, kind)(FRAMES, *first, 8))
    watched = stats.watch(getattr(stats, kind)(FRAMES, *first, 8))
    assert len(watched) == 8
    for item, expected in zip(watched, plain, strict=True):
        if kind == "snapshots":
            item, expected = item.image, expected.image
        np.testing.assert_equal(item, expected)
    assert views[0].state == "done"
    np.testing.assert_equal(stats.last_watched().done, 40)
    with pytest.raises(TypeError, match="watch"):
        stats.watch(stats.max_iter(FRAMES, 2), "max")


@pytest.mark.parametrize("total", [0, 40])
def test_series_that_grow_are_watched(views, tmp_path, total):
    def write():
        for number in range(0, 40, 8):
            np.save(tmp_path / f"scan_{number}.npy", FRAMES[number : number + 8])
            time.sleep(0.15)

    writer = threading.Thread(target=write)
    writer.start()
    shots = stats.follow(tmp_path / "scan_*.npy", ["max", "average"], total, timeout=1)
    assert repr(shots) == f"<Followed max, average: 0{' of 40' * bool(total)} frames>"
    with stats.watch(shots, cmap="viridis") as watched:
        done = [shot.done for shot in watched]
    writer.join()
    assert done[-1] == 40
    assert shots.bar == (40, 40)
    np.testing.assert_array_equal(stats.last_watched().image["max"], FRAMES.max(axis=0))
    (view,) = views
    assert view.state == "done"
    assert len(view.figures) >= 2
    assert any("following, " in line for line in view.shown)
    assert view.closing.startswith("max, average: 40 of 40 frames, done after")
    with pytest.raises(TypeError, match="not known"):
        len(watched)


def test_following_is_interrupted(views, tmp_path):
    np.save(tmp_path / "scan_0.npy", FRAMES)
    shots = stats.follow(tmp_path / "scan_*.npy", "max", timeout=20, checkpoint=tmp_path / "check")
    thread = interrupt_when(lambda: views and any("40 frames" in line for line in views[0].shown))
    with pytest.raises(KeyboardInterrupt):
        for _ in stats.watch(shots):
            pass
    thread.join()
    assert views[0].state == "interrupted"
    np.testing.assert_array_equal(stats.last_watched().image, FRAMES.max(axis=0))
    assert stats.load_checkpoint(tmp_path / "check").done == 40


def test_pictures_show_the_rows_that_are_seen_and_no_more(views, monkeypatch):
    monkeypatch.setattr(notebook, "FIRST_PICTURE", 0)
    seen, draw = [], pictures.draw
    monkeypatch.setattr(pictures, "draw", lambda image, rows, **o: seen.append(rows) or draw(image))
    monkeypatch.setattr(notebook, "SHORTEST", 0)
    monkeypatch.setattr(notebook, "BUDGET", HUGE)
    for _ in stats.watch(stats.median_iter(FRAMES, 10)):
        pass
    assert seen == list(range(3, 31, 3))


def test_images_are_finished_only_if_they_are_shown(views, monkeypatch):
    made, result = [], Progress.result
    monkeypatch.setattr(Progress, "result", lambda self: made.append(self.done) or result(self))
    stats.watch(FakeSeries(Ramp(), 40, delay=0.02), "average", 40)
    (view,) = views
    assert 2 <= len(made) <= 12  # of 40 images, in 0.4 s or more, 0.1 s apart
    assert made == sorted(set(made))
    assert made[-1] == 40
    assert len(view.figures) <= len(made)


def test_draws_are_as_far_apart_as_they_are_dear(views, monkeypatch):
    """A draw that takes 1 s of the processor is followed by a pause of 1 s, not of 33."""
    clock = [0.0]
    monkeypatch.setattr(notebook.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(notebook.time, "thread_time", lambda: clock[0])
    cost = 0.012
    watched = notebook.Watched(stats.max_iter(FRAMES, 40), notebook.Look())
    drawn = []

    def draw():
        drawn.append(clock[0])
        clock[0] += cost

    watched._draw = draw
    for _ in range(400):
        clock[0] += 0.01
        watched._look_on()
    pauses = np.diff(drawn)
    assert drawn[0] == pytest.approx(0.3, abs=0.02)
    assert cost / pauses.mean() <= notebook.BUDGET
    cost, drawn[:] = 1.0, []
    for _ in range(1000):
        clock[0] += 0.01
        watched._look_on()
    assert np.diff(drawn[1:]).max() == pytest.approx(2.0, abs=0.1)
    del watched._draw
    watched.close()


def interrupt_when(condition):
    """Interrupt this thread as Ctrl-C does, once a condition holds."""
    main = threading.main_thread().ident

    def watch():
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("statistic", ["average", "median"])
def test_an_interrupt_leaves_the_picture_and_nothing_else(views, tmp_path, statistic, rounds):
    """The image is that of the frames, or rows, that `last_watched` names."""
    import dask

    for number in range(rounds):
        scan = FakeSeries(FRAMES, delay=0.01)
        count = 4 + 25 * number // rounds
        thread = interrupt_when(lambda scan=scan, count=count: len(scan.reads) > count)
        with (
            dask.config.set({"daskstats.scratch-directory": str(tmp_path)}),
            pytest.raises(KeyboardInterrupt),
        ):
            stats.watch(scan, statistic, 20, memory_limit="40 MiB")
        thread.join()
        gc.collect()
        assert views[-1].state == "interrupted"
        assert "interrupted after" in views[-1].closing
        assert unreserved(HUGE) == HUGE
        assert list(tmp_path.iterdir()) == []
        shot = stats.last_watched()
        if shot is not None and shot.phase == "compute" and statistic == "average":
            expected = FRAMES[: shot.done].mean(axis=0, dtype="f8").astype("f4")
            np.testing.assert_array_equal(shot.image, expected)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_interrupt_on_a_cluster(views, client, tmp_path):
    *_, _ = stats.average_iter(FakeSeries(Ramp(), 4), 2)  # numba is imported, on the client too
    scan = FakeSeries(Ramp(), 200, delay=0.01, log=tmp_path / "log")
    thread = interrupt_when(lambda: scan.logged().total() > 20)
    with pytest.raises(KeyboardInterrupt):
        stats.watch(scan, "average")
    thread.join()
    assert views[0].state == "interrupted"
    assert clusters.settle(client) == (0, 0, 0)
    assert scan.logged().total() < 150
    gc.collect()


class Late:
    """Frames of which one pixel counts from frame 10 on, if at all."""

    shape, dtype = (20, 30), np.dtype("u2")

    def __init__(self, ending):
        self.ending = ending

    def __len__(self):
        return 14

    def __getitem__(self, index):
        time.sleep(0.05)
        if self.ending == "error" and index == 9:
            raise OSError("the disk is gone")
        frame = np.full(self.shape, index + 1, "u2")
        frame[3, 4] = 65535 if index < 10 else index
        return frame


def test_a_pixel_without_a_value_so_far(views, monkeypatch):
    """It is no error before the last frame, and a picture that cannot be made hides no error."""
    with dask.config.set(scheduler="threads", num_workers=1):
        assert stats.watch(Late(None), "max", invalid=65535)[3, 4] == 13
        assert views[-1].state == "done"
        with pytest.raises(OSError, match="the disk is gone"):
            stats.watch(Late("error"), "max", invalid=65535)
        with pytest.raises(ValueError, match="1 pixels have no valid value"):
            stats.watch(Late(None), "max", invalid=65535, frames=slice(0, 8))
        monkeypatch.setattr(Recorded, "show", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            stats.watch(Late(None), "max", invalid=65535)


def test_a_loop_that_is_left_closes_the_iterator(views):
    scan = FakeSeries(Ramp(), 100, delay=0.005)
    for shot in stats.watch(stats.snapshots(scan, "max", 50)):
        if shot.done >= 4:
            break
    del shot
    gc.collect()
    assert views[0].state == "stopped"
    assert unreserved(HUGE) == HUGE
    assert len(scan.reads) < 100


def test_errors_end_the_view_and_go_on(views):
    scan = FakeSeries(
        lambda index: FRAMES[index][: 30 - (index == 20)], 40, shape=(30, 20), dtype="u2"
    )
    with pytest.raises(ValueError, match="frame 20"):
        stats.watch(scan, "max")
    assert views[0].state == "ValueError"


@pytest.mark.parametrize(
    ("look", "match"),
    [
        ({"contrast": (5, 5)}, r"contrast must be two percentiles.*\(5, 5\)"),
        ({"contrast": (1, 101)}, "contrast"),
        ({"contrast": 3}, "contrast"),
        ({"contrast": (1, float("nan"))}, "contrast"),
        ({"contrast": ("1", "99")}, "contrast"),
        ({"contrast": (1, 50, 99)}, "contrast"),
        ({"contrast": np.ones((2, 2))}, "contrast"),
        ({"contrast": {1, 99}}, "contrast"),
        ({"cmap": ["gray"]}, r"cmap must be one of.*\['gray'\]"),
        ({"size": 7.5}, "size must be 1 to 2048 pixels, got 7.5"),
        ({"size": "large"}, "size must be 1 to 2048 pixels, got 'large'"),
        ({"cmap": "mauve"}, "cmap must be one of gray, viridis, inferno.*'mauve'"),
        ({"size": 0}, "size must be 1 to 2048 pixels, got 0"),
        ({"statistic": "mode"}, "mode"),
        ({"nchunk": 0}, "nchunk"),
        ({"sice": 3}, "sice"),
    ],
    ids=str,
)
def test_wrong_arguments_are_found_before_anything_is_read(views, look, match):
    scan = FakeSeries(FRAMES)
    with pytest.raises((ValueError, TypeError), match=match):
        stats.watch(scan, **look)
    assert scan.reads == []
    assert views == []


# ---------------------------------------------------------------------- without a notebook


def test_in_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    image = stats.watch(FakeSeries(FRAMES, delay=0.02), "max")
    np.testing.assert_array_equal(image, FRAMES.max(axis=0))
    shown = capsys.readouterr().err
    assert "max: 40 of 40 frames, done after" in shown
    assert "100%" in shown
    assert "None" not in shown


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch, capsys, caplog):
    monkeypatch.setattr("daskstats.views.LOG_INTERVAL", 0.2)
    stats.watch(FakeSeries(FRAMES, delay=0.02), "max")
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) < 40
    assert lines[0].startswith("max: computing, ")
    assert lines[-1].startswith("max: 40 of 40 frames, done after")
    with caplog.at_level(logging.INFO, "daskstats"):
        stats.watch(FRAMES, "max")
    assert capsys.readouterr().err == ""
    assert "max: 40 of 40 frames, done after" in caplog.text
