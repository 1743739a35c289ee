"""The command ``simulate``."""

import time
from math import prod
from typing import Any

import numpy as np

from ..simulate import check_arguments, simulate
from .computing import print_closing_line
from .program import reported_errors
from .progress import Count, displayed


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
        start, nbytes = (
            Count(0, nframes, "frames"),
            prod(shape) * nframes * np.dtype(dtype).itemsize,
        )
        shown = {"quiet": quiet, "log": verbose > 0}
        with displayed("simulate", nframes, start, nbytes, **shown) as display:
            written = 0

            def move(more: int) -> None:
                nonlocal written
                written += more
                display.move(more, Count(written, nframes, "frames"))

            simulate(output, nframes, shape, dtype, **options, progress=move)
        if not quiet:
            print_closing_line("simulate", (nframes, *shape), dtype, began, output)
