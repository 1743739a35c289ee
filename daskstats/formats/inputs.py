"""How single images, such as masks, are read from files."""

import os
from pathlib import Path

import numpy as np

from ..arguments import frames_text
from ..packages import require
from ..series.base import Choice, Source
from ..series.selection import select
from .addresses import is_url
from .files import open_file
from .hdf5 import Hdf5Source, image_series
from .paths import Name, parse
from .placed import only_image
from .table import Format, locate
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


def image_files(name: str | os.PathLike) -> tuple[Path, ...]:
    """Return every file that an image comes from, targets of links included."""
    given = parse(os.fspath(name))
    series = _as_series(given)
    if series is not None:
        return series.files()
    path, dataset, found = locate(str(given), "read")
    return image_series(path, dataset).files() if found.series is Hdf5Source else (path,)


def image_origin(name: str | os.PathLike) -> str:
    """Return the file of an image with its directory, and the dataset that is the image."""
    given = parse(os.fspath(name))
    series = _as_series(given)
    if series is not None:
        ((place, frames),) = series.origins()
        return place if given.frames is None else f"{place}, frames {frames_text(frames)}"
    path, dataset, found = locate(str(given), "read")
    return _choice_of(found, path, dataset).within(str(path.absolute()))


def _as_series(name: Name) -> Source | None:
    """Return the series of an address, or of the frames that a name selects; None for a file."""
    if name.frames is None and not is_url(name.file):
        return None
    return select(open_file(name), name.frames)


def _choice_of(found: Format, path: Path, dataset: str) -> Choice:
    """Return the dataset of an image in a file that may hold several."""
    if found.series is None or not found.series.has_datasets:
        return Choice()
    if found.series is Hdf5Source:
        return image_series(path, dataset).choice
    if found.series is ZarrPathSource:
        return open_array(path, dataset, single=True)[1]
    return found.series(path, dataset=dataset).choice
