"""How images are written: in the format of the suffix, and whether a path may be written to."""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..arguments import warn
from ..packages import require
from . import nexus, writing, zarr_files
from .notes import NONE, Facts, Notes
from .table import FORMATS, suffixes

PathLike = str | os.PathLike

# Formats of one plane, for errors.
FLAT = {".png": "a picture", ".cbf": "a CBF file"}


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
    if _is_collection(path, form):
        with new_output(path, force) as temporary:
            write_all = FORMATS[temporary.suffix].write_all
            assert write_all is not None
            write_all(arrays, temporary, NONE if notes is None else notes.of_all())
        return
    files = _file_names(arrays, form)
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
        file, dtype = next(iter(wide.items()))
        more = f" and {len(wide) - 1} more" if len(wide) > 1 else ""
        name = "float32" if dtype.kind == "f" else "int32 (for counts and frame numbers) or float32"
        warn(
            f"{file}{more} of {dtype}: ImageJ opens TIFF files of at most 32 bits, which the dtype "
            f"{name} makes (--dtype {name.partition(' ')[0]})"
        )


def _write_image(image: np.ndarray, path: Path, notes: Facts, dataset: str = "") -> None:
    found = FORMATS[path.suffix]
    if dataset:
        assert found.write_dataset is not None
        found.write_dataset(image, path, notes, dataset)
        return
    assert found.write is not None
    found.write(image, path, notes)


def split_dataset(path: PathLike) -> tuple[Path, str]:
    """Return the file of an output, and the name of the dataset in it, if there is one.

    >>> split_dataset("out.h5::/entry/dark")[1]
    '/entry/dark'
    """
    file, _, dataset = os.fspath(path).partition("::")
    return Path(file), dataset


def new_output(
    path: PathLike, force: bool = False, members: Iterable[str] = (), dataset: str = ""
) -> AbstractContextManager[Path]:
    """Give a temporary path in the same directory, and rename it to the path on success.

    After an error the temporary is removed. It has the suffix of the path, in lower case; the
    caller creates it, as a file or a directory. ``members`` and ``dataset`` as of `check_place`.
    """
    # Another program may have written the file in the meantime.
    return writing.replacing(
        Path(path), lambda path: _check_existing(path, force, members, dataset)
    )


# ---------------------------------------------------------------------- checks before computing


def check_output(
    path: PathLike, inputs: Iterable[PathLike] = (), force: bool = False, ndim: int = 2
) -> None:
    """Refuse an output of `save` that cannot or must not be written, before anything is computed.

    Parameters
    ----------
    path : path
        Of the output.
    inputs : iterable of paths
        That must not be overwritten, even with `force`.
    force : bool
        Whether an existing file may be replaced.
    ndim : int
        Dimensions of the image.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError, IsADirectoryError, ImportError
        The message names the fault and the way out.

    Examples
    --------
    >>> check_output("dark.png", ndim=3)
    Traceback (most recent call last):
        ...
    ValueError: a picture (dark.png) holds a 2-D image only: use .npy, .zarr, .h5 or .tif
    """
    file, dataset = split_dataset(path)
    if "::" in os.fspath(path):
        _check_dataset(file, dataset)
    suffix = check_place(file, suffixes("write"), inputs, force, dataset=dataset)
    _check_format(file, suffix, ndim)


def _check_dataset(file: Path, dataset: str) -> None:
    """Refuse the name of a dataset in a file that has none, or that no dataset can have."""
    suffix, known = file.suffix.lower(), suffixes("write_dataset")
    if suffix in suffixes("write") and suffix not in known:
        raise ValueError(
            f"{file} holds one image: leave out ::{dataset}, or use one of {', '.join(known)}"
        )
    nexus.split_name(dataset)


def check_outputs(
    path: PathLike,
    ndims: Mapping[str, int],
    inputs: Iterable[PathLike] = (),
    force: bool = False,
    form: str | None = None,
) -> None:
    """Refuse an output of `save_all` that cannot or must not be written, before computing.

    Parameters
    ----------
    path, force, form
        As of `save_all`.
    ndims : dict of int
        Dimensions of each image.
    inputs : iterable of paths
        That must not be overwritten, even with `force`.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError, IsADirectoryError, ImportError
        The message names the fault and the way out.

    Examples
    --------
    >>> check_outputs("images.npz", {"max": 2}, form="tif")
    Traceback (most recent call last):
        ...
    ValueError: images.npz holds all images: a format is for a directory of files
    """
    place, suffix, collections = Path(path), Path(path).suffix.lower(), suffixes("write_all")
    if "::" in os.fspath(path):
        raise ValueError(f"{place} names one dataset for several images: leave out all from :: on")
    if _is_collection(path, form):
        check_place(path, collections, inputs, force)
        require(FORMATS[suffix].package, path)
        return
    if suffix in collections:
        raise ValueError(f"{place} holds all images: a format is for a directory of files")
    if suffix in suffixes("write"):
        raise ValueError(
            f"{place} holds one image only: name a directory and a format, or one of "
            f"{', '.join(collections)}"
        )
    if suffix and form is None:
        raise ValueError(
            f"{place} has no known suffix: expected one of {', '.join(collections)}, or a "
            f"directory, which has none"
        )
    files = _file_names(ndims, form)
    check_place(path, {suffix}, inputs, force, files.values())
    for name, file in files.items():
        _check_format(file, Path(file).suffix, ndims[name])


def _is_collection(path: PathLike, form: str | None) -> bool:
    """Whether a path names one file for several images."""
    return form is None and Path(path).suffix.lower() in suffixes("write_all")


def _file_names(names: Iterable[str], form: str | None) -> dict[str, str]:
    """Return the file of each image in a directory.

    >>> _file_names(["max", "percentile_95"], "tif")
    {'max': 'max.tif', 'percentile_95': 'percentile_95.tif'}
    """
    suffix, known = f".{(form or 'npy').lower().lstrip('.')}", suffixes("write")
    if suffix not in known:
        raise ValueError(f"there is no format {form!r}: choose from {', '.join(known)}")
    return {name: f"{name}{suffix}" for name in names}


def _check_format(path: PathLike, suffix: str, ndim: int) -> None:
    """Refuse an image that its format cannot hold, or a format whose package is missing."""
    if ndim not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions, got {ndim}")
    if suffix in FLAT and ndim == 3:
        raise ValueError(
            f"{FLAT[suffix]} ({os.fspath(path)}) holds a 2-D image only: use .npy, .zarr, .h5 or "
            f".tif"
        )
    require(FORMATS[suffix].package, path)


def check_place(
    path: PathLike,
    known: Iterable[str],
    inputs: Iterable[PathLike] = (),
    force: bool = False,
    members: Iterable[str] = (),
    dataset: str = "",
) -> str:
    """Return the suffix of a path that may be written to, in lower case, or refuse it.

    A directory that holds nothing but files named in ``members`` may be replaced, and so may, where
    a ``dataset`` is named, a file that holds no other.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError, IsADirectoryError
        If the suffix is not among the known ones, the directory is missing, a file exists and
        not `force`, a directory is in the way, or the path is one of the inputs.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path} has no known suffix: expected one of {', '.join(sorted(known))}")
    # Of a symbolic link the target is replaced.
    place = Path(os.path.realpath(path)).parent
    if not place.is_dir():
        raise FileNotFoundError(f"there is no directory {place} to write {path.name} in")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"the directory {place} cannot be written to")
    for other in inputs:
        if _overlap(path, Path(other)):
            raise ValueError(f"the output {path} is the input: give another name")
    _check_existing(path, force, members, dataset)
    return suffix


def _overlap(a: Path, b: Path) -> bool:
    """Whether two paths are the same file, or one is a directory that contains the other."""
    if a.exists() and b.exists() and a.samefile(b):
        return True
    a, b = a.resolve(), b.resolve()
    return a == b or a in b.parents or (b in a.parents and b.is_dir())


def _check_existing(
    path: Path, force: bool, members: Iterable[str] = (), dataset: str = ""
) -> None:
    """Refuse to replace a file without `force`, or a directory that holds anything else."""
    if not path.exists():
        return
    if not force:
        raise FileExistsError(f"{path} exists already: choose another name, or use force")
    if path.is_file():
        other = nexus.foreign_object(path, dataset) if dataset else ""
        if other:
            raise ValueError(
                f"{path} holds {other}, which would be lost, because {dataset} is written to a "
                f"new file: choose another name"
            )
        return
    if not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a directory and will not be replaced")
    if path.suffix.lower() == ".zarr" and zarr_files.is_store(path):
        _refuse_foreign(path, zarr_files.foreign_file(path))
        return
    members = set(members)
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in members)
    if others or not members:
        held = f" that holds {others[0]}" if members else ""
        raise IsADirectoryError(f"{path} is a directory{held} and will not be replaced")
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or (entry.is_dir() and not zarr_files.is_store(entry)):
            _refuse_foreign(path, entry)
        if entry.is_dir():
            _refuse_foreign(path, zarr_files.foreign_file(entry))


def _refuse_foreign(path: Path, entry: Path | None) -> None:
    if entry is not None:
        raise IsADirectoryError(
            f"{path} holds {entry.relative_to(path)}, which is no part of an image, and will not "
            f"be replaced: move that away, or choose another name"
        )
