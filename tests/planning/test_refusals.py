"""The limit that a refusal names is enough, typed as it is shown, and hardly above the least."""

import random
import re

import dask
import numpy as np
import pytest

import daskstats as stats
from daskstats.config import parse_memory
from daskstats.planning.frame_wise import plan_frame_wise
from daskstats.planning.request import Request
from daskstats.planning.row_wise import plan_row_wise
from daskstats.planning.values import Cost, Disk, Layout, MemoryLimitError, rounded_down, rounded_up

DISK = Disk("/scratch", 1 << 60)
BY_ROWS = (None, DISK), (0, 0, 0, 1 << 20, 1 << 27)


def draw_layout(rng):
    nframes, rows = int(2 ** rng.uniform(0, 14)), int(2 ** rng.uniform(0, 10))
    return Layout(
        nframes=nframes,
        rows=rows,
        cols=int(2 ** rng.uniform(0, 9)),
        itemsize=rng.choice([1, 2, 4, 8]),
        frame_unit=min(nframes, rng.choice([1, 1, 1, 10, 64])),
        row_unit=rng.choice([1, rows, rows, -(-rows // 3)]),
        in_memory=rng.random() < 0.2,
        buffers=rng.choice([0, 1, 1.5]),
        stored=rng.choice([0, 0, 0.4]),
        again=rng.random() < 0.8,
        apart=rng.random() < 0.2,
        kept=rng.choice([0, 0, 123_456_789]),
    )


def draw_planner(seed):
    """Return a function of a limit that plans, and whether it plans by rows."""
    rng, rows = random.Random(seed), seed % 3 > 0
    layout, processes = draw_layout(rng), rng.choice([0, 0, 3])
    cost = Cost(rng.choice([4, 16, 60]), rng.choice([4, 8]), rng.randint(0, 90), rng.choice([0, 9]))
    workers, running = rng.choice([1, 2, 8, 40]), rng.random() < 0.5
    request = Request(layout, cost, 1, workers, 0, running, processes=processes)
    disk, shuffle = map(rng.choice, BY_ROWS)
    options = {"use_buffer": rng.random() < 0.8, "disk": disk}
    options["shuffle"] = shuffle if processes else 0
    if rows:
        return lambda limit: plan_row_wise(request.within(limit), **options)
    return lambda limit: plan_frame_wise(request.within(limit), chained=not processes)


def is_refused(plan, limit):
    try:
        plan(limit)
    except MemoryLimitError:
        return True
    return False


def named(refusal):
    """Return the limit that a refusal names, as `memory_limit` takes it."""
    return parse_memory(re.findall(r"need at least ([\d.e+-]+ [MG]iB)", str(refusal))[0])


@pytest.mark.parametrize("seed", range(50))
def test_the_limit_that_a_refusal_names_is_enough(seed):
    for number in (3 * seed, 3 * seed + 1, 3 * seed + 2):
        plan, limit = draw_planner(number), 1 << 20
        with pytest.raises(MemoryLimitError) as least:
            plan(limit)
        for part in (0.0, 0.3, 0.9, 0.99):  # the larger the limit, the larger chunks might be
            limit = max(limit, int(part * named(least.value)))
            if not is_refused(plan, limit):
                continue
            with pytest.raises(MemoryLimitError) as refusal:
                plan(limit)
            enough = named(refusal.value)
            assert not is_refused(plan, enough), f"{number}: {refusal.value}"
            much_less = int(enough / 1.15)
            assert much_less <= limit or is_refused(plan, much_less), f"{number}: {refusal.value}"


def test_what_is_needed_grows_with_the_limit():
    """It was named for the limit that was refused: 755.8 MiB, and then 844 MiB."""
    layout = Layout(1440, 3888, 3072, 2, row_unit=3888)
    cost = Cost(state=8, image=8, temporaries=64, tile=1 << 20)
    request = Request(layout, cost, 1, 8, 1 << 29)
    with pytest.raises(MemoryLimitError) as refusal:
        plan_row_wise(request, disk=DISK)
    assert plan_row_wise(request.within(named(refusal.value)), disk=DISK)


def test_a_need_is_rounded_up_and_a_limit_down():
    ims = np.broadcast_to(np.zeros((), "u8"), (100_000, 1, 1))
    with dask.config.set(num_workers=8):
        with pytest.raises(MemoryLimitError, match=r"at least 4.001 MiB .* is 0.01416 MiB"):
            stats.plan(ims, "max", memory_limit=14_852, use_buffer=False)
        assert stats.plan(ims, "max", memory_limit="4.001 MiB", use_buffer=False)
    for nbytes in (1, 4097, (4 << 20) + 1, (10_000 << 20) - 1, 10_000 << 20, (1 << 50) + 1):
        assert parse_memory(rounded_up(nbytes)) >= nbytes
        assert nbytes == 1 or parse_memory(rounded_down(nbytes)) <= nbytes
        assert parse_memory(rounded_up(nbytes)) <= 1.001 * nbytes + 1
