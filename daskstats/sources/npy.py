"""``.npy`` files, memory mapped."""

import os

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
        ArraySource.__init__(self, array)

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return None

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource.part(self, start, stop, first, last)
