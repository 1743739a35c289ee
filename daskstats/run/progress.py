"""The images of a running reduction."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..images import ImageSpec
from ..statistics import State, Statistic


class Images:
    """The images of a running reduction, as the partial states of its steps come in.

    Parameters
    ----------
    statistic : Statistic
        What the states are of.
    outputs : sequence of ImageSpec
        One for each statistic in it.
    running : bool
        Whether what comes in is the state of all steps so far instead.

    Examples
    --------
    >>> from daskstats.statistics import maximum
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> images = Images(maximum, [ImageSpec(maximum, 1, 2, frames.dtype)])
    >>> states = [maximum.chunk([[frame[None]]], k) for k, frame in enumerate(frames)]
    >>> [images.after([state])[0].tolist() for state in states]
    [[[1, 2]], [[3, 2]]]
    """

    def __init__(
        self, statistic: Statistic, outputs: Sequence[ImageSpec], running: bool = False
    ) -> None:
        self._statistic, self._outputs, self._running = statistic, outputs, running
        self._state: State | None = None
        # Rows that are done stay as they are: images are copies of these, which fill up.
        rowwise = statistic.along == "rows"
        self._rows = [np.zeros(o.shape, o.dtype) for o in outputs] if rowwise else None

    def after(self, states: Iterable[State]) -> list[np.ndarray]:
        """Return the images up to the next step, whose states are taken one by one."""
        for state in states:
            self._add(state)
        if self._rows is not None:
            return [o.copy(rows) for o, rows in zip(self._outputs, self._rows, strict=True)]
        assert self._state is not None
        states = self._statistic.split(self._state)
        return [output.image(own) for output, own in zip(self._outputs, states, strict=True)]

    def _add(self, state: State) -> None:
        before = self._state
        if self._rows is not None:
            new = state if before is None else {k: state[k] for k in state.keys() - before.keys()}
            every = zip(self._outputs, self._statistic.split(new), self._rows, strict=True)
            for output, own, rows in every:
                output.write(own, rows)
        elif before is not None and not self._running:
            state = self._statistic.combine(before, state)
        self._state = state
