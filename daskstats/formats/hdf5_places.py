"""Which HDF5 datasets are read at the places of their chunks, and where these are."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from ..series.base import SMALL_FRAME
from .hdf5_chunks import FileState, Places, handle_state
from .hdf5_decoders import CRASHING, Filters, find_decoder
from .hdf5_files import absolute, filter_names

if TYPE_CHECKING:
    import h5py


class Obstacle(Exception):
    """The reason why h5py has to read a dataset."""


def find_places(dataset: h5py.Dataset) -> Places | str:
    """Return the places of a dataset's chunks, or the reason why h5py has to read it."""
    try:
        _check_file(dataset.file)
        _check_dataset(dataset)
        state = handle_state(dataset.file.id.get_vfd_handle())
        return _contiguous(dataset, state) if dataset.chunks is None else _chunked(dataset, state)
    except Obstacle as reason:
        return str(reason)


def _check_file(file: h5py.File) -> None:
    """Refuse a file in which places are of no use."""
    if not hasattr(os, "preadv"):
        raise Obstacle("this system has no positional reads")
    if file.driver != "sec2":
        raise Obstacle(f"the file is opened with the driver {file.driver}")
    if file.mode != "r" or file.swmr_mode:
        raise Obstacle("the file is being written")
    if file.userblock_size:
        raise Obstacle("the file has a user block")


def _check_dataset(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that is stored elsewhere, in another type, or in small pieces."""
    if dataset.is_virtual:
        raise Obstacle("the dataset is virtual")
    if dataset.external:
        raise Obstacle("the data are in other files")
    standard = load("h5py.h5t").py_create(dataset.dtype)
    if dataset.dtype.kind not in "iuf" or not dataset.id.get_type().equal(standard):
        raise Obstacle(f"the stored type has to be converted to {dataset.dtype}")
    noun, shape = ("chunk", dataset.chunks) if dataset.chunks else ("frame", dataset.shape[-2:])
    nbytes = math.prod(shape) * dataset.dtype.itemsize
    if nbytes < 2 * SMALL_FRAME:  # 10 us of Python for each chunk, which bitshuffle decodes in 20
        raise Obstacle(f"a {noun} is small: {nbytes} bytes")


def _contiguous(dataset: h5py.Dataset, state: FileState) -> Places:
    """Return the place of a dataset that is in one piece."""
    offset, shape = dataset.id.get_offset(), _frame_shape(dataset)
    if offset is None:
        raise Obstacle("the dataset has no place of its own")
    offsets, sizes = np.array([[offset]]), np.array([[dataset.size * dataset.dtype.itemsize]])
    path = absolute(dataset.file)
    return Places(path, state, dataset.dtype, shape, shape, offsets, sizes)


def _frame_shape(dataset: h5py.Dataset) -> tuple[int, int, int]:
    *lead, rows, cols = dataset.shape
    return math.prod(lead), rows, cols


def _chunked(dataset: h5py.Dataset, state: FileState) -> Places:
    """Return the places of the chunks of a dataset."""
    *lead, rows, cols = dataset.chunks
    shape = _frame_shape(dataset)
    if cols != shape[2]:
        raise Obstacle(f"a chunk has {cols} columns, and a frame {shape[2]}")
    if len(lead) > 1 and math.prod(lead) > 1:
        raise Obstacle(f"a chunk extends over several of {len(lead)} leading axes")
    filters = _filters(dataset)
    decode = find_decoder(filters) if filters else None
    if filters and decode is None:
        raise Obstacle(f"nothing else decodes {', '.join(filter_names(dataset))}")
    offsets, sizes = _chunk_table(dataset, state)
    chunk = math.prod(lead), rows, cols
    full = math.prod(chunk) * dataset.dtype.itemsize
    if not filters and (sizes[offsets >= 0] != full).any():
        raise Obstacle(f"chunks that are not compressed have other sizes than {full} bytes")
    fill = _fill_value(dataset) if (offsets < 0).any() else None
    crashing = any(name in CRASHING for name, _ in filters)
    path, dtype = absolute(dataset.file), dataset.dtype
    return Places(path, state, dtype, shape, chunk, offsets, sizes, decode, crashing, fill)


def _filters(dataset: h5py.Dataset) -> Filters:
    """Return names and parameters of the filters that the chunks of a dataset have passed."""
    properties = dataset.id.get_create_plist()
    return [
        (name, tuple(properties.get_filter(index)[2]))
        for index, name in enumerate(filter_names(dataset))
    ]


def _fill_value(dataset: h5py.Dataset) -> np.generic:
    """Return the value of chunks that were never written."""
    properties, h5d = dataset.id.get_create_plist(), load("h5py.h5d")
    never = properties.get_fill_time() == h5d.FILL_TIME_NEVER
    if never or properties.fill_value_defined() == h5d.FILL_VALUE_UNDEFINED:
        raise Obstacle("chunks were never written, and there is no value for them")
    return dataset.fillvalue


def _chunk_table(dataset: h5py.Dataset, state: FileState) -> tuple[np.ndarray, np.ndarray]:
    """Return places and sizes of the chunks, (along frames, along rows); -1 where there is none."""
    steps = dataset.chunks[:-1]
    grid = [-(-length // step) for length, step in zip(dataset.shape[:-1], steps, strict=True)]
    if math.prod(grid) > state[2]:  # bytes of the file
        raise Obstacle(f"{math.prod(grid)} chunks are far more than there are in the file")
    if not hasattr(dataset.id, "chunk_iter"):
        raise Obstacle("h5py is built with a library that does not list chunks")
    offsets, sizes = np.full(grid, -1, np.int64), np.zeros(grid, np.uint32)
    masks, last = set(), None

    def add(info: h5py.h5d.StoreInfo) -> None:
        nonlocal last
        where = tuple(start // step for start, step in zip(info.chunk_offset, steps, strict=False))
        offsets[where], sizes[where], last = info.byte_offset, info.size, info
        masks.add(info.filter_mask)

    dataset.id.chunk_iter(add)
    if masks - {0}:
        raise Obstacle("some chunks were stored without their filters")
    # Old libraries count chunks instead of pixels.
    if last is not None and dataset.id.get_chunk_info_by_coord(last.chunk_offset) != last:
        raise Obstacle("the library lists other chunks than it reads")
    return offsets.reshape(-1, grid[-1]), sizes.reshape(-1, grid[-1])
