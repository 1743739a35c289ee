"""Frames of a growing series on disk, in row order: each is decoded once, and read often.

A median needs all frames of a row, so it is computed again from the first frame whenever there are
new ones. `GrowingFrames` appends these to scratch data, and gives all of them as a series of which
rows are read for little more than their own bytes.
"""

import json
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..memory.reservation import MemoryReservation
from ..planning.cuts import LARGEST_BLOCK
from ..planning.margins import enough, fetched, payload, with_losses
from ..planning.strategies import CHUNKS_IN_FLIGHT, CHUNKS_OF_LIMIT, LARGEST_CHUNK
from ..planning.values import Layout, MemoryLimitError, rounded_down, rounded_up
from ..series.base import Source, layout
from .recorded import KeptScratchStore
from .store import GroupManifest

# Frames of an array on disk: more than any series has, so that its metadata stay as they are.
CAPACITY = 1 << 40


class ScratchDiskError(OSError):
    """The disk for scratch data cannot be written to."""


class GrowingStore(KeptScratchStore):
    """A store with any number of groups, the last of which may have frames added to it."""

    def groups(self) -> list[GroupManifest]:
        """Return the groups that other processes have written, up to one that is not whole."""
        found: list[GroupManifest] = []
        while not found or found[-1].stop == len(found) * self.group:
            group = self.find_begun(len(found) * self.group)
            if group is None:
                break
            found.append(group)
        return found


class ScratchSource(Source):
    """The frames in a store, of which any rows can be read."""

    def __init__(self, store: GrowingStore, groups: list[GroupManifest]) -> None:
        self._store, self._groups = store, groups
        self.set_layout((groups[-1].stop, *store.shape[1:]), store.dtype)
        self.frame_unit = min(store.group, self.nframes)
        self.row_unit = store.height if store.height < self.shape[0] else None
        # For the chunks that zarr decodes at the same time: their compressed and decoded bytes.
        self.buffers, self.stored = 1.5, 1

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        block = np.empty((stop - start, last - first, self.shape[1]), self.dtype)
        size = self._store.group
        self._store.read_into(block, self._groups[start // size : -(-stop // size)], start, first)
        return [block]


class GrowingFrames:
    """All frames of a growing series so far, each decoded once.

    Parameters
    ----------
    directory : Path
        For the scratch data; those that an earlier run has left there are used.
    series : Source
        The frames so far.
    expected : int
        Frames that there will be, about.
    workers, limit : int
        Threads that decode frames, and the bytes that they may use together.
    compression : "lz4", "zstd" or "none"
        Of the scratch data.

    Raises
    ------
    MemoryLimitError
        If the memory limit is too small for the frames that are decoded together.

    Examples
    --------
    >>> import tempfile
    >>> from daskstats.series.arrays import ArraySource
    >>> frames = ArraySource(np.arange(24).reshape(4, 3, 2))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     growing = GrowingFrames(Path(place) / "frames", frames, 4, workers=2, limit=1 << 30)
    ...     growing.append(frames, 3)
    ...     growing.append(frames, 4)
    ...     growing.series()
    <ScratchSource: 4 frames of 3 x 2 int64>
    """

    def __init__(
        self,
        directory: Path,
        series: Source,
        expected: int,
        workers: int,
        limit: int,
        compression: str = "lz4",
    ) -> None:
        self._limit, shape = limit, layout(series, len(series))
        self._cut = planned = cut_frames(shape, expected, workers, limit)
        known = _cut_on_disk(directory, planned.workers, planned.piece)
        if known is not None and known.needed(shape) <= limit:
            self._cut = known
        self._nbytes = self._cut.needed(shape)
        store = GrowingStore(
            directory.parent,
            (CAPACITY, *series.shape),
            series.dtype,
            self._cut.group,
            self._cut.height,
            compression=compression,
            name=directory.name,
        ).open()
        assert isinstance(store, GrowingStore)
        self._store, self._groups = store, store.groups()

    def __len__(self) -> int:
        return self._groups[-1].stop if self._groups else 0

    def series(self) -> ScratchSource:
        """Return all frames that were appended."""
        return ScratchSource(self._store, list(self._groups))

    def append(self, series: Source, stop: int, whole_groups: bool = False) -> None:
        """Decode the frames of a series that follow those that are there, up to ``stop``.

        After an error of a frame, those in the groups before it are there.

        Parameters
        ----------
        series : Source
        stop : int
        whole_groups : bool
            Whether a rest that fills no group waits for more frames: a group is written as a whole.
        """
        done, size = len(self), self._store.group
        stop -= stop % size if whole_groups else 0
        if stop <= done:
            return
        self._check_same(series)
        self._store.needed = (stop - done) * layout(series, stop).frame_nbytes
        reservation = MemoryReservation(self._nbytes, self._limit)
        reservation.reserve()
        try:
            reservation.begin()
            starts = range(done - done % size, stop, size)
            for index, written in self._written(series, starts, stop):
                self._groups[starts[index] // size :] = [written]
        except MemoryError as error:
            raise MemoryLimitError(str(error)) from None
        finally:
            reservation.release()

    def _check_same(self, series: Source) -> None:
        """Refuse frames of another kind, which the series was replaced by."""
        kind, before = (series.shape, series.dtype), (self._store.shape[1:], self._store.dtype)
        if kind != before:
            (rows, cols), dtype = kind
            raise ValueError(
                f"{series!r} was replaced: its frames are {rows} x {cols} {dtype}, and were "
                f"{before[0][0]} x {before[0][1]} {before[1]}"
            )

    def _written(
        self, series: Source, starts: range, stop: int
    ) -> Iterator[tuple[int, GroupManifest]]:
        """Write groups, and yield those before the first that fails, whose error is raised."""
        with ThreadPoolExecutor(self._cut.workers, "daskstats-append") as pool:
            groups = [pool.submit(self._write, series, start, stop) for start in starts]
            try:
                wait(groups, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for index, group in enumerate(groups):
            if group.cancelled():
                break
            yield index, group.result()
        for group in groups:
            if not group.cancelled():
                group.result()

    def _write(self, series: Source, start: int, stop: int) -> GroupManifest:
        """Write a group with the frames that it has already, and those of a series."""
        rows, cols = series.shape
        frames = np.zeros((self._store.group, rows, cols), series.dtype)
        done, stop = max(start, len(self)), min(stop, start + len(frames))
        if done > start:
            self._store.read_into(frames[: done - start], self._groups[-1:], start, 0)
        for piece in series.pieces(done, stop, 0, rows, self._cut.piece):
            for block in piece:
                frames[done - start : done - start + len(block)] = block
                done += len(block)
        try:
            return self._store.write(start, frames, stop - start)
        except OSError as error:
            raise ScratchDiskError(*error.args) from error


@dataclass(frozen=True)
class Cut:
    """How growing frames are cut on disk, and by how many threads."""

    group: int
    """frames of a chunk"""
    height: int
    """rows of a chunk"""
    workers: int
    """threads that each write a group"""
    piece: int
    """frames that are decoded at once"""

    def needed(self, shape: Layout) -> int:
        """Return the memory of all threads."""
        chunk = self.group * self.height * shape.cols * shape.itemsize
        group = self.group * shape.frame_nbytes + fetched(shape, self.piece)
        return with_losses(self.workers * (group + CHUNKS_IN_FLIGHT * chunk))


def cut_frames(shape: Layout, expected: int, workers: int, limit: int) -> Cut:
    """Return the cut of growing frames within a memory limit.

    >>> shape = Layout(nframes=1, rows=1024, cols=1024, itemsize=2)
    >>> cut_frames(shape, expected=1000, workers=2, limit=1 << 30)
    Cut(group=57, height=17, workers=2, piece=1)
    """
    for count in range(workers, 0, -1):
        found = _largest_cut(shape, expected, count, limit)
        if found.needed(shape) <= limit:
            return found

    def alone(limit: int) -> Cut:
        return _largest_cut(shape, expected, 1, limit)

    least = enough(
        limit,
        needed=lambda more: alone(more).needed(shape),
        fits=lambda more: alone(more).needed(shape) <= more,
    )
    raise MemoryLimitError(
        f"frames of {shape.rows} x {shape.cols} that are added to a series need at least "
        f"{rounded_up(least)} ({shape.frame_unit} of them, which are decoded together), but the "
        f"memory limit is {rounded_down(limit)}: raise memory_limit"
    )


def _largest_cut(shape: Layout, expected: int, count: int, limit: int) -> Cut:
    """Return the cut of the largest groups and bands for a number of threads.

    It may need more than the limit if its groups are of as few frames as there can be.
    """
    room, row = payload(limit), shape.cols * shape.itemsize
    # Groups take a quarter of the limit, and bands of all frames at most another.
    chunk = min(LARGEST_CHUNK // 2, room // (count * CHUNKS_OF_LIMIT))
    group = min(LARGEST_BLOCK // 2, room // (4 * count)) // shape.frame_nbytes
    group = min(group, chunk // row, expected)
    group = max(group - group % shape.frame_unit, shape.frame_unit)
    height = min(chunk // group, room // (4 * count * expected)) // row
    return Cut(group, max(1, min(height, shape.rows)), count, shape.frame_unit)


def _cut_on_disk(directory: Path, workers: int, piece: int) -> Cut | None:
    """Return the cut of the frames that an earlier run has left in a directory."""
    try:
        metadata = json.loads((directory / "zarr.json").read_text())
        group, height, _ = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sane = all(type(length) is int and length > 0 for length in (group, height))
    return Cut(group, height, workers, piece) if sane else None
