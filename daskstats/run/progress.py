"""The state of a running reduction so far: the one place that combines its partial results."""

import html
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ..graph.build import Start, Work
from ..pictures import side_by_side
from ..planning.values import mebibytes
from ..reprs import described
from ..statistics import State

ImageT = TypeVar("ImageT", np.ndarray, dict[str, np.ndarray])


@dataclass(frozen=True)
class Snapshot(Generic[ImageT]):
    """An intermediate image, or a dict of them, and the part of the series that it covers."""

    image: ImageT
    """the statistic so far, the caller's own array; a dict of arrays for a list of statistics"""
    done: int
    """frames (or, for percentiles, rows) that the image covers, or that have been read"""
    total: int
    """frames (or rows) of the last snapshot of this phase"""
    seen: np.ndarray
    """(rows, cols) bool, read-only: pixels with a value (row-wise images fill up)"""
    phase: str = "compute"
    """"compute", or "read" while all frames are read before the first row is reduced: then the
    image is zero"""
    unit: str = "frames"
    """"frames" or "rows", of ``done`` and ``total``"""
    statistic: str = ""
    """name of the statistic; several are separated by commas"""
    nbytes: int = 0
    """bytes of frames that have been read so far, those that are read again included"""

    def __repr__(self) -> str:
        every = (described(image.shape, image.dtype) for image in self.images.values())
        return f"<Snapshot of {self._caption}, image of {', '.join(every)}>"

    def _repr_html_(self) -> str:
        """Return small pictures for notebooks; pixels that are not seen yet are hatched."""
        rows = int(np.count_nonzero(self.seen[:, 0]))
        caption = f"{self._caption}, {mebibytes(self.nbytes)} read ({self.phase})"
        return f"<p>{html.escape(caption)}</p>{side_by_side(self.images, rows)}"

    @property
    def images(self) -> dict[str, np.ndarray]:
        """The image, or all of several, by the names of the statistics."""
        image = self.image
        return image if isinstance(image, dict) else {self.statistic: image}

    @property
    def _caption(self) -> str:
        return f"{self.statistic}: {self.done} of {self.total} {self.unit}"


class Progress:
    """The state so far of one running reduction, on any scheduler.

    A runner delivers the results of one step after the other to `advance`, and the images of the
    state so far are made when they are asked for.

    Parameters
    ----------
    work : Work
        The reduction: statistic, images and plan.
    names : sequence of str
        Of the statistics.
    several : bool
        Whether a dict of images was asked for.
    absorb : function
        `add_partials`, `replace_state` or `take_images`: the method that takes the results of a
        step, which depends on the scheduler.
    reading : sequence of int
        For each leading step that reads frames only: the frames that are read after it.

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
        several: bool = False,
        absorb: "Callable[[Progress, Iterable], None] | None" = None,
        reading: Sequence[int] = (),
    ) -> None:
        self._statistic, self._specs, self._plan = work.statistic, work.images, work.plan
        self.names, self.several, self._reading = tuple(names), several, reading
        self._by_rows = work.statistic.along == "rows"
        self._absorb = absorb or Progress.add_partials
        self.step = -1
        """the last step that is done, those that only read frames included"""
        self.state: State | None = None
        """of the frames, or rows, that are done"""
        self._before = 0 if work.start is None else work.start.done
        self.whole = True
        """whether the state is that of whole steps: not where an error has ended `advance`"""
        self._made: list[np.ndarray] | None = None
        # Rows that are done stay as they are: images are copies of these, which fill up.
        self._rows = [np.zeros(s.shape, s.dtype) for s in work.images] if self._by_rows else None
        if work.start is not None and self._before:
            self._continue(work.start)

    def _continue(self, start: Start) -> None:
        """Begin with the state of an earlier run."""
        if self._rows is None:
            self.state = start.state
        for rows, image in zip(self._rows or (), start.images, strict=False):
            rows[..., : start.done, :] = image[..., : start.done, :]

    def advance(self, results: Iterable) -> None:
        """Take the results of the next step."""
        if self.step + 1 < len(self._reading):
            deque(results, maxlen=0)  # a cluster's are waited for as they are taken
        else:
            self._absorb(self, self._begun(results))
        self.step += 1
        self.whole = True

    def _begun(self, results: Iterable) -> Iterator:
        """Yield results, and note that the first of them has been taken."""
        for result in results:
            self.whole = False
            yield result

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
        """ "read" while all frames are read before the first row is reduced, then "compute"."""
        return "read" if self.step < len(self._reading) else "compute"

    @property
    def next_phase(self) -> str:
        """The phase of the step that is under way."""
        return "read" if self.step + 1 < len(self._reading) else "compute"

    @property
    def done(self) -> int:
        """Frames (row-wise: rows) that the state covers, or that have been read."""
        if self.phase == "read":
            return self._reading[self.step] if self.step >= 0 else 0
        if self.step < 0:
            return self._before
        last = self._plan.steps[self.step - len(self._reading)][-1]
        return last[1] // self._plan.layout.width

    @property
    def total(self) -> int:
        """Frames (or rows) of the last step of this phase."""
        return self._plan.total if self.phase == "compute" else self._plan.layout.nframes

    @property
    def unit(self) -> str:
        """ "frames" or "rows": the unit of `done` and `total`."""
        return "frames" if self.phase == "read" else self.unit_of_images

    @property
    def unit_of_images(self) -> str:
        """ "frames" or "rows": the unit in which the images are done."""
        return self._plan.along

    @property
    def nbytes(self) -> int:
        """Bytes of frames that have been read, as many times as the plan reads them."""
        layout = self._plan.layout
        if self.phase == "read":
            return self.done * layout.frame_nbytes
        if self._plan.strategy in ("fold", "direct", "reread"):
            return int(self._plan.reads * layout.nbytes * self.done / self.total)
        return layout.nbytes if self.step >= 0 else 0

    @property
    def statistic(self) -> str:
        """Name of the statistic; several are separated by commas."""
        return ", ".join(self.names)

    @property
    def series(self) -> str:
        """The series in words."""
        return str(self._plan.layout)

    @property
    def rows_seen(self) -> int:
        """Leading rows with values."""
        if self._by_rows:
            return self._before if self.phase == "read" else self.done
        return self._specs[0].rows if self.done else 0

    @property
    def seen(self) -> np.ndarray:
        """(rows, cols) bool, read-only: pixels with a value."""
        rows, cols = self._specs[0].rows, self._specs[0].cols
        seen = np.zeros((rows, 1), bool)
        seen[: self.rows_seen] = True
        return np.broadcast_to(seen, (rows, cols))

    def images(self) -> list[np.ndarray]:
        """Return the image of each statistic; the arrays are the caller's own.

        Images that came finished are given away once.
        """
        if self.phase == "read" and not self._before:
            return [spec.blank() for spec in self._specs]
        if self._made is not None:
            made, self._made = self._made, None
            return made
        if self._rows is not None:
            return [spec.copy(rows) for spec, rows in zip(self._specs, self._rows, strict=True)]
        assert self.state is not None, "no step is done"
        return self._images_of(self.state)

    def images_at(self, state: State | None, done: int) -> list[np.ndarray]:
        """Return the images after an earlier step, from its state and the frames or rows done."""
        if state is not None and self._rows is None:
            return self._images_of(state)
        images = self.images()
        for image in images:  # later steps may have begun to write their rows
            image[..., done:, :] = 0
        return images

    def _images_of(self, state: State) -> list[np.ndarray]:
        states = self._statistic.split(state)
        return [spec.image(own) for spec, own in zip(self._specs, states, strict=True)]

    def image(self) -> np.ndarray:
        """Return the image of the only statistic."""
        (image,) = self.images()
        return image

    def image_dict(self) -> dict[str, np.ndarray]:
        """Return the images by the names of their statistics."""
        return dict(zip(self.names, self.images(), strict=True))

    def result(self) -> np.ndarray | dict[str, np.ndarray]:
        """Return the image or, for a list of statistics, the dict of images."""
        return self.image_dict() if self.several else self.image()

    def snapshot(self, result: np.ndarray | dict[str, np.ndarray] | None = None) -> Snapshot:
        """Return the result so far, or a given one, and the part of the series that it covers."""
        facts = self.phase, self.unit, self.statistic, self.nbytes
        image = self.result() if result is None else result
        return Snapshot(image, self.done, self.total, self.seen, *facts)

    def itself(self) -> "Progress":
        """Return the progress, for a consumer that makes images only now and then."""
        return self
