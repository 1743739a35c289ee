"""HEXRD frame caches in HDF5 (``.fch5``): all sparse frames in two long datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..series.base import check_native, check_shape
from ..series.sparse import SparseFrame
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

    uses_h5py = True

    @staticmethod
    def parse(path: Path) -> Archive:
        with hdf5_lock(), open_file(path) as file:
            shape, dtype, spans = _layout(file, path)
        values = spans[:, 1] - spans[:, 0]
        return Archive(shape, dtype, values, partial(_read_frames, path, spans, shape, dtype))


def is_frame_cache(file: h5py.File) -> bool:
    """Whether an open file is such a frame cache."""
    return MARK in file.attrs


def _layout(file: h5py.File, path: Path) -> tuple[tuple[int, int], np.dtype, np.ndarray]:
    """Return shape and dtype of a frame, and the first and last position of each frame.

    A file that is no frame cache is refused.
    """
    version = file.attrs.get(MARK)
    if version != VERSION:
        found = f"has no attribute {MARK}" if version is None else f"has {MARK} {version}"
        raise ValueError(f"{path} is not a frame cache of version {VERSION}: it {found}")
    missing = [name for name in NAMES if name not in file]
    if missing:
        raise ValueError(f"{path} is not a frame cache: it has no {' and no '.join(missing)}")
    for name in NAMES[-3:]:
        check_filters(file[name])
    with _damaged(path):
        shape, dtype = check_shape(file["shape"][()].tolist()), text_of(file["dtype"][()])
        return shape, check_native(dtype), _spans(file, path)


def _spans(file: h5py.File, path: Path) -> np.ndarray:
    """Return the first and last position of each frame in the long datasets, checked."""
    data, indices, ids = (file[name] for name in ("data", "indices", "frame_ids"))
    total, nframes = len(data), int(file["nframes"][()])
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
    spans = ids[()].reshape(nframes, 2).astype(np.int64)
    wrong = (spans[:, 0] < 0) | (spans[:, 0] > spans[:, 1]) | (spans[:, 1] > total)
    for index in np.flatnonzero(wrong)[:1]:
        first, last = spans[index].tolist()
        raise ValueError(f"{path}: frame {index} is at {first} to {last} of {total} values")
    return spans


def _read_frames(
    path: Path, spans: np.ndarray, shape: tuple[int, int], dtype: np.dtype, start: int, stop: int
) -> list[SparseFrame]:
    """Read frames: at once if they follow one another, as they do unless they were edited."""
    wanted, frames = spans[start:stop].tolist(), []
    whole = all(end == first for (_, end), (first, _) in pairwise(wanted))
    runs = [(wanted[0][0], wanted[-1][1])] if whole else wanted
    with hdf5_lock(), open_file(path) as file, _damaged(path):
        parts = [(file["indices"][a:b], file["data"][a:b, 0]) for a, b in runs]
    for index, (first, last) in enumerate(wanted):
        indices, data = parts[0 if whole else index]
        part = slice(first - wanted[0][0], last - wanted[0][0]) if whole else slice(None)
        row, col = indices[part].T
        where = f"{path}: frame {start + index}"
        frames.append(sparse_frame(row, col, data[part], shape, dtype, where))
    return frames


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Name the file in an error of reading it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} is damaged or cut off: {error}") from error


def text_of(value: np.ndarray) -> str:
    """Return the text of a dataset that holds one.

    >>> text_of(np.array(b"uint16")), text_of(np.array(["uint16"], object))
    ('uint16', 'uint16')
    """
    item = np.asarray(value).reshape(-1)[0]
    return item.decode() if isinstance(item, bytes) else str(item)
