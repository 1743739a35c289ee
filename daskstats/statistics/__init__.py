"""Every statistic by its name: the registry, and what a user may give instead of a name."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from .base import State, Statistic, can_hold
from .counts import count, count_above
from .extremes import argmax, argmin, maximum, minimum, value_range
from .moments import moments, std, var
from .ranks import clipped_average, median, percentile
from .sums import average, total
from .validity import Validity, check_validity

__all__ = [
    "STATISTICS",
    "State",
    "Statistic",
    "Validity",
    "as_statistic",
    "average",
    "can_hold",
    "check_validity",
    "clipped_average",
    "count_above",
    "maximum",
    "median",
    "minimum",
    "moments",
    "percentile",
    "std",
    "total",
    "var",
]

STATISTICS: dict[str, Statistic | Callable[..., Statistic]] = {
    "max": maximum,
    "min": minimum,
    "sum": total,
    "average": average,
    "std": std,
    "var": var,
    "percentile": percentile,
    "median": median,
    "range": value_range,
    "argmax": argmax,
    "argmin": argmin,
    "count": count,
    "count_above": count_above,
    "clipped_average": clipped_average,
}

# Parameters that an error shows.
EXAMPLES = {"percentile": "95", "count_above": "1000", "clipped_average": "3, 5"}


def as_statistic(statistic: Any) -> Statistic:
    """Return the statistic for a name, a tuple such as ("percentile", 95), or a Statistic.

    Raises
    ------
    ValueError
        If there is no statistic of that name.
    TypeError
        If it takes other parameters.

    Examples
    --------
    >>> as_statistic("max").name, as_statistic(("percentile", 95)).along
    ('max', 'rows')
    """
    if isinstance(statistic, Statistic):
        return statistic
    name, *parameters = statistic if isinstance(statistic, tuple) and statistic else (statistic,)
    if not isinstance(name, str) or name not in STATISTICS:
        raise ValueError(f"there is no statistic {name!r}: choose from {', '.join(STATISTICS)}")
    found = STATISTICS[name]
    if isinstance(found, Statistic):
        if parameters:
            raise TypeError(f"{name} takes no parameter, got {parameters}")
        return found
    return found(*_check_parameters(name, found, parameters))


def _check_parameters(name: str, make: Callable, parameters: list) -> list:
    """Return the parameters of a statistic, or refuse a wrong number of them."""
    expected = [
        parameter
        for parameter in signature(make).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    least = sum(parameter.default is parameter.empty for parameter in expected)
    if not least <= len(parameters) <= len(expected):
        names = ", ".join(str(parameter).partition(":")[0] for parameter in expected)
        raise TypeError(
            f"{name} takes the parameters ({names}), got {len(parameters)} of them: "
            f'for example ("{name}", {EXAMPLES[name]})'
        )
    return parameters
