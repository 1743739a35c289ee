"""Lanes of rows: how threads of one process pass all steps of frames that are in memory.

Each lane has a state, which each of its tasks copies and then folds in place, and writes its rows
of the images of each step. Nothing here knows dask: `graph.lanes` makes the tasks.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, starmap
from threading import Lock
from typing import Any

import numpy as np

from ..images import ImageSpec
from ..planning.values import Plan, Range
from ..series.base import Source
from ..statistics import State, Statistic
from ..statistics.base import copy_state
from .blocks import SourceBlocks


class StepImages:
    """The images of each step that the lanes of a running reduction write their rows into.

    `deliver` is called with those of a step as soon as the last lane has written its rows, and
    `hold` before a lane goes on to a step, to make it wait; whoever runs the tasks sets both.
    """

    def __init__(self, outputs: Sequence[ImageSpec], lanes: int, trails: bool, burst: int) -> None:
        self.deliver: Callable[[int, list[np.ndarray]], Any] = lambda step, images: None
        self.hold: Callable[[int], Any] = lambda step: None
        self.outputs, self._lanes = outputs, lanes
        self.trails, self.burst = trails, burst if trails else 1
        self._images: dict[int, list[np.ndarray]] = {}
        self._missing: dict[int, int] = {}
        self._lock = Lock()

    def rows(self, step: int, first: int, last: int) -> list[np.ndarray]:
        """Return some rows of the images of a step, the same images for each lane."""
        with self._lock:
            if step not in self._images:
                self._images[step] = [output.empty() for output in self.outputs]
                self._missing[step] = self._lanes
            return [image[..., first:last, :] for image in self._images[step]]

    def passed(self, step: int) -> None:
        """Count a lane that has written its rows of an image."""
        with self._lock:
            self._missing[step] -= 1
            if self._missing[step]:
                return
            del self._missing[step]
            images = self._images.pop(step)
        self.deliver(step, images)


def reduce_steps(
    statistic: Statistic,
    state: State | None,
    view: Source,
    plan: Plan,
    steps: range,
    canvases: StepImages,
    first: int,
) -> State | None:
    """Take a copy of a lane's state past some steps; write the rows of their images.

    ``view`` holds the lane's rows of all frames. Within the task the state is folded in place.
    """
    last, state = first + view.shape[0], copy_state(state)
    for burst in bursts(steps, canvases.burst):
        canvases.hold(burst[-1])
        images = [canvases.rows(step, first, last) for step in burst]
        if canvases.trails:
            state = _trailed(statistic, state, view, [plan.steps[step] for step in burst], images)
        else:
            state = _advanced(statistic, state, view, plan.steps[burst[0]], plan.piece)
            every = zip(canvases.outputs, statistic.split(state), *images, strict=True)
            for output, own, image in every:
                output.write(own, image, first)
        for step in burst:
            canvases.passed(step)
    return state


def bursts(steps: range, size: int) -> list[range]:
    """Return the steps that are passed at once; the very first alone, so that it comes early.

    >>> bursts(range(0, 8), 4)
    [range(0, 1), range(1, 5), range(5, 8)]
    """
    edges = [*range(steps.start + (steps.start == 0), steps.stop, size), steps.stop]
    return list(starmap(range, pairwise([0, *edges] if steps.start == 0 else edges)))


def _advanced(
    statistic: Statistic, state: State | None, view: Source, step: Sequence[Range], piece: int
) -> State:
    start, stop = step[0][0], step[-1][1]
    # A step of one block is taken at once, wherever it begins, unless its frames are widened.
    whole = len(step) == 1 and view.dtype != np.float16
    count = len(view) if whole else piece
    return statistic.advance(SourceBlocks(view, start, stop, 0, view.shape[0], count), start, state)


def _trailed(
    statistic: Statistic,
    state: State | None,
    view: Source,
    steps: Sequence[Sequence[Range]],
    images: Sequence[list[np.ndarray]],
) -> State:
    assert statistic.trail is not None
    start, ends = steps[0][0][0], [step[-1][1] for step in steps]
    (piece,) = view.pieces(start, ends[-1], 0, view.shape[0], len(view))
    every = zip(ends, images, strict=True)
    return statistic.trail(piece, state, [(end - start, image) for end, (image,) in every])
