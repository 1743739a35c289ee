"""HEXRD frame caches: ``.npz`` archives of sparse frames, made dense on demand."""

import os
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from ..packages import loaded
from ..series.base import Source, check_native, check_shape
from ..series.files import FileSource, fingerprint


@dataclass(eq=False)
class Archive:
    """All frames of an archive, each as its non-zero pixels."""

    shape: tuple[int, int]
    """rows and columns of a frame"""
    dtype: np.dtype
    """of the frames"""
    frames: list[tuple[np.ndarray, np.ndarray]]
    """for each frame the positions, row * cols + col, in rising order; and the values there"""


# One parsed archive for each file, shared by all series of this process that read it.
_archives: weakref.WeakValueDictionary[tuple, Archive] = weakref.WeakValueDictionary()
_lock = threading.Lock()

# The archive used last outlives its series: in a pool of processes a series lives for one task.
_latest: list[Archive] = []

# Errors of reading a member of a damaged archive.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class FrameCacheSource(FileSource):
    """A frame cache: arrays ``{i}_row``, ``{i}_col``, ``{i}_data`` for frame i, and their shape.

    The whole archive is parsed once per process. Reading some rows costs only their pixels.
    """

    row_unit = 1
    handles = ("_archive",)

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._archive = archive = parsed(self.path, self.parse)
        self.set_layout((len(archive.frames), *archive.shape), archive.dtype)

    def open(self) -> None:
        archive = parsed(self.path, self.parse)
        found = len(archive.frames), archive.shape, archive.dtype
        if found != (self.nframes, self.shape, self.dtype):
            nframes, (rows, cols), dtype = found
            raise self.changed(f"{nframes} frames of {rows} x {cols} {dtype}")
        self._archive = archive

    @staticmethod
    def parse(path: Path) -> Archive:
        """Read all frames."""
        return _parse(path)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        cols = self.shape[1]
        block = np.zeros((stop - start, last - first, cols), self.dtype)
        sparse = self._archive.frames[start:stop]
        for flat, (pixels, values) in zip(block.reshape(len(block), -1), sparse, strict=True):
            low, high = np.searchsorted(pixels, (first * cols, last * cols))
            flat[pixels[low:high] - first * cols] = values[low:high]
        return [block]


class SparseFramesSource(Source):
    """An open frame cache of HEXRD: the sparse matrices that it keeps, made dense by rows."""

    row_unit = 1

    def __init__(self, ims: Any) -> None:
        adapter = _adapter_of(ims)
        load = getattr(adapter, "_load_framelist_if_needed", None)
        if load is not None:  # earlier versions have loaded it
            load()
        self._frames = adapter._framelist
        self.set_layout((len(ims), *map(int, ims.shape)), ims.dtype)

    @classmethod
    def accepts(cls, ims: object) -> bool:
        return _is_hexrd(_adapter_of(ims), "load.framecache", "FrameCacheImageSeriesAdapter")

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [frame[first:last].toarray()[None] for frame in self._frames[start:stop]]


def _adapter_of(ims: Any) -> Any:
    """Return the object that HEXRD's image series take their frames from unchanged."""
    while _is_hexrd(ims, "baseclass", "ImageSeries") or _is_hexrd(ims, "omega", "OmegaImageSeries"):
        ims = ims._adapter
    return ims


def _is_hexrd(ims: object, module: str, name: str) -> bool:
    """Whether an object is of a class of HEXRD itself: a subclass may change its frames."""
    homes = ("hexrd.core.imageseries", "hexrd.imageseries")
    return any(type(ims) is loaded(f"{home}.{module}", name) for home in homes)


def parsed(path: Path, parse: Callable[[Path], Archive]) -> Archive:
    """Return an archive, which is parsed unless this process has it."""
    key = (str(path), *fingerprint(path))
    with _lock:
        archive = _archives.get(key)
        if archive is None:
            archive = _archives[key] = parse(path)
        _latest[:] = [archive]
    return archive


def _parse(path: Path) -> Archive:
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            return _parse_arrays(arrays, path)
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _parse_arrays(arrays: NpzFile, path: Path) -> Archive:
    missing = [name for name in ("shape", "nframes", "dtype") if name not in arrays]
    if missing:
        raise ValueError(f"{path} is not a frame cache: it has no {' and no '.join(missing)}")
    shape = check_shape(arrays["shape"])
    name = _item(arrays, "dtype", path)
    dtype = check_native(name.decode() if isinstance(name, bytes) else name)
    frames = []
    for index in range(_count(arrays, path)):
        try:
            row, col, data = (arrays[f"{index}_{field}"] for field in ("row", "col", "data"))
        except (KeyError, ValueError, *DAMAGED) as error:
            raise ValueError(f"{path}: frame {index} cannot be read: {error}") from error
        frames.append(sparse_frame(row, col, data, shape, dtype, f"{path}: frame {index}"))
    return Archive(shape, dtype, frames)


def sparse_frame(
    row: np.ndarray,
    col: np.ndarray,
    data: np.ndarray,
    shape: tuple[int, int],
    dtype: np.dtype,
    where: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions in rising order, and the values, of a frame; check them."""
    _check_sparse(row, col, data, shape, where)
    flat = row.astype(np.int64) * shape[1] + col.astype(np.int64)
    return _in_order(flat, _cast(data, dtype, shape[1], flat, where), where)


def _item(arrays: NpzFile, name: str, path: Path) -> Any:
    """Return the only item of an array of the archive."""
    array = arrays[name]
    if array.size != 1:
        raise ValueError(f"{path}: {name} must be one value, got {array.size}")
    return array.item()


def _count(arrays: NpzFile, path: Path) -> int:
    """Return the number of frames, at most that of the arrays in the archive."""
    nframes = _item(arrays, "nframes", path)
    try:
        whole = not isinstance(nframes, bool) and int(nframes) == float(nframes)
    except (ValueError, TypeError, OverflowError):  # text, NaN, infinity
        whole = False
    if not whole or int(nframes) > len(arrays.files):
        raise ValueError(
            f"{path}: nframes must be a number of frames, got {nframes!r} in an archive of "
            f"{len(arrays.files)} arrays"
        )
    return int(nframes)


def _cast(
    data: np.ndarray, dtype: np.dtype, cols: int, pixels: np.ndarray, where: str
) -> np.ndarray:
    """Return values in the dtype of the archive; refuse a value that it cannot hold exactly."""
    same = data.dtype.newbyteorder("=") == dtype
    if same or (data.dtype.kind == dtype.kind == "f" and np.can_cast(data.dtype, dtype)):
        return data.astype(dtype, copy=False)
    if data.dtype.kind not in "biu":
        raise ValueError(f"{where} has dtype {data.dtype}, expected {dtype}")
    low, high = _whole_numbers(dtype)
    # In numpy 2 a comparison with a Python int is exact, also where the dtype cannot hold that.
    for index in np.flatnonzero((data < low) | (data > high))[:1]:
        row, col = divmod(int(pixels[index]), cols)
        raise ValueError(
            f"{where} has the value {data[index]} in row {row}, column {col}, which {dtype} "
            f"cannot hold"
        )
    return data.astype(dtype)


def _whole_numbers(dtype: np.dtype) -> tuple[int, int]:
    """Return the bounds within which a dtype holds every integer."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        most = min(2 ** (np.finfo(dtype).nmant + 1), int(np.finfo(dtype).max))
        return -most, most
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _check_sparse(
    row: np.ndarray, col: np.ndarray, data: np.ndarray, shape: tuple[int, int], where: str
) -> None:
    if not (row.ndim == 1 and row.shape == col.shape == data.shape):
        raise ValueError(
            f"{where} has {row.shape} rows, {col.shape} columns and {data.shape} values"
        )
    if row.dtype.kind not in "iu" or col.dtype.kind not in "iu":
        raise ValueError(f"{where} has positions of {row.dtype} and {col.dtype}, not integers")
    for name, index, length in (("row", row, shape[0]), ("column", col, shape[1])):
        if index.size and (index.min() < 0 or index.max() >= length):
            raise ValueError(
                f"{where} has a pixel in {name} {index.min() if index.min() < 0 else index.max()}"
                f" of {length}"
            )


def _in_order(pixels: np.ndarray, values: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Sort by position; values at the same one add up, as in a sparse matrix."""
    rising = np.diff(pixels) > 0
    if rising.all():
        return pixels, values
    order = np.argsort(pixels, kind="stable")
    pixels, values = pixels[order], values[order]
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    return pixels[starts], _sums(values, starts, where)


def _sums(values: np.ndarray, starts: np.ndarray, where: str) -> np.ndarray:
    """Return the sums of the runs of values that begin at ``starts``."""
    if values.dtype.kind not in "iu":
        return np.add.reduceat(values, starts, dtype=values.dtype)
    exact = np.add.reduceat(values.astype(object), starts)
    low, high = _whole_numbers(values.dtype)
    outside = [total for total in exact if not low <= total <= high]
    if outside:
        raise ValueError(
            f"{where} has several values for one pixel, and {values.dtype} cannot hold their sum "
            f"{outside[0]}"
        )
    return exact.astype(values.dtype)
