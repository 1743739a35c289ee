"""Values of the first frame that stand for no count: gaps, dead and overloaded pixels, NaN."""

from collections.abc import Container
from typing import TypedDict

import numpy as np

from ..series.base import Source


class Suspect(TypedDict):
    """A value of the first frame that may stand for no count."""

    value: int | str
    pixels: int
    option: str
    """that leaves it out"""


def suspects(source: Source, limit: int, known: Container[float] = ()) -> list[Suspect]:
    """Return the values of the first frame that may stand for no count, and the option for each.

    Parameters
    ----------
    source : Source
    limit : int
        Bytes that may be allocated; a frame that needs more is not read.
    known : container of numbers
        Values that are left out already.

    Returns
    -------
    list of Suspect
        In the order in which to type them.
    """
    rows, cols = source.shape
    unit = source.frame_unit * rows * cols * source.dtype.itemsize
    if unit * (2 + source.buffers + source.stored) > limit:
        return []
    ((frame,),) = ([block[0] for block in piece] for piece in source.pieces(0, 1, 0, rows, 1))
    if source.dtype.kind == "f":
        count = int(np.isnan(frame).sum())
        return [{"value": "nan", "pixels": count, "option": "--skipna"}] if count else []
    counts = {
        value: int((frame == value).sum())
        for value in _candidates(source.dtype)
        if value not in known
    }
    return [
        {"value": value, "pixels": count, "option": f"--invalid {value}"}
        for value, count in counts.items()
        if count
    ]


def _candidates(dtype: np.dtype) -> list[int]:
    """Return the values of a dtype that detectors write where there is no count.

    >>> _candidates(np.dtype("u4")), _candidates(np.dtype("i2"))
    ([4294967295, 4294967294], [32767, -1, -2])
    """
    if dtype.kind not in "iu":
        return []
    top = int(np.iinfo(dtype).max)
    if dtype.kind == "i":
        return [top, -1, -2]
    # Detectors of DECTRIS write the last value but one too; of 8 bits it is a count like any other.
    return [top, top - 1] if dtype.itemsize > 1 else [top]


def suspects_text(found: list[Suspect]) -> str:
    """Return values as a line, with one option for all of them.

    >>> values = [(-1, 1200), (-2, 1)]
    >>> suspects_text([{"value": v, "pixels": n, "option": "--invalid"} for v, n in values])
    'in the first frame -1 in 1,200 pixels, -2 in 1 pixel: --invalid -1,-2'
    """
    if not found:
        return ""
    counts = ", ".join(
        f"{each['value']} in {each['pixels']:,} pixel{'' if each['pixels'] == 1 else 's'}"
        for each in found
    )
    option, *_ = found[0]["option"].split()
    values = "" if option == "--skipna" else " " + ",".join(str(each["value"]) for each in found)
    return f"in the first frame {counts}: {option}{values}"
