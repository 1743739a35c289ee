"""Strategies that get frames from the series to bands of rows, with their cost."""

from dataclasses import dataclass

from .cuts import LARGEST_BLOCK, TASKS_PER_WORKER
from .frame_wise import COPIES
from .margins import fetched
from .request import Request
from .values import MEBI, TASK_OBJECTS, Disk, Layout, mebibytes

# Bytes of a chunk of scratch data: large beside the cost of a file (some 2 ms), and small beside
# the limit, because zarr has four at work for each worker, each as it is, compressed, and with its
# checksum.
LARGEST_CHUNK, CHUNKS_OF_LIMIT = 4 * MEBI, 128
CHUNKS_IN_FLIGHT = 15

# Chunks are made this large where memory allows it: a chunk of any size costs some 2 ms of a core,
# so that 100 MiB in chunks of 2 KiB took 45 s. Scratch data of more chunks than this, and with
# smaller ones, are not written.
SMALLEST_CHUNK, MOST_SMALL_CHUNKS = 128 << 10, 4096

# Copies of a block of frames on its worker while it is cut up and sent to others: as read, as cut,
# on its way out, and as much on its way in (measured: seven). Two of them are in what a worker's
# process is taken to need, up to this size, which is as fast as any larger one.
EXCHANGED_COPIES, SPARE_COPIES, LARGEST_EXCHANGED = 7, 2, 32 << 20


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
    chunk = max(min(LARGEST_CHUNK, request.payload // (workers * CHUNKS_OF_LIMIT)), row)
    # Larger ones where those in flight take no more than a quarter of the limit.
    in_quarter = request.payload // (4 * workers * CHUNKS_IN_FLIGHT)
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
    room = (request.payload - request.images - shuffle) // (workers * counted)
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


def refusal(layout: Layout, disk: Disk | None) -> str:
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
