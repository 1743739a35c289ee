"""What a plan is made from, and the plan."""

from dataclasses import dataclass, replace

MEBI = 1 << 20

# Frames that a fold takes at once from a source that has to fetch them: the partial state is
# then written once for every eight frames. Of small frames there are more, up to these bytes: each
# array, and each task, takes more than a frame of 16 x 16 does.
PIECE, PIECE_NBYTES = 8, 256 << 10

# Bytes of the objects around a frame that is an array of its own, and around a task of a graph.
FRAME_OBJECTS, TASK_OBJECTS = 512, 2048

# Steps that may be finished before the consumer takes the first of them.
WAITING = 2

# Partial states that one task combines: few tasks, and few states that wait for each other.
FAN_IN = 8

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
    temporaries: int = 0
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
    replicas: int = 1
    """copies of the series itself, one for each worker of a cluster: each task uses one of them"""
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
