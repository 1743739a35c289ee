"""Boxes of leading axes: the frames in C order, in the fewest pieces."""

from itertools import product

import numpy as np
import pytest

from daskstats.series.leading import boxes


@pytest.mark.parametrize("lead", [(), (5,), (3, 4), (1, 5), (5, 1), (2, 3, 4), (3, 1, 2, 2)])
def test_boxes_are_the_frames_in_order(lead):
    frames = np.arange(int(np.prod(lead))).reshape(lead)
    for start, stop in product(range(frames.size), range(1, frames.size + 1)):
        if start < stop:
            found = [np.ravel(frames[box]) for box in boxes(start, stop, lead)]
            assert np.concatenate(found).tolist() == list(range(start, stop))
            assert len(found) == fewest(frames, start, stop)


def fewest(frames, start, stop):
    """Return the least number of boxes, by trying the longest one first; prefixes nest."""
    count = 0
    while start < stop:
        start = max(end for end in range(start + 1, stop + 1) if is_box(frames, start, end))
        count += 1
    return count


def is_box(frames, start, stop):
    indices = np.argwhere((frames >= start) & (frames < stop))
    lengths = indices.max(0) - indices.min(0) + 1 if frames.ndim else np.ones(1, int)
    return np.prod(lengths) == stop - start
