"""HEXRD frame caches in HDF5 (``.fch5``): all sparse frames in two long datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..series.base import check_native, check_shape
from .framecache import Archive, FrameCacheSource, sparse_frame
from .hdf5_files import check_filters, open_file
from .hdf5_lock import hdf5_lock

if TYPE_CHECKING:
    import h5py

# The attribute that marks such a file, and its only value so far.
MARK, VERSION = "HEXRD_FRAMECACHE_VERSION", 1

NAMES = ("shape", "nframes", "dtype", "frame_ids", "data", "indices")


class Fch5Source(FrameCacheSource):
    """A frame cache in HDF5: values and positions of all frames, and where each frame begins."""

    @staticmethod
    def parse(path: Path) -> Archive:
        with hdf5_lock(), open_file(path) as file:
            arrays = _read_all(file, path)
        shape = check_shape(arrays["shape"].tolist())
        dtype = check_native(text_of(arrays["dtype"]))
        spans = _spans(arrays, path)
        frames = []
        for index, (first, last) in enumerate(spans.tolist()):
            row, col = arrays["indices"][first:last].T
            values = arrays["data"][first:last, 0]
            where = f"{path}: frame {index}"
            frames.append(sparse_frame(row, col, values, shape, dtype, where))
        return Archive(shape, dtype, frames)


def is_frame_cache(file: h5py.File) -> bool:
    """Whether an open file is such a frame cache."""
    return MARK in file.attrs


def _read_all(file: h5py.File, path: Path) -> dict[str, np.ndarray]:
    """Return the content of the datasets, or refuse a file that is no frame cache."""
    version = file.attrs.get(MARK)
    if version != VERSION:
        found = f"has no attribute {MARK}" if version is None else f"has {MARK} {version}"
        raise ValueError(f"{path} is not a frame cache of version {VERSION}: it {found}")
    missing = [name for name in NAMES if name not in file]
    if missing:
        raise ValueError(f"{path} is not a frame cache: it has no {' and no '.join(missing)}")
    for name in NAMES[-3:]:
        check_filters(file[name])
    try:
        return {name: np.asarray(file[name][()]) for name in NAMES}
    except OSError as error:
        raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _spans(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Return the first and last position of each frame in the long datasets, checked."""
    data, indices, ids = (arrays[name] for name in ("data", "indices", "frame_ids"))
    total, nframes = len(data), int(arrays["nframes"])
    if data.shape != (total, 1) or indices.shape != (total, 2):
        raise ValueError(
            f"{path}: data and indices have shapes {data.shape} and {indices.shape}, expected "
            f"(n, 1) and (n, 2)"
        )
    if ids.shape != (2 * nframes,) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: frame_ids has {ids.dtype} {ids.shape}, expected integers ({2 * nframes},) "
            f"for {nframes} frames"
        )
    spans = ids.reshape(nframes, 2)
    wrong = (spans[:, 0] < 0) | (spans[:, 0] > spans[:, 1]) | (spans[:, 1] > total)
    for index in np.flatnonzero(wrong)[:1]:
        first, last = spans[index].tolist()
        raise ValueError(f"{path}: frame {index} is at {first} to {last} of {total} values")
    return spans


def text_of(value: np.ndarray) -> str:
    """Return the text of a dataset that holds one.

    >>> text_of(np.array(b"uint16")), text_of(np.array(["uint16"], object))
    ('uint16', 'uint16')
    """
    item = np.asarray(value).reshape(-1)[0]
    return item.decode() if isinstance(item, bytes) else str(item)
