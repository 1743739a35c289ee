"""Tasks that read: from the series, a dask array, kept frames, or scratch data."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.array import Array
from dask.base import tokenize
from dask.core import flatten

from ..memory.reservation import MemoryReservation
from ..planning.cuts import cut, ranges
from ..planning.values import Plan, Range
from ..scratch.recorded import KeptScratchStore
from ..scratch.shared import SharedScratchStore
from ..scratch.store import ScratchStore
from ..series.base import Source
from ..series.daskarrays import DaskSource
from .arrays import as_graph, settled
from .blocks import (
    DaskBlocks,
    ResidentBlocks,
    ResidentSparseBlocks,
    ScratchBlocks,
    SourceBlocks,
    SparseBlocks,
)
from .build import Key, Tasks
from .tasks import (
    keep_frames,
    once_done,
    open_store,
    read_block,
    read_frames,
    working,
    write_frames,
)

# Names of the tasks that make a directory, write frames there, and wait until all are written.
SCRATCH_TASKS = "scratch", "write-frames", "frames-written"


class Reader:
    """Gives tasks the arguments by which they read their blocks."""

    def __init__(self, tasks: Tasks, series: Source, plan: Plan, token: str) -> None:
        self.series, self.plan, self._tasks = series, plan, tasks
        self.array: Array | None = None
        self._working: list[Any] = []
        self._reservations: list[str] = []
        self.after: list[str] = []
        """the layers that blocks depend on"""
        if plan.strategy == "p2p":
            self._use(_exchanged(series, plan, token))
        elif isinstance(series, DaskSource):
            self._use(_refine(series, plan))
        elif plan.strategy == "resident" or series.part(0, 1, 0, 1) is None:
            name = f"source-{token}"
            self._sources = cycle(_source_nodes(tasks, series, name, plan.replicas))
            self.after.append(name)
        if tasks.reservation is not None:
            self._reserve(f"reserve-memory-{token}", tasks.reservation)
        if plan.strategy == "resident" and not isinstance(series, DaskSource):
            self._keep_frames(f"read-frames-{token}")
        elif plan.strategy == "resident":
            tasks.reads = self._chunks()
        elif plan.strategy == "scratch":
            self._write_to_disk(token)

    def _use(self, array: Array) -> None:
        """Let blocks be those of a dask array."""
        self.array = array = settled(array)
        self.after.append(self._tasks.add_array(array))
        # Of an expression each call would make them anew.
        self._keys = array.__dask_keys__()

    def _reserve(self, name: str, reservation: MemoryReservation) -> None:
        """Let each run reserve its memory, until no task needs it any more."""
        self._tasks.add(name)[name] = Task(
            name, MemoryReservation, reservation.nbytes, reservation.limit, reservation.caller
        )
        self._working, self._reservations = [working, TaskRef(name)], [name]
        self.after.append(name)

    def task(self, key: Key, function: Callable, *arguments: Any) -> Task:
        """Return a task that uses the run's memory reservation while it works."""
        return Task(key, *self._working, function, *arguments)

    def _keep_frames(self, name: str) -> None:
        layout = self.plan.layout
        layer = self._tasks.add(name, self.after)
        parts = cut(0, layout.nframes, self.plan.piece, layout.frame_unit)
        keys: list[Key] = [(name, number) for number in range(len(parts))]
        for number, (key, (start, stop)) in enumerate(zip(keys, parts, strict=True)):
            pixels = self._in_order(keys, number, self.frames(start, stop))
            layer[key] = (
                Task(key, keep_frames, *self._working[1:], pixels)
                if self._working
                else Task(key, read_frames, pixels)
            )
            self._tasks.reads.append((key, stop))
        self._resident = [TaskRef(key) for key in keys]
        self.after = [name, *self._reservations]

    def _write_to_disk(self, token: str) -> None:
        scratch, name, written = (f"{kind}-{token}" for kind in SCRATCH_TASKS)
        store = self._tasks.store = _store(self.series, self.plan, token)
        self._tasks.add(scratch, self._reservations)[scratch] = Task(
            scratch, open_store, store, *(self._working[1:] or [None])
        )
        layer, parts = self._tasks.add(name, [*self.after, scratch]), self.plan.groups
        keys: list[Key] = [
            (name, number, description("frames", *part)) for number, part in enumerate(parts)
        ]
        for number, (key, (start, stop)) in enumerate(zip(keys, parts, strict=True)):
            pixels = self._in_order(keys, number, self.frames(start, stop))
            layer[key] = self.task(key, write_frames, TaskRef(scratch), pixels, start, stop)
        self._tasks.reads = [(key, stop) for key, (_, stop) in zip(keys, parts, strict=True)]
        every = List(*map(TaskRef, keys))
        self._tasks.add(written, [name])[written] = Task(written, list, every)
        self._written = TaskRef(scratch), TaskRef(written)
        self.after = [scratch, written, *self._reservations]

    def _in_order(self, keys: list[Key], number: int, pixels: Any) -> Any:
        """Return the argument of the task with a number, which reads after others of its layer.

        dask runs the tasks of a layer in any order. Each thread of a process reads forwards: disks
        read ahead, and a file that is compressed as a whole is not begun again and again.
        """
        if self.plan.processes or number < self.plan.workers:
            return pixels
        return Task(None, once_done, pixels, TaskRef(keys[number - self.plan.workers]))

    def _chunks(self) -> list[tuple[Key, int]]:
        """Return the chunks of a dask array that stay in memory, and the end of each."""
        assert self.array is not None
        ends = np.cumsum(self.array.chunks[0]).tolist()
        every = zip(self._keys, ends, strict=True)
        return [(key, end) for frames, end in every for key in flatten(frames)]

    def frames(self, start: int, stop: int) -> Any:
        """Return the argument of a task for all rows of some frames."""
        if self.array is not None:
            return self._blocks((start, stop), (0, self.plan.layout.rows))
        return self._pixels(start, stop, 0, self.plan.layout.rows)

    def band(self, first: int, last: int) -> Any:
        """Return the argument of a task for some rows of all frames."""
        if self.plan.strategy == "scratch":
            return Task(None, ScratchBlocks, *self._written, first // self.plan.blocks[0][1])
        if self.array is not None:
            return self._blocks((0, self.plan.layout.nframes), (first, last))
        if self.plan.strategy == "resident":
            kept = List(*self._resident), self.series.dtype, first, last
            if self.plan.layout.sparse:
                return Task(None, ResidentSparseBlocks, *kept, self.plan.layout.cols)
            return Task(None, ResidentBlocks, *kept)
        return self._pixels(0, self.plan.layout.nframes, first, last)

    def _pixels(self, start: int, stop: int, first: int, last: int) -> Any:
        part = self.series.part(start, stop, first, last)
        if part is not None:
            return SourceBlocks(part, 0, stop - start, 0, last - first, self.plan.piece)
        blocks = SparseBlocks if self.plan.layout.sparse else SourceBlocks
        return Task(None, blocks, next(self._sources), start, stop, first, last, self.plan.piece)

    def _blocks(self, frames: Range, rows: Range) -> Any:
        """Return the blocks of a dask array that hold some rows of some frames."""
        assert self.array is not None
        across = _meeting(self.array.chunks[1], rows)
        down = _meeting(self.array.chunks[0], frames)
        grid = [
            List(*(TaskRef(self._keys[index][column][0]) for column, *_ in across))
            for index, *_ in down
        ]
        edge = across[0][1]
        shape = across[-1][2] - edge, self.plan.layout.cols
        runs = [(start, stop) for _, start, stop in down]
        return Task(
            None,
            DaskBlocks,
            List(*grid),
            runs,
            shape,
            self.series.dtype,
            rows[0] - edge,
            rows[1] - edge,
        )


def _store(series: Source, plan: Plan, token: str) -> ScratchStore:
    layout, disk = plan.layout, plan.disk
    assert disk is not None
    make: Callable[..., ScratchStore] = ScratchStore
    if disk.name:
        make = partial(KeptScratchStore, name=disk.name)
    elif disk.cluster:
        # On one cluster the same tasks have the same directory, as they have the same keys.
        make = partial(SharedScratchStore, name=f"{token}-{disk.cluster[-12:]}")
    return make(
        disk.directory,
        (layout.nframes, layout.rows, layout.cols),
        series.dtype,
        group=plan.groups[0][1],
        height=plan.blocks[0][1],
        needed=plan.disk_nbytes,
        buffers=plan.workers,
        compression=disk.compression,
    )


def _source_nodes(tasks: Tasks, series: Source, name: str, count: int) -> list[TaskRef]:
    """Give the series one key for each worker, so that it is sent to each worker once.

    A single key has its result on one worker, and all tasks would queue there until other workers
    steal some of them.
    """
    layer = tasks.add(name)
    for index in range(count):
        layer[(name, index)] = DataNode((name, index), series)
    return [TaskRef(key) for key in layer]


def _refine(series: DaskSource, plan: Plan) -> Array:
    """Rechunk a dask array at the edges of the plan's blocks, with all columns in one chunk."""
    layout, array = plan.layout, series.array
    parts = plan.groups if plan.strategy == "scratch" else plan.blocks
    edges = [edge for part in parts for edge in part]
    frames: tuple[int, ...] = array[: layout.nframes].chunks[0]
    rows: tuple[int, ...] = (layout.rows,)
    if plan.along == "frames" or plan.strategy == "scratch":
        frames = _cut_at(frames, edges)
    elif plan.strategy == "direct":
        rows = _cut_at(array.chunks[1], edges)
    return _rechunked(series, layout.nframes, (frames, rows, (layout.cols,)))


def _rechunked(series: DaskSource, nframes: int, chunks: tuple) -> Array:
    """Rechunk a dask array, unless its chunks fit.

    Tasks check the blocks that they get, but a block that is joined to others may have lost its
    mask or unit.
    """
    array = series.array[:nframes]
    return array if chunks == array.chunks else series.checked[:nframes].rechunk(chunks)


def _exchanged(series: Source, plan: Plan, token: str) -> Array:
    """Return the bands of rows that workers exchange after each has read its blocks of frames."""
    layout = plan.layout
    if isinstance(series, DaskSource):
        array = series.checked[: layout.nframes]
    else:
        blocks = cut(0, layout.nframes, plan.piece, layout.frame_unit)
        array = wrapped(series, replace(plan, strategy="fold", blocks=blocks), token=token)
    heights = tuple(last - first for first, last in plan.blocks)
    # If dask joined blocks to larger ones first, they would wait for each other in memory.
    chunks = (layout.nframes,), heights, (layout.cols,)
    largest = max(array.chunks[0]) * layout.frame_nbytes
    return as_graph(array).rechunk(chunks, method="p2p", block_size_limit=largest)


def _cut_at(chunks: tuple[int, ...], edges: Iterable[int]) -> tuple[int, ...]:
    own = np.cumsum((0, *chunks))
    return tuple(int(b - a) for a, b in pairwise(sorted({*own.tolist(), *edges})))


def _meeting(chunks: tuple[int, ...], wanted: Range) -> list[tuple[int, int, int]]:
    """Return (index, start, stop) of the chunks that overlap with a range."""
    every = enumerate(ranges(list(chunks)))
    return [(i, *found) for i, found in every if found[0] < wanted[1] and found[1] > wanted[0]]


# ---------------------------------------------------------------------- reducing


def wrapped(
    series: Source, plan: Plan, reservation: MemoryReservation | None = None, token: str = ""
) -> Array:
    """Return the series as a lazily chunked dask array (frames, rows, cols)."""
    layout = plan.layout
    sizes = tuple(stop - start for start, stop in plan.blocks)
    if isinstance(series, DaskSource):
        if plan.along == "frames":
            return _refine(series, plan)
        return _rechunked(series, layout.nframes, ((layout.nframes,), sizes, (layout.cols,)))
    tasks = Tasks(reservation=reservation)
    token = token or token_of(series, plan, reservation)
    reader = Reader(tasks, series, plan, token)
    name = f"read-{plan.along}-{token}"
    layer = tasks.add(name, after=reader.after)
    for index, block in enumerate(plan.blocks):
        if plan.along == "frames":
            key, pixels = (name, index, 0, 0), reader.frames(*block)
        else:
            key, pixels = (name, 0, index, 0), reader.band(*block)
        layer[key] = reader.task(key, read_block, pixels)
    if plan.along == "frames":
        return tasks.array(name, (sizes, (layout.rows,), (layout.cols,)), series.dtype)
    return tasks.array(name, ((layout.nframes,), sizes, (layout.cols,)), series.dtype)


def token_of(
    series: Source, plan: Plan, reservation: MemoryReservation | None, *others: object
) -> str:
    """Return a token that the names of the same tasks have in common, and no others.

    Computed together, tasks of the same name run once: those of one of the calls.
    """
    return tokenize(series, plan.of_tasks, reservation is not None, *others)


def description(along: str, start: int, stop: int) -> str:
    """Return a description of a block for its key: dask prints the key of a failing task."""
    return f"{along} {start} to {stop - 1}" if stop - start > 1 else f"{along[:-1]} {start}"


def block_of_key(key: Any) -> str:
    """Return the frames or rows that the key of a block names, "" for any other key.

    >>> block_of_key(("average-partial-0f", 3, "frames 60 to 79"))
    'frames 60 to 79'
    """
    *_, last = key if isinstance(key, tuple) else ("",)
    return last if isinstance(last, str) and last.startswith(("frame", "row")) else ""
