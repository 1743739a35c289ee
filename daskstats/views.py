"""Places where the progress of a run is shown: a notebook, a terminal, the log of a batch job."""

import html
import logging
import os
import shutil
import sys
import time
from contextlib import suppress

import click

from .packages import load, loaded
from .status import Status

# Seconds between two lines where there is neither a notebook nor a terminal.
LOG_INTERVAL = 30

COLOURS = {"running": "#1976d2", "done": "#388e3c"}
FAILED = "#d32f2f"

log = logging.getLogger("daskstats")


class View:
    """A place where progress is shown; this one shows nothing."""

    pictures = False
    """whether it shows images"""

    def __init__(self, status: Status) -> None:
        pass

    def show(self, status: Status, figures: str) -> None:
        """Show how far the run is."""

    def end(self, status: Status, figures: str, state: str) -> None:
        """Show how the run has ended."""


class NotebookView(View):
    """One output of a notebook cell, replaced in place."""

    pictures = True

    def __init__(self, status: Status) -> None:
        display = load("IPython.display").display
        self._handle = display(
            self._page(status.line(), 0, "running", ""), raw=True, display_id=True
        )

    def show(self, status: Status, figures: str) -> None:
        self._handle.update(
            self._page(status.line(), status.fraction, "running", figures), raw=True
        )

    def end(self, status: Status, figures: str, state: str) -> None:
        text = status.closing_line(state)
        self._handle.update(self._page(text, status.fraction, state, figures), raw=True)

    def _page(self, text: str, fraction: float, state: str, figures: str) -> dict[str, str]:
        bar = f"width:{100 * fraction:.1f}%;height:6px;background:{COLOURS.get(state, FAILED)}"
        page = (
            f'<div class="daskstats-watch" data-state="{html.escape(state)}" '
            f'style="font:13px sans-serif;max-width:1200px">'
            f'<div style="background:#e0e0e0;height:6px;margin:4px 0"><div style="{bar}"></div>'
            f'</div><div style="margin:4px 0">{html.escape(text)}</div>'
            f"{figures}</div>"
        )
        return {"text/html": page, "text/plain": text}


class TerminalView(View):
    """A progress bar on stderr."""

    def __init__(self, status: Status) -> None:
        self._bar = click.progressbar(
            length=status.stream.bar[1], file=sys.stderr, show_eta=False, item_show_func=_or_nothing
        )
        self._width = self._bar.width
        self._fit("")
        self._bar.__enter__()

    def show(self, status: Status, figures: str) -> None:
        self._render(status, status.line())

    def end(self, status: Status, figures: str, state: str) -> None:
        self._render(status, status.closing_line(state))
        self._bar.__exit__(None, None, None)

    def _render(self, status: Status, line: str) -> None:
        # `update` would show no new line without a step.
        self._fit(line)
        position, self._bar.length = status.stream.bar
        self._bar.make_step(position - self._bar.pos)
        self._bar.render_progress()

    def _fit(self, line: str) -> None:
        """Shorten the bar, and then the line: one that wraps would not be replaced."""
        room = _columns() - len("  []  100%  ") - 1  # for the cursor
        self._bar.width = max(self._width // 3, min(self._width, room - len(line)))
        room -= self._bar.width
        self._bar.current_item = line if len(line) <= room else f"{line[: max(0, room - 1)]}…"


def _or_nothing(line: str | None) -> str:
    """Return the text behind a progress bar; there is none before the first update."""
    return line or ""


class LogView(View):
    """Lines in the log, or on stderr where nobody has configured the log.

    Parameters
    ----------
    status : Status
    closing : bool
        Whether there is a line at the end, also after a short time.
    """

    def __init__(self, status: Status, closing: bool = True) -> None:
        self._next, self._closing = time.monotonic() + LOG_INTERVAL, closing

    def show(self, status: Status, figures: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_INTERVAL
            self._write(status.line())

    def end(self, status: Status, figures: str, state: str) -> None:
        if self._closing:
            self._write(status.closing_line(state))

    def _write(self, line: str) -> None:
        if log.isEnabledFor(logging.INFO):
            log.info("%s", line)
        elif sys.stderr is not None:
            with suppress(OSError):  # the disk of a file is full, or nobody reads a pipe
                print(line, file=sys.stderr, flush=True)


def current_view() -> type[NotebookView] | type[TerminalView] | type[LogView]:
    """Return the kind of view for this process: notebook, terminal, or log."""
    get_ipython = loaded("IPython", "get_ipython")
    if get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None:
        return NotebookView
    return TerminalView if in_terminal() else LogView


def in_terminal() -> bool:
    """Whether stderr is a terminal; it may be closed, or another object."""
    isatty = getattr(sys.stderr, "isatty", None)
    return isatty is not None and isatty()


def _columns() -> int:
    """Return the width of the terminal of stderr."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns
