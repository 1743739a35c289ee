"""``.npy`` files, memory mapped, or read where they are sent."""

import os
from typing import Any

import numpy as np

from .arrays import ArraySource
from .base import FileSource, Source


class NpySource(FileSource, ArraySource):
    """A 3-D array in a ``.npy`` file; pages come in as they are read."""

    suffixes = (".npy",)

    def __init__(self, path: str | os.PathLike) -> None:
        FileSource.__init__(self, path)
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise ValueError(
                f"{path} is not a .npy file of numbers, or is cut off: {error}"
            ) from error
        self._offset = array.offset
        ArraySource.__init__(self, array)

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return None

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource.part(self, start, stop, first, last)

    def __reduce__(self):
        return ReadNpySource, (str(self.path),)


class ReadNpySource(NpySource):
    """A ``.npy`` file in another process, whose reads take memory of their own.

    Mapped pages count as memory of the process: the worker of a cluster that has read much of a
    file would be stopped for using too much, though the system could take all of it back.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._fortran = not self._array.flags.c_contiguous
        self.in_memory = False

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        if self._fortran:
            return [self._array[start:stop, first:last].copy()]
        block = np.empty((stop - start, last - first, self.shape[1]), self._array.dtype)
        with self.path.open("rb") as file:
            if block.shape[1] == self.shape[0]:
                self._fill(file, block, start, 0)
            else:
                for frame in range(start, stop):
                    self._fill(file, block[frame - start], frame, first)
        return [block]

    def _fill(self, file: Any, block: np.ndarray, frame: int, row: int) -> None:
        rows, cols = self.shape
        file.seek(self._offset + (frame * rows + row) * cols * block.itemsize)
        if file.readinto(block) != block.nbytes:
            raise ValueError(f"{self.path} is cut off in frame {frame}")

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return None

    def __dask_tokenize__(self) -> Any:
        # It reads as the one that was sent does, whatever the way.
        return NpySource.__name__, *super().__dask_tokenize__()[1:]
