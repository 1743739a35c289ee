"""The search for the keys of given ranks in a block of pixels.

A sample of frames tells where the keys of a pixel lie; 8 bits around there are cut out of all
frames into a tile (`daskstats.kernels.tiles`), and the key is found in it by a binary search. Where
keys spread further than 8 bits, the next 7 follow in a further round. A pixel that the sample was
wrong about is searched alone, or the block from the top bits on if there are many.
"""

from typing import NamedTuple

import numpy as np

from .frames import LINE, prefetch, value_at, view
from .jit import if_tested, inlined, internal, merged
from .keys import float_keys
from .tiles import COUNTED, MOST_BITS, NOT_IN_TILE, next_in_tile, search_bits
from .validity import (
    count_values,
    flush_counts,
    has_untested,
    replace_untested,
    reset_counts,
    select,
    start_counts,
)

# Frames of the sample, and a network that sorts as many (D. E. Knuth, The Art of Computer
# Programming, volume 3, section 5.3.4; 19 comparisons).
SAMPLE = 8
# fmt: off
NETWORK = (
    (0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6),
    (0, 4), (3, 7), (1, 5), (2, 6), (1, 4), (3, 6), (2, 4), (3, 5), (3, 4),
)
# fmt: on

# Bits about the guess of a sample that are searched at least. Ends of a tile stand for all keys
# beyond them.
LEAST_BITS = 5

# Half the range that is searched over the spread of the sample, with less than one pixel in a
# thousand beyond.
MARGIN = 1.75


class KeyFrames(NamedTuple):
    """Frames, seen as unsigned integers, for the search."""

    addresses: np.ndarray
    """uint64: the address of each frame"""
    flip: np.unsignedinteger
    """bits that differ between the values of integers and their keys, 0 for floats"""
    floating: bool
    test: tuple | None
    """a `ValidityTest` of `Valid.rank_test`, or None"""


class Block(NamedTuple):
    """The memory of a block of pixels; the next block is searched in the same."""

    first: int
    """number of the first pixel"""
    keys: np.ndarray
    """of one frame"""
    base: np.ndarray
    """key that is 0 in the tile"""
    found: np.ndarray
    """uint8: difference of the key found from the base; as long as a row of the tile"""
    wrong: np.ndarray
    """bool: whether the key found may be wrong"""
    tile: np.ndarray
    """uint8 (frames, pixels)"""


class Cut(NamedTuple):
    """How a tile is cut: it has ``(key - base) >> shift``, from 0 to 255."""

    shift: np.int64
    bits: np.int64
    """that are searched about a guess of the sample"""


@internal
def valid_keys(x, frames, out):
    """Turn the bits of values into keys; invalid values get the largest key."""
    untested = has_untested(frames.test)
    if frames.floating:
        float_keys(x, out)
    if untested:
        _copy_tested(x, frames.floating, frames.test, out)
    for p in range(out.size):
        bits = out[p] if frames.floating or untested else x[p]
        out[p] = select(bits, frames.test) ^ frames.flip


@internal
def _copy_tested(x, floating, test, keys):
    """Copy the bits of integers, or keep the keys of floats, without those of untested ranges."""
    if floating:
        replace_untested(keys, test, keys)
    else:
        replace_untested(x, test, keys)


@internal
def sample_keys(frames, block, sample):
    """Sort the keys of a few frames; return the mean range of the middle six."""
    n, g = frames.addresses.size, block.base.size
    for j in range(SAMPLE):
        s = sample[j][:g]
        x = view(frames.addresses[(2 * j + 1) * n // (2 * SAMPLE)], s, block.first, g)
        valid_keys(x, frames, s)
    _fill_gaps(sample, g, frames.test)
    for i, j in NETWORK:
        low, high = sample[i][:g], sample[j][:g]
        for p in range(g):
            a, b = low[p], high[p]
            low[p], high[p] = min(a, b), max(a, b)
    spread = 0.0
    low, high = sample[1][:g], sample[SAMPLE - 2][:g]
    for p in range(g):
        spread += np.float64(high[p] - low[p])
    return spread / g


@if_tested(lambda sample, count, test: None)
def _fill_gaps(sample, count, test):
    """Replace the keys of invalid values in the sample by another frame's, if there is one."""
    gap = ~sample.dtype.type(0)
    for k in range(2 * SAMPLE - 2):
        # Down the sample, and up again for the first ones.
        j = k + 1 if k < SAMPLE - 1 else 2 * SAMPLE - 3 - k
        s, near = sample[j], sample[j - 1 if k < SAMPLE - 1 else j + 1]
        for p in range(count):
            s[p] = near[p] if s[p] == gap else s[p]


@internal
def middle_of(block, guess, last, spread):
    """Return the middle of the guesses of two ranks, or the first if a tile is too short for both.

    The middle is in the memory of the block's keys.
    """
    keys, short = block.keys, 0
    most = np.float64(NOT_IN_TILE // 2) - MARGIN * spread
    for p in range(keys.size):
        half = (last[p] - guess[p]) // 2
        keys[p] = guess[p] + half
        short += np.float64(half) > most
    # A pixel that is searched alone takes as long as a hundred do for another tile.
    return keys if short * 64 <= keys.size else guess


@internal
def cut_about(frames, block, centre, spread, later):
    """Cut a tile about some keys, and return how it is cut."""
    cast, base = block.base.dtype.type, block.base
    widest = 8 * base.itemsize - MOST_BITS
    # Variables of one type: with a constant each callee would be compiled twice.
    shift, most = np.int64(0), np.int64(MOST_BITS)
    bits = np.int64(LEAST_BITS if widest else MOST_BITS)
    while MARGIN * spread > np.float64(((1 << (bits - 1)) - 1) << shift) and shift < widest:
        if bits < most:
            bits += 1
        else:
            shift += 1
    half = cast(cast(NOT_IN_TILE // 2) << cast(shift))
    for p in range(base.size):
        # All top bits leave nothing to guess.
        base[p] = cast(0) if _is_certain(base, shift, bits) else cast(max(centre[p], half) - half)
    _cut(frames, block, shift, later)
    return Cut(shift, bits)


@inlined
def _is_certain(base, shift, bits):
    return shift == 8 * base.itemsize - MOST_BITS and bits == MOST_BITS


@internal
def in_tile(block, cut, guess, spread):
    """Whether the tile has the keys of another rank, but for a few pixels."""
    base, margin, beyond = block.base, np.int64(min(MARGIN * spread, NOT_IN_TILE // 2)), 0
    for p in range(base.size if base.itemsize > 1 else 0):
        place = np.int64(guess[p]) - np.int64(base[p])
        beyond += ((place < margin) & (base[p] > 0)) | (place > NOT_IN_TILE - margin)
    return cut.shift == 0 and beyond * 64 <= base.size


@merged
def search(frames, block, rank, cut, guess):
    """Find the keys of a rank, as ``base + found``, in rounds of up to 8 and then 7 bits each.

    The tile is that of `cut_about` first, and of the last round in the end. Return the number of
    pixels that are marked as wrong.
    """
    base, found, tile = block.base, block.found, block.tile
    cast, g, shift = base.dtype.type, base.size, cut.shift
    most, later = np.int64(MOST_BITS), np.int64(0)
    bad = search_near(block, rank, guess, cut.bits)
    if _is_certain(base, shift, cut.bits):
        bad = 0
        block.wrong[:] = False
    elif bad * 16 > g:
        shift, bad = 8 * base.itemsize - MOST_BITS, 0
        block.wrong[:] = False
        base[:] = found[:] = 0
        _cut(frames, block, shift, later)
        search_bits(tile, rank, most, found)
    while shift > 0:
        for p in range(g):
            base[p] += cast(cast(found[p]) << cast(shift))
        shift = max(0, shift - 7)
        found[:] = 0
        _cut(frames, block, shift, later)
        search_bits(tile, rank, most, found)
    return bad


@internal
def search_near(block, rank, guess, bits):
    """Find the keys of a rank among a few bits about a guess, or the whole tile.

    Return the number of pixels that are marked as wrong.
    """
    base, found, lowest = block.base, block.found, np.zeros(block.found.size, np.uint8)
    cast = base.dtype.type
    half, most = cast((1 << (bits - 1)) - 1), cast((1 << MOST_BITS) - (1 << bits))
    for p in range(base.size):
        place = cast(max(guess[p], base[p]) - base[p])
        lowest[p] = min(cast(max(place, half) - half), most)
    # A loop, because numba takes seconds to compile the assignment of an array.
    for p in range(found.size):
        found[p] = lowest[p]
    search_bits(block.tile, rank, bits, found)
    return _mark_ends(block, lowest, bits, rank)


@internal
def _mark_ends(block, lowest, bits, rank):
    """Mark the pixels with a key that may be beyond the bits searched; return their number."""
    base, found, wrong = block.base, block.found, block.wrong
    bad, last = 0, (1 << bits) - 1
    for p in range(base.size):
        low = (found[p] == lowest[p]) & (base.dtype.type(base[p] + lowest[p]) > 0)
        high = found[p] - lowest[p] == last
        wrong[p] = (low | high) & (value_at(rank, p) >= 0)
        bad += wrong[p]
    return bad


@internal
def _cut(frames, block, shift, later):
    """Fill the tile with 8 bits of every key; see `Cut`.

    Valid keys are counted, where that is wanted. The first ``later`` pixels of the next block are
    prefetched: the search leaves the memory idle, and each frame is too far from the one before for
    the processor to read ahead by itself.
    """
    addresses, test, floating, tile = frames.addresses, frames.test, frames.floating, block.tile
    base, keys, first = block.base, block.keys, block.first
    n, g = addresses.size, base.size
    # Handing the test over for each frame would take longer than its work.
    untested = has_untested(test)
    ahead = np.uint64((first + g) * base.itemsize)
    reset_counts(test, first, g)
    for start in range(0, n, COUNTED):
        counts = start_counts(test, g)
        for f in range(start, min(n, start + COUNTED)):
            x = view(addresses[f], base, first, g)
            for byte in range(0, later * base.itemsize, LINE):
                prefetch(addresses[f] + ahead + np.uint64(byte))
            if floating:
                float_keys(x, keys)
            if untested:
                _copy_tested(x, floating, test, keys)
            # Two calls, because a variable for one or the other would count references.
            if floating or untested:
                _cut_frame(keys, frames.flip, base, shift, tile[f], counts, test)
            else:
                _cut_frame(x, frames.flip, base, shift, tile[f], counts, test)
        flush_counts(test, first, counts)


@inlined
def _cut_frame(x, flip, base, shift, out, counts, test):
    # The casts keep numba from widening to 64 bits.
    cast = base.dtype.type
    last, places = cast(NOT_IN_TILE), cast(shift & (8 * base.itemsize - 1))
    if shift == 0:
        for p in range(x.size):
            value = x[p]
            count_values(test, counts, p, value)
            k = cast(select(value, test) ^ flip)
            out[p] = np.uint8(min(cast(max(k, base[p]) - base[p]), last))
    else:
        for p in range(x.size):
            value = x[p]
            count_values(test, counts, p, value)
            k = cast(select(value, test) ^ flip)
            out[p] = np.uint8(min(cast(cast(max(k, base[p]) - base[p]) >> places), last))


@internal
def follow(frames, block, rank, below, out):
    """Find the keys of a rank after those of the rank before, ``below``, were found."""
    base, found = block.base, block.found
    missing, last = 0, np.uint8(NOT_IN_TILE)
    upto = np.empty(found.size, np.int32)
    above = np.empty(found.size, np.uint8)
    next_in_tile(block.tile, found, upto, above)
    for p in range(out.size):
        same = upto[p] > value_at(rank, p)
        out[p] = below[p] if same else base[p] + base.dtype.type(above[p])
        # Keys beyond the tile's range are looked for in the frames themselves.
        lacks = (not same) & (above[p] >= last)
        found[p] = np.uint8(NOT_IN_TILE) if lacks else found[p]
        missing += lacks
    if missing:
        _next_in_frames(frames, block, below, out)


@internal
def _next_in_frames(frames, block, below, out):
    """Find the least key above ``below`` for the pixels that have none in the tile."""
    keys, found = block.keys, block.found
    least = np.empty(out.size, out.dtype)
    most = ~out.dtype.type(0)
    least[:] = most
    for f in range(frames.addresses.size):
        valid_keys(view(frames.addresses[f], out, block.first, out.size), frames, keys)
        for p in range(out.size):
            k = keys[p]
            least[p] = min(least[p], k if k > below[p] else most)
    for p in range(out.size):
        if found[p] == NOT_IN_TILE:
            out[p] = least[p]


@internal
def mean_step(before, keys, rank):
    """Return the mean difference of the keys of a rank from those of the rank before."""
    total, count = np.int64(0), 0
    for p in range(keys.size):
        if value_at(rank, p) >= 0:
            step = np.int64(keys[p]) - np.int64(before[p])
            total += max(np.int64(0), min(step, np.int64(NOT_IN_TILE)))
            count += 1
    return total // count if count else -1


@internal
def search_alone(frames, block, rank, out):
    """Find the keys of the pixels that are marked as wrong, bit by bit, each alone."""
    keys = np.empty(frames.addresses.size, out.dtype)
    for p in range(out.size):
        if block.wrong[p]:
            for f in range(keys.size):
                keys[f] = view(frames.addresses[f], keys, block.first + p, 1)[0]
            valid_keys(keys, frames, keys)
            out[p] = _key_of_rank(keys, value_at(rank, p))


@internal
def _key_of_rank(keys, rank):
    """Return the largest key that at most ``rank`` keys are below."""
    cast = keys.dtype.type
    found = cast(0)
    for place in range(8 * keys.itemsize - 1, -1, -1):
        trial = cast(found | cast(cast(1) << cast(place)))
        below = 0
        for key in keys:
            below += key < trial
        if below <= rank:
            found = trial
    return found
