"""Every statistic against naive oracles: exact, whatever the dtype and however it was cut."""

import dask.array as da
import numpy as np
import pytest
from cuts import cut, is_usual, pairs
from helpers import check_statistic, reduce_cut
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import DTYPES, naive, random_frames

import daskstats as stats
from daskstats import Statistic, statistics
from daskstats.statistics import STATISTICS, Validity, as_statistic, moments, percentile

NAMES = ["max", "min", "sum", "average", "std", "var", "median"]


@pytest.mark.parametrize(("name", "dtype"), cut(NAMES, DTYPES, leaving_out=False))
def test_agrees_with_the_oracle(name, dtype, rng):
    frames = random_frames(rng, (7, 5, 3), dtype)
    image = reduce_cut(as_statistic(name), frames, [2, 3])
    np.testing.assert_array_equal(image, naive(name, frames))
    assert image.dtype == naive(name, frames).dtype
    assert image.dtype.isnative


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pctl", [0, 12.5, 25, 30, 75, 99.9, 100])
def test_percentile_agrees_with_the_oracle(pctl, dtype, rng):
    for nframes in (1, 2, 5, 8):
        frames = random_frames(rng, (nframes, 4, 3), dtype)
        image = reduce_cut(percentile(pctl), frames, [1])
        np.testing.assert_array_equal(image, naive("percentile", frames, pctl))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_cut_gives_the_same_image(data):
    """Metamorphic: the cut, and for integers and exact floats the order, do not matter."""
    dtypes = ["bool", "u1", "u2", "i4", "u8", "i8", "f2", "f4", "f8"]
    name, dtype = data.draw(st.sampled_from(pairs(NAMES, dtypes, leaving_out=False)))
    shape = data.draw(st.tuples(*(st.integers(1, most) for most in (12, 6, 4))))
    elements = {"elements": st.floats(-1e9, 1e9, width=32)} if dtype == "f8" else {}
    frames = data.draw(hnp.arrays(dtype, shape, **elements))
    statistic = as_statistic(name)
    cuts = data.draw(st.lists(st.integers(0, 11), max_size=4))
    whole = reduce_cut(statistic, frames, [])
    np.testing.assert_array_equal(reduce_cut(statistic, frames, cuts), whole)
    if np.dtype(dtype).kind != "f" or name in ("max", "min", "median"):
        order = np.random.default_rng(0).permutation(len(frames))
        np.testing.assert_array_equal(reduce_cut(statistic, frames[order], cuts), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_agree_with_two_passes(dtype, rng):
    """Within 1e-12 of exact fractions in float64; bitwise for integers."""
    for nframes in (1, 2, 9):
        frames = random_frames(rng, (nframes, 4, 3), dtype)
        for name, ddof in (("var", 0), ("std", 0), ("var", 1)):
            image = reduce_cut(moments(name, ddof), frames, [1, 4], dtype="f8")
            expected = naive(name, frames, "f8", ddof)
            np.testing.assert_allclose(image, expected, rtol=1e-12)
            if np.dtype(dtype).kind in "biu":
                np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_a_constant_pixel_does_not_deviate(dtype):
    if np.dtype(dtype).kind == "f":
        values = [0.1, 100.1, -1e-7, 3.0, 60000.0]
    else:
        values = [0, 1, 3, np.iinfo(dtype).max, np.iinfo(dtype).max // 3, np.iinfo(dtype).min]
    frames = np.broadcast_to(np.array(values, dtype), (137, 1, len(values)))
    assert not reduce_cut(moments("std"), frames, [5, 50, 51], dtype="f8").any()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    frames=hnp.arrays(
        "f8",
        st.tuples(st.integers(2, 40), st.just(1), st.just(2)),
        elements=st.integers(-(10**9), 10**9).map(lambda value: value / 1000),
    ),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    offset=st.sampled_from([0.0, 1e8, -1e12]),
)
def test_moments_hardly_depend_on_the_cut(frames, cuts, offset):
    """Far from zero, where the textbook's sum of squares has no digit left."""
    frames = frames + offset
    whole = reduce_cut(moments("var"), frames, [], dtype="f8")
    np.testing.assert_array_equal(reduce_cut(moments("var"), frames, cuts, dtype="f8"), whole)
    np.testing.assert_allclose(whole, naive("var", frames, "f8"), rtol=1e-12)
    assert (whole >= 0).all()


def test_variance_of_large_small_integers(rng):
    frames = random_frames(rng, (70_000, 1, 2), "u2")
    image = reduce_cut(moments("var"), frames, [66_000], dtype="f8")
    np.testing.assert_array_equal(image, naive("var", frames, "f8"))


WIDE = {
    "near 2^64": ("u8", [2**64 - 1, 2**64 - 2, 2**64 - 4]),
    "near 2^32": ("u4", [2**32 - 1, 2**32 - 2, 2**32 - 4, 2**32 - 1]),
    "both ends": ("i8", [-(2**63), 2**63 - 1, -(2**63), 5]),
    "both ends of 32 bits": ("i4", [-(2**31), 2**31 - 1, 2**31 - 1, -1]),
    "three milliards": ("i8", [3_000_000_000, 3_000_000_002, 3_000_000_001, 3_000_000_002]),
    "an exact tie": ("u8", [2**40, 2**40 + 2**27 - 1]),
    "next to a tie": ("u8", [2**60, 2**60 + 2**27 - 1, 2**60]),
    "squares beyond 2^53": ("u4", [0, 94_906_267, 3, 94_906_265]),
    "all zero": ("i8", [0, 0, 0]),
}


@pytest.mark.parametrize(("dtype", "values"), WIDE.values(), ids=WIDE)
def test_variance_of_wide_integers_is_the_exact_fraction(dtype, values):
    """Rounded once, for every cut, also among values that are left out."""
    check_wide_integers(dtype, values, is_usual("var", dtype))


@pytest.mark.nightly
@pytest.mark.parametrize(("dtype", "values"), WIDE.values(), ids=WIDE)
def test_variance_of_wide_integers_among_values_left_out(dtype, values):
    check_wide_integers(dtype, values, True)


def check_wide_integers(dtype, values, leaving_out):
    frames = np.array(values, dtype)[:, None, None]
    with_gaps = np.insert(frames, [1, 2], 7, axis=0)
    valid = [statistics.Validity(invalid=(7,)), statistics.Validity(invalid=(7, 9, 11, 13, 17))]
    for name, ddof in (("var", 0), ("std", 0), ("var", 1), ("var", 2), ("std", 1)):
        expected = naive(name, frames, "f8", ddof)
        for cuts in ([], [1], [1, 2], [2]):
            image = reduce_cut(moments(name, ddof), frames, cuts, dtype="f8")
            np.testing.assert_array_equal(image, expected)
            for left_out in valid if leaving_out else []:
                statistic = moments(name, ddof).excluding(left_out)
                image = reduce_cut(statistic, with_gaps, cuts, dtype="f8")
                np.testing.assert_array_equal(image, expected)


def test_the_variance_near_2_64():
    frames = np.array([2**64 - 1, 2**64 - 2, 2**64 - 4], "u8")[:, None, None]
    assert reduce_cut(moments("var"), frames, [], dtype="f8")[0, 0] == 14 / 9


@pytest.mark.parametrize("dtype", ["i8", "u4"])
def test_variance_does_not_depend_on_how_it_is_asked_for(dtype, rng):
    """Plain, in steps, in one pass with others, on other schedulers, in blocks of any size."""
    frames = rng.integers(0, 3, (40, 64, 64)).astype(dtype) + np.array(3_000_000_000, dtype)
    small = frames[:, :2, :3].astype(object)
    expected = naive("var", small.astype("i8"), "f4")
    plain = stats.var(frames).compute()
    np.testing.assert_array_equal(plain[:2, :3], expected)
    for nchunk in (1, 7, 40):
        *_, image = stats.var_iter(frames, nchunk)
        assert image.tobytes() == plain.tobytes()
    both = stats.aggregate(frames, ["var", "average", "median", "std"], memory_limit="64 MiB")
    assert both["var"].compute().tobytes() == plain.tobytes()
    assert (both["std"].compute() == stats.std(frames).compute()).all()
    lazy = stats.var(da.from_array(frames, chunks=(7, 20, 64)))
    for scheduler in ("synchronous", "threads"):
        assert lazy.compute(scheduler=scheduler).tobytes() == plain.tobytes()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_variance_of_any_wide_integers(data):
    dtype = data.draw(st.sampled_from(["u4", "i4", "u8", "i8"]))
    bits = data.draw(st.integers(1, 8 * np.dtype(dtype).itemsize - 1))
    offset = data.draw(st.integers(0, int(np.iinfo(dtype).max) - (1 << bits) + 1))
    elements = st.integers(offset, offset + (1 << bits) - 1)
    frames = data.draw(hnp.arrays(dtype, (data.draw(st.integers(1, 9)), 1, 2), elements=elements))
    if np.dtype(dtype).kind == "i" and data.draw(st.booleans()):
        frames = ~frames
    ddof = data.draw(st.sampled_from([0, 1]))
    cuts = data.draw(st.lists(st.integers(0, 9), max_size=3))
    image = reduce_cut(moments("var", ddof), frames, cuts, dtype="f8")
    np.testing.assert_array_equal(image, naive("var", frames, "f8", ddof))


def test_a_ddof_that_is_no_integer():
    """The fraction is exact, and divided by the float64 that is nearest to its divisor."""
    frames = np.array([2**40, 2**40 + 3, 2**40 + 8], "u8")[:, None, None]
    image = reduce_cut(moments("var", 0.5), frames, [1], dtype="f8")
    assert image[0, 0] == (3 * (9 + 64) - 11**2) / (3 * 2.5)


@pytest.mark.parametrize("name", ["std", "var"])
@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_narrow_states_are_widened_in_time(name, dtype):
    """Squares of 32 bits in each part, but not in both together."""
    frames = np.full((6, 1, 2), 32_000, dtype)
    frames[5, 0, 0] = 1
    statistic = as_statistic(name)
    parts = [statistic.packed(statistic.chunk([[part]], 0)) for part in (frames[:3], frames[3:])]
    assert [part["squares"].itemsize for part in parts] == [4, 4]
    assert [part["sum"].itemsize for part in parts] == [4, 4]
    both = statistic.combine(*parts)
    assert both["squares"].max() == 6 * 32_000**2 > 1 << 32
    image = statistic.image(both, (1, 2), np.dtype("f8"))
    np.testing.assert_allclose(image, getattr(np, name)(frames, axis=0, dtype="f8"), rtol=1e-12)
    most = np.iinfo(dtype).max
    wide = statistic.packed(statistic.chunk([[np.full((9, 1, 2), most, dtype)]], 0))
    assert wide["squares"].tolist() == [[9 * most**2] * 2]


@pytest.mark.parametrize("ddof", [-1, np.nan, np.inf, True, None, "1", [1]])
def test_bad_ddof(ddof):
    with pytest.raises((TypeError, ValueError), match="ddof"):
        moments("std", ddof)


def test_too_few_frames_for_ddof_are_nan():
    frames = np.ones((2, 1, 1), "u2")
    assert np.isnan(reduce_cut(moments("std", 2), frames, []))
    assert reduce_cut(moments("std", 1), frames, []) == 0


ZEROS = {
    "one of each": [0.0, -0.0],
    "the other way": [-0.0, 0.0],
    "none positive": [-0.0, -0.0, -0.0],
    "below zero": [-3, -0.0, 0.0, -1, -0.0],
    "above zero": [2, 0.0, -0.0, 3, 0.0, -0.0, 1],
    "late": [-0.0] * 9 + [0.0],
}


@pytest.mark.parametrize(("name", "dtype"), cut(["max", "min"], ["f2", "f4", "f8"]))
@pytest.mark.parametrize("values", ZEROS.values(), ids=ZEROS)
def test_positive_zero_is_the_larger_one(values, name, dtype):
    """As IEEE 754-2019 maximum and minimum have it, for every cut and order."""
    frames = np.array([values, values[::-1]], dtype).T[:, None]
    gaps = statistics.Validity(invalid=(7,))
    best = {"max": max, "min": min}[name]
    wanted = best(values, key=lambda value: (value, np.copysign(1, value)))
    for statistic in (as_statistic(name), as_statistic(name).excluding(gaps)):
        for cuts in ([], [1], [1, 2, 3], [4, 5]):
            image = reduce_cut(statistic, frames, cuts)
            assert image.tolist() == [[wanted, wanted]]
            assert (np.signbit(image) == np.signbit(wanted)).all()
    *_, image = getattr(stats, f"{name}_iter")(frames, len(values))
    assert (np.signbit(image) == np.signbit(wanted)).all()


def test_zeros_of_both_signs_in_steps_and_order_statistics():
    frames = np.array([[0.0, -0.0, -0.0, -1.0], [-0.0, -0.0, 0.0, -0.0]] * 3, "f4")[:, None]
    images = list(stats.max_iter(frames, 6))
    assert [np.signbit(image).tolist() for image in images] == [
        [[False, True, True, True]],
        *[[[False, True, False, True]]] * 5,
    ]
    spread = stats.range(frames).compute()
    assert not np.signbit(spread).any()
    # Of order statistics all frames are seen at once: -0.0 comes before 0.0.
    keys = np.sort(frames.view("i4") ^ ((frames.view("i4") >> 31) & 0x7FFFFFFF), axis=0)
    for pctl in (0, 40, 100):
        image = stats.percentile(frames, pctl).compute()
        assert (np.signbit(image) == (keys[5 * pctl // 100] < 0)).all()
        (last,) = stats.percentile_iter(frames, pctl, 1)
        assert last.tobytes() == image.tobytes()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_every_nan_is_the_canonical_one(dtype):
    """Else its bits would tell which frame came first."""
    frames = np.array([1, 2, 3, 4, 5, 6], dtype)[:, None, None] + np.zeros((1, 2), dtype)
    unsigned = f"u{frames.itemsize}"
    odd = np.array([np.nan], dtype).view(unsigned) | 5
    frames[1, 0, 0] = odd.view(dtype)[0]
    frames[4, 0, 0] = -np.array(np.nan, dtype)
    frames[2, 0, 1] = -np.array(np.nan, dtype)
    canonical = np.full((1, 2), np.nan)
    for name in ("max", "min", "sum", "average", "std", "var", "median", "range"):
        for cuts in ([], [1], [2, 4]):
            image = reduce_cut(as_statistic(name), frames, cuts)
            assert image.tobytes() == canonical.astype(image.dtype).tobytes(), name
    for image in list(stats.max_iter(frames, 3))[1:]:
        assert image.tobytes() == canonical.astype(dtype).tobytes()


def test_constants_of_every_magnitude_do_not_deviate(rng):
    """From the smallest subnormal to the largest float64, whose sums and squares overflow."""
    exponents = np.repeat(np.arange(-1073, 1025), 2)
    values = np.ldexp(rng.uniform(0.5, 1, exponents.size), exponents)
    values = np.append(values, [1.7e308, 5e-324, np.finfo("f8").max, np.finfo("f8").tiny])
    values[::2] *= -1
    for nframes, cuts in ((1, []), (3, [1]), (7, [3, 4]), (137, [50])):
        frames = np.repeat(values[None, None], nframes, axis=0)
        for statistic in (moments("std"), moments("var").excluding(statistics.Validity((7.5,)))):
            assert not reduce_cut(statistic, frames, cuts, dtype="f8").any()
    for mixed in ([np.inf, 1, 1], [1, np.nan, 1], [1, 1, -np.inf], [np.nan, np.inf, 1]):
        frames = np.array(mixed)[:, None, None]
        assert np.isnan(reduce_cut(moments("std"), frames, [])).all()
    for constant in (np.inf, -np.inf, np.nan):
        assert np.isnan(reduce_cut(moments("std"), np.full((4, 1, 1), constant), [2])).all()


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 3]])
def test_a_constant_among_values_that_do_not_count(cuts):
    frames = np.array([1.7e308, np.nan, 1.7e308, -5.0, 1.7e308])[:, None, None]
    valid = moments("std").excluding(statistics.Validity(invalid=(-5.0,), skipna=True))
    assert reduce_cut(valid, frames, cuts, dtype="f8").tolist() == [[0]]
    one_more = moments("std").excluding(statistics.Validity(skipna=True))
    assert not reduce_cut(one_more, frames, cuts, dtype="f8")[0, 0] < np.inf


@pytest.mark.parametrize("values", [[1.7e308, -1.7e308], [1e160, -1e160, 3e160], [1.7e308, 1e300]])
def test_what_leaves_float64_is_the_same_for_one_plan(values):
    """Whatever it is: infinite, or NaN; the documentation says so."""
    frames = np.resize(np.array(values), (12, 4, 5))
    for name in ("sum", "average", "std", "var"):
        lazy = getattr(stats, name)(da.from_array(frames, chunks=(5, 4, 5)), dtype="f8")
        images = [lazy.compute(scheduler=s) for s in ("threads", "synchronous", "threads")]
        assert {image.tobytes() for image in images} == {images[0].tobytes()}
    assert (stats.max(frames).compute() == frames.max(axis=0)).all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frames=hnp.arrays("f4", hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_special_floats(frames):
    """NaN, infinities and negative zero take part as numpy says."""
    for name in ("max", "min", "median"):
        image = reduce_cut(as_statistic(name), frames, [1, 3])
        np.testing.assert_array_equal(image, naive(name, frames))
    image, expected = reduce_cut(as_statistic("sum"), frames, [1, 3]), naive("sum", frames)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(image[~finite], expected[~finite])
    bound = len(frames) * 2.0**-52 * np.abs(frames.astype("f8")).sum(axis=0)
    assert (np.abs(image[finite] - expected[finite]) <= bound[finite]).all()


@pytest.mark.parametrize(
    ("values", "pctl", "expected"),
    [
        ([32767, -1], 50, 16383.0),  # numpy overflows in int16
        ([-32768, 32767], 50, -0.5),
        ([1.0, 2.0, np.inf], 50, 2.0),  # an integer rank is not interpolated
        ([-np.inf, 0.0, np.inf], 50, 0.0),
        ([1.0, np.nan, 2.0], 0, np.nan),
        ([False, True], 50, 0.5),
        ([2**63, 2**63 + 2], 50, float(2**63)),
    ],
)
def test_percentile_of_one_pixel(values, pctl, expected):
    kinds = {-1: "i2", -32768: "i2", 2**63: "u8"}
    dtype = next((kinds[value] for value in values if value in kinds), None)
    frames = np.array(values, dtype)[:, None, None]
    image = reduce_cut(percentile(pctl), frames, [], dtype="f8")
    np.testing.assert_array_equal(image, [[expected]])


def test_integers_beyond_2_53_are_interpolated_exactly():
    low, high = 2**62 + 1, 2**62 + 4099
    frames = np.array([low, high], "i8")[:, None, None]
    image = reduce_cut(percentile(25), frames, [], dtype="f8")
    assert image[0, 0] == float((3 * low + high) // 4)


def test_sums_do_not_lose_small_terms():
    """1e16 + 1 + ... - 1e16 in float64 alone would be 0."""
    frames = np.array([1e16, 1, 1, 1, -1e16])[:, None, None]
    assert reduce_cut(as_statistic("sum"), frames, [2, 4])[0, 0] == 3
    many = np.full((3600, 1, 1), 65535, "u2")
    assert reduce_cut(as_statistic("average"), many, [1000])[0, 0] == 65535


def test_sums_of_64_bit_integers_are_rounded_once():
    """A sum beyond 2^85: a rounded upper part would be rounded again with the lower one."""
    total = (1 << 87) + (1 << 34) + 1  # just more than half of the last place
    state = {
        "low": np.array([[total & 0xFFFFFFFF, (-total) & 0xFFFFFFFF]], "u8"),
        "high": np.array([[total >> 32, (-total) >> 32]], "i8"),
        "count": np.array(1 << 24),
    }
    image = as_statistic("sum").image(state, (1, 2), np.dtype("f8"))
    assert image.tolist() == [[float(total), float(-total)]]


def test_sums_of_64_bit_integers_do_not_overflow():
    for dtype, value in (("u8", 2**64 - 1), ("i8", -(2**63)), ("i8", 2**63 - 1)):
        frames = np.full((5, 1, 2), value, dtype)
        assert reduce_cut(as_statistic("sum"), frames, [2]).tolist() == [[float(5 * value)] * 2]


@pytest.mark.parametrize("statistic", [*NAMES, ("percentile", 30), ("percentile", [0, 50, 90])])
@pytest.mark.parametrize("dtype", ["u2", "u8", "f4"])
def test_conforms(statistic, dtype, rng):
    check_statistic(as_statistic(statistic), random_frames(rng, (6, 4, 3), dtype))


def test_a_sequence_of_percentiles_is_each_of_them(rng):
    frames = random_frames(rng, (9, 4, 3), "u2")
    together = reduce_cut(percentile([90, 10, 10, 33.3]), frames, [1, 2])
    assert together.shape == (4, 4, 3)
    for image, pctl in zip(together, [90, 10, 10, 33.3], strict=True):
        np.testing.assert_array_equal(image, reduce_cut(percentile(pctl), frames, []))


@pytest.mark.parametrize("pctl", [-0.001, 100.001, np.nan, np.inf, [50, 101], []])
def test_percentiles_out_of_range(pctl):
    with pytest.raises(ValueError, match="pctl"):
        percentile(pctl)


@pytest.mark.parametrize("pctl", [True, np.bool_(False), "50", None, [50, "a"], 1j, {}])
def test_percentiles_of_a_wrong_type(pctl):
    with pytest.raises((TypeError, ValueError), match="pctl"):
        percentile(pctl)


@pytest.mark.parametrize("pctl", [50, 50.0, np.float32(50), np.int8(50), np.array(50)])
def test_percentiles_of_any_number(pctl):
    assert percentile(pctl).planes is None


@pytest.mark.parametrize(
    ("name", "frames", "dtype", "expected"),
    [
        ("max", "u2", None, "u2"),
        ("max", ">u2", None, "u2"),
        ("max", "u2", "i4", "i4"),
        ("max", "u2", "f4", "f4"),
        ("sum", "u2", None, "f8"),
        ("average", "f8", None, "f4"),
        ("median", "u2", "f8", "f8"),
        ("median", "u2", ">f8", "f8"),
    ],
)
def test_dtype_of_the_image(name, frames, dtype, expected):
    assert as_statistic(name).image_dtype(np.dtype(frames), dtype) == np.dtype(expected)


@pytest.mark.parametrize(
    ("name", "frames", "dtype"),
    [
        ("max", "u2", "u1"),
        ("max", "u2", "i2"),
        ("max", "f4", "i8"),
        ("average", "u2", "u2"),
        ("median", "u2", "i4"),
        ("sum", "u2", "c16"),
        ("sum", "u2", "longdouble"),
        ("sum", "u2", "no such"),
        ("sum", "u2", 7),
    ],
)
def test_dtypes_that_would_lose_values_are_refused(name, frames, dtype):
    with pytest.raises(TypeError, match="dtype"):
        as_statistic(name).image_dtype(np.dtype(frames), dtype)


def test_values_beyond_float32_become_infinite():
    frames = np.full((2, 1, 1), 1e300)
    assert reduce_cut(as_statistic("average"), frames, [])[0, 0] == np.inf


@pytest.mark.parametrize(
    "statistic", ["mean", "", None, 3, ("max", 3), ("percentile",), "percentile", ("median", 50)]
)
def test_unknown_statistics(statistic):
    with pytest.raises((TypeError, ValueError), match="statistic|parameter"):
        as_statistic(statistic)


def test_the_registry_is_by_name():
    for name, found in STATISTICS.items():
        assert not isinstance(found, Statistic) or found.name == name


def test_a_users_own_statistic():
    """A statistic is a value: range needs three functions and no registration."""

    def chunk(pieces, start):
        blocks = [block for piece in pieces for block in piece]
        return {
            "high": np.max([block.max(axis=0) for block in blocks], axis=0),
            "low": np.min([block.min(axis=0) for block in blocks], axis=0),
        }

    def combine(a, b):
        return {"high": np.maximum(a["high"], b["high"]), "low": np.minimum(a["low"], b["low"])}

    def finalize(state, image):
        image[...] = state["high"] - state["low"]

    spread = Statistic("range", chunk, combine, finalize, dtype=None)
    frames = np.arange(24, dtype="u1").reshape(4, 3, 2)
    np.testing.assert_array_equal(reduce_cut(spread, frames, [1]), np.full((3, 2), 18, "u1"))
    assert statistics.as_statistic(spread) is spread


MANY = {"percentile": ("percentile", 30), "count_above": ("count_above", 1)}


# The tiles of other dtypes, and of either with or without values left out, are cut alike.
@pytest.mark.parametrize(("dtype", "validity"), [("f4", Validity()), ("u2", Validity((1,)))])
@pytest.mark.parametrize("name", STATISTICS)
def test_every_tile_of_an_image_is_computed_alike(name, dtype, validity, rng):
    """Compiled code passes over tiles of pixels; a row is less than the smallest of them."""
    frames = rng.integers(0, 50, (9, 104, 320)).astype(dtype)
    statistic = as_statistic(MANY.get(name, name)).excluding(validity, 0 if validity else None)
    image = reduce_cut(statistic, frames, [4])
    for row in range(0, 104, 9):
        alone = reduce_cut(statistic, frames[:, row : row + 1], [0 if image.ndim == 3 else 4])
        np.testing.assert_array_equal(image[row : row + 1], alone)
