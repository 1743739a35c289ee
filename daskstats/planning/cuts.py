"""Ranges cut into blocks."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, pairwise
from math import gcd

from .values import MEBI, Range

Parts = tuple[Range, ...]

# A task should be long compared with its scheduling (some 0.1 ms) and shorter than a second: with
# these bounds a block of uint16 frames takes 1 to 100 ms, mostly in the source.
SMALLEST_BLOCK = 8 * MEBI
LARGEST_BLOCK = 256 * MEBI

# Tasks for each worker, so that the last ones to finish leave little idle time.
TASKS_PER_WORKER = 4


def tasks_per_worker(in_memory: bool) -> int:
    """Return the number of tasks that each worker runs, one after another.

    Frames in memory take equally long, and more tasks would lose more, to partial states and to
    dask: with four instead of one, std takes twice as long, max a third longer and the median a
    twelfth (240 x 1024 x 1024 uint16, two threads).
    """
    return 1 if in_memory else TASKS_PER_WORKER


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


def chunks(total: int, size: int) -> Parts:
    """Cut a range that begins with 0 into chunks of one size; the last may be smaller.

    >>> chunks(8, 3)
    ((0, 3), (3, 6), (6, 8))
    """
    return tuple(pairwise([*range(0, total, size), total]))


def cut(start: int, stop: int, size: int, unit: int = 1) -> Parts:
    """Cut a range into blocks of at most ``size``, nearly equal, at multiples of ``unit``.

    Cuts are made elsewhere only if ``unit`` is larger than ``size``.

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
    """Return the number of units decoded for a block that is read ``count`` frames at a time.

    These are the units that the block overlaps, and one more for each read that ends within a unit,
    as `Source.pieces` cuts.

    >>> units_read(3, 20, 8, unit=4), units_read(0, 12, 3, unit=4)
    (5, 6)
    """
    units = -(-stop // unit) - start // unit
    if count % unit == 0:
        return units
    cuts, period = -(-(stop - start) // count) - 1, unit // gcd(count, unit)
    # The cut after k reads is at start + k * count: at a unit's edge once in a period, if ever.
    at_edge = (k for k in range(1, min(period, cuts) + 1) if (start + k * count) % unit == 0)
    return units + cuts - len(range(next(at_edge, cuts + 1), cuts + 1, period))


def task_size(
    total: int,
    item_nbytes: int,
    workers: int,
    per_worker: int = TASKS_PER_WORKER,
    largest: int = LARGEST_BLOCK,
) -> int:
    """Return the number of items (frames or rows) of a block of suitable size."""
    target = -(-total // (per_worker * workers)) * item_nbytes
    target = min(max(target, SMALLEST_BLOCK), largest)
    return max(1, min(total, target // max(1, item_nbytes)))


def mean_reads(blocks: Iterable[Range], count: int, unit: int, total: int) -> float:
    """Return how often each unit is decoded on average, when blocks are read one by one.

    >>> mean_reads(((0, 6), (6, 8)), count=4, unit=4, total=8)
    1.5
    """
    return sum(units_read(*block, count, unit) for block in blocks) / -(-total // unit)


def flat(parts: Iterable[Parts]) -> Parts:
    """Return the parts of all steps in one tuple."""
    return tuple(part for step in parts for part in step)


def parts_of(blocks: Parts, steps: list[Range]) -> tuple[Parts, ...]:
    """Cut steps where blocks meet.

    >>> parts_of(((0, 4), (4, 8)), [(0, 3), (3, 8)])
    (((0, 3),), ((3, 4), (4, 8)))
    """
    edges = sorted({0, *(stop for _, stop in blocks), *(stop for _, stop in steps)})
    inner = list(pairwise(edges))
    return tuple(
        tuple(inner[bisect_left(edges, start) : bisect_left(edges, stop)]) for start, stop in steps
    )
