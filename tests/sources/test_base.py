"""What all sources have in common, on sources made for the purpose."""

import os
import time
import weakref
from threading import Lock

import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.sources import base, open_source, suffixes
from daskstats.sources.base import Source


class Recorded(Source):
    """A source that gives what it is told to, and notes what it was asked for."""

    def __init__(self, frames, give=None, frame_unit=1):
        self.frames, self.give, self.frame_unit = frames, give, frame_unit
        self.nframes, self.shape, self.dtype = len(frames), frames.shape[1:], frames.dtype
        self.asked = []

    def read(self, start, stop, first, last):
        self.asked.append((start, stop))
        return (self.give or (lambda block: [block]))(self.frames[start:stop, first:last])


@pytest.mark.parametrize(
    ("unit", "window", "expected"),
    [
        # pieces begin at multiples of their size, so that no unit is decoded twice
        (1, (0, 7, 3), [(0, 3), (3, 6), (6, 7)]),
        (1, (2, 7, 3), [(2, 3), (3, 6), (6, 7)]),
        (2, (1, 7, 4), [(1, 4), (4, 7)]),
        (3, (2, 7, 3), [(2, 3), (3, 6), (6, 7)]),
        # a size that is no multiple of the unit gains nothing by that
        (3, (2, 7, 4), [(2, 6), (6, 7)]),
        (1, (3, 4, 100), [(3, 4)]),
    ],
)
def test_how_pieces_are_cut(unit, window, expected):
    source = Recorded(make_frames("u2"), frame_unit=unit)
    start, stop, count = window
    list(source.pieces(start, stop, 0, 5, count))
    assert source.asked == expected


def test_nothing_is_read_before_it_is_asked_for():
    source = Recorded(make_frames("u2"))
    pieces = source.pieces(0, 7, 0, 5, 2)
    assert source.asked == []
    next(pieces)
    assert source.asked == [(0, 2)]


def test_a_piece_is_free_before_the_next_is_read():
    class Block(np.ndarray):
        pass

    alive = weakref.WeakSet()

    class Owner:
        def __init__(self, block):
            block.owner = self

    def give(block):
        assert len(alive) == 0, "the last piece is still there"
        block = block.copy().view(Block)
        alive.add(Owner(block))
        return [block]

    pieces = Recorded(make_frames("u2"), give).pieces(0, 7, 0, 5, 2)
    while next(pieces, None) is not None:
        pass


@pytest.mark.parametrize(
    ("give", "text"),
    [
        (lambda b: [b[:-1]], "gave 2 frames where 3:6 was read"),
        (lambda b: [b, b], "gave 6 frames where 3:6 was read"),
        (lambda b: [], "gave 0 frames where 3:6 was read"),
        (lambda b: [b[:1], b[1:, :1]], r"frame 4 has shape \(1, 6\), expected \(2, 6\)"),
        (lambda b: [b[:2], b[2:, :, :5]], r"frame 5 has shape \(2, 5\), expected \(2, 6\)"),
        (lambda b: [b[:1], b[1:].astype("i2")], "frame 4 has dtype int16, expected uint16"),
        (lambda b: [b[0]], r"frame 3 has shape \(6,\), expected \(2, 6\)"),
    ],
)
def test_every_block_is_checked(give, text):
    source = Recorded(make_frames("u2"), give)
    with pytest.raises(ValueError, match=text):
        list(source.pieces(3, 6, 1, 3, 3))


def test_blocks_may_come_in_several_arrays():
    frames = make_frames(">u2")
    source = Recorded(frames, lambda block: [block[:1], block[1:]])
    source.dtype = np.dtype("u2")
    check_series(source, frames, pickles=False)


def test_waits_between_tries_are_short_and_grow(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def fail(block):
        raise TimeoutError("slow")

    source = Recorded(make_frames("u2"), fail)
    with pytest.raises(TimeoutError) as caught:
        list(source.pieces(0, 4, 0, 5, 4))
    assert caught.value.__notes__ == ["while reading frames 0 to 3"]
    assert waits == list(base.RETRY_AFTER) == sorted(waits)
    assert sum(waits) <= 1
    assert len(source.asked) == 4


def test_keyboard_interrupt_is_not_held_back():
    def interrupt(block):
        raise KeyboardInterrupt

    source = Recorded(make_frames("u2"), interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(source.pieces(0, 4, 0, 5, 4))
    assert len(source.asked) == 1


@pytest.mark.parametrize(
    "shape", [(3, 4), [3, 4], np.array([3, 4], "u1"), (np.int64(3), np.uint8(4)), iter((3, 4))]
)
def test_shapes_become_two_ints(shape):
    checked = base.check_shape(shape)
    assert checked == (3, 4)
    assert [type(length) for length in checked] == [int, int]


@pytest.mark.parametrize("dtype", [">u2", "<u2", np.uint16, np.dtype(">u2"), "uint16"])
def test_dtypes_become_native(dtype):
    assert base.check_native(dtype) == np.dtype("=u2")
    assert base.check_native(dtype).isnative


def test_fingerprint_of_a_directory_follows_its_files(tmp_path):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "chunk"
    file.write_bytes(b"1")
    before = base.fingerprint(tmp_path)
    file.write_bytes(b"12")
    os.utime(file, ns=(2**62, 2**62))
    assert base.fingerprint(tmp_path) != before


def test_suffixes_are_found_by_themselves():
    assert {".npy", ".npz", ".zarr", ".h5", ".hdf5"} <= set(suffixes())


@pytest.mark.parametrize("name", ["scan", "scan.txt", "scan.tar.gz", "", ".", ".npy"])
def test_unknown_suffix(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no known suffix: expected one of .*\.h5.*\.npy"):
        open_source(name)


@pytest.mark.parametrize("suffix", sorted(suffixes()))
def test_missing_file(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_source(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_directory_under_the_name_of_a_file(tmp_path, suffix):
    (tmp_path / f"scan{suffix}").mkdir()
    with pytest.raises((IsADirectoryError, ValueError), match=f"scan{suffix}"):
        open_source(tmp_path / f"scan{suffix}")


def test_source_is_its_own():
    source = Recorded(make_frames("u2"))
    assert open_source(source) is source


def test_source_that_cannot_be_pickled_says_so_before_it_is_sent():
    source = Recorded(make_frames("u2"))
    source.lock = Lock()
    check_series(source, make_frames("u2"), pickles=False)
