"""Watching images form: in a notebook, a terminal, or the log of a batch job."""

import html
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, Unpack, overload

import click
import numpy as np

from .api import OF_STATISTIC, NamedStatistic, public
from .arguments import ImageSeries
from .packages import load, loaded
from .pictures import CONTRAST, SIZE, draw, palette, planes
from .reduction import STEPS, Options, reduce, with_most_steps
from .run.progress import Progress, Snapshot
from .run.stream import Stream
from .series.opening import as_series
from .status import Status

T = TypeVar("T")

# The part of the time that looking may take; seconds between two draws, and before the first.
BUDGET, SHORTEST, LONGEST, FIRST = 0.03, 0.1, 1.0, 0.3

# Seconds between two lines where there is neither a notebook nor a terminal.
LOG_INTERVAL = 30

COLOURS = {"running": "#1976d2", "done": "#388e3c"}
FAILED = "#d32f2f"

log = logging.getLogger("daskstats")

_last: Snapshot | None = None


def last_watched() -> Snapshot | None:
    """Return the newest snapshot that `watch` has shown, that of an interrupted run included.

    Returns
    -------
    Snapshot or None
        Its ``image`` is a dict for a list of statistics; None before the first one.

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
            low, high = map(float, self.contrast)
            good = 0 <= low < high <= 100
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(
                f"contrast must be two percentiles, the lower one first, got {self.contrast!r}"
            )
        if self.size is not None and not 1 <= self.size <= 4 * SIZE:
            raise ValueError(f"size must be 1 to {4 * SIZE} pixels, got {self.size!r}")
        palette(self.cmap)
        return self

    def figures(self, images: dict[str, np.ndarray], seen: int) -> str:
        """Return the pictures of some images as HTML."""
        size = self.size or (SIZE if len(images) == 1 else SIZE * 5 // 8)
        facts = {"log": self.log, "contrast": self.contrast, "cmap": self.cmap}
        return "".join(
            draw(image, seen, size=size, **facts).html(name)  # type: ignore[arg-type]
            for name, image in images.items()
        )


# ---------------------------------------------------------------------- places to show


class View(Protocol):
    """A place where progress is shown."""

    pictures: bool
    """whether it shows images"""

    def show(self, status: Status, figures: str) -> None:
        """Show how far the run is."""

    def end(self, status: Status, figures: str, state: str) -> None:
        """Show how the run has ended."""


class Page:
    """HTML, and the same as text."""

    def __init__(self, markup: str, text: str) -> None:
        self.markup, self.text = markup, text

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.text}


class NotebookView:
    """One output of a notebook cell, replaced in place."""

    pictures = True

    def __init__(self, status: Status) -> None:
        display = load("IPython.display").display
        self._handle = display(self._page(status.line(), 0, "running", ""), display_id=True)

    def show(self, status: Status, figures: str) -> None:
        self._handle.update(self._page(status.line(), status.fraction, "running", figures))

    def end(self, status: Status, figures: str, state: str) -> None:
        text = status.closing_line(state)
        self._handle.update(self._page(text, status.fraction, state, figures))

    def _page(self, text: str, fraction: float, state: str, figures: str) -> Page:
        bar = f"width:{100 * fraction:.1f}%;height:6px;background:{COLOURS.get(state, FAILED)}"
        return Page(
            f'<div class="daskstats-watch" data-state="{html.escape(state)}" '
            f'style="font:13px sans-serif;max-width:1200px">'
            f'<div style="background:#e0e0e0;height:6px;margin:4px 0"><div style="{bar}"></div>'
            f'</div><div style="margin:4px 0">{html.escape(text)}</div>'
            f'<div style="display:flex;flex-wrap:wrap">{figures}</div></div>',
            text,
        )


class TerminalView:
    """A progress bar on stderr."""

    pictures = False

    def __init__(self, status: Status) -> None:
        self._bar = click.progressbar(
            length=len(status.stream), file=sys.stderr, show_eta=False, item_show_func=_or_nothing
        )
        self._bar.__enter__()

    def show(self, status: Status, figures: str) -> None:
        self._bar.update(status.progress.step + 1 - self._bar.pos, status.line())

    def end(self, status: Status, figures: str, state: str) -> None:
        done = status.progress.step + 1 - self._bar.pos
        self._bar.update(done, status.closing_line(state))
        self._bar.__exit__(None, None, None)


def _or_nothing(line: str | None) -> str:
    """Return the text behind a progress bar; there is none before the first update."""
    return line or ""


class LogView:
    """Lines in the log, or on stderr where nobody has configured the log."""

    pictures = False

    def __init__(self, status: Status) -> None:
        self._next = time.monotonic() + LOG_INTERVAL

    def show(self, status: Status, figures: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_INTERVAL
            self._write(status.line())

    def end(self, status: Status, figures: str, state: str) -> None:
        self._write(status.closing_line(state))

    def _write(self, line: str) -> None:
        if log.isEnabledFor(logging.INFO):
            log.info("%s", line)
        else:
            print(line, file=sys.stderr)


def current_view() -> type[NotebookView] | type[TerminalView] | type[LogView]:
    """Return the kind of view for this process: notebook, terminal, or log."""
    get_ipython = loaded("IPython", "get_ipython")
    if get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None:
        return NotebookView
    return TerminalView if sys.stderr.isatty() else LogView


# ---------------------------------------------------------------------- looking on


class Watched(Iterator[T], Generic[T]):
    """Iterates over a stream, and shows its images and its progress meanwhile.

    Images are drawn so seldom that they take a small part of the time, and only the newest.
    ``len`` is that of the stream. Leaving it early closes the stream.
    """

    def __init__(self, stream: Stream[T], look: Look) -> None:
        self._stream, self._look = stream, look
        self._status = Status(stream)
        self._view: View = current_view()(self._status)
        self._figures = ""
        self._cost, self._drawn, self._item_shown = 0.0, -LONGEST, True
        self._item: T | None = None
        self._ended = False

    def __len__(self) -> int:
        return len(self._stream)

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        self._stream.on_wait = self._look_on
        try:
            self._item, self._item_shown = next(self._stream), False
            self._look_on()
        except BaseException as error:
            self._end(state_of(error))
            raise
        finally:
            # A stream that refers to this object would not be closed when it is deleted.
            self._stream.on_wait = None
        if self._stream.progress.step + 1 == len(self._stream):
            self._end("done")
        return self._item

    def close(self) -> None:
        """Stop the tasks, and leave the last picture."""
        self._end("stopped")

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self.close()

    def _look_on(self) -> None:
        """Show the newest image and the progress, if it is time for it."""
        now, elapsed = time.perf_counter(), self._status.elapsed
        pause = min(LONGEST, max(SHORTEST, self._cost / BUDGET))
        if now - self._drawn < pause or elapsed < FIRST:
            return
        began = time.thread_time()
        if self._view.pictures:
            self._draw()
        self._view.show(self._status, self._figures)
        self._cost, self._drawn = time.thread_time() - began, time.perf_counter()

    def _draw(self) -> None:
        """Make pictures of the newest images, unless they have been made."""
        global _last
        if self._item_shown or not self._stream.progress.whole:
            return
        _last = self._snapshot()
        self._item_shown = True
        if self._view.pictures:
            one = not isinstance(_last.image, dict)
            images = {_last.statistic: _last.image} if one else _last.image
            self._figures = self._look.figures(planes(images), self._stream.progress.rows_seen)

    def _snapshot(self) -> Snapshot:
        item = self._item
        if isinstance(item, Progress):
            return item.snapshot()
        if isinstance(item, Snapshot):
            return item
        return self._stream.progress.snapshot(item)  # type: ignore[arg-type]

    def _end(self, state: str) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._stream.close()
        finally:
            self._draw()
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
    ims: ImageSeries,
    statistic: list,
    nchunk: int = STEPS[0],
    nframes: int = 0,
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[Options],
) -> dict[str, np.ndarray]: ...


@overload
def watch(
    ims: ImageSeries,
    statistic: NamedStatistic = "average",
    nchunk: int = STEPS[0],
    nframes: int = 0,
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[Options],
) -> np.ndarray: ...


@public(OF_STATISTIC, see="last_watched, snapshots")
def watch(
    ims: Any,
    statistic: Any = "average",
    nchunk: int = STEPS[0],
    nframes: int = 0,
    *,
    log: bool = False,
    contrast: tuple[float, float] = CONTRAST,
    cmap: str = "gray",
    size: int | None = None,
    **options: Unpack[Options],
) -> Any:
    """Compute images, and show them while they form.

    In a notebook, the images and a progress bar are one output of the cell, and stay in it. In a
    terminal there is a progress bar, elsewhere a line of the log every 30 seconds. The pictures are
    drawn in at most 3 % of the time of a run of two seconds or more. If the cell is interrupted,
    the tasks end, the picture stays, and `last_watched` has the image so far.

    An iterator is watched as it goes: ``for shot in watch(snapshots(...))``.

    >>> watch(frames, "max")
    array([[4, 8]], dtype=uint16)
    >>> from daskstats import snapshots
    >>> [shot.done for shot in watch(snapshots(frames, "max", 2))]
    [2, 4]
    """
    look = Look(log, contrast, cmap, size).check()
    if isinstance(ims, Stream):
        if options or (statistic, nchunk, nframes) != ("average", STEPS[0], 0):
            raise TypeError("watch takes no arguments for the images of an iterator")
        return Watched(ims, look)
    series = as_series(ims, options.pop("lock", False))
    make = partial(reduce, series, statistic, nframes, chunk_name="nchunk", running=True, **options)
    watched = Watched(with_most_steps(make, nchunk).stream(Progress.itself, reading=True), look)
    for _ in watched:
        pass
    assert _last is not None, "the last image has been shown"
    return _last.image
