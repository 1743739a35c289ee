"""Whether the store of a zarr array is still there, and for which frames it has chunks.

A chunk that is missing reads as the fill value, and so do all chunks of a store that has vanished.
Missing chunks are legitimate as long as the metadata of the array exist, so the metadata are
checked before and after every read. A *slab* is all chunks (or shards) of one index of each leading
axis.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..arguments import Span, runs
from ..packages import load
from ..series.files import place
from .addresses import without_secrets
from .placed import from_content
from .zarr_grid import Grid, ShardIndex

if TYPE_CHECKING:
    import zarr

# Most slabs of a directory in which chunks are looked up one by one: some 3 s on a network drive.
# Beyond, a slab that has its own directory counts as written.
MOST_LOOKED_INTO = 10_000

# Frames of the longest series that is searched for frames without data.
MOST_FRAMES = 10_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """The state of an array at the call, which must hold as long as it is read."""

    digest: str
    """of its metadata but for attributes and the number of frames"""
    length: int
    """of the first axis: it may grow, but not shrink"""
    written: tuple[Span, ...] = ()
    """known runs of slabs that had chunks, as (first, end)"""
    directory: tuple[str, int] | None = None
    """host and inode of its directory"""
    absent: frozenset[str] | None = None
    """keys of missing chunks in slabs that had others, if one directory lists all chunks"""
    time: int = 0
    """the time of the call, in ns since 1970"""


class ArrayStore:
    """The part of a store that belongs to one array."""

    checks_before = True
    """whether the metadata are read before each read of frames, too"""

    def __init__(self, array: zarr.Array) -> None:
        self._path = array.store_path
        self._prefix = f"{self._path.path}/" if self._path.path else ""
        self.grid, self._shards = Grid.of(array), ShardIndex.of(array)
        self.key = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
        self._seen = b""

    @property
    def name(self) -> str:
        store = self._path.store
        if isinstance(store, load("zarr.storage").FsspecStore):
            address = without_secrets(store.fs.unstrip_protocol(store.path))
            return f"{address}/{self._path.path}".rstrip("/")
        return str(self._path)

    def state(self) -> Known:
        """Return the present state of the array."""
        return Known(*self._parse(self._metadata()))

    def check(self, known: Known) -> None:
        """Raise an error if the array is gone, or another one is in its place."""
        text = self._metadata()
        if text == self._seen:
            return
        digest, length = self._parse(text)
        if digest != known.digest:
            raise self._replaced(f"its {self.key} has changed")
        if length < known.length:
            count = "frames" if len(self.grid.lead) == 1 else "indices along its first axis"
            raise self._replaced(f"it had {known.length} {count}, and has {length}")
        self._seen = text

    def recorded(self, array: zarr.Array) -> zarr.Array:
        """Return an array of the same store that notes the chunks that are missing, if need be."""
        return array

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors of a read into those that name the store: those of codecs name nothing."""
        try:
            yield
        except (FileNotFoundError, PermissionError, ConnectionError, TimeoutError):
            raise
        except Exception as error:
            if not from_content(error) or self.name in str(error):
                raise
            where = f"the zarr array {self.name} cannot be decoded"
            raise ValueError(f"{where}{self.hint()}: {error}") from error

    def hint(self) -> str:
        """Return why chunks of sound files may be impossible to decode."""
        return ""

    def check_chunks(self, known: Known, frames: tuple[int, int], rows: tuple[int, int]) -> None:
        """Raise an error if chunks of rows of frames were removed since the call."""

    def frames_without_data(self) -> np.ndarray:
        """Return the frames without any chunk; none where searching for them is not cheap."""
        storage = load("zarr.storage")
        listed = storage.LocalStore, storage.MemoryStore, storage.ZipStore
        too_many = self.grid.padded > MOST_FRAMES
        if too_many or not isinstance(self._path.store, listed):
            return np.empty(0, np.int64)
        return self._missing(self._written())

    def _written(self) -> np.ndarray:
        """Return the slabs that have chunks."""
        return self.grid.slabs_of(self._listed())[0]

    def _listed(self) -> list[str]:
        """Return all keys of the array in its store."""
        found = wait_for(collect(self._path.store.list_prefix(self._prefix)))
        return [key.removeprefix(self._prefix) for key in found]

    def _missing(self, written: np.ndarray) -> np.ndarray:
        """Return the frames without data, given the slabs that have chunks or shards."""
        there = np.zeros((self.grid.counts[0], *self.grid.sizes), bool)
        there[written] = True
        if self._shards is not None:
            for slab in written.tolist():
                there[slab] = self._frames_of_shards(self._shards, slab)
        return np.flatnonzero(~self.grid.frames_of(there))

    def _frames_of_shards(self, shards: ShardIndex, slab: int) -> np.ndarray:
        """Return whether each frame of a slab of shards has a chunk in one of them."""
        written = np.zeros(shards.counts[:-2], bool)
        for key in self.grid.keys(slab):
            index = self._get(key, shards.nbytes)
            if index is not None:
                written |= shards.written(index)
        for axis, size in enumerate(self.grid.sizes):
            written = np.repeat(written, size // shards.counts[axis], axis=axis)
        return written

    def _metadata(self) -> bytes:
        text = self._get(self.key)
        if text is None:
            raise self._gone(f"there is no {self.key}")
        return text

    def _parse(self, text: bytes) -> tuple[str, int]:
        """Return a digest of all metadata that must not change, and the length of the first axis.

        Attributes may be written at any time, and frames may be added.
        """
        try:
            metadata = json.loads(text)
            length, *shape = metadata["shape"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.key} of the zarr array {self.name} is damaged") from error
        metadata = {**metadata, "shape": shape, "attributes": None}
        return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest(), length

    def _get(self, key: str, suffix: int = 0) -> bytes | None:
        """Return the value of a key, or its last bytes."""
        request = load("zarr.abc.store").SuffixByteRequest(suffix) if suffix else None
        prototype = load("zarr.core.buffer").default_buffer_prototype()
        found = wait_for((self._path / key).get(prototype, request))
        return None if found is None else found.to_bytes()

    def _gone(self, why: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"the zarr array {self.name} is not there, or not any more: {why} (on {place()})"
        )

    def _replaced(self, why: str) -> ValueError:
        return ValueError(
            f"the zarr array {self.name} was replaced by another one since the call: {why}"
        )


class ArrayDirectory(ArrayStore):
    """The directory of an array in a store that is a directory."""

    def __init__(self, array: zarr.Array) -> None:
        super().__init__(array)
        self._directory = Path(array.store_path.store.root, array.path).absolute()
        self._state: tuple[int, ...] = ()
        self._inode = self._hold()

    @property
    def name(self) -> str:
        return str(self._directory)

    def _hold(self) -> int:
        """Return the inode of the directory; no other directory gets it as long as this lives."""
        with self._naming():
            if not hasattr(os, "O_DIRECTORY"):
                return self._directory.stat().st_ino
            held = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, held)
        return os.fstat(held).st_ino

    @property
    def places(self) -> tuple[Path, Path]:
        """The file of the metadata, and the directory with an entry for each first index."""
        return self._directory / self.key, self._directory / self.grid.parent

    def chunk_paths(self, slab: int) -> Iterator[Path]:
        """Yield the files of the chunks of a slab."""
        return (self._directory / key for key in self.grid.keys(slab))

    def state(self) -> Known:
        now, names = time.time_ns(), self._listing()
        slabs, numbers = self.grid.slabs_of(names)
        partial = slabs[numbers < prod(self.grid.counts[1:])].tolist()
        absent = None
        if self.grid.flat and len(partial) <= MOST_LOOKED_INTO:
            absent = frozenset(chain.from_iterable(map(self.grid.keys, partial))).difference(names)
        return replace(
            super().state(),
            written=(*runs(slabs),),
            directory=(socket.gethostname(), self._inode),
            absent=absent,
            time=now,
        )

    def check(self, known: Known) -> None:
        with self._naming():
            inode = self._directory.stat().st_ino
            file = (self._directory / self.key).stat()
        expected = {self._inode}
        if known.directory is not None and known.directory[0] == socket.gethostname():
            # Another host may number the same directories in another way.
            expected.add(known.directory[1])
        if expected != {inode}:
            raise self._replaced("its directory is not the same one")
        state = file.st_ino, file.st_mtime_ns, file.st_size
        if state != self._state:
            super().check(known)
            self._state = state

    def check_chunks(self, known: Known, frames: tuple[int, int], rows: tuple[int, int]) -> None:
        """Raise an error if chunks of rows of frames were removed since the call.

        Removing a directory takes its chunks one by one; any of them would read as fill values.
        """
        slabs, numbers = self.grid.slabs_with(*frames)
        for first, end in known.written:
            low, high = np.searchsorted(slabs, (first, end))
            for slab, frame in zip(slabs[low:high].tolist(), numbers[low:high], strict=True):
                if any(self._was_removed(key, known) for key in self.grid.keys(slab, rows)):
                    raise self._gone(f"the chunks of frame {frame} were removed after the call")

    def _was_removed(self, key: str, known: Known) -> bool:
        path = self._directory / key
        if path.exists():
            return False
        if known.absent is not None:
            return key not in known.absent
        # Removing a chunk, or a directory of chunks, changes the time of its parent directory, by a
        # clock that advances every few milliseconds.
        holder = path.parent
        while not holder.exists():
            holder = holder.parent
        slabs = self._directory / self.grid.parent
        if len(holder.parts) < len(slabs.parts) + self.grid.levels:
            return True  # the slab had a directory at the call
        try:
            return holder.stat().st_mtime_ns > known.time
        except FileNotFoundError:
            return True

    def _written(self) -> np.ndarray:
        slabs, _ = self.grid.slabs_of(self._listing())
        if len(slabs) > MOST_LOOKED_INTO:
            return slabs
        return slabs[np.array([self._has_chunk(slab) for slab in slabs.tolist()], bool)]

    def _listing(self) -> list[str]:
        """Return the keys, or the beginnings of keys, in the directories of all slabs."""
        found = [self.grid.parent]
        for _ in range(self.grid.levels or 1):
            found = [name for directory in found for name in self._entries(directory)]
        return found

    def _entries(self, directory: str) -> list[str]:
        names: list[str] = []
        gone = suppress(FileNotFoundError, NotADirectoryError)
        with gone, os.scandir(self._directory / directory) as entries:
            names = [entry.name for entry in entries]
        return [f"{directory}/{name}" if directory else name for name in names]

    def _has_chunk(self, slab: int) -> bool:
        return any(path.exists() for path in self.chunk_paths(slab))

    def _get(self, key: str, suffix: int = 0) -> bytes | None:
        try:
            with (self._directory / key).open("rb") as file:
                if suffix:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - suffix))
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._gone(f"there is no {error.filename}") from error


def wait_for(coroutine: Coroutine[object, object, T]) -> T:
    return load("zarr.core.sync").sync(coroutine)


async def collect(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]
