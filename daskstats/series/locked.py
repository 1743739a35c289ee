"""A series that one thread at a time may read."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from .base import Source


class LockedSource(Source):
    """A source that one thread at a time may read."""

    def __init__(self, source: Source, lock: AbstractContextManager) -> None:
        self.shape, self.dtype, self.nframes = source.shape, source.dtype, source.nframes
        self.frame_unit, self.row_unit = source.frame_unit, source.row_unit
        self.in_memory, self.one_by_one = source.in_memory, source.one_by_one
        self.apart = source.apart
        self.buffers, self.again, self.stored = source.buffers, source.again, source.stored
        self._source, self._lock = source, lock

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        with self._lock:
            return self._source.read(start, stop, first, last)

    def files(self) -> tuple[Path, ...]:
        return self._source.files()

    def frames_without_data(self) -> np.ndarray:
        return self._source.frames_without_data()

    def __dask_tokenize__(self) -> Any:
        return "locked", self._source.__dask_tokenize__()
