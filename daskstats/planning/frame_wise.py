"""Plans of frame-wise statistics: the series is cut into blocks of frames.

::

    frames   0 ......... 19 | 20 ........ 39 | 40 ...          steps (intermediate images)
             0 ... 9 10..19 | 20 .. 29 30.39 | 40 ...          blocks (tasks)
"""

from dataclasses import replace

from . import cuts
from .cuts import LARGEST_BLOCK, SMALLEST_BLOCK, Parts, cut, split, task_size
from .margins import check_tasks, fetched, with_losses
from .request import Request
from .values import FAN_IN, FEW, WAITING, Layout, MemoryLimitError, Plan

# Steps of frames in memory that one call of compiled code reduces, at most, and the bytes of frames
# of each worker that are enough for a call: some 0.3 ms. In shorter calls threads lose as much
# time waiting for each other to run Python.
LARGEST_BURST, BURST_NBYTES = 2 * WAITING, 2 * SMALLEST_BLOCK

# Copies of the frames of a task that exist on its worker if they were sent with the task: as
# received, as used, and those of the next task.
COPIES = 3


def plan_frame_wise(request: Request, chained: bool = True, fan_in: int = FAN_IN) -> Plan:
    """Plan a frame-wise statistic.

    Parameters
    ----------
    request : Request
    chained : bool
        Whether a task folds into a copy of the state of the task before, as within one process.
    fan_in : int
        The most partial states that a task of a cluster combines; fewer if memory is short.

    Raises
    ------
    MemoryLimitError
        If one frame for each worker does not fit.

    Examples
    --------
    >>> from daskstats.planning.values import Cost, Layout
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2)
    >>> request = Request(layout, Cost(state=8, image=4), steps=10, workers=2, limit=4 << 30)
    >>> print(plan_frame_wise(request))
    fold: 10 blocks of 10 frames, 2 at once; each frame read 1 time; at most 320.8 MiB of 4096 MiB
    """
    request = replace(request, layout=request.layout.for_folds())
    while True:
        try:
            return _plan(request, chained, fan_in)
        except MemoryLimitError:
            if not request.processes or fan_in <= 2:
                raise
        fan_in //= 2


def _plan(request: Request, chained: bool, fan_in: int) -> Plan:
    layout, workers = request.layout, request.workers
    fixed, burst = fixed_nbytes(request, chained, fan_in)
    copies = COPIES if layout.in_memory and request.processes else 1
    read = replace(layout, in_memory=False) if copies > 1 else layout
    request.check_limit(fixed + workers * copies * fetched(read, 1), "one frame")
    size, piece = block_size(request, copies, (request.payload - fixed) // workers)
    check_tasks(max(request.steps, layout.nframes // size), layout)
    steps = cut_frames(request, size)
    blocks, unit = cuts.flat(steps), layout.unit
    return Plan(
        strategy="fold",
        layout=layout,
        blocks=blocks,
        steps=steps,
        piece=piece,
        workers=workers,
        nbytes=with_losses(fixed + workers * copies * fetched(read, piece)),
        limit=request.limit,
        reads=cuts.mean_reads(blocks, piece, unit, layout.nframes),
        chains=workers if chained else 0,
        burst=burst,
        processes=request.processes,
        fan_in=fan_in,
    )


def fixed_nbytes(request: Request, chained: bool, fan_in: int) -> tuple[int, int]:
    """Return the bytes of states, images and temporaries, and the steps reduced at once."""
    layout, cost, workers = request.layout, request.cost, request.workers
    pixels = layout.rows * layout.cols
    states, images = in_flight(request, chained, fan_in)
    states, images = states + request.stored, images + request.stored
    fixed = states * cost.state + images * cost.image + workers * cost.temporaries
    fixed = fixed * pixels + workers * layout.objects
    in_bursts = request.running and chained and not request.stored
    burst = burst_of(layout, request.steps, workers) if in_bursts else 1
    waiting = 2 * (burst - 1) * cost.image * pixels
    return (fixed + waiting, burst) if fixed + waiting <= request.payload else (fixed, 1)


def burst_of(layout: Layout, steps: int, workers: int) -> int:
    """Return the number of steps of frames in memory that one task reduces at once.

    >>> layout = Layout(nframes=240, rows=1024, cols=1024, itemsize=2, in_memory=True)
    >>> burst_of(layout, steps=60, workers=2), burst_of(layout, steps=10, workers=2)
    (4, 1)
    """
    step = layout.nbytes // (steps * workers)
    most = min(LARGEST_BURST, steps, BURST_NBYTES // max(1, step))
    return max(1, most) if layout.in_memory else 1


def in_flight(request: Request, chained: bool, fan_in: int) -> tuple[int, int]:
    """Return the number of states, and of images, that exist at once in one process."""
    workers = request.workers
    if request.processes:
        # States that a task is sent, those that wait to be sent, and their combination.
        return workers + fan_in + WAITING + 3, 1
    if not chained:
        # A task that combines waits for several states; the running state is combined anew.
        return workers + WAITING + 4, 3
    if not request.running:
        # Each worker's state and its origin, or two combined; then the image.
        return max(2 * workers, workers + 1), 1
    if request.layout.in_memory and not request.stored:
        # Row-parallel tasks share one state and its copy, and fill the images that wait and that
        # of the consumer.
        return 2, workers + WAITING + 2
    # Each worker's state and its origin, those that wait, and the running state with the next.
    return 2 * workers + WAITING + 3, 2


def block_size(request: Request, copies: int, nbytes: int) -> tuple[int, int]:
    """Return the frames of a block, and those read at once, for a worker with ``nbytes``."""
    layout, largest = request.layout, LARGEST_BLOCK
    per_worker = cuts.tasks_per_worker(layout.in_memory)
    if request.processes:
        # dask assigns tasks to workers in pairs, and their speeds differ.
        per_worker *= 2
        # A block is larger than the states that a task is sent.
        largest = max(largest, FAN_IN * request.cost.state * layout.rows * layout.cols)
    size = task_size(layout.nframes, layout.frame_nbytes, request.everyone, per_worker, largest)
    if copies > 1:  # all frames that are sent with a task are there at once
        size = max(1, min(size, nbytes // (copies * layout.frame_nbytes) - 1))
    if layout.in_memory:
        return size, size
    if size < min(layout.unit, -(-layout.nframes // request.steps)):
        # A unit that is cut is decoded again for each of its parts.
        size = max(size, piece_size(request, layout.unit, nbytes))
    return size, piece_size(request, size, nbytes)


def piece_size(request: Request, most: int, nbytes: int) -> int:
    """Return the frames that a task with ``nbytes`` reads at once: whole units if possible."""
    layout, least = request.layout, request.layout.least_piece
    if request.cost.state <= layout.itemsize:
        # Fewer large frames are still in a cache when they are folded: a maximum of raw frames of
        # 2 MB takes 0.9 of the time. Wider states, read and written for each piece, cost more.
        least = min(least, max(FEW, SMALLEST_BLOCK // layout.frame_nbytes))
    # The most frames that `fetched` allows: it counts the larger of two buffers.
    beyond = nbytes - layout.frame_unit * layout.frame_nbytes
    each = layout.frame_nbytes * (1 + layout.buffers)
    affordable = min(int(beyond / each), (nbytes - layout.reading(0)) // layout.frame_nbytes)
    piece = min(most, max(least, layout.unit), affordable)
    return max(1, piece - piece % layout.unit if piece > layout.unit else piece)


def cut_frames(request: Request, size: int) -> tuple[Parts, ...]:
    """Return the blocks of each step."""
    nframes, unit = request.layout.nframes, request.layout.unit
    steps = [cut(*step, size, unit) for step in cuts.ranges(split(nframes, request.steps))]
    if request.steps > 1 and request.processes:
        # All workers take part in the first step, so that its image comes as early as possible.
        stop = steps[0][-1][1]
        steps[0] = cut(0, stop, min(size, max(unit, -(-stop // request.everyone))), unit)
    return tuple(steps)
