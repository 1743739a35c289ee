"""Image series that are HEXRD's, or like them."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
from fakes import Fail, FakeSeries, Mock, NumpyIntegers, read_only
from helpers import DTYPES, check_series, make_frames

from daskstats.series import base
from daskstats.series.flips import FLIPS, UNFLIPPED
from daskstats.series.opening import as_series
from daskstats.series.orders import flip_of
from daskstats.series.sequence import SequenceSource


@pytest.mark.parametrize("dtype", DTYPES)
def test_strict_sequence(dtype):
    frames = make_frames(dtype)
    series = as_series(FakeSeries(frames))
    assert type(series) is SequenceSource
    check_series(series, frames)


@pytest.mark.parametrize(
    ("kind", "pickles"),
    [(NumpyIntegers, True), (partial(FakeSeries, decode=read_only), True), (Mock, False)],
)
def test_odd_sequences(kind, pickles):
    frames = make_frames(">i2")
    series = as_series(kind(frames))
    assert type(series) is SequenceSource
    check_series(series, frames, pickles=pickles)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (9, 1, 6), (2, 3, 1)])
def test_narrow_frames(shape):
    frames = make_frames("u2", *shape)
    check_series(as_series(FakeSeries(frames)), frames)


def test_frames_in_any_memory_order():
    frames = make_frames("f8")
    variants = {
        "columns first": [np.asfortranarray(frame) for frame in frames],
        "upside down": [frame[::-1].copy()[::-1] for frame in frames],
        "every other column": [np.repeat(frame, 2, axis=1)[:, ::2] for frame in frames],
        "one frame, repeated": [frames[0]] * 4,
        "no strides": [np.broadcast_to(np.float64(3), (5, 6))] * 3,
    }
    for variant in variants.values():
        check_series(as_series(FakeSeries(variant)), np.stack(variant))


def test_length_shape_and_dtype_are_read_once_and_no_frame_before_it_is_needed():
    ims = FakeSeries(make_frames("u2"))
    series = as_series(ims)
    assert ims.reads == []
    assert ims.asked == {"len": 1, "shape": 1, "dtype": 1}
    list(series.pieces(2, 5, 1, 3, 2))
    assert ims.reads == [2, 3, 4]
    assert ims.asked == {"len": 1, "shape": 1, "dtype": 1}


@pytest.fixture
def _no_frame_is_small(monkeypatch):
    """Small frames are joined, for which they are copied."""
    monkeypatch.setattr(base, "SMALL_FRAME", 0)


@pytest.mark.usefixtures("_no_frame_is_small")
def test_whole_frames_are_not_copied():
    """But the first: only the second shows that they do not share a buffer."""
    frames = make_frames("u2")
    (piece,) = as_series(FakeSeries(frames)).pieces(0, 7, 0, 5, 7)
    assert [np.shares_memory(block, frames) for block in piece] == [False] + [True] * 6


def test_large_frames_are_copied_into_memory_that_is_used_again():
    """In their own memory order, and each is released before the next is fetched."""
    frames = [np.broadcast_to(np.uint16(value), (1000, 1100)) for value in range(24)]
    for decode in (np.copy, lambda frame: np.asfortranarray(frame)[::-1]):
        fetched, places = [], []

        def fetch(frame, decode=decode, fetched=fetched):
            assert not any(reference() is not None for reference in fetched)
            copy = decode(frame)
            fetched.append(weakref.ref(copy if copy.base is None else copy.base))
            return copy

        for piece in as_series(FakeSeries(frames, decode=fetch)).pieces(0, 24, 0, 1000, 8):
            assert piece.flip == flip_of(decode(frames[0]))
            first = 8 * len(places)
            assert [int(block.max()) for block in piece.stored] == list(range(first, first + 8))
            places.append({block.ctypes.data for block in piece.stored})
            del piece
        assert len(places[0]) == 8
        assert places[0] == places[1] == places[2]


def test_pieces_of_a_few_frames_are_in_c_order():
    """Where memory is short: a fold would need more for its state."""
    frames = make_frames("u2", 9)
    series = as_series(FakeSeries([np.asfortranarray(frame) for frame in frames]))
    for count, flips in ((9, [FLIPS["t"]]), (4, [FLIPS["t"]] * 3), (3, [UNFLIPPED] * 3)):
        assert [piece.flip for piece in series.pieces(0, 9, 0, 5, count)] == flips


@pytest.mark.usefixtures("_no_frame_is_small")
def test_rows_do_not_keep_their_frames():
    """A band of all frames must not hold all of the series."""
    alive = weakref.WeakSet()

    class Frame(np.ndarray):
        pass

    class Held:
        def __init__(self, frame):
            frame.held = self

    def decode(frame):
        frame = frame.copy().view(Frame)
        alive.add(Held(frame))
        return frame

    ims = FakeSeries(make_frames("u2"), decode=decode)
    band = list(as_series(ims).pieces(0, 7, 1, 3, 7))
    gc.collect()
    assert len(band[0]) == 7
    assert len(alive) == 0


WRONG = {
    "one row": (np.zeros((1, 6), "u2"), "(1, 6)", "(5, 6)"),
    "a column less": (np.zeros((5, 5), "u2"), "(5, 5)", "(5, 6)"),
    "transposed": (np.zeros((6, 5), "u2"), "(6, 5)", "(5, 6)"),
    "three dimensions": (np.zeros((1, 5, 6), "u2"), "(1, 5, 6)", "(5, 6)"),
    "one dimension": (np.zeros(30, "u2"), "(30,)", "(5, 6)"),
    "no dimension": (np.array(0, "u2"), "()", "(5, 6)"),
    "empty": (np.zeros((0, 6), "u2"), "(0, 6)", "(5, 6)"),
    "signed": (np.zeros((5, 6), "i2"), "int16", "uint16"),
    "wider": (np.zeros((5, 6), "u4"), "uint32", "uint16"),
    "float": (np.zeros((5, 6)), "float64", "uint16"),
    "objects": (np.zeros((5, 6), object), "object", "uint16"),
    "None": (None, "NoneType", "uint16"),
    "a list": ([[0] * 6] * 5, "list", "uint16"),
    "masked": (np.ma.zeros((5, 6), "u2"), "MaskedArray", "uint16"),
}


@pytest.mark.parametrize(("frame", "got", "expected"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("index", [0, 3, 6])
@pytest.mark.parametrize("count", [1, 4, 100])
def test_wrong_frame_is_named(frame, got, expected, index, count):
    frames = list(make_frames("u2"))
    good = FakeSeries(frames)
    series = as_series(good)
    frames[index] = frame
    with pytest.raises(ValueError) as caught:
        list(series.pieces(0, 7, 1, 3, count))
    text = str(caught.value)
    assert f"frame {index} " in text
    assert got in text
    assert expected in text


def test_byte_order_of_a_frame_does_not_matter():
    frames = list(make_frames("u2"))
    frames[3] = frames[3].astype(">u2")
    check_series(as_series(FakeSeries(frames)), np.stack(frames))


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0, 0, 0))


@pytest.mark.usefixtures("no_waiting")
def test_reads_that_fail_now_and_then_are_tried_again():
    frames = make_frames("u2")
    ims = FakeSeries(frames, on_read=Fail({0: 3, 2: 1, 6: 2}, OSError("the network is down")))
    (piece,) = as_series(ims).pieces(0, 7, 0, 5, 1000)
    np.testing.assert_array_equal(np.concatenate(piece), frames)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("count", [1, 4, 100])
def test_reads_that_fail_for_good_name_the_frame(count):
    ims = FakeSeries(make_frames("u2"), on_read=Fail({5: 1000}, OSError("the disk is broken")))
    with pytest.raises(OSError, match="the disk is broken") as caught:
        list(as_series(ims).pieces(0, 7, 0, 5, count))
    assert caught.value.__notes__ == ["while reading frame 5"]
    assert ims.reads.count(5) == 4
    assert ims.reads.count(4) <= 1, "a frame that was right is read again"


@pytest.mark.parametrize(
    "error", [KeyError("key"), RuntimeError("no"), FileNotFoundError("gone"), PermissionError("no")]
)
def test_errors_that_waiting_does_not_mend_are_raised_at_once(error):
    ims = FakeSeries(make_frames("u2"), on_read=Fail({5: 1000}, error))
    with pytest.raises(type(error)) as caught:
        list(as_series(ims).pieces(0, 7, 0, 5, 1))
    assert caught.value.__notes__ == ["while reading frame 5"]
    assert ims.reads.count(5) == 1


def test_a_frame_that_raises_stop_iteration_is_named():
    ims = FakeSeries(make_frames("u2"), on_read=Fail({5: 1000}, StopIteration()))
    with pytest.raises(RuntimeError, match="a frame raised StopIteration") as caught:
        list(as_series(ims).pieces(0, 7, 0, 5, 1))
    assert caught.value.__notes__ == ["while reading frame 5"]


def claiming(nframes=2, shape=(3, 4), dtype="u2"):
    """Return a series that claims a length, a shape and a dtype, and fails on every read."""
    return FakeSeries([], nframes, shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("claim", "error", "text"),
    [
        ({"nframes": 0}, ValueError, "no frames"),
        ({"shape": (0, 4)}, ValueError, "empty"),
        ({"shape": (3, 0)}, ValueError, "empty"),
        ({"shape": (3, -4)}, ValueError, "shape"),
        ({"shape": (5, 3, 4)}, ValueError, "two dimensions"),
        ({"shape": (2, 2, 3, 4)}, ValueError, "two dimensions"),
        ({"shape": (3,)}, ValueError, "two dimensions"),
        ({"shape": ()}, ValueError, "two dimensions"),
        ({"shape": 12}, ValueError, "two dimensions"),
        ({"shape": None}, ValueError, "two dimensions"),
        ({"shape": (3.5, 4)}, ValueError, "two dimensions"),
        ({"shape": "34"}, ValueError, "two dimensions"),
        ({"dtype": "c8"}, TypeError, "complex64"),
        ({"dtype": object}, TypeError, "object"),
        ({"dtype": "U3"}, TypeError, "U3"),
        ({"dtype": "M8[s]"}, TypeError, "datetime64"),
        ({"dtype": "u2,u2"}, TypeError, "f0"),
        ({"dtype": "no such dtype"}, TypeError, "no such dtype"),
        ({"dtype": None}, TypeError, "None"),
    ],
)
def test_what_is_no_series_is_refused_before_a_read(claim, error, text):
    with pytest.raises(error, match=text):
        as_series(claiming(**claim))


@pytest.mark.skipif(np.dtype("g").itemsize <= 8, reason="longdouble is float64 here")
def test_long_doubles_are_refused():
    with pytest.raises(TypeError, match="64 bits"):
        as_series(claiming(dtype="g"))


@pytest.mark.parametrize("thing", [None, 3, 3.5, object(), {1: 2}, {1, 2}, len, iter([])])
def test_other_objects_are_refused(thing):
    with pytest.raises(TypeError, match=f"{type(thing).__name__} is not an image series"):
        as_series(thing)


def test_shape_may_be_that_of_all_frames():
    """As of arrays of other packages, which have no class here."""
    frames = make_frames("u2", 6)
    for shape in ((6, 5, 6), np.array([6, 5, 6]), [6, 5, 6]):
        check_series(as_series(FakeSeries(frames, shape=shape)), frames)
    with pytest.raises(ValueError, match="two dimensions"):
        as_series(FakeSeries(frames[:5], shape=(6, 5, 6)))
