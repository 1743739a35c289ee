"""The table of formats: for each suffix, how series and images are read and written.

A new format is one module, which reads and writes files, and one row here. A reader of series is a
subclass of `FileSource`; the other columns are functions.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..series.files import FileSource
from . import edf, framecache, hdf5, npy, png, tiff, zarr_array, zarr_files


class Format(NamedTuple):
    """The functions for the files of one suffix; None where the format has no such function."""

    series: type[FileSource] | None = None
    """the image series in a file, opened as ``series(path)``, or ``series(path, dataset=name)``"""
    read: Callable[[Path, str], np.ndarray] | None = None
    """reads one image, given a path and the name of a dataset, or "" """
    write: Callable[[np.ndarray, Path], None] | None = None
    """writes one image"""
    write_all: Callable[[Mapping[str, np.ndarray], Path], None] | None = None
    """writes several named images into one file"""
    package: str | None = None
    """optional package that the functions for images need"""

    @property
    def has_datasets(self) -> bool:
        """Whether a file may hold several series or images, each under a name."""
        return self.series is not None and self.series.has_datasets


HDF5 = Format(hdf5.Hdf5Source, hdf5.read_image, package="h5py")
TIFF = Format(None, tiff.read_image, tiff.write_image, package="tifffile")
FABIO = Format(None, edf.read_image, package="fabio")

FORMATS = {
    ".npy": Format(npy.NpySource, npy.read_image, npy.write_image),
    ".npz": Format(framecache.FrameCacheSource, write_all=npy.write_archive),
    ".zarr": Format(
        zarr_array.ZarrPathSource,
        zarr_array.read_image,
        zarr_files.write_image,
        zarr_files.write_group,
    ),
    ".h5": HDF5._replace(write=hdf5.write_image, write_all=hdf5.write_datasets),
    ".hdf5": HDF5._replace(write=hdf5.write_image, write_all=hdf5.write_datasets),
    ".hdf": HDF5,
    ".nxs": HDF5,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".png": Format(None, png.read_image, png.write_image, package="PIL"),
    ".edf": FABIO,
    ".cbf": FABIO,
    ".msk": FABIO,
}


def suffixes(column: str) -> list[str]:
    """Return the suffixes of the formats that have a function.

    >>> suffixes("write_all")
    ['.h5', '.hdf5', '.npz', '.zarr']
    """
    return sorted(suffix for suffix, row in FORMATS.items() if getattr(row, column) is not None)
