"""Watching images form: in a notebook, a terminal, or the log of a batch job."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Generic, TypeVar, Unpack, cast, overload

import numpy as np

from .api import OF_STATISTIC, NamedStatistic, public
from .arguments import ImageSeries, RunOptions, check_number
from .following import Followed
from .pictures import CONTRAST, SIZE, in_a_row, palette, planes
from .planning.steps import STEPS, AtMost
from .reduction import reduce
from .run.progress import Progress, Snapshot
from .run.stream import Stream
from .statistics.validity import NoValidValueError
from .status import Status
from .views import View, current_view

T = TypeVar("T")

# The part of the time that looking may take; seconds between two draws, and before the first.
BUDGET, SHORTEST, LONGEST, FIRST_PICTURE = 0.03, 0.1, 1.0, 0.3

_last: Snapshot | None = None


def last_watched() -> Snapshot | None:
    """Return the newest snapshot of the last run that was watched, interrupted or not.

    Returns
    -------
    Snapshot or None
        Its ``image`` is a dict for a list of statistics; None if the run had no image yet.

    Examples
    --------
    >>> import numpy as np, daskstats as stats
    >>> image = stats.watch(np.zeros((3, 4, 5), "u2"), "max")
    >>> stats.last_watched().image is image
    True
    """
    return _last


@dataclass(frozen=True)
class Look:
    """How pictures look."""

    log: bool = False
    """whether colours follow the logarithm of the values"""
    contrast: tuple[float, float] = CONTRAST
    """percentiles of the pixels with the darkest and the brightest colour"""
    cmap: str = "gray"
    """name of the colours"""
    size: int | None = None
    """pixels along an edge, at most; by default fewer for several images"""

    def check(self) -> "Look":
        """Refuse values that no picture can have.

        Raises
        ------
        ValueError
            If contrast, cmap or size are none.
        """
        try:
            edges = [self.contrast[place] for place in range(len(self.contrast))]
            low, high = (check_number(edge, "contrast") for edge in edges)
            good = 0 <= low < high <= 100
        except (TypeError, ValueError, LookupError):
            good = False
        if not good:
            raise ValueError(
                f"contrast must be two percentiles, the lower one first, got {self.contrast!r}"
            )
        whole = isinstance(self.size, Integral)
        if self.size is not None and not (whole and 1 <= self.size <= 4 * SIZE):
            raise ValueError(f"size must be 1 to {4 * SIZE} pixels, got {self.size!r}")
        palette(self.cmap)
        return self

    def figures(self, images: dict[str, np.ndarray], seen: int) -> str:
        """Return the pictures of some images as HTML."""
        size = self.size or (SIZE if len(images) == 1 else SIZE * 5 // 8)
        facts = {"log": self.log, "contrast": self.contrast, "cmap": self.cmap}
        return in_a_row(images, seen, size=size, **facts)


# ---------------------------------------------------------------------- looking on


class Watched(Iterator[T], Generic[T]):
    """Iterates over a stream, and shows its images and its progress meanwhile.

    Images are drawn so seldom that they take a small part of the time, and only the newest.
    ``len`` is that of the stream. Leaving it early closes the stream.
    """

    def __init__(
        self,
        stream: Stream[T] | Followed,
        look: Look,
        view: Callable[[Status], View] | None = None,
    ) -> None:
        global _last
        _last = None  # that of another run would be taken for one of this run
        self._stream, self._look = stream, look
        self._items = cast("Iterator[T]", stream)
        self._status = Status(stream)
        self._view = (view or current_view())(self._status)
        self._figures = ""
        self._cost, self._drawn, self._item_shown = 0.0, -LONGEST, True
        self._item: T | None = None
        self._ended = False
        self.last: Snapshot | None = None
        """the newest that was shown, and at the end that of the last whole step"""

    def __len__(self) -> int:
        if isinstance(self._stream, Followed):
            raise TypeError("how many images a series that grows will have is not known")
        return len(self._stream)

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        self._stream.on_wait = self._look_on
        try:
            self._item, self._item_shown = next(self._items), False
            self._look_on()
        except BaseException as error:
            self._end(state_of(error))
            raise
        finally:
            # A stream that refers to this object would not be closed when it is deleted.
            self._stream.on_wait = None
        position, length = self._stream.bar
        if position == length and self._stream.progress.total:
            self._end("done")
        return self._item

    @property
    def image(self) -> np.ndarray | dict[str, np.ndarray]:
        """The newest image that was shown, or dict of images."""
        assert self.last is not None, "no image has been shown"
        return self.last.image

    def close(self) -> None:
        """Stop the tasks, and leave the last picture."""
        self._end("stopped")

    def __enter__(self) -> "Watched[T]":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._end("stopped" if error is None else state_of(error))

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            stream = self._stream
            self._end("stopped", stream.leave if isinstance(stream, Stream) else stream.close)

    def _look_on(self) -> None:
        """Show the newest image and the progress, if it is time for it."""
        now, elapsed = time.perf_counter(), self._status.elapsed
        pause = min(LONGEST, max(SHORTEST, self._cost / BUDGET))
        if now - self._drawn < pause or elapsed < FIRST_PICTURE:
            return
        began = time.thread_time()
        if self._view.pictures:
            self._draw()
        self._view.show(self._status, self._figures)
        self._cost, self._drawn = time.thread_time() - began, time.perf_counter()

    def _draw(self, final: bool = False) -> None:
        """Make pictures of the newest images, unless they have been made, or cannot be made yet."""
        global _last
        if self._item_shown or not self._stream.progress.whole:
            return
        try:
            self.last = _last = self._snapshot()
        except NoValidValueError:
            # Later frames may have one.
            if final:
                raise
            return
        self._item_shown = True
        if self._view.pictures:
            images = planes(self.last.images)
            self._figures = self._look.figures(images, self._stream.progress.rows_seen)

    def _snapshot(self) -> Snapshot:
        item = self._item
        if isinstance(item, Progress):
            return item.snapshot()
        if isinstance(item, Snapshot):
            return item
        assert isinstance(self._stream, Stream), "a series that grows has snapshots"
        return self._stream.progress.snapshot(item)  # type: ignore[arg-type]

    def _end(self, state: str, close: Callable[[], object] | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            (close or self._stream.close)()
            self._draw(final=state == "done")
        finally:  # also after an interrupt, which may come here
            self._view.end(self._status, self._figures, state)


def state_of(error: BaseException) -> str:
    """Return the state of a run that an error has ended."""
    if isinstance(error, StopIteration):
        return "done"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__


@overload
def watch(  # type: ignore[overload-overlap]
    ims: Stream[T],
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
) -> Watched[T]: ...


@overload
def watch(
    ims: Followed,
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
) -> Watched[Snapshot]: ...


@overload
def watch(
    ims: ImageSeries,
    statistic: list,
    nchunk: int = STEPS[0],
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[RunOptions],
) -> dict[str, np.ndarray]: ...


@overload
def watch(
    ims: ImageSeries,
    statistic: NamedStatistic = "average",
    nchunk: int = STEPS[0],
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[RunOptions],
) -> np.ndarray: ...


@public(OF_STATISTIC, see="last_watched, snapshots")
def watch(
    ims: object,
    statistic: object = "average",
    nchunk: int = STEPS[0],
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[RunOptions],
) -> object:
    """Compute images, and show them while they form.

    In a notebook, the images and a progress bar are one output of the cell, and stay in it. In a
    terminal there is a progress bar, elsewhere a line of the log every 30 seconds. The pictures are
    drawn in at most 3 % of the time of a run of two seconds or more. If the cell is interrupted,
    the tasks end, the picture stays, and `last_watched` has the image so far.

    An iterator is watched as it goes: ``for shot in watch(snapshots(...))``, or, of a series that
    grows, ``for shot in watch(follow(...))``.

    >>> watch(frames, "max")
    array([[4, 8]], dtype=uint16)
    >>> from daskstats import snapshots
    >>> [shot.done for shot in watch(snapshots(frames, "max", 2))]
    [2, 4]
    """
    look = Look(log, contrast, cmap, size).check()
    if isinstance(ims, Stream | Followed):
        if options or (statistic, nchunk) != ("average", STEPS[0]):
            raise TypeError("watch takes no arguments for the images of an iterator")
        return Watched(ims, look)
    reduction = reduce(ims, statistic, 0, AtMost(nchunk), running=True, **options)
    watched = Watched(reduction.stream(Progress.itself, reading=True), look)
    with watched:  # a traceback, which a notebook keeps, would keep the tasks of an open one
        for _ in watched:
            pass
    return watched.image
