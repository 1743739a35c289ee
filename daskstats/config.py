"""The settings of ``daskstats.yaml``, one function each; every value is checked here."""

import math
import numbers
import os
import re
from pathlib import Path

import dask
import yaml
from dask.utils import parse_bytes, parse_timedelta

from .texts import shown

COMPRESSIONS = ("lz4", "zstd", "none")

# A time as text, and units that dask does not know.
TIME = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zA-Z]*)")
UNITS = {"min": "m", "mins": "m", "sec": "s", "secs": "s", "hr": "h", "hrs": "h"}

DEFAULTS = yaml.safe_load(Path(__file__).with_name("daskstats.yaml").read_text())
dask.config.update_defaults(DEFAULTS)


def memory_limit() -> int | None:
    """Return the bytes that a call may use; None where they are measured at the call."""
    value = _setting("memory-limit")
    return None if value is None else parse_memory(value, " as daskstats.memory-limit")


def memory_fraction() -> float:
    """Return the part of the available memory that a call may use, in (0, 1]."""
    value = _setting("memory-fraction")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"daskstats.memory-fraction must be a number, got {value!r}")
    if not 0 < float(value) <= 1:
        raise ValueError(f"daskstats.memory-fraction must be in (0, 1], got {value!r}")
    return float(value)


def memory_timeout() -> float:
    """Return the seconds to wait for memory held by an iterator that is not advanced."""
    return _seconds("memory-timeout")


def no_workers_timeout() -> float:
    """Return the seconds that a cluster may have no workers."""
    return _seconds("no-workers-timeout")


def checkpoint_interval() -> float:
    """Return the seconds between two commits of a state to a checkpoint; 0: after each step."""
    return _seconds("checkpoint-interval")


def scratch_directory() -> Path | None:
    """Return the directory for scratch data; the workers of a cluster share it."""
    return _directory("daskstats.scratch-directory")


def temporary_directory() -> Path | None:
    """Return dask's own directory for temporary files; each worker has one for itself."""
    return _directory("temporary-directory")


def scratch_compression() -> str:
    """Return the compression of scratch data; dask reads ``none`` in a variable as null."""
    name = _setting("scratch-compression")
    return check_compression("none" if name is None else name)


def check_compression(name: object) -> str:
    """Return the name of a compression in lower case, or refuse an unknown one."""
    lower = name.lower() if isinstance(name, str) else name
    if lower not in list(COMPRESSIONS):
        raise ValueError(
            f"daskstats.scratch-compression must be one of {', '.join(COMPRESSIONS)}, got {name!r}"
        )
    return str(lower)


def parse_memory(value: object, where: str = "") -> int:
    """Return bytes given as a number or as text with a unit; errors end with ``where``.

    >>> parse_memory("4 GiB")
    4294967296
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
        raise TypeError(
            f'memory_limit must be bytes or text such as "4 GiB", got {shown(value)}{where}'
        )
    try:
        size = parse_bytes(value) if isinstance(value, str) else float(value)
        # dask takes text without a number, such as an empty variable, for one byte.
        number = not isinstance(value, str) or any(map(str.isdigit, value))
        positive = number and math.isfinite(size) and size >= 1
    except (ValueError, OverflowError):
        positive = False
    if not positive:
        raise ValueError(
            f"memory_limit must be a positive number of bytes, or text such as "
            f'"4 GiB", got {shown(value)}{where}'
        )
    return int(size)


def _setting(name: str) -> object:
    return dask.config.get(f"daskstats.{name}", DEFAULTS["daskstats"][name])


def _directory(setting: str) -> Path | None:
    """Return the absolute path of a configured directory, None if it is null or empty."""
    value = dask.config.get(setting, None)
    if value is None or value == "":
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{setting} must be the path of a directory, got {value!r}")
    return Path(value).expanduser().absolute()


def _seconds(name: str) -> float:
    """Return a configured time in seconds, or refuse a value that is none."""
    value = _setting(name)
    seconds = _parse_seconds(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f'daskstats.{name} must be seconds, or text such as "30 s" or "1 min", got {value!r}'
        )
    return seconds


def _parse_seconds(value: object) -> float:
    """Return a time in seconds, NaN if it is none."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    found = TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return math.nan
    number, unit = found.groups()
    try:
        # dask takes "-5 s" and ".5 s" for something else, so it is given the unit only.
        return float(number) * parse_timedelta(f"1 {UNITS.get(unit, unit) or 's'}")
    except KeyError:
        return math.nan
