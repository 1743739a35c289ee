"""Every statistic by its name: the registry, and the values accepted in place of a name."""

from collections.abc import Callable
from inspect import signature

from ..names import check_statistic
from . import framewise, ranks
from .base import State, Statistic
from .framewise import average, count_above, maximum, moments, std
from .ranks import clipped_average, percentile
from .validity import Validity, check_validity

__all__ = [
    "STATISTICS",
    "State",
    "Statistic",
    "Validity",
    "as_statistic",
    "average",
    "check_validity",
    "clipped_average",
    "compile_seconds",
    "count_above",
    "maximum",
    "moments",
    "percentile",
    "std",
]

STATISTICS: dict[str, Statistic | Callable[..., Statistic]] = {
    "max": framewise.maximum,
    "min": framewise.minimum,
    "sum": framewise.total,
    "average": framewise.average,
    "std": framewise.std,
    "var": framewise.var,
    "snr": framewise.snr,
    "percentile": ranks.percentile,
    "median": ranks.median,
    "range": framewise.value_range,
    "argmax": framewise.argmax,
    "argmin": framewise.argmin,
    "count": framewise.count,
    "count_above": framewise.count_above,
    "clipped_average": ranks.clipped_average,
}

# Seconds of a core that compiling each statistic took, on average over uint8, uint16, uint32, int32
# and float32, which differ by a quarter.
COMPILE_SECONDS = {
    "max": 2,
    "min": 2,
    "sum": 2,
    "average": 2,
    "std": 3,
    "var": 3,
    "snr": 3,
    "percentile": 9,
    "median": 9,
    "range": 3,
    "argmax": 0.7,
    "argmin": 0.7,
    "count": 0.7,
    "count_above": 3,
    "clipped_average": 13,
}

# Parameters as examples: they make no difference to compiled code.
EXAMPLES = {"percentile": (95,), "count_above": (1000,), "clipped_average": (3, 5)}


def as_statistic(statistic: object) -> Statistic:
    """Return the statistic for a name, a tuple such as ("percentile", 95), or a Statistic.

    Raises
    ------
    ValueError
        If there is no statistic of that name.
    TypeError
        If the statistic takes other parameters.

    Examples
    --------
    >>> as_statistic("max").name, as_statistic(("percentile", 95)).along
    ('max', 'rows')
    """
    if isinstance(statistic, Statistic):
        return statistic
    name, *parameters = statistic if isinstance(statistic, tuple) and statistic else (statistic,)
    found = STATISTICS[check_statistic(name)]
    if isinstance(found, Statistic):
        if parameters:
            raise TypeError(f"{name} takes no parameter, got {parameters}")
        return found
    return found(*_check_parameters(name, found, parameters))


def compile_seconds(statistic: Statistic) -> float | None:
    """Return the seconds that compiling a statistic takes, about, for each dtype; None: unknown."""
    return COMPILE_SECONDS.get(statistic.name)


def _check_parameters(name: str, make: Callable, parameters: list) -> list:
    """Return the parameters of a statistic, after a check of their number."""
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
            f'for example ("{name}", {", ".join(map(str, EXAMPLES[name]))})'
        )
    return parameters
