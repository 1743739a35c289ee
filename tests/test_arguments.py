"""Numbers as arguments: each error names its argument, however large the number is."""

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import daskstats as stats
from daskstats.arguments import check_number, shown, warn

FRAMES = np.arange(24, dtype="u2").reshape(4, 2, 3)

# Beyond float64; of the longest Python would not even write the digits.
HUGE = {
    "10^400": 10**400,
    "-10^400": -(10**400),
    "10^5000": 10**5000,
    "fraction": Fraction(10**400, 3),
    "decimal": Decimal("1e400"),
    "longdouble": np.longdouble("1e4000"),
}

CALLS = {
    "saturation": lambda ims, x: stats.max(ims, saturation=x),
    "invalid": lambda ims, x: stats.max(ims, invalid=[3, x], fill_value=0),
    "threshold": stats.count_above,
    "ddof": lambda ims, x: stats.std(ims, ddof=x),
    "sigma": lambda ims, x: stats.clipped_average(ims, sigma=x),
    "pctl": lambda ims, x: stats.percentile(ims, [5, x]),
    "fill_value": lambda ims, x: stats.average(ims, invalid=3, fill_value=x),
    "memory_limit": lambda ims, x: stats.max(ims, memory_limit=x),
}


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_numbers_beyond_float64_are_refused_by_name(name, value, dtype):
    if name == "memory_limit" and isinstance(value, Decimal):
        value = 10**400  # a limit is an int, a float or text
    with pytest.raises(ValueError, match=name) as refusal:
        CALLS[name](FRAMES.astype(dtype), value)
    assert len(str(refusal.value)) < 200


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo("f8").max, reason="no wider float")
@pytest.mark.parametrize("value", [np.longdouble("-1e4000"), np.array(np.longdouble("1e309"))])
def test_wider_floats_that_float64_cannot_hold(value):
    with pytest.raises(ValueError, match="sigma must be a number, of a size that float64"):
        check_number(value, "sigma")


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, 2**31, -(2**70)], ids=shown)
def test_numbers_of_frames_and_rounds_may_be_of_any_size(value):
    """More than there are, or less than 0, is all of them."""
    image = stats.max(FRAMES, nframes=value).compute()
    np.testing.assert_array_equal(image, FRAMES.max(axis=0))
    if value > 0:
        image = stats.clipped_average(FRAMES, maxiters=value).compute()
        np.testing.assert_array_equal(image, FRAMES.mean(axis=0))
    else:
        with pytest.raises(ValueError, match="maxiters"):
            stats.clipped_average(FRAMES, maxiters=value)


@pytest.mark.parametrize("value", [10**5000, -(10**5000), Fraction(10**5000, 3), 0.5], ids=shown)
@pytest.mark.parametrize(
    "name",
    ["nchunk", "frames", "region"],
)
def test_errors_are_short_and_name_their_argument(name, value):
    calls = {
        "nchunk": lambda: stats.max_iter(FRAMES, value),
        "frames": lambda: stats.max(FRAMES, frames=[value]),
        "region": lambda: stats.max(FRAMES, region=((0, value), (0, 2))),
    }
    with pytest.raises((ValueError, TypeError), match=name) as refusal:
        calls[name]()
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("number", [Decimal("2.5"), Fraction(5, 2), np.float32(2.5), 2.5])
def test_numbers_of_every_kind(number):
    assert check_number(number, "sigma") == 2.5
    assert type(check_number(np.uint64(2**64 - 1), "invalid")) is int
    assert check_number(float("inf"), "sigma") == check_number(Decimal("inf"), "sigma")
    image = stats.average(FRAMES, invalid=list(range(24)), fill_value=number).compute()
    assert (image == 2.5).all()


@pytest.mark.parametrize("value", [True, np.bool_(0), "3", None, 3j, [3]])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="sigma must be a number"):
        check_number(value, "sigma")


def test_how_errors_show_numbers():
    assert shown(10**400) == "an integer of about 10^400"
    assert shown(-(2**64)) == "-18446744073709551616"
    assert len(shown([10**5000])) < 100


def test_a_warning_points_at_the_call():
    with pytest.warns(UserWarning, match="a remark") as caught:
        warn("a remark")
    assert caught[0].filename == __file__


UNMATCHED = {
    "an Eiger's in 16 bits": ("u2", {"invalid": 4294967295}, "invalid=4294967295"),
    "a sign": ("u4", {"invalid": [-1, 65535]}, "invalid=-1 leaves"),
    "a fraction": ("i4", {"invalid": 0.5}, "invalid=0.5"),
    "8 bits": ("u1", {"invalid": 300}, "integers from 0 to 255"),
    "below": ("i2", {"invalid": [-32769]}, "from -32768 to 32767"),
    "NaN of integers": ("u2", {"invalid": float("nan")}, "invalid=nan"),
    "bool": ("?", {"invalid": 2}, "invalid=2"),
    "64 bits": ("u8", {"invalid": 2**64}, "invalid=18446744073709551616"),
    "infinite": ("i8", {"invalid": float("inf")}, "invalid=inf"),
    "beyond float32": ("f4", {"invalid": 1e300}, "numbers up to 3.4e"),
    "beyond float16": ("f2", {"invalid": [70000.0, 1]}, "invalid=70000.0"),
    "saturation": ("u2", {"saturation": 100000}, "saturation=100000"),
    "both": ("u1", {"invalid": 256, "saturation": 1e9}, "invalid=256 and saturation"),
}


@pytest.mark.parametrize(("dtype", "options", "text"), UNMATCHED.values(), ids=UNMATCHED)
def test_values_that_no_frame_can_have_are_warned_of(dtype, options, text):
    """Once in each call, however many statistics it has, at the line that makes it."""
    frames = FRAMES.astype(dtype)
    for call in (
        lambda: stats.max(frames, fill_value=0, **options),
        lambda: stats.aggregate(frames, ["max", "average", "median"], fill_value=0, **options),
        lambda: stats.average_iter(frames, 2, **options),
    ):
        with pytest.warns(UserWarning, match="out nothing") as caught:
            call()
        assert len(caught) == 1
        assert text in str(caught[0].message)
        assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("u2", {"invalid": [0, 65535], "saturation": 65535}),
        ("u2", {"skipna": True}),
        ("f4", {"invalid": [float("nan"), 0.1, -1, float("inf")], "saturation": 1e300}),
        ("i8", {"invalid": [-(2**63), 3.0]}),
        ("?", {"invalid": 1, "saturation": 1}),
    ],
)
def test_values_that_frames_can_have_are_no_warning(dtype, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats.max(FRAMES.astype(dtype), fill_value=0, **options).compute()
