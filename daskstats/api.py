"""The public functions: each wires a series, a statistic, a plan and a graph together."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import dask
import numpy as np
from dask.array import Array

from . import graph, memory, plan, stream
from .memory import memory_limit
from .series import Source, as_series, count_chunks, count_frames, layout
from .statistics import Images, Statistic, as_statistic, moments
from .statistics import percentile as percentile_statistic
from .stream import Scheduler, Snapshot, Stream

# In this module max, min and sum are the public functions, never the built-ins.

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
    Whether only one thread at a time may read the series."""

ERRORS = """\
ValueError, TypeError
    If an argument is wrong; the message names it. Errors of arguments come at the call.
MemoryLimitError
    If the memory limit is too small for even the smallest blocks; nothing is read then."""


def documented(dtype: str) -> Callable[[F], F]:
    """Put the text on common parameters and errors into a docstring."""

    def fill(function: F) -> F:
        text = inspect.cleandoc(function.__doc__ or "")
        text = text.replace("{common}", COMMON.replace("{dtype}", dtype))
        function.__doc__ = text.replace("{errors}", ERRORS)
        return function

    return fill


class Job:
    """What every public function works out first: checked arguments, plan, and dtype."""

    def __init__(
        self,
        ims: Any,
        statistic: Any,
        nframes: int = 0,
        nchunk: Any = 1,
        chunk_name: str = "nchunk",
        dtype: Any = None,
        memory_limit: int | str | None = None,
        lock: bool | AbstractContextManager = False,
        use_buffer: bool = True,
    ) -> None:
        check_query_planning()
        self.statistic = as_statistic(statistic)
        self.series: Source = as_series(ims, lock)
        self.layout = layout(self.series, count_frames(nframes, self.series))
        rows, cols = self.layout.rows, self.layout.cols
        self.rowwise = self.statistic.along == "rows"
        self.total = rows if self.rowwise else self.layout.nframes
        self.steps = count_chunks(nchunk, self.total, chunk_name)
        self.shape = self.statistic.image_shape(rows, cols)
        self.dtype = self.statistic.image_dtype(self.series.dtype, dtype)
        self.scheduler = stream.current_scheduler()
        self.plan = self._plan(limit(memory_limit, self.scheduler), use_buffer)

    def _plan(self, nbytes: int, use_buffer: bool) -> plan.Plan:
        planes = self.statistic.planes or 1
        cost = plan.Cost(
            state=self.statistic.state_nbytes,
            image=self.dtype.itemsize * planes,
            scratch=self.statistic.scratch,
            tile=self.statistic.tile[0] + self.statistic.tile[1] * self.layout.nframes,
        )
        arguments = self.layout, cost, self.steps, self.scheduler.workers, nbytes
        if self.rowwise:
            return plan.bands(*arguments, use_buffer and self.scheduler.shares_memory)
        return plan.fold(*arguments)

    def image(self) -> Array:
        return graph.result(self.series, self.statistic, self.plan, self.dtype)

    def stack(self) -> Array:
        return graph.stack(self.series, self.statistic, self.plan, self.dtype)

    def images(self) -> Stream[np.ndarray]:
        return self._stream(lambda index, image: image)

    def snapshots(self) -> Stream[Snapshot]:
        return self._stream(self._snapshot)

    def _stream(self, finish: Callable[[int, np.ndarray], Any]) -> Stream:
        scheduler, canvases = self.scheduler, None
        if scheduler.in_turn and not self.rowwise and self.series.view(0, 1, 0, 1) is not None:
            tasks, keys, canvases = self._lanes()
            to_image: Callable[[Any], np.ndarray] = _only
        else:
            tasks, keys, to_image = self._running()
        flat = tasks.runnable(keys)
        return Stream(
            start=lambda: stream.run(flat, keys, scheduler, self.steps, canvases),
            finish=lambda index, value: finish(index, to_image(value)),
            length=self.steps,
        )

    def _lanes(self) -> tuple[graph.Tasks, list, graph.Canvases]:
        return graph.lanes(self.series, self.statistic, self.plan, self.shape, self.dtype)

    def _running(self) -> tuple[graph.Tasks, list, Callable[[Any], np.ndarray]]:
        """Return tasks, the keys of each step, and what makes their value an image."""
        arguments = self.series, self.statistic, self.plan
        if self.scheduler.client is not None:
            # The image is finished where the state is, and only that travels.
            return *graph.images(*arguments, self.dtype), _own
        running = not self.scheduler.in_turn
        images = Images(self.statistic, self.shape, self.dtype, running)
        if running:
            return *graph.states(*arguments), images.next
        tasks, keys = graph.parts(*arguments)
        return tasks, [[key] for key in keys], lambda states: images.next(*states)

    def _snapshot(self, index: int, image: np.ndarray) -> Snapshot:
        done = self.plan.steps[index][-1][1]
        seen = np.arange(self.layout.rows)[:, None] < (done if self.rowwise else self.layout.rows)
        seen = np.broadcast_to(seen, (self.layout.rows, self.layout.cols))
        return Snapshot(image, done, self.total, seen)


def _only(images: list[np.ndarray]) -> np.ndarray:
    return images[0]


def _own(image: np.ndarray) -> np.ndarray:
    """Return an image that may be written to, whatever it arrived in."""
    return image if image.flags.writeable and image.base is None else image.copy()


def limit(value: int | float | str | None, scheduler: Scheduler) -> int:
    """Return the bytes that a call may use on a scheduler.

    On a cluster that is what its workers' limits allow for as many threads as there are, the
    smallest share of a thread counting for all.
    """
    if value is not None or dask.config.get("daskstats.memory-limit", None) is not None:
        return memory_limit(value)
    share = scheduler.smallest_share()
    if share is None:
        return memory_limit()
    return int(memory.fraction() * share * scheduler.workers)


def check_query_planning() -> None:
    """Refuse dask's array expressions, which graphs of our own cannot join."""
    if dask.config.get("array.query-planning", None):
        raise RuntimeError(
            "daskstats does not work with dask's array.query-planning: "
            "leave it off (DASK_ARRAY__QUERY_PLANNING=False) before dask.array is imported"
        )


@documented("that of the frames")
def max(
    ims: Any,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    return Job(ims, "max", nframes, dtype=dtype, memory_limit=memory_limit, lock=lock).image()


@documented("that of the frames")
def min(
    ims: Any,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    return Job(ims, "min", nframes, dtype=dtype, memory_limit=memory_limit, lock=lock).image()


@documented("float64")
def sum(
    ims: Any,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    return Job(ims, "sum", nframes, dtype=dtype, memory_limit=memory_limit, lock=lock).image()


@documented("float32")
def average(
    ims: Any,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    return Job(ims, "average", nframes, dtype=dtype, memory_limit=memory_limit, lock=lock).image()


@documented("float32")
def std(
    ims: Any,
    nframes: int = 0,
    *,
    ddof: float = 0,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
) -> Array:
    """Return the standard deviation of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums and squares of 8-
    and 16-bit integers are exact; moments of other frames are carried in pairs of float64 and
    merged (Chan, Golub and LeVeque 1983). A pixel that is NaN in any frame is NaN.

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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, moments("std", ddof), nframes, **options).image()


@documented("float32")
def var(
    ims: Any,
    nframes: int = 0,
    *,
    ddof: float = 0,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
) -> Array:
    """Return the variance of each pixel over the frames.

    It is never negative, and exactly 0 for a pixel that does not change. Sums and squares of 8-
    and 16-bit integers are exact; moments of other frames are carried in pairs of float64 and
    merged (Chan, Golub and LeVeque 1983). A pixel that is NaN in any frame is NaN.

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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, moments("var", ddof), nframes, **options).image()


@documented("float32")
def percentile(
    ims: Any,
    pctl: float | Sequence[float],
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
    use_buffer: bool = True,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    statistic = percentile_statistic(pctl)
    return Job(ims, statistic, nframes, use_buffer=use_buffer, **options).image()


@documented("float32")
def median(
    ims: Any,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
    use_buffer: bool = True,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, "median", nframes, use_buffer=use_buffer, **options).image()


@documented("that of the frames")
def max_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, "max", nframes, nchunk, **options).images()


@documented("that of the frames")
def min_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, "min", nframes, nchunk, **options).images()


@documented("float64")
def sum_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, "sum", nframes, nchunk, **options).images()


@documented("float32")
def average_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, "average", nframes, nchunk, **options).images()


@documented("float32")
def std_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, moments("std", ddof), nframes, nchunk, **options).images()


@documented("float32")
def var_iter(
    ims: Any,
    nchunk: int,
    nframes: int = 0,
    *,
    ddof: float = 0,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, moments("var", ddof), nframes, nchunk, **options).images()


@documented("float32")
def percentile_iter(
    ims: Any,
    pctl: float | Sequence[float],
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    statistic = percentile_statistic(pctl)
    return Job(
        ims, statistic, nframes, nchunks, "nchunks", use_buffer=use_buffer, **options
    ).images()


@documented("float32")
def median_iter(
    ims: Any,
    nchunks: int,
    nframes: int = 0,
    use_buffer: bool = True,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(
        ims, "median", nframes, nchunks, "nchunks", use_buffer=use_buffer, **options
    ).images()


@documented("that of the statistic's own function")
def partials(
    ims: Any,
    statistic: str | tuple | Statistic,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, statistic, nframes, nchunk, **options).stack()


@documented("that of the statistic's own function")
def snapshots(
    ims: Any,
    statistic: str | tuple | Statistic,
    nchunk: int,
    nframes: int = 0,
    *,
    dtype: Any = None,
    memory_limit: int | str | None = None,
    lock: bool | AbstractContextManager = False,
    use_buffer: bool = True,
) -> Stream[Snapshot]:
    """Iterate over intermediate images that say what they have seen.

    Parameters
    ----------
    {common}
    statistic : str, tuple or Statistic
        A name, or a name with its parameter: ``("percentile", 95)``.
    nchunk : int
        Number of intermediate images.
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
    options = {"dtype": dtype, "memory_limit": memory_limit, "lock": lock}
    return Job(ims, statistic, nframes, nchunk, use_buffer=use_buffer, **options).snapshots()


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
    scheduler = stream.current_scheduler()
    cut = plan.fold if along == "frames" else plan.bands
    shape = layout(series, count_frames(nframes, series))
    return graph.wrapped(
        series, cut(shape, plan.Cost(), 1, scheduler.workers, limit(memory_limit, scheduler))
    )


maximum, maximum_iter = max, max_iter
minimum, minimum_iter = min, min_iter
