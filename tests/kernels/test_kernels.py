"""The compiled loops against naive oracles, over distributions that take every branch."""

from fractions import Fraction

import numpy as np
import pytest
from cuts import is_usual
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from daskstats import kernels

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def frames_of(rng, kind, shape, dtype):
    """Return frames of one of the distributions that detectors and testers make."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < {"constant": 1, "rare": 0.02}.get(kind, 0.5)
    if dtype.kind == "f":
        low, high = -1000, 1000
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    top = min(high, 2**20)
    frames = {
        "constant": lambda: np.full(shape, top // 3),
        "poisson": lambda: rng.poisson(min(100, top // 2), shape),
        "whole range": lambda: rng.uniform(low / 2, high / 2, shape),
        "wide": lambda: rng.integers(0, top, shape),
        "rare": lambda: np.where(rng.random(shape) < 0.02, top, 0),
        "two ends": lambda: np.where(rng.random(shape) < 0.5, float(low) / 2, float(high) / 2),
        "spots": lambda: rng.poisson(20, shape) * np.where(rng.random(shape) < 0.05, 50, 1),
        "drift": lambda: np.linspace(0, top, shape[0])[:, None, None] + np.zeros(shape),
        "few hot pixels": lambda: rng.integers(0, top, shape) * (rng.random(shape[1:]) < 0.02),
    }[kind]()
    return np.clip(frames, low, min(high, 2**62)).astype(dtype)


KINDS = [
    *("constant", "poisson", "whole range", "wide", "rare", "two ends", "spots", "drift"),
    "few hot pixels",
]


def pieces(frames, cuts):
    return [part for part in np.split(frames, sorted(cuts)) if len(part)]


def check_case(data, dtype, every=False):
    """Compare all kernels, or those of the cut, with numpy for one drawn series."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    nframes = data.draw(st.one_of(st.integers(1, 20), st.sampled_from([100, 253, 600])))
    shape = (nframes, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 90)))
    frames = frames_of(rng, data.draw(st.sampled_from(KINDS), label="kind"), shape, dtype)
    if np.dtype(dtype).kind == "f":
        special = data.draw(st.sampled_from([None, np.nan, np.inf, -np.inf, -0.0]))
        if special is not None:
            frames[rng.random(shape) < 0.01] = special
    piece = pieces(frames, data.draw(st.lists(st.integers(0, nframes), max_size=3)))
    ranks = data.draw(st.sets(st.integers(0, nframes - 1), min_size=1, max_size=5))
    check_order_statistics(piece, frames, sorted(ranks))
    check_order_statistics(piece, frames, sorted({(nframes - 1) // 2, nframes // 2}))
    if every or dtype in SQUARED:
        check_squares_along(piece, frames, sorted(ranks))
    check_folds(piece, frames, every)
    if dtype != "f2":
        check_trail(piece, frames, sorted({ranks.pop() + 1, nframes}), every)


def check_order_statistics(piece, frames, ranks):
    expected = np.sort(frames, axis=0)[ranks]
    if frames.dtype.kind == "f":
        expected[:, np.isnan(frames).any(axis=0)] = np.nan
    order = kernels.OrderStatistics(piece, ranks)
    order.run(0, frames[0].size)
    found = order.values()
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == frames.dtype


def check_squares_along(piece, frames, ranks):
    """Squares are summed while order statistics are found, and neither is any different."""
    if frames.dtype.kind not in "biu" or frames.dtype.itemsize > 2:
        return
    shape, wide = frames.shape[1:], "i8" if frames.dtype.kind == "i" else "u8"
    sums, squares = np.full(shape, 7, wide), np.full(shape, 7, "u8")
    top = kernels.begin_extreme(shape, frames.dtype, False)
    adder = kernels.Squares(piece, sums, squares, None, top, fresh=True)
    order = kernels.OrderStatistics(piece, ranks)
    assert kernels.sharing([adder, order]) == [order]
    half = top.size // 2
    order.run(0, half)
    order.run(half, top.size)
    np.testing.assert_array_equal(order.values(), np.sort(frames, axis=0)[ranks])
    values = frames.astype("i8")
    np.testing.assert_array_equal(sums, values.sum(axis=0))
    np.testing.assert_array_equal(squares, (values**2).sum(axis=0))
    np.testing.assert_array_equal(top, frames.max(axis=0))


def extreme(piece, least, into=None, trail=()):
    block = piece[0]
    into = kernels.begin_extreme(block.shape[1:], block.dtype, least) if into is None else into
    kernels.Extremes(piece, into, least, None, trail).run(0, into.size)
    return into


def extremes_of(dtype, every):
    """Return whether each extreme is the least, and numpy's function; in the cut, some of both."""
    found = ((False, "max", np.max), (True, "min", np.min))
    return [
        (least, reduce) for least, name, reduce in found if every or is_usual(name, dtype, False)
    ]


def check_trail(piece, frames, ends, every=False):
    """Extremes of the first few frames are written while all are folded."""
    for least, reduce in extremes_of(frames.dtype, every):
        images = [np.zeros((2, *frames.shape[1:]), frames.dtype) for _ in ends]
        trail = [(end, image[0]) for end, image in zip(ends, images, strict=True)]
        whole = extreme(piece, least, None, trail)
        np.testing.assert_array_equal(whole, reduce(frames, axis=0))
        for end, image in zip(ends, images, strict=True):
            np.testing.assert_array_equal(image[0], reduce(frames[:end], axis=0))
            assert not image[1].any(), "beyond the image"


def check_folds(piece, frames, every=False):
    for least, reduce in extremes_of(frames.dtype, every):
        into = frames[0].copy() if least else None
        np.testing.assert_array_equal(extreme(piece, least, into), reduce(frames, axis=0))
    if frames.dtype.kind in "biu" and frames.dtype.itemsize <= 4:
        into = np.ones(frames.shape[1:], "i8" if frames.dtype.kind == "i" else "u8")
        kernels.Integers(piece, into).run(0, into.size)
        np.testing.assert_array_equal(
            into, frames.sum(axis=0, dtype=into.dtype) + into.dtype.type(1)
        )


# Code that sums squares along with a search is compiled for each width and sign of small integers,
# for 14 seconds; every run takes another sign with the other width.
SQUARED = "u2", "i1"


# A test for each dtype, because a test may take 300 seconds, and compiling on a busy machine does.
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_numpy(dtype):
    @seed(DTYPES.index(dtype))
    @settings(max_examples=16, deadline=None, derandomize=True)
    @given(data=st.data())
    def check(data):
        check_case(data, dtype)

    check()


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@settings(max_examples=2000, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_against_numpy_at_length(data, dtype):
    check_case(data, dtype, every=True)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_many_pixels(kind, dtype):
    """More than one tile, with a last one that is not full."""
    rng = np.random.default_rng(3)
    frames = frames_of(rng, kind, (41, 7, 701), dtype)
    check_order_statistics([frames], frames, [0, 1, 2, 20, 21, 40])
    if dtype in SQUARED:
        check_squares_along([frames], frames, [20, 40])
    check_folds([frames], frames)
    check_trail([frames], frames, [1, 3, 20, 41])


def test_a_trail_of_many_tiles():
    frames = np.random.default_rng(6).integers(0, 9999, (9, 300, 301)).astype("i4")
    check_trail([frames], frames, [2, 8])


@pytest.mark.parametrize("nframes", [1, 2, 7, 8, 9, 251, 252, 253, 255, 256, 257, 1000, 100_000])
def test_any_number_of_frames(nframes):
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 500, (nframes, 1, 3)).astype("u2")
    check_order_statistics([frames], frames, sorted({0, nframes // 2, nframes - 1}))
    if nframes <= kernels.FRAMES_IN_32_BITS:
        check_squares_along([frames], frames, [nframes // 2])
    check_folds([frames], frames)


def test_more_frames_than_32_bits_hold():
    frames = np.broadcast_to(np.array([[65535, 1]], "u2"), (70_000, 1, 2))
    into = np.zeros((1, 2), "u8")
    kernels.Integers([frames], into).run(0, into.size)
    assert into.tolist() == [[65535 * 70_000, 70_000]]
    squares = np.zeros((1, 2), "u8")
    kernels.Squares([frames], into, squares).run(0, into.size)
    assert squares.tolist() == [[65535**2 * 70_000, 70_000]]


def test_loops_that_cannot_share_are_left_apart():
    """Squares that leave values out or go on with sums, and those of too many frames."""
    frames = np.random.default_rng(7).integers(0, 50, (9, 2, 30)).astype("u2")
    many = np.broadcast_to(frames[:1, :1, :2], (70_000, 1, 2))
    keys = kernels.Keys(frames.dtype)
    valid = kernels.Valid(keys.equal_to(3), keys, np.zeros(60, "u4"))
    for piece, left_out, fresh in (
        (frames, valid, True),
        (frames, None, False),
        (many, None, True),
    ):
        sums, squares = (np.zeros(piece.shape[1:], "u8") for _ in range(2))
        adder = kernels.Squares([piece], sums, squares, left_out, fresh=fresh)
        order = kernels.OrderStatistics([piece], [4])
        assert kernels.sharing([adder, order]) == [adder, order]
    both = [kernels.OrderStatistics([frames], [rank]) for rank in (1, 4)]
    adder = kernels.Squares([frames], *(np.zeros((2, 30), "u8") for _ in range(2)), fresh=True)
    assert kernels.sharing([*both, adder]) == both


@pytest.mark.parametrize("dtype", ["i1", "i2", "u1", "u2"])
def test_squares_of_extremes_are_exact(dtype):
    values = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    frames = np.array(values * 3 + values[:1], dtype)[:, None, None]
    into = np.zeros((1, 1), "i8" if dtype[0] == "i" else "u8")
    squares = np.zeros((1, 1), "u8")
    kernels.Squares([frames], into, squares).run(0, into.size)
    assert into.item() == sum(int(value) for value in frames.ravel())
    assert squares.item() == sum(int(value) ** 2 for value in frames.ravel())


def test_bands_of_frames_need_not_be_joined():
    """Views of rows, at any distance from each other, in any number of arrays."""
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 1000, (30, 12, 40)).astype("u2")
    blocks = [frames[:7], frames[7:8], frames[8::1]]
    band = [block[:, 3:8] for block in blocks]
    check_order_statistics(band, frames[:, 3:8], [14, 15])
    check_folds(band, frames[:, 3:8])
    every_second = [frames[::2, 3:8]]
    check_order_statistics(every_second, frames[::2, 3:8], [7])


def test_frames_may_be_read_only():
    frames = np.arange(24, dtype="u2").reshape(4, 2, 3)
    frames.flags.writeable = False
    check_order_statistics([frames], frames, [1, 2])
    check_folds([frames], frames)


def limbs_of(number, count):
    return [(number >> 64 * k) & (2**64 - 1) for k in range(count)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_variances_of_any_sums_are_fractions_rounded_once(data):
    """Of more frames and larger values than any test can fold: 2^31 frames of 64 bits."""
    wide = data.draw(st.booleans())
    n = data.draw(st.integers(2, 2**31 - 1))
    most = 2 ** data.draw(st.integers(1, 64 if wide else 32)) - 1
    total = data.draw(st.integers(-n * most // 2, n * most))
    least = -(-total * total // n)
    squares = least + data.draw(st.integers(0, max(0, n * most * most - least)))
    if data.draw(st.booleans()):
        squares = least + data.draw(st.integers(0, 2**20))
    parts = limbs_of(total, 2 if wide else 1) + limbs_of(squares, 3 if wide else 2)
    limbs = np.array(parts, "u8").reshape(-1, 1, 1)
    ddof = data.draw(st.sampled_from([0, 0, 1, n - 1]))
    out = np.empty((1, 1))
    kernels.limb_variance(limbs, n, float(ddof), False, out)
    assert out[0, 0] == float(Fraction(n * squares - total**2, n * (n - ddof)))


def test_limbs_are_combined_with_their_carries(rng):
    """Sums of two's complement and of squares: highest and lowest limbs are neighbours."""
    for heads, count in ((1, 3), (2, 5)):
        a, b = rng.integers(0, 2**64, (2, count, 3, 500), "u8")
        a[:, 0] = 2**64 - 1
        b[:, 0, ::2] = 2**64 - 1
        b[:, 0, 1::2] = 0
        both = kernels.combine_limbs(a, b)
        for first, last in ((0, heads), (heads, count)):
            one, two, found = (
                sum(limbs[k].astype(object) << 64 * (k - first) for k in range(first, last))
                for limbs in (a, b, both)
            )
            assert (found == (one + two) % (1 << 64 * (last - first))).all()
