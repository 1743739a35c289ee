"""Following a series that grows: a running image whenever frames have been added."""

import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from typing import Unpack

import numpy as np  # noqa: F401 (for the example)

from . import ending
from .api import OF_STATISTIC, NamedStatistic, public
from .arguments import RunOptions, check_number, integer, warn
from .checkpoints.store import CheckpointStore
from .compiling import compiling
from .formats.growing import GrowingFiles, without_traceback
from .growing_images import FoldedImages, SelectedImages
from .planning.values import MEBI
from .reduction import Reduction, reduce
from .run.checkpoint import Checkpoint
from .run.progress import Snapshot
from .scratch.directories import DamagedScratchError
from .scratch.growing import ScratchDiskError
from .series.base import Source
from .series.foreign import called
from .statistics.naming import named
from .statistics.validity import NoValidValueError
from .texts import shown

# Seconds between two looks at the files, and the part of a core that looking may take: a look takes
# 0.1 ms where nothing has changed.
PAUSE, LOOKING = 0.05, 0.04

# Errors of reading frames of a file that may be complete in a moment.
INCOMPLETE = OSError, ValueError, KeyError

logger = logging.getLogger("daskstats")


@public(OF_STATISTIC, see="snapshots, load_checkpoint")
def follow(
    ims: str | os.PathLike,
    statistic: NamedStatistic | list,
    nframes: int = 0,
    *,
    timeout: float = 10,
    **options: Unpack[RunOptions],
) -> "Followed":
    """Iterate over running images of a series while a program adds frames to it.

    There is an image whenever frames have been added, until all are there or none has been added
    for a while. Each frame counts once, as soon as it is complete; a file that is half written is
    waited for. A percentile, a median or a clipped average needs all frames at once: they wait on
    disk, and the image comes more seldom.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for number in range(3):
    ...         np.save(pathlib.Path(place, f"scan_{number}.npy"), frames[number : number + 1])
    ...     for snapshot in follow(place, "max", nframes=3):
    ...         print(snapshot)
    <Snapshot of max: 3 of 3 frames, image of 1 x 2 uint16>
    """
    if not isinstance(ims, str | os.PathLike):
        raise TypeError(
            f"only the path of a file, a folder or a pattern can be followed, got an object of "
            f"type {called(type(ims))}"
        )
    files = GrowingFiles(os.fsdecode(ims))
    return Followed(Follower(files, statistic, nframes, timeout, options))


@dataclass
class Arrivals:
    """How far a series that grows has been followed."""

    statistic: str
    """names of the statistics"""
    total: int
    """frames that there will be; 0: not known"""
    done: int = 0
    """frames that the newest image covers"""
    nbytes: int = 0
    """of these frames"""
    rows_seen: int = 0
    """rows of the image with values: all, once there is an image"""
    step: int = -1
    """number of the newest image"""
    unit: str = "frames"
    phase: str = "follow"
    next_phase: str = "follow"
    whole: bool = True
    """whether there is a state of whole steps to look at"""

    def note(self, snapshot: Snapshot) -> None:
        """Take the newest image."""
        self.done, self.nbytes, self.rows_seen = snapshot.done, snapshot.nbytes, len(snapshot.seen)
        self.step += 1


class Followed(Iterator[Snapshot]):
    """Iterator over the running images of a series that grows; also a context manager.

    It ends with the last frame, with `close`, with the ``with`` block, or when it is deleted. How
    many images there will be is not known.
    """

    def __init__(self, follower: "Follower") -> None:
        self._follower, self._images = follower, follower.images()
        self._lock = threading.RLock()
        """held while an image is made: a generator runs in one thread at a time"""
        self.progress = Arrivals(", ".join(follower.names), follower.total)
        """how far it is"""
        self._process = os.getpid()
        _open.add(self)

    def __repr__(self) -> str:
        progress = self.progress
        total = f" of {progress.total}" if progress.total else ""
        return f"<Followed {progress.statistic}: {progress.done}{total} frames>"

    @property
    def bar(self) -> tuple[int, int]:
        """How far it is, of how much, for progress bars: frames, if their number is known."""
        return (self.progress.done, self.progress.total) if self.progress.total else (0, 1)

    @property
    def phase(self) -> str:
        """ "compile", or "follow"."""
        return "compile" if compiling() else "follow"

    @property
    def on_wait(self) -> Callable[[], object] | None:
        """Called several times a second, by `next`, while there are no new frames."""
        return self._follower.on_wait

    @on_wait.setter
    def on_wait(self, function: Callable[[], object] | None) -> None:
        self._follower.on_wait = function

    def __next__(self) -> Snapshot:
        with self._lock:
            try:
                _, snapshot = next(self._images)
            except StopIteration:
                self.progress.total = self.progress.done
                raise
            self.progress.note(snapshot)
            return snapshot

    def close(self) -> None:
        """Store the state, if there is a checkpoint, and release everything.

        Where another thread waits for an image the wait ends; frames that it is taking are stored.
        """
        self._follower.stop()
        with self._lock:
            # In a call of this thread within `next`, such as `on_wait`, `next` will close it.
            if inspect.getgeneratorstate(self._images) != inspect.GEN_RUNNING:
                self._images.close()
        _open.discard(self)

    def __enter__(self) -> "Followed":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_open: "weakref.WeakSet[Followed]" = weakref.WeakSet()


@ending.before_exit
def _close_all() -> None:
    """Close all iterators that are open when the interpreter ends."""
    for followed in list(_open):
        if followed._process != os.getpid():  # of a fork, which has not the thread that runs it
            continue
        try:
            followed.close()
        except Exception as error:
            logger.warning("an iterator was not closed at exit: %s", error)


def check_timeout(timeout: object) -> float:
    """Return the seconds without new frames after which a series has ended."""
    seconds = float(check_number(timeout, "timeout"))
    if not 0 < seconds < inf:
        raise ValueError(f"timeout must be more than 0 seconds, got {shown(timeout)}")
    return seconds


def stored_frames(checkpoint: object) -> int:
    """Return the number of frames that a checkpoint covers, 0 if there is none."""
    if not isinstance(checkpoint, str | os.PathLike):
        return 0  # its type is checked when it is opened
    manifest = CheckpointStore(checkpoint).manifest()
    return 0 if manifest is None else manifest.nframes


class Follower:
    """Takes the frames of growing files as they appear, each of them once, and yields images.

    If taking them fails, because a file was not complete, it goes on later from the same frames.

    Parameters
    ----------
    files : GrowingFiles
    statistic
        As of `reduce`.
    nframes : int
        Frames to wait for; 0: not known.
    timeout : float
        Seconds without new frames.
    options : dict
        Keywords of the call.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong.
    """

    def __init__(
        self,
        files: GrowingFiles,
        statistic: object,
        nframes: object,
        timeout: object,
        options: RunOptions,
    ) -> None:
        names, _ = named(statistic)
        if options.get("frames") is not None:
            raise TypeError(
                "all frames of a series are followed: give their number as nframes (--nframes), "
                "and leave frames out"
            )
        self._files, self._statistic, self._options = files, statistic, options
        self.names = tuple(names)
        self.total, self._timeout = max(0, integer(nframes, "nframes")), check_timeout(timeout)
        self._images: FoldedImages | SelectedImages | None = None
        self._checkpoint: Checkpoint | None = None
        self._problem: Exception | None = None
        self._written = 0
        self._stopped = threading.Event()
        self.on_wait: Callable[[], object] | None = None
        """called several times a second while there are no new frames"""
        self._stored = 0 if options.get("restart") else stored_frames(options.get("checkpoint"))
        """frames of a checkpoint that is not open yet: they were complete when they were counted"""

    def images(self) -> Generator[tuple[Source, Snapshot]]:
        """Yield the series and its image whenever there are new frames, until there are none.

        They end with an image of all frames, with an error, or after `stop`.
        """
        try:
            seen = time.monotonic()
            while self._is_incomplete() and not self._stopped.is_set():
                began, ended = time.thread_time(), time.monotonic() - seen >= self._timeout
                before, found = self._written + self.done, self._look(ended)
                if found is not None:
                    yield found
                if found is not None or self._written + self.done > before:
                    seen = time.monotonic()
                elif ended:
                    return self._check_end()
                else:
                    self._wait(time.thread_time() - began)
        finally:
            with ExitStack() as stack:  # in the reverse order, each of them also after an error
                if self._images is not None:
                    stack.callback(self._images.end, not self._is_incomplete())
                if self._checkpoint is not None:
                    stack.callback(self._checkpoint.end)

    def _wait(self, cost: float) -> None:
        """Wait until the next look, the longer the more time of a core the last one took."""
        if self.on_wait is not None:
            self.on_wait()
        self._stopped.wait(min(10 * PAUSE, max(PAUSE, cost / LOOKING)))

    def stop(self) -> None:
        """End `images` after the image that is being made, at once where they wait."""
        self._stopped.set()

    @property
    def done(self) -> int:
        """Frames that were taken."""
        return 0 if self._images is None else self._images.done

    def _is_incomplete(self) -> bool:
        images = self._images
        return not self.total or self.done < self.total or not (images and images.is_current)

    def _look(self, ended: bool) -> tuple[Source, Snapshot] | None:
        """Return the series of all frames that are written, and its image; None if it is old."""
        try:
            return self._newest(ended)
        finally:  # or a program that opens a file for each frame would be locked out
            self._files.release()

    def _newest(self, ended: bool) -> tuple[Source, Snapshot] | None:
        series = self._files.look(self._stored or self.total, ended)
        self._problem = self._files.problem
        self._written = 0 if series is None else len(series)
        count = self._count(series, ended)
        if series is None or not count:
            return None
        reduction = reduce(series, self._statistic, count, running="kept", **self._options)
        images = self._images or self._begin(reduction)
        try:
            image = images.update(reduction, series, ended)
        except (DamagedScratchError, ScratchDiskError, NoValidValueError):
            raise
        except INCOMPLETE as error:
            self._problem = without_traceback(error)
            return None
        if image is None:
            return None
        logger.info("%s: %d frames", image.statistic, image.done)
        return series, replace(image, total=max(self.total, image.done))

    def _begin(self, reduction: Reduction) -> "FoldedImages | SelectedImages":
        """Open the checkpoint, and choose the way of images."""
        if self._options.get("checkpoint") is not None:
            self._checkpoint = reduction.open_checkpoint(written=True)
        self._stored = 0
        if reduction.statistic.along == "frames":
            self._images = FoldedImages(self.total, self._checkpoint)
        else:
            call = self._statistic, self._options, self.total
            self._images = SelectedImages(*call, self._checkpoint)
        return self._images

    def _count(self, series: Source | None, ended: bool) -> int:
        """Return the frames of the next image, 0 if there is none yet."""
        written = 0 if series is None else len(series)
        written = min(written, self.total or written)
        # Where fewer frames are asked for than are stored, the checkpoint refuses the call.
        awaited = min(self._stored, self.total or self._stored)
        if series is None or (written < awaited and not ended):
            return 0
        if self._stored:
            return written  # the first image of a checkpoint may be of the frames in it
        rows, cols = series.shape
        # Where many wait there is an image in a second or so; small frames take some time as well.
        each = max(MEBI, rows * cols * series.dtype.itemsize)
        most = self.done + max(1, 1024 * MEBI // each)
        current = self._images is None or self._images.is_current
        return min(written, most) if written > self.done or not current else 0

    def _check_end(self) -> None:
        """Refuse a series without frames, and one with a damaged last file; tell of a gap."""
        problem, done = self._problem, self.done
        pause = f"no frame has been added for {self._timeout:g} s"
        if problem is not None:
            text = "; ".join([str(problem), *getattr(problem, "__notes__", [])])
            kind = FileNotFoundError if isinstance(problem, FileNotFoundError) else ValueError
            raise kind(f"{text} ({pause}, after {done} frames)") from problem
        if not done:
            raise ValueError(f"{self._files} has no frames that are written: {pause}")
        self._files.warn_of_others()
        if done < self.total:
            warn(f"{self._files} has {done} of {self.total} frames, and {pause}")
