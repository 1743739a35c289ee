"""The inner loops, compiled with numba: folds and order statistics over blocks of frames.

They take a *piece*, a list of arrays (frames, rows, cols) that follow one another, in native byte
order and with every frame contiguous. Nothing is joined: compiled code gets the address of each
frame. It works through tiles of pixels that stay in cache, from index 0 of contiguous views, which
is what LLVM vectorises, and releases the GIL. The first call for a dtype compiles for a second or
two; the result is cached on disk.

Figures are for one thread, 240 x 1024 x 1024 uint16 in memory.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload
from numpy.typing import DTypeLike

Piece = list[np.ndarray]

# Pixels of a tile of a fold: 16 KB of uint16 frames and 64 KB of sums. Extremes, which need less
# beside the frames, run at 38 GB/s on two threads with longer tiles, and at 31 with these.
TILE, LONG_TILE = 8192, 32768

# Frames that a 32-bit accumulator holds the sum of, for pixels of at most 16 bits.
FRAMES_IN_32_BITS = 1 << 16

# Order statistics: pixels of a block whose counters stay in registers and first-level cache, the
# most pixels of a tile, and its bytes (half of a second-level cache).
BLOCK, LARGEST_TILE, TILE_NBYTES = 256, 2048, 1 << 19

# Frames of the sample that says where a pixel's values lie, and a network that sorts as many
# (D. E. Knuth, The Art of Computer Programming, volume 3, section 5.3.4; 19 comparisons).
SAMPLE = 8
# fmt: off
NETWORK = (
    (0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6),
    (0, 4), (3, 7), (1, 5), (2, 6), (1, 4), (3, 6), (2, 4), (3, 5), (3, 4),
)
# fmt: on

# Bits of a tile of order statistics, at most and at least; its ends stand for what lies outside.
MOST_BITS, LEAST_BITS = 8, 5

# Marks, among the values found in a tile, a pixel whose next value is not in the tile.
LACKING = 255

# Half the range of a tile must be so many times the spread of the sample, for less than one pixel
# in a thousand to be outside.
MARGIN = 1.75

compiled = njit(nogil=True, cache=True)


@intrinsic
def pointer(typingctx, address, like):
    """Return an address as a pointer to items of the dtype of ``like``."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.uint64, like), codegen


@compiled
def view(address, like, first, count):
    """Return ``count`` pixels of a frame, from ``first`` on, as a contiguous array."""
    return carray(pointer(address + np.uint64(first * like.itemsize), like), count)


def addresses(piece: Piece) -> np.ndarray:
    """Return the address of every frame; the arrays must outlive its use."""
    every = [
        block.ctypes.data + block.strides[0] * np.arange(len(block), dtype=np.int64)
        for block in piece
    ]
    return np.concatenate(every).astype(np.uint64)


def plain(piece: Piece) -> Piece:
    """Return a piece of a dtype that numba knows: bool as bytes, float16 widened to float32."""
    dtype = piece[0].dtype
    if dtype == np.bool_:
        return [block.view(np.uint8) for block in piece]
    if dtype == np.float16:
        return [block.astype(np.float32, order="C") for block in piece]
    return piece


# ---------------------------------------------------------------------- memory of states


class Lease:
    """Memory of an array that goes back to `_free` when the array is no more.

    The states of a running reduction come and go by the megabyte, and memory fresh from the
    system costs a page fault for every 4 KB: 60 sums of 8 MB took 148 ms with it and 51 without.
    """

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.memory = memory
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data, False),
            "version": 3,
        }

    def __del__(self) -> None:
        if self.memory.nbytes <= LARGEST_LEASE:
            _free.append(self.memory)


# What the last few states left, 64 MB at the most: one that is not used again soon is pushed out
# by others.
LARGEST_LEASE = 16 << 20
_free: deque[np.ndarray] = deque(maxlen=4)


def _taken(nbytes: int) -> np.ndarray:
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:  # another thread was faster
            break
        if memory.nbytes == nbytes:
            return memory
        _free.append(memory)
    return np.empty(nbytes, np.uint8)


def leased(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array in recycled memory."""
    dtype = np.dtype(dtype)
    memory = _taken(int(np.prod(shape)) * dtype.itemsize)
    return np.asarray(Lease(memory, shape, dtype))


def leased_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an array of zeros in recycled memory."""
    array = leased(shape, dtype)
    array[...] = 0
    return array


# ---------------------------------------------------------------------- extremes


def fold_max(piece: Piece, into: np.ndarray | None) -> np.ndarray:
    """Return the maximum over the frames of a piece and ``into``, which is overwritten."""
    return _fold(_max, piece, into)


def fold_min(piece: Piece, into: np.ndarray | None) -> np.ndarray:
    """Return the minimum over the frames of a piece and ``into``, which is overwritten."""
    return _fold(_min, piece, into)


def _fold(kernel: Callable, piece: Piece, into: np.ndarray | None) -> np.ndarray:
    dtype = piece[0].dtype
    if into is None:
        into = leased(piece[0].shape[1:], dtype)
        into[...] = piece[0][0]
    frames = plain(piece)
    if dtype == np.float16:
        wide = into.astype(np.float32)
        kernel(addresses(frames), wide.reshape(-1))
        into[...] = wide
    else:
        kernel(addresses(frames), into.reshape(-1).view(frames[0].dtype))
    return into


@compiled
def larger(x, y):
    """Return the larger one, NaN if either is."""
    return x if x > y or x != x else y


@compiled
def smaller(x, y):
    """Return the smaller one, NaN if either is."""
    return x if x < y or x != x else y


@compiled
def _max(addresses, out):
    n = addresses.size
    for first in range(0, out.size, LONG_TILE):
        o = out[first : first + LONG_TILE]
        for f in range(0, n - 3, 4):
            a = view(addresses[f], out, first, o.size)
            b = view(addresses[f + 1], out, first, o.size)
            c = view(addresses[f + 2], out, first, o.size)
            d = view(addresses[f + 3], out, first, o.size)
            for p in range(o.size):
                o[p] = larger(larger(a[p], b[p]), larger(larger(c[p], d[p]), o[p]))
        for f in range(n - n % 4, n):
            a = view(addresses[f], out, first, o.size)
            for p in range(o.size):
                o[p] = larger(a[p], o[p])


@compiled
def _min(addresses, out):
    n = addresses.size
    for first in range(0, out.size, LONG_TILE):
        o = out[first : first + LONG_TILE]
        for f in range(0, n - 3, 4):
            a = view(addresses[f], out, first, o.size)
            b = view(addresses[f + 1], out, first, o.size)
            c = view(addresses[f + 2], out, first, o.size)
            d = view(addresses[f + 3], out, first, o.size)
            for p in range(o.size):
                o[p] = smaller(smaller(a[p], b[p]), smaller(smaller(c[p], d[p]), o[p]))
        for f in range(n - n % 4, n):
            a = view(addresses[f], out, first, o.size)
            for p in range(o.size):
                o[p] = smaller(a[p], o[p])


# ---------------------------------------------------------------------- sums


def add_integers(piece: Piece, into: np.ndarray) -> None:
    """Add frames of at most 32 bits to exact sums of 64 bits (or of 32, where they are enough)."""
    frames = plain(piece)
    like = np.empty(1, frames[0].dtype)
    if like.itemsize == 4:
        _add_wide(addresses(frames), like, into.reshape(-1))
        return
    every = addresses(frames)
    accumulator = np.empty(TILE, np.uint32 if like.dtype.kind == "u" else np.int32)
    for start in range(0, every.size, FRAMES_IN_32_BITS):
        part = every[start : start + FRAMES_IN_32_BITS]
        _add_narrow(part, like, accumulator, into.reshape(-1))


@compiled
def _add_narrow(addresses, like, accumulator, out):
    n, wide = addresses.size, accumulator.dtype.type
    for first in range(0, out.size, TILE):
        o = out[first : first + TILE]
        s = accumulator[: o.size]
        s[:] = 0
        for f in range(0, n - 3, 4):
            a = view(addresses[f], like, first, o.size)
            b = view(addresses[f + 1], like, first, o.size)
            c = view(addresses[f + 2], like, first, o.size)
            d = view(addresses[f + 3], like, first, o.size)
            for p in range(o.size):
                # Casts keep numba from widening to 64 bits.
                s[p] += wide(wide(a[p]) + wide(b[p])) + wide(wide(c[p]) + wide(d[p]))
        for f in range(n - n % 4, n):
            a = view(addresses[f], like, first, o.size)
            for p in range(o.size):
                s[p] += wide(a[p])
        for p in range(o.size):
            o[p] += s[p]


@compiled
def _add_wide(addresses, like, out):
    n, wide = addresses.size, out.dtype.type
    for first in range(0, out.size, TILE):
        o = out[first : first + TILE]
        for f in range(0, n - 3, 4):
            a = view(addresses[f], like, first, o.size)
            b = view(addresses[f + 1], like, first, o.size)
            c = view(addresses[f + 2], like, first, o.size)
            d = view(addresses[f + 3], like, first, o.size)
            for p in range(o.size):
                o[p] += wide(a[p]) + wide(b[p]) + wide(c[p]) + wide(d[p])
        for f in range(n - n % 4, n):
            a = view(addresses[f], like, first, o.size)
            for p in range(o.size):
                o[p] += wide(a[p])


def add_limbs(piece: Piece, low: np.ndarray, high: np.ndarray) -> None:
    """Add 64-bit integers in two parts: their lower 32 bits and the signed or unsigned rest.

    Neither sum can overflow before 2^32 frames.
    """
    _add_limbs(addresses(piece), low.reshape(-1), high.reshape(-1))


@compiled
def _add_limbs(addresses, low, high):
    mask, half = high.dtype.type(0xFFFFFFFF), high.dtype.type(32)
    for first in range(0, low.size, TILE):
        lo = low[first : first + TILE]
        hi = high[first : first + TILE]
        for f in range(addresses.size):
            x = view(addresses[f], high, first, lo.size)
            for p in range(lo.size):
                lo[p] += np.uint64(x[p] & mask)
                hi[p] += x[p] >> half


def add_floats(piece: Piece, total: np.ndarray, rest: np.ndarray) -> None:
    """Add floats to the unevaluated sum ``total + rest`` of two float64.

    The rounding error of every addition is found exactly and summed as well.
    """
    frames = plain(piece)
    like = np.empty(1, frames[0].dtype)
    _add_floats(addresses(frames), like, total.reshape(-1), rest.reshape(-1))


@compiled
def two_sum(a, b):
    """Return a + b rounded, and the rounding error.

    D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)


@compiled
def _add_floats(addresses, like, total, rest):
    for first in range(0, total.size, TILE):
        t = total[first : first + TILE]
        r = rest[first : first + TILE]
        for f in range(addresses.size):
            x = view(addresses[f], like, first, t.size)
            for p in range(t.size):
                s, e = two_sum(t[p], np.float64(x[p]))
                t[p] = s
                r[p] += e


def combine_sums(a: np.ndarray, rest_a: np.ndarray, b: np.ndarray, rest_b: np.ndarray) -> tuple:
    """Return ``(a + rest_a) + (b + rest_b)`` as such a sum of two float64."""
    total, rest = leased(a.shape, a.dtype), leased(a.shape, a.dtype)
    terms = (array.reshape(-1) for array in (a, rest_a, b, rest_b, total, rest))
    _combine_sums(*terms)
    return total, rest


@compiled
def _combine_sums(a, rest_a, b, rest_b, total, rest):
    for p in range(total.size):
        s, e = two_sum(a[p], b[p])
        total[p] = s
        rest[p] = rest_a[p] + rest_b[p] + e


def divide(total: np.ndarray, count: float, out: np.ndarray) -> None:
    """Write sums divided in float64, rounded once, into an image of float32 or float64."""
    _divide_all(total.reshape(-1), count, out.reshape(-1))


@compiled
def _divide_all(total, count, out):
    for p in range(out.size):
        out[p] = np.float64(total[p]) / count


# ---------------------------------------------------------------------- moments


def add_squares(piece: Piece, into: np.ndarray, squares: np.ndarray) -> None:
    """Add frames of at most 16 bits, and their squares, to exact sums of 64 bits."""
    frames = plain(piece)
    every = addresses(frames)
    like = np.empty(1, frames[0].dtype)
    accumulator = np.empty(TILE, np.uint32 if like.dtype.kind == "u" else np.int32)
    for start in range(0, every.size, FRAMES_IN_32_BITS):
        part = every[start : start + FRAMES_IN_32_BITS]
        _add_squares(part, like, accumulator, into.reshape(-1), squares.reshape(-1))


@compiled
def _add_squares(addresses, like, accumulator, out, squares):
    n, narrow, wide = addresses.size, accumulator.dtype.type, squares.dtype.type
    for first in range(0, out.size, TILE):
        o = out[first : first + TILE]
        q = squares[first : first + TILE]
        s = accumulator[: o.size]
        s[:] = 0
        for f in range(0, n - 3, 4):
            a = view(addresses[f], like, first, o.size)
            b = view(addresses[f + 1], like, first, o.size)
            c = view(addresses[f + 2], like, first, o.size)
            d = view(addresses[f + 3], like, first, o.size)
            for p in range(o.size):
                w, x, y, z = narrow(a[p]), narrow(b[p]), narrow(c[p]), narrow(d[p])
                s[p] += narrow(narrow(w + x) + narrow(y + z))
                # A square of 16 bits fits into 32, the sum of two may not.
                q[p] += wide(wide(np.uint32(w * w)) + wide(np.uint32(x * x))) + wide(
                    wide(np.uint32(y * y)) + wide(np.uint32(z * z))
                )
        for f in range(n - n % 4, n):
            a = view(addresses[f], like, first, o.size)
            for p in range(o.size):
                w = narrow(a[p])
                s[p] += w
                q[p] += wide(np.uint32(w * w))
        for p in range(o.size):
            o[p] += s[p]


def variance(
    sums: np.ndarray, squares: np.ndarray, count: int, ddof: float, root: bool, out: np.ndarray
) -> None:
    """Write the variance, or its root, from exact sums and sums of squares.

    Below 2^53 / count^2 it is the exact fraction, rounded once (and once more to float32).
    """
    _variance(sums.reshape(-1), squares.reshape(-1), count, count - ddof, root, out.reshape(-1))


@compiled
def _variance(sums, squares, n, freedom, root, out):
    count = np.float64(n)
    for p in range(out.size):
        s = np.int64(sums[p])
        # Squares are moved to the integer next to the mean, where they are small and exact.
        middle = np.int64(np.rint(np.float64(s) / count))
        r = s - middle * n
        m = np.int64(squares[p]) - middle * (s + r)
        if np.float64(m) * count < 2.0**53:
            v = np.float64(m * n - r * r) / (count * freedom)
        else:
            v = (np.float64(m) - np.float64(r) * np.float64(r) / count) / freedom
        out[p] = np.sqrt(v) if root else v


def block_moments(piece: Piece) -> np.ndarray:
    """Return mean and sum of squared deviations of a piece, each as two float64.

    Deviations are taken from the piece's own mean, and all of it is carried in pairs of float64,
    so that it hardly matters how a series is cut into pieces.

    Returns
    -------
    ndarray
        (4, rows, cols): mean, rest of the mean, squared deviations, rest of these.
    """
    frames = plain(piece)
    shape = frames[0].shape[1:]
    state = leased_zeros((4, *shape), np.float64)
    _block_moments(addresses(frames), np.empty(1, frames[0].dtype), *state.reshape(4, -1))
    return state


def merge_moments(a: np.ndarray, b: np.ndarray, na: int, nb: int) -> np.ndarray:
    """Return the moments of two runs of ``na`` and ``nb`` frames together.

    T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The
    American Statistician 37 (1983) 242-247, in pairs of float64.
    """
    out = leased(a.shape, a.dtype)
    _merge_moments(a.reshape(4, -1), b.reshape(4, -1), float(na), float(nb), out.reshape(4, -1))
    return out


@compiled
def two_product(a, b):
    """Return a * b rounded, and the rounding error.

    T. J. Dekker, A floating-point technique for extending the available precision, Numerische
    Mathematik 18 (1971) 224-242. The error is left out where splitting would overflow.
    """
    p = a * b
    t = 134217729.0 * a
    ah = t - (t - a)
    u = 134217729.0 * b
    bh = u - (u - b)
    al, bl = a - ah, b - bh
    e = ((ah * bh - p) + ah * bl + al * bh) + al * bl
    return p, e if e == e else 0.0


@compiled
def _block_moments(addresses, like, mean, mean_rest, squares, squares_rest):
    n = addresses.size
    count = np.float64(n)
    for first in range(0, mean.size, TILE // 8):
        m = mean[first : first + TILE // 8]
        r = mean_rest[first : first + TILE // 8]
        q = squares[first : first + TILE // 8]
        e = squares_rest[first : first + TILE // 8]
        for f in range(n):
            x = view(addresses[f], like, first, m.size)
            for p in range(m.size):
                high, low = _as_pair(x[p])
                s, error = two_sum(m[p], high)
                m[p] = s
                r[p] += error + low
        for p in range(m.size):
            m[p], r[p] = _divide(m[p], r[p], count)
        for f in range(n):
            x = view(addresses[f], like, first, m.size)
            for p in range(m.size):
                high, low = _as_pair(x[p])
                d, error = two_sum(high, -m[p])
                d, low = two_sum(d, error + (low - r[p]))
                square, rest = two_product(d, d)
                s, lost = two_sum(q[p], square)
                q[p] = s
                e[p] += lost + (rest + 2.0 * d * low)


def _as_pair(x):
    """Return a value as two float64 whose sum it is exactly."""
    raise NotImplementedError("only compiled code calls this")


@overload(_as_pair)
def _overload_as_pair(x):
    if isinstance(x, types.Integer) and x.bitwidth == 64:
        return lambda x: (np.float64(x >> 32) * 4294967296.0, np.float64(x & 0xFFFFFFFF))
    return lambda x: (np.float64(x), 0.0)


@compiled
def _divide(a, rest, n):
    """Return (a + rest) / n as two float64."""
    quotient = a / n
    p, e = two_product(quotient, n)
    return two_sum(quotient, ((a - p) - e + rest) / n)


@compiled
def _merge_moments(a, b, na, nb, out):
    """Merge (mean, rest, squares, rest) of two runs of frames, pixel by pixel."""
    n = na + nb
    for p in range(out.shape[1]):
        d, error = two_sum(b[0, p], -a[0, p])
        d, low = two_sum(d, error + (b[1, p] - a[1, p]))
        # d * nb / n, where nb / n itself would be rounded.
        step, rest = two_product(d, nb)
        step, rest = _divide(step, rest + low * nb, n)
        s, lost = two_sum(a[0, p], step)
        out[0, p], out[1, p] = two_sum(s, lost + (rest + a[1, p]))
        square, rest = two_product(d, d)
        rest += 2.0 * d * low
        term, more = two_product(square, na * nb)
        term, more = _divide(term, more + rest * (na * nb), n)
        s, lost = two_sum(a[2, p], b[2, p])
        t, again = two_sum(s, term)
        out[2, p], out[3, p] = two_sum(t, lost + again + more + (a[3, p] + b[3, p]))


# ---------------------------------------------------------------------- order statistics


def order_statistics(piece: Piece, ranks: Sequence[int]) -> np.ndarray:
    """Return the values of the given ranks (0 is the smallest) at each pixel.

    Every value is first turned into an unsigned key of the same order. In a tile of pixels, a
    sample of frames tells where the keys of a pixel lie; 8 bits around there are cut out of all
    frames, and the wanted one of them is found bit by bit: each bit counts the frames that are
    below a trial value, one compare and one add per frame, without a branch. Where the keys
    spread further than 8 bits, the next 7 follow in a further round. A pixel that the sample was
    wrong about is done alone, or the tile from the top bits on if there are many.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    ranks : sequence of int
        In rising order.

    Returns
    -------
    ndarray
        (ranks, rows, cols) of the frames' dtype; a pixel with a NaN in any frame is NaN.
    """
    dtype = piece[0].dtype
    unsigned = np.dtype(f"u{dtype.itemsize}")
    rows, cols = piece[0].shape[1:]
    frames = [block.view(unsigned) for block in piece]
    every = addresses(frames)
    out = np.empty((len(ranks), rows * cols), unsigned)
    missing = np.zeros(rows * cols if dtype.kind == "f" else 0, np.bool_)
    tile = np.empty((_tile_blocks(every.size, rows * cols), every.size, BLOCK), np.uint8)
    sign = unsigned.type(1 << (8 * dtype.itemsize - 1))
    none = unsigned.type(0)
    if dtype.kind == "f":
        infinity = np.array(np.inf, dtype).view(unsigned)[()]
        _find_missing(every, out[0], infinity, unsigned.type(sign - 1), missing)
    flip = none if dtype.kind in "ub" else sign
    _select(every, np.array(ranks), flip, dtype.kind == "f", tile, out)
    values = _values(out, dtype, sign)
    if missing.any():
        values[:, missing] = np.nan
    return values.reshape(len(ranks), rows, cols)


def _tile_blocks(nframes: int, pixels: int) -> int:
    """Return how many blocks make a tile."""
    most = max(1, min(LARGEST_TILE // BLOCK, TILE_NBYTES // (BLOCK * nframes)))
    return min(most, -(-pixels // BLOCK))


def _values(keys: np.ndarray, dtype: np.dtype, sign: np.unsignedinteger) -> np.ndarray:
    """Turn keys back into values."""
    if dtype.kind == "i":
        keys ^= sign
    elif dtype.kind == "f":
        negative = keys < sign
        keys ^= sign
        keys[negative] ^= ~sign
    return keys.view(dtype)


@compiled
def _find_missing(addresses, like, infinity, magnitude, missing):
    """Mark the pixels that have a NaN in any frame, by their bits."""
    for first in range(0, missing.size, TILE):
        m = missing[first : first + TILE]
        for f in range(addresses.size):
            x = view(addresses[f], like, first, m.size)
            for p in range(m.size):
                m[p] |= (x[p] & magnitude) > infinity


@compiled
def _select(addresses, ranks, flip, floating, tile, out):
    """Fill out (ranks, pixels) with keys, tile by tile."""
    n, size = addresses.size, tile.shape[0] * BLOCK
    like = out[0]
    sample = np.empty((SAMPLE, size), like.dtype)
    keys = np.empty(size, like.dtype)
    base = np.empty(size, like.dtype)
    found = np.empty(tile.shape[0] * BLOCK, np.uint8)
    wrong = np.empty(size, np.bool_)
    single = np.empty(n, like.dtype)
    for first in range(0, like.size, size):
        g = min(size, like.size - first)
        k, b, w = keys[:g], base[:g], wrong[:g]
        spread = _sample(addresses, first, flip, floating, sample[:, :g])
        searched, bits = -2, MOST_BITS
        for r in range(ranks.size):
            o = out[r, first : first + g]
            if ranks[r] == searched + 1:
                below = out[r - 1, first : first + g]
                _follow(
                    addresses, first, ranks[r], flip, floating, bits, below, k, b, found, tile, o
                )
            else:
                guess = sample[ranks[r] * SAMPLE // n, :g]
                w[:] = False
                bits = _find(
                    addresses, first, ranks[r], flip, floating, guess, spread, k, b, found, w, tile
                )
                for p in range(g):
                    o[p] = b[p] + like.dtype.type(found[p])
                searched = ranks[r]
            for p in range(g):
                if w[p]:
                    o[p] = _alone(addresses, first + p, ranks[r], flip, floating, single)


@compiled
def _keys(x, flip, floating, out):
    """Turn the bits of values into unsigned integers of the same order.

    That is the bits with the sign flipped; of negative floats, whose magnitude runs the other
    way, all bits flipped.
    """
    cast = out.dtype.type
    if floating:
        top = cast(8 * out.itemsize - 1)
        for p in range(out.size):
            negative = cast(cast(0) - cast(x[p] >> top))
            out[p] = x[p] ^ cast(negative | flip)
    else:
        for p in range(out.size):
            out[p] = x[p] ^ flip


@compiled
def _sample(addresses, first, flip, floating, sample):
    """Sort the keys of a few frames at each pixel; return how far the middle six lie apart."""
    n, g = addresses.size, sample.shape[1]
    for j in range(SAMPLE):
        s = sample[j]
        x = view(addresses[(2 * j + 1) * n // (2 * SAMPLE)], s, first, g)
        _keys(x, flip, floating, s)
    for i, j in NETWORK:
        low, high = sample[i], sample[j]
        for p in range(g):
            a, b = low[p], high[p]
            low[p], high[p] = min(a, b), max(a, b)
    spread = 0.0
    low, high = sample[1], sample[SAMPLE - 2]
    for p in range(g):
        spread += np.float64(high[p] - low[p])
    return spread / g


@compiled
def _find(addresses, first, rank, flip, floating, guess, spread, keys, base, found, wrong, tile):
    """Find the keys of a rank, as ``base + found``, in rounds of up to 8 and then 7 bits each."""
    cast, g = base.dtype.type, base.size
    widest = 8 * base.itemsize - MOST_BITS
    shift, bits = 0, LEAST_BITS if widest else MOST_BITS
    while MARGIN * spread > np.float64(((1 << (bits - 1)) - 1) << shift) and shift < widest:
        if bits < MOST_BITS:
            bits += 1
        else:
            shift += 1
    while True:
        # All top bits leave nothing to guess; less might not hold the key.
        certain = shift == widest and bits == MOST_BITS
        half = cast(cast((1 << (bits - 1)) - 1) << cast(shift))
        for p in range(g):
            base[p] = cast(0) if certain else cast(max(guess[p], half) - half)
        _cut(addresses, first, flip, floating, shift, bits, keys, base, tile)
        _descend(tile, rank, bits, found)
        bad, last = 0, (1 << bits) - 1
        for p in range(g):
            wrong[p] = not certain and (found[p] == last or (found[p] == 0 and base[p] > 0))
            bad += wrong[p]
        if bad * 16 <= g:
            break
        shift, bits = widest, MOST_BITS
    while shift:
        for p in range(g):
            base[p] += cast(cast(found[p]) << cast(shift))
        shift, bits = max(0, shift - 7), MOST_BITS
        _cut(addresses, first, flip, floating, shift, bits, keys, base, tile)
        _descend(tile, rank, bits, found)
    return bits


@compiled
def _cut(addresses, first, flip, floating, shift, bits, keys, base, tile):
    """Fill the tile with a few bits of every key: (key - base) >> shift, from 0 to 2^bits - 1."""
    g, cast = base.size, base.dtype.type
    zero = cast(0)
    for f in range(addresses.size):
        x = view(addresses[f], base, first, g)
        turn = flip
        if floating:
            _keys(x, flip, True, keys)
            x, turn = keys, zero
        for block in range((g + BLOCK - 1) // BLOCK):
            start = block * BLOCK
            stop = start + BLOCK
            _cut_block(x[start:stop], turn, base[start:stop], shift, bits, tile[block, f])


@compiled
def _cut_block(x, flip, base, shift, bits, out):
    # The casts keep numba from widening to 64 bits.
    cast = base.dtype.type
    last = cast((1 << bits) - 1)
    places = cast(shift & (8 * base.itemsize - 1))
    if shift == 0:
        for p in range(x.size):
            k = cast(x[p] ^ flip)
            out[p] = np.uint8(min(cast(max(k, base[p]) - base[p]), last))
    else:
        for p in range(x.size):
            k = cast(x[p] ^ flip)
            out[p] = np.uint8(min(cast(cast(max(k, base[p]) - base[p]) >> places), last))


@compiled
def _descend(tile, rank, bits, found):
    """Find the largest value that at most ``rank`` frames are below, bit by bit."""
    trial = np.empty(BLOCK, np.uint8)
    below = np.empty(BLOCK, np.int32)
    few = np.empty(BLOCK, np.uint8)
    for block in range(found.size // BLOCK):
        v = found[block * BLOCK : (block + 1) * BLOCK]
        v[:] = 0
        for place in range(bits - 1, -1, -1):
            for p in range(BLOCK):
                trial[p] = v[p] | np.uint8(1 << place)
            _count_below(tile[block], trial, few, below)
            for p in range(BLOCK):
                if below[p] <= rank:
                    v[p] = trial[p]


@compiled
def _count_below(frames, trial, few, below):
    """Count the frames below a trial value, in 8 bits for up to 252 frames at a time."""
    n, one = frames.shape[0], np.uint8
    below[:] = 0
    for start in range(0, n, 252):
        stop = min(n, start + 252)
        few[:] = 0
        for f in range(start, stop - 3, 4):
            a, b, c, d = frames[f], frames[f + 1], frames[f + 2], frames[f + 3]
            for p in range(BLOCK):
                t = trial[p]
                few[p] += one(one(a[p] < t) + one(b[p] < t)) + one(one(c[p] < t) + one(d[p] < t))
        for f in range(stop - (stop - start) % 4, stop):
            a = frames[f]
            for p in range(BLOCK):
                few[p] += one(a[p] < trial[p])
        for p in range(BLOCK):
            below[p] += few[p]


@compiled
def _follow(addresses, first, rank, flip, floating, bits, below, keys, base, found, tile, out):
    """Find the keys of a rank after those of the rank before, ``below``, were found."""
    g = out.size
    lacking, last = False, np.uint8((1 << bits) - 1)
    upto = np.empty(BLOCK, np.int32)
    few = np.empty(BLOCK, np.uint8)
    above = np.empty(BLOCK, np.uint8)
    for start in range(0, g, BLOCK):
        v = found[start : start + BLOCK]
        _next_in_tile(tile[start // BLOCK], v, few, upto, above)
        for p in range(min(BLOCK, g - start)):
            if upto[p] > rank:
                out[start + p] = below[start + p]
            elif above[p] < last:
                out[start + p] = base[start + p] + base.dtype.type(above[p])
            else:
                lacking = True
                out[start + p] = ~base.dtype.type(0)
                # What is larger than the tile's range is looked for in the frames themselves.
                v[p] = LACKING
    if lacking:
        _next_in_frames(addresses, first, flip, floating, below, keys, found, out)


@compiled
def _next_in_tile(frames, found, few, upto, above):
    """Count the frames up to the found value, and find the least of those above it."""
    n, one, last = frames.shape[0], np.uint8, np.uint8(LACKING)
    upto[:] = 0
    above[:] = last
    for start in range(0, n, 252):
        few[:] = 0
        for f in range(start, min(n, start + 252)):
            a = frames[f]
            for p in range(BLOCK):
                few[p] += one(a[p] <= found[p])
                above[p] = min(above[p], a[p] if a[p] > found[p] else last)
        for p in range(BLOCK):
            upto[p] += few[p]


@compiled
def _next_in_frames(addresses, first, flip, floating, below, keys, found, out):
    """Find the least key above ``below`` for the pixels that are marked as lacking one."""
    least = np.empty(out.size, out.dtype)
    most = ~out.dtype.type(0)
    least[:] = most
    for f in range(addresses.size):
        _keys(view(addresses[f], out, first, out.size), flip, floating, keys)
        for p in range(out.size):
            k = keys[p]
            least[p] = min(least[p], k if k > below[p] else most)
    for p in range(out.size):
        if found[p] == LACKING:
            out[p] = least[p]


@compiled
def _alone(addresses, pixel, rank, flip, floating, keys):
    """Find the key of a rank at one pixel, bit by bit."""
    cast, n = keys.dtype.type, addresses.size
    for f in range(n):
        keys[f] = view(addresses[f], keys, pixel, 1)[0]
    _keys(keys, flip, floating, keys)
    value = cast(0)
    for place in range(8 * keys.itemsize - 1, -1, -1):
        trial = cast(value | cast(cast(1) << cast(place)))
        count = 0
        for f in range(n):
            count += keys[f] < trial
        if count <= rank:
            value = trial
    return value
