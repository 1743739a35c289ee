"""How far a command is: a bar in a terminal, and a line from time to time in a batch job."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import click

from ..compiling import compiling, observed


class Count(NamedTuple):
    """The part of the series that is done."""

    done: int
    total: int
    unit: str
    """"frames" or "rows" """


class Display(Protocol):
    """Shows how far a command is."""

    def move(self, steps: int, count: Count, remark: str = "") -> None:
        """Take a number of steps, which are done, and a remark on those that follow."""


class Hidden:
    """Shows nothing."""

    def move(self, steps: int, count: Count, remark: str = "") -> None:
        """Do nothing."""


class Bar:
    """A bar of click on stderr; a remark behind it says that code is being compiled."""

    def __init__(self, label: str, length: int) -> None:
        # Remarks come from other threads.
        self._lock, self._remark = threading.Lock(), ""
        self.bar = click.progressbar(
            length=length, label=label, show_pos=True, item_show_func=_shown, file=sys.stderr
        )

    def move(self, steps: int, count: Count, remark: str = "") -> None:
        """Move the bar."""
        with self._lock:
            self._remark = remark
            self.bar.update(steps, remark)

    def compile(self, remark: str) -> None:
        """Show a remark until the next one; "" shows the one before again."""
        with self._lock:
            self.bar.current_item = remark or self._remark
            self.bar.render_progress()


def _shown(remark: str | None) -> str | None:
    """Return the text behind a progress bar; there is none before the first step."""
    return remark


@dataclass
class Lines:
    """A line on stderr every half minute, with speed and time left of the phase it is in."""

    label: str
    count: Count
    nbytes: int = 0
    """of the series"""
    interval: ClassVar[float] = 30.0
    """seconds between two lines"""

    def __post_init__(self) -> None:
        self._start = self._began = time.monotonic()
        self._remark = ""

    def move(self, steps: int, count: Count, remark: str = "") -> None:
        """Keep the state for the next line."""
        if count.unit != self.count.unit or remark != self._remark:
            self._began = time.monotonic()
        self.count, self._remark = count, remark

    def line(self) -> str:
        """Return the state of now as a line."""
        (done, total, unit), now = self.count, time.monotonic()
        remark = "compiling" if compiling() else self._remark
        parts = [f"{self.label}: {done} of {total} {unit}", f"{100 * done // total} %"]
        parts.append(duration(now - self._start))
        if done:
            part, seconds = done / total, now - self._began
            if self.nbytes and seconds:
                parts.append(f"{self.nbytes * part / seconds / 1e9:.3g} GB/s")
            parts.append(f"about {duration(seconds * (1 - part) / part)} left")
        return ", ".join([*parts, remark] if remark else parts)

    def print_until(self, end: threading.Event) -> None:
        """Print lines until an event, or until nobody reads them."""
        with suppress(OSError):
            while not end.wait(self.interval):
                click.echo(self.line(), err=True)


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> duration(18.4), duration(750), duration(9000)
    ('18 s', '12 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def displayed(
    label: str,
    length: int,
    count: Count,
    nbytes: int = 0,
    *,
    quiet: bool = False,
    log: bool = False,
) -> Iterator[Display]:
    """Yield the display of a command.

    Parameters
    ----------
    label : str
        Name of the command.
    length : int
        Number of steps.
    count : Count
        The part of the series that is done at the beginning: nothing.
    nbytes : int
        Of the series.
    quiet : bool
        Whether nothing is shown.
    log : bool
        Whether lines of a log would go through a bar.
    """
    if quiet:
        yield Hidden()
    elif sys.stderr.isatty() and not log:
        bar = Bar(label, length)
        with bar.bar, observed(bar.compile):
            yield bar
    else:
        lines, end = Lines(label, count, nbytes), threading.Event()
        thread = threading.Thread(
            target=lines.print_until, args=(end,), name="daskstats-lines", daemon=True
        )
        thread.start()
        try:
            yield lines
        finally:
            end.set()
            thread.join()
