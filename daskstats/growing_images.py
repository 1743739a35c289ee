"""The image of a growing series, brought up to date when there are new frames.

The state of a frame-wise statistic goes on from frame to frame (`FoldedImages`). A median needs all
frames at once: they wait on disk in row order, and its rows are selected from all of them again
(`SelectedImages`).
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np

from .arguments import RunOptions
from .checkpoints.identity import OtherCallError, check_same, sample
from .checkpoints.manifest import JSON
from .checkpoints.store import FRAMES
from .config import scratch_compression
from .graph.build import Start
from .planning.strategies import refusal
from .reduction import Reduction, reduce
from .run.checkpoint import Checkpoint
from .run.progress import Progress, Snapshot
from .run.scheduler import current_scheduler
from .run.stream import Stream
from .scratch.directories import DamagedScratchError, temporary_directory
from .scratch.growing import GrowingFrames, ScratchDiskError
from .scratch.location import find_location
from .series.base import Source
from .statistics.validity import NoValidValueError

# The length assumed for a scan of unknown length, from which the chunks on disk follow.
EXPECTED = 4096

# Name of the file of the identity of the call, which is beside the frames.
IDENTITY = "identity.json"


class FoldedImages:
    """Images of a frame-wise statistic: its state goes on with the frames that are new.

    Parameters
    ----------
    total : int
        Frames that there will be; 0: not known.
    checkpoint : Checkpoint, optional
        Stores the state, and has the one to begin with.
    """

    def __init__(self, total: int, checkpoint: Checkpoint | None) -> None:
        self._total, self._checkpoint = total, checkpoint
        self._start = Start() if checkpoint is None else checkpoint.start
        self._shown = self._tried = 0
        """frames of the newest image, and of the newest that had pixels without a value"""

    @property
    def done(self) -> int:
        """Frames that were taken."""
        return self._start.done

    @property
    def is_current(self) -> bool:
        """Whether the newest image is of all frames that were taken."""
        return self._shown == self.done

    def update(self, reduction: Reduction, series: Source, ended: bool) -> Snapshot | None:
        """Take the frames of a reduction that are new; return the image, None if it waits.

        Parameters
        ----------
        reduction : Reduction
            Of the frames so far.
        series : Source
            The same, as they are in the files.
        ended : bool
            Whether no more will come.

        Raises
        ------
        NoValidValueError
            If pixels have no valid value, and no later frame can have one.
        """
        count = reduction.plan.layout.nframes
        last = is_last(count, self._total, self.done, ended)
        if count == self._tried and not last:
            return None
        progress = finished(reduction.continued(self._start, Progress.itself))
        self._start = Start(progress.done, progress.state or {})
        image = snapshot_if_valid(progress.snapshot, last)
        if image is None:
            self._tried = self.done
            return None
        if self._checkpoint is not None:  # it holds the image as well
            self._checkpoint.note(progress, reduction.identity, max(self._total, self.done))
        self._shown = self.done
        return image

    def end(self, complete: bool) -> None:
        """End; there is nothing on disk to remove."""


class SelectedImages:
    """Images of a row-wise statistic: its rows are selected again from all frames.

    That takes the longer the more there are, so it takes at most a quarter of the time.

    Parameters
    ----------
    statistic
        As of `reduce`.
    options : RunOptions
        Keywords of the call.
    total : int
        Frames that there will be; 0: not known.
    checkpoint : Checkpoint, optional
        Stores the image; the frames are in its directory.
    """

    def __init__(
        self, statistic: Any, options: RunOptions, total: int, checkpoint: Checkpoint | None
    ) -> None:
        self._statistic, self._total, self._checkpoint = statistic, total, checkpoint
        self._options = options.copy()
        for name in ("checkpoint", "restart"):
            self._options.pop(name, None)  # type: ignore[misc]
        self._frames: GrowingFrames | None = None
        self._selected, self._next = 0, 0.0
        self._tried = 0
        """frames of which an image was made, or had pixels without a value"""
        self._directory: Path | None = None
        self._resources = ExitStack()

    @property
    def done(self) -> int:
        """Frames that were taken."""
        return max(self._selected, 0 if self._frames is None else len(self._frames))

    @property
    def is_current(self) -> bool:
        """Whether the newest image is of all frames that were taken."""
        return self._selected == self.done

    def update(self, reduction: Reduction, series: Source, ended: bool) -> Snapshot | None:
        """Take frames, and return the image, as `FoldedImages.update` does."""
        count = reduction.plan.layout.nframes
        if not self._selected and self._checkpoint is not None:
            start = self._checkpoint.start  # none if it is of fewer frames
            if start.done == reduction.images[0].rows:
                self._selected = self._tried = count
                return _snapshot(reduction, start.images)
        if self._frames is None:
            self._frames = self._open(reduction, series)
        if count < len(self._frames):
            return None  # an earlier run has taken more: the next look is at as many
        last = is_last(count, self._total, len(self._frames), ended)
        due = ended or last or time.monotonic() >= self._next
        try:
            return self._take(reduction, series, due, last)
        except DamagedScratchError as error:
            if self._checkpoint is not None:
                shutil.rmtree(self._checkpoint.directory / FRAMES, ignore_errors=True)
                error.add_note("the next run reads all frames again")
            raise

    def _take(self, reduction: Reduction, series: Source, due: bool, last: bool) -> Snapshot | None:
        assert self._frames is not None, "they are not open"
        began = time.monotonic()
        self._frames.append(series, reduction.plan.layout.nframes, whole_groups=not due)
        if not due or (len(self._frames) == self._tried and not last) or self.is_current:
            return None
        select = partial(self._select, reduction, self._frames.series())
        found, now = snapshot_if_valid(select, last), time.monotonic()
        # The first image may have waited for code to be compiled.
        self._next = now + 3 * (now - began) if self._tried else now
        self._tried = len(self._frames)
        self._selected = self._selected if found is None else found.done
        return found

    def _open(self, reduction: Reduction, series: Source) -> GrowingFrames:
        """Return the frames that an earlier run has left in the checkpoint, or none."""
        expected = max(self._total or EXPECTED, len(series))
        with dask.config.set(scheduler="threads"):
            scheduler = current_scheduler()
        limit = scheduler.limit(self._options.get("memory_limit"))
        make = partial(GrowingFrames, expected=expected, workers=scheduler.workers, limit=limit)
        make = partial(make, compression=scratch_compression())
        if self._checkpoint is None:
            if self._directory is None:
                place = find_location().directory
                check_disk(place, reduction)
                self._directory = self._resources.enter_context(temporary_directory(place))
            return make(self._directory / FRAMES, series)
        directory, identity = self._checkpoint.directory / FRAMES, reduction.identity()
        check_disk(directory.parent, reduction)
        if directory.exists() and not is_of(directory, identity, series):
            shutil.rmtree(directory)
        frames = make(directory, series)
        too_many = self._total and len(frames) > self._total
        if too_many or not has_same_frames(frames, series):
            shutil.rmtree(directory)
            frames = make(directory, series)
        (directory / IDENTITY).write_text(json.dumps(identity))
        return frames

    def _select(self, reduction: Reduction, series: Source) -> Snapshot:
        own = reduce(series, self._statistic, running="kept", **self._options)
        progress = finished(own.stream(Progress.itself))
        if self._checkpoint is not None:
            self._checkpoint.note(progress, reduction.identity)
        return _snapshot(reduction, progress.images())

    def end(self, complete: bool) -> None:
        """Remove the frames, unless a later run may go on with them."""
        if self._checkpoint is not None and complete:
            shutil.rmtree(self._checkpoint.directory / FRAMES, ignore_errors=True)
        self._resources.close()


def is_last(count: int, total: int, taken: int, ended: bool) -> bool:
    """Whether no frame will follow those of an image: its pixels get no more values."""
    return count == total or (ended and count == taken)


def snapshot_if_valid(make: Callable[[], Snapshot], last: bool) -> Snapshot | None:
    """Return an image; None if pixels have no valid value yet, and it is not the last one."""
    try:
        return make()
    except NoValidValueError:
        if last:
            raise
        return None


def finished(steps: Stream[Progress]) -> Progress:
    """Return the progress of a run at its end."""
    with steps:
        for _ in steps:
            pass
    return steps.progress


def _snapshot(reduction: Reduction, images: list[np.ndarray] | tuple[np.ndarray, ...]) -> Snapshot:
    """Return the images of all frames of a reduction as a snapshot of these."""
    shape, spec = reduction.plan.layout, reduction.images[0]
    named = dict(zip(reduction.names, images, strict=True))
    return Snapshot(
        image=named if reduction.several else images[0],
        done=shape.nframes,
        total=shape.nframes,
        seen=np.broadcast_to(np.True_, (spec.rows, spec.cols)),
        statistic=", ".join(reduction.names),
        nbytes=shape.nbytes,
    )


def check_disk(place: str | Path, reduction: Reduction) -> None:
    """Refuse a disk that cannot hold the frames."""
    problem = refusal(reduction.plan.layout, find_location(place))
    if problem:
        raise ScratchDiskError(
            f"the frames of a growing series wait on disk for {', '.join(reduction.names)}: "
            f"{problem}"
        )


def has_same_frames(frames: GrowingFrames, series: Source) -> bool:
    """Whether a series begins with these frames: the first, middle and last one are compared."""
    count = len(frames)
    if not count or count > len(series):
        return not count
    try:
        return sample(frames.series(), count) == sample(series, count)
    except DamagedScratchError:
        return False


def is_of(directory: Path, identity: dict[str, JSON], series: Source) -> bool:
    """Whether the frames in a directory are the first ones of a series, for the same call."""
    try:
        saved = json.loads((directory / IDENTITY).read_text())
        check_same(saved, identity, series, grows=True, written=True)
    except (OtherCallError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
