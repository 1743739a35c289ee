"""Strategies that get frames from the series to bands of rows, with their cost."""

import sys
from dataclasses import dataclass

from .cuts import SMALLEST_BLOCK, TASKS_PER_WORKER
from .frame_wise import COPIES
from .margins import fetched
from .request import Request
from .values import MEBI, TASK_OBJECTS, Disk, Layout, rounded_down, rounded_up

# Chunks that one call of zarr writes or reads at the same time: enough to keep its threads busy,
# few enough to be small compared with the memory limit. Each exists as it is, compressed, and with
# its checksum.
CHUNKS_AT_ONCE = 4
CHUNKS_IN_FLIGHT = 4 * CHUNKS_AT_ONCE - 1

# Bytes of a chunk of scratch data: large compared with the cost of a file (some 2 ms), and so small
# that the chunks in flight take an eighth of the memory limit.
LARGEST_CHUNK, CHUNKS_OF_LIMIT = 4 * MEBI, 8 * (CHUNKS_IN_FLIGHT + 1)

# Chunks have at least this size where memory allows it: a chunk of any size costs some 2 ms of a
# core, so 100 MiB in chunks of 2 KiB took 45 s. Scratch data of more chunks than this, and with
# smaller ones, are refused.
SMALLEST_CHUNK, MOST_SMALL_CHUNKS = LARGEST_CHUNK // 32, 4096

# Copies of a block of frames on its worker while it is cut up and sent to others: as read, as cut,
# on its way out, and as much on its way in (measured: seven). Two of them are part of the memory
# that the process of a worker needs anyway, up to this size, and larger blocks are no faster.
EXCHANGED_COPIES, SPARE_COPIES, LARGEST_EXCHANGED = 7, 2, 4 * SMALLEST_BLOCK


@dataclass(frozen=True)
class RowStrategy:
    """One way to get from frames to bands of rows, and its memory in bytes."""

    name: str
    """"direct", "resident", "scratch", "p2p" or "reread" """
    request: Request
    """the series, the statistic and the limit"""
    fixed: int
    """memory throughout the run, independent of the height of bands"""
    each: int
    """memory of a row of a band while the band is reduced"""
    before: int = 0
    """memory before the first band"""
    unit: int = 1
    """bands should be multiples of this number of rows"""
    least: int = 1
    """rows of the lowest band"""
    most: int = sys.maxsize
    """rows of the highest band"""
    piece: int = 1
    """frames that are read at once"""
    chunk: int = 0
    """bytes of a chunk of scratch data"""

    def needed(self, height: int) -> int:
        """Return the projected peak with bands of a height."""
        return max(self.before, self.fixed + self.request.workers * height * self.each)

    @property
    def highest(self) -> int:
        """Height of the highest bands within the limit; 0 if there are none."""
        limit = self.request.payload
        if self.needed(self.least) > limit or self.most < self.least:
            return 0
        if not self.each:
            return self.most
        return min(self.most, (limit - self.fixed) // (self.request.workers * self.each))

    @property
    def tasks(self) -> int:
        """Number of tasks: those that read frames before there are bands, and bands."""
        layout = self.request.layout
        reads = layout.nframes // self.piece if self.name in ("resident", "p2p") else 0
        return reads + layout.rows // min(self.highest, layout.rows)


def direct(request: Request) -> RowStrategy:
    """Read bands from the source: whole units of rows, so that none is decoded twice."""
    layout = request.layout
    unit, piece = min(layout.row_unit, layout.rows), whole_units(layout)
    fixed = request.images + request.tiles + request.workers * layout.whole_rows(piece)
    each = request.temporaries
    if not layout.in_memory:
        each += request.row + layout.reading(piece) // layout.rows
    # Reading a part of a row means decoding the row again for other parts.
    least = 1 if layout.width > 1 else unit
    return RowStrategy("direct", request, fixed, each, unit=unit, least=least, piece=piece)


def resident(request: Request) -> RowStrategy:
    """Keep every frame in memory; bands are views of the frames."""
    layout, piece = request.layout, whole_units(request.layout)
    kept = request.images + layout.nframes // piece * TASK_OBJECTS
    kept += 0 if layout.in_memory else layout.nbytes
    before = kept + request.workers * layout.reading(piece)
    fixed, each = kept + request.tiles, request.temporaries
    return RowStrategy("resident", request, fixed, each, before, piece=piece)


def scratch(request: Request, smallest: int = 0) -> RowStrategy:
    """Write every frame to disk, in row order, and read bands there, in chunks of some size.

    Groups of frames and bands of rows take turns in the same buffers, one for each worker.
    """
    layout, workers, unit = request.layout, request.workers, request.layout.unit
    row = unit * layout.cols * layout.itemsize  # of a chunk
    chunk = max(min(LARGEST_CHUNK, request.payload // (workers * CHUNKS_OF_LIMIT)), row)
    # Larger ones if those in flight take at most a quarter of the limit.
    in_quarter = request.payload // (4 * workers * CHUNKS_IN_FLIGHT)
    chunk = max(chunk, min(smallest, in_quarter, layout.nbytes))
    in_flight, reading = workers * CHUNKS_IN_FLIGHT * chunk, workers * fetched(layout, unit)
    return RowStrategy(
        "scratch",
        request,
        fixed=max(request.images + request.tiles, reading) + in_flight,
        each=request.temporaries + request.row,
        before=in_flight + reading + workers * unit * layout.frame_nbytes,
        most=chunk // row,
        piece=unit,
        chunk=chunk,
    )


def p2p(request: Request, shuffle: int) -> RowStrategy:
    """Let the workers of a cluster exchange bands of the blocks of frames they have read."""
    layout, workers = request.layout, request.workers
    held = layout.frame_unit * layout.frame_nbytes
    units = -(-layout.nframes // layout.frame_unit)
    counted = EXCHANGED_COPIES - SPARE_COPIES
    room = (request.payload - request.images - shuffle) // (workers * counted)
    room = min(room, LARGEST_EXCHANGED, layout.nbytes // (TASKS_PER_WORKER * request.everyone))
    # Any two blocks of frames are larger than a band: or else dask joins blocks up to the size of a
    # band before it exchanges them, and keeps others that it has read meanwhile.
    fewest = request.row // (2 * held) + 1
    count = max(1, min(-(-units // max(1, room // held)), units // fewest))
    piece = min(-(-units // count) * layout.frame_unit, layout.nframes)
    block = max(piece * layout.frame_nbytes, held)
    exchange = EXCHANGED_COPIES * block - SPARE_COPIES * min(block, LARGEST_EXCHANGED)
    return RowStrategy(
        "p2p",
        request,
        fixed=request.images + request.tiles,
        each=request.temporaries + COPIES * request.row,
        before=request.images + shuffle + workers * exchange,
        most=max(1, (2 * (units // count) * held - 1) // request.row),
        piece=piece,
    )


def reread(request: Request) -> RowStrategy:
    """Read every frame again for each band."""
    piece = request.layout.unit
    fixed = request.images + request.tiles + request.workers * request.layout.reading(piece)
    return RowStrategy("reread", request, fixed, request.temporaries + request.row, piece=piece)


def whole_units(layout: Layout) -> int:
    """Return the number of frames that are read at once if memory is no constraint."""
    piece = layout.least_piece
    return min(max(piece - piece % layout.frame_unit, layout.frame_unit), layout.nframes)


def refusal(layout: Layout, disk: Disk) -> str:
    """Return the reason why frames cannot be kept on a disk; empty if they can."""
    if disk.in_memory:
        return f"{disk.directory} is a RAM disk: scratch data there would count as memory"
    if layout.nbytes > disk.nbytes:
        return (
            f"scratch data need {rounded_up(layout.nbytes)}, "
            f"there are {rounded_down(disk.nbytes)} in {disk.directory}"
        )
    return ""
