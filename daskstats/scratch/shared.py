"""Scratch data that several processes share."""

import json
import os
import shutil
import socket
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..packages import loaded
from . import liveness
from .directories import PREFIX, lock_files, remove_stale
from .location import no_room
from .store import GroupManifest, ScratchStore

# Seconds between looks whether a worker still has what holds a shared directory.
LOOK = 0.5


class SharedScratchStore(ScratchStore):
    """A spool of several processes, in a directory whose name they all know.

    `open` makes the directory, or finds it with the groups that dead processes have written. The
    store it returns, and every `GroupManifest`, holds the directory in each process that it is sent
    to; the last process that lets go of them removes it.

    Parameters
    ----------
    name : str
        Of the directory; the same for tasks that write the same. It begins with what the keys of
        these tasks have in common, and a hyphen.
    """

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        self._lost = False

    def open(self) -> ScratchStore:
        """Return this process's spool with the directory."""
        check_seen(self.place)
        directory = self.place / f"{PREFIX}{self.name}"
        remove_stale(self.place, besides=directory)
        if directory not in _shared:
            liveness.wait_for_leavers(directory)
        with _sharing:
            return _shared.get(directory) or self._first(directory)

    def _first(self, directory: Path) -> "SharedScratchStore":
        free = shutil.disk_usage(self.place).free
        if free < self.needed and not directory.exists():
            raise OSError(no_room(self.needed, free, self.place))
        opened = copy(self)
        mark = liveness.hold(directory, opened._begin)
        return opened._held(directory, mark)

    def _begin(self, made: Path) -> None:
        self._create(made)
        self._metadata = (made / "zarr.json").read_bytes()

    def _held(self, directory: Path, mark: Path) -> "SharedScratchStore":
        token = self.name.partition("-")[0]
        self.directory = directory
        _shared[directory] = self
        end = weakref.finalize(self, _let_go, mark, token)
        lock_files.add(mark)
        if _known(token):
            arguments = directory, end, token
            threading.Thread(target=_watch, args=arguments, daemon=True).start()
        return self

    def remove(self, cause: BaseException | None = None) -> None:
        """Leave the directory to those that hold it; a task that has failed may run again."""

    def find_written(self, start: int, stop: int) -> "GroupManifest | None":
        """Return what another process has written of a group before it died, if anything."""
        with self._using():
            try:
                begin, end, chunks = json.loads(self._record(start).read_text())
            except (OSError, ValueError):
                return None
        found = GroupManifest(begin, end, tuple((size, seal) for size, seal in chunks), self)
        return found if (begin, end) == (start, stop) else None

    def _write(self, start: int, frames: np.ndarray) -> "GroupManifest":
        # Chunks and the record appear whole, by a rename: two processes may write the same.
        found = super()._write(start, frames)
        part = self._record(start).with_suffix(f".{uuid4().hex}")
        part.write_text(json.dumps([found.start, found.stop, found.chunks]))
        part.replace(self._record(start))
        return replace(found, spool=self)

    def write(self, start: int, frames: np.ndarray) -> "GroupManifest":
        """Write as any spool does, and a record of it for whoever has to do it again."""
        with self._using():
            try:
                return super().write(start, frames)
            except OSError:
                self._using()  # which tells if the directory is not there any more
                raise

    def _record(self, start: int) -> Path:
        assert self.directory is not None, "only an open spool has records"
        return self.directory / f"written-{start}.json"

    def _using(self) -> AbstractContextManager:
        assert self.directory is not None, "only an open spool is used"
        if self._lost or not liveness.is_held(self.directory):
            check_seen(self.place)
            raise FileNotFoundError(unseen(self.directory))
        return nullcontext()

    def __reduce__(self) -> Any:
        return _arrived, (self.__getstate__(),)


_shared: "weakref.WeakValueDictionary[Path, SharedScratchStore]" = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _arrived(state: dict[str, Any]) -> SharedScratchStore:
    """Return the shared spool that has been sent; each process has one for a directory."""
    spool = SharedScratchStore.__new__(SharedScratchStore)
    spool.__setstate__(state)
    directory = spool.directory
    if directory is None:
        return spool
    with _sharing:
        known = _shared.get(directory)
        if known is not None:
            return known
        try:
            return spool._held(directory, liveness.join(directory))
        except OSError:
            # Whoever uses it is told; here it would end the worker's connection.
            spool._lost = True
            return spool


def _let_go(mark: Path, token: str) -> None:
    """Let a shared directory go, but not while what holds it is only on a worker's own disk."""
    if _spilled(token):
        timer = threading.Timer(LOOK, _let_go, (mark, token))
        timer.daemon = True
        timer.start()
    else:
        liveness.let_go(mark)
        lock_files.discard(mark)


def _spilled(token: str) -> bool:
    """Whether a worker of this process has results on its disk whose keys have a token."""
    slow = [getattr(worker.data, "slow", ()) for worker in _workers_here()]
    return any(token in str(key) for keys in slow for key in list(keys))


def _watch(directory: Path, end: weakref.finalize, token: str) -> None:
    """Let a directory go as soon as no worker here has tasks of its run any more.

    A spool may live on then: the traceback of a task that has failed, or been cancelled, has it.
    """
    while end.alive:
        time.sleep(LOOK)
        with _sharing:
            if end.alive and not _known(token):
                _shared.pop(directory, None)
                end()


def _known(token: str) -> bool:
    """Whether a worker of this process knows of tasks whose keys have a token."""
    every = (key for worker in _workers_here() for key in list(worker.state.tasks))
    return any((key[0] if isinstance(key, tuple) else key).endswith(token) for key in every)


def _workers_here() -> list:
    """Return the workers of clusters that this process is."""
    worker = loaded("distributed.worker", "Worker")
    return list(worker._instances) if worker is not None else []


def check_seen(place: Path) -> None:
    """Raise NotADirectoryError if a worker does not see the directory for scratch data."""
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(unseen(place))


def unseen(path: Path | None) -> str:
    """Say that a directory is not shared."""
    return (
        f"{path} is not there, or cannot be written to, on worker {socket.gethostname()}: "
        f"daskstats.scratch-directory must be a directory that the client and all workers share"
    )
