"""Which values of a frame do not count, and the value of the image where none does."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite

import numpy as np

from ..arguments import check_bool, check_number


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


def check_validity(
    invalid: object = None, saturation: object = None, skipna: object = False
) -> Validity:
    """Return the validity that a user's arguments describe.

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
        If an argument is of another type or beyond float64; the message names it.

    Examples
    --------
    >>> check_validity([-1, -2, float("nan")], saturation=1e6)
    Validity(invalid=(-2, -1), saturation=1000000.0, skipna=True)
    """
    leaves_nan_out = check_bool(skipna, "skipna")
    values: Iterable[object] = () if invalid is None else (invalid,)
    if isinstance(invalid, list | tuple | set | frozenset | range | np.ndarray):
        values = np.atleast_1d(invalid) if isinstance(invalid, np.ndarray) else invalid
    numbers = {check_number(value, "invalid") for value in values}
    finite = sorted(number for number in numbers if number == number)
    limit = None if saturation is None else check_number(saturation, "saturation")
    if limit != limit:
        raise ValueError("saturation must be a number, got nan: NaN is left out by skipna")
    return Validity(tuple(finite), limit, leaves_nan_out or len(finite) < len(numbers))


def left_out(validity: Validity, values: np.ndarray) -> np.ndarray:
    """Return where values of any shape do not count, NaN aside; compared as compiled code does.

    >>> left_out(Validity(invalid=(3, 400), saturation=7.5), np.array([3, 7, 8], "u1"))
    array([ True, False,  True])
    """
    found = np.zeros(values.shape, bool)
    for value in validity.invalid:
        if can_hold(value, values.dtype):
            found |= values == _rounded(value, values.dtype)
    limit = validity.saturation
    if limit is not None and values.dtype.kind == "f":
        found |= values >= _rounded(limit, values.dtype)
    elif limit is not None and limit != inf:
        # A comparison of integers with an int is exact, whatever its size.
        found |= values >= (ceil(limit) if isfinite(limit) else _limits(values.dtype)[0])
    return found


def _rounded(value: float, dtype: np.dtype) -> np.generic:
    """Return a number of a dtype; one that is too large for floats is infinite."""
    with np.errstate(over="ignore"):
        return dtype.type(value)


class NoValidValueError(ValueError):
    """Pixels of an image of integers have no valid value, and no fill value was given."""


def fill_pixels(image: np.ndarray, pixels: np.ndarray, fill: float | None) -> None:
    """Write the fill value, NaN if it is None, to some pixels of an image.

    Raises
    ------
    NoValidValueError
        If there are such pixels in an image of integers and no fill value was given.
    """
    count = np.count_nonzero(pixels)
    if count and fill is None and image.dtype.kind != "f":
        raise NoValidValueError(
            f"{count} pixels have no valid value, and an image of {image.dtype} has no NaN: "
            f"give a fill_value, or a float as dtype"
        )
    if count:
        image[..., pixels] = np.nan if fill is None else fill


def can_hold(value: object, dtype: np.dtype) -> bool:
    """Whether an image can hold a number; floats must not become infinite."""
    try:
        number = float(value) if isinstance(value, np.bool_) else value
        number = number if isinstance(number, bool) else check_number(number, "value")
    except ValueError:  # beyond float64
        return False
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(number)) or not isfinite(number))
    if dtype.kind not in "biu" or not isfinite(number) or number != floor(number):
        return False
    low, high = _limits(dtype)
    return low <= number <= high


def _limits(dtype: np.dtype) -> tuple[int, int]:
    """Return the least and the largest value of a dtype of integers or of bool."""
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def without_effect(validity: Validity, dtype: np.dtype, nan: bool = False) -> str:
    """Return a sentence on values to leave out that frames of a dtype cannot have, "" without any.

    Floats are compared rounded to the dtype, so that only one beyond its range is without effect.

    Parameters
    ----------
    validity : Validity
        The values.
    dtype : dtype
        Of the frames.
    nan : bool
        Whether NaN was one of them.

    Examples
    --------
    >>> without_effect(Validity(invalid=(65535, 4294967295)), np.dtype("u2"))
    'invalid=4294967295 leaves out nothing: frames of uint16 hold integers from 0 to 65535'
    >>> without_effect(Validity(invalid=(-1,), saturation=70000), np.dtype("f4"))
    ''
    """
    found = [f"invalid={value}" for value in validity.invalid if not can_hold(value, dtype)]
    if dtype.kind == "f":
        held = f"numbers up to {np.finfo(dtype).max:.3g}"
    else:
        low, high = _limits(dtype)
        held = f"integers from {low} to {high}"
        found += ["invalid=nan"] if nan else []
        if validity.saturation is not None and validity.saturation > high:
            found.append(f"saturation={validity.saturation}")
    if not found:
        return ""
    leave = "leaves" if len(found) == 1 else "leave"
    return f"{' and '.join(found)} {leave} out nothing: frames of {dtype} hold {held}"
