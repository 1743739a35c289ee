"""The program ``daskstats``: how it starts, its exit codes, and its errors as single lines."""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import click

from .. import ending


class ExitCode(IntEnum):
    """Exit codes other than 0."""

    FAILURE = 1
    """an error while computing or writing"""
    BAD_INPUT = 2
    """an error of usage or of the input"""
    INTERRUPTED = 130
    """Ctrl-C"""


def main() -> None:
    """Run the command line with the arguments of the process."""
    ending.watch()
    # Signals are handled from here on, during the imports too.
    from .commands import main

    try:
        main(prog_name="daskstats")
    finally:
        # After a signal, the thread that handles it sets the exit code.
        ending.hold()


class Problem(click.ClickException):
    """An error that ends the program, in one line."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Program(click.Group):
    """A group of commands whose errors are one line on stderr."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            # Not standalone: click would print errors in its own form.
            code = super().main(*args, **extra | {"standalone_mode": False})
            _flush()
        except click.ClickException as error:
            code = error.exit_code
            context = getattr(error, "ctx", None)
            hint = f" (see {context.command_path} --help)" if context is not None else ""
            print_line(f"error: {error.format_message()}{hint}")
        except OSError as error:
            _abandon_output()
            code = ExitCode.FAILURE
            print_line(f"error: the output cannot be printed: {error}")
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            _flush()
        except (KeyboardInterrupt, BrokenPipeError):
            _abandon_output()
            print_line("interrupted")
            ctx.exit(ExitCode.INTERRUPTED)
        return result


def print_line(message: str) -> None:
    """Write one line about a problem to stderr, if that is still open."""
    ending.hold_failure()
    try:
        click.echo(f"daskstats: {' '.join(message.split())}", err=True)
    except OSError:
        _abandon_output()


def _flush() -> None:
    """Flush stdout, unless it is closed."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _abandon_output() -> None:
    """Keep Python from reporting a closed pipe or a full disk when it flushes at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class Stage:
    """The stage of a command: an error before it computes is one of usage or input."""

    exit_code = ExitCode.BAD_INPUT

    def compute(self) -> None:
        self.exit_code = ExitCode.FAILURE


@contextmanager
def reported_errors(show_traceback: bool) -> Iterator[Stage]:
    """Turn any error into one line and an exit code, with a traceback only if asked for.

    Warnings are one line as well, without the line of code that caused them.
    """
    stage = Stage()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print_line(f"warning: {message}")
            yield stage
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if show_traceback:
            traceback.print_exception(error)
        code = ExitCode.BAD_INPUT if _is_about_input(error) else stage.exit_code
        raise Problem(describe(error), code) from error


def describe(error: BaseException) -> str:
    """Return an error and its notes as a sentence.

    >>> describe(ValueError("frame 3 is empty"))
    'frame 3 is empty'
    >>> describe(KeyError("x"))
    "KeyError: 'x'"
    """
    error = _original(error)
    # Messages of these types are sentences; others often need the name of the type.
    speaking = ValueError, TypeError, OSError, MemoryError, ImportError, RuntimeError
    text = str(error)
    if not text or not isinstance(error, speaking):
        text = f"{type(error).__name__}: {text}"
    return text + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _original(error: BaseException) -> BaseException:
    """Return the error raised in a process of dask; dask's copy has a traceback in its text."""
    return getattr(error, "exception", error) if hasattr(error, "exception_type") else error


def _is_about_input(error: BaseException) -> bool:
    """Whether an error names a frame, in a note or at its start, or asks for an option."""
    error = _original(error)
    noted = any(note.startswith("while reading frame") for note in getattr(error, "__notes__", ()))
    about = str(error).startswith("frame ") or "give a fill_value" in str(error)
    return noted or (isinstance(error, ValueError) and about)
