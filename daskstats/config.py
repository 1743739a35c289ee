"""Settings that have a unit."""

import math
import numbers
import re
from typing import Any

import dask
from dask.utils import parse_timedelta

# A time as text, and units that dask does not know.
TIME = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zA-Z]*)")
UNITS = {"min": "m", "mins": "m", "sec": "s", "secs": "s", "hr": "h", "hrs": "h"}


def configured_seconds(name: str) -> float:
    """Return a configured time in seconds, or refuse a value that is none."""
    value = dask.config.get(f"daskstats.{name}", "60 s")
    seconds = _seconds(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f'daskstats.{name} must be seconds, or text such as "30 s" or "1 min", got {value!r}'
        )
    return seconds


def _seconds(value: Any) -> float:
    """Return a time in seconds, NaN if it is none."""
    if not isinstance(value, str):
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return float(value) if is_number else math.nan
    found = TIME.fullmatch(value.strip())
    if found is None:
        return math.nan
    number, unit = found.groups()
    try:
        # dask takes "-5 s" and ".5 s" for something else, so it is given the unit only.
        return float(number) * parse_timedelta(f"1 {UNITS.get(unit, unit) or 's'}")
    except KeyError:
        return math.nan
