"""How many intermediate images there are where they only show the progress."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..arguments import count_chunks, integer
from .request import Request
from .values import Plan

# Numbers of intermediate images to try: the largest that reads frames at most a tenth more often
# than a single step is used.
STEPS = (50, 40, 30, 25, 20, 15, 10, 5, 2, 1)
MORE_READS = 1.1


@dataclass(frozen=True)
class AtMost:
    """A number of intermediate images, of which fewer will do."""

    count: object
    of_rows: bool = False
    """whether rows of the final image will do, because the images only move a progress bar"""


def count_steps(nchunk: object, total: int, name: str) -> int:
    """Return the number of intermediate images, or the most of them, from 1 to ``total``.

    >>> count_steps(7, 20, "nchunk"), count_steps(AtMost(50), 20, "nchunk")
    (7, 20)
    """
    if isinstance(nchunk, AtMost):
        nchunk = min(integer(nchunk.count, name), total)
    return count_chunks(nchunk, total, name)


def plan_steps(make: Callable[[Request], Plan], request: Request, nchunk: object) -> Plan:
    """Plan with the steps of a request or, for `AtMost`, with as many as cost hardly more than one.

    A source whose frames are decoded together, or that is read again for each band of rows, is read
    more often if steps cut across these units.
    """
    if not isinstance(nchunk, AtMost):
        return make(request)
    once = make(replace(request, steps=1))
    tried = {*STEPS, request.steps, len(once.blocks)}
    for steps in sorted((steps for steps in tried if steps <= request.steps), reverse=True):
        plan = make(replace(request, steps=steps))
        if plan.reads <= MORE_READS * once.reads:
            return plan
    return once
