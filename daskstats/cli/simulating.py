"""The command ``simulate``."""

import sys
import time
from typing import Any

import click

from ..simulate import check_arguments, simulate
from ..views import in_terminal
from .computing import print_closing_line
from .program import reported_errors


def write_scan(
    output: str,
    *,
    nframes: int,
    shape: tuple[int, int],
    dtype: str,
    quiet: bool,
    verbose: int,
    traceback: bool,
    **options: Any,
) -> None:
    """Write a simulated scan."""
    with reported_errors(traceback) as stage:
        began = time.perf_counter()
        check_arguments(output, nframes, shape, dtype, **options)
        stage.compute()
        hidden = quiet or verbose > 0 or not in_terminal()
        with click.progressbar(
            length=nframes, label="simulate", file=sys.stderr, hidden=hidden
        ) as bar:
            simulate(output, nframes, shape, dtype, **options, progress=bar.update)
        if not quiet:
            print_closing_line("simulate", (nframes, *shape), dtype, began, output)
