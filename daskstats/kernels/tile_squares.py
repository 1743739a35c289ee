"""Sums of squares from the tiles that order statistics are searched in."""

import numpy as np

from .frames import view
from .jit import internal
from .moments import add_squares


@internal
def squares_of_tile(block, offset, whole, along):
    """Sum values and squares from a tile of 8 bits above a base (values beyond are at its ends).

    With 16 bits for most sums it takes a third of the time that the frames would. Pixels with
    values that may be beyond the tile are summed alone, or the block from the frames if there are
    many, or if the tile has not the ``whole`` values. If it has, ``found`` becomes the mean of its
    bytes, which is next to the mean of a pixel if that has a few values far beyond the tile.

    Parameters
    ----------
    block : Block
    offset : int
        Difference of keys from values.
    whole : bool
    along : tuple of Frames and SquareSums
    """
    (frames, into), tile, base, means, first = (
        along,
        block.tile,
        block.base,
        block.found,
        block.first,
    )
    n, g = tile.shape[0], base.size
    found = (
        np.zeros(g, np.int64),
        np.zeros(g, np.int64),
        np.zeros(g, np.uint8),
        np.full(g, np.uint8(255)),
    )
    total, square_sum, most, least = found
    beyond = np.zeros(g, np.bool_)
    lost = g
    if whole:
        sum_tile(tile, (total, square_sum, most, least))
        lost, narrow = 0, base.itemsize == 1
        for p in range(g):
            inside = narrow | ((most[p] < 255) & ((least[p] > 0) | (base[p] == 0)))
            beyond[p] = not inside
            lost += not inside
            means[p] = np.uint8(np.float64(total[p]) / n)
    if lost * 16 > g:
        add_squares(frames, into, True, first, first + g)
        return
    for p in range(g):
        b = np.int64(base[p]) - np.int64(offset)
        into.sums[first + p] = n * b + total[p]
        into.squares[first + p] = (n * b + 2 * total[p]) * b + square_sum[p]
        into.high[first + p] = b + np.int64(most[p])
        into.low[first + p] = b + np.int64(least[p])
    for p in range(g if lost else 0):
        if beyond[p]:
            _square_alone(tile, p, np.int64(base[p]) - np.int64(offset), frames, into, first + p)


@internal
def _square_alone(tile, column, base, frames, into, pixel):
    """Sum the values of one pixel and their squares, and find its extremes.

    Only values at the ends of the tile are looked up in the frames.
    """
    total, square_sum = np.int64(0), np.int64(0)
    most, least = np.int64(-(1 << 16)), np.int64(1 << 16)
    for f in range(frames.addresses.size):
        part = tile[f, column]
        value = base + np.int64(part)
        if part == 0 or part == 255:
            value = np.int64(view(frames.addresses[f], frames.like, pixel, 1)[0])
        total += value
        square_sum += value * value
        most, least = max(most, value), min(least, value)
    into.sums[pixel], into.squares[pixel] = total, square_sum
    into.high[pixel], into.low[pixel] = most, least


@internal
def sum_tile(tile, found):
    """Sum bytes and their squares, and find the extremes: add them to the four arrays found.

    Squares are those of the difference from 128, at most 2^14, so that three fit into 16 bits.
    Their sum may overflow, as in `Squares`; its difference from that of upper bytes does not.
    """
    total, squares, most, least = found
    n, g, narrow = tile.shape[0], total.size, np.uint16
    sums = np.empty(g, np.uint16)
    wrapped = np.empty(g, np.uint16)
    uppers = np.empty(g, np.uint16)
    for start in range(0, n, 252):
        stop = min(n, start + 252)
        for p in range(g):
            sums[p] = wrapped[p] = uppers[p] = 0
        for f in range(start, stop - 5, 6):
            a, b, c = tile[f], tile[f + 1], tile[f + 2]
            d, e, h = tile[f + 3], tile[f + 4], tile[f + 5]
            for p in range(g):
                u, v, w, x, y, z = a[p], b[p], c[p], d[p], e[p], h[p]
                most[p] = max(max(max(u, v), max(w, x)), max(max(y, z), most[p]))
                least[p] = min(min(min(u, v), min(w, x)), min(min(y, z), least[p]))
                sums[p] += narrow(narrow(u) + narrow(v) + narrow(w))
                sums[p] += narrow(narrow(x) + narrow(y) + narrow(z))
                one = narrow(_centred_square(u) + _centred_square(v) + _centred_square(w))
                two = narrow(_centred_square(x) + _centred_square(y) + _centred_square(z))
                wrapped[p] += narrow(one + two)
                uppers[p] += narrow(narrow(one >> 8) + narrow(two >> 8))
        for f in range(stop - (stop - start) % 6, stop):
            a = tile[f]
            for p in range(g):
                most[p] = max(most[p], a[p])
                least[p] = min(least[p], a[p])
                sums[p] += narrow(a[p])
                one = _centred_square(a[p])
                wrapped[p] += one
                uppers[p] += narrow(one >> 8)
        for p in range(g):
            above = np.int64(uppers[p]) << 8
            total[p] += sums[p]
            squares[p] += above + np.int64(narrow(wrapped[p] - narrow(above)))
    for p in range(g):
        squares[p] += 256 * total[p] - n * np.int64(128 * 128)


@internal
def _centred_square(value):
    """Return the square of the difference of a byte from 128, in 16 bits."""
    from_middle = np.uint16(np.uint16(value) - np.uint16(128))
    return np.uint16(from_middle * from_middle)
