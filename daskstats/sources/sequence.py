"""HEXRD-like image series: ``len(ims)``, ``ims[i]`` for a Python int, ``.shape``, ``.dtype``."""

from typing import Any

import numpy as np

from .base import Source, check_count, check_dtype, check_frame, check_native, check_shape
from .foreign import check_plain


class SequenceSource(Source):
    """Any object with the four names of the protocol; it accepts what no other source does."""

    one_by_one = True

    def __init__(self, ims: Any) -> None:
        try:
            # Each of these costs a whole frame on a processed series: they are read once.
            self.nframes = check_count(len(ims))
            self.shape = check_shape(ims.shape)
            self.dtype = check_native(ims.dtype)
        except OverflowError as error:
            raise ValueError(
                f"{type(ims).__name__} has more frames than Python can count: {error}"
            ) from error
        except (TypeError, AttributeError) as error:
            raise TypeError(
                f"{type(ims).__name__} is not an image series: it needs len(ims), ims[i], "
                f"ims.shape and ims.dtype ({error})"
            ) from error
        self._ims = ims

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        frames = [self._frame(index)[None, first:last] for index in range(start, stop)]
        # A view of some rows would keep a whole frame alive.
        return frames if last - first == self.shape[0] else [frame.copy() for frame in frames]

    def _frame(self, index: int) -> np.ndarray:
        # Many adapters raise IndexError for numpy integers and accept no slices.
        frame = self._ims[int(index)]
        check_plain(frame, index, self.dtype)
        check_frame(frame.shape, self.shape, index)
        check_dtype(frame.dtype, self.dtype, index)
        return np.asarray(frame)
