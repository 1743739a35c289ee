"""What is found in a tile: bytes, a row for each frame and a column for each pixel of a block.

Each pass over it is simple enough for the compiler to work on a whole line of cache at once, and
counts and sums in as few bits as hold them, for as many frames as these allow.
"""

import numpy as np

from .frames import at
from .jit import internal

# Stands for a value that is not in the tile, among those found in it.
LACKING = 255


@internal
def descend(tile, rank, bits, found):
    """Find the largest value that at most ``rank`` frames are below, bit by bit from the found."""
    trial = np.empty(found.size, np.uint8)
    below = np.empty(found.size, np.int32)
    few = np.empty(found.size, np.uint8)
    for place in range(bits - 1, -1, -1):
        for p in range(found.size):
            trial[p] = found[p] + np.uint8(1 << place)
        _count_below(tile, trial, few, below)
        for p in range(found.size):
            if below[p] <= at(rank, p):
                found[p] = trial[p]


@internal
def _count_below(tile, trial, few, below):
    """Count the frames below a trial value, in 8 bits for up to 248 frames at a time."""
    n, one = tile.shape[0], np.uint8
    below[:] = 0
    for start in range(0, n, 248):
        stop = min(n, start + 248)
        few[:] = 0
        for f in range(start, stop - 7, 8):
            a, b, c, d = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
            e, g, h, i = tile[f + 4], tile[f + 5], tile[f + 6], tile[f + 7]
            for p in range(trial.size):
                t = trial[p]
                w = one(one(a[p] < t) + one(b[p] < t)) + one(one(c[p] < t) + one(d[p] < t))
                x = one(one(e[p] < t) + one(g[p] < t)) + one(one(h[p] < t) + one(i[p] < t))
                few[p] += one(w + x)
        for f in range(stop - (stop - start) % 8, stop):
            a = tile[f]
            for p in range(trial.size):
                few[p] += one(a[p] < trial[p])
        for p in range(trial.size):
            below[p] += few[p]


@internal
def next_in_tile(tile, found, few, upto, above):
    """Count the frames up to the found value, and find the least of those above it."""
    n, one, last = tile.shape[0], np.uint8, np.uint8(LACKING)
    upto[:] = 0
    above[:] = last
    for start in range(0, n, 252):
        stop = min(n, start + 252)
        few[:] = 0
        for f in range(start, stop - 3, 4):
            a, b, c, d = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
            for p in range(found.size):
                v = found[p]
                w, x = one(one(a[p] <= v) + one(b[p] <= v)), one(one(c[p] <= v) + one(d[p] <= v))
                few[p] += one(w + x)
                w, x = a[p] if a[p] > v else last, b[p] if b[p] > v else last
                y, z = c[p] if c[p] > v else last, d[p] if d[p] > v else last
                above[p] = min(min(min(w, x), min(y, z)), above[p])
        for f in range(stop - (stop - start) % 4, stop):
            a = tile[f]
            for p in range(found.size):
                few[p] += one(a[p] <= found[p])
                above[p] = min(above[p], a[p] if a[p] > found[p] else last)
        for p in range(found.size):
            upto[p] += few[p]
