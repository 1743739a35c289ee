"""Frames of any dtype, and the checks that all series and all statistics must pass."""

import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from typing import Any
from unittest import mock

import numpy as np
from dask.base import tokenize

from daskstats.series.base import Source, as_frames, layout
from daskstats.series.piece import Piece
from daskstats.statistics import Statistic

# A dtype of each kind and size for which statistics are exact, native and not.
DTYPES = ("bool", "i1", "u2", ">u2", "<i4", ">i8", "u8", "f2", ">f4", "f8")

# Window of a read: (start, stop) of frames, (first, last) of rows, frames at a time.
Window = tuple[int, int, int, int, int]


def make_frames(
    dtype: Any, nframes: int = 7, rows: int = 5, cols: int = 6, seed: int = 0
) -> np.ndarray:
    """Return frames (nframes, rows, cols) that use the whole range of the dtype."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    shape = nframes, rows, cols
    if dtype.kind == "f":
        frames = rng.normal(0, 1000, shape).astype(dtype)
        frames.flat[::11] = np.nan
        frames.flat[1::13] = -0.0
        frames.flat[2::17] = np.inf
        return frames
    bits = rng.integers(0, 2**64, shape, "u8")
    return (bits & 1).astype(dtype) if dtype.kind == "b" else bits.astype(dtype)


def windows(nframes: int, rows: int) -> Iterator[Window]:
    """Yield windows of all kinds: whole, single, at both edges, in the middle, in odd steps."""
    spans = {(0, nframes), (0, 1), (nframes - 1, nframes), (nframes // 3, nframes - nframes // 4)}
    bands = {(0, rows), (0, 1), (rows - 1, rows), (rows // 3, rows - rows // 4)}
    for span, band in product(sorted(spans), sorted(bands)):
        for count in (1, 3, 10 * nframes) if span == (0, nframes) else (2,):
            if span[0] < span[1] and band[0] < band[1]:
                yield (*span, *band, count)


def read_dense(series: Source, window: Window) -> np.ndarray:
    """Read a window through `pieces`, checking the promises that each block makes."""
    start, stop, first, last, count = window
    blocks = []
    for piece in series.pieces(*window):
        assert isinstance(piece, Piece)
        assert 0 < sum(map(len, piece)) <= count, f"{window}: more frames than asked for"
        for block in piece:
            assert type(block) in (np.ndarray, np.memmap), type(block)
            assert block.dtype == series.dtype
            assert block.dtype.isnative
            assert block.shape[1:] == (last - first, series.shape[1])
            assert all(frame.flags.c_contiguous for frame in block)
        blocks += piece
    dense = np.concatenate(blocks)
    assert len(dense) == stop - start
    return dense


def check_series(series: Source, frames: np.ndarray, pickles: bool = True) -> None:
    """Check that a series gives these frames, read in any way.

    Parameters
    ----------
    series : Source
        The series under test.
    frames : ndarray
        (frames, rows, cols), the expected values, in any byte order.
    pickles : bool
        Whether a pickled copy must read the same.
    """
    frames = np.array(frames, dtype=frames.dtype.newbyteorder("="), order="C")
    _check_facts(series, frames)
    _check_reads(series, frames)
    _check_threads(series, frames)
    _check_rows(series, frames)
    _check_part(series, frames)
    assert tokenize(series) == tokenize(series), "one object, two tokens"
    if pickles:
        token = tokenize(series)
        copy = pickle.loads(pickle.dumps(series))
        assert type(copy) is not type(series) or tokenize(copy) == token
        _check_facts(copy, frames)
        _check_reads(copy, frames, step=3)
    np.testing.assert_array_equal(
        read_dense(series, (0, len(frames), 0, frames.shape[1], 3)), frames, "the source changed"
    )


def _check_facts(series: Source, frames: np.ndarray) -> None:
    assert isinstance(series, Source)
    assert type(len(series)) is int
    assert len(series) == len(frames)
    assert type(series.shape) is tuple
    assert series.shape == frames.shape[1:]
    assert [type(length) for length in series.shape] == [int, int]
    assert isinstance(series.dtype, np.dtype)
    assert series.dtype == frames.dtype
    assert series.dtype.isnative
    assert type(series.frame_unit) is int
    assert 1 <= series.frame_unit <= len(frames)
    assert series.row_unit is None or type(series.row_unit) is int
    assert series.row_unit is None or 1 <= series.row_unit <= frames.shape[1]
    assert type(series.in_memory) is bool
    assert layout(series, len(series)).stored == series.stored
    assert str(len(series)) in repr(series)


def _check_rows(series: Source, frames: np.ndarray) -> None:
    """Some rows of a frame that was decoded whole do not keep all of it in memory."""
    if frames.shape[1] == 1 or not (series.files() or series.one_by_one):
        return
    blocks, again = series.read(0, 1, 0, 1), series.read(0, 1, 0, 1)
    if np.shares_memory(blocks[0], again[0]):  # it belongs to the series
        return
    for memory in blocks:
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        assert memory.nbytes < frames[0].nbytes


def _check_reads(series: Source, frames: np.ndarray, step: int = 1) -> None:
    with mock.patch.object(series, "read", wraps=series.read) as read:
        for window in list(windows(*frames.shape[:2]))[::step]:
            read.reset_mock()
            start, stop, first, last, count = window
            dense = read_dense(series, window)
            assert dense.tobytes() == frames[start:stop, first:last].tobytes(), window
            calls = [call.args for call in read.call_args_list]
            assert calls[0][0] == start
            assert calls[-1][1] == stop
            assert all(a[1] == b[0] for a, b in pairwise(calls))
            assert all(0 < call[1] - call[0] <= count for call in calls)
            assert all(call[2:] == (first, last) for call in calls)


def _check_threads(series: Source, frames: np.ndarray) -> None:
    every = list(windows(*frames.shape[:2]))[::3]
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda window: read_dense(series, window), every)
        for window, dense in zip(every, read, strict=True):
            start, stop, first, last, _ = window
            assert dense.tobytes() == frames[start:stop, first:last].tobytes(), window


def _check_part(series: Source, frames: np.ndarray) -> None:
    nframes, rows = frames.shape[:2]
    start, stop, first, last = nframes // 3, nframes, 0, max(1, rows - rows // 4)
    part = series.part(start, stop, first, last)
    if part is not None:
        _check_facts(part, frames[start:stop, first:last])
        dense = read_dense(part, (0, stop - start, 0, last - first, 2))
        assert dense.tobytes() == frames[start:stop, first:last].tobytes()


def run_in_threads(function: Callable[[], object], count: int) -> None:
    """Call a function in several threads at the same time, and wait for all of them."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def native(frames: np.ndarray) -> np.ndarray:
    """Return frames in native byte order."""
    return as_frames(frames, frames.dtype.newbyteorder("="))


def reduce_cut(
    statistic: Statistic, frames: np.ndarray, cuts: list[int], dtype: Any = None
) -> np.ndarray:
    """Fold frames (or rows) block by block, combine from left to right, and finish."""
    frames = native(frames)
    length = frames.shape[1] if statistic.along == "rows" else len(frames)
    edges = sorted({0, length, *(cut % length for cut in cuts)})
    state = None
    for start, stop in pairwise(edges):
        part = frames[:, start:stop] if statistic.along == "rows" else frames[start:stop]
        partial = statistic.chunk([[part]], start)
        state = partial if state is None else statistic.combine(state, partial)
    shape = statistic.image_shape(*frames.shape[1:])
    return statistic.image(state, shape, statistic.image_dtype(frames.dtype, dtype))


def check_statistic(statistic: Statistic, frames: np.ndarray) -> None:
    """Check the promises of a statistic: no state changed, new images, the same for any cut."""
    frames = native(frames)
    middle = max(1, (frames.shape[1] if statistic.along == "rows" else len(frames)) // 2)
    parts = (
        [frames[:, :middle], frames[:, middle:]]
        if statistic.along == "rows"
        else [frames[:middle], frames[middle:]]
    )
    first = statistic.chunk([[parts[0]]], 0)
    second = statistic.chunk([[parts[1]]], middle)
    before = pickle.dumps((first, second))
    both = statistic.combine(first, second)
    shape = statistic.image_shape(*frames.shape[1:])
    dtype = statistic.image_dtype(frames.dtype)
    images = [statistic.image(state, shape, dtype) for state in (first, both, both)]
    assert pickle.dumps((first, second)) == before, "combine or finalize changed a state"
    for image in images:
        assert image.shape == shape
        assert image.dtype == dtype
        for array in [frames, *first.values(), *second.values(), *both.values()]:
            assert not np.shares_memory(image, array)
    np.testing.assert_array_equal(images[1], images[2])
    assert not np.shares_memory(images[1], images[2])
    assert all(isinstance(value, np.ndarray) for value in both.values())
    sent = pickle.loads(pickle.dumps(statistic))
    np.testing.assert_array_equal(sent.image(both, shape, dtype), images[1])
    one, two = map(statistic.packed, (first, second))
    for pair in ((one, two), (one, second), (first, two)):
        packed = statistic.packed(statistic.combine(*pair))
        np.testing.assert_array_equal(statistic.image(packed, shape, dtype), images[1])
    assert pickle.dumps((first, second)) == before, "a state that was packed has changed"
    check_loops(statistic, frames)


def check_loops(statistic: Statistic, frames: np.ndarray) -> None:
    """Check that loops over any number of pixels at a time give the image of the whole."""
    shape, dtype = statistic.image_shape(*frames.shape[1:]), statistic.image_dtype(frames.dtype)
    expected = statistic.image(statistic.chunk([[frames]], 0), shape, dtype)
    pixels = frames[0].size
    for few in (1, 3, pixels + 1):
        begun = statistic.begin and statistic.begin([frames[:2], frames[2:]])
        if begun is None:
            return
        loops, state = begun
        for first in range(0, pixels, few):
            for loop in loops:
                loop.run(first, min(first + few, pixels))
        np.testing.assert_array_equal(statistic.image(state(), shape, dtype), expected)
