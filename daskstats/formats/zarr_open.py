"""Open zarr arrays; each read checks their stores."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from ..series.files import naming_place
from ..series.leading import boxes
from .zarr_remote import RemoteArray
from .zarr_store import ArrayDirectory, ArrayStore, Known

if TYPE_CHECKING:
    import zarr


class OpenArray:
    """A zarr array that can be read as long as its store is in the state it had at the call.

    Parameters
    ----------
    array : zarr.Array
    known : Known, optional
        The state at the call, if that was in another process.

    Raises
    ------
    FileNotFoundError
        If its metadata are not in the store.
    ValueError
        If they are those of another array.
    """

    def __init__(self, array: zarr.Array, known: Known | None = None) -> None:
        self.array, self.store = array, store_of(array)
        self._recorded = self.store.recorded(array)
        self.name = self.store.name
        self.known = known or self.store.state()
        self.store.check(self.known)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        """Return rows of frames; raise an error unless the store was there all the time."""
        store, array = self.store, self._recorded
        if store.checks_before:
            store.check(self.known)
        with store.reading():
            lead = array.shape[:-2]
            try:
                blocks = [array[(*box, slice(first, last))] for box in boxes(start, stop, lead)]
            finally:  # chunks of another array may be impossible to decode
                store.check(self.known)
        store.check_chunks(self.known, (start, stop), (first, last))
        return [block.reshape(-1, *block.shape[-2:]) for block in blocks]

    def __getstate__(self) -> dict[str, object]:
        # Some stores open files when they are unpickled, and may fail. A worker may send it on.
        sent = vars(self).get("_sent") or load("cloudpickle").dumps(self.array)
        return {"known": self.known, "name": self.name, "_sent": sent}

    def __getattr__(self, name: str) -> zarr.Array | ArrayStore:
        # Python calls this for missing attributes only: where the array was sent.
        if name not in ("array", "store", "_recorded"):
            raise AttributeError(name)
        with vars(self).setdefault("_opening", RLock()):
            if name not in vars(self):
                with naming_place(self.name):
                    self.__init__(load("cloudpickle").loads(self._sent), self.known)  # type: ignore[misc]
                    del self._sent
        return vars(self)[name]


def store_of(array: zarr.Array) -> ArrayStore:
    """Return the directory of an array, or its part of any other store."""
    storage, store = load("zarr.storage"), array.store_path.store
    if isinstance(store, storage.LocalStore):
        return ArrayDirectory(array)
    if isinstance(store, (storage.FsspecStore, storage.ObjectStore)):
        return RemoteArray(array)
    return ArrayStore(array)
