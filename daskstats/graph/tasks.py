"""What tasks do: get their pixels, fold them, combine states, and finish images.

Nothing here knows dask: `graph` puts these functions and values into tasks.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..images import ImageSpec
from ..memory import computations
from ..memory.available import worker_budget
from ..memory.reservation import MemoryReservation
from ..planning.values import MemoryLimitError, mebibytes
from ..scratch.store import GroupManifest, ScratchStore
from ..statistics import State, Statistic
from ..statistics.base import copy_state
from .blocks import SourceBlocks


def working(share: MemoryReservation, function: Callable, *arguments: Any) -> Any:
    """Call a function while a run's share of the memory is held."""
    check_worker(share)
    with share.working():
        return function(*arguments)


def check_worker(share: MemoryReservation) -> None:
    """Refuse to run a task on a worker that has less memory than the task was planned for.

    Raises
    ------
    MemoryLimitError
        If it was planned for the threads of a process with more memory.
    """
    worker = computations.current_worker()
    limit = worker.memory_manager.memory_limit if worker is not None else None
    if limit and share.nbytes > worker_budget(limit):
        raise MemoryLimitError(
            f"this image was planned for the threads of one process, with {mebibytes(share.nbytes)}"
            f" of memory, but worker {worker.address} has {mebibytes(limit)}, of which tasks may "
            f"take {mebibytes(worker_budget(limit))}: make the image while the client is active, "
            f"so that it is planned for the workers"
        )


def open_spool(spool: ScratchStore, share: MemoryReservation | None) -> ScratchStore:
    """Make a spool's directory, which lives as long as what is returned, or until its run fails."""
    if share is None:
        return spool.open()
    # A run that gets no share leaves no directory either.
    opened = working(share, spool.open)
    # The share is given back when the directory and the buffers are gone.
    opened.reservation = share
    share.at_failure(opened.removal)
    return opened


def spool_frames(spool: ScratchStore, pixels: Iterable, start: int, stop: int) -> GroupManifest:
    """Write some frames to disk; if that fails, nothing stays there."""
    found = spool.find_written(start, stop)
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
        if computations.current_worker() is None:  # which may be asked to try again
            spool.remove(error)
        raise


def keep_frames(share: MemoryReservation, pixels: SourceBlocks) -> list[np.ndarray]:
    """Read frames that stay in memory until the run has ended, also if it fails."""
    blocks = working(share, read_frames, pixels)
    share.at_failure(blocks.clear)
    return blocks


def read_frames(pixels: SourceBlocks) -> list[np.ndarray]:
    """Read everything at once."""
    return [block for piece in pixels for block in piece]


def read_block(pixels: SourceBlocks) -> np.ndarray:
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
    output: ImageSpec, statistic: Statistic, index: int, state: State, band: bool = False
) -> np.ndarray:
    """Return the image of one of the statistics of a state, or the rows of its one band."""
    own = statistic.split(state)[index]
    return output.band(own) if band else output.image(own)


def one_plane(image: np.ndarray) -> np.ndarray:
    """Return an image as a stack of one."""
    return image[None]
