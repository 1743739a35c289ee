"""The search for the keys of given ranks in a block of pixels.

A sample of frames tells where the keys of a pixel lie; 8 bits around there are cut out of all
frames into a tile (`daskstats.kernels.tiles`), and the key is found in it by a binary search. Where
keys spread further than 8 bits, the next 7 follow in a further round. A pixel that the sample was
wrong about is searched alone, or the block from the top bits on if there are many.
"""

from typing import NamedTuple

import numpy as np

from .frames import LINE, prefetch, value_at, view
from .jit import if_tested, inlined, internal
from .keys import float_keys
from .tiles import MOST_BITS, NOT_IN_TILE, next_in_tile, search_bits
from .validity import (
    MOST_FRAMES,
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

# Bits of a tile that are searched at least. Its ends stand for all keys beyond them.
LEAST_BITS = 5

# Half the range of a tile over the spread of the sample, with less than one pixel in a thousand
# beyond.
MARGIN = 1.75

# Frames that a narrow counter of any width can count.
COUNTED = MOST_FRAMES[1]


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
    """How a tile is cut: it has ``(key - base) >> shift``, from 0 to ``2^total - 1``."""

    shift: np.int64
    bits: np.int64
    """that are searched"""
    total: np.int64


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
def cut_about(frames, block, guess, spread, least, later):
    """Cut a tile of at least ``least`` bits about a guess, and return how it is cut."""
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
    total = max(bits, least)
    half = cast(cast((1 << (total - 1)) - 1) << cast(shift))
    # All top bits leave nothing to guess.
    certain = shift == widest and bits == most
    for p in range(base.size):
        base[p] = cast(0) if certain else cast(max(guess[p], half) - half)
    _cut(frames, block, shift, total, later)
    return Cut(shift, bits, total)


@internal
def search(frames, block, rank, cut, guess):
    """Find the keys of a rank, as ``base + found``, in rounds of up to 8 and then 7 bits each.

    The tile is that of `cut_about` first, and of the last round in the end. Return the bits of that
    round and the number of pixels that are marked as wrong.
    """
    base, found, tile = block.base, block.found, block.tile
    cast, g, shift, total = base.dtype.type, base.size, cut.shift, cut.total
    widest, most = 8 * base.itemsize - MOST_BITS, np.int64(MOST_BITS)
    lowest = np.zeros(found.size, np.uint8)
    near = cast((1 << (cut.bits - 1)) - 1)
    for p in range(g if total > cut.bits else 0):
        lowest[p] = max(cast(guess[p] - base[p]), near) - near
    # A loop, because numba takes seconds to compile the assignment of an array.
    for p in range(found.size):
        found[p] = lowest[p]
    search_bits(tile, rank, cut.bits, found)
    bad, later = 0, np.int64(0)
    block.wrong[:] = False
    if shift < widest or cut.bits < most:
        bad = _mark_ends(block, lowest, cut.bits, rank)
    if bad * 16 > g:
        shift, total, bad = widest, most, 0
        block.wrong[:] = False
        base[:] = found[:] = 0
        _cut(frames, block, shift, total, later)
        search_bits(tile, rank, total, found)
    while shift > 0:
        for p in range(g):
            base[p] += cast(cast(found[p]) << cast(shift))
        shift, total = max(0, shift - 7), most
        found[:] = 0
        _cut(frames, block, shift, total, later)
        search_bits(tile, rank, total, found)
    return total, bad


@internal
def search_about_means(block, rank, bits):
    """Find the keys of a rank among a few bits about the means of a tile, which ``found`` holds.

    Return the number of pixels that are marked as wrong.
    """
    half, most = np.uint8((1 << (bits - 1)) - 1), np.uint8(256 - (1 << bits))
    found = block.found
    lowest = np.empty(found.size, np.uint8)
    for p in range(found.size):
        found[p] = lowest[p] = min(np.uint8(max(found[p], half) - half), most)
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
def _cut(frames, block, shift, bits, later):
    """Fill the tile with a few bits of every key; see `Cut`.

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
                _cut_frame(keys, frames.flip, base, shift, bits, tile[f], counts, test)
            else:
                _cut_frame(x, frames.flip, base, shift, bits, tile[f], counts, test)
        flush_counts(test, first, counts)


@inlined
def _cut_frame(x, flip, base, shift, bits, out, counts, test):
    # The casts keep numba from widening to 64 bits.
    cast = base.dtype.type
    last, places = cast((1 << bits) - 1), cast(shift & (8 * base.itemsize - 1))
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
def follow(frames, block, rank, bits, below, out):
    """Find the keys of a rank after those of the rank before, ``below``, were found."""
    base, found = block.base, block.found
    missing, last = 0, np.uint8((1 << bits) - 1)
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
