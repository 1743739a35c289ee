"""Readers of other packages that keep a file open, and give one frame at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from dask.utils import SerializableLock

from ..packages import load
from .base import Source, check_count, rows_of
from .foreign import called, check_plain, is_a

# Classes with a length and frames by their index, as (module, name).
SEQUENCES = (
    ("pims.base_frames", "FramesSequence"),
    ("slicerator", "Slicerator"),
    ("slicerator", "Pipeline"),
    ("skimage.io.collection", "ImageCollection"),
)
# The class of fabio, also the base of its series of files.
FABIO = ("fabio.fabioimage", "FabioImage")


class ReaderSource(Source):
    """A sequence of PIMS or scikit-image, or an image or series of fabio.

    Shape and dtype are those of the first frame. These readers move about in one file, or keep the
    last frame: one thread at a time may read.
    """

    opens = (*SEQUENCES, FABIO)
    one_by_one = True
    buffers = 1

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        # Two series of one object have one lock, here and where they are sent together.
        self._lock = SerializableLock(f"daskstats-reader-{id(reader)}")
        count: Callable[[], int] = (lambda: reader.nframes) if _is_fabio(reader) else reader.__len__
        nframes = check_count(count())
        first = self._frame(0)
        self.set_layout((nframes, *first.shape), first.dtype, f"{type(reader).__name__} of frames")

    def _frame(self, index: int) -> np.ndarray:
        with self._lock:
            if _is_fabio(self._reader):
                frame = self._reader.get_frame(index).data
            else:
                frame = self._reader[index]
            check_plain(frame, index, np.dtype(getattr(frame, "dtype", None)))
            # The reader may fill the same memory again.
            return np.array(frame, order="C")

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [rows_of(self._frame(index), first, last) for index in range(start, stop)]

    def __getstate__(self) -> dict[str, Any]:
        try:
            sent = load("cloudpickle").dumps(self._reader)
        except TypeError as error:
            raise TypeError(
                f"the {called(type(self._reader))} has a file open and cannot be sent to another "
                f"process: give the path of its file ({error})"
            ) from error
        return {**vars(self), "_reader": sent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _reader=load("cloudpickle").loads(state["_reader"]))


def _is_fabio(ims: object) -> bool:
    return is_a(ims, *FABIO)
