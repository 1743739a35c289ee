"""The public functions: a signature, a sentence and an example each."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Unpack, overload

import numpy as np
from dask.array import Array

from .arguments import ImageSeries, Options, RunOptions, check_list
from .planning.values import Plan
from .reduction import reduce, wrap_series
from .run.progress import Progress, Snapshot
from .run.stream import Stream
from .signatures import public, public_image, public_images
from .statistics import Statistic, moments
from .statistics import percentile as percentile_statistic

# In this module max, min, sum and range are the public functions, never the built-ins.

NamedStatistic = str | tuple | Statistic
"""a name, a name with its parameters, or a statistic of the caller"""

# The default dtype of an image that has no dtype by itself.
OF_FRAMES, OF_STATISTIC = "that of the frames", "that of the function of the statistic"


@public_image(OF_FRAMES, see="max_iter, argmax, range")
def max(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the maximum of each pixel over the frames; NaN propagates.

    >>> max(frames).compute()
    array([[4, 8]], dtype=uint16)
    """
    return reduce(ims, "max", nframes, **options).lazy_image()


@public_image(OF_FRAMES, see="min_iter, argmin, range")
def min(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the minimum of each pixel over the frames; NaN propagates.

    >>> min(frames).compute()
    array([[1, 2]], dtype=uint16)
    """
    return reduce(ims, "min", nframes, **options).lazy_image()


@public_image("float64", see="sum_iter, average")
def sum(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the sum of each pixel over the frames, exact for integers.

    Integers are added in 64 bits (64-bit integers in two parts); floats are added in float64
    together with their rounding errors [1]_. The sum is rounded once.

    >>> sum(frames).compute()
    array([[10., 20.]])
    """
    return reduce(ims, "sum", nframes, **options).lazy_image()


@public_image("float32", see="average_iter, clipped_average")
def average(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the mean of each pixel over the frames: the exact `sum`, divided in float64.

    >>> average(frames).compute()
    array([[2.5, 5. ]], dtype=float32)
    """
    return reduce(ims, "average", nframes, **options).lazy_image()


@public_image("float32", see="std_iter, var")
def std(
    ims: ImageSeries, nframes: int = 0, *, ddof: float = 0, **options: Unpack[Options]
) -> Array:
    """Return the standard deviation of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums of integers and of
    their squares are exact, and their quotient is rounded once. Moments of floats are pairs of
    float64, merged as in [1]_. A pixel that is NaN in any frame is NaN.

    >>> std(frames).compute().round(4)
    array([[1.118 , 2.2361]], dtype=float32)
    """
    return reduce(ims, moments("std", ddof), nframes, **options).lazy_image()


@public_image("float32", see="var_iter, std")
def var(
    ims: ImageSeries, nframes: int = 0, *, ddof: float = 0, **options: Unpack[Options]
) -> Array:
    """Return the variance of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums of integers and of
    their squares are exact, and their quotient is rounded once. Moments of floats are pairs of
    float64, merged as in [1]_. A pixel that is NaN in any frame is NaN.

    >>> var(frames).compute().round(4)
    array([[1.25, 5.  ]], dtype=float32)
    """
    return reduce(ims, moments("var", ddof), nframes, **options).lazy_image()


@public_image("float32", see="snr_iter, average, std")
def snr(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the signal-to-noise ratio of each pixel over the frames: `average` over `std`.

    Both are divided in float64. A pixel that does not change is NaN.

    >>> snr(frames).compute()
    array([[2.236068, 2.236068]], dtype=float32)
    """
    return reduce(ims, "snr", nframes, **options).lazy_image()


@public_image("float32", see="percentile_iter, median")
def percentile(
    ims: ImageSeries,
    pctl: float | Sequence[float],
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Array:
    """Return a percentile of each pixel over the frames, by the "linear" method of numpy.

    Order statistics are exact; between two of them the value is interpolated in float64 [1]_.
    A pixel that is NaN in any frame is NaN.

    >>> percentile(frames, 25).compute()
    array([[1.75, 3.5 ]], dtype=float32)
    >>> percentile(frames, [0, 100]).compute().shape
    (2, 1, 2)
    """
    statistic = percentile_statistic(pctl)
    return reduce(ims, statistic, nframes, use_buffer=use_buffer, **options).lazy_image()


@public_image("float32", see="median_iter, percentile, clipped_average")
def median(
    ims: ImageSeries, nframes: int = 0, *, use_buffer: bool = True, **options: Unpack[Options]
) -> Array:
    """Return the median of each pixel over the frames: the 50th `percentile`.

    >>> median(frames).compute()
    array([[2.5, 5. ]], dtype=float32)
    """
    return reduce(ims, "median", nframes, use_buffer=use_buffer, **options).lazy_image()


@public(OF_FRAMES, see="max, snapshots")
def max_iter(
    ims: ImageSeries, nchunk: int, nframes: int = 0, **options: Unpack[RunOptions]
) -> Stream[np.ndarray]:
    """Iterate over the running maximum: images of the frames seen so far.

    >>> [image.tolist() for image in max_iter(frames, 2)]
    [[[2, 8]], [[4, 8]]]
    """
    return reduce(ims, "max", nframes, nchunk, running=True, **options).stream(Progress.image)


@public(OF_FRAMES, see="min, snapshots")
def min_iter(
    ims: ImageSeries, nchunk: int, nframes: int = 0, **options: Unpack[RunOptions]
) -> Stream[np.ndarray]:
    """Iterate over the running minimum: images of the frames seen so far.

    >>> [image.tolist() for image in min_iter(frames, 2)]
    [[[1, 6]], [[1, 2]]]
    """
    return reduce(ims, "min", nframes, nchunk, running=True, **options).stream(Progress.image)


@public("float64", see="sum, snapshots")
def sum_iter(
    ims: ImageSeries, nchunk: int, nframes: int = 0, **options: Unpack[RunOptions]
) -> Stream[np.ndarray]:
    """Iterate over the running `sum`: images of the frames seen so far.

    >>> [image.tolist() for image in sum_iter(frames, 2)]
    [[[3.0, 14.0]], [[10.0, 20.0]]]
    """
    return reduce(ims, "sum", nframes, nchunk, running=True, **options).stream(Progress.image)


@public("float32", see="average, snapshots")
def average_iter(
    ims: ImageSeries, nchunk: int, nframes: int = 0, **options: Unpack[RunOptions]
) -> Stream[np.ndarray]:
    """Iterate over the running mean: images of the frames seen so far.

    >>> [image.tolist() for image in average_iter(frames, 4)]
    [[[1.0, 8.0]], [[1.5, 7.0]], [[2.0, 6.0]], [[2.5, 5.0]]]
    """
    return reduce(ims, "average", nframes, nchunk, running=True, **options).stream(Progress.image)


@public("float32", see="std, snapshots")
def std_iter(
    ims: ImageSeries,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[RunOptions],
) -> Stream[np.ndarray]:
    """Iterate over the running `std`: images of the frames seen so far.

    >>> [image.round(4).tolist() for image in std_iter(frames, 2)]
    [[[0.5, 1.0]], [[1.1180000305175781, 2.2360999584198]]]
    """
    return reduce(ims, moments("std", ddof), nframes, nchunk, running=True, **options).stream(
        Progress.image
    )


@public("float32", see="var, snapshots")
def var_iter(
    ims: ImageSeries,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    **options: Unpack[RunOptions],
) -> Stream[np.ndarray]:
    """Iterate over the running `var`: images of the frames seen so far.

    >>> [image.round(4).tolist() for image in var_iter(frames, 2)]
    [[[0.25, 1.0]], [[1.25, 5.0]]]
    """
    return reduce(ims, moments("var", ddof), nframes, nchunk, running=True, **options).stream(
        Progress.image
    )


@public("float32", see="snr, snapshots")
def snr_iter(
    ims: ImageSeries, nchunk: int, nframes: int = 0, **options: Unpack[RunOptions]
) -> Stream[np.ndarray]:
    """Iterate over the running `snr`: images of the frames seen so far.

    >>> [image.tolist() for image in snr_iter(frames, 2)]
    [[[3.0, 7.0]], [[2.2360680103302, 2.2360680103302]]]
    """
    return reduce(ims, "snr", nframes, nchunk, running=True, **options).stream(Progress.image)


@public("float32", see="percentile, snapshots")
def percentile_iter(
    ims: ImageSeries,
    pctl: float | Sequence[float],
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[np.ndarray]:
    """Iterate over images of a `percentile` that fill up from the first row to the last.

    >>> frames = np.array([[[1], [2]], [[3], [4]]], "u2")
    >>> [image.tolist() for image in percentile_iter(frames, 100, 2)]
    [[[3.0], [0.0]], [[3.0], [4.0]]]
    """
    statistic = percentile_statistic(pctl)
    running = reduce(
        ims, statistic, nframes, nchunks, "nchunks", running=True, use_buffer=use_buffer, **options
    )
    return running.stream(Progress.image)


@public("float32", see="median, snapshots")
def median_iter(
    ims: ImageSeries,
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[np.ndarray]:
    """Iterate over images of the `median` that fill up from the first row to the last.

    >>> frames = np.array([[[1], [2]], [[3], [4]]], "u2")
    >>> [image.tolist() for image in median_iter(frames, 2)]
    [[[2.0], [0.0]], [[2.0], [3.0]]]
    """
    running = reduce(
        ims, "median", nframes, nchunks, "nchunks", running=True, use_buffer=use_buffer, **options
    )
    return running.stream(Progress.image)


@public_image("float64", see="max, min")
def range(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the difference of the maximum and the minimum of each pixel over the frames.

    >>> range(frames).compute()
    array([[3., 6.]])
    """
    return reduce(ims, "range", nframes, **options).lazy_image()


@public_image("int64", see="argmin, max")
def argmax(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the index of the frame with the maximum of each pixel, the first of equal ones.

    The first NaN counts as the maximum, as in `numpy.argmax`.

    >>> argmax(frames).compute()
    array([[3, 0]])
    """
    return reduce(ims, "argmax", nframes, **options).lazy_image()


@public_image("int64", see="argmax, min")
def argmin(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the index of the frame with the minimum of each pixel, the first of equal ones.

    The first NaN counts as the minimum, as in `numpy.argmin`.

    >>> argmin(frames).compute()
    array([[0, 3]])
    """
    return reduce(ims, "argmin", nframes, **options).lazy_image()


@public_image("int64", see="count_above")
def count(ims: ImageSeries, nframes: int = 0, **options: Unpack[Options]) -> Array:
    """Return the number of frames that count at each pixel; 0 where everything is left out.

    >>> count(frames, invalid=[4, 8]).compute()
    array([[3, 2]])
    """
    return reduce(ims, "count", nframes, **options).lazy_image()


@public_image("int64", see="count")
def count_above(
    ims: ImageSeries, threshold: float, nframes: int = 0, **options: Unpack[Options]
) -> Array:
    """Return the number of frames in which each pixel is larger than a threshold.

    >>> count_above(frames, 3).compute()
    array([[1, 3]])
    """
    return reduce(ims, ("count_above", threshold), nframes, **options).lazy_image()


@public_image("float32", see="average, median")
def clipped_average(
    ims: ImageSeries,
    sigma: float = 3,
    maxiters: int | None = 5,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Array:
    """Return the mean of each pixel over the frames without outliers: the sigma-clipped mean.

    Each round leaves out the values further than ``sigma`` standard deviations from the median,
    like `astropy.stats.sigma_clipped_stats` along the frames. NaN and the infinities never count.

    >>> frames = np.array([[[10]]] * 10 + [[[12]]] * 10 + [[[5000]]], "u2")
    >>> clipped_average(frames).compute()
    array([[11.]], dtype=float32)
    """
    statistic = ("clipped_average", sigma, maxiters)
    return reduce(ims, statistic, nframes, use_buffer=use_buffer, **options).lazy_image()


@public_images(OF_STATISTIC, see="aggregate_iter")
def aggregate(
    ims: ImageSeries,
    statistics: Sequence[NamedStatistic],
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> dict[str, Array]:
    """Return several images in one pass: computed together, they read each frame once.

    >>> import dask
    >>> images = aggregate(frames, ["max", "average", ("percentile", 25)])
    >>> (images,) = dask.compute(images)
    >>> {name: image.tolist() for name, image in images.items()}
    {'max': [[4, 8]], 'average': [[2.5, 5.0]], 'percentile_25': [[1.75, 3.5]]}
    """
    several = check_list(statistics)
    return reduce(ims, several, nframes, use_buffer=use_buffer, **options).lazy_images()


@public(OF_STATISTIC, see="aggregate, snapshots")
def aggregate_iter(
    ims: ImageSeries,
    statistics: Sequence[NamedStatistic],
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[dict[str, np.ndarray]]:
    """Iterate over the intermediate images of several statistics in one pass.

    They are images of the frames seen so far. If one of the statistics is a percentile, a median
    or a clipped average, all of them fill up from the first row to the last instead.

    >>> for images in aggregate_iter(frames, ["max", "sum"], 2):
    ...     print(images["max"], images["sum"])
    [[2 8]] [[ 3. 14.]]
    [[4 8]] [[10. 20.]]
    """
    several = check_list(statistics)
    running = reduce(ims, several, nframes, nchunk, running=True, use_buffer=use_buffer, **options)
    return running.stream(Progress.image_dict)


@public_image(OF_STATISTIC, see="snapshots, max_iter")
def partials(
    ims: ImageSeries,
    statistic: NamedStatistic,
    nchunk: int,
    nframes: int = 0,
    **options: Unpack[Options],
) -> Array:
    """Return the lazy stack of all intermediate images.

    ``partials(...)[k]`` computes the first k + 1 steps only.

    >>> partials(frames, "average", 4)[1].compute()
    array([[1.5, 7. ]], dtype=float32)
    """
    return reduce(ims, statistic, nframes, nchunk, running=True, **options).stack()


@overload
def snapshots(
    ims: ImageSeries,
    statistic: NamedStatistic,
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[Snapshot[np.ndarray]]: ...
@overload
def snapshots(
    ims: ImageSeries,
    statistic: list,
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[Snapshot[dict[str, np.ndarray]]]: ...
@public(OF_STATISTIC, see="partials, aggregate_iter")
def snapshots(
    ims: ImageSeries,
    statistic: NamedStatistic | list,
    nchunk: int,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[RunOptions],
) -> Stream[Snapshot]:
    """Iterate over intermediate images together with the progress of the call.

    >>> for snapshot in snapshots(frames, "max", 2):
    ...     print(snapshot.done, "of", snapshot.total, snapshot.image)
    2 of 4 [[2 8]]
    4 of 4 [[4 8]]
    """
    running = reduce(
        ims, statistic, nframes, nchunk, running=True, use_buffer=use_buffer, **options
    )
    return running.stream(Progress.snapshot, reading=True)


@public(OF_STATISTIC, see="memory_limit")
def plan(
    ims: ImageSeries,
    statistic: NamedStatistic | list,
    nchunk: int | None = None,
    nframes: int = 0,
    *,
    use_buffer: bool = True,
    **options: Unpack[Options],
) -> Plan:
    """Return how a call would read the series, and its memory and reads; nothing is read.

    >>> print(plan(np.zeros((100, 64, 64), "u2"), "median", memory_limit="1 GiB"))
    direct: 1 block of 64 rows, 2 at once; each frame read 1 time; at most ... of 1024 MiB
    """
    if nchunk is None:
        return reduce(ims, statistic, nframes, use_buffer=use_buffer, **options).plan
    return reduce(
        ims, statistic, nframes, nchunk, running=True, use_buffer=use_buffer, **options
    ).plan


@public_image(see="plan")
def wrap(
    ims: ImageSeries,
    along: str = "frames",
    nframes: int = 0,
    memory_limit: int | str | None = None,
    *,
    lock: bool | AbstractContextManager = False,
    dim: str | Sequence[str] | None = None,
) -> Array:
    """Return an image series as a lazily chunked dask array.

    >>> array = wrap(np.zeros((3, 4, 5), ">u2"))
    >>> array.shape, array.chunks, array.dtype
    ((3, 4, 5), ((3,), (4,), (5,)), dtype('uint16'))
    """
    return wrap_series(ims, along, nframes, memory_limit, lock, dim)


maximum, maximum_iter = max, max_iter
minimum, minimum_iter = min, min_iter
