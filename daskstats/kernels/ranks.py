"""The ranks that are searched for: of all pixels, or following from numbers of values of each."""

from typing import NamedTuple

import numpy as np
from numba import types

from .frames import part_of
from .jit import by_type, internal


class Among(NamedTuple):
    """Ranks among some values of each pixel, which follow from the number of these."""

    counts: np.ndarray
    """uint32: number of these values; where they are all valid ones, the search counts them"""
    below: np.ndarray
    """int32: number of valid values below these"""
    parts: np.ndarray
    """for each rank the fraction of the way from the least to the largest value"""
    steps: np.ndarray
    """for each rank 0, or 1 if it is the next one"""
    planes: np.ndarray
    """for each rank the row of weights"""
    weights: np.ndarray
    """(percentiles, pixels): weight of the value of the next rank"""


@by_type
def ranks_of(ranks, row, first, count, padded):
    """Return the rank of all pixels, or an array that begins with those of ``count`` pixels."""
    if isinstance(ranks, types.BaseNamedTuple):

        def of_counts(ranks, row, first, count, padded):
            counts, below = part_of((ranks.counts, ranks.below), first, count)
            weights = ranks.weights[ranks.planes[row], first : first + count]
            _rank_among(counts, below, ranks.parts[row], ranks.steps[row], weights, padded)
            return padded

        return of_counts
    return lambda ranks, row, first, count, padded: ranks[row]


@internal
def _rank_among(counts, below, part, step, weights, ranks):
    """Write the ranks below a part of the counts, or the next ones, and the weights of these."""
    for p in range(counts.size):
        last = np.float64(counts[p]) - 1.0
        position = last * part
        rank = min(np.floor(position), last)
        weights[p] = position - rank if last >= 0 else 0.0
        ranks[p] = below[p] + np.int32(min(rank + step, last)) if last >= 0 else np.int32(-1)
