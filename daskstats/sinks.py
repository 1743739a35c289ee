"""How images are written: by suffix, under a temporary name beside their own, then renamed."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .packages import load

# The part of the finite pixels, in percent, that keeps its contrast in a picture.
CONTRAST = (1, 99.5)

# What the directory of a zarr array or group contains; no other directory is ever replaced.
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")

PathLike = str | os.PathLike


def save(image: Any, path: PathLike, force: bool = False) -> None:
    """Write an image in the format that the suffix of the path names.

    It is written under a temporary name in the same directory and renamed when complete: where
    that fails the temporary is removed, and an existing file is untouched.

    Parameters
    ----------
    image : array (rows, cols) or (planes, rows, cols)
        Of bool, integers or floats of at most 64 bits.
    path : path
        ``.npy``; ``.zarr``; ``.h5`` or ``.hdf5``, dataset "image"; ``.tif`` or ``.tiff``, a page
        for each plane, bool as uint8 0 and 1; ``.png``, an 8-bit picture of a 2-D image, for
        looking. All but the picture keep every value.
    force : bool
        Whether an existing file is replaced.

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
    ValueError: dark.bmp has no known suffix: expected one of .h5, .hdf5, .npy, .png, .tif, ...
    """
    image = as_image(image)
    check_output(path, (), force, image.ndim)
    with beside(path, force) as temporary:
        FORMATS[temporary.suffix][0](image, temporary)


def save_all(
    images: Mapping[str, Any], path: PathLike, force: bool = False, form: str | None = None
) -> None:
    """Write several images, each under its name: all of them or none, as `save` does.

    Parameters
    ----------
    images : dict of arrays
        As of `save`.
    path : path
        ``.zarr``: a group with one array each; ``.npz``: one member each; ``.h5`` or ``.hdf5``:
        one dataset each. Without a suffix, or with a format: a directory with one file each.
    force : bool
        Whether what exists is replaced; of directories only those that hold nothing but files of
        these names.
    form : str, optional
        Suffix of the files in a directory, with or without its dot: by default ``.npy``.

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
    images = {name: as_image(image) for name, image in images.items()}
    check_outputs(path, {name: image.ndim for name, image in images.items()}, (), force, form)
    if is_collection(path, form):
        with beside(path, force) as temporary:
            COLLECTIONS[temporary.suffix][0](images, temporary)
        return
    files = file_names(images, form)
    with beside(path, force, files.values()) as temporary:
        temporary.mkdir()
        for name, file in files.items():
            FORMATS[Path(file).suffix][0](images[name], temporary / file)


def as_image(image: Any) -> np.ndarray:
    """Return an image as an array, or refuse what no format can keep."""
    image = np.asarray(image)
    if image.dtype.kind not in "biuf" or image.dtype.itemsize > 8:
        raise TypeError(f"an image of {image.dtype} cannot be written, expected numbers")
    return image


def check_output(
    path: PathLike, inputs: Iterable[PathLike] = (), force: bool = False, ndim: int = 2
) -> None:
    """Refuse, before anything is computed, what `save` could not or must not write.

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
        The message says what is wrong.

    Examples
    --------
    >>> check_output("dark.png", ndim=3)
    Traceback (most recent call last):
        ...
    ValueError: a picture (dark.png) holds a 2-D image only: use .npy, .zarr, .h5 or .tif
    """
    suffix = check_place(path, FORMATS, inputs, force)
    check_format(path, suffix, ndim)


def check_outputs(
    path: PathLike,
    ndims: Mapping[str, int],
    inputs: Iterable[PathLike] = (),
    force: bool = False,
    form: str | None = None,
) -> None:
    """Refuse, before anything is computed, what `save_all` could not or must not write.

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
        The message says what is wrong.

    Examples
    --------
    >>> check_outputs("images.npz", {"max": 2}, form="tif")
    Traceback (most recent call last):
        ...
    ValueError: images.npz holds all images: a format is for a directory of files
    """
    place, suffix = Path(path), Path(path).suffix.lower()
    if is_collection(path, form):
        check_place(path, COLLECTIONS, inputs, force)
        check_package(path, COLLECTIONS[suffix][1])
        return
    if suffix in COLLECTIONS:
        raise ValueError(f"{place} holds all images: a format is for a directory of files")
    if suffix in FORMATS:
        raise ValueError(
            f"{place} holds one image only: name a directory and a format, or one of "
            f"{', '.join(sorted(COLLECTIONS))}"
        )
    if suffix and form is None:
        raise ValueError(
            f"{place} has no known suffix: expected one of {', '.join(sorted(COLLECTIONS))}, or a "
            f"directory, which has none"
        )
    files = file_names(ndims, form)
    check_place(path, {suffix}, inputs, force, files.values())
    for name, file in files.items():
        check_format(file, Path(file).suffix, ndims[name])


def is_collection(path: PathLike, form: str | None) -> bool:
    """Whether a path names one file for several images."""
    return form is None and Path(path).suffix.lower() in COLLECTIONS


def file_names(names: Iterable[str], form: str | None) -> dict[str, str]:
    """Return the file of each image in a directory.

    >>> file_names(["max", "percentile_95"], "tif")
    {'max': 'max.tif', 'percentile_95': 'percentile_95.tif'}
    """
    suffix = f".{(form or 'npy').lower().lstrip('.')}"
    if suffix not in FORMATS:
        raise ValueError(f"there is no format {form!r}: choose from {', '.join(sorted(FORMATS))}")
    return {name: f"{name}{suffix}" for name in names}


def check_format(path: PathLike, suffix: str, ndim: int) -> None:
    """Refuse an image that its format cannot hold, or a format whose package is missing."""
    if ndim not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions, got {ndim}")
    if suffix == ".png" and ndim == 3:
        raise ValueError(
            f"a picture ({os.fspath(path)}) holds a 2-D image only: use .npy, .zarr, .h5 or .tif"
        )
    check_package(path, FORMATS[suffix][1])


def check_place(
    path: PathLike,
    suffixes: Iterable[str],
    inputs: Iterable[PathLike] = (),
    force: bool = False,
    ours: Iterable[str] = (),
) -> str:
    """Return the suffix of a path that may be written to, in lower case, or refuse it.

    A directory that holds nothing but files named in ``ours`` may be replaced.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError, IsADirectoryError
        If the suffix is not one of those expected, the directory is missing, a file exists and
        not `force`, a directory is in the way, or the path is one of the inputs.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ValueError(
            f"{path} has no known suffix: expected one of {', '.join(sorted(suffixes))}"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {path.parent} to write {path.name} in")
    for other in inputs:
        if _overlap(path, Path(other)):
            raise ValueError(f"the output {path} is the input: give another name")
    _check_existing(path, force, ours)
    return suffix


def _overlap(a: Path, b: Path) -> bool:
    """Whether two paths are the same file, or one is a directory that contains the other."""
    if a.exists() and b.exists() and a.samefile(b):
        return True
    a, b = a.resolve(), b.resolve()
    return a == b or a in b.parents or (b in a.parents and b.is_dir())


def _check_existing(path: Path, force: bool, ours: Iterable[str] = ()) -> None:
    if not path.exists():
        return
    if not force:
        raise FileExistsError(f"{path} exists already: choose another name, or use force")
    is_store = path.is_dir() and any((path / name).exists() for name in ZARR_FILES)
    if not path.is_dir() or (path.suffix.lower() == ".zarr" and is_store):
        return
    ours = set(ours)
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
    if others or not ours:
        held = f" that holds {others[0]}" if ours else ""
        raise IsADirectoryError(f"{path} is a directory{held} and will not be replaced")


def check_package(path: PathLike, package: str | None) -> None:
    """Refuse a format whose package is not installed, or is broken."""
    try:
        if package is not None:
            load(package)
    except ImportError as error:
        raise ImportError(
            f"{os.fspath(path)} needs {package}: pip install 'daskstats[io]'"
        ) from error


@contextmanager
def beside(path: PathLike, force: bool = False, ours: Iterable[str] = ()) -> Iterator[Path]:
    """Give a temporary path beside another, and rename it to that when all went well.

    Whatever is at the temporary path is removed otherwise. It has the suffix of the path, in
    lower case; the caller creates it, as a file or a directory. ``ours`` as of `check_place`.
    """
    path = Path(path)
    temporary = path.with_name(f".daskstats-{secrets.token_hex(6)}{path.suffix.lower()}")
    try:
        yield temporary
        # Another program may have written the file in the meantime.
        _check_existing(path, force, ours)
        _put(temporary, path)
    finally:
        _remove(temporary)


def _put(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    # A directory with content cannot be replaced in one step: the old one comes back if the
    # second step fails.
    old = path.with_name(f"{temporary.stem}-old{temporary.suffix}")
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_npy(image: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, image, allow_pickle=False)


def write_zarr(image: np.ndarray, path: Path) -> None:
    zarr = load("zarr")

    zarr.create_array(path, data=image)


def write_hdf5(image: np.ndarray, path: Path) -> None:
    h5py = load("h5py")

    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, compression="gzip", shuffle=True)


def write_tiff(image: np.ndarray, path: Path) -> None:
    tifffile = load("tifffile")

    if image.dtype == bool:
        # TIFF packs bool into bits, which few programs read.
        image = image.astype("u1")
    # Without the photometric tag three planes would be taken for the colours of one picture.
    tifffile.imwrite(path, image, photometric="minisblack")


def write_png(image: np.ndarray, path: Path) -> None:
    load("PIL.Image").fromarray(picture(image)).save(path, format="PNG")


def picture(image: np.ndarray) -> np.ndarray:
    """Return 8-bit grey values for looking at an image.

    Parameters
    ----------
    image : ndarray (rows, cols)
        NaN comes out black, as does all of a constant image; infinities are the darkest and the
        brightest grey.

    Returns
    -------
    ndarray (rows, cols)
        uint8; black and white are the percentiles `CONTRAST` of the finite pixels or, where
        these coincide (sparse images), their minimum and maximum.

    Examples
    --------
    >>> picture(np.array([[0.0, 1.0], [2.0, np.nan]])).tolist()
    [[0, 128], [255, 0]]
    """
    values = image.astype("f8")
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.where(values > 0, 255, 0).astype("u1")
    # "nearest" takes pixels as they are, where an interpolation might overflow.
    low, high = np.percentile(finite, CONTRAST, method="nearest")
    if low == high:
        low, high = finite.min(), finite.max()
    # Halves, because the difference of two float64 may be infinite.
    span = high / 2 - low / 2
    if span == 0:
        return np.where(values > high, 255, 0).astype("u1")
    grey = (np.clip(values, low, high) / 2 - low / 2) / span
    return np.rint(255 * np.nan_to_num(grey, nan=0)).astype("u1")


# For each suffix what writes it, and the optional package that it needs.
FORMATS: dict[str, tuple[Callable[[np.ndarray, Path], None], str | None]] = {
    ".npy": (write_npy, None),
    ".zarr": (write_zarr, None),
    ".h5": (write_hdf5, "h5py"),
    ".hdf5": (write_hdf5, "h5py"),
    ".tif": (write_tiff, "tifffile"),
    ".tiff": (write_tiff, "tifffile"),
    ".png": (write_png, "PIL"),
}


def write_zarr_group(images: Mapping[str, np.ndarray], path: Path) -> None:
    zarr = load("zarr")

    zarr.create_group(path)
    for name, image in images.items():
        zarr.create_array(path, name=name, data=image)


def write_npz(images: Mapping[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **images)  # type: ignore[arg-type]


def write_hdf5_datasets(images: Mapping[str, np.ndarray], path: Path) -> None:
    h5py = load("h5py")

    with h5py.File(path, "w") as file:
        for name, image in images.items():
            file.create_dataset(name, data=image, compression="gzip", shuffle=True)


# The same for several images together.
COLLECTIONS: dict[str, tuple[Callable[[Mapping[str, np.ndarray], Path], None], str | None]] = {
    ".zarr": (write_zarr_group, None),
    ".npz": (write_npz, None),
    ".h5": (write_hdf5_datasets, "h5py"),
    ".hdf5": (write_hdf5_datasets, "h5py"),
}
