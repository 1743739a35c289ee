"""What tasks do: get their pixels, fold them, combine states, and finish images.

Nothing here knows dask: `graph` puts these functions and values into tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from . import runs
from .memory import Share, worker_room
from .outputs import Output
from .plan import MemoryLimitError, Range, mebibytes
from .scratch import DamagedScratchError, Spool, Written
from .sources import Source
from .sources.base import as_frames, check_dtype, check_frame
from .sources.foreign import check_plain
from .statistics import State, Statistic
from .statistics.base import copy_state


@dataclass(frozen=True)
class Pixels:
    """Rows of frames of a series that a task reads itself, some frames at a time."""

    series: Source
    start: int
    stop: int
    first: int
    last: int
    count: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return self.series.pieces(self.start, self.stop, self.first, self.last, self.count)


@dataclass(frozen=True)
class Kept:
    """Rows of frames that other tasks have read."""

    loads: Sequence[list[np.ndarray]]
    first: int
    last: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        if not all(self.loads):
            raise RuntimeError("frames that were kept in memory have been given back: compute anew")
        yield [block[:, self.first : self.last] for load in self.loads for block in load]


@dataclass(frozen=True)
class Grid:
    """Rows of the blocks of a dask array, a list of neighbours in a row for each run of frames."""

    blocks: Sequence[Sequence[np.ndarray]]
    runs: Sequence[Range]
    """first frame and end of each run"""
    shape: tuple[int, int]
    """of a frame in the blocks of a run, side by side"""
    dtype: np.dtype
    first: int
    last: int

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for row, run in zip(self.blocks, self.runs, strict=True):
            yield [self._block(row, *run)]

    def _block(self, row: Sequence[np.ndarray], start: int, stop: int) -> np.ndarray:
        for part in row:
            # Joined to others, it would lose its mask or its unit.
            check_plain(part, start, self.dtype)
        block = np.concatenate(row, axis=1) if len(row) > 1 else np.asarray(row[0])
        check_frame(block.shape, (stop - start, *self.shape), start)
        check_dtype(block.dtype, self.dtype, start)
        return as_frames(block[:, self.first : self.last], self.dtype)


@dataclass(frozen=True)
class Spooled:
    """Rows of all frames that other tasks have written to disk."""

    spool: Spool
    written: Sequence[Written]
    band: int
    """its number"""

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        try:
            yield [self.spool.read(self.band, self.written)]
        except DamagedScratchError:
            self.spool.remove()
            raise


def working(share: Share, function: Callable, *arguments: Any) -> Any:
    """Call a function while a run's share of the memory is held."""
    check_worker(share)
    with share.working():
        return function(*arguments)


def check_worker(share: Share) -> None:
    """Refuse to run a task on a worker that has less memory than the task was planned for.

    Raises
    ------
    MemoryLimitError
        If it was planned for the threads of a process with more memory.
    """
    worker = runs.current_worker()
    limit = worker.memory_manager.memory_limit if worker is not None else None
    if limit and share.nbytes > worker_room(limit):
        raise MemoryLimitError(
            f"this image was planned for the threads of one process, with {mebibytes(share.nbytes)}"
            f" of memory, but worker {worker.address} has {mebibytes(limit)}, of which tasks may "
            f"take {mebibytes(worker_room(limit))}: make the image while the client is active, so "
            f"that it is planned for the workers"
        )


def open_spool(spool: Spool, share: Share | None) -> Spool:
    """Make a spool's directory, which lives as long as what is returned, or until its run fails."""
    if share is None:
        return spool.open()
    # A run that gets no share leaves no directory either.
    opened = working(share, spool.open)
    # The share is given back when the directory and the buffers are gone.
    opened.share = share
    share.at_failure(opened.removal)
    return opened


def spool_frames(spool: Spool, pixels: Iterable, start: int, stop: int) -> Written:
    """Write some frames to disk; if that fails, nothing stays there."""
    found = spool.recorded(start, stop)
    if found is not None:
        return found
    try:
        buffer, done = spool.buffer(stop - start, spool.shape[1]), 0
        for piece in pixels:
            for block in piece:
                buffer[done : done + len(block)] = block
                done += len(block)
            del piece, block  # or they would live on while the next are read
        return spool.write(start, buffer)
    except BaseException as error:
        if runs.current_worker() is None:  # which may be asked to try again
            spool.remove(error)
        raise


def keep_frames(share: Share, pixels: Pixels) -> list[np.ndarray]:
    """Read frames that stay in memory until the run has ended, also if it fails."""
    blocks = working(share, read_frames, pixels)
    share.at_failure(blocks.clear)
    return blocks


def read_frames(pixels: Pixels) -> list[np.ndarray]:
    """Read everything at once."""
    return [block for piece in pixels for block in piece]


def read_block(pixels: Pixels) -> np.ndarray:
    """Read everything into one array; a view of the user's own array cannot be written to."""
    blocks = read_frames(pixels)
    if len(blocks) > 1:
        return np.concatenate(blocks)
    block = blocks[0].view()
    block.flags.writeable = False
    return block


def advance(statistic: Statistic, state: State | None, pixels: Any, start: int) -> State:
    """Fold more frames into a copy of the state of another task."""
    return statistic.advance(pixels, start, copy_state(state))


def rows_of(state: State, first: int, last: int) -> State:
    """Return some rows of the state of one band."""
    cut = {}
    for key, band in state.items():
        number, dot, edge = key.rpartition(".")  # of one of several statistics
        cut[f"{number}{dot}{first}"] = band[..., first - int(edge) : last - int(edge), :]
    return cut


def chunk_to_send(statistic: Statistic, pixels: Any, start: int) -> State:
    """Fold frames into a state that is sent elsewhere."""
    return statistic.packed(statistic.chunk(pixels, start))


def combine_all(statistic: Statistic, states: Sequence[State], sent: bool) -> State:
    """Combine states that follow one another; the result may be sent elsewhere."""
    state = reduce(statistic.combine, states)
    return statistic.packed(state) if sent else state


def finish(
    output: Output, statistic: Statistic, index: int, state: State, band: bool = False
) -> np.ndarray:
    """Return the image of one of the statistics of a state, or the rows of its one band."""
    own = statistic.split(state)[index]
    return output.band(own) if band else output.image(own)


def one_plane(image: np.ndarray) -> np.ndarray:
    """Return an image as a stack of one."""
    return image[None]
