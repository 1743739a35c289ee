"""How many frames of an HDF5 dataset are written while a program adds to it.

As in a zarr array, the shape may be changed before frames are written. A chunk is listed in the
file after it has been written, so the last frame with a chunk tells how far the writer is: that
frame is complete if its chunk is whole and its own. A chunk of several frames is complete when a
later one is listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from ..series.files import Growth, digest_of_part
from .hdf5_storage import Storage, lists_true_places

if TYPE_CHECKING:
    import h5py


def growth_of(parts: list[Storage]) -> Growth:
    """Return how many frames of some datasets are written, which follow one another.

    The caller has the lock of h5py.
    """
    edges = np.cumsum([0, *(part.nframes for part in parts)]).tolist()
    growing = Growth(0, 0)
    for part, edge in zip(parts, edges, strict=False):
        own = _growth_of_one(part)
        if own.begun:
            growing = Growth(edge + own.certain, edge + own.begun, own.fill, own.whole)
    return growing


def _growth_of_one(part: Storage) -> Growth:
    dataset, nframes = part.dataset, part.nframes
    fill = 0 if dataset.is_virtual else dataset.fillvalue
    stored = _stored(part)
    allocated = any(map(_allocated_before, stored))
    if not all(map(lists_true_places, stored)) or (allocated and dataset.file.swmr_mode):
        return Growth(0, nframes, fill)  # nothing but the values tells which frames are written
    if allocated and not dataset.is_virtual:
        return Growth(nframes, nframes, fill)  # the writer has closed the file
    (found,) = np.nonzero(part.written())
    begun = int(found[-1]) + 1 if found.size else 0
    unit = _unit(part)
    if unit == 0:
        return Growth(begun, begun, fill)
    whole = dataset.is_virtual or not begun or _has_all_chunks(dataset, begun - 1)
    return Growth(max(0, begun - 1) // unit * unit, begun, fill, whole)


def _has_all_chunks(dataset: h5py.Dataset, frame: int) -> bool:
    """Whether all chunks that have pixels of a frame are listed."""
    return all(place.byte_offset is not None for place in _chunks(dataset, frame))


def _chunks(dataset: h5py.Dataset, frame: int) -> Iterator[h5py.h5d.StoreInfo]:
    """Yield the places of all chunks that have pixels of a frame."""
    *lead, rows, cols = dataset.chunks
    index = np.unravel_index(frame, dataset.shape[:-2]) if lead else ()
    first = [int(each) // length * length for each, length in zip(index, lead, strict=True)]
    corners = product(*(range(0, dataset.shape[axis], n) for axis, n in ((-2, rows), (-1, cols))))
    return (dataset.id.get_chunk_info_by_coord((*first, *corner)) for corner in corners)


def digest_of_frame(part: Storage, frame: int) -> bytes | None:
    """Return a digest of bytes of a frame of a dataset, of its first chunk that is listed.

    The caller has the lock of h5py.
    """
    for mapping in part.mappings:
        (found,) = np.nonzero(mapping.frames == frame)
        if found.size and mapping.own.size:
            return digest_of_frame(mapping.storage, int(mapping.own[found[0]]))
    dataset = part.dataset
    if dataset.is_virtual or not lists_true_places(dataset):
        return None
    # Places are not those in the file where it has a user block, or is in several parts.
    if dataset.external or not part.opened or dataset.file.userblock_size:
        return None
    offset, nbytes = _place(dataset, frame)
    return None if offset is None else digest_of_part(part.files[0], offset, nbytes)


def _place(dataset: h5py.Dataset, frame: int) -> tuple[int | None, int]:
    """Return offset and length of the first bytes of a frame in the file; no offset: none."""
    if dataset.chunks is not None:
        listed = (each for each in _chunks(dataset, frame) if each.byte_offset is not None)
        first = next(listed, None)
        return (None, 0) if first is None else (first.byte_offset, first.size)
    begin, nbytes = dataset.id.get_offset(), prod(dataset.shape[-2:]) * dataset.dtype.itemsize
    return None if begin is None else begin + frame * nbytes, nbytes


def _stored(part: Storage) -> list[h5py.Dataset]:
    """Return the datasets that hold the frames: those that a virtual one shows, at any depth."""
    if not part.dataset.is_virtual:
        return [part.dataset]
    shown = dict.fromkeys(mapping.storage for mapping in part.mappings)
    return [dataset for storage in shown for dataset in _stored(storage)]


def _allocated_before(dataset: h5py.Dataset) -> bool:
    """Whether the file has places for frames that are not written."""
    early = load("h5py.h5d").ALLOC_TIME_EARLY
    return dataset.chunks is None or dataset.id.get_create_plist().get_alloc_time() == early


def _unit(part: Storage) -> int:
    """Return the frames that become complete together; 0 where a frame is exactly one chunk."""
    dataset = part.dataset
    if dataset.chunks is None:  # virtual: a frame has a part of a chunk, or several of them
        return max(2, part.frame_unit)
    *lead, rows, cols = dataset.chunks
    if (rows, cols) == dataset.shape[-2:] and all(length == 1 for length in lead):
        return 0
    return prod(dataset.shape[1:-2]) * lead[0] if lead else 1
