"""zarr arrays: given as such, or as the path of an array or of a group that holds one."""

import os
import sys
from typing import Any

import numpy as np

from .base import FileSource, Source, check_count, check_native, check_shape


class ZarrSource(Source):
    """A zarr array (frames, rows, cols)."""

    def __init__(self, array: Any) -> None:
        if array.ndim != 3:
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), "
                f"got a zarr array of shape {array.shape}"
            )
        self.nframes = check_count(array.shape[0])
        self.shape = check_shape(array.shape[1:])
        self.dtype = check_native(array.dtype)
        self.frame_unit = min(array.chunks[0], self.nframes)
        self.row_unit = array.chunks[1] if array.chunks[1] < self.shape[0] else None
        self._array = array

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        # An object of zarr's exists only where zarr has been imported.
        zarr = sys.modules.get("zarr")
        return zarr is not None and isinstance(ims, zarr.Array)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]


class ZarrPathSource(FileSource, ZarrSource):
    """The zarr array at a path."""

    suffixes = (".zarr",)

    def __init__(self, path: str | os.PathLike) -> None:
        import zarr

        FileSource.__init__(self, path)
        node = zarr.open(self.path, mode="r")
        if isinstance(node, zarr.Group):
            arrays = [array for _, array in node.arrays() if array.ndim == 3]
            if len(arrays) != 1:
                raise ValueError(
                    f"{path} is a group with {len(arrays)} three-dimensional arrays, expected one: "
                    f"give the path of the array"
                )
            node = arrays[0]
        ZarrSource.__init__(self, node)
