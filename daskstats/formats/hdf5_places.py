"""Which HDF5 datasets are read at the places of their chunks, and where these are."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import TYPE_CHECKING, cast

import numpy as np

from ..packages import load
from ..series.base import SMALL_FRAME
from ..series.leading import lengths
from .hdf5_chunks import FileState, Places, handle_state
from .hdf5_decoders import CRASHING, Filters, find_decoder
from .hdf5_files import CACHE_NBYTES, absolute, filter_names
from .hdf5_storage import Box, Mapping, Storage, lists_true_places
from .hdf5_tiles import Tile, TiledPlaces, View

if TYPE_CHECKING:
    import h5py


class Obstacle(Exception):
    """The reason why h5py has to read a dataset."""


def find_places(storage: Storage) -> Places | TiledPlaces | str:
    """Return the places of the chunks that a dataset has or shows, or why h5py has to read it."""
    try:
        return _tiled(storage) if storage.dataset.is_virtual else _places(storage.dataset)
    except Obstacle as reason:
        return str(reason)


def _places(dataset: h5py.Dataset) -> Places:
    """Return the places of a dataset's own chunks."""
    _check_file(dataset.file)
    _check_dataset(dataset)
    state = handle_state(dataset.file.id.get_vfd_handle())
    return _contiguous(dataset, state) if dataset.chunks is None else _chunked(dataset, state)


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
    _check_type(dataset)
    noun, shape = ("chunk", dataset.chunks) if dataset.chunks else ("frame", dataset.shape[-2:])
    nbytes = math.prod(shape) * dataset.dtype.itemsize
    if nbytes < 2 * SMALL_FRAME:  # 10 us of Python for each chunk, which bitshuffle decodes in 20
        raise Obstacle(f"a {noun} is small: {nbytes} bytes")


def _check_type(dataset: h5py.Dataset) -> None:
    standard = load("h5py.h5t").py_create(dataset.dtype)
    if dataset.dtype.kind not in "iuf" or not dataset.id.get_type().equal(standard):
        raise Obstacle(f"the stored type has to be converted to {dataset.dtype}")


def _contiguous(dataset: h5py.Dataset, state: FileState) -> Places:
    """Return the place of a dataset that is in one piece."""
    offset, shape = dataset.id.get_offset(), lengths(dataset.shape)
    if offset is None:
        raise Obstacle("the dataset has no place of its own")
    offsets, sizes = np.array([[offset]]), np.array([[dataset.size * dataset.dtype.itemsize]])
    path = absolute(dataset.file)
    return Places(path, state, dataset.dtype, shape, shape, offsets, sizes)


def _chunked(dataset: h5py.Dataset, state: FileState) -> Places:
    """Return the places of the chunks of a dataset."""
    *lead, rows, cols = dataset.chunks
    shape = lengths(dataset.shape)
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
    if not lists_true_places(dataset):
        raise Obstacle("the library lists wrong chunks where only an axis after the first may grow")
    offsets, sizes = np.full(grid, -1, np.int64), np.zeros(grid, np.uint32)
    masks, last, misplaced = set(), None, False

    def add(info: h5py.h5d.StoreInfo) -> None:
        nonlocal last, misplaced
        where = tuple(start // step for start, step in zip(info.chunk_offset, steps, strict=False))
        beyond = any(place >= length for place, length in zip(where, grid, strict=True))
        if beyond or offsets[where] >= 0:
            misplaced = True
            return
        offsets[where], sizes[where], last = info.byte_offset, info.size, info
        masks.add(info.filter_mask)

    dataset.id.chunk_iter(add)
    if misplaced:
        raise Obstacle("the library lists chunks outside of the dataset, or two in one place")
    if masks - {0}:
        raise Obstacle("some chunks were stored without their filters")
    # Old libraries count chunks instead of pixels.
    if last is not None and dataset.id.get_chunk_info_by_coord(last.chunk_offset) != last:
        raise Obstacle("the library lists other chunks than it reads")
    return offsets.reshape(-1, grid[-1]), sizes.reshape(-1, grid[-1])


# ---------------------------------------------------------------------- virtual datasets


def _tiled(storage: Storage) -> TiledPlaces:
    """Return the places of the chunks that a virtual dataset shows."""
    dataset, shape = storage.dataset, lengths(storage.shape)
    _check_file(dataset.file)
    _check_type(dataset)
    mappings = [mapping for mapping in storage.mappings if mapping.frames.size]
    tiles = {box: Tile(box, *np.full((2, shape[0]), -1)) for box in _boxes(mappings, shape)}
    sources = dict.fromkeys(mapping.storage for mapping in mappings)
    found = {source: _shown(source, dataset.dtype) for source in sources}
    views: dict[tuple[Places, tuple[int, int]], int] = {}
    for mapping in mappings:
        tile = tiles[cast("Box", mapping.box)]
        if (tile.shown[mapping.frames] >= 0).any():
            raise Obstacle("its mappings overlap")
        view = found[mapping.storage], mapping.corner
        tile.shown[mapping.frames] = views.setdefault(view, len(views))
        tile.own[mapping.frames] = mapping.own
    cached = CACHE_NBYTES // len(storage.mappings)
    every = [View(*view) for view in views]
    units = storage.frame_unit, storage.edges
    return TiledPlaces(dataset.dtype, shape, *units, cached, every, [*tiles.values()])


def _boxes(mappings: list[Mapping], shape: tuple[int, int, int]) -> list[Box]:
    """Return the boxes of pixels that make up each frame; anything else would be fill values."""
    frames, filled = Counter[Box](), np.zeros(shape[1:], bool)
    for mapping in mappings:
        if isinstance(mapping.box, str):
            raise Obstacle(mapping.box)
        frames[mapping.box] += mapping.frames.size
    if set(frames.values()) != {shape[0]}:
        raise Obstacle("its mappings do not show the same parts of every frame, each once")
    for top, bottom, left, right in frames:
        if filled[top:bottom, left:right].any():
            raise Obstacle("its mappings overlap")
        filled[top:bottom, left:right] = True
    if not filled.all():
        raise Obstacle("its mappings do not fill its frames")
    return list(frames)


def _shown(source: Storage, dtype: np.dtype) -> Places:
    """Return the places of a dataset that a virtual one of this dtype shows."""
    dataset = source.dataset
    name = f"{absolute(dataset.file).name}::{dataset.name}"
    if dataset.dtype != dtype:
        raise Obstacle(f"{name} has to be converted from {dataset.dtype.str} to {dtype.str}")
    try:
        return _places(dataset)
    except Obstacle as reason:
        raise Obstacle(f"{name}: {reason}") from None
