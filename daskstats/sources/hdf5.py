"""HDF5 datasets: given as such, or as ``file.h5`` or ``file.h5::/path/to/dataset``."""

import importlib.util
import os
import sys
from typing import Any

import numpy as np

from .base import FileSource, Source, check_count, check_native, check_shape


class Hdf5Source(FileSource):
    """A dataset (frames, rows, cols), or (rows, cols) for a single frame."""

    suffixes = (".h5", ".hdf5", ".hdf", ".nxs")
    has_datasets = True
    handles = ("_dataset",)

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        h5py = import_h5py(path)
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            if isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise ValueError(f"{path} is not an HDF5 file, or is cut off: {error}") from error
        dataset = dataset or find_dataset(file, path)
        node = file.get(dataset)
        if not isinstance(node, h5py.Dataset):
            raise ValueError(f"{path} has no dataset {dataset!r}")
        FileSource.__init__(self, path, dataset=dataset)
        self._open(node)

    def open(self) -> None:
        self._dataset = Hdf5Source(self.path, **self.parameters)._dataset

    def _open(self, dataset: Any) -> None:
        if dataset.ndim not in (2, 3):
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), "
                f"got dataset {dataset.name!r} of shape {dataset.shape}"
            )
        shape = dataset.shape if dataset.ndim == 3 else (1, *dataset.shape)
        self.nframes = check_count(shape[0])
        self.shape = check_shape(shape[1:])
        self.dtype = check_native(dataset.dtype)
        chunks = (dataset.chunks or (1,) * dataset.ndim)[-3:]
        self.frame_unit = min(chunks[0], self.nframes) if dataset.ndim == 3 else 1
        self.row_unit = chunks[-2] if chunks[-2] < self.shape[0] else None
        self.buffers = 0 if dataset.dtype.isnative else 1
        self._dataset = dataset

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        if self._dataset.ndim == 2:
            return [self._dataset[first:last][None]]
        return [self._dataset[start:stop, first:last]]


class Hdf5DatasetSource(Hdf5Source):
    """An open h5py dataset; where it is sent, its file is opened again by path."""

    def __init__(self, dataset: Any) -> None:
        FileSource.__init__(self, dataset.file.filename, dataset=dataset.name)
        self._open(dataset)

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        h5py = sys.modules.get("h5py")
        return h5py is not None and isinstance(ims, h5py.Dataset)

    def __dask_tokenize__(self) -> Any:
        # A file in memory has a name but no fingerprint.
        return (FileSource if self.path.is_file() else Source).__dask_tokenize__(self)

    def __reduce__(self):
        if not self.path.is_file():
            raise TypeError(
                f"dataset {self._dataset.name!r} is not in a file that can be opened again: "
                f"save it to a file and give its path"
            )
        return _restore, (self.__getstate__(),)


def _restore(state: dict[str, Any]) -> Hdf5Source:
    source = Hdf5Source.__new__(Hdf5Source)
    vars(source).update(state)
    return source


def import_h5py(path: str | os.PathLike) -> Any:
    """Import h5py, and the compression filters of hdf5plugin if they are installed."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(f"{path} needs h5py: pip install 'daskstats[io]'") from error
    if importlib.util.find_spec("hdf5plugin"):
        importlib.import_module("hdf5plugin")
    return h5py


def find_dataset(file: Any, path: str | os.PathLike) -> str:
    """Return the name of the only numeric dataset of three or, failing that, two dimensions."""
    found: dict[int, list[str]] = {3: [], 2: []}

    def visit(name: str, node: Any) -> None:
        if hasattr(node, "ndim") and node.ndim in found and node.dtype.kind in "biuf":
            found[node.ndim].append(f"/{name}")

    file.visititems(visit)
    names = found[3] or found[2]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ValueError(f"{path} has no numeric dataset of two or three dimensions")
    raise ValueError(f"{path} has {len(names)} datasets, name one as {path}::{names[0]}: {names}")
