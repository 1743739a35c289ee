"""zarr arrays, given as an object, or as the path of an array or of a group that holds one."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from ..series.base import Choice, Source
from ..series.files import FileSource, Growth
from ..series.leading import decoded_together, flat_shape
from .placed import file_state
from .zarr_growth import GrowingArray
from .zarr_open import OpenArray, store_of
from .zarr_search import find_array, find_image, reading_metadata
from .zarr_store import ArrayDirectory

if TYPE_CHECKING:
    import zarr
    from zarr.abc.codec import Codec
    from zarr.abc.store import Store
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer
    from zarr.storage import StorePath

# Bytes before the data of a chunk of blosc.
BLOSC_HEADER = 16


class ZarrSource(Source):
    """A zarr array (..., rows, cols); all leading axes count as frames."""

    opens = (("zarr", "Array"),)

    def __init__(self, array: zarr.Array) -> None:
        self._set_array(array, flat_shape(array.shape, "a zarr array"))

    def _set_chosen(self, array: zarr.Array, choice: Choice) -> None:
        """Take over an array in a store; one of two axes is a frame."""
        self.choice = choice
        shape = array.shape
        self._set_array(array, (1, *shape) if len(shape) == 2 else flat_shape(shape, "an array"))

    def _set_array(self, array: zarr.Array, shape: tuple[int, ...]) -> None:
        self.set_layout(shape, array.dtype, "a zarr array")
        self.lead = array.shape[:-2]
        check_chunks(array)
        self.frame_unit, self.row_unit = decoded_together(array.shape, array.chunks)
        # For the chunks that zarr decodes at the same time: their compressed and decoded bytes.
        self.buffers, self.stored = 1.5, 1
        self._array = OpenArray(guarded(array))

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return self._array.read(start, stop, first, last)

    def frames_without_data(self) -> np.ndarray:
        return self._array.store.frames_without_data()


class ZarrGroupSource(ZarrSource):
    """The array of an open zarr group that is the series."""

    opens = (("zarr", "Group"),)

    def __init__(self, group: zarr.Group) -> None:
        self._set_chosen(*find_array(group, str(group.store_path)))


class ZarrStoreSource(ZarrSource):
    """The array in a store that is given as an object, such as tifffile's ``aszarr()``."""

    opens = (("zarr.abc.store", "Store"),)

    def __init__(self, store: Store) -> None:
        where = f"the store {type(store).__name__}"
        with reading_metadata(where):
            node = load("zarr").open(store, mode="r")
        self._set_chosen(*array_of(node, where))


class ZarrPathSource(FileSource, ZarrSource):
    """The zarr array at a path, or the array of that name in the group at a path.

    The path is that of a directory, or of a ``.zip`` file of one.
    """

    has_datasets = True
    handles = ("_array",)

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        FileSource.__init__(self, path, dataset=dataset)
        self._state = self._file_state()
        self._set_chosen(*open_array(self.path, dataset))
        self._known = self._array.known

    def _file_state(self) -> tuple[int, int] | None:
        """Return size and time of a zip file; a directory is compared by `OpenArray`."""
        return file_state(self.path) if self.path.is_file() else None

    def growth(self) -> Growth:
        growing = self._growing()
        fill = self._array.array.fill_value
        return super().growth() if growing is None else growing.growth(fill or 0)

    def growing_paths(self) -> tuple[Path, ...]:
        growing = self._growing()
        return super().growing_paths() if growing is None else (*growing.paths(),)

    def digest_of_frame(self, index: int) -> bytes | None:
        growing = self._growing()
        return super().digest_of_frame(index) if growing is None else growing.digest_of_frame(index)

    def _growing(self) -> GrowingArray | None:
        """Return the chunks as they were when the array was opened; none of archives and images."""
        array, store = self._array.array, self._array.store
        if not isinstance(store, ArrayDirectory) or array.ndim < 3:
            return None
        return GrowingArray(array, store, self._known)

    def storage_text(self) -> str:
        array = self._array.array
        chunks, shards = array.chunks, array.shards
        text = f"chunks of {' x '.join(map(str, chunks))}"
        text += f" in shards of {' x '.join(map(str, shards))}" if shards else ""
        names = [type(codec).__name__ for codec in array.compressors]
        codecs = [name.removeprefix("Checked").removesuffix("Codec").lower() for name in names]
        return f"{text}, {', '.join(codecs) or 'not compressed'}"

    def open(self) -> None:
        if self._state is not None and self._file_state() != self._state:
            raise self.changed("another archive")
        array, _ = open_array(self.path, **self.parameters)
        self._array = OpenArray(guarded(array), self._known)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    array = guarded(open_array(path, dataset, single=True)[0])
    with store_of(array).reading():
        return array[...]


def open_array(path: Path, dataset: str = "", single: bool = False) -> tuple[zarr.Array, Choice]:
    """Open the array at a path, or that of a name in a group; of a group the series in it.

    Parameters
    ----------
    path : path
        Of a directory, or of a zip file.
    dataset : str
        Of an array or a group in it.
    single : bool
        Whether one image is meant, and no series.

    Raises
    ------
    ValueError
        If there is none; the message says why.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with reading_metadata(path):
        if path.suffix == ".zip":
            node = _open_zip(path)
        else:  # a group may have metadata of its arrays that are older than theirs
            node = load("zarr").open(path, mode="r", use_consolidated=False)
    return array_of(node, str(path), dataset, single)


def array_of(
    node: zarr.Array | zarr.Group, where: str, dataset: str = "", single: bool = False
) -> tuple[zarr.Array, Choice]:
    """Return an array itself, that of a name in a group, or the only one that is a series."""
    zarr, name = load("zarr"), dataset.strip("/")
    if name:
        with reading_metadata(where):
            node = node.get(name) if isinstance(node, zarr.Group) else None
        if node is None:
            raise ValueError(f"{where} has no array {dataset!r}")
    if isinstance(node, zarr.Array):
        return node, Choice((f"/{name}",), "named" if name else "the only array")
    return (
        find_image(node, where) if single else find_array(node, where, f"/{name}" if name else "")
    )


def _open_zip(path: Path) -> zarr.Array | zarr.Group:
    """Open a zip file of the content of a store, or of its directory."""
    zarr, storage = load("zarr"), load("zarr.storage")
    store = storage.ZipStore(path, mode="r")
    with suppress(FileNotFoundError):
        return zarr.open(store, mode="r")
    with zipfile.ZipFile(path) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist() if "/" in name}
    if len(tops) != 1:
        raise FileNotFoundError("the zip file holds no store")
    return zarr.open(store, path=tops.pop(), mode="r")


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
