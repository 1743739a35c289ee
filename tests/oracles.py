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
