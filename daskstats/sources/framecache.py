"""HEXRD frame caches: ``.npz`` archives of sparse frames, made dense on demand."""

import os
import threading
import weakref
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .base import FileSource, check_count, check_native, check_shape, fingerprint


@dataclass(eq=False)
class Archive:
    """All frames of an archive, each as its non-zero pixels."""

    shape: tuple[int, int]
    """rows and columns of a frame"""
    dtype: np.dtype
    """of the frames"""
    pixels: list[np.ndarray]
    """for each frame the positions, row * cols + col, in rising order"""
    values: list[np.ndarray]
    """for each frame the values at those positions"""


# One parsed archive for each file, shared by all series of this process that read it.
_archives: weakref.WeakValueDictionary[tuple, Archive] = weakref.WeakValueDictionary()
_lock = threading.Lock()

# The one used last outlives its series: in a pool of processes a series lives for one task.
_latest: list[Archive] = []

# What reading a member of a damaged archive raises.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class FrameCacheSource(FileSource):
    """A frame cache: arrays ``{i}_row``, ``{i}_col``, ``{i}_data`` for frame i, and their shape.

    The whole archive is parsed once per process. Bands of rows cost no more than their share.
    """

    suffixes = (".npz",)
    row_unit = 1
    handles = ("_archive",)

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._archive = archive = parsed(self.path)
        self.nframes = check_count(len(archive.pixels))
        self.shape, self.dtype = archive.shape, archive.dtype

    def open(self) -> None:
        archive = parsed(self.path)
        found = len(archive.pixels), archive.shape, archive.dtype
        if found != (self.nframes, self.shape, self.dtype):
            nframes, (rows, cols), dtype = found
            raise ValueError(
                f"{self.path} has changed since the call: it holds {nframes} frames of "
                f"{rows} x {cols} {dtype}, and held {self!r}"
            )
        self._archive = archive

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        cols = self.shape[1]
        block = np.zeros((stop - start, last - first, cols), self.dtype)
        for flat, index in zip(block.reshape(stop - start, -1), range(start, stop), strict=True):
            pixels = self._archive.pixels[index]
            low, high = np.searchsorted(pixels, (first * cols, last * cols))
            flat[pixels[low:high] - first * cols] = self._archive.values[index][low:high]
        return [block]


def parsed(path: Path) -> Archive:
    """Return an archive, which is parsed unless this process has it."""
    key = (str(path), *fingerprint(path))
    with _lock:
        archive = _archives.get(key)
        if archive is None:
            archive = _archives[key] = _parse(path)
        _latest[:] = [archive]
    return archive


def _parse(path: Path) -> Archive:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            return _parse_arrays(arrays, path)
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _parse_arrays(arrays: Any, path: Path) -> Archive:
    missing = [name for name in ("shape", "nframes", "dtype") if name not in arrays]
    if missing:
        raise ValueError(f"{path} is not a frame cache: it has no {' and no '.join(missing)}")
    shape = check_shape(arrays["shape"])
    name = arrays["dtype"].item()
    dtype = check_native(name.decode() if isinstance(name, bytes) else name)
    pixels, values = [], []
    for index in range(int(arrays["nframes"].item())):
        try:
            row, col, data = (arrays[f"{index}_{field}"] for field in ("row", "col", "data"))
        except (KeyError, ValueError, *DAMAGED) as error:
            raise ValueError(f"{path}: frame {index} cannot be read: {error}") from error
        _check_sparse(row, col, data, shape, dtype, f"{path}: frame {index}")
        flat = row.astype(np.int64) * shape[1] + col.astype(np.int64)
        pixels_, values_ = _in_order(flat, data.astype(dtype, copy=False))
        pixels.append(pixels_)
        values.append(values_)
    return Archive(shape, dtype, pixels, values)


def _check_sparse(
    row: np.ndarray,
    col: np.ndarray,
    data: np.ndarray,
    shape: tuple[int, int],
    dtype: np.dtype,
    where: str,
) -> None:
    if not (row.ndim == 1 and row.shape == col.shape == data.shape):
        raise ValueError(
            f"{where} has {row.shape} rows, {col.shape} columns and {data.shape} values"
        )
    if row.dtype.kind not in "iu" or col.dtype.kind not in "iu":
        raise ValueError(f"{where} has positions of {row.dtype} and {col.dtype}, not integers")
    if data.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"{where} has dtype {data.dtype}, expected {dtype}")
    for name, index, length in (("row", row, shape[0]), ("column", col, shape[1])):
        if index.size and (index.min() < 0 or index.max() >= length):
            raise ValueError(
                f"{where} has a pixel in {name} {index.min() if index.min() < 0 else index.max()}"
                f" of {length}"
            )


def _in_order(pixels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by position; values at the same one add up, as in a sparse matrix."""
    rising = np.diff(pixels) > 0
    if rising.all():
        return pixels, values
    order = np.argsort(pixels, kind="stable")
    pixels, values = pixels[order], values[order]
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    return pixels[starts], np.add.reduceat(values, starts, dtype=values.dtype)
