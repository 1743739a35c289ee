"""Whether a path may be written to; most faults are found without a look into a file.

Programs call this before they import anything that takes long.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..names import COLLECTIONS, WITH_DATASETS, WRITTEN
from ..packages import load, require
from .addresses import check_is_path

PathLike = str | os.PathLike

# Formats of one plane, for errors.
FLAT = {".png": "a picture", ".cbf": "a CBF file"}


def split_dataset(path: PathLike) -> tuple[Path, str]:
    """Return the file of an output, and the name of the dataset in it, if there is one.

    >>> split_dataset("out.h5::/entry/dark")[1]
    '/entry/dark'
    """
    check_is_path(path, "the output")
    file, _, dataset = os.fspath(path).partition("::")
    if not file:  # which would be the working directory
        raise ValueError("the name of the output is empty")
    return Path(file), dataset


def split_name(name: str) -> list[str]:
    """Return the parts of the name of a dataset, or refuse a name that HDF5 cannot have.

    >>> split_name("/entry/dark")
    ['entry', 'dark']
    """
    parts, text = name.strip("/").split("/"), name.encode(errors="ignore").decode()
    if text != name or not all(parts) or {".", ".."}.intersection(parts):
        raise ValueError(f"{name!r} is not the name of a dataset, such as /entry/dark")
    return parts


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
    suffix = check_place(file, WRITTEN, inputs, force, dataset=dataset)
    _check_format(file, suffix, ndim)


def _check_dataset(file: Path, dataset: str) -> None:
    """Refuse the name of a dataset in a file that has none, or that no dataset can have."""
    suffix, known = file.suffix.lower(), WITH_DATASETS
    if suffix in WRITTEN and suffix not in known:
        raise ValueError(
            f"{file} holds one image: leave out ::{dataset}, or use one of {', '.join(known)}"
        )
    split_name(dataset)


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
    check_collection(path, form)
    suffix = Path(path).suffix.lower()
    if is_collection(path, form):
        check_place(path, COLLECTIONS, inputs, force)
        _check_package(path, suffix)
        return
    files = file_names(ndims, form)
    check_place(path, {suffix}, inputs, force, files.values())
    for name, file in files.items():
        _check_format(file, Path(file).suffix, ndims[name])


def check_collection(path: PathLike, form: str | None = None) -> None:
    """Refuse a path that does not name a place for several images; as `check_outputs` does."""
    check_is_path(path, "the output")
    place, suffix = Path(path), Path(path).suffix.lower()
    if "::" in os.fspath(path):
        raise ValueError(f"{place} names one dataset for several images: leave out all from :: on")
    if is_collection(path, form):
        return
    if suffix in COLLECTIONS:
        raise ValueError(f"{place} holds all images: a format is for a directory of files")
    if suffix in WRITTEN:
        raise ValueError(
            f"{place} holds one image only: name a directory and a format, or one of "
            f"{', '.join(COLLECTIONS)}"
        )
    if suffix and form is None:
        raise ValueError(
            f"{place} has no known suffix: expected one of {', '.join(COLLECTIONS)}, or a "
            f"directory, which has none"
        )
    file_names((), form)


def is_collection(path: PathLike, form: str | None) -> bool:
    """Whether a path names one file for several images."""
    return form is None and Path(path).suffix.lower() in COLLECTIONS


def file_names(names: Iterable[str], form: str | None) -> dict[str, str]:
    """Return the file of each image in a directory.

    >>> file_names(["max", "percentile_95"], "tif")
    {'max': 'max.tif', 'percentile_95': 'percentile_95.tif'}
    """
    suffix, known = f".{(form or 'npy').lower().lstrip('.')}", WRITTEN
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
    _check_package(path, suffix)


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
    check_is_path(path, "the output")
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
    check_existing(path, force, members, dataset)
    return suffix


def _overlap(a: Path, b: Path) -> bool:
    """Whether two paths are the same file, or one is a directory that contains the other."""
    if a.exists() and b.exists() and a.samefile(b):
        return True
    a, b = a.resolve(), b.resolve()
    return a == b or a in b.parents or (b in a.parents and b.is_dir())


def check_apart(path: PathLike, checkpoint: PathLike | None) -> None:
    """Refuse an output that is a checkpoint, or is in one, or would hold it.

    >>> check_apart("scan.zarr", "scan.zarr")
    Traceback (most recent call last):
        ...
    ValueError: the output scan.zarr and the checkpoint scan.zarr are one place, or one is in ...
    """
    file, _ = split_dataset(path)
    if checkpoint is not None and _overlap(file, Path(checkpoint)):
        raise ValueError(
            f"the output {file} and the checkpoint {os.fspath(checkpoint)} are one place, or one "
            f"is in the other: give another name"
        )


def check_existing(path: Path, force: bool, members: Iterable[str] = (), dataset: str = "") -> None:
    """Refuse to replace a file without `force`, or a directory that holds anything else."""
    if not path.exists():
        return
    if not force:
        raise FileExistsError(f"{path} exists already: choose another name, or use force")
    if path.is_file():
        other = _writer("nexus").foreign_object(path, dataset) if dataset else ""
        if other:
            raise ValueError(
                f"{path} holds {other}, which would be lost, because {dataset} is written to a "
                f"new file: choose another name"
            )
        return
    if not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a directory and will not be replaced")
    if path.suffix.lower() == ".zarr" and _writer("zarr_files").is_store(path):
        _refuse_foreign(path, _writer("zarr_files").foreign_file(path))
        return
    members = set(members)
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in members)
    if others or not members:
        held = f" that holds {others[0]}" if members else ""
        raise IsADirectoryError(f"{path} is a directory{held} and will not be replaced")
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or (entry.is_dir() and not _writer("zarr_files").is_store(entry)):
            _refuse_foreign(path, entry)
        if entry.is_dir():
            _refuse_foreign(path, _writer("zarr_files").foreign_file(entry))


def _refuse_foreign(path: Path, entry: Path | None) -> None:
    if entry is not None:
        raise IsADirectoryError(
            f"{path} holds {entry.relative_to(path)}, which is no part of an image, and will not "
            f"be replaced: move that away, or choose another name"
        )


def _check_package(path: PathLike, suffix: str) -> None:
    """Refuse a format whose package is missing."""
    require(_writer("table").FORMATS[suffix].package, path)


def _writer(name: str) -> Any:
    """Import a module of a format."""
    return load(f"{__package__}.{name}")
