"""Scratch data with a record of each group of frames, by which another process can use them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from .store import GroupManifest, ScratchStore


class RecordedScratchStore(ScratchStore):
    """A store with a file beside its chunks for each group that is written: its manifest."""

    def find_written(self, start: int, stop: int) -> GroupManifest | None:
        """Return the manifest of a group that another process has written, if there is one."""
        found = self.find_begun(start)
        return found if found is not None and found.stop == stop else None

    def find_begun(self, start: int) -> GroupManifest | None:
        """Return the manifest of a group of any number of frames, None if there is none."""
        with self._using():
            try:
                begin, end, chunks = json.loads(self._record(start).read_text())
                chunks = tuple((size, crc) for size, crc in chunks)
            except (OSError, ValueError, TypeError):
                return None
        sane = begin == start and type(end) is int and start < end <= start + self.group
        return GroupManifest(begin, end, chunks, self) if sane else None

    def _write(self, start: int, frames: np.ndarray, count: int | None = None) -> GroupManifest:
        # Chunks and the record appear whole, by a rename: two processes may write the same.
        found = super()._write(start, frames, count)
        part = self._record(start).with_suffix(f".{uuid4().hex}")
        part.write_text(json.dumps([found.start, found.stop, found.chunks]))
        part.replace(self._record(start))
        return replace(found, store=self)

    def _record(self, start: int) -> Path:
        assert self.directory is not None, "only an open store has records"
        return self.directory / f"written-{start}.json"


class KeptScratchStore(RecordedScratchStore):
    """A store that stays until its run has finished, also if processes are killed.

    Parameters
    ----------
    name : str
        Name of the directory; that of other frames, or of another call, has another name.
    """

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name

    def open(self) -> ScratchStore:
        """Return the store with its directory, which is made anew if it is cut in another way."""
        directory = self.place / self.name
        opened = self._copy()
        fresh = directory.with_name(f"{directory.name}-{uuid4().hex}")
        opened._array = opened._create(fresh)
        try:
            if not _same(directory / "zarr.json", fresh / "zarr.json"):
                self._check_room()
                shutil.rmtree(directory, ignore_errors=True)
                fresh.replace(directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        opened.directory, opened._array = directory, None
        return opened

    def find_begun(self, start: int) -> GroupManifest | None:
        """Return the manifest of a group, if all of its chunks are there."""
        found = super().find_begun(start)
        if found is None:
            return None
        try:
            for band in range(-(-self.shape[1] // self.height)):
                self._check(band, found)
        except (OSError, ValueError, IndexError):
            return None
        return found

    def remove(self, cause: BaseException | None = None) -> None:
        """Leave the directory to the next run; the checkpoint that it belongs to removes it."""


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False
