"""The public functions with numpy arrays as results: ``from daskstats import eager as stats``.

The functions, their arguments and their values are those of the package; an image is computed by
the call. Iterators and plans are the same objects, and the array of `wrap` is lazy in any case.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import dask
import numpy as np
from dask.array import Array

from . import api, docstrings
from .api import (
    aggregate_iter,
    average_iter,
    max_iter,
    median_iter,
    min_iter,
    percentile_iter,
    plan,
    snapshots,
    snr_iter,
    std_iter,
    sum_iter,
    var_iter,
    wrap,
)
from .following import follow
from .formats.files import frames_from_raw
from .memory.available import memory_limit
from .notebook import last_watched, watch
from .planning.values import MemoryLimitError, Plan
from .run.checkpoint import load_checkpoint
from .run.progress import Snapshot
from .signatures import ImageFunction, ImagesFunction
from .statistics import Statistic
from .warming import warm

P = ParamSpec("P")


def one(function: ImageFunction[P, Array]) -> ImageFunction[P, np.ndarray]:
    """Return a public function that computes its image."""
    return _computed(function)


def several(function: ImagesFunction[P, Array]) -> ImagesFunction[P, np.ndarray]:
    """Return a public function that computes its images, in one pass."""
    return _computed(function)


def _computed(function: Callable) -> Callable:
    """Return a function that computes, with the signature and the docstring of another one."""

    @wraps(function)
    def call(*args: object, **options: object) -> object:
        (images,) = dask.compute(function(*args, **options))
        return images

    # Pickle finds a function by its module.
    call.__module__ = __name__
    call.__doc__ = docstrings.without_laziness(function.__doc__)
    return call


max = maximum = one(api.max)
min = minimum = one(api.min)
sum = one(api.sum)
average = one(api.average)
std = one(api.std)
var = one(api.var)
snr = one(api.snr)
percentile = one(api.percentile)
median = one(api.median)
range = one(api.range)
argmax = one(api.argmax)
argmin = one(api.argmin)
count = one(api.count)
count_above = one(api.count_above)
clipped_average = one(api.clipped_average)
aggregate = several(api.aggregate)
partials = one(api.partials)

maximum_iter, minimum_iter = max_iter, min_iter

# As in the package, a star import does not shadow the built-ins max, min, sum and range.
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
    "follow",
    "frames_from_raw",
    "last_watched",
    "load_checkpoint",
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
    "warm",
    "watch",
    "wrap",
]
