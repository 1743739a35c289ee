"""Whether the store of a zarr array is still there, and for which frames it has chunks.

A chunk that is missing reads as the fill value, and so do all chunks of a store that has vanished.
Missing chunks are legitimate as long as the metadata of the array are there, so these are looked
at around every read. A *slab* is all chunks (or shards) that have one index along the frames.
"""

import hashlib
import json
import os
import re
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from ..packages import load
from ..series.base import naming_place, place

# Slabs of a directory whose chunks are looked for one by one: some 3 s on a network drive. Beyond,
# a slab that has a directory of its own counts as written.
MOST_LOOKED_INTO = 10_000

# Frames of the longest series that is looked through for frames without data.
MOST_FRAMES = 10_000_000

# In the index of a shard: the place of a chunk that was never written. The index ends in a
# checksum of four bytes.
EMPTY_CHUNK, CHECKSUM_NBYTES = 2**64 - 1, 4


@dataclass(frozen=True)
class Known:
    """The facts about an array at the call. They hold as long as it is read."""

    digest: str
    """of its metadata but for attributes and the number of frames"""
    nframes: int
    """it may grow, but not shrink"""
    written: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """runs of slabs that had chunks, as (first, end), of what is known"""
    directory: tuple[str, int] | None = None
    """host and inode of its directory"""
    absent: frozenset[str] | None = None
    """keys of missing chunks of slabs that had others, if one listing tells"""
    time: int = 0
    """the time of the call, in ns since 1970"""


class OpenArray:
    """A zarr array that can be read as long as its store is in the state it had at the call.

    Parameters
    ----------
    array : zarr.Array
    known : Known, optional
        The facts at the call, if that was elsewhere.

    Raises
    ------
    FileNotFoundError
        If its metadata are not in the store.
    ValueError
        If they are those of another array.
    """

    def __init__(self, array: Any, known: Known | None = None) -> None:
        self.array, self.store = array, store_of(array)
        self.name = self.store.name
        self.known = known or self.store.facts()
        self.store.check(self.known)

    def read(self, start: int, stop: int, first: int, last: int) -> np.ndarray:
        """Return rows of frames; raise an error unless the store was there all the time."""
        self.store.check(self.known)
        block = self.array[start:stop, first:last]
        self.store.check(self.known)
        self.store.check_chunks(self.known, (start, stop), (first, last))
        return block

    def __getstate__(self) -> dict[str, Any]:
        # Some stores open files when they are unpickled, and may fail. A worker may send it on.
        sent = vars(self).get("_sent") or load("cloudpickle").dumps(self.array)
        return {"known": self.known, "name": self.name, "_sent": sent}

    def __getattr__(self, name: str) -> Any:
        # Python comes here for missing attributes only: where the array was sent.
        if name not in ("array", "store"):
            raise AttributeError(name)
        with vars(self).setdefault("_opening", RLock()):
            if name not in vars(self):
                with naming_place(self.name):
                    self.__init__(load("cloudpickle").loads(self._sent), self.known)  # type: ignore[misc]
                    del self._sent
        return vars(self)[name]


def store_of(array: Any) -> "ArrayStore":
    """Return the part of a store that belongs to an array: a directory, or any other of zarr's."""
    if isinstance(array.store_path.store, load("zarr.storage").LocalStore):
        return ArrayDirectory(array)
    return ArrayStore(array)


class ArrayStore:
    """The part of a store that belongs to one array."""

    def __init__(self, array: Any) -> None:
        self._path, self._length = array.store_path, array.shape[0]
        self._grid, self._shards = Grid.of(array), ShardIndex.of(array)
        self.key = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
        self._seen = b""

    @property
    def name(self) -> str:
        store = self._path.store
        if isinstance(store, load("zarr.storage").FsspecStore):
            return f"{store.fs.unstrip_protocol(store.path)}/{self._path.path}".rstrip("/")
        return str(self._path)

    def facts(self) -> Known:
        """Return the facts about the array as it is now."""
        return Known(*self._parse(self._metadata()))

    def check(self, known: Known) -> None:
        """Raise an error if the array is gone, or another one is in its place."""
        text = self._metadata()
        if text == self._seen:
            return
        digest, nframes = self._parse(text)
        if digest != known.digest:
            raise self._replaced(f"its {self.key} has changed")
        if nframes < known.nframes:
            raise self._replaced(f"it had {known.nframes} frames, and has {nframes}")
        self._seen = text

    def check_chunks(self, known: Known, frames: tuple[int, int], rows: tuple[int, int]) -> None:
        """Raise an error if chunks of rows of frames were removed since the call."""

    def frames_without_data(self) -> np.ndarray:
        """Return the frames none of whose chunks are there; none where to look is not cheap."""
        storage = load("zarr.storage")
        listed = storage.LocalStore, storage.MemoryStore, storage.ZipStore
        too_many = max(self._length, self._grid.nframes) > MOST_FRAMES
        if too_many or not isinstance(self._path.store, listed):
            return np.empty(0, np.int64)
        return self._missing(self._written())

    def _written(self) -> np.ndarray:
        """Return the slabs that have chunks."""
        prefix = f"{self._path.path}/" if self._path.path else ""
        keys = _wait_for(_collect(self._path.store.list_prefix(prefix)))
        return self._grid.slabs_of(key.removeprefix(prefix) for key in keys)[0]

    def _missing(self, written: np.ndarray) -> np.ndarray:
        """Return the frames without data, given the slabs that have chunks or shards."""
        frames = np.zeros((self._grid.counts[0], self._grid.nframes), bool)
        frames[written] = True
        if self._shards is not None:
            for slab in written.tolist():
                frames[slab] = self._frames_of_shards(self._shards, slab)
        return np.flatnonzero(~frames.reshape(-1)[: self._length])

    def _frames_of_shards(self, shards: "ShardIndex", slab: int) -> np.ndarray:
        """Return whether each frame of a slab of shards has a chunk in one of them."""
        written = np.zeros(shards.counts[0], bool)
        for key in self._grid.keys(slab):
            index = self._get(key, shards.nbytes)
            if index is not None:
                written |= shards.written(index)
        return np.repeat(written, self._grid.nframes // len(written))

    def _metadata(self) -> bytes:
        text = self._get(self.key)
        if text is None:
            raise self._gone(f"there is no {self.key}")
        return text

    def _parse(self, text: bytes) -> tuple[str, int]:
        """Return a digest of metadata, and the number of frames.

        Attributes may be written to at any time, and frames be added.
        """
        try:
            metadata = json.loads(text)
            nframes, *shape = metadata["shape"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.key} of the zarr array {self.name} is damaged") from error
        metadata = {**metadata, "shape": shape, "attributes": None}
        return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest(), nframes

    def _get(self, key: str, suffix: int = 0) -> bytes | None:
        """Return the value of a key, or its last bytes."""
        request = load("zarr.abc.store").SuffixByteRequest(suffix) if suffix else None
        prototype = load("zarr.core.buffer").default_buffer_prototype()
        found = _wait_for((self._path / key).get(prototype, request))
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

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self._directory = Path(array.store_path.store.root, array.path).absolute()
        self._state: tuple[int, ...] = ()
        self._inode = self._hold()

    @property
    def name(self) -> str:
        return str(self._directory)

    def _hold(self) -> int:
        """Return the inode of the directory, which no other one is given as long as this lives."""
        with self._naming():
            if not hasattr(os, "O_DIRECTORY"):
                return self._directory.stat().st_ino
            held = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, held)
        return os.fstat(held).st_ino

    def facts(self) -> Known:
        now, names = time.time_ns(), self._listing()
        slabs, numbers = self._grid.slabs_of(names)
        partial = slabs[numbers < prod(self._grid.counts[1:])].tolist()
        absent = None
        if self._grid.flat and len(partial) <= MOST_LOOKED_INTO:
            absent = frozenset(chain.from_iterable(map(self._grid.keys, partial))).difference(names)
        return replace(
            super().facts(),
            written=runs(slabs),
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
        low, high = frames[0] // self._grid.nframes, (frames[1] - 1) // self._grid.nframes + 1
        for first, end in known.written.tolist():
            for slab in range(max(low, first), min(high, end)):
                if any(self._was_removed(key, known) for key in self._grid.keys(slab, rows)):
                    frame = max(slab * self._grid.nframes, frames[0])
                    raise self._gone(f"the chunks of frame {frame} were removed after the call")

    def _was_removed(self, key: str, known: Known) -> bool:
        path = self._directory / key
        if path.exists():
            return False
        if known.absent is not None:
            return key not in known.absent
        # Removing a chunk, or a directory of chunks, changes the time of the directory it was in,
        # by a clock that advances every few milliseconds.
        holder = path.parent
        while not holder.exists():
            holder = holder.parent
        slabs = self._directory / self._grid.parent
        if not holder.is_relative_to(slabs) or (holder == slabs and not self._grid.flat):
            return True  # the slab had a directory at the call
        return changed(holder, known.time)

    def _written(self) -> np.ndarray:
        slabs, _ = self._grid.slabs_of(self._listing())
        if len(slabs) > MOST_LOOKED_INTO:
            return slabs
        return slabs[np.array([self._has_chunk(slab) for slab in slabs.tolist()], bool)]

    def _listing(self) -> list[str]:
        """Return the keys, or the beginnings of keys, in the directory that has all slabs."""
        names: list[str] = []
        gone = suppress(FileNotFoundError, NotADirectoryError)
        with gone, os.scandir(self._directory / self._grid.parent) as entries:
            names = [entry.name for entry in entries]
        prefix = f"{self._grid.parent}/" if self._grid.parent else ""
        return [prefix + name for name in names]

    def _has_chunk(self, slab: int) -> bool:
        return any((self._directory / key).exists() for key in self._grid.keys(slab))

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


# An index along the frames that occurs in no key by chance.
SOME_SLAB = 9_073_141_592_653_589


@dataclass(frozen=True)
class Grid:
    """How the chunks of an array, or its shards if it has any, are cut and named."""

    nframes: int
    """frames of a slab"""
    nrows: int
    """rows of a chunk"""
    counts: tuple[int, int, int]
    """slabs, and chunks of a slab along rows and columns"""
    encode: Callable[[tuple[int, int, int]], str]
    """the key of a chunk"""

    @classmethod
    def of(cls, array: Any) -> "Grid":
        lengths = array.shards or array.chunks
        counts = (-(-length // each) for length, each in zip(array.shape, lengths, strict=True))
        nframes = lengths[0] if array.shards else min(lengths[0], array.shape[0])
        return cls(nframes, lengths[1], tuple(counts), array.metadata.encode_chunk_key)

    def keys(self, slab: int, rows: tuple[int, int] | None = None) -> Iterator[str]:
        """Yield the keys of the chunks of a slab, or of those that have some of its rows."""
        first, last = rows or (0, self.counts[1] * self.nrows)
        chunks = range(first // self.nrows, (last - 1) // self.nrows + 1)
        for row, col in product(chunks, range(self.counts[2])):
            yield self.encode((slab, row, col))

    @cached_property
    def _around(self) -> tuple[str, str]:
        """The parts of a key before and after the index of a slab."""
        before, _, after = self.encode((SOME_SLAB, 0, 0)).partition(str(SOME_SLAB))
        return before, after

    @property
    def parent(self) -> str:
        """The directory that has something for each slab; "" for that of the array."""
        return self._around[0].rpartition("/")[0]

    @property
    def flat(self) -> bool:
        """Whether one directory has all chunks."""
        return "/" not in self._around[1]

    def slabs_of(self, keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the slabs that keys, or the beginnings of keys, belong to, in rising order.

        And the number of keys of each.
        """
        pattern = re.compile(re.escape(self._around[0]) + r"(\d{1,18})(?!\d)")
        slabs = [int(match[1]) for key in keys if (match := pattern.match(key))]
        found, numbers = np.unique(np.array(slabs, np.int64), return_counts=True)
        within = found < self.counts[0]
        return found[within], numbers[within]


@dataclass(frozen=True)
class ShardIndex:
    """The index at the end of a shard: 64-bit offset and length of each of its chunks."""

    counts: tuple[int, ...]
    """chunks of a shard along frames, rows and columns"""

    @classmethod
    def of(cls, array: Any) -> "ShardIndex | None":
        """Return that of an array with shards, if it is where and what zarr's own are."""
        if array.shards is None or len(array.metadata.codecs) != 1:
            return None
        codec, codecs = array.metadata.codecs[0], load("zarr.codecs")
        endian, *checksum = codec.index_codecs
        as_usual = (
            codec.index_location.value == "end"
            and endian == codecs.BytesCodec(endian="little")
            and list(map(type, checksum)) == [codecs.Crc32cCodec]
        )
        pairs = zip(array.shards, array.chunks, strict=True)
        return cls(tuple(shard // chunk for shard, chunk in pairs)) if as_usual else None

    @property
    def nbytes(self) -> int:
        return 16 * int(np.prod(self.counts)) + CHECKSUM_NBYTES

    def written(self, index: bytes) -> np.ndarray:
        """Return for each index along the frames whether one of its chunks was written."""
        if len(index) != self.nbytes:
            return np.ones(self.counts[0], bool)  # damaged: whoever reads it says so
        offsets = np.frombuffer(index[:-CHECKSUM_NBYTES], "<u8").reshape(*self.counts, 2)[..., 0]
        return (offsets != EMPTY_CHUNK).any(axis=(1, 2))


def runs(numbers: np.ndarray) -> np.ndarray:
    """Return (first, end) of the runs in rising numbers.

    >>> runs(np.array([0, 1, 2, 5])).tolist()
    [[0, 3], [5, 6]]
    """
    if not numbers.size:
        return np.empty((0, 2), np.int64)
    every = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return np.array([(run[0], run[-1] + 1) for run in every])


def changed(directory: Path, since: int) -> bool:
    """Return whether something was added to a directory or removed from it since a time."""
    try:
        return directory.stat().st_mtime_ns > since
    except FileNotFoundError:
        return True


def _wait_for(coroutine: Any) -> Any:
    return load("zarr.core.sync").sync(coroutine)


async def _collect(keys: Any) -> list[str]:
    return [key async for key in keys]
