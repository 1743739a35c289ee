"""Plans of frame-wise statistics: blocks of frames."""

from dataclasses import replace

from .cuts import (
    LARGEST_BLOCK,
    TASKS_PER_WORKER,
    TASKS_PER_WORKER_IN_MEMORY,
    cut,
    flat,
    ranges,
    split,
    task_size,
    units_read,
)
from .margins import check_tasks, fetched, payload, with_losses
from .request import Request
from .values import FAN_IN, MEBI, WAITING, Layout, MemoryLimitError, Plan

# Steps of frames in memory that one call of compiled code passes, at most, and the bytes of frames
# of each worker that are enough for a call: some 0.3 ms. In shorter ones, threads that wait for
# each other to run Python would lose as much.
LARGEST_BURST, BURST_NBYTES = 4, 16 * MEBI

# Copies of the frames of a task that are on its worker if they were sent there with it: as they
# came, as they are used, and of a task that waits.
COPIES = 3

# A block of frames is at least so many times its partial state where that is sent elsewhere.
SENT_STATE = 8


def plan_frame_wise(request: Request, chained: bool = True, fan_in: int = FAN_IN) -> Plan:
    """Plan a frame-wise statistic.

    Parameters
    ----------
    request : Request
    chained : bool
        Whether a task folds on in a copy of the state of the one before, as within one process.
    fan_in : int
        The most partial states that a task of a cluster combines; fewer if memory is short.

    Raises
    ------
    MemoryLimitError
        If one frame for each worker is too much.

    Examples
    --------
    >>> from daskstats.planning.values import Cost, Layout
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2)
    >>> request = Request(layout, Cost(state=8, image=4), steps=10, workers=2, limit=4 << 30)
    >>> print(plan_frame_wise(request))
    fold: 10 blocks of 10 frames, 2 at once; each frame read 1 time; at most 320.8 MiB of 4096 MiB
    """
    while True:
        try:
            return _plan(request, chained, fan_in)
        except MemoryLimitError:
            if not request.processes or fan_in <= 2:
                raise
        fan_in //= 2


def _plan(request: Request, chained: bool, fan_in: int) -> Plan:
    layout, cost, steps, workers = request.layout, request.cost, request.steps, request.workers
    limit, running, processes = request.limit, request.running, request.processes
    layout = layout.for_folds()
    pixels = layout.rows * layout.cols
    unit = min(layout.frame_unit, layout.nframes)
    burst = burst_of(layout, steps, workers) if running and chained else 1
    states, images = in_flight(layout, workers, running, chained, processes and fan_in)
    fixed = (states * cost.state + images * cost.image + workers * cost.temporaries) * pixels
    fixed += workers * layout.objects
    waiting = 2 * (burst - 1) * cost.image * pixels
    if fixed + waiting <= payload(limit):
        fixed += waiting
    else:
        burst = 1
    copies = COPIES if layout.in_memory and processes else 1
    read = replace(layout, in_memory=False) if copies > 1 else layout
    least = copies * fetched(read, 1)
    request.check_limit(fixed + workers * least, "one frame")
    room = (payload(limit) - fixed) // workers

    per_worker = TASKS_PER_WORKER_IN_MEMORY if layout.in_memory else TASKS_PER_WORKER
    if processes:
        # dask deals tasks to workers by twos, and their speeds differ.
        per_worker *= 2
    # States that are sent should be few beside the frames that they are made of.
    largest = max(LARGEST_BLOCK, SENT_STATE * cost.state * pixels if processes else 0)
    everyone = workers * max(1, processes)
    size = task_size(layout.nframes, layout.frame_nbytes, everyone, per_worker, largest)
    longest = -(-layout.nframes // steps)
    if size < min(unit, longest) and not layout.in_memory:
        # A unit that is cut is decoded again for each of its parts.
        size = max(size, piece_size(layout, unit, room))
    if copies > 1:  # what is sent with a task is there as a whole
        size = piece = max(1, min(size, room // (copies * layout.frame_nbytes) - 1))
    else:
        piece = size if layout.in_memory else piece_size(layout, size, room)
    check_tasks(max(steps, layout.nframes // size), layout)
    parts = [cut(start, stop, size, unit) for start, stop in ranges(split(layout.nframes, steps))]
    if steps > 1 and processes:
        # Everyone works on the first step, so that its image comes as early as it can.
        stop = parts[0][-1][1]
        parts[0] = cut(0, stop, min(size, max(unit, -(-stop // everyone))), unit)
    blocks = flat(parts)
    read_units = sum(units_read(*block, piece, unit) for block in blocks)
    return Plan(
        strategy="fold",
        layout=layout,
        blocks=blocks,
        steps=tuple(parts),
        piece=piece,
        workers=workers,
        nbytes=with_losses(fixed + workers * copies * fetched(read, piece)),
        limit=limit,
        reads=read_units / -(-layout.nframes // unit),
        chains=workers if chained else 0,
        burst=burst,
        processes=processes,
        fan_in=fan_in,
    )


def burst_of(layout: Layout, steps: int, workers: int) -> int:
    """Return how many steps of frames in memory a lane of rows passes at once.

    >>> layout = Layout(nframes=240, rows=1024, cols=1024, itemsize=2, in_memory=True)
    >>> burst_of(layout, steps=60, workers=2), burst_of(layout, steps=10, workers=2)
    (4, 1)
    """
    step = layout.nbytes // (steps * workers)
    most = min(LARGEST_BURST, steps, BURST_NBYTES // max(1, step))
    return max(1, most) if layout.in_memory else 1


def in_flight(
    layout: Layout, workers: int, running: bool, chained: bool, sent: int
) -> tuple[int, int]:
    """Return how many states, and how many images, exist at once in one process."""
    if sent:
        # Those that are sent to a task, those that wait to be, and what they become.
        return workers + sent + WAITING + 3, 1
    if not chained:
        # A task that combines waits for several, and the running state is combined anew.
        return workers + WAITING + 4, 3
    if not running:
        # Each worker's and the one that it is a copy of, or two combined; then comes the image.
        return max(2 * workers, workers + 1), 1
    if layout.in_memory:
        # Lanes share one state and its copy, and fill the images that wait and the consumer's.
        return 2, workers + WAITING + 2
    # Each worker's and its origin, those that wait, and the running state combined with the next.
    return 2 * workers + WAITING + 3, 2


def piece_size(layout: Layout, most: int, nbytes: int) -> int:
    """Return how many frames a task with so many bytes reads at once: whole units if it can."""
    unit = min(layout.frame_unit, layout.nframes)
    # The most frames that `fetched` allows: it counts the larger of two buffers.
    beyond = nbytes - layout.frame_unit * layout.frame_nbytes
    each = layout.frame_nbytes * (1 + layout.buffers)
    affordable = min(int(beyond / each), (nbytes - layout.reading(0)) // layout.frame_nbytes)
    piece = min(most, max(layout.least_piece, unit), affordable)
    return max(1, piece - piece % unit if piece > unit else piece)
