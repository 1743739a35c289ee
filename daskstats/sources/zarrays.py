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
        # What zarr holds of the chunks it decodes at the same time: compressed, and decoded.
        self.buffers = 1.5
        self._array = array

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        # An object of zarr's exists only where zarr has been imported.
        zarr = sys.modules.get("zarr")
        return zarr is not None and isinstance(ims, zarr.Array)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]


class ZarrPathSource(FileSource, ZarrSource):
    """The zarr array at a path, or the array of that name in the group at a path."""

    suffixes = (".zarr",)
    has_datasets = True

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        import zarr

        FileSource.__init__(self, path, dataset=dataset)
        try:
            node = zarr.open(self.path, mode="r")
        except FileNotFoundError as error:
            raise ValueError(f"{path} is no zarr array or group: {error}") from error
        if dataset:
            node = node.get(dataset.strip("/")) if isinstance(node, zarr.Group) else None
            if not isinstance(node, zarr.Array):
                raise ValueError(f"{path} has no array {dataset!r}")
        ZarrSource.__init__(self, node if isinstance(node, zarr.Array) else only_array(node, path))


def only_array(group: Any, path: str | os.PathLike) -> Any:
    """Return the only three-dimensional array of a group."""
    arrays = {f"/{name}": array for name, array in group.arrays() if array.ndim == 3}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise ValueError(f"{path} has no three-dimensional array")
    names = sorted(arrays)
    raise ValueError(f"{path} has {len(names)} arrays, name one as {path}::{names[0]}: {names}")
