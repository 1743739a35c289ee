"""zarr arrays: given as such, or as the path of an array or of a group that holds one."""

import os
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from .base import FileSource, Source, check_count, check_native, check_shape

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
        self.frame_unit = min(array.chunks[0], self.nframes)
        self.row_unit = array.chunks[1] if array.chunks[1] < self.shape[0] else None
        # What zarr holds of the chunks it decodes at the same time: compressed, and decoded.
        self.buffers = 1.5
        self._array = guarded(array)

    @classmethod
    def accepts(cls, ims: Any) -> bool:
        # An object of zarr's exists only where zarr has been imported.
        zarr = sys.modules.get("zarr")
        return zarr is not None and isinstance(ims, zarr.Array)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._array[start:stop, first:last]]


class ZarrPathSource(FileSource, ZarrSource):
    """The zarr array at a path, or the array of that name in the group at a path."""

    suffixes = (".zarr",)
    has_datasets = True

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        import zarr

        FileSource.__init__(self, path, dataset=dataset)
        try:
            node = zarr.open(self.path, mode="r")
        except FileNotFoundError as error:
            raise ValueError(f"{path} is no zarr array or group: {error}") from error
        if dataset:
            node = node.get(dataset.strip("/")) if isinstance(node, zarr.Group) else None
            if not isinstance(node, zarr.Array):
                raise ValueError(f"{path} has no array {dataset!r}")
        ZarrSource.__init__(self, node if isinstance(node, zarr.Array) else only_array(node, path))


def guarded(array: Any) -> Any:
    """Return an array that refuses chunks of blosc that are shorter than they should be.

    Blosc's library goes by the length in a chunk's header: of a chunk that was cut off it reads
    what happens to lie behind it in memory, be it an older chunk that fits.
    """
    codecs = getattr(array.metadata, "codecs", ())
    checked = tuple(map(checking, codecs))
    if checked == codecs:
        return array
    import zarr

    metadata = replace(array.metadata, codecs=checked)
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


def checking(codec: Any) -> Any:
    """Return a codec that checks its chunks, if they are of blosc; of shards, those within."""
    from zarr.codecs import BloscCodec, ShardingCodec

    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(map(checking, codec.codecs)))
    if type(codec) is not BloscCodec:
        return codec
    return _checked_blosc()(**_parameters(codec))


def _parameters(codec: Any) -> dict[str, Any]:
    names = "typesize", "cname", "clevel", "shuffle", "blocksize"
    return {name: getattr(codec, name) for name in names}


@cache
def _checked_blosc() -> Any:
    """Return the class of codecs that check, which only zarr's import makes possible."""
    from zarr.codecs import BloscCodec

    class CheckedBlosc(BloscCodec):
        """Blosc that compares the length of a chunk with the one in its header."""

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            check_length(chunk_bytes[:BLOSC_HEADER].to_bytes(), len(chunk_bytes))
            return await super()._decode_single(chunk_bytes, chunk_spec)

        def __reduce__(self) -> Any:
            return checking, (BloscCodec(**_parameters(self)),)

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


def only_array(group: Any, path: str | os.PathLike) -> Any:
    """Return the only three-dimensional array of a group."""
    arrays = {f"/{name}": array for name, array in group.arrays() if array.ndim == 3}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise ValueError(f"{path} has no three-dimensional array")
    names = sorted(arrays)
    raise ValueError(f"{path} has {len(names)} arrays, name one as {path}::{names[0]}: {names}")
