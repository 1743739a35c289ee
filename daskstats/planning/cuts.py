"""Ranges cut into blocks."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, pairwise
from math import gcd

from .values import MEBI, Range

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


def flat(parts: Iterable[tuple[Range, ...]]) -> tuple[Range, ...]:
    """Return the parts of all steps in one row."""
    return tuple(part for step in parts for part in step)


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
