"""HEXRD frame caches: ``.npz`` archives of sparse frames."""

import io
import os
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from ..packages import loaded
from ..series.base import check_native, check_shape
from ..series.files import FileSource, fingerprint
from ..series.sparse import SparseFrame, SparseSource, sparse_nbytes
from .npz import DAMAGED, UNREADABLE, data_offset

# Frames of up to these bytes are read when the archive is opened, and kept: rows of them then cost
# only their pixels. Those of a larger archive are read where they are used.
MOST_KEPT = 64 << 20

# Bytes of the shortest header of an array in an archive.
SHORTEST_HEADER = 64

# The arrays of a frame.
FIELDS = "row", "col", "data"

ReadFrames = Callable[[int, int], list[SparseFrame]]


@dataclass(eq=False)
class Archive:
    """An archive of sparse frames."""

    shape: tuple[int, int]
    """rows and columns of a frame"""
    dtype: np.dtype
    """of the frames"""
    values: np.ndarray
    """int64: number of values that each frame stores, or more"""
    read: ReadFrames
    """returns frames from the first to the end"""
    frames: list[SparseFrame] | None = None
    """all of them, if they take little memory"""
    fingerprint: tuple = ()
    """of the file when it was opened"""

    def __post_init__(self) -> None:
        if self.nbytes <= MOST_KEPT and len(self.values):
            self.frames = self.read(0, len(self.values))

    @property
    def nbytes(self) -> int:
        """Bytes of all frames, at most."""
        return sparse_nbytes(self.values, self.dtype)


# One opened archive for each file, shared by all series of this process that read it.
_archives: weakref.WeakValueDictionary[tuple, Archive] = weakref.WeakValueDictionary()
_lock = threading.Lock()

# The archive used last outlives its series: in a pool of processes a series lives for one task.
_latest: list[Archive] = []


class FrameCacheSource(FileSource, SparseSource):
    """A frame cache: arrays ``{i}_row``, ``{i}_col``, ``{i}_data`` for frame i, and their shape.

    A small archive is read once per process. Reading some of its rows costs only their pixels.
    """

    handles = ("_archive",)

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._archive = archive = parsed(self.path, self.parse)
        self.set_layout((len(archive.values), *archive.shape), archive.dtype)
        self.values = archive.values
        if archive.frames is not None:
            self.row_unit, self.kept = 1, archive.nbytes

    def open(self) -> None:
        archive = parsed(self.path, self.parse)
        found = len(archive.values), archive.shape, archive.dtype
        if found != (self.nframes, self.shape, self.dtype):
            nframes, (rows, cols), dtype = found
            raise self.changed(f"{nframes} frames of {rows} x {cols} {dtype}")
        self._archive = archive

    def storage_text(self) -> str:
        count = f"sparse, at most {self.values.sum()} values"
        return count + (", kept in memory" if self.kept else "")

    @staticmethod
    def parse(path: Path) -> Archive:
        """Read the list of frames, and the frames themselves if they are few."""
        return _parse(path)

    def read_sparse(self, start: int, stop: int) -> list[SparseFrame]:
        archive = self._archive
        if archive.frames is not None:
            return archive.frames[start:stop]
        if fingerprint(self.path) != archive.fingerprint:
            raise ValueError(f"{self.path} has changed since it was opened")
        return archive.read(start, stop)


class SparseFramesSource(SparseSource):
    """An open frame cache of HEXRD: the sparse matrices that it keeps."""

    row_unit = 1

    def __init__(self, ims: Any) -> None:
        adapter = _adapter_of(ims)
        load = getattr(adapter, "_load_framelist_if_needed", None)
        if load is not None:  # earlier versions have loaded it
            load()
        self._frames = adapter._framelist
        self.set_layout((len(ims), *map(int, ims.shape)), ims.dtype)
        self.values = np.array([frame.nnz for frame in self._frames], np.int64)

    @classmethod
    def accepts(cls, ims: object) -> bool:
        return _is_hexrd(_adapter_of(ims), "load.framecache", "FrameCacheImageSeriesAdapter")

    def read_sparse(self, start: int, stop: int) -> list[SparseFrame]:
        frames = (self._frames[index].tocoo() for index in range(start, stop))
        return [
            sparse_frame(frame.row, frame.col, frame.data, self.shape, self.dtype, f"frame {index}")
            for index, frame in enumerate(frames, start)
        ]

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
    """Return an archive, which is opened unless this process has it."""
    found = fingerprint(path)
    with _lock:
        archive = _archives.get((str(path), found))
        if archive is None:
            archive = _archives[str(path), found] = parse(path)
            archive.fingerprint = found
        _latest[:] = [archive]
    return archive


def _parse(path: Path) -> Archive:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file, NpzFile(file) as arrays:
            missing = [name for name in ("shape", "nframes", "dtype") if name not in arrays]
            if missing:
                raise ValueError(
                    f"{path} is not a frame cache: it has no {' and no '.join(missing)}"
                )
            shape = check_shape(arrays["shape"])
            name = _item(arrays, "dtype", path)
            dtype = check_native(name.decode() if isinstance(name, bytes) else name)
            members = Members.of(archive, _count(arrays, path), path)
            values = members.most_values(arrays)
        return Archive(shape, dtype, values, partial(members.read, shape, dtype))
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut off: {error}") from error


class Members(NamedTuple):
    """Where the arrays of all frames are in an archive."""

    path: Path
    places: np.ndarray
    """int64 (frames, 3, 5): for row, column and data the offset of the local header, bytes as they
    are stored and as they are read, compression, and CRC-32"""

    @classmethod
    def of(cls, archive: zipfile.ZipFile, nframes: int, path: Path) -> "Members":
        """Look up the members of all frames in the directory of an archive."""
        places = np.empty((max(0, nframes), len(FIELDS), 5), np.int64)
        for index in range(nframes):
            for number, field in enumerate(FIELDS):
                try:
                    info = archive.getinfo(f"{index}_{field}.npy")
                except KeyError as error:
                    raise ValueError(f"{path}: frame {index} cannot be read: {error}") from error
                sizes = info.compress_size, info.file_size
                places[index, number] = (info.header_offset, *sizes, info.compress_type, info.CRC)
        return cls(path, places)

    def most_values(self, arrays: NpzFile) -> np.ndarray:
        """Return the number of values of each frame, or a few more: headers are not read for it."""
        if not len(self.places):
            return np.empty(0, np.int64)
        nbytes = np.maximum(0, self.places[:, :, 2] - SHORTEST_HEADER)
        # All frames are taken to have the dtypes of the first.
        items = [max(1, arrays[f"0_{field}"].itemsize) for field in FIELDS]
        return (nbytes // items).min(axis=1)

    def read(
        self, shape: tuple[int, int], dtype: np.dtype, start: int, stop: int
    ) -> list[SparseFrame]:
        """Read frames of a shape and dtype."""
        with self.path.open("rb", buffering=0) as file:
            return [self._frame(file, index, shape, dtype) for index in range(start, stop)]

    def _frame(
        self, file: io.FileIO, index: int, shape: tuple[int, int], dtype: np.dtype
    ) -> SparseFrame:
        where = f"{self.path}: frame {index}"
        try:
            row, col, data = (_member(file, *place) for place in self.places[index].tolist())
        except UNREADABLE as error:
            raise ValueError(f"{where} cannot be read: {error}") from error
        return sparse_frame(row, col, data, shape, dtype, where)


def _member(
    file: io.FileIO, offset: int, stored: int, length: int, compression: int, crc: int
) -> np.ndarray:
    """Read an array of an archive at its place."""
    file.seek(data_offset(file, offset))
    content = file.read(stored)
    if compression == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, length + 1)
    elif compression != zipfile.ZIP_STORED:
        raise ValueError(f"compression {compression} is not that of a frame cache")
    if len(content) != length or zlib.crc32(content) != crc:
        raise ValueError("it is damaged or cut off")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def sparse_frame(
    row: np.ndarray,
    col: np.ndarray,
    data: np.ndarray,
    shape: tuple[int, int],
    dtype: np.dtype,
    where: str,
) -> SparseFrame:
    """Return a frame, given rows, columns and values in any order; check them."""
    _check_sparse(row, col, data, shape, where)
    flat = row.astype(np.int64) * shape[1] + col.astype(np.int64)
    return SparseFrame(*_in_order(flat, _cast(data, dtype, shape[1], flat, where), where))


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
