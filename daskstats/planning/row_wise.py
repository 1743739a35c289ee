"""Plans of row-wise statistics: the rows are cut into bands, each of all frames.

The *strategy* of a plan says how frames get from the source to the bands:

    direct     the source reads bands of rows, each for little more than its part of a frame's cost
    resident   every frame is read once and kept; bands are views of the frames
    scratch    every frame is read once and written to disk, in row order, and bands are read there;
               on a cluster, a disk that the workers share
    p2p        every frame is read once by a worker of a cluster, cut into bands, and the workers
               exchange these through their disks
    reread     every frame is read again for each band

The first strategy that fits the memory limit is taken.
"""

from dataclasses import dataclass, replace

from . import cuts, strategies
from .cuts import Parts, chunks, cut, split, task_size
from .margins import MOST_TASKS, check_tasks, enough, fetched, with_losses
from .request import Request
from .strategies import CHUNKS_IN_FLIGHT, MOST_SMALL_CHUNKS, SMALLEST_CHUNK, RowStrategy
from .values import (
    PIECE,
    STRATEGIES,
    Disk,
    Layout,
    MemoryLimitError,
    Plan,
    rounded_down,
    rounded_up,
)

# Rows of the lowest bands of scratch data that are made for the sake of more steps.
SMALLEST_BAND = PIECE


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
        band, unless the source can read rows.
    disk : Disk, optional
        Disk for frames that do not fit into memory.
    shuffle : int
        Bytes of each worker's buffers if workers may exchange bands (p2p), else 0.

    Raises
    ------
    MemoryLimitError
        If one pixel of all frames for each worker does not fit.

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
    disk, shuffle = (disk, shuffle) if use_buffer else (None, 0)
    note = strategies.refusal(request.layout, disk) if disk is not None else ""
    kept = use_buffer or not request.layout.again
    storage = Storage(kept, None if note else disk, shuffle, note)
    plan, tiny = best_plan(request, storage)
    if plan is not None:
        return plan
    if tiny is not None:
        raise too_tiny_chunks(tiny, least_limit(request, storage))
    possible = possible_strategies(request, storage)
    tasks = [strategy.tasks for strategy in possible if strategy.highest]
    if tasks:
        check_tasks(min(tasks), request.layout)
    raise request.refusal(least_limit(request, storage), "one pixel of all frames")


@dataclass(frozen=True)
class Storage:
    """Places that may keep frames until all frames of a row have been read."""

    memory: bool
    """whether the memory of this process may"""
    disk: Disk | None = None
    """disk for scratch data"""
    shuffle: int = 0
    """bytes of each worker's buffers if workers may exchange bands"""
    note: str = ""
    """the reason why there is no disk"""


def best_plan(request: Request, storage: Storage) -> tuple[Plan | None, Plan | None]:
    """Return the best plan, and one that was refused because of its tiny chunks, if any."""
    tiny, refused = None, strategies_without_place(request, storage)
    for strategy in possible_strategies(request, storage):
        reason = excess(strategy)
        if not reason:
            plan = plan_bands(strategy, storage)
            if not has_tiny_chunks(plan):
                return replace(plan, refused=better_than(plan, refused)), tiny
            tiny, reason = plan, "scratch data would be in too many small chunks"
        refused.setdefault(strategy.name, reason)
    return None, tiny


def least_limit(request: Request, storage: Storage) -> int:
    """Return a limit that is enough, hardly above the least: chunks are larger where it is."""

    def needed(limit: int) -> int:
        possible = possible_strategies(request.within(limit), storage)
        return request.with_losses(min(each.needed(each.least) for each in possible))

    def fits(limit: int) -> bool:
        return best_plan(request.within(limit), storage)[0] is not None

    return enough(request.limit, needed, fits)


def strategies_without_place(request: Request, storage: Storage) -> dict[str, str]:
    """Return the strategies that `possible_strategies` leaves out, and the reasons."""
    layout, found = request.layout, {}
    unwanted = "" if storage.memory else "frames may not be kept (use_buffer)"
    if not reads_rows(layout):
        found["direct"] = "the series cannot read rows without the rest of their frames"
    if unwanted or request.processes:
        found["resident"] = unwanted or "workers of a cluster keep no frames"
    if storage.disk is None:
        found["scratch"] = storage.note or unwanted or "there is no directory for scratch data"
    if request.processes and not storage.shuffle:
        found["p2p"] = unwanted
    return found


def excess(strategy: RowStrategy) -> str:
    """Return the reason why a strategy does not fit even in its lowest bands; empty if it does."""
    if not strategy.highest:
        needed = strategy.request.with_losses(strategy.needed(strategy.least))
        limit = rounded_down(strategy.request.limit)
        return f"it needs {rounded_up(needed)} of memory at least, the limit is {limit}"
    return f"it needs {strategy.tasks} tasks" if strategy.tasks > MOST_TASKS else ""


def better_than(plan: Plan, refused: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the refused strategies that are better than that of a plan."""
    names = list(STRATEGIES)
    found = [(name, refused[name]) for name in names if name in refused]
    found = [each for each in found if names.index(each[0]) < names.index(plan.strategy)]
    if plan.in_pixels and plan.strategy in refused:
        found.append(("whole rows", refused[plan.strategy]))
    return tuple(found)


def reads_rows(layout: Layout) -> bool:
    """Whether a series reads some rows for less than whole frames."""
    return layout.row_unit < layout.rows or layout.rows == layout.width


def possible_strategies(request: Request, storage: Storage) -> list[RowStrategy]:
    """Return the strategies for bands of whole rows, best first, and then for parts of rows."""
    layout, processes, found = request.layout, request.processes, []
    if reads_rows(layout):
        found.append(strategies.direct(request))
    if storage.memory and not processes:
        found.append(strategies.resident(request))
    if storage.disk is not None:
        found += [strategies.scratch(request, SMALLEST_CHUNK), strategies.scratch(request)]
    if storage.shuffle:
        found.append(strategies.p2p(request, storage.shuffle))
    if layout.again or processes:
        found.append(strategies.reread(request))
    return found if layout.cols == 1 else found + possible_strategies(request.in_pixels(), storage)


def plan_bands(strategy: RowStrategy, storage: Storage) -> Plan:
    """Return the plan of a strategy."""
    name, request, layout = strategy.name, strategy.request, strategy.request.layout
    blocks, steps = cut_rows(strategy)
    tallest = max(last - first for first, last in blocks)
    nbytes, reads = strategy.needed(tallest), 1.0
    groups: Parts = ()
    if name == "scratch":
        groups = scratch_groups(strategy, tallest)
        largest = max(groups[0][1] * layout.frame_nbytes, tallest * request.row)
        nbytes = max(nbytes, writing_nbytes(strategy) + request.workers * largest)
    elif name == "direct":
        reads = cuts.mean_reads(blocks, strategy.unit, strategy.unit, layout.rows)
    elif name == "reread":
        reads = float(len(blocks))
    return Plan(
        strategy=name,
        layout=layout,
        blocks=blocks,
        steps=steps,
        piece=layout.nframes if layout.in_memory else strategy.piece,
        workers=request.workers,
        nbytes=with_losses(nbytes),
        limit=request.limit,
        reads=reads,
        groups=groups,
        disk=storage.disk if groups else None,
        disk_nbytes=layout.nbytes if groups else 0,
        processes=request.processes,
        note=storage.note if name in ("p2p", "reread") else "",
    )


def cut_rows(strategy: RowStrategy) -> tuple[Parts, tuple[Parts, ...]]:
    """Return all bands, and the bands or parts of bands of each step.

    Where a cut costs nothing, bands end where a step does, so that an image needs no other bands.
    """
    name, request, layout = strategy.name, strategy.request, strategy.request.layout
    rows = cuts.ranges(split(layout.rows // layout.width, request.steps))
    steps = [(first * layout.width, last * layout.width) for first, last in rows]
    kept = name == "resident" or (layout.in_memory and not request.processes)
    size = task_size(layout.rows, request.row, request.everyone, cuts.tasks_per_worker(kept))
    if name == "reread":
        # As few bands as memory and workers allow.
        size = -(-layout.rows // request.everyone)
    size = max(min(size, strategy.highest), strategy.least)
    if name in ("resident", "p2p") or (name == "direct" and strategy.unit == 1):
        parts = tuple(cut(start, stop, size, strategy.unit) for start, stop in steps)
        return cuts.flat(parts), parts
    if name == "scratch":
        # Chunks have one height; a step should not wait for a band much higher than itself.
        size = max(min(size, -(-layout.rows // request.steps)), min(size, SMALLEST_BAND))
        blocks = chunks(layout.rows, size)
    else:
        blocks = cut(0, layout.rows, size, strategy.unit)
    return blocks, cuts.parts_of(blocks, steps)


def writing_nbytes(strategy: RowStrategy) -> int:
    """Return the memory of tasks that write groups of frames, without the groups."""
    reading = fetched(strategy.request.layout, strategy.piece)
    return strategy.request.workers * (reading + CHUNKS_IN_FLIGHT * strategy.chunk)


def scratch_groups(strategy: RowStrategy, tallest: int) -> Parts:
    """Return the frames that are written to scratch data together."""
    request, layout, unit = strategy.request, strategy.request.layout, strategy.piece
    row = tallest * layout.cols * layout.itemsize
    # Groups are as large as bands of all frames; for low bands, larger, or chunks would be small.
    free = request.payload - writing_nbytes(strategy)
    affordable = free // (request.workers * layout.frame_nbytes)
    # All blocks of a dask array that a group needs are there at once.
    least = min(-(-SMALLEST_CHUNK // row), affordable) if layout.again else 1
    most = max(tallest * request.row, unit * layout.frame_nbytes) // layout.frame_nbytes
    group = min(max(most, least), max(1, strategy.chunk // row), layout.nframes)
    return chunks(layout.nframes, max(unit, group - group % unit))


def has_tiny_chunks(plan: Plan) -> bool:
    """Whether the files of scratch data would take longer than their bytes."""
    files = len(plan.groups) * len(plan.blocks)
    return files > MOST_SMALL_CHUNKS and plan.disk_nbytes < files * SMALLEST_CHUNK


def too_tiny_chunks(tiny: Plan, enough: int) -> MemoryLimitError:
    """Return the error that refuses tiny chunks, and names a limit that is enough."""
    return MemoryLimitError(
        f"{tiny.layout.nframes} frames need at least {rounded_up(enough)}: with a memory limit of "
        f"{rounded_down(tiny.limit)} their scratch data would be "
        f"{len(tiny.groups) * len(tiny.blocks)} files of a few KiB: raise memory_limit"
    )
