"""Streams: in order, without waiting, bounded, and gone without a trace."""

import gc
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import dask
import numpy as np
import pytest
from dask.callbacks import Callback
from dask.diagnostics import ProgressBar
from fakes import Fail, FakeSeries, Filled

import daskstats as stats
from daskstats.memory.reservation import unreserved
from daskstats.run.callbacks import BoundedQueue
from daskstats.run.runner import BackgroundRunner, Stopped
from daskstats.run.scheduler import current_scheduler


def filled(nframes=40, fail_at=None, **options):
    """Return a series whose frames hold their numbers, and of which one may fail."""
    if fail_at is not None:
        options["on_read"] = Fail({fail_at: sys.maxsize}, RuntimeError("detector on fire"))
    return FakeSeries(Filled((4, 3)), nframes, **options)


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("daskstats")]


def test_length_and_order():
    with stats.max_iter(filled(40), 8) as images:
        assert len(images) == 8
        assert [int(image[0, 0]) for image in images] == [4, 9, 14, 19, 24, 29, 34, 39]
        assert len(images) == 8
        assert next(images, None) is None
    assert our_threads() == []


def test_nothing_is_read_before_the_first_next():
    series = filled()
    images = stats.max_iter(series, 4)
    stats.max(series)
    assert series.reads == []
    images.close()
    assert list(images) == []


@pytest.mark.parametrize("leave", ["break", "close", "del", "raise", "with"])
def test_leaving_early_stops_the_run(leave):
    """No thread is left, and most frames are never read."""
    series = filled(200, delay=0.002)
    images = stats.average_iter(series, 100)
    if leave == "break":
        for _ in images:
            break
        del images
        gc.collect()
    elif leave == "close":
        next(images)
        images.close()
        images.close()
        with pytest.raises(StopIteration):
            next(images)
    elif leave == "del":
        next(images)
        del images
        gc.collect()
    elif leave == "raise":
        with pytest.raises(ZeroDivisionError), images:
            for _ in images:
                raise ZeroDivisionError
    else:
        with images:
            next(images)
    assert our_threads() == []
    assert len(series.reads) < 100
    count = len(series.reads)
    time.sleep(0.02)
    assert len(series.reads) == count


def test_an_iterator_in_a_cycle_is_collected():
    series = filled(200, delay=0.002)
    holder = {"images": stats.max_iter(series, 100)}
    holder["self"] = holder
    next(holder["images"])
    del holder
    gc.collect()
    assert our_threads() == []


def test_a_slow_consumer_holds_the_run_back():
    """The series is not read far ahead of the consumer of the images."""
    series = filled(400)
    with dask.config.set(num_workers=2), stats.max_iter(series, 400) as images:
        for _ in range(5):
            next(images)
        time.sleep(0.1)
        settled = len(series.reads)
        time.sleep(0.1)
        assert len(series.reads) == settled <= 5 + 12


def test_steps_do_not_wait_for_the_consumer():
    """While the consumer holds an image, the frames of the next steps are read."""
    series = filled(40)
    with stats.max_iter(series, 40) as images:
        next(images)
        deadline = time.monotonic() + 10
        while len(series.reads) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(series.reads) >= 3


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_failing_frame_is_named(scheduler):
    with dask.config.set(scheduler=scheduler), stats.max_iter(filled(40, fail_at=33), 8) as images:
        seen = []
        with pytest.raises(RuntimeError, match="on fire") as caught:
            for image in images:
                seen.append(int(image[0, 0]))
        assert any("frame" in note for note in caught.value.__notes__)
        assert seen == [4, 9, 14, 19, 24, 29][: len(seen)]
        assert list(images) == []
    assert our_threads() == []


def test_a_failing_frame_of_a_lazy_image_is_named():
    with pytest.raises(RuntimeError, match="on fire") as caught:
        stats.max(filled(40, fail_at=33)).compute()
    assert any("frame" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("name", ["max", "average", "median"])
def test_images_belong_to_the_consumer(name, rng):
    """Writing into an image changes no later one and not the source."""
    frames = rng.integers(0, 9, (6, 5, 4)).astype("u2")
    before = frames.copy()
    expected = list(getattr(stats, f"{name}_iter")(frames, 5))
    images = []
    for image in getattr(stats, f"{name}_iter")(frames, 5):
        images.append(image.copy())
        image[...] = 99
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(frames, before)
    image = getattr(stats, name)(frames, nframes=1).compute()
    image[...] = 99
    np.testing.assert_array_equal(frames, before)


def test_the_users_callbacks_see_the_run(capsys):
    before = set(Callback.active)  # h5py's lock may be watched
    keys = []
    with Callback(posttask=lambda key, *_: keys.append(key)):
        images = stats.max_iter(filled(40), 8)
        next(images)
    list(images)
    assert len({str(key) for key in keys}) == 8
    assert Callback.active == before
    with ProgressBar():
        list(stats.max_iter(filled(8), 2))
    assert "Completed" in capsys.readouterr().out


def test_two_streams_at_once():
    pairs = zip(stats.max_iter(filled(20), 10), stats.min_iter(filled(20), 10), strict=True)
    assert [(int(a[0, 0]), int(b[0, 0])) for a, b in pairs][-1] == (19, 0)


def test_a_stream_from_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.extend(stats.max_iter(filled(20), 10)))
    thread.start()
    thread.join()
    assert len(found) == 10


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_at_the_start_leaves_nothing(monkeypatch, scheduler, begun):
    start = BackgroundRunner.start

    def interrupted(self):
        if begun:
            start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(BackgroundRunner, "start", interrupted)
    with dask.config.set(scheduler=scheduler), pytest.raises(KeyboardInterrupt) as kept:
        next(stats.max_iter(filled(400, delay=0.01), 10))
    assert our_threads() == []
    assert unreserved(1 << 40) == 1 << 40
    del kept


def test_handoff_is_bounded_and_ends():
    handoff = BoundedQueue(2)
    handoff.put(1)
    handoff.put(2)
    blocked = threading.Thread(target=lambda: (handoff.put(3), handoff.end(KeyError("x"))))
    blocked.start()
    assert [handoff.get() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(KeyError):
        handoff.get()
    blocked.join()


def test_closing_a_handoff_frees_the_producer():
    handoff, raised = BoundedQueue(1), threading.Event()

    def produce():
        try:
            while True:
                handoff.put(0)
        except Stopped:
            raised.set()

    thread = threading.Thread(target=produce)
    thread.start()
    handoff.get()
    handoff.close()
    thread.join(10)
    assert raised.is_set()


def test_snapshots_say_what_they_have_seen(rng):
    frames = rng.integers(0, 9, (10, 4, 3)).astype("u2")
    shots = list(stats.snapshots(frames, "average", 3))
    assert [(shot.done, shot.total) for shot in shots] == [(4, 10), (7, 10), (10, 10)]
    assert all(shot.seen.all() and shot.seen.shape == (4, 3) for shot in shots)
    shots = list(stats.snapshots(frames, ("percentile", [10, 90]), 3))
    assert [(shot.done, shot.total) for shot in shots] == [(2, 4), (3, 4), (4, 4)]
    for shot in shots:
        assert shot.seen[: shot.done].all()
        assert not shot.seen[shot.done :].any()
        assert not shot.image[:, ~shot.seen].any()
    np.testing.assert_array_equal(shots[-1].image, stats.percentile(frames, [10, 90]).compute())


@pytest.mark.parametrize("name", ["max", "median"])
def test_frames_in_memory_may_be_left_at_any_moment(name, rng):
    """Lanes of rows deliver from within tasks; what becomes ready after the end is cancelled."""
    frames = rng.integers(0, 9, (40, 40, 30)).astype("u2")
    for taken in [*range(1, 40), *range(1, 40)]:
        with getattr(stats, f"{name}_iter")(frames, 40) as images:
            for _ in range(taken):
                next(images)
    assert our_threads() == []
    images = stats.max_iter(frames, 40)
    seen = [int(image.max()) for image in images]
    assert seen == [int(frames[: stop + 1].max()) for stop in range(40)]


# ---------------------------------------------------------------------- several threads

EACH = {
    "lanes": lambda: stats.sum_iter(np.ones((400, 4, 3), "u2"), 100),
    "frames read one by one": lambda: stats.sum_iter(filled(200, delay=0.001), 100),
    "rows": lambda: stats.median_iter(np.ones((9, 100, 3), "u2"), 100),
}


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_each_image_goes_to_one_of_several_threads(kind, scheduler):
    taken: list[list] = [[] for _ in range(4)]
    with dask.config.set(scheduler=scheduler):
        images = EACH[kind]()
        threads = [threading.Thread(target=own.extend, args=(images,)) for own in taken]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    totals = sorted(float(image.sum()) for own in taken for image in own)
    with dask.config.set(scheduler=scheduler):
        assert totals == sorted(float(image.sum()) for image in EACH[kind]())


def test_closing_ends_the_wait_of_another_thread():
    gate, found = threading.Event(), []

    images = stats.max_iter(filled(on_read=lambda _: gate.wait(10)), 4)
    threads = [threading.Thread(target=lambda: found.append(next(images, "end"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    threading.Timer(0.1, gate.set).start()  # closing waits for the read that is under way
    images.close()
    for thread in threads:
        thread.join(10)
    assert found == ["end"] * 3


def test_an_error_reaches_one_thread_and_ends_the_iterator_for_the_others():
    images, found = stats.max_iter(filled(fail_at=20), 40), []

    def take():
        try:
            found.append(len(list(images)))
        except RuntimeError as error:
            found.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert [text for text in found if isinstance(text, str)] == ["detector on fire"]


# ---------------------------------------------------------------------- workers

WRONG_NUMBERS = [
    (-1, ValueError),
    (0, ValueError),
    (np.int64(-3), ValueError),
    (-(10**30), ValueError),
    (1.5, TypeError),
    (2.0, TypeError),
    (float("nan"), TypeError),
    ("two", TypeError),
    ("", TypeError),
    (True, TypeError),
    (False, TypeError),
    ([2], TypeError),
]


class Uncounted(Executor):
    """An executor that does not say how many workers it has."""

    def submit(self, function, /, *args, **kwargs):
        raise AssertionError("nothing is to be run")


@pytest.mark.parametrize(("number", "error"), WRONG_NUMBERS, ids=repr)
@pytest.mark.parametrize("scheduler", [None, "threads", "processes", Uncounted()])
def test_wrong_number_of_workers_is_refused_at_the_call(number, error, scheduler):
    frames, text = np.ones((4, 3, 2), "u2"), "dask's num_workers must be a positive integer, got"
    calls = [
        lambda: stats.average(frames),
        lambda: stats.median_iter(frames, 2),
        lambda: stats.wrap(frames),
        lambda: stats.plan(frames, "max"),
    ]
    for call in calls:
        with (
            dask.config.set(num_workers=number, scheduler=scheduler),
            pytest.raises(error, match=text),
        ):
            call()


def test_number_of_workers_does_not_matter_to_one_thread():
    with dask.config.set(num_workers=-1, scheduler="synchronous"):
        assert stats.max(np.ones((4, 3, 2), "u2")).compute().tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("pool", [-1, 0, 4, 1.5, True, False, "two", [], object()])
def test_other_objects_than_pools_are_refused_at_the_call(pool):
    with dask.config.set(pool=pool), pytest.raises(TypeError, match="dask's pool.*num_workers"):
        stats.average(np.ones((4, 3, 2), "u2"))


@pytest.mark.parametrize("number", [1, 3, np.int16(3)])
def test_number_of_workers(number):
    with dask.config.set(num_workers=number):
        workers = current_scheduler().workers
    assert (workers, type(workers)) == (number, int)


@pytest.mark.parametrize("kind", [ThreadPool, ThreadPoolExecutor])
def test_workers_of_a_pool(kind):
    with kind(3) as pool, dask.config.set(pool=pool, num_workers=-1):
        assert current_scheduler().workers == 3
        image = stats.max(np.ones((4, 3, 2), "u2")).compute()
        *_, last = stats.max_iter(np.ones((4, 3, 2), "u2"), 2)
    assert image.tolist() == last.tolist() == [[1, 1]] * 3
