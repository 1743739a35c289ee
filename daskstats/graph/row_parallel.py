"""Running reductions of frames in memory, in parallel over ranges of rows.

Each range of rows has a state, which each of its tasks copies and then folds in place, and writes
its rows of the images of each step. Nothing here knows dask: `reducing.row_parallel` makes the
tasks.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, starmap
from threading import Lock

import numpy as np

from ..compiling import compiled_for
from ..images import ImageSpec
from ..planning.values import Plan, Range
from ..series.base import Source
from ..statistics import State, Statistic, compile_seconds
from ..statistics.base import copy_state
from .blocks import SourceBlocks


class StepImages:
    """The images of each step, which the tasks of all ranges of rows write into.

    Parameters
    ----------
    specs : sequence of ImageSpec
        Of the images of a step.
    writers : int
        Ranges of rows.
    batch : int
        Steps that a call of compiled code passes at once; 1 unless ``is_state``.
    is_state : bool
        Whether an image is the one array of its state, so that the fold may write it.
    """

    def __init__(
        self, specs: Sequence[ImageSpec], writers: int, batch: int, is_state: bool
    ) -> None:
        self.specs, self._writers = specs, writers
        self.is_state, self.batch = is_state, batch if is_state else 1
        self._images: dict[int, list[np.ndarray]] = {}
        self._missing: dict[int, int] = {}
        self._lock = Lock()

    def connect(
        self,
        deliver: Callable[[int, list[np.ndarray]], object],
        wait_for_step: Callable[[int], object],
    ) -> None:
        """Set the function that takes the images of a step, and one that waits for a step."""
        self._deliver, self.wait_for_step = deliver, wait_for_step

    def rows(self, step: int, first: int, last: int) -> list[np.ndarray]:
        """Return some rows of the images of a step; all callers get views of the same images."""
        with self._lock:
            if step not in self._images:
                self._images[step] = [spec.empty() for spec in self.specs]
                self._missing[step] = self._writers
            return [image[..., first:last, :] for image in self._images[step]]

    def note_written(self, step: int) -> None:
        """Note that a range of rows is written; deliver the images after the last of them."""
        with self._lock:
            self._missing[step] -= 1
            if self._missing[step]:
                return
            del self._missing[step]
            images = self._images.pop(step)
        self._deliver(step, images)


def reduce_steps(
    statistic: Statistic,
    state: State | None,
    view: Source,
    plan: Plan,
    steps: range,
    images: StepImages,
    first: int,
) -> State | None:
    """Fold the frames of some steps into a copy of a state, and write the rows of their images.

    ``view`` holds the rows from ``first`` on of all frames.
    """
    last, state = first + view.shape[0], copy_state(state)
    for batch in batches(steps, images.batch):
        images.wait_for_step(batch[-1])
        rows = [images.rows(step, first, last) for step in batch]
        with compiled_for(statistic.name, view.dtype, compile_seconds(statistic)):
            parts = [plan.steps[step] for step in batch]
            if images.is_state:
                state = _fold_batch(statistic, state, view, parts, rows)
            else:
                state = _fold_step(statistic, state, view, parts[0], plan.piece)
        if not images.is_state:
            for spec, own, image in zip(images.specs, statistic.split(state), *rows, strict=True):
                spec.write(own, image, first)
        for step in batch:
            images.note_written(step)
    return state


def batches(steps: range, size: int) -> list[range]:
    """Return the steps that are passed at once; the very first alone, so that it comes early.

    >>> batches(range(0, 8), 4)
    [range(0, 1), range(1, 5), range(5, 8)]
    """
    edges = [*range(steps.start + (steps.start == 0), steps.stop, size), steps.stop]
    return list(starmap(range, pairwise([0, *edges] if steps.start == 0 else edges)))


def _fold_step(
    statistic: Statistic, state: State | None, view: Source, step: Sequence[Range], piece: int
) -> State:
    start, stop = step[0][0], step[-1][1]
    # A step of one block is folded at once, wherever it begins, unless its frames are widened.
    whole = len(step) == 1 and view.dtype != np.float16
    count = len(view) if whole else piece
    return statistic.advance(SourceBlocks(view, start, stop, 0, view.shape[0], count), start, state)


def _fold_batch(
    statistic: Statistic,
    state: State | None,
    view: Source,
    steps: Sequence[Sequence[Range]],
    rows: Sequence[list[np.ndarray]],
) -> State:
    """Fold several steps by one call of compiled code, which writes the images in between."""
    assert statistic.trail is not None
    start, ends = steps[0][0][0], [step[-1][1] for step in steps]
    (piece,) = view.pieces(start, ends[-1], 0, view.shape[0], len(view))
    images = [(end - start, image) for end, (image,) in zip(ends, rows, strict=True)]
    return statistic.trail(piece, state, images)
