"""Compile the kernels that most tests need, each in one of the processes of a test run.

Otherwise both processes compile the same kernels at the same time, for the same files of the cache.
"""

import tempfile
import time
import warnings
from itertools import product
from pathlib import Path

import dask
from helpers import DTYPES, make_frames

import daskstats as stats
from daskstats.statistics import STATISTICS

PARAMETERS = {"percentile": (30,), "count_above": (1,)}
OPTIONS = ({}, {"invalid": 1, "fill_value": 0}, {"saturation": 2, "fill_value": 0})

# Every second pair is one worker's.
JOBS = list(product(sorted({*DTYPES, "u1", "u4", "i2"}), OPTIONS))


def compile_kernels(part: int, parts: int) -> None:
    """Compute every statistic of small frames, alone and with others, for a part of the jobs."""
    several = [(name, *PARAMETERS.get(name, ())) for name in STATISTICS]
    with dask.config.set(scheduler="synchronous"):
        for dtype, options in JOBS[part::parts]:
            frames = make_frames(dtype)
            for name, *parameters in several:
                getattr(stats, name)(frames, *parameters, **options).compute()
            dask.compute(stats.aggregate(frames, several, **options))


def marks_of(run: str) -> Path:
    """Return the directory in which each worker marks that it has compiled its part."""
    return Path(tempfile.gettempdir()) / f"daskstats-tests-{run}"


def compile_in_parts(run: str, worker: str, workers: int, patience: float = 240) -> None:
    """Compile the part of one worker of xdist, and wait until the others have compiled theirs."""
    place = marks_of(run)
    place.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile_kernels(int(worker.removeprefix("gw")), workers)
    (place / worker).touch()
    deadline = time.monotonic() + patience
    while len(list(place.iterdir())) < workers and time.monotonic() < deadline:
        time.sleep(0.1)
