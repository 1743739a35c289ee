"""How images are written: by suffix, under a temporary name beside their own, then renamed."""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import ending
from ..packages import load
from . import writing
from .writing import OutputFile

# The part of the finite pixels, in percent, that keeps its contrast in a picture.
CONTRAST = (1, 99.5)

# What the directory of a zarr array or group contains; no other directory is ever replaced.
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
ZARR_ATTRIBUTES = (".zattrs", ".zmetadata")

# A chunk, or a directory of chunks, in either version; a killed writer may have left a part of one.
CHUNK = re.compile(r"(c|(c\.)?\d+(\.\d+)*)(\.[0-9a-f]{32}\.partial)?")

PathLike = str | os.PathLike


def save(image: Any, path: PathLike, force: bool = False) -> None:
    """Write an image in the format that the suffix of the path names.

    It is written under a temporary name in the same directory and renamed when complete: where
    that fails the temporary is removed, and an existing file is untouched. A symbolic link stays,
    and its target is replaced. A zarr array or group is put together in memory, compressed.

    Parameters
    ----------
    image : array (rows, cols) or (planes, rows, cols)
        Of bool, integers or floats of at most 64 bits.
    path : path
        ``.npy``; ``.zarr``; ``.h5`` or ``.hdf5``, dataset "image"; ``.tif`` or ``.tiff``, a page
        for each plane, bool as uint8 0 and 1; ``.png``, an 8-bit picture of a 2-D image, for
        looking. All but the picture keep every value.
    force : bool
        Whether an existing file is replaced; of directories only a zarr array or group that holds
        nothing else.

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
    # Of a symbolic link the target is replaced.
    place = Path(os.path.realpath(path)).parent
    if not place.is_dir():
        raise FileNotFoundError(f"there is no directory {place} to write {path.name} in")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"the directory {place} cannot be written to")
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
    if path.is_file():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a directory and will not be replaced")
    if path.suffix.lower() == ".zarr" and _is_zarr(path):
        _refuse_foreign(path, foreign(path))
        return
    ours = set(ours)
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
    if others or not ours:
        held = f" that holds {others[0]}" if ours else ""
        raise IsADirectoryError(f"{path} is a directory{held} and will not be replaced")
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or (entry.is_dir() and not _is_zarr(entry)):
            _refuse_foreign(path, entry)
        if entry.is_dir():
            _refuse_foreign(path, foreign(entry))


def _refuse_foreign(path: Path, entry: Path | None) -> None:
    if entry is not None:
        raise IsADirectoryError(
            f"{path} holds {entry.relative_to(path)}, which is no part of an image, and will not "
            f"be replaced: move that away, or choose another name"
        )


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ZARR_FILES)


def foreign(store: Path) -> Path | None:
    """Return the first thing in the directory of a zarr array or group that is not zarr's."""
    inside = _foreign_chunk if _is_array(store) else _foreign_member
    found = (
        _foreign_metadata(entry) if entry.name in (*ZARR_FILES, *ZARR_ATTRIBUTES) else inside(entry)
        for entry in sorted(store.iterdir())
    )
    return next(filter(None, found), None)


def _foreign_metadata(file: Path) -> Path | None:
    """Return a file of metadata if it is another program's of that name."""
    plain = file.is_file() and not file.is_symlink()
    known = file.name in ZARR_ATTRIBUTES or "zarr_format" in _read_metadata(file)
    return None if plain and known else file


def _foreign_member(path: Path) -> Path | None:
    """Return a file that is not zarr's in a member of a group."""
    is_store = path.is_dir() and not path.is_symlink() and _is_zarr(path)
    return foreign(path) if is_store else path


def _foreign_chunk(path: Path) -> Path | None:
    """Return a file that is not zarr's in a chunk, or a directory of chunks."""
    if path.is_symlink() or not CHUNK.fullmatch(path.name):
        return path
    if path.is_dir():
        return next(filter(None, map(_foreign_chunk, sorted(path.iterdir()))), None)
    return None if path.is_file() else path


def _is_array(store: Path) -> bool:
    metadata = _read_metadata(store / "zarr.json")
    return (store / ".zarray").is_file() or metadata.get("node_type") == "array"


def _read_metadata(file: Path) -> dict:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_package(path: PathLike, package: str | None) -> None:
    """Refuse a format whose package is not installed, or is broken."""
    try:
        if package is not None:
            load(package)
    except ImportError as error:
        raise ImportError(
            f"{os.fspath(path)} needs {package}: pip install 'daskstats[io]'"
        ) from error


def beside(
    path: PathLike, force: bool = False, ours: Iterable[str] = ()
) -> AbstractContextManager[Path]:
    """Give a temporary path beside another, and rename it to that when all went well.

    Whatever is at the temporary path is removed otherwise. It has the suffix of the path, in
    lower case; the caller creates it, as a file or a directory. ``ours`` as of `check_place`.
    """
    # Another program may have written the file in the meantime.
    return writing.replacing(Path(path), lambda path: _check_existing(path, force, ours))


def write_npy(image: np.ndarray, path: Path) -> None:
    with OutputFile(path) as file:
        np.save(file, image, allow_pickle=False)


def write_zarr(image: np.ndarray, path: Path) -> None:
    write_store(path, lambda store: _create_array(store, image))


def _create_array(store: Any, image: np.ndarray, name: str | None = None) -> None:
    zarr = load("zarr")

    zarr.create_array(store, name=name, data=image)


def write_store(path: Path, fill: Callable[[Any], object]) -> None:
    """Fill a zarr store in memory, and write it to disk.

    On a full disk zarr, which writes several chunks at a time, leaves tasks behind that complain
    until the program has ended. The store takes no more than the image, compressed.
    """
    files: dict[str, Any] = {}
    fill(load("zarr.storage").MemoryStore(files))
    for name, content in files.items():
        with ending.writing:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            with OutputFile(path / name) as file:
                file.write(content.to_bytes())


def write_hdf5(image: np.ndarray, path: Path) -> None:
    write_hdf5_datasets({"image": image}, path)


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Give a new HDF5 file, and a function that raises what went wrong on the disk so far."""
    h5py = load("h5py")

    # HDF5 would crash if it could not write the last part of a file that it closes.
    with OutputFile(path, deferred=True) as output:
        with h5py.File(output, "w") as file:
            yield file, output.check
        output.check()


def write_tiff(image: np.ndarray, path: Path) -> None:
    tifffile = load("tifffile")

    if image.dtype == bool:
        # TIFF packs bool into bits, which few programs read.
        image = image.astype("u1")
    # Without the photometric tag three planes would be taken for the colours of one picture.
    with OutputFile(path) as file:
        tifffile.imwrite(file, image, photometric="minisblack")


def write_png(image: np.ndarray, path: Path) -> None:

    with OutputFile(path) as file:
        load("PIL.Image").fromarray(picture(image)).save(file, format="PNG")


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

    write_store(path, zarr.create_group)
    for name, image in images.items():
        write_zarr(image, path / name)


def write_npz(images: Mapping[str, np.ndarray], path: Path) -> None:
    # An archive that cannot be written complains again when it is closed, and deleted.
    with OutputFile(path, deferred=True) as output:
        with zipfile.ZipFile(output, "w") as archive:
            for name, image in images.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, image, allow_pickle=False)
                output.check()
        output.check()


def write_hdf5_datasets(images: Mapping[str, np.ndarray], path: Path) -> None:
    with new_hdf5(path) as (file, check):
        for name, image in images.items():
            dataset = file.create_dataset(
                name, image.shape, image.dtype, chunks=True, compression="gzip", shuffle=True
            )
            # A row of chunks at a time, because nothing else can run while HDF5 compresses.
            height = dataset.chunks[-2]
            for start in range(0, image.shape[-2], height):
                rows = ..., slice(start, start + height), slice(None)
                dataset[rows] = image[rows]
                check()


# The same for several images together.
COLLECTIONS: dict[str, tuple[Callable[[Mapping[str, np.ndarray], Path], None], str | None]] = {
    ".zarr": (write_zarr_group, None),
    ".npz": (write_npz, None),
    ".h5": (write_hdf5_datasets, "h5py"),
    ".hdf5": (write_hdf5_datasets, "h5py"),
}
