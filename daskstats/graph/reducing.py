"""The tasks of a reduction: partial states, their combination, and images.

For three steps of two blocks each (``+`` is combine)::

    frames   average-partial   average-combine        average-step
    0 .. 9      p0  ---------\\
    10 .. 19    p1  ----------+-- c0 ------------------- s0
    20 .. 29    p2  ---------\\                            |
    30 .. 39    p3  ----------+-- c1 ------------------ + s1
    40 .. 49    p4  ---------\\                            |
    50 .. 59    p5  ----------+-- c2 ------------------ + s2

Every p runs as soon as a worker is free; only the cheap s wait for each other. The image of a step
is made from its s; the result is that of the last step. `step_partials` has tasks up to the c: the
consumer combines them, which saves a task for each step.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import partial
from uuid import uuid4

from dask._task_spec import DataNode, List, Task, TaskRef
from dask.array import Array
from dask.base import tokenize

from ..images import ImageSpec, are_states
from ..memory.reservation import MemoryReservation
from ..planning.cuts import LARGEST_BLOCK, cut, ranges, split
from ..planning.values import Range
from .build import Key, Tasks, Work
from .reading import Reader, description, token_of
from .row_parallel import StepImages, reduce_steps
from .tasks import advance, combine_all, finish, fold_to_send, plane, rows_of


def lazy_images(
    work: Work, names: Sequence[str], reservation: MemoryReservation | None = None
) -> list[Array]:
    """Return the lazy images, named as dask shows them; together they read the series once."""
    plan = work.plan
    states = States(work, _token(work, reservation, list(work.images)), reservation)
    (keys,) = states.partials()
    if plan.along == "frames" or plan.in_pixels:
        # One block: parts of rows are no blocks of an image.
        keys = states.combined([keys])
    # A token of their own: a user's statistic may have the name of another layer, say "source".
    token = tokenize(states.token)
    return [
        _finished(states, keys, spec, index, f"{name}-{token}")
        for index, (spec, name) in enumerate(zip(work.images, names, strict=True))
    ]


def _finished(states: "States", keys: list[Key], spec: ImageSpec, index: int, name: str) -> Array:
    """Return the lazy image of one statistic: a block for each band of rows, or for all."""
    plan, statistic = states.work.plan, states.work.statistic
    in_bands, planes = plan.along == "rows" and not plan.in_pixels, spec.shape[:-2]
    tasks = Tasks({**states.tasks.layers}, {**states.tasks.dependencies})
    layer = tasks.add(name, {key[0] for key in keys})
    for number, state in enumerate(keys):
        key = (name, *(0 for _ in planes), number, 0)
        layer[key] = Task(key, finish, spec, statistic, index, TaskRef(state), in_bands)
    heights = tuple(last - first for first, last in plan.blocks) if in_bands else (spec.rows,)
    chunks = (*((length,) for length in planes), heights, (spec.cols,))
    return tasks.array(name, chunks, spec.dtype)


def step_partials(
    work: Work, reservation: MemoryReservation | None = None, token: str = ""
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of all steps, and the key of each step's own partial state.

    ``token`` is for tasks that run once: to make a name that identifies them takes 1 ms.
    """
    states = States(work, token or _token(work, reservation), reservation)
    keys = states.combined(states.partials())
    return states.tasks, keys


def per_step_partials(work: Work) -> tuple[Tasks, list[list[Key]]]:
    """Return the tasks of all steps and, for each, the keys of the states of a few blocks each.

    The client combines them further. No two calls give the same keys: two runs of one series must
    not share tasks, which one of them may cancel.
    """
    states, plan = States(work, uuid4().hex), work.plan
    groups = states.partials()
    if plan.along == "frames" and plan.fan_in > 1 and max(map(len, groups)) > 1:
        groups = states.combined_once(groups, "step")
    return states.tasks, groups


def running_states(
    work: Work, reservation: MemoryReservation | None = None
) -> tuple[Tasks, list[Key]]:
    """Return the tasks of a running reduction, and the key of the state up to each step."""
    tasks, keys = step_partials(work, reservation)
    name = f"{work.statistic.name}-step-{tokenize(keys)}"
    layer = tasks.add(name, {key[0] for key in keys})
    last: Key | None = None
    if work.start is not None and work.start.state:
        last = (name, "start")
        layer[last] = DataNode(last, work.start.state)
    steps: list[Key] = []
    for index, key in enumerate(keys):
        step = key
        if last is not None:
            step = (name, index)
            layer[step] = Task(step, work.statistic.combine, TaskRef(last), TaskRef(key))
        steps.append(step)
        last = step
    return tasks, steps


def stack(work: Work, reservation: MemoryReservation | None = None) -> Array:
    """Return the lazy stack of all intermediate images (steps, rows, cols)."""
    (spec,) = work.images
    tasks, steps = running_states(work, reservation)
    name = f"{work.statistic.name}-image-{tokenize(steps[-1], spec)}"
    layer = tasks.add(name, {step[0] for step in steps})
    for index, step in enumerate(steps):
        key = (name, index, *(0 for _ in spec.shape))
        layer[key] = Task(key, plane, spec, work.statistic, TaskRef(step))
    chunks = ((1,) * len(steps), *((length,) for length in spec.shape))
    return tasks.array(name, chunks, spec.dtype)


def row_parallel(work: Work) -> tuple[Tasks, list[list[Key]], StepImages]:
    """Return the tasks of a running reduction of frames in memory, their keys, and the images.

    Each range of rows has one state, which its tasks fold in place as they pass the steps (each of
    the few tasks starts with a copy), and writes its rows of each image: next to no memory is moved
    apart from the frames themselves. The images are shared, so the tasks must run in threads of one
    process, and each of them once::

        rows   0 ..  511    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
        rows 512 .. 1023    steps 0, 1, 2, 3 --- steps 4, 5, 6, 7 --- ...
    """
    series, statistic, plan = work.series, work.statistic, work.plan
    tasks, name = Tasks(), f"{statistic.name}-steps-{uuid4().hex}"
    layer = tasks.add(name)
    rows = ranges(split(plan.layout.rows, min(plan.workers, plan.layout.rows)))
    is_state = are_states(work.images, statistic, series.dtype)
    images = StepImages(work.images, len(rows), plan.burst, is_state)
    # Several tasks, so that dask's callbacks see the progress.
    count = plan.layout.nbytes // (len(rows) * LARGEST_BLOCK) + 1
    runs = cut(0, len(plan.steps), -(-len(plan.steps) // count))
    for number, (first, last) in enumerate(rows):
        view = series.view(0, plan.layout.nframes, first, last)
        assert view is not None, "the frames must be in memory"
        state = None
        for index, run in enumerate(runs):
            key, steps = (name, index, number), range(*run)
            layer[key] = Task(key, reduce_steps, statistic, state, view, plan, steps, images, first)
            state = TaskRef(key)
    keys = [[(name, index, number) for number in range(len(rows))] for index in range(len(runs))]
    return tasks, keys, images


def _token(work: Work, reservation: MemoryReservation | None, *others: object) -> str:
    """Return a token that the names of the same tasks have in common, and no others."""
    return token_of(work.series, work.plan, reservation, work.statistic, *others)


class States:
    """Builds the tasks that make states.

    Parameters
    ----------
    work : Work
    token : str
        Of the names of the tasks.
    reservation : MemoryReservation, optional
        Of a lazy image.
    """

    def __init__(
        self, work: Work, token: str, reservation: MemoryReservation | None = None
    ) -> None:
        self.work, self.token = work, token
        self.tasks = Tasks(reservation=reservation)

    def _add(self, kind: str, after: Iterable[str]) -> tuple[str, dict]:
        name = f"{self.work.statistic.name}-{kind}-{self.token}"
        return name, self.tasks.add(name, after)

    def partials(self) -> list[list[Key]]:
        """Add the tasks that fold blocks; return the keys of the states that each step adds."""
        plan, statistic = self.work.plan, self.work.statistic
        reader = Reader(self.tasks, self.work.series, plan, self.token)
        in_frames = plan.along == "frames"
        name, layer = self._add("partial" if in_frames else "band", reader.after)
        done = plan.steps[0][0][0]  # by an earlier run
        keys = {
            block: (name, index, description(plan.along, *block))
            for index, block in enumerate(plan.blocks)
            if block[1] > done
        }
        if plan.chains:
            return [self._chains(layer, keys, step, reader) for step in plan.steps]
        chunk = (
            partial(fold_to_send, statistic)
            if plan.processes
            else partial(advance, statistic, None)
        )
        read = reader.frames if in_frames else reader.band
        for block, key in keys.items():
            layer[key] = reader.task(key, chunk, read(*block), block[0])
        if all(part in keys for step in plan.steps for part in step):
            return [[keys[part] for part in step] for step in plan.steps]
        return self._parts_of_bands(keys)

    def _chains(
        self, layer: dict, keys: dict[Range, Key], step: Sequence[Range], reader: Reader
    ) -> list[Key]:
        """Add the tasks of a step in a few chains, each with one state; return their last keys."""
        last = []
        for first, end in ranges(split(len(step), min(self.work.plan.chains, len(step)))):
            state = None
            for block in step[first:end]:
                key, frames = keys[block], reader.frames(*block)
                layer[key] = reader.task(key, advance, self.work.statistic, state, frames, block[0])
                state = TaskRef(key)
            last.append(key)
        return last

    def _parts_of_bands(self, keys: dict[Range, Key]) -> list[list[Key]]:
        """Cut the states of bands where the steps end."""
        starts, bands = [first for first, _ in keys], list(keys.values())
        name, layer = self._add("rows", {band[0] for band in bands})
        groups = []
        for step in self.work.plan.steps:
            group = []
            for first, last in step:
                key, band = (name, len(layer)), bands[bisect_right(starts, first) - 1]
                layer[key] = Task(key, rows_of, TaskRef(band), first, last)
                group.append(key)
            groups.append(group)
        return groups

    def combined(self, groups: list[list[Key]]) -> list[Key]:
        """Combine the states of each step, a few at a time, and return one key for each step."""
        level = 0
        while any(len(group) > 1 for group in groups):
            groups = self.combined_once(groups, f"combine-{level}")
            level += 1
        return [key for (key,) in groups]

    def combined_once(self, groups: list[list[Key]], kind: str) -> list[list[Key]]:
        """Combine a few states of each step by a task."""
        name, layer = self._add(kind, {key[0] for group in groups for key in group})
        return [self._combined_group(layer, name, group) for group in groups]

    def _combined_group(self, layer: dict, name: str, group: list[Key]) -> list[Key]:
        combined: list[Key] = []
        plan = self.work.plan
        fan_in, sent = max(2, plan.fan_in), plan.processes > 0
        for edge in range(0, len(group), fan_in):
            few = group[edge : edge + fan_in]
            if len(few) == 1:
                combined += few
                continue
            key, states = (name, len(layer)), List(*map(TaskRef, few))
            layer[key] = Task(key, combine_all, self.work.statistic, states, sent)
            combined.append(key)
        return combined
