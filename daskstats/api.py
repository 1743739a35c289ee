"""The public functions: each names a statistic and says what it returns."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, Unpack

import numpy as np
from dask.array import Array

from .arguments import count_frames
from .graph import reading
from .memory import reservation
from .planning import frame_wise, row_wise, values
from .planning.request import Request
from .reduction import Job, Options, check_query_planning, limit
from .run import scheduler as run_scheduler
from .run import workers
from .run.stream import Snapshot, Stream
from .series.base import layout, warn_about_missing
from .series.opening import as_series
from .statistics import Statistic, moments
from .statistics import percentile as percentile_statistic

# In this module max, min, sum and range are the public functions, never the built-ins.

F = TypeVar("F", bound=Callable)

COMMON = """\
ims : path, array, list of 2-D arrays, or HEXRD-like image series
    Frames of shape (rows, cols); see `wrap`.
nframes : int
    Use the first so many frames; 0, less, or more than there are: all.
dtype : dtype, optional
    Of the image; by default {dtype}.
memory_limit : int or str, optional
    Bytes the call may use, or text such as "4 GiB"; by default what `memory_limit` returns.
lock : bool or lock
    Whether only one thread at a time may read the series. One that fills the same buffer for every
    frame is noticed without it; several objects that share a reader need a lock of their own.
frames : slice, sequence of int, or bool array, optional
    Which frames; others are not read. ``nframes`` counts those that are left.
region : ((int, int), (int, int)), optional
    First row and end, first column and end: the image is that of this part of the frames.
mask : array of bool, optional
    (rows, cols), True for pixels to leave out, as in `numpy.ma`.
invalid : number or sequence of numbers, optional
    Values that do not count, such as 4294967295, or -1 and -2: a pixel's statistic is that of its
    other values. One that no frame can have is a warning.
saturation : number, optional
    Values at or above it do not count.
skipna : bool
    Whether NaN does not count, instead of making its pixel NaN.
fill_value : number, optional
    What stands where no value counts; NaN in images of floats. Images of integers need one there.\
"""

ERRORS = """\
ValueError, TypeError
    If an argument is wrong; the message names it. Errors of arguments come at the call.
MemoryLimitError
    If the memory limit is too small for even the smallest blocks; nothing is read then."""

DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(Options.__annotations__),
    "lock": False,
    "skipna": False,
}


def public(dtype: str) -> Callable[[F], F]:
    """Give a function the common keywords: their text, and their names in its signature."""

    def fill(function: F) -> F:
        text = inspect.cleandoc(function.__doc__ or "")
        text = text.replace("{common}", COMMON.replace("{dtype}", dtype)).replace(
            "{errors}", ERRORS
        )

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            unknown = options.keys() - call.__signature__.parameters.keys()  # type: ignore
            if unknown:
                names = ", ".join(sorted(unknown))
                raise TypeError(f"{function.__name__}() has no keyword argument {names}")
            return function(*args, **options)

        call.__doc__ = text
        call.__signature__ = _signature(function)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return fill


def _signature(function: Callable) -> inspect.Signature:
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in DEFAULTS.items()
    ]
    return signature.replace(parameters=[*own, *common])


@public("that of the frames")
def max(
    ims: Any,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the maximum of each pixel over the frames; NaN propagates.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> max(frames).compute()
    array([[4, 8]], dtype=uint16)
    """
    return Job(ims, "max", nframes, **options).image()


@public("that of the frames")
def min(
    ims: Any,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the minimum of each pixel over the frames; NaN propagates.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> min(frames).compute()
    array([[1, 2]], dtype=uint16)
    """
    return Job(ims, "min", nframes, **options).image()


@public("float64")
def sum(
    ims: Any,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the sum of each pixel over the frames, exact for integers.

    Integers are added in 64 bits (64-bit ones in two parts), floats in float64 with their
    rounding errors (Knuth's TwoSum), and rounded once.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> sum(frames).compute()
    array([[10., 20.]])
    """
    return Job(ims, "sum", nframes, **options).image()


@public("float32")
def average(
    ims: Any,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the mean of each pixel over the frames: the exact `sum`, divided in float64.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> average(frames).compute()
    array([[2.5, 5. ]], dtype=float32)
    """
    return Job(ims, "average", nframes, **options).image()


@public("float32")
def std(
    ims: Any,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the standard deviation of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums and squares of
    integers are exact, and their fraction is rounded once; moments of floats are carried in pairs
    of float64 and merged (Chan, Golub and LeVeque 1983). A pixel that is NaN in any frame is NaN.

    Parameters
    ----------
    {common}
    ddof : float
        The divisor is the number of frames less this.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols), in units of the frames; NaN with no more than ``ddof``
        frames.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> std(frames).compute().round(4)
    array([[1.118 , 2.2361]], dtype=float32)
    """
    return Job(ims, moments("std", ddof), nframes, **options).image()


@public("float32")
def var(
    ims: Any,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the variance of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums and squares of
    integers are exact, and their fraction is rounded once; moments of floats are carried in pairs
    of float64 and merged (Chan, Golub and LeVeque 1983). A pixel that is NaN in any frame is NaN.

    Parameters
    ----------
    {common}
    ddof : float
        The divisor is the number of frames less this.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols), in units of the frames squared; NaN with no more than
        ``ddof`` frames.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> var(frames).compute().round(4)
    array([[1.25, 5.  ]], dtype=float32)
    """
    return Job(ims, moments("var", ddof), nframes, **options).image()


@public("float32")
def percentile(
    ims: Any,
    pctl: float | Sequence[float],
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Array:
    """Return a percentile of each pixel over the frames, as numpy's "linear" method defines it.

    Order statistics are exact; between two of them the value is interpolated in float64.
    A pixel that is NaN in any frame is NaN.

    Parameters
    ----------
    {common}
    pctl : float or sequence of float
        Percentiles, each in [0, 100].
    use_buffer : bool
        Whether frames may be kept in memory until all have been read; False reads a series
        that has only whole frames again for each band of rows.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); (len(pctl), rows, cols) for a sequence.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> percentile(frames, 25).compute()
    array([[1.75, 3.5 ]], dtype=float32)
    >>> percentile(frames, [0, 100]).compute().shape
    (2, 1, 2)
    """
    statistic = percentile_statistic(pctl)
    return Job(ims, statistic, nframes, use_buffer=use_buffer, **options).image()


@public("float32")
def median(
    ims: Any,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Array:
    """Return the median of each pixel over the frames: the 50th `percentile`.

    Parameters
    ----------
    {common}
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> median(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")).compute()
    array([[2.5, 5. ]], dtype=float32)
    """
    return Job(ims, "median", nframes, use_buffer=use_buffer, **options).image()


@public("that of the frames")
def max_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running maximum: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images; image k covers the frames of the first k of ``nchunk`` nearly equal
        chunks of frames, and the last is the result.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.tolist() for image in max_iter(frames, 2)]
    [[[2, 8]], [[4, 8]]]
    """
    return Job(ims, "max", nframes, nchunk, running=True, **options).images()


@public("that of the frames")
def min_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running minimum: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images; image k covers the frames of the first k of ``nchunk`` nearly equal
        chunks of frames, and the last is the result.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.tolist() for image in min_iter(frames, 2)]
    [[[1, 6]], [[1, 2]]]
    """
    return Job(ims, "min", nframes, nchunk, running=True, **options).images()


@public("float64")
def sum_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running sum: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images; image k covers the frames of the first k of ``nchunk`` nearly equal
        chunks of frames, and the last is the result.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.tolist() for image in sum_iter(frames, 2)]
    [[[3.0, 14.0]], [[10.0, 20.0]]]
    """
    return Job(ims, "sum", nframes, nchunk, running=True, **options).images()


@public("float32")
def average_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running mean: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images; image k covers the frames of the first k of ``nchunk`` nearly equal
        chunks of frames, and the last is the result.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.tolist() for image in average_iter(frames, 4)]
    [[[1.0, 8.0]], [[1.5, 7.0]], [[2.0, 6.0]], [[2.5, 5.0]]]
    """
    return Job(ims, "average", nframes, nchunk, running=True, **options).images()


@public("float32")
def std_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running `std`: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images, as of `max_iter`.
    ddof : float
        As of `std`.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.round(4).tolist() for image in std_iter(frames, 2)]
    [[[0.5, 1.0]], [[1.1180000305175781, 2.2360999584198]]]
    """
    return Job(ims, moments("std", ddof), nframes, nchunk, running=True, **options).images()


@public("float32")
def var_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over the running `var`: images of the frames seen so far.

    Parameters
    ----------
    {common}
    nchunk : int
        Number of images, as of `max_iter`.
    ddof : float
        As of `var`.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> [image.round(4).tolist() for image in var_iter(frames, 2)]
    [[[0.25, 1.0]], [[1.25, 5.0]]]
    """
    return Job(ims, moments("var", ddof), nframes, nchunk, running=True, **options).images()


@public("float32")
def percentile_iter(
    ims: Any,
    pctl: float | Sequence[float],
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over images of a `percentile` that fill up from the first row to the last.

    Parameters
    ----------
    {common}
    pctl : float or sequence of float
        Percentiles, each in [0, 100].
    nchunks : int
        Number of images; image k has the result in the first k of ``nchunks`` nearly equal
        chunks of rows and zero in the others, and the last is the result.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays, each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1], [2]], [[3], [4]]], "u2")
    >>> [image.tolist() for image in percentile_iter(frames, 100, 2)]
    [[[3.0], [0.0]], [[3.0], [4.0]]]
    """
    statistic = percentile_statistic(pctl)
    return Job(
        ims, statistic, nframes, nchunks, "nchunks", use_buffer=use_buffer, running=True, **options
    ).images()


@public("float32")
def median_iter(
    ims: Any,
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Stream[np.ndarray]:
    """Iterate over images of the `median` that fill up from the first row to the last.

    Parameters
    ----------
    {common}
    nchunks : int
        Number of images, as of `percentile_iter`.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    Stream
        Sized iterator of numpy arrays (rows, cols), each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1], [2]], [[3], [4]]], "u2")
    >>> [image.tolist() for image in median_iter(frames, 2)]
    [[[2.0], [0.0]], [[2.0], [3.0]]]
    """
    return Job(
        ims, "median", nframes, nchunks, "nchunks", use_buffer=use_buffer, running=True, **options
    ).images()


@public("float64")
def range(ims: Any, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the difference of the maximum and the minimum of each pixel over the frames.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> range(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")).compute()
    array([[3., 6.]])
    """
    return Job(ims, "range", nframes, **options).image()


@public("int64")
def argmax(ims: Any, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the index of the frame with the maximum of each pixel, the first where several tie.

    The first NaN counts as the maximum, as in `numpy.argmax`.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols) of indices among the frames that are used, from 0 on.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> argmax(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")).compute()
    array([[3, 0]])
    """
    return Job(ims, "argmax", nframes, **options).image()


@public("int64")
def argmin(ims: Any, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the index of the frame with the minimum of each pixel, the first where several tie.

    The first NaN counts as the minimum, as in `numpy.argmin`.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols) of indices among the frames that are used, from 0 on.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> argmin(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")).compute()
    array([[0, 3]])
    """
    return Job(ims, "argmin", nframes, **options).image()


@public("int64")
def count(ims: Any, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return how many frames count at each pixel; 0 where everything is left out.

    Parameters
    ----------
    {common}

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> count(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2"), invalid=[4, 8]).compute()
    array([[3, 2]])
    """
    return Job(ims, "count", nframes, **options).image()


@public("int64")
def count_above(ims: Any, threshold: float, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return in how many frames each pixel is larger than a threshold.

    Parameters
    ----------
    {common}
    threshold : float
        In units of the frames. NaN is not larger.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> count_above(np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2"), 3).compute()
    array([[1, 3]])
    """
    return Job(ims, ("count_above", threshold), nframes, **options).image()


@public("float32")
def clipped_average(
    ims: Any,
    sigma: float = 3,
    maxiters: int | None = 5,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Array:
    """Return the mean of each pixel over the frames without outliers: the sigma-clipped mean.

    What is further than ``sigma`` standard deviations from the median is left out, again and
    again, as `astropy.stats.sigma_clipped_stats` does along the frames. As there, NaN and the
    infinities never count.

    Parameters
    ----------
    {common}
    sigma : float
        More than 0.
    maxiters : int or None
        Rounds at most; None: until nothing is left out any more.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[10]]] * 10 + [[[12]]] * 10 + [[[5000]]], "u2")
    >>> clipped_average(frames).compute()
    array([[11.]], dtype=float32)
    """
    statistic = ("clipped_average", sigma, maxiters)
    return Job(ims, statistic, nframes, use_buffer=use_buffer, **options).image()


@public("that of each statistic's own function")
def aggregate(
    ims: Any,
    statistics: Sequence[str | tuple | Statistic],
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> dict[str, Array]:
    """Return several images in one pass: computed together, they read each frame once.

    Parameters
    ----------
    {common}
    statistics : sequence
        Names, or names with their parameters: ``["max", ("percentile", [5, 95]), "median"]``.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    dict of dask.array.Array
        The lazy image of each statistic under its name; parameters are part of it:
        ``"percentile_5_95"``. Each is that of the statistic's own function, bit for bit.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> import dask
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> images = aggregate(frames, ["max", "average", ("percentile", 25)])
    >>> (images,) = dask.compute(images)
    >>> {name: image.tolist() for name, image in images.items()}
    {'max': [[4, 8]], 'average': [[2.5, 5.0]], 'percentile_25': [[1.75, 3.5]]}
    """
    return Job(ims, several(statistics), nframes, use_buffer=use_buffer, **options).results()


@public("that of each statistic's own function")
def aggregate_iter(
    ims: Any,
    statistics: Sequence[str | tuple | Statistic],
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Stream[dict[str, np.ndarray]]:
    """Iterate over the intermediate images of several statistics in one pass.

    They are images of the frames seen so far. If one of the statistics is a percentile, a median
    or a clipped average, all of them fill up from the first row to the last instead.

    Parameters
    ----------
    {common}
    statistics : sequence
        As of `aggregate`.
    nchunk : int
        Number of intermediate images of each.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    Stream
        Sized iterator of dicts of numpy arrays, each the caller's own.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> for images in aggregate_iter(frames, ["max", "sum"], 2):
    ...     print(images["max"], images["sum"])
    [[2 8]] [[ 3. 14.]]
    [[4 8]] [[10. 20.]]
    """
    arguments = ims, several(statistics), nframes, nchunk
    return Job(*arguments, use_buffer=use_buffer, running=True, **options).dicts()


def several(statistics: Any) -> list:
    """Return the statistics of a sequence as a list."""
    if isinstance(statistics, str | Statistic) or not isinstance(statistics, Sequence):
        raise TypeError(f'statistics must be a list such as ["max", "median"], got {statistics!r}')
    return list(statistics)


@public("that of the statistic's own function")
def partials(
    ims: Any,
    statistic: str | tuple | Statistic,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the lazy stack of all intermediate images.

    ``partials(...)[k]`` computes the first k + 1 steps only.

    Parameters
    ----------
    {common}
    statistic : str, tuple or Statistic
        A name, or a name with its parameter: ``("percentile", 95)``.
    nchunk : int
        Number of intermediate images.

    Returns
    -------
    dask.array.Array
        (nchunk, rows, cols); the last plane is the result.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> partials(frames, "average", 4)[1].compute()
    array([[1.5, 7. ]], dtype=float32)
    """
    return Job(ims, statistic, nframes, nchunk, running=True, **options).stack()


@public("that of the statistic's own function")
def snapshots(
    ims: Any,
    statistic: str | tuple | Statistic | list,
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Stream[Snapshot]:
    """Iterate over intermediate images that say what they have seen.

    Parameters
    ----------
    {common}
    statistic : str, tuple, Statistic, or a list of them
        A name, or a name with its parameter: ``("percentile", 95)``. With a list, the image of a
        snapshot is a dict, as of `aggregate_iter`.
    nchunk : int
        Number of intermediate images. Where frames are first written to disk because they do not
        fit into memory, snapshots of phase "spool" come before.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    Stream
        Sized iterator of `Snapshot`.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")
    >>> for snapshot in snapshots(frames, "max", 2):
    ...     print(snapshot.done, "of", snapshot.total, snapshot.image)
    2 of 4 [[2 8]]
    4 of 4 [[4 8]]
    """
    return Job(
        ims, statistic, nframes, nchunk, use_buffer=use_buffer, running=True, **options
    ).snapshots()


@public("that of the statistic's own function")
def plan(
    ims: Any,
    statistic: str | tuple | Statistic | list,
    nchunk: int | None = None,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> values.Plan:
    """Return how a call would read the series, and what it would cost; nothing is read.

    Parameters
    ----------
    {common}
    statistic : str, tuple, Statistic, or a list of them
        A name, or a name with its parameter: ``("percentile", 95)``.
    nchunk : int, optional
        Number of intermediate images of an iterator; by default the plain call is planned.
    use_buffer : bool
        As of `percentile`.

    Returns
    -------
    Plan
        ``str(plan)`` describes it for people.

    Raises
    ------
    {errors}

    Examples
    --------
    >>> print(plan(np.zeros((100, 64, 64), "u2"), "median", memory_limit="1 GiB"))
    direct: 1 block of 64 rows, 2 at once; each frame read 1 time; at most ... of 1024 MiB
    """
    steps = 1 if nchunk is None else nchunk
    running = nchunk is not None
    job = Job(ims, statistic, nframes, steps, use_buffer=use_buffer, running=running, **options)
    return job.plan


def wrap(
    ims: Any,
    along: str = "frames",
    nframes: int = 0,
    memory_limit: int | str | None = None,
    *,
    lock: bool | AbstractContextManager = False,
) -> Array:
    """Return an image series as a lazily chunked dask array.

    Parameters
    ----------
    ims : path, array, list of 2-D arrays, or HEXRD-like image series
        Anything with ``len(ims)``, ``ims[i]`` (a 2-D array for a Python int ``i``), ``.shape`` (of
        a frame) and ``.dtype``; a numpy, zarr, h5py or dask array (frames, rows, cols); a list of
        2-D arrays; the path of a ``.npy``, ``.npz`` (HEXRD frame cache), ``.zarr`` or HDF5 file,
        with ``file.h5::/path/to/dataset`` to name one of several datasets.
    along : "frames" or "rows"
        Whether blocks hold whole frames, or all frames of a band of rows.
    nframes : int
        Use the first so many frames; 0, less, or more than there are: all.
    memory_limit : int or str, optional
        Bytes the blocks that are read at once may take, or text such as "4 GiB"; by default what
        `memory_limit` returns.
    lock : bool or lock
        Whether only one thread at a time may read the series.

    Returns
    -------
    dask.array.Array
        (frames, rows, cols) of the frames' dtype in native byte order. Blocks of a numpy array
        are read-only views of it.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; the message names it.
    MemoryLimitError
        If not even one frame (or row) for each worker fits.

    Examples
    --------
    >>> array = wrap(np.zeros((3, 4, 5), ">u2"))
    >>> array.shape, array.chunks, array.dtype
    ((3, 4, 5), ((3,), (4,), (5,)), dtype('uint16'))
    """
    check_query_planning()
    if along not in ("frames", "rows"):
        raise ValueError(f'along must be "frames" or "rows", got {along!r}')
    series = as_series(ims, lock)
    warn_about_missing(series, count_frames(nframes, series))
    scheduler = run_scheduler.current_scheduler()
    planned = frame_wise.plan_frame_wise if along == "frames" else row_wise.plan_row_wise
    shape = layout(series, count_frames(nframes, series))
    threads, processes, replicas = scheduler.workers, 0, 1
    if scheduler.cluster is not None:
        threads, processes = scheduler.cluster.each, scheduler.cluster.processes
        replicas = workers.count_sources(series, processes)
    if scheduler.sends:
        workers.check_sent(series)
    nbytes = limit(memory_limit, scheduler)
    found = planned(Request(shape, values.Cost(), 1, threads, nbytes, processes=processes))
    if found.in_pixels:
        raise values.MemoryLimitError(
            f"one row of all {shape.nframes} frames for each of {threads} workers does not fit in "
            f"{values.mebibytes(nbytes)}: raise memory_limit, or wrap along frames"
        )
    found = replace(found, replicas=replicas)
    share = reservation.MemoryReservation(found.nbytes, nbytes) if scheduler.shares_memory else None
    return reading.wrapped(series, found, share)


maximum, maximum_iter = max, max_iter
minimum, minimum_iter = min, min_iter
