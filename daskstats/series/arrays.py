"""Arrays in memory: 3-D numpy arrays, memory maps, lists of 2-D arrays. Always views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from dask.array import Array

from .base import (
    Source,
    as_frames,
    check_count,
    check_dtype,
    check_frame,
    check_native,
    check_shape,
)
from .foreign import is_plain, refusal


class ArraySource(Source):
    """A numpy array (frames, rows, cols), a memory map included."""

    row_unit = 1

    def __init__(self, array: np.ndarray) -> None:
        if not is_plain(type(array)):
            raise TypeError(refusal(type(array), "the image series", "a plain numpy array"))
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
        return issubclass(type(ims), np.ndarray)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource(self._array[start:stop, first:last])


class FrameListSource(Source):
    """A list or tuple of 2-D numpy arrays."""

    row_unit = 1
    apart = True

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self.nframes = check_count(len(frames))
        for index, frame in enumerate(frames):
            if not is_plain(type(frame)):
                # A list of something else, or a list of frames with one that is wrong.
                raise (ValueError if index else TypeError)(_wrong_item(frame, index))
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
        return issubclass(type(ims), list | tuple)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [frame[None, first:last] for frame in self._frames[start:stop]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return FrameListSource([frame[first:last] for frame in self._frames[start:stop]])


def _wrong_item(frame: Any, index: int) -> str:
    """Say that a list holds something else, and how to make a series of it."""
    name = f"a list of frames must hold 2-D numpy arrays: frame {index}"
    text = refusal(type(frame), name, "a plain one", items=True)
    return f"{text}: take dask.array.stack(images)" if issubclass(type(frame), Array) else text
