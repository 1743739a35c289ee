"""The names of images in a result of several statistics."""

from typing import Any

import numpy as np

from ..texts import shown
from . import Statistic, as_statistic


def named(statistics: Any) -> tuple[list[str], list[Statistic]]:
    """Return the name of each statistic in the result, and the statistics.

    >>> named(["max", ("percentile", [5, 95]), ("percentile", 50)])[0]
    ['max', 'percentile_5_95', 'percentile_50']
    """
    every = statistics if isinstance(statistics, list) else [statistics]
    if not every:
        raise ValueError("there are no statistics in the list")
    members = [as_statistic(statistic) for statistic in every]
    keys = [_key(given, found) for given, found in zip(every, members, strict=True)]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the statistics have names more than once: {', '.join(twice)}")
    return keys, members


def _key(given: Any, statistic: Statistic) -> str:
    if not isinstance(given, tuple):
        return statistic.name
    name, *parameters = given
    values = [value for parameter in parameters for value in np.atleast_1d(parameter)]
    return "_".join([name, *map(_text, values)])


def _text(value: Any) -> str:
    """Return a parameter as it is written: 95.0 as 95, and all digits of 1000001."""
    whole = isinstance(value, float) and value.is_integer()
    return shown(int(value)) if whole or isinstance(value, int) else str(value)
