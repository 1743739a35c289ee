"""Compilations that workers announce to the client."""

import time

import numpy as np
from clusters import settle

import daskstats as stats
from daskstats.run import compilations


def compile_slowly():
    """Compile a function for a statistic as a task does; its code is not kept on disk."""
    import numba

    from daskstats import compiling
    from daskstats.graph import tasks

    compiling.listen()
    with tasks.announced_compilations(), compiling.compiled_for("median", "u2", 9.0):

        @numba.njit
        def slow(x):
            for value in (x, x + 1):
                x += value * 2.0
            return x

        slow(1)


def subscribers(dask_scheduler):
    return set(dask_scheduler._broker._topics[compilations.COMPILATIONS].subscribers)


def test_runs_know_when_workers_compile(client):
    """All runs of a client see it, and the subscription ends with the last."""
    frames = np.arange(60, dtype="u2").reshape(15, 2, 2)
    first, second = stats.max_iter(frames, 5), stats.max_iter(frames, 3)
    next(first), next(second)
    assert len(client.run_on_scheduler(subscribers)) == 1
    seen = set()
    future = client.submit(compile_slowly, pure=False)
    deadline = time.monotonic() + 30
    while (True, True) not in seen or (False, False) not in seen or not future.done():
        assert time.monotonic() < deadline
        seen.add((first._runner.compiling(), second._runner.compiling()))
        time.sleep(0.001)
    assert future.result() is None
    first.close()
    assert client in compilations._shared
    second.close()
    assert client not in compilations._shared
    # The client's message takes another connection than the question.
    while client.run_on_scheduler(subscribers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.run_on_scheduler(subscribers) == set()
    del future
    assert settle(client) == (0, 0, 0)
