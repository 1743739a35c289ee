"""Flat binary files: a header to skip, and the frames after it, of a shape that is given."""

import os

import numpy as np
from numpy.typing import DTypeLike

from ..series.base import check_native, check_shape
from .placed import PlacedSource


class RawSource(PlacedSource):
    """Frames of a given shape and dtype in a file without a description.

    Parameters
    ----------
    path : path
        Of the file.
    shape : tuple of int
        Rows and columns of a frame.
    dtype : dtype
        Of the pixels; ``">u2"`` where the most significant byte comes first.
    skip : int
        Bytes before the first frame.
    gap : int
        Bytes between two frames; there may be as many after the last.

    Raises
    ------
    ValueError
        If the file does not hold a whole number of frames.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        shape: tuple[int, int],
        dtype: DTypeLike,
        skip: int = 0,
        gap: int = 0,
    ) -> None:
        shape, stored = check_shape(shape), np.dtype(dtype)
        check_native(stored)
        for name, value in (("skip", skip), ("gap", gap)):
            if value < 0:
                raise ValueError(f"the bytes to skip are at least 0, got {name}={value}")
        super().__init__(path, shape=shape, dtype=stored.str, skip=skip, gap=gap)
        nbytes = shape[0] * shape[1] * stored.itemsize
        size = self._state[0]
        count, left = divmod(size - skip, nbytes + gap)
        # The last frame may lack the gap after it.
        count, left = (count + 1, 0) if gap and left == nbytes else (count, left)
        if size <= skip or left or not count:
            gaps = f" and {gap} bytes between them" if gap else ""
            raise ValueError(
                f"{self.path} has {size} bytes: after {skip} bytes they are no whole number of "
                f"frames of {shape[0]} x {shape[1]} {stored} ({nbytes} bytes{gaps}): "
                f"{max(size - skip, 0)} = {max(count, 0)} x {nbytes + gap} + {max(left, 0)}"
            )
        self.set_places(shape, stored, range(skip, skip + count * (nbytes + gap), nbytes + gap))
