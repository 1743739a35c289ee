"""Masks in files: how they are read, and which files they refer to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..formats import sinks
from ..packages import load
from ..series.base import Source
from ..series.opening import open_source


def read_mask(name: str | None) -> np.ndarray | None:
    """Return the mask (rows, cols) that a file holds: what is not zero is left out."""
    if name is None:
        return None
    path = Path(_file_of(name))
    suffix = path.suffix.lower()
    if suffix not in (*MASKS, *DATASETS):
        known = ", ".join(sorted({*MASKS, *DATASETS}))
        raise ValueError(f"the mask {name} has no known suffix: expected one of {known}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no mask {name}")
    if suffix in DATASETS:
        mask = _read_dataset(name)
    else:
        package, read = MASKS[suffix]
        sinks.check_package(path, package)
        mask = read(path)
    if mask.dtype.kind not in "biu":
        raise TypeError(f"the mask {name} must be of bool or integers, got {mask.dtype}")
    return mask != 0


def referred(mask: str | None) -> tuple[Path, ...]:
    """Return the files that the file of a mask refers to."""
    if mask is None or Path(_file_of(mask)).suffix.lower() not in DATASETS:
        return ()
    return open_mask(mask).files() if Path(_file_of(mask)).is_file() else ()


def open_mask(name: str) -> Source:
    """Open the dataset of a mask; one that is not named is the only image of the file."""
    if "::" in name:
        return open_source(name)
    return load("daskstats.formats.hdf5").Hdf5Source(name, only_image=True)


def _read_dataset(name: str) -> np.ndarray:
    source = open_mask(name)
    if len(source) != 1:
        raise ValueError(f"the mask {name} has {len(source)} images, expected one")
    (block,) = source.read(0, 1, 0, source.shape[0])
    return block[0]


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_tiff(path: Path) -> np.ndarray:
    return load("tifffile").imread(path)


def _read_png(path: Path) -> np.ndarray:
    with load("PIL.Image").open(path) as image:
        return np.asarray(image)


def _read_fabio(path: Path) -> np.ndarray:
    with load("fabio").open(str(path)) as image:
        return np.asarray(image.data)


# For each suffix of a mask the optional package that it needs, and what reads it.
MASKS: dict[str, tuple[str | None, Callable[[Path], np.ndarray]]] = {
    ".npy": (None, _read_npy),
    ".tif": ("tifffile", _read_tiff),
    ".tiff": ("tifffile", _read_tiff),
    ".png": ("PIL", _read_png),
    ".edf": ("fabio", _read_fabio),
    ".msk": ("fabio", _read_fabio),
}

# Masks that are one image in a file of datasets.
DATASETS = (".h5", ".hdf5", ".nxs")


def _file_of(name: str) -> str:
    return name.partition("::")[0]
