"""The table of formats: for each suffix, how series and images are read and written.

A new format is one module, which reads and writes files, and one row here. A reader of series is a
subclass of `FileSource`; the other columns are functions. A file with a suffix that is not in the
table is known by its first bytes, and an HDF5 file always is.
"""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..series.files import FileSource
from . import (
    eiger_stream,
    fabio_images,
    fch5,
    fits,
    framecache,
    hdf5,
    hdf5_files,
    hdf5_lock,
    hexrd_yaml,
    mrc,
    nexus,
    npy,
    npz,
    png,
    tiff,
    zarr_array,
    zarr_files,
)
from .notes import Facts
from .placed import is_compressed
from .zarr_search import find_store


class Format(NamedTuple):
    """The functions for the files of one suffix; None where the format has no such function."""

    series: type[FileSource] | None = None
    """the image series in a file, opened as ``series(path)``, or ``series(path, dataset=name)``"""
    read: Callable[[Path, str], np.ndarray] | None = None
    """reads one image, given a path and the name of a dataset, or "" """
    write: Callable[[np.ndarray, Path, Facts], None] | None = None
    """writes one image, and notes on it, if there are any and the format has room for them"""
    write_all: Callable[[Mapping[str, np.ndarray], Path, Facts], None] | None = None
    """writes several named images into one file, and notes on them"""
    write_dataset: Callable[[np.ndarray, Path, Facts, str], None] | None = None
    """writes one image as the dataset of a name, and notes on it"""
    package: str | None = None
    """optional package that the functions for images need"""
    compressed: tuple[str, ...] = ()
    """suffixes that may follow, of a file that is compressed as a whole"""


HDF5 = Format(hdf5.Hdf5Source, hdf5.read_image, package="h5py")
NEXUS = HDF5._replace(
    write=nexus.write_image, write_all=nexus.write_images, write_dataset=nexus.write_dataset
)
TIFF = Format(tiff.TiffSource, tiff.read_image, tiff.write_image, package="tifffile")
FABIO = Format(
    fabio_images.FabioSource, fabio_images.read_image, package="fabio", compressed=(".gz", ".bz2")
)
MRC = Format(mrc.MrcSource, mrc.read_image, package="mrcfile", compressed=(".gz", ".bz2"))
FITS = Format(fits.FitsSource, fits.read_image, package="astropy", compressed=(".gz", ".bz2"))
FRAME_CACHE = Format(framecache.FrameCacheSource)
FCH5 = Format(fch5.Fch5Source)
EIGER_STREAM = Format(eiger_stream.EigerStreamSource)
HEXRD = Format(hexrd_yaml.HexrdYamlSource)

FORMATS = {
    ".npy": Format(npy.NpySource, npy.read_image, npy.write_image),
    ".npz": Format(npz.NpzSource, npz.read_image, write_all=npy.write_archive),
    ".zarr": Format(
        zarr_array.ZarrPathSource,
        zarr_array.read_image,
        zarr_files.write_image,
        zarr_files.write_group,
    ),
    ".h5": NEXUS,
    ".hdf5": NEXUS,
    ".nxs": NEXUS,
    **dict.fromkeys((".hdf", ".he5", ".nc", ".nx5"), HDF5),
    **dict.fromkeys((".cxi", ".emd", ".hspy", ".mat"), HDF5),
    ".fch5": FCH5,
    ".yml": HEXRD,
    ".yaml": HEXRD,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".fits": FITS._replace(write=fits.write_image),
    ".fit": FITS,
    ".fts": FITS,
    ".fz": FITS,
    ".mrc": MRC._replace(write=mrc.write_image),
    ".mrcs": MRC,
    ".map": MRC,
    ".png": Format(None, png.read_image, png.write_image, package="PIL"),
    ".edf": FABIO._replace(write=fabio_images.write_edf),
    ".cbf": FABIO._replace(write=fabio_images.write_cbf),
    **dict.fromkeys(
        (".cor", ".esper", ".esperanto", ".img", ".kcd", ".msk", ".sfrm", ".spe"), FABIO
    ),
    ".mccd": TIFF._replace(write=None),  # a TIFF file with a header of its own
    **{f".mar{size}": FABIO for size in (1200, 1600, 1800, 2000, 2300, 2400, 3000, 3450)},
    **{f".ge{number}": FABIO for number in ("", 1, 2, 3, 4, 5)},
}

# Where a file has which bytes, and the suffix of its format. An HDF5 file is one whatever its
# suffix; the others are looked for under an unknown suffix only.
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIGNATURES = (
    *((0, magic, ".tif") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"###CBF", ".cbf"),
    (0, b"ADEPT", ".ge"),
    (208, b"MAP ", ".mrc"),
    (0, b"SIMPLE  =", ".fits"),
    *((0, magic, ".edf") for magic in (b"{\n", b"{\r\n", b"{ \n")),
)

# The first bytes of files that are compressed as a whole, and the suffix that says so. Two bytes of
# gzip could also be the columns of an MRC file (35,615); the third, its method, is always 8.
WHOLE = {b"\x1f\x8b\x08": ("gzip", ".gz"), b"BZh": ("bzip2", ".bz2")}


def suffixes(column: str) -> list[str]:
    """Return the suffixes of the formats that have a function.

    >>> suffixes("write_all")
    ['.h5', '.hdf5', '.npz', '.nxs', '.zarr']
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
    ValueError: scan.txt has no known suffix: expected one of .h5, .hdf5, ...
    """
    text, separator, dataset = name.partition("::")
    path = Path(text)
    store = find_store(path)
    if store is not None and column in ("series", "read"):
        inside = f"{store[1]}/{dataset.strip('/')}".rstrip("/") if store[1] else dataset
        return store[0], inside, FORMATS[".zarr"]
    found = format_of(text, column)
    if found is None and not path.is_file():
        raise _unknown(text, column)
    if not path.exists():
        raise FileNotFoundError(f"there is no {role} {text}")
    _check_kind(path, text)
    found = _by_content(path, column, found)
    if found is None:
        raise _unknown(text, column)
    if separator and not (found.series and found.series.has_datasets):
        raise ValueError(f"{text} holds one array: leave out {separator}{dataset}")
    return path, dataset, found


def format_of(name: str, column: str) -> Format | None:
    """Return the format of a file name that has a function, None if its suffix is unknown.

    Of several suffixes the most count, and a compressed file has the format of its content.

    >>> format_of("scan.1.TIF", "series") is TIFF
    True
    >>> format_of("scan.tif.gz", "series") is None
    True
    """
    suffix = known_suffix(name, column)
    return None if suffix is None else _row(suffix)


def known_suffix(name: str, column: str) -> str | None:
    """Return the suffixes of a file name that tell its format, None if they are unknown.

    >>> known_suffix("scan.1.TIF", "series"), known_suffix("notes.txt", "series")
    ('.tif', None)
    """
    ends = [end.lower() for end in Path(name).suffixes]
    for first in range(len(ends)):
        suffix = "".join(ends[first:])
        if getattr(_row(suffix), column, None) is not None:
            return suffix
    return None


def _row(suffix: str) -> Format | None:
    """Return the row of the table for a suffix, or for the one that is compressed."""
    inner, _, last = suffix.rpartition(".")
    found = FORMATS.get(inner)
    compressed = found if found and f".{last}" in found.compressed else None
    return FORMATS.get(suffix, compressed)


def _by_content(path: Path, column: str, found: Format | None) -> Format | None:
    """Return the format that the first bytes of a file tell, or else the one of its suffix."""
    if path.is_dir():
        return found
    with path.open("rb") as file:
        head = file.read(512)
    _check_compression(path, head, found)
    if head.startswith(HDF5_SIGNATURE):
        special = _layout_of_hexrd(path) if column == "series" else None
        return special or (found if found and found.series is HDF5.series else HDF5)
    if found is FORMATS[".npz"] and column == "series" and npz.holds_frame_cache(path):
        return FRAME_CACHE
    if found is not None:
        return found
    for offset, magic, suffix in SIGNATURES:
        if head[offset:].startswith(magic) and getattr(FORMATS[suffix], column) is not None:
            return FORMATS[suffix]
    return None


def _check_compression(path: Path, head: bytes, found: Format | None) -> None:
    """Refuse a file that is compressed as a whole without a suffix that says so."""
    for magic, (name, suffix) in WHOLE.items():
        if found is None or not head.startswith(magic) or path.suffix.lower() == suffix:
            continue
        plain = path.with_suffix("") if is_compressed(path) else path
        way = f"name it {plain.name}{suffix}" if suffix in found.compressed else "decompress it"
        raise ValueError(f"{path} is compressed by {name}: {way}")


def _layout_of_hexrd(path: Path) -> Format | None:
    """Return the format of an HDF5 file that holds no dataset of frames, but is one of HEXRD's."""
    try:
        with hdf5_lock.hdf5_lock(), hdf5_files.open_file(path) as file:
            kinds = (FCH5, fch5.is_frame_cache(file)), (EIGER_STREAM, eiger_stream.is_stream(file))
            return next((kind for kind, found in kinds if found), None)
    except (OSError, ValueError, ImportError):
        return None  # the format names the fault


def _unknown(text: str, column: str) -> ValueError:
    known = ", ".join(suffixes(column))
    return ValueError(f"{text} has no known suffix: expected one of {known}")


def _check_kind(path: Path, name: str) -> None:
    """Refuse a path that is neither a file nor a directory: opening a pipe waits forever."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kinds |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "a device")
    found = kinds.get(stat.S_IFMT(mode), "something else")
    raise ValueError(f"{name} is {found}, not a file: frames have to be read in any order")
