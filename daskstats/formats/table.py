"""The table of formats: for each suffix, how series and images are read and written.

A new format is one module, which reads and writes files, and one row here. A reader of series is a
subclass of `FileSource`; the other columns are functions.
"""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..series.files import FileSource
from . import edf, framecache, hdf5, npy, png, tiff, zarr_array, zarr_files
from .zarr_search import find_store


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


HDF5 = Format(hdf5.Hdf5Source, hdf5.read_image, package="h5py")
TIFF = Format(tiff.TiffSource, tiff.read_image, tiff.write_image, package="tifffile")
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


def locate(name: str, column: str, role: str = "file") -> tuple[Path, str, Format]:
    """Return the path and the dataset that a name consists of, and the format; check all three.

    Parameters
    ----------
    name : str
        ``"scan.npy"``, ``"scan.h5"``, or ``"scan.h5::/entry/data"``.
    column : str
        The function that the format must have.
    role : str
        Of the file, for errors.

    Raises
    ------
    ValueError, FileNotFoundError
        If the suffix is unknown, the file is missing, or it is neither a file nor a directory, or
        holds no datasets.

    Examples
    --------
    >>> locate("scan.txt", "write_all")
    Traceback (most recent call last):
        ...
    ValueError: scan.txt has no known suffix: expected one of .h5, .hdf5, .npz, .zarr
    """
    text, separator, dataset = name.partition("::")
    path, known = Path(text), suffixes(column)
    store = find_store(path)
    if store is not None and column in ("series", "read"):
        inside = f"{store[1]}/{dataset.strip('/')}".rstrip("/") if store[1] else dataset
        return store[0], inside, FORMATS[".zarr"]
    if path.suffix.lower() not in known:
        raise ValueError(f"{text} has no known suffix: expected one of {', '.join(known)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no {role} {text}")
    _check_kind(path, text)
    found = FORMATS[path.suffix.lower()]
    if separator and not (found.series and found.series.has_datasets):
        raise ValueError(f"{text} holds one array: leave out {separator}{dataset}")
    return path, dataset, found


def _check_kind(path: Path, name: str) -> None:
    """Refuse a path that is neither a file nor a directory: opening a pipe waits forever."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kinds |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "a device")
    found = kinds.get(stat.S_IFMT(mode), "something else")
    raise ValueError(f"{name} is {found}, not a file: frames have to be read in any order")
