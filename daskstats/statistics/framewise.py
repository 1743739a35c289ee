"""The frame-wise statistics: the accumulators of each, and how it is finished."""

from functools import partial

from ..arguments import check_ddof, check_threshold
from .base import Statistic
from .counts import COUNT, Above, finish_count
from .extremes import ARGMAX, ARGMIN, MAX, MIN, finish_range
from .folds import accumulated
from .moments import MOMENTS, finish_deviation, finish_ratio
from .shared import copy_array
from .sums import SUM, finish_average, finish_sum

maximum = accumulated("max", (MAX,), partial(copy_array, name="max"), None)
minimum = accumulated("min", (MIN,), partial(copy_array, name="min"), None)
value_range = accumulated("range", (MAX, MIN), finish_range, "float64")
argmax = accumulated("argmax", (ARGMAX,), partial(copy_array, name="argmax"), "int64")
argmin = accumulated("argmin", (ARGMIN,), partial(copy_array, name="argmin"), "int64")
total = accumulated("sum", (SUM,), finish_sum, "float64")
average = accumulated("average", (SUM, COUNT), finish_average)
count = accumulated("count", (COUNT,), finish_count, "int64", empty=0)


def moments(name: str, ddof: float = 0) -> Statistic:
    """Return "std" or "var" with ``count - ddof`` degrees of freedom.

    Raises
    ------
    ValueError, TypeError
        If ``ddof`` is not a number of at least 0.
    """
    finish = partial(finish_deviation, ddof=check_ddof(ddof), root=name == "std")
    return accumulated(name, (MOMENTS, COUNT), finish)


std, var = moments("std"), moments("var")
snr = accumulated("snr", (SUM, MOMENTS, COUNT), finish_ratio)


def count_above(threshold: float) -> Statistic:
    """Return the statistic that counts the frames in which a pixel is larger than a threshold.

    Floats are compared with it as numpy does, rounded to their dtype; NaN is not larger.

    Raises
    ------
    TypeError, ValueError
        If the threshold is not a number.
    """
    number = check_threshold(threshold)
    above = Above(f"above {number}", number)
    return accumulated(
        "count_above", (above,), partial(copy_array, name=above.name), "int64", empty=0
    )
