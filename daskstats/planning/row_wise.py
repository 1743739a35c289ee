"""How large a block is, how often the source is read, and what it costs: arithmetic on integers.

A frame-wise statistic cuts the series into blocks of frames::

    frames   0 ......... 19 | 20 ........ 39 | 40 ...          steps (intermediate images)
             0 ... 9 10..19 | 20 .. 29 30.39 | 40 ...          blocks (tasks)

A row-wise statistic needs all frames of a row at once and cuts the rows in the same way. How its
frames get from the source to the bands is its *strategy*:

    direct     the source reads bands of rows at little more than their share of a frame's cost
    resident   every frame is read once and kept; bands are views of what is kept
    scratch    every frame is read once and written to disk, in row order; bands are read there;
               on a cluster to a disk that the workers share
    p2p        every frame is read once by a worker of a cluster, cut into bands, and the workers
               exchange these through their disks
    reread     every frame is read again for each band

The first that fits the memory limit is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from .cuts import (
    TASKS_PER_WORKER,
    TASKS_PER_WORKER_IN_MEMORY,
    cut,
    flat,
    parts_of,
    ranges,
    split,
    task_size,
    units_touched,
)
from .margins import MOST_TASKS, check_tasks, fetched, with_losses
from .request import Request
from .strategies import (
    CHUNKS_IN_FLIGHT,
    MOST_SMALL_CHUNKS,
    SMALLEST_CHUNK,
    Bands,
    direct,
    p2p,
    refusal,
    reread,
    resident,
    scratch,
)
from .values import Disk, MemoryLimitError, Plan, Range, mebibytes

# Rows of the lowest bands that frames are written in for the sake of more steps.
SMALLEST_BAND = 8


def plan_row_wise(
    request: Request, use_buffer: bool = True, disk: Disk | None = None, shuffle: int = 0
) -> Plan:
    """Plan a row-wise statistic.

    Parameters
    ----------
    request : Request
        No process of a cluster keeps all frames.
    use_buffer : bool
        Whether frames may be kept, in memory or on disk; otherwise they are read again for each
        band, where the source cannot read rows.
    disk : Disk, optional
        Where they may be kept; None: nowhere.
    shuffle : int
        Bytes of each worker's buffers if workers may exchange bands (p2p), else 0.

    Raises
    ------
    MemoryLimitError
        If one pixel of all frames for each worker is too much.

    Examples
    --------
    >>> from daskstats.planning.values import Cost, Layout
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2, row_unit=2048)
    >>> cost = Cost(state=8, image=4, temporaries=64, tile=1 << 20)
    >>> request = Request(layout, cost, steps=1, workers=2, limit=4 << 30)
    >>> plan = plan_row_wise(request)
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('resident', 4, 1.0)
    >>> plan = plan_row_wise(request.within(1 << 29), disk=Disk("/scratch", 1 << 40))
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('scratch', 8, 1.0)
    >>> plan = plan_row_wise(request.within(1 << 29))
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('reread', 6, 6.0)
    """
    kept = use_buffer, disk, shuffle
    plan, refused = plan_bands(request, *kept)
    if plan is not None:
        return plan
    if refused.tiny is not None:
        check_chunks(refused.tiny, lambda more: plan_bands(request.within(more), *kept)[0])
    if refused.tasks:
        check_tasks(min(refused.tasks), request.layout)
    request.check_limit(min(refused.needed), "one pixel of all frames")
    raise AssertionError("unreachable")


@dataclass
class Refused:
    """Why there is no plan for bands."""

    needed: list[int] = field(default_factory=list)
    """bytes that each way takes at least"""
    tasks: list[int] = field(default_factory=list)
    """tasks of the ways that fit"""
    tiny: "Plan | None" = None
    """the plan that would write scratch data in tiny chunks"""


def plan_bands(
    request: "Request", use_buffer: bool, disk: Disk | None, shuffle: int
) -> tuple[Plan | None, Refused]:
    """Return the best plan: of bands of whole rows, or else of parts of rows, if any fits."""
    refused, layout, workers = Refused(), request.layout, request.workers
    every = [request] if layout.cols == 1 else [request, request.in_pixels()]
    for each in every:
        ways, note = ways_to_bands(each, use_buffer, disk, shuffle)
        for way in ways:
            height = way.highest(each.payload, workers)
            if height < way.least:
                continue
            refused.tasks.append(way.tasks(each.layout, height))
            if refused.tasks[-1] <= MOST_TASKS:
                plan = way_to_plan(each, way, height, disk, note)
                if not has_tiny_chunks(plan):
                    return plan, refused
                refused.tiny = plan
        refused.needed += [way.needed(way.least, workers) for way in ways]
    return None, refused


def check_chunks(tiny: Plan, planned: Callable[[int], Plan | None]) -> None:
    """Refuse scratch data of tiny chunks, with a limit that is enough for larger ones."""
    enough, layout = tiny.limit, tiny.layout
    while planned(enough) is None:
        enough += enough // 20
    raise MemoryLimitError(
        f"{layout.nframes} frames need at least {mebibytes(enough)}: with a memory limit of "
        f"{mebibytes(tiny.limit)} their scratch data would be "
        f"{len(tiny.groups) * len(tiny.blocks)} files of a few KiB: raise memory_limit"
    )


def ways_to_bands(
    request: "Request", use_buffer: bool, disk: Disk | None, shuffle: int
) -> tuple[list["Bands"], str]:
    """Return the ways to get from frames to bands, best first, and why frames cannot be kept."""
    layout, processes = request.layout, request.processes
    can_read_rows = layout.row_unit < layout.rows or layout.rows == layout.width
    ways = [direct(request)] if can_read_rows else []
    note = ""
    if not processes and (use_buffer or not layout.again):
        ways.append(resident(request))
    if use_buffer:
        note = refusal(layout, disk)
        if disk is not None and not note:
            ways += [scratch(request, SMALLEST_CHUNK), scratch(request)]
        if shuffle:
            ways.append(p2p(request, shuffle))
    if layout.again or processes:
        ways.append(reread(request))
    return ways, note


def way_to_plan(request: Request, way: Bands, height: int, disk: Disk | None, note: str) -> Plan:
    """Cut the rows for a way of reading them."""
    layout, workers = request.layout, request.workers
    blocks, parts = cut_rows(request, way, height)
    tallest = max(last - first for first, last in blocks)
    nbytes, piece = way.needed(tallest, workers), way.piece
    groups: tuple[Range, ...] = ()
    if way.strategy == "scratch":
        groups, nbytes = spool_groups(request, way, tallest, nbytes)
    reads = {"direct": units_touched(blocks, way.unit, layout.rows), "reread": float(len(blocks))}
    spooled = way.strategy == "scratch"
    return Plan(
        strategy=way.strategy,
        layout=layout,
        blocks=blocks,
        steps=parts,
        piece=layout.nframes if layout.in_memory else piece,
        workers=workers,
        nbytes=with_losses(nbytes),
        limit=request.limit,
        reads=reads.get(way.strategy, 1.0),
        groups=groups,
        disk=disk if spooled else None,
        disk_nbytes=layout.nbytes if spooled else 0,
        processes=request.processes,
        note=note if way.strategy in ("p2p", "reread") else "",
    )


def cut_rows(
    request: Request, way: Bands, height: int
) -> tuple[tuple[Range, ...], tuple[tuple[Range, ...], ...]]:
    """Return bands of at most a height, and for each step the bands or parts of bands it adds.

    Where a cut costs nothing, bands end where a step does, and an image needs only its own.
    """
    layout = request.layout
    rows = ranges(split(layout.rows // layout.width, request.steps))
    steps = [(first * layout.width, last * layout.width) for first, last in rows]
    kept = way.strategy == "resident" or (layout.in_memory and not request.processes)
    per_worker = TASKS_PER_WORKER_IN_MEMORY if kept else TASKS_PER_WORKER
    size = task_size(layout.rows, request.row, request.everyone, per_worker)
    if way.strategy == "reread":
        # As few as memory and workers allow.
        size = -(-layout.rows // request.everyone)
    size = max(min(size, height), way.least)
    if way.strategy == "scratch":
        # Chunks have one height; a step should not wait for a band much higher than itself.
        size = max(min(size, -(-layout.rows // request.steps)), min(size, SMALLEST_BAND))
        edges = [*range(0, layout.rows, size), layout.rows]
        return tuple(pairwise(edges)), parts_of(edges, steps)
    if way.strategy in ("resident", "p2p") or (way.strategy == "direct" and way.unit == 1):
        parts = tuple(cut(start, stop, size, way.unit) for start, stop in steps)
        return flat(parts), parts
    blocks = cut(0, layout.rows, size, way.unit)
    return blocks, parts_of([0, *(last for _, last in blocks)], steps)


def spool_groups(
    request: Request, way: Bands, tallest: int, nbytes: int
) -> tuple[tuple[Range, ...], int]:
    """Return the frames that are written together, and the peak."""
    layout, workers, unit = request.layout, request.workers, way.piece
    row = tallest * layout.cols * layout.itemsize
    writing = workers * (fetched(layout, unit) + CHUNKS_IN_FLIGHT * way.chunk)
    # Bands make the buffers as large as they are, if they can; of low bands chunks would be small.
    affordable = (request.payload - writing) // (workers * layout.frame_nbytes)
    least = min(-(-SMALLEST_CHUNK // row), affordable)
    if not layout.again:  # all blocks of a dask array that a group needs are there at once
        least = 1
    most = max(tallest * request.row, unit * layout.frame_nbytes) // layout.frame_nbytes
    group = min(max(most, least), max(1, way.chunk // row), layout.nframes)
    group = max(unit, group - group % unit)
    buffer = max(group * layout.frame_nbytes, tallest * request.row)
    edges = [*range(0, layout.nframes, group), layout.nframes]
    return tuple(pairwise(edges)), max(nbytes, writing + workers * buffer)


def has_tiny_chunks(plan: Plan) -> bool:
    """Whether scratch data would be so many files that they take longer than their bytes."""
    chunks = len(plan.groups) * len(plan.blocks)
    return chunks > MOST_SMALL_CHUNKS and plan.disk_nbytes < chunks * SMALLEST_CHUNK
