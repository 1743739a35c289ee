"""Mean and squared deviations: exact sums for small integers, pairs of float64 for floats."""

from typing import NamedTuple

import numpy as np

from .extremes import fold_extreme
from .fold import count_valid
from .frames import (
    FRAMES_IN_32_BITS,
    LINE,
    LONG_TILE,
    SHORT_TILE,
    STRETCH,
    TILE,
    Frames,
    Piece,
    aligned,
    count_frames,
    frames_of,
    part_of,
    plain,
    pooled,
    pooled_zeros,
    prefetch_frames,
    value_at,
    view,
)
from .jit import by_type, compiled, inlined, internal
from .limbs import about_mean, is_exact, limb_variance
from .sums import two_sum
from .validity import (
    Valid,
    count_values,
    flush_counts,
    frame_runs,
    is_valid,
    load,
    load_four,
    select,
    select_term,
    start_counts,
)


class SquareSums(NamedTuple):
    """The arrays that `Squares` adds to."""

    sums: np.ndarray
    """int64, or uint64 for frames without a sign"""
    squares: np.ndarray
    """uint64"""
    high: np.ndarray | None
    """maxima"""
    low: np.ndarray | None
    """minima"""
    room: np.ndarray
    """(3, pixels) uint32: partial sums of a tile"""
    signed: np.ndarray
    """the first of these rows, with the sign of the frames"""


class Squares:
    """Exact sums of 64 bits of frames of at most 16 bits, and of their squares.

    The first run overwrites ``fresh`` sums and extremes, which may be uninitialised. Extremes are
    folded into ``top`` and ``bottom`` at the same time, where given, if all values count: with the
    maximum 27 ms instead of 53 for frames in the outer cache.
    """

    def __init__(
        self,
        piece: Piece,
        into: np.ndarray,
        squares: np.ndarray,
        valid: Valid | None = None,
        top: np.ndarray | None = None,
        bottom: np.ndarray | None = None,
        fresh: bool = False,
    ) -> None:
        self._frames = plain(piece)  # they outlive their addresses
        self._runs = list(frame_runs(self._frames, valid, most=FRAMES_IN_32_BITS))
        dtype, self._fresh = self._frames[0].dtype, fresh
        high, low = (None if e is None else e.view(dtype).reshape(-1) for e in (top, bottom))
        # A few pixels between the rows, which would share a few places of each cache otherwise.
        room = aligned((3, TILE + LINE // 2), np.uint32)
        signed = room[0].view(np.uint32 if dtype.kind == "u" else np.int32)
        sums = into.reshape(-1), squares.reshape(-1)
        self._into = SquareSums(*sums, high, low, room, signed)

    def of_tiles(self) -> tuple[Frames, SquareSums] | None:
        """Return the arguments of `squares_of_tile`, if these are fresh sums of all values."""
        if self._runs[0].test is not None or not self._fresh or len(self._runs) != 1:
            return None
        # Code is compiled for both extremes, which it finds anyway.
        shape, dtype = self._into.squares.shape, self._frames[0].dtype
        high, low = (
            pooled(shape, dtype) if each is None else each
            for each in (self._into.high, self._into.low)
        )
        return self._runs[0], self._into._replace(high=high, low=low)

    def run(self, first: int, last: int) -> None:
        """Add the pixels from ``first`` to ``last - 1`` of all frames of the piece."""
        for number, frames in enumerate(self._runs):
            add_squares(frames, self._into, self._fresh and number == 0, first, last)


@compiled
def add_squares(frames, into, fresh, start, stop):
    """Add sums of 32 bits for each tile: of values, of squares, and of the upper half of these.

    The sum of squares may overflow; its difference from that of the upper halves is below 2^32.
    With 32 bits twice as many values are added at once as with 64.
    """
    test, n = frames.test, frames.addresses.size
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        out, squares = part_of(into.sums, first, size), part_of(into.squares, first, size)
        high, low = part_of(into.high, first, size), part_of(into.low, first, size)
        if fresh:
            x = view(frames.addresses[0], frames.like, first, size)
            _start_squares(x, out, squares, high, low)
        sums, wrapped = part_of(into.room[0], 0, size), part_of(into.room[1], 0, size)
        uppers = part_of(into.room[2], 0, size)
        for p in range(size):
            sums[p] = wrapped[p] = uppers[p] = 0
        counts = start_counts(test, size)
        tile = sums, wrapped, uppers, high, low
        # Eight frames at once: sums are read and written for each group, and would take half of
        # the time for four.
        for f in range(0, n - 7, 8):
            _add_eight_frames(frames, f, first, tile, counts)
        for f in range(n - n % 8, n):
            _add_frame(load(frames, f, first, size, 0), tile, counts, test)
        for p in range(size):
            out[p] += into.signed[p]
            above = np.uint64(uppers[p]) << np.uint64(16)
            squares[p] += above + np.uint64(np.uint32(wrapped[p] - np.uint32(above)))
        flush_counts(test, first, counts)


@inlined
def _start_squares(x, sums, squares, high, low):
    for p in range(x.size):
        sums[p] = squares[p] = 0
    if high is not None:
        for p in range(x.size):
            high[p] = x[p]
    if low is not None:
        for p in range(x.size):
            low[p] = x[p]


@inlined
def _add_eight_frames(frames, f, first, tile, counts):
    size, step = tile[0].size, STRETCH // frames.like.itemsize
    for start in range(0, size, step):
        count = min(step, size - start)
        prefetch_frames(frames, f, 8, first + start)
        one = load_four(frames, f, first + start, count, 0)
        two = load_four(frames, f + 4, first + start, count, 4)
        part = part_of(tile, start, count)
        _add_eight(one, two, part, part_of(counts, start, count), frames.test)


@inlined
def _add_eight(one, two, tile, counts, test):
    (a, b, c, d), (e, f, g, h) = one, two
    sums, wrapped, uppers, high, low = tile
    for p in range(a.size):
        fold_extreme(high, None, p, a[p], b[p], c[p], d[p])
        fold_extreme(high, None, p, e[p], f[p], g[p], h[p])
        fold_extreme(low, True, p, a[p], b[p], c[p], d[p])
        fold_extreme(low, True, p, e[p], f[p], g[p], h[p])
        count_values(test, counts, p, a[p], b[p], c[p], d[p])
        count_values(test, counts, p, e[p], f[p], g[p], h[p])
        w, x, y, z = select(a[p], test), select(b[p], test), select(c[p], test), select(d[p], test)
        first = _squares_of_four(w, x, y, z)
        w, x, y, z = select(e[p], test), select(f[p], test), select(g[p], test), select(h[p], test)
        last = _squares_of_four(w, x, y, z)
        sums[p] = _plus(sums[p], _plus(first[0], last[0]))
        wrapped[p] = _plus(wrapped[p], _plus(first[1], last[1]))
        uppers[p] = _plus(uppers[p], _plus(first[2], last[2]))


@inlined
def _add_frame(a, tile, counts, test):
    sums, wrapped, uppers, high, low = tile
    for p in range(a.size):
        fold_extreme(high, None, p, a[p], a[p], a[p], a[p])
        fold_extreme(low, True, p, a[p], a[p], a[p], a[p])
        count_values(test, counts, p, a[p])
        x = select(a[p], test)
        found = _squares_of_four(x, 0, 0, 0)
        sums[p], wrapped[p] = _plus(sums[p], found[0]), _plus(wrapped[p], found[1])
        uppers[p] = _plus(uppers[p], found[2])


@inlined
def _squares_of_four(a, b, c, d):
    """Return the sums of values, of their squares, and of the upper 16 bits of these."""
    w, x, y, z = np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)
    total = _four(w, x, y, z)
    w, x, y, z = np.uint32(w * w), np.uint32(x * x), np.uint32(y * y), np.uint32(z * z)
    half = np.uint32(16)
    return total, _four(w, x, y, z), _four(w >> half, x >> half, y >> half, z >> half)


@internal
def _plus(a, b):
    """Add in 32 bits: numba would widen to 64."""
    return np.uint32(a + b)


@internal
def _four(a, b, c, d):
    """Add four in 32 bits."""
    return _plus(_plus(a, b), _plus(c, d))


def variance(
    sums: np.ndarray,
    squares: np.ndarray,
    count: int | np.ndarray,
    ddof: float,
    root: bool,
    out: np.ndarray,
) -> None:
    """Write the variance, or its root, from exact sums and sums of squares.

    For a whole ``ddof`` it is the exact fraction, rounded once (and once more to float32).
    ``count`` is a number, or one for each pixel; where it is not above ``ddof``, NaN is written.
    """
    sums, squares, image = sums.reshape(-1), squares.reshape(-1), out.reshape(-1)
    n = count if isinstance(count, int) else count.reshape(-1)
    if not _variance(sums, squares, n, ddof, root, image):
        return
    # Some pixels need more than 64 bits: a case of few series.
    for first in range(0, image.size, LONG_TILE):
        some = slice(first, first + LONG_TILE)
        limbs = np.zeros((3, image[some].size), np.uint64)
        limbs[0], limbs[1] = sums[some].astype(np.int64).view(np.uint64), squares[some]
        limb_variance(limbs, n if isinstance(n, int) else n[some], ddof, root, image[some])


@compiled
def _variance(sums, squares, counts, ddof, root, out):
    """Write variances, and return the number of those that are not exact."""
    others = 0
    for p in range(out.size):
        n = np.int64(value_at(counts, p))
        count = np.float64(n)
        freedom = count - ddof
        # Squares are moved to an integer near the mean, where they are small and exact.
        m, r = about_mean(np.int64(sums[p]), np.int64(squares[p]), n)
        others += not is_exact(m, n)
        v = np.float64(m * n - r * r) / (count * freedom)
        v = v if freedom > 0 else np.nan
        out[p] = np.sqrt(v) if root else v
    return others


def block_moments(piece: Piece, valid: Valid | None = None) -> np.ndarray:
    """Return mean and sum of squared deviations of a piece, each as two float64.

    Deviations are from the mean of the piece, and all numbers pairs of float64, so that the result
    hardly depends on how a series is cut into pieces.

    Returns
    -------
    ndarray
        (4, rows, cols): mean, rest of the mean, squared deviations, rest of these.
    """
    frames = plain(piece)
    state = pooled_zeros((4, *frames[0].shape[1:]), np.float64)
    test = None
    counts: int | np.ndarray = count_frames(frames)
    if valid is not None:
        count_valid(piece, valid)
        if valid.key_ranges:
            test, counts = valid.test(), valid.counts
    _block_moments(frames_of(frames, test), counts, tuple(state.reshape(4, -1)))
    return state


def merge_moments(
    a: np.ndarray, b: np.ndarray, na: int | np.ndarray, nb: int | np.ndarray
) -> np.ndarray:
    """Return the moments of two runs of ``na`` and ``nb`` frames combined.

    T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The
    American Statistician 37 (1983) 242-247, in pairs of float64. The numbers are for all pixels
    or for each pixel; where either is 0, the other run's moments are the result.
    """
    out = pooled(a.shape, a.dtype)
    counts = [float(n) if isinstance(n, int) else n.astype("f8").reshape(-1) for n in (na, nb)]
    _merge_moments(a.reshape(4, -1), b.reshape(4, -1), *counts, out.reshape(4, -1))
    return out


@internal
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
def _block_moments(frames, counts, state):
    n, test = frames.addresses.size, frames.test
    for first in range(0, state[0].size, SHORT_TILE):
        m, r, q, e = part_of(state, first, min(SHORT_TILE, state[0].size - first))
        for f in range(n):
            x = load(frames, f, first, m.size, 0)
            for p in range(m.size):
                m[p], error = two_sum(m[p], np.float64(select(x[p], test)))
                r[p] += error
        for p in range(m.size):
            m[p], r[p] = _divide(m[p], r[p], max(1.0, np.float64(value_at(counts, first + p))))
        for f in range(n):
            x = load(frames, f, first, m.size, 0)
            for p in range(m.size):
                d, error = two_sum(np.float64(x[p]), -m[p])
                d, low = two_sum(d, error - r[p])
                square, rest = two_product(d, d)
                rest += 2.0 * d * low
                q[p], lost = two_sum(q[p], select_term(x[p], square, test))
                e[p] += lost + select_term(x[p], rest, test)
        for p in range(m.size if may_overflow(frames.like) else 0):
            if not np.isfinite(q[p]):
                value = _constant(frames, first + p)
                if np.isfinite(value):
                    m[p], r[p], q[p], e[p] = value, 0.0, 0.0, 0.0


@by_type
def may_overflow(like):
    """Whether sums or squares of values of the dtype may be too large for float64."""
    large = like.dtype.bitwidth == 64
    return lambda like: large


@internal
def _constant(frames, pixel):
    """Return the value of a pixel if all its valid values are equal, else NaN."""
    value, seen = np.nan, False
    for f in range(frames.addresses.size):
        x = load(frames, f, pixel, 1, 0)[0]
        if is_valid(x, frames.test):
            if seen and value != x:
                return np.nan
            value, seen = np.float64(x), True
    return value


@internal
def _divide(a, rest, n):
    """Return (a + rest) / n as two float64."""
    quotient = a / n
    p, e = two_product(quotient, n)
    return two_sum(quotient, ((a - p) - e + rest) / n)


@compiled
def _merge_moments(a, b, every_na, every_nb, out):
    """Merge (mean, rest, squares, rest) of two runs of frames, pixel by pixel."""
    for p in range(out.shape[1]):
        na, nb = value_at(every_na, p), value_at(every_nb, p)
        if na == 0 or nb == 0:
            for k in range(4):
                out[k, p] = b[k, p] if na == 0 else a[k, p]
            continue
        n = na + nb
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
