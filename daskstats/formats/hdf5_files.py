"""HDF5 files: opened with h5py, with errors that name the fault of a file."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packages import load, require
from ..planning.values import MEBI

if TYPE_CHECKING:
    import h5py

# Bytes of decoded chunks that the library keeps for all datasets of a series together: enough for
# the small chunks of frames that are read one by one. Its own default, 8 MiB since HDF5 2.0, is for
# each dataset, and a virtual dataset may show thousands of others.
CACHE_NBYTES = MEBI

# Errors of h5py for a name that leads to no object: it is missing, behind a file that cannot be
# opened, or in a circle of links.
NO_OBJECT = (KeyError, OSError, RuntimeError)

# Filters of the library, by their numbers.
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"}

# Filters of the package hdf5plugin, by their registered numbers.
PLUGINS = {
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32022: "jpeg",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
}


def import_h5py(path: str | os.PathLike) -> Any:
    """Import h5py, and the compression filters of hdf5plugin if they are installed."""
    h5py = require("h5py", path)
    if importlib.util.find_spec("hdf5plugin"):
        load("hdf5plugin")
    return h5py


def open_file(
    path: str | os.PathLike, swmr: bool = False, mode: str = "r", users: int = 1
) -> h5py.File:
    """Open a file for reading.

    Parameters
    ----------
    path : path
    swmr : bool
        Whether a single process may be writing it meanwhile, in HDF5's mode for that.
    mode : str
        "r+" where HDF5 itself will open it so: for a virtual dataset in such a file.
    users : int
        Number of files that the bytes for decoded chunks are divided among.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
    BlockingIOError
        If some process has it open for writing.
    ValueError
        If it is no HDF5 file, or cut off.
    OSError
        If too many files are open.
    """
    h5py = import_h5py(path)
    try:
        file = h5py.File(path, mode, swmr=swmr, rdcc_nbytes=CACHE_NBYTES // max(1, users))
    except OSError as error:
        raise _explained(error, path) from error
    if file.mode == "r" and not swmr:  # nor has this process opened it for writing
        _check_length(file, path)
    return file


def _check_length(file: h5py.File, path: str | os.PathLike) -> None:
    """Refuse a file that was cut off while this process had it open already."""
    nbytes, expected = Path(path).stat().st_size, file.id.get_filesize()
    if nbytes < expected:
        raise ValueError(
            f"{path} is not an HDF5 file, or is cut off: it has {nbytes} bytes of {expected}"
        )


def _explained(error: OSError, path: str | os.PathLike) -> Exception:
    """Return an error of HDF5's as one that names the fault of a file."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"there is no file {path}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return OSError(
            f"{path} cannot be opened, too many files are open: raise the limit (ulimit -n)"
        )
    if isinstance(error, BlockingIOError) or "already open for" in text or "lock file" in text:
        return BlockingIOError(
            f"{path} is open for writing by some process, or by one that ended without closing "
            f"it: wait until it is closed, or write it in SWMR mode"
        )
    if error.errno is not None:
        return type(error)(f"{path} cannot be opened: {os.strerror(error.errno)}")
    return ValueError(
        f"{path} is not an HDF5 file, or is cut off, or its writer has not yet flushed it: {error}"
    )


def check_filters(dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose chunks are compressed by a filter that is not installed."""
    h5py = import_h5py(dataset.file.filename)
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if h5py.h5z.filter_avail(code):
            continue
        known = PLUGINS.get(code)
        text = known or name.decode(errors="replace").partition(";")[0] or "without a name"
        plugin = "install its plugin, and name the directory in HDF5_PLUGIN_PATH"
        raise ImportError(
            f"{dataset.file.filename}: dataset {dataset.name!r} is compressed by the HDF5 filter "
            f"{text} ({code}), which is not installed: "
            f"{'pip install hdf5plugin' if known else plugin}"
        )


def filter_names(dataset: h5py.Dataset) -> list[str]:
    """Return the names of the filters that the chunks of a dataset have passed, in their order."""
    properties = dataset.id.get_create_plist()
    found = (properties.get_filter(index) for index in range(properties.get_nfilters()))
    return [(FILTERS | PLUGINS).get(code, f"filter {code}") for code, *_ in found]


def absolute(file: h5py.File) -> Path:
    """Return the path of an open file."""
    return Path(os.fsdecode(file.filename)).absolute()
