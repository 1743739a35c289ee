"""Arrays in memory are views, whatever their order, and lists are checked frame by frame."""

import numpy as np
import pytest
from helpers import DTYPES, check_series, make_frames, read_dense

from daskstats.series.arrays import ArraySource, FrameListSource
from daskstats.series.opening import as_series


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [np.asarray, list, tuple])
def test_every_dtype(dtype, kind):
    frames = make_frames(dtype)
    before = frames.tobytes()
    check_series(as_series(kind(frames)), frames)
    assert frames.tobytes() == before


VIEWS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "every other frame": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other row": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "every other column": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    "frames backwards": lambda a: a[::-1].copy()[::-1],
    "rows backwards": lambda a: a[:, ::-1].copy()[:, ::-1],
    "columns backwards": lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
    "a window of a larger one": lambda a: np.pad(a, 1)[1:-1, 1:-1, 1:-1],
    "frames last": lambda a: np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1),
    "frames in the middle": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("dtype", ["u2", ">f4"])
@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 1, 6), (7, 5, 1), (1, 1, 1)])
def test_every_memory_order(view, dtype, shape):
    frames = make_frames(dtype, *shape)
    array = view(frames)
    assert np.array_equal(array, frames, equal_nan=True)
    check_series(as_series(array), frames)
    check_series(as_series(list(array)), frames)


@pytest.mark.parametrize("kind", [np.asarray, list])
def test_blocks_are_views(kind):
    frames = make_frames("u2")
    series = as_series(kind(frames))
    assert series.in_memory
    for reader in (series, series.part(0, 7, 0, 5)):
        for piece in reader.pieces(0, 7, 0, 5, 3):
            assert all(np.shares_memory(block, frames) for block in piece)


@pytest.mark.parametrize("dtype", [">u2", "u2"])
@pytest.mark.parametrize("kind", [np.asarray, list])
def test_what_must_be_converted_is_not_called_in_memory(dtype, kind):
    frames = make_frames(dtype)
    if dtype == "u2":
        frames = np.repeat(frames, 2, axis=2)[:, :, ::2]
    assert not as_series(kind(frames)).in_memory


def test_memory_map_is_not_copied(tmp_path):
    frames = make_frames("u2")
    frames.tofile(tmp_path / "frames.raw")
    array = np.memmap(tmp_path / "frames.raw", "u2", "r", shape=frames.shape)
    series = as_series(array)
    check_series(series, frames)
    (piece,) = series.pieces(1, 6, 1, 4, 10)
    assert all(np.shares_memory(block, array) for block in piece)


def test_part_holds_its_own_pixels_only():
    frames = make_frames("u2", 7, 5, 6)
    for series in (as_series(frames), as_series(list(frames))):
        part = series.part(2, 4, 1, 3)
        np.testing.assert_array_equal(read_dense(part, (0, 2, 0, 2, 1)), frames[2:4, 1:3])


def test_broadcast_array():
    frames = np.broadcast_to(make_frames("u2", 1), (9, 5, 6))
    check_series(as_series(frames), frames)


def test_array_subclass_reads_as_plain_array():
    class Tagged(np.ndarray):
        pass

    frames = make_frames("f4")
    check_series(as_series(frames.view(Tagged)), frames)
    check_series(as_series([frame.view(Tagged) for frame in frames]), frames)


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.zeros((4, 5)), ValueError, r"three-dimensional.*\(4, 5\)"),
        (np.zeros((2, 3, 4, 3)), ValueError, r"\(2, 3, 4, 3\).*one of colours"),
        (np.zeros((9, 3, 4, 3))[::2], ValueError, r"\(5, 3, 4, 3\).*one of colours"),
        (np.array(3), ValueError, "three-dimensional"),
        (np.zeros((0, 4, 5)), ValueError, "no frames"),
        (np.zeros((3, 0, 5)), ValueError, "empty"),
        (np.zeros((3, 4, 0)), ValueError, "empty"),
        (np.zeros((3, 4, 5), complex), TypeError, "complex128"),
        (np.zeros((3, 4, 5), object), TypeError, "object"),
        (np.zeros((3, 4, 5), "S3"), TypeError, "S3"),
        (np.ma.zeros((3, 4, 5)), TypeError, "masked"),
        ([], ValueError, "no frames"),
        ((), ValueError, "no frames"),
        ([np.zeros(3)], ValueError, r"\(3,\)"),
        ([np.zeros((2, 3, 4))], ValueError, r"\(2, 3, 4\)"),
        ([np.zeros((0, 3))], ValueError, "empty"),
        ([np.zeros((2, 3), complex)], TypeError, "complex128"),
        ([np.ma.zeros((2, 3))], TypeError, "frame 0 is a MaskedArray"),
        ([[[1, 2], [3, 4]]], TypeError, "frame 0 is a list"),
        (["a.tif", "b.tif"], FileNotFoundError, "there is no file a.tif"),
    ],
)
def test_what_is_no_series_is_refused(array, error, text):
    with pytest.raises(error, match=text):
        as_series(array)


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        (np.zeros((1, 6), "u2"), "(1, 6)"),
        (np.zeros((5, 5), "u2"), "(5, 5)"),
        (np.zeros((1, 5, 6), "u2"), "(1, 5, 6)"),
        (np.zeros((5, 6), "i2"), "int16"),
        (np.zeros((5, 6), object), "object"),
        (np.ma.zeros((5, 6), "u2"), "MaskedArray"),
        ([[0] * 6] * 5, "list"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("index", [1, 3, 6])
def test_wrong_frame_of_a_list_is_named(frame, got, index):
    frames: list = list(make_frames("u2"))
    frames[index] = frame
    with pytest.raises(ValueError) as caught:
        as_series(frames)
    assert f"frame {index} " in str(caught.value)
    assert got in str(caught.value)


def test_list_may_mix_byte_orders_and_is_copied_shallowly():
    frames = list(make_frames("u2"))
    frames[2] = frames[2].astype(">u2")
    series = as_series(frames)
    dense = np.stack(frames)
    assert not series.in_memory
    frames[3] = None
    del frames[4]
    check_series(series, dense)


def test_kinds():
    assert type(as_series(np.zeros((1, 1, 1)))) is ArraySource
    assert type(as_series([np.zeros((1, 1))])) is FrameListSource
    assert as_series(series := as_series(np.zeros((1, 1, 1)))) is series


# ---------------------------------------------------------------------- leading axes


SCAN = make_frames("u2", 24, 5, 6)


@pytest.mark.parametrize(
    ("scan", "kind"),
    [
        (SCAN.reshape(4, 6, 5, 6), ArraySource),
        (SCAN.reshape(24, 1, 5, 6), ArraySource),
        (SCAN.reshape(2, 3, 4, 5, 6), ArraySource),
        (SCAN.reshape(4, 6, 5, 6)[1:3], ArraySource),
        (SCAN.reshape(4, 6, 5, 6)[:, ::6], ArraySource),
        (SCAN.reshape(4, 6, 5, 6)[..., ::-1, 1:], ArraySource),
        (SCAN.reshape(4, 6, 5, 6)[::-1, ::-1], ArraySource),
        (SCAN.reshape(4, 6, 5, 6).astype(">u2"), ArraySource),
        (SCAN.reshape(4, 6, 5, 6)[:, :4], FrameListSource),
        (SCAN.reshape(4, 6, 5, 6)[::-1], FrameListSource),
        (SCAN.reshape(2, 3, 4, 5, 6).transpose(2, 0, 1, 3, 4), FrameListSource),
        (np.asfortranarray(SCAN.reshape(4, 6, 5, 6)), FrameListSource),
    ],
)
def test_leading_axes_count_as_frames_without_a_copy(scan, kind):
    series = as_series(scan)
    assert type(series) is kind
    check_series(series, scan.reshape(-1, *scan.shape[-2:]))
    blocks = series.read(0, len(series), 0, 5)
    assert all(np.may_share_memory(block, scan) for block in blocks)


def test_leading_axes_of_a_memory_map(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, SCAN.reshape(4, 6, 5, 6))
    mapped = np.load(path, mmap_mode="r")
    check_series(as_series(mapped), SCAN)
    check_series(as_series(path), SCAN)
    np.save(path, np.asfortranarray(SCAN.reshape(4, 6, 5, 6)))
    with pytest.raises(ValueError, match="not in C order"):
        as_series(path)
