"""One call as a value: a frozen `Reduction`, with checked arguments and a plan."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar, Unpack

import numpy as np
from dask.array import Array

from .arguments import Options, RunOptions, check_bool, count_frames, warn
from .checkpoints.identity import identity_of
from .checkpoints.manifest import JSON
from .formats.inputs import read_image, read_mask
from .graph import reducing
from .graph.arrays import check_query_planning
from .graph.build import Start, Tasks, Work
from .graph.lazy_images import LazyImages
from .graph.reading import wrapped
from .images import ImageSpec, value_if_empty
from .memory.reservation import MemoryReservation
from .planning.frame_wise import plan_frame_wise
from .planning.request import Request
from .planning.row_wise import plan_row_wise
from .planning.values import Cost, Layout, MemoryLimitError, Plan, rounded_down
from .run.checkpoint import Checkpoint
from .run.progress import Progress
from .run.runner import Runner
from .run.scheduler import Execution, Scheduler, current_scheduler
from .run.stream import Stream
from .run.ways import Planner, ways
from .scratch import location
from .series.base import Source, layout
from .series.corrected import correct, mark_of
from .series.flat import FlatSource, flattened
from .series.foreign import called, is_data_array
from .series.missing import warn_about_missing
from .series.opening import as_series
from .series.selection import select
from .statistics import STATISTICS, Statistic, check_validity
from .statistics.naming import named
from .statistics.shared import check_jit
from .statistics.validity import Validity, left_out, without_effect
from .texts import shown
from .xarray import Labels, values_of, without_labels

T = TypeVar("T")

logger = logging.getLogger("daskstats")


@dataclass(frozen=True, eq=False)
class Reduction:
    """One call: checked, planned, and not yet run.

    `reduce` makes it of the arguments of a public function. Its methods are the results that a call
    may have: lazy images, the lazy stack of all steps, or a stream of intermediate images.
    """

    series: Source
    statistic: Statistic
    """of the partial states: one statistic, or several fused"""
    names: tuple[str, ...]
    """of the images in a result of several"""
    images: tuple[ImageSpec, ...]
    """one for each name"""
    plan: Plan
    scheduler: Scheduler
    limit: int
    """bytes that all calls of this process may use together"""
    several: bool = False
    """whether the caller has given a list of statistics"""
    labels: Labels | None = None
    """of the images, if the series is a DataArray: then lazy results are DataArrays too"""
    options: RunOptions = field(default_factory=lambda: RunOptions())
    """the keywords of the call"""

    def __post_init__(self) -> None:
        logger.debug("planned: %s", self)

    def lazy_image(self) -> Array:
        """Return the lazy image of one statistic."""
        (image,) = self._lazy_images()
        return image if self.labels is None else self.labels.labelled(image)

    def lazy_images(self) -> LazyImages:
        """Return the lazy images; computed together, they read the series once."""
        images = LazyImages(zip(self.names, self._lazy_images(), strict=True))
        return images if self.labels is None else self.labels.dataset(images)

    def stack(self) -> Array:
        """Return the lazy stack of the images of all steps."""
        stack = reducing.stack(self._work, self._lazy_reservation())
        return stack if self.labels is None else self.labels.labelled(stack, leading={"step": None})

    def _lazy_images(self) -> list[Array]:
        return reducing.lazy_images(self._work, self.names, self._lazy_reservation())

    def stream(self, view: Callable[[Progress], T], *, reading: bool = False) -> Stream[T]:
        """Return an iterator over views of the progress, one for each step.

        Parameters
        ----------
        view : function
            `Progress.image`, `Progress.image_dict` or `Progress.snapshot`.
        reading : bool
            Whether there are views while all frames are read before the first row is reduced.
        """
        checkpoint = self.open_checkpoint()
        try:
            work = self._work if checkpoint is None else checkpoint.work(self._work)
            return self._stream(work, view, reading, checkpoint)
        except BaseException:
            if checkpoint is not None:
                checkpoint.end()
            raise

    def continued(self, start: Start, view: Callable[[Progress], T]) -> Stream[T]:
        """Return such an iterator that begins with the state of an earlier call.

        States of floats depend on the ranges of frames that they are combined of, so each frame is
        one: then it does not matter how many frames the earlier call had.
        """
        work = self._work.continued(start)
        if self.series.dtype.kind == "f":
            work = replace(work, plan=work.plan.one_by_one())
        return self._stream(work, view)

    def _stream(
        self,
        work: Work,
        view: Callable[[Progress], T],
        reading: bool = False,
        checkpoint: Checkpoint | None = None,
    ) -> Stream[T]:
        start = work.start
        if start is not None and start.done == self.plan.total:
            execution = Execution(Tasks(), Runner, Progress.add_partials)
        else:
            execution = self.scheduler.execution(work, reading)
        progress = Progress(work, self.names, self.several, execution.absorb, execution.reading)
        reservation = MemoryReservation(self.plan.nbytes, self.limit)
        reservation.reserve()
        length = len(execution.reading) + len(work.plan.steps)
        logger.info("%s", self)
        if start is not None and start.done:
            logger.info("continued after %d of %d %s", start.done, progress.total, work.plan.along)
        return Stream(execution, progress, view, length, reservation, checkpoint)

    def open_checkpoint(self, written: bool = False) -> Checkpoint | None:
        """Open the checkpoint of the call, if it has one; the series may be written meanwhile."""
        path = self.options.get("checkpoint")
        restart = check_bool(self.options.get("restart", False), "restart")
        if path is None:
            if restart:
                raise TypeError("restart is for a checkpoint, and the call has none")
            return None
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"checkpoint must be the path of a directory, got {shown(path)}")
        by_rows = self.statistic.along == "rows"
        return Checkpoint(path, self.identity(), self._frames, by_rows, restart, written)

    def identity(self) -> dict[str, JSON]:
        """Return the values that tell this call from others; three frames are read."""
        nframes = self.plan.layout.nframes
        return identity_of(self._frames, nframes, self.statistic, self.names, self.options)

    @property
    def _frames(self) -> Source:
        """The series; columns of pixels are those of the same frames."""
        return self.series.source if isinstance(self.series, FlatSource) else self.series

    def __str__(self) -> str:
        rows, cols = self.images[0].rows, self.images[0].cols
        return (
            f"{', '.join(self.names)} of {self.plan.layout.nframes} frames of {rows} x {cols} "
            f"{self.series.dtype}, {len(self.plan.steps)} steps: {self.plan}"
        )

    @property
    def _work(self) -> Work:
        return Work(self.series, self.statistic, self.plan, self.images)

    def _lazy_reservation(self) -> MemoryReservation | None:
        return self.scheduler.lazy_reservation(self.plan.nbytes, self.limit)


def reduce(
    ims: Any,
    statistics: Any,
    nframes: int = 0,
    nchunk: Any = 1,
    chunk_name: str = "nchunk",
    *,
    use_buffer: bool = True,
    running: bool | Literal["kept"] = False,
    **options: Unpack[RunOptions],
) -> Reduction:
    """Check the arguments of a call and plan it; nothing is read.

    Parameters
    ----------
    ims
        The series, or its path.
    statistics
        A name, tuple or `Statistic`, or a list of them.
    nframes : int
        Frames to use; 0: all.
    nchunk : int or AtMost
        Intermediate images.
    chunk_name : str
        The name of that argument, for errors.
    use_buffer : bool
        Whether frames may be kept for row-wise statistics.
    running : bool or "kept"
        Whether intermediate images are wanted; and whether a later call continues from the state.
    **options
        The common keywords.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; the message names it.
    MemoryLimitError
        If the memory limit is too small.
    """
    check_query_planning()
    names, members = named(statistics)
    if any(member.name in STATISTICS for member in members):
        check_jit()
    series, mask, validity, labels = opened(ims, members, options)
    shape = layout(series, count_frames(nframes, len(series)))
    warn_about_missing(series, shape.nframes)
    specs = image_specs(members, shape, series.dtype, mask, validity, options)
    scheduler = current_scheduler()
    limit = scheduler.limit(options.get("memory_limit"))
    runs = bool(running), running == "kept" or options.get("checkpoint") is not None
    planner = Planner(series, scheduler, limit, nchunk, chunk_name, use_buffer, *runs)
    way, plan = planner.first(ways(series, shape, specs, planner.by_rows))
    specs = way.specs
    if plan.in_pixels:
        series = flattened(series)
        specs = [replace(spec, in_pixels=True) for spec in specs]
    if plan.disk is not None:
        location.find_location()  # refuses a directory that is not there
    several = isinstance(statistics, list)
    images = tuple(names), tuple(specs)
    frames = series, way.statistic
    return Reduction(*frames, *images, plan, scheduler, limit, several, labels, options)


def opened(
    ims: Any, members: list[Statistic], options: Options
) -> tuple[Source, np.ndarray | None, Validity, Labels | None]:
    """Return the frames of a call, their mask, which values count, and the labels of images."""
    ims, labels = unlabelled(ims, options.get("dim"))
    if isinstance(options.get("frames"), Iterator):
        options["frames"] = list(options["frames"])  # they are needed again
    options["dark"] = values_of(options.get("dark"), labels)
    whole, validity = corrected(as_series(ims, options.get("lock", False)), options)
    region = options.get("region")
    series = select(whole, values_of(options.get("frames")), region)
    labels = labels and labels.of_call(members, options.get("flip"), region)
    mask = check_mask(values_of(options.get("mask"), labels), whole, series, region)
    return series, mask, validity, labels


def unlabelled(ims: Any, dim: object) -> tuple[Any, Labels | None]:
    """Return the series in a DataArray, and its labels; of any other object no labels."""
    if is_data_array(ims):
        return without_labels(ims, dim)
    if dim is not None:
        raise TypeError(
            f"dim names the frames of an xarray.DataArray, and the series is of type "
            f"{called(type(ims))}: leave it out"
        )
    return ims, None


def wrap_series(
    ims: Any,
    along: str,
    nframes: int,
    memory_limit: int | str | None,
    lock: bool | AbstractContextManager,
    dim: str | Sequence[str] | None = None,
) -> Array:
    """Return a series as a lazily chunked dask array; see `api.wrap`."""
    check_query_planning()
    if along not in ("frames", "rows"):
        raise ValueError(f'along must be "frames" or "rows", got {along!r}')
    ims, labels = unlabelled(ims, dim)
    series = as_series(ims, lock)
    shape = layout(series, count_frames(nframes, len(series)))
    warn_about_missing(series, shape.nframes)
    scheduler = current_scheduler()
    shape, replicas = scheduler.prepare(series, None, shape)
    limit = scheduler.limit(memory_limit)
    request = Request(shape, Cost(), 1, scheduler.workers, limit, processes=scheduler.processes)
    # Frames that are kept would be sent from process to process, except by a cluster.
    kept = scheduler.shares_memory or scheduler.processes > 0
    plan = plan_frame_wise(request) if along == "frames" else plan_row_wise(request, kept)
    if plan.in_pixels:
        raise MemoryLimitError(
            f"one row of all {shape.nframes} frames for each of {scheduler.workers} workers does "
            f"not fit in {rounded_down(limit)}: raise memory_limit, or wrap along frames"
        )
    reservation = scheduler.lazy_reservation(plan.nbytes, limit)
    frames = wrapped(series, replace(plan, replicas=replicas), reservation)
    return frames if labels is None else labels.frames(frames)


def image_specs(
    members: list[Statistic],
    shape: Layout,
    frames: np.dtype,
    mask: np.ndarray | None,
    validity: Validity,
    options: Options,
) -> list[ImageSpec]:
    """Return the image of each statistic: dtype, mask, fill, and the values that count."""
    fill = options.get("fill_value")
    found = []
    for member in members:
        valid = member.excluding(validity, fill)
        dtype = valid.image_dtype(frames, options.get("dtype"))
        value = None if mask is None else value_if_empty(valid, dtype, fill)
        found.append(ImageSpec(valid, shape.rows, shape.cols, dtype, mask, value))
    return found


def validity_of(options: Options, frames: np.dtype) -> Validity:
    """Return which values of frames of a dtype count; warn of those that frames cannot have."""
    skipna = options.get("skipna", False)
    validity = check_validity(options.get("invalid"), options.get("saturation"), skipna)
    remark = without_effect(validity, frames, nan=validity.skipna and not skipna)
    if remark:
        warn(remark)
    return validity


def corrected(raw: Source, options: Options) -> tuple[Source, Validity]:
    """Return the series of corrected frames, and which of their values count.

    Values that do not count are found before the dark is subtracted: a saturated pixel stays one.
    """
    validity = validity_of(options, raw.dtype)
    dark, flip = options.get("dark"), options.get("flip")
    if isinstance(dark, str | os.PathLike):
        dark = read_image(dark, "dark")
    if dark is None or replace(validity, skipna=False) == Validity():
        return correct(raw, dark, flip), validity
    series = correct(raw, dark, flip, partial(left_out, validity))
    return series, Validity((mark_of(series.dtype),), None, validity.skipna)


def check_mask(mask: Any, whole: Source, series: Source, region: Any) -> np.ndarray | None:
    """Return the mask of the region, None if it leaves nothing out."""
    if mask is None:
        return None
    mask = read_mask(mask) if isinstance(mask, str | os.PathLike) else np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"mask must be an array of bool, True for pixels that are left out, got {mask.dtype}"
        )
    if mask.shape not in (whole.shape, series.shape):
        raise ValueError(f"mask has shape {mask.shape}, expected {whole.shape} as the frames")
    if mask.shape != series.shape:
        mask = mask[tuple(slice(*edges) for edges in region)]
    return mask.copy() if mask.any() else None
