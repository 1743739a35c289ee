"""Arrays in memory: 3-D numpy arrays, memory maps, lists of 2-D arrays. Always views."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from dask.array import Array

from .base import Source, as_frames, check_count, check_dtype, check_frame, check_shape
from .foreign import is_a, is_plain, refusal
from .leading import flat_shape


class ArraySource(Source):
    """A numpy array (..., rows, cols), a memory map included; all leading axes count as frames."""

    row_unit = 1

    def __init__(self, array: np.ndarray, named: bool = False) -> None:
        if not is_plain(type(array)):
            raise TypeError(refusal(type(array), "the image series", "a plain numpy array"))
        array = np.asarray(array)  # subclasses may compute otherwise
        if _is_scattered(array):  # in a file: of one in memory, `FrameListSource` keeps views
            raise ValueError(
                f"the array of shape {array.shape} is not in C order, and would have to be copied "
                f"for its leading axes to count as frames"
            )
        lead = array.shape[:-2]
        array = array.reshape(flat_shape(array.shape, named=named)) if array.ndim > 3 else array
        self.set_layout(array.shape, array.dtype)
        self.lead = lead
        self.in_memory = _needs_no_copy(array[:1], self.dtype)
        self._array = array

    @classmethod
    def accepts(cls, ims: object) -> bool:
        return isinstance(ims, np.ndarray) and not _is_scattered(ims)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource(self._array[start:stop, first:last])


class FrameListSource(Source):
    """A list or tuple of 2-D numpy arrays; or an array with leading axes that cannot be merged."""

    row_unit = 1
    apart = True

    def __init__(self, frames: Sequence[np.ndarray] | np.ndarray, named: bool = False) -> None:
        if isinstance(frames, np.ndarray):
            flat_shape(frames.shape, named=named)
            frames = [frames[index] for index in np.ndindex(frames.shape[:-2])]
        check_count(len(frames))
        for index, frame in enumerate(frames):
            if not is_plain(type(frame)):
                # The first tells a list of other things, the others a list with a wrong frame.
                raise (ValueError if index else TypeError)(_wrong_item(frame, index))
            if index == 0:
                self.set_layout((len(frames), *check_shape(frame.shape)), frame.dtype)
            check_frame(frame.shape, self.shape, index)
            check_dtype(frame.dtype, self.dtype, index)
        self._frames = [np.asarray(frame) for frame in frames]
        self.in_memory = all(_needs_no_copy(frame[None], self.dtype) for frame in self._frames)

    @classmethod
    def accepts(cls, ims: object) -> bool:
        if not isinstance(ims, list | tuple):
            return _is_scattered(ims)
        return not (ims and is_a(ims[0], "h5py", "Dataset"))

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [frame[None, first:last] for frame in self._frames[start:stop]]

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return FrameListSource([frame[first:last] for frame in self._frames[start:stop]])


def _is_scattered(ims: object) -> bool:
    """Whether an object is an array with leading axes that become one only in a copy.

    >>> scan = np.zeros((5, 4, 8, 6))
    >>> _is_scattered(scan), _is_scattered(scan[:, :3]), _is_scattered(scan[:, :1])
    (False, True, False)
    """
    if not isinstance(ims, np.ndarray) or ims.ndim < 4:
        return False
    pairs = zip(ims.shape[:-2], ims.strides[:-2], strict=True)
    axes = [(length, stride) for length, stride in pairs if length != 1]
    return any(outer != length * inner for (_, outer), (length, inner) in pairwise(axes))


def _needs_no_copy(block: np.ndarray, dtype: np.dtype) -> bool:
    """Whether frames are used as they are in memory."""
    return np.may_share_memory(as_frames(block, dtype), block)


def _wrong_item(frame: object, index: int) -> str:
    """Return the error of a list that holds another type, and the way to make a series of it."""
    name = f"a list of frames must hold 2-D numpy arrays: frame {index}"
    text = refusal(type(frame), name, "a plain one", items=True)
    return f"{text}: take dask.array.stack(images)" if issubclass(type(frame), Array) else text
