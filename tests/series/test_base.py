"""What all sources have in common, on sources made for the purpose."""

import os
import pickle
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.formats.table import suffixes
from daskstats.series import base
from daskstats.series.base import Source
from daskstats.series.files import FileSource, fingerprint
from daskstats.series.missing import warn_about_missing
from daskstats.series.opening import open_source


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
    before = fingerprint(tmp_path)
    file.write_bytes(b"12")
    os.utime(file, ns=(2**62, 2**62))
    assert fingerprint(tmp_path) != before


def test_suffixes_are_found_by_themselves():
    assert {".npy", ".npz", ".zarr", ".h5", ".hdf5"} <= set(suffixes("series"))


@pytest.mark.parametrize("name", ["scan", "scan.txt", "scan.tar.gz", ".npy"])
def test_unknown_suffix(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no known suffix: expected one of .*\.h5.*\.npy"):
        open_source(name)


@pytest.mark.parametrize("suffix", suffixes("series"))
def test_missing_file(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_source(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_directory_under_the_name_of_a_file(tmp_path, suffix):
    (tmp_path / f"scan{suffix}").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"the folder .*scan{suffix} is empty"):
        open_source(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("suffix", suffixes("series"))
@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device"])
def test_paths_that_are_no_files(tmp_path, monkeypatch, suffix, kind):
    """To open a pipe waits for ever, to read /dev/zero never ends."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = Path(f"scan{suffix}")
    with socket.socket(socket.AF_UNIX) as bound:
        if kind == "a named pipe":
            os.mkfifo(path)
        elif kind == "a socket":
            bound.bind(str(path))
        else:
            path.symlink_to("/dev/zero")
        for name in (path, f"{path}::/data"):
            with pytest.raises(ValueError, match=f"{path} is {kind}, not a file"):
                open_source(name)


def test_source_is_its_own():
    source = Recorded(make_frames("u2"))
    assert open_source(source) is source


def test_source_that_cannot_be_pickled_says_so_before_it_is_sent():
    source = Recorded(make_frames("u2"))
    source.lock = Lock()
    check_series(source, make_frames("u2"), pickles=False)


def _replace_with_its_time_kept(path):
    """Put a copy of equal size in the place of a file, as ``cp -p`` and ``mv`` do."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (stat.st_mtime_ns, stat.st_size)


def _overwrite_with_its_time_kept(path):
    """Write other bytes into the same file and turn its time back."""
    stat = path.stat()
    time.sleep(0.02)  # longer than a tick of the clock of a file system
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [_replace_with_its_time_kept, _overwrite_with_its_time_kept])
@pytest.mark.parametrize("deep", [False, True])
def test_fingerprint_of_a_file_replaced_at_equal_size_and_time(tmp_path, change, deep):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "chunk"
    file.write_bytes(b"12345")
    watched = tmp_path if deep else file
    before = fingerprint(watched)
    assert fingerprint(watched) == before
    change(file)
    assert fingerprint(watched) != before


def test_fingerprint_of_a_directory_sees_names_and_exchanged_files(tmp_path):
    first, second = tmp_path / "c0", tmp_path / "c1"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    before = fingerprint(tmp_path)
    first.rename(tmp_path / "c2")  # sizes, times and number of files stay
    assert fingerprint(tmp_path) != before
    (tmp_path / "c2").rename(first)
    spare = tmp_path.parent / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert fingerprint(tmp_path) != before


def test_fingerprint_of_a_directory_with_a_loop_of_links(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    before = fingerprint(tmp_path)
    (tmp_path / "deep" / "chunk").write_bytes(b"1")
    assert fingerprint(tmp_path) != before


class Opened(FileSource):
    """A file source whose handle is made of its path, and which counts how often."""

    handles = ("_file",)

    def __init__(self, path):
        super().__init__(path)
        self.nframes, self.shape, self.dtype = 4, (5, 6), np.dtype("u2")
        self.opened = 0
        self.open()

    def open(self):
        self.opened += 1
        self.path.read_bytes()
        time.sleep(0.01)
        self._file = object()

    def read(self, start, stop, first, last):
        assert self._file is not None
        return [np.zeros((stop - start, last - first, 6), "u2")]


def test_a_file_is_opened_at_the_first_read_by_one_thread(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(b"")
    source = pickle.loads(pickle.dumps(Opened(path)))
    assert "_file" not in vars(source)
    assert (len(source), source.shape, source.opened) == (4, (5, 6), 1)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: source.read(0, 4, 0, 5), range(16)))) == 16
    assert source.opened == 2


def test_a_file_that_does_not_open_names_its_place(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(b"")
    text = pickle.dumps(Opened(path))
    path.unlink()
    source = pickle.loads(text)
    with pytest.raises(FileNotFoundError) as caught:
        source.read(0, 4, 0, 5)
    (note,) = caught.value.__notes__
    assert str(path) in note
    assert f"process {os.getpid()}" in note
    path.write_bytes(b"")
    source.read(0, 4, 0, 5)  # it is tried anew
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        source.other  # noqa: B018


class Sparse(Recorded):
    def __init__(self, missing):
        super().__init__(make_frames("u2", 10))
        self.missing = np.array(missing, np.int64)

    def frames_without_data(self):
        return self.missing


@pytest.mark.parametrize(
    ("missing", "nframes", "text"),
    [
        ([7, 8, 9], None, r"3 of 10 frames .*frames 7 to 9\).*nframes=7 \(--nframes 7\)"),
        ([0, 1], None, r"2 of 10 frames .*slice\(2, 10\) \(--frames 2:10\)"),
        ([0, 9], None, r"frames 0, 9\).*slice\(1, 9\) \(--frames 1:9\)"),
        ([4], None, r"1 of 10 frames .*frames=\[\.\.\.\]"),
        ([4, 9], 6, r"1 of 6 frames .*frames 4\)"),
        (range(10), None, r"10 of 10 frames .*nothing else"),
        ([1, 3, 5, 7, 9], None, r"frames 1, 3, 5, 7, 9\)"),
        ([0, 2, 4, 6, 8, 9], None, r"frames 0, 2, 4, 6, 8 to 9\)"),
    ],
)
def test_frames_without_data_are_told(missing, nframes, text):
    with pytest.warns(UserWarning, match=text):
        warn_about_missing(Sparse(missing), nframes)


@pytest.mark.parametrize(("missing", "nframes"), [([], None), ([7, 8], 7)])
def test_no_warning_where_all_frames_have_data(missing, nframes):
    warn_about_missing(Sparse(missing), nframes)
