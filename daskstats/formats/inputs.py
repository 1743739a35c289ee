"""How single images, such as masks, are read from files."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..arguments import frames_text
from ..packages import require
from ..series.base import Choice, Source
from .addresses import is_url
from .files import open_file, selected
from .hdf5 import Hdf5Source, image_series
from .paths import Name, parse
from .placed import only_image
from .table import locate
from .zarr_array import ZarrPathSource, open_array


def read_image(name: str | os.PathLike, role: str = "image") -> np.ndarray:
    """Read the one image in a file.

    Parameters
    ----------
    name : path
        Of an ``.npy``, TIFF, PNG, EDF, CBF, HDF5 or ``.zarr`` file, or an address. As that of a
        series it may name the dataset, ``"masks.h5::/entry/mask"``, and one frame:
        ``"masks.h5?path=/entry/masks&slice=3"``.
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
    given = parse(os.fspath(name), role)
    series = _as_series(given)
    if series is not None:
        return only_image(series)
    path, dataset, found = locate(str(given), "read", role)
    require(found.package, path)
    assert found.read is not None
    return found.read(path, dataset)


def read_mask(name: str | os.PathLike) -> np.ndarray:
    """Read a mask (rows, cols) of bool or integers: pixels other than zero are left out."""
    mask = read_image(name, "mask")
    if mask.dtype.kind not in "biu":
        raise TypeError(f"the mask {os.fspath(name)} must be of bool or integers, got {mask.dtype}")
    return mask != 0


class ImageSource(NamedTuple):
    """The place that an image comes from."""

    files: tuple[Path, ...]
    """all of them, targets of links included"""
    origin: str
    """the file with its directory, or the address, and the dataset that is the image"""


def image_source(name: str | os.PathLike) -> ImageSource:
    """Return the files that an image comes from, and its origin for notes."""
    given = parse(os.fspath(name))
    series = _as_series(given)
    if series is not None:
        ((place, frames),) = series.origins()
        chosen = "" if given.frames is None else f", frames {frames_text(frames)}"
        return ImageSource(series.files(), f"{place}{chosen}")
    path, dataset, found = locate(str(given), "read")
    choice = Choice()
    files: tuple[Path, ...] = (path,)
    if found.series is Hdf5Source:
        image = image_series(path, dataset)
        files, choice = image.files(), image.choice
    elif found.series is ZarrPathSource:
        choice = open_array(path, dataset, single=True)[1]
    elif found.series is not None and found.series.has_datasets:
        choice = found.series(path, dataset=dataset).choice
    return ImageSource(files, choice.within(str(path.absolute())))


def _as_series(name: Name) -> Source | None:
    """Return the series of an address, or of the frames that a name selects; None for a file."""
    if name.frames is None and not is_url(name.file):
        return None
    return selected(name, open_file)
