"""How single images, such as masks, are read from files."""

import os
from pathlib import Path

import numpy as np

from ..packages import require
from .hdf5 import Hdf5Source, image_series
from .table import locate


def read_image(name: str | os.PathLike, role: str = "image") -> np.ndarray:
    """Read the one image in a file.

    Parameters
    ----------
    name : path
        Of an ``.npy``, TIFF, PNG, EDF, CBF, HDF5 or ``.zarr`` file; of the last two it may name the
        dataset: ``"masks.h5::/entry/mask"``.
    role : str
        Of the image, for errors.

    Returns
    -------
    ndarray (rows, cols)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is unknown, or the file is damaged or holds several images.
    ImportError
        If the format needs a package that is not installed.

    Examples
    --------
    >>> read_image("bad.txt", "mask")
    Traceback (most recent call last):
        ...
    ValueError: bad.txt has no known suffix: expected one of .cbf, ...
    """
    path, dataset, found = locate(os.fspath(name), "read", role)
    require(found.package, path)
    assert found.read is not None
    return found.read(path, dataset)


def read_mask(name: str | os.PathLike) -> np.ndarray:
    """Read a mask (rows, cols) of bool or integers: pixels other than zero are left out."""
    mask = read_image(name, "mask")
    if mask.dtype.kind not in "biu":
        raise TypeError(f"the mask {os.fspath(name)} must be of bool or integers, got {mask.dtype}")
    return mask != 0


def image_files(name: str | os.PathLike) -> tuple[Path, ...]:
    """Return every file that an image comes from, targets of links included."""
    path, dataset, found = locate(os.fspath(name), "read")
    return image_series(path, dataset).files() if found.series is Hdf5Source else (path,)
