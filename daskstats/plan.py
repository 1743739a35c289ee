"""How large a block is, how often the source is read, and what it costs: arithmetic on integers.

A frame-wise statistic cuts the series into blocks of frames::

    frames   0 ......... 19 | 20 ........ 39 | 40 ...          steps (intermediate images)
             0 ... 9 10..19 | 20 .. 29 30.39 | 40 ...          blocks (tasks)

A row-wise statistic needs all frames of a row at once and cuts the rows in the same way. How its
frames get from the source to the bands is its *strategy*:

    direct     the source reads bands of rows at little more than their share of a frame's cost
    resident   every frame is read once and kept; bands are views of what is kept
    reread     every frame is read again for each band
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

MEBI = 1 << 20

# A task should be long beside its scheduling (some 0.1 ms) and short beside a second: with these
# bounds a block of uint16 frames takes 1 to 100 ms, most of which is the source's own time.
SMALLEST_BLOCK = 8 * MEBI
LARGEST_BLOCK = 256 * MEBI

# Tasks to each worker, so that the last ones to finish leave little idle time. A fold of frames in
# memory takes the same time for each, and would lose more to partial states: with four instead of
# one, std takes twice as long and max a third longer (240 x 1024 x 1024 uint16, two threads).
TASKS_PER_WORKER = 4
FOLDS_PER_WORKER = 1

# Frames that a fold takes at once from a source that has to fetch them: the partial state is
# then written once for every eight frames.
PIECE = 8

# Images that exist beside the running state: two waiting and one with the consumer.
IMAGES_IN_FLIGHT = 3

# Partial states that wait to be combined, beyond one for each worker.
WAITING_STATES = 4

Range = tuple[int, int]


class MemoryLimitError(MemoryError):
    """The memory limit is too small for the work; nothing has been read."""


@dataclass(frozen=True)
class Layout:
    """What a plan needs to know of an image series."""

    nframes: int
    """frames to use"""
    rows: int
    """rows of a frame"""
    cols: int
    """columns of a frame"""
    itemsize: int
    """bytes of a pixel"""
    frame_unit: int = 1
    """frames that the source decodes together"""
    row_unit: int = 1
    """rows that the source decodes together: ``rows`` if only whole frames can be read"""
    in_memory: bool = False
    """whether blocks are views of memory that is there anyway"""

    @property
    def frame_nbytes(self) -> int:
        return self.rows * self.cols * self.itemsize

    @property
    def nbytes(self) -> int:
        return self.nframes * self.frame_nbytes


@dataclass(frozen=True)
class Cost:
    """What a statistic keeps, in bytes per pixel."""

    state: int = 0
    """of a partial state"""
    image: int = 0
    """of a finished image"""
    scratch: int = 0
    """of temporaries, for each pixel of a row-wise block"""
    tile: int = 0
    """of a row-wise block's tile in cache: bytes for each worker, whatever the block"""


@dataclass(frozen=True)
class Plan:
    """How a series is cut into tasks, and the memory that they take together.

    ``str(plan)`` describes it for people.
    """

    strategy: str
    """"fold", "direct", "resident" or "reread" """
    layout: Layout
    """the series that is planned for"""
    steps: tuple[tuple[Range, ...], ...]
    """for each intermediate image the blocks it adds: (start, stop) of frames or rows"""
    piece: int
    """frames that a task reads at once"""
    workers: int
    """tasks that run at once"""
    nbytes: int
    """projected peak, in bytes, of all that the call allocates"""
    limit: int
    """bytes the call may use"""
    reads: float
    """how many times each frame is read or decoded"""

    @property
    def along(self) -> str:
        """The axis that is cut: "frames" or "rows"."""
        return "frames" if self.strategy == "fold" else "rows"

    @property
    def blocks(self) -> tuple[Range, ...]:
        """All blocks, in order."""
        return tuple(block for step in self.steps for block in step)

    def __str__(self) -> str:
        sizes = {stop - start for start, stop in self.blocks}
        size = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
        return (
            f"{self.strategy}: {len(self.blocks)} blocks of {size} {self.along}, "
            f"{self.workers} at once; each frame read {self.reads:.4g} times; "
            f"at most {mebibytes(self.nbytes)} of {mebibytes(self.limit)}"
        )


def mebibytes(nbytes: int) -> str:
    """Return a size for people.

    >>> mebibytes(3 << 20)
    '3 MiB'
    """
    return f"{nbytes / MEBI:.4g} MiB"


def split(total: int, parts: int) -> list[int]:
    """Return ``parts`` sizes that add up to ``total`` and differ by at most one, larger first.

    >>> split(10, 4)
    [3, 3, 2, 2]
    """
    size, larger = divmod(total, parts)
    return [size + 1] * larger + [size] * (parts - larger)


def ranges(sizes: list[int], first: int = 0) -> list[Range]:
    """Return the (start, stop) of consecutive sizes.

    >>> ranges([3, 2], first=10)
    [(10, 13), (13, 15)]
    """
    return list(pairwise(accumulate(sizes, initial=first)))


def cut(start: int, stop: int, size: int, unit: int = 1) -> tuple[Range, ...]:
    """Cut a range into blocks of at most ``size``, nearly equal, at multiples of ``unit``.

    Only where ``unit`` is larger than ``size`` are cuts made elsewhere.

    >>> cut(0, 10, 4)
    ((0, 4), (4, 7), (7, 10))
    >>> cut(3, 20, 8, unit=4)
    ((3, 8), (8, 16), (16, 20))
    """
    if unit > size:
        unit = 1
    first, last = start // unit, -(-stop // unit)
    count = -(-(last - first) // max(1, size // unit))
    edges = [edge * unit for edge, _ in ranges(split(last - first, count), first)]
    edges = [max(start, edge) for edge in edges] + [stop]
    return tuple(pairwise(edges))


def as_read(start: int, stop: int, count: int, unit: int = 1) -> tuple[Range, ...]:
    """Return what a source reads of a block, ``count`` frames at a time, as `Source.pieces` does.

    >>> as_read(3, 20, 8, unit=4)
    ((3, 8), (8, 16), (16, 20))
    """
    edges = range(start - start % count if count % unit == 0 else start, stop, count)
    return tuple((max(start, edge), min(stop, edge + count)) for edge in edges)


def task_size(
    total: int, item_nbytes: int, workers: int, per_worker: int = TASKS_PER_WORKER
) -> int:
    """Return how many items (frames or rows) make a block of a good size."""
    target = -(-total // (per_worker * workers)) * item_nbytes
    target = min(max(target, SMALLEST_BLOCK), LARGEST_BLOCK)
    return max(1, min(total, target // max(1, item_nbytes)))


def units_touched(blocks: tuple[Range, ...], unit: int, total: int) -> float:
    """Return how often each unit is decoded on average, when blocks are read one by one.

    >>> units_touched(((0, 6), (6, 8)), unit=4, total=8)
    1.5
    """
    touched = sum(-(-stop // unit) - start // unit for start, stop in blocks)
    return touched / -(-total // unit)


def fold(layout: Layout, cost: Cost, steps: int, workers: int, limit: int) -> Plan:
    """Plan a frame-wise statistic.

    Parameters
    ----------
    layout, cost
        The series and the statistic.
    steps : int
        Number of intermediate images, 1 for the result alone.
    workers : int
        Tasks that run at once.
    limit : int
        Bytes.

    Raises
    ------
    MemoryLimitError
        If one frame for each worker is too much.

    Examples
    --------
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2)
    >>> print(fold(layout, Cost(state=8, image=4), steps=10, workers=2, limit=4 << 30))
    fold: 10 blocks of 10 frames, 2 at once; each frame read 1 times; at most 448 MiB of 4096 MiB
    """
    pixels = layout.rows * layout.cols
    unit = min(layout.frame_unit, layout.nframes)
    # What a fetched frame takes: itself and, where several are decoded together, the decoded
    # unit it is copied from.
    frame = 0 if layout.in_memory else layout.frame_nbytes
    decode = layout.frame_unit * frame
    states = (2 + WAITING_STATES + workers) * cost.state * pixels
    fixed = states + IMAGES_IN_FLIGHT * cost.image * pixels + workers * decode
    check_limit(fixed + workers * frame, limit, layout, "one frame", workers)

    per_worker = FOLDS_PER_WORKER if layout.in_memory else TASKS_PER_WORKER
    size = task_size(layout.nframes, layout.frame_nbytes, workers, per_worker)
    piece = size
    if frame:
        affordable = (limit - fixed) // (workers * frame)
        piece = min(size, max(PIECE, unit), affordable)
        piece = max(1, piece - piece % unit if piece > unit else piece)
    blocks = tuple(
        cut(start, stop, size, unit) for start, stop in ranges(split(layout.nframes, steps))
    )
    every = (block for step in blocks for block in step)
    pieces = tuple(part for block in every for part in as_read(*block, piece, unit))
    return Plan(
        strategy="fold",
        layout=layout,
        steps=blocks,
        piece=piece,
        workers=workers,
        nbytes=fixed + workers * piece * frame,
        limit=limit,
        reads=units_touched(pieces, unit, layout.nframes),
    )


def bands(
    layout: Layout, cost: Cost, steps: int, workers: int, limit: int, use_buffer: bool = True
) -> Plan:
    """Plan a row-wise statistic; parameters as of `fold`.

    Parameters
    ----------
    use_buffer : bool
        Whether frames may be kept for all tasks to see (resident); otherwise they are read again
        for each band, where the source cannot read rows.

    Raises
    ------
    MemoryLimitError
        If one row of all frames for each worker is too much.

    Examples
    --------
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2, row_unit=2048)
    >>> cost = Cost(state=8, image=4, scratch=64, tile=1 << 20)
    >>> plan = bands(layout, cost, steps=1, workers=2, limit=4 << 30)
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('resident', 8, 1.0)
    >>> plan = bands(layout, cost, steps=1, workers=2, limit=1 << 29)
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('reread', 6, 6.0)
    """
    pixels = layout.rows * layout.cols
    images = (cost.state + IMAGES_IN_FLIGHT * cost.image) * pixels
    row = layout.nframes * layout.cols  # pixels of a row in all frames
    scratch = layout.cols * cost.scratch
    whole_frames = layout.row_unit >= layout.rows > 1
    size = task_size(layout.rows, row * layout.itemsize, workers)
    held = layout.frame_unit * layout.frame_nbytes  # frames that are decoded together
    piece = max(PIECE - PIECE % layout.frame_unit, layout.frame_unit)

    if not whole_frames:
        strategy, unit = "direct", layout.row_unit
        fetched = 0 if layout.in_memory else row * layout.itemsize
        fixed = images + workers * (unit - 1 if unit > 1 else 0) * fetched
        each = scratch + fetched * (2 if unit > 1 else 1)
    else:
        strategy, unit = "resident", 1
        fixed = images + (0 if layout.in_memory else layout.nbytes + workers * held)
        each = scratch
        if not use_buffer or fixed + workers * (each + cost.tile) > limit:
            strategy = "reread"
            # As few bands as memory and workers allow: each costs a reading of the series.
            size = -(-layout.rows // workers)
            fixed = images + workers * held * (2 if layout.frame_unit > 1 else 1)
            each = scratch + row * layout.itemsize
    fixed += workers * cost.tile
    check_limit(fixed + workers * each, limit, layout, "one row of all frames", workers)

    size = min(size, (limit - fixed) // (workers * each) if each else size)
    step_ranges = ranges(split(layout.rows, steps))
    blocks = tuple(cut(start, stop, size, unit) for start, stop in step_ranges)
    every = tuple(block for step in blocks for block in step)
    largest = max(stop - start for start, stop in every)
    reads = {
        "direct": units_touched(every, unit, layout.rows),
        "resident": 1.0,
        "reread": float(len(every)),
    }
    return Plan(
        strategy=strategy,
        layout=layout,
        steps=blocks,
        piece=layout.nframes if layout.in_memory else min(piece, layout.nframes),
        workers=workers,
        nbytes=fixed + workers * largest * each,
        limit=limit,
        reads=reads[strategy],
    )


def check_limit(needed: int, limit: int, layout: Layout, least: str, workers: int) -> None:
    """Refuse, with the numbers, what does not fit at the smallest block size."""
    if needed > limit:
        raise MemoryLimitError(
            f"{layout.nframes} frames of {layout.rows} x {layout.cols} need at least "
            f"{mebibytes(needed)} ({least} for each of {workers} workers, with its results), but "
            f"the memory limit is {mebibytes(limit)}: raise memory_limit or use fewer workers"
        )
