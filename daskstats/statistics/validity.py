"""Which values of a frame do not count, as a user says it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import check_number


@dataclass(frozen=True)
class Validity:
    """Which values of a frame do not count; `check_validity` makes one of a user's arguments.

    Examples
    --------
    >>> bool(Validity()), bool(Validity(invalid=(65535,)))
    (False, True)
    """

    invalid: tuple[float, ...] = ()
    """values that do not count; one that frames cannot hold never matches"""
    saturation: float | None = None
    """values at or above it do not count"""
    skipna: bool = False
    """whether NaN does not count"""

    def __bool__(self) -> bool:
        return self != Validity()


def check_validity(invalid: Any = None, saturation: Any = None, skipna: Any = False) -> Validity:
    """Return what a user's arguments leave out of each frame.

    Parameters
    ----------
    invalid : number or sequence of numbers, optional
        Values that do not count, such as 4294967295, or -1 and -2. One that the frames' dtype
        cannot hold never matches; floats are compared as numpy does, rounded to it. NaN means
        ``skipna=True``.
    saturation : number, optional
        Values at or above it do not count.
    skipna : bool
        Whether NaN does not count, instead of making its pixel NaN.

    Returns
    -------
    Validity

    Raises
    ------
    TypeError, ValueError
        If one is something else, or beyond float64; the message names it.

    Examples
    --------
    >>> check_validity([-1, -2, float("nan")], saturation=1e6)
    Validity(invalid=(-2, -1), saturation=1000000.0, skipna=True)
    """
    if not isinstance(skipna, bool | np.bool_):
        raise TypeError(f"skipna must be True or False, got {skipna!r}")
    several = isinstance(invalid, list | tuple | set | frozenset | range | np.ndarray)
    several = several and not (isinstance(invalid, np.ndarray) and invalid.ndim == 0)
    values = () if invalid is None else invalid if several else (invalid,)
    numbers = {check_number(value, "invalid") for value in values}
    finite = sorted(number for number in numbers if number == number)
    if saturation is not None:
        saturation = check_number(saturation, "saturation")
        if saturation != saturation:
            raise ValueError("saturation must be a number, got nan: NaN is left out by skipna")
    return Validity(tuple(finite), saturation, bool(skipna) or len(finite) < len(numbers))
