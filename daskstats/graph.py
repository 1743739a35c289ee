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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.array import Array
from dask.array.optimization import optimize
from dask.base import tokenize
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, Layer

from .plan import Plan, Range, cut, ranges, split
from .sources import Source
from .sources.base import as_frames, check_dtype, check_frame
from .sources.daskarrays import DaskSource
from .statistics import State, Statistic

# Tasks that each lane of rows has, so that dask's callbacks see the run go on: one for each step
# would take as long to schedule as to run (60 steps of 4 frames of 1024 x 1024 uint16).
TASKS_OF_A_LANE = 16

# States that one task combines: few tasks, and few states that wait for each other.
FAN_IN = 8

Key = tuple


@dataclass
class Tasks:
    """Layers of a graph as they are built, each with the names of the layers it depends on."""

    layers: dict[str, dict] = field(default_factory=dict)
    dependencies: dict[str, set[str]] = field(default_factory=dict)

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
        graph = HighLevelGraph(self.layers, self.dependencies)
        meta = np.empty((0,) * len(chunks), dtype)
        return Array(graph, name, chunks=chunks, meta=meta)

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
        self.series, self.plan = series, plan
        layout = plan.layout
        if isinstance(series, DaskSource):
            self.array = _refine(series.array, plan)
            self.layer = tasks.add_array(self.array)
        elif plan.strategy == "resident":
            self._reference = _source_node(tasks, series, f"source-{token}")
            self.loads = cut(0, layout.nframes, plan.piece, layout.frame_unit)
            self.layer = f"read-frames-{token}"
            layer = tasks.add(self.layer, after=[f"source-{token}"])
            for index, (start, stop) in enumerate(self.loads):
                key = (self.layer, index)
                layer[key] = Task(key, read_frames, self._pixels(start, stop, 0, layout.rows))
        elif series.part(0, 1, 0, 1) is None:
            self.layer = f"source-{token}"
            self._reference = _source_node(tasks, series, self.layer)
        else:
            self.layer = ""

    def frames(self, start: int, stop: int) -> Any:
        """Return the argument for all rows of some frames."""
        if isinstance(self.series, DaskSource):
            return self._blocks((start, stop), (0, self.plan.layout.rows))
        return self._pixels(start, stop, 0, self.plan.layout.rows)

    def band(self, first: int, last: int) -> Any:
        """Return the argument for some rows of all frames."""
        if isinstance(self.series, DaskSource):
            return self._blocks((0, self.plan.layout.nframes), (first, last))
        if self.plan.strategy == "resident":
            keys = [TaskRef((self.layer, index)) for index in range(len(self.loads))]
            return Task(None, Kept, List(*keys), first, last)
        return self._pixels(0, self.plan.layout.nframes, first, last)

    def _pixels(self, start: int, stop: int, first: int, last: int) -> Any:
        part = self.series.part(start, stop, first, last)
        if part is not None:
            return Pixels(part, 0, stop - start, 0, last - first, self.plan.piece)
        return Task(None, Pixels, self._reference, start, stop, first, last, self.plan.piece)

    def _blocks(self, frames: Range, rows: Range) -> Any:
        """Return the blocks of a dask array that meet some frames and rows."""
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


@dataclass(frozen=True)
class Pixels:
    """Rows of frames of a series that a task reads itself, some frames at a time."""

    series: Source
    start: int
    stop: int
    first: int
    last: int
    count: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return self.series.pieces(self.start, self.stop, self.first, self.last, self.count)


@dataclass(frozen=True)
class Kept:
    """Rows of frames that other tasks have read."""

    loads: Sequence[list[np.ndarray]]
    first: int
    last: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        yield [block[:, self.first : self.last] for load in self.loads for block in load]


@dataclass(frozen=True)
class Grid:
    """Rows of the blocks of a dask array, a list of neighbours in a row for each run of frames."""

    blocks: Sequence[Sequence[np.ndarray]]
    runs: Sequence[Range]
    """first frame and end of each run"""
    shape: tuple[int, int]
    """of a frame in the blocks of a run, side by side"""
    dtype: np.dtype
    first: int
    last: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for row, run in zip(self.blocks, self.runs, strict=True):
            yield [self._block(row, *run)]

    def _block(self, row: Sequence[np.ndarray], start: int, stop: int) -> np.ndarray:
        block = np.concatenate(row, axis=1) if len(row) > 1 else np.asarray(row[0])
        check_frame(block.shape, (stop - start, *self.shape), start)
        check_dtype(block.dtype, self.dtype, start)
        return as_frames(block[:, self.first : self.last], self.dtype)


def read_frames(pixels: Pixels) -> list[np.ndarray]:
    """Read everything at once."""
    return [block for piece in pixels for block in piece]


def read_block(pixels: Pixels) -> np.ndarray:
    """Read everything into one array; a view of the user's own array cannot be written to."""
    blocks = read_frames(pixels)
    if len(blocks) > 1:
        return np.concatenate(blocks)
    block = blocks[0].view()
    block.flags.writeable = False
    return block


def _source_node(tasks: Tasks, series: Source, name: str) -> TaskRef:
    """Give the series one key, so that it is sent to each worker once."""
    tasks.add(name)[name] = DataNode(name, series)
    return TaskRef(name)


def _refine(array: Array, plan: Plan) -> Array:
    """Cut a dask array where the plan's blocks meet; join columns, and rows if frames are cut."""
    layout = plan.layout
    array = array[: layout.nframes]
    edges = [edge for block in plan.blocks for edge in block]
    if plan.along == "frames":
        chunks: tuple = (_cut_at(array.chunks[0], edges), (layout.rows,), (layout.cols,))
    elif plan.strategy == "direct":
        chunks = (array.chunks[0], _cut_at(array.chunks[1], edges), (layout.cols,))
    else:
        chunks = (array.chunks[0], (layout.rows,), (layout.cols,))
    return array.rechunk(chunks)


def _cut_at(chunks: tuple[int, ...], edges: Iterable[int]) -> tuple[int, ...]:
    own = np.cumsum((0, *chunks))
    return tuple(int(b - a) for a, b in pairwise(sorted({*own.tolist(), *edges})))


def _meeting(chunks: tuple[int, ...], wanted: Range) -> list[tuple[int, int, int]]:
    """Return (index, start, stop) of the chunks that share items with a range."""
    every = enumerate(ranges(list(chunks)))
    return [(i, *found) for i, found in every if found[0] < wanted[1] and found[1] > wanted[0]]


# ---------------------------------------------------------------------- reducing


def wrapped(series: Source, plan: Plan) -> Array:
    """Return the lazily chunked dask array (frames, rows, cols) itself."""
    layout = plan.layout
    sizes = tuple(stop - start for start, stop in plan.blocks)
    if isinstance(series, DaskSource):
        if plan.along == "frames":
            return _refine(series.array, plan)
        chunks = (layout.nframes, sizes, layout.cols)
        return series.array[: layout.nframes].rechunk(chunks)
    tasks, token = Tasks(), tokenize(series, plan.steps, plan.piece)
    reader = Reader(tasks, series, plan, token)
    name = f"read-{plan.along}-{token}"
    layer = tasks.add(name, after=filter(None, [reader.layer]))
    for index, block in enumerate(plan.blocks):
        if plan.along == "frames":
            key, pixels = (name, index, 0, 0), reader.frames(*block)
        else:
            key, pixels = (name, 0, index, 0), reader.band(*block)
        layer[key] = Task(key, read_block, pixels)
    if plan.along == "frames":
        return tasks.array(name, (sizes, (layout.rows,), (layout.cols,)), series.dtype)
    return tasks.array(name, ((layout.nframes,), sizes, (layout.cols,)), series.dtype)


def result(series: Source, statistic: Statistic, plan: Plan, dtype: np.dtype) -> Array:
    """Return the lazy image of a statistic."""
    layout = plan.layout
    shape = statistic.image_shape(layout.rows, layout.cols)
    tasks, token = Tasks(), tokenize(series, statistic, plan.steps, plan.strategy, str(dtype))
    groups = _partials(tasks, series, statistic, plan, token)
    name = f"{statistic.name}-{token}"
    below = list(tasks.layers)[-1]
    if statistic.along == "frames":
        (state,) = _combined(tasks, statistic, groups, token)
        key = (name, *(0 for _ in shape))
        below = state[0]
        tasks.add(name, [below])[key] = Task(
            key, finish, statistic, TaskRef(state), shape, str(dtype)
        )
        return tasks.array(name, tuple((length,) for length in shape), dtype)

    layer = tasks.add(name, [below])
    (keys,) = groups
    heights = tuple(last - first for first, last in plan.blocks)
    for index, (state, (first, last)) in enumerate(zip(keys, plan.blocks, strict=True)):
        key = (name, *(0 for _ in shape[:-2]), index, 0)
        band = statistic.image_shape(last - first, layout.cols)
        layer[key] = Task(key, finish_band, statistic, TaskRef(state), band, str(dtype))
    chunks = (*((length,) for length in shape[:-2]), heights, (layout.cols,))
    return tasks.array(name, chunks, dtype)


def parts(series: Source, statistic: Statistic, plan: Plan) -> tuple[Tasks, list[Key]]:
    """Return the tasks of all steps and the keys of their own partial states, one for each."""
    tasks, token = Tasks(), tokenize(series, statistic, plan.steps, plan.strategy)
    groups = _partials(tasks, series, statistic, plan, token)
    return tasks, _combined(tasks, statistic, groups, token)


class Canvases:
    """The images that the lanes of a running reduction write their rows into.

    `deliver` is called with each image as soon as the last lane has written its rows, and `hold`
    before a lane goes on to a step, to make it wait; whoever runs the tasks sets both.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, lanes: int) -> None:
        self.deliver: Callable[[int, np.ndarray], Any] = lambda step, image: None
        self.hold: Callable[[int], Any] = lambda step: None
        self._shape, self._dtype, self._lanes = shape, dtype, lanes
        self._images: dict[int, np.ndarray] = {}
        self._missing: dict[int, int] = {}
        self._lock = Lock()

    def image(self, step: int) -> np.ndarray:
        """Return the image of a step, the same for each lane."""
        with self._lock:
            if step not in self._images:
                self._images[step] = np.empty(self._shape, self._dtype)
                self._missing[step] = self._lanes
            return self._images[step]

    def passed(self, step: int) -> None:
        """Count a lane that has written its rows of an image."""
        with self._lock:
            self._missing[step] -= 1
            if self._missing[step]:
                return
            del self._missing[step]
            image = self._images.pop(step)
        self.deliver(step, image)


def lanes(
    series: Source, statistic: Statistic, plan: Plan, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[Tasks, list[list[Key]], Canvases]:
    """Return the tasks of a running reduction of frames in memory, their keys, and the images.

    Each lane of rows has one state, which it alone reads and overwrites as it passes the steps,
    and writes its rows of each image: next to no memory is moved beside the frames themselves.
    For that the tasks must run in threads of one process, and each of them once::

        rows   0 ..  511    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
        rows 512 .. 1023    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
    """
    tasks, token = Tasks(), tokenize(series, statistic, plan.steps)
    name = f"{statistic.name}-steps-{token}"
    layer = tasks.add(name)
    rows = ranges(split(plan.layout.rows, min(plan.workers, plan.layout.rows)))
    canvases = Canvases(shape, dtype, len(rows))
    runs = cut(0, len(plan.steps), -(-len(plan.steps) // TASKS_OF_A_LANE))
    for index, run in enumerate(runs):
        for lane, (first, last) in enumerate(rows):
            key, before = (name, index, lane), (name, index - 1, lane)
            state = TaskRef(before) if index else None
            passes = [(step, *_part(series, plan, step, first, last)) for step in range(*run)]
            layer[key] = Task(key, pass_steps, statistic, state, passes, canvases, first, last)
    keys = [[(name, index, lane) for lane in range(len(rows))] for index in range(len(runs))]
    return tasks, keys, canvases


def _part(series: Source, plan: Plan, step: int, first: int, last: int) -> tuple[int, Pixels]:
    """Return the first frame of a step, and some rows of all its frames."""
    start, stop = plan.steps[step][0][0], plan.steps[step][-1][1]
    part = series.view(start, stop, first, last)
    assert part is not None, "only frames in memory have lanes"
    return start, Pixels(part, 0, stop - start, 0, last - first, plan.piece)


def states(series: Source, statistic: Statistic, plan: Plan) -> tuple[Tasks, list[Key]]:
    """Return the tasks of a running reduction and the keys of its states, one for each step."""
    tasks, keys = parts(series, statistic, plan)
    name = f"{statistic.name}-step-{tokenize(keys)}"
    layer = tasks.add(name, {key[0] for key in keys})
    steps: list[Key] = [keys[0]]
    for index, key in enumerate(keys[1:], start=1):
        step = (name, index)
        layer[step] = Task(step, statistic.combine, TaskRef(steps[-1]), TaskRef(key))
        steps.append(step)
    return tasks, steps


def images(
    series: Source, statistic: Statistic, plan: Plan, dtype: np.dtype
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of a running reduction and the keys of its images, one for each step."""
    layout = plan.layout
    shape = statistic.image_shape(layout.rows, layout.cols)
    tasks, steps = states(series, statistic, plan)
    name = f"{statistic.name}-image-{tokenize(steps[-1], str(dtype))}"
    layer = tasks.add(name, {step[0] for step in steps})
    keys: list[Key] = [(name, index, *(0 for _ in shape)) for index in range(len(steps))]
    for key, step in zip(keys, steps, strict=True):
        layer[key] = Task(key, finish, statistic, TaskRef(step), shape, str(dtype))
    return tasks, keys


def stack(series: Source, statistic: Statistic, plan: Plan, dtype: np.dtype) -> Array:
    """Return the lazy stack of all intermediate images (steps, rows, cols)."""
    layout = plan.layout
    shape = statistic.image_shape(layout.rows, layout.cols)
    tasks, keys = images(series, statistic, plan, dtype)
    name = f"{statistic.name}-stack-{tokenize(keys[-1])}"
    layer = tasks.add(name, [keys[0][0]])
    for key in keys:
        plane = (name, *key[1:])
        layer[plane] = Task(plane, one_plane, TaskRef(key))
    chunks = ((1,) * len(keys), *((length,) for length in shape))
    return tasks.array(name, chunks, dtype)


def _partials(
    tasks: Tasks, series: Source, statistic: Statistic, plan: Plan, token: str
) -> list[list[Key]]:
    """Add one task for each block and return their keys, step by step."""
    reader = Reader(tasks, series, plan, token)
    name = f"{statistic.name}-{'partial' if plan.along == 'frames' else 'band'}-{token}"
    layer = tasks.add(name, after=filter(None, [reader.layer]))
    groups = []
    for blocks in plan.steps:
        group = []
        for start, stop in blocks:
            key = (name, len(layer))
            pixels = (reader.frames if plan.along == "frames" else reader.band)(start, stop)
            layer[key] = Task(key, statistic.chunk, pixels, start)
            group.append(key)
        groups.append(group)
    return groups


def _combined(tasks: Tasks, statistic: Statistic, groups: list[list[Key]], token: str) -> list[Key]:
    """Combine the states of each step, a few at a time, and return one key for each step."""
    level = 0
    while any(len(group) > 1 for group in groups):
        name = f"{statistic.name}-combine-{level}-{token}"
        layer = tasks.add(name, {key[0] for group in groups for key in group})
        groups = [_combined_once(layer, name, statistic, group) for group in groups]
        level += 1
    return [key for (key,) in groups]


def _combined_once(layer: dict, name: str, statistic: Statistic, group: list[Key]) -> list[Key]:
    combined: list[Key] = []
    for edge in range(0, len(group), FAN_IN):
        few = group[edge : edge + FAN_IN]
        if len(few) == 1:
            combined += few
            continue
        key = (name, len(layer))
        layer[key] = Task(key, combine_all, statistic, List(*(TaskRef(key) for key in few)))
        combined.append(key)
    return combined


def combine_all(statistic: Statistic, states: Sequence[State]) -> State:
    """Combine states that follow one another."""
    return reduce(statistic.combine, states)


def pass_steps(
    statistic: Statistic,
    state: State | None,
    passes: Sequence[tuple[int, int, Pixels]],
    canvases: Canvases,
    first: int,
    last: int,
) -> State | None:
    """Take a lane's state past some steps, and write its rows of their images."""
    for step, start, pixels in passes:
        canvases.hold(step)
        state = statistic.advance(pixels, start, state)
        statistic.write(state, canvases.image(step)[first:last])
        canvases.passed(step)
    return state


def finish(statistic: Statistic, state: State, shape: tuple, dtype: str) -> np.ndarray:
    """Return the image of a state."""
    return statistic.image(state, shape, np.dtype(dtype))


def finish_band(statistic: Statistic, state: State, shape: tuple, dtype: str) -> np.ndarray:
    """Return the image of one band alone."""
    (band,) = state.values()
    return statistic.image({"0": band}, shape, np.dtype(dtype))


def one_plane(image: np.ndarray) -> np.ndarray:
    """Return an image as a stack of one."""
    return image[None]
