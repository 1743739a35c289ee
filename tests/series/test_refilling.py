"""Series that fill the memory of a frame again, and those that need neither a copy nor a lock."""

import ctypes
import gc
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
from fakes import FakeSeries, Refilling, wait_for_another
from helpers import check_series, make_frames

import daskstats as stats
from daskstats.series import base, refilling, sequence
from daskstats.series.opening import as_series
from daskstats.series.refilling import StoredFrames, is_own

FRAMES = np.stack([np.full((6, 5), value, "u2") for value in range(40)])
FRAMES[:, 1, 2] = np.arange(40)[::-1] * 1000


def expected(statistic, frames=FRAMES):
    return getattr(np, {"average": "mean"}.get(statistic, statistic))(frames, axis=0)


def ring(slots, skip=0):
    memory = np.empty((slots + skip, 6, 5), "u2")
    return list(memory[skip:])


def views_of(kind):
    """Return a buffer whose memory does not belong to numpy."""
    memory = {
        "bytearray": lambda: bytearray(60),
        "ctypes": lambda: (ctypes.c_uint8 * 60)(),
        "memoryview": lambda: memoryview(bytearray(60)),
    }[kind]()
    return [np.frombuffer(memory, "u2").reshape(6, 5)]


BUFFERS = {
    "one": lambda: 1,
    "two in turn": lambda: 2,
    "a ring in one array": lambda: ring(3),
    "the end of a larger one": lambda: [np.empty((9, 8), "u2")[3:, 3:]],
    "the first of many that are not used": lambda: ring(50)[:1],
    "columns first": lambda: [np.empty((6, 5), "u2", order="F")],
    "bytearray": lambda: views_of("bytearray"),
    "ctypes": lambda: views_of("ctypes"),
    "memoryview": lambda: views_of("memoryview"),
}


@pytest.mark.parametrize("buffers", BUFFERS.values(), ids=BUFFERS.keys())
def test_average_of_a_series_that_refills_its_buffers(buffers):
    frames = np.stack([np.full((6, 5), value, "u2") for value in range(4)])
    for threads in (1, 4):
        with dask.config.set(num_workers=threads):
            image = stats.average(Refilling(frames, buffers())).compute()
        np.testing.assert_array_equal(image, np.full((6, 5), 1.5, "f4"))


@pytest.mark.parametrize("buffers", BUFFERS.values(), ids=BUFFERS.keys())
def test_refilled_frames_are_read_as_they_were(buffers):
    check_series(as_series(Refilling(FRAMES, buffers())), FRAMES, pickles=False)


@pytest.mark.parametrize("dtype", ["bool", ">u2", "f8"])
def test_refilled_frames_of_other_dtypes(dtype):
    frames = make_frames(dtype)
    check_series(as_series(Refilling(frames, 2)), frames)


@pytest.mark.parametrize(
    ("scheduler", "statistic"),
    [
        *(
            (scheduler, statistic)
            for scheduler in ("threads", "synchronous")
            for statistic in ("average", "max", "median")
        ),
        ("processes", "average"),
    ],
)
def test_every_scheduler(scheduler, statistic):
    ims = Refilling(FRAMES, delay=0.0002)
    with dask.config.set(scheduler=scheduler, num_workers=4):
        image = getattr(stats, statistic)(ims).compute()
        *_, last = getattr(stats, f"{statistic}_iter")(ims, 3)
    np.testing.assert_array_equal(image, expected(statistic).astype(image.dtype))
    np.testing.assert_array_equal(last, image)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("resident", {}),
        ("scratch", {"memory_limit": "12 MiB"}),
        ("reread", {"memory_limit": "12 MiB", "use_buffer": False}),
    ],
)
def test_every_way_to_a_median(strategy, options):
    frames = (
        np.arange(600 * 128, dtype="u2").reshape(600, 128, 1) % 997 * np.ones((1, 1, 128), "u2")
    )
    ims = Refilling(frames)
    with dask.config.set(num_workers=2):
        assert stats.plan(ims, "median", **options).strategy == strategy
        image = stats.median(ims, **options).compute()
    np.testing.assert_array_equal(image, np.median(frames, axis=0).astype("f4"))


@pytest.mark.parametrize("lock", [True, False])
def test_wrapped_selected_and_locked(lock):
    ims = Refilling(FRAMES, delay=0.0002)
    with dask.config.set(num_workers=4):
        blocks = stats.wrap(ims, lock=lock).compute()
        chosen = {"frames": [30, 2, 7, 2], "region": ((1, 4), (2, 5)), "lock": lock}
        image = stats.average(ims, **chosen).compute()
        whole = stats.max(ims, lock=lock).compute()
    np.testing.assert_array_equal(blocks, FRAMES)
    np.testing.assert_array_equal(
        image, expected("average", FRAMES[[30, 2, 7, 2], 1:4, 2:5]).astype("f4")
    )
    np.testing.assert_array_equal(whole, expected("max"))


def read_in_threads(*series, count=8):
    every = [(s, start) for _ in range(3) for start in range(0, 40, 10) for s in series]
    with ThreadPoolExecutor(4) as pool:
        blocks = pool.map(lambda a: list(a[0].pieces(a[1], a[1] + 10, 0, 6, count)), every)
        for (_, start), pieces in zip(every, blocks, strict=True):
            dense = np.concatenate([block for piece in pieces for block in piece])
            np.testing.assert_array_equal(dense, FRAMES[start : start + 10])


@pytest.mark.parametrize("count", [1, 8])
def test_refilled_buffers_are_read_by_one_thread_at_a_time(count):
    ims = Refilling(FRAMES, delay=0.0005)
    read_in_threads(as_series(ims), count=count)
    assert ims.most == 1


def test_two_series_of_one_object_wait_for_each_other():
    ims = Refilling(FRAMES, delay=0.0005)
    read_in_threads(as_series(ims), as_series(ims), as_series(ims, lock=True))
    assert ims.most == 1


@pytest.mark.parametrize("fresh", [1, 5, 25])
def test_frames_of_their_own_and_then_a_buffer(fresh):
    ims = Refilling(FRAMES, fresh=fresh, delay=0.0005)
    read_in_threads(as_series(ims))


class Meeting(FakeSeries):
    """Frame 1 waits until another thread has filled the buffer that it returns with frame 2.

    The threads wait for each other within a read, after one of them has filled the buffer.
    """

    def __init__(self, frames):
        super().__init__(frames)
        self.buffer = frames[0].copy()
        self.filled, self.refilled = threading.Event(), threading.Event()

    def __getitem__(self, index):
        frame = super().__getitem__(index)
        if index == 0:
            return frame.copy()
        if index == 2:
            self.filled.wait(10)
        self.buffer[...] = frame
        (self.filled if index == 1 else self.refilled).set()
        if index == 1:
            self.refilled.wait(10)
        return self.buffer


def test_frame_that_another_thread_has_overwritten_is_fetched_again():
    """Fetched in parallel, because the frames before had memory of their own."""
    ims = Meeting(FRAMES)
    series = as_series(ims)
    list(series.pieces(0, 1, 0, 6, 1))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda i: series.read(i, i + 1, 0, 6)[0], [1, 2])
    np.testing.assert_array_equal(first[0], FRAMES[1])
    np.testing.assert_array_equal(second[0], FRAMES[2])
    assert sorted(ims.reads) == [0, 1, 1, 2, 2]


def test_frames_that_a_profiler_holds_for_a_moment_are_read_once():
    """As distributed's does on workers, which samples the stacks of all threads."""
    held, done = [], threading.Event()

    def decode(frame):
        frame = frame.copy()
        if frame[0, 0] % 5 == 0:
            held.append(sys._getframe())
        return frame

    def let_go():
        while not done.wait(0.002):
            held.clear()

    ims = FakeSeries(FRAMES, decode=decode)
    series = as_series(ims)
    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        with dask.config.set(num_workers=3):
            image = stats.average(series).compute()
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(image, expected("average").astype("f4"))
    assert sorted(ims.reads) == list(range(40))
    assert not series._gate.refilled


DECODERS = {
    "a copy": np.copy,
    "a view of a copy": lambda frame: np.pad(frame, 1)[1:-1, 1:-1],
    "bytes of a file": lambda frame: np.frombuffer(frame.tobytes(), "u2").reshape(6, 5),
    "the whole series in memory": lambda frame: frame,
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())
def test_frames_that_nobody_writes_to_again_are_read_in_parallel(decode):
    ims = FakeSeries(FRAMES, decode=decode, on_read=lambda index: wait_for_another(ims))
    read_in_threads(as_series(ims))
    assert ims.most > 1


def test_frames_of_their_own_are_not_copied(monkeypatch):
    monkeypatch.setattr(base, "SMALL_FRAME", 0)  # small ones are joined
    decoded = set()

    def decode(frame):
        copy = frame.copy()
        decoded.add(copy.ctypes.data)
        return copy

    (piece,) = as_series(FakeSeries(FRAMES, decode=decode)).pieces(0, 3, 0, 6, 3)
    assert {block.ctypes.data for block in piece} == decoded


def test_without_counts_of_references_every_frame_is_copied(monkeypatch):
    """As on interpreters that have none, or no global lock."""
    monkeypatch.setattr(refilling, "COUNTED", False)
    monkeypatch.setattr(sequence, "is_own", lambda frame, looks=1: False)
    for ims in (Refilling(FRAMES), FakeSeries(FRAMES, decode=np.copy, delay=0.002)):
        read_in_threads(as_series(ims))
        assert ims.most == 1


def test_copies_of_a_series_in_one_process_share_its_gate():
    series = as_series(Refilling(FRAMES))
    copies = [pickle.loads(pickle.dumps(series)) for _ in range(2)]
    assert copies[0]._gate is copies[1]._gate is series._gate
    read_in_threads(series, *copies)


def test_gates_go_with_their_series():
    series = as_series(Refilling(FRAMES))
    number = series._gate.number
    assert number in refilling._gates
    del series
    gc.collect()
    assert number not in refilling._gates


def test_what_is_own():
    array = np.empty((3, 4))
    assert is_own(array)
    other = array
    assert not is_own(array)
    del other
    view = array[1:]
    assert not is_own(view)
    del array
    assert is_own(view)
    view = view[0].reshape(2, 2)
    assert is_own(view)
    memory = bytearray(8)
    assert not is_own(np.frombuffer(memory))
    assert not is_own(np.frombuffer(bytearray(8)))


@pytest.mark.parametrize(
    ("frames", "stored"),
    [
        (lambda: FRAMES.copy(), True),
        (lambda: FRAMES.copy()[::-1], True),
        (lambda: np.pad(FRAMES, 2)[2:-2, 2:-2, 2:-2], True),
        (lambda: np.ascontiguousarray(FRAMES.transpose(1, 2, 0)).transpose(2, 0, 1), True),
        (lambda: [frame.copy() for frame in FRAMES], False),
        (lambda: FRAMES.copy()[np.arange(40) % 8], True),
        (lambda: [FRAMES[7]] * 40, False),
        (lambda: [FRAMES[index % 8] for index in range(40)], False),
        (lambda: np.broadcast_to(FRAMES[:1].copy(), (40, 6, 5)), False),
    ],
)
def test_what_is_stored(frames, stored):
    frames = frames()
    found = StoredFrames(None, 40, 60)
    order = [0, 1, 9, 8, 7, *range(39, -1, -1)]
    looks = [found.look(index, frames[index]) for index in order]
    assert looks[0] in ((False, None), (False, False))
    # Some of those that are not stored lie where they would be.
    assert {look == (True, True) for look in looks[4:]} == ({True} if stored else {False})


@pytest.mark.parametrize("slots", [40, 41, 100])
@pytest.mark.parametrize("stride", [1, 3, 7, 39])
def test_buffers_that_are_used_in_turn_are_never_taken_for_a_stored_series(slots, stride):
    """Whatever the order of the frames, with a buffer for each of them."""
    buffers, found = ring(slots), StoredFrames(None, 40, 60)
    order = [number * stride % 40 for number in range(120)]
    looks = [found.look(i, buffers[n % slots]) for n, i in enumerate(order)]
    assert (True, True) not in looks
    assert slots == 40 or (True, None) not in looks


@pytest.mark.parametrize("slots", [41, 60, 200])
def test_ring_with_a_place_for_every_frame(slots):
    """It looks as if the frames were stored, until one is fetched again."""
    ims = Refilling(FRAMES, ring(slots), delay=0.0005)
    read_in_threads(as_series(ims), as_series(ims))
    assert ims.most == 1


@pytest.mark.parametrize("statistic", ["average", "median"])
@pytest.mark.parametrize("fixture", ["client", "inside"])
def test_clusters_last_because_they_stay_active(fixture, statistic, request):
    request.getfixturevalue(fixture)
    ims = Refilling(FRAMES, 2, delay=0.0002)
    image = getattr(stats, statistic)(ims).compute()
    np.testing.assert_array_equal(image, expected(statistic).astype("f4"))
