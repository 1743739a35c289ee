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

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from math import gcd

MEBI = 1 << 20

# A task should be long beside its scheduling (some 0.1 ms) and short beside a second: with these
# bounds a block of uint16 frames takes 1 to 100 ms, most of which is the source's own time.
SMALLEST_BLOCK = 8 * MEBI
LARGEST_BLOCK = 256 * MEBI

# Tasks to each worker, so that the last ones to finish leave little idle time. Frames in memory
# take the same time for each, and more tasks would lose more, to partial states and to dask: with
# four instead of one, std takes twice as long, max a third longer and the median a twelfth (240 x
# 1024 x 1024 uint16, two threads).
TASKS_PER_WORKER = 4
TASKS_PER_WORKER_IN_MEMORY = 1

# Frames that a fold takes at once from a source that has to fetch them: the partial state is
# then written once for every eight frames. Of small frames there are more, up to these bytes: each
# array, and each task, takes more than a frame of 16 x 16 does.
PIECE, PIECE_NBYTES = 8, 256 << 10

# Bytes of the objects around a frame that is an array of its own, and around a task of a graph.
FRAME_OBJECTS, TASK_OBJECTS = 512, 2048

# Steps that may be finished before the consumer takes the first of them.
WAITING = 2

# Steps of frames in memory that one call of compiled code passes, at most, and the bytes of frames
# of each worker that are enough for a call: some 0.3 ms. In shorter ones, threads that wait for
# each other to run Python would lose as much.
LARGEST_BURST, BURST_NBYTES = 4, 16 * MEBI

# Bytes of a chunk of scratch data: large beside the cost of a file (some 2 ms), and small beside
# the limit, because zarr has four at work for each worker, each as it is, compressed, and with its
# checksum.
LARGEST_CHUNK, CHUNKS_OF_LIMIT = 4 * MEBI, 128
CHUNKS_IN_FLIGHT = 15

# Chunks are made this large where memory allows it: a chunk of any size costs some 2 ms of a core,
# so that 100 MiB in chunks of 2 KiB took 45 s. Scratch data of more chunks than this, and with
# smaller ones, are not written.
SMALLEST_CHUNK, MOST_SMALL_CHUNKS = 128 << 10, 4096

# What allocators lose between arrays, and what threads, tasks and metadata take.
LOST, OVERHEAD = 10, 4 * MEBI

# Tasks of the largest graph: dask takes some 10 us and 1.5 kB for each, before the first is run.
MOST_TASKS = 2_000_000

# Rows of the lowest bands that frames are written in for the sake of more steps.
SMALLEST_BAND = 8

# Partial states that one task combines: few tasks, and few states that wait for each other.
FAN_IN = 8

# Copies of the frames of a task that are on its worker if they were sent there with it: as they
# came, as they are used, and of a task that waits.
COPIES = 3

# Copies of a block of frames on its worker while it is cut up and sent to others: as read, as cut,
# on its way out, and as much on its way in (measured: seven). Two of them are in what a worker's
# process is taken to need, up to this size, which is as fast as any larger one.
EXCHANGED_COPIES, SPARE_COPIES, LARGEST_EXCHANGED = 7, 2, 32 << 20

# A block of frames is at least so many times its partial state where that is sent elsewhere.
SENT_STATE = 8

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
    buffers: float = 0
    """bytes that exist while a frame is read beside those that are returned, for each of these"""
    stored: float = 0
    """bytes of frames as they are stored that exist while they are decoded, for each of theirs"""
    again: bool = True
    """whether frames can be read again without being kept somewhere"""
    apart: bool = False
    """whether each frame in memory is an array of its own"""
    widened: int = 0
    """bytes of a pixel in the copies that folds of float16 make"""
    width: int = 1
    """pixels of a row of the frames where the rows of this layout are single pixels of them"""

    def in_pixels(self) -> "Layout":
        """Return the same frames as columns of single pixels, for bands that are parts of rows.

        >>> Layout(nframes=9, rows=4, cols=5, itemsize=2, in_memory=True).in_pixels().rows
        20
        """
        unit = 1 if self.in_memory and self.row_unit == 1 else self.row_unit * self.cols
        return replace(self, rows=self.rows * self.cols, cols=1, row_unit=unit, width=self.cols)

    def whole_rows(self, nframes: int) -> int:
        """Return the bytes of the rows that are read for a part of one, of some frames at once."""
        if self.in_memory or self.width == 1:
            return 0
        frames = 2 * self.frame_unit + nframes * self.buffers
        return int(frames * (self.row_unit + self.width) * self.itemsize)

    def reading(self, nframes: int) -> int:
        """Return what fetching some frames at once takes, beside the frames themselves."""
        if self.in_memory:
            return 0
        # A unit of frames of which only some are kept is held as it was stored, too.
        held = max(nframes * self.buffers, self.frame_unit * self.stored)
        return int((self.frame_unit + held) * self.frame_nbytes)

    def for_folds(self) -> "Layout":
        """Return the layout for statistics that widen float16: a few frames of it at a time."""
        if not self.widened:
            return self
        return replace(self, in_memory=False, buffers=self.buffers + self.widened / self.itemsize)

    @property
    def objects(self) -> int:
        """Bytes of the views that a task has of frames that are arrays of their own."""
        return self.nframes * FRAME_OBJECTS if self.apart else 0

    @property
    def least_piece(self) -> int:
        """Frames that are read at once if there is memory for them."""
        return max(PIECE, PIECE_NBYTES // self.frame_nbytes)

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
    """of temporaries, for each pixel of a row-wise block, or of the frames that a task folds"""
    tile: int = 0
    """of a row-wise block's tile in cache: bytes for each worker, whatever the block"""


@dataclass(frozen=True)
class Disk:
    """Where frames could wait, and how much room there is."""

    directory: str
    """for people, and for whoever makes the scratch data"""
    nbytes: int
    """free"""
    in_memory: bool = False
    """whether it is a RAM disk, whose bytes count as memory"""
    compression: str = "lz4"
    """of what is written"""
    cluster: str = ""
    """whose workers share it; none: it is for this process alone"""


@dataclass(frozen=True)
class Plan:
    """How a series is cut into tasks, and the memory that they take together.

    ``str(plan)`` describes it for people.
    """

    strategy: str
    """"fold", "direct", "resident", "scratch", "p2p" or "reread" """
    layout: Layout
    """the series that is planned for"""
    blocks: tuple[Range, ...]
    """what each task reads: (start, stop) of frames or rows"""
    steps: tuple[tuple[Range, ...], ...]
    """for each intermediate image what it adds: blocks, or parts of them"""
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
    groups: tuple[Range, ...] = ()
    """frames that are written to scratch together"""
    disk: Disk | None = None
    """where scratch data go"""
    disk_nbytes: int = 0
    """bytes of scratch data, at most"""
    chains: int = 0
    """tasks of a step that run at once, each of which folds on in a copy of the state of the one
    before; 0: each has its own state, and they are combined as a tree"""
    burst: int = 1
    """steps that a lane of rows may pass at once; images of as many wait, and are being made"""
    processes: int = 0
    """workers of a cluster, each of which runs so many tasks at once and has the limit for itself;
    0: this process alone"""
    fan_in: int = FAN_IN
    """partial states that one task combines"""
    sources: int = 1
    """copies of the series itself that tasks share out: on a cluster each goes where its copy is"""
    note: str = ""
    """what stood in the way of something better"""

    @property
    def along(self) -> str:
        """The axis that is cut: "frames" or "rows"."""
        return "frames" if self.strategy == "fold" else "rows"

    @property
    def in_pixels(self) -> bool:
        """Whether bands are parts of rows: numbers of rows are those of pixels then."""
        return self.layout.width > 1

    def __str__(self) -> str:
        sizes = {stop - start for start, stop in self.blocks}
        units = "pixels" if self.in_pixels else self.along
        unit = units if max(sizes) > 1 else units[:-1]
        size = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
        blocks = f"{len(self.blocks)} block{'' if len(self.blocks) == 1 else 's'}"
        where = f" in each of {self.processes} processes" if self.processes > 1 else ""
        times = f"{self.reads:.4g} time{'' if self.reads == 1 else 's'}"
        text = (
            f"{self.strategy}: {blocks} of {size} {unit}, "
            f"{self.workers} at once{where}; each frame read {times}; "
            f"at most {mebibytes(self.nbytes)} of {mebibytes(self.limit)}"
        )
        if self.disk is not None:
            text += f", {mebibytes(self.disk_nbytes)} of scratch data in {self.disk.directory}"
        return text + (f" ({self.note})" if self.note else "")


def mebibytes(nbytes: int) -> str:
    """Return a size for people.

    >>> mebibytes(3 << 20), mebibytes(34 << 30)
    ('3 MiB', '34 GiB')
    """
    if nbytes >= 10_000 * MEBI:
        return f"{nbytes / 1024 / MEBI:.4g} GiB"
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


def units_read(start: int, stop: int, count: int, unit: int = 1) -> int:
    """Return how many units are decoded for a block, of which ``count`` frames are read at once.

    Those are the units it has a part of, and one more for each place where a read ends within a
    unit, as `Source.pieces` cuts.

    >>> units_read(3, 20, 8, unit=4), units_read(0, 12, 3, unit=4)
    (5, 6)
    """
    units = -(-stop // unit) - start // unit
    if count % unit == 0:
        return units
    cuts, common = -(-(stop - start) // count) - 1, gcd(count, unit)
    if start % common:
        return units + cuts
    # The cut after k reads is at start + k * count: at a unit's edge for k = first, and then
    # once in a period.
    period = unit // common
    first = -(start // common) * pow(count // common, -1, period) % period
    at_edges = len(range(first or period, cuts + 1, period))
    return units + cuts - at_edges


def task_size(
    total: int,
    item_nbytes: int,
    workers: int,
    per_worker: int = TASKS_PER_WORKER,
    largest: int = LARGEST_BLOCK,
) -> int:
    """Return how many items (frames or rows) make a block of a good size."""
    target = -(-total // (per_worker * workers)) * item_nbytes
    target = min(max(target, SMALLEST_BLOCK), largest)
    return max(1, min(total, target // max(1, item_nbytes)))


def units_touched(blocks: tuple[Range, ...], unit: int, total: int) -> float:
    """Return how often each unit is decoded on average, when blocks are read one by one.

    >>> units_touched(((0, 6), (6, 8)), unit=4, total=8)
    1.5
    """
    touched = sum(-(-stop // unit) - start // unit for start, stop in blocks)
    return touched / -(-total // unit)


def fold(
    layout: Layout,
    cost: Cost,
    steps: int,
    workers: int,
    limit: int,
    running: bool = False,
    chained: bool = True,
    processes: int = 0,
    fan_in: int = FAN_IN,
) -> Plan:
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
    running : bool
        Whether intermediate images are wanted, which wait for a consumer.
    chained : bool
        Whether a task folds on in a copy of the state of the one before, as within one process.
    processes : int
        Workers of a cluster; ``workers`` and ``limit`` are those of each. 0: this process alone.
    fan_in : int
        The most partial states that a task combines, which a cluster sends to it.

    Raises
    ------
    MemoryLimitError
        If one frame for each worker is too much.

    Examples
    --------
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2)
    >>> print(fold(layout, Cost(state=8, image=4), steps=10, workers=2, limit=4 << 30))
    fold: 10 blocks of 10 frames, 2 at once; each frame read 1 time; at most 320.8 MiB of 4096 MiB
    """
    layout = layout.for_folds()
    pixels = layout.rows * layout.cols
    unit = min(layout.frame_unit, layout.nframes)
    burst = burst_of(layout, steps, workers) if running and chained else 1
    states, images = in_flight(layout, workers, running, chained, processes and fan_in)
    fixed = (states * cost.state + images * cost.image + workers * cost.scratch) * pixels
    fixed += workers * layout.objects
    waiting = 2 * (burst - 1) * cost.image * pixels
    if fixed + waiting <= usable(limit):
        fixed += waiting
    else:
        burst = 1
    copies = COPIES if layout.in_memory and processes else 1
    read = replace(layout, in_memory=False) if copies > 1 else layout
    least = copies * fetched(read, 1)
    check_limit(fixed + workers * least, limit, layout, "one frame", workers)
    room = (usable(limit) - fixed) // workers

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


def check_tasks(count: int, layout: Layout) -> None:
    """Refuse a graph of more tasks than dask can be given."""
    if count > MOST_TASKS:
        raise ValueError(
            f"{layout.nframes} frames of {layout.rows} x {layout.cols} would be {count} tasks, "
            f"more than the {MOST_TASKS} that can be planned: use nframes or frames for a part of "
            f"them, or ask for fewer intermediate images"
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


def fetched(layout: Layout, nframes: int) -> int:
    """Return what a task takes that reads so many frames at once."""
    return 0 if layout.in_memory else nframes * layout.frame_nbytes + layout.reading(nframes)


def piece_size(layout: Layout, most: int, nbytes: int) -> int:
    """Return how many frames a task with so many bytes reads at once: whole units if it can."""
    unit = min(layout.frame_unit, layout.nframes)
    # The most frames that `fetched` allows: it counts the larger of two buffers.
    beyond = nbytes - layout.frame_unit * layout.frame_nbytes
    each = layout.frame_nbytes * (1 + layout.buffers)
    affordable = min(int(beyond / each), (nbytes - layout.reading(0)) // layout.frame_nbytes)
    piece = min(most, max(layout.least_piece, unit), affordable)
    return max(1, piece - piece % unit if piece > unit else piece)


def with_losses(nbytes: int) -> int:
    """Return what arrays of so many bytes take with all that is around them."""
    return nbytes + nbytes // LOST + OVERHEAD


def usable(limit: int) -> int:
    """Return the bytes of arrays that a limit allows.

    >>> with_losses(usable(1 << 30)) == 1 << 30
    True
    """
    nbytes = max(0, limit - OVERHEAD) * LOST // (LOST + 1)
    return nbytes + (with_losses(nbytes + 1) <= limit)


def flat(parts: Iterable[tuple[Range, ...]]) -> tuple[Range, ...]:
    """Return the parts of all steps in one row."""
    return tuple(part for step in parts for part in step)


@dataclass(frozen=True)
class Bands:
    """One way to get from frames to bands of rows, in bytes."""

    strategy: str
    """its name"""
    fixed: int
    """what exists throughout, whatever the height of the bands"""
    each: int
    """what a row of a band takes while the band is worked on"""
    before: int = 0
    """what exists before the first band"""
    unit: int = 1
    """rows that bands should be multiples of"""
    least: int = 1
    """rows of the lowest band"""
    most: int = LARGEST_BLOCK
    """rows of the highest band"""
    piece: int = 1
    """frames that are read at once"""
    chunk: int = 0
    """bytes of a chunk of scratch data"""

    def needed(self, height: int, workers: int) -> int:
        """Return the projected peak with bands of a height."""
        return max(self.before, self.fixed + workers * height * self.each)

    def tasks(self, layout: Layout, height: int) -> int:
        """Return the number of tasks: those that read frames before there are bands, and bands."""
        reads = layout.nframes // self.piece if self.strategy in ("resident", "p2p") else 0
        return reads + layout.rows // min(height, layout.rows)

    def highest(self, limit: int, workers: int) -> int:
        """Return the height of the highest bands within a limit; 0 if there are none."""
        if self.needed(self.least, workers) > limit:
            return 0
        affordable = (limit - self.fixed) // (workers * self.each) if self.each else self.most
        return min(self.most, affordable)


def bands(
    layout: Layout,
    cost: Cost,
    steps: int,
    workers: int,
    limit: int,
    use_buffer: bool = True,
    disk: Disk | None = None,
    running: bool = False,
    processes: int = 0,
    shuffle: int = 0,
) -> Plan:
    """Plan a row-wise statistic; parameters as of `fold`.

    Parameters
    ----------
    use_buffer : bool
        Whether frames may be kept, in memory or on disk; otherwise they are read again for each
        band, where the source cannot read rows.
    disk : Disk, optional
        Where they may be kept; None: nowhere.
    processes : int
        Workers of a cluster, none of which keeps all frames; ``workers`` and ``limit`` are those
        of each. 0: this process alone.
    shuffle : int
        Bytes of each worker's buffers if workers may exchange bands (p2p), else 0.

    Raises
    ------
    MemoryLimitError
        If one pixel of all frames for each worker is too much.

    Examples
    --------
    >>> layout = Layout(nframes=100, rows=2048, cols=2048, itemsize=2, row_unit=2048)
    >>> cost = Cost(state=8, image=4, scratch=64, tile=1 << 20)
    >>> plan = bands(layout, cost, steps=1, workers=2, limit=4 << 30)
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('resident', 4, 1.0)
    >>> plan = bands(layout, cost, 1, 2, limit=1 << 29, disk=Disk("/scratch", 1 << 40))
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('scratch', 8, 1.0)
    >>> plan = bands(layout, cost, 1, 2, limit=1 << 29)
    >>> plan.strategy, len(plan.blocks), plan.reads
    ('reread', 6, 6.0)
    """
    request = Request(layout, cost, steps, workers, usable(limit), running, processes)
    kept = use_buffer, disk, shuffle
    plan, refused = plan_bands(request, limit, *kept)
    if plan is not None:
        return plan
    if refused.tiny is not None:
        check_chunks(refused.tiny, lambda more: plan_bands(request.within(more), more, *kept)[0])
    if refused.tasks:
        check_tasks(min(refused.tasks), layout)
    check_limit(min(refused.needed), limit, layout, "one pixel of all frames", workers)
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
    request: "Request", limit: int, use_buffer: bool, disk: Disk | None, shuffle: int
) -> tuple[Plan | None, Refused]:
    """Return the best plan: of bands of whole rows, or else of parts of rows, if any fits."""
    refused, layout, workers = Refused(), request.layout, request.workers
    every = [request] if layout.cols == 1 else [request, request.in_pixels()]
    for each in every:
        ways, note = ways_to_bands(each, use_buffer, disk, shuffle)
        for way in ways:
            height = way.highest(each.limit, workers)
            if height < way.least:
                continue
            refused.tasks.append(way.tasks(each.layout, height))
            if refused.tasks[-1] <= MOST_TASKS:
                plan = way_to_plan(each, way, height, disk, note, limit)
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
        note = why_not(layout, disk)
        if disk is not None and not note:
            ways += [scratch(request, SMALLEST_CHUNK), scratch(request)]
        if shuffle:
            ways.append(p2p(request, shuffle))
    if layout.again or processes:
        ways.append(reread(request))
    return ways, note


@dataclass(frozen=True)
class Request:
    """What is to be planned; see `fold`."""

    layout: Layout
    cost: Cost
    steps: int
    workers: int
    limit: int
    """bytes of arrays"""
    running: bool
    processes: int

    def within(self, limit: int) -> "Request":
        """Return the request with another memory limit."""
        return replace(self, limit=usable(limit))

    def in_pixels(self) -> "Request":
        """Return the request for bands that are parts of rows."""
        return replace(self, layout=self.layout.in_pixels())

    @property
    def everyone(self) -> int:
        """Tasks that run at once, in all processes."""
        return self.workers * max(1, self.processes)

    @property
    def images(self) -> int:
        """Bytes of the finished rows and of images: one being made, one with the consumer."""
        images = 3 if self.running else 2
        return (self.cost.state + images * self.cost.image) * self.layout.rows * self.layout.cols

    @property
    def row(self) -> int:
        """Bytes of one row of all frames."""
        return self.layout.nframes * self.layout.cols * self.layout.itemsize

    @property
    def temporaries(self) -> int:
        """Bytes of temporaries for a row."""
        return self.layout.cols * self.cost.scratch

    @property
    def tiles(self) -> int:
        """Bytes of the tiles of all workers, and of their views of frames."""
        return self.workers * (self.cost.tile + self.layout.objects)


def direct(request: Request) -> Bands:
    """Read bands from the source: whole units of rows, so that none is decoded twice."""
    layout = request.layout
    unit = min(layout.row_unit, layout.rows)
    piece = whole_units(layout)
    fixed = request.images + request.tiles + request.workers * layout.whole_rows(piece)
    each = request.temporaries
    if not layout.in_memory:
        each += request.row + layout.reading(piece) // layout.rows
    # A part of a row is read at the price of decoding the row again for other parts.
    least = 1 if layout.width > 1 else unit
    return Bands("direct", fixed, each, unit=unit, least=least, piece=piece)


def resident(request: Request) -> Bands:
    """Keep every frame, and let bands be views of it."""
    layout, workers = request.layout, request.workers
    piece = whole_units(layout)
    kept = request.images + layout.nframes // piece * TASK_OBJECTS
    kept += 0 if layout.in_memory else layout.nbytes
    return Bands(
        "resident",
        fixed=kept + request.tiles,
        each=request.temporaries,
        before=kept + workers * layout.reading(piece),
        piece=piece,
    )


def scratch(request: Request, smallest: int = 0) -> Bands:
    """Write every frame to disk, in row order, and read bands there, in chunks of some size.

    Groups of frames and bands of rows take turns in the same buffers, one for each worker.
    """
    layout, workers = request.layout, request.workers
    unit = min(layout.frame_unit, layout.nframes)
    row = unit * layout.cols * layout.itemsize  # of a chunk
    chunk = max(min(LARGEST_CHUNK, request.limit // (workers * CHUNKS_OF_LIMIT)), row)
    # Larger ones where those in flight take no more than a quarter of the limit.
    in_quarter = request.limit // (4 * workers * CHUNKS_IN_FLIGHT)
    chunk = max(chunk, min(smallest, in_quarter, layout.nbytes))
    fixed = max(request.images + request.tiles, workers * fetched(layout, unit))
    fixed += workers * CHUNKS_IN_FLIGHT * chunk
    spooling = workers * CHUNKS_IN_FLIGHT * chunk + workers * fetched(layout, unit)
    return Bands(
        "scratch",
        fixed=fixed,
        each=request.temporaries + request.row,
        before=spooling + workers * unit * layout.frame_nbytes,
        most=chunk // row,
        piece=unit,
        chunk=chunk,
    )


def p2p(request: Request, shuffle: int) -> Bands:
    """Let the workers of a cluster exchange bands of the blocks of frames they have read."""
    layout, workers = request.layout, request.workers
    held = layout.frame_unit * layout.frame_nbytes
    units = -(-layout.nframes // layout.frame_unit)
    counted = EXCHANGED_COPIES - SPARE_COPIES
    room = (request.limit - request.images - shuffle) // (workers * counted)
    room = min(room, LARGEST_EXCHANGED, layout.nbytes // (TASKS_PER_WORKER * request.everyone))
    # Any two blocks of frames are larger than a band: or else dask joins blocks up to the size of a
    # band before it exchanges them, and keeps others that it has read meanwhile.
    fewest = request.row // (2 * held) + 1
    count = max(1, min(-(-units // max(1, room // held)), units // fewest))
    piece = min(-(-units // count) * layout.frame_unit, layout.nframes)
    block = max(piece * layout.frame_nbytes, held)
    exchange = EXCHANGED_COPIES * block - SPARE_COPIES * min(block, LARGEST_EXCHANGED)
    return Bands(
        "p2p",
        fixed=request.images + request.tiles,
        each=request.temporaries + COPIES * request.row,
        before=request.images + shuffle + workers * exchange,
        most=max(1, (2 * (units // count) * held - 1) // request.row),
        piece=piece,
    )


def reread(request: Request) -> Bands:
    """Read every frame again for each band."""
    layout, workers = request.layout, request.workers
    piece = min(layout.frame_unit, layout.nframes)
    fixed = request.images + request.tiles + workers * layout.reading(piece)
    return Bands("reread", fixed, request.temporaries + request.row, piece=piece)


def whole_units(layout: Layout) -> int:
    """Return how many frames are read at once where memory is no matter."""
    piece = layout.least_piece
    return min(max(piece - piece % layout.frame_unit, layout.frame_unit), layout.nframes)


def why_not(layout: Layout, disk: Disk | None) -> str:
    """Say why frames cannot wait on disk, if they cannot."""
    if disk is None:
        return ""
    needed = layout.nbytes
    if disk.in_memory:
        return f"{disk.directory} is a RAM disk: scratch data there would count as memory"
    if needed > disk.nbytes:
        return (
            f"scratch data need {mebibytes(needed)}, "
            f"there are {mebibytes(disk.nbytes)} in {disk.directory}"
        )
    return ""


def way_to_plan(
    request: Request, way: Bands, height: int, disk: Disk | None, note: str, limit: int
) -> Plan:
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
        limit=limit,
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


def parts_of(edges: list[int], steps: list[Range]) -> tuple[tuple[Range, ...], ...]:
    """Cut steps where the blocks between some edges meet.

    >>> parts_of([0, 4, 8], [(0, 3), (3, 8)])
    (((0, 3),), ((3, 4), (4, 8)))
    """
    every = sorted({*edges, *(stop for _, stop in steps)})
    inner = list(pairwise(every))
    starts = [first for first, _ in inner]
    return tuple(
        tuple(inner[bisect_left(starts, start) : bisect_left(starts, stop)])
        for start, stop in steps
    )


def spool_groups(
    request: Request, way: Bands, tallest: int, nbytes: int
) -> tuple[tuple[Range, ...], int]:
    """Return the frames that are written together, and the peak."""
    layout, workers, unit = request.layout, request.workers, way.piece
    row = tallest * layout.cols * layout.itemsize
    writing = workers * (fetched(layout, unit) + CHUNKS_IN_FLIGHT * way.chunk)
    # Bands make the buffers as large as they are, if they can; of low bands chunks would be small.
    affordable = (request.limit - writing) // (workers * layout.frame_nbytes)
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


def check_limit(needed: int, limit: int, layout: Layout, least: str, workers: int) -> None:
    """Refuse, with the numbers, what does not fit at the smallest block size."""
    needed = with_losses(needed)
    if needed > limit:
        raise MemoryLimitError(
            f"{layout.nframes} frames of {layout.rows} x {layout.cols} need at least "
            f"{mebibytes(needed)} ({least} for each of {workers} workers, with its results), but "
            f"the memory limit is {mebibytes(limit)}: raise memory_limit or use fewer workers"
        )
