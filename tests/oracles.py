"""Naive answers, in Python's exact numbers or numpy's float64, for frames (frames, rows, cols)."""

from fractions import Fraction
from math import fsum, isfinite, sqrt

import numpy as np

DTYPES = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", ">u2", ">i4", ">u8", ">f2", ">f4", ">f8"),
]


def each_pixel(frames, function, dtype):
    """Apply a function of a list of Python numbers to every pixel."""
    _, rows, cols = frames.shape
    values = frames.tolist()
    image = [
        [function([frame[row][col] for frame in values]) for col in range(cols)]
        for row in range(rows)
    ]
    with np.errstate(over="ignore"):
        return np.array(image, np.float64).astype(dtype)


def total(values):
    """Return the correctly rounded sum of Python numbers."""
    if all(isinstance(value, int) for value in values):
        return float(sum(values))
    if not all(isfinite(value) for value in values):
        return sum(values)
    return fsum(values)


def naive_max(frames):
    return np.max(frames.astype(frames.dtype.newbyteorder("=")), axis=0)


def naive_min(frames):
    return np.min(frames.astype(frames.dtype.newbyteorder("=")), axis=0)


def naive_sum(frames, dtype="float64"):
    return each_pixel(frames, total, dtype)


def naive_average(frames, dtype="float32"):
    return each_pixel(frames, lambda values: total(values) / len(values), dtype)


def naive_percentile(frames, pctl, dtype="float32"):
    """Follow numpy in float64; an integer rank is not interpolated; 64-bit integers are exact."""
    if frames.dtype.kind in "iu" and frames.dtype.itemsize == 8:
        return each_pixel(frames, lambda values: exact_percentile(values, pctl), dtype)
    position = (len(frames) - 1) * (pctl / 100)
    with np.errstate(invalid="ignore"):
        if position == int(position):
            image = np.sort(frames.astype("f8"), axis=0)[int(position)]
            image[np.isnan(frames.astype("f8")).any(axis=0)] = np.nan
        else:
            image = np.percentile(frames.astype("f8"), pctl, axis=0)
    with np.errstate(over="ignore"):
        return image.astype(dtype)


def exact_percentile(values, pctl):
    values = sorted(values)
    position = (len(values) - 1) * (pctl / 100)
    rank = int(position)
    a, b = values[rank], values[min(rank + 1, len(values) - 1)]
    if max(abs(a), abs(b)) <= 2**53:
        return float(np.percentile([float(a), float(b)], 100 * (position - rank)))
    return float(a + Fraction(position - rank) * (b - a))


def naive_median(frames, dtype="float32"):
    return naive_percentile(frames, 50, dtype)


def exact_variance(values, ddof=0):
    """Return the correctly rounded variance of Python numbers."""
    if not all(isfinite(value) for value in values):
        return float("nan")
    values = [Fraction(value) for value in values]
    mean = sum(values) / len(values)
    if len(values) <= ddof:
        return float("nan")
    return float(sum((value - mean) ** 2 for value in values) / (len(values) - ddof))


def naive_var(frames, dtype="float32", ddof=0):
    return each_pixel(frames, lambda values: exact_variance(values, ddof), dtype)


def naive_std(frames, dtype="float32", ddof=0):
    return each_pixel(frames, lambda values: sqrt(exact_variance(values, ddof)), dtype)


def naive(name, frames, *parameters):
    return globals()[f"naive_{name}"](frames, *parameters)


def random_frames(rng, shape, dtype):
    """Return frames over the whole range of a dtype, extremes and ties included."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        frames = rng.normal(0, 100, shape)
        frames[rng.random(shape) < 0.2] = 1.5
        return frames.astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    frames = rng.integers(low, high, shape, dtype.newbyteorder("="), endpoint=True)
    kind = rng.random(shape)
    frames[kind < 0.2] = low
    frames[kind > 0.8] = high
    frames[(kind > 0.4) & (kind < 0.6)] = 7 if high > 7 else 1
    return frames.astype(dtype)


def left_out(frames, invalid=(), saturation=None, skipna=False):
    """Return the mask of values left out, by exact comparisons, of floats in their own dtype."""
    out = np.zeros(frames.shape, bool)
    floats = frames.dtype.kind == "f"
    values = frames if floats else frames.astype(object)
    for value in invalid:
        held = rounded(value, frames.dtype) if floats else value
        if not floats or isfinite(held) or abs(value) == float("inf"):
            out |= (values == held).astype(bool)
    if saturation is not None:
        held = rounded(saturation, frames.dtype) if floats else saturation
        with np.errstate(invalid="ignore"):
            out |= (values >= held).astype(bool)
    return out | (values != values).astype(bool) if skipna else out


def rounded(value, dtype):
    """Return a number as one of a float dtype; infinite if it is too large."""
    try:
        with np.errstate(over="ignore"):
            return dtype.type(value)
    except OverflowError:
        return dtype.type(np.inf if value > 0 else -np.inf)


def each_valid_pixel(frames, out, function, dtype, fill=float("nan")):
    """Apply a function to the list of the valid values of each pixel, if there are any."""
    _, rows, cols = frames.shape
    image = np.full((rows, cols), fill, "f8" if np.dtype(dtype).kind == "f" else dtype)
    for row in range(rows):
        for col in range(cols):
            values = frames[~out[:, row, col], row, col].tolist()
            if values:
                with np.errstate(all="ignore"):
                    image[row, col] = function(values)
    with np.errstate(over="ignore"):
        return image.astype(dtype)


def pixel_max(values):
    return float("nan") if any(value != value for value in values) else max(values)


def pixel_min(values):
    return -pixel_max([-value for value in map(as_number, values)])


def as_number(value):
    return int(value) if isinstance(value, bool) else value


def pixel_percentile(values, pctl, wide=False):
    """Follow numpy in float64, or in fractions for 64-bit integers."""
    if any(value != value for value in values):
        return float("nan")
    if wide:
        return exact_percentile(values, pctl)
    position = (len(values) - 1) * (pctl / 100)
    if position == int(position):
        return sorted(values)[int(position)]
    return float(np.percentile(np.array(values, "f8"), pctl))


def pixel_range(values):
    return pixel_max(values) - pixel_min(values)


PIXEL = {
    "max": pixel_max,
    "min": pixel_min,
    "sum": total,
    "average": lambda values: total(values) / len(values),
    "var": exact_variance,
    "std": lambda values: sqrt(exact_variance(values)),
    "median": lambda values: pixel_percentile(values, 50),
    "range": pixel_range,
}
