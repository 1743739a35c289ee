"""The command ``simulate``."""

import time
from typing import Any

from ..simulate import check_arguments, simulate
from .computing import print_closing_line, progress_bar
from .program import reported_errors


def write_scan(
    output: str,
    *,
    nframes: int,
    shape: tuple[int, int],
    dtype: str,
    quiet: bool,
    traceback: bool,
    **options: Any,
) -> None:
    """Write a simulated scan."""
    with reported_errors(traceback) as stage:
        began = time.perf_counter()
        check_arguments(output, nframes, shape, dtype, **options)
        stage.compute()
        with progress_bar(nframes, "simulate", quiet) as move:
            simulate(output, nframes, shape, dtype, **options, progress=move)
        if not quiet:
            print_closing_line("simulate", (nframes, *shape), dtype, began, output)
