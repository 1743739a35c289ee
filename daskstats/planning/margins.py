"""Memory around arrays, and the largest graph."""

from collections.abc import Callable

from .values import MEBI, Layout, typed

# Allocators lose a tenth of the bytes of arrays between them; threads, tasks and metadata take the
# rest.
ALLOCATOR_SLACK, FIXED_OVERHEAD = 10, 4 * MEBI

# Tasks of the largest graph: dask takes some 10 us and 1.5 kB for each, before the first is run.
MOST_TASKS = 2_000_000


def check_tasks(count: int, layout: Layout) -> None:
    """Refuse a graph that is too large for dask."""
    if count > MOST_TASKS:
        raise ValueError(
            f"{layout.nframes} frames of {layout.rows} x {layout.cols} would be {count} tasks, "
            f"more than the {MOST_TASKS} that can be planned: use nframes or frames for a part of "
            f"them, or ask for fewer intermediate images"
        )


def fetched(layout: Layout, nframes: int) -> int:
    """Return the bytes of a task that reads ``nframes`` frames at once."""
    return 0 if layout.in_memory else nframes * layout.frame_nbytes + layout.reading(nframes)


def with_losses(nbytes: int) -> int:
    """Return the memory that arrays of ``nbytes`` take, with all losses."""
    return nbytes + nbytes // ALLOCATOR_SLACK + FIXED_OVERHEAD


def payload(limit: int) -> int:
    """Return the bytes of arrays that a memory limit allows.

    >>> with_losses(payload(1 << 30)) == 1 << 30
    True
    """
    nbytes = max(0, limit - FIXED_OVERHEAD) * ALLOCATOR_SLACK // (ALLOCATOR_SLACK + 1)
    return nbytes + (with_losses(nbytes + 1) <= limit)


def enough(limit: int, needed: Callable[[int], int], fits: Callable[[int], bool]) -> int:
    """Return a larger limit that is enough, also as it is shown.

    Parameters
    ----------
    limit : int
        A limit that is not.
    needed : callable
        (limit) to the memory that is needed then, which grows with the limit, but less.
    fits : callable
        (limit) to whether it is enough.
    """
    for _ in range(200):
        least = needed(limit)
        # No smaller limit than the need is enough. If the limit covers the need and is refused for
        # another reason, it grows by a twentieth.
        limit = typed(least if least > limit else limit + limit // 20)
        if fits(limit):
            break
    return limit
