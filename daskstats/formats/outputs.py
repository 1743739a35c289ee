"""How images are written: in the format of the suffix."""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..arguments import warn
from . import writing
from .notes import NONE, Facts, Notes
from .places import (
    PathLike,
    check_existing,
    check_output,
    check_outputs,
    file_names,
    is_collection,
    split_dataset,
)
from .table import FORMATS


def save(image: ArrayLike, path: PathLike, force: bool = False, notes: Notes | None = None) -> None:
    """Write an image in the format that the suffix of the path names.

    It is written under a temporary name in the same directory and renamed when complete: where
    that fails the temporary is removed, and an existing file is untouched. A symbolic link stays,
    and its target is replaced. A zarr array or group is put together in memory, compressed.

    Parameters
    ----------
    image : array (rows, cols) or (planes, rows, cols)
        Of bool, integers or floats of at most 64 bits.
    path : path
        ``.npy``; ``.zarr``; ``.h5``, ``.hdf5`` or ``.nxs``, dataset "image" or, as in
        ``"out.h5::/entry/dark"``, one of another name; ``.tif`` or ``.tiff``, a page for each
        plane, bool as uint8 0 and 1; ``.png``, an 8-bit picture of a 2-D image, for looking. All
        but the picture keep every value.
    force : bool
        Whether an existing file is replaced; of directories only a zarr array or group that holds
        nothing else, and with the name of a dataset only a file that holds no other.
    notes : Notes, optional
        On how the image was made. ``.npy``, ``.npz`` and ``.png`` have no room for them.

    Raises
    ------
    ValueError, TypeError
        If the suffix is unknown, or the format cannot hold the image.
    FileExistsError
        If there is such a file and not `force`.
    FileNotFoundError
        If there is no such directory.
    ImportError
        If the format needs a package that is not installed.

    Examples
    --------
    >>> save(np.zeros((2, 3)), "dark.bmp")
    Traceback (most recent call last):
        ...
    ValueError: dark.bmp has no known suffix: expected one of .cbf, .edf, ...
    """
    image = _as_image(image)
    check_output(path, (), force, image.ndim)
    _warn_about_width({os.fspath(path): image})
    facts = NONE if notes is None else notes.of_all()
    file, dataset = split_dataset(path)
    with new_output(file, force, dataset=dataset) as temporary:
        _write_image(image, temporary, facts, dataset)


def save_all(
    images: Mapping[str, ArrayLike],
    path: PathLike,
    force: bool = False,
    form: str | None = None,
    notes: Notes | None = None,
) -> None:
    """Write several images, each under its name: all of them or none, as `save` does.

    Parameters
    ----------
    images : dict of arrays
        As of `save`.
    path : path
        ``.zarr``: a group with one array each; ``.npz``: one member each; ``.h5``, ``.hdf5`` or
        ``.nxs``: one dataset each. Without a suffix, or with a format: a directory with one file
        each.
    force : bool
        Whether an existing file or directory is replaced; of directories only those that hold
        nothing but files of these names.
    form : str, optional
        Suffix of the files in a directory, with or without its dot: by default ``.npy``.
    notes : Notes, optional
        As of `save`, with one of each name.

    Raises
    ------
    ValueError, TypeError, FileExistsError, FileNotFoundError, IsADirectoryError, ImportError
        As of `save`.

    Examples
    --------
    >>> save_all({"max": np.ones((2, 3))}, "images.tif")
    Traceback (most recent call last):
        ...
    ValueError: images.tif holds one image only: name a directory and a format, or ...
    """
    arrays = {name: _as_image(image) for name, image in images.items()}
    check_outputs(path, {name: image.ndim for name, image in arrays.items()}, (), force, form)
    if is_collection(path, form):
        with new_output(path, force) as temporary:
            write_all = FORMATS[temporary.suffix].write_all
            assert write_all is not None
            write_all(arrays, temporary, NONE if notes is None else notes.of_all())
        return
    files = file_names(arrays, form)
    _warn_about_width({files[name]: image for name, image in arrays.items()})
    with new_output(path, force, files.values()) as temporary:
        temporary.mkdir()
        for name, file in files.items():
            _write_image(arrays[name], temporary / file, notes.of(name) if notes else NONE)


def _as_image(image: ArrayLike) -> np.ndarray:
    """Return an image as an array, or refuse a dtype that no format can keep."""
    image = np.asarray(image)
    if image.dtype.kind not in "biuf" or image.dtype.itemsize > 8:
        raise TypeError(f"an image of {image.dtype} cannot be written, expected numbers")
    return image


def _warn_about_width(images: Mapping[str, np.ndarray]) -> None:
    """Warn once about TIFF files of 64 bits, which ImageJ takes for damaged ones."""
    wide = {
        file: image.dtype
        for file, image in images.items()
        if Path(file).suffix.lower() in (".tif", ".tiff") and image.dtype.itemsize > 4
    }
    if wide:
        more = f" and {len(wide) - 1} more" if len(wide) > 1 else ""
        dtypes = " and ".join(dict.fromkeys(map(str, wide.values())))
        counts = any(dtype.kind == "i" for dtype in wide.values())
        options = "--dtype int32 for counts and frame numbers, else --dtype float32"
        warn(
            f"{next(iter(wide))}{more} of {dtypes}: ImageJ opens TIFF files of at most 32 bits, "
            f"which another dtype makes ({options if counts else '--dtype float32'})"
        )


def _write_image(image: np.ndarray, path: Path, notes: Facts, dataset: str = "") -> None:
    found = FORMATS[path.suffix]
    if dataset:
        assert found.write_dataset is not None
        found.write_dataset(image, path, notes, dataset)
        return
    assert found.write is not None
    found.write(image, path, notes)


def new_output(
    path: PathLike, force: bool = False, members: Iterable[str] = (), dataset: str = ""
) -> AbstractContextManager[Path]:
    """Give a temporary path in the same directory, and rename it to the path on success.

    After an error the temporary is removed. It has the suffix of the path, in lower case; the
    caller creates it, as a file or a directory. ``members`` and ``dataset`` as of
    `places.check_place`.
    """
    # Another program may have written the file in the meantime.
    return writing.replacing(Path(path), lambda path: check_existing(path, force, members, dataset))
