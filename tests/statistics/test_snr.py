"""The signal-to-noise ratio against a naive oracle in Python's exact numbers."""

from math import sqrt

import dask
import numpy as np
import pytest
from helpers import check_statistic, reduce_cut
from oracles import each_pixel, each_valid_pixel, exact_variance, left_out, random_frames, total

import daskstats as stats
from daskstats.statistics import as_statistic


def ratio(values):
    deviation = sqrt(exact_variance(values))
    return total(values) / len(values) / deviation if deviation else np.nan


def naive_snr(frames, dtype="f4"):
    return each_pixel(frames, ratio, dtype)


@pytest.fixture
def frames(rng):
    frames = rng.poisson(50, (30, 17, 13)).astype("u2")
    frames[:, 2, 3] = 7  # does not change
    return frames


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "u2", "i4", "u4", "u8", "i8"])
def test_integers_are_exact_for_every_cut(dtype, rng):
    frames = random_frames(rng, (7, 5, 3), dtype)
    expected = naive_snr(frames, "f8")
    for cuts in ([], [2, 3]):
        image = reduce_cut(as_statistic("snr"), frames, cuts, "f8")
        np.testing.assert_array_equal(image, expected)
    check_statistic(as_statistic("snr"), frames)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats(dtype, rng):
    frames = random_frames(rng, (9, 5, 3), dtype)
    frames[:, 0, 0] = 0.1
    frames[3, 1, 1] = np.nan
    image = reduce_cut(as_statistic("snr"), frames, [1, 4], "f8")
    np.testing.assert_allclose(image, naive_snr(frames, "f8"), rtol=1e-12)
    assert np.isnan(image[0, 0])
    assert np.isnan(image[1, 1])
    assert reduce_cut(as_statistic("snr"), frames, []).dtype == np.float32


def test_plain_and_in_steps(frames):
    expected = naive_snr(frames)
    assert np.isnan(expected[2, 3])
    np.testing.assert_array_equal(stats.snr(frames).compute(), expected)
    np.testing.assert_array_equal(stats.snr(frames, 11).compute(), naive_snr(frames[:11]))
    images = list(stats.snr_iter(frames, 3))
    for image, edge in zip(images, (10, 20, 30), strict=True):
        np.testing.assert_array_equal(image, naive_snr(frames[:edge]))


@pytest.mark.parametrize("dtype", ["u2", "u8", "f4"])
def test_with_others(frames, dtype):
    ims = frames.astype(dtype)
    plain = stats.snr(ims).compute()
    for others in (["average", "max"], ["std", "median"]):
        (images,) = dask.compute(stats.aggregate(ims, ["snr", *others]))
        assert images["snr"].tobytes() == plain.tobytes()


def test_mask_and_values_that_do_not_count(frames):
    mask = np.zeros((17, 13), bool)
    mask[5:7] = True
    frames[:, 0, :] = 65535
    frames[::3, 1] = 65535
    out = left_out(frames, (65535,))
    expected = each_valid_pixel(frames, out, ratio, "f4")
    expected[mask] = np.nan
    image = stats.snr(frames, mask=mask, invalid=65535).compute()
    np.testing.assert_array_equal(image, expected)
    assert np.isnan(image[0]).all()
    filled = stats.snr(frames, mask=mask, invalid=65535, fill_value=-1).compute()
    assert (filled[0] == -1).all()
    assert (filled[mask] == -1).all()
    assert np.isnan(filled[2, 3])
    *_, last = stats.snr_iter(frames, 4, mask=mask, invalid=65535)
    np.testing.assert_array_equal(last, expected)
