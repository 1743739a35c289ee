"""Arrays in memory: 3-D numpy arrays, memory maps, lists of 2-D arrays. Always views."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import (
    Source,
    as_frames,
    check_count,
    check_dtype,
    check_frame,
    check_native,
    check_shape,
)


class ArraySource(Source):
    """A numpy array (frames, rows, cols), a memory map included."""

    row_unit = 1

    def __init__(self, array: np.ndarray) -> None:
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError("masked arrays are not image series: pass their .data or .filled(...)")
        if array.ndim != 3:
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), "
                f"got an array of shape {array.shape}"
            )
        self.nframes = check_count(array.shape[0])
        self.shape = check_shape(array.shape[1:])
        self.dtype = check_native(array.dtype)
        self.in_memory = as_frames(array[:1], self.dtype).base is not None
        self._array = np.asarray(array)  # subclasses may compute otherwise

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        return isinstance(ims, np.ndarray)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource(self._array[start:stop, first:last])


class FrameListSource(Source):
    """A list or tuple of 2-D numpy arrays."""

    row_unit = 1

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self.nframes = check_count(len(frames))
        for index, frame in enumerate(frames):
            if not isinstance(frame, np.ndarray) or isinstance(frame, np.ma.MaskedArray):
                # A list of something else, or a list of frames with one that is wrong.
                raise (ValueError if index else TypeError)(
                    f"a list of frames must hold 2-D numpy arrays, "
                    f"frame {index} is a {type(frame).__name__}"
                )
            if index == 0:
                self.shape = check_shape(frame.shape)
                self.dtype = check_native(frame.dtype)
            check_frame(frame.shape, self.shape, index)
            check_dtype(frame.dtype, self.dtype, index)
        self._frames = [np.asarray(frame) for frame in frames]
        self.in_memory = all(
            as_frames(frame[None], self.dtype).base is not None for frame in self._frames
        )

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        return isinstance(ims, list | tuple)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [frame[None, first:last] for frame in self._frames[start:stop]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return FrameListSource([frame[first:last] for frame in self._frames[start:stop]])
