"""zarr arrays: given as such, or as the path of an array or of a group that holds one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import load, loaded
from ..series.base import FileSource, Source, check_count, check_native, check_shape
from .zarr_store import OpenArray

# Bytes before the data of a chunk of blosc.
BLOSC_HEADER = 16


class ZarrSource(Source):
    """A zarr array (frames, rows, cols)."""

    def __init__(self, array: Any) -> None:
        if array.ndim != 3:
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), "
                f"got a zarr array of shape {array.shape}"
            )
        self.nframes = check_count(array.shape[0])
        self.shape = check_shape(array.shape[1:])
        self.dtype = check_native(array.dtype)
        check_chunks(array)
        self.frame_unit = min(array.chunks[0], self.nframes)
        self.row_unit = array.chunks[1] if array.chunks[1] < self.shape[0] else None
        # What zarr holds of the chunks it decodes at the same time: compressed, and decoded.
        self.buffers, self.stored = 1.5, 1
        self._array = OpenArray(guarded(array))

    @classmethod
    def accepts(cls, ims: Any) -> bool:
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


def open_array(path: Path, dataset: str = "", ndim: int = 3) -> Any:
    """Open the array at a path, or the one of a name in a group.

    Raises
    ------
    ValueError
        If there is none; the message says why.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    zarr = load("zarr")
    with understanding(path):
        node = zarr.open(path, mode="r")
    if dataset:
        with understanding(path):
            node = node.get(dataset.strip("/")) if isinstance(node, zarr.Group) else None
        if not isinstance(node, zarr.Array):
            raise ValueError(f"{path} has no array {dataset!r}")
    return node if isinstance(node, zarr.Array) else only_array(node, path, ndim)


@contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Make one kind of error of all those that metadata can lead to."""
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


def check_chunks(array: Any) -> None:
    """Refuse chunks without pixels, which zarr's metadata may claim."""
    for lengths in (array.chunks, array.shards or (1,)):
        if min(lengths) < 1:
            raise ValueError(f"the zarr array {array.store_path} has chunks of shape {lengths}")


def guarded(array: Any) -> Any:
    """Return an array that refuses chunks of blosc that are shorter than they should be.

    Blosc's library goes by the length in a chunk's header: of a chunk that was cut off it reads
    what happens to lie behind it in memory, be it an older chunk that fits. Nor does it write: a
    store that can be written to makes its directory anew where it is missing.
    """
    codecs = getattr(array.metadata, "codecs", ())
    checked = tuple(map(checking, codecs))
    where = read_only(array.store_path)
    if checked == codecs and where is array.store_path:
        return array
    zarr = load("zarr")
    metadata = array.metadata if checked == codecs else replace(array.metadata, codecs=checked)
    return zarr.Array(zarr.AsyncArray(metadata, where))


def read_only(where: Any) -> Any:
    """Return the place of an array in a store that writes nothing, if it is a directory."""
    storage, store = load("zarr.storage"), where.store
    if store.read_only or not isinstance(store, storage.LocalStore):
        return where
    return storage.StorePath(store.with_read_only(True), where.path)


def checking(codec: Any) -> Any:
    """Return a codec that checks its chunks, if they are of blosc; of shards, those within."""
    codecs = load("zarr.codecs")
    if isinstance(codec, codecs.ShardingCodec):
        return replace(codec, codecs=tuple(map(checking, codec.codecs)))
    if type(codec) is not codecs.BloscCodec:
        return codec
    return _checked_blosc()(**_parameters(codec))


def _parameters(codec: Any) -> dict[str, Any]:
    names = "typesize", "cname", "clevel", "shuffle", "blocksize"
    return {name: getattr(codec, name) for name in names}


@cache
def _checked_blosc() -> Any:
    """Return the class of codecs that check, which only zarr's import makes possible."""
    blosc = load("zarr.codecs").BloscCodec

    class CheckedBlosc(blosc):  # type: ignore[valid-type, misc]
        """Blosc that compares the length of a chunk with the one in its header."""

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            check_length(chunk_bytes[:BLOSC_HEADER].to_bytes(), len(chunk_bytes))
            return await super()._decode_single(chunk_bytes, chunk_spec)

        def __reduce__(self) -> Any:
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


def only_array(group: Any, path: Path, ndim: int) -> Any:
    """Return the only array of a group that has some number of dimensions."""
    with understanding(path):
        arrays = {f"/{name}": array for name, array in group.arrays() if array.ndim == ndim}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise ValueError(f"{path} has no {'three' if ndim == 3 else 'two'}-dimensional array")
    names = sorted(arrays)
    raise ValueError(f"{path} has {len(names)} arrays, name one as {path}::{names[0]}: {names}")
