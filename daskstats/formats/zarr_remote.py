"""Zarr arrays in stores of fsspec and obstore: which of their chunks are missing.

A chunk that is missing reads as the fill value. Where a store can be listed, it is listed once, at
the call: a chunk that was there then and is missing when it is read is an error. A plain HTTP
server cannot be listed: there a chunk that was never written and one that is lost look the same,
and a warning names the first chunk that the server does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import inf, prod
from typing import TYPE_CHECKING

import numpy as np

from ..arguments import runs, warn
from ..packages import load
from .addresses import hide_secrets
from .zarr_store import ArrayStore, Known

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

# Chunks of the largest array that is listed: S3 lists 1,000 in a request of some 0.1 s.
MOST_CHUNKS = 100_000

# Packages with errors of servers and connections that are no OSError.
CLIENTS = ("aiohttp", "botocore", "gcsfs", "obstore")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn the errors of clients into those of the system, which name the address."""
    try:
        yield
    except PermissionError as error:
        raise PermissionError(hide_secrets(f"{url} may not be read: {error}")) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise ConnectionError(hide_secrets(f"{url} cannot be read: {error}")) from error


def is_http(store: Store) -> bool:
    """Whether a store is a plain HTTP server, which cannot be listed."""
    filesystem = getattr(store, "fs", None)
    if filesystem is None:  # of obstore
        return type(getattr(store, "store", None)).__name__ == "HTTPStore"
    protocol = filesystem.protocol
    return bool({"http", "https"} & {protocol if isinstance(protocol, str) else "", *protocol})


class RemoteArray(ArrayStore):
    """An array in a store of fsspec or obstore."""

    checks_before = False  # a request for each read; the check after it sees the same

    def __init__(self, array: zarr.Array) -> None:
        super().__init__(array)
        self._answers = Answers()
        self._warned = False

    @cached_property
    def _state(self) -> Known:
        known = super().state()
        if is_http(self._path.store) or prod(self.grid.counts) > MOST_CHUNKS:
            return known
        keys = self._listed()
        every = (key for slab in range(self.grid.counts[0]) for key in self.grid.keys(slab))
        slabs = (*runs(self.grid.slabs_of(keys)[0]),)
        return replace(known, written=slabs, absent=frozenset(every).difference(keys))

    def state(self) -> Known:
        return self._state  # listed once

    def _listed(self) -> list[str]:
        with suppress(AttributeError):  # obstore keeps no listing
            self._path.store.fs.invalidate_cache()
        with reaching(self.name):
            return super()._listed()

    def recorded(self, array: zarr.Array) -> zarr.Array:
        zarr, storage = load("zarr"), load("zarr.storage")
        store = _recording_store()(self._path.store, self._answers)
        where = storage.StorePath(store, self._path.path)
        return zarr.Array(zarr.AsyncArray(array.metadata, where))

    @contextmanager
    def reading(self) -> Iterator[None]:
        with super().reading(), reaching(self.name):
            yield

    def hint(self) -> str:
        whole = self._answers.whole.copy()
        if not whole:
            return ""
        return f": of {min(whole)} the server gives more than the part that it is asked for"

    def check_chunks(self, known: Known, frames: tuple[int, int], rows: tuple[int, int]) -> None:
        """Raise an error if a chunk was missing that was there at the call; warn if none can tell.

        The keys of missing chunks are kept: a read in another thread may see them first.
        """
        if self._answers.whole:
            raise ValueError(f"the zarr array {self.name} cannot be decoded{self.hint()}")
        missing = {key.removeprefix(self._prefix) for key in self._answers.missing.copy()}
        if known.absent is not None:
            lost = sorted(missing - known.absent)
            if lost:
                raise self._gone(f"chunk {lost[0]} was there at the call")
        elif missing and not self._warned:
            self._warned = True
            warn(
                f"{self.name} has no chunk {min(missing)}, which counts as the fill value, as do "
                f"all that are missing: such a store is not listed, so that chunks that were never "
                f"written and chunks that are lost look the same"
            )

    def frames_without_data(self) -> np.ndarray:
        known = self._state
        if known.absent is None:
            return np.empty(0, np.int64)
        slabs = [np.arange(*run) for run in known.written]
        return self._missing(np.concatenate([np.empty(0, np.int64), *slabs]))


@dataclass
class Answers:
    """Keys to which a store gave another answer than the bytes that it was asked for."""

    missing: set[str] = field(default_factory=set)
    """those that it does not have"""
    whole: set[str] = field(default_factory=set)
    """those that came whole, though a part was asked for"""

    def note(self, key: str, found: Buffer | None, asked: ByteRequest | None) -> None:
        if found is None:
            self.missing.add(key)
        elif len(found) > _most_bytes(asked):
            self.whole.add(key)


def _most_bytes(asked: ByteRequest | None) -> float:
    """Return the number of bytes of a value that were asked for."""
    kinds = load("zarr.abc.store")
    if isinstance(asked, kinds.SuffixByteRequest):
        return int(asked.suffix)
    return int(asked.end - asked.start) if isinstance(asked, kinds.RangeByteRequest) else inf


@cache
def _recording_store() -> type[Store]:
    """Return a class of stores, which needs zarr to be imported."""
    wrapper = load("zarr.storage").WrapperStore

    class RecordingStore(wrapper):  # type: ignore[valid-type, misc]
        """A store that notes its answers.

        An error within a read would leave the tasks of other chunks behind.
        """

        def __init__(self, store: Store, answers: Answers) -> None:
            super().__init__(store)
            self.answers = answers

        def _with_store(self, store: Store) -> Store:
            return type(self)(store, self.answers)

        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            found = await super().get(key, prototype, byte_range)
            self.answers.note(key, found, byte_range)
            return found

        async def get_partial_values(
            self,
            prototype: BufferPrototype,
            key_ranges: Iterable[tuple[str, ByteRequest | None]],
        ) -> list[Buffer | None]:
            pairs = list(key_ranges)
            found = await super().get_partial_values(prototype, pairs)
            for (key, asked), value in zip(pairs, found, strict=True):
                self.answers.note(key, value, asked)
            return found

    return RecordingStore
