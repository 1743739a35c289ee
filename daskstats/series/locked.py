"""A series that one thread at a time may read."""

from contextlib import AbstractContextManager

import numpy as np

from .base import DerivedSource, Source


class LockedSource(DerivedSource):
    """A series that one thread at a time may read."""

    def __init__(self, source: Source, lock: AbstractContextManager) -> None:
        super().__init__(source)
        self.one_by_one, self._lock = source.one_by_one, lock

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        with self._lock:
            return self.source.read(start, stop, first, last)

    def __dask_tokenize__(self) -> object:
        return "locked", self.source.__dask_tokenize__()
