"""How far a run is, in a line: its phase, steps, speed, and the time that is left."""

import time
from typing import Any

from .compiling import remark
from .following import Followed
from .run.stream import Stream

# The words for the phases of a stream.
ACTIVITIES = {
    "wait": "waiting for memory",
    "compile": "compiling, once",
    "read": "reading",
    "compute": "computing",
    "follow": "following",
    "end": "computing",
}

# The phases of which the time that is left can be estimated.
TIMED = "read", "compute", "follow"

# Seconds before an estimate of the time that is left means something.
SETTLED = 0.5


class Status:
    """Describes a running stream; it is asked now and then, and measures the time itself.

    Parameters
    ----------
    stream : Stream or Followed
        With any view; only its progress is looked at.

    Examples
    --------
    >>> from daskstats import snapshots
    >>> import numpy as np
    >>> stream = snapshots(np.zeros((4, 2, 3), "u2"), "max", 2)
    >>> status = Status(stream)
    >>> status.line()
    'max: waiting for memory'
    >>> for snapshot in stream:
    ...     print(status.line(), status.fraction)
    max: computing, 2 of 4 frames, ... s 0.5
    max: computing, 4 of 4 frames, ... s 1.0
    >>> status.closing_line("done")
    'max: 4 of 4 frames, done after ... s'
    """

    def __init__(self, stream: Stream[Any] | Followed) -> None:
        self.stream, self.progress = stream, stream.progress
        self._began = time.perf_counter()
        self._phase, self._phase_began, self._phase_done = "", self._began, 0.0
        self._data_began: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    @property
    def fraction(self) -> float:
        """The part of the phase that is done, from 0 to 1; 0 if the whole is not known."""
        return self.progress.done / self.progress.total if self.progress.total else 0.0

    def line(self) -> str:
        """Return the activity, the steps that are done, the time, the speed, and the time left."""
        phase, now = self._look()
        activity = remark() if phase == "compile" else ""
        parts = [f"{self.progress.statistic}: {activity or ACTIVITIES[phase]}"]
        # The steps of the phase before say nothing of one that has just begun.
        begun = self.progress.step >= 0 and self.progress.phase == self.progress.next_phase
        if begun:
            parts.append(self._counted())
        if phase != "wait":
            parts.append(f"{now - self._began:.0f} s")
        parts += self._speed(now)
        left = self.seconds_left(now) if begun and phase in TIMED else None
        return ", ".join(parts if left is None else [*parts, f"about {left:.0f} s left"])

    def closing_line(self, state: str) -> str:
        """Return how a run has ended: "done", "interrupted", or the name of an error."""
        return (
            f"{self.progress.statistic}: {self._counted()}, {state} after {self.elapsed:.1f} s"
            + "".join(f", {speed}" for speed in self._speed(time.perf_counter()))
        )

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that are left of this phase, None while that is a guess."""
        done, took = self.fraction - self._phase_done, now - self._phase_began
        if done <= 0 or took < SETTLED:
            return None
        return took * (1 - self.fraction) / done

    def _counted(self) -> str:
        progress = self.progress
        total = f" of {progress.total}" if progress.total else ""
        return f"{progress.done}{total} {progress.unit}"

    def _look(self) -> tuple[str, float]:
        """Return the phase and the time, and note when a phase has begun."""
        phase, now = self.stream.phase, time.perf_counter()
        if phase != self._phase:
            self._phase, self._phase_began = phase, now
            # The steps of a phase that has just begun are none of those of the phase before.
            same = self.progress.phase == self.progress.next_phase
            self._phase_done = self.fraction if same else 0
        if self._data_began is None and phase in TIMED:
            self._data_began = now
        return phase, now

    def _speed(self, now: float) -> list[str]:
        """Return the bytes read for each second since the first was read, if that is known."""
        seconds = 0 if self._data_began is None else now - self._data_began
        if not self.progress.nbytes or seconds < SETTLED:
            return []
        speed = self.progress.nbytes / seconds
        return [f"{speed / 1e9:.3g} GB/s" if speed >= 1e8 else f"{speed / 1e6:.3g} MB/s"]
