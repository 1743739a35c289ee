"""Checkpoints: the state of a run is stored now and then, and a later run continues from it."""

import logging
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from threading import Lock, RLock, Thread
from typing import Any

import numpy as np

from .. import config, ending
from ..arguments import warn
from ..checkpoints.identity import OtherCallError, check_same
from ..checkpoints.manifest import JSON, DamagedCheckpointError, Generation, Manifest
from ..checkpoints.owner import Ownership
from ..checkpoints.store import CheckpointStore, check_storable
from ..graph.build import Start, Work
from ..packages import load
from ..series.base import Source
from ..statistics import State
from .progress import Progress, Snapshot
from .runner import TICK

logger = logging.getLogger("daskstats")

# The part of the time that committing may take, unless the interval is 0.
COMMIT_BUDGET = 0.02

WAYS_OUT = "give another checkpoint, or start over with restart (--restart)"

# In the names of stored arrays: those of the state, and the images.
STATE, IMAGE = "state ", "image "


class Checkpoint:
    """Stores the state of a run in a directory, which only this run may write.

    The state is committed after a step if the last commit is long enough ago, at the end, and when
    the run is stopped: by its consumer, an error, an interrupt, or a signal to the program.

    Parameters
    ----------
    path : path
        The directory.
    identity : dict
        Of the call: see `checkpoints.identity`.
    series : Source
        Of the call.
    by_rows : bool
        Whether the images fill up row by row.
    restart : bool
        Whether a checkpoint that is there is removed.
    written : bool
        Whether a program adds frames to the series.

    Raises
    ------
    CheckpointInUseError
        If another process writes it.
    OtherCallError
        If it is of another call, or of other frames; the message names the field.
    DamagedCheckpointError
        If no generation can be read; the message names the array.
    """

    def __init__(
        self,
        path: str | PathLike,
        identity: dict[str, JSON],
        series: Source,
        by_rows: bool,
        restart: bool,
        written: bool = False,
    ) -> None:
        self._store, self._identity = CheckpointStore(path), identity
        load("zarr.codecs")  # now, not in a commit at exit, or one that garbage collection begins
        self._interval = config.checkpoint_interval()
        self._lock = RLock()
        self._manifest: Manifest | None = None
        self._latest: tuple[Noted, dict[str, JSON]] | None = None
        self._committed, self._cost = time.monotonic(), 0.0
        self._writing: Apart | None = None
        with ExitStack() as stack:
            self._owner = Ownership(self._store.directory)
            stack.callback(self._owner.release)
            if restart:
                self._store.clear()
            self.start = self._load(series, by_rows, written)
            stack.enter_context(ending.exit_in_order())
            self._resources = stack.pop_all()
        _running.add(self)

    @property
    def directory(self) -> Path:
        """The directory, without links."""
        return self._store.directory

    def work(self, work: Work) -> Work:
        """Return the work that is left, with scratch data that are kept in the checkpoint."""
        work = replace(work.continued(self.start), in_turn=not self._interval)
        if work.plan.disk is None:
            return work
        name = self._store.scratch_name(self._identity)
        disk = replace(work.plan.disk, directory=str(self._store.directory), name=name)
        return replace(work, plan=replace(work.plan, disk=disk))

    def _load(self, series: Source, by_rows: bool, written: bool) -> Start:
        manifest = self._store.manifest()
        if manifest is None:
            return Start()
        try:
            grows = written or not by_rows
            check_same(manifest.identity, self._identity, series, grows, written)
        except OtherCallError as error:
            raise OtherCallError(f"{self._describe(manifest)}: {error}: {WAYS_OUT}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedCheckpointError(
                f"the identity in {self._store.directory} is damaged ({error}): {WAYS_OUT}"
            ) from error
        generation, arrays = read_newest(self._store, manifest)
        self._manifest = manifest
        if by_rows and manifest.nframes != self._identity["number of frames"]:
            return Start()  # of the frames so far: the rows of an image are of all frames
        return _start(generation, arrays)

    def _describe(self, manifest: Manifest) -> str:
        newest = manifest.newest
        return (
            f"{self._store.directory} is the checkpoint of another call "
            f"({', '.join(manifest.names)}, {newest.done} of {newest.total} {manifest.unit})"
        )

    def note(
        self,
        progress: Progress,
        identify: Callable[[], dict[str, JSON]] | None = None,
        total: int = 0,
    ) -> None:
        """Take the state after a step, and commit it if the last commit is long enough ago.

        Parameters
        ----------
        progress : Progress
        identify : callable, optional
            Returns the identity of a series that grows, of which the progress is no end.
        total : int
            Frames that such a series will have; 0: those of the progress.
        """
        # Rows that are done again are those of more frames.
        again = identify is not None and progress.unit_of_images == "rows"
        if progress.phase == "read" or (progress.done == self.start.done and not again):
            return
        if progress.unit_of_images == "frames":
            check_storable(progress.state or {})
        # The frames may be gone, or others, when the state is stored.
        identity = self._identity if identify is None else identify()
        with self._lock:
            total = total or progress.total
            noted = Noted(progress, progress.state, progress.done, total, progress.nbytes)
            self._latest = noted, identity
            pause = max(self._interval, self._cost / COMMIT_BUDGET) if self._interval else 0
            ended = identify is None and progress.done == progress.total
            if ended or time.monotonic() - self._committed >= pause:
                self.commit()

    def commit(self) -> None:
        """Store the state after the last whole step, unless it is stored."""
        with self._lock:
            self._finish()
            if self._latest is None:
                return
            self._owner.check()
            self._writing = Apart(self._store.commit, *self._next(*self._latest))
            self._latest = None
            self._finish()

    def _finish(self) -> None:
        """Wait for a commit that has begun, also if an interrupt has ended the wait before."""
        writing = self._writing
        if writing is not None:
            writing.wait()
            self._writing, self._committed = None, time.monotonic()
            self._cost = self._committed - writing.began
            self._manifest = writing.result()

    def _next(
        self, noted: "Noted", identity: dict[str, JSON]
    ) -> tuple[Manifest, dict[str, np.ndarray]]:
        """Return the manifest with one more generation, and its arrays."""
        progress = noted.progress
        older = self._manifest.generations if self._manifest else ()
        number = older[0].number + 1 if older else 1
        generation = Generation(number, noted.done, noted.total, noted.nbytes, arrays=())
        names = progress.unit_of_images, progress.names, progress.several
        if self._manifest is not None and progress.unit_of_images == "rows":
            before = self._manifest.identity["number of frames"]
            if before != identity["number of frames"]:
                older = ()  # images of fewer frames, which no run may continue from
        return Manifest(identity, *names, (generation, *older)), noted.arrays()

    def end(self) -> None:
        """Commit the state, and leave the checkpoint to others.

        Further calls, and those of a fork, do nothing, also after an error.
        """
        if self not in _running or not self._owner.is_here:
            return
        try:
            self.commit()
            if self._manifest is not None and self._manifest.newest.is_last:
                self._store.remove_scratch()
        finally:
            _running.discard(self)
            self._resources.close()


class Apart:
    """A call in a thread of its own, which an interrupt of this thread cannot end half-way.

    zarr waits in Python code: an interrupt there would leave a lock acquired, and the write would
    go on in the background while the next commit begins.
    """

    def __init__(self, function: Callable[..., Manifest], *arguments: Any) -> None:
        self.began = time.monotonic()
        self._call = partial(function, *arguments)
        self._value: Manifest | BaseException | None = None
        self._working = Lock()
        self._working.acquire()
        try:
            Thread(target=self._run, name="daskstats-commit", daemon=True).start()
        except RuntimeError:  # at exit, or there are no more threads
            self._run()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._value = error
        finally:
            self._working.release()

    def wait(self) -> None:
        """Wait until it has ended."""
        while self._value is None:  # an interrupt may come as soon as the lock is acquired
            self._working.acquire(timeout=TICK)

    def result(self) -> Manifest:
        """Return the result, or raise the error, of a call that has ended."""
        if isinstance(self._value, BaseException):
            raise self._value
        assert self._value is not None
        return self._value


@dataclass(frozen=True)
class Noted:
    """The state after a step, which later steps do not change."""

    progress: Progress
    state: State | None
    done: int
    total: int
    nbytes: int

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to be stored: of the state, unless the images are it, and images."""
        images = self.progress.images_at(self.state, self.done)
        named = zip(self.progress.names, images, strict=True)
        found = {f"{IMAGE}{name}": image for name, image in named}
        if self.progress.unit_of_images == "frames":
            assert self.state is not None, "no step is done"
            found |= {f"{STATE}{name}": array for name, array in self.state.items()}
        return found


_running: "weakref.WeakSet[Checkpoint]" = weakref.WeakSet()


@ending.before_exit
@ending.at_end
def _end_all() -> None:
    """Commit the states of all runs of the program, which ends."""
    for checkpoint in list(_running):
        try:
            checkpoint.end()
        except Exception as error:
            logger.warning("the last state of %s is not stored: %s", checkpoint.directory, error)


def read_newest(
    store: CheckpointStore, manifest: Manifest
) -> tuple[Generation, dict[str, np.ndarray]]:
    """Return the newest generation that can be read, and its arrays; warn of one that cannot."""
    for generation in manifest.generations:
        try:
            return generation, store.read(generation)
        except DamagedCheckpointError as error:
            if generation is manifest.generations[-1]:
                raise DamagedCheckpointError(f"{error}: {WAYS_OUT}") from error
            warn(f"{error}: the run continues from the generation before")
    raise AssertionError("unreachable")


def _start(generation: Generation, arrays: dict[str, np.ndarray]) -> Start:
    state = {k.removeprefix(STATE): a for k, a in arrays.items() if k.startswith(STATE)}
    images = tuple(array for name, array in arrays.items() if name.startswith(IMAGE))
    return Start(generation.done, state, images)


def load_checkpoint(path: str | PathLike) -> Snapshot:
    """Return the newest image in a checkpoint, also while a run writes it.

    Parameters
    ----------
    path : path
        The directory that a run was given as ``checkpoint``.

    Returns
    -------
    Snapshot
        Its ``image`` is a dict for a run of several statistics.

    Raises
    ------
    FileNotFoundError
        If no state has been stored there yet.
    DamagedCheckpointError
        If a part is missing or has been altered; the message names it.

    Examples
    --------
    >>> import tempfile, numpy as np, daskstats as stats
    >>> with tempfile.TemporaryDirectory() as place:
    ...     frames = np.arange(12).reshape(3, 2, 2)
    ...     *_, image = stats.max_iter(frames, 3, checkpoint=place)
    ...     stats.load_checkpoint(place)
    <Snapshot of max: 3 of 3 frames, image of 2 x 2 int64>
    """
    manifest, arrays = read_images(CheckpointStore(path))
    generation, unit = manifest.newest, manifest.unit
    images = {name: arrays[f"{IMAGE}{name}"] for name in manifest.names}
    rows, cols = next(iter(images.values())).shape[-2:]
    seen = np.zeros((rows, 1), bool)
    seen[: generation.done if unit == "rows" else rows] = True
    return Snapshot(
        image=images if manifest.several else images[manifest.names[0]],
        done=generation.done,
        total=generation.total,
        seen=np.broadcast_to(seen, (rows, cols)),
        unit=unit,
        statistic=", ".join(manifest.names),
        nbytes=generation.nbytes,
    )


def read_images(store: CheckpointStore) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Return the manifest, and the images of its newest generation."""
    manifest = store.manifest()
    while manifest is not None:
        try:
            return manifest, store.read(manifest.newest, [f"{IMAGE}{n}" for n in manifest.names])
        except DamagedCheckpointError:
            # Two commits may have taken place meanwhile, and the generation is gone.
            before, manifest = manifest, store.manifest()
            if manifest is not None and manifest.newest == before.newest:
                raise
    raise FileNotFoundError(f"there is no checkpoint in {store.directory}")
