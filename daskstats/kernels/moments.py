"""Mean and squared deviations: exact sums for small integers, pairs of float64 for floats."""

import numpy as np

from .extremes import larger, smaller
from .frames import (
    FRAMES_IN_32_BITS,
    STRETCH,
    TILE,
    Piece,
    addresses,
    aligned,
    at,
    part_of,
    plain,
    pooled,
    pooled_zeros,
    prefetch_frames,
    view,
)
from .jit import by_type, compiled, dividing, inlined, internal
from .limbs import about_mean, is_exact, limb_variance
from .sums import two_sum
from .validity import (
    PADDING,
    Valid,
    begin,
    count_valid,
    counted,
    counts,
    end,
    note,
    pick,
    rules_of,
    runs,
    take,
    take_four,
)

# Pixels whose sums are turned into limbs at once: 1.5 MB.
WIDE_PIXELS = 1 << 16


class Squares:
    """Exact sums of 64 bits of frames of at most 16 bits, and of their squares.

    ``fresh`` sums and extremes are begun by the first run; before that there may be anything in
    them. Extremes are folded into ``top`` and ``bottom`` at the same time, where given: with the
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
        self._frames = frames = plain(piece)
        like = np.empty(1, frames[0].dtype)
        high, low = (None if e is None else e.view(like.dtype).reshape(-1) for e in (top, bottom))
        tile = aligned((3, TILE + PADDING), np.uint32)
        signed = tile[0].view(np.uint32 if like.dtype.kind == "u" else np.int32)
        every = addresses(frames)
        rules = rules_of(valid, every.size)
        sums = into.reshape(-1), squares.reshape(-1)
        self._into = like, tile, signed, *sums, high, low, rules
        self._parts = list(runs(every, valid, FRAMES_IN_32_BITS))
        self._fresh = fresh

    def of_tiles(self) -> tuple | None:
        """Return what `squares_of_tile` needs, if these are fresh sums of all values."""
        *into, high, low, rules = self._into
        if rules is not None or not self._fresh or len(self._parts) != 1:
            return None
        # Code is compiled for both extremes, which it finds anyway.
        extremes = (pooled(into[3].shape, into[0].dtype) if e is None else e for e in (high, low))
        return self._parts[0], *into, *extremes

    def run(self, first: int, last: int) -> None:
        """Add the pixels from ``first`` to ``last - 1`` of all frames of the piece."""
        for number, part in enumerate(self._parts):
            _add_squares(part, *self._into, self._fresh and number == 0, first, last)


@compiled
def _add_squares(addresses, like, tile, signed, out, squares, high, low, rules, fresh, start, stop):
    """Add sums of 32 bits for each tile: of values, of squares, and of the upper half of these.

    The sum of squares may overflow; what of it is not in the other one is below 2^32. With 32 bits
    twice as many values are worked on at once as with 64.
    """
    n, step = addresses.size, STRETCH // like.itemsize
    for first in range(start, stop, TILE):
        o = part_of(out, first, min(TILE, stop - first))
        q = part_of(squares, first, o.size)
        tops, bottoms = part_of(high, first, o.size), part_of(low, first, o.size)
        if fresh:
            o[:] = 0
            q[:] = 0
            x = view(addresses[0], like, first, o.size)
            for p in range(o.size):
                if high is not None:
                    tops[p] = x[p]
                if low is not None:
                    bottoms[p] = x[p]
        sums, wrapped = part_of(tile[0], 0, o.size), part_of(tile[1], 0, o.size)
        uppers = part_of(tile[2], 0, o.size)
        for p in range(o.size):
            sums[p] = wrapped[p] = uppers[p] = 0
        few = begin(rules, o.size)
        # Eight frames at once: sums are read and written for each group, and would take half of
        # the time for four.
        for f in range(0, n - 7, 8):
            for begun in range(0, o.size, step):
                m = min(step, o.size - begun)
                prefetch_frames(addresses, f, 8, like, first + begun)
                first_four = take_four(addresses, f, like, first + begun, m, rules, 0)
                last_four = take_four(addresses, f + 4, like, first + begun, m, rules, 4)
                three = (
                    part_of(sums, begun, m),
                    part_of(wrapped, begun, m),
                    part_of(uppers, begun, m),
                )
                two = part_of(tops, begun, m), part_of(bottoms, begun, m)
                _add_eight_squares(
                    *first_four, *last_four, *three, *two, part_of(few, begun, m), rules
                )
        for f in range(n - n % 8, n):
            a = take(addresses[f], like, first, o.size, rules, 0)
            for p in range(o.size):
                if high is not None:
                    tops[p] = larger(a[p], tops[p])
                if low is not None:
                    bottoms[p] = smaller(a[p], bottoms[p])
                note(rules, few, p, a[p])
                w = np.uint32(pick(a[p], rules))
                sums[p] = plus(sums[p], w)
                w = square(w)
                wrapped[p] = plus(wrapped[p], w)
                uppers[p] = plus(uppers[p], upper(w))
        for p in range(o.size):
            o[p] += signed[p]
            above = np.uint64(uppers[p]) << np.uint64(16)
            q[p] += above + np.uint64(np.uint32(wrapped[p] - np.uint32(above)))
        end(rules, first, few)


@inlined
def _add_eight_squares(a, b, c, d, e, g, h, i, sums, wrapped, uppers, tops, bottoms, few, rules):
    for p in range(sums.size):
        if tops is not None:
            most = larger(larger(a[p], b[p]), larger(c[p], d[p]))
            more = larger(larger(e[p], g[p]), larger(h[p], i[p]))
            tops[p] = larger(larger(most, more), tops[p])
        if bottoms is not None:
            least = smaller(smaller(a[p], b[p]), smaller(c[p], d[p]))
            less = smaller(smaller(e[p], g[p]), smaller(h[p], i[p]))
            bottoms[p] = smaller(smaller(least, less), bottoms[p])
        note(rules, few, p, a[p], b[p], c[p], d[p])
        note(rules, few, p, e[p], g[p], h[p], i[p])
        r, t = np.uint32(pick(a[p], rules)), np.uint32(pick(b[p], rules))
        u, v = np.uint32(pick(c[p], rules)), np.uint32(pick(d[p], rules))
        w, x = np.uint32(pick(e[p], rules)), np.uint32(pick(g[p], rules))
        y, z = np.uint32(pick(h[p], rules)), np.uint32(pick(i[p], rules))
        sums[p] = plus(sums[p], plus(four(r, t, u, v), four(w, x, y, z)))
        r, t, u, v = square(r), square(t), square(u), square(v)
        w, x, y, z = square(w), square(x), square(y), square(z)
        wrapped[p] = plus(wrapped[p], plus(four(r, t, u, v), four(w, x, y, z)))
        r, t, u, v = upper(r), upper(t), upper(u), upper(v)
        w, x, y, z = upper(w), upper(x), upper(y), upper(z)
        uppers[p] = plus(uppers[p], plus(four(r, t, u, v), four(w, x, y, z)))


@internal
def plus(a, b):
    """Add in 32 bits: numba would widen to 64."""
    return np.uint32(a + b)


@internal
def four(a, b, c, d):
    """Add four in 32 bits."""
    return plus(plus(a, b), plus(c, d))


@internal
def square(value):
    """Return the square of a value of 16 bits, which fits into 32."""
    return np.uint32(value * value)


@internal
def upper(value):
    """Return the upper 16 of 32 bits."""
    return np.uint32(value >> np.uint32(16))


def variance(
    sums: np.ndarray,
    squares: np.ndarray,
    count: int | np.ndarray,
    ddof: float,
    root: bool,
    out: np.ndarray,
) -> None:
    """Write the variance, or its root, from exact sums and sums of squares.

    It is the exact fraction, rounded once (and once more to float32), for a whole ``ddof``.
    ``count`` is a number, or one for each pixel; where it is not above ``ddof``, NaN is written.
    """
    sums, squares, image = sums.reshape(-1), squares.reshape(-1), out.reshape(-1)
    n = count if isinstance(count, int) else count.reshape(-1)
    if not _variance(sums, squares, n, ddof, root, image):
        return
    # Some pixels need more than 64 bits, which few series have.
    for first in range(0, image.size, WIDE_PIXELS):
        some = slice(first, first + WIDE_PIXELS)
        limbs = np.zeros((3, image[some].size), np.uint64)
        limbs[0], limbs[1] = sums[some].astype(np.int64).view(np.uint64), squares[some]
        limb_variance(limbs, n if isinstance(n, int) else n[some], ddof, root, image[some])


@dividing
def _variance(sums, squares, counts, ddof, root, out):
    """Write variances, and return how many are not exact."""
    others = 0
    for p in range(out.size):
        n = np.int64(at(counts, p))
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

    Deviations are taken from the piece's own mean, and all of it is carried in pairs of float64,
    so that it hardly matters how a series is cut into pieces.

    Returns
    -------
    ndarray
        (4, rows, cols): mean, rest of the mean, squared deviations, rest of these.
    """
    frames = plain(piece)
    shape = frames[0].shape[1:]
    state = pooled_zeros((4, *shape), np.float64)
    like = np.empty(1, frames[0].dtype)
    every = addresses(frames)
    if valid is not None:
        count_valid(piece, valid)
    if valid is None or not valid.arcs:
        _block_moments(every, like, every.size, *state.reshape(4, -1), None)
    else:
        _block_moments(every, like, valid.counts, *state.reshape(4, -1), valid.rules())
    return state


def merge_moments(
    a: np.ndarray, b: np.ndarray, na: int | np.ndarray, nb: int | np.ndarray
) -> np.ndarray:
    """Return the moments of two runs of ``na`` and ``nb`` frames together.

    T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The
    American Statistician 37 (1983) 242-247, in pairs of float64. The numbers are for all pixels
    or for each of them; where either is 0, the other run's moments are the result.
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
def _block_moments(addresses, like, counts, mean, mean_rest, squares, squares_rest, rules):
    n = addresses.size
    for first in range(0, mean.size, TILE // 8):
        m = mean[first : first + TILE // 8]
        r = mean_rest[first : first + TILE // 8]
        q = squares[first : first + TILE // 8]
        e = squares_rest[first : first + TILE // 8]
        for f in range(n):
            x = take(addresses[f], like, first, m.size, rules, 0)
            for p in range(m.size):
                s, error = two_sum(m[p], np.float64(pick(x[p], rules)))
                m[p] = s
                r[p] += error
        for p in range(m.size):
            m[p], r[p] = _divide(m[p], r[p], max(1.0, np.float64(at(counts, first + p))))
        for f in range(n):
            x = take(addresses[f], like, first, m.size, rules, 0)
            for p in range(m.size):
                d, error = two_sum(np.float64(x[p]), -m[p])
                d, low = two_sum(d, error - r[p])
                square, rest = two_product(d, d)
                rest += 2.0 * d * low
                s, lost = two_sum(q[p], counted(x[p], square, rules))
                q[p] = s
                e[p] += lost + counted(x[p], rest, rules)
        for p in range(m.size if may_overflow(like) else 0):
            if not np.isfinite(q[p]):
                value = _constant(addresses, like, first + p, rules)
                if np.isfinite(value):
                    m[p], r[p], q[p], e[p] = value, 0.0, 0.0, 0.0


@by_type
def may_overflow(like):
    """Whether a sum, or a square, of values of the dtype may be too large for float64."""
    large = like.dtype.bitwidth == 64
    return lambda like: large


@internal
def _constant(addresses, like, pixel, rules):
    """Return the value that a pixel has in every frame that counts; NaN if it changes."""
    value, seen = np.nan, False
    for f in range(addresses.size):
        x = take(addresses[f], like, pixel, 1, rules, 0)[0]
        if counts(x, rules):
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
        na, nb = at(every_na, p), at(every_nb, p)
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
