"""Facts about a series, a statistic and a disk, and the plan made from them."""

from dataclasses import dataclass, fields, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

from ..reprs import table

MEBI = 1 << 20

# Frames that a fold reads at once from a source that has to fetch them: the partial state is then
# written once for every eight frames. Small frames are read in pieces of up to these bytes, because
# an array or a task takes more memory than a frame of 16 x 16.
PIECE, PIECE_NBYTES = 8, MEBI // 4

# Frames that loops add at once: the fewest to read at once, if memory allows.
FEW = 4

# Bytes of the objects around a frame that is an array of its own, and around a task of a graph.
FRAME_OBJECTS = 512
TASK_OBJECTS = 4 * FRAME_OBJECTS

# Steps that may be finished before the consumer takes the first of them.
WAITING = 2

# Partial states that one task combines: few tasks, and few states that wait for each other.
FAN_IN = 8

Range = tuple[int, int]

# Fields of a plan that no task depends on: texts, and memory as it was at the call.
NOT_OF_TASKS = {"limit", "note", "refused"}

# How frames get to the tasks that reduce them: row-wise strategies from the best on.
STRATEGIES = {
    "fold": "blocks of frames are folded into partial states",
    "direct": "bands of rows are read from the series",
    "resident": "every frame is read once and kept in memory",
    "scratch": "every frame is read once and written to disk, in row order",
    "p2p": "every frame is read once, and the workers exchange bands of rows",
    "reread": "every frame is read again for each band of rows",
}


class MemoryLimitError(MemoryError):
    """The memory limit is too small for the work; nothing has been read."""


@dataclass(frozen=True)
class Layout:
    """The facts of an image series that a plan depends on."""

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
    """whether blocks are views of existing memory"""
    buffers: float = 0
    """temporary bytes per returned byte while a frame is read"""
    stored: float = 0
    """stored bytes per decoded byte that exist while frames are decoded"""
    again: bool = True
    """whether frames can be read more than once"""
    apart: bool = False
    """whether each frame in memory is an array of its own"""
    widened: int = 0
    """bytes of a pixel in the copies that folds of float16 make"""
    sparse: tuple[int, int] | None = None
    """bytes of the largest frame, and of all, if frames have only the pixels that are stored"""
    kept: int = 0
    """bytes that the series itself keeps in memory"""
    width: int = 1
    """pixels of a row of the frames if the rows of this layout are single pixels, else 1"""

    def __str__(self) -> str:
        rows = self.rows // self.width
        return f"{self.nframes} frames of {rows} x {self.cols * self.width}"

    def in_pixels(self) -> "Layout":
        """Return the layout of the frames as columns of pixels, for bands that are parts of rows.

        >>> Layout(nframes=9, rows=4, cols=5, itemsize=2, in_memory=True).in_pixels().rows
        20
        """
        unit = 1 if self.in_memory and self.row_unit == 1 else self.row_unit * self.cols
        return replace(self, rows=self.rows * self.cols, cols=1, row_unit=unit, width=self.cols)

    def whole_rows(self, nframes: int) -> int:
        """Return the bytes of the whole rows that are read to get parts of rows."""
        if self.in_memory or self.width == 1:
            return 0
        frames = 2 * self.frame_unit + nframes * self.buffers
        return int(frames * (self.row_unit + self.width) * self.itemsize)

    def reading(self, nframes: int) -> int:
        """Return the temporary bytes of fetching frames, without the frames themselves."""
        if self.in_memory:
            return 0
        # A unit is in memory as it is stored, too, also if only some of its frames are used.
        held = max(nframes * self.buffers, self.frame_unit * self.stored)
        return int((self.frame_unit + held) * self.frame_nbytes)

    def for_folds(self) -> "Layout":
        """Return the layout for folds, which widen float16, a few frames at a time."""
        if not self.widened:
            return self
        return replace(self, in_memory=False, buffers=self.buffers + self.widened / self.itemsize)

    @property
    def objects(self) -> int:
        """Bytes of the views of frames that are separate arrays, for each task."""
        return self.nframes * FRAME_OBJECTS if self.apart else 0

    @property
    def least_piece(self) -> int:
        """Frames that are read at once if they fit into memory."""
        return max(PIECE, PIECE_NBYTES // self.frame_nbytes)

    @property
    def unit(self) -> int:
        """Frames that are decoded together, at most all."""
        return min(self.frame_unit, self.nframes)

    @property
    def frame_nbytes(self) -> int:
        """Bytes of a frame, at most."""
        return self.sparse[0] if self.sparse else self.rows * self.cols * self.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return self.sparse[1] if self.sparse else self.nframes * self.frame_nbytes


@dataclass(frozen=True)
class Cost:
    """Memory of a statistic, in bytes per pixel."""

    state: int = 0
    """of a partial state"""
    image: int = 0
    """of a finished image"""
    temporaries: int = 0
    """of temporaries, for each pixel of a row-wise block or of a frame"""
    tile: int = 0
    """of the tile of a row-wise block in cache: bytes for each worker, independent of the block"""


@dataclass(frozen=True)
class Disk:
    """A disk for scratch data."""

    directory: str
    """path of an existing directory"""
    nbytes: int
    """free bytes"""
    in_memory: bool = False
    """whether it is a RAM disk: its bytes count as memory"""
    compression: str = "lz4"
    """of scratch data"""
    cluster: str = ""
    """identifier of the cluster that shares it; empty: this process only"""
    name: str = ""
    """name of the directory of scratch data that stay until the run has finished; empty: they are
    removed when it ends in any way"""


@dataclass(frozen=True)
class Plan:
    """The tasks that a series is cut into, and the memory that they take together.

    ``str(plan)`` describes it in one line.
    """

    strategy: str
    """"fold", "direct", "resident", "scratch", "p2p" or "reread" """
    layout: Layout
    """facts of the series"""
    blocks: tuple[Range, ...]
    """(start, stop) of the frames or rows of each task"""
    steps: tuple[tuple[Range, ...], ...]
    """blocks, or parts of blocks, that each intermediate image adds"""
    piece: int
    """frames that a task reads at once"""
    workers: int
    """tasks that run at once"""
    nbytes: int
    """projected peak of all allocations of the call, in bytes"""
    limit: int
    """bytes the call may use"""
    reads: float
    """how many times each frame is read or decoded"""
    groups: tuple[Range, ...] = ()
    """frames that are written to scratch together"""
    disk: Disk | None = None
    """location of scratch data"""
    disk_nbytes: int = 0
    """bytes of scratch data, at most"""
    chains: int = 0
    """chains of tasks that run at once, in which each task folds into a copy of the state of the
    task before; 0: each task has its own state, and a tree of tasks combines them"""
    burst: int = 1
    """steps that one task of a row-parallel run reduces at once"""
    processes: int = 0
    """workers of a cluster, each with ``workers`` tasks at once and ``limit``; 0: this process"""
    fan_in: int = FAN_IN
    """partial states that one task combines"""
    replicas: int = 1
    """copies of the series itself, one for each worker of a cluster: each task uses one of them"""
    note: str = ""
    """the reason why a better strategy was not possible"""
    refused: tuple[tuple[str, str], ...] = ()
    """better strategies, each with the reason why it was not possible"""

    @property
    def of_tasks(self) -> tuple[object, ...]:
        """Everything in the plan that tasks may depend on: equal plans make equal tasks.

        A field counts unless it is known that it does not: one too many costs a name that equal
        tasks could share, one too few gives two calls the tasks of one of them.
        """
        plan = self if self.disk is None else replace(self, disk=replace(self.disk, nbytes=0))
        names = (each.name for each in fields(plan) if each.name not in NOT_OF_TASKS)
        return tuple(getattr(plan, name) for name in names)

    @property
    def along(self) -> str:
        """The axis that is cut: "frames" or "rows"."""
        return "frames" if self.strategy == "fold" else "rows"

    @property
    def total(self) -> int:
        """Length of that axis: frames, or rows of a frame."""
        layout = self.layout
        return layout.nframes if self.along == "frames" else layout.rows // layout.width

    def after(self, done: int) -> "Plan":
        """Return the plan without the frames, or rows, that are done.

        If all of them are, there is one step of none.
        """
        if not done:
            return self
        edge = done * self.layout.width
        left = ([(max(edge, a), b) for a, b in step if b > edge] for step in self.steps)
        steps = tuple(tuple(step) for step in left if step) or (((edge, edge),),)
        if self.along == "rows":
            return replace(self, steps=steps)
        return replace(self, steps=steps, blocks=tuple(part for step in steps for part in step))

    def one_by_one(self) -> "Plan":
        """Return the plan with a step, and a block, for each of its frames that is left."""
        if not self.steps[0][0][0] < self.total:
            return self
        frames = range(self.steps[0][0][0], self.total)
        blocks = tuple((frame, frame + 1) for frame in frames)
        return replace(self, blocks=blocks, steps=tuple((block,) for block in blocks), piece=1)

    @property
    def in_pixels(self) -> bool:
        """Whether bands are parts of rows: numbers of rows are those of pixels then."""
        return self.layout.width > 1

    def __str__(self) -> str:
        text = (
            f"{self.strategy}: {self._blocks}, {self._at_once}; each frame read {self._times}; "
            f"{self._memory}"
        )
        if self.disk is not None:
            text += f", {rounded_up(self.disk_nbytes)} of scratch data in {self.disk.directory}"
        return text + (f" ({self.note})" if self.note else "")

    def __repr__(self) -> str:
        return f"<Plan {self}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks, with the reasons against better strategies."""
        rows = [
            ("strategy", f"{self.strategy}: {STRATEGIES[self.strategy]}"),
            *((f"not {name}", reason) for name, reason in self.refused),
            ("tasks", f"{self._blocks}, {self._at_once}"),
            ("reads", f"each frame {self._times}"),
            ("memory", self._memory),
        ]
        if self.disk is not None:
            rows.append(("scratch", f"{rounded_up(self.disk_nbytes)} in {self.disk.directory}"))
        if len(self.steps) > 1:
            rows.append(("images", str(len(self.steps))))
        return table("Plan", rows)

    @property
    def _blocks(self) -> str:
        sizes = {stop - start for start, stop in self.blocks}
        units = "pixels" if self.in_pixels else self.along
        unit = units if max(sizes) > 1 else units[:-1]
        size = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
        return f"{len(self.blocks)} block{'' if len(self.blocks) == 1 else 's'} of {size} {unit}"

    @property
    def _at_once(self) -> str:
        where = f" in each of {self.processes} processes" if self.processes > 1 else ""
        return f"{self.workers} at once{where}"

    @property
    def _times(self) -> str:
        return f"{self.reads:.4g} time{'' if self.reads == 1 else 's'}"

    @property
    def _memory(self) -> str:
        return f"at most {rounded_up(self.nbytes)} of {rounded_down(self.limit)}"


def mebibytes(nbytes: int, rounding: str = ROUND_HALF_EVEN) -> str:
    """Return a size as text, of four digits.

    >>> mebibytes(3 << 20), mebibytes(34 << 30)
    ('3 MiB', '34 GiB')
    """
    size, unit = _four_digits(nbytes, rounding)
    return f"{size:.4g} {'MiB' if unit == MEBI else 'GiB'}"


def rounded_up(nbytes: int) -> str:
    """Return memory that is needed as text: as a limit, the text is enough.

    >>> rounded_up((4 << 20) + 1), rounded_down((4 << 20) + 1)
    ('4.001 MiB', '4 MiB')
    """
    return mebibytes(nbytes, ROUND_CEILING)


def rounded_down(nbytes: int) -> str:
    """Return a limit, or memory that there is, as text."""
    return mebibytes(nbytes, ROUND_FLOOR)


def typed(nbytes: int) -> int:
    """Return the bytes of the text of `rounded_up`, typed as a limit.

    >>> typed(4 << 20), typed((4 << 20) + 1)
    (4194304, 4195352)
    """
    size, unit = _four_digits(nbytes, ROUND_CEILING)
    return int(size * unit)


def _four_digits(nbytes: int, rounding: str) -> tuple[float, int]:
    """Return a size in MiB or GiB, rounded to four digits, and the bytes of this unit."""
    unit = MEBI if nbytes < 10_000 * MEBI else 1024 * MEBI
    return float(Context(4, rounding).divide(Decimal(nbytes), Decimal(unit))), unit
