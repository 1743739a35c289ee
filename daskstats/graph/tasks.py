"""The bodies of tasks: read, fold, combine, finish images. Nothing here knows dask."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from threading import get_ident
from typing import Any

import numpy as np

from ..compiling import compiled_for, observed
from ..images import ImageSpec
from ..memory import computations
from ..memory.available import worker_budget
from ..memory.reservation import MemoryReservation
from ..planning.values import MemoryLimitError, rounded_down, rounded_up
from ..scratch.store import GroupManifest, ScratchStore
from ..statistics import State, Statistic, compile_seconds
from ..statistics.base import copy_state
from .blocks import Blocks, SourceBlocks

# The topic of a cluster's events under which workers announce that they compile.
COMPILATIONS = "daskstats-compilations"


def working(reservation: MemoryReservation, function: Callable, *arguments: Any) -> Any:
    """Call a function while its run's memory is reserved."""
    check_worker(reservation)
    with reservation.working():
        return function(*arguments)


def check_worker(reservation: MemoryReservation) -> None:
    """Refuse to run a task on a worker that has less memory than the task was planned for.

    Raises
    ------
    MemoryLimitError
        If it was planned for the threads of a process with more memory.
    """
    worker = computations.current_worker()
    limit = worker.memory_manager.memory_limit if worker is not None else None
    if limit and reservation.nbytes > worker_budget(limit):
        raise MemoryLimitError(
            f"this image was planned for the threads of one process, with "
            f"{rounded_up(reservation.nbytes)} of memory, but worker {worker.address} has "
            f"{rounded_down(limit)}, of which tasks may take {rounded_down(worker_budget(limit))}: "
            f"make the image while the client is active, so that it is planned for the workers"
        )


def open_store(store: ScratchStore, reservation: MemoryReservation | None) -> ScratchStore:
    """Make the directory of a store; it lives as long as the result, or until the run fails."""
    if reservation is None:
        return store.open()
    # A run without a reservation leaves no directory either.
    opened = working(reservation, store.open)
    # The reservation ends after the directory and the buffers.
    opened.reservation = reservation
    reservation.at_failure(opened.removal)
    return opened


def write_frames(store: ScratchStore, pixels: Iterable, start: int, stop: int) -> GroupManifest:
    """Write some frames to disk; after a failure nothing stays there."""
    found = store.find_written(start, stop)
    if found is not None:
        return found
    try:
        buffer, done = store.buffer(stop - start, store.shape[1]), 0
        for piece in pixels:
            for block in piece:
                buffer[done : done + len(block)] = block
                done += len(block)
            del piece, block  # or they would live on while the next are read
        return store.write(start, buffer)
    except BaseException as error:
        if computations.current_worker() is None:  # which may be asked to try again
            store.remove(error)
        raise


def once_done(value: Any, other: Any) -> Any:
    """Return the first argument, for a task that must run after another one."""
    return value


def keep_frames(reservation: MemoryReservation, pixels: SourceBlocks) -> list[np.ndarray]:
    """Read frames that stay in memory until the run has ended, also if it fails."""
    blocks = working(reservation, read_frames, pixels)
    reservation.at_failure(blocks.clear)
    return blocks


def read_frames(pixels: SourceBlocks) -> list[np.ndarray]:
    """Read all blocks."""
    return [block for piece in pixels for block in piece]


def read_block(pixels: SourceBlocks) -> np.ndarray:
    """Read all blocks into one array; views of the user's own array are read-only."""
    blocks = read_frames(pixels)
    if len(blocks) > 1:
        return np.concatenate(blocks)
    block = blocks[0].view()
    block.flags.writeable = False
    return block


def advance(statistic: Statistic, state: State | None, pixels: Blocks, start: int) -> State:
    """Fold more frames into a copy of the state of another task."""
    with compiled_for(statistic.name, pixels.dtype, compile_seconds(statistic)):
        return statistic.advance(pixels, start, copy_state(state))


def rows_of(state: State, first: int, last: int) -> State:
    """Return some rows of the state of one band."""
    cut = {}
    for key, band in state.items():
        number, dot, edge = key.rpartition(".")  # of one of several statistics
        cut[f"{number}{dot}{first}"] = band[..., first - int(edge) : last - int(edge), :]
    return cut


def fold_to_send(statistic: Statistic, pixels: Blocks, start: int) -> State:
    """Fold frames into a state that is sent to another process."""
    with announced_compilations():
        return statistic.packed(advance(statistic, None, pixels, start))


@contextmanager
def announced_compilations() -> Iterator[None]:
    """Tell the clients of a cluster when this task begins to compile code, and when it has."""
    worker, own = computations.current_worker(), get_ident()
    if worker is None:
        yield
        return

    def tell(remark: str) -> None:
        if get_ident() == own:  # it is called for every thread
            worker.log_event(COMPILATIONS, [worker.address, 1 if remark else -1])

    with observed(tell):
        yield


def combine_all(statistic: Statistic, states: Sequence[State], sent: bool) -> State:
    """Combine the states of successive ranges; pack the result if it is sent on."""
    state = reduce(statistic.combine, states)
    return statistic.packed(state) if sent else state


def finish(
    spec: ImageSpec, statistic: Statistic, index: int, state: State, band: bool = False
) -> np.ndarray:
    """Return the image of one of the statistics of a state, or the rows of its one band."""
    own = statistic.split(state)[index]
    return spec.band(own) if band else spec.image(own)


def plane(spec: ImageSpec, statistic: Statistic, state: State) -> np.ndarray:
    """Return the image of a state as a stack of one."""
    return finish(spec, statistic, 0, state)[None]
