"""Tasks that read: in which order they run."""

import dask
import numpy as np
import pytest
from fakes import FakeSeries

import daskstats as stats


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    ("limit", "strategy"), [(None, "resident"), ("10 MB", "scratch")], ids=["memory", "disk"]
)
def test_frames_that_are_kept_are_read_in_their_order(rng, workers, limit, strategy):
    """Each thread goes forwards: a task reads after the one that is `workers` before it."""
    frames = rng.integers(0, 999, (640, 64, 64), "u2")
    series = FakeSeries(frames)
    with dask.config.set(num_workers=workers):
        plan = stats.plan(series, "median", memory_limit=limit)
        assert plan.strategy == strategy
        image = stats.median(series, memory_limit=limit).compute()
    np.testing.assert_array_equal(image, np.median(frames, axis=0).astype("f4"))
    starts = [start for start, _ in plan.groups] or range(0, 640, plan.piece)
    assert len(starts) >= 5
    at = np.array([series.reads.index(start) for start in starts])
    assert (at[workers:] > at[:-workers]).all()
