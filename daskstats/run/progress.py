"""The state of a running reduction so far: the one place that combines its partial results."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph.build import Work
from ..statistics import State


@dataclass(frozen=True)
class Snapshot:
    """An intermediate image, and the part of the series that it covers."""

    image: np.ndarray
    """the statistic so far; the caller's own array"""
    done: int
    """frames (or, for percentiles, rows) that the image covers"""
    total: int
    """frames (or rows) that the last image will cover"""
    seen: np.ndarray
    """(rows, cols) bool, read-only: pixels with a value (row-wise images fill up)"""
    phase: str = "reduce"
    """"reduce", or "spool" while frames that do not fit into memory are written to disk: then the
    image is zero, and ``done`` and ``total`` are frames"""


class Progress:
    """The state so far of one running reduction, on any scheduler.

    A runner delivers the results of one step after the other to `advance`, and the images of the
    state so far are made when they are asked for.

    Parameters
    ----------
    work : Work
        The reduction: statistic, images and plan.
    names : sequence of str, optional
        Of the images in a dict; none if a plain image was asked for.
    absorb : function
        `add_partials`, `replace_state` or `take_images`: the method that takes the results of a
        step, which depends on the scheduler.
    writing : int
        Leading steps that write frames to disk.

    Examples
    --------
    >>> from daskstats.planning.frame_wise import plan_frame_wise
    >>> from daskstats.planning.request import Request
    >>> from daskstats.planning.values import Cost, Layout
    >>> from daskstats.images import ImageSpec
    >>> from daskstats.series.opening import as_series
    >>> from daskstats.statistics import maximum
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> request = Request(Layout(2, 1, 2, 1), Cost(), steps=2, workers=1, limit=1 << 30)
    >>> plan = plan_frame_wise(request)
    >>> images = [ImageSpec(maximum, 1, 2, frames.dtype)]
    >>> progress = Progress(Work(as_series(frames), maximum, plan, images))
    >>> for k, frame in enumerate(frames):
    ...     progress.advance([maximum.chunk([[frame[None]]], k)])
    ...     print(progress.done, "of", progress.total, progress.image())
    1 of 2 [[1 2]]
    2 of 2 [[3 2]]
    """

    def __init__(
        self,
        work: Work,
        names: Sequence[str] = (),
        absorb: "Callable[[Progress, Iterable], None] | None" = None,
        writing: int = 0,
    ) -> None:
        self._statistic, self._specs, self._plan = work.statistic, work.images, work.plan
        self._names, self._writing = names, writing
        self._by_rows = work.statistic.along == "rows"
        self._absorb = absorb or Progress.add_partials
        self.step = -1
        """the last step that is done, those that write frames to disk included"""
        self.state: State | None = None
        """of the frames, or rows, that are done"""
        self._made: list[np.ndarray] | None = None
        # Rows that are done stay as they are: images are copies of these, which fill up.
        self._rows = [np.zeros(s.shape, s.dtype) for s in work.images] if self._by_rows else None

    def advance(self, results: Iterable) -> None:
        """Take the results of the next step."""
        if self.step + 1 < self._writing:
            deque(results, maxlen=0)  # a cluster's are waited for as they are taken
        else:
            self._absorb(self, results)
        self.step += 1

    def add_partials(self, states: Iterable[State]) -> None:
        """Combine the state so far with the partial states of the next step, one by one."""
        for partial in states:
            if self._rows is not None:
                self._write_rows(partial)
            self.state = partial if self.state is None else self._combined(self.state, partial)

    def _combined(self, state: State, partial: State) -> State:
        return partial if self._by_rows else self._statistic.combine(state, partial)

    def replace_state(self, states: Iterable[State]) -> None:
        """Take the state of all frames, or rows, up to the next step."""
        (state,) = states
        if self._rows is not None:
            before = self.state or {}
            self._write_rows({key: state[key] for key in state.keys() - before.keys()})
        self.state = state

    def take_images(self, results: Iterable[list[np.ndarray]]) -> None:
        """Take the finished images of the next step; their states stay with the tasks."""
        (self._made,) = results

    def _write_rows(self, state: State) -> None:
        assert self._rows is not None
        every = zip(self._specs, self._statistic.split(state), self._rows, strict=True)
        for spec, own, rows in every:
            spec.write(own, rows)

    @property
    def phase(self) -> str:
        """ "spool" while frames are written to disk, then "reduce"."""
        return "spool" if self.step < self._writing else "reduce"

    @property
    def done(self) -> int:
        """Frames (row-wise: rows) that the state covers, or that are written to disk."""
        if self.phase == "spool":
            return self._plan.groups[self.step][1]
        last = self._plan.steps[self.step - self._writing][-1]
        return last[1] // self._plan.layout.width

    @property
    def total(self) -> int:
        """Frames (or rows) of the last step of this phase."""
        return self._plan.total if self.phase == "reduce" else self._plan.layout.nframes

    @property
    def seen(self) -> np.ndarray:
        """(rows, cols) bool, read-only: pixels with a value."""
        rows, cols = self._specs[0].rows, self._specs[0].cols
        seen = np.zeros((rows, 1), bool)
        if self.phase == "reduce":
            seen[: self.done if self._by_rows else rows] = True
        return np.broadcast_to(seen, (rows, cols))

    def images(self) -> list[np.ndarray]:
        """Return the image of each statistic; the arrays are the caller's own.

        Images that came finished are given away once.
        """
        if self.phase == "spool":
            return [spec.blank() for spec in self._specs]
        if self._made is not None:
            made, self._made = self._made, None
            return made
        if self._rows is not None:
            return [spec.copy(rows) for spec, rows in zip(self._specs, self._rows, strict=True)]
        assert self.state is not None, "no step is done"
        states = self._statistic.split(self.state)
        return [spec.image(own) for spec, own in zip(self._specs, states, strict=True)]

    def image(self) -> np.ndarray:
        """Return the image of the only statistic."""
        (image,) = self.images()
        return image

    def image_dict(self) -> dict[str, np.ndarray]:
        """Return the images by the names of their statistics."""
        return dict(zip(self._names, self.images(), strict=True))

    def snapshot(self) -> Snapshot:
        """Return the image, or the dict of images, and the part of the series that it covers."""
        image = self.image_dict() if self._names else self.image()
        return Snapshot(image, self.done, self.total, self.seen, self.phase)  # type: ignore[arg-type]
