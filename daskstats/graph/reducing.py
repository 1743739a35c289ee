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
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from dask._task_spec import List, Task, TaskRef
from dask.array import Array
from dask.base import tokenize

from ..images import ImageSpec
from ..memory.reservation import MemoryReservation
from ..planning.cuts import cut, ranges, split
from ..planning.values import Plan, Range
from ..series.base import Source
from ..statistics import Statistic
from .build import Key, Tasks
from .reading import Reader, _description
from .row_parallel import StepImages, reduce_steps
from .tasks import advance, chunk_to_send, combine_all, finish, one_plane, rows_of

# Tasks that each lane of rows has at most, so that dask's callbacks see the run go on, and the
# bytes of frames that each of them should have: to schedule one takes some 0.1 ms of a core.
TASKS_OF_A_LANE, LANE_NBYTES = 16, 128 << 20


def _token(series: Source, statistic: Statistic, plan: Plan, *others: Any) -> str:
    """Return what the names of the same tasks have in common, and those of no others."""
    where = plan.disk and (plan.disk.directory, plan.disk.compression, plan.disk.cluster)
    cuts = plan.steps, plan.strategy, plan.blocks, plan.groups, plan.replicas
    return tokenize(series, statistic, *cuts, where, *others)


def results(
    series: Source,
    statistic: Statistic,
    plan: Plan,
    outputs: Sequence[ImageSpec],
    share: MemoryReservation | None = None,
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
    output: ImageSpec,
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
    share: MemoryReservation | None = None,
    token: str = "",
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of all steps and the keys of their own partial states, one for each.

    ``token`` is for tasks that are run once: a name that says what they do takes 1 ms to make.
    """
    tasks, token = Tasks(share=share), token or _token(series, statistic, plan)
    groups = _partials(tasks, series, statistic, plan, token)
    return tasks, _combined(tasks, statistic, groups, token, plan)


def per_step_partials(
    series: Source, statistic: Statistic, plan: Plan
) -> tuple[Tasks, list[list[Key]]]:
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
    series: Source, statistic: Statistic, plan: Plan, outputs: Sequence[ImageSpec]
) -> tuple[Tasks, list[list[Key]], StepImages]:
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
    canvases = StepImages(outputs, len(rows), trails, plan.burst)
    most = min(TASKS_OF_A_LANE, plan.layout.nbytes // (len(rows) * LANE_NBYTES) + 1)
    runs = cut(0, len(plan.steps), -(-len(plan.steps) // most))
    for lane, (first, last) in enumerate(rows):
        view = series.view(0, plan.layout.nframes, first, last)
        assert view is not None, "only frames in memory have lanes"
        state = None
        for index, run in enumerate(runs):
            key, steps = (name, index, lane), range(*run)
            layer[key] = Task(
                key, reduce_steps, statistic, state, view, plan, steps, canvases, first
            )
            state = TaskRef(key)
    keys = [[(name, index, lane) for lane in range(len(rows))] for index in range(len(runs))]
    return tasks, keys, canvases


def states(
    series: Source, statistic: Statistic, plan: Plan, share: MemoryReservation | None = None
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
    series: Source,
    statistic: Statistic,
    plan: Plan,
    output: ImageSpec,
    share: MemoryReservation | None = None,
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
