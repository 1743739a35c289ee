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
import typing as _typing

from .packages import load as _load

if _typing.TYPE_CHECKING:
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
        max_iter,
        maximum,
        maximum_iter,
        median,
        median_iter,
        min_iter,
        minimum,
        minimum_iter,
        partials,
        percentile,
        percentile_iter,
        plan,
        snapshots,
        snr,
        snr_iter,
        std,
        std_iter,
        sum_iter,
        var,
        var_iter,
        wrap,
    )
    from .api import (
        max as max,
    )
    from .api import (
        min as min,
    )
    from .api import (
        range as range,
    )
    from .api import (
        sum as sum,
    )
    from .following import follow
    from .formats.files import frames_from_raw
    from .memory.available import memory_limit
    from .notebook import last_watched, watch
    from .planning.values import MemoryLimitError, Plan
    from .run.checkpoint import load_checkpoint
    from .run.progress import Snapshot
    from .statistics import Statistic
    from .warming import warm

    __version__: str

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

_BUILTINS = ("max", "min", "range", "sum")

# The modules of public names that are not in `api`.
_HOMES = {
    "MemoryLimitError": "planning.values",
    "Plan": "planning.values",
    "Snapshot": "run.progress",
    "Statistic": "statistics",
    "follow": "following",
    "frames_from_raw": "formats.files",
    "last_watched": "notebook",
    "load_checkpoint": "run.checkpoint",
    "memory_limit": "memory.available",
    "warm": "warming",
    "watch": "notebook",
}

if not _ending.is_program():
    # dask knows the settings from the import on; the command line prints help without dask.
    from . import config as _config


def __getattr__(name: str) -> object:
    """Import a public name when it is used: `import daskstats` takes no time."""
    if name == "api":
        return _load(f"{__name__}.api")
    if name == "__version__":
        found = _load("importlib.metadata").version(__name__)
    elif name in __all__ or name in _BUILTINS:
        found = getattr(_load(f"{__name__}.{_HOMES.get(name, 'api')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_BUILTINS, "__version__"})
