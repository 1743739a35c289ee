"""Aggregate statistics of image series: lazy, progressive, and within the memory there is.

>>> import numpy as np
>>> import daskstats as stats
>>> frames = np.arange(12).reshape(3, 2, 2)
>>> stats.average(frames).compute()
array([[4., 5.],
       [6., 7.]], dtype=float32)
>>> for image in stats.max_iter(frames, 3):
...     print(image.max())
3
7
11
"""

from . import ending as _ending  # isort: skip  # first: it handles signals in the command line
from importlib.metadata import version as _version

from .api import (
    aggregate,
    aggregate_iter,
    argmax,
    argmin,
    average,
    average_iter,
    clipped_average,
    count,
    count_above,
    max,
    max_iter,
    maximum,
    maximum_iter,
    median,
    median_iter,
    min,
    min_iter,
    minimum,
    minimum_iter,
    partials,
    percentile,
    percentile_iter,
    plan,
    range,
    snapshots,
    snr,
    snr_iter,
    std,
    std_iter,
    sum,
    sum_iter,
    var,
    var_iter,
    wrap,
)
from .formats.files import frames_from_raw
from .memory.available import memory_limit
from .notebook import last_watched, watch
from .planning.values import MemoryLimitError, Plan
from .run.progress import Snapshot
from .statistics import Statistic

__version__ = _version("daskstats")

# max, min, sum and range are public, but a star import must not shadow the built-ins.
__all__ = [
    "MemoryLimitError",
    "Plan",
    "Snapshot",
    "Statistic",
    "aggregate",
    "aggregate_iter",
    "argmax",
    "argmin",
    "average",
    "average_iter",
    "clipped_average",
    "count",
    "count_above",
    "frames_from_raw",
    "last_watched",
    "max_iter",
    "maximum",
    "maximum_iter",
    "median",
    "median_iter",
    "memory_limit",
    "min_iter",
    "minimum",
    "minimum_iter",
    "partials",
    "percentile",
    "percentile_iter",
    "plan",
    "snapshots",
    "snr",
    "snr_iter",
    "std",
    "std_iter",
    "sum_iter",
    "var",
    "var_iter",
    "watch",
    "wrap",
]
