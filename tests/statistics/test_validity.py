"""What is left out, against naive oracles: every statistic of the valid values of each pixel."""

import pickle
import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from cuts import cut, is_usual, pairs
from dask.base import tokenize
from helpers import check_statistic, reduce_cut
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    PIXEL,
    each_valid_pixel,
    exact_variance,
    left_out,
    pixel_percentile,
    random_frames,
    total,
)

from daskstats import kernels
from daskstats.statistics import (
    STATISTICS,
    Statistic,
    Validity,
    as_statistic,
    check_validity,
    clipped_average,
    count_above,
    moments,
    percentile,
)

DTYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
NAMES = ["max", "min", "sum", "average", "std", "var", "median", "range"]


def some_validity(dtype, rng=None):
    """Return values to leave out: in one arc of keys, in several, and none that can be held."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return [Validity((1,)), Validity((0, 1)), Validity(saturation=1), Validity((7,))]
    if dtype.kind == "f":
        return [
            Validity(skipna=True),
            Validity((1.5,)),
            Validity((0.0, 1.5), 100.0, True),
            Validity((1.5, float("inf")), None, False),
            Validity((-float("inf"), 1.5), -5.0, True),
            Validity((10**400, 1e300), float("inf"), True),
            Validity((-3.0, -1.0, 0.0, 1.5, 2.5), 100.0, True),
        ]
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return [
        Validity((high,)),
        Validity((7, low)),
        Validity((low, high, 3.5)),
        Validity((7,), high - 1),
        Validity((3, 7, 11, 15), high - 1),
        Validity((2**70, -(2**70), float("inf"))),
        Validity(saturation=low + 0.5 if dtype.itemsize < 8 else low + 1),
        Validity((), -(2**80)),
    ]


def frames_with_gaps(rng, shape, dtype):
    """Return frames with everything that could be left out, and some pixels of nothing else."""
    frames = random_frames(rng, shape, dtype)
    if frames.dtype.kind == "f":
        frames[rng.random(shape) < 0.1] = np.inf
        frames[rng.random(shape) < 0.05] = -np.inf
        frames[rng.random(shape) < 0.1] = -0.0
        frames[rng.random(shape) < 0.2] = np.nan
        frames[:, 0, 0] = np.nan
    else:
        frames[:, 0, 0] = 1 if frames.dtype.kind == "b" else 7
    frames[: len(frames) // 2, 0, -1] = frames[0, 0, 0]
    frames[1:, -1, 0] = frames[0, 0, 0]
    return frames


def numbers(validity):
    return validity.invalid, validity.saturation, validity.skipna


def expected(name, frames, validity, dtype):
    out = left_out(frames, *numbers(validity))
    function = PIXEL[name]
    if name == "median" and frames.dtype.kind in "iu" and frames.dtype.itemsize == 8:
        return each_valid_pixel(frames, out, lambda v: pixel_percentile(v, 50, True), dtype)
    if np.dtype(dtype).kind != "f":
        return each_valid_pixel(frames, out, function, dtype, fill=0)
    return each_valid_pixel(frames, out, function, dtype)


@pytest.mark.parametrize(("name", "dtype"), cut(NAMES, DTYPES))
def test_agrees_with_the_oracle(name, dtype, rng):
    """The values that count, and no others, in every way of leaving some out."""
    frames = frames_with_gaps(rng, (9, 3, 5), dtype)
    for validity in some_validity(dtype):
        natural = as_statistic(name).image_dtype(frames.dtype)
        fill = None if natural.kind == "f" else 0
        image = reduce_cut(as_statistic(name).excluding(validity, fill), frames, [2, 3])
        wanted = expected(name, frames, validity, natural)
        if name in ("std", "var") or (name in ("sum", "average") and np.dtype(dtype).kind == "f"):
            np.testing.assert_allclose(image, wanted, rtol=1e-6)
        else:
            np.testing.assert_array_equal(image, wanted, err_msg=f"{validity}")
        assert image.dtype == natural


@pytest.mark.parametrize(
    ("name", "dtype"),
    cut(["count", "max", "average", "median", "var"], ["u1", "u2", "i2", "u4", "f4", "f8", "i8"]),
)
def test_many_frames(name, dtype, rng):
    """More than counters of 8 bits hold; in blocks of which some pixels have no valid value."""
    for nframes in (1, 2, 251, 300, 520):
        frames = frames_with_gaps(rng, (nframes, 2, 3), dtype)
        validity = some_validity(dtype)[2]
        out = left_out(frames, *numbers(validity))
        statistic = moments("var", 1) if name == "var" else as_statistic(name)
        natural = "i8" if name == "count" else "f8"
        image = reduce_cut(statistic.excluding(validity), frames, [100, 280], natural)
        if name == "count":
            np.testing.assert_array_equal(image, (~out).sum(axis=0))
        elif name == "var":
            wanted = each_valid_pixel(frames, out, lambda values: exact_variance(values, 1), "f8")
            np.testing.assert_allclose(image, wanted, rtol=1e-12)
        else:
            np.testing.assert_array_equal(image, expected(name, frames, validity, "f8"))


@pytest.mark.parametrize(("name", "dtype"), cut(["max", "count", "percentile"], DTYPES))
def test_tiles_of_many_pixels(name, dtype, rng):
    """Several tiles of folds and of order statistics, the last ones not full."""
    frames = frames_with_gaps(rng, (13, 3, 16411), dtype)
    validity = some_validity(dtype)[2]
    values = np.ma.array(frames, mask=left_out(frames, *numbers(validity)))
    if name == "max" and values.dtype.kind in "biu":
        image = reduce_cut(as_statistic("max").excluding(validity, 0), frames, [5])
        np.testing.assert_array_equal(image, values.max(axis=0).filled(0))
    elif name == "count":
        image = reduce_cut(as_statistic("count").excluding(validity), frames, [5])
        np.testing.assert_array_equal(image, values.count(axis=0))
    elif name == "percentile" and np.dtype(dtype).itemsize < 8:
        image = reduce_cut(percentile(30).excluding(validity), frames, [2], "f8")
        count = values.count(axis=0)
        # Values that are left out come last; `nanpercentile` would take each pixel alone.
        copy = np.sort(np.where(values.mask, np.nan, frames.astype("f8")), axis=0)
        finite = np.isfinite(copy).sum(axis=0) == count
        for valid in np.unique(count[count > 0]):
            pixels = finite & (count == valid)
            wanted = np.percentile(copy[:valid, pixels], 30, axis=0)
            np.testing.assert_array_equal(image[pixels], wanted)
        assert np.isnan(image[count == 0]).all()


@pytest.mark.parametrize(
    ("name", "dtype"), cut(["percentile"], ["u1", "u2", "i4", "f2", "f4", "f8"])
)
@pytest.mark.parametrize("kind", ["poisson", "rare", "wide", "drift"])
def test_percentiles_are_those_of_numpy(kind, name, dtype, rng):
    """Bitwise, for any number of valid values, on distributions that take every branch."""
    shape = 41, 3, 500
    top = 60000 if np.dtype(dtype).itemsize > 1 else 250
    frames = {
        "poisson": lambda: rng.poisson(100, shape),
        "rare": lambda: np.where(rng.random(shape) < 0.05, top, 0),
        "wide": lambda: rng.integers(0, top, shape),
        "drift": lambda: np.linspace(0, top, 41)[:, None, None] + np.zeros(shape),
    }[kind]().astype(dtype)
    frames[rng.random(shape) < np.linspace(0, 1, 500)] = 1
    copy = np.where(frames == 1, np.nan, frames.astype("f8"))
    statistic = percentile([0, 12.5, 50, 99.9, 100]).excluding(Validity((1,)))
    image = reduce_cut(statistic, frames, [1], "f8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        wanted = np.nanpercentile(copy, [0, 12.5, 50, 99.9, 100], axis=0)
    np.testing.assert_array_equal(image, wanted)


SOME = [*NAMES, "count", "argmax", "argmin"]
ANY_CUT = SOME, ["bool", "u1", "u2", "i4", "u8", "f2", "f4", "f8"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_cut_gives_the_same_image(data):
    check_any_cut(data, *data.draw(st.sampled_from(pairs(*ANY_CUT))))


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), name=st.sampled_from(ANY_CUT[0]), dtype=st.sampled_from(ANY_CUT[1]))
def test_any_cut_of_any_dtype_gives_the_same_image(data, name, dtype):
    check_any_cut(data, name, dtype)


def check_any_cut(data, name, dtype):
    """Combined, or folded on in place: the same image, and no state of another's is changed."""
    shape = data.draw(st.tuples(*(st.integers(1, most) for most in (12, 4, 4))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    frames = frames_with_gaps(rng, shape, dtype)
    validity = data.draw(st.sampled_from([Validity(), *some_validity(dtype)]))
    statistic = as_statistic(name).excluding(validity, 1)
    cuts = data.draw(st.lists(st.integers(0, 11), max_size=4))
    whole = reduce_cut(statistic, frames, [])
    np.testing.assert_array_equal(reduce_cut(statistic, frames, cuts), whole)
    if statistic.along == "frames":
        edges = sorted({0, len(frames), *(cut % len(frames) for cut in cuts)})
        state = None
        for start, stop in pairwise(edges):
            state = statistic.advance([[frames[start:stop]]], start, state)
        image_dtype = statistic.image_dtype(frames.dtype)
        np.testing.assert_array_equal(statistic.image(state, shape[1:], image_dtype), whole)


@pytest.mark.parametrize(
    ("name", "dtype"),
    cut([*SOME, ("percentile", [5, 50]), "clipped_average"], ["u2", "u8", "f4"]),
)
def test_conforms(name, dtype, rng):
    frames = frames_with_gaps(rng, (6, 4, 3), dtype)
    check_statistic(as_statistic(name), random_frames(rng, (6, 4, 3), dtype))
    for validity in some_validity(dtype):
        check_statistic(as_statistic(name).excluding(validity, 2), frames)


@pytest.mark.parametrize(("name", "dtype"), cut(["argmax", "argmin"], DTYPES))
def test_where_extremes_are(name, dtype, rng):
    """The first of several, the first NaN, as numpy; -1 stands for pixels without a value."""
    for nframes in (1, 6, 300):
        frames = frames_with_gaps(rng, (nframes, 3, 4), dtype)
        if frames.dtype.kind == "f":
            frames[:, 1:] = np.where(np.isnan(frames[:, 1:]), -0.0, frames[:, 1:])
        image = reduce_cut(as_statistic(name), frames, [2, 270])
        np.testing.assert_array_equal(image, getattr(np, name)(frames, axis=0))
        assert image.dtype == "i8"
        for validity in some_validity(dtype):
            out = left_out(frames, *numbers(validity))
            image = reduce_cut(as_statistic(name).excluding(validity, -1), frames, [2, 270])
            for row, col in np.ndindex(image.shape):
                where = np.flatnonzero(~out[:, row, col])
                first = where[getattr(np, name)(frames[where, row, col])] if where.size else -1
                assert image[row, col] == first, (validity, row, col)


@pytest.mark.parametrize(("name", "dtype"), cut(["count_above"], DTYPES))
def test_counts_above_a_threshold(name, dtype, rng):
    frames = frames_with_gaps(rng, (9, 3, 4), dtype)
    exact = frames if frames.dtype.kind == "f" else frames.astype(object)
    for threshold in (0, 1, 6.5, 7, -3, 2**64, -(2**80), 1e300, np.inf, -np.inf):
        with np.errstate(over="ignore", invalid="ignore"):
            above = (exact > threshold).astype(bool)
        np.testing.assert_array_equal(
            reduce_cut(count_above(threshold), frames, [2]), above.sum(axis=0)
        )
        for validity in some_validity(dtype):
            out = left_out(frames, *numbers(validity))
            image = reduce_cut(count_above(threshold).excluding(validity), frames, [2])
            np.testing.assert_array_equal(image, (above & ~out).sum(axis=0))


def test_a_count_needs_no_fill_value():
    frames = np.full((3, 1, 2), 5, "u2")
    assert reduce_cut(as_statistic("count"), frames, [1]).tolist() == [[3, 3]]
    nothing = as_statistic("count").excluding(Validity((5,)))
    assert reduce_cut(nothing, frames, [1]).tolist() == [[0, 0]]


def test_the_range_does_not_overflow():
    frames = np.array([[[-128, 127]], [[127, -128]]], "i1")
    assert reduce_cut(as_statistic("range"), frames, [1]).tolist() == [[255, 255]]
    frames = np.array([[[-(2**63)]], [[2**63 - 1]]], "i8")
    assert reduce_cut(as_statistic("range"), frames, [1]).tolist() == [[2.0**64]]
    assert reduce_cut(as_statistic("range"), frames, [1]).dtype == "f8"


@pytest.mark.parametrize(("sigma", "maxiters"), [(3, 5), (1, None), (2, 1), (0.5, 3), (1.5, 2)])
@pytest.mark.parametrize(
    ("name", "dtype"), cut(["clipped_average"], ["u1", "u2", "i4", "u8", "f2", "f4", "f8"])
)
def test_clipping_is_that_of_astropy(name, dtype, sigma, maxiters, rng):
    stats = pytest.importorskip("astropy.stats")
    for nframes in (1, 2, 37, 300):
        shape = nframes, 3, 40
        frames = rng.poisson(20, shape).astype(dtype)
        outlying = rng.random(shape) < 0.1
        frames[outlying] = random_frames(rng, shape, dtype)[outlying]
        if frames.dtype.kind == "f":
            frames[rng.random(shape) < 0.1] = np.nan
            frames[:, 0, 0] = np.inf
        image = reduce_cut(clipped_average(sigma, maxiters), frames, [1], "f8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted, _, _ = stats.sigma_clipped_stats(
                frames.astype("f8"), sigma=sigma, maxiters=maxiters, axis=0
            )
        wanted = np.ma.filled(np.ma.asarray(wanted), np.nan)
        largest = np.abs(np.where(np.isfinite(frames), frames, 0).astype("f8")).max()
        np.testing.assert_allclose(image, wanted, rtol=1e-13, atol=1e-14 * largest)


def test_clipping_leaves_out_what_is_invalid(rng):
    frames = rng.poisson(20, (50, 2, 300)).astype("u2")
    frames[rng.random(frames.shape) < 0.3] = 65535
    frames[:, 0, 0] = 65535
    floats = np.where(frames == 65535, np.nan, frames.astype("f4"))
    valid = clipped_average().excluding(Validity((65535,)))
    image = reduce_cut(valid, frames, [1], "f8")
    np.testing.assert_array_equal(image, reduce_cut(clipped_average(), floats, [], "f8"))
    assert np.isnan(image[0, 0])
    filled = clipped_average().excluding(Validity((65535,)), -7)
    assert reduce_cut(filled, frames, [])[0, 0] == -7


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ((0,), ValueError),
        ((np.nan,), ValueError),
        ((np.inf,), ValueError),
        (("3",), TypeError),
        ((True,), TypeError),
        ((3, 0), ValueError),
        ((3, 2.5), TypeError),
        ((3, True), TypeError),
    ],
)
def test_bad_clipping(parameters, error):
    with pytest.raises(error, match="sigma|maxiters"):
        clipped_average(*parameters)


@pytest.mark.parametrize("threshold", [True, "1", None, [1], np.nan])
def test_bad_thresholds(threshold):
    with pytest.raises((TypeError, ValueError), match="threshold"):
        count_above(threshold)


@pytest.mark.parametrize(
    ("statistic", "name"),
    [
        ("clipped_average", "clipped_average"),
        (("clipped_average",), "clipped_average"),
        (("clipped_average", 3, 5), "clipped_average"),
        (("clipped_average", 3, None), "clipped_average"),
        (("count_above", 1000), "count_above"),
        (("percentile", 5), "percentile"),
        (("argmax",), "argmax"),
    ],
)
def test_parameters_of_statistics(statistic, name):
    assert as_statistic(statistic).name == name


@pytest.mark.parametrize(
    "statistic",
    ["count_above", ("count_above", 1, 2), ("clipped_average", 1, 2, 3), ("count", 1), ()],
)
def test_wrong_numbers_of_parameters(statistic):
    with pytest.raises((TypeError, ValueError), match="parameter|no statistic"):
        as_statistic(statistic)


def test_every_statistic_can_leave_out():
    for name, row in STATISTICS.items():
        statistic = row if isinstance(row, Statistic) else row(50)
        valid = statistic.excluding(Validity((1,)), 0)
        assert valid.name == name
        assert valid.in_place == statistic.in_place
        assert valid.planes == statistic.planes
        assert statistic.excluding(Validity()) is statistic
        assert pickle.loads(pickle.dumps(valid)).name == name
        assert tokenize(valid) == tokenize(statistic.excluding(Validity((1,)), 0))
        assert tokenize(valid) != tokenize(statistic)


def test_a_users_statistic_says_what_it_lacks():
    mine = Statistic("mine", dict, dict, dict)
    with pytest.raises(TypeError, match="mine cannot leave out values"):
        mine.excluding(Validity((1,)))
    other = Statistic("other", dict, dict, dict, leave_out=lambda validity, fill: mine)
    assert other.excluding(Validity((1,))) is mine


# ---------------------------------------------------------------------- fill values


def test_where_nothing_is_valid():
    """NaN for floats; the fill value; an error for integers that lack one."""
    frames = np.array([[[1, 9, 9]], [[2, 9, 9]]], "u2")
    validity = Validity((9,))
    for name in ("average", "median", "std", "sum", "range", "clipped_average"):
        image = reduce_cut(as_statistic(name).excluding(validity), frames, [])
        assert np.isnan(image).tolist() == [[False, True, True]], name
        image = reduce_cut(as_statistic(name).excluding(validity, -3), frames, [])
        assert image[0, 1:].tolist() == [-3, -3], name
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(ValueError, match="2 pixels have no valid value.*fill_value"):
            reduce_cut(as_statistic(name).excluding(validity), frames, [])
        image = reduce_cut(as_statistic(name).excluding(validity, 3), frames, [])
        assert image[0, 1:].tolist() == [3, 3], name
    image = reduce_cut(as_statistic("max").excluding(validity), frames, [], "f4")
    assert np.isnan(image).tolist() == [[False, True, True]]


def test_an_image_may_be_rows_of_another():
    frames = np.array([[[1, 9]], [[2, 9]]], "u2")
    statistic = as_statistic("max").excluding(Validity((9,)), 5)
    canvas = np.zeros((3, 2), "u2")
    statistic.write(statistic.chunk([[frames]], 0), canvas[1:2])
    assert canvas.tolist() == [[0, 0], [2, 5], [0, 0]]


def test_too_few_valid_frames_for_ddof_are_nan():
    frames = np.array([[[1, 9, 9]], [[2, 3, 9]]], "u2")
    image = reduce_cut(moments("std", 1).excluding(Validity((9,)), -1), frames, [1])
    np.testing.assert_array_equal(image, np.array([[np.sqrt(0.5), np.nan, -1]], "f4"))
    image = reduce_cut(moments("std", 1).excluding(Validity((9,)), -1), frames.astype("f4"), [1])
    np.testing.assert_array_equal(image, np.array([[np.sqrt(0.5), np.nan, -1]], "f4"))


@pytest.mark.parametrize(
    ("name", "frames", "dtype", "fill"),
    [
        ("max", "u2", None, -1),
        ("max", "u2", None, 65536),
        ("max", "u2", None, 0.5),
        ("max", "u2", None, np.nan),
        ("max", "bool", None, 2),
        ("average", "u2", None, 1e300),
        ("average", "u2", "f8", 10**400),
        ("argmax", "u2", "i4", 2**31),
    ],
)
def test_fill_values_that_the_image_cannot_hold(name, frames, dtype, fill):
    statistic = as_statistic(name).excluding(Validity((1,)), fill)
    with pytest.raises(ValueError, match="fill_value"):
        statistic.image_dtype(np.dtype(frames), dtype)


@pytest.mark.parametrize("validity", [Validity(), Validity((7.0,))])
def test_a_clipped_average_of_nothing_is_filled(validity):
    """NaN and the infinities never count in it, also where nothing else is left out."""
    frames = np.array([[np.nan, 1, np.inf], [np.inf, 2, -np.inf]], "f4")[:, None]
    statistic = clipped_average().excluding(validity, -1)
    assert reduce_cut(statistic, frames, []).tolist() == [[-1, 1.5, -1]]
    assert np.isnan(reduce_cut(clipped_average(), frames, [])[0, 0])


@pytest.mark.parametrize("fill", ["0", [0], 1j])
def test_bad_fill_values(fill):
    with pytest.raises(TypeError, match="fill_value"):
        as_statistic("max").excluding(Validity((1,)), fill)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8", "f8"])
def test_dtypes_of_numbers_of_frames(dtype):
    for name in ("count", "argmax", "argmin"):
        assert as_statistic(name).image_dtype(np.dtype("u2"), dtype) == dtype
    for narrow in ("i2", "u1", "bool", "f4", "c16", "U3"):
        with pytest.raises(TypeError, match="dtype of count"):
            as_statistic("count").image_dtype(np.dtype("u2"), narrow)


# ---------------------------------------------------------------------- what a user says


@pytest.mark.parametrize(
    ("arguments", "validity"),
    [
        ({}, Validity()),
        ({"invalid": 65535}, Validity((65535,))),
        ({"invalid": [-1, -2, -1]}, Validity((-2, -1))),
        ({"invalid": np.array([3, 1], "u2")}, Validity((1, 3))),
        ({"invalid": np.float32(1.5)}, Validity((1.5,))),
        ({"invalid": np.array(7)}, Validity((7,))),
        ({"invalid": {2}}, Validity((2,))),
        ({"invalid": np.nan}, Validity(skipna=True)),
        ({"invalid": [np.nan, 4]}, Validity((4,), skipna=True)),
        ({"invalid": []}, Validity()),
        ({"saturation": np.int32(7)}, Validity(saturation=7)),
        ({"saturation": np.inf}, Validity(saturation=np.inf)),
        ({"skipna": np.True_}, Validity(skipna=True)),
    ],
)
def test_arguments(arguments, validity):
    found = check_validity(**arguments)
    assert found == validity
    assert hash(found) == hash(validity)
    assert pickle.loads(pickle.dumps(found)) == found
    assert tokenize(found) == tokenize(validity)
    assert all(type(value) in (int, float) for value in found.invalid)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"invalid": "1"}, TypeError),
        ({"invalid": [1, "1"]}, TypeError),
        ({"invalid": [[1]]}, TypeError),
        ({"invalid": True}, TypeError),
        ({"invalid": 1j}, TypeError),
        ({"saturation": np.nan}, ValueError),
        ({"saturation": "1"}, TypeError),
        ({"saturation": True}, TypeError),
        ({"saturation": [1]}, TypeError),
        ({"skipna": 1}, TypeError),
        ({"skipna": None}, TypeError),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        check_validity(**arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arcs_hold_the_keys_that_are_left_out(dtype, rng):
    """Every value of small dtypes, or many of others, by what numpy says of it."""
    frames = random_frames(rng, (400,), dtype)
    if frames.dtype.itemsize <= 2:
        frames = np.arange(2 ** (8 * frames.dtype.itemsize), dtype=f"u{frames.itemsize}")
        frames = frames[:2].astype(bool) if dtype == "bool" else frames.view(dtype)
    keys = kernels.Keys(frames.dtype)
    every = [keys.of(value) for value in frames.tolist()]
    for validity in some_validity(dtype):
        arcs = kernels.Valid(keys.left_out(validity), keys, np.empty(0, "u4")).key_ranges
        found = [any((k - first) % keys.circle < size for first, size in arcs) for k in every]
        wanted = left_out(frames, *numbers(validity))
        number = frames == frames  # of NaN, Python keeps no bits
        np.testing.assert_array_equal(np.array(found)[number], wanted[number])


LEFT_OUT = {
    "dtype": st.sampled_from(["u1", "i1", "u2"]),
    # Near each other and at both ends, so that some meet and some are by themselves.
    "invalid": st.lists(
        st.sampled_from([-128, -127, -1, 0, 1, 2, 7, 9, 10, 127, 254, 255]), max_size=7
    ),
    "saturation": st.sampled_from([None, -126, 3, 100, 255]),
}


@settings(derandomize=True, deadline=None, max_examples=80)
@given(**LEFT_OUT)
def test_any_number_of_values_is_left_out(dtype, invalid, saturation):
    check_left_out(dtype, invalid, saturation, is_usual)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@settings(derandomize=True, deadline=None, max_examples=200)
@given(**LEFT_OUT)
def test_any_number_of_values_is_left_out_of_every_statistic(dtype, invalid, saturation):
    check_left_out(dtype, invalid, saturation, lambda name, dtype: True)


def check_left_out(dtype, invalid, saturation, wanted):
    """However many arcs and single keys they are: counted, summed and ranked as numpy does."""
    values = np.arange(256, dtype="u1").view(dtype) if dtype != "u2" else np.arange(300, dtype="u2")
    # The last frames are one by one beyond the groups of eight that compiled code takes at once.
    frames = np.stack([np.roll(values, 37 * shift) for shift in range(10)])[:, None]
    validity = check_validity(invalid, saturation)
    out = np.isin(frames, invalid) | (frames >= (2**40 if saturation is None else saturation))
    kept = np.ma.masked_array(frames.astype("f8"), out)
    expected = {
        "count": (~out).sum(axis=0),
        "sum": kept.sum(axis=0).filled(-200),
        "max": kept.max(axis=0).filled(-200),
        "range": (kept.max(axis=0) - kept.min(axis=0)).filled(-200),
        "median": np.ma.median(kept, axis=0).filled(-200),
        "var": kept.var(axis=0).filled(-200),
    }
    for name, image in expected.items():
        if not wanted(name, dtype):
            continue
        statistic = as_statistic(name).excluding(validity, -200)
        found = statistic.image(statistic.chunk([[frames]], 0), image.shape, np.dtype("f8"))
        np.testing.assert_allclose(found, image, rtol=1e-12, atol=1e-9, err_msg=name)


def test_rules_see_all_bits_of_nan():
    """Quiet or signalling, of either sign."""
    bits = np.array([0x7F800001, 0xFFC00000, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F800000, 0xFF800000], "u4")
    frames = bits.view("f4")[:, None, None]
    count = as_statistic("count").excluding(Validity(skipna=True))
    assert reduce_cut(count, frames, [2]) == 2
    median = as_statistic("median").excluding(Validity((np.inf, -np.inf), skipna=True), 4)
    assert reduce_cut(median, frames, []) == 4


def test_sums_of_valid_values_are_exact():
    frames = np.array([1e16, 1, -5, 1, 1, -1e16])[:, None, None]
    assert reduce_cut(as_statistic("sum").excluding(Validity((-5,))), frames, [2, 4]) == 3
    many = np.full((70_000, 1, 2), 65535, "u2")
    many[::7, 0, 1] = 3
    average = as_statistic("average").excluding(Validity((3,)))
    assert reduce_cut(average, many, [66_000]).tolist() == [[65535, 65535]]
    std = as_statistic("std").excluding(Validity((3,)))
    assert reduce_cut(std, many, [66_000]).tolist() == [[0, 0]]
    wide = np.array([2**64 - 1, 5, 2**64 - 1], "u8")[:, None, None]
    image = reduce_cut(as_statistic("sum").excluding(Validity((5,))), wide, [1])
    assert image == total([2**64 - 1] * 2)


def test_an_object_like_a_validity_will_do():
    keys = kernels.Keys(np.dtype("u1"))
    like = SimpleNamespace(invalid=(0, 255), saturation=250, skipna=True)
    assert kernels.Valid(keys.left_out(like), keys, np.empty(0, "u4")).key_ranges == [(250, 7)]
