"""HEXRD-like image series: ``len(ims)``, ``ims[i]`` for a Python int, ``.shape``, ``.dtype``."""

from typing import Any

import numpy as np

from ..memory.pool import frame_pool
from ..planning.values import FEW
from .base import Source, check_count, check_dtype, check_frame, check_native, check_shape
from .foreign import check_plain
from .orders import pooled_copy
from .refilling import LOOKS, gate_of, is_own, stored_frames


class SequenceSource(Source):
    """Any object with the four names of the protocol, if no other class accepts it."""

    one_by_one = True

    def __init__(self, ims: Any) -> None:
        try:
            # Each of these may compute a whole frame of a processed series: they are read once.
            self.nframes = check_count(len(ims))
            self.shape = check_shape(_frame_shape(ims.shape, self.nframes))
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
        # For frames in another memory order the fold copies one array of its state, of at most 8
        # bytes a pixel; one frame of that is in the plan anyway.
        self.buffers = max(0.0, 8 / self.dtype.itemsize - 1) / FEW
        self._ims = ims
        self._open(id(ims))

    def _open(self, number: int) -> None:
        frame_nbytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        self._gate = gate_of(number)
        self._stored = stored_frames(self._ims, self.nframes, frame_nbytes)

    def __getstate__(self) -> dict[str, Any]:
        # In another process the frames have other addresses.
        return {**vars(self), "_gate": self._gate.number, "_stored": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open(state["_gate"])

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._rows(index, first, last)[None] for index in range(start, stop)]

    def _rows(self, index: int, first: int, last: int) -> np.ndarray:
        """Return some rows of a frame, in memory that is never written to again."""
        rows = None
        while rows is None:
            if self._gate.begin():
                rows = self._rows_in_parallel(index, first, last)
            else:
                with self._gate.alone() as alone:
                    rows = self._rows_alone(index, first, last) if alone else None
        return rows

    def _rows_in_parallel(self, index: int, first: int, last: int) -> np.ndarray | None:
        """Return the rows, None if another thread may have written to them."""
        doubts = self._gate.doubts
        try:
            frame = self._frame(index)
        finally:
            self._gate.end()
        # `is_own` counts on this being the only variable that holds the frame.
        own = is_own(frame)
        _, lasting = (True, True) if own else self._stored.look(index, frame)
        if not lasting:
            own = is_own(frame, LOOKS)
        if not (lasting or own):
            self._gate.doubt()
            return None
        # Another thread may have had the same buffer, and have released it.
        if doubts != self._gate.doubts:
            return None
        return self._cut(frame, first, last, own and frame.nbytes >= frame_pool.smallest)

    def _rows_alone(self, index: int, first: int, last: int) -> np.ndarray:
        frame = self._frame(index)
        own = is_own(frame)
        payload, lasting = (True, True) if own else self._stored.look(index, frame)
        if lasting is False and not self._gate.refilled:
            payload = lasting = own = is_own(frame, LOOKS)
        self._gate.note(lasting)
        copied = frame.nbytes >= frame_pool.smallest if own else not payload
        return self._cut(frame, first, last, copied)

    def _cut(self, frame: np.ndarray, first: int, last: int, copied: bool) -> np.ndarray:
        """Return some rows of a frame.

        A large frame that is held by nothing else is copied as well. Several that are released
        together go back to the system, and new ones cost a page fault for every 4 KB: that takes
        five times as long as the copy.
        """
        if last - first < self.shape[0]:
            # A view of some rows would keep a whole frame alive.
            return np.array(frame[first:last], order="C")
        return pooled_copy(frame, self.dtype) if copied else np.asarray(frame)

    def _frame(self, index: int) -> np.ndarray:
        # Many adapters raise IndexError for numpy integers and accept no slices.
        frame = self._ims[int(index)]
        check_plain(frame, index, self.dtype)
        check_frame(frame.shape, self.shape, index)
        check_dtype(frame.dtype, self.dtype, index)
        return frame


def _frame_shape(shape: Any, nframes: int) -> Any:
    """Return the shape of a frame, given that, or that of an array of all frames.

    >>> _frame_shape((8, 6), 25), _frame_shape((25, 8, 6), 25)
    ((8, 6), (8, 6))
    """
    try:
        first, rows, cols = shape
    except (TypeError, ValueError):
        return shape
    return (rows, cols) if first == nframes else shape
