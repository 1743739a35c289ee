"""The ways to reduce a series: sparse frames as they are, or every frame with all of its pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ..images import ImageSpec
from ..memory.reservation import unreserved
from ..planning.request import Request
from ..planning.steps import AtMost, count_steps, plan_steps
from ..planning.values import Cost, Layout, MemoryLimitError, Plan
from ..series.base import Source
from ..series.sparse import SparseSource
from ..statistics import Statistic
from ..statistics.folds import Fold
from ..statistics.fusion import FusedStatistic, fuse
from ..statistics.sparse import GAP
from ..statistics.sparse_bands import fuse_sparse
from .scheduler import Scheduler


class Way(NamedTuple):
    """A layout of frames as they are read, the images, and the statistic of partial states."""

    layout: Layout
    specs: list[ImageSpec]
    statistic: Statistic

    def cost(self, frames: np.dtype) -> Cost:
        """Return the cost in bytes per pixel, for frames of a dtype."""
        statistic, nframes = self.statistic, self.layout.nframes
        fixed, each = statistic.tile
        gaps = GAP if self.layout.sparse and statistic.along == "frames" else 0
        return Cost(
            state=statistic.state_size(frames, nframes),
            image=sum(spec.dtype.itemsize * (spec.statistic.planes or 1) for spec in self.specs),
            temporaries=statistic.scratch_size(frames) + gaps,
            tile=fixed + each * nframes,
        )


def own_images(specs: Sequence[ImageSpec], statistic: Statistic) -> list[ImageSpec]:
    """Return the images of a statistic: of a fused one, each with the member that makes it."""
    if not isinstance(statistic, FusedStatistic):
        return list(specs)
    every = zip(specs, statistic.members, strict=True)
    return [replace(spec, statistic=own) for spec, own in every]


def ways(series: Source, dense: Layout, specs: Sequence[ImageSpec], by_rows: bool) -> Iterator[Way]:
    """Yield the ways to compute some images of the first frames of a series, best first.

    Parameters
    ----------
    series : Source
    dense : Layout
        Of the frames to use, with all of their pixels.
    specs : sequence of ImageSpec
        The images.
    by_rows : bool
        Whether frame-wise statistics may be computed by bands of rows.
    """
    members, dtypes = [spec.statistic for spec in specs], [spec.dtype for spec in specs]
    statistic = fuse(members, dtypes, series.dtype)
    if isinstance(series, SparseSource):
        sparse = series.sparse_layout(dense)
        # Bands make the pixels dense that are stored once, and need no states of whole images: std
        # of 1440 frames of 3888 x 3072 with 0.01 values for each pixel takes 5.4 s and 360 MB, by
        # folds of stored values 9.6 s and 1.5 GB. With 0.1 values for each pixel, folds are ahead.
        few = series.values[: dense.nframes].sum() <= sparse.rows * sparse.cols
        if by_rows and (few or statistic.along == "rows"):
            bands = fuse_sparse(members, dtypes, series.dtype)
            if bands is not None:
                yield Way(sparse, own_images(specs, bands), bands)
        if isinstance(statistic.chunk, Fold) and statistic.chunk.knows_sparse(series.dtype):
            yield Way(sparse, own_images(specs, statistic), statistic)
    yield Way(dense, own_images(specs, statistic), statistic)


@dataclass(frozen=True)
class Planner:
    """The facts that plans of all ways of a call depend on."""

    series: Source
    scheduler: Scheduler
    limit: int
    """bytes the call may use"""
    nchunk: object
    """intermediate images: a number, or `AtMost`"""
    chunk_name: str
    """the name of that argument, for errors"""
    use_buffer: bool
    """whether frames may be kept for row-wise statistics"""
    running: bool
    """whether intermediate images are wanted"""
    stored: bool
    """whether states are stored in a checkpoint"""

    @property
    def by_rows(self) -> bool:
        """Whether the images may form row by row, and rows be computed from frames in memory."""
        unseen = isinstance(self.nchunk, AtMost) and self.nchunk.of_rows
        lost = self.running and not unseen
        return not (lost or self.stored or self.scheduler.processes) and self.use_buffer

    def first(self, possible: Iterator[Way]) -> tuple[Way, Plan]:
        """Return the first way that memory allows, and its plan."""
        for way in possible:
            sparse_rows = way.layout.sparse is not None and way.statistic.along == "rows"
            try:
                plan = self.plan(way)
            except MemoryLimitError:
                if way.layout.sparse is None:
                    raise
            else:
                # Any other strategy would read sparse frames more than once.
                if not sparse_rows or plan.strategy == "resident":
                    return way, plan
        raise AssertionError("unreachable")

    def plan(self, way: Way) -> Plan:
        """Plan one way."""
        facts, along = way.layout, way.statistic.along
        total = facts.rows if along == "rows" else facts.nframes
        steps = count_steps(self.nchunk, total, self.chunk_name)
        facts, replicas = self.scheduler.prepare(self.series, way.statistic, facts)
        cost, workers = way.cost(self.series.dtype), self.scheduler.workers
        runs = self.running, self.stored, self.scheduler.processes
        request = Request(facts, cost, steps, workers, self.limit, *runs)
        plan = plan_steps(partial(self._beside_others, along), request, self.nchunk)
        return replace(plan, replicas=replicas)

    def _beside_others(self, along: str, request: Request) -> Plan:
        """Plan within the memory that other calls of this process leave, or else after them."""
        plan = partial(self.scheduler.plan, along=along, use_buffer=self.use_buffer)
        try:
            return plan(request.within(unreserved(request.limit)))
        except MemoryLimitError:
            return plan(request)
