"""Which tasks there are: built here, run elsewhere. All use of dask's graph internals is here.

For three steps of two blocks each (``+`` is combine)::

    frames   average-partial   average-combine        average-step
    0 .. 9      p0  ---------\\
    10 .. 19    p1  ----------+-- c0 ------------------- s0
    20 .. 29    p2  ---------\\                            |
    30 .. 39    p3  ----------+-- c1 ------------------ + s1
    40 .. 49    p4  ---------\\                            |
    50 .. 59    p5  ----------+-- c2 ------------------ + s2

Every p runs as soon as a worker is free; only the cheap s wait for each other. The image of a
step is the finished s; the result is that of the last one. On threads the c are all that is run
(`parts`): whoever takes them makes the s, which saves a task for each step.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, pairwise
from typing import Any
from uuid import uuid4

import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.array import Array
from dask.array.optimization import optimize
from dask.base import clone_key, tokenize
from dask.core import flatten
from dask.graph_manipulation import chunks as manipulated
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer

from .lanes import Canvases, pass_steps
from .memory import Share
from .outputs import Output
from .plan import Plan, Range, cut, ranges, split
from .scratch import SharedSpool, Spool
from .sources import Source
from .sources.daskarrays import DaskSource
from .statistics import Statistic
from .work import (
    Grid,
    Kept,
    Pixels,
    Spooled,
    advance,
    chunk_to_send,
    combine_all,
    finish,
    keep_frames,
    one_plane,
    open_spool,
    read_block,
    read_frames,
    rows_of,
    spool_frames,
    working,
)

# Tasks that each lane of rows has at most, so that dask's callbacks see the run go on, and the
# bytes of frames that each of them should have: to schedule one takes some 0.1 ms of a core.
TASKS_OF_A_LANE, LANE_NBYTES = 16, 128 << 20

Key = tuple


class TaskLayer(MaterializedLayer):
    """A layer of tasks that `dask.graph_manipulation` can clone and bind.

    dask's own layers look for keys in lists and tuples only, not in the arguments of a `Task`: a
    clone would go on to depend on the tasks of the original.
    """

    def clone(self, keys: set, seed: Hashable, bind_to: Any = None) -> tuple["TaskLayer", bool]:
        """Return the layer with new names for some keys, and whether it was bound to a key."""
        cloned, bound = {}, False
        for key, task in self.items():
            if key not in keys:
                cloned[key] = task
                continue
            others = {k: clone_key(k, seed) for k in task.dependencies if k in keys}
            name = clone_key(key, seed)
            cloned[name] = task.substitute(others, key=name)
            if bind_to is not None and not others:
                cloned[name] = Task(name, manipulated.bind, cloned[name], TaskRef(bind_to))
                bound = True
        return TaskLayer(cloned), bound


@dataclass
class Tasks:
    """Layers of a graph as they are built, each with the names of the layers it depends on."""

    layers: dict[str, dict] = field(default_factory=dict)
    dependencies: dict[str, set[str]] = field(default_factory=dict)
    share: Share | None = None
    """of a lazy image, which each run begins anew; who streams has begun before"""
    spool: Spool | None = None
    """whose directories are made when the tasks run"""
    spooled: list[Key] = field(default_factory=list)
    """of the tasks that fill it"""

    def add(self, name: str, after: Iterable[str] = ()) -> dict:
        """Return a new, empty layer."""
        self.layers[name], self.dependencies[name] = {}, set(after)
        return self.layers[name]

    def add_array(self, array: Array) -> str:
        """Take over all layers of a dask array and return the name of the last."""
        graph = array.__dask_graph__()
        self.layers.update(graph.layers)
        self.dependencies.update(graph.dependencies)
        return array.name

    def array(self, name: str, chunks: tuple, dtype: np.dtype) -> Array:
        """Return the dask array whose blocks are the keys of a layer."""
        layers = {
            key: layer if isinstance(layer, Layer) else TaskLayer(layer)
            for key, layer in self.layers.items()
        }
        graph = HighLevelGraph(layers, self.dependencies)
        meta = np.empty((0,) * len(chunks), dtype)
        return Array(graph, name, chunks=chunks, meta=meta)

    def release(self) -> None:
        """Remove what the tasks have written to disk."""
        if self.spool is not None:
            self.spool.remove()

    @property
    def shuffles(self) -> bool:
        """Whether there are layers of dask's that move all data between workers."""
        return any("P2P" in type(layer).__name__ for layer in self.layers.values())

    def runnable(self, keys: list) -> dict:
        """Return one dict of all tasks; those of a dask array are optimised as it would be.

        The keys, which may be in lists, keep their names.
        """
        if any(isinstance(layer, Layer) for layer in self.layers.values()):
            graph = HighLevelGraph(self.layers, self.dependencies)
            return dict(optimize(graph, list(flatten(keys))))
        return {key: task for layer in self.layers.values() for key, task in layer.items()}


# ---------------------------------------------------------------------- reading


class Reader:
    """Puts into task arguments what a task needs to get its pixels."""

    def __init__(self, tasks: Tasks, series: Source, plan: Plan, token: str) -> None:
        self.series, self.plan, self._tasks = series, plan, tasks
        self.array: Array | None = None
        self._working: list[Any] = []
        self._shares: list[str] = []
        self.after: list[str] = []
        """the layers that blocks depend on"""
        if plan.strategy == "p2p":
            self.array = _exchanged(series, plan, token)
            self.after.append(tasks.add_array(self.array))
        elif isinstance(series, DaskSource):
            self.array = _refine(series, plan)
            self.after.append(tasks.add_array(self.array))
        elif plan.strategy == "resident" or series.part(0, 1, 0, 1) is None:
            name = f"source-{token}"
            self._sources = cycle(_source_nodes(tasks, series, name, plan.sources))
            self.after.append(name)
        if tasks.share is not None:
            self._begin(f"share-{token}", tasks.share)
        if plan.strategy == "resident" and not isinstance(series, DaskSource):
            self._keep_frames(f"read-frames-{token}")
        elif plan.strategy == "scratch":
            self._spool_frames(token)

    def _begin(self, name: str, share: Share) -> None:
        """Give each run a share of the memory, which is given back when no task needs it."""
        self._tasks.add(name)[name] = Task(name, Share, share.nbytes, share.limit, share.caller)
        self._working, self._shares = [working, TaskRef(name)], [name]
        self.after.append(name)

    def task(self, key: Key, function: Callable, *arguments: Any) -> Task:
        """Return a task that holds the run's share of the memory while it works."""
        return Task(key, *self._working, function, *arguments)

    def _keep_frames(self, name: str) -> None:
        layout = self.plan.layout
        layer = self._tasks.add(name, self.after)
        for start, stop in cut(0, layout.nframes, self.plan.piece, layout.frame_unit):
            key = (name, len(layer))
            pixels = self.frames(start, stop)
            layer[key] = (
                Task(key, keep_frames, *self._working[1:], pixels)
                if self._working
                else Task(key, read_frames, pixels)
            )
        self._kept = [TaskRef(key) for key in layer]
        self.after = [name, *self._shares]

    def _spool_frames(self, token: str) -> None:
        scratch, name, written = (f"{what}-{token}" for what in ("scratch", "spool", "spooled"))
        spool = self._tasks.spool = _spool(self.series, self.plan, token)
        self._tasks.add(scratch, self._shares)[scratch] = Task(
            scratch, open_spool, spool, *(self._working[1:] or [None])
        )
        layer = self._tasks.add(name, [*self.after, scratch])
        for start, stop in self.plan.groups:
            key = (name, len(layer), _description("frames", start, stop))
            pixels = self.frames(start, stop)
            layer[key] = self.task(key, spool_frames, TaskRef(scratch), pixels, start, stop)
        self._tasks.spooled = list(layer)
        every = List(*(TaskRef(key) for key in layer))
        self._tasks.add(written, [name])[written] = Task(written, list, every)
        self._spooled = TaskRef(scratch), TaskRef(written)
        self.after = [scratch, written, *self._shares]

    def frames(self, start: int, stop: int) -> Any:
        """Return the argument for all rows of some frames."""
        if self.array is not None:
            return self._blocks((start, stop), (0, self.plan.layout.rows))
        return self._pixels(start, stop, 0, self.plan.layout.rows)

    def band(self, first: int, last: int) -> Any:
        """Return the argument for some rows of all frames."""
        if self.plan.strategy == "scratch":
            return Task(None, Spooled, *self._spooled, first // self.plan.blocks[0][1])
        if self.array is not None:
            return self._blocks((0, self.plan.layout.nframes), (first, last))
        if self.plan.strategy == "resident":
            return Task(None, Kept, List(*self._kept), first, last)
        return self._pixels(0, self.plan.layout.nframes, first, last)

    def _pixels(self, start: int, stop: int, first: int, last: int) -> Any:
        part = self.series.part(start, stop, first, last)
        if part is not None:
            return Pixels(part, 0, stop - start, 0, last - first, self.plan.piece)
        return Task(None, Pixels, next(self._sources), start, stop, first, last, self.plan.piece)

    def _blocks(self, frames: Range, rows: Range) -> Any:
        """Return the blocks of a dask array that meet some frames and rows."""
        assert self.array is not None
        across = _meeting(self.array.chunks[1], rows)
        down = _meeting(self.array.chunks[0], frames)
        grid = [
            List(*(TaskRef((self.array.name, index, column, 0)) for column, *_ in across))
            for index, *_ in down
        ]
        edge = across[0][1]
        shape = across[-1][2] - edge, self.plan.layout.cols
        runs = [(start, stop) for _, start, stop in down]
        return Task(
            None, Grid, List(*grid), runs, shape, self.series.dtype, rows[0] - edge, rows[1] - edge
        )


def _spool(series: Source, plan: Plan, token: str) -> Spool:
    layout, disk = plan.layout, plan.disk
    assert disk is not None
    make: Callable[..., Spool] = Spool
    if disk.cluster:
        # On one cluster the same tasks have the same directory, as they have the same keys.
        make = partial(SharedSpool, name=f"{token}-{disk.cluster[-12:]}")
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


def _token(series: Source, statistic: Statistic, plan: Plan, *others: Any) -> str:
    """Return what the names of the same tasks have in common, and those of no others."""
    where = plan.disk and (plan.disk.directory, plan.disk.compression, plan.disk.cluster)
    cuts = plan.steps, plan.strategy, plan.blocks, plan.groups, plan.sources
    return tokenize(series, statistic, *cuts, where, *others)


def _source_nodes(tasks: Tasks, series: Source, name: str, count: int) -> list[TaskRef]:
    """Give the series a few keys: one for each worker, so that it is sent to each once.

    With one key, whose result is on one worker, all tasks would wait for that worker until others
    steal some of them.
    """
    layer = tasks.add(name)
    for index in range(count):
        layer[(name, index)] = DataNode((name, index), series)
    return [TaskRef(key) for key in layer]


def _refine(series: DaskSource, plan: Plan) -> Array:
    """Cut a dask array where the plan's blocks meet; join columns, and rows if frames are cut."""
    layout = plan.layout
    array = series.array[: layout.nframes]
    edges = [edge for block in plan.blocks for edge in block]
    if plan.along == "frames":
        chunks: tuple = (_cut_at(array.chunks[0], edges), (layout.rows,), (layout.cols,))
    elif plan.strategy == "scratch":
        edges = [edge for group in plan.groups for edge in group]
        chunks = (_cut_at(array.chunks[0], edges), (layout.rows,), (layout.cols,))
    elif plan.strategy == "direct":
        chunks = (array.chunks[0], _cut_at(array.chunks[1], edges), (layout.cols,))
    else:
        chunks = (array.chunks[0], (layout.rows,), (layout.cols,))
    return _rechunked(series, layout.nframes, chunks)


def _rechunked(series: DaskSource, nframes: int, chunks: tuple) -> Array:
    """Cut and join the blocks of a dask array; it is used as it is, if they fit.

    Tasks check the blocks that they get, but one that is joined may have lost its mask or its unit.
    """
    array = series.array[:nframes]
    return array if chunks == array.chunks else series.checked[:nframes].rechunk(chunks)


def _exchanged(series: Source, plan: Plan, token: str) -> Array:
    """Return the bands of rows that workers exchange, once each has read its blocks of frames."""
    layout = plan.layout
    if isinstance(series, DaskSource):
        array = series.checked[: layout.nframes]
    else:
        blocks = cut(0, layout.nframes, plan.piece, layout.frame_unit)
        array = wrapped(series, replace(plan, strategy="fold", blocks=blocks), token=token)
    heights = tuple(last - first for first, last in plan.blocks)
    # Blocks that dask joined to larger ones first would have to wait for each other in memory.
    chunks = (layout.nframes,), heights, (layout.cols,)
    largest = max(array.chunks[0]) * layout.frame_nbytes
    return array.rechunk(chunks, method="p2p", block_size_limit=largest)


def _cut_at(chunks: tuple[int, ...], edges: Iterable[int]) -> tuple[int, ...]:
    own = np.cumsum((0, *chunks))
    return tuple(int(b - a) for a, b in pairwise(sorted({*own.tolist(), *edges})))


def _meeting(chunks: tuple[int, ...], wanted: Range) -> list[tuple[int, int, int]]:
    """Return (index, start, stop) of the chunks that share items with a range."""
    every = enumerate(ranges(list(chunks)))
    return [(i, *found) for i, found in every if found[0] < wanted[1] and found[1] > wanted[0]]


# ---------------------------------------------------------------------- reducing


def wrapped(series: Source, plan: Plan, share: Share | None = None, token: str = "") -> Array:
    """Return the lazily chunked dask array (frames, rows, cols) itself."""
    layout = plan.layout
    if plan.strategy == "p2p":
        return _exchanged(series, plan, token)
    sizes = tuple(stop - start for start, stop in plan.blocks)
    if isinstance(series, DaskSource):
        if plan.along == "frames":
            return _refine(series, plan)
        return _rechunked(series, layout.nframes, ((layout.nframes,), sizes, (layout.cols,)))
    tasks, token = (
        Tasks(share=share),
        token or tokenize(series, plan.steps, plan.piece, plan.sources),
    )
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


def results(
    series: Source,
    statistic: Statistic,
    plan: Plan,
    outputs: Sequence[Output],
    share: Share | None = None,
) -> list[Array]:
    """Return the lazy image of each output; computed together, they read the series once."""
    token = _token(series, statistic, plan, list(outputs))
    tasks = Tasks(share=share)
    (keys,) = _partials(tasks, series, statistic, plan, token)
    if plan.along == "frames" or plan.in_pixels:
        # One block: parts of rows are no blocks of an image.
        keys = _combined(tasks, statistic, [keys], token, plan)
    return [
        _finished(tasks, statistic, keys, plan, output, index, f"{output.statistic.name}-{token}")
        for index, output in enumerate(outputs)
    ]


def _finished(
    tasks: Tasks,
    statistic: Statistic,
    keys: list[Key],
    plan: Plan,
    output: Output,
    index: int,
    name: str,
) -> Array:
    """Return the image of one output: a block for each band of rows, or for all."""
    rowwise, planes = plan.along == "rows" and not plan.in_pixels, output.shape[:-2]
    name = f"{name}-{index}" if index else name
    mine = Tasks({**tasks.layers}, {**tasks.dependencies})
    layer = mine.add(name, {key[0] for key in keys})
    for number, state in enumerate(keys):
        key = (name, *(0 for _ in planes), number, 0)
        layer[key] = Task(key, finish, output, statistic, index, TaskRef(state), rowwise)
    heights = tuple(last - first for first, last in plan.blocks) if rowwise else (output.rows,)
    chunks = (*((length,) for length in planes), heights, (output.cols,))
    return mine.array(name, chunks, output.dtype)


def parts(
    series: Source,
    statistic: Statistic,
    plan: Plan,
    share: Share | None = None,
    token: str = "",
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of all steps and the keys of their own partial states, one for each.

    ``token`` is for tasks that are run once: a name that says what they do takes 1 ms to make.
    """
    tasks, token = Tasks(share=share), token or _token(series, statistic, plan)
    groups = _partials(tasks, series, statistic, plan, token)
    return tasks, _combined(tasks, statistic, groups, token, plan)


def few_blocks(series: Source, statistic: Statistic, plan: Plan) -> tuple[Tasks, list[list[Key]]]:
    """Return the tasks of all steps and, for each, the keys of the states of a few blocks each.

    What is combined further is combined elsewhere. No two calls give the same keys: two runs of
    one series must not share tasks, which one of them may cancel.
    """
    tasks, token = Tasks(), uuid4().hex
    groups = _partials(tasks, series, statistic, plan, token)
    if plan.along == "frames" and plan.fan_in > 1 and max(map(len, groups)) > 1:
        name = f"{statistic.name}-step-{token}"
        layer = tasks.add(name, {key[0] for group in groups for key in group})
        groups = [_combined_once(layer, name, statistic, group, plan) for group in groups]
    return tasks, groups


def lanes(
    series: Source, statistic: Statistic, plan: Plan, outputs: Sequence[Output]
) -> tuple[Tasks, list[list[Key]], Canvases]:
    """Return the tasks of a running reduction of frames in memory, their keys, and the images.

    Each lane of rows has one state, which its tasks fold in place as they pass the steps (the few
    tasks of a lane start with a copy each), and writes its rows of each image: next to no memory is
    moved apart from the frames themselves. The images are shared, so the tasks must run in threads
    of one process, and each of them once::

        rows   0 ..  511    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
        rows 512 .. 1023    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
    """
    tasks, token = Tasks(), uuid4().hex
    name = f"{statistic.name}-steps-{token}"
    layer = tasks.add(name)
    rows = ranges(split(plan.layout.rows, min(plan.workers, plan.layout.rows)))
    trails = statistic.trail is not None and all(o.is_state(series.dtype) for o in outputs)
    canvases = Canvases(outputs, len(rows), trails, plan.burst)
    most = min(TASKS_OF_A_LANE, plan.layout.nbytes // (len(rows) * LANE_NBYTES) + 1)
    runs = cut(0, len(plan.steps), -(-len(plan.steps) // most))
    for lane, (first, last) in enumerate(rows):
        view = series.view(0, plan.layout.nframes, first, last)
        assert view is not None, "only frames in memory have lanes"
        state = None
        for index, run in enumerate(runs):
            key, steps = (name, index, lane), range(*run)
            layer[key] = Task(key, pass_steps, statistic, state, view, plan, steps, canvases, first)
            state = TaskRef(key)
    keys = [[(name, index, lane) for lane in range(len(rows))] for index in range(len(runs))]
    return tasks, keys, canvases


def states(
    series: Source, statistic: Statistic, plan: Plan, share: Share | None = None
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of a running reduction and the keys of its states, one for each step."""
    tasks, keys = parts(series, statistic, plan, share)
    name = f"{statistic.name}-step-{tokenize(keys)}"
    layer = tasks.add(name, {key[0] for key in keys})
    steps: list[Key] = [keys[0]]
    for index, key in enumerate(keys[1:], start=1):
        step = (name, index)
        layer[step] = Task(step, statistic.combine, TaskRef(steps[-1]), TaskRef(key))
        steps.append(step)
    return tasks, steps


def stack(
    series: Source, statistic: Statistic, plan: Plan, output: Output, share: Share | None = None
) -> Array:
    """Return the lazy stack of all intermediate images (steps, rows, cols)."""
    tasks, steps = states(series, statistic, plan, share)
    token = tokenize(steps[-1], output)
    name, stacked = f"{statistic.name}-image-{token}", f"{statistic.name}-stack-{token}"
    layer, planes = tasks.add(name, {step[0] for step in steps}), tasks.add(stacked, [name])
    for index, step in enumerate(steps):
        key, plane = (name, index), (stacked, index, *(0 for _ in output.shape))
        layer[key] = Task(key, finish, output, statistic, 0, TaskRef(step))
        planes[plane] = Task(plane, one_plane, TaskRef(key))
    chunks = ((1,) * len(steps), *((length,) for length in output.shape))
    return tasks.array(stacked, chunks, output.dtype)


def _partials(
    tasks: Tasks, series: Source, statistic: Statistic, plan: Plan, token: str
) -> list[list[Key]]:
    """Add one task for each block and return the keys of what each step adds."""
    reader = Reader(tasks, series, plan, token)
    name = f"{statistic.name}-{'partial' if plan.along == 'frames' else 'band'}-{token}"
    layer = tasks.add(name, after=reader.after)
    read = reader.frames if plan.along == "frames" else reader.band
    keys = {
        block: (name, index, _description(plan.along, *block))
        for index, block in enumerate(plan.blocks)
    }
    if plan.chains:
        return [_chained(layer, statistic, keys, step, reader, plan.chains) for step in plan.steps]
    chunk = partial(chunk_to_send, statistic) if plan.processes else statistic.chunk
    for block, key in keys.items():
        layer[key] = reader.task(key, chunk, read(*block), block[0])
    if all(part in keys for step in plan.steps for part in step):
        return [[keys[part] for part in step] for step in plan.steps]
    return _parts_of_bands(tasks, statistic, plan, keys, token)


def _chained(
    layer: dict,
    statistic: Statistic,
    keys: dict,
    step: Sequence[Range],
    reader: Reader,
    chains: int,
) -> list[Key]:
    """Add the tasks of a step, in a few chains that each have one state; return their last keys."""
    last = []
    for first, end in ranges(split(len(step), min(chains, len(step)))):
        state = None
        for block in step[first:end]:
            key = keys[block]
            layer[key] = reader.task(
                key, advance, statistic, state, reader.frames(*block), block[0]
            )
            state = TaskRef(key)
        last.append(key)
    return last


def _parts_of_bands(
    tasks: Tasks, statistic: Statistic, plan: Plan, keys: dict[Range, Key], token: str
) -> list[list[Key]]:
    """Cut the states of bands where the steps end."""
    name = f"{statistic.name}-rows-{token}"
    starts, bands = [first for first, _ in keys], list(keys.values())
    layer = tasks.add(name, {band[0] for band in bands})
    groups = []
    for step in plan.steps:
        group = []
        for first, last in step:
            key, band = (name, len(layer)), bands[bisect_right(starts, first) - 1]
            layer[key] = Task(key, rows_of, TaskRef(band), first, last)
            group.append(key)
        groups.append(group)
    return groups


def _description(along: str, start: int, stop: int) -> str:
    """Return what a block is, for its key: dask names the key of a task that kills its worker."""
    return f"{along} {start} to {stop - 1}" if stop - start > 1 else f"{along[:-1]} {start}"


def described(key: Any) -> str:
    """Return which frames or rows the key of a block names, "" for any other key.

    >>> described(("average-partial-0f", 3, "frames 60 to 79"))
    'frames 60 to 79'
    """
    *_, last = key if isinstance(key, tuple) else ("",)
    return last if isinstance(last, str) and last.startswith(("frame", "row")) else ""


def _combined(
    tasks: Tasks, statistic: Statistic, groups: list[list[Key]], token: str, plan: Plan
) -> list[Key]:
    """Combine the states of each step, a few at a time, and return one key for each step."""
    level = 0
    while any(len(group) > 1 for group in groups):
        name = f"{statistic.name}-combine-{level}-{token}"
        layer = tasks.add(name, {key[0] for group in groups for key in group})
        groups = [_combined_once(layer, name, statistic, group, plan) for group in groups]
        level += 1
    return [key for (key,) in groups]


def _combined_once(
    layer: dict, name: str, statistic: Statistic, group: list[Key], plan: Plan
) -> list[Key]:
    combined: list[Key] = []
    fan_in, sent = max(2, plan.fan_in), plan.processes > 0
    for edge in range(0, len(group), fan_in):
        few = group[edge : edge + fan_in]
        if len(few) == 1:
            combined += few
            continue
        key = (name, len(layer))
        states = List(*(TaskRef(key) for key in few))
        layer[key] = Task(key, combine_all, statistic, states, sent)
        combined.append(key)
    return combined
