"""The passes over a tile: bytes, a row for each frame and a column for each pixel of a block.

Each pass is simple enough for the compiler to handle a whole cache line at once, and counts in 8
bits for as many frames as fit.
"""

import numpy as np

from .frames import value_at
from .jit import internal
from .validity import most_counted

# Bits of a tile, and the value that stands for a key that is not in it.
MOST_BITS = 8
NOT_IN_TILE = (1 << MOST_BITS) - 1

# Frames that 8 bits count, in whole groups of eight.
COUNTED = most_counted(1)


@internal
def search_bits(tile, rank, bits, found):
    """Find the largest value that at most ``rank`` frames are below, from the found value on.

    It is a binary search: each bit counts the frames that are below a trial value, one comparison
    and one addition per frame, without a branch.
    """
    trial = np.empty(found.size, np.uint8)
    below = np.empty(found.size, np.int32)
    counts = np.empty(found.size, np.uint8)
    for place in range(bits - 1, -1, -1):
        for p in range(found.size):
            trial[p] = found[p] + np.uint8(1 << place)
        _count_below(tile, trial, counts, below)
        for p in range(found.size):
            if below[p] <= value_at(rank, p):
                found[p] = trial[p]


@internal
def _count_below(tile, trial, counts, below):
    """Count the frames below a trial value."""
    n, one = tile.shape[0], np.uint8
    below[:] = 0
    for start in range(0, n, COUNTED):
        stop = min(n, start + COUNTED)
        counts[:] = 0
        for f in range(start, stop - 7, 8):
            a, b, c, d = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
            e, g, h, i = tile[f + 4], tile[f + 5], tile[f + 6], tile[f + 7]
            for p in range(trial.size):
                t = trial[p]
                w = one(one(a[p] < t) + one(b[p] < t)) + one(one(c[p] < t) + one(d[p] < t))
                x = one(one(e[p] < t) + one(g[p] < t)) + one(one(h[p] < t) + one(i[p] < t))
                counts[p] += one(w + x)
        for f in range(stop - (stop - start) % 8, stop):
            a = tile[f]
            for p in range(trial.size):
                counts[p] += one(a[p] < trial[p])
        for p in range(trial.size):
            below[p] += counts[p]


@internal
def next_in_tile(tile, found, upto, above):
    """Count the frames up to the found value, and find the least of those above it."""
    n, one, last = tile.shape[0], np.uint8, np.uint8(NOT_IN_TILE)
    counts = np.empty(found.size, np.uint8)
    upto[:] = 0
    above[:] = last
    for start in range(0, n, COUNTED):
        stop = min(n, start + COUNTED)
        counts[:] = 0
        for f in range(start, stop - 3, 4):
            a, b, c, d = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
            for p in range(found.size):
                v = found[p]
                w, x = one(one(a[p] <= v) + one(b[p] <= v)), one(one(c[p] <= v) + one(d[p] <= v))
                counts[p] += one(w + x)
                w, x = a[p] if a[p] > v else last, b[p] if b[p] > v else last
                y, z = c[p] if c[p] > v else last, d[p] if d[p] > v else last
                above[p] = min(min(min(w, x), min(y, z)), above[p])
        for f in range(stop - (stop - start) % 4, stop):
            a = tile[f]
            for p in range(found.size):
                counts[p] += one(a[p] <= found[p])
                above[p] = min(above[p], a[p] if a[p] > found[p] else last)
        for p in range(found.size):
            upto[p] += counts[p]
