"""Scratch data that several processes share."""

import os
import socket
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import loaded
from . import liveness
from .directories import PREFIX, remove_stale
from .recorded import RecordedScratchStore
from .store import GroupManifest, ScratchStore

# Seconds between checks whether a worker still has results or tasks that use a shared directory.
LOOK = liveness.LEAVING / 2


class SharedScratchStore(RecordedScratchStore):
    """A store of several processes, in a directory with a name that they all know.

    `open` makes the directory, or finds it with the groups that dead processes have written. The
    store it returns, and every `GroupManifest`, uses the directory in each process that it is sent
    to; the last process that releases the directory removes it.

    Parameters
    ----------
    name : str
        Name of the directory; the same for tasks that write the same. It begins with the common
        part of the keys of these tasks, and a hyphen.
    """

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        self._lost = False

    def open(self) -> ScratchStore:
        """Return this process's store with the directory."""
        check_seen(self.place)
        directory = self.place / f"{PREFIX}{self.name}"
        remove_stale(self.place, keep=directory)
        if directory not in _stores:
            liveness.wait_for_release(directory)
        with _opening:
            known = _stores.get(directory)
            if known is not None:
                return known
            if not directory.exists():
                self._check_room()
            opened = copy(self)
            return opened._use(directory, liveness.acquire(directory, opened._create))

    def _use(self, directory: Path, lock: Path) -> "SharedScratchStore":
        """Use a directory until this store is deleted, or its tasks are gone."""
        token = self.name.partition("-")[0]
        self.directory = directory
        _stores[directory] = self
        end = weakref.finalize(self, _release, lock, token)
        if _known(token):
            arguments = directory, end, token
            threading.Thread(target=_watch, args=arguments, daemon=True).start()
        return self

    def remove(self, cause: BaseException | None = None) -> None:
        """Leave the directory to the processes that use it; a failed task may run again."""

    def write(self, start: int, frames: np.ndarray, count: int | None = None) -> GroupManifest:
        """Write a group as any store does, and record its manifest for other processes."""
        with self._using():
            try:
                return super().write(start, frames, count)
            except OSError:
                self._using()  # raises the error of a directory that is gone
                raise

    def _using(self) -> AbstractContextManager:
        assert self.directory is not None, "only an open store is used"
        if self._lost or not liveness.is_locked(self.directory):
            check_seen(self.place)
            raise FileNotFoundError(unseen(self.directory))
        return nullcontext()

    def __reduce__(self) -> Any:
        return _receive, (self.__getstate__(),)


_stores: "weakref.WeakValueDictionary[Path, SharedScratchStore]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _receive(state: dict[str, Any]) -> SharedScratchStore:
    """Return a store that was sent to this process, which has one for each directory."""
    store = SharedScratchStore.__new__(SharedScratchStore)
    store.__setstate__(state)
    directory = store.directory
    if directory is None:
        return store
    with _opening:
        known = _stores.get(directory)
        if known is not None:
            return known
        try:
            return store._use(directory, liveness.join(directory))
        except OSError:
            # The task that uses it raises the error; here it would end the worker's connection.
            store._lost = True
            return store


def _release(lock: Path, token: str) -> None:
    """Release a shared directory as soon as no result on a worker's own disk refers to it."""
    if _spilled(token):
        timer = threading.Timer(LOOK, _release, (lock, token))
        timer.daemon = True
        timer.start()
    else:
        liveness.release(lock)


def _spilled(token: str) -> bool:
    """Whether a worker of this process has results on its disk with keys that contain a token."""
    slow = [getattr(worker.data, "slow", ()) for worker in _workers_here()]
    return any(token in str(key) for keys in slow for key in list(keys))


def _watch(directory: Path, end: weakref.finalize, token: str) -> None:
    """Release a directory as soon as no worker of this process has tasks of its run.

    The store may live longer: the traceback of a failed or cancelled task refers to it.
    """
    while end.alive:
        time.sleep(LOOK)
        with _opening:
            if end.alive and not _known(token):
                _stores.pop(directory, None)
                end()


def _known(token: str) -> bool:
    """Whether a worker of this process knows of tasks with keys that end with a token."""
    every = (key for worker in _workers_here() for key in list(worker.state.tasks))
    return any((key[0] if isinstance(key, tuple) else key).endswith(token) for key in every)


def _workers_here() -> list:
    """Return the workers of clusters in this process."""
    worker = loaded("distributed.worker", "Worker")
    return list(worker._instances) if worker is not None else []


def check_seen(place: Path) -> None:
    """Raise NotADirectoryError if this worker does not see the directory for scratch data."""
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(unseen(place))


def unseen(path: Path) -> str:
    """Return the error of a directory that is not shared."""
    return (
        f"{path} is not there, or cannot be written to, on worker {socket.gethostname()}: "
        f"daskstats.scratch-directory must be a directory that the client and all workers share"
    )
