"""What every call works out first: arguments, outputs, plan; and how it becomes images."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypedDict, Unpack
from uuid import uuid4

import dask
import numpy as np
from dask.array import Array

from . import config
from .arguments import count_chunks, count_frames, shown, warn
from .graph import build, reducing
from .graph.row_parallel import StepImages
from .images import ImageSpec
from .memory import reservation
from .memory.available import memory_limit
from .planning import frame_wise, row_wise
from .planning import values as planning_values
from .planning.request import Request
from .run import scheduler as run_scheduler
from .run import stream
from .run import workers as run_workers
from .run.progress import Images
from .run.scheduler import Scheduler
from .run.stream import Snapshot, Stream
from .run.workers import Workers
from .scratch import location
from .series.base import Source, layout, warn_about_missing
from .series.flat import flattened
from .series.opening import as_series
from .series.selection import select
from .statistics import STATISTICS, Statistic, as_statistic, can_hold, check_validity
from .statistics.base import without_effect
from .statistics.fusion import together
from .statistics.shared import check_jit


class Options(TypedDict, total=False):
    """The keywords that every public function takes; `api` documents them."""

    dtype: Any
    memory_limit: int | str | None
    lock: bool | AbstractContextManager
    frames: Any
    region: Any
    mask: Any
    invalid: Any
    saturation: float | None
    skipna: bool
    fill_value: Any


class Job:
    """What every public function works out first: checked arguments, plan, and dtype."""

    def __init__(
        self,
        ims: Any,
        statistics: Any,
        nframes: int = 0,
        nchunk: Any = 1,
        chunk_name: str = "nchunk",
        *,
        use_buffer: bool = True,
        running: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_query_planning()
        self.several = isinstance(statistics, list)
        self.keys, members = named(statistics)
        if any(member.name in STATISTICS for member in members):
            check_jit()
        whole = as_series(ims, options.get("lock", False))
        region = options.get("region")
        self.series: Source = select(whole, options.get("frames"), region)
        self.layout = layout(self.series, count_frames(nframes, self.series))
        warn_about_missing(self.series, self.layout.nframes)
        frames, mask = (
            self.series.dtype,
            check_mask(options.get("mask"), whole, self.series, region),
        )
        self.outputs = outputs(members, self.layout, frames, mask, options)
        members = [output.statistic for output in self.outputs]
        self.statistic = together(members, [output.dtype for output in self.outputs], frames)
        if len(members) > 1:
            every = zip(self.outputs, self.statistic.members, strict=True)
            self.outputs = [replace(output, statistic=own) for output, own in every]
        self.rowwise = self.statistic.along == "rows"
        self.total = self.layout.rows if self.rowwise else self.layout.nframes
        self.steps = count_chunks(nchunk, self.total, chunk_name)
        self.scheduler = run_scheduler.current_scheduler()
        self._replicas = 1
        if self.scheduler.sends:
            run_workers.check_sent(self.series, self.statistic)
        if self.scheduler.cluster is not None:
            processes = self.scheduler.cluster.processes
            self._replicas = run_workers.count_sources(self.series, processes)
            run_workers.sent_nbytes(self.statistic)
            # What a task is not sent is read by its worker.
            sent = self.series.part(0, 1, 0, 1) is not None
            self.layout = replace(self.layout, in_memory=self.layout.in_memory and sent)
        nbytes = limit(options.get("memory_limit"), self.scheduler)
        try:
            # Beside the iterators and computations of this process that are open now.
            self.plan = self._plan(reservation.unreserved(nbytes), use_buffer, running)
        except planning_values.MemoryLimitError:
            # After them.
            self.plan = self._plan(nbytes, use_buffer, running)
        if self.plan.in_pixels:
            self.series = flattened(self.series)
            self.outputs = [replace(output, in_pixels=True) for output in self.outputs]
        if self.plan.disk is not None:
            location.find_location()  # which refuses a directory that is not there
        self.share = reservation.MemoryReservation(self.plan.nbytes, nbytes)

    def _plan(self, nbytes: int, use_buffer: bool, running: bool) -> planning_values.Plan:
        cost = planning_values.Cost(
            state=self.statistic.state_size(self.series.dtype, self.layout.nframes),
            image=sum(o.dtype.itemsize * (o.statistic.planes or 1) for o in self.outputs),
            temporaries=self.statistic.scratch_size(self.series.dtype),
            tile=self.statistic.tile[0] + self.statistic.tile[1] * self.layout.nframes,
        )
        workers = self.scheduler.cluster
        if workers is not None:
            try:
                plan = self._plan_for(workers, cost, nbytes, use_buffer)
                return replace(plan, replicas=self._replicas)
            except planning_values.MemoryLimitError as error:
                raise planning_values.MemoryLimitError(f"{error} ({workers})") from None
        request = Request(self.layout, cost, self.steps, self.scheduler.workers, nbytes, running)
        if not self.rowwise:
            return frame_wise.plan_frame_wise(request, self.scheduler.shares_memory)
        use_buffer = use_buffer and self.scheduler.shares_memory
        disk = location.scratch_disk() if use_buffer else None
        return row_wise.plan_row_wise(request, use_buffer, disk)

    def _plan_for(
        self, workers: Workers, cost: planning_values.Cost, nbytes: int, use_buffer: bool
    ) -> planning_values.Plan:
        """Plan for each worker of a cluster."""
        request = Request(
            self.layout, cost, self.steps, workers.each, nbytes, processes=workers.processes
        )
        if not self.rowwise:
            fan_in = min(planning_values.FAN_IN, workers.threads)
            return frame_wise.plan_frame_wise(request, chained=False, fan_in=fan_in)
        shuffle = run_workers.shuffle_nbytes() if use_buffer else 0
        shared = shared_disk(workers) if use_buffer else None
        return row_wise.plan_row_wise(request, use_buffer, shared, shuffle)

    def image(self) -> Array:
        """Return the lazy image of one statistic."""
        return next(iter(self.results().values()))

    def results(self) -> dict[str, Array]:
        """Return the lazy images; computed together, they read the series once."""
        arguments = self.series, self.statistic, self.plan, self.outputs
        return dict(zip(self.keys, reducing.results(*arguments, self._shared()), strict=True))

    def stack(self) -> Array:
        """Return the lazy stack of the images of all steps."""
        (output,) = self.outputs
        return reducing.stack(self.series, self.statistic, self.plan, output, self._shared())

    def _shared(self) -> reservation.MemoryReservation | None:
        """Return the share that each run of a lazy image begins, where memory is shared."""
        return self.share if self.scheduler.shares_memory else None

    def images(self) -> Stream[np.ndarray]:
        """Return the images, one for each step."""
        return self._stream(lambda index, images: images[0], waits=False)

    def dicts(self) -> Stream[dict[str, np.ndarray]]:
        """Return the images of all statistics, a dict for each step."""
        return self._stream(lambda index, images: self._named(images), waits=False)

    def _named(self, images: list[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.keys, images, strict=True))

    def snapshots(self) -> Stream[Snapshot]:
        """Return the images with what they have seen, after one for each part of a spool."""
        return self._stream(self._snapshot, waits=True)

    def _stream(self, finish: Callable[[int, list[np.ndarray]], Any], waits: bool) -> Stream:
        scheduler, canvases = self.scheduler, None
        if scheduler.in_turn and not self.rowwise and self.series.view(0, 1, 0, 1) is not None:
            tasks, keys, canvases = self._lanes()
            to_images: Callable[[Any], list[np.ndarray]] = _only
        else:
            tasks, keys, to_images = self._running()
        spooled: list = tasks.spooled if waits else []
        first, grouped = len(spooled), scheduler.in_turn or scheduler.client is not None
        keys = [*([key] if grouped else key for key in spooled), *keys]
        flat, steps = tasks.runnable(keys), first + self.steps
        self.share.reserve()
        return Stream(
            start=lambda: self._start(flat, keys, steps, canvases, tasks.shuffles),
            finish=lambda index, value: (
                finish(index - first, to_images(value))
                if index >= first
                else self._waiting(index, value)
            ),
            length=steps,
            release=lambda: self._release(tasks),
            waiting=self.share.consuming,
        )

    def _start(
        self,
        tasks: dict,
        keys: list,
        steps: int,
        canvases: StepImages | None,
        at_once: bool,
    ) -> stream.AnyRun:
        try:
            self.share.begin()
        except MemoryError as error:
            raise planning_values.MemoryLimitError(str(error)) from None
        return stream.run(tasks, keys, self.scheduler, steps, canvases, at_once)

    def _release(self, tasks: build.Tasks) -> None:
        tasks.release()
        self.share.release()

    def _waiting(self, index: int, value: Any) -> Snapshot:
        if self.scheduler.client is not None:
            deque(value, maxlen=0)  # which waits for it
        done, total = self.plan.groups[index][1], self.layout.nframes
        seen = np.broadcast_to(np.False_, (self.layout.rows, self.layout.cols))
        return Snapshot(self._image([o.blank() for o in self.outputs]), done, total, seen, "spool")

    def _image(self, images: list[np.ndarray]) -> Any:
        """Return what a snapshot has: an image, or a dict of them if several were asked for."""
        return self._named(images) if self.several else images[0]

    def _lanes(self) -> tuple[build.Tasks, list, StepImages]:
        return reducing.lanes(self.series, self.statistic, self.plan, self.outputs)

    def _running(self) -> tuple[build.Tasks, list, Callable[[Any], list[np.ndarray]]]:
        """Return tasks, the keys of each step, and what makes images of their value."""
        arguments = self.series, self.statistic, self.plan
        if self.scheduler.client is not None:
            images = Images(self.statistic, self.outputs)
            return *reducing.per_step_partials(*arguments), images.after
        running = not self.scheduler.in_turn
        images = Images(self.statistic, self.outputs, running)
        if running:
            return *reducing.states(*arguments), lambda state: images.after([state])
        tasks, keys = reducing.parts(*arguments, token=uuid4().hex)
        return tasks, [[key] for key in keys], images.after

    def _snapshot(self, index: int, images: list[np.ndarray]) -> Snapshot:
        done = self.plan.steps[index][-1][1] // self.plan.layout.width
        seen = np.zeros((self.layout.rows, 1), bool)
        seen[: done if self.rowwise else self.layout.rows] = True
        seen = np.broadcast_to(seen, (self.layout.rows, self.layout.cols))
        return Snapshot(self._image(images), done, self.total, seen)


def _only(group: list) -> Any:
    return group[0]


def limit(value: int | float | str | None, scheduler: Scheduler) -> int:
    """Return the bytes that a call may use on a scheduler; on a cluster, in each worker.

    There it is what the smallest worker can hold, at most, and an equal part of what the call is
    allowed.
    """
    workers = scheduler.cluster
    if workers is None:
        return memory_limit(value)
    budget = workers.budget(config.memory_fraction())
    given = value is not None or config.memory_limit() is not None
    if given or budget is None:
        # Workers without a limit are taken to share this machine.
        share = memory_limit(value) // workers.processes
        return share if budget is None else min(share, budget)
    return budget


def named(statistics: Any) -> tuple[list[str], list[Statistic]]:
    """Return the name of each statistic in the result, and the statistics.

    >>> named(["max", ("percentile", [5, 95]), ("percentile", 50)])[0]
    ['max', 'percentile_5_95', 'percentile_50']
    """
    every = statistics if isinstance(statistics, list) else [statistics]
    if not every:
        raise ValueError("there are no statistics in the list")
    members = [as_statistic(statistic) for statistic in every]
    keys = [_key(given, found) for given, found in zip(every, members, strict=True)]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the statistics have names more than once: {', '.join(twice)}")
    return keys, members


def _key(given: Any, statistic: Statistic) -> str:
    if not isinstance(given, tuple):
        return statistic.name
    name, *parameters = given
    values = [value for parameter in parameters for value in np.atleast_1d(parameter)]
    return "_".join([name, *map(_text, values)])


def _text(value: Any) -> str:
    """Return a parameter as it is written: 95.0 as 95, and all digits of 1000001."""
    whole = isinstance(value, float) and value.is_integer()
    return shown(int(value)) if whole or isinstance(value, int) else str(value)


def outputs(
    members: list[Statistic],
    shape: planning_values.Layout,
    frames: np.dtype,
    mask: np.ndarray | None,
    options: Options,
) -> list[ImageSpec]:
    """Return what the images of each statistic are, with what is left out of them."""
    left_out = options.get("invalid"), options.get("saturation")
    skipna = options.get("skipna", False)
    validity = check_validity(*left_out, skipna)
    fill = options.get("fill_value")
    found = []
    for member in members:
        valid = member.excluding(validity, fill)
        dtype = valid.image_dtype(frames, options.get("dtype"))
        value = None if mask is None else fill_of(valid, dtype, fill)
        found.append(ImageSpec(valid, shape.rows, shape.cols, dtype, mask, value))
    remark = without_effect(validity, frames, nan=validity.skipna and not skipna)
    if remark:
        warn(remark)
    return found


def fill_of(statistic: Statistic, dtype: np.dtype, fill: Any) -> Any:
    """Return what stands in an image where the mask leaves everything out."""
    if statistic.empty is not None:
        return statistic.empty
    if fill is None and dtype.kind != "f":
        raise ValueError(
            f"the {dtype} image of {statistic.name} has no NaN for what the mask leaves out: "
            f"give a fill_value, or a float as dtype"
        )
    if fill is not None and not can_hold(fill, dtype):
        raise ValueError(
            f"fill_value {shown(fill)} cannot be held by the {dtype} image of {statistic.name}"
        )
    return np.nan if fill is None else fill


def check_mask(mask: Any, whole: Source, series: Source, region: Any) -> np.ndarray | None:
    """Return the mask of the region, None if it leaves nothing out."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"mask must be an array of bool, True for what is left out, got {mask.dtype}"
        )
    if mask.shape not in (whole.shape, series.shape):
        raise ValueError(f"mask has shape {mask.shape}, expected {whole.shape} as the frames")
    if mask.shape != series.shape:
        mask = mask[tuple(slice(*edges) for edges in region)]
    return mask.copy() if mask.any() else None


def shared_disk(workers: Workers) -> planning_values.Disk | None:
    """Return where the workers of a cluster may let frames wait, None if nothing is configured."""
    if config.scratch_directory() is None:
        return None
    return location.scratch_disk(workers.cluster)


def check_query_planning() -> None:
    """Refuse dask's array expressions, which graphs of our own cannot join."""
    if dask.config.get("array.query-planning", None):
        raise RuntimeError(
            "daskstats does not work with dask's array.query-planning: "
            "leave it off (DASK_ARRAY__QUERY_PLANNING=False) before dask.array is imported"
        )
