"""zarr arrays, given as an object, or as the path of an array or of a group that holds one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load, loaded
from ..series.base import Source
from ..series.files import FileSource
from .zarr_store import OpenArray

if TYPE_CHECKING:
    import zarr
    from zarr.abc.codec import Codec
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer
    from zarr.storage import StorePath

# Bytes before the data of a chunk of blosc.
BLOSC_HEADER = 16


class ZarrSource(Source):
    """A zarr array (frames, rows, cols)."""

    def __init__(self, array: zarr.Array) -> None:
        self.set_layout(array.shape, array.dtype, "a zarr array")
        check_chunks(array)
        self.frame_unit = min(array.chunks[0], self.nframes)
        self.row_unit = array.chunks[1] if array.chunks[1] < self.shape[0] else None
        # For the chunks that zarr decodes at the same time: their compressed and decoded bytes.
        self.buffers, self.stored = 1.5, 1
        self._array = OpenArray(guarded(array))

    @classmethod
    def accepts(cls, ims: object) -> bool:
        array = loaded("zarr", "Array")
        return array is not None and isinstance(ims, array)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array.read(start, stop, first, last)]

    def frames_without_data(self) -> np.ndarray:
        return self._array.store.frames_without_data()


class ZarrPathSource(FileSource, ZarrSource):
    """The zarr array at a path, or the array of that name in the group at a path."""

    has_datasets = True
    handles = ("_array",)

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        FileSource.__init__(self, path, dataset=dataset)
        ZarrSource.__init__(self, open_array(self.path, dataset))
        self._known = self._array.known

    def open(self) -> None:
        self._array = OpenArray(guarded(open_array(self.path, **self.parameters)), self._known)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return guarded(open_array(path, dataset, 2))[...]


def open_array(path: Path, dataset: str = "", ndim: int = 3) -> zarr.Array:
    """Open the array at a path, or the array of a name in a group.

    Raises
    ------
    ValueError
        If there is none; the message says why.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    zarr = load("zarr")
    with _reading_metadata(path):
        node = zarr.open(path, mode="r")
    if dataset:
        with _reading_metadata(path):
            node = node.get(dataset.strip("/")) if isinstance(node, zarr.Group) else None
        if not isinstance(node, zarr.Array):
            raise ValueError(f"{path} has no array {dataset!r}")
    return node if isinstance(node, zarr.Array) else _only_array(node, path, ndim)


@contextmanager
def _reading_metadata(path: Path) -> Iterator[None]:
    """Turn every error that metadata can lead to into one kind of error."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path} is no zarr array or group: {error}") from error
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is no zarr array or group that can be read: {type(error).__name__}: {error}"
        ) from error


def check_chunks(array: zarr.Array) -> None:
    """Refuse chunks without pixels, which zarr's metadata may claim."""
    for lengths in (array.chunks, array.shards or (1,)):
        if min(lengths) < 1:
            raise ValueError(f"the zarr array {array.store_path} has chunks of shape {lengths}")


def guarded(array: zarr.Array) -> zarr.Array:
    """Return an array that refuses chunks of blosc that are shorter than they should be.

    Blosc's library trusts the length in a chunk's header: of a chunk that was cut off it reads the
    memory behind it, which may hold an older chunk that fits. The array is read-only as well: a
    store that can be written to creates its directory again where it is missing.
    """
    codecs = getattr(array.metadata, "codecs", ())
    checked = tuple(map(checking, codecs))
    where = _read_only(array.store_path)
    if checked == codecs and where is array.store_path:
        return array
    zarr = load("zarr")
    metadata = array.metadata if checked == codecs else replace(array.metadata, codecs=checked)
    return zarr.Array(zarr.AsyncArray(metadata, where))


def _read_only(where: StorePath) -> StorePath:
    """Return the place of an array in a store that writes nothing, if it is a directory."""
    storage, store = load("zarr.storage"), where.store
    if store.read_only or not isinstance(store, storage.LocalStore):
        return where
    return storage.StorePath(store.with_read_only(True), where.path)


def checking(codec: Codec) -> Codec:
    """Return a codec that checks the length of blosc chunks, also of those within shards."""
    codecs = load("zarr.codecs")
    if isinstance(codec, codecs.ShardingCodec):
        return replace(codec, codecs=tuple(map(checking, codec.codecs)))
    if type(codec) is not codecs.BloscCodec:
        return codec
    return _checked_blosc()(**_parameters(codec))


def _parameters(codec: Codec) -> dict[str, object]:
    names = "typesize", "cname", "clevel", "shuffle", "blocksize"
    return {name: getattr(codec, name) for name in names}


@cache
def _checked_blosc() -> type[Codec]:
    """Return a subclass of zarr's codec for blosc, which needs zarr to be imported."""
    blosc = load("zarr.codecs").BloscCodec

    class CheckedBlosc(blosc):  # type: ignore[valid-type, misc]
        """Blosc that compares the length of a chunk with the one in its header."""

        async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
            check_length(chunk_bytes[:BLOSC_HEADER].to_bytes(), len(chunk_bytes))
            return await super()._decode_single(chunk_bytes, chunk_spec)

        def __reduce__(self) -> tuple:
            return checking, (blosc(**_parameters(self)),)

    return CheckedBlosc


def check_length(header: bytes, length: int) -> None:
    """Refuse a chunk that is shorter than its header says, in bytes 12 to 15.

    >>> check_length(bytes(12) + (20).to_bytes(4, "little"), 17)
    Traceback (most recent call last):
    ValueError: a chunk is damaged: it has 17 bytes of 20
    """
    expected = max(BLOSC_HEADER, int.from_bytes(header[12:16], "little"))
    if length < expected:
        raise ValueError(f"a chunk is damaged: it has {length} bytes of {expected}")


def _only_array(group: zarr.Group, path: Path, ndim: int) -> zarr.Array:
    """Return the only array of a group that has some number of dimensions."""
    with _reading_metadata(path):
        arrays = {f"/{name}": array for name, array in group.arrays() if array.ndim == ndim}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise ValueError(f"{path} has no {'three' if ndim == 3 else 'two'}-dimensional array")
    names = sorted(arrays)
    raise ValueError(f"{path} has {len(names)} arrays, name one as {path}::{names[0]}: {names}")
